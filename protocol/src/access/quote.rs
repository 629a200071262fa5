//! Quotes: a price for a selection, for one buyer, for a while.
//!
//! # Layout (version 1)
//!
//! | bytes | field |
//! |---|---|
//! | 1 | version, 1 |
//! | 20 | machine |
//! | 20 | buyer |
//! | .. | selection, see [`super::selection`] |
//! | 16 | amount, in the smallest unit of the token |
//! | 2 + n each | token text(64), chain text(64), pay to text(128) |
//! | 32 | BLAKE3 of the text of the terms; zeros without one |
//! | 8 | issued, ms since 1970 |
//! | 8 | expires, ms since 1970 |
//! | 32 | signer: feed key |
//! | 64 | Ed25519 signature in the context `tributary/quote/1` over all bytes before it |
//!
//! The hash of a quote is BLAKE3 in key derivation mode over all bytes before the signature.

use super::Selection;
use crate::{
    binding::Binding,
    entry::layout::{LayoutError, Reader, check_text, put_block},
    ids::{Did, Hash},
    keys::{Context, FeedKey, FeedPublicKey, SIGNATURE_LEN},
};

const VERSION: u8 = 1;
/// Longest token and chain names, in bytes.
pub const MAX_NAME: usize = 64;
/// Longest payment address, in bytes.
pub const MAX_ADDRESS: usize = 128;

/// Why a quote does not bind.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum QuoteError {
    /// Not a quote.
    #[error("not a quote")]
    Layout(#[from] LayoutError),
    /// It is another machine's.
    #[error("the quote is by {found}, not by {expected}")]
    OtherMachine {
        /// The machine that was asked.
        expected: Did,
        /// The machine in the quote.
        found: Did,
    },
    /// It is for somebody else.
    #[error("the quote is for {found}, not for {expected}")]
    OtherBuyer {
        /// Who asks.
        expected: Did,
        /// The buyer in the quote.
        found: Did,
    },
    /// The current feed key of the machine did not sign it.
    #[error("the quote is not signed by the current feed key of {0}; ask for a new one")]
    Signature(Did),
    /// It is over.
    #[error("the quote expired at {expires_ms} ms; ask for a new one")]
    Expired {
        /// When, ms since 1970.
        expires_ms: u64,
    },
}

/// What something costs, and how to pay.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Price {
    /// In the smallest unit of the token; 0 is free.
    pub amount: u128,
    /// The token; may be empty if free.
    pub token: String,
    /// The chain.
    pub chain: String,
    /// Whom to pay.
    pub pay_to: String,
}

impl Price {
    fn put(&self, out: &mut Vec<u8>) -> Result<(), LayoutError> {
        out.extend_from_slice(&self.amount.to_be_bytes());
        let texts = [
            (&self.token, MAX_NAME, "token"),
            (&self.chain, MAX_NAME, "chain"),
            (&self.pay_to, MAX_ADDRESS, "payment address"),
        ];
        for (text, limit, what) in texts {
            check_text(text, limit, what)?;
            put_block(out, text.as_bytes());
        }
        Ok(())
    }
}

/// A price for a selection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Quote {
    /// The machine whose data it is.
    pub machine: Did,
    /// The only buyer it is for.
    pub buyer: Did,
    /// What it is for.
    pub selection: Selection,
    /// What it costs.
    pub price: Price,
    /// BLAKE3 of the text of the terms; zeros without one.
    pub terms: Hash,
    /// When it was made, ms since 1970.
    pub issued_ms: u64,
    /// Until when it can be used, ms since 1970.
    pub expires_ms: u64,
}

impl Quote {
    /// The hash of what is agreed: selection, price and terms, whoever buys and whenever. Stands in every grant.
    ///
    /// # Errors
    ///
    /// When a text of the price is too long.
    pub fn terms_hash(&self) -> Result<Hash, LayoutError> {
        let mut bytes = self.machine.as_bytes().to_vec();
        bytes.extend_from_slice(&self.selection.encode());
        self.price.put(&mut bytes)?;
        bytes.extend_from_slice(self.terms.as_bytes());
        Ok(Hash::derive("tributary 2026 terms", &bytes))
    }
}

/// A quote with its signature.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SignedQuote {
    bytes: Vec<u8>,
    quote: Quote,
    signer: FeedPublicKey,
    hash: Hash,
    terms_hash: Hash,
}

impl SignedQuote {
    /// Signs a quote.
    ///
    /// # Errors
    ///
    /// When a text is too long or it expires before it is issued.
    pub fn sign(quote: Quote, key: &FeedKey) -> Result<Self, QuoteError> {
        check_times(&quote)?;
        let mut bytes = vec![VERSION];
        bytes.extend_from_slice(quote.machine.as_bytes());
        bytes.extend_from_slice(quote.buyer.as_bytes());
        bytes.extend_from_slice(&quote.selection.encode());
        quote.price.put(&mut bytes)?;
        bytes.extend_from_slice(quote.terms.as_bytes());
        bytes.extend_from_slice(&quote.issued_ms.to_be_bytes());
        bytes.extend_from_slice(&quote.expires_ms.to_be_bytes());
        let signer = key.public();
        bytes.extend_from_slice(signer.as_bytes());
        let (hash, terms_hash) = (hash_of(&bytes), quote.terms_hash()?);
        let signature = key.sign(Context::Quote, &bytes);
        bytes.extend_from_slice(&signature);
        Ok(Self { bytes, quote, signer, hash, terms_hash })
    }

    /// Reads a quote. Checks everything but who signed it: see [`SignedQuote::verify`].
    ///
    /// # Errors
    ///
    /// [`QuoteError::Layout`] for anything but one whole quote.
    pub fn decode(bytes: &[u8]) -> Result<Self, QuoteError> {
        let mut r = Reader::new(bytes);
        r.version(VERSION, "quote")?;
        let quote = Quote {
            machine: Did::from_bytes(r.array("machine")?),
            buyer: Did::from_bytes(r.array("buyer")?),
            selection: Selection::read(&mut r)?,
            price: Price {
                amount: r.u128("amount")?,
                token: r.text(MAX_NAME, "token")?,
                chain: r.text(MAX_NAME, "chain")?,
                pay_to: r.text(MAX_ADDRESS, "payment address")?,
            },
            terms: r.hash("terms")?,
            issued_ms: r.u64("issued")?,
            expires_ms: r.u64("expires")?,
        };
        let signer = FeedPublicKey::from_bytes(r.array("signer")?);
        let _signature: [u8; SIGNATURE_LEN] = r.array("signature")?;
        r.finish("quote")?;
        check_times(&quote)?;
        let (hash, terms_hash) = (hash_of(&bytes[..bytes.len() - SIGNATURE_LEN]), quote.terms_hash()?);
        Ok(Self { bytes: bytes.to_vec(), quote, signer, hash, terms_hash })
    }

    /// Checks that the quote binds the machine of `binding`, its current one, towards `buyer` at `now_ms`.
    ///
    /// # Errors
    ///
    /// Says what does not match.
    pub fn verify(&self, binding: &Binding, buyer: &Did, now_ms: u64) -> Result<(), QuoteError> {
        let quote = &self.quote;
        if quote.machine != binding.did {
            return Err(QuoteError::OtherMachine { expected: binding.did, found: quote.machine });
        }
        if quote.buyer != *buyer {
            return Err(QuoteError::OtherBuyer { expected: *buyer, found: quote.buyer });
        }
        let unsigned = QuoteError::Signature(quote.machine);
        let (signed, signature) = self.bytes.split_last_chunk().ok_or_else(|| unsigned.clone())?;
        if self.signer != binding.feed_key || self.signer.verify(Context::Quote, signed, signature).is_err() {
            return Err(unsigned);
        }
        if now_ms >= quote.expires_ms {
            return Err(QuoteError::Expired { expires_ms: quote.expires_ms });
        }
        Ok(())
    }

    /// What it says.
    #[must_use]
    pub fn quote(&self) -> &Quote {
        &self.quote
    }

    /// The bytes, signature included.
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// What a request names.
    #[must_use]
    pub fn hash(&self) -> Hash {
        self.hash
    }

    /// What a grant names, see [`Quote::terms_hash`].
    #[must_use]
    pub fn terms_hash(&self) -> Hash {
        self.terms_hash
    }
}

fn hash_of(signed: &[u8]) -> Hash {
    Hash::derive("tributary 2026 quote", signed)
}

fn check_times(quote: &Quote) -> Result<(), LayoutError> {
    if quote.expires_ms > quote.issued_ms {
        return Ok(());
    }
    Err(LayoutError::Value { what: "quote", reason: "expires before it is issued" })
}
