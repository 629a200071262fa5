//! What peaq's agent does with a message, written from the description of its rules and from nothing of ours.
//!
//! A value is `serde_json`'s, a rule is a path, an action and whether it has a key. Where the agent seals a value, the text
//! [`SEALED`] stands for the ciphertext, which is another one each time, and [`HASH`] for a hash of such a thing.

use serde_json::{Map, Value, json};
use sha2::{Digest, Sha256};

const SEALED: &str = "<sealed>";
const HASH: &str = "<hash of sealed>";

#[derive(Debug, Clone)]
pub(super) struct ModelRule {
    pub(super) path: String,
    /// `None` is what a rule without an action means.
    pub(super) action: Option<&'static str>,
    pub(super) has_key: bool,
}

/// The message that the agent lets out.
pub(super) fn transformed(message: &Map<String, Value>, rules: &[ModelRule]) -> Map<String, Value> {
    let includes = |rule: &&ModelRule| rule.action.unwrap_or("include") == "include";
    let mut out = Value::Object(if rules.iter().any(|rule| includes(&rule)) { Map::new() } else { message.clone() });
    for rule in rules.iter().filter(includes) {
        if let Some(value) = find(&Value::Object(message.clone()), &names(&rule.path)) {
            place(&mut out, &names(&rule.path), value);
        }
    }
    for rule in rules.iter().filter(|rule| !includes(rule)) {
        let names = names(&rule.path);
        let Some(value) = find(&out, &names) else { continue };
        match rule.action {
            Some("exclude") => remove(&mut out, &names),
            Some("anonymize") => place(&mut out, &names, json!({"redacted": true})),
            Some("hash") => place(&mut out, &names, json!(hash(&value))),
            Some("encrypt") if rule.has_key => {
                let sealed = json!({"encrypted": true, "algorithm": "x25519-sealedbox", "valueHash": hash(&value), "ciphertext": SEALED});
                place(&mut out, &names, sealed);
            }
            Some("encrypt") => place(&mut out, &names, json!({"encrypted": false, "valueHash": hash(&value)})),
            other => panic!("no action of the agent: {other:?}"),
        }
    }
    match out {
        Value::Object(out) => out,
        other => panic!("a message stays an object: {other}"),
    }
}

fn names(path: &str) -> Vec<&str> {
    path.split('.').filter(|name| !name.is_empty()).collect()
}

fn find(value: &Value, names: &[&str]) -> Option<Value> {
    match names {
        [] => Some(value.clone()),
        [first, rest @ ..] => find(value.as_object()?.get(*first)?, rest),
    }
}

fn place(value: &mut Value, names: &[&str], new: Value) {
    let [first, rest @ ..] = names else {
        *value = new;
        return;
    };
    if !value.is_object() {
        *value = Value::Object(Map::new());
    }
    let object = value.as_object_mut().expect("made above");
    place(object.entry(*first).or_insert(Value::Null), rest, new);
}

fn remove(value: &mut Value, names: &[&str]) {
    match (value, names) {
        (Value::Object(object), [last]) => drop(object.remove(*last)),
        (Value::Object(object), [first, rest @ ..]) => {
            if let Some(inner) = object.get_mut(*first) {
                remove(inner, rest);
            }
        }
        _ => {}
    }
}

/// Whether `value` is what the model says.
pub(super) fn is(model: &Value, value: &Value) -> bool {
    match (model, value) {
        (Value::String(text), Value::String(found)) if text == SEALED => found.chars().all(|c| c.is_ascii_hexdigit()),
        (Value::String(text), Value::String(found)) if text == HASH => found.starts_with("sha256:"),
        (Value::Object(model), Value::Object(found)) => {
            model.len() == found.len() && model.iter().all(|(key, inner)| found.get(key).is_some_and(|v| is(inner, v)))
        }
        (Value::Array(model), Value::Array(found)) => {
            model.len() == found.len() && model.iter().zip(found).all(|(inner, value)| is(inner, value))
        }
        _ => model == value,
    }
}

fn hash(value: &Value) -> String {
    let text = stable(value);
    if text.contains(SEALED) || text.contains(HASH) {
        return HASH.to_owned();
    }
    format!("sha256:{}", hex::encode(Sha256::digest(text)))
}

/// Keys sorted, no white space, characters beyond ASCII as they are.
fn stable(value: &Value) -> String {
    match value {
        Value::Array(items) => format!("[{}]", items.iter().map(stable).collect::<Vec<_>>().join(",")),
        Value::Object(object) => {
            let mut fields: Vec<_> = object.iter().collect();
            fields.sort_by_key(|(key, _)| *key);
            let fields = fields.iter().map(|(key, value)| format!("{}:{}", json!(key), stable(value)));
            format!("{{{}}}", fields.collect::<Vec<_>>().join(","))
        }
        scalar => scalar.to_string(),
    }
}
