//! What travels about keys: bindings that the owner signs, grants by hand, and the audit log.

use serde::{Deserialize, Serialize};
use tributary_protocol::{binding::SignedBinding, ids::Did, keys::EncryptionPublicKey};

use super::{AuditRecord, SelectionRequest};
use crate::proposal::Change;

/// A proposed binding, as `tributary key bind --prepare` writes it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ProposalFile {
    /// The file's text.
    pub proposal: String,
}

/// A binding that came into force.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Bound {
    /// What it changed.
    pub change: Change,
    /// The machine.
    pub did: Did,
    /// Its serial.
    pub serial: u64,
    /// The incarnation.
    pub incarnation: u32,
    /// The feed key, hex.
    pub feed_key: String,
    /// Until when it is good, ms since 1970.
    pub expires_ms: u64,
}

impl Bound {
    /// What a binding that came into force says.
    #[must_use]
    pub fn of(change: Change, signed: &SignedBinding) -> Self {
        let binding = signed.binding();
        Self {
            change,
            did: binding.did,
            serial: binding.serial,
            incarnation: binding.incarnation,
            feed_key: binding.feed_key.to_string(),
            expires_ms: binding.expires_ms,
        }
    }
}

/// Grant keys by hand.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct GrantRequest {
    /// Who gets them.
    pub buyer: Did,
    /// The buyer's encryption key, which they are sealed to.
    pub key: EncryptionPublicKey,
    /// Which of this machine's data.
    pub selection: SelectionRequest,
}

/// [`GrantFile::format`].
pub const GRANT_FILE: &str = "tributary.grants.v1";

/// A file with grants, as `tributary grant` writes it. The bindings come first, so that it can be checked on its own.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct GrantFile {
    /// `tributary.grants.v1`
    pub format: String,
    /// The machine.
    pub machine: Did,
    /// The buyer.
    pub buyer: Did,
    /// The machine's signed bindings, hex, oldest first.
    pub bindings: Vec<String>,
    /// The grants, hex.
    pub grants: Vec<String>,
}

/// Lines of the audit log.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AuditRequest {
    /// From this number on.
    pub from: u64,
    /// At most so many.
    pub limit: u64,
}

/// A line of the audit log.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AuditLine {
    /// Its number, from 0 without gaps.
    pub number: u64,
    /// What happened.
    #[serde(flatten)]
    pub record: AuditRecord,
}
