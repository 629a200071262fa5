use proptest::prelude::*;
use rand_chacha::{ChaCha20Rng, rand_core::SeedableRng};

use super::*;
use crate::{
    binding::{Binding, MAX_LIFE_MS},
    entry::Entry,
    identity::IdentityKey,
    ids::StreamId,
    keys::{EncryptionKey, FeedKey},
    keytree::{EpochSeed, KeyTree, Position},
    peaq::parties::{Recipients, SignerInfo},
    record::ContentEncoding,
    seal::{SealInput, Sealed, seal},
};

/// A machine's dataset of three chunks, as files and with statements.
struct Published {
    text: OriginText,
    chunks: Vec<(Envelope, Vec<u8>, ChunkKey)>,
    did: Did,
}

fn published(seed: u64) -> Published {
    let mut rng = ChaCha20Rng::seed_from_u64(seed);
    let (identity, owner) = (IdentityKey::generate(&mut rng), IdentityKey::generate(&mut rng));
    let (feed, encryption) = (FeedKey::generate(&mut rng), EncryptionKey::generate(&mut rng));
    let did = identity.did();
    let binding = Binding {
        did,
        serial: 0,
        prev: Hash::ZERO,
        incarnation: 0,
        owner_id: owner.did(),
        owner_enc: encryption.public(),
        feed_key: feed.public(),
        encryption_key: encryption.public(),
        node_keys: vec![],
        issued_ms: 1000,
        expires_ms: 1000 + MAX_LIFE_MS,
        positions: vec![],
    };
    let binding = SignedBinding::sign(binding, &identity).unwrap();

    let stream = StreamId::of(&did, "files");
    let (epoch, first_seq) = (0, 4);
    let mut tree = KeyTree::new(&EpochSeed::generate(&mut rng), &stream, epoch);
    let mut builder = DatasetBuilder::new(stream, epoch, 0, first_seq);
    let party = encryption.public().to_string();
    let recipients = Recipients::new(&party, &party, &party).unwrap();
    let signer = SignerInfo::new(feed.public(), &did.to_string(), "key").unwrap();
    let (mut chunks, mut records) = (Vec::new(), Vec::new());
    for index in 0..3u32 {
        let position = Position::new(0, index);
        let key = tree.chunk_key(position);
        let Sealed { ciphertext, record, plaintext_sha256 } = seal(SealInput {
            key: &key,
            feed_key: &feed,
            nonce: [u8::try_from(index).unwrap(); 24],
            plaintext: vec![1; 100],
            stream,
            dataset: builder.id(),
            index,
            epoch,
            position,
            previous_chunk_id: builder.last_chunk_id(),
            encoding: ContentEncoding::FILE,
            package_count: 0,
            first_number: 0,
            gaps: 0,
            time_from_ms: 1,
            time_to_ms: 2,
        })
        .unwrap();
        builder.push(first_seq + u64::from(index), &record).unwrap();
        records.extend(record.encode());
        let rng = &mut rng;
        let envelope =
            Envelope::from_record(&record, &key, &plaintext_sha256, &recipients, &signer, None, rng).unwrap();
        chunks.push((envelope, ciphertext, key));
    }
    let body = EntryBody::DatasetClosed(builder.close().unwrap());
    let entry = Entry { did, log: LogId::MACHINE, incarnation: 0, seq: 2, prev: Hash::of(b"1"), time_ms: 3, body };
    let entry = SignedEntry::sign(entry, &feed).unwrap();
    Published { text: OriginText::new(&[binding], &[entry], &records), chunks, did }
}

#[test]
fn true_statements_prove_every_chunk_and_every_plaintext() {
    let Published { text, chunks, did } = published(1);
    let origin = Origin::open(&text).unwrap();
    assert_eq!((origin.did(), origin.serial(), origin.dataset().chunk_count), (did, 0, 3));
    for (index, (envelope, ciphertext, key)) in (0..).zip(&chunks) {
        assert_eq!(origin.check_chunk(index, envelope, ciphertext), Ok(()));
        assert_eq!(origin.check_plaintext(index, key.as_bytes(), &hexes::sha256(&[1; 100])), Ok(()));
        let other = origin.check_plaintext(index, key.as_bytes(), &hexes::sha256(&[2; 100]));
        assert_eq!(other, Err(OriginMismatch { field: "plaintextHash" }));
    }
    assert_eq!(origin.check_chunk(3, &chunks[2].0, &chunks[2].1), Err(OriginMismatch { field: "totalChunks" }));
    assert!(origin.record(3).is_none());
}

#[test]
fn every_field_of_an_envelope_that_the_record_has_is_compared() {
    let Published { text, chunks, .. } = published(2);
    let origin = Origin::open(&text).unwrap();
    let (envelope, ciphertext, _) = &chunks[1];
    type Change = fn(&mut Envelope);
    let changes: [(&str, Change); 8] = [
        ("index", |envelope| envelope.index = 2),
        ("previousChunkId", |envelope| envelope.previous_chunk_id = None),
        ("encryptedDataHash", |envelope| envelope.encrypted_data_hash = hexes::hash_text(&[0; 32])),
        ("chunkId", |envelope| envelope.chunk_id = hexes::hash_text(&[0; 32])),
        ("nonce", |envelope| envelope.encryption.nonce = "00".repeat(24)),
        ("keyCommitment", |envelope| envelope.encryption.key_commitment = hexes::key_commitment(b"other")),
        ("signature.publicKeyHex", |envelope| envelope.signature.public_key_hex = "7".repeat(64)),
        ("signature.value", |envelope| envelope.signature.value = "00".repeat(64)),
    ];
    for (field, change) in changes {
        let mut changed = envelope.clone();
        change(&mut changed);
        assert_eq!(origin.check_chunk(1, &changed, ciphertext), Err(OriginMismatch { field }));
    }
    let short = origin.check_chunk(1, envelope, &ciphertext[1..]);
    assert_eq!(short, Err(OriginMismatch { field: "length of the ciphertext" }));
    assert_eq!(origin.check_chunk(1, envelope, &[0; 116]), Err(OriginMismatch { field: "ciphertext" }));
}

#[test]
fn statements_of_different_machines_do_not_mix() {
    let (one, two) = (published(3), published(4));
    let mixed = |bindings: &Published, entries: &Published, records: &Published| {
        let (bindings, entries, records) = (&bindings.text.bindings, &entries.text.entries, &records.text.records);
        let text = OriginText {
            version: ORIGIN_VERSION,
            bindings: bindings.clone(),
            entries: entries.clone(),
            records: records.clone(),
        };
        Origin::open(&text).map(|origin| origin.did())
    };
    assert_eq!(mixed(&one, &one, &one).unwrap(), one.did);
    assert!(matches!(mixed(&two, &one, &one), Err(OriginError::NotTheDataset { .. })));
    assert!(matches!(mixed(&one, &one, &two), Err(OriginError::Dataset(_))));
    assert!(matches!(mixed(&one, &two, &two), Err(OriginError::NotTheDataset { .. })));
}

#[test]
fn statements_that_are_not_all_there_are_refused() {
    let change = |change: fn(&mut OriginText)| {
        let mut text = published(5).text;
        change(&mut text);
        Origin::open(&text).map(drop)
    };
    assert!(matches!(change(|text| text.version = 2), Err(OriginError::Version { found: 2 })));
    assert!(matches!(change(|text| text.bindings.clear()), Err(OriginError::NoBinding)));
    assert!(matches!(change(|text| text.entries.clear()), Err(OriginError::NotTheDataset { .. })));
    assert!(matches!(change(|text| text.records.clear()), Err(OriginError::Totals { .. })));
    assert!(matches!(change(|text| text.records.truncate(4)), Err(OriginError::RecordLength { found: 3 })));
    // Two of three records.
    assert!(matches!(change(|text| text.records.truncate(2 * 544)), Err(OriginError::Totals { .. })));
    assert!(matches!(change(|text| text.records.insert(0, '?')), Err(OriginError::Base64 { .. })));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn one_changed_bit_anywhere_is_refused(at: prop::sample::Index, bit in 0..8u32, part in 0..3usize) {
        let mut text = published(6).text;
        let field = [&mut text.bindings[0], &mut text.entries[0], &mut text.records];
        let field = field.into_iter().nth(part).unwrap();
        let mut bytes = BASE64_STANDARD.decode(&*field).unwrap();
        let at = at.index(bytes.len());
        bytes[at] ^= 1 << bit;
        *field = BASE64_STANDARD.encode(bytes);
        prop_assert!(Origin::open(&text).is_err());
    }

    #[test]
    fn garbage_is_refused_without_panic(parts in proptest::collection::vec("[A-Za-z0-9+/=]{0,80}", 3)) {
        let text = OriginText {
            version: ORIGIN_VERSION,
            bindings: vec![parts[0].clone()],
            entries: vec![parts[1].clone()],
            records: parts[2].clone(),
        };
        prop_assert!(Origin::open(&text).is_err());
    }
}
