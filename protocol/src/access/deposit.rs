//! Deposits: what a machine leaves with mirrors about a request, so that the buyer hears of it while the machine is offline.
//!
//! A deposit says either "granted", and names the grants that go with it, or "denied". It is signed by the machine's feed key: a
//! mirror can neither make one nor turn one into another, and a buyer that gets a denial from a mirror knows that it is the
//! machine's. The newest one of a request counts, by its revision.
//!
//! # Layout (version 1)
//!
//! | bytes | field |
//! |---|---|
//! | 1 | version, 1 |
//! | 20 | machine |
//! | 32 | request id |
//! | 8 | revision: of two deposits for one request the one with the higher revision counts |
//! | 8 | issued, ms since 1970 |
//! | 8 | expires, ms since 1970, after issued: until when it is worth keeping |
//! | 1 | 1 granted, 2 denied |
//! | 2 | granted: number of grants, 1 to 4,096 |
//! | 32 | granted: hash over the grants |
//! | 1 | denied: code, see [`crate::wire::DenyCode`] |
//! | 2 + n | denied: reason, text(256) |
//! | 32 | signer: feed key |
//! | 64 | Ed25519 signature in the context `tributary/deposit/1` over all bytes before it |
//!
//! The hash over the grants is BLAKE3 in key derivation mode over the BLAKE3 of each, in their order.

use crate::{
    binding::Binding,
    entry::layout::{LayoutError, Reader, check_text, put_block},
    ids::{Did, Hash},
    keys::{Context, FeedKey, FeedPublicKey, SIGNATURE_LEN},
    wire::{DenyCode, access::MAX_GRANTS_OF_REQUEST},
};

const VERSION: u8 = 1;
/// The longest reason of a denial, in bytes.
const MAX_REASON: usize = 256;
/// The longest deposit, in bytes.
pub const MAX_DEPOSIT_LEN: usize = 78 + 1 + 2 + MAX_REASON + 32 + SIGNATURE_LEN;

/// Why a deposit does not count.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum DepositError {
    /// Not a deposit.
    #[error("not a deposit")]
    Layout(#[from] LayoutError),
    /// It is another machine's.
    #[error("the deposit is by {found}, not by {expected}")]
    OtherMachine {
        /// The machine whose it should be.
        expected: Did,
        /// The machine in the deposit.
        found: Did,
    },
    /// The current feed key of the machine did not sign it.
    #[error("the deposit is not signed by the current feed key of {0}")]
    Signature(Did),
    /// It is over.
    #[error("the deposit expired at {expires_ms} ms since 1970")]
    Expired {
        /// When, ms since 1970.
        expires_ms: u64,
    },
}

/// What became of a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum DepositState {
    /// Grants were issued.
    Granted {
        /// How many, 1 to 4,096.
        total: u16,
        /// See [`hash_of_grants`].
        grants: Hash,
    },
    /// No.
    Denied {
        /// Why, for programs.
        code: DenyCode,
        /// Why, for people; at most 256 bytes.
        reason: String,
    },
}

/// What a machine says about a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Deposit {
    /// The machine.
    pub machine: Did,
    /// The request.
    pub request_id: Hash,
    /// The higher one counts.
    pub revision: u64,
    /// When it was made, ms since 1970.
    pub issued_ms: u64,
    /// Until when it is worth keeping, ms since 1970.
    pub expires_ms: u64,
    /// What became of the request.
    pub state: DepositState,
}

/// The hash over grants, given the BLAKE3 of each in their order.
#[must_use]
pub fn hash_of_grants(grants: impl IntoIterator<Item = Hash>) -> Hash {
    let all: Vec<u8> = grants.into_iter().flat_map(|hash| *hash.as_bytes()).collect();
    Hash::derive("tributary 2026 deposited grants", &all)
}

/// A deposit with its signature.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SignedDeposit {
    bytes: Vec<u8>,
    deposit: Deposit,
    signer: FeedPublicKey,
}

impl SignedDeposit {
    /// Signs a deposit.
    ///
    /// # Errors
    ///
    /// When its reason is too long, its number of grants impossible, or it expires before it is issued.
    pub fn sign(deposit: Deposit, key: &FeedKey) -> Result<Self, DepositError> {
        check(&deposit)?;
        let mut bytes = vec![VERSION];
        bytes.extend_from_slice(deposit.machine.as_bytes());
        bytes.extend_from_slice(deposit.request_id.as_bytes());
        for number in [deposit.revision, deposit.issued_ms, deposit.expires_ms] {
            bytes.extend_from_slice(&number.to_be_bytes());
        }
        match &deposit.state {
            DepositState::Granted { total, grants } => {
                bytes.push(1);
                bytes.extend_from_slice(&total.to_be_bytes());
                bytes.extend_from_slice(grants.as_bytes());
            }
            DepositState::Denied { code, reason } => {
                bytes.extend_from_slice(&[2, *code as u8]);
                put_block(&mut bytes, reason.as_bytes());
            }
        }
        let signer = key.public();
        bytes.extend_from_slice(signer.as_bytes());
        let signature = key.sign(Context::Deposit, &bytes);
        bytes.extend_from_slice(&signature);
        Ok(Self { bytes, deposit, signer })
    }

    /// Reads a deposit. Checks everything but who signed it: see [`SignedDeposit::verify`].
    ///
    /// # Errors
    ///
    /// [`DepositError::Layout`] for anything but one whole deposit.
    pub fn decode(bytes: &[u8]) -> Result<Self, DepositError> {
        let mut r = Reader::new(bytes);
        r.version(VERSION, "deposit")?;
        let (machine, request_id) = (Did::from_bytes(r.array("machine")?), r.hash("request id")?);
        let (revision, issued_ms, expires_ms) = (r.u64("revision")?, r.u64("issued")?, r.u64("expires")?);
        let state = match r.u8("state")? {
            1 => DepositState::Granted { total: r.u16("number of grants")?, grants: r.hash("grants")? },
            2 => DepositState::Denied {
                code: DenyCode::from_number(r.u8("deny code")?.into())
                    .ok_or(LayoutError::Value { what: "deny code", reason: "no such code" })?,
                reason: r.text(MAX_REASON, "reason")?,
            },
            _ => return Err(LayoutError::Value { what: "deposit", reason: "granted or denied" }.into()),
        };
        let signer = FeedPublicKey::from_bytes(r.array("signer")?);
        let _signature: [u8; SIGNATURE_LEN] = r.array("signature")?;
        r.finish("deposit")?;
        let deposit = Deposit { machine, request_id, revision, issued_ms, expires_ms, state };
        check(&deposit)?;
        Ok(Self { bytes: bytes.to_vec(), deposit, signer })
    }

    /// Checks that the machine of `binding`, its newest one, says this, and still at `now_ms`.
    ///
    /// # Errors
    ///
    /// Says what does not match.
    pub fn verify(&self, binding: &Binding, now_ms: u64) -> Result<(), DepositError> {
        let deposit = &self.deposit;
        if deposit.machine != binding.did {
            return Err(DepositError::OtherMachine { expected: binding.did, found: deposit.machine });
        }
        let unsigned = DepositError::Signature(deposit.machine);
        let (signed, signature) = self.bytes.split_last_chunk().ok_or_else(|| unsigned.clone())?;
        if self.signer != binding.feed_key || self.signer.verify(Context::Deposit, signed, signature).is_err() {
            return Err(unsigned);
        }
        if now_ms >= deposit.expires_ms {
            return Err(DepositError::Expired { expires_ms: deposit.expires_ms });
        }
        Ok(())
    }

    /// What it says.
    #[must_use]
    pub fn deposit(&self) -> &Deposit {
        &self.deposit
    }

    /// The bytes, signature included.
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }
}

fn check(deposit: &Deposit) -> Result<(), LayoutError> {
    let wrong = |reason| Err(LayoutError::Value { what: "deposit", reason });
    if deposit.expires_ms <= deposit.issued_ms {
        return wrong("expires before it is issued");
    }
    match &deposit.state {
        DepositState::Granted { total, .. } if (1..=MAX_GRANTS_OF_REQUEST).contains(total) => Ok(()),
        DepositState::Granted { .. } => wrong("of 1 to 4,096 grants"),
        DepositState::Denied { reason, .. } => check_text(reason, MAX_REASON, "reason"),
    }
}

#[cfg(test)]
mod tests;
