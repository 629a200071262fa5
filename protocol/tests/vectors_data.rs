//! Canonical JSON, data packages, field rules and anonymizing against the output of peaq's official SDK.

#![allow(clippy::panic, reason = "a test fails by panicking, in helpers too")]

mod common;

use common::{not_empty, read_vectors, vector_file};
use rand_chacha::ChaCha20Rng;
use rand_core::SeedableRng;
use serde::Deserialize;
use serde_json::value::RawValue;
use sha2::{Digest, Sha256};
use tributary_protocol::{
    identity::{IdentityKey, eip191_digest, recover_eip191, signature_text},
    json::{JsonError, Limits, Number, Object, Value, parse},
    package::{DataPackage, PackageError, PackageFields},
    rules::{EncryptCtx, FieldKey, FieldRule, RuleError, TopicRules, apply, decrypt_field, generalize, hash_value},
};

/// An exception of the SDK.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
#[allow(dead_code, reason = "field and constraint have no counterpart")]
struct SdkError {
    r#type: String,
    message: String,
    field: Option<String>,
    constraint: Option<String>,
}

fn read(text: &str) -> Result<Value, JsonError> {
    parse(text.as_bytes(), Limits::default())
}

fn read_object(text: &str) -> Object {
    match read(text) {
        Ok(Value::Object(object)) => object,
        other => panic!("not an object: {text}: {other:?}"),
    }
}

fn canonical(value: &Value) -> String {
    String::from_utf8(value.to_canonical().expect("finite")).expect("ASCII")
}

vector_file!(CanonicalFile { cases: Vec<CanonicalCase> });

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct CanonicalCase {
    name: String,
    input_json: String,
    canonical: Option<String>,
    sha256: Option<String>,
    error: Option<SdkError>,
}

#[test]
fn vector_canonical_json() {
    let file: CanonicalFile = read_vectors("canonical_json");
    for case in not_empty(file.cases) {
        let name = &case.name;
        match (case.canonical, case.sha256, case.error) {
            (Some(expected), Some(sha256), None) => {
                let value = read(&case.input_json).unwrap_or_else(|error| panic!("{name}: {error}"));
                let text = canonical(&value);
                assert_eq!(text, expected, "{name}");
                assert_eq!(hex::encode(Sha256::digest(&text)), sha256, "{name}");
                // The other direction: canonical text is a fixed point.
                let back = read(&text).unwrap_or_else(|error| panic!("{name}: {error}"));
                assert_eq!(back, value, "{name}");
                assert_eq!(canonical(&back), text, "{name}");
            }
            (None, None, Some(error)) => {
                let found = read(&case.input_json).and_then(|value| value.to_canonical()).expect_err(name);
                assert_eq!(found.to_string(), error.message, "{name}");
            }
            _ => panic!("{name}: unknown shape"),
        }
    }
}

vector_file!(PackageFile { sign: Vec<SignCase>, verify: Vec<VerifyCase> });

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
#[allow(dead_code, reason = "the topic is not signed")]
struct SignCase {
    private_key: String,
    address: String,
    topic: String,
    did: String,
    timestamp: String,
    schema_version: String,
    /// Kept as text, since it can have any number of digits.
    sequence_number: Box<RawValue>,
    key_id: String,
    fields_json: String,
    envelope: String,
    eip191_prefix: String,
    digest: String,
    signature: String,
    package_json: String,
    verify: SnakeVerdict,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct SnakeVerdict {
    valid: bool,
    signer_did: String,
    reason: Option<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct VerifyCase {
    name: String,
    package_json: String,
    expected: CamelVerdict,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct CamelVerdict {
    valid: bool,
    signer_did: String,
    reason: Option<String>,
}

#[test]
fn vector_data_packages_sign() {
    let file: PackageFile = read_vectors("data_packages");
    for (i, case) in not_empty(file.sign).into_iter().enumerate() {
        let key = IdentityKey::from_hex(&case.private_key).expect("a private key");
        let machine = key.did();
        assert_eq!(machine.to_string(), format!("did:peaq:{}", case.address.to_lowercase()), "case {i}");

        let number = Number::from_digits(case.sequence_number.get()).expect("an integer");
        let payload = read_object(&case.fields_json);
        let fields = PackageFields {
            did: &case.did,
            timestamp: &case.timestamp,
            schema_version: &case.schema_version,
            sequence_number: &number,
            payload: &payload,
        };
        let signed = fields.signed_bytes().expect("finite");
        assert_eq!(String::from_utf8_lossy(&signed), case.envelope, "case {i}");
        assert_eq!(case.eip191_prefix, format!("\x19Ethereum Signed Message:\n{}", signed.len()), "case {i}");
        assert_eq!(format!("0x{}", hex::encode(eip191_digest(&signed))), case.digest, "case {i}");
        let signature = key.sign_eip191(&signed);
        assert_eq!(signature_text(&signature), case.signature, "case {i}");
        assert_eq!(recover_eip191(&signed, &signature), Ok(machine), "case {i}");

        let package = DataPackage::sign(&key, &fields, &case.key_id).expect("signable");
        let official = DataPackage::from_json(case.package_json.as_bytes()).expect("a package");
        assert_eq!(package, official, "case {i}");
        let line = package.to_line().expect("finite");
        assert_eq!(DataPackage::from_json(&line).as_ref(), Ok(&package), "case {i}");
        let verdict = official.verify().expect("finite");
        assert_eq!(
            (verdict.valid, verdict.did, verdict.reason.map(|reason| reason.to_string())),
            (case.verify.valid, case.verify.signer_did, case.verify.reason),
            "case {i}"
        );
        // Some cases claim the DID of another key: never valid for the machine that signed either.
        assert_eq!(official.verify_from(&machine).expect("finite").valid, case.verify.valid, "case {i}");
    }
}

#[test]
fn vector_data_packages_verify() {
    let file: PackageFile = read_vectors("data_packages");
    for case in not_empty(file.verify) {
        let package = DataPackage::from_json(case.package_json.as_bytes()).expect(&case.name);
        let verdict = package.verify().expect(&case.name);
        assert_eq!(
            (verdict.valid, verdict.did, verdict.reason.map(|reason| reason.to_string())),
            (case.expected.valid, case.expected.signer_did, case.expected.reason),
            "{}",
            case.name
        );
    }
}

#[test]
fn vector_data_packages_with_a_non_finite_number_have_no_verdict() {
    let file: PackageFile = read_vectors("data_packages");
    let case = not_empty(file.verify).remove(0);
    let poisoned = case.package_json.replacen("\"payload\": {", "\"payload\": {\"nan\": NaN, ", 1);
    assert_ne!(poisoned, case.package_json);
    assert_eq!(DataPackage::from_json(poisoned.as_bytes()), Err(PackageError::Json(JsonError::NonFinite)));
    let mut package = DataPackage::from_json(case.package_json.as_bytes()).expect("a package");
    package.payload.insert("nan", f64::NAN);
    assert_eq!(package.verify(), Err(JsonError::NonFinite));
}

vector_file!(RulesFile { cases: Vec<RulesCase> });

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct RulesCase {
    name: String,
    fields_json: String,
    rules: Vec<RuleCase>,
    default_action: Option<String>,
    encryption: Encryption,
    expected_canonical: Option<String>,
    encrypted: Option<Vec<EncryptedField>>,
    sample_output_canonical: Option<String>,
    error: Option<SdkError>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct RuleCase {
    field_path: String,
    action: String,
    anonymize_strategy: Option<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Encryption {
    algorithm: String,
    key: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct EncryptedField {
    path: Vec<String>,
    ciphertext: String,
    plaintext: String,
}

/// The wrapper at a path.
fn at<'a>(object: &'a Object, path: &[String]) -> &'a Value {
    let (first, rest) = path.split_first().expect("a path");
    let start = object.get(first).expect("on the path");
    rest.iter().fold(start, |value, key| value.as_object().and_then(|o| o.get(key)).expect("on the path"))
}

/// Replaces every ciphertext by `<any>`, and counts them.
fn mask(value: &mut Value) -> usize {
    match value {
        Value::Object(object) => {
            if object.get("__encrypted") == Some(&Value::Bool(true)) && object.contains_key("ciphertext") {
                object.insert("ciphertext", "<any>");
                return 1;
            }
            object.iter_mut().map(|(_, value)| mask(value)).sum()
        }
        Value::Array(items) => items.iter_mut().map(mask).sum(),
        _ => 0,
    }
}

#[test]
fn vector_field_rules() {
    let mut rng = ChaCha20Rng::seed_from_u64(7);
    let file: RulesFile = read_vectors("field_rules");
    for case in not_empty(file.cases) {
        let name = &case.name;
        let rules = TopicRules {
            rules: case
                .rules
                .into_iter()
                .map(|rule| FieldRule { path: rule.field_path, action: rule.action, strategy: rule.anonymize_strategy })
                .collect(),
            default: case.default_action,
        };
        let mut ctx = EncryptCtx { algorithm: &case.encryption.algorithm, key: &case.encryption.key, rng: &mut rng };
        let result = apply(&rules, &read_object(&case.fields_json), &mut ctx);
        match (case.expected_canonical, case.encrypted, case.sample_output_canonical, case.error) {
            (Some(expected), Some(encrypted), Some(sample), None) => {
                let ours = result.unwrap_or_else(|error| panic!("{name}: {error}"));
                let official = read_object(&sample);
                let key = FieldKey::from_hex(&case.encryption.key);
                for field in &encrypted {
                    let key = key.as_ref().unwrap_or_else(|_| panic!("{name}: key"));
                    let (official, ours) = (at(&official, &field.path), at(&ours, &field.path));
                    let text = official.as_object().and_then(|o| o.get("ciphertext")).and_then(Value::as_str);
                    assert_eq!(text, Some(field.ciphertext.as_str()), "{name}");
                    let plaintext = read(&field.plaintext).expect("plaintext");
                    assert_eq!(decrypt_field(official, key), Ok(plaintext.clone()), "{name}");
                    assert_ne!(official, ours, "{name}: the IV is fresh");
                    assert_eq!(decrypt_field(ours, key), Ok(plaintext.clone()), "{name}");
                    assert_eq!(canonical(&plaintext), field.plaintext, "{name}");
                }
                let (mut ours, mut official) = (Value::from(ours), Value::from(official));
                assert_eq!(mask(&mut ours), encrypted.len(), "{name}");
                assert_eq!(mask(&mut official), encrypted.len(), "{name}");
                assert_eq!(canonical(&ours), expected, "{name}");
                assert_eq!(canonical(&official), expected, "{name}");
            }
            (None, None, None, Some(error)) => {
                let found = result.expect_err(name);
                assert_eq!(found.to_string(), error.message, "{name}");
            }
            _ => panic!("{name}: unknown shape"),
        }
    }
}

vector_file!(AnonymizeFile { cases: Vec<AnonymizeCase> });

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct AnonymizeCase {
    input_json: String,
    hash: String,
    generalize_json: Option<String>,
    generalize_error: Option<SdkError>,
}

#[test]
fn vector_anonymize() {
    let file: AnonymizeFile = read_vectors("anonymize");
    for case in not_empty(file.cases) {
        let input = &case.input_json;
        let value = read(input).unwrap_or_else(|error| panic!("{input}: {error}"));
        assert_eq!(hash_value(&value), Ok(Value::from(case.hash.as_str())), "{input}");
        match (case.generalize_json, case.generalize_error) {
            (Some(expected), None) => {
                assert_eq!(generalize(&value), read(&expected).map_err(RuleError::Json), "{input}");
            }
            (None, Some(error)) => {
                assert_eq!(error.r#type, "OverflowError", "{input}");
                assert_eq!(generalize(&value), Err(RuleError::Bucket), "{input}");
            }
            _ => panic!("{input}: unknown shape"),
        }
    }
}
