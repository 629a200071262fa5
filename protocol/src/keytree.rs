//! Chunk keys: one key per chunk, granted by range.
//!
//! Owns the tree that all chunk keys of one stream and one key epoch come from, the [`Cover`] that hands out a range of them,
//! and the rule by which a new chunk gets its place. It never stores a seed and never decides who gets what:
//! that is [`crate::access`].
//!
//! # Construction
//!
//! The keys are the leaves of a binary tree of depth 48 (Goldreich, Goldwasser, Micali: "How to construct random functions",
//! 1986) with BLAKE3 as the pseudo-random function:
//!
//! ```text
//! root        = BLAKE3.derive_key("tributary 2026 chunk key tree root", seed (32) || stream id (32) || epoch (u64, BE))
//! child(b)    = BLAKE3.keyed_hash(key = parent, [b])              b = 0 left, 1 right
//! chunk key   = BLAKE3.keyed_hash(key = leaf, "chunk key")
//! ```
//!
//! The way from the root to a leaf is the leaf's [`Position`], most significant bit first. Who holds a node can derive every
//! leaf below it, and nothing else. So the keys of any range of positions, however long, are at most
//! [`Cover::MAX_NODES`] nodes.

mod cover;
mod position;

use std::ops::RangeInclusive;

use rand_core::CryptoRng;
use sha2::Sha256;
use zeroize::{Zeroize, Zeroizing};

pub use self::{
    cover::{Cover, CoverError},
    position::{EPOCH_SLOTS, EpochEnded, Position, PositionCursor, SLOT_MS},
};
use crate::ids::StreamId;

/// Depth of the tree: a position has this many bits.
pub const DEPTH: u8 = 48;

const ROOT_CONTEXT: &str = "tributary 2026 chunk key tree root";
const CHUNK_KEY_INPUT: &[u8] = b"chunk key";

/// A node of the tree. 32 bytes that are worth every key below them.
type Node = [u8; 32];

/// The secret that all chunk keys of one stream and key epoch come from. Wiped from memory when dropped; has no `Debug` on
/// purpose.
pub struct EpochSeed(Zeroizing<[u8; 32]>);

impl EpochSeed {
    /// Draws a new seed.
    pub fn generate(rng: &mut impl CryptoRng) -> Self {
        let mut seed = Self(Zeroizing::new([0; 32]));
        rng.fill_bytes(seed.0.as_mut());
        seed
    }

    /// Wraps 32 secret bytes.
    #[must_use]
    pub fn from_bytes(bytes: &[u8; 32]) -> Self {
        Self(Zeroizing::new(*bytes))
    }

    /// The secret bytes, to be sealed.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

/// The key that one chunk is sealed with. Wiped from memory when dropped; has no `Debug` on purpose.
pub struct ChunkKey(Zeroizing<[u8; 32]>);

impl ChunkKey {
    /// Wraps 32 secret bytes, such as a key that was wrapped for peaq's tools.
    #[must_use]
    pub fn from_bytes(bytes: &[u8; 32]) -> Self {
        Self(Zeroizing::new(*bytes))
    }

    /// The secret bytes.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }

    /// The public commitment to this key, as in peaq's envelope: its SHA-256. A key has 256 random bits, so this tells nothing
    /// about it, but nobody can open the chunk with another key.
    #[must_use]
    pub fn commitment(&self) -> [u8; 32] {
        <Sha256 as sha2::Digest>::digest(self.0.as_ref()).into()
    }
}

/// All chunk keys of one stream and key epoch.
///
/// Remembers the way to the last key, so the keys of successive positions cost two tree steps each on average, not 48.
pub struct KeyTree {
    /// `path[d]` is the node at depth `d` on the way to `bits`; valid for `d <= valid`. `path[0]` is the root.
    path: Box<[Node; DEPTH as usize + 1]>,
    /// The position the path leads to; below `valid` its bits mean nothing.
    bits: u64,
    /// How deep the path is valid.
    valid: u8,
}

impl KeyTree {
    /// The tree of a stream's epoch.
    #[must_use]
    pub fn new(seed: &EpochSeed, stream: &StreamId, epoch: u64) -> Self {
        let mut hasher = blake3::Hasher::new_derive_key(ROOT_CONTEXT);
        hasher.update(seed.as_bytes());
        hasher.update(stream.as_bytes());
        hasher.update(&epoch.to_be_bytes());
        let mut tree = Self { path: Box::new([[0; 32]; DEPTH as usize + 1]), bits: 0, valid: 0 };
        take(hasher.finalize(), &mut tree.path[0]);
        hasher.zeroize();
        tree
    }

    /// The key of the chunk at `position`.
    pub fn chunk_key(&mut self, position: Position) -> ChunkKey {
        self.walk(DEPTH, position.as_u64());
        leaf_key(&self.path[usize::from(DEPTH)])
    }

    /// The keys of all positions in `range`, first and last included, as few nodes as there can be.
    ///
    /// # Errors
    ///
    /// [`CoverError::EmptyRange`] when the range ends before it begins.
    pub fn cover(&self, range: RangeInclusive<Position>) -> Result<Cover, CoverError> {
        let mut walker = Self { path: self.path.clone(), bits: self.bits, valid: self.valid };
        Cover::build(range, |depth, prefix| {
            walker.walk(depth, prefix << (DEPTH - depth));
            walker.path[usize::from(depth)]
        })
    }

    /// Makes the path lead to the node at `depth` above or at position `bits`, from where it leaves the present path.
    fn walk(&mut self, depth: u8, bits: u64) {
        let common = ((self.bits ^ bits) << (64 - u32::from(DEPTH))).leading_zeros();
        let from = u8::try_from(common).unwrap_or(u8::MAX).min(self.valid).min(depth);
        for d in from..depth {
            let (done, rest) = self.path.split_at_mut(usize::from(d) + 1);
            child(&done[usize::from(d)], bit(bits, d), &mut rest[0]);
        }
        (self.bits, self.valid) = (bits, depth);
    }
}

impl Drop for KeyTree {
    fn drop(&mut self) {
        self.path.zeroize();
    }
}

/// Which child the way to position `bits` takes at a node of depth `depth`.
fn bit(bits: u64, depth: u8) -> u8 {
    u8::from(bits >> (DEPTH - 1 - depth) & 1 == 1)
}

/// One step down.
fn child(parent: &Node, bit: u8, out: &mut Node) {
    take(blake3::keyed_hash(parent, &[bit]), out);
}

/// The chunk key of a leaf.
fn leaf_key(leaf: &Node) -> ChunkKey {
    let mut key = ChunkKey(Zeroizing::new([0; 32]));
    take(blake3::keyed_hash(leaf, CHUNK_KEY_INPUT), &mut key.0);
    key
}

/// Moves a secret hash to where it is wiped later, and wipes what it came in.
fn take(mut hash: blake3::Hash, out: &mut Node) {
    *out = *hash.as_bytes();
    hash.zeroize();
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    pub(super) fn tree() -> KeyTree {
        let seed = EpochSeed::from_bytes(&std::array::from_fn(|i| u8::try_from(i).expect("small")));
        KeyTree::new(&seed, &StreamId::from_bytes([0x22; 32]), 7)
    }

    pub(super) fn position(bits: u64) -> Position {
        Position::from_u64(bits).expect("48 bits")
    }

    /// The construction once more, as it stands in the module's documentation.
    fn plain_key(bits: u64) -> [u8; 32] {
        let mut input: Vec<u8> = (0..32).collect();
        input.extend([0x22; 32]);
        input.extend(7u64.to_be_bytes());
        let mut node = blake3::derive_key("tributary 2026 chunk key tree root", &input);
        for digit in format!("{bits:048b}").bytes() {
            node = *blake3::keyed_hash(&node, &[digit - b'0']).as_bytes();
        }
        *blake3::keyed_hash(&node, b"chunk key").as_bytes()
    }

    /// Computed by an independent implementation (Python, `blake3` package). They never change: published chunks depend on them.
    #[test]
    fn chunk_keys_are_the_frozen_ones() {
        let vectors = [
            (0x0, "5f7e817cfa4b1ffb111a5e4b5d291cb7d672a788e79808de902fca3820bb90cb"),
            (0x1, "b420756b680fd81d7eded45ffade40a4d952f7fd6be7158c2e859ff6506eec04"),
            (0x2, "c661aec8e355b1ab086664e1a96599be1c79e9166d8231cf967959b55526786b"),
            (0xffffffff, "57e8fa920cdcebcf7f89305a6e4fc6b09f570002c09b6eba62bbfe08ba565adf"),
            (0x100000000, "ca4ed263a143a6238efd4e77c1066e6d7b4c5e44174e0a9aa9da6753b945b676"),
            (0x500000007, "3348352ae1dc03be7876d6a7eb81ca67df2860802eed81f478d72644d3d62819"),
            (0xa8bf0001e240, "00c5525f9d03e030ff190e379e2092042dc4febc6379283f8ff36afe16fb32cd"),
            (0xffffffffffff, "3418b16e4e904303d3ff0695b58b320f45738c9e9f57140850f7d69c59f9e91f"),
        ];
        let mut tree = tree();
        for (bits, key) in vectors {
            assert_eq!(hex::encode(tree.chunk_key(position(bits)).as_bytes()), key, "{bits:#x}");
        }
    }

    #[test]
    fn seed_stream_and_epoch_each_change_every_key() {
        let key = |seed: u8, stream: u8, epoch| {
            let seed = EpochSeed::from_bytes(&[seed; 32]);
            *KeyTree::new(&seed, &StreamId::from_bytes([stream; 32]), epoch).chunk_key(Position::MIN).as_bytes()
        };
        let keys = [key(1, 1, 1), key(2, 1, 1), key(1, 2, 1), key(1, 1, 2)];
        for (i, a) in keys.iter().enumerate() {
            assert!(keys[i + 1..].iter().all(|b| a != b));
        }
    }

    #[test]
    fn the_commitment_is_the_sha256_of_the_key() {
        // From peaq's vectors (`primitives.json`, `keyCommitment`) by form; the value is SHA-256 of 32 zero bytes.
        let key = ChunkKey::from_bytes(&[0; 32]);
        assert_eq!(hex::encode(key.commitment()), "66687aadf862bd776c8fc18b8e9f8e20089714856ee233b3902a591d0d5f2925");
    }

    proptest! {
            #[test]
            fn the_remembered_path_never_changes_a_key(
                bits in proptest::collection::vec(prop_oneof![0..64u64, 0..=Position::MAX.as_u64()], 1..40)
            ) {
                let mut tree = tree();
                for bits in bits {
                    let key = tree.chunk_key(position(bits));
    prop_assert_eq!(key.as_bytes(), &plain_key(bits));
                }
            }
        }
}
