//! What the agent's configuration says that has no meaning here, and what to use instead.
//!
//! A key counts when it is set to something else than the agent's default: files made from the agent's example have them all.
//! Only names are told, never values, some of which are secrets.

use std::collections::BTreeMap;

use crate::config::{
    error::{Notice, Place},
    reader::{Field, Section},
    yaml::{Node, Value},
};

/// Keys of one section that have no meaning, for one reason.
struct Part {
    /// The section's path below `stream_agent`, empty for that itself.
    section: &'static str,
    /// Keys and the agent's defaults.
    keys: &'static [(&'static str, &'static str)],
    /// Why, and what to use instead.
    advice: &'static str,
}

const BACKEND: &str = "nothing is reported to peaq's backend: buyers follow this node's feed, or order from the node itself \
                       (`peaq.orchestration`)";
const STORAGE: &str = "chunks lie in the home's store and go to buyers directly; `tributary publish --format peaq` writes files \
                       that can be put into any storage";

const PARTS: &[Part] = &[
    Part {
        section: "",
        keys: &[
            ("api_base_url", "http://127.0.0.1:8000"),
            ("api_key", ""),
            ("agent_id", ""),
            ("agent_token", ""),
            ("policy_name", "ROS 2 Stream Policy"),
            ("heartbeat_interval_seconds", "60"),
            ("destinations", "backend"),
        ],
        advice: BACKEND,
    },
    Part {
        section: "",
        keys: &[("machine_id", ""), ("identity_ref", "")],
        advice: "the machine is known by its own peaqID (`tributary key show`); `peaq.orchestration.machine_id` takes the id at peaq",
    },
    Part {
        section: "",
        keys: &[
            ("signing_key_path", "~/.peaq_robot/stream_signing_key.json"),
            ("sequence_state_path", "~/.peaq_robot/stream_sequences.json"),
            ("chunk_storage_path", "~/.peaq_robot/stream_chunks"),
            ("chunk_manifest_path", "~/.peaq_robot/stream_manifests/chunks.json"),
            ("chunk_catalog_path", "~/.peaq_robot/stream_catalog.sqlite3"),
            ("chunk_key_store_path", "~/.peaq_robot/stream_chunk_keys.sqlite3"),
        ],
        advice: "keys, numbers and chunks are those of the home (`--home`); nothing at these paths is read or written",
    },
    Part {
        section: "buffer",
        keys: &[("path", "~/.peaq_robot/stream_buffer.sqlite3"), ("retry_interval_seconds", "30")],
        advice: "what is sealed is in the home's store, and who missed it fetches it",
    },
    Part {
        section: "payload",
        keys: &[("store_inline", "false"), ("inline_limit_bytes", "4096")],
        advice: "messages leave in chunks, encrypted, and in no other way",
    },
    Part {
        section: "peaqos_event",
        keys: &[
            ("enabled", "false"),
            ("node_name", "peaqos_node"),
            ("machine_id", "0"),
            ("event_type", "1"),
            ("trust_level", "0"),
            ("source_chain_id", "0"),
        ],
        advice: "no events are submitted to a chain",
    },
    Part { section: "storage", keys: &[("backend", "local")], advice: STORAGE },
    Part {
        section: "storage.walrus",
        keys: &[
            ("publisher_url", ""),
            ("aggregator_url", ""),
            ("publisher_token", ""),
            ("epochs", "5"),
            ("permanent", "true"),
            ("timeout_sec", "30"),
        ],
        advice: STORAGE,
    },
    Part {
        section: "storage.s3",
        keys: &[
            ("bucket", ""),
            ("prefix", "peaq-stream"),
            ("endpoint_url", ""),
            ("region", ""),
            ("region_name", ""),
            ("access_key_id", ""),
            ("secret_access_key", ""),
            ("session_token", ""),
        ],
        advice: STORAGE,
    },
    Part { section: "storage.google_drive", keys: &[("folder_id", ""), ("credentials_path", "")], advice: STORAGE },
    Part {
        section: "delivery",
        keys: &[
            ("enabled", "false"),
            ("host", "127.0.0.1"),
            ("port", "8765"),
            ("token", ""),
            ("poll_interval_seconds", "15"),
        ],
        advice: "buyers fetch peer to peer: see `network.listen`",
    },
];

/// The key that a variable or parameter of the agent sets, without its prefix and in lower case, and the agent's default: the
/// last name of the section and the key, `s3_bucket`.
pub(super) fn key_of(flat: &str) -> Option<(String, &'static str)> {
    PARTS.iter().find_map(|part| {
        let section = part.section.rsplit('.').next().unwrap_or_default();
        let key = match section {
            "" => flat,
            section => flat.strip_prefix(section)?.strip_prefix('_')?,
        };
        let (key, default) = part.keys.iter().find(|(name, _)| *name == key)?;
        Some((part.path(key), *default))
    })
}

/// What stands for a value that was not kept: it says something.
pub(super) fn mark(place: Place) -> Node {
    Node::map(place)
}

/// Whether a value is neither empty nor the default.
pub(super) fn says_something(value: &str, default: &str) -> bool {
    let (value, number) = (value.trim(), |text: &str| text.parse::<f64>().ok());
    let same_number = number(value).is_some_and(|value| Some(value) == number(default));
    !value.is_empty() && !value.eq_ignore_ascii_case(default) && !same_number
}

impl Part {
    fn path(&self, key: &str) -> String {
        if self.section.is_empty() { key.to_owned() } else { format!("{}.{key}", self.section) }
    }

    /// The value of one of its keys.
    fn value<'a>(&self, root: &Section<'a>, key: &'static str) -> Option<Field<'a>> {
        let mut names = self.section.split('.').filter(|name| !name.is_empty());
        match names.next() {
            None => root.get(key),
            Some(first) => names.try_fold(root.get(first)?, |field, name| field.child(name))?.child(key),
        }
    }
}

/// What was found, by part: the first place, and the keys.
#[derive(Default)]
pub(super) struct Unused(BTreeMap<usize, (Place, Vec<String>)>);

impl Unused {
    /// Notes what a layer says.
    pub(super) fn collect(&mut self, root: &Section<'_>) {
        for (number, part) in PARTS.iter().enumerate() {
            for (key, default) in part.keys {
                let Some(field) = part.value(root, key).filter(|field| says(field, default)) else { continue };
                let (_, keys) = self.0.entry(number).or_insert_with(|| (field.place(), Vec::new()));
                let path = part.path(key);
                if !keys.contains(&path) {
                    keys.push(path);
                }
            }
        }
    }

    /// One notice for each part.
    pub(super) fn notices(self) -> impl Iterator<Item = Notice> {
        self.0.into_iter().map(|(number, (place, keys))| {
            let (verb, advice) = (if keys.len() == 1 { "means" } else { "mean" }, PARTS[number].advice);
            Notice { place, text: format!("`{}` {verb} nothing here: {advice}", keys.join("`, `")) }
        })
    }
}

fn says(field: &Field<'_>, default: &str) -> bool {
    match field.value() {
        Value::Null => false,
        Value::Scalar(text) => says_something(text, default),
        Value::Map(_) => true,
        Value::List(items) => {
            let texts =
                items.iter().map(|item| if let Value::Scalar(text) = &item.value { text.as_str() } else { "…" });
            says_something(&texts.collect::<Vec<_>>().join(","), default)
        }
    }
}
