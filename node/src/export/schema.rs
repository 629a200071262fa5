//! JSON schemas for exported channels.
//!
//! A dataset does not carry the definition of its fields, and rules may have changed them, so the schema is taken from the
//! first message of a channel. For the common ROS 2 types the built-in definition says which strings are bytes.

use std::collections::BTreeSet;

use base64::{Engine as _, engine::general_purpose::STANDARD};
use tributary_protocol::json::{Object, Value};

use crate::ingest::{
    PathSegment,
    definitions::{Builtin, full_text},
    msgdef::{NoLookup, Plan},
};

/// Deeper values are left undescribed.
const MAX_DEPTH: usize = 32;
/// Most fields that are described.
const MAX_FIELDS: usize = 4096;

/// The JSON schema of a message. `bytes` are the paths of blobs, list indices left out.
pub(super) fn infer(type_name: &str, message: &Object, blobs: &[Vec<PathSegment>]) -> Vec<u8> {
    let mut bytes: BTreeSet<Vec<String>> = blobs.iter().map(|path| keys_only(path)).collect();
    let definition = full_text(type_name, &Builtin);
    let plan = definition.and_then(|text| Plan::compile(type_name, &text, &NoLookup).ok());
    bytes.extend(plan.map(|plan| plan.byte_paths()).unwrap_or_default());
    let mut inference = Inference { bytes, path: Vec::new(), fields: 0 };
    let mut schema = inference.object(message);
    schema.insert("$schema", "https://json-schema.org/draft/2020-12/schema");
    schema.insert("title", type_name);
    // Only strings, lists and objects are in it: it always has a canonical form.
    schema.to_canonical().unwrap_or_default()
}

fn keys_only(path: &[PathSegment]) -> Vec<String> {
    path.iter()
        .filter_map(|segment| if let PathSegment::Key(key) = segment { Some(key.clone()) } else { None })
        .collect()
}

struct Inference {
    bytes: BTreeSet<Vec<String>>,
    path: Vec<String>,
    fields: usize,
}

impl Inference {
    fn object(&mut self, object: &Object) -> Object {
        let mut properties = Vec::new();
        for (key, value) in object.iter() {
            self.fields += 1;
            if self.fields > MAX_FIELDS {
                break;
            }
            self.path.push(key.to_owned());
            properties.push((key.to_owned(), Value::Object(self.value(value))));
            self.path.pop();
        }
        let mut schema = named("object");
        schema.insert("properties", properties.into_iter().collect::<Object>());
        schema
    }

    fn value(&mut self, value: &Value) -> Object {
        match value {
            Value::Bool(_) => named("boolean"),
            Value::Number(number) if number.is_integer() => named("integer"),
            Value::Number(_) => named("number"),
            Value::String(text) if matches!(text.as_str(), "NaN" | "Infinity" | "-Infinity") => named("number"),
            Value::String(text) => {
                let mut schema = named("string");
                if self.bytes.contains(&self.path) && STANDARD.decode(text).is_ok() {
                    schema.insert("contentEncoding", "base64");
                }
                schema
            }
            Value::IllFormed(_) => named("string"),
            Value::Array(list) => {
                let mut schema = named("array");
                let items = list.first().filter(|_| self.path.len() < MAX_DEPTH).map(|item| self.value(item));
                schema.insert("items", items.unwrap_or_default());
                schema
            }
            Value::Object(object) if self.path.len() < MAX_DEPTH => self.object(object),
            Value::Object(_) => named("object"),
            // Null says nothing about what else may stand there.
            Value::Null => Object::new(),
        }
    }
}

fn named(kind: &str) -> Object {
    let mut schema = Object::new();
    schema.insert("type", kind);
    schema
}
