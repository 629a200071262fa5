//! Values from the environment and the command line, laid over the file.
//!
//! A value is written as YAML (`[a, b]` is a list) and goes through the same checks as the file's, with the variable or flag
//! named as its place. Only keys of mappings can be overridden: a list is replaced as a whole.

use std::ffi::OsString;

use super::{
    agent::Assignment,
    error::{ConfigError, Place, excerpt},
    yaml::{self, Node},
};

/// What every variable starts with.
const PREFIX: &str = "TRIBUTARY_";
/// Top-level keys that can be set without a key below them.
const TOP_LEVEL: [&str; 3] = ["ROLES", "STREAMS", "FOLLOW"];

/// Values that override the file's, weakest first.
#[derive(Debug, Clone, Default)]
pub struct Overrides {
    items: Vec<Item>,
    /// What is laid over a configuration of peaq's agent, and over no other: its environment, then its ROS parameters.
    agent: Vec<Assignment>,
}

#[derive(Debug, Clone)]
struct Item {
    place: Place,
    path: String,
    text: String,
}

impl Overrides {
    /// No overrides.
    #[must_use]
    pub fn none() -> Self {
        Self::default()
    }

    /// The variables of `vars` that name configuration keys: `TRIBUTARY_STORE__QUOTA` is `store.quota`, `TRIBUTARY_ROLES` is
    /// `roles`. Other `TRIBUTARY_` variables, such as `TRIBUTARY_HOME`, are not the configuration's and are passed over. The
    /// variables of peaq's agent (`PEAQOS_STREAM_…`) count for its configuration.
    pub fn from_environment(vars: impl IntoIterator<Item = (OsString, OsString)>) -> Result<Self, ConfigError> {
        let (mut items, mut agent) = (Vec::new(), Vec::new());
        for (name, value) in vars {
            let Some(name) = name.to_str() else { continue };
            agent.extend(Assignment::of_variable(name, &value)?);
            let Some(rest) = name.strip_prefix(PREFIX) else { continue };
            if !rest.contains("__") && !TOP_LEVEL.contains(&rest) {
                continue;
            }
            let place = Place::Environment(name.into());
            let path = rest.split("__").map(str::to_ascii_lowercase).collect::<Vec<_>>().join(".");
            let Ok(text) = value.into_string() else {
                return Err(ConfigError::Syntax { place, message: "the value is not UTF-8 text".to_owned() });
            };
            items.push(Item { place, path, text });
        }
        // The environment has no order; the outer key first, so that a key below it is laid over it.
        items.sort_by(|a, b| a.path.cmp(&b.path));
        agent.sort_by(|a, b| a.key().cmp(b.key()));
        Ok(Self { items, agent })
    }

    /// Adds a parameter that was given to the ROS node. Those of peaq's agent (`stream_agent.…`) count for its configuration,
    /// stronger than its environment; others are passed over.
    pub fn parameter(&mut self, name: &str, value: &str) {
        self.agent.extend(Assignment::of_parameter(name, value));
    }

    pub(super) fn of_agent(&self) -> &[Assignment] {
        &self.agent
    }

    /// Adds `KEY=VALUE` as it was given to the flag `flag`, stronger than everything before it.
    pub fn flag(&mut self, flag: &str, assignment: &str) -> Result<(), ConfigError> {
        let place = Place::Flag(format!("{flag} {}", excerpt(assignment)).into());
        let Some((path, text)) = assignment.split_once('=') else {
            return Err(ConfigError::Syntax {
                place,
                message: "expected KEY=VALUE, such as store.quota=10GiB".to_owned(),
            });
        };
        self.items.push(Item { place, path: path.trim().to_owned(), text: text.to_owned() });
        Ok(())
    }

    pub(super) fn apply(&self, root: &mut Node) -> Result<(), ConfigError> {
        for Item { place, path, text } in &self.items {
            let place = || place.clone();
            let value = yaml::parse(text, &|_, _| place())?;
            let keys: Vec<&str> = path.split('.').collect();
            if keys.iter().any(|key| key.is_empty()) || keys.len() > 8 {
                let message =
                    format!("`{}` is not a key; keys are words with dots between, such as store.quota", excerpt(path));
                return Err(ConfigError::Syntax { place: place(), message });
            }
            if !root.set(&keys, value) {
                let problem =
                    "lies below a value that is not a mapping; set the whole list or value above it".to_owned();
                return Err(ConfigError::Conflict { place: place(), key: excerpt(path), problem });
            }
        }
        Ok(())
    }

    /// The names of the variables and flags in use, weakest first, for the log.
    pub fn places(&self) -> impl Iterator<Item = &Place> {
        self.items.iter().map(|item| &item.place)
    }
}
