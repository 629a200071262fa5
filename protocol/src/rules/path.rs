//! Paths of rules: how they stand to the fields of a message, and of a message type.
//!
//! A path binds by its text: `a.b` means the field `b` in `a`, and also a field called `a.b`.

use super::LoadError;
use crate::json::{Object, Value};

/// The fields of a message type, as far as rules care.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SchemaPaths {
    /// A value without fields.
    Leaf,
    /// An array of anything, fixed or not.
    List,
    /// Named fields, in the order of the type.
    Fields(Vec<(String, SchemaPaths)>),
}

/// How the rest of a rule's path stands to a key.
pub(super) enum Step {
    /// The key is where the path ends, or its text goes on behind a dot: the rule covers it.
    Covers,
    /// The path goes on this many bytes later, below the key.
    Below(usize),
    /// Another field.
    Elsewhere,
}

/// Compares the rest of a rule's path with a key.
pub(super) fn step(rest: &str, key: &str) -> Step {
    if let Some(behind) = rest.strip_prefix(key) {
        return match behind.as_bytes() {
            [] => Step::Covers,
            [b'.', ..] => Step::Below(key.len() + 1),
            _ => Step::Elsewhere,
        };
    }
    match key.strip_prefix(rest) {
        Some(behind) if behind.starts_with('.') => Step::Covers,
        _ => Step::Elsewhere,
    }
}

/// Whether a rule covers the field at `path`, given as field names from the top.
pub(super) fn covers(mut rule: &str, path: &[&str]) -> bool {
    for key in path {
        match step(rule, key) {
            Step::Covers => return true,
            Step::Below(offset) => rule = &rule[offset..],
            Step::Elsewhere => return false,
        }
    }
    false
}

/// What was met.
#[derive(Default)]
pub(super) struct Found {
    pub(super) matched: bool,
    pub(super) list: bool,
}

/// What the rest of a rule's path meets in a message.
pub(super) fn probe(rest: &str, object: &Object) -> Found {
    let mut found = Found::default();
    for (key, value) in object.iter() {
        match (step(rest, key), value) {
            (Step::Covers, _) => found.matched = true,
            (Step::Below(_), Value::Array(_)) => found.list = true,
            (Step::Below(offset), Value::Object(inner)) => {
                let below = probe(&rest[offset..], inner);
                found.matched |= below.matched;
                found.list |= below.list;
            }
            _ => {}
        }
    }
    found
}

/// Checks that the message type has the field at `path`.
///
/// # Errors
/// When it has not, or the path runs into an array.
pub(super) fn check_path(path: &str, schema: &SchemaPaths) -> Result<(), LoadError> {
    let (mut node, mut at) = (schema, 0);
    loop {
        let fields = match node {
            SchemaPaths::Fields(fields) => fields.as_slice(),
            SchemaPaths::Leaf => &[],
            SchemaPaths::List => {
                let list = path[..at].trim_end_matches('.').to_owned();
                return Err(LoadError::RunsIntoList { path: path.to_owned(), list });
            }
        };
        let mut next = None;
        for (name, inner) in fields {
            match step(&path[at..], name) {
                Step::Covers => return Ok(()),
                Step::Below(offset) => next = Some((inner, offset)),
                Step::Elsewhere => {}
            }
        }
        let Some((inner, offset)) = next else {
            let names: Vec<&str> = fields.iter().map(|(name, _)| name.as_str()).take(32).collect();
            let known = if names.is_empty() { "no fields there".into() } else { names.join(", ") };
            return Err(LoadError::NoSuchField { path: path.to_owned(), known });
        };
        (node, at) = (inner, at + offset);
    }
}
