//! The agent's environment variables and ROS parameters: one name, one key.

use std::ffi::OsStr;

use super::{recipients::OwnerVariables, unused};
use crate::config::{
    error::{ConfigError, Place},
    yaml::Node,
};

const VARIABLE: &str = "PEAQOS_STREAM_";
const PARAMETER: &str = "stream_agent.";

/// The variables that mean something here, and their keys. The last two make a recipient.
const VARIABLES: [(&str, &str); 4] = [
    ("ENABLED", "enabled"),
    ("POLICY_PATH", "policy_path"),
    ("OWNER_ID", OWNER_ID),
    ("OWNER_PUBLIC_KEY_HEX", OWNER_KEY),
];
const OWNER_ID: &str = "owner_id";
const OWNER_KEY: &str = "owner_public_key_hex";
/// The ROS parameters that mean something here.
const PARAMETERS: [&str; 2] = ["enabled", "policy_path"];

/// A variable or a parameter of the agent that is set. The values of those without a meaning here may be secrets and are not
/// kept.
#[derive(Debug, Clone)]
pub(in crate::config) struct Assignment {
    place: Place,
    key: String,
    value: Option<String>,
}

impl Assignment {
    /// What an environment variable sets; `None` when it is not one of the agent's, or empty.
    pub(in crate::config) fn of_variable(name: &str, value: &OsStr) -> Result<Option<Self>, ConfigError> {
        let Some(rest) = name.strip_prefix(VARIABLE) else { return Ok(None) };
        let place = Place::Environment(name.into());
        match VARIABLES.iter().find(|(variable, _)| *variable == rest) {
            Some((_, key)) => match value.to_str() {
                Some(value) => Ok(Self::given(place, key, value)),
                None => Err(ConfigError::Syntax { place, message: "the value is not UTF-8 text".to_owned() }),
            },
            None => Ok(Self::without_meaning(place, &rest.to_ascii_lowercase(), value.to_str())),
        }
    }

    /// What a ROS parameter sets; `None` when it is not one of the agent's, or empty.
    pub(in crate::config) fn of_parameter(name: &str, value: &str) -> Option<Self> {
        let rest = name.strip_prefix(PARAMETER)?;
        let place = Place::Parameter(name.into());
        match PARAMETERS.iter().find(|key| **key == rest) {
            Some(key) => Self::given(place, key, value),
            None => Self::without_meaning(place, rest, Some(value)),
        }
    }

    fn given(place: Place, key: &str, value: &str) -> Option<Self> {
        let value = value.trim();
        (!value.is_empty()).then(|| Self { place, key: key.to_owned(), value: Some(value.to_owned()) })
    }

    fn without_meaning(place: Place, flat: &str, value: Option<&str>) -> Option<Self> {
        let (key, default) = unused::key_of(flat)?;
        value.is_none_or(|value| unused::says_something(value, default)).then_some(Self { place, key, value: None })
    }

    /// The key that it sets.
    pub(in crate::config) fn key(&self) -> &str {
        &self.key
    }
}

/// Assignments as layers.
pub(super) struct Assigned {
    pub(super) environment: Node,
    pub(super) parameters: Node,
    /// The owner that the environment names.
    pub(super) owner: Option<OwnerVariables>,
}

/// Puts assignments into trees as a file would have them.
pub(super) fn tree(assignments: &[Assignment], place: &Place) -> Assigned {
    let (mut environment, mut parameters) = (Node::map(place.clone()), Node::map(place.clone()));
    let (mut owner_id, mut owner_key) = (None, None);
    for Assignment { place, key, value } in assignments {
        let value = match value {
            Some(text) => Node::scalar(place.clone(), text.as_str()),
            None => unused::mark(place.clone()),
        };
        match (key.as_str(), place) {
            (OWNER_ID, _) => owner_id = Some(value),
            (OWNER_KEY, _) => owner_key = Some(value),
            (key, Place::Parameter(_)) => put(&mut parameters, key, value),
            (key, _) => put(&mut environment, key, value),
        }
    }
    Assigned { environment, parameters, owner: owner_id.zip(owner_key).map(|(id, key)| OwnerVariables { id, key }) }
}

fn put(tree: &mut Node, key: &str, value: Node) {
    let path: Vec<&str> = key.split('.').collect();
    // The trees are made here and have only mappings on the way.
    let _ = tree.set(&path, value);
}
