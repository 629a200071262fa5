//! What one package costs: parse, field rules, canonical JSON, signature, and the whole path.
//!
//! ```text
//! cargo bench -p tributary-protocol --bench package
//! ```
//!
//! The message is an IMU reading of about 1 KB; items per second of `whole` is packages per second and core.

use std::{hint::black_box, sync::Arc};

use divan::{Bencher, counter::ItemsCount};
use rand_chacha::ChaCha20Rng;
use rand_core::SeedableRng;
use tributary_protocol::{
    identity::IdentityKey,
    json::{CanonicalWriter, Limits, Number, Object, Value, parse},
    package::PackageSigner,
    rules::{
        Action, FieldKey, Strategy,
        native::{DefaultAction, NativeRule, NativeRules},
    },
};

const IMU: &str = include_str!("imu.json");
const TIMESTAMP: &str = "2026-01-02T03:04:05.678123456Z";

fn main() {
    divan::main();
}

fn message() -> Object {
    match parse(IMU.as_bytes(), Limits::default()) {
        Ok(Value::Object(object)) => object,
        _ => Object::new(),
    }
}

fn rules() -> NativeRules {
    let rule = |path: &str, action, strategy| NativeRule {
        path: path.into(),
        action,
        strategy,
        optional: false,
        key: Some(FieldKey::from_bytes([7; 32])),
    };
    let rules = vec![
        rule("status.hardware_id", Action::Anonymize, Some(Strategy::KeyedHash)),
        rule("temperature", Action::Exclude, None),
        rule("orientation", Action::Encrypt, None),
    ];
    NativeRules::load(DefaultAction::Include, rules).expect("the rules are sound")
}

fn signer() -> PackageSigner {
    let key = Arc::new(IdentityKey::generate(&mut ChaCha20Rng::seed_from_u64(1)));
    PackageSigner::new(key, "identity", "1.0.0").expect("the version is not blank")
}

#[divan::bench]
fn parsing(bencher: Bencher<'_, '_>) {
    bencher.counter(ItemsCount::new(1u32)).bench(|| parse(black_box(IMU.as_bytes()), Limits::default()));
}

#[divan::bench]
fn canonical(bencher: Bencher<'_, '_>) {
    let message = message();
    let (mut writer, mut out) = (CanonicalWriter::default(), Vec::new());
    bencher.counter(ItemsCount::new(1u32)).bench_local(|| {
        out.clear();
        writer.object(black_box(&message), &mut out)
    });
}

#[divan::bench]
fn three_rules(bencher: Bencher<'_, '_>) {
    let (rules, mut rng) = (rules(), ChaCha20Rng::seed_from_u64(2));
    bencher
        .counter(ItemsCount::new(1u32))
        .with_inputs(message)
        .bench_local_values(|message| rules.apply_owned(message, &mut rng));
}

#[divan::bench]
fn eip191_signature(bencher: Bencher<'_, '_>) {
    let key = IdentityKey::generate(&mut ChaCha20Rng::seed_from_u64(1));
    bencher.counter(ItemsCount::new(1u32)).bench(|| key.sign_eip191(black_box(IMU.as_bytes())));
}

/// A decoded message to its signed line.
#[divan::bench]
fn whole(bencher: Bencher<'_, '_>) {
    let (rules, mut signer, mut rng) = (rules(), signer(), ChaCha20Rng::seed_from_u64(2));
    let (mut line, mut number) = (Vec::new(), 0u64);
    bencher.counter(ItemsCount::new(1u32)).with_inputs(message).bench_local_values(|message| {
        line.clear();
        number += 1;
        let payload = rules.apply_owned(message, &mut rng).expect("the message fits");
        signer.sign_into(&mut line, TIMESTAMP, &Number::from(number), &payload)
    });
}

/// The same from JSON text.
#[divan::bench]
fn whole_with_parsing(bencher: Bencher<'_, '_>) {
    let (rules, mut signer, mut rng) = (rules(), signer(), ChaCha20Rng::seed_from_u64(2));
    let (mut line, mut number) = (Vec::new(), 0u64);
    bencher.counter(ItemsCount::new(1u32)).bench_local(|| {
        line.clear();
        number += 1;
        let payload = rules.apply_owned(message(), &mut rng).expect("the message fits");
        signer.sign_into(&mut line, TIMESTAMP, &Number::from(number), &payload)
    });
}
