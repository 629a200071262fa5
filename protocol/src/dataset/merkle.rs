//! The Merkle tree over the chunk records of a dataset: RFC 6962 section 2.1 with BLAKE3 in the place of SHA-256.
//!
//! ```text
//! leaf = BLAKE3(0x00 || encoded chunk record)
//! node = BLAKE3(0x01 || left || right)        left: the largest power of two that leaves something for the right
//! ```

use ct_merkle::{InclusionProof, RootHash};

type Digest = [u8; 32];

/// Length of the longest inclusion proof in bytes: 32 hashes, for 2^32 chunks.
pub const MAX_PROOF_LEN: usize = 32 * 32;

/// Roots of complete subtrees are kept from this height on (8 leaves); lower ones are cheaper to hash again than to keep.
const KEPT_HEIGHT: u32 = 3;

/// Why a chunk record is not proven to be in a dataset.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum InclusionError {
    /// There is no such chunk.
    #[error("the dataset has {count} chunks, there is no chunk {index}")]
    Index {
        /// The index that was asked for.
        index: u32,
        /// How many chunks there are.
        count: u32,
    },
    /// The proof does not have the length that every proof for this place has.
    #[error("the inclusion proof for chunk {index} has {found} bytes, which cannot be; get it from another peer")]
    Length {
        /// The index of the chunk.
        index: u32,
        /// Length of the proof in bytes.
        found: usize,
    },
    /// The proof leads to another root.
    #[error("chunk {index} is not proven to be in the dataset; get the proof from another peer")]
    Root {
        /// The index of the chunk.
        index: u32,
    },
}

/// Checks that the encoded chunk record `record` is chunk `index` of the `count` chunks under `root`. The proof is that of
/// RFC 6962 section 2.1.1, its hashes one behind the other. Any bytes from anywhere may be given.
///
/// # Errors
///
/// When it is not proven.
pub fn verify_inclusion(
    root: &[u8; 32],
    count: u32,
    index: u32,
    record: &[u8],
    proof: &[u8],
) -> Result<(), InclusionError> {
    // Counts of 32 bits keep the tree arithmetic of the library far from its limits, where it would panic.
    if index >= count {
        return Err(InclusionError::Index { index, count });
    }
    let length = InclusionError::Length { index, found: proof.len() };
    if proof.len() > MAX_PROOF_LEN {
        return Err(length);
    }
    let proof = InclusionProof::<blake3::Hasher>::try_from_bytes(proof.to_vec()).map_err(|_| length)?;
    RootHash::<blake3::Hasher>::new((*root).into(), u64::from(count))
        .verify_inclusion(&record, u64::from(index), &proof)
        .map_err(|error| match error {
            ct_merkle::InclusionVerifError::MalformedProof => length,
            _ => InclusionError::Root { index },
        })
}

fn leaf_hash(record: &[u8]) -> Digest {
    let mut hasher = blake3::Hasher::new();
    hasher.update(&[0]);
    hasher.update(record);
    *hasher.finalize().as_bytes()
}

fn node_hash(left: &Digest, right: &Digest) -> Digest {
    let mut bytes = [1; 65];
    bytes[1..33].copy_from_slice(left);
    bytes[33..].copy_from_slice(right);
    *blake3::hash(&bytes).as_bytes()
}

/// The root of the records so far, without the records: at most 32 hashes.
#[derive(Debug, Clone, Default)]
pub struct RootAccumulator {
    count: u64,
    /// Roots of the complete subtrees that the records fall into, from the largest: one per bit of `count`.
    subtrees: Vec<Digest>,
}

impl RootAccumulator {
    /// Adds an encoded chunk record.
    pub fn push(&mut self, record: &[u8]) {
        let mut hash = leaf_hash(record);
        // As in a binary counter: every bit that carries is a subtree that becomes the left half of the next larger one.
        for _ in 0..self.count.trailing_ones() {
            let left = self.subtrees.pop().expect("there is a subtree for every bit of the count");
            hash = node_hash(&left, &hash);
        }
        self.subtrees.push(hash);
        self.count += 1;
    }

    /// How many records there are.
    #[must_use]
    pub fn len(&self) -> u64 {
        self.count
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// The root; of no records at all, the hash of nothing (RFC 6962 section 2.1).
    #[must_use]
    pub fn root(&self) -> [u8; 32] {
        let mut from_right = self.subtrees.iter().rev().copied();
        match from_right.next() {
            Some(last) => from_right.fold(last, |right, left| node_hash(&left, &right)),
            None => *blake3::hash(b"").as_bytes(),
        }
    }
}

/// The tree of a dataset, to prove chunks from: 32 bytes per chunk and a quarter more, 40 MB for a million chunks.
#[derive(Debug, Clone, Default)]
pub struct DatasetTree {
    leaves: Vec<Digest>,
    /// `upper[h - KEPT_HEIGHT][i]` is the root over the leaves `i << h .. (i + 1) << h`.
    upper: Vec<Vec<Digest>>,
}

impl DatasetTree {
    /// Adds an encoded chunk record.
    pub fn push(&mut self, record: &[u8]) {
        self.leaves.push(leaf_hash(record));
        let count = self.leaves.len();
        for height in KEPT_HEIGHT..=count.trailing_zeros() {
            let index = (count >> height) - 1;
            let root = node_hash(&self.complete(height - 1, 2 * index), &self.complete(height - 1, 2 * index + 1));
            let kept = height_index(height);
            if kept == self.upper.len() {
                self.upper.push(Vec::new());
            }
            self.upper[kept].push(root);
        }
    }

    /// How many records there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.leaves.len()
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.leaves.is_empty()
    }

    /// The root; of no records at all, the hash of nothing (RFC 6962 section 2.1).
    #[must_use]
    pub fn root(&self) -> [u8; 32] {
        match self.len() {
            0 => *blake3::hash(b"").as_bytes(),
            count => self.range(0, count),
        }
    }

    /// The proof that chunk `index` is in the dataset, for [`verify_inclusion`]; `None` when there is no such chunk.
    #[must_use]
    pub fn prove(&self, index: u32) -> Option<Vec<u8>> {
        let index = usize::try_from(index).ok().filter(|index| *index < self.len())?;
        // From the root down to the leaf, noting at each step the half that is left behind; a proof goes the other way.
        let (mut begin, mut end) = (0, self.len());
        let mut siblings = Vec::new();
        while end - begin > 1 {
            let middle = begin + split(end - begin);
            if index < middle {
                siblings.push(self.range(middle, end));
                end = middle;
            } else {
                siblings.push(self.range(begin, middle));
                begin = middle;
            }
        }
        siblings.reverse();
        Some(siblings.concat())
    }

    #[cfg(test)]
    pub(super) fn kept_hashes(&self) -> usize {
        self.leaves.len() + self.upper.iter().map(Vec::len).sum::<usize>()
    }

    /// The root over some leaves that are a subtree: `begin` is a multiple of the largest power of two below the length.
    fn range(&self, begin: usize, end: usize) -> Digest {
        let len = end - begin;
        if len.is_power_of_two() {
            return self.complete(len.trailing_zeros(), begin >> len.trailing_zeros());
        }
        let middle = begin + split(len);
        node_hash(&self.range(begin, middle), &self.range(middle, end))
    }

    /// The root over the leaves `index << height .. (index + 1) << height`, all of which are there.
    fn complete(&self, height: u32, index: usize) -> Digest {
        if height == 0 {
            self.leaves[index]
        } else if height < KEPT_HEIGHT {
            node_hash(&self.complete(height - 1, 2 * index), &self.complete(height - 1, 2 * index + 1))
        } else {
            self.upper[height_index(height)][index]
        }
    }
}

/// Where the roots of a kept height are in [`DatasetTree::upper`].
fn height_index(height: u32) -> usize {
    usize::try_from(height - KEPT_HEIGHT).expect("heights are below 64")
}

/// How many of `len >= 2` leaves are on the left: the largest power of two below `len`.
fn split(len: usize) -> usize {
    1 << (len - 1).ilog2()
}
