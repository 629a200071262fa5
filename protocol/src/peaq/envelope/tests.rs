use std::borrow::Cow;

use proptest::prelude::*;
use rand_chacha::{ChaCha20Rng, rand_core::SeedableRng};

use super::*;
use crate::{
    ids::{DatasetId, StreamId},
    keys::FeedKey,
    keytree::Position,
    peaq::{
        decrypt,
        sealed_box::BoxSecretKey,
        verify::{ChainVerifier, verify_chain},
    },
    record::ContentEncoding,
    seal::SealInput,
};

fn sample() -> Envelope {
    let text = |text: &str| text.to_owned();
    let entry = RecipientEntry {
        recipient_id: text("owner-1"),
        recipient_type: text("owner"),
        algorithm: text(KEY_WRAPPING),
        public_key_hex: text("0xAB"),
        wrapped_key_hex: text("cd"),
    };
    Envelope {
        schema_version: text(CHUNK_SCHEMA),
        chunk_id: text("0x01"),
        previous_chunk_id: None,
        index: 0,
        encrypted_data_hash: text("0x02"),
        plaintext_hash: text("0x03"),
        storage_ref: None,
        encryption: Encryption {
            algorithm: text(CHUNK_CIPHER),
            nonce: text("04"),
            key_commitment: text("sha256:05"),
            key_recipients: vec![entry],
        },
        signature: Signature {
            algorithm: text(SIGNATURE),
            machine_did: text("did:é\u{7f}"),
            key_id: text("k"),
            public_key_hex: text("06"),
            value: text("07"),
        },
    }
}

const FILE: &str = r#"{
  "schemaVersion": "peaq.stream.chunks.v1",
  "chunkId": "0x01",
  "previousChunkId": null,
  "index": 0,
  "encryptedDataHash": "0x02",
  "plaintextHash": "0x03",
  "storageRef": null,
  "encryption": {
    "algorithm": "xchacha20-poly1305",
    "nonce": "04",
    "keyCommitment": "sha256:05",
    "keyRecipients": [
      {
        "recipientId": "owner-1",
        "recipientType": "owner",
        "algorithm": "x25519-sealedbox",
        "publicKeyHex": "0xAB",
        "wrappedKeyHex": "cd"
      }
    ]
  },
  "signature": {
    "algorithm": "ed25519",
    "machineDid": "did:\u00e9\u007f",
    "keyId": "k",
    "publicKeyHex": "06",
    "value": "07"
  }
}
"#;

#[test]
fn the_file_has_peaqs_layout_and_key_order() {
    assert_eq!(String::from_utf8(sample().to_file_text()).unwrap(), FILE);
    assert_eq!(Envelope::parse(FILE.as_bytes()).unwrap(), sample());
    let compact = FILE.replace("\n", "").replace("  ", "").replace("\": ", "\":");
    assert_eq!(String::from_utf8(sample().to_compact_text()).unwrap(), compact);
}

#[test]
fn unknown_keys_missing_nulls_and_snake_case_are_read() {
    let with_more = FILE.replacen('{', "{\"more\": [{\"x\": 1.5}],", 1).replace("\"nonce\"", "\"z\":{},\"nonce\"");
    let without_nulls = FILE.replace("  \"previousChunkId\": null,\n", "").replace("  \"storageRef\": null,\n", "");
    let snake = FILE
        .replace("schemaVersion", "schema_version")
        .replace("chunkId", "chunk_id")
        .replace("keyRecipients", "key_recipients")
        .replace("wrappedKeyHex", "wrapped_key_hex")
        .replace("machineDid", "machine_did");
    for text in [with_more, without_nulls, snake] {
        assert_eq!(Envelope::parse(text.as_bytes()).unwrap(), sample());
    }
}

#[test]
fn what_is_missing_mistyped_or_of_another_schema_is_named() {
    let refused = |text: String| {
        let error = Envelope::parse(text.as_bytes()).unwrap_err();
        std::error::Error::source(&error).map_or_else(|| error.to_string(), ToString::to_string)
    };
    assert!(refused(FILE.replace("\"nonce\"", "\"n\"")).contains("missing field `nonce`"));
    assert!(refused(FILE.replace("\"index\": 0", "\"index\": -1")).contains("invalid value: integer `-1`"));
    assert!(refused(FILE.replace("chunks.v1", "chunks.v2")).contains("chunks.v2"));
    assert!(refused(" ".repeat(MAX_ENVELOPE_BYTES + 1)).contains("more than the 262144 allowed"));
    // What is skipped costs no stack, however deep.
    let deep = format!("{{\"more\": {}{},", "[".repeat(100_000), "]".repeat(100_000));
    assert_eq!(Envelope::parse(FILE.replacen('{', &deep, 1).as_bytes()).unwrap(), sample());
}

#[test]
fn order_has_no_gaps_and_no_doubles() {
    let at = |index| Envelope { index, ..sample() };
    let order = |indices: &[u64]| in_order(indices.iter().copied().map(at).collect());
    assert_eq!(order(&[2, 0, 1]).unwrap().iter().map(|e| e.index).collect::<Vec<_>>(), [0, 1, 2]);
    assert!(order(&[]).unwrap().is_empty());
    assert!(matches!(order(&[0, 1, 1]), Err(ReadError::DuplicateIndex { index: 1 })));
    assert!(matches!(order(&[0, 2]), Err(ReadError::MissingIndex { index: 1 })));
    assert!(matches!(order(&[u64::MAX]), Err(ReadError::MissingIndex { index: 0 })));
}

#[test]
fn chunks_of_a_feed_make_a_chain_that_peaqs_verifier_accepts() {
    let mut rng = ChaCha20Rng::seed_from_u64(1);
    let owner = BoxSecretKey::from_bytes(&[3; 32]);
    let hex = hex::encode(owner.public_key());
    let recipients = Recipients::new(&hex, &hex, &hex).unwrap();
    let feed_key = FeedKey::from_bytes(&[9; 32]);
    let signer = SignerInfo::new(feed_key.public(), "did:peaq:0x00", "k").unwrap();
    let mut previous_chunk_id = None;
    let (mut envelopes, mut ciphertexts) = (vec![], vec![]);
    for index in 0..3u8 {
        let key = ChunkKey::from_bytes(&[index; 32]);
        let sealed = seal::seal(SealInput {
            key: &key,
            feed_key: &feed_key,
            nonce: [index; 24],
            plaintext: vec![index; 10],
            stream: StreamId::from_bytes([1; 32]),
            dataset: DatasetId::from_bytes([2; 32]),
            index: index.into(),
            epoch: 0,
            position: Position::new(0, index.into()),
            previous_chunk_id,
            encoding: ContentEncoding::PACKAGES,
            package_count: 0,
            first_number: 0,
            gaps: 0,
            time_from_ms: 0,
            time_to_ms: 0,
        })
        .unwrap();
        let mut make = |key: &ChunkKey, hash: &[u8; 32]| {
            Envelope::from_record(&sealed.record, key, hash, &recipients, &signer, Some("s3://b/c"), &mut rng)
        };
        let other = ChunkKey::from_bytes(&[7; 32]);
        assert_eq!(make(&other, &sealed.plaintext_sha256), Err(StreamError::Commitment));
        assert_eq!(make(&key, &[0; 32]), Err(StreamError::PlaintextHash));
        let envelope = make(&key, &sealed.plaintext_sha256).unwrap();
        assert_eq!(envelope.chunk_id, hexes::hash_text(&sealed.record.chunk_id));
        let entry = envelope.recipient(Role::Machine).unwrap();
        let plaintext = decrypt::decrypt_chunk(&envelope, entry, &owner, &sealed.ciphertext).unwrap();
        assert_eq!(plaintext, vec![index; 10]);
        previous_chunk_id = Some(sealed.record.chunk_id);
        envelopes.push(envelope);
        ciphertexts.push(sealed.ciphertext);
    }
    let report = verify_chain(&envelopes, |i| Some(Cow::from(&ciphertexts[usize::try_from(i).unwrap()]))).unwrap();
    assert_eq!((report.total_chunks, report.signer), (3, Some(feed_key.public())));
}

proptest! {
    #[test]
    fn garbage_is_refused_without_panic(garbage in proptest::collection::vec(any::<u8>(), 0..300)) {
        prop_assert!(Envelope::parse(&garbage).is_err());
    }

    #[test]
    fn any_texts_are_judged_without_panic_and_come_back(texts in proptest::collection::vec(any::<String>(), 12)) {
        let mut envelope = sample();
        let entry = &mut envelope.encryption.key_recipients[0];
        let fields = [
            &mut envelope.chunk_id, &mut envelope.encrypted_data_hash, &mut envelope.plaintext_hash,
            &mut envelope.encryption.nonce, &mut envelope.encryption.key_commitment, &mut entry.recipient_id,
            &mut entry.public_key_hex, &mut entry.wrapped_key_hex, &mut envelope.signature.machine_did,
            &mut envelope.signature.key_id, &mut envelope.signature.public_key_hex, &mut envelope.signature.value,
        ];
        for (field, text) in fields.into_iter().zip(texts) {
            *field = text;
        }
        prop_assert!(ChainVerifier::new().check(&envelope, Some(b"x")).is_err());
        let secret = BoxSecretKey::from_bytes(&[5; 32]);
        let entry = &envelope.encryption.key_recipients[0];
        prop_assert!(decrypt::decrypt_chunk(&envelope, entry, &secret, b"x").is_err());
        prop_assert!(decrypt::decrypt_with_key(&envelope, &[0; 32], b"x").is_err());
        prop_assert_eq!(&Envelope::parse(&envelope.to_file_text()).unwrap(), &envelope);
    }
}
