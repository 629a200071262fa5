//! Applying: one walk that enters only where a rule's path goes on.

use std::ops::Range;

use rand_core::CryptoRng;

use super::{DefaultAction, Effect, NativeRules, RuleViolation};
use crate::{
    json::{Object, Value},
    rules::{
        RuleError,
        path::{Step, step},
        transform::{anonymized, anonymized_as, encrypted, keyed_hash_value},
    },
};

/// The place of the governing rule; [`NONE`] stands behind all rules.
type Place = usize;
const NONE: Place = usize::MAX;

impl NativeRules {
    /// The fields after the rules.
    ///
    /// # Errors
    /// When the message does not fit the rules: it must not leave.
    pub fn apply(&self, fields: &Object, rng: &mut impl CryptoRng) -> Result<Object, RuleViolation> {
        self.apply_owned(fields.clone(), rng)
    }

    /// As [`NativeRules::apply`], without a copy: what no rule touches is not even moved.
    ///
    /// # Errors
    /// As [`NativeRules::apply`].
    pub fn apply_owned(&self, fields: Object, rng: &mut impl CryptoRng) -> Result<Object, RuleViolation> {
        self.apply_noting(fields, rng).map(|(fields, _)| fields)
    }

    /// As [`NativeRules::apply_owned`], and whether the rules removed or replaced anything.
    ///
    /// # Errors
    /// As [`NativeRules::apply`].
    pub fn apply_noting(&self, mut fields: Object, rng: &mut impl CryptoRng) -> Result<(Object, bool), RuleViolation> {
        let open = (0..self.rules.len()).map(|rule| (rule, 0)).collect();
        let mut walk = Walk { rules: self, open, matched: vec![false; self.rules.len()], changed: false, rng };
        walk.object(&mut fields, 0..self.rules.len(), NONE)?;
        let missing = self.rules.iter().zip(&walk.matched).find(|(rule, matched)| !rule.optional && !**matched);
        match missing {
            Some((rule, _)) => Err(RuleViolation::NeverMatched { path: rule.path.clone() }),
            None => Ok((fields, walk.changed)),
        }
    }
}

struct Walk<'a, R> {
    rules: &'a NativeRules,
    /// The rules whose paths go on below the object at hand, with how much of the path is behind; a stack with one range
    /// for each object on the way down.
    open: Vec<(Place, usize)>,
    matched: Vec<bool>,
    changed: bool,
    rng: &'a mut R,
}

impl<R: CryptoRng> Walk<'_, R> {
    fn object(&mut self, object: &mut Object, open: Range<usize>, governing: Place) -> Result<(), RuleViolation> {
        let mut result = Ok(());
        object.retain_mut(|key, value| {
            if result.is_err() {
                return true;
            }
            match self.field(key, value, open.clone(), governing) {
                Ok(keep) => keep,
                Err(violation) => {
                    result = Err(violation);
                    true
                }
            }
        });
        result
    }

    /// Transforms a field; `false` when it stays behind.
    fn field(
        &mut self,
        key: &str,
        value: &mut Value,
        open: Range<usize>,
        inherited: Place,
    ) -> Result<bool, RuleViolation> {
        let (governing, below) = self.enter(key, value, open, inherited, true)?;
        if let Value::Object(inner) = &mut *value
            && !below.is_empty()
            && self.differs(inner, below.clone(), governing)?
        {
            self.object(inner, below.clone(), governing)?;
            self.open.truncate(below.start);
            return Ok(true);
        }
        self.open.truncate(below.start);
        self.act(value, governing)
    }

    /// What governs a field, and which rules go on below it.
    fn enter(
        &mut self,
        key: &str,
        value: &Value,
        open: Range<usize>,
        inherited: Place,
        mark: bool,
    ) -> Result<(Place, Range<usize>), RuleViolation> {
        let start = self.open.len();
        let mut governing = inherited;
        for i in open {
            let (rule, behind) = self.open[i];
            match step(&self.rules.rules[rule].path[behind..], key) {
                Step::Covers => {
                    governing = governing.min(rule);
                    self.matched[rule] |= mark;
                }
                Step::Below(_) if matches!(value, Value::Array(_)) => {
                    return Err(RuleViolation::MeetsList { path: self.rules.rules[rule].path.clone() });
                }
                Step::Below(offset) => self.open.push((rule, behind + offset)),
                Step::Elsewhere => {}
            }
        }
        Ok((governing, start..self.open.len()))
    }

    /// Whether a leaf below has another governing rule than `governing`.
    fn differs(&mut self, object: &Object, open: Range<usize>, governing: Place) -> Result<bool, RuleViolation> {
        for (key, value) in object.iter() {
            let (own, below) = self.enter(key, value, open.clone(), governing, false)?;
            let differs = own != governing
                || match value {
                    Value::Object(inner) if !below.is_empty() => self.differs(inner, below.clone(), governing)?,
                    _ => false,
                };
            self.open.truncate(below.start);
            if differs {
                return Ok(true);
            }
        }
        Ok(false)
    }

    fn act(&mut self, value: &mut Value, governing: Place) -> Result<bool, RuleViolation> {
        let Some(rule) = self.rules.rules.get(governing) else {
            let keep = self.rules.default == DefaultAction::Include;
            self.changed |= !keep;
            return Ok(keep);
        };
        let transformed = match &rule.effect {
            Effect::Include => return Ok(true),
            Effect::Exclude => {
                self.changed = true;
                return Ok(false);
            }
            Effect::Encrypt(cipher) => encrypted(value, cipher, self.rng),
            Effect::Hash => anonymized(value, "hash"),
            Effect::Generalize => anonymized(value, "generalize"),
            Effect::Redact => anonymized(value, "redact"),
            Effect::KeyedHash(key) => {
                keyed_hash_value(value, key).map(|hash| anonymized_as(hash, "keyed_hash")).map_err(RuleError::Json)
            }
        };
        match transformed {
            Ok(new) => {
                self.changed = true;
                *value = new;
                Ok(true)
            }
            Err(source) => Err(RuleViolation::Transform { path: rule.path.clone(), source }),
        }
    }
}
