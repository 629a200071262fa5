//! `/tributary/pull/1`: ciphertext by hash, on a stream of its own.
//!
//! The request is a length (u32, big endian) and so many bytes of CBOR: `[0, [hash (32), ...]]`. It is read whole, then the
//! response is written: for each hash, in any order, a header of 37 bytes and, if it is there, the ciphertext.
//!
//! | offset | bytes | header field |
//! |---|---|---|
//! | 0 | 32 | BLAKE3 of the ciphertext |
//! | 32 | 1 | status: 0 here it is, 1 not found, 2 busy, 3 gone (withdrawn by the machine) |
//! | 33 | 4 | status 0: length of the ciphertext that follows; status 2: ms after which to ask again; else 0 |

use super::{
    WireError,
    cbor::{Reader, Writer, check_len},
};
use crate::{ids::Hash, record::MAX_CIPHERTEXT_LEN};

/// Name of the protocol.
pub const PROTOCOL: &str = "/tributary/pull/1";
/// The longest request in bytes, without the length in front.
pub const MAX_REQUEST: usize = 64 * 1024;
/// At most this many hashes in a request.
pub const MAX_HASHES: usize = 1024;
/// Length of the number in front of a request.
pub const PREFIX_LEN: usize = 4;

/// Which chunks are wanted; 1 to 1,024.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PullRequest {
    /// BLAKE3 of their ciphertexts.
    pub hashes: Vec<Hash>,
}

impl PullRequest {
    /// The bytes to send, with their length in front.
    ///
    /// # Errors
    ///
    /// When there is no hash or more than 1,024.
    pub fn encode_frame(&self) -> Result<Vec<u8>, WireError> {
        check_hashes(self.hashes.len())?;
        let mut writer = Writer::message(0, 1);
        let hashes: Vec<&[u8]> = self.hashes.iter().map(|hash| hash.as_bytes().as_slice()).collect();
        writer.blobs(&hashes);
        let message = writer.finish("pull request", MAX_REQUEST)?;
        let len = u32::try_from(message.len()).expect("checked: at most 64 KiB");
        let mut frame = len.to_be_bytes().to_vec();
        frame.extend_from_slice(&message);
        Ok(frame)
    }

    /// The length of the request that follows this prefix: what to read, and not a byte more.
    ///
    /// # Errors
    ///
    /// [`WireError::TooLarge`] for more than a request can have.
    pub fn frame_len(prefix: [u8; PREFIX_LEN]) -> Result<usize, WireError> {
        let len = usize::try_from(u32::from_be_bytes(prefix)).unwrap_or(usize::MAX);
        check_len("pull request", len, MAX_REQUEST)?;
        Ok(len)
    }

    /// Reads a request, without the length in front.
    ///
    /// # Errors
    ///
    /// For anything but one whole request.
    pub fn decode(bytes: &[u8]) -> Result<Self, WireError> {
        let what = "pull request";
        let (mut r, number) = Reader::message(what, bytes, MAX_REQUEST)?;
        r.expect(what, 1)?;
        if number != 0 {
            return Err(WireError::Value { what, reason: "no such request" });
        }
        let len = r.list("hashes", MAX_HASHES)?;
        check_hashes(len)?;
        let hashes = (0..len).map(|_| r.hash()).collect::<Result<_, _>>()?;
        r.finish()?;
        Ok(Self { hashes })
    }
}

fn check_hashes(found: usize) -> Result<(), WireError> {
    match found {
        0 => Err(WireError::Value { what: "pull request", reason: "asks for nothing" }),
        1..=MAX_HASHES => Ok(()),
        _ => Err(WireError::TooMany {
            what: "hashes",
            found: u64::try_from(found).unwrap_or(u64::MAX),
            limit: MAX_HASHES,
        }),
    }
}

/// What became of one hash.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum PullStatus {
    /// The ciphertext follows.
    Found {
        /// Its length in bytes, 1 to [`MAX_CIPHERTEXT_LEN`].
        len: u32,
    },
    /// Not held here.
    NotFound,
    /// Held, but there is too much to do.
    Busy {
        /// When to ask again, in ms from now.
        retry_ms: u32,
    },
    /// Withdrawn by the machine.
    Gone,
}

/// What stands in front of each ciphertext.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct PullHeader {
    /// Which chunk.
    pub hash: Hash,
    /// What became of it.
    pub status: PullStatus,
}

impl PullHeader {
    /// Length in bytes.
    pub const LEN: usize = 37;

    /// The bytes to send.
    #[must_use]
    pub fn encode(&self) -> [u8; Self::LEN] {
        let (status, number) = match self.status {
            PullStatus::Found { len } => (0, len),
            PullStatus::NotFound => (1, 0),
            PullStatus::Busy { retry_ms } => (2, retry_ms),
            PullStatus::Gone => (3, 0),
        };
        let mut out = [0; Self::LEN];
        out[..32].copy_from_slice(self.hash.as_bytes());
        out[32] = status;
        out[33..].copy_from_slice(&number.to_be_bytes());
        out
    }

    /// Reads a header.
    ///
    /// # Errors
    ///
    /// For an unknown status, and a length that no ciphertext has: nothing behind it can be understood.
    pub fn decode(bytes: &[u8; Self::LEN]) -> Result<Self, WireError> {
        let [hash @ .., status, a, b, c, d] = *bytes;
        let number = u32::from_be_bytes([a, b, c, d]);
        let status = match (status, number) {
            (0, len) if usize::try_from(len).is_ok_and(|len| (1..=MAX_CIPHERTEXT_LEN).contains(&len)) => {
                PullStatus::Found { len }
            }
            (1, 0) => PullStatus::NotFound,
            (2, retry_ms) => PullStatus::Busy { retry_ms },
            (3, 0) => PullStatus::Gone,
            _ => return Err(WireError::Value { what: "chunk header", reason: "no such status, or not its length" }),
        };
        Ok(Self { hash: Hash::from_bytes(hash), status })
    }
}
