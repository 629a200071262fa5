//! NDJSON: one JSON object per line, from a file, standard input or a socket.
//!
//! Each line is the fields of one message. Topic, type and time come from the options, or from keys of the object that the
//! options name; those keys stay in the fields. A line that is not an object, is too long, or has a key that begins with `@`
//! is dropped and counted by the reader of the items; empty lines are skipped.

use std::{
    io::{BufRead as _, BufReader, Read},
    path::{Path, PathBuf},
    sync::Arc,
    time::{SystemTime, UNIX_EPOCH},
};

use time::{OffsetDateTime, format_description::well_known::Rfc3339};
use tributary_protocol::{
    json::{Number, Object, Value},
    package::MAX_LINE,
    rules::native::SchemaPaths,
};

use super::{Content, IngestError, IngestOptions, Source, SourceItem, SourceMessage, topic::json_fields};

/// How lines become messages.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NdjsonOptions {
    /// Topic of a line that names none.
    pub topic: String,
    /// Type of every line.
    pub type_name: String,
    /// Top-level key whose string is the topic.
    pub topic_field: Option<String>,
    /// Top-level key with the time: an RFC 3339 string, an integer of nanoseconds since 1970, or a float of seconds. Lines
    /// without a usable one are dropped. Without this option the time is when the line was read.
    pub time_field: Option<String>,
    /// Longest line, in bytes; at most [`MAX_LINE`], since a package could not hold a longer one.
    pub max_line: usize,
}

impl Default for NdjsonOptions {
    fn default() -> Self {
        Self {
            topic: "/ndjson".to_owned(),
            type_name: String::new(),
            topic_field: None,
            time_field: None,
            max_line: 4 << 20,
        }
    }
}

/// A source over lines.
pub struct NdjsonSource {
    path: PathBuf,
    input: BufReader<Box<dyn Read + Send>>,
    options: NdjsonOptions,
    filter: super::TopicFilter,
    topic: Arc<str>,
    type_name: Arc<str>,
    line: Vec<u8>,
    number: u64,
    ended: bool,
}

enum Line {
    Whole,
    TooLong,
    End,
}

impl NdjsonSource {
    /// Reads lines from `input`; `path` is what errors call it.
    #[must_use]
    pub fn new(input: impl Read + Send + 'static, path: &Path, options: &IngestOptions) -> Self {
        let mut ndjson = options.ndjson.clone();
        ndjson.max_line = ndjson.max_line.min(MAX_LINE);
        Self {
            path: path.to_owned(),
            input: BufReader::with_capacity(64 << 10, Box::new(input)),
            options: ndjson,
            filter: options.topics.clone(),
            topic: options.ndjson.topic.as_str().into(),
            type_name: options.ndjson.type_name.as_str().into(),
            line: Vec::new(),
            number: 0,
            ended: false,
        }
    }

    /// Reads one line into the buffer; of a line that is too long nothing is kept.
    fn read_line(&mut self) -> std::io::Result<Line> {
        self.line.clear();
        let mut too_long = false;
        let mut any = false;
        loop {
            let available = match self.input.fill_buf() {
                Ok(available) => available,
                Err(e) if e.kind() == std::io::ErrorKind::Interrupted => continue,
                Err(e) => return Err(e),
            };
            if available.is_empty() {
                break;
            }
            any = true;
            let (part, used, done) = match available.iter().position(|&b| b == b'\n') {
                Some(at) => (&available[..at], at + 1, true),
                None => (available, available.len(), false),
            };
            too_long |= self.line.len() + part.len() > self.options.max_line;
            if !too_long {
                self.line.extend_from_slice(part);
            }
            self.input.consume(used);
            if done {
                break;
            }
        }
        Ok(if !any {
            Line::End
        } else if too_long {
            Line::TooLong
        } else {
            Line::Whole
        })
    }

    fn message(&mut self) -> Option<SourceItem> {
        let number = self.number;
        let dropped = |topic: &Arc<str>, reason: String| {
            Some(SourceItem::Dropped { topic: Arc::clone(topic), reason: format!("line {number}: {reason}") })
        };
        let fields = match json_fields(&self.line, self.options.max_line) {
            Ok(fields) => fields,
            Err(reason) => return dropped(&self.topic, reason),
        };
        let topic = match &self.options.topic_field {
            None => Arc::clone(&self.topic),
            Some(key) => match fields.value.get(key) {
                None => Arc::clone(&self.topic),
                Some(Value::String(name)) if *name == *self.topic => Arc::clone(&self.topic),
                Some(Value::String(name)) => Arc::from(name.as_str()),
                Some(_) => return dropped(&self.topic, format!("{key:?} is not a string")),
            },
        };
        if !self.filter.contains(&topic) {
            return None;
        }
        let time = match &self.options.time_field {
            None => now_ns(),
            Some(key) => match time_of(&fields.value, key) {
                Some(time) => time,
                None => {
                    return dropped(
                        &topic,
                        format!("{key:?} holds no time (RFC 3339, integer nanoseconds or float seconds)"),
                    );
                }
            },
        };
        Some(SourceItem::Message(SourceMessage {
            topic,
            type_name: Arc::clone(&self.type_name),
            log_time_ns: time,
            publish_time_ns: time,
            content: Content::Fields(fields),
        }))
    }
}

pub(super) fn now_ns() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_nanos()).unwrap_or(u64::MAX)
}

fn time_of(object: &Object, key: &str) -> Option<u64> {
    /// Ten digits of seconds fit well below the 2^53 where a float loses whole numbers.
    const MAX_SECONDS: f64 = 9_999_999_999.0;
    match object.get(key)? {
        Value::Number(Number::Int(ns)) => u64::try_from(*ns).ok(),
        Value::Number(Number::UInt(ns)) => Some(*ns),
        Value::Number(Number::Float(seconds)) if (0.0..=MAX_SECONDS).contains(seconds) => {
            u64::try_from(std::time::Duration::try_from_secs_f64(*seconds).ok()?.as_nanos()).ok()
        }
        Value::String(text) => u64::try_from(OffsetDateTime::parse(text, &Rfc3339).ok()?.unix_timestamp_nanos()).ok(),
        _ => None,
    }
}

impl Source for NdjsonSource {
    fn next(&mut self) -> Result<Option<SourceItem>, IngestError> {
        while !self.ended {
            let line = self.read_line();
            self.number += 1;
            match line {
                Ok(Line::End) => self.ended = true,
                Ok(Line::TooLong) => {
                    let reason = format!("line {}: longer than {} bytes", self.number, self.options.max_line);
                    return Ok(Some(SourceItem::Dropped { topic: Arc::clone(&self.topic), reason }));
                }
                Ok(Line::Whole) if self.line.iter().all(u8::is_ascii_whitespace) => {}
                Ok(Line::Whole) => {
                    if let Some(item) = self.message() {
                        return Ok(Some(item));
                    }
                }
                Err(source) => {
                    self.ended = true;
                    return Err(IngestError::Io { path: self.path.clone(), source });
                }
            }
        }
        Ok(None)
    }

    fn schema_paths(&self, _topic: &str) -> Option<SchemaPaths> {
        None
    }
}
