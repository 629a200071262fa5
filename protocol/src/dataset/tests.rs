use ct_merkle::mem_backed_tree::MemoryBackedTree;
use proptest::prelude::*;

use super::*;
use crate::{
    ids::Hash,
    record::{ContentEncoding, TAG_LEN},
};

/// The root as RFC 6962 section 2.1 defines it.
fn oracle_root(leaves: &[Vec<u8>]) -> [u8; 32] {
    match leaves {
        [] => *blake3::hash(b"").as_bytes(),
        [leaf] => *blake3::hash(&[&[0][..], leaf].concat()).as_bytes(),
        _ => {
            let left = leaves.len().next_power_of_two() / 2;
            let halves = [oracle_root(&leaves[..left]), oracle_root(&leaves[left..])];
            *blake3::hash(&[&[1][..], &halves.concat()].concat()).as_bytes()
        }
    }
}

/// The proof as RFC 6962 section 2.1.1 defines it.
fn oracle_proof(leaves: &[Vec<u8>], index: usize) -> Vec<u8> {
    if leaves.len() < 2 {
        return Vec::new();
    }
    let left = leaves.len().next_power_of_two() / 2;
    if index < left {
        [oracle_proof(&leaves[..left], index), oracle_root(&leaves[left..]).to_vec()].concat()
    } else {
        [oracle_proof(&leaves[left..], index - left), oracle_root(&leaves[..left]).to_vec()].concat()
    }
}

fn leaves(count: usize) -> Vec<Vec<u8>> {
    (0..count).map(|i| format!("record {i}").into_bytes()).collect()
}

fn tree(leaves: &[Vec<u8>]) -> DatasetTree {
    let mut tree = DatasetTree::default();
    leaves.iter().for_each(|leaf| tree.push(leaf));
    tree
}

fn number(i: usize) -> u32 {
    u32::try_from(i).expect("a small number")
}

#[test]
fn roots_and_proofs_are_those_of_the_rfc_and_of_the_library() {
    let all = leaves(130);
    let (mut tree, mut accumulator) = (DatasetTree::default(), RootAccumulator::default());
    let mut library = MemoryBackedTree::<blake3::Hasher, Vec<u8>>::new();
    assert_eq!((tree.root(), accumulator.root()), (oracle_root(&[]), oracle_root(&[])));
    assert!(tree.is_empty() && accumulator.is_empty());
    for count in 1..=all.len() {
        let leaves = &all[..count];
        tree.push(&leaves[count - 1]);
        accumulator.push(&leaves[count - 1]);
        library.push(leaves[count - 1].clone());
        let root = oracle_root(leaves);
        assert_eq!((tree.root(), tree.len()), (root, count));
        assert_eq!((accumulator.root(), accumulator.len()), (root, u64::from(number(count))));
        assert_eq!(library.root().as_bytes()[..], root);
        for index in 0..count {
            let proof = tree.prove(number(index)).expect("in the tree");
            assert_eq!(proof, oracle_proof(leaves, index), "{index} of {count}");
            assert_eq!(proof, library.prove_inclusion(index).as_bytes());
            assert_eq!(verify_inclusion(&root, number(count), number(index), &leaves[index], &proof), Ok(()));
        }
        assert_eq!(tree.prove(number(count)), None);
    }
}

#[test]
fn a_large_dataset_is_proven_with_little_memory() {
    let count = 100_000;
    let leaves = leaves(count);
    let tree = tree(&leaves);
    let kept = tree.kept_hashes();
    assert!(kept * 32 <= count * 40, "{kept} hashes for {count} chunks");
    for index in [0, 1, 65_535, 65_536, 99_999] {
        let proof = tree.prove(number(index)).expect("in the tree");
        assert!(proof.len() <= 17 * 32);
        assert_eq!(verify_inclusion(&tree.root(), number(count), number(index), &leaves[index], &proof), Ok(()));
    }
}

#[test]
fn impossible_counts_and_lengths_are_refused_without_a_panic() {
    let leaves = leaves(5);
    let tree = tree(&leaves);
    let (root, proof) = (tree.root(), tree.prove(2).expect("in the tree"));
    let verify = |count, index, proof: &[u8]| verify_inclusion(&root, count, index, &leaves[2], proof);
    assert_eq!(verify(5, 2, &proof), Ok(()));
    assert_eq!(verify(0, 0, &proof), Err(InclusionError::Index { index: 0, count: 0 }));
    assert_eq!(verify(5, 5, &proof), Err(InclusionError::Index { index: 5, count: 5 }));
    assert_eq!(verify(u32::MAX, u32::MAX, &proof), Err(InclusionError::Index { index: u32::MAX, count: u32::MAX }));
    assert_eq!(verify(5, 3, &proof), Err(InclusionError::Root { index: 3 }));
    for found in [0, 1, 31, 33, proof.len() - 32, proof.len() + 32, MAX_PROOF_LEN, MAX_PROOF_LEN + 32] {
        assert_eq!(verify(5, 2, &vec![0; found]), Err(InclusionError::Length { index: 2, found }));
    }
    for (count, index) in [(u32::MAX, 0), (u32::MAX, u32::MAX - 1), (1 << 31, 1)] {
        assert!(verify(count, index, &vec![0; MAX_PROOF_LEN]).is_err());
    }
}

fn stream() -> StreamId {
    StreamId::from_bytes([1; 32])
}

/// Records that follow each other, as a machine makes them.
fn chain(count: usize) -> Vec<ChunkRecord> {
    let dataset = DatasetId::of(&stream(), 2, 40);
    let mut previous = None;
    (0..count)
        .map(|i| {
            let index = number(i);
            let sha256 = *blake3::hash(&index.to_be_bytes()).as_bytes();
            let chunk_id = seal::chunk_id(previous.as_ref(), &sha256, index);
            ChunkRecord {
                stream: stream(),
                dataset,
                index,
                epoch: 3,
                position: Position::new(7, 2 * index),
                chunk_id,
                previous_chunk_id: previous.replace(chunk_id),
                sha256,
                hash: Hash::from_bytes(sha256),
                len: 100,
                nonce: [0; 24],
                key_commitment: [0; 32],
                plaintext_commitment: [0; 32],
                package_count: 10,
                first_number: 1000 + 12 * u64::from(index),
                gaps: 2,
                time_from_ms: 5000 + u64::from(index),
                time_to_ms: 6000 + u64::from(index),
                encoding: ContentEncoding::PACKAGES,
                v1_signature: [0; 64],
            }
        })
        .collect()
}

fn built(records: &[ChunkRecord]) -> DatasetBuilder {
    let mut builder = DatasetBuilder::new(stream(), 3, 2, 40);
    for (seq, record) in (40..).zip(records) {
        builder.push(seq, record).expect("follows");
    }
    builder
}

#[test]
fn a_builder_counts_what_it_was_given() {
    let records = chain(11);
    let builder = built(&records);
    let entry = builder.close().expect("it has chunks");
    let leaves: Vec<_> = records.iter().map(ChunkRecord::encode).collect();
    let expected = DatasetEntry {
        dataset: DatasetId::of(&stream(), 2, 40),
        stream: stream(),
        epoch: 3,
        incarnation: 2,
        chunk_count: 11,
        package_count: 110,
        bytes: 1100,
        time_from_ms: 5000,
        time_to_ms: 6010,
        first_seq: 40,
        last_seq: 50,
        first_position: Position::new(7, 0),
        last_position: Position::new(7, 20),
        merkle_root: oracle_root(&leaves),
    };
    assert_eq!(entry, expected);
    assert_eq!(DatasetEntry::decode(&entry.encode()), Ok(entry));
    assert_eq!((builder.next_index(), builder.last_chunk_id()), (11, Some(records[10].chunk_id)));
    assert_eq!(DatasetBuilder::new(stream(), 3, 2, 40).close(), None);
}

#[test]
fn a_chunk_that_does_not_follow_is_refused_by_field_and_changes_nothing() {
    type Spoil = fn(&mut ChunkRecord);
    let cases: [(&str, Spoil); 9] = [
        ("stream", |r| r.stream = StreamId::from_bytes([9; 32])),
        ("dataset", |r| r.dataset = DatasetId::from_bytes([9; 32])),
        ("key epoch", |r| r.epoch += 1),
        ("index", |r| r.index += 1),
        ("link to the chunk before", |r| r.previous_chunk_id = Some([9; 32])),
        ("key position", |r| r.position = Position::new(7, 4)),
        ("first package number", |r| r.first_number = 1033),
        ("length or range", |r| r.time_to_ms = 0),
        ("id", |r| r.sha256 = [9; 32]),
    ];
    let records = chain(4);
    let mut builder = built(&records[..3]);
    let before = builder.close();
    for (expected, spoil) in cases {
        let mut record = records[3].clone();
        spoil(&mut record);
        let broken = DatasetError::Broken { dataset: builder.id(), index: 3, field: expected };
        assert_eq!(builder.push(43, &record), Err(broken));
        assert_eq!(builder.close(), before);
    }
    let broken = DatasetError::Broken { dataset: builder.id(), index: 3, field: "place in the log" };
    assert_eq!(builder.push(44, &records[3]), Err(broken));
    assert_eq!(builder.push(43, &records[3]), Ok(()));
}

#[test]
fn the_layout_of_the_entry_is_the_documented_one() {
    let entry = built(&chain(3)).close().expect("it has chunks");
    let bytes = entry.encode();
    assert_eq!(bytes.len(), DatasetEntry::LEN);
    let fields: [(usize, &[u8]); 15] = [
        (0, &[1]),
        (1, entry.dataset.as_bytes()),
        (33, &[1; 32]),
        (65, &3u64.to_be_bytes()),
        (73, &2u32.to_be_bytes()),
        (77, &3u32.to_be_bytes()),
        (81, &30u64.to_be_bytes()),
        (89, &300u64.to_be_bytes()),
        (97, &5000u64.to_be_bytes()),
        (105, &6002u64.to_be_bytes()),
        (113, &40u64.to_be_bytes()),
        (121, &42u64.to_be_bytes()),
        (129, &[0, 0, 0, 7, 0, 0, 0, 0]),
        (137, &[0, 0, 0, 7, 0, 0, 0, 4]),
        (145, &entry.merkle_root),
    ];
    let mut at = 0;
    for (offset, field) in fields {
        assert_eq!(offset, at);
        at += field.len();
        assert_eq!(&bytes[offset..at], field, "offset {offset}");
    }
    assert_eq!(at, DatasetEntry::LEN);
}

#[test]
fn impossible_entries_are_refused_by_name() {
    let refused = |offset: usize, value: &[u8]| {
        let mut bytes = built(&chain(3)).close().expect("it has chunks").encode();
        bytes[offset..offset + value.len()].copy_from_slice(value);
        DatasetEntry::decode(&bytes)
    };
    let field = |field| Err(DatasetEntryError::Field { field });
    assert_eq!(refused(0, &[2]), Err(DatasetEntryError::Version { found: 2 }));
    assert_eq!(refused(1, &[0xff; 32]), field("dataset id"));
    assert_eq!(refused(113, &41u64.to_be_bytes()), field("dataset id"));
    assert_eq!(refused(77, &[0; 4]), field("chunk count"));
    assert_eq!(refused(77, &4u32.to_be_bytes()), field("range of entries"));
    assert_eq!(refused(89, &u64::from(3 * number(TAG_LEN) - 1).to_be_bytes()), field("byte count"));
    assert_eq!(refused(89, &[0xff; 8]), field("byte count"));
    assert_eq!(refused(105, &[0; 8]), field("time range"));
    assert_eq!(refused(121, &43u64.to_be_bytes()), field("range of entries"));
    assert_eq!(refused(129, &[0, 1]), field("key position"));
    assert_eq!(refused(137, &[0, 0, 0, 7, 0, 0, 0, 1]), field("range of key positions"));
}

proptest! {
    #[test]
    fn an_entry_survives_its_bytes(chunks in 1..40usize, packages: u64, root: [u8; 32], at in 0..DatasetEntry::LEN, bit in 0..8u8) {
        let entry = built(&chain(chunks)).close().expect("it has chunks");
        let entry = DatasetEntry { package_count: packages, merkle_root: root, ..entry };
        let mut bytes = entry.encode();
        prop_assert_eq!(DatasetEntry::decode(&bytes), Ok(entry.clone()));
        prop_assert_eq!(DatasetEntry::decode(&bytes[..at]), Err(DatasetEntryError::Length { found: at }));
        bytes[at] ^= 1 << bit;
        if let Ok(other) = DatasetEntry::decode(&bytes) {
            prop_assert_ne!(&other, &entry);
            prop_assert_eq!(other.encode(), bytes);
        }
    }

    #[test]
    fn arbitrary_entries_never_panic(mut bytes in proptest::collection::vec(any::<u8>(), 0..300), fixed: bool) {
        if fixed {
            bytes.resize(DatasetEntry::LEN, 0);
            bytes[0] = 1;
        }
        if let Ok(entry) = DatasetEntry::decode(&bytes) {
            prop_assert_eq!(entry.encode(), bytes);
        }
    }

    #[test]
    fn a_changed_record_proof_root_or_index_is_not_proven(
        count in 1..200usize, pick: prop::sample::Index, flip: prop::sample::Index, bit in 0..8u8
    ) {
        let leaves = leaves(count);
        let tree = tree(&leaves);
        let index = pick.index(count);
        let (root, proof) = (tree.root(), tree.prove(number(index)).expect("in the tree"));
        let verify = |root: &[u8; 32], record: &[u8], proof: &[u8]|
            verify_inclusion(root, number(count), number(index), record, proof);
        prop_assert_eq!(verify(&root, &leaves[index], &proof), Ok(()));

        let not_proven = Err(InclusionError::Root { index: number(index) });
        let flipped = |bytes: &[u8]| {
            let mut bytes = bytes.to_vec();
            let at = flip.index(bytes.len());
            bytes[at] ^= 1 << bit;
            bytes
        };
        prop_assert_eq!(verify(&root, &flipped(&leaves[index]), &proof), not_proven);
        let other_root = flipped(&root).try_into().expect("32 bytes");
        prop_assert_eq!(verify(&other_root, &leaves[index], &proof), not_proven);
        if !proof.is_empty() {
            prop_assert_eq!(verify(&root, &leaves[index], &flipped(&proof)), not_proven);
        }
        for other in (0..count).filter(|other| *other != index) {
            prop_assert!(verify_inclusion(&root, number(count), number(other), &leaves[index], &proof).is_err());
        }
    }

    #[test]
    fn arbitrary_proofs_never_panic(
        root: [u8; 32], count: u32, index: u32, record: Vec<u8>, proof in proptest::collection::vec(any::<u8>(), 0..1200)
    ) {
        prop_assert!(verify_inclusion(&root, count, index, &record, &proof).is_err());
        let whole = &proof[..proof.len() / 32 * 32];
        prop_assert!(verify_inclusion(&root, count, index, &record, whole).is_err());
    }
}
