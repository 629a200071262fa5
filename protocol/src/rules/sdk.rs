//! Field rules exactly as peaq's SDK applies them, gaps included.

use rand_core::CryptoRng;

use super::{
    RuleError,
    transform::{ALGORITHM, FieldKey, anonymized, encrypted},
};
use crate::json::{Object, Value};

/// One rule, as text: the SDK gives unknown words a meaning (an unknown action includes, an unknown strategy redacts).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FieldRule {
    /// The field in dot notation.
    pub path: String,
    /// `include`, `exclude`, `encrypt` or `anonymize`.
    pub action: String,
    /// `hash`, `generalize` or `redact`; needed to anonymize.
    pub strategy: Option<String>,
}

/// The rules of a topic, in order: the first that covers a field governs it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct TopicRules {
    /// The rules.
    pub rules: Vec<FieldRule>,
    /// The action for what no rule covers; `include` when absent.
    pub default: Option<String>,
}

/// What encrypting needs. Algorithm and key are text and looked at only when a field is really encrypted.
pub struct EncryptCtx<'a, R> {
    /// Must be `AES-256-GCM`.
    pub algorithm: &'a str,
    /// 64 hex digits with `0x`, `0X` or neither.
    pub key: &'a str,
    /// Draws the IVs.
    pub rng: &'a mut R,
}

/// The fields after the rules.
///
/// # Errors
/// On `anonymize` without a strategy, a wrong algorithm or key, and values without a canonical form, each only when a field
/// meets it.
pub fn apply<R: CryptoRng>(
    rules: &TopicRules,
    fields: &Object,
    ctx: &mut EncryptCtx<'_, R>,
) -> Result<Object, RuleError> {
    let mut out = fields.clone();
    for (key, value) in fields.iter() {
        // Top-level nulls ignore every rule and the default.
        if !value.is_null() {
            node(rules, key, value, &mut out, ctx)?;
        }
    }
    Ok(out)
}

/// The place of the first rule whose path is `path` or a dotted ancestor of it.
fn governing(rules: &TopicRules, path: &str) -> Option<usize> {
    rules.rules.iter().position(|rule| {
        path.strip_prefix(rule.path.as_str()).is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
    })
}

fn node<R: CryptoRng>(
    rules: &TopicRules,
    path: &str,
    value: &Value,
    out: &mut Object,
    ctx: &mut EncryptCtx<'_, R>,
) -> Result<(), RuleError> {
    let rule = governing(rules, path);
    if let Some(children) = children(value)
        && !governed_alike(rules, path, children, rule)
    {
        for (key, child) in children.iter() {
            node(rules, &format!("{path}.{key}"), child, out, ctx)?;
        }
        return Ok(());
    }
    let rule = rule.map(|place| &rules.rules[place]);
    let (action, strategy) = match rule {
        Some(rule) => (rule.action.as_str(), rule.strategy.as_deref()),
        None => (rules.default.as_deref().unwrap_or("include"), None),
    };
    match action {
        "exclude" => remove(out, path),
        "encrypt" => {
            if ctx.algorithm != ALGORITHM {
                return Err(RuleError::Algorithm(ctx.algorithm.to_owned()));
            }
            let cipher = FieldKey::from_hex(ctx.key)?.cipher();
            set(out, path, encrypted(value, &cipher, ctx.rng)?);
        }
        "anonymize" => set(out, path, anonymized(value, strategy.ok_or(RuleError::MissingStrategy)?)?),
        // Also every word the SDK does not know.
        _ => {}
    }
    Ok(())
}

/// The fields of a value that is no leaf.
fn children(value: &Value) -> Option<&Object> {
    value.as_object().filter(|object| !object.is_empty())
}

/// Whether every leaf below `path` has this governing rule.
fn governed_alike(rules: &TopicRules, path: &str, object: &Object, rule: Option<usize>) -> bool {
    object.iter().all(|(key, value)| {
        let path = format!("{path}.{key}");
        match children(value) {
            Some(object) => governed_alike(rules, &path, object, rule),
            None => governing(rules, &path) == rule,
        }
    })
}

/// Writes a value at a path that is split at its dots again, as upstream does: a key that contains a dot is not replaced,
/// and what is no object on the way is overwritten by one.
fn set(out: &mut Object, path: &str, value: Value) {
    let Some((parents, key)) = split(path) else { return };
    let mut object = out;
    for parent in parents {
        if object.get(parent).and_then(Value::as_object).is_none() {
            object.insert(parent, Object::new());
        }
        let Some(Value::Object(next)) = object.get_mut(parent) else { return };
        object = next;
    }
    object.insert(key, value);
}

/// Removes what is at a path, split as in [`set`].
fn remove(out: &mut Object, path: &str) {
    let Some((parents, key)) = split(path) else { return };
    let mut object = out;
    for parent in parents {
        let Some(Value::Object(next)) = object.get_mut(parent) else { return };
        object = next;
    }
    object.remove(key);
}

/// The parents and the last key of a path; nothing can be written at the empty one.
fn split(path: &str) -> Option<(impl Iterator<Item = &str>, &str)> {
    let (parents, key) = path.rsplit_once('.').map_or((None, path), |(parents, key)| (Some(parents), key));
    (!path.is_empty()).then(|| (parents.into_iter().flat_map(|parents| parents.split('.')), key))
}
