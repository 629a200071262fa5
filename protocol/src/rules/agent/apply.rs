//! Applying: first what is included, then the other rules in their order.

use rand_core::CryptoRng;

use super::{AgentAction, AgentRule, AgentRules};
use crate::{
    json::{Object, Value},
    peaq::{hexes, sealed_box::BoxPublicKey},
    rules::{
        RuleError, RuleViolation,
        path::{Step, probe, step},
    },
};

impl AgentRules {
    /// The fields after the rules, and whether the rules removed or replaced anything.
    ///
    /// # Errors
    /// When the message does not fit the rules: it must not leave.
    pub fn apply_noting(&self, mut fields: Object, rng: &mut impl CryptoRng) -> Result<(Object, bool), RuleViolation> {
        if let Some(path) = self.paths().find(|path| probe(path, &fields).list) {
            return Err(RuleViolation::MeetsList { path: path.to_owned() });
        }
        let mut changed = false;
        if !self.included.is_empty() {
            let paths: Vec<&str> = self.included.iter().map(String::as_str).collect();
            keep(&mut fields, &paths, &mut changed);
        }
        for rule in &self.others {
            let mut act = Act { rule, changed: false, rng: &mut *rng };
            act.within(&mut fields, &rule.path)
                .map_err(|source| RuleViolation::Transform { path: rule.path.clone(), source })?;
            changed |= act.changed;
        }
        Ok((fields, changed))
    }
}

/// Keeps what `paths` lead to, name by name, and says whether that is anything.
fn keep(object: &mut Object, paths: &[&str], changed: &mut bool) -> bool {
    let mut any = false;
    object.retain_mut(|key, value| {
        let kept = keep_field(key, value, paths, changed);
        any |= kept;
        *changed |= !kept;
        kept
    });
    any
}

fn keep_field(key: &str, value: &mut Value, paths: &[&str], changed: &mut bool) -> bool {
    let mut below = Vec::new();
    for path in paths {
        match path.split_once('.') {
            None if *path == key => return true,
            Some((name, rest)) if name == key => below.push(rest),
            _ => {}
        }
    }
    match value {
        Value::Object(inner) if !below.is_empty() => keep(inner, &below, changed),
        _ => false,
    }
}

/// What the agent calls a sealed box.
const ALGORITHM: &str = "x25519-sealedbox";

/// One rule at work.
struct Act<'a, R> {
    rule: &'a AgentRule,
    changed: bool,
    rng: &'a mut R,
}

impl<R: CryptoRng> Act<'_, R> {
    /// Acts on the fields in `object` that the `rest` of the rule's path leads to.
    fn within(&mut self, object: &mut Object, rest: &str) -> Result<(), RuleError> {
        let mut result = Ok(());
        object.retain_mut(|key, value| {
            if result.is_err() {
                return true;
            }
            match (step(rest, key), &mut *value) {
                (Step::Covers, _) => {
                    self.changed = true;
                    match self.replacement(value) {
                        Ok(Some(new)) => *value = new,
                        Ok(None) => return false,
                        Err(error) => result = Err(error),
                    }
                }
                (Step::Below(offset), Value::Object(inner)) => result = self.within(inner, &rest[offset..]),
                _ => {}
            }
            true
        });
        result
    }

    /// What stands in the place of a value; `None` for nothing.
    fn replacement(&mut self, value: &Value) -> Result<Option<Value>, RuleError> {
        Ok(Some(match &self.rule.action {
            AgentAction::Exclude => return Ok(None),
            // Included before, and no rule among the others.
            AgentAction::Include => return Ok(Some(value.clone())),
            AgentAction::Anonymize => Value::Object(Object::from_iter([("redacted", true)])),
            AgentAction::Hash => hash_text(&value.to_raw_canonical()?).into(),
            AgentAction::Encrypt(key) => self.encrypted(value, key.as_ref())?,
        }))
    }

    fn encrypted(&mut self, value: &Value, key: Option<&BoxPublicKey>) -> Result<Value, RuleError> {
        let plain = value.to_raw_canonical()?;
        let mut object = Object::with_capacity(4);
        object.push_unique("encrypted".into(), key.is_some().into());
        object.push_unique("valueHash".into(), hash_text(&plain).into());
        if let Some(key) = key {
            let ciphertext = key.seal(&plain, self.rng).map_err(|_| RuleError::Key)?;
            object.push_unique("algorithm".into(), ALGORITHM.into());
            object.push_unique("ciphertext".into(), hex::encode(ciphertext).into());
        }
        Ok(Value::Object(object))
    }
}

fn hash_text(bytes: &[u8]) -> String {
    format!("sha256:{}", hex::encode(hexes::sha256(bytes)))
}
