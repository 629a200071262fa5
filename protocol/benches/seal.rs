//! What a chunk costs: sealing against the sum of its primitives, keys, grants, Merkle proofs.
//!
//! Run with `cargo bench -p tributary-protocol --bench seal`. Sealing is bound by its primitives when `seal::ours` and
//! `seal::primitives` agree. The first lines are sizes, not times: what a grant weighs.

#![expect(clippy::print_stdout, reason = "a bench reports on the terminal")]

use std::hint::black_box;

use aws_lc_rs::aead::{Aad, CHACHA20_POLY1305, LessSafeKey, Nonce, UnboundKey};
use divan::{Bencher, counter::BytesCount};
use sha2::{Digest, Sha256};
use tributary_protocol::{
    dataset::{DatasetTree, RootAccumulator, verify_inclusion},
    ids::{DatasetId, StreamId},
    keys::FeedKey,
    keytree::{ChunkKey, Cover, EpochSeed, KeyTree, Position},
    record::{ChunkRecord, ContentEncoding, TAG_LEN},
    seal::{SealInput, Sealed, check_readable, open, open_unhashed, open_verified, seal as seal_chunk},
};

const CHUNK: usize = 256 * 1024;

fn main() {
    grant_sizes();
    divan::main();
}

/// peaq's chunk chain wraps the key of every chunk on its own: a sealed box of 80 bytes for each.
const WRAPPED_KEY: u64 = 80;

fn grant_sizes() {
    let tree = tree();
    let ranges = [
        ("one chunk", Position::new(10, 5), Position::new(10, 5), Some(1)),
        ("an hour, one chunk a second", Position::new(10, 6), Position::last_of_slot(70), Some(3_600)),
        ("a million chunks, one a second", Position::new(7, 3), Position::new(16_673, 13), Some(1_000_000)),
        ("a million chunks, all at once", Position::new(7, 3), Position::new(7, 1_000_002), Some(1_000_000)),
        ("the worst range there is", Position::new(0, 1), Position::new(u16::MAX, u32::MAX - 1), None),
    ];
    println!("{:<34}{:>8}{:>10}{:>26}", "grant", "nodes", "bytes", "bytes, one key a chunk");
    for (name, first, last, chunks) in ranges {
        let cover = tree.cover(first..=last).expect("a range");
        let wrapped = chunks.map_or("-".to_owned(), |chunks: u64| (chunks * WRAPPED_KEY).to_string());
        println!("{name:<34}{:>8}{:>10}{wrapped:>26}", cover.node_count(), cover.encode().len());
    }
    println!();
}

fn tree() -> KeyTree {
    KeyTree::new(&EpochSeed::from_bytes(&[1; 32]), &StreamId::from_bytes([2; 32]), 3)
}

fn feed_key() -> FeedKey {
    FeedKey::from_bytes(&[4; 32])
}

fn chunk_key() -> ChunkKey {
    ChunkKey::from_bytes(&[5; 32])
}

fn plaintext() -> Vec<u8> {
    let mut plaintext = Vec::with_capacity(CHUNK + TAG_LEN);
    plaintext.extend((0..=u8::MAX).cycle().take(CHUNK));
    plaintext
}

fn input<'a>(key: &'a ChunkKey, feed_key: &'a FeedKey, plaintext: Vec<u8>) -> SealInput<'a> {
    SealInput {
        key,
        feed_key,
        nonce: [6; 24],
        plaintext,
        stream: StreamId::from_bytes([2; 32]),
        dataset: DatasetId::from_bytes([7; 32]),
        index: 1,
        epoch: 3,
        position: Position::new(8, 9),
        previous_chunk_id: Some([10; 32]),
        encoding: ContentEncoding::PACKAGES,
        package_count: 250,
        first_number: 1000,
        gaps: 0,
        time_from_ms: 1,
        time_to_ms: 2,
    }
}

fn sealed() -> Sealed {
    seal_chunk(input(&chunk_key(), &feed_key(), plaintext())).expect("a good chunk")
}

#[divan::bench_group]
mod seal {
    use super::*;

    #[divan::bench]
    fn ours(bencher: Bencher) {
        let (key, feed_key) = (chunk_key(), feed_key());
        bencher
            .counter(BytesCount::new(CHUNK))
            .with_inputs(plaintext)
            .bench_values(|plaintext| seal_chunk(input(&key, &feed_key, plaintext)));
    }

    #[divan::bench]
    fn primitives(bencher: Bencher) {
        let (key, feed_key) = (chunk_key(), feed_key());
        bencher.counter(BytesCount::new(CHUNK)).with_inputs(plaintext).bench_values(|mut buffer| {
            black_box(Sha256::digest(&buffer));
            let tag = encrypt(&key, &mut buffer);
            buffer.extend_from_slice(tag.as_ref());
            black_box(blake3::hash(&buffer));
            let sha256 = Sha256::digest(&buffer).into();
            black_box(feed_key.sign_v1_hash(&sha256));
            buffer
        });
    }

    fn encrypt(key: &ChunkKey, buffer: &mut [u8]) -> aws_lc_rs::aead::Tag {
        let key = LessSafeKey::new(UnboundKey::new(&CHACHA20_POLY1305, key.as_bytes()).expect("a key"));
        let nonce = Nonce::assume_unique_for_key([6; 12]);
        key.seal_in_place_separate_tag(nonce, Aad::empty(), buffer).expect("short enough")
    }

    #[divan::bench]
    fn only_sha256(bencher: Bencher) {
        let plaintext = plaintext();
        bencher.counter(BytesCount::new(CHUNK)).bench(|| Sha256::digest(black_box(&plaintext)));
    }

    #[divan::bench]
    fn only_blake3(bencher: Bencher) {
        let plaintext = plaintext();
        bencher.counter(BytesCount::new(CHUNK)).bench(|| blake3::hash(black_box(&plaintext)));
    }

    #[divan::bench]
    fn only_chacha20_poly1305(bencher: Bencher) {
        let key = chunk_key();
        bencher.counter(BytesCount::new(CHUNK)).with_inputs(plaintext).bench_refs(|buffer| encrypt(&key, buffer));
    }

    #[divan::bench]
    fn only_ed25519(bencher: Bencher) {
        let feed_key = feed_key();
        bencher.bench(|| feed_key.sign_v1_hash(black_box(&[8; 32])));
    }
}

#[divan::bench_group]
mod opening {
    use super::*;

    #[divan::bench]
    fn pulled(bencher: Bencher) {
        let (Sealed { ciphertext, record, .. }, key) = (sealed(), chunk_key());
        bencher.counter(BytesCount::new(CHUNK)).bench(|| open(&record, &key, black_box(&ciphertext)));
    }

    #[divan::bench]
    fn unhashed(bencher: Bencher) {
        let (Sealed { ciphertext, record, .. }, key) = (sealed(), chunk_key());
        bencher
            .counter(BytesCount::new(CHUNK))
            .with_inputs(|| ciphertext.clone())
            .bench_values(|ciphertext| open_unhashed(&record, &key, ciphertext));
    }

    #[divan::bench]
    fn only_checked(bencher: Bencher) {
        let (Sealed { ciphertext, record, .. }, key) = (sealed(), chunk_key());
        bencher.counter(BytesCount::new(CHUNK)).bench(|| check_readable(&record, &key, black_box(&ciphertext)));
    }

    #[divan::bench]
    fn verified(bencher: Bencher) {
        let (Sealed { ciphertext, record, .. }, key) = (sealed(), chunk_key());
        let public = feed_key().public();
        bencher.counter(BytesCount::new(CHUNK)).bench(|| open_verified(&record, &public, &key, black_box(&ciphertext)));
    }

    #[divan::bench]
    fn record_decoded(bencher: Bencher) {
        let bytes = sealed().record.encode();
        bencher.bench(|| ChunkRecord::decode(black_box(&bytes)));
    }
}

#[divan::bench_group]
mod keytree {
    use super::*;

    const MILLION: u32 = 1_000_000;

    #[divan::bench]
    fn thousand_keys_in_sequence(bencher: Bencher) {
        bencher.with_inputs(tree).bench_refs(|tree| {
            for counter in 0..1000 {
                black_box(tree.chunk_key(Position::new(3, counter)));
            }
        });
    }

    #[divan::bench]
    fn thousand_keys_anywhere(bencher: Bencher) {
        bencher.with_inputs(tree).bench_refs(|tree| {
            for i in 0..1000u32 {
                black_box(tree.chunk_key(Position::new(3, i.wrapping_mul(0x9e37_79b9))));
            }
        });
    }

    #[divan::bench]
    fn cover_of_a_million_chunks(bencher: Bencher) {
        let tree = tree();
        bencher.bench(|| tree.cover(Position::new(7, 3)..=Position::new(7, 2 + black_box(MILLION))));
    }

    #[divan::bench]
    fn worst_cover(bencher: Bencher) {
        let tree = tree();
        bencher.bench(|| tree.cover(Position::new(0, black_box(1))..=Position::new(u16::MAX, u32::MAX - 1)));
    }

    #[divan::bench]
    fn worst_cover_received(bencher: Bencher) {
        let range = Position::new(0, 1)..=Position::new(u16::MAX, u32::MAX - 1);
        let bytes = tree().cover(range.clone()).expect("a range").encode();
        bencher.bench(|| Cover::decode(black_box(&bytes)).and_then(|cover| cover.verify_canonical(range.clone())));
    }

    #[divan::bench]
    fn key_from_a_cover(bencher: Bencher) {
        let cover = tree().cover(Position::new(7, 3)..=Position::new(7, 2 + MILLION)).expect("a range");
        bencher.bench(|| cover.chunk_key(black_box(Position::new(7, 700_000))));
    }
}

#[divan::bench_group]
mod dataset {
    use super::*;

    const COUNT: u32 = 1_000_000;

    #[divan::bench(sample_count = 3, sample_size = 1)]
    fn root_of_a_million_records(bencher: Bencher) {
        let record = sealed().record.encode();
        bencher.bench(|| {
            let mut root = RootAccumulator::default();
            for _ in 0..COUNT {
                root.push(black_box(&record));
            }
            root.root()
        });
    }

    fn million() -> (DatasetTree, Vec<u8>) {
        let record = sealed().record.encode();
        let mut tree = DatasetTree::default();
        for _ in 0..COUNT {
            tree.push(&record);
        }
        (tree, record)
    }

    #[divan::bench]
    fn prove_one_of_a_million(bencher: Bencher) {
        let (tree, _) = million();
        bencher.bench(|| tree.prove(black_box(777_777)));
    }

    #[divan::bench]
    fn verify_one_of_a_million(bencher: Bencher) {
        let (tree, record) = million();
        let (root, proof) = (tree.root(), tree.prove(777_777).expect("in the tree"));
        bencher.bench(|| verify_inclusion(&root, COUNT, 777_777, black_box(&record), &proof));
    }
}
