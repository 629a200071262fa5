//! Sealing raw bytes: against the primitives it consists of, and against the SDK.

use std::hint::black_box;

use aws_lc_rs::aead::{Aad, CHACHA20_POLY1305, LessSafeKey, Nonce, UnboundKey};
use rand::Rng;
use sha2::{Digest, Sha256};
use tributary_protocol::{
    ids::{DatasetId, StreamId},
    keys::{EncryptionKey, FeedKey},
    keytree::{ChunkKey, EpochSeed, KeyTree, Position},
    peaq::{
        envelope::Envelope,
        parties::{Recipients, SignerInfo},
    },
    record::{ContentEncoding, TAG_LEN},
    seal::{SealInput, Sealed, seal},
};

use crate::{
    Bench,
    machine::cpu_seconds,
    measure::{BODY, median},
    table::Goal,
};

/// Chunks in a round: 64 MiB.
const COUNT: usize = 256;
const MIB: f64 = (COUNT * BODY) as f64 / (1 << 20) as f64;

fn plaintexts() -> Vec<Vec<u8>> {
    let fresh = |_| {
        let mut buffer = Vec::with_capacity(BODY + TAG_LEN);
        buffer.resize(BODY, 0);
        rand::rng().fill_bytes(&mut buffer);
        buffer
    };
    (0..COUNT).map(fresh).collect()
}

fn nonce() -> [u8; 24] {
    let mut nonce = [0; 24];
    rand::rng().fill_bytes(&mut nonce);
    nonce
}

/// What the machine does with a chunk: key from the tree, nonce, seal, linked to the chunk before.
fn chain(tree: &mut KeyTree, feed_key: &FeedKey, plaintexts: Vec<Vec<u8>>) -> Vec<(ChunkKey, Sealed)> {
    let mut previous_chunk_id = None;
    let mut sealed = Vec::with_capacity(plaintexts.len());
    for (index, plaintext) in (0u32..).zip(plaintexts) {
        let position = Position::new(8, index);
        let key = tree.chunk_key(position);
        let chunk = seal(SealInput {
            key: &key,
            feed_key,
            nonce: nonce(),
            plaintext,
            stream: StreamId::from_bytes([2; 32]),
            dataset: DatasetId::from_bytes([7; 32]),
            index,
            epoch: 3,
            position,
            previous_chunk_id,
            encoding: ContentEncoding::FILE,
            package_count: 0,
            first_number: 0,
            gaps: 0,
            time_from_ms: 1,
            time_to_ms: 2,
        })
        .unwrap();
        previous_chunk_id = Some(chunk.record.chunk_id);
        sealed.push((key, chunk));
    }
    sealed
}

fn encrypt(buffer: &mut Vec<u8>) {
    let key = LessSafeKey::new(UnboundKey::new(&CHACHA20_POLY1305, &[5; 32]).unwrap());
    let nonce = Nonce::assume_unique_for_key([6; 12]);
    let tag = key.seal_in_place_separate_tag(nonce, Aad::empty(), buffer).unwrap();
    buffer.extend_from_slice(tag.as_ref());
}

/// Hash, encrypt, name, hash, sign, and nothing else.
fn primitives(feed_key: &FeedKey, buffers: &mut [Vec<u8>]) {
    for buffer in buffers {
        black_box(Sha256::digest(&buffer));
        encrypt(buffer);
        black_box(blake3::hash(buffer));
        let sha256 = Sha256::digest(buffer).into();
        black_box(feed_key.sign_v1_hash(&sha256));
    }
}

/// Each primitive on its own, microseconds a chunk.
fn profile(feed_key: &FeedKey) -> String {
    let mut buffers = plaintexts();
    let each = |seconds: f64| seconds * 1e6 / COUNT as f64;
    let (sha256, ()) = cpu_seconds(|| {
        for buffer in &buffers {
            black_box(Sha256::digest(buffer));
        }
    });
    let (blake3, ()) = cpu_seconds(|| {
        for buffer in &buffers {
            black_box(blake3::hash(buffer));
        }
    });
    let (cipher, ()) = cpu_seconds(|| buffers.iter_mut().for_each(encrypt));
    let (sign, ()) = cpu_seconds(|| {
        for _ in 0..COUNT {
            black_box(feed_key.sign_v1_hash(black_box(&[8; 32])));
        }
    });
    format!(
        "sealing 256 KiB is, in µs: SHA-256 twice {:.0} (one after the other), ChaCha20-Poly1305 {:.0}, BLAKE3 {:.0}, Ed25519 {:.0}",
        2.0 * each(sha256),
        each(cipher),
        each(blake3),
        each(sign)
    )
}

pub(crate) fn run(bench: &mut Bench) {
    let feed_key = FeedKey::generate(&mut rand::rng());
    let mut tree = KeyTree::new(&EpochSeed::generate(&mut rand::rng()), &StreamId::from_bytes([2; 32]), 3);
    let party = || EncryptionKey::generate(&mut rand::rng()).public().to_string();
    let recipients = Recipients::new(&party(), &party(), &party()).unwrap();
    let signer = SignerInfo::new(feed_key.public(), "did:peaq:0x01", "key-1").unwrap();

    let (mut ours, mut bound, mut wrapped, mut wraps, mut sdks) = (vec![], vec![], vec![], vec![], vec![]);
    for _ in 0..bench.rounds {
        let input = plaintexts();
        let (seal_seconds, sealed) = cpu_seconds(|| chain(&mut tree, &feed_key, input));
        let mut input = plaintexts();
        let (bound_seconds, ()) = cpu_seconds(|| primitives(&feed_key, &mut input));
        let (wrap_seconds, ()) = cpu_seconds(|| {
            for (key, Sealed { record, plaintext_sha256, .. }) in &sealed {
                let rng = &mut rand::rng();
                let envelope = Envelope::from_record(record, key, plaintext_sha256, &recipients, &signer, None, rng);
                black_box(envelope.unwrap());
            }
        });
        ours.push(MIB / seal_seconds);
        bound.push(MIB / bound_seconds);
        wrapped.push(MIB / (seal_seconds + wrap_seconds));
        wraps.push(wrap_seconds * 1e6 / COUNT as f64);
        if let Some(sdk) = &mut bench.sdk {
            sdks.push(MIB / sdk.round("seal", COUNT * BODY));
        }
    }
    let (table, unit) = (&mut bench.table, "MiB/s/core");
    table.compare("seal 256 KiB chunks", &ours, ("its primitives", &bound), unit, Goal::AtLeast(0.8));
    if bench.sdk.is_some() {
        let sdk = ("SDK `build_chunk_chain`", &sdks[..]);
        table.compare("seal 256 KiB chunks", &ours, sdk, unit, Goal::AtLeast(4.0));
        table.compare("seal and wrap for three recipients", &wrapped, sdk, unit, Goal::None);
    }
    table.value("wrap one chunk key for three recipients", median(&wraps), "µs", Goal::None);
    table.note(profile(&feed_key));
}
