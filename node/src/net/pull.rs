//! The bytes of `/tributary/pull/1`. A stream carries one transfer and is half-duplex: the request is written and the write
//! half closed, then the response is read to its end.
//!
//! ```text
//! request   u32 length, big endian || CBOR array(1) [ array(n) [ bytes(32) ... ] ]      n 1..=1024, length <= 64 KiB
//! response  for each hash, in the order of the request:
//!           hash (32) || status (1) || length (u32, big endian) || ciphertext (length bytes)
//! status    0 here it is, 1 not found, 2 busy, 3 gone (tombstoned); only 0 has bytes after it
//! busy      hash all zeros, status 2, length = milliseconds after which to try again; the stream ends after it
//! ```

use std::time::Duration;

use futures::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tributary_protocol::ids::Hash;

use super::frame::{FrameError, encode_frame, frame_error, read_frame};

/// Most hashes in one request.
pub const MAX_PULL_HASHES: usize = 1024;
/// Largest request, bytes, without its length prefix.
pub const MAX_PULL_REQUEST: usize = 64 << 10;
/// Largest ciphertext of one chunk, bytes: 1 MiB of plaintext, the tag, and what zstd adds to data it cannot compress.
pub const MAX_CHUNK_BODY: usize = (1 << 20) + (16 << 10);
/// Length of the header before each ciphertext, bytes.
pub const PULL_HEADER_LEN: usize = 37;

/// Why pull bytes do not make sense.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum PullWireError {
    /// The frame of the request is broken.
    #[error(transparent)]
    Frame(#[from] FrameError),
    /// The request is no list of hashes in its one encoding.
    #[error("a pull request is malformed at byte {at}")]
    Malformed {
        /// Where, from the start of the CBOR.
        at: usize,
    },
    /// Too many hashes, or none.
    #[error("a pull request names {count} chunks: 1 to {MAX_PULL_HASHES} are allowed")]
    Count {
        /// How many.
        count: usize,
    },
    /// An unknown status.
    #[error("a pull response has the unknown status {0}")]
    Status(u8),
    /// The stream ended or broke.
    #[error("the pull stream broke")]
    Broken,
}

/// What a header says about a chunk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PullStatus {
    /// The ciphertext follows.
    Found,
    /// The server does not have it.
    NotFound,
    /// The server has too much to do.
    Busy,
    /// It was withdrawn.
    Gone,
}

/// The header before each ciphertext.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PullHeader {
    /// Which chunk; zeros for a refusal of the whole request.
    pub hash: Hash,
    /// What about it.
    pub status: PullStatus,
    /// Bytes that follow ([`PullStatus::Found`]), or milliseconds to wait ([`PullStatus::Busy`]), else 0.
    pub len: u32,
}

impl PullHeader {
    /// The refusal of a whole request.
    #[must_use]
    pub fn busy(retry_after: Duration) -> Self {
        let len = u32::try_from(retry_after.as_millis()).unwrap_or(u32::MAX);
        Self { hash: Hash::ZERO, status: PullStatus::Busy, len }
    }

    /// Its bytes.
    #[must_use]
    pub fn encode(&self) -> [u8; PULL_HEADER_LEN] {
        let mut out = [0; PULL_HEADER_LEN];
        out[..32].copy_from_slice(self.hash.as_bytes());
        out[32] = match self.status {
            PullStatus::Found => 0,
            PullStatus::NotFound => 1,
            PullStatus::Busy => 2,
            PullStatus::Gone => 3,
        };
        out[33..].copy_from_slice(&self.len.to_be_bytes());
        out
    }

    /// Reads the form of [`PullHeader::encode`].
    pub fn decode(bytes: &[u8; PULL_HEADER_LEN]) -> Result<Self, PullWireError> {
        let mut hash = [0; 32];
        hash.copy_from_slice(&bytes[..32]);
        let mut len = [0; 4];
        len.copy_from_slice(&bytes[33..]);
        let status = match bytes[32] {
            0 => PullStatus::Found,
            1 => PullStatus::NotFound,
            2 => PullStatus::Busy,
            3 => PullStatus::Gone,
            other => return Err(PullWireError::Status(other)),
        };
        Ok(Self { hash: Hash::from_bytes(hash), status, len: u32::from_be_bytes(len) })
    }
}

/// CBOR: an array of one element.
const ARRAY_OF_ONE: u8 = 0x81;
/// CBOR: a byte string of 32 bytes.
const BYTES_32: [u8; 2] = [0x58, 32];

/// The CBOR of a request.
pub(super) fn encode_request(hashes: &[Hash]) -> Result<Vec<u8>, PullWireError> {
    let count = hashes.len();
    let small = u16::try_from(count).ok().filter(|count| (1..=MAX_PULL_HASHES).contains(&usize::from(*count)));
    let small = small.ok_or(PullWireError::Count { count })?;
    let mut out = Vec::with_capacity(4 + count * 34);
    out.push(ARRAY_OF_ONE);
    let [high, low] = small.to_be_bytes();
    match small {
        0..=23 => out.push(0x80 | low),
        24..=255 => out.extend([0x98, low]),
        _ => out.extend([0x99, high, low]),
    }
    for hash in hashes {
        out.extend(BYTES_32);
        out.extend(hash.as_bytes());
    }
    Ok(out)
}

/// Reads the form of [`encode_request`], and no other.
pub(super) fn decode_request(bytes: &[u8]) -> Result<Vec<Hash>, PullWireError> {
    let malformed = |at| PullWireError::Malformed { at };
    let (count, start) = match *bytes {
        [ARRAY_OF_ONE, head @ 0x80..=0x97, ..] => (usize::from(head & 0x1f), 2),
        [ARRAY_OF_ONE, 0x98, low @ 24..=255, ..] => (usize::from(low), 3),
        [ARRAY_OF_ONE, 0x99, high @ 1..=255, low, ..] => (usize::from(u16::from_be_bytes([high, low])), 4),
        _ => return Err(malformed(0)),
    };
    if !(1..=MAX_PULL_HASHES).contains(&count) {
        return Err(PullWireError::Count { count });
    }
    let body = &bytes[start..];
    if body.len() != count * 34 {
        return Err(malformed(bytes.len()));
    }
    let one = |(i, item): (usize, &[u8])| match item {
        [0x58, 32, hash @ ..] => hash.try_into().map(Hash::from_bytes).map_err(|_| malformed(start + i * 34)),
        _ => Err(malformed(start + i * 34)),
    };
    body.chunks(34).enumerate().map(one).collect()
}

/// Reads a whole request.
pub(super) async fn read_request<S: AsyncRead + Unpin + Send>(stream: &mut S) -> Result<Vec<Hash>, PullWireError> {
    let body = read_frame(stream, MAX_PULL_REQUEST)
        .await
        .map_err(|error| frame_error(&error).map_or(PullWireError::Broken, PullWireError::Frame))?;
    let hashes = decode_request(&body)?;
    // Half-duplex: whatever follows the request is not ours to buffer, and the end must come.
    match stream.read(&mut [0; 1]).await {
        Ok(0) => Ok(hashes),
        Ok(_) => Err(PullWireError::Malformed { at: body.len() }),
        Err(_) => Err(PullWireError::Broken),
    }
}

/// Writes a whole request and closes the write half.
pub(super) async fn write_request<S: AsyncWrite + Unpin + Send>(
    stream: &mut S,
    hashes: &[Hash],
) -> Result<(), PullWireError> {
    let frame = encode_frame(&encode_request(hashes)?, MAX_PULL_REQUEST)?;
    stream.write_all(&frame).await.map_err(|_| PullWireError::Broken)?;
    stream.close().await.map_err(|_| PullWireError::Broken)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn a_request_comes_back_as_it_went(hashes in proptest::collection::vec(any::<[u8; 32]>(), 1..1025)) {
            let hashes: Vec<Hash> = hashes.into_iter().map(Hash::from_bytes).collect();
            let bytes = encode_request(&hashes).unwrap();
            prop_assert!(bytes.len() <= MAX_PULL_REQUEST);
            prop_assert_eq!(decode_request(&bytes), Ok(hashes));
            prop_assert!(decode_request(&bytes[..bytes.len() - 1]).is_err());
        }

        #[test]
        fn garbage_is_no_request(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            if let Ok(hashes) = decode_request(&bytes) {
                prop_assert_eq!(encode_request(&hashes).unwrap(), bytes);
            }
        }

        #[test]
        fn a_header_comes_back_as_it_went(bytes in any::<[u8; 32]>(), status in 0u8..6, len: u32) {
            let mut raw = [0; PULL_HEADER_LEN];
            raw[..32].copy_from_slice(&bytes);
            raw[32] = status;
            raw[33..].copy_from_slice(&len.to_be_bytes());
            match PullHeader::decode(&raw) {
                Ok(header) => prop_assert_eq!(header.encode(), raw),
                Err(error) => prop_assert_eq!(error, PullWireError::Status(status)),
            }
        }
    }

    #[test]
    fn too_many_and_none_are_refused_by_number() {
        assert_eq!(encode_request(&[]), Err(PullWireError::Count { count: 0 }));
        assert_eq!(encode_request(&[Hash::ZERO; 1025]), Err(PullWireError::Count { count: 1025 }));
        assert_eq!(decode_request(&[0x81, 0x99, 0xff, 0xff]), Err(PullWireError::Count { count: 65535 }));
        assert_eq!(decode_request(&[0x81, 0x80]), Err(PullWireError::Count { count: 0 }));
    }
}
