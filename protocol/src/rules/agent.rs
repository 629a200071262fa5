//! The field rules of peaq's ROS 2 agent (`peaq_ros2_stream`), as its configuration means them.
//!
//! Owns loading such rules, checking them against a message type, and applying them. What reads like the rules of [`native`]
//! means something else here:
//!
//! 1. If any rule includes, the message that leaves starts empty and gets the included paths, wherever those rules stand.
//!    Otherwise it starts as the whole message.
//! 2. The other rules act on it one after the other, each on what the ones before have left. A rule about something that is not
//!    there does nothing. So a value can be anonymized and its parent encrypted behind that; an `include` behind an `exclude`
//!    brings nothing back.
//!
//! | action | what leaves |
//! |---|---|
//! | `exclude` | nothing |
//! | `anonymize` | `{"redacted":true}` |
//! | `hash` | `"sha256:<hex>"` of the value's JSON |
//! | `encrypt` | `{"encrypted":true,"algorithm":"x25519-sealedbox","valueHash":"sha256:…","ciphertext":<hex>}`; without a key only `{"encrypted":false,"valueHash":"sha256:…"}` |
//!
//! The JSON that is hashed and sealed is [`Value::to_raw_canonical`]. The hash has no salt: values of few possibilities can be
//! guessed from it, also beside a ciphertext.
//!
//! Never leaves what the agent keeps back. Where the agent lets out what a rule should protect, this does not:
//!
//! - a rule whose path meets an array before its end is a violation (the agent passes over it);
//! - a rule that does not include binds a field whose name has dots by its text, too (the agent never finds it); an include
//!   does not;
//! - a path that the message type does not have is refused, where the type is known ([`AgentRules::check_schema`]).
//!
//! [`native`]: super::native

mod apply;
mod report;

use super::{Action, LoadError, MAX_RULES, SchemaPaths, Strategy, path};
#[cfg(doc)]
use crate::json::Value;
use crate::peaq::sealed_box::BoxPublicKey;

/// One rule of a topic.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AgentRule {
    /// The field: names with dots between. Empty names are passed over, as the agent does.
    pub path: String,
    /// What happens to it.
    pub action: AgentAction,
}

/// What happens to a field.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AgentAction {
    /// It leaves; what no rule includes stays.
    Include,
    /// It stays.
    Exclude,
    /// A mark that something was there leaves.
    Anonymize,
    /// Its hash leaves.
    Hash,
    /// It leaves sealed for the holder of a key, and its hash beside it; without a key only the hash.
    Encrypt(Option<BoxPublicKey>),
}

impl AgentAction {
    fn as_action(&self) -> (Action, Option<Strategy>) {
        match self {
            Self::Include => (Action::Include, None),
            Self::Exclude => (Action::Exclude, None),
            Self::Anonymize => (Action::Anonymize, Some(Strategy::Redact)),
            Self::Hash | Self::Encrypt(None) => (Action::Anonymize, Some(Strategy::Hash)),
            Self::Encrypt(Some(_)) => (Action::Encrypt, None),
        }
    }
}

/// The loaded rules of a topic. Shared by reference; applying changes nothing in it.
#[derive(Debug)]
pub struct AgentRules {
    /// Paths of the rules that include.
    included: Vec<String>,
    /// The other rules in their order.
    others: Vec<AgentRule>,
}

impl AgentRules {
    /// Loads the rules of a topic.
    ///
    /// # Errors
    /// [`LoadError::TooMany`]; [`LoadError::Path`] for a path without any name, or with one that starts with `@`.
    pub fn load(rules: Vec<AgentRule>) -> Result<Self, LoadError> {
        if rules.len() > MAX_RULES {
            return Err(LoadError::TooMany { count: rules.len() });
        }
        let (mut included, mut others) = (Vec::new(), Vec::new());
        for AgentRule { path, action } in rules {
            let names: Vec<&str> = path.split('.').filter(|name| !name.is_empty()).collect();
            if names.is_empty() || names.iter().any(|name| name.starts_with('@')) {
                return Err(LoadError::Path { path });
            }
            let path = names.join(".");
            if action == AgentAction::Include {
                included.push(path);
            } else {
                others.push(AgentRule { path, action });
            }
        }
        Ok(Self { included, others })
    }

    /// Checks every path against the fields of the message type.
    ///
    /// # Errors
    /// For the first rule whose path does not exist or runs into an array.
    pub fn check_schema(&self, schema: &SchemaPaths) -> Result<(), LoadError> {
        self.paths().try_for_each(|path| path::check_path(path, schema))
    }

    /// Whether a rule replaces the field at `path` (names from the top) by something made of its value, and so has to be given
    /// the value itself.
    #[must_use]
    pub fn needs_value(&self, path: &[&str]) -> bool {
        let made_of_it = |rule: &&AgentRule| matches!(rule.action, AgentAction::Hash | AgentAction::Encrypt(_));
        self.others.iter().filter(made_of_it).any(|rule| path::covers(&rule.path, path))
    }

    fn paths(&self) -> impl Iterator<Item = &str> {
        self.included.iter().map(String::as_str).chain(self.others.iter().map(|rule| rule.path.as_str()))
    }
}

#[cfg(test)]
mod tests;
