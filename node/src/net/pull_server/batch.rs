//! Chunks on their way out: looked up and put one behind the other, each behind its header.

use tributary_protocol::{
    ids::Hash,
    record::MAX_CIPHERTEXT_LEN,
    wire::{PullHeader, PullStatus},
};

/// What a provider knows about a chunk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ChunkLookup {
    /// Its ciphertext was appended.
    Found,
    /// It was withdrawn by a tombstone.
    Gone,
    /// It is not here.
    Absent,
}

/// Where the server finds chunks: the store, or anything else that maps hashes to ciphertext.
pub trait ChunkProvider: Send + Sync + 'static {
    /// Appends the ciphertext of `hash`, at most [`MAX_CIPHERTEXT_LEN`] bytes, to `into`. Called on a thread that may block.
    /// What it appends is not checked again: the puller does that.
    fn read(&self, hash: &Hash, into: &mut Vec<u8>) -> ChunkLookup;
}

impl<F: Fn(&Hash, &mut Vec<u8>) -> ChunkLookup + Send + Sync + 'static> ChunkProvider for F {
    fn read(&self, hash: &Hash, into: &mut Vec<u8>) -> ChunkLookup {
        self(hash, into)
    }
}

/// A batch of headers and ciphertexts, ready to be written.
pub(super) struct Batch {
    pub(super) bytes: Vec<u8>,
    /// Where in `bytes` each ciphertext ends, and its length.
    pub(super) ends: Vec<(usize, u32)>,
    /// The next hash to look up.
    pub(super) next: usize,
}

/// Reads chunks into one buffer, each behind its header, until it holds `limit` bytes or all are there.
pub(super) fn read_batch(
    provider: &dyn ChunkProvider,
    hashes: &[Hash],
    mut next: usize,
    limit: usize,
    mut bytes: Vec<u8>,
) -> Batch {
    bytes.clear();
    let mut ends = Vec::new();
    while let Some(hash) = hashes.get(next) {
        next += 1;
        let start = bytes.len();
        bytes.extend_from_slice(&[0; PullHeader::LEN]);
        let body = start + PullHeader::LEN;
        let found = provider.read(hash, &mut bytes);
        let len = bytes.len() - body;
        let status = match (found, u32::try_from(len)) {
            (ChunkLookup::Found, Ok(small)) if (1..=MAX_CIPHERTEXT_LEN).contains(&len) => {
                PullStatus::Found { len: small }
            }
            (ChunkLookup::Found, _) => {
                tracing::error!(%hash, len, "a stored chunk has a length that no chunk has; not served");
                PullStatus::NotFound
            }
            (ChunkLookup::Gone, _) => PullStatus::Gone,
            (ChunkLookup::Absent, _) => PullStatus::NotFound,
        };
        if let PullStatus::Found { len } = status {
            ends.push((bytes.len(), len));
        } else {
            bytes.truncate(body);
        }
        bytes[start..body].copy_from_slice(&PullHeader { hash: *hash, status }.encode());
        if bytes.len() >= limit {
            break;
        }
    }
    Batch { bytes, ends, next }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn provider(hash: &Hash, into: &mut Vec<u8>) -> ChunkLookup {
        match hash.as_bytes()[0] {
            0 => ChunkLookup::Absent,
            1 => ChunkLookup::Gone,
            2 => {
                into.resize(into.len() + MAX_CIPHERTEXT_LEN + 1, 0);
                ChunkLookup::Found
            }
            n => {
                into.extend(std::iter::repeat_n(n, 1000));
                ChunkLookup::Found
            }
        }
    }

    #[test]
    fn batches_cut_at_the_limit_and_lose_nothing() {
        let hashes: Vec<Hash> = (0..20).map(|n| Hash::from_bytes([n; 32])).collect();
        let (mut next, mut all, mut chunks, mut buffer) = (0, Vec::new(), 0, Vec::new());
        while next < hashes.len() {
            let batch = read_batch(&provider, &hashes, next, 3000, buffer);
            assert!(batch.bytes.len() < 3000 + 1000 + PullHeader::LEN, "{}", batch.bytes.len());
            assert!(batch.next > next);
            all.extend_from_slice(&batch.bytes);
            (next, chunks, buffer) = (batch.next, chunks + batch.ends.len(), batch.bytes);
        }
        assert_eq!(chunks, 17);
        assert_eq!(all.len(), 20 * PullHeader::LEN + 17 * 1000);
        // An oversized chunk is not there, rather than a frame no puller accepts.
        let third: &[u8; PullHeader::LEN] = all[2 * PullHeader::LEN..3 * PullHeader::LEN].try_into().unwrap();
        assert_eq!(PullHeader::decode(third).unwrap().status, PullStatus::NotFound);
    }
}
