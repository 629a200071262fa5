//! What the demo ingests, under which rules, and so what must arrive.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Write as _,
    fs,
    path::{Path, PathBuf},
};

use super::{DemoError, TopicLine};
use crate::ingest::{self, Content, IngestOptions, SourceItem};
use tributary_protocol::json::Value;

/// The recording that comes with the program: 20 s of a small robot, made by `make_demo_recording`.
const RECORDING: &[u8] = include_bytes!("../../../examples/recordings/robot.mcap");
const RECORDING_NAME: &str = "robot.mcap";

/// The buyer's configuration.
pub(super) const BUYER_CONFIG: &str = "\
roles: [buyer]
network: { listen: [/ip4/127.0.0.1/tcp/0] }
";

/// A rule of the demo: topic, path, action, and what it is for.
struct DemoRule {
    topic: &'static str,
    path: &'static str,
    action: &'static str,
    strategy: Option<&'static str>,
}

/// What the robot's owner does not want to give away.
const RULES: &[DemoRule] = &[
    DemoRule { topic: "/fix", path: "latitude", action: "anonymize", strategy: Some("generalize") },
    DemoRule { topic: "/fix", path: "longitude", action: "anonymize", strategy: Some("generalize") },
    DemoRule { topic: "/fix", path: "altitude", action: "exclude", strategy: None },
    DemoRule { topic: "/battery", path: "serial_number", action: "anonymize", strategy: Some("redact") },
    DemoRule { topic: "/battery", path: "location", action: "exclude", strategy: None },
];

/// Topics of the demo's recording that are sold as they were recorded, since Foxglove can then show them.
const RAW: &[&str] = &["/camera/compressed", "/scan"];

/// One topic of the recording.
#[derive(Debug, Clone, Default)]
pub(crate) struct Topic {
    pub(crate) message_type: String,
    pub(crate) messages: u64,
    pub(crate) raw: bool,
    pub(crate) lost: Option<String>,
}

/// A protected field, and what must not be seen of it.
#[derive(Debug, Clone)]
pub(crate) struct Protected {
    pub(crate) topic: String,
    pub(crate) path: String,
    /// The field is not there at all, rather than replaced.
    pub(crate) absent: bool,
    /// Texts that stood there.
    pub(crate) secrets: BTreeSet<String>,
}

/// What is ingested and what must arrive.
pub(crate) struct Plan {
    pub(crate) name: String,
    pub(crate) path: PathBuf,
    pub(crate) bytes: u64,
    pub(crate) topics: BTreeMap<String, Topic>,
    pub(crate) protected: Vec<Protected>,
}

impl Plan {
    /// Looks through the recording once. The program's own one is written into `folder`.
    pub(crate) fn make(recording: Option<&Path>, folder: &Path) -> Result<Self, DemoError> {
        let (path, own) = match recording {
            Some(path) => {
                let path =
                    std::path::absolute(path).map_err(|source| DemoError::Io { path: path.to_owned(), source })?;
                (path, false)
            }
            None => {
                let path = folder.join(RECORDING_NAME);
                fs::write(&path, RECORDING).map_err(|source| DemoError::Io { path: path.clone(), source })?;
                (path, true)
            }
        };
        let unreadable = |reason: String| DemoError::Recording { path: path.clone(), reason };
        let bytes = fs::metadata(&path).map_err(|error| unreadable(error.to_string()))?.len();
        let protected = if own { RULES.iter().map(protect).collect() } else { Vec::new() };
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let mut plan = Self { name, path: path.clone(), bytes, topics: BTreeMap::new(), protected };
        let mut source =
            ingest::open(&path, &IngestOptions::default()).map_err(|error| unreadable(error.to_string()))?;
        while let Some(item) = source.next().map_err(|error| unreadable(error.to_string()))? {
            plan.note(item, own);
        }
        if plan.topics.is_empty() {
            return Err(unreadable("it holds no messages; give an .mcap or .db3 recording".to_owned()));
        }
        Ok(plan)
    }

    fn note(&mut self, item: SourceItem, own: bool) {
        match item {
            SourceItem::Message(message) => {
                let topic = self.topics.entry(message.topic.to_string()).or_default();
                topic.message_type = message.type_name.to_string();
                topic.messages += 1;
                match message.content {
                    Content::Raw(_) => topic.raw = true,
                    Content::Fields(fields) => {
                        topic.raw = own && RAW.contains(&&*message.topic);
                        for protected in self.protected.iter_mut().filter(|p| p.topic == *message.topic) {
                            if let Some(Value::String(text)) = fields.value.get(&protected.path)
                                && !text.is_empty()
                            {
                                protected.secrets.insert(text.clone());
                            }
                        }
                    }
                    Content::Slice { .. } => {}
                }
            }
            SourceItem::TopicLost { topic, reason } => {
                self.topics.entry(topic.to_string()).or_default().lost = Some(reason);
            }
            SourceItem::TopicUndecoded { topic, .. } => {
                self.topics.entry(topic.to_string()).or_default().raw = true;
            }
            SourceItem::Dropped { .. } | SourceItem::Damaged { .. } => {}
        }
    }

    /// The machine's configuration: a stream for each topic, for everybody.
    pub(crate) fn machine_config(&self) -> String {
        let streams = self.streams(|_| "{ policy: free }".to_owned());
        format!("roles: [machine]\nnetwork: {{ listen: [/ip4/127.0.0.1/tcp/0] }}\nstreams:\n{streams}")
    }

    /// Topics that can be read, and so become streams.
    pub(crate) fn readable(&self) -> impl Iterator<Item = &String> {
        self.topics.iter().filter(|(_, topic)| topic.lost.is_none()).map(|(name, _)| name)
    }

    /// The streams, as items of the configuration's list. `access` says who gets the keys of one.
    pub(crate) fn streams(&self, access: impl Fn(&str) -> String) -> String {
        let mut text = String::new();
        for (name, topic) in self.topics.iter().filter(|(_, topic)| topic.lost.is_none()) {
            let mode = if topic.raw { "raw" } else { "fields" };
            let _ = writeln!(text, "  - topic: {}\n    mode: {mode}", quoted(name));
            if !topic.message_type.is_empty() {
                let _ = writeln!(text, "    type: {}", quoted(&topic.message_type));
            }
            if !topic.raw {
                text.push_str("    default: include\n");
                let rules: Vec<&DemoRule> = RULES.iter().filter(|rule| self.protects(name, rule)).collect();
                if !rules.is_empty() {
                    text.push_str("    rules:\n");
                }
                for DemoRule { path, action, strategy, .. } in rules {
                    let strategy = strategy.map(|s| format!(", strategy: {s}")).unwrap_or_default();
                    let _ = writeln!(text, "      - {{ path: {path}, action: {action}{strategy} }}");
                }
            }
            let _ = writeln!(text, "    compression: zstd\n    access: {}", access(name));
        }
        text
    }

    fn protects(&self, topic: &str, rule: &DemoRule) -> bool {
        rule.topic == topic && self.protected.iter().any(|p| p.topic == rule.topic && p.path == rule.path)
    }

    /// The lines of the summary, before anything arrived.
    pub(crate) fn lines(&self) -> BTreeMap<String, TopicLine> {
        let line = |(name, topic): (&String, &Topic)| {
            let rules = RULES.iter().filter(|rule| self.protects(name, rule));
            let protected = rules.map(|r| format!("{} {}", r.path, r.strategy.unwrap_or(r.action))).collect();
            let Topic { message_type, messages, lost, .. } = topic.clone();
            (name.clone(), TopicLine { message_type, recorded: messages, arrived: 0, protected, left_out: lost })
        };
        self.topics.iter().map(line).collect()
    }

    /// How many values the rules removed or replaced.
    pub(crate) fn protected_values(&self) -> u64 {
        self.protected.iter().map(|p| self.topics.get(&p.topic).map_or(0, |topic| topic.messages)).sum()
    }
}

fn protect(rule: &DemoRule) -> Protected {
    Protected {
        topic: rule.topic.to_owned(),
        path: rule.path.to_owned(),
        absent: rule.action == "exclude",
        secrets: BTreeSet::new(),
    }
}

/// A YAML scalar: JSON strings are YAML strings.
pub(crate) fn quoted(text: &str) -> String {
    serde_json::Value::String(text.to_owned()).to_string()
}
