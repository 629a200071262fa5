//! The agent's rules, written as somebody would write them, against a model of the agent.

use proptest::prelude::*;
use serde_json::{Map, Value as Json, json};
use tributary_protocol::{
    json::{Limits, Object, Value as Field, parse as parse_json},
    rules::{RuleSet, RuleViolation},
};

use super::{
    OWNER,
    model::{self, ModelRule, transformed},
    one_topic, parse,
};

/// A message whose values are all different, so that what leaves can be recognised.
#[derive(Debug, Clone)]
enum Shape {
    Number,
    Text,
    Null,
    List(Vec<Shape>),
    Object(Vec<(String, Shape)>),
}

fn shape(keys: &'static str, lists: bool) -> impl Strategy<Value = Vec<(String, Shape)>> {
    let leaf = prop_oneof![3 => Just(Shape::Number), 3 => Just(Shape::Text), 1 => Just(Shape::Null)];
    let tree = leaf.prop_recursive(3, 24, 4, move |inner| {
        let object = proptest::collection::vec((keys, inner.clone()), 0..4).prop_map(Shape::Object);
        let list = proptest::collection::vec(inner, 0..3).prop_map(Shape::List);
        if lists { prop_oneof![3 => object, 1 => list].boxed() } else { object.boxed() }
    });
    proptest::collection::vec((keys, tree), 1..5)
}

fn filled(shape: &Shape, next: &mut u32) -> Json {
    *next += 1;
    match shape {
        Shape::Number => json!(1_000_000 + *next),
        Shape::Text => json!(format!("value-{next}-é")),
        Shape::Null => Json::Null,
        Shape::List(items) => items.iter().map(|item| filled(item, next)).collect(),
        Shape::Object(fields) => Json::Object(object(fields, next)),
    }
}

fn object(fields: &[(String, Shape)], next: &mut u32) -> Map<String, Json> {
    fields.iter().map(|(key, shape)| (key.clone(), filled(shape, next))).collect()
}

fn rules(paths: &'static str) -> impl Strategy<Value = Vec<ModelRule>> {
    let actions = vec![None, Some("include"), Some("exclude"), Some("anonymize"), Some("hash"), Some("encrypt")];
    let rule = (paths, prop::sample::select(actions), any::<bool>());
    let rule =
        rule.prop_map(|(path, action, key)| ModelRule { path, action, has_key: key && action == Some("encrypt") });
    proptest::collection::vec(rule, 0..6)
}

/// The rules as somebody would write them, read as the node reads them.
fn read_rules(rules: &[ModelRule]) -> RuleSet {
    let written = rules.iter().map(|rule| {
        let action = rule.action.map(|action| format!(", action: {action}")).unwrap_or_default();
        let key = if rule.has_key { format!(", publicKeyHex: '{OWNER}'") } else { String::new() };
        format!("{{path: '{}'{action}{key}}}", rule.path)
    });
    let text = one_topic(&format!(", field_rules: [{}]", written.collect::<Vec<_>>().join(", ")), "");
    parse(&text).streams[0].rule_set().expect("loads").expect("fields have rules")
}

fn applied(rules: &RuleSet, message: &Map<String, Json>) -> Result<Map<String, Json>, RuleViolation> {
    let text = serde_json::to_vec(message).expect("JSON");
    let fields: Object = match parse_json(&text, Limits::default()) {
        Ok(Field::Object(fields)) => fields,
        other => panic!("an object: {other:?}"),
    };
    let (out, _) = rules.apply_noting(fields, &mut rand::rng())?;
    let out = Field::Object(out).to_canonical().expect("finite");
    Ok(serde_json::from_slice(&out).expect("an object"))
}

/// The values that can be read in one message and not in the other.
fn beyond(here: &Map<String, Json>, there: &Map<String, Json>) -> Vec<String> {
    let (mut left, mut right) = (Vec::new(), Vec::new());
    here.values().for_each(|value| clear(value, &mut left));
    there.values().for_each(|value| clear(value, &mut right));
    left.retain(|value| !right.contains(value));
    left
}

/// The values of a message that can be read in `value`.
fn clear(value: &Json, out: &mut Vec<String>) {
    match value {
        Json::Object(object) => object.values().for_each(|value| clear(value, out)),
        Json::Array(items) => items.iter().for_each(|item| clear(item, out)),
        Json::Number(_) => out.push(value.to_string()),
        Json::String(text) if text.starts_with("value-") => out.push(text.clone()),
        _ => {}
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 600, ..ProptestConfig::default() })]

    /// Where the agent has no gaps, the same leaves, down to the hashes.
    #[test]
    fn the_same_file_lets_out_the_same(fields in shape("[abc]", false), rules in rules("[abc]{1}(\\.{1,2}[abc]){0,2}")) {
        let message = object(&fields, &mut 0);
        let ours = applied(&read_rules(&rules), &message).expect("no lists");
        let theirs = transformed(&message, &rules);
        prop_assert!(model::is(&theirs.clone().into(), &ours.clone().into()), "{ours:?}\n{theirs:?}");
    }

    /// Whatever the message, nothing is readable here that is not readable there.
    #[test]
    fn the_same_file_never_lets_out_more(
        fields in shape("[ab](\\.[ab])?", true),
        rules in rules("\\.?[ab]{1}(\\.[ab]){0,3}"),
    ) {
        let message = object(&fields, &mut 0);
        let there = transformed(&message, &rules);
        if let Ok(here) = applied(&read_rules(&rules), &message) {
            let more = beyond(&here, &there);
            prop_assert!(more.is_empty(), "{more:?} of {message:?} under {rules:?}");
        }
    }
}

#[test]
fn the_comparison_notices_a_leak() {
    let message = json!({"a": {"b": 1_000_001}, "c": "value-2-é", "d": ["value-3-é"]});
    let message = message.as_object().expect("an object");
    let rule = |path: &str, action| ModelRule { path: path.to_owned(), action, has_key: false };
    let there = transformed(message, &[rule("a.b", Some("exclude")), rule("a", None), rule("d", None)]);
    assert_eq!(Json::Object(there.clone()), json!({"a": {}, "d": ["value-3-é"]}));
    // As if the rules had been lost on the way.
    assert_eq!(beyond(message, &there), ["1000001", "value-2-é"]);
}
