//! Loading: everything that can be known to be wrong before the first message.

use super::{Action, DefaultAction, Effect, FieldKey, NativeRules, Rule, Step, Strategy, step};

/// The most rules of one stream.
const MAX_RULES: usize = 1024;

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

/// A map that does not load. Each names the rule.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum LoadError {
    /// More than 1,024 rules.
    #[error("{count} field rules are too many: at most 1024")]
    TooMany {
        /// How many there are.
        count: usize,
    },
    /// A path that can match nothing.
    #[error(
        "{path:?} is no field path: expected names with a dot between them, none empty and none that starts with '@'"
    )]
    Path {
        /// The path.
        path: String,
    },
    /// Two rules for one path.
    #[error("there are two rules for {path:?}: remove one")]
    Duplicate {
        /// The path.
        path: String,
    },
    /// A rule behind a rule for one of its parents.
    #[error(
        "the rule for {child:?} stands behind the rule for its parent {parent:?} and would never act: move it in front"
    )]
    ChildBehindParent {
        /// The path of the rule that would never act.
        child: String,
        /// The path of the rule before it.
        parent: String,
    },
    /// An encrypt rule without a key.
    #[error("the rule for {path:?} encrypts, and has no key")]
    NoKey {
        /// The path.
        path: String,
    },
    /// A `keyed_hash` rule without a key.
    #[error("the rule for {path:?} anonymizes with keyed_hash, and has no key")]
    NoHashKey {
        /// The path.
        path: String,
    },
    /// An anonymize rule without a strategy.
    #[error("the rule for {path:?} anonymizes, and has no strategy: hash, generalize, redact or keyed_hash")]
    NoStrategy {
        /// The path.
        path: String,
    },
    /// A strategy on a rule that does not anonymize.
    #[error("the rule for {path:?} has the strategy {strategy}, and does not anonymize")]
    StrayStrategy {
        /// The path.
        path: String,
        /// The strategy.
        strategy: Strategy,
    },
    /// The message type has no such field.
    #[error("the rule for {path:?} names a field that the message type does not have; it has {known}")]
    NoSuchField {
        /// The path.
        path: String,
        /// The fields where the path goes wrong.
        known: String,
    },
    /// The path runs into an array of the message type.
    #[error(
        "the rule for {path:?} runs into the array {list:?}, and rules do not reach into arrays: rule the whole array"
    )]
    RunsIntoList {
        /// The path.
        path: String,
        /// The path of the array.
        list: String,
    },
}

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

fn check_path(path: &str, schema: &SchemaPaths) -> Result<(), LoadError> {
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
