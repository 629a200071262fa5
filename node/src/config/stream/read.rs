//! Reading streams, and what `defaults` sets for all of them.

use std::{collections::BTreeSet, path::Path, time::Duration};

use tributary_protocol::ids::Did;

use super::{
    Access, ChunkConfig, CloseAfter, Compression, MAX_NAME, MAX_STREAMS, Mode, Overflow, Policy, QueueConfig,
    Retention, StreamConfig, is_name,
};
use crate::config::{
    error::ConfigError,
    pattern::TopicPattern,
    reader::{Field, Section},
    ros2::{Qos, Stamp, qos, stamp},
    rules::{DefaultAction, FieldRules, rules},
};

/// What `defaults` sets for every stream.
#[derive(Debug, Clone)]
pub(in crate::config) struct Defaults {
    chunk: ChunkConfig,
    close_after: CloseAfter,
    queue: QueueConfig,
    compression: Compression,
    access: Access,
    retention: Retention,
    qos: Qos,
    stamp: Stamp,
}

impl Defaults {
    fn built_in() -> Self {
        Self {
            chunk: ChunkConfig { bytes: 256 << 10, max_age: Duration::from_secs(10) },
            close_after: CloseAfter { time: Some(Duration::from_secs(600)), bytes: Some(1 << 30), packages: None },
            queue: QueueConfig { messages: 1_024, overflow: Overflow::Pause },
            compression: Compression::None,
            // Nothing is given away because a line was forgotten.
            access: Access { policy: Policy::Manual, live: Duration::from_secs(3_600), hook: Vec::new() },
            retention: Retention::default(),
            qos: Qos::DEFAULT,
            stamp: Stamp::Header,
        }
    }

    pub(in crate::config) fn read(field: Option<Field<'_>>) -> Result<Self, ConfigError> {
        let Some(field) = field else { return Ok(Self::built_in()) };
        let section = field.section()?;
        let out = Self::built_in().with(&section)?;
        section.finish()?;
        Ok(out)
    }

    /// These values with what `section` says on top.
    fn with(&self, section: &Section<'_>) -> Result<Self, ConfigError> {
        let mut out = self.clone();
        if let Some(field) = section.get("chunk") {
            out.chunk = chunk(&field, &self.chunk)?;
        }
        if let Some(field) = section.get("close_after") {
            out.close_after = close_after(&field, &self.close_after)?;
        }
        if let Some(field) = section.get("queue") {
            out.queue = queue(&field, &self.queue)?;
        }
        if let Some(field) = section.get("compression") {
            out.compression = field.one_of(&[("none", Compression::None), ("zstd", Compression::Zstd)])?;
        }
        if let Some(field) = section.get("access") {
            out.access = access(&field, &self.access)?;
        }
        if let Some(field) = section.get("retention") {
            out.retention = retention(&field, &self.retention)?;
        }
        if let Some(field) = section.get("qos") {
            out.qos = qos(&field, &self.qos)?;
        }
        out.stamp = stamp(section, self.stamp)?;
        Ok(out)
    }

    /// A stream with these settings.
    pub(in crate::config) fn stream(self, topic: String, mode: Mode) -> StreamConfig {
        let Self { chunk, close_after, queue, compression, access, retention, qos, stamp } = self;
        StreamConfig {
            topic,
            alias: None,
            message_type: None,
            mode,
            chunk,
            close_after,
            queue,
            compression,
            access,
            retention,
            qos,
            stamp,
        }
    }
}

const SECOND: Duration = Duration::from_secs(1);
const DAY: Duration = Duration::from_secs(86_400);

fn chunk(field: &Field<'_>, default: &ChunkConfig) -> Result<ChunkConfig, ConfigError> {
    let (section, mut out) = (field.section()?, *default);
    if let Some(f) = section.get("bytes") {
        let bytes = f.bytes(4 << 10..=1 << 20)?;
        out.bytes = u32::try_from(bytes).map_err(|_| f.wrong("at most 1MiB"))?;
    }
    if let Some(f) = section.get("max_age") {
        out.max_age = f.duration(Duration::from_millis(100)..=SECOND * 3_600)?;
    }
    section.finish()?;
    Ok(out)
}

fn close_after(field: &Field<'_>, default: &CloseAfter) -> Result<CloseAfter, ConfigError> {
    let (section, mut out) = (field.section()?, *default);
    if let Some(f) = section.get("time") {
        // A dataset lies in one key epoch, and an epoch ends after 30 days.
        out.time = f.or_none(|f| f.duration(SECOND..=DAY * 30))?;
    }
    if let Some(f) = section.get("bytes") {
        out.bytes = f.or_none(|f| f.bytes(4 << 10..=1 << 46))?;
    }
    if let Some(f) = section.get("packages") {
        out.packages = f.or_none(|f| f.integer(1..=1 << 40))?;
    }
    section.finish()?;
    Ok(out)
}

fn queue(field: &Field<'_>, default: &QueueConfig) -> Result<QueueConfig, ConfigError> {
    let (section, mut out) = (field.section()?, *default);
    if let Some(f) = section.get("messages") {
        out.messages = f.integer32(1..=1_000_000)?;
    }
    if let Some(f) = section.get("overflow") {
        out.overflow = f.one_of(&[("pause", Overflow::Pause), ("drop_oldest", Overflow::DropOldest)])?;
    }
    section.finish()?;
    Ok(out)
}

#[derive(Clone, Copy, PartialEq)]
enum PolicyWord {
    Free,
    Allowlist,
    Manual,
}

const MAX_BUYERS: usize = 10_000;
/// Words of a hook, the program included.
const MAX_WORDS: usize = 32;

/// A program and its arguments, one word each: no shell takes them apart.
fn hook(field: &Field<'_>) -> Result<Vec<String>, ConfigError> {
    const FORM: &str = "a list: the absolute path of a program, then its arguments";
    let words = field.list(MAX_WORDS, FORM, |word| {
        let text = word.text("a word of the command")?;
        let fits = text.len() <= 4096 && !text.contains('\0');
        if fits { Ok(text.to_owned()) } else { Err(word.wrong("a word of at most 4096 bytes, without NUL")) }
    })?;
    match words.first() {
        Some(program) if Path::new(program).is_absolute() => Ok(words),
        _ => Err(field.wrong(FORM)),
    }
}

fn access(field: &Field<'_>, default: &Access) -> Result<Access, ConfigError> {
    let (section, mut out) = (field.section()?, default.clone());
    let policy = section
        .get("policy")
        .map(|f| {
            f.one_of(&[
                ("free", PolicyWord::Free),
                ("allowlist", PolicyWord::Allowlist),
                ("manual", PolicyWord::Manual),
            ])
        })
        .transpose()?;
    let allow_field = section.get("allow");
    let allow = allow_field
        .as_ref()
        .map(|f| {
            f.list(MAX_BUYERS, "a list of buyers", |buyer| {
                buyer.parse::<Did>("did:peaq:0x and 40 lower-case hex digits")
            })
        })
        .transpose()?
        .map(BTreeSet::from_iter);
    out.policy = match (policy, allow, out.policy) {
        (Some(PolicyWord::Allowlist), Some(allow), _) | (None, Some(allow), Policy::Allowlist(_)) => {
            Policy::Allowlist(allow)
        }
        (Some(PolicyWord::Allowlist), None, Policy::Allowlist(allow)) => Policy::Allowlist(allow),
        (Some(PolicyWord::Allowlist), None, _) => {
            return Err(
                field.conflict("has the policy allowlist and no `allow`; add the list of buyers, which may be empty")
            );
        }
        (_, Some(_), _) => {
            let field = allow_field.unwrap_or_else(|| field.clone());
            return Err(field.conflict("does nothing without `policy: allowlist`; add that or remove the list"));
        }
        (Some(PolicyWord::Free), None, _) => Policy::Free,
        (Some(PolicyWord::Manual), None, _) => Policy::Manual,
        (None, None, policy) => policy,
    };
    if let Some(f) = section.get("live") {
        out.live = f.duration(SECOND * 60..=DAY * 7)?;
    }
    if let Some(f) = section.get("hook") {
        out.hook = f.or_none(hook)?.unwrap_or_default();
    }
    section.finish()?;
    Ok(out)
}

pub(in crate::config) fn retention(field: &Field<'_>, default: &Retention) -> Result<Retention, ConfigError> {
    let (section, mut out) = (field.section()?, *default);
    if let Some(f) = section.get("age") {
        out.age = f.or_none(|f| f.duration(SECOND * 60..=DAY * 36_500))?;
    }
    if let Some(f) = section.get("bytes") {
        out.bytes = f.or_none(|f| f.bytes(1 << 20..=1 << 50))?;
    }
    section.finish()?;
    Ok(out)
}

pub(in crate::config) fn streams(
    field: Option<&Field<'_>>,
    defaults: &Defaults,
    base: &Path,
) -> Result<Vec<StreamConfig>, ConfigError> {
    let Some(field) = field else { return Ok(Vec::new()) };
    let (mut topics, mut names) = (BTreeSet::new(), BTreeSet::new());
    field.list(MAX_STREAMS, "a list of streams, each with `topic`", |item| {
        let stream = stream(&item, defaults, base)?;
        if !topics.insert(stream.topic.clone()) {
            return Err(item.conflict(format!("is a second stream of the topic {}; remove one", stream.topic)));
        }
        if !names.insert(stream.name().to_owned()) {
            return Err(item.conflict(format!(
                "has the public name {}, which another stream has; change its alias",
                stream.name()
            )));
        }
        Ok(stream)
    })
}

pub(in crate::config) fn name(field: &Field<'_>, expected: &str) -> Result<String, ConfigError> {
    let text = field.text(expected)?;
    if is_name(text) {
        Ok(text.to_owned())
    } else {
        Err(field.wrong(format!("{expected}, at most {MAX_NAME} bytes, without control characters")))
    }
}

#[derive(Clone, Copy, PartialEq)]
enum ModeWord {
    Fields,
    Raw,
    File,
}

fn stream(item: &Field<'_>, defaults: &Defaults, base: &Path) -> Result<StreamConfig, ConfigError> {
    const TOPIC: &str = "the topic at the source, such as /imu, or a pattern such as /camera/*";
    const MODE: &str = "one of fields, raw, file";
    let section = item.section()?;
    let topic = name(&section.need("topic", TOPIC)?, TOPIC)?;
    let is_pattern = TopicPattern::new(&topic).is_some();
    let alias = match section.get("alias") {
        Some(field) if is_pattern => {
            return Err(
                field.conflict("cannot name every topic of a pattern; remove it, or give the topics one by one")
            );
        }
        Some(field) => Some(name(&field, "a public name")?),
        None => None,
    };
    let message_type =
        section.get("type").map(|f| name(&f, "a message type such as sensor_msgs/msg/Imu")).transpose()?;
    let word = section.need("mode", MODE)?.one_of(&[
        ("fields", ModeWord::Fields),
        ("raw", ModeWord::Raw),
        ("file", ModeWord::File),
    ])?;
    let (default, rule_list) = (section.get("default"), section.get("rules"));
    let mode = if word == ModeWord::Fields {
        let Some(default) = default else {
            section.need("default", "include or exclude: what happens to a field that no rule names")?;
            return Err(item.wrong("`default`"));
        };
        Mode::Fields(FieldRules::Native {
            default: default.one_of(&[("include", DefaultAction::Include), ("exclude", DefaultAction::Exclude)])?,
            rules: rule_list.map(|f| rules(&f, base)).transpose()?.unwrap_or_default(),
        })
    } else if let Some(field) = default.or(rule_list) {
        // Silently ignoring a rule would let out what it should protect.
        return Err(field.conflict("works only with `mode: fields`; rules cannot reach into raw messages and files"));
    } else if word == ModeWord::Raw {
        Mode::Raw
    } else if is_pattern {
        return Err(item.conflict("takes files, which come from no topic; write a name without *"));
    } else {
        Mode::File
    };
    let settings = defaults.with(&section)?;
    section.finish()?;
    Ok(StreamConfig { alias, message_type, ..settings.stream(topic, mode) })
}
