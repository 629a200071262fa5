//! Field rules: what of a message leaves the machine, and in which form.
//!
//! Owns three sets of semantics that never mix:
//!
//! - [`native`]: a native Data Event Map. It fails closed: rules that could miss what they protect do not load, and a message
//!   that does not fit its rules is refused by name.
//! - [`agent`]: the configuration of peaq's ROS 2 agent, whose rules are read in another way and leave other wrappers. What the
//!   agent keeps back is kept back; where it would let out what a rule should protect, the message is refused.
//! - [`apply`]: exactly what peaq's SDK does, with its gaps (lists are never entered, a key that contains a dot keeps its
//!   clear text, an unknown action includes). For interoperability only.
//!
//! A stream has the first or the second: [`RuleSet`]. Transformed values stand in wrappers; those of the first and the third:
//!
//! ```text
//! {"__encrypted":true,"ciphertext":<base64 of iv 12 || ciphertext || tag 16>,"algorithm":"AES-256-GCM"}
//! {"__anonymized":true,"value":…,"strategy":"hash" | "generalize" | "redact" | "keyed_hash"}
//! ```
//!
//! The plaintext of an encrypted field is its canonical JSON. The IV is random: rotate a field key long before 2^32
//! messages.

pub mod agent;
mod error;
mod generalize;
pub mod native;
mod path;
mod report;
mod sdk;
mod set;
mod transform;

use std::{fmt, str::FromStr};

pub use self::{
    error::{LoadError, RuleViolation},
    generalize::generalize,
    path::SchemaPaths,
    report::{FieldFate, Report},
    sdk::{EncryptCtx, FieldRule, TopicRules, apply},
    set::RuleSet,
    transform::{ALGORITHM, FieldKey, decrypt_field, hash_value, keyed_hash_value},
};
use crate::json::JsonError;

/// The most rules of one stream.
const MAX_RULES: usize = 1024;

/// Why a value could not be transformed, or turned back. Where peaq has a text for it, it is peaq's.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum RuleError {
    /// `anonymize` without a strategy.
    #[error("anonymize_strategy is required when action is anonymize")]
    MissingStrategy,
    /// Another algorithm than `AES-256-GCM`.
    #[error("Unsupported encryption algorithm: {0}")]
    Algorithm(String),
    /// Not 64 hex digits.
    #[error("Invalid encryption key")]
    Key,
    /// The value has no canonical form.
    #[error(transparent)]
    Json(#[from] JsonError),
    /// The upper bound of a number's bucket is beyond the range of floats. peaq's SDK crashes on it.
    #[error("the number is too large to generalize: use redact or keyed_hash for this field")]
    Bucket,
    /// The value is no encrypted field.
    #[error("not an encrypted field: expected {{\"__encrypted\":true,\"ciphertext\":…,\"algorithm\":\"AES-256-GCM\"}}")]
    NotEncrypted,
    /// The field was encrypted under another key, or changed.
    #[error("the field cannot be decrypted: the key is another one, or the ciphertext was changed")]
    Decrypt,
    /// The value is too long for the cipher (64 GiB).
    #[error("the field is too long to encrypt")]
    Encrypt,
}

/// What happens to a field.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Action {
    /// It leaves as it is.
    Include,
    /// It stays.
    Exclude,
    /// It leaves encrypted.
    Encrypt,
    /// It leaves in a form that says less: see [`Strategy`].
    Anonymize,
}

/// How a field is anonymized.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Strategy {
    /// `0x` and the SHA-256 of the canonical JSON. Values of few possibilities can be guessed from it.
    Hash,
    /// Numbers become buckets, strings keep their first two characters and the last.
    Generalize,
    /// `[REDACTED]`.
    Redact,
    /// `0x` and BLAKE3, keyed by the rule's key, of the canonical JSON: equal values stay equal, guessing needs the key.
    KeyedHash,
}

/// A word of a rule that is none.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{found:?} is no {what}: expected {expected}")]
pub struct UnknownWord {
    what: &'static str,
    expected: &'static str,
    found: String,
}

impl Action {
    /// The word in a map.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Include => "include",
            Self::Exclude => "exclude",
            Self::Encrypt => "encrypt",
            Self::Anonymize => "anonymize",
        }
    }
}

impl Strategy {
    /// The word in a map and in the wrapper.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Hash => "hash",
            Self::Generalize => "generalize",
            Self::Redact => "redact",
            Self::KeyedHash => "keyed_hash",
        }
    }
}

/// Longest part of an unknown word that is repeated in the error, in characters.
const EXCERPT: usize = 40;

impl FromStr for Action {
    type Err = UnknownWord;

    fn from_str(text: &str) -> Result<Self, UnknownWord> {
        [Self::Include, Self::Exclude, Self::Encrypt, Self::Anonymize]
            .into_iter()
            .find(|action| action.as_str() == text)
            .ok_or_else(|| UnknownWord {
                what: "action",
                expected: "include, exclude, encrypt or anonymize",
                found: text.chars().take(EXCERPT).collect(),
            })
    }
}

impl FromStr for Strategy {
    type Err = UnknownWord;

    fn from_str(text: &str) -> Result<Self, UnknownWord> {
        [Self::Hash, Self::Generalize, Self::Redact, Self::KeyedHash]
            .into_iter()
            .find(|strategy| strategy.as_str() == text)
            .ok_or_else(|| UnknownWord {
                what: "anonymize strategy",
                expected: "hash, generalize, redact or keyed_hash",
                found: text.chars().take(EXCERPT).collect(),
            })
    }
}

impl fmt::Display for Action {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl fmt::Display for Strategy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}
