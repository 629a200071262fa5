//! One live topic: how its messages become content.
//!
//! The definition is that of the installed package, the same that the topic's publishers on this machine are built with. Fields are
//! decoded with it only; without it a topic can be taken whole.

use std::{path::PathBuf, sync::Arc};

use tributary_protocol::rules::native::SchemaPaths;

use super::{
    Content, Definition, RawMessage, RawSchema, cdr,
    cdr::StampPlace,
    definitions::{Definitions, complete_text},
    msgdef::{Lookup, Plan, normalize_type_name},
    topic::Decoding,
};

/// The definitions of the packages that are installed, and no others.
#[derive(Debug, Clone)]
pub struct Installed(Definitions);

impl Installed {
    /// Those in the prefixes of `AMENT_PREFIX_PATH`.
    #[must_use]
    pub fn ament() -> Self {
        Self(Definitions::new(&[], true))
    }

    /// Those in directories; see [`Definitions::new`].
    #[must_use]
    pub fn in_directories(directories: &[PathBuf]) -> Self {
        Self(Definitions::new(directories, false))
    }
}

impl Lookup for Installed {
    fn find(&self, full_name: &str) -> Option<String> {
        self.0.in_directories(full_name)
    }
}

/// How messages of one topic are read.
#[derive(Debug, Clone)]
pub struct LiveDecoder {
    decoding: Decoding,
    plan: Option<Arc<Plan>>,
    stamp: Option<StampPlace>,
}

impl LiveDecoder {
    /// Prepares for messages of a type: whole ones with `raw`, otherwise their fields.
    ///
    /// # Errors
    /// Fields are wanted and there is no definition that could be used; the text says why and what to do.
    pub fn new(type_name: &str, raw: bool, installed: &Installed) -> Result<Self, String> {
        let text = normalize_type_name(type_name).and_then(|name| installed.find(&name));
        let compiled = match &text {
            Some(text) => Plan::compile(type_name, text, installed).map_err(|error| error.to_string()),
            None => {
                Err(format!("no definition of {type_name} is installed (share/…/msg/….msg under AMENT_PREFIX_PATH)"))
            }
        };
        let plan = match compiled {
            Ok(plan) => Some(Arc::new(plan)),
            Err(_) if raw => None,
            Err(reason) => {
                return Err(format!("{reason}; install its package, or take the topic whole with `mode: raw`"));
            }
        };
        let stamp = plan.as_ref().and_then(|plan| StampPlace::find(plan));
        let decoding = match (&plan, text) {
            (Some(plan), Some(text)) if !raw => {
                Decoding::Cdr { plan: Arc::clone(plan), definition: Definition::of(type_name, &text, plan, installed) }
            }
            (plan, text) => {
                let text = plan.as_ref().and(text).and_then(|text| complete_text(type_name, &text, installed));
                let schema = text.map(|text| RawSchema {
                    name: type_name.into(),
                    encoding: "ros2msg".into(),
                    text: text.into(),
                });
                Decoding::Raw { plan: plan.clone(), schema }
            }
        };
        Ok(Self { decoding, plan, stamp })
    }

    /// The paths that field rules may name; `None` for whole messages.
    #[must_use]
    pub fn schema_paths(&self) -> Option<SchemaPaths> {
        self.decoding.schema_paths()
    }

    /// Whether the type has a time stamp of its own.
    #[must_use]
    pub fn has_stamp(&self) -> bool {
        self.stamp.is_some()
    }

    /// The time a message says it is of, in nanoseconds since 1970, where it says one.
    #[must_use]
    pub fn stamp(&self, message: &[u8]) -> Option<u64> {
        self.stamp.and_then(|place| place.read(self.plan.as_ref()?, message))
    }

    /// What a message says. A whole message takes the buffer with it and leaves an empty one; of fields, the buffer is only read.
    ///
    /// # Errors
    /// The bytes do not fit the definition.
    pub fn content(&self, message: &mut Vec<u8>) -> Result<Content, String> {
        if let Decoding::Raw { plan, schema } = &self.decoding {
            let used = plan.as_ref().and_then(|plan| cdr::measure(plan, message).ok());
            message.truncate(used.unwrap_or(message.len()));
            let (cdr, schema) = (std::mem::take(message), schema.clone());
            return Ok(Content::Raw(RawMessage { cdr, trimmed: used.is_some(), schema }));
        }
        let content = self.decoding.content(message, usize::MAX)?;
        content.ok_or_else(|| "the topic is not read".to_owned())
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use tributary_protocol::json::Value;

    use super::*;

    fn installed() -> (tempfile::TempDir, Installed) {
        let dir = tempfile::tempdir().unwrap();
        let share = dir.path().join("share/own_msgs/msg");
        fs::create_dir_all(&share).unwrap();
        fs::write(share.join("Inner.msg"), "uint8 n\n").unwrap();
        fs::write(share.join("Outer.msg"), "builtin_interfaces/Time stamp\nInner inner\n").unwrap();
        fs::write(share.join("Broken.msg"), "Gone gone\n").unwrap();
        let installed = Installed::in_directories(&[dir.path().to_owned()]);
        (dir, installed)
    }

    /// `Outer` of the second 7 with `n` = 5, and stale memory behind.
    const OUTER: [u8; 16] = [0, 1, 0, 0, 7, 0, 0, 0, 0, 0, 0, 0, 5, 9, 9, 9];

    #[test]
    fn fields_are_decoded_with_what_is_installed_and_a_whole_message_keeps_its_buffer() {
        let (_dir, installed) = installed();
        let decoder = LiveDecoder::new("own_msgs/msg/Outer", false, &installed).unwrap();
        let mut buffer = OUTER.to_vec();
        assert_eq!(decoder.stamp(&buffer), Some(7_000_000_000));
        let Content::Fields(fields) = decoder.content(&mut buffer).unwrap() else { panic!("fields") };
        assert_eq!(fields.value.get("inner").unwrap().as_object().unwrap().get("n"), Some(&Value::from(5i64)));
        assert!(fields.definition.unwrap().text.contains("MSG: own_msgs/Inner"));
        assert!(decoder.schema_paths().is_some());
        assert_eq!(buffer, OUTER, "only read");

        let decoder = LiveDecoder::new("own_msgs/msg/Outer", true, &installed).unwrap();
        assert_eq!(decoder.stamp(&buffer), Some(7_000_000_000));
        let place = buffer.as_ptr();
        let Content::Raw(raw) = decoder.content(&mut buffer).unwrap() else { panic!("raw") };
        assert_eq!((raw.cdr.as_ptr(), raw.trimmed), (place, true));
        assert_eq!(raw.cdr, OUTER[..13]);
        assert!(raw.schema.unwrap().text.contains("MSG: own_msgs/Inner"));
        assert!(decoder.schema_paths().is_none() && buffer.is_empty());
    }

    #[test]
    fn without_a_definition_a_topic_is_refused_or_goes_whole() {
        let (_dir, installed) = installed();
        // The built-in set knows std_msgs, but that is not what is installed here.
        for name in ["std_msgs/msg/String", "own_msgs/msg/Broken", "own_msgs/msg/Gone"] {
            let reason = LiveDecoder::new(name, false, &installed).unwrap_err();
            assert!(reason.contains("mode: raw"), "{reason}");
            let decoder = LiveDecoder::new(name, true, &installed).unwrap();
            let mut buffer = OUTER.to_vec();
            let Content::Raw(raw) = decoder.content(&mut buffer).unwrap() else { panic!("raw") };
            assert_eq!((raw.cdr.as_slice(), raw.trimmed, raw.schema), (&OUTER[..], false, None));
        }
    }
}
