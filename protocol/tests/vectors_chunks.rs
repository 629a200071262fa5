//! The published test vectors of the chunk formats: every case, in both directions where a case allows it.
//!
//! Where they are, and what must fail: see [`common`].

#![allow(clippy::unwrap_used, clippy::panic, reason = "in a test a panic is the report of a failure")]

mod common;

use base64::{Engine, engine::general_purpose::STANDARD};
use rand_chacha::{ChaCha20Rng, rand_core::SeedableRng};
use serde::Deserialize;
use serde_json::Value;
use tributary_protocol::peaq::{StreamError, envelope::Envelope, hexes, sealed_box::BoxSecretKey};

use common::{read_vectors, vector_file};

fn some<'a, T>(cases: &'a [T], what: &str) -> &'a [T] {
    assert!(!cases.is_empty(), "no cases in {what}");
    cases
}

fn b64(text: &str) -> Vec<u8> {
    STANDARD.decode(text).unwrap()
}

fn rng() -> ChaCha20Rng {
    ChaCha20Rng::seed_from_u64(7)
}

/// Reads an envelope as a node does, and makes sure that nothing of it was dropped or changed on the way.
fn envelope(value: &Value) -> Envelope {
    let envelope = Envelope::parse(value.to_string().as_bytes()).unwrap();
    assert_eq!(&serde_json::to_value(&envelope).unwrap(), value);
    for text in [envelope.to_file_text(), envelope.to_compact_text()] {
        assert!(text.is_ascii());
        assert_eq!(Envelope::parse(&text).unwrap(), envelope);
    }
    envelope
}

fn envelopes(values: &[Value]) -> Vec<Envelope> {
    values.iter().map(envelope).collect()
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct SdkError {
    r#type: String,
    message: String,
    field: Option<String>,
    constraint: Option<String>,
}

impl SdkError {
    fn assert_same(&self, error: &StreamError, case: &str) {
        assert_eq!(error.peaq_type(), self.r#type, "{case}");
        assert_eq!(error.peaq_message(), self.message, "{case}");
        assert_eq!(error.field(), self.field.as_deref(), "{case}");
        assert_eq!(error.constraint(), self.constraint.as_deref(), "{case}");
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct KeyPair {
    private_key_hex: String,
    public_key_hex: String,
}

impl KeyPair {
    /// The private key, after checking that the vector's public key is its own.
    fn secret(&self) -> BoxSecretKey {
        let secret = BoxSecretKey::from_hex(&self.private_key_hex).unwrap();
        assert_eq!(hexes::decode(&self.public_key_hex, "public_key_hex").unwrap(), secret.public_key());
        secret
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct TestKeys {
    owner: KeyPair,
    operator: KeyPair,
    machine: KeyPair,
    buyer: KeyPair,
    signing: KeyPair,
}

fn bytes(text: &str) -> Vec<u8> {
    hex::decode(text).unwrap()
}

#[path = "vectors_chunks/access.rs"]
mod access;
#[path = "vectors_chunks/chains.rs"]
mod chains;
#[path = "vectors_chunks/decrypt.rs"]
mod decrypt;
#[path = "vectors_chunks/primitives.rs"]
mod primitives;
#[path = "vectors_chunks/tampered.rs"]
mod tampered;
