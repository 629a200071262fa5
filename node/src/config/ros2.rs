//! The section `ros2`, and what a stream says about its subscription: quality of service and time stamp.
//!
//! These are read and checked in every build; only a build with the feature `ros2` acts on them.

use std::time::Duration;

use super::{
    error::ConfigError,
    reader::{Field, Section},
};

/// How this node takes part in ROS 2. That the section is there means that live topics are ingested.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ros2Config {
    /// Name of the ROS node; `--ros-args -r __node:=…` is stronger.
    pub node_name: String,
    /// Its namespace, absolute; `--ros-args -r __ns:=…` is stronger.
    pub namespace: String,
    /// Whether the receive time is that of `/clock`.
    pub use_sim_time: bool,
    /// How often `/diagnostics` is published, 100 ms to 1 h; `None` is never.
    pub diagnostics: Option<Duration>,
}

impl Default for Ros2Config {
    fn default() -> Self {
        Self {
            node_name: "tributary".to_owned(),
            namespace: "/".to_owned(),
            use_sim_time: false,
            diagnostics: Some(Duration::from_secs(1)),
        }
    }
}

/// Quality of service of a subscription.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Qos {
    /// Whether a lost message is sent again.
    pub reliability: Reliability,
    /// Whether messages from before the subscription are wanted.
    pub durability: Durability,
    /// How many messages the middleware keeps until they are taken.
    pub history: History,
    /// That many with [`History::KeepLast`], 1 to 100,000; without meaning with [`History::KeepAll`].
    pub depth: u32,
}

impl Qos {
    /// ROS 2's default: reliable, volatile, the last 10.
    pub const DEFAULT: Self = Self {
        reliability: Reliability::Reliable,
        durability: Durability::Volatile,
        history: History::KeepLast,
        depth: 10,
    };
    /// ROS 2's profile for sensors: best effort, volatile, the last 5. Fits every publisher.
    pub const SENSOR_DATA: Self = Self { reliability: Reliability::BestEffort, depth: 5, ..Self::DEFAULT };
    /// As [`Qos::DEFAULT`] with the last 100, so that a burst waits in the middleware instead of being overwritten there.
    pub const RELIABLE: Self = Self { depth: 100, ..Self::DEFAULT };
}

/// Whether a lost message is sent again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reliability {
    /// It is. A publisher with best effort does not match.
    Reliable,
    /// It is not. Every publisher matches.
    BestEffort,
}

/// Whether messages from before the subscription are wanted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Durability {
    /// Only what is published from now on. Every publisher matches.
    Volatile,
    /// What publishers keep for latecomers, too. A volatile publisher does not match.
    TransientLocal,
}

/// How many messages the middleware keeps until they are taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum History {
    /// The newest, as many as the depth says; older ones are lost.
    KeepLast,
    /// All, up to the middleware's resource limits.
    KeepAll,
}

/// Which time a message of a live topic has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stamp {
    /// That of its header (`header.stamp`, or `stamp`), where its type has one and it is not zero; else as [`Stamp::Receive`].
    Header,
    /// When it was received.
    Receive,
}

pub(super) fn ros2(field: Option<&Field<'_>>) -> Result<Option<Ros2Config>, ConfigError> {
    let Some(field) = field else { return Ok(None) };
    let (section, mut out) = (field.section()?, Ros2Config::default());
    if let Some(f) = section.get("node_name") {
        const NAME: &str = "a node's name: letters, digits and underscores, no digit in front, at most 255";
        let text = f.text(NAME)?;
        if !is_token(text) || text.len() > 255 {
            return Err(f.wrong(NAME));
        }
        text.clone_into(&mut out.node_name);
    }
    if let Some(f) = section.get("namespace") {
        const SPACE: &str = "an absolute namespace such as / or /fleet/robot7, at most 255 bytes";
        let text = f.text(SPACE)?;
        let valid = text == "/" || text.strip_prefix('/').is_some_and(|rest| rest.split('/').all(is_token));
        if !valid || text.len() > 255 {
            return Err(f.wrong(SPACE));
        }
        text.clone_into(&mut out.namespace);
    }
    if let Some(f) = section.get("use_sim_time") {
        out.use_sim_time = f.one_of(&[("true", true), ("false", false)])?;
    }
    if let Some(f) = section.get("diagnostics") {
        out.diagnostics = f.or_none(|f| f.duration(Duration::from_millis(100)..=Duration::from_secs(3_600)))?;
    }
    section.finish()?;
    Ok(Some(out))
}

/// A name between two slashes: <https://design.ros2.org/articles/topic_and_service_names.html>.
fn is_token(text: &str) -> bool {
    !text.is_empty()
        && !text.starts_with(|c: char| c.is_ascii_digit())
        && text.chars().all(|c| c.is_ascii_alphanumeric() || c == '_')
}

/// A profile by its name, or the values of one over those of `default`.
pub(super) fn qos(field: &Field<'_>, default: &Qos) -> Result<Qos, ConfigError> {
    const PROFILES: [(&str, Qos); 3] =
        [("default", Qos::DEFAULT), ("sensor_data", Qos::SENSOR_DATA), ("reliable", Qos::RELIABLE)];
    if !field.is_section() {
        return field.one_of(&PROFILES).map_err(|error| match error {
            ConfigError::Value { place, key, found, expected } => ConfigError::Value {
                place,
                key,
                found,
                expected: format!("{expected}, or a mapping of reliability, durability, history and depth"),
            },
            other => other,
        });
    }
    let (section, mut out) = (field.section()?, *default);
    if let Some(f) = section.get("reliability") {
        out.reliability = f.one_of(&[("reliable", Reliability::Reliable), ("best_effort", Reliability::BestEffort)])?;
    }
    if let Some(f) = section.get("durability") {
        out.durability =
            f.one_of(&[("volatile", Durability::Volatile), ("transient_local", Durability::TransientLocal)])?;
    }
    if let Some(f) = section.get("history") {
        out.history = f.one_of(&[("keep_last", History::KeepLast), ("keep_all", History::KeepAll)])?;
    }
    if let Some(f) = section.get("depth") {
        if out.history == History::KeepAll {
            return Err(f.conflict("does nothing with `history: keep_all`; remove one of them"));
        }
        out.depth = f.integer32(1..=100_000)?;
    }
    section.finish()?;
    Ok(out)
}

pub(super) fn stamp(section: &Section<'_>, default: Stamp) -> Result<Stamp, ConfigError> {
    match section.get("stamp") {
        Some(field) => field.one_of(&[("header", Stamp::Header), ("receive", Stamp::Receive)]),
        None => Ok(default),
    }
}
