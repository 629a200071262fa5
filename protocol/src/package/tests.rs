use std::sync::Arc;

use proptest::prelude::*;
use rand_chacha::ChaCha20Rng;
use rand_core::SeedableRng;

use super::*;
use crate::ids::Hash;

fn key(seed: u64) -> IdentityKey {
    IdentityKey::generate(&mut ChaCha20Rng::seed_from_u64(seed))
}

fn payload() -> Object {
    Object::from_iter([
        (TOPIC_KEY, Value::from("/imu")),
        ("z", Value::from(1.0)),
        ("a", Value::from("\u{e9}\n")),
        ("n", Value::from(vec![Value::Null, Value::from(7)])),
    ])
}

fn package(key: &IdentityKey) -> DataPackage {
    let did = key.did().to_string();
    let fields = PackageFields {
        did: &did,
        timestamp: "2026-01-02T03:04:05.000000006Z",
        schema_version: "1.0.0",
        sequence_number: &Number::from((3u64 << 40) + 9),
        payload: &payload(),
    };
    DataPackage::sign(key, &fields, "identity").expect("finite")
}

#[test]
fn the_fast_path_writes_the_same_line_as_the_package_itself() {
    let key = Arc::new(key(1));
    let package = package(&key);
    let mut signer = PackageSigner::new(Arc::clone(&key), "identity", "1.0.0").expect("not blank");
    for _ in 0..2 {
        let mut line = b"before\n".to_vec();
        signer.sign_into(&mut line, &package.timestamp, &package.sequence_number, &package.payload).expect("finite");
        assert_eq!(line, [b"before\n".as_slice(), &package.to_line().expect("finite")].concat());
    }
}

#[test]
fn a_line_reads_back_as_a_valid_package_of_its_machine_only() {
    let (key, other) = (key(1), key(2));
    let line = package(&key).to_line().expect("finite");
    assert!(line.is_ascii() && !line.contains(&b'\n'));
    let back = DataPackage::from_json(&line).expect("a package");
    assert_eq!(back, package(&key));
    assert!(back.verify_from(&key.did()).expect("finite").valid);
    let verdict = back.verify_from(&other.did()).expect("finite");
    assert_eq!((verdict.valid, verdict.reason), (false, Some(Reason::OtherMachine)));
}

#[test]
fn every_signed_field_is_bound() {
    let key = key(1);
    let good = package(&key);
    let mut changed = vec![good.clone(); 4];
    changed[0].timestamp.push('0');
    changed[1].schema_version = "1.0.1".into();
    changed[2].sequence_number = Number::from(1);
    changed[3].payload.insert("z", 1);
    for package in changed {
        assert_eq!(package.verify().expect("finite").reason, Some(Reason::Signer));
    }
    let renamed = DataPackage { signing_key_id: "other".into(), ..good };
    assert!(renamed.verify().expect("finite").valid);
}

#[test]
fn what_is_not_a_package_is_refused_by_field() {
    let good = String::from_utf8(package(&key(1)).to_line().expect("finite")).expect("ASCII");
    let read = |text: &str| DataPackage::from_json(text.as_bytes()).expect_err("refused");
    assert_eq!(read("[]"), PackageError::NotAnObject);
    assert_eq!(read(&good.replace("signingKeyId", "keyId")), PackageError::Unknown { field: "keyId".into() });
    assert_eq!(read("{}"), PackageError::Missing { field: "did" });
    let float = good.replace(":3298534883337", ":1.0");
    assert_eq!(read(&float), PackageError::Type { field: "sequenceNumber", expected: "an integer" });
    assert!(matches!(read(&good.replace("1.0,\"", "NaN,\"").replace("\"z\":1.0", "\"z\":NaN")), PackageError::Json(_)));
    assert!(matches!(read(&good[..good.len() - 1]), PackageError::Json(_)));
}

#[test]
fn what_cannot_be_signed_is_refused_and_leaves_the_line_alone() {
    let key = Arc::new(key(1));
    assert!(PackageSigner::new(Arc::clone(&key), "identity", " \t").is_err());
    let mut signer = PackageSigner::new(key, "identity", "1").expect("not blank");
    let mut line = Vec::new();
    let bad = Object::from_iter([("x", f64::INFINITY)]);
    assert!(signer.sign_into(&mut line, "t", &Number::from(1), &bad).is_err());
    let float = signer.sign_into(&mut line, "t", &Number::Float(1.0), &Object::new());
    assert_eq!(float, Err(PackageError::SequenceNumber));
    assert!(line.is_empty());
    assert!(signer.sign_into(&mut line, "t", &Number::from(1), &Object::new()).is_ok());
}

#[test]
fn blobs_follow_in_the_order_of_the_canonical_payload() {
    let marker = |bytes: &[u8]| BlobMarker::of(bytes);
    let list = vec![marker(b"2").to_value(), Value::from(5), marker(b"3").to_value()];
    let mut payload = Object::from_iter([("z", marker(b"4").to_value()), ("a", marker(b"1").to_value())]);
    payload.insert("b", list);
    assert_eq!(BlobMarker::all_in(&payload), [marker(b"1"), marker(b"2"), marker(b"3"), marker(b"4")]);
    let Ok(Value::Object(back)) = parse(&payload.to_canonical().expect("finite"), Limits::default()) else {
        panic!("an object")
    };
    assert_eq!(BlobMarker::all_in(&back), BlobMarker::all_in(&payload));
}

#[test]
fn only_an_exact_marker_is_one() {
    let good = BlobMarker { hash: Hash::of(b"x"), bytes: 1 };
    let Value::Object(good) = good.to_value() else { panic!("an object") };
    let mut extra = good.clone();
    extra.insert("x", 1);
    let mut negative = good.clone();
    negative.insert("@bytes", -1);
    let mut upper = good;
    upper.insert("@blob", Hash::of(b"x").to_string().to_uppercase());
    for bad in [extra, negative, upper, Object::new()] {
        assert_eq!(BlobMarker::from_value(&Value::Object(bad)), None);
    }
}

proptest! {
    #[test]
    fn no_signature_or_did_text_makes_verifying_panic(signature in "\\PC{0,140}", did in "(did:peaq:0x)?\\PC{0,45}") {
        let package = DataPackage { signature, did, ..package(&key(1)) };
        prop_assert!(!package.verify().expect("finite").valid);
    }
}
