//! Single chunks, opened or refused.

use serde::Deserialize;
use serde_json::Value;
use tributary_protocol::peaq::{decrypt::decrypt_chunk, envelope::RecipientEntry, sealed_box::BoxSecretKey};

use super::{SdkError, b64, envelope, read_vectors, some, vector_file};

vector_file!(Decrypt { cases: Vec<DecryptCase> });

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct DecryptCase {
    name: String,
    chunk: Value,
    recipient_entry: StrictEntry,
    private_key_hex: String,
    ciphertext_base64: String,
    expected: DecryptExpected,
}

/// A recipient entry of which nothing may be left over.
#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct StrictEntry {
    recipient_id: String,
    recipient_type: String,
    algorithm: String,
    public_key_hex: String,
    wrapped_key_hex: String,
}

impl From<&StrictEntry> for RecipientEntry {
    fn from(entry: &StrictEntry) -> Self {
        Self {
            recipient_id: entry.recipient_id.clone(),
            recipient_type: entry.recipient_type.clone(),
            algorithm: entry.algorithm.clone(),
            public_key_hex: entry.public_key_hex.clone(),
            wrapped_key_hex: entry.wrapped_key_hex.clone(),
        }
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct DecryptExpected {
    plaintext_base64: Option<String>,
    error: Option<SdkError>,
}

#[test]
fn vector_chunk_decrypt() {
    let file: Decrypt = read_vectors("chunk_decrypt");
    for case in some(&file.cases, "cases") {
        let envelope = envelope(&case.chunk);
        let result = BoxSecretKey::from_hex(&case.private_key_hex).and_then(|secret| {
            decrypt_chunk(&envelope, &(&case.recipient_entry).into(), &secret, &b64(&case.ciphertext_base64))
        });
        match (result, &case.expected.plaintext_base64, &case.expected.error) {
            (Ok(plaintext), Some(expected), None) => assert_eq!(plaintext, b64(expected), "{}", case.name),
            (Err(error), None, Some(expected)) => expected.assert_same(&error, &case.name),
            (result, ..) => panic!("{}: {result:?} does not fit what the case says", case.name),
        }
    }
}
