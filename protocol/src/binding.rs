//! Key bindings: which keys speak for a machine, and from which position of each log on.
//!
//! Owns the layout of a binding, the texts that the identity key and the owner sign, and the chain of bindings
//! ([`BindingChain`]). It never asks a clock: a feed key is good for log positions, not for times.
//!
//! # Layout (version 1)
//!
//! | offset | bytes | field |
//! |---|---|---|
//! | 0 | 1 | version, 1 |
//! | 1 | 20 | machine: address of its DID |
//! | 21 | 8 | serial, exactly one more than the binding before |
//! | 29 | 32 | hash of the binding before; zeros for serial 0 |
//! | 61 | 4 | incarnation, never falls |
//! | 65 | 20 | owner: address of its DID |
//! | 85 | 32 | owner's X25519 key |
//! | 117 | 32 | feed key (Ed25519) |
//! | 149 | 32 | encryption key (X25519) |
//! | 181 | 8 | issued, ms since 1970 |
//! | 189 | 8 | expires, ms since 1970; at most 90 days after `issued` |
//! | 197 | 1 | number of node keys, at most 8 |
//! | 198 | 32 each | node keys (Ed25519), all different |
//! | .. | 1 | number of positions, at most 160 |
//! | .. | 72 each | positions, ascending by log: log (32), from_seq (8), prev_entry_hash (32) |
//!
//! Numbers are big endian. The hash of a binding is BLAKE3 in key derivation mode over exactly these bytes. Signed form
//! (version 1): `version (1) || length (u16) || binding || identity signature (65) || 0` for serial 0, and
//! `... || 1 || owner signature (65)` for every later one.
//!
//! # What is signed
//!
//! Both keys sign (EIP-191, `personal_sign`) a text that a person can read in a wallet, see [`Binding::signing_text`]. It
//! starts with `Tributary binding v1`, and contains the hash of the bytes, so it stands for all of them.
//!
//! # Positions
//!
//! A binding lists every log of the machine that it means to keep: the new feed key takes over log `log` at `from_seq`, and
//! `prev_entry_hash` is the hash of the entry just before. A log that is not listed did not exist: it is as if it were listed
//! with `from_seq` 0. If the incarnation rises, the listed logs are those of the incarnation before: they are closed at
//! `from_seq`, and entry 0 of the log's new incarnation names `prev_entry_hash` as its predecessor.

pub mod chain;

use crate::{
    entry::layout::{LayoutError, Reader, put_block},
    identity::{IdentityKey, recover_eip191},
    ids::{Did, Hash, LogId},
    keys::{EncryptionPublicKey, FeedPublicKey},
};

pub use chain::{BindingChain, ChainError, Pin, Reign};

/// A binding lives at most this long: 90 days, in milliseconds.
pub const MAX_LIFE_MS: u64 = 90 * 24 * 60 * 60 * 1000;
/// At most this many node keys in a binding.
pub const MAX_NODE_KEYS: usize = 8;
/// At most this many positions in a binding, and so logs of a machine in one incarnation.
pub const MAX_POSITIONS: usize = 160;
/// Length of an EIP-191 signature: r, s, v.
pub const IDENTITY_SIGNATURE_LEN: usize = 65;

const VERSION: u8 = 1;
const FIXED: usize = 199;
const POSITION_LEN: usize = 72;
/// The longest binding in bytes.
pub const MAX_BINDING_LEN: usize = FIXED + MAX_NODE_KEYS * 32 + MAX_POSITIONS * POSITION_LEN;
/// The longest signed binding in bytes.
pub const MAX_SIGNED_BINDING_LEN: usize = 4 + MAX_BINDING_LEN + 2 * IDENTITY_SIGNATURE_LEN;

/// Why a binding is not one.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum BindingError {
    /// The bytes are not a binding.
    #[error("not a key binding")]
    Layout(#[from] LayoutError),
    /// The identity key of the machine did not sign it.
    #[error("binding {serial} of {did} is not signed by that machine's identity key; get it from another peer")]
    IdentitySignature {
        /// The machine.
        did: Did,
        /// Serial of the binding.
        serial: u64,
    },
    /// The owner's signature is missing, or there is one where none belongs.
    #[error("binding {serial} of {did} {problem}")]
    OwnerSignatureForm {
        /// The machine.
        did: Did,
        /// Serial of the binding.
        serial: u64,
        /// What is wrong.
        problem: &'static str,
    },
    /// The owner named by the binding before did not sign it.
    #[error("binding {serial} of {did} is not signed by its owner {owner}; have the owner sign it")]
    OwnerSignature {
        /// The machine.
        did: Did,
        /// Serial of the binding.
        serial: u64,
        /// Who should have signed.
        owner: Did,
    },
}

fn invalid(what: &'static str, reason: &'static str) -> BindingError {
    BindingError::Layout(LayoutError::Value { what, reason })
}

/// Where a feed key takes over a log.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct LogPosition {
    /// The log.
    pub log: LogId,
    /// The first position of the new key.
    pub from_seq: u64,
    /// Hash of the entry at `from_seq - 1`; for `from_seq` 0 what entry 0 names as its predecessor.
    pub prev_entry_hash: Hash,
}

/// The keys that speak for a machine, as one value. See the [module](self) for the layout.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Binding {
    /// The machine.
    pub did: Did,
    /// Number of the binding: 0, 1, 2, ...
    pub serial: u64,
    /// Hash of the binding before; zeros for serial 0.
    pub prev: Hash,
    /// How often the machine was restored or cloned.
    pub incarnation: u32,
    /// The owner: co-signs the next binding. Never the machine itself.
    pub owner_id: Did,
    /// What epoch seeds are sealed to.
    pub owner_enc: EncryptionPublicKey,
    /// Signs entries, heads, quotes and grants.
    pub feed_key: FeedPublicKey,
    /// What is addressed to this machine is sealed to it.
    pub encryption_key: EncryptionPublicKey,
    /// The libp2p Ed25519 keys of the machine's nodes.
    pub node_keys: Vec<[u8; 32]>,
    /// When it was made, ms since 1970.
    pub issued_ms: u64,
    /// When it becomes stale, ms since 1970.
    pub expires_ms: u64,
    /// Where the feed key takes over, ascending by log.
    pub positions: Vec<LogPosition>,
}

/// Whose signature a text asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// The identity key of the machine.
    Machine,
    /// The owner.
    Owner,
}

impl Binding {
    /// Checks everything about the value that does not need the binding before.
    ///
    /// # Errors
    ///
    /// Names the field that is out of range.
    pub fn check(&self) -> Result<(), BindingError> {
        if (self.serial == 0) != (self.prev == Hash::ZERO) {
            return Err(invalid("previous binding", "zeros belong to serial 0, and only there"));
        }
        if self.owner_id == self.did {
            return Err(invalid("owner", "a machine cannot own itself; name another key with --owner"));
        }
        if !self.feed_key.is_usable() {
            return Err(invalid("feed key", "not a usable Ed25519 key"));
        }
        match self.expires_ms.checked_sub(self.issued_ms) {
            Some(1..=MAX_LIFE_MS) => {}
            _ => return Err(invalid("expiry", "must be after the issue, and at most 90 days after it")),
        }
        if self.node_keys.len() > MAX_NODE_KEYS {
            let found = self.node_keys.len();
            return Err(LayoutError::TooLong { what: "node keys", found, limit: MAX_NODE_KEYS }.into());
        }
        if (1..self.node_keys.len()).any(|i| self.node_keys[..i].contains(&self.node_keys[i])) {
            return Err(invalid("node keys", "one key stands there twice"));
        }
        if self.positions.len() > MAX_POSITIONS {
            let found = self.positions.len();
            return Err(LayoutError::TooLong { what: "positions", found, limit: MAX_POSITIONS }.into());
        }
        if !self.positions.is_sorted_by(|a, b| a.log < b.log) {
            return Err(invalid("positions", "must ascend by log, each log once"));
        }
        if self.serial == 0 && !self.positions.is_empty() {
            return Err(invalid("positions", "the first binding has no log to take over"));
        }
        if self.positions.iter().any(|p| p.from_seq > 0 && p.prev_entry_hash == Hash::ZERO) {
            return Err(invalid("positions", "a position above 0 names the entry before it"));
        }
        Ok(())
    }

    /// The bytes of the binding: what is hashed, and through the hash signed.
    ///
    /// # Errors
    ///
    /// As [`Binding::check`].
    pub fn encode(&self) -> Result<Vec<u8>, BindingError> {
        self.check()?;
        let mut out = Vec::with_capacity(FIXED + self.node_keys.len() * 32 + self.positions.len() * POSITION_LEN);
        out.push(VERSION);
        out.extend_from_slice(self.did.as_bytes());
        out.extend_from_slice(&self.serial.to_be_bytes());
        out.extend_from_slice(self.prev.as_bytes());
        out.extend_from_slice(&self.incarnation.to_be_bytes());
        out.extend_from_slice(self.owner_id.as_bytes());
        out.extend_from_slice(self.owner_enc.as_bytes());
        out.extend_from_slice(self.feed_key.as_bytes());
        out.extend_from_slice(self.encryption_key.as_bytes());
        out.extend_from_slice(&self.issued_ms.to_be_bytes());
        out.extend_from_slice(&self.expires_ms.to_be_bytes());
        out.push(u8::try_from(self.node_keys.len()).expect("checked: at most 8"));
        for key in &self.node_keys {
            out.extend_from_slice(key);
        }
        out.push(u8::try_from(self.positions.len()).expect("checked: at most 160"));
        for position in &self.positions {
            out.extend_from_slice(position.log.as_bytes());
            out.extend_from_slice(&position.from_seq.to_be_bytes());
            out.extend_from_slice(position.prev_entry_hash.as_bytes());
        }
        Ok(out)
    }

    /// Reads the bytes of a binding. Says nothing about who signed it.
    ///
    /// # Errors
    ///
    /// [`BindingError::Layout`] for anything but one whole, valid binding.
    pub fn decode(bytes: &[u8]) -> Result<Self, BindingError> {
        let mut r = Reader::new(bytes);
        r.version(VERSION, "key binding")?;
        let mut binding = Self {
            did: Did::from_bytes(r.array("machine")?),
            serial: r.u64("serial")?,
            prev: r.hash("previous binding")?,
            incarnation: r.u32("incarnation")?,
            owner_id: Did::from_bytes(r.array("owner")?),
            owner_enc: EncryptionPublicKey::from_bytes(r.array("owner's encryption key")?),
            feed_key: FeedPublicKey::from_bytes(r.array("feed key")?),
            encryption_key: EncryptionPublicKey::from_bytes(r.array("encryption key")?),
            issued_ms: r.u64("issued")?,
            expires_ms: r.u64("expires")?,
            node_keys: Vec::new(),
            positions: Vec::new(),
        };
        let count = usize::from(r.u8("node keys")?);
        if count > MAX_NODE_KEYS {
            return Err(LayoutError::TooLong { what: "node keys", found: count, limit: MAX_NODE_KEYS }.into());
        }
        for _ in 0..count {
            binding.node_keys.push(r.array("node keys")?);
        }
        let count = usize::from(r.u8("positions")?);
        if count > MAX_POSITIONS {
            return Err(LayoutError::TooLong { what: "positions", found: count, limit: MAX_POSITIONS }.into());
        }
        if r.remaining() != count * POSITION_LEN {
            return Err(invalid("positions", "their number does not match the length"));
        }
        for _ in 0..count {
            binding.positions.push(LogPosition {
                log: LogId::from_bytes(r.array("log")?),
                from_seq: r.u64("from_seq")?,
                prev_entry_hash: r.hash("previous entry")?,
            });
        }
        r.finish("key binding")?;
        binding.check()?;
        Ok(binding)
    }

    /// The hash that the next binding names, of the bytes of [`Binding::encode`].
    #[must_use]
    pub fn hash_of(bytes: &[u8]) -> Hash {
        Hash::derive("tributary 2026 key binding", bytes)
    }

    /// The text that `role` signs (EIP-191) for this binding, whose bytes have the hash `hash`. One line each, `\n` between:
    ///
    /// ```text
    /// Tributary binding v1
    /// role: machine | owner
    /// machine: did:peaq:0x...
    /// serial: 3
    /// incarnation: 0
    /// owner: did:peaq:0x...
    /// feed key: <64 hex>
    /// expires: <ms since 1970>
    /// binding: <64 hex>
    /// ```
    #[must_use]
    pub fn signing_text(&self, hash: &Hash, role: Role) -> String {
        let role = match role {
            Role::Machine => "machine",
            Role::Owner => "owner",
        };
        format!(
            "Tributary binding v1\nrole: {role}\nmachine: {}\nserial: {}\nincarnation: {}\nowner: {}\nfeed key: {}\n\
             expires: {}\nbinding: {hash}",
            self.did, self.serial, self.incarnation, self.owner_id, self.feed_key, self.expires_ms
        )
    }

    /// Where the key takes over `log`, as listed; `None` for a log that is not.
    #[must_use]
    pub fn position(&self, log: &LogId) -> Option<&LogPosition> {
        let at = self.positions.binary_search_by(|p| p.log.cmp(log)).ok()?;
        self.positions.get(at)
    }

    /// Whether the binding is past its life at `now_ms`: a warning to people, never a verdict on an entry.
    #[must_use]
    pub fn is_stale_at(&self, now_ms: u64) -> bool {
        now_ms >= self.expires_ms
    }
}

/// A binding as it travels: the bytes that were signed, and the signatures.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SignedBinding {
    bytes: Vec<u8>,
    binding: Binding,
    hash: Hash,
    identity_sig: [u8; IDENTITY_SIGNATURE_LEN],
    owner_sig: Option<[u8; IDENTITY_SIGNATURE_LEN]>,
}

impl SignedBinding {
    /// Signs a binding with the identity key; from serial 1 on it counts only after [`SignedBinding::co_sign`].
    ///
    /// # Errors
    ///
    /// As [`Binding::check`], or when `identity` is not the machine's.
    pub fn sign(binding: Binding, identity: &IdentityKey) -> Result<Self, BindingError> {
        if identity.did() != binding.did {
            return Err(BindingError::IdentitySignature { did: binding.did, serial: binding.serial });
        }
        let bytes = binding.encode()?;
        let hash = Binding::hash_of(&bytes);
        let identity_sig = identity.sign_eip191(binding.signing_text(&hash, Role::Machine).as_bytes());
        Ok(Self { bytes, binding, hash, identity_sig, owner_sig: None })
    }

    /// Adds the signature of the owner that the binding *before* names.
    #[must_use]
    pub fn co_sign(self, owner: &IdentityKey) -> Self {
        let text = self.binding.signing_text(&self.hash, Role::Owner);
        let signature = owner.sign_eip191(text.as_bytes());
        self.with_owner_signature(signature)
    }

    /// Adds an owner's signature that was made elsewhere, over [`Binding::signing_text`].
    #[must_use]
    pub fn with_owner_signature(mut self, signature: [u8; IDENTITY_SIGNATURE_LEN]) -> Self {
        self.owner_sig = Some(signature);
        self
    }

    /// The binding.
    #[must_use]
    pub fn binding(&self) -> &Binding {
        &self.binding
    }

    /// The signed bytes.
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// The hash of the signed bytes: what the next binding names, and what stands in the signed text.
    #[must_use]
    pub fn hash(&self) -> Hash {
        self.hash
    }

    /// The bytes and the signatures, as they travel.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(self.bytes.len() + 4 + 2 * IDENTITY_SIGNATURE_LEN);
        out.push(VERSION);
        put_block(&mut out, &self.bytes);
        out.extend_from_slice(&self.identity_sig);
        out.push(u8::from(self.owner_sig.is_some()));
        if let Some(signature) = &self.owner_sig {
            out.extend_from_slice(signature);
        }
        out
    }

    /// Reads the form of [`SignedBinding::encode`]. Says nothing about the signatures: see [`BindingChain`].
    ///
    /// # Errors
    ///
    /// [`BindingError::Layout`] for anything but one whole binding with its signatures.
    pub fn decode(bytes: &[u8]) -> Result<Self, BindingError> {
        let mut r = Reader::new(bytes);
        r.version(VERSION, "signed binding")?;
        let inner = r.block(MAX_BINDING_LEN, "key binding")?;
        let identity_sig = r.array("identity signature")?;
        let owner_sig = if r.flag("owner signature")? { Some(r.array("owner signature")?) } else { None };
        r.finish("signed binding")?;
        let binding = Binding::decode(inner)?;
        Ok(Self { hash: Binding::hash_of(inner), bytes: inner.to_vec(), binding, identity_sig, owner_sig })
    }

    /// Whether it carries an owner's signature. Says nothing about whose: see [`SignedBinding::verify`].
    #[must_use]
    pub fn has_owner_signature(&self) -> bool {
        self.owner_sig.is_some()
    }

    /// Checks the machine's own signature only: what an owner checks before co-signing.
    ///
    /// # Errors
    ///
    /// [`BindingError::IdentitySignature`].
    pub fn verify_machine(&self) -> Result<(), BindingError> {
        let (did, serial) = (self.binding.did, self.binding.serial);
        let text = self.binding.signing_text(&self.hash, Role::Machine);
        match recover_eip191(text.as_bytes(), &self.identity_sig) {
            Ok(found) if found == did => Ok(()),
            _ => Err(BindingError::IdentitySignature { did, serial }),
        }
    }

    /// Checks the signatures: the machine's own, and from serial 1 on that of `owner`, the owner the binding before names.
    ///
    /// # Errors
    ///
    /// Says which signature is missing, too many, or not by whom it should be.
    pub fn verify(&self, owner: Option<&Did>) -> Result<(), BindingError> {
        let (did, serial) = (self.binding.did, self.binding.serial);
        self.verify_machine()?;
        let form = |problem| BindingError::OwnerSignatureForm { did, serial, problem };
        match (serial, owner, &self.owner_sig) {
            (0, None, None) => Ok(()),
            (0, _, _) => Err(form("is the first: it names the owner, and carries no owner signature")),
            (_, None, _) | (_, _, None) => Err(form("needs the signature of the owner named before it")),
            (_, Some(owner), Some(signature)) => {
                let text = self.binding.signing_text(&self.hash, Role::Owner);
                match recover_eip191(text.as_bytes(), signature) {
                    Ok(found) if found == *owner => Ok(()),
                    _ => Err(BindingError::OwnerSignature { did, serial, owner: *owner }),
                }
            }
        }
    }
}

#[cfg(test)]
mod tests;
