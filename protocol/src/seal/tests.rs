use proptest::prelude::*;
use serde_json::Value;

use super::*;
use crate::record::Content;

fn feed_key() -> FeedKey {
    FeedKey::from_bytes(&[3; 32])
}

fn chunk_key() -> ChunkKey {
    ChunkKey::from_bytes(&[5; 32])
}

fn input<'a>(key: &'a ChunkKey, feed_key: &'a FeedKey, plaintext: Vec<u8>) -> SealInput<'a> {
    SealInput {
        key,
        feed_key,
        nonce: [7; 24],
        plaintext,
        stream: StreamId::from_bytes([1; 32]),
        dataset: DatasetId::from_bytes([2; 32]),
        index: 4,
        epoch: 5,
        position: Position::new(6, 7),
        previous_chunk_id: Some([8; 32]),
        encoding: ContentEncoding::PACKAGES,
        package_count: 3,
        first_number: 100,
        gaps: 1,
        time_from_ms: 1000,
        time_to_ms: 2000,
    }
}

fn sealed(plaintext: &[u8]) -> Sealed {
    seal(input(&chunk_key(), &feed_key(), plaintext.to_vec())).expect("a good chunk")
}

#[test]
fn what_was_sealed_opens_at_every_level() {
    for len in [0, 1, 15, 16, 17, 4096, 262_144, MAX_PLAINTEXT_LEN] {
        let plaintext: Vec<u8> = (0..=u8::MAX).cycle().take(len).collect();
        let Sealed { ciphertext, record, plaintext_sha256 } = sealed(&plaintext);
        assert_eq!(ciphertext.len(), len + TAG_LEN);
        assert_eq!(ChunkRecord::decode(&record.encode()).as_ref(), Ok(&record));
        assert_eq!(open(&record, &chunk_key(), &ciphertext).as_ref(), Ok(&plaintext));
        assert_eq!(open_verified(&record, &feed_key().public(), &chunk_key(), &ciphertext).as_ref(), Ok(&plaintext));
        assert_eq!(verify_plaintext(&record, &chunk_key(), &plaintext), Ok(plaintext_sha256));
        assert_eq!(check_readable(&record, &chunk_key(), &ciphertext), Ok(()));
        assert_eq!(open_unhashed(&record, &chunk_key(), ciphertext), Ok(plaintext));
    }
}

#[test]
fn what_was_hashed_before_opens_in_its_own_buffer() {
    let Sealed { ciphertext, record, .. } = sealed(&[9; 1000]);
    let place = ciphertext.as_ptr();
    let opened = open_unhashed(&record, &chunk_key(), ciphertext).expect("opens");
    assert_eq!(opened.as_ptr(), place);
}

#[test]
fn each_fault_has_its_own_error() {
    let Sealed { ciphertext, record, .. } = sealed(b"position, speed, battery");
    let (key, public, index) = (chunk_key(), feed_key().public(), record.index);

    let short = &ciphertext[..ciphertext.len() - 1];
    let length = OpenError::Length { index, expected: record.len, found: short.len() };
    assert_eq!(open(&record, &key, short), Err(length));
    assert_eq!(open_unhashed(&record, &key, short.to_vec()), Err(length));
    assert_eq!(check_readable(&record, &key, short), Err(length));
    let empty = ChunkRecord { len: 0, hash: Hash::of(b""), ..record.clone() };
    assert!(matches!(open(&empty, &key, b""), Err(OpenError::Length { .. })));

    let mut flipped = ciphertext.clone();
    flipped[3] ^= 1;
    assert_eq!(open(&record, &key, &flipped), Err(OpenError::Hash { index }));
    assert_eq!(open_unhashed(&record, &key, flipped.clone()), Err(OpenError::Decrypt { index }));
    assert_eq!(check_readable(&record, &key, &flipped), Err(OpenError::Decrypt { index }));
    assert_eq!(verify_v1(&record, &public, &flipped), Err(V1Error::Sha256 { index }));
    assert_eq!(open_proven(&record, &public, &key, &flipped), Err(V1Error::Sha256 { index }.into()));

    let other_key = ChunkKey::from_bytes(&[6; 32]);
    assert_eq!(open(&record, &other_key, &ciphertext), Err(OpenError::Key { index }));
    assert_eq!(open_proven(&record, &public, &other_key, &ciphertext), Err(OpenError::Key { index }));
    assert_eq!(check_readable(&record, &other_key, &ciphertext), Err(OpenError::Key { index }));

    let other_nonce = ChunkRecord { nonce: [8; 24], ..record.clone() };
    assert_eq!(open(&other_nonce, &key, &ciphertext), Err(OpenError::Decrypt { index }));

    let other_plaintext = ChunkRecord { plaintext_commitment: [0; 32], ..record.clone() };
    assert!(open(&other_plaintext, &key, &ciphertext).is_ok());
    let refused = open_verified(&other_plaintext, &public, &key, &ciphertext);
    assert_eq!(refused, Err(OpenError::Plaintext { index }));

    let relinked = ChunkRecord { previous_chunk_id: Some([9; 32]), ..record.clone() };
    assert_eq!(verify_v1(&relinked, &public, &ciphertext), Err(V1Error::ChunkId { index }));
    let moved = ChunkRecord { index: 5, ..record.clone() };
    assert_eq!(verify_v1(&moved, &public, &ciphertext), Err(V1Error::ChunkId { index: 5 }));

    let other_signer = FeedKey::from_bytes(&[4; 32]).public();
    assert_eq!(verify_v1(&record, &other_signer, &ciphertext), Err(V1Error::Signature { index }));
    let refused = open_verified(&record, &other_signer, &key, &ciphertext);
    assert_eq!(refused, Err(OpenError::V1(V1Error::Signature { index })));
}

#[test]
fn what_no_reader_would_accept_is_not_sealed() {
    let (key, feed_key) = (chunk_key(), feed_key());
    let long = input(&key, &feed_key, vec![0; MAX_PLAINTEXT_LEN + 1]);
    assert_eq!(seal(long), Err(SealError::TooLong { found: MAX_PLAINTEXT_LEN + 1 }));
    let refused = |input| matches!(seal(input), Err(SealError::Record { .. }));
    assert!(refused(SealInput { index: 0, ..input(&key, &feed_key, vec![]) }));
    assert!(refused(SealInput { previous_chunk_id: None, ..input(&key, &feed_key, vec![]) }));
    assert!(refused(SealInput { time_from_ms: 2001, ..input(&key, &feed_key, vec![]) }));
    let file = ContentEncoding { content: Content::File, zstd: false };
    assert!(refused(SealInput { encoding: file, ..input(&key, &feed_key, vec![]) }));
}

#[test]
fn the_plaintext_commitment_is_the_documented_one() {
    let Sealed { record, plaintext_sha256, .. } = sealed(b"hello");
    assert_eq!(plaintext_sha256, <[u8; 32]>::from(Sha256::digest(b"hello")));
    let key = blake3::derive_key("tributary 2026 plaintext commitment", &[5; 32]);
    assert_eq!(record.plaintext_commitment, *blake3::keyed_hash(&key, &plaintext_sha256).as_bytes());
    // Nobody without the key can test a guess: another key commits to the same plaintext differently.
    assert_ne!(record.plaintext_commitment, plaintext_commitment(&ChunkKey::from_bytes(&[6; 32]), &plaintext_sha256));
}

fn vectors() -> Value {
    serde_json::from_str(include_str!("../../../tests/vectors/chunk_chains.json")).expect("the vectors are JSON")
}

fn bytes<const N: usize>(text: &Value) -> [u8; N] {
    let text = text.as_str().expect("a string");
    let text = text.trim_start_matches("0x").trim_start_matches("sha256:");
    hex::decode(text).expect("hex").try_into().expect("the length of the field")
}

/// Every chunk of every chain that peaq's SDK made is rebuilt byte for byte.
#[test]
fn chunks_of_peaqs_sdk_come_out_the_same() {
    use base64::{Engine as _, engine::general_purpose::STANDARD};

    let mut rebuilt = 0;
    for chain in vectors()["chains"].as_array().expect("chains") {
        let plaintext = STANDARD.decode(chain["inputBase64"].as_str().expect("text")).expect("base64");
        let size = usize::try_from(chain["chunkSize"].as_u64().expect("a number")).expect("small");
        let feed_key = FeedKey::from_bytes(&bytes(&chain["testKeys"]["signing"]["privateKeyHex"]));
        let chunks = chain["chunks"].as_array().expect("chunks");
        let keys = chain["chunkKeyHex"].as_array().expect("chunk keys");
        let ciphertexts = chain["ciphertextBase64"].as_array().expect("ciphertexts");
        let mut previous = None;
        for (i, chunk) in chunks.iter().enumerate() {
            let slice = plaintext.chunks(size).nth(i).unwrap_or_default();
            let key = ChunkKey::from_bytes(&bytes(&keys[i]));
            let sealed = seal(SealInput {
                nonce: bytes(&chunk["encryption"]["nonce"]),
                index: u32::try_from(i).expect("few chunks"),
                previous_chunk_id: previous,
                ..input(&key, &feed_key, slice.to_vec())
            })
            .expect("a good chunk");
            let record = &sealed.record;
            let expected = STANDARD.decode(ciphertexts[i].as_str().expect("text")).expect("base64");
            assert_eq!(sealed.ciphertext, expected);
            assert_eq!(record.sha256, bytes(&chunk["encryptedDataHash"]));
            assert_eq!(record.chunk_id, bytes(&chunk["chunkId"]));
            assert_eq!(sealed.plaintext_sha256, bytes(&chunk["plaintextHash"]));
            assert_eq!(record.key_commitment, bytes(&chunk["encryption"]["keyCommitment"]));
            assert_eq!(record.v1_signature, bytes(&chunk["signature"]["value"]));
            previous = Some(record.chunk_id);
            rebuilt += 1;
        }
    }
    assert!(rebuilt >= 10, "only {rebuilt} chunks in the vectors");
}

proptest! {
    #[test]
    fn a_flipped_bit_is_found_at_every_level(
        plaintext in proptest::collection::vec(any::<u8>(), 0..300), at: prop::sample::Index, bit in 0..8u8
    ) {
        let Sealed { mut ciphertext, record, .. } = sealed(&plaintext);
        let at = at.index(ciphertext.len());
        ciphertext[at] ^= 1 << bit;
        let index = record.index;
        prop_assert_eq!(open(&record, &chunk_key(), &ciphertext), Err(OpenError::Hash { index }));
        prop_assert_eq!(check_readable(&record, &chunk_key(), &ciphertext), Err(OpenError::Decrypt { index }));
        prop_assert_eq!(open_unhashed(&record, &chunk_key(), ciphertext), Err(OpenError::Decrypt { index }));
    }

    #[test]
    fn arbitrary_ciphertexts_never_panic(
        record in crate::record::tests::records(), ciphertext in proptest::collection::vec(any::<u8>(), 0..100), fits: bool
    ) {
        let len = if fits { u32::try_from(ciphertext.len()).expect("short") } else { record.len };
        let key = chunk_key();
        let record = ChunkRecord { len, key_commitment: key.commitment(), ..record };
        prop_assert!(open_unhashed(&record, &key, ciphertext.clone()).is_err());
        prop_assert!(check_readable(&record, &key, &ciphertext).is_err());
        prop_assert!(open(&record, &key, &ciphertext).is_err());
        prop_assert!(verify_v1(&record, &feed_key().public(), &ciphertext).is_err());
    }
}
