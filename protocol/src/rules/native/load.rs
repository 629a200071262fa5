//! Loading: everything that can be known to be wrong before the first message.

use super::{Action, DefaultAction, Effect, FieldKey, LoadError, NativeRules, Rule, SchemaPaths, Strategy};
use crate::rules::{MAX_RULES, path::check_path};

/// One rule of a map.
#[derive(Clone)]
pub struct NativeRule {
    /// The field in dot notation, in text as the message spells its names.
    pub path: String,
    /// What happens to it.
    pub action: Action,
    /// How, when it is anonymized, and only then.
    pub strategy: Option<Strategy>,
    /// Whether a message may be without the field.
    pub optional: bool,
    /// The key to encrypt with, or for [`Strategy::KeyedHash`].
    pub key: Option<FieldKey>,
}

impl NativeRules {
    /// Loads the rules of a stream.
    ///
    /// # Errors
    /// When a rule could never act or lacks what it needs: see [`LoadError`].
    pub fn load(default: DefaultAction, rules: Vec<NativeRule>) -> Result<Self, LoadError> {
        if rules.len() > MAX_RULES {
            return Err(LoadError::TooMany { count: rules.len() });
        }
        let mut loaded: Vec<Rule> = Vec::with_capacity(rules.len());
        for rule in rules {
            if rule.path.split('.').any(|name| name.is_empty() || name.starts_with('@')) {
                return Err(LoadError::Path { path: rule.path });
            }
            for before in &loaded {
                match rule.path.strip_prefix(before.path.as_str()) {
                    Some("") => return Err(LoadError::Duplicate { path: rule.path }),
                    Some(below) if below.starts_with('.') => {
                        return Err(LoadError::ChildBehindParent { child: rule.path, parent: before.path.clone() });
                    }
                    _ => {}
                }
            }
            let effect = effect(&rule)?;
            loaded.push(Rule { path: rule.path, effect, optional: rule.optional });
        }
        Ok(Self { default, rules: loaded })
    }

    /// Checks every path, optional ones too, against the fields of the message type.
    ///
    /// # Errors
    /// For the first rule whose path does not exist or runs into an array.
    pub fn check_schema(&self, schema: &SchemaPaths) -> Result<(), LoadError> {
        self.rules.iter().try_for_each(|rule| check_path(&rule.path, schema))
    }
}

fn effect(rule: &NativeRule) -> Result<Effect, LoadError> {
    let path = || rule.path.clone();
    if let Some(strategy) = rule.strategy
        && rule.action != Action::Anonymize
    {
        return Err(LoadError::StrayStrategy { path: path(), strategy });
    }
    Ok(match (rule.action, rule.strategy) {
        (Action::Include, _) => Effect::Include,
        (Action::Exclude, _) => Effect::Exclude,
        (Action::Encrypt, _) => {
            let key = rule.key.as_ref().ok_or_else(|| LoadError::NoKey { path: path() })?;
            Effect::Encrypt(Box::new(key.cipher()))
        }
        (Action::Anonymize, Some(Strategy::Hash)) => Effect::Hash,
        (Action::Anonymize, Some(Strategy::Generalize)) => Effect::Generalize,
        (Action::Anonymize, Some(Strategy::Redact)) => Effect::Redact,
        (Action::Anonymize, Some(Strategy::KeyedHash)) => {
            Effect::KeyedHash(rule.key.clone().ok_or_else(|| LoadError::NoHashKey { path: path() })?)
        }
        (Action::Anonymize, None) => return Err(LoadError::NoStrategy { path: path() }),
    })
}
