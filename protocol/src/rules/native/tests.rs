use proptest::prelude::{Strategy as Generator, any, prop, prop_assert_eq, prop_oneof, proptest};
use rand_chacha::ChaCha20Rng;
use rand_core::SeedableRng;

use super::*;
use crate::{
    json::{Limits, Object, Value, parse},
    rules::{EncryptCtx, FieldRule, RuleError, TopicRules, decrypt_field},
};

fn object(text: &str) -> Object {
    match parse(text.as_bytes(), Limits::default()) {
        Ok(Value::Object(object)) => object,
        other => panic!("{text}: {other:?}"),
    }
}

fn rng() -> ChaCha20Rng {
    ChaCha20Rng::seed_from_u64(5)
}

/// `path action[/strategy][?]`, `?` for optional; every rule has a key.
fn rule(text: &str) -> NativeRule {
    let (path, rest) = text.split_once(' ').expect("path and action");
    let optional = rest.ends_with('?');
    let (action, strategy) = match rest.trim_end_matches('?').split_once('/') {
        Some((action, strategy)) => (action, Some(strategy.parse().expect("a strategy"))),
        None => (rest.trim_end_matches('?'), None),
    };
    let action = action.parse().expect("an action");
    NativeRule { path: path.into(), action, strategy, optional, key: Some(FieldKey::from_bytes([9; 32])) }
}

fn load(default: DefaultAction, rules: &[&str]) -> Result<NativeRules, LoadError> {
    NativeRules::load(default, rules.iter().map(|text| rule(text)).collect())
}

fn include(rules: &[&str]) -> NativeRules {
    load(DefaultAction::Include, rules).expect("loads")
}

fn applied(rules: &NativeRules, fields: &str) -> Result<String, RuleViolation> {
    let out = rules.apply(&object(fields), &mut rng())?;
    Ok(String::from_utf8(out.to_canonical().expect("finite")).expect("ASCII"))
}

#[test]
fn it_is_noted_whether_anything_was_removed_or_replaced() {
    let changed = |default, rules: &[&str], fields: &str| {
        let rules = load(default, rules).expect("loads");
        let (out, changed) = rules.apply_noting(object(fields), &mut rng()).expect("fits");
        assert_eq!(changed, out != object(fields), "{fields}");
        changed
    };
    let (include, exclude) = (DefaultAction::Include, DefaultAction::Exclude);
    assert!(!changed(include, &[], r#"{"a":1,"b":{"c":[2]}}"#));
    assert!(!changed(include, &["a include"], r#"{"a":1}"#));
    assert!(!changed(include, &["x exclude?", "b.x anonymize/redact?"], r#"{"a":1,"b":{"c":2}}"#));
    assert!(!changed(exclude, &["a include", "b include"], r#"{"a":1,"b":{"c":2}}"#));
    assert!(changed(exclude, &["a include"], r#"{"a":1,"b":{"c":2}}"#));
    assert!(changed(include, &["b.c exclude"], r#"{"a":1,"b":{"c":2}}"#));
    for action in ["encrypt", "anonymize/hash", "anonymize/generalize", "anonymize/redact", "anonymize/keyed_hash"] {
        assert!(changed(include, &[&format!("b.c {action}")], r#"{"a":1,"b":{"c":2}}"#), "{action}");
    }
}

#[test]
fn a_rule_that_could_never_act_does_not_load() {
    let error = |rules: &[&str]| load(DefaultAction::Include, rules).err().expect("refused");
    assert_eq!(
        error(&["gps exclude", "x include", "gps.lat include"]),
        LoadError::ChildBehindParent { child: "gps.lat".into(), parent: "gps".into() }
    );
    assert_eq!(error(&["a include", "a exclude"]), LoadError::Duplicate { path: "a".into() });
    for path in ["", ".a", "a.", "a..b", "@topic", "a.@x"] {
        assert_eq!(error(&[&format!("{path} include")]), LoadError::Path { path: path.into() });
    }
    assert_eq!(error(&["a anonymize"]), LoadError::NoStrategy { path: "a".into() });
    assert!(matches!(error(&["a exclude/hash"]), LoadError::StrayStrategy { .. }));
    assert!(load(DefaultAction::Include, &["gps.lat include", "gps exclude", "gpsd exclude"]).is_ok());
    let keyless = |text| vec![NativeRule { key: None, ..rule(text) }];
    let error = |text| NativeRules::load(DefaultAction::Include, keyless(text)).err();
    assert_eq!(error("a encrypt"), Some(LoadError::NoKey { path: "a".into() }));
    assert_eq!(error("a anonymize/keyed_hash"), Some(LoadError::NoHashKey { path: "a".into() }));
    assert!("mask".parse::<Action>().is_err() && "mask".parse::<Strategy>().is_err());
}

#[test]
fn a_schema_finds_typing_mistakes_and_arrays_at_load() {
    let leaf = |name: &str| (name.to_owned(), SchemaPaths::Leaf);
    let schema = SchemaPaths::Fields(vec![
        ("gps".into(), SchemaPaths::Fields(vec![leaf("lat"), leaf("lon")])),
        ("points".into(), SchemaPaths::List),
    ]);
    for good in ["gps exclude", "gps.lat exclude", "points exclude"] {
        assert_eq!(include(&[good]).check_schema(&schema), Ok(()));
    }
    let error = |text| include(&[text]).check_schema(&schema).expect_err("refused");
    let known = "lat, lon".into();
    assert_eq!(error("gps.lta exclude?"), LoadError::NoSuchField { path: "gps.lta".into(), known });
    assert!(matches!(error("gps.lat.x exclude"), LoadError::NoSuchField { .. }));
    let list = LoadError::RunsIntoList { path: "points.x".into(), list: "points".into() };
    assert_eq!(error("points.x exclude"), list);
}

#[test]
fn a_rule_that_matches_nothing_stops_the_message_unless_optional() {
    let missing = Err(RuleViolation::NeverMatched { path: "gps.lat".into() });
    for fields in [r#"{"gps":{"lta":1}}"#, r#"{"gps":5}"#, r#"{"gps":{}}"#, "{}"] {
        assert_eq!(applied(&include(&["gps.lat exclude"]), fields), missing);
        assert_eq!(applied(&include(&["gps.lat exclude?"]), fields).as_deref(), Ok(fields));
    }
}

#[test]
fn a_rule_that_meets_an_array_stops_the_message_even_when_optional() {
    let list = Err(RuleViolation::MeetsList { path: "a.b.c".into() });
    for fields in [r#"{"a":[{"b":{"c":1}}]}"#, r#"{"a":{"b":[]}}"#, r#"{"a":{"b":{"c":1}},"a.b":[1]}"#] {
        assert_eq!(applied(&include(&["a.b.c exclude?"]), fields), list, "{fields}");
        assert_eq!(applied(&include(&["a.b.c exclude?", "a exclude"]), fields), list, "{fields}");
    }
    assert_eq!(applied(&include(&["a exclude"]), r#"{"a":[{"b":1}]}"#).as_deref(), Ok("{}"));
}

#[test]
fn nulls_and_keys_with_a_dot_are_bound() {
    let rules = include(&["a.b exclude"]);
    assert_eq!(applied(&rules, r#"{"a":{"b":1,"c":2},"a.b":3}"#).as_deref(), Ok(r#"{"a":{"c":2}}"#));
    assert_eq!(applied(&rules, r#"{"a.b":{"x":3},"a.bc":1}"#).as_deref(), Ok(r#"{"a.bc":1}"#));
    assert_eq!(applied(&rules, r#"{"a.b.c":3}"#).as_deref(), Ok("{}"));
    assert_eq!(applied(&include(&["n exclude"]), r#"{"n":null}"#).as_deref(), Ok("{}"));
    let default = load(DefaultAction::Exclude, &["x include?"]).expect("loads");
    assert_eq!(applied(&default, r#"{"n":null,"x":null}"#).as_deref(), Ok(r#"{"x":null}"#));
}

#[test]
fn the_longest_path_governs_and_a_subtree_is_one_unit() {
    let rules = include(&["gps.lat include", "gps exclude", "id anonymize/keyed_hash", "pose anonymize/redact"]);
    let out = applied(&rules, r#"{"gps":{"lat":1,"lon":2},"id":"r","pose":{"x":1,"y":{"z":2}}}"#).expect("fits");
    let hash = blake3::keyed_hash(&[9; 32], b"\"r\"").to_hex();
    assert_eq!(
        out,
        format!(
            "{{\"gps\":{{\"lat\":1}},\"id\":{{\"__anonymized\":true,\"strategy\":\"keyed_hash\",\"value\":\"0x{hash}\"}},\
             \"pose\":{{\"__anonymized\":true,\"strategy\":\"redact\",\"value\":\"[REDACTED]\"}}}}"
        )
    );
    let each = include(&["a.x exclude", "a.y exclude"]);
    assert_eq!(applied(&each, r#"{"a":{"x":1,"y":2}}"#).as_deref(), Ok(r#"{"a":{}}"#));
}

#[test]
fn an_encrypted_field_opens_with_the_rules_key() {
    let out = include(&["gps encrypt"]).apply(&object(r#"{"gps":{"lat":1.5}}"#), &mut rng()).expect("fits");
    let opened = decrypt_field(out.get("gps").expect("kept"), &FieldKey::from_bytes([9; 32]));
    assert_eq!(opened, Ok(Value::from(object(r#"{"lat":1.5}"#))));
}

#[test]
fn a_value_that_cannot_be_transformed_stops_the_message() {
    let violation = applied(&include(&["v anonymize/generalize"]), r#"{"v":1e308}"#).expect_err("stopped");
    assert_eq!(violation, RuleViolation::Transform { path: "v".into(), source: RuleError::Bucket });
}

#[test]
fn the_governing_action_of_a_path_is_known_without_a_message() {
    let rules = include(&["cam.data encrypt", "cam exclude", "a.b anonymize/hash"]);
    let action = |path: &[&str]| rules.action_for(path).action;
    assert_eq!(action(&["cam", "data"]), Action::Encrypt);
    assert_eq!(action(&["cam", "data", "deep"]), Action::Encrypt);
    assert_eq!(action(&["cam", "dat"]), Action::Exclude);
    assert_eq!(action(&["camera"]), Action::Include);
    assert_eq!(action(&["a"]), Action::Include);
    let governing = rules.action_for(&["a.b"]);
    assert_eq!((governing.strategy, governing.rule), (Some(Strategy::Hash), Some("a.b")));
}

#[test]
fn a_report_names_the_rule_of_every_leaf_and_every_violation() {
    let rules = include(&["gps.lat encrypt", "pose anonymize/redact", "x.y exclude", "l.z exclude?"]);
    let report = rules.report(&object(r#"{"gps":{"lat":1,"lon":2},"pose":{"p":{"q":1},"r":[1]},"l":[1]}"#));
    let fates: Vec<String> = report
        .fates
        .iter()
        .map(|f| format!("{} {} {} {}", f.path, f.unit, f.action, f.rule.as_deref().unwrap_or("-")))
        .collect();
    assert_eq!(
        fates,
        [
            "gps.lat gps.lat encrypt gps.lat",
            "gps.lon gps.lon include -",
            "pose.p.q pose anonymize pose",
            "pose.r pose anonymize pose",
            "l l include -",
        ]
    );
    assert_eq!(
        report.violations,
        [RuleViolation::NeverMatched { path: "x.y".into() }, RuleViolation::MeetsList { path: "l.z".into() }]
    );
}

/// Objects of few, often shared names, without dots, nulls on top, or arrays: where both semantics mean the same.
fn fields() -> impl Generator<Value = Object> {
    let leaf = prop_oneof![any::<i32>().prop_map(Value::from), "[a-z]{0,6}".prop_map(Value::from)];
    let tree = leaf.prop_recursive(3, 24, 4, |inner| {
        proptest::collection::vec(("[abc]", inner), 0..4).prop_map(|fields| Value::from(Object::from_iter(fields)))
    });
    proptest::collection::vec(("[abc]", tree), 0..4).prop_map(Object::from_iter)
}

proptest! {
    #[test]
    fn where_the_sdk_has_no_gaps_both_agree(
        fields in fields(),
        rules in proptest::collection::vec(
            ("[abc](\\.[abc]){0,2}", prop::sample::select(vec!["include", "exclude", "anonymize/redact", "anonymize/hash"])),
            0..5,
        ),
        exclude: bool,
    ) {
        let mut rules = rules;
        rules.sort_by_key(|(path, _)| std::cmp::Reverse(path.len()));
        rules.dedup_by(|a, b| a.0 == b.0);
        let texts: Vec<String> = rules.iter().map(|(path, action)| format!("{path} {action}?")).collect();
        let default = if exclude { DefaultAction::Exclude } else { DefaultAction::Include };
        let Ok(native) = load(default, &texts.iter().map(String::as_str).collect::<Vec<_>>()) else { return Ok(()) };
        let sdk = TopicRules {
            rules: rules.iter().map(|(path, action)| {
                let (action, strategy) = action.split_once('/').map_or((*action, None), |(a, s)| (a, Some(s)));
                FieldRule { path: path.clone(), action: action.into(), strategy: strategy.map(str::to_owned) }
            }).collect(),
            default: exclude.then(|| "exclude".to_owned()),
        };
        let mut rng = rng();
        let ours = native.apply(&fields, &mut rng).expect("optional, no arrays");
        let mut ctx = EncryptCtx { algorithm: "AES-256-GCM", key: "", rng: &mut rng };
        let official = crate::rules::apply(&sdk, &fields, &mut ctx).expect("finite");
        prop_assert_eq!(ours, official);

        // The report agrees with what was done, and with the path lookup.
        for fate in native.report(&fields).fates {
            let path: Vec<&str> = fate.path.split('.').collect();
            let governing = native.action_for(&path);
            prop_assert_eq!((governing.action, governing.rule), (fate.action, fate.rule.as_deref()));
        }
    }
}
