//! Grants: the chunk keys of one range of one stream and key epoch, sealed to one buyer.
//!
//! # Header (version 1), 281 bytes
//!
//! | offset | bytes | field |
//! |---|---|---|
//! | 0 | 1 | version, 1 |
//! | 1 | 32 | grant id |
//! | 33 | 32 | request id |
//! | 65 | 20 | machine |
//! | 85 | 32 | stream |
//! | 117 | 8 | key epoch |
//! | 125 | 8 | first position |
//! | 133 | 8 | last position, included |
//! | 141 | 20 | buyer |
//! | 161 | 32 | buyer's X25519 key |
//! | 193 | 32 | terms hash, see [`super::Quote::terms_hash`] |
//! | 225 | 8 | issued, ms since 1970 |
//! | 233 | 8 | expires, ms since 1970: until when the grant can be opened |
//! | 241 | 8 | serial of the binding whose keys sign it |
//! | 249 | 32 | cover hash: [`Cover::hash`] |
//!
//! # Grant (version 1)
//!
//! `version (1) || header (281) || issuer (1) || signature || HPKE enc (32) || length (u16) || ciphertext`. Issuer 1: the feed
//! key, an Ed25519 signature (64) in the context `tributary/grant/1`. Issuer 2: the owner, an EIP-191 signature (65) over
//! [`GrantHeader::owner_text`], which starts with `Tributary grant v1`.
//!
//! The ciphertext is HPKE (see [`super::sealing`]) of [`Cover::encode`] with `info` = `tributary/grant/1` || BLAKE3(header).
//! What is signed is `header || enc || BLAKE3(ciphertext)`: so the buyer can prove a grant that does not open to the keys its
//! header promises, and no relay or mirror can make an honest one look like that.

use rand_core::CryptoRng;

use super::{
    sealing::{self, Sealed, SealingError, TAG_LEN},
    selection::read_position,
};
use crate::{
    binding::{Binding, BindingChain, IDENTITY_SIGNATURE_LEN},
    entry::layout::{LayoutError, Reader, put_block},
    identity::{IdentityKey, recover_eip191},
    ids::{Did, Hash, StreamId},
    keys::{Context, EncryptionKey, EncryptionPublicKey, FeedKey, SIGNATURE_LEN},
    keytree::{Cover, CoverError, Position},
};

const VERSION: u8 = 1;
/// Length of a header in bytes.
pub const HEADER_LEN: usize = 281;
const MAX_CIPHERTEXT: usize = Cover::MAX_LEN + TAG_LEN;
/// The longest grant in bytes.
pub const MAX_GRANT_LEN: usize = 1 + HEADER_LEN + 1 + IDENTITY_SIGNATURE_LEN + 32 + 2 + MAX_CIPHERTEXT;

/// Why a grant is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum GrantError {
    /// Not a grant.
    #[error("not a grant")]
    Layout(#[from] LayoutError),
    /// The range or the keys of the header are not those of the cover.
    #[error("the header promises other keys than the cover holds")]
    Header,
    /// It is another machine's.
    #[error("the grant is for data of {found}, not of {expected}")]
    OtherMachine {
        /// The machine that was asked.
        expected: Did,
        /// The machine in the grant.
        found: Did,
    },
    /// It is signed under another binding.
    #[error("the grant is signed under binding {found} of the machine, not {expected}; check it with that one")]
    OtherBinding {
        /// Serial of the binding at hand.
        expected: u64,
        /// Serial in the grant.
        found: u64,
    },
    /// Neither the feed key nor the owner of that binding signed it.
    #[error("the grant is not signed by the feed key or the owner of {0}; get it from another peer")]
    Signature(Did),
    /// It is for another buyer.
    #[error("the grant is for {found}, not for {expected}")]
    OtherBuyer {
        /// Who opens it.
        expected: Did,
        /// The buyer in the grant.
        found: Did,
    },
    /// It is sealed to another key of the buyer.
    #[error("the grant is sealed to the X25519 key {found}, not to this one; open it with that key")]
    OtherKey {
        /// The key in the grant.
        found: EncryptionPublicKey,
    },
    /// It answers another request.
    #[error("the grant answers request {found}, not this one")]
    OtherRequest {
        /// The request in the grant.
        found: Hash,
    },
    /// It is under other terms than were quoted.
    #[error("the grant is under other terms than were quoted")]
    OtherTerms,
    /// It is for another range.
    #[error("the grant is for another stream, epoch or range than was asked for")]
    OtherRange,
    /// It is over.
    #[error("the grant expired at {expires_ms} ms; ask for a new one")]
    Expired {
        /// When, ms since 1970.
        expires_ms: u64,
    },
    /// Nothing can be sealed to that key, or it does not open.
    #[error("the keys of the grant cannot be sealed or opened")]
    Sealing(#[from] SealingError),
    /// The keys are not the canonical cover of the range.
    #[error("the keys of the grant are not exactly those of its range")]
    Cover(#[from] CoverError),
    /// The keys are not those that the header names.
    #[error("the keys of the grant are not those its header names: the grant proves that its issuer cheats")]
    CoverHash,
}

/// Which keys.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct GrantRange {
    /// The stream.
    pub stream: StreamId,
    /// Its key epoch.
    pub epoch: u64,
    /// The first position.
    pub first: Position,
    /// The last position, included.
    pub last: Position,
}

/// What a grant says in the open.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct GrantHeader {
    /// Its id: random, or derived by the issuer so that issuing twice is issuing once.
    pub grant_id: Hash,
    /// The request that it answers.
    pub request_id: Hash,
    /// The machine.
    pub machine: Did,
    /// Which keys.
    pub range: GrantRange,
    /// The buyer.
    pub buyer: Did,
    /// What it is sealed to.
    pub buyer_enc: EncryptionPublicKey,
    /// What was agreed, see [`super::Quote::terms_hash`].
    pub terms_hash: Hash,
    /// When it was made, ms since 1970.
    pub issued_ms: u64,
    /// Until when it can be opened, ms since 1970. Keys that were opened do not expire.
    pub expires_ms: u64,
    /// Serial of the binding whose feed key or owner signs.
    pub binding_serial: u64,
    /// The hash of the keys.
    pub cover_hash: Hash,
}

impl GrantHeader {
    fn encode(&self) -> [u8; HEADER_LEN] {
        let mut out = Vec::with_capacity(HEADER_LEN);
        out.push(VERSION);
        out.extend_from_slice(self.grant_id.as_bytes());
        out.extend_from_slice(self.request_id.as_bytes());
        out.extend_from_slice(self.machine.as_bytes());
        out.extend_from_slice(self.range.stream.as_bytes());
        out.extend_from_slice(&self.range.epoch.to_be_bytes());
        out.extend_from_slice(&self.range.first.as_u64().to_be_bytes());
        out.extend_from_slice(&self.range.last.as_u64().to_be_bytes());
        out.extend_from_slice(self.buyer.as_bytes());
        out.extend_from_slice(self.buyer_enc.as_bytes());
        out.extend_from_slice(self.terms_hash.as_bytes());
        out.extend_from_slice(&self.issued_ms.to_be_bytes());
        out.extend_from_slice(&self.expires_ms.to_be_bytes());
        out.extend_from_slice(&self.binding_serial.to_be_bytes());
        out.extend_from_slice(self.cover_hash.as_bytes());
        out.try_into().expect("the fields above have 281 bytes")
    }

    fn decode(bytes: &[u8; HEADER_LEN]) -> Result<Self, LayoutError> {
        let mut r = Reader::new(bytes);
        r.version(VERSION, "grant header")?;
        let header = Self {
            grant_id: r.hash("grant id")?,
            request_id: r.hash("request id")?,
            machine: Did::from_bytes(r.array("machine")?),
            range: GrantRange {
                stream: StreamId::from_bytes(r.array("stream")?),
                epoch: r.u64("epoch")?,
                first: read_position(&mut r)?,
                last: read_position(&mut r)?,
            },
            buyer: Did::from_bytes(r.array("buyer")?),
            buyer_enc: EncryptionPublicKey::from_bytes(r.array("buyer's key")?),
            terms_hash: r.hash("terms")?,
            issued_ms: r.u64("issued")?,
            expires_ms: r.u64("expires")?,
            binding_serial: r.u64("binding")?,
            cover_hash: r.hash("cover hash")?,
        };
        r.finish("grant header")?;
        if header.range.first > header.range.last {
            return Err(LayoutError::Value { what: "grant", reason: "its range ends before it begins" });
        }
        Ok(header)
    }

    /// The text that an owner signs (EIP-191) for a grant whose signed bytes have the hash `hash`.
    #[must_use]
    pub fn owner_text(&self, hash: &Hash) -> String {
        format!(
            "Tributary grant v1\nmachine: {}\nbuyer: {}\nstream: {}\nepoch: {}\npositions: {} to {}\ngrant: {hash}",
            self.machine,
            self.buyer,
            self.range.stream,
            self.range.epoch,
            self.range.first.as_u64(),
            self.range.last.as_u64()
        )
    }
}

/// Who issues a grant.
#[derive(Clone, Copy)]
pub enum Issuer<'a> {
    /// The machine.
    Feed(&'a FeedKey),
    /// Its owner.
    Owner(&'a IdentityKey),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Signature {
    Feed([u8; SIGNATURE_LEN]),
    Owner([u8; IDENTITY_SIGNATURE_LEN]),
}

/// What the opener of a grant knows about it already.
#[derive(Clone, Copy)]
pub struct GrantExpectation<'a> {
    /// The machine's binding with the serial that the grant names. On arrival it is that of [`Grant::binding_in`]; a grant that
    /// was kept is checked with the one of its time.
    pub binding: &'a Binding,
    /// The buyer: who opens it.
    pub buyer: Did,
    /// The request it answers.
    pub request_id: Hash,
    /// What was quoted.
    pub terms_hash: Hash,
    /// The range, when it is known beforehand.
    pub range: Option<GrantRange>,
}

/// A sealed grant.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Grant {
    header_bytes: [u8; HEADER_LEN],
    header: GrantHeader,
    signature: Signature,
    enc: [u8; 32],
    ciphertext: Vec<u8>,
}

impl Grant {
    /// Seals `cover` to the buyer that `header` names, and signs.
    ///
    /// # Errors
    ///
    /// [`GrantError::Header`] or [`GrantError::Cover`] when the header is not about this cover, and
    /// [`GrantError::Sealing`] when nothing can be sealed to the buyer's key.
    pub fn issue(
        header: GrantHeader,
        cover: &Cover,
        issuer: Issuer<'_>,
        rng: &mut impl CryptoRng,
    ) -> Result<Self, GrantError> {
        if header.cover_hash != cover.hash() {
            return Err(GrantError::Header);
        }
        cover.verify_canonical(header.range.first..=header.range.last)?;
        Self::issue_bytes(header, &cover.encode(), issuer, rng)
    }

    fn issue_bytes(
        header: GrantHeader,
        cover: &[u8],
        issuer: Issuer<'_>,
        rng: &mut impl CryptoRng,
    ) -> Result<Self, GrantError> {
        let header_bytes = header.encode();
        let Sealed { enc, ciphertext } = sealing::seal(&header.buyer_enc, &info(&header_bytes), cover, rng)?;
        let signed = signed_bytes(&header_bytes, &enc, &ciphertext);
        let signature = match issuer {
            Issuer::Feed(key) => Signature::Feed(key.sign(Context::Grant, &signed)),
            Issuer::Owner(key) => Signature::Owner(key.sign_eip191(header.owner_text(&owner_hash(&signed)).as_bytes())),
        };
        Ok(Self { header_bytes, header, signature, enc, ciphertext })
    }

    /// What it says in the open. Nothing of it is proven before [`Grant::verify`].
    #[must_use]
    pub fn header(&self) -> &GrantHeader {
        &self.header
    }

    /// Whether the owner issued it, not the machine. Not proven before [`Grant::verify`].
    #[must_use]
    pub fn is_by_owner(&self) -> bool {
        matches!(self.signature, Signature::Owner(_))
    }

    /// The binding that a grant is checked with when it arrives: the one it names, if the key that speaks through it is still
    /// the machine's, else the newest one, which refuses it. A binding that was only renewed takes no grant away, and a retired
    /// feed key issues none.
    #[must_use]
    pub fn binding_in<'a>(&self, chain: &'a BindingChain) -> &'a Binding {
        let newest = chain.current();
        let named = chain.get(self.header.binding_serial).filter(|named| match &self.signature {
            Signature::Feed(_) => named.feed_key == newest.feed_key,
            Signature::Owner(_) => named.owner_id == newest.owner_id,
        });
        named.unwrap_or(newest)
    }

    /// The bytes, as they travel.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(MAX_GRANT_LEN);
        out.push(VERSION);
        out.extend_from_slice(&self.header_bytes);
        match &self.signature {
            Signature::Feed(signature) => {
                out.push(1);
                out.extend_from_slice(signature);
            }
            Signature::Owner(signature) => {
                out.push(2);
                out.extend_from_slice(signature);
            }
        }
        out.extend_from_slice(&self.enc);
        put_block(&mut out, &self.ciphertext);
        out
    }

    /// Reads a grant. Checks neither signature nor keys.
    ///
    /// # Errors
    ///
    /// [`GrantError::Layout`] for anything but one whole grant.
    pub fn decode(bytes: &[u8]) -> Result<Self, GrantError> {
        let mut r = Reader::new(bytes);
        r.version(VERSION, "grant")?;
        let header_bytes = r.array("grant header")?;
        let signature = match r.u8("issuer")? {
            1 => Signature::Feed(r.array("signature")?),
            2 => Signature::Owner(r.array("signature")?),
            _ => return Err(LayoutError::Value { what: "issuer", reason: "the machine or its owner" }.into()),
        };
        let enc = r.array("sealed keys")?;
        let ciphertext = r.block(MAX_CIPHERTEXT, "sealed keys")?.to_vec();
        r.finish("grant")?;
        Ok(Self { header: GrantHeader::decode(&header_bytes)?, header_bytes, signature, enc, ciphertext })
    }

    /// Checks that the machine of `binding`, or its owner, issued the grant. This is what a mirror checks that keeps it.
    ///
    /// # Errors
    ///
    /// Says what does not match.
    pub fn verify(&self, binding: &Binding) -> Result<(), GrantError> {
        let header = &self.header;
        if header.machine != binding.did {
            return Err(GrantError::OtherMachine { expected: binding.did, found: header.machine });
        }
        if header.binding_serial != binding.serial {
            return Err(GrantError::OtherBinding { expected: binding.serial, found: header.binding_serial });
        }
        let signed = signed_bytes(&self.header_bytes, &self.enc, &self.ciphertext);
        let good = match &self.signature {
            Signature::Feed(signature) => binding.feed_key.verify(Context::Grant, &signed, signature).is_ok(),
            Signature::Owner(signature) => {
                let text = header.owner_text(&owner_hash(&signed));
                recover_eip191(text.as_bytes(), signature).ok() == Some(binding.owner_id)
            }
        };
        if good { Ok(()) } else { Err(GrantError::Signature(header.machine)) }
    }

    /// Opens a grant: all checks, then the keys.
    ///
    /// # Errors
    ///
    /// Says what does not match. [`GrantError::CoverHash`], [`GrantError::Cover`] and [`GrantError::Sealing`] after everything
    /// else passed mean that the issuer signed junk; the grant is the proof.
    pub fn open(&self, key: &EncryptionKey, expected: &GrantExpectation<'_>, now_ms: u64) -> Result<Cover, GrantError> {
        let header = &self.header;
        self.verify(expected.binding)?;
        if header.buyer != expected.buyer {
            return Err(GrantError::OtherBuyer { expected: expected.buyer, found: header.buyer });
        }
        if header.buyer_enc != key.public() {
            return Err(GrantError::OtherKey { found: header.buyer_enc });
        }
        if header.request_id != expected.request_id {
            return Err(GrantError::OtherRequest { found: header.request_id });
        }
        if header.terms_hash != expected.terms_hash {
            return Err(GrantError::OtherTerms);
        }
        if expected.range.is_some_and(|range| range != header.range) {
            return Err(GrantError::OtherRange);
        }
        if now_ms >= header.expires_ms {
            return Err(GrantError::Expired { expires_ms: header.expires_ms });
        }
        let opened = sealing::open(key, &info(&self.header_bytes), &self.enc, &self.ciphertext)?;
        let cover = Cover::decode(&opened)?;
        cover.verify_canonical(header.range.first..=header.range.last)?;
        if cover.hash() != header.cover_hash {
            return Err(GrantError::CoverHash);
        }
        Ok(cover)
    }
}

fn info(header: &[u8; HEADER_LEN]) -> Vec<u8> {
    let mut info = b"tributary/grant/1".to_vec();
    info.extend_from_slice(Hash::of(header).as_bytes());
    info
}

fn signed_bytes(header: &[u8; HEADER_LEN], enc: &[u8; 32], ciphertext: &[u8]) -> Vec<u8> {
    let mut signed = header.to_vec();
    signed.extend_from_slice(enc);
    signed.extend_from_slice(Hash::of(ciphertext).as_bytes());
    signed
}

fn owner_hash(signed: &[u8]) -> Hash {
    Hash::derive("tributary 2026 grant", signed)
}

#[cfg(test)]
mod tests;
