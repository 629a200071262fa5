//! Hashes, signatures, ciphers and sealed boxes.

use blake2::{Blake2b, Digest, digest::consts::U24};
use chacha20poly1305::{KeyInit, XChaCha20Poly1305, aead::Aead};
use ed25519_dalek::{Signer, SigningKey};
use serde::Deserialize;
use tributary_protocol::peaq::{
    StreamError,
    chain::{chunk_id, signing_key_from_hex},
    hexes,
    sealed_box::{BoxPublicKey, BoxSecretKey},
};

use super::{SdkError, bytes, read_vectors, rng, some, vector_file};

vector_file!(Primitives {
    sha256: Vec<Sha256Case>,
    key_commitment: Vec<CommitmentCase>,
    chunk_id: Vec<ChunkIdCase>,
    ed25519: Vec<Ed25519Case>,
    xchacha20poly1305: Vec<CipherCase>,
    sealed_box: Vec<SealedBoxCase>,
});

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct Sha256Case {
    data_hex: String,
    hash: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct CommitmentCase {
    key_hex: String,
    commitment: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct ChunkIdCase {
    previous_chunk_id: Option<String>,
    encrypted_data_hash: String,
    index: u64,
    material: String,
    chunk_id: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct Ed25519Case {
    private_key_hex: String,
    public_key_hex: String,
    message_utf8: String,
    signature_hex: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct CipherCase {
    key_hex: String,
    nonce_hex: String,
    plaintext_hex: String,
    ciphertext_hex: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct SealedBoxCase {
    name: Option<String>,
    private_key_hex: String,
    public_key_hex: Option<String>,
    message_hex: Option<String>,
    sealed_hex: String,
    ephemeral_public_key_hex: Option<String>,
    nonce_hex: Option<String>,
    opens: bool,
    error: Option<SdkError>,
}

fn load_primitives() -> Primitives {
    read_vectors("primitives")
}

#[test]
fn vector_primitives_hashes_commitments_and_chunk_ids() {
    let vectors = load_primitives();
    for case in some(&vectors.sha256, "sha256") {
        assert_eq!(hexes::sha256_text(&bytes(&case.data_hex)), case.hash);
    }
    for case in some(&vectors.key_commitment, "keyCommitment") {
        assert_eq!(hexes::key_commitment(&bytes(&case.key_hex)), case.commitment);
    }
    for case in some(&vectors.chunk_id, "chunkId") {
        let id = chunk_id(case.previous_chunk_id.as_deref(), &case.encrypted_data_hash, case.index);
        assert_eq!(id, case.chunk_id);
        assert_eq!(hexes::sha256_text(case.material.as_bytes()), id);
    }
}

#[test]
fn vector_primitives_ed25519() {
    for case in some(&load_primitives().ed25519, "ed25519") {
        let secret: [u8; 32] = bytes(&case.private_key_hex).try_into().unwrap();
        let signature = SigningKey::from_bytes(&secret).sign(case.message_utf8.as_bytes()).to_bytes();
        assert_eq!(hex::encode(signature), case.signature_hex);
        let key = signing_key_from_hex(&case.private_key_hex, Some(&case.public_key_hex)).unwrap();
        // Where the message is the text of a hash, it is what a feed key signs for a chunk.
        if let Ok(Ok(hash)) = hexes::decode(&case.message_utf8, "message").map(<[u8; 32]>::try_from)
            && hexes::hash_text(&hash) == case.message_utf8
        {
            assert_eq!(key.sign_v1_hash(&hash), signature);
            assert!(key.public().verify_v1_hash(&hash, &signature).is_ok());
        }
    }
}

#[test]
fn vector_primitives_xchacha20poly1305() {
    for case in some(&load_primitives().xchacha20poly1305, "xchacha20poly1305") {
        let cipher = XChaCha20Poly1305::new_from_slice(&bytes(&case.key_hex)).unwrap();
        let nonce: [u8; 24] = bytes(&case.nonce_hex).try_into().unwrap();
        let (plaintext, ciphertext) = (bytes(&case.plaintext_hex), bytes(&case.ciphertext_hex));
        assert_eq!(cipher.encrypt((&nonce).into(), plaintext.as_slice()).unwrap(), ciphertext);
        assert_eq!(cipher.decrypt((&nonce).into(), ciphertext.as_slice()).unwrap(), plaintext);
    }
}

#[test]
fn vector_primitives_sealed_boxes() {
    let open = |case: &SealedBoxCase| -> Result<Vec<u8>, StreamError> {
        let secret = BoxSecretKey::from_hex(&case.private_key_hex)?;
        let sealed = hexes::decode(&case.sealed_hex, "wrapped_key_hex")?;
        Ok(secret.open(&sealed).ok_or(StreamError::Unwrap)?.to_vec())
    };
    for (at, case) in some(&load_primitives().sealed_box, "sealedBox").iter().enumerate() {
        let name = case.name.clone().unwrap_or_else(|| format!("sealed box {at}"));
        let result = open(case);
        assert_eq!(result.is_ok(), case.opens, "{name}");
        match (result, &case.message_hex, &case.error) {
            (Ok(message), Some(expected), None) => assert_eq!(hex::encode(message), *expected, "{name}"),
            (Err(error), None, Some(expected)) => expected.assert_same(&error, &name),
            (result, ..) => panic!("{name}: {result:?} does not fit what the case says"),
        }
        if let Some(public_hex) = &case.public_key_hex {
            let secret = BoxSecretKey::from_hex(&case.private_key_hex).unwrap();
            let public = BoxPublicKey::from_hex(public_hex, "public_key_hex").unwrap();
            assert_eq!(public.as_bytes(), secret.public_key(), "{name}");
            let message = bytes(case.message_hex.as_deref().unwrap());
            let ours = public.seal(&message, &mut rng()).unwrap();
            assert_eq!(ours.len() * 2, case.sealed_hex.len(), "{name}");
            assert_eq!(**secret.open(&ours).unwrap(), message, "{name}");
        }
        if let (Some(ephemeral), Some(nonce)) = (&case.ephemeral_public_key_hex, &case.nonce_hex) {
            assert!(case.sealed_hex.starts_with(ephemeral), "{name}");
            let public = bytes(case.public_key_hex.as_deref().unwrap());
            let hash = Blake2b::<U24>::new().chain_update(bytes(ephemeral)).chain_update(public).finalize();
            assert_eq!(hex::encode(hash), *nonce, "{name}");
        }
    }
}
