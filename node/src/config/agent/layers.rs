//! What the file, the environment, ROS parameters and the policy file say, one over the other.
//!
//! A value that is not there, null or empty leaves what was before, and so does a number that is 0: that is how the agent reads.

use std::time::Duration;

use super::unused::Unused;
use crate::config::{
    error::{ConfigError, Notice, Place},
    reader::{Field, Section},
    stream::Overflow,
    yaml::Node,
};

/// The document as far as it has a meaning here; lists are read at the end, from the layer that had the last word.
#[derive(Default)]
pub(super) struct Layers<'a> {
    pub(super) enabled: bool,
    pub(super) policy_path: Option<Field<'a>>,
    pub(super) topics: Option<Field<'a>>,
    pub(super) recipients: Option<Field<'a>>,
    pub(super) buffer: Buffer,
    pub(super) unused: Unused,
    pub(super) notices: Vec<Notice>,
}

impl<'a> Layers<'a> {
    /// Lays the file, the environment or the parameters over what is there. Keys that neither the agent nor this node knows are
    /// noted: the agent passes over them.
    pub(super) fn lay(&mut self, layer: &Field<'a>) -> Result<(), ConfigError> {
        let section = layer.section()?;
        self.read(&section)?;
        for (place, key) in section.unknown() {
            let text = format!("`{key}` is no key of the agent and does nothing; look for a typing mistake");
            self.notices.push(Notice { place: place.clone(), text });
        }
        Ok(())
    }

    /// Lays the policy file over what is there. A policy is there to restrict, so what nobody would read in it is refused.
    pub(super) fn lay_policy(&mut self, policy: &Field<'a>) -> Result<(), ConfigError> {
        let section = policy.section()?;
        self.read(&section)?;
        section.finish()
    }

    fn read(&mut self, section: &Section<'a>) -> Result<(), ConfigError> {
        if let Some(field) = value(section, "enabled") {
            self.enabled = truth(&field)?;
        }
        if let Some(field) = value(section, "policy_path") {
            self.policy_path = Some(field);
        }
        // The agent takes the first that is not empty.
        let topics = [section.get("topics"), section.get("topic_rules")];
        if let Some(field) = topics.into_iter().flatten().find(|field| !field.is_blank() && !field.is_empty_list()) {
            self.topics = Some(field);
        }
        if let Some(field) = value(section, "key_recipients") {
            self.recipients = Some(field);
        }
        if let Some(field) = value(section, "buffer") {
            self.buffer.lay(&field.section()?)?;
        }
        self.unused.collect(section);
        Ok(())
    }
}

/// The agent's buffer, with its defaults.
pub(super) struct Buffer {
    max_events: (u64, Option<Place>),
    overflow: (Overflow, Option<Place>),
    retention: (Duration, Option<Place>),
}

impl Default for Buffer {
    fn default() -> Self {
        Self {
            max_events: (1_000, None),
            overflow: (Overflow::DropOldest, None),
            retention: (Duration::from_secs(86_400), None),
        }
    }
}

/// The most that [`crate::config::QueueConfig::messages`] takes.
const MAX_MESSAGES: u64 = 1_000_000;
/// The least and the most that [`crate::config::Retention::age`] takes.
const MIN_AGE: u64 = 60;
const MAX_AGE: u64 = 86_400 * 36_500;

impl Buffer {
    fn lay(&mut self, section: &Section<'_>) -> Result<(), ConfigError> {
        if let Some((number, place)) = number(section, "max_events")? {
            self.max_events = (number.min(MAX_MESSAGES), Some(place));
        }
        if let Some((number, place)) = number(section, "retention_seconds")? {
            self.retention = (Duration::from_secs(number.clamp(MIN_AGE, MAX_AGE)), Some(place));
        }
        if let Some(field) = value(section, "overflow") {
            let words = [("drop_oldest", Overflow::DropOldest), ("pause", Overflow::Pause)];
            self.overflow = (field.one_of(&words)?, Some(field.place()));
        }
        Ok(())
    }

    /// How long chunks are kept.
    pub(super) fn retention(&self) -> Duration {
        self.retention.0
    }

    /// The same as `defaults` of ours; `place` is where values stand that nobody gave.
    pub(super) fn to_defaults(&self, place: &Place) -> Node {
        let (mut tree, at) =
            (Node::map(place.clone()), |given: &Option<Place>| given.as_ref().unwrap_or(place).clone());
        let overflow = match self.overflow.0 {
            Overflow::Pause => "pause",
            Overflow::DropOldest => "drop_oldest",
        };
        for (path, text, given) in [
            (["queue", "messages"], self.max_events.0.to_string(), &self.max_events.1),
            (["queue", "overflow"], overflow.to_owned(), &self.overflow.1),
            (["retention", "age"], format!("{}s", self.retention.0.as_secs()), &self.retention.1),
        ] {
            // The tree is made here and has only mappings on the way.
            let _ = tree.set(&path, Node::scalar(at(given), text));
        }
        tree
    }
}

/// The value of a key where there is one.
pub(super) fn value<'a>(section: &Section<'a>, key: &'static str) -> Option<Field<'a>> {
    section.get(key).filter(|field| !field.is_blank())
}

/// A text where there is one, without white space around it.
pub(super) fn text<'a>(field: &Field<'a>, expected: &str) -> Result<&'a str, ConfigError> {
    field.text(expected).map(str::trim)
}

fn truth(field: &Field<'_>) -> Result<bool, ConfigError> {
    const WORDS: &str = "true or false";
    match text(field, WORDS)?.to_ascii_lowercase().as_str() {
        "true" | "yes" | "on" | "1" => Ok(true),
        "false" | "no" | "off" | "0" => Ok(false),
        _ => Err(field.wrong(WORDS)),
    }
}

fn number(section: &Section<'_>, key: &'static str) -> Result<Option<(u64, Place)>, ConfigError> {
    let Some(field) = value(section, key) else { return Ok(None) };
    let number = field.integer(0..=u64::from(u32::MAX))?;
    Ok((number > 0).then(|| (number, field.place())))
}
