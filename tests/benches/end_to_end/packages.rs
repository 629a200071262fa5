//! Signed packages: an IMU message of about 1 KB, three field rules, one signature.

use std::sync::Arc;

use rand::rng;
use tributary_protocol::{
    identity::IdentityKey,
    json::{Limits, Number, Object, Value, parse},
    package::PackageSigner,
    rules::{
        Action, FieldKey, Strategy,
        native::{DefaultAction, NativeRule, NativeRules},
    },
};

use crate::{Bench, machine::cpu_seconds, table::Goal};

const IMU: &str = include_str!("../../../protocol/benches/imu.json");
const TIMESTAMP: &str = "2026-01-02T03:04:05.678123456Z";
/// Messages that are ready at a time.
const BATCH: usize = 500;
const BATCHES: usize = 20;
const SDK_COUNT: usize = 2000;
/// What the SDK was said to do when the goal was set.
const SDK_THEN: f64 = 1500.0;

fn message() -> Object {
    match parse(IMU.as_bytes(), Limits::default()) {
        Ok(Value::Object(object)) => object,
        _ => panic!("the message is a JSON object"),
    }
}

/// As in `tests/tools/sdk_baseline.py`, except that the hash is keyed where the SDK's is bare.
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
    NativeRules::load(DefaultAction::Include, rules).unwrap()
}

pub(crate) fn run(bench: &mut Bench) {
    let (rules, identity) = (rules(), Arc::new(IdentityKey::generate(&mut rng())));
    let mut signer = PackageSigner::new(Arc::clone(&identity), "machine-signing-key-1", "1.0.0").unwrap();
    let (mut ours, mut sdks, mut signs, mut number) = (vec![], vec![], vec![], 0u64);
    let mut line = Vec::new();
    for _ in 0..bench.rounds {
        let mut seconds = 0.0;
        for _ in 0..BATCHES {
            // Both sides start from a decoded message.
            let messages: Vec<Object> = (0..BATCH).map(|_| message()).collect();
            seconds += cpu_seconds(|| {
                for message in messages {
                    line.clear();
                    number += 1;
                    let payload = rules.apply_owned(message, &mut rng()).unwrap();
                    signer.sign_into(&mut line, TIMESTAMP, &Number::from(number), &payload).unwrap();
                }
            })
            .0;
        }
        ours.push((BATCH * BATCHES) as f64 / seconds);
        let (seconds, ()) = cpu_seconds(|| {
            for _ in 0..BATCH {
                std::hint::black_box(identity.sign_eip191(IMU.as_bytes()));
            }
        });
        signs.push(BATCH as f64 / seconds);
        if let Some(sdk) = &mut bench.sdk {
            sdks.push(SDK_COUNT as f64 / sdk.round("packages", SDK_COUNT));
        }
    }
    let (what, unit, table) = ("signed packages, three rules, IMU", "/s/core", &mut bench.table);
    let then = vec![SDK_THEN; ours.len()];
    table.compare(what, &ours, ("SDK, as the goal says", &then), unit, Goal::AtLeast(12.0));
    if bench.sdk.is_some() {
        table.compare(what, &ours, ("SDK `build_signed_data_package`", &sdks), unit, Goal::None);
    }
    table.compare(what, &ours, ("EIP-191 signatures alone", &signs), unit, Goal::None);
}
