use proptest::prelude::{Strategy as Generator, any, prop, prop_assert, prop_assert_eq, prop_oneof, proptest};
use rand_chacha::ChaCha20Rng;
use rand_core::SeedableRng;

use super::*;
use crate::{
    json::{Limits, Object, Value, parse},
    peaq::sealed_box::BoxSecretKey,
    rules::{RuleError, RuleViolation},
};

fn object(text: &str) -> Object {
    match parse(text.as_bytes(), Limits::default()) {
        Ok(Value::Object(object)) => object,
        other => panic!("{text}: {other:?}"),
    }
}

fn rng() -> ChaCha20Rng {
    ChaCha20Rng::seed_from_u64(7)
}

fn secret() -> BoxSecretKey {
    BoxSecretKey::from_bytes(&[5; 32])
}

/// `path action`; `encrypt` has the key of [`secret`], `encrypt-keyless` has none.
fn rule(text: &str) -> AgentRule {
    let (path, action) = text.split_once(' ').expect("path and action");
    let action = match action {
        "include" => AgentAction::Include,
        "exclude" => AgentAction::Exclude,
        "anonymize" => AgentAction::Anonymize,
        "hash" => AgentAction::Hash,
        "encrypt" => AgentAction::Encrypt(BoxPublicKey::from_bytes(*secret().public_key(), "key").ok()),
        "encrypt-keyless" => AgentAction::Encrypt(None),
        other => panic!("{other}"),
    };
    AgentRule { path: path.to_owned(), action }
}

fn load(rules: &[&str]) -> AgentRules {
    AgentRules::load(rules.iter().map(|text| rule(text)).collect()).expect("loads")
}

fn applied(rules: &[&str], fields: &str) -> Result<String, RuleViolation> {
    let (out, _) = load(rules).apply_noting(object(fields), &mut rng())?;
    Ok(String::from_utf8(Value::from(out).to_canonical().expect("finite")).expect("ASCII"))
}

fn fits(rules: &[&str], fields: &str) -> String {
    applied(rules, fields).expect("fits")
}

#[test]
fn an_include_makes_an_allowlist_wherever_it_stands() {
    let fields = r#"{"a":1,"b":{"c":2,"d":{"e":3}},"n":null}"#;
    assert_eq!(fits(&[], fields), fields);
    assert_eq!(fits(&["b.c include"], fields), r#"{"b":{"c":2}}"#);
    assert_eq!(fits(&["b.d include", "b.c include", "n include"], fields), r#"{"b":{"c":2,"d":{"e":3}},"n":null}"#);
    assert_eq!(fits(&["b include", "b.c include"], fields), r#"{"b":{"c":2,"d":{"e":3}}}"#);
    assert_eq!(fits(&["b.x include"], fields), "{}");
    assert_eq!(fits(&["a.x include"], fields), "{}");
    // What reads like an exception is none: the exclude acts on what was included.
    assert_eq!(fits(&["b exclude", "b.c include"], fields), "{}");
    assert_eq!(fits(&["b.c exclude", "b include"], fields), r#"{"b":{"d":{"e":3}}}"#);
}

#[test]
fn each_rule_acts_on_what_the_ones_before_have_left() {
    let fields = r#"{"a":{"b":1,"c":2},"d":3}"#;
    assert_eq!(fits(&["a.b exclude", "a.c exclude"], fields), r#"{"a":{},"d":3}"#);
    assert_eq!(fits(&["a.b anonymize"], fields), r#"{"a":{"b":{"redacted":true},"c":2},"d":3}"#);
    assert_eq!(fits(&["a anonymize", "a.b hash"], fields), r#"{"a":{"redacted":true},"d":3}"#);
    assert_eq!(fits(&["a anonymize", "a.redacted exclude"], fields), r#"{"a":{},"d":3}"#);
    assert_eq!(fits(&["d exclude", "d hash"], fields), r#"{"a":{"b":1,"c":2}}"#);
    assert_eq!(fits(&["x exclude", "d.e anonymize"], fields), fields);
    // The parent is sealed as its children's rules have left it.
    let out = object(&fits(&["a.b exclude", "a.c anonymize", "a encrypt"], fields));
    let sealed = out.get("a").and_then(Value::as_object).expect("a wrapper");
    let text = |key: &str| sealed.get(key).and_then(Value::as_str).expect("text").to_owned();
    assert_eq!(sealed.get("encrypted"), Some(&Value::Bool(true)));
    assert_eq!((sealed.len(), text("algorithm").as_str()), (4, "x25519-sealedbox"));
    let plain = secret().open(&hex::decode(text("ciphertext")).expect("hex")).expect("opens");
    assert_eq!(plain.as_slice(), br#"{"c":{"redacted":true}}"#);
    assert_eq!(text("valueHash"), format!("sha256:{}", hex::encode(crate::peaq::hexes::sha256(&plain))));
}

/// Hashes that Python's `json.dumps(…, ensure_ascii=False)` with sorted keys gives.
#[test]
fn a_hash_is_the_one_that_the_agent_makes() {
    for (value, hash) in [
        ("\"73\"", "200baec47c61ff565118fa2ec9074b63a4ff98bce0c2dbb911ee69397b4745de"),
        ("0.1", "14be4b45f18e0d8c67b4f719b5144eee88497e413709d11d85b096d8e2346310"),
        (
            "{\"b\":1e-7,\"a\":\"é\\u007f\\u0001\\\"\\\\\\n/\",\"\u{1f600}\":[1.0,null,true,1e22]}",
            "f6cfa732f6adfe466636c0d78803e1180563e9865f050851fa5fc9b892574bf6",
        ),
    ] {
        let fields = format!("{{\"v\":{value}}}");
        assert_eq!(fits(&["v hash"], &fields), format!(r#"{{"v":"sha256:{hash}"}}"#));
        let keyless = format!(r#"{{"v":{{"encrypted":false,"valueHash":"sha256:{hash}"}}}}"#);
        assert_eq!(fits(&["v encrypt-keyless"], &fields), keyless);
    }
}

#[test]
fn what_cannot_be_hashed_or_sealed_does_not_leave() {
    for action in ["hash", "encrypt", "encrypt-keyless"] {
        let violation = applied(&[&format!("v {action}")], r#"{"v":{"w":"\ud800"}}"#).expect_err("refused");
        assert!(matches!(violation, RuleViolation::Transform { source: RuleError::Json(_), .. }), "{violation}");
    }
    assert_eq!(fits(&["v anonymize"], r#"{"v":"\ud800"}"#), r#"{"v":{"redacted":true}}"#);
}

#[test]
fn where_the_agent_would_pass_over_what_a_rule_names_the_message_stays_or_the_rule_binds() {
    for rule in ["l.x exclude", "l.x anonymize", "l.x include", "l.x hash", "l.x encrypt"] {
        let violation = applied(&[rule], r#"{"l":[{"x":1}]}"#).expect_err("refused");
        assert_eq!(violation, RuleViolation::MeetsList { path: "l.x".into() });
    }
    assert_eq!(fits(&["l exclude"], r#"{"l":[{"x":1}],"m":2}"#), r#"{"m":2}"#);
    let dotted = r#"{"a.b":1,"a":{"b":2}}"#;
    assert_eq!(fits(&["a.b exclude"], dotted), r#"{"a":{}}"#);
    assert_eq!(fits(&["a.b include"], dotted), r#"{"a":{"b":2}}"#);
}

#[test]
fn a_rule_without_a_path_does_not_load_and_empty_names_are_passed_over() {
    for path in ["", ".", "...", "@topic", "a.@type"] {
        let rules = vec![AgentRule { path: path.into(), action: AgentAction::Exclude }];
        assert_eq!(AgentRules::load(rules).err(), Some(LoadError::Path { path: path.into() }));
    }
    assert_eq!(fits(&[".a..b. exclude"], r#"{"a":{"b":1,"c":2}}"#), r#"{"a":{"c":2}}"#);
    let many = vec![rule("a include"); MAX_RULES + 1];
    assert_eq!(AgentRules::load(many).err(), Some(LoadError::TooMany { count: MAX_RULES + 1 }));
}

#[test]
fn a_path_that_the_message_type_does_not_have_is_refused() {
    let leaf = |name: &str| (name.to_owned(), SchemaPaths::Leaf);
    let schema = SchemaPaths::Fields(vec![
        ("gps".into(), SchemaPaths::Fields(vec![leaf("lat"), leaf("lon")])),
        ("points".into(), SchemaPaths::List),
    ]);
    assert_eq!(load(&["gps include", "gps.lat hash", "points exclude"]).check_schema(&schema), Ok(()));
    for rule in ["gps.lta include", "gps.lta exclude", "gps.lat.x anonymize"] {
        assert!(matches!(load(&[rule]).check_schema(&schema), Err(LoadError::NoSuchField { .. })), "{rule}");
    }
    assert!(matches!(load(&["points.x exclude"]).check_schema(&schema), Err(LoadError::RunsIntoList { .. })));
}

#[test]
fn a_value_is_needed_where_something_is_made_of_it() {
    let rules = load(&["a.b hash", "c encrypt", "d anonymize", "e exclude", "f include"]);
    for (path, needed) in [
        (&["a", "b"][..], true),
        (&["a", "b", "x"], true),
        (&["a"], false),
        (&["c", "x"], true),
        (&["d"], false),
        (&["e"], false),
        (&["f"], false),
    ] {
        assert_eq!(rules.needs_value(path), needed, "{path:?}");
    }
}

/// Objects of few, often shared names, without arrays.
fn fields() -> impl Generator<Value = Object> {
    let leaf = prop_oneof![any::<i32>().prop_map(Value::from), "[a-z]{0,6}".prop_map(Value::from)];
    let tree = leaf.prop_recursive(3, 24, 4, |inner| {
        proptest::collection::vec(("[abc]", inner), 0..4).prop_map(|fields| Value::from(Object::from_iter(fields)))
    });
    proptest::collection::vec(("[abc]", tree), 0..4).prop_map(Object::from_iter)
}

fn at<'a>(object: &'a Object, path: &str) -> Option<&'a Value> {
    match path.split_once('.') {
        None => object.get(path),
        Some((name, rest)) => at(object.get(name)?.as_object()?, rest),
    }
}

proptest! {
    #[test]
    fn the_report_says_what_is_done(
        fields in fields(),
        rules in proptest::collection::vec(
            (
                "[abc](\\.[abc]){0,2}",
                prop::sample::select(vec!["include", "exclude", "anonymize", "hash", "encrypt", "encrypt-keyless"]),
            ),
            0..5,
        ),
    ) {
        let texts: Vec<String> = rules.iter().map(|(path, action)| format!("{path} {action}")).collect();
        let rules = load(&texts.iter().map(String::as_str).collect::<Vec<_>>());
        let (out, changed) = rules.apply_noting(fields.clone(), &mut rng()).expect("no arrays");
        prop_assert!(changed || out == fields, "what is not noted has not happened");
        let report = rules.report(&fields);
        prop_assert!(report.violations.is_empty());
        for fate in report.fates {
            match fate.action {
                Action::Include => prop_assert_eq!(at(&out, &fate.path), at(&fields, &fate.path)),
                Action::Exclude => prop_assert_eq!(at(&out, &fate.path), None),
                Action::Encrypt => {
                    let sealed = at(&out, &fate.unit).and_then(Value::as_object).and_then(|object| object.get("encrypted"));
                    prop_assert_eq!(sealed, Some(&Value::Bool(true)));
                }
                Action::Anonymize => prop_assert!(at(&out, &fate.unit) != at(&fields, &fate.unit)),
            }
        }
    }
}
