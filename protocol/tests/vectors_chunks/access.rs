//! Buyer access files: read, written, cut and granted again.

use serde::Deserialize;
use serde_json::Value;
use tributary_protocol::peaq::{
    DEFAULT_ACCESS_FILE_SIZE,
    access::{AccessBook, AccessEntry, AccessFile, ParsedAccessFile, Sharder, buyer, grant_files},
    decrypt::decrypt_chunk,
    sealed_box::BoxSecretKey,
};

use super::{SdkError, TestKeys, b64, envelope, envelopes, read_vectors, rng, some, vector_file};

vector_file!(Access { cases: Vec<AccessCase>, errors: Vec<AccessErrorCase> });

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct AccessCase {
    name: String,
    test_keys: TestKeys,
    chunks: Vec<Value>,
    ciphertext_base64: Vec<String>,
    input_base64: String,
    buyer_id: String,
    buyer_public_key_hex: String,
    max_file_size: Option<usize>,
    files: Vec<AccessFileCase>,
}

impl AccessCase {
    fn limit(&self) -> usize {
        self.max_file_size.unwrap_or(DEFAULT_ACCESS_FILE_SIZE)
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct AccessFileCase {
    file_name: String,
    chunk_ids: Vec<String>,
    sizing_bytes: usize,
    cli_file_text: String,
    sdk_s3_object_text: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct AccessErrorCase {
    name: String,
    chunk: Value,
    owner_private_key_hex: String,
    error: SdkError,
}

fn access() -> Access {
    let file: Access = read_vectors("buyer_access");
    some(&file.cases, "cases");
    some(&file.errors, "errors");
    file
}

fn ids(entries: &[AccessEntry]) -> Vec<&String> {
    entries.iter().map(|entry| &entry.chunk_id).collect()
}

/// Decrypts the whole chain with the buyer's key and the entries of these files.
fn consume(case: &AccessCase, files: impl IntoIterator<Item = ParsedAccessFile>) -> Vec<u8> {
    let mut book = AccessBook::new();
    files.into_iter().for_each(|file| book.add(file, &case.buyer_id));
    assert_eq!(book.len(), case.chunks.len(), "{}", case.name);
    let secret = case.test_keys.buyer.secret();
    let mut output = Vec::new();
    for (envelope, ciphertext) in envelopes(&case.chunks).iter().zip(&case.ciphertext_base64) {
        let entry = book.get(&envelope.chunk_id).unwrap();
        output.extend(decrypt_chunk(envelope, entry, &secret, &b64(ciphertext)).unwrap());
    }
    output
}

#[test]
fn vector_buyer_access_both_spellings_read_and_write_byte_exact() {
    for case in &access().cases {
        let mut parsed = Vec::new();
        for (number, file) in (1..).zip(some(&case.files, "files")) {
            let from_cli = ParsedAccessFile::parse(file.cli_file_text.as_bytes()).unwrap();
            let from_sdk = ParsedAccessFile::parse(file.sdk_s3_object_text.as_bytes()).unwrap();
            assert_eq!(ids(&from_cli.entries), file.chunk_ids.iter().collect::<Vec<_>>(), "{}", case.name);
            assert_eq!(ids(&from_sdk.entries), ids(&from_cli.entries), "{}", case.name);
            for (read, text) in [(&from_cli, &file.cli_file_text), (&from_sdk, &file.sdk_s3_object_text)] {
                assert_eq!(read.buyer_public_key_hex, case.buyer_public_key_hex, "{}", case.name);
                let again = AccessFile {
                    number,
                    buyer_public_key_hex: read.buyer_public_key_hex.clone(),
                    entries: read.entries.clone(),
                };
                assert_eq!(again.file_name(), file.file_name, "{}", case.name);
                let written = if text == &file.cli_file_text { again.to_cli_text() } else { again.to_sdk_text() };
                assert_eq!(String::from_utf8(written).unwrap(), *text, "{}", case.name);
                assert_eq!(again.to_sdk_text().len(), file.sizing_bytes, "{}", case.name);
            }
            parsed.push((from_cli, from_sdk));
        }
        let input = b64(&case.input_base64);
        let (cli, sdk): (Vec<_>, Vec<_>) = parsed.into_iter().unzip();
        assert_eq!(consume(case, cli), input, "{}", case.name);
        assert_eq!(consume(case, sdk), input, "{}", case.name);
    }
}

#[test]
fn vector_buyer_access_files_are_cut_at_the_same_entries() {
    for case in &access().cases {
        let recipient = buyer(&case.buyer_id, &case.buyer_public_key_hex).unwrap();
        let mut sharder = Sharder::new(&recipient, case.limit());
        let mut files = Vec::new();
        for file in &case.files {
            for entry in ParsedAccessFile::parse(file.cli_file_text.as_bytes()).unwrap().entries {
                files.extend(sharder.push(entry));
            }
        }
        files.extend(sharder.finish());
        assert_eq!(files.len(), case.files.len(), "{}", case.name);
        for (file, expected) in files.iter().zip(&case.files) {
            assert_eq!(file.file_name(), expected.file_name, "{}", case.name);
            assert_eq!(String::from_utf8(file.to_cli_text()).unwrap(), expected.cli_file_text, "{}", case.name);
            assert_eq!(String::from_utf8(file.to_sdk_text()).unwrap(), expected.sdk_s3_object_text, "{}", case.name);
        }
    }
}

#[test]
fn vector_buyer_access_granted_again_opens_for_the_buyer() {
    for case in &access().cases {
        let recipient = buyer(&case.buyer_id, &case.buyer_public_key_hex).unwrap();
        let owner = case.test_keys.owner.secret();
        let files = grant_files(&envelopes(&case.chunks), &owner, &recipient, case.limit(), &mut rng()).unwrap();
        assert_eq!(files.len(), case.files.len(), "{}", case.name);
        for (file, expected) in files.iter().zip(&case.files) {
            assert_eq!(file.file_name(), expected.file_name, "{}", case.name);
            assert_eq!(ids(&file.entries), expected.chunk_ids.iter().collect::<Vec<_>>(), "{}", case.name);
            assert_eq!(file.to_sdk_text().len(), expected.sizing_bytes, "{}", case.name);
            assert_eq!(file.to_cli_text().len(), expected.cli_file_text.len(), "{}", case.name);
        }
        let read = files.iter().map(|file| ParsedAccessFile::parse(&file.to_cli_text()).unwrap());
        assert_eq!(consume(case, read), b64(&case.input_base64), "{}", case.name);
    }
}

#[test]
fn vector_buyer_access_errors() {
    let vectors = access();
    let recipient = buyer("b1", &vectors.cases[0].buyer_public_key_hex).unwrap();
    for case in &vectors.errors {
        let error = BoxSecretKey::from_hex(&case.owner_private_key_hex)
            .and_then(|owner| AccessEntry::grant(&envelope(&case.chunk), &owner, &recipient, &mut rng()))
            .unwrap_err();
        case.error.assert_same(&error, &case.name);
    }
}
