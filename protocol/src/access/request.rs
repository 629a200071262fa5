//! Access requests: a buyer takes a quote, says what to seal to, and how it was paid.
//!
//! # Layout (version 1)
//!
//! | bytes | field |
//! |---|---|
//! | 1 | version, 1 |
//! | 20 | machine |
//! | 32 | hash of the quote |
//! | 20 | buyer |
//! | 32 | buyer's X25519 key |
//! | 32 | nonce |
//! | 8 | expires, ms since 1970 |
//! | 1 | payment: 0 none, 1 follows |
//! | 2 + n each | chain text(64), transaction text(128) |
//! | 4 | index of the transfer in the transaction |
//! | 20 | payer: address |
//!
//! The id of a request is the BLAKE3 of exactly these bytes. Signed form (version 1): `version (1) || length (u16) || request ||
//! buyer's signature (65) || 0`, or `... || 1 || payer's signature (65)`. ECDSA signatures have more than one form, so they
//! are no part of the id.
//!
//! The buyer's identity key signs (EIP-191) [`AccessRequest::signing_text`], which starts with `Tributary access request v1`.
//! A payer who is not the buyer co-signs [`AccessRequest::payment_text`], which starts with `Tributary payment v1`: who only
//! sees somebody's transaction on the chain cannot claim it.

use super::SignedQuote;
use crate::{
    binding::IDENTITY_SIGNATURE_LEN,
    entry::layout::{LayoutError, Reader, check_text, put_block},
    identity::{IdentityKey, recover_eip191},
    ids::{Did, Hash},
    keys::EncryptionPublicKey,
};

const VERSION: u8 = 1;
/// Longest chain name, in bytes.
pub const MAX_CHAIN: usize = 64;
/// Longest transaction id, in bytes.
pub const MAX_TRANSACTION: usize = 128;
const MAX_REQUEST_LEN: usize = 512;

/// Why a request is refused before anybody decides about it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum RequestError {
    /// Not a request.
    #[error("not an access request")]
    Layout(#[from] LayoutError),
    /// It is for another machine.
    #[error("the request is for {found}, this is {expected}")]
    OtherMachine {
        /// This machine.
        expected: Did,
        /// The machine in the request.
        found: Did,
    },
    /// It names another quote.
    #[error("the request names another quote than the one that came with it")]
    OtherQuote,
    /// Its buyer is not the one the quote is for.
    #[error("the request is by {found}, the quote is for {expected}")]
    OtherBuyer {
        /// Whom the quote is for.
        expected: Did,
        /// Who asks.
        found: Did,
    },
    /// The buyer did not sign it.
    #[error("the request is not signed by the identity key of {0}")]
    Signature(Did),
    /// It is over.
    #[error("the request or its quote expired at {expires_ms} ms; ask for a new quote")]
    Expired {
        /// When, ms since 1970.
        expires_ms: u64,
    },
    /// The payer did not agree.
    #[error("the payment is from {0}, who is not the buyer and did not sign the request; have the payer sign it")]
    Payer(Did),
}

/// A payment on a chain. It is consumed once, by its chain, transaction and transfer index.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Payment {
    /// The chain.
    pub chain: String,
    /// The transaction.
    pub transaction: String,
    /// Which transfer in it.
    pub transfer_index: u32,
    /// Whose address it came from.
    pub payer: Did,
}

/// A request for access.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AccessRequest {
    /// The machine that is asked.
    pub machine: Did,
    /// The quote that is taken.
    pub quote_hash: Hash,
    /// Who asks.
    pub buyer: Did,
    /// What the grants are to be sealed to.
    pub buyer_enc: EncryptionPublicKey,
    /// Random: makes two requests for one quote different.
    pub nonce: [u8; 32],
    /// Until when it can be decided, ms since 1970.
    pub expires_ms: u64,
    /// How it was paid.
    pub payment: Option<Payment>,
}

impl AccessRequest {
    fn encode(&self) -> Result<Vec<u8>, LayoutError> {
        let mut out = vec![VERSION];
        out.extend_from_slice(self.machine.as_bytes());
        out.extend_from_slice(self.quote_hash.as_bytes());
        out.extend_from_slice(self.buyer.as_bytes());
        out.extend_from_slice(self.buyer_enc.as_bytes());
        out.extend_from_slice(&self.nonce);
        out.extend_from_slice(&self.expires_ms.to_be_bytes());
        out.push(u8::from(self.payment.is_some()));
        if let Some(payment) = &self.payment {
            check_text(&payment.chain, MAX_CHAIN, "chain")?;
            check_text(&payment.transaction, MAX_TRANSACTION, "transaction")?;
            put_block(&mut out, payment.chain.as_bytes());
            put_block(&mut out, payment.transaction.as_bytes());
            out.extend_from_slice(&payment.transfer_index.to_be_bytes());
            out.extend_from_slice(payment.payer.as_bytes());
        }
        Ok(out)
    }

    fn decode(bytes: &[u8]) -> Result<Self, LayoutError> {
        let mut r = Reader::new(bytes);
        r.version(VERSION, "access request")?;
        let request = Self {
            machine: Did::from_bytes(r.array("machine")?),
            quote_hash: r.hash("quote")?,
            buyer: Did::from_bytes(r.array("buyer")?),
            buyer_enc: EncryptionPublicKey::from_bytes(r.array("buyer's key")?),
            nonce: r.array("nonce")?,
            expires_ms: r.u64("expires")?,
            payment: if r.flag("payment")? {
                Some(Payment {
                    chain: r.text(MAX_CHAIN, "chain")?,
                    transaction: r.text(MAX_TRANSACTION, "transaction")?,
                    transfer_index: r.u32("transfer index")?,
                    payer: Did::from_bytes(r.array("payer")?),
                })
            } else {
                None
            },
        };
        r.finish("access request")?;
        Ok(request)
    }

    /// The text that the buyer signs (EIP-191), for the request with this id.
    #[must_use]
    pub fn signing_text(&self, id: &Hash) -> String {
        format!(
            "Tributary access request v1\nmachine: {}\nbuyer: {}\nquote: {}\nexpires: {}\nrequest: {id}",
            self.machine, self.buyer, self.quote_hash, self.expires_ms
        )
    }

    /// The text that a payer who is not the buyer signs (EIP-191), for the request with this id.
    #[must_use]
    pub fn payment_text(payment: &Payment, buyer: &Did, id: &Hash) -> String {
        format!(
            "Tributary payment v1\npayer: {}\nbuyer: {buyer}\nchain: {}\ntransaction: {}\ntransfer: {}\nrequest: {id}",
            payment.payer, payment.chain, payment.transaction, payment.transfer_index
        )
    }
}

/// A request with its signatures.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SignedRequest {
    bytes: Vec<u8>,
    request: AccessRequest,
    id: Hash,
    signature: [u8; IDENTITY_SIGNATURE_LEN],
    payer_signature: Option<[u8; IDENTITY_SIGNATURE_LEN]>,
}

impl SignedRequest {
    /// Signs a request as its buyer.
    ///
    /// # Errors
    ///
    /// When a text is too long, or `identity` is not the buyer's.
    pub fn sign(request: AccessRequest, identity: &IdentityKey) -> Result<Self, RequestError> {
        if identity.did() != request.buyer {
            return Err(RequestError::Signature(request.buyer));
        }
        let bytes = request.encode()?;
        let id = Hash::of(&bytes);
        let signature = identity.sign_eip191(request.signing_text(&id).as_bytes());
        Ok(Self { bytes, request, id, signature, payer_signature: None })
    }

    /// Adds the payer's signature over [`AccessRequest::payment_text`].
    #[must_use]
    pub fn with_payer_signature(mut self, signature: [u8; IDENTITY_SIGNATURE_LEN]) -> Self {
        self.payer_signature = Some(signature);
        self
    }

    /// The bytes and the signatures, as they travel.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut out = vec![VERSION];
        put_block(&mut out, &self.bytes);
        out.extend_from_slice(&self.signature);
        out.push(u8::from(self.payer_signature.is_some()));
        if let Some(signature) = &self.payer_signature {
            out.extend_from_slice(signature);
        }
        out
    }

    /// Reads the form of [`SignedRequest::encode`]. Says nothing about the signatures: see [`SignedRequest::verify`].
    ///
    /// # Errors
    ///
    /// [`RequestError::Layout`] for anything but one whole request with its signatures.
    pub fn decode(bytes: &[u8]) -> Result<Self, RequestError> {
        let mut r = Reader::new(bytes);
        r.version(VERSION, "signed request")?;
        let inner = r.block(MAX_REQUEST_LEN, "access request")?;
        let signature = r.array("signature")?;
        let payer_signature = if r.flag("payer's signature")? { Some(r.array("payer's signature")?) } else { None };
        r.finish("signed request")?;
        let request = AccessRequest::decode(inner)?;
        Ok(Self { bytes: inner.to_vec(), request, id: Hash::of(inner), signature, payer_signature })
    }

    /// Checks everything a machine can check by itself: that the request is for `machine`, takes `quote` (which the caller has
    /// verified), is signed by the quote's buyer, is not over at `now_ms`, and that the payer agrees. The cheap checks come
    /// first.
    ///
    /// # Errors
    ///
    /// Says what does not match.
    pub fn verify(&self, machine: &Did, quote: &SignedQuote, now_ms: u64) -> Result<(), RequestError> {
        let request = &self.request;
        if request.machine != *machine || quote.quote().machine != *machine {
            return Err(RequestError::OtherMachine { expected: *machine, found: request.machine });
        }
        if request.quote_hash != quote.hash() {
            return Err(RequestError::OtherQuote);
        }
        if request.buyer != quote.quote().buyer {
            return Err(RequestError::OtherBuyer { expected: quote.quote().buyer, found: request.buyer });
        }
        let expires_ms = request.expires_ms.min(quote.quote().expires_ms);
        if now_ms >= expires_ms {
            return Err(RequestError::Expired { expires_ms });
        }
        let signed_by = |text: String, signature| recover_eip191(text.as_bytes(), signature).ok();
        if signed_by(request.signing_text(&self.id), &self.signature) != Some(request.buyer) {
            return Err(RequestError::Signature(request.buyer));
        }
        if let Some(payment) = request.payment.as_ref().filter(|payment| payment.payer != request.buyer) {
            let text = AccessRequest::payment_text(payment, &request.buyer, &self.id);
            let signer = self.payer_signature.as_ref().and_then(|signature| signed_by(text, signature));
            if signer != Some(payment.payer) {
                return Err(RequestError::Payer(payment.payer));
            }
        }
        Ok(())
    }

    /// What it says.
    #[must_use]
    pub fn request(&self) -> &AccessRequest {
        &self.request
    }

    /// Its id: BLAKE3 of the signed bytes, without the signatures.
    #[must_use]
    pub fn id(&self) -> Hash {
        self.id
    }
}
