//! A range of chunk keys as few nodes of the tree.

use std::ops::RangeInclusive;

use zeroize::{Zeroize, Zeroizing};

use super::{ChunkKey, DEPTH, Node, Position, bit, child, leaf_key};
use crate::ids::Hash;

/// Why a cover cannot be built, or is not what it should be.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum CoverError {
    /// The range ends before it begins.
    #[error("the key range {first} to {last} is empty; name its first position first")]
    EmptyRange {
        /// Where it begins.
        first: Position,
        /// Where it ends.
        last: Position,
    },
    /// Written by a later version.
    #[error("the cover has version {found}, this program reads version 1; update it")]
    Version {
        /// The version that was found.
        found: u8,
    },
    /// Not as long as its node count says, or not 1 to 94 nodes.
    #[error("the cover is malformed: {found} bytes for {nodes} nodes")]
    Length {
        /// Its length in bytes.
        found: usize,
        /// How many nodes it says it has.
        nodes: u8,
    },
    /// A node is not where the canonical cover has it.
    #[error("node {node} of the cover is not the one that the canonical cover has there; refuse the grant")]
    NotCanonical {
        /// Which node, from 0.
        node: usize,
    },
    /// It covers another range than it should.
    #[error("the cover is for positions {first} to {last}, not for the granted ones; refuse the grant")]
    OtherRange {
        /// Its first position.
        first: Position,
        /// Its last position.
        last: Position,
    },
}

/// Where a node is: `depth` steps below the root, on the way that the `depth` bits of `prefix` say.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Place {
    depth: u8,
    prefix: u64,
}

impl Place {
    fn first(self) -> u64 {
        self.prefix << (DEPTH - self.depth)
    }

    fn last(self) -> u64 {
        self.first() + ((1 << (DEPTH - self.depth)) - 1)
    }
}

/// The canonical minimal cover of a range: the largest subtrees that lie inside, from left to right.
struct CanonicalPlaces {
    next: Option<u64>,
    last: u64,
}

impl CanonicalPlaces {
    fn of(first: Position, last: Position) -> Self {
        Self { next: (first <= last).then_some(first.as_u64()), last: last.as_u64() }
    }
}

impl Iterator for CanonicalPlaces {
    type Item = Place;

    fn next(&mut self) -> Option<Place> {
        let first = self.next?;
        // A subtree must begin where we are (alignment) and end inside (its size, at most what remains).
        let aligned = first.trailing_zeros();
        let fits = (self.last - first + 1).ilog2();
        let height = u8::try_from(aligned.min(fits)).expect("at most 48: a range holds at most 2^48 positions");
        let place = Place { depth: DEPTH - height, prefix: first >> height };
        self.next = (place.last() < self.last).then(|| place.last() + 1);
        Some(place)
    }
}

struct CoverNode {
    place: Place,
    key: Node,
}

/// The keys of a range of positions: the nodes of its canonical minimal cover, from left to right. Exactly the keys in the
/// range can be derived from it. Wiped from memory when dropped; has no `Debug` on purpose.
///
/// # Byte layout
///
/// | offset | bytes | field |
/// |---|---|---|
/// | 0 | 1 | version, 1 |
/// | 1 | 1 | number of nodes, 1 to 94 |
/// | 2 + 39 i | 1 | depth of node i, 0 to 48 |
/// | 3 + 39 i | 6 | prefix of node i, big endian: its first `depth` bits as a number |
/// | 9 + 39 i | 32 | key of node i |
///
/// There is one cover per range and one encoding per cover; everything else is refused.
pub struct Cover {
    nodes: Vec<CoverNode>,
}

impl Cover {
    /// The most nodes a cover can have: one on each side at each of the 47 depths below the root's children.
    pub const MAX_NODES: usize = 2 * DEPTH as usize - 2;

    /// Length of an encoded node in bytes.
    pub const NODE_LEN: usize = 39;

    /// Length of the longest encoded cover in bytes.
    pub const MAX_LEN: usize = Self::HEADER_LEN + Self::MAX_NODES * Self::NODE_LEN;

    const HEADER_LEN: usize = 2;
    const VERSION: u8 = 1;

    pub(super) fn build(
        range: RangeInclusive<Position>,
        mut node: impl FnMut(u8, u64) -> Node,
    ) -> Result<Self, CoverError> {
        let (first, last) = range.into_inner();
        if first > last {
            return Err(CoverError::EmptyRange { first, last });
        }
        // Full capacity at once: a vector that grows would leave keys behind in memory it gave back.
        let mut nodes = Vec::with_capacity(Self::MAX_NODES);
        for place in CanonicalPlaces::of(first, last) {
            nodes.push(CoverNode { place, key: node(place.depth, place.prefix) });
        }
        Ok(Self { nodes })
    }

    /// Number of nodes, 1 to 94.
    #[must_use]
    pub fn node_count(&self) -> usize {
        self.nodes.len()
    }

    /// The first and the last position covered.
    #[must_use]
    pub fn range(&self) -> (Position, Position) {
        let first = self.nodes.first().map(|node| node.place.first());
        let last = self.nodes.last().map(|node| node.place.last());
        let known = |bits: Option<u64>| bits.and_then(Position::from_u64).expect("a cover has nodes, all in the tree");
        (known(first), known(last))
    }

    /// The key of the chunk at `position`; `None` when the cover does not reach it.
    #[must_use]
    pub fn chunk_key(&self, position: Position) -> Option<ChunkKey> {
        let bits = position.as_u64();
        let above = self.nodes.partition_point(|node| node.place.last() < bits);
        let node = self.nodes.get(above).filter(|node| node.place.first() <= bits)?;
        let mut at = Zeroizing::new(node.key);
        for depth in node.place.depth..DEPTH {
            let mut below = Zeroizing::new([0; 32]);
            child(&at, bit(bits, depth), &mut below);
            at = below;
        }
        Some(leaf_key(&at))
    }

    /// Checks that this is the canonical cover of exactly `range`: neither more nor less was granted than said.
    ///
    /// # Errors
    ///
    /// [`CoverError::OtherRange`] or [`CoverError::NotCanonical`].
    pub fn verify_canonical(&self, range: RangeInclusive<Position>) -> Result<(), CoverError> {
        check_places(self.nodes.iter().map(|node| node.place))?;
        let (first, last) = self.range();
        if (first, last) == range.into_inner() { Ok(()) } else { Err(CoverError::OtherRange { first, last }) }
    }

    /// A commitment to all of it that can be published: it names the range and the keys, and tells nothing about the keys.
    #[must_use]
    pub fn hash(&self) -> Hash {
        Hash::derive("tributary 2026 chunk key cover", &self.encode())
    }

    /// The byte layout above. Secret.
    #[must_use]
    pub fn encode(&self) -> Zeroizing<Vec<u8>> {
        let mut out = Zeroizing::new(Vec::with_capacity(Self::HEADER_LEN + self.nodes.len() * Self::NODE_LEN));
        out.push(Self::VERSION);
        out.push(u8::try_from(self.nodes.len()).expect("a cover has at most 94 nodes"));
        for CoverNode { place, key } in &self.nodes {
            out.push(place.depth);
            out.extend_from_slice(&place.prefix.to_be_bytes()[2..]);
            out.extend_from_slice(key);
        }
        out
    }

    /// Reads [`Cover::encode`]. What it returns is the canonical cover of *some* range: that it is the granted one is for
    /// [`Cover::verify_canonical`], and that the keys are the right ones shows in each chunk's key commitment.
    ///
    /// # Errors
    ///
    /// When the bytes are not the encoding of a canonical cover.
    pub fn decode(bytes: &[u8]) -> Result<Self, CoverError> {
        let (version, count) = match bytes {
            [version, count, ..] => (*version, *count),
            _ => return Err(CoverError::Length { found: bytes.len(), nodes: 0 }),
        };
        if version != Self::VERSION {
            return Err(CoverError::Version { found: version });
        }
        let (encoded, rest) = bytes[Self::HEADER_LEN..].as_chunks::<{ Self::NODE_LEN }>();
        let counted = usize::from(count);
        if counted == 0 || counted > Self::MAX_NODES || encoded.len() != counted || !rest.is_empty() {
            return Err(CoverError::Length { found: bytes.len(), nodes: count });
        }
        let mut nodes = Vec::with_capacity(Self::MAX_NODES);
        for (i, node) in encoded.iter().enumerate() {
            let [depth, place @ ..] = node;
            let (prefix, key) = place.split_at(6);
            let prefix = prefix.iter().fold(0, |bits, byte| bits << 8 | u64::from(*byte));
            if *depth > DEPTH || prefix >> depth != 0 {
                return Err(CoverError::NotCanonical { node: i });
            }
            let mut kept = CoverNode { place: Place { depth: *depth, prefix }, key: [0; 32] };
            kept.key.copy_from_slice(key);
            nodes.push(kept);
        }
        let cover = Self { nodes };
        check_places(cover.nodes.iter().map(|node| node.place))?;
        Ok(cover)
    }
}

impl Drop for Cover {
    fn drop(&mut self) {
        for node in &mut self.nodes {
            node.key.zeroize();
        }
    }
}

/// Checks that the places are the canonical cover of the range from the first one's begin to the last one's end.
fn check_places(places: impl DoubleEndedIterator<Item = Place> + ExactSizeIterator + Clone) -> Result<(), CoverError> {
    let ends = places.clone().next().zip(places.clone().next_back());
    let range = ends.and_then(|(first, last)| {
        Some((Position::from_u64(first.first())?, Position::from_u64(last.last())?))
            .filter(|(first, last)| first <= last)
    });
    let Some((first, last)) = range else {
        return Err(CoverError::NotCanonical { node: 0 });
    };
    let mut expected = CanonicalPlaces::of(first, last);
    for (node, place) in places.enumerate() {
        if expected.next() != Some(place) {
            return Err(CoverError::NotCanonical { node });
        }
    }
    // Nothing can be missing behind the last place: it ends where the range ends, and so does the canonical cover there.
    Ok(())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::{
        super::tests::{position, tree},
        *,
    };

    const LAST: u64 = Position::MAX.as_u64();

    /// The cover once more, top down: take a subtree that lies inside, else look into its halves.
    fn oracle(place: Place, first: u64, last: u64, out: &mut Vec<Place>) {
        if place.last() < first || last < place.first() {
            return;
        }
        if first <= place.first() && place.last() <= last {
            out.push(place);
            return;
        }
        for half in 0..2 {
            oracle(Place { depth: place.depth + 1, prefix: place.prefix << 1 | half }, first, last, out);
        }
    }

    fn oracle_places(first: u64, last: u64) -> Vec<Place> {
        let mut out = Vec::new();
        oracle(Place { depth: 0, prefix: 0 }, first, last, &mut out);
        out
    }

    fn places(cover: &Cover) -> Vec<Place> {
        cover.nodes.iter().map(|node| node.place).collect()
    }

    fn cover(first: u64, last: u64) -> Cover {
        tree().cover(position(first)..=position(last)).expect("a range")
    }

    /// A cover with other places, each with the key that belongs there.
    fn forged(places: &[Place]) -> Vec<u8> {
        let nodes = places
            .iter()
            .map(|place| {
                let honest = cover(place.first(), place.last());
                CoverNode { place: *place, key: honest.nodes[0].key }
            })
            .collect();
        Cover { nodes }.encode().to_vec()
    }

    fn range() -> impl Strategy<Value = (u64, u64)> {
        let any = (0..=LAST, 0..=LAST).prop_map(|(a, b)| (a.min(b), a.max(b)));
        let short = (0..=LAST, 0..2000u64).prop_map(|(a, n)| (a, a.saturating_add(n).min(LAST)));
        let minutes = (0..EPOCH, 0..300u64).prop_map(|(a, n)| (a << 32, ((a + n) << 32) | 0xffff_ffff));
        prop_oneof![any, short, minutes]
    }
    const EPOCH: u64 = super::super::EPOCH_SLOTS as u64;

    #[test]
    fn the_whole_tree_is_its_root_and_one_position_is_its_leaf() {
        assert_eq!(places(&cover(0, LAST)), [Place { depth: 0, prefix: 0 }]);
        assert_eq!(places(&cover(5, 5)), [Place { depth: 48, prefix: 5 }]);
        assert_eq!(places(&cover(LAST, LAST)), [Place { depth: 48, prefix: LAST }]);
    }

    #[test]
    fn the_worst_range_needs_94_nodes_and_less_than_4_kib() {
        let worst = cover(1, LAST - 1);
        assert_eq!(worst.node_count(), Cover::MAX_NODES);
        assert_eq!(worst.encode().len(), Cover::MAX_LEN);
        const { assert!(Cover::MAX_NODES == 94 && Cover::MAX_LEN < 4096) };
    }

    #[test]
    fn an_empty_range_is_refused() {
        let error = tree().cover(position(2)..=position(1)).err();
        assert_eq!(error, Some(CoverError::EmptyRange { first: position(2), last: position(1) }));
    }

    #[test]
    fn another_range_is_refused() {
        let cover = cover(10, 20);
        assert_eq!(cover.verify_canonical(position(10)..=position(20)), Ok(()));
        for (first, last) in [(10, 21), (9, 20), (11, 20), (10, 19), (0, LAST)] {
            let refused = Err(CoverError::OtherRange { first: position(10), last: position(20) });
            assert_eq!(cover.verify_canonical(position(first)..=position(last)), refused);
        }
    }

    #[test]
    fn the_encoding_is_the_frozen_one() {
        let encoded = cover(0x0001_0000_0003, 0x0001_0000_0005).encode();
        assert_eq!(
            hex::encode(&*encoded),
            concat!(
                "0102",
                "30000100000003",
                "79d2a732dc5a0d87bc68fd2f2e4b777a04c4752e6f872ee866d2e58af110214e",
                "2f000080000002",
                "0f8454ac4e68b707873fd0ba917dbd1cc1af46f9ed1ed1f9cd52a89f6bce9c6e",
            )
        );
    }

    #[test]
    fn a_node_outside_the_tree_is_refused() {
        for (depth, prefix) in [(0, 1), (8, 0x100), (8, 0x1ff), (47, 1 << 47), (49, 0), (255, 0), (0, (1 << 48) - 1)] {
            let outside = Cover { nodes: vec![CoverNode { place: Place { depth, prefix }, key: [0; 32] }] };
            assert_eq!(Cover::decode(&outside.encode()).err(), Some(CoverError::NotCanonical { node: 0 }), "{depth}");
        }
    }

    #[test]
    fn a_later_version_says_so() {
        let mut bytes = cover(1, 2).encode().to_vec();
        bytes[0] = 2;
        assert_eq!(Cover::decode(&bytes).err(), Some(CoverError::Version { found: 2 }));
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(128))]

        #[test]
        fn a_cover_is_the_minimal_one_and_stays_inside((first, last) in range()) {
            let places = places(&cover(first, last));
            prop_assert_eq!(&places, &oracle_places(first, last));
            prop_assert!(places.len() <= Cover::MAX_NODES);
            // Side by side from the first position to the last: so no leaf outside is below any node.
            let mut next = first;
            for place in &places {
                prop_assert_eq!(place.first(), next);
                next = place.last() + 1;
            }
            prop_assert_eq!(next, last + 1);
        }

        #[test]
        fn a_cover_derives_the_keys_inside_and_none_outside(
            (first, last) in range(), picks in any::<[u64; 8]>()
        ) {
            let mut tree = tree();
            let cover = cover(first, last);
            let inside = picks.iter().map(|pick| first + pick % (last - first + 1)).chain([first, last]);
            for bits in inside {
                let (derived, key) = (cover.chunk_key(position(bits)).expect("inside"), tree.chunk_key(position(bits)));
                prop_assert_eq!(derived.as_bytes(), key.as_bytes());
            }
            let near = [first.checked_sub(1), last.checked_add(1)].into_iter().flatten();
            for bits in near.chain(picks).filter_map(Position::from_u64) {
                prop_assert_eq!(cover.chunk_key(bits).is_some(), (first..=last).contains(&bits.as_u64()));
            }
        }

        #[test]
        fn a_cover_survives_its_bytes((first, last) in range()) {
            let cover = cover(first, last);
            let bytes = cover.encode();
            let read = Cover::decode(&bytes).expect("canonical");
            prop_assert_eq!(read.encode(), bytes.clone());
            prop_assert_eq!(read.range(), (position(first), position(last)));
            prop_assert_eq!(read.verify_canonical(position(first)..=position(last)), Ok(()));
            prop_assert_eq!(read.hash(), cover.hash());
            for cut in [0, 1, 2, bytes.len() - 1] {
                prop_assert!(Cover::decode(&bytes[..cut]).is_err());
            }
            prop_assert!(Cover::decode(&[&bytes[..], &[0]].concat()).is_err());
        }

        #[test]
        fn a_split_merged_shifted_duplicated_or_reordered_cover_is_refused((first, last) in range(), pick: prop::sample::Index) {
            let honest = places(&cover(first, last));
            let at = pick.index(honest.len());
            let Place { depth, prefix } = honest[at];

            if depth < DEPTH && honest.len() < Cover::MAX_NODES {
                let halves = [0, 1].map(|half| Place { depth: depth + 1, prefix: prefix << 1 | half });
                let mut split = honest.clone();
                split.splice(at..=at, halves);
                prop_assert_eq!(Cover::decode(&forged(&split)).err(), Some(CoverError::NotCanonical { node: at }));
            }
            if depth > 0 {
                // The parent reaches outside the range, or over what the neighbours cover.
                let mut merged = honest.clone();
                merged[at] = Place { depth: depth - 1, prefix: prefix >> 1 };
                let refused = Cover::decode(&forged(&merged))
                    .and_then(|cover| cover.verify_canonical(position(first)..=position(last)));
                prop_assert!(refused.is_err());

                let mut shifted = honest.clone();
                shifted[at].prefix ^= 1;
                let refused = Cover::decode(&forged(&shifted))
                    .and_then(|cover| cover.verify_canonical(position(first)..=position(last)));
                prop_assert!(refused.is_err());
            }
            if honest.len() < Cover::MAX_NODES {
                let mut doubled = honest.clone();
                doubled.insert(at, honest[at]);
                prop_assert!(Cover::decode(&forged(&doubled)).is_err());
            }
            if honest.len() > 1 {
                let mut reordered = honest.clone();
                reordered.rotate_left(1);
                prop_assert!(Cover::decode(&forged(&reordered)).is_err());

                let mut short = honest.clone();
                short.remove(at);
                let refused = Cover::decode(&forged(&short))
                    .and_then(|cover| cover.verify_canonical(position(first)..=position(last)));
                prop_assert!(refused.is_err());
            }
        }

        #[test]
        fn arbitrary_bytes_are_refused_or_read_back_the_same(
            nodes in proptest::collection::vec((0..60u8, any::<[u8; 38]>()), 0..100), count: u8, honest: bool
        ) {
            let mut bytes = vec![1, if honest { u8::try_from(nodes.len()).expect("few") } else { count }];
            for (depth, rest) in nodes {
                bytes.push(depth);
                bytes.extend(rest);
            }
            if let Ok(cover) = Cover::decode(&bytes) {
                prop_assert_eq!(cover.encode().to_vec(), bytes);
            }
        }
    }
}
