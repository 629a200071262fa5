//! Configurations of peaq's ROS 2 agent (`peaq_ros2_stream`): read as the agent reads them, and made into ours.
//!
//! A document is one of them when it has the top key `stream_agent`, or `stream`, and not our `roles`; other top keys are those
//! of other programs and are not looked at. Values come from, last wins: the agent's defaults, the file, the environment
//! (`PEAQOS_STREAM_…`), ROS parameters (`stream_agent.…`), the policy file. Our own [`Overrides`] (`--set`, `TRIBUTARY_…`) lie
//! over what becomes of it, so everything the agent has no key for can be set by them.
//!
//! | agent | here |
//! |---|---|
//! | `enabled` | without it there are no streams |
//! | `topics` | streams of fields, with the agent's rules ([`FieldRules::Agent`]) |
//! | `key_recipients` | `peaq.owner_public_key` and its like |
//! | `buffer` | `queue`, `retention.age` |
//! | the rest | no meaning; one [`Notice`] for each part of it that is set |
//!
//! A document lets out nothing that it does not let out there. It is read more strictly than the agent does it: what the agent
//! would pass over or guess (a misspelt key of a rule, a number that is none, two rules for one topic) is refused.
//!
//! - [`spelling`]: both spellings of a key into one
//! - [`layers`]: what file, environment, parameters and policy file say, one over the other
//! - [`assignment`]: the names of the environment and of ROS parameters
//! - [`topics`]: topics, their quality of service and rules
//! - [`recipients`]: whom chunk keys are sealed for
//! - [`unused`]: what has no meaning here, and what to use instead
//! - [`policy`]: finding and reading the policy file

mod assignment;
mod layers;
mod policy;
mod recipients;
mod spelling;
mod topics;
mod unused;

use std::path::Path;

pub(super) use self::{assignment::Assignment, topics::Topics};
use self::{
    layers::{Buffer, Layers},
    recipients::Recipients,
};
#[cfg(doc)]
use super::FieldRules;
use super::{
    Config, ConfigError, Notice, Overrides, Place,
    reader::Field,
    show_duration,
    yaml::{Node, Value},
};

/// The key by which a document is the agent's.
pub(super) fn top_key(root: &Node) -> Option<&'static str> {
    let found = ["stream_agent", "stream"].into_iter().find(|key| root.get(key).is_some());
    found.filter(|_| root.get("roles").is_none())
}

/// Reads the document. `key` is its [`top_key`], `base` the folder that a relative path of the policy file starts from.
pub(super) fn read(root: &Node, key: &str, base: &Path, overrides: &Overrides) -> Result<Config, ConfigError> {
    let file = spelling::unified(root.get(key).unwrap_or(root))?;
    let place = &file.place;
    let assigned = assignment::tree(overrides.of_agent(), place);
    let policy;
    let mut layers = Layers::default();
    layers.lay(&Field::at(key, &file))?;
    layers.lay(&Field::at("", &assigned.environment))?;
    layers.lay(&Field::at("", &assigned.parameters))?;
    if let Some(path) = layers.policy_path.take() {
        policy = policy::read(&path, base)?;
        layers.lay_policy(&Field::at(policy.key, &policy.node))?;
    }
    let Layers { enabled, topics, recipients, buffer, mut notices, unused, .. } = layers;
    let recipients = Recipients::read(recipients.as_ref(), assigned.owner.as_ref(), &mut notices)?;
    let topics = if enabled {
        Topics::read(topics.as_ref(), place, key, &mut notices)?
    } else {
        let text = format!("`{key}.enabled` is not true: nothing is published, as in the agent");
        notices.push(Notice { place: place.clone(), text });
        Topics::default()
    };
    let retention = buffer.retention();
    let mut tree = tree(place, enabled, &buffer, recipients);
    overrides.apply(&mut tree)?;
    let config = Config::read(&tree, base, Some(&topics))?;
    if config.streams.iter().any(|stream| stream.retention.age == Some(retention)) {
        let text = format!(
            "chunks are dropped after {} (`{key}.buffer.retention_seconds`), which the agent never does with its chunk files; to \
             keep them, add `--set defaults.retention.age=none`",
            show_duration(retention)
        );
        notices.push(Notice { place: place.clone(), text });
    }
    notices.extend(unused.notices());
    Ok(Config { notices, ..config })
}

/// Our own configuration, but for the streams.
fn tree(place: &Place, enabled: bool, buffer: &Buffer, recipients: Recipients) -> Node {
    let mut tree = Node::map(place.clone());
    let mut set = |path: &[&str], value: Node| {
        // The tree is made here and has only mappings on the way.
        let _ = tree.set(path, value);
    };
    let machine = Node::scalar(place.clone(), "machine");
    set(&["roles"], Node { place: place.clone(), value: Value::List(vec![machine]) });
    set(&["defaults"], buffer.to_defaults(place));
    for (key, value) in recipients.keys() {
        set(&["peaq", key], value);
    }
    if enabled {
        set(&["ros2"], Node::map(place.clone()));
    }
    tree
}

#[cfg(test)]
mod tests;
