//! Names of things: machines, streams, datasets, logs, and content.
//!
//! Every identifier is a fixed number of bytes with one text form, lower-case hex. Text in any other spelling is refused, so
//! two different texts never name the same thing.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// A text that does not name what it should.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum IdError {
    /// Not `did:peaq:0x` and 40 lower-case hex digits.
    #[error("not a peaqID: expected did:peaq:0x and 40 lower-case hex digits, found {found:?}")]
    Did {
        /// The start of the text that was found.
        found: String,
    },
    /// Not 64 lower-case hex digits.
    #[error("not a {what}: expected 64 lower-case hex digits, found {found:?}")]
    Hex {
        /// What the text should have named.
        what: &'static str,
        /// The start of the text that was found.
        found: String,
    },
}

/// At most this many characters of a refused text are repeated in an error.
const EXCERPT: usize = 80;

fn excerpt(text: &str) -> String {
    text.chars().take(EXCERPT).collect()
}

fn decode_lower_hex<const N: usize>(text: &str) -> Option<[u8; N]> {
    let lower = text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
    let mut out = [0u8; N];
    (lower && hex::decode_to_slice(text, &mut out).is_ok()).then_some(out)
}

/// Gives a 32-byte newtype its text form, serde form and conversions.
macro_rules! id32 {
    ($(#[$doc:meta])* $name:ident, $what:literal) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
        pub struct $name([u8; 32]);

        impl $name {
            /// Length in bytes.
            pub const LEN: usize = 32;

            /// Wraps the 32 bytes.
            #[must_use]
            pub const fn from_bytes(bytes: [u8; 32]) -> Self {
                Self(bytes)
            }

            /// The 32 bytes.
            #[must_use]
            pub const fn as_bytes(&self) -> &[u8; 32] {
                &self.0
            }

            /// The 32 bytes.
            #[must_use]
            pub const fn to_bytes(self) -> [u8; 32] {
                self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&hex::encode(self.0))
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{}({self})", stringify!($name))
            }
        }

        impl FromStr for $name {
            type Err = IdError;

            fn from_str(text: &str) -> Result<Self, IdError> {
                decode_lower_hex(text)
                    .map(Self)
                    .ok_or_else(|| IdError::Hex { what: $what, found: excerpt(text) })
            }
        }

        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(self)
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                let text = String::deserialize(deserializer)?;
                text.parse().map_err(serde::de::Error::custom)
            }
        }
    };
}

id32!(
    /// A BLAKE3-256 hash.
    Hash,
    "BLAKE3 hash"
);
id32!(
    /// A stream: one topic of one machine.
    StreamId,
    "stream id"
);
id32!(
    /// A dataset: one stream, one key epoch, one time range.
    DatasetId,
    "dataset id"
);
id32!(
    /// A log of one machine: the machine log, or one stream's log.
    LogId,
    "log id"
);

impl Hash {
    /// The BLAKE3 hash of `data`.
    #[must_use]
    pub fn of(data: &[u8]) -> Self {
        Self(*blake3::hash(data).as_bytes())
    }

    /// The BLAKE3 hash of `data` under a context string (BLAKE3's key derivation mode), so that hashes of different kinds of
    /// objects can never stand for each other.
    #[must_use]
    pub fn derive(context: &'static str, data: &[u8]) -> Self {
        Self(blake3::derive_key(context, data))
    }

    /// All zeros: stands where there is nothing before.
    pub const ZERO: Self = Self([0; 32]);
}

impl StreamId {
    /// The id of the stream that machine `did` publishes under `name` (a topic, or the alias that hides it).
    #[must_use]
    pub fn of(did: &Did, name: &str) -> Self {
        let mut hasher = blake3::Hasher::new_derive_key("tributary 2026 stream id");
        hasher.update(did.as_bytes());
        hasher.update(name.as_bytes());
        Self(*hasher.finalize().as_bytes())
    }
}

impl DatasetId {
    /// The id of the dataset whose first chunk is the entry `first_seq` of a stream's log.
    #[must_use]
    pub fn of(stream: &StreamId, incarnation: u32, first_seq: u64) -> Self {
        let mut hasher = blake3::Hasher::new_derive_key("tributary 2026 dataset id");
        hasher.update(stream.as_bytes());
        hasher.update(&incarnation.to_be_bytes());
        hasher.update(&first_seq.to_be_bytes());
        Self(*hasher.finalize().as_bytes())
    }
}

impl LogId {
    /// The log of the machine itself: bindings, epochs, streams, closed datasets.
    pub const MACHINE: Self = Self([0; 32]);

    /// The stream whose log this is; `None` for the machine log.
    #[must_use]
    pub fn stream(&self) -> Option<StreamId> {
        (*self != Self::MACHINE).then_some(StreamId(self.0))
    }
}

impl From<StreamId> for LogId {
    fn from(stream: StreamId) -> Self {
        Self(stream.0)
    }
}

/// A machine or buyer: the address of its secp256k1 identity key, written `did:peaq:0x` and 40 lower-case hex digits.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Did([u8; 20]);

impl Did {
    /// Length of the address in bytes.
    pub const LEN: usize = 20;
    /// What every DID text starts with.
    pub const PREFIX: &'static str = "did:peaq:0x";

    /// The DID of an address.
    #[must_use]
    pub const fn from_bytes(address: [u8; 20]) -> Self {
        Self(address)
    }

    /// The address.
    #[must_use]
    pub const fn as_bytes(&self) -> &[u8; 20] {
        &self.0
    }

    /// The address.
    #[must_use]
    pub const fn to_bytes(self) -> [u8; 20] {
        self.0
    }
}

impl fmt::Display for Did {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{}", Self::PREFIX, hex::encode(self.0))
    }
}

impl fmt::Debug for Did {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for Did {
    type Err = IdError;

    fn from_str(text: &str) -> Result<Self, IdError> {
        text.strip_prefix(Self::PREFIX)
            .and_then(decode_lower_hex)
            .map(Self)
            .ok_or_else(|| IdError::Did { found: excerpt(text) })
    }
}

impl Serialize for Did {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Did {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

/// One log of one machine in one incarnation: what a sequence number counts in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LogKey {
    /// The machine.
    pub did: Did,
    /// Which of its logs.
    pub log: LogId,
    /// How often the machine was restored or cloned before this log began; 0 at first.
    pub incarnation: u32,
}

impl LogKey {
    /// Length of the byte form.
    pub const LEN: usize = Did::LEN + LogId::LEN + 4;

    /// `did (20) || log (32) || incarnation (u32, big endian)`: sorts by machine, log, incarnation.
    #[must_use]
    pub fn to_bytes(&self) -> [u8; Self::LEN] {
        let mut out = [0; Self::LEN];
        out[..20].copy_from_slice(self.did.as_bytes());
        out[20..52].copy_from_slice(self.log.as_bytes());
        out[52..].copy_from_slice(&self.incarnation.to_be_bytes());
        out
    }

    /// Reads the form of [`LogKey::to_bytes`].
    #[must_use]
    pub fn from_bytes(bytes: &[u8; Self::LEN]) -> Self {
        let mut did = [0; 20];
        did.copy_from_slice(&bytes[..20]);
        let mut log = [0; 32];
        log.copy_from_slice(&bytes[20..52]);
        let mut incarnation = [0; 4];
        incarnation.copy_from_slice(&bytes[52..]);
        Self { did: Did(did), log: LogId(log), incarnation: u32::from_be_bytes(incarnation) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_did_has_one_spelling() {
        let did = Did::from_bytes([0xab; 20]);
        assert_eq!(did.to_string().parse(), Ok(did));
        for bad in ["", "did:peaq:0x", "did:peaq:1", "did:peaq:0X00", &did.to_string().to_uppercase()] {
            assert!(bad.parse::<Did>().is_err(), "{bad}");
        }
        let mixed = did.to_string().replace("ab", "aB");
        assert!(mixed.parse::<Did>().is_err());
    }

    #[test]
    fn an_error_does_not_repeat_an_endless_text() {
        let error = "f".repeat(1 << 20).parse::<Hash>().expect_err("too long");
        assert!(error.to_string().len() < 300);
    }

    #[test]
    fn a_log_key_survives_its_bytes() {
        let key = LogKey { did: Did::from_bytes([7; 20]), log: LogId::from_bytes([9; 32]), incarnation: 0x0102_0304 };
        assert_eq!(LogKey::from_bytes(&key.to_bytes()), key);
        assert_eq!(LogId::MACHINE.stream(), None);
        assert_eq!(LogId::from(StreamId::of(&key.did, "/imu")).stream(), Some(StreamId::of(&key.did, "/imu")));
    }
}
