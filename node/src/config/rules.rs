//! Field rules as they are written in the Data Event Map, and their way to the rules that are applied.
//!
//! What is wrong is found here, where the line is known; [`NativeRules::load`] checks it all again.

use std::path::{Path, PathBuf};

use tributary_protocol::rules::{
    Action, FieldKey, LoadError, RuleSet, Strategy,
    agent::{AgentAction, AgentRule, AgentRules},
    native::{NativeRule, NativeRules},
};
use zeroize::Zeroizing;

pub use tributary_protocol::rules::native::DefaultAction;

use super::{error::ConfigError, reader::Field, resolve};
use crate::home::{HomeError, read_hex_key};

/// Why the rules of a stream cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RulesError {
    /// A key file.
    #[error("the key of the rule for {path} cannot be used: {source}")]
    Key {
        /// The rule.
        path: String,
        /// The file.
        file: PathBuf,
        /// What is wrong with it.
        source: HomeError,
    },
    /// The rules themselves.
    #[error(transparent)]
    Load(#[from] LoadError),
}

/// The field rules of a stream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum FieldRules {
    /// As a Data Event Map has them.
    Native {
        /// What happens to a field that no rule names. Always written out: nobody should have to guess it.
        default: DefaultAction,
        /// The rules, most specific first; a path occurs once, a child stands before its parent.
        rules: Vec<FieldRule>,
    },
    /// As a configuration of peaq's agent has them, and as it means them.
    Agent(Vec<AgentRule>),
}

impl FieldRules {
    /// How many rules there are.
    #[must_use]
    pub fn count(&self) -> usize {
        match self {
            Self::Native { rules, .. } => rules.len(),
            Self::Agent(rules) => rules.len(),
        }
    }

    /// Whether only fields that a rule names leave.
    #[must_use]
    pub fn is_allowlist(&self) -> bool {
        match self {
            Self::Native { default, .. } => *default == DefaultAction::Exclude,
            Self::Agent(rules) => rules.iter().any(|rule| rule.action == AgentAction::Include),
        }
    }

    /// The rules with their keys, ready to apply. Reads the key files.
    pub fn load(&self) -> Result<RuleSet, RulesError> {
        Ok(match self {
            Self::Native { default, rules } => RuleSet::Native(native(*default, rules)?),
            Self::Agent(rules) => RuleSet::Agent(AgentRules::load(rules.clone())?),
        })
    }
}

/// A rule about one field and what lies below it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FieldRule {
    /// Field names with dots between, 1 to 512 bytes.
    pub path: String,
    /// What happens to it.
    pub action: FieldAction,
    /// Whether a message may lack the field. A rule that is not optional and never matches stops the stream.
    pub optional: bool,
}

/// What happens to a field.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum FieldAction {
    /// It leaves as it is.
    Include,
    /// It stays.
    Exclude,
    /// It leaves encrypted under this key.
    Encrypt(RuleKey),
    /// Its SHA-256 leaves. Anyone can test guesses against it: for values with few possibilities use `keyed_hash`.
    Hash,
    /// A range or a masked text leaves.
    Generalize,
    /// The word `[REDACTED]` leaves.
    Redact,
    /// Its BLAKE3 hash under this key leaves.
    KeyedHash(RuleKey),
}

/// The file of a 32-byte rule key: 64 hex digits, readable by the owner only.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RuleKey {
    /// The file.
    pub file: PathBuf,
}

impl RuleKey {
    /// Reads the key. The file must be readable by its owner only.
    pub fn load(&self) -> Result<Zeroizing<[u8; 32]>, HomeError> {
        read_hex_key(&self.file)
    }
}

/// The rules with their keys.
fn native(default: DefaultAction, rules: &[FieldRule]) -> Result<NativeRules, RulesError> {
    let rules = rules.iter().map(|rule| {
        let load = |key: &RuleKey| {
            let bytes = key.load().map_err(|source| {
                let (path, file) = (rule.path.clone(), key.file.clone());
                RulesError::Key { path, file, source }
            })?;
            Ok::<_, RulesError>(Some(FieldKey::from_bytes(*bytes)))
        };
        let anonymize = |strategy| (Action::Anonymize, Some(strategy));
        let ((action, strategy), key) = match &rule.action {
            FieldAction::Include => ((Action::Include, None), None),
            FieldAction::Exclude => ((Action::Exclude, None), None),
            FieldAction::Encrypt(key) => ((Action::Encrypt, None), load(key)?),
            FieldAction::Hash => (anonymize(Strategy::Hash), None),
            FieldAction::Generalize => (anonymize(Strategy::Generalize), None),
            FieldAction::Redact => (anonymize(Strategy::Redact), None),
            FieldAction::KeyedHash(key) => (anonymize(Strategy::KeyedHash), load(key)?),
        };
        Ok(NativeRule { path: rule.path.clone(), action, strategy, optional: rule.optional, key })
    });
    let rules = rules.collect::<Result<Vec<_>, RulesError>>()?;
    Ok(NativeRules::load(default, rules)?)
}

/// More rules than a message type has fields are a mistake.
pub(super) const MAX_RULES: usize = 1_024;

pub(super) fn rules(field: &Field<'_>, base: &Path) -> Result<Vec<FieldRule>, ConfigError> {
    let mut seen = Vec::<String>::new();
    field.list(MAX_RULES, "a list of rules, each with `path` and `action`", |item| {
        let (path, rule) = rule(&item, base)?;
        for earlier in &seen {
            if *earlier == rule.path {
                return Err(path.conflict(format!("is a second rule for {earlier}; remove one")));
            }
            if rule.path.strip_prefix(earlier.as_str()).is_some_and(|rest| rest.starts_with('.')) {
                let problem = format!(
                    "stands behind the rule for {earlier}, which decides everything below it; move it before that"
                );
                return Err(path.conflict(problem));
            }
        }
        seen.push(rule.path.clone());
        Ok(rule)
    })
}

fn rule<'a>(item: &Field<'a>, base: &Path) -> Result<(Field<'a>, FieldRule), ConfigError> {
    const PATH: &str = "a field's path such as pose.position.x, at most 512 bytes, no name empty or with @ in front";
    const ACTIONS: &str = "one of include, exclude, encrypt, anonymize";
    const STRATEGIES: &str = "one of hash, generalize, redact, keyed_hash";
    const KEY: &str = "the path of a file with 64 hex digits, relative to this configuration";
    let section = item.section()?;
    let path_field = section.need("path", PATH)?;
    let path = path_field.text(PATH)?;
    let bad_name = |name: &str| name.is_empty() || name.starts_with('@');
    if path.len() > 512 || path.split('.').any(bad_name) || path.chars().any(char::is_control) {
        return Err(path_field.wrong(PATH));
    }
    let action = section.need("action", ACTIONS)?.one_of(&[
        ("include", Action::Include),
        ("exclude", Action::Exclude),
        ("encrypt", Action::Encrypt),
        ("anonymize", Action::Anonymize),
    ])?;
    let strategy_field = section.get("strategy");
    let strategy = strategy_field
        .as_ref()
        .map(|f| {
            f.one_of(&[
                ("hash", Strategy::Hash),
                ("generalize", Strategy::Generalize),
                ("redact", Strategy::Redact),
                ("keyed_hash", Strategy::KeyedHash),
            ])
        })
        .transpose()?;
    if let Some(field) = &strategy_field
        && action != Action::Anonymize
    {
        return Err(field.conflict("works only with `action: anonymize`; change the action or remove it"));
    }
    if action == Action::Anonymize && strategy.is_none() {
        section.need("strategy", STRATEGIES)?;
    }
    let wants_key = action == Action::Encrypt || strategy == Some(Strategy::KeyedHash);
    let key_field = section.get("key_file");
    if let Some(field) = &key_field
        && !wants_key
    {
        return Err(field.conflict("works only with `action: encrypt` and `strategy: keyed_hash`; remove it"));
    }
    let key =
        if wants_key { Some(RuleKey { file: resolve(base, section.need("key_file", KEY)?.text(KEY)?) }) } else { None };
    let action = match (action, strategy, key) {
        (Action::Include, ..) => FieldAction::Include,
        (Action::Encrypt, _, Some(key)) => FieldAction::Encrypt(key),
        (Action::Anonymize, Some(Strategy::KeyedHash), Some(key)) => FieldAction::KeyedHash(key),
        (Action::Anonymize, Some(Strategy::Hash), _) => FieldAction::Hash,
        (Action::Anonymize, Some(Strategy::Generalize), _) => FieldAction::Generalize,
        (Action::Anonymize, Some(Strategy::Redact), _) => FieldAction::Redact,
        // What is left was refused above; nothing of it leaves in any case.
        _ => FieldAction::Exclude,
    };
    let flags = [("true", true), ("false", false)];
    let optional = section.get("optional").map(|f| f.one_of(&flags)).transpose()?.unwrap_or(false);
    section.finish()?;
    Ok((path_field, FieldRule { path: path.to_owned(), action, optional }))
}
