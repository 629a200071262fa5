//! The Data Event Map: which topics leave the machine, in which form, under which rules, for whom.

mod read;

use std::{collections::BTreeSet, time::Duration};

use tributary_protocol::{ids::Did, rules::RuleSet};

pub(super) use self::read::{Defaults, name, retention, streams};
use super::{
    pattern::TopicPattern,
    ros2::{Qos, Stamp},
    rules::{FieldRules, RulesError},
};

/// The machine log takes over from at most this many logs in one binding, itself included (160 positions).
pub(crate) const MAX_STREAMS: usize = 150;
/// Longest name of a topic or stream, in bytes.
pub(crate) const MAX_NAME: usize = 256;

/// Whether a topic or stream can be called so.
pub(crate) fn is_name(text: &str) -> bool {
    !text.is_empty() && text.len() <= MAX_NAME && !text.chars().any(char::is_control)
}

/// One topic of this machine and all that is decided about it.
#[derive(Debug, Clone, PartialEq)]
pub struct StreamConfig {
    /// Name at the source, or a pattern of names ([`TopicPattern`]); 1 to 256 bytes.
    pub topic: String,
    /// Public name that hides the topic; `None` publishes the topic's own.
    pub alias: Option<String>,
    /// The message type the source must have, such as `sensor_msgs/msg/Imu`; `None` takes any.
    pub message_type: Option<String>,
    /// In which form messages are packed.
    pub mode: Mode,
    /// Bounds of a chunk.
    pub chunk: ChunkConfig,
    /// When a dataset is closed.
    pub close_after: CloseAfter,
    /// What waits between source and lane.
    pub queue: QueueConfig,
    /// Step before sealing.
    pub compression: Compression,
    /// Who is granted keys.
    pub access: Access,
    /// What may be dropped of this stream.
    pub retention: Retention,
    /// How a live topic is subscribed.
    pub qos: Qos,
    /// Which time a message of a live topic has.
    pub stamp: Stamp,
}

impl StreamConfig {
    /// The pattern that the topic is; `None` when it is a name.
    #[must_use]
    pub fn pattern(&self) -> Option<TopicPattern> {
        TopicPattern::new(&self.topic)
    }

    /// The stream of one topic that the pattern of this one means: its settings, under the topic's own name.
    #[must_use]
    pub fn for_topic(&self, topic: &str) -> Self {
        Self { topic: topic.to_owned(), alias: None, ..self.clone() }
    }

    /// The name that is published.
    #[must_use]
    pub fn name(&self) -> &str {
        self.alias.as_deref().unwrap_or(&self.topic)
    }

    /// The field rules; `None` in modes that have none.
    #[must_use]
    pub fn rules(&self) -> Option<&FieldRules> {
        match &self.mode {
            Mode::Fields(rules) => Some(rules),
            Mode::Raw | Mode::File => None,
        }
    }

    /// The rules with their keys, ready to apply; `None` in modes that have none. Reads the key files.
    pub fn rule_set(&self) -> Result<Option<RuleSet>, RulesError> {
        self.rules().map(FieldRules::load).transpose()
    }
}

/// The form of a stream's messages.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Mode {
    /// Decoded fields, with rules applied.
    Fields(FieldRules),
    /// The whole message as bytes, with its schema.
    Raw,
    /// Files as they are.
    File,
}

/// Bounds of a chunk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ChunkConfig {
    /// Target size in bytes before sealing, 4 KiB to 1 MiB.
    pub bytes: u32,
    /// A chunk that is not full is sealed this long after its first message, 100 ms to 1 h.
    pub max_age: Duration,
}

/// When a dataset is closed, whichever comes first. With all three `None` only the command closes it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CloseAfter {
    /// Time since its first chunk.
    pub time: Option<Duration>,
    /// Bytes before sealing.
    pub bytes: Option<u64>,
    /// Packages.
    pub packages: Option<u64>,
}

/// What waits between source and lane.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct QueueConfig {
    /// Messages, 1 to 1,000,000.
    pub messages: u32,
    /// What happens when it is full.
    pub overflow: Overflow,
}

/// What a full queue does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Overflow {
    /// The source waits.
    Pause,
    /// The oldest message is dropped; its number is a gap that buyers see.
    DropOldest,
}

/// Step before sealing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Compression {
    /// Bytes as they are.
    None,
    /// Zstandard.
    Zstd,
}

/// Who is granted keys.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Access {
    /// How a request is decided.
    pub policy: Policy,
    /// The longest range into the future that one grant covers: keys once granted cannot be taken back. 1 min to 7 d.
    pub live: Duration,
    /// The program that tells the operator about a request that waits, with its arguments; empty is none. Its path is absolute.
    pub hook: Vec<String>,
}

/// How a request is decided.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Policy {
    /// Everyone who asks is granted.
    Free,
    /// These buyers are granted, others denied.
    Allowlist(BTreeSet<Did>),
    /// Requests wait for `tributary access approve`.
    Manual,
}

/// What may be dropped; `None` keeps. Log entries are never dropped.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Retention {
    /// Chunk bodies older than this.
    pub age: Option<Duration>,
    /// The oldest chunk bodies beyond this many bytes.
    pub bytes: Option<u64>,
}
