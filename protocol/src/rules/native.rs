//! Native field rules: the SDK's idea, failing closed.
//!
//! Owns loading a stream's rules, checking them against a message schema, and applying them. It never lets a message
//! through that its rules might have missed.
//!
//! The first rule that covers a path governs it; a rule covers its own path and everything below. Since a rule behind its
//! own parent could never act, it does not load, and so the longest covering path always governs. As in the SDK, a subtree
//! with a single governing rule is transformed as one unit, an array or an empty object is a leaf, and a subtree whose
//! fields are excluded one by one leaves `{}`. Unlike in the SDK:
//!
//! - a path binds by its text: the rule `a.b` governs the field `b` in `a` and the field `a.b`, which is itself replaced or
//!   removed;
//! - rules bind top-level nulls;
//! - a rule whose path meets an array before its end is a violation, optional or not: what is in the array cannot be told
//!   apart;
//! - a rule that is not optional and matches nothing is a violation. This is judged on the message at hand, not on the
//!   stream: a message without the field that a rule names does not leave, whatever earlier ones had.

mod apply;
mod load;
mod report;

use aes_gcm::Aes256Gcm;

pub use self::load::NativeRule;
use super::{Action, FieldKey, Strategy, path::covers};
pub use super::{FieldFate, LoadError, Report, RuleViolation, SchemaPaths};

/// What happens to fields that no rule covers. A map must say it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DefaultAction {
    /// They leave as they are.
    Include,
    /// They stay.
    Exclude,
}

/// What governs a path.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Governing<'a> {
    /// What happens there.
    pub action: Action,
    /// How, when it is anonymized.
    pub strategy: Option<Strategy>,
    /// The path of the rule; `None` for the default.
    pub rule: Option<&'a str>,
}

/// The loaded rules of a stream: paths split, keys expanded. Shared by reference; applying changes nothing in it.
pub struct NativeRules {
    default: DefaultAction,
    rules: Vec<Rule>,
}

struct Rule {
    path: String,
    effect: Effect,
    optional: bool,
}

enum Effect {
    Include,
    Exclude,
    /// The expanded key is erased when dropped.
    Encrypt(Box<Aes256Gcm>),
    Hash,
    Generalize,
    Redact,
    KeyedHash(FieldKey),
}

impl Effect {
    fn action(&self) -> (Action, Option<Strategy>) {
        match self {
            Self::Include => (Action::Include, None),
            Self::Exclude => (Action::Exclude, None),
            Self::Encrypt(_) => (Action::Encrypt, None),
            Self::Hash => (Action::Anonymize, Some(Strategy::Hash)),
            Self::Generalize => (Action::Anonymize, Some(Strategy::Generalize)),
            Self::Redact => (Action::Anonymize, Some(Strategy::Redact)),
            Self::KeyedHash(_) => (Action::Anonymize, Some(Strategy::KeyedHash)),
        }
    }
}

impl NativeRules {
    /// What governs the field at `path`, given as field names from the top. For something inside an array, give the path
    /// of the array: rules do not reach into it.
    #[must_use]
    pub fn action_for(&self, path: &[&str]) -> Governing<'_> {
        self.governing(self.rules.iter().position(|rule| covers(&rule.path, path)))
    }

    fn governing(&self, rule: Option<usize>) -> Governing<'_> {
        match rule.map(|place| &self.rules[place]) {
            Some(rule) => {
                let (action, strategy) = rule.effect.action();
                Governing { action, strategy, rule: Some(&rule.path) }
            }
            None => Governing {
                action: match self.default {
                    DefaultAction::Include => Action::Include,
                    DefaultAction::Exclude => Action::Exclude,
                },
                strategy: None,
                rule: None,
            },
        }
    }
}

#[cfg(test)]
mod tests;
