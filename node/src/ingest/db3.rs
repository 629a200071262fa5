//! rosbag2 recordings in SQLite (`.db3`), of any schema version.
//!
//! Opened read-only and immutable, so nothing is ever created beside the recording. Messages come in the order of their time.
//! The definitions such a recording carries are not to be trusted: some writers leave placeholders, and old versions have
//! none. So for each topic the candidates (the recording's own, the directories, the built-in set) are tried on the first
//! message, and the one that ends nearest to its last byte is taken.

use std::{
    collections::HashMap,
    path::{Path, PathBuf},
    sync::Arc,
};

use rusqlite::{Connection, OpenFlags, OptionalExtension as _};

use tributary_protocol::rules::native::SchemaPaths;

use super::{
    Definition, IngestError, IngestOptions, Source, SourceItem, SourceMessage, cdr,
    definitions::{Builtin, Definitions, complete_text},
    msgdef::{self, Lookup as _, NoLookup, Plan, normalize_type_name},
    topic::{Decoding, RawSchema},
};

/// Most topics of one recording.
const MAX_TOPICS: usize = 4096;
/// Most bytes of all definitions together; those beyond are not looked at.
const MAX_DEFINITION_BYTES: usize = 32 << 20;
/// Message keys fetched at once.
const PAGE: usize = 1024;
/// A definition that leaves more than this unread is a wrong one. rclpy leaves up to 16 bytes of padding and stale memory.
const NEAR_END: usize = 16;

struct Topic {
    name: Arc<str>,
    type_name: Arc<str>,
    serialization: String,
    decoding: Option<Decoding>,
    /// Definitions that compiled, best first once a message has been seen.
    candidates: Vec<Candidate>,
}

#[derive(Clone)]
struct Candidate {
    plan: Arc<Plan>,
    text: Arc<str>,
}

/// A source over one `.db3` file.
pub struct Db3Source {
    path: PathBuf,
    database: Connection,
    options: IngestOptions,
    topics: HashMap<i64, Topic>,
    /// Keys (time, id) of the next messages, in reverse.
    page: Vec<(i64, i64)>,
    last: Option<(i64, i64)>,
    waiting: Vec<SourceItem>,
    ended: bool,
}

impl Db3Source {
    /// Opens a recording.
    ///
    /// # Errors
    /// The file is no rosbag2 recording, or cannot be read.
    pub fn open(path: &Path, options: &IngestOptions) -> Result<Self, IngestError> {
        let sqlite = |source| IngestError::Sqlite { path: path.to_owned(), source };
        let absolute = std::path::absolute(path).map_err(|source| IngestError::Io { path: path.to_owned(), source })?;
        let uri = format!("file:{}?mode=ro&immutable=1", percent_encode(&absolute));
        let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_URI | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let database = Connection::open_with_flags(uri, flags).map_err(sqlite)?;
        // The schema of a foreign file must not run functions of ours.
        database.pragma_update(None, "trusted_schema", false).map_err(sqlite)?;
        for table in ["topics", "messages"] {
            if !has_table(&database, table).map_err(sqlite)? {
                let reason = format!("an SQLite file without the table {table:?}: not a rosbag2 recording");
                return Err(IngestError::Unsupported { path: path.to_owned(), reason });
            }
        }
        let mut source = Self {
            path: path.to_owned(),
            database,
            options: options.clone(),
            topics: HashMap::new(),
            page: Vec::new(),
            last: None,
            waiting: Vec::new(),
            ended: false,
        };
        source.read_topics()?;
        let mut wal = path.as_os_str().to_owned();
        wal.push("-wal");
        if std::fs::metadata(&wal).is_ok_and(|m| m.len() > 0) {
            let reason =
                "the recording was not closed: what is still in its -wal file is not read; open and close it with \
                          sqlite3 or `ros2 bag reindex` first"
                    .to_owned();
            source.waiting.push(SourceItem::Damaged { reason });
        }
        Ok(source)
    }

    fn sqlite(&self, source: rusqlite::Error) -> IngestError {
        IngestError::Sqlite { path: self.path.clone(), source }
    }

    fn read_topics(&mut self) -> Result<(), IngestError> {
        let definitions = Definitions::new(&self.options.definition_dirs, self.options.ament);
        let rows = self.topic_rows().map_err(|e| self.sqlite(e))?;
        if rows.len() > MAX_TOPICS {
            return Err(IngestError::TooMany { path: self.path.clone(), what: "topics", limit: MAX_TOPICS });
        }
        let own = has_table(&self.database, "message_definitions").map_err(|e| self.sqlite(e))?;
        let mut by_type: HashMap<String, Vec<Candidate>> = HashMap::new();
        let mut budget = MAX_DEFINITION_BYTES;
        for (id, name, type_name, serialization) in rows {
            let mut topic = Topic {
                name: name.into(),
                type_name: type_name.into(),
                serialization,
                decoding: None,
                candidates: Vec::new(),
            };
            if !self.options.topics.contains(&topic.name) {
                topic.decoding = Some(Decoding::Skip);
            } else if topic.serialization == "cdr" {
                // Many topics of one type cost one look.
                if !by_type.contains_key(&*topic.type_name) {
                    let found = self.candidates(&topic.type_name, own && budget > 0, &definitions);
                    budget = budget.saturating_sub(found.iter().map(|c| c.text.len()).sum());
                    by_type.insert(topic.type_name.to_string(), found);
                }
                topic.candidates = by_type.get(&*topic.type_name).cloned().unwrap_or_default();
            } else {
                topic.decoding = Some(Decoding::Skip);
                let shown: String = topic.serialization.chars().take(64).collect();
                let reason = format!("serialization format {shown:?} is not supported, only cdr");
                self.waiting.push(SourceItem::TopicLost { topic: Arc::clone(&topic.name), reason });
            }
            self.topics.insert(id, topic);
        }
        self.waiting.reverse();
        Ok(())
    }

    fn topic_rows(&self) -> rusqlite::Result<Vec<(i64, String, String, String)>> {
        let mut statement =
            self.database.prepare("SELECT id, name, type, serialization_format FROM topics ORDER BY id LIMIT ?1")?;
        let limit = i64::try_from(MAX_TOPICS + 1).unwrap_or(i64::MAX);
        statement.query_map([limit], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?)))?.collect()
    }

    /// Every definition of a type that compiles: the recording's own first.
    fn candidates(&self, type_name: &str, own: bool, definitions: &Definitions) -> Vec<Candidate> {
        let Some(short) = normalize_type_name(type_name) else { return Vec::new() };
        let from_table = || -> Option<String> {
            let query = "SELECT encoded_message_definition FROM message_definitions \
                         WHERE topic_type = ?1 AND encoding = 'ros2msg' AND length(encoded_message_definition) <= ?2";
            let limit = i64::try_from(msgdef::MAX_TEXT).unwrap_or(i64::MAX);
            // A table of another shape is as good as none.
            self.database.query_row(query, (type_name, limit), |row| row.get(0)).optional().ok().flatten()
        };
        let texts = [own.then(from_table).flatten(), definitions.in_directories(type_name), Builtin.find(&short)];
        let mut candidates: Vec<Candidate> = Vec::new();
        for text in texts.into_iter().flatten() {
            if let Ok(plan) = Plan::compile(type_name, &text, definitions)
                && candidates.iter().all(|known| *known.plan != plan)
            {
                let text = complete_text(type_name, &text, definitions).unwrap_or(text);
                candidates.push(Candidate { plan: Arc::new(plan), text: text.into() });
            }
        }
        candidates
    }

    fn next_key(&mut self) -> Result<Option<(i64, i64)>, IngestError> {
        if self.page.is_empty() {
            self.page = self.read_page().map_err(|e| self.sqlite(e))?;
            self.page.reverse();
        }
        self.last = self.page.pop();
        Ok(self.last)
    }

    fn read_page(&self) -> rusqlite::Result<Vec<(i64, i64)>> {
        let (time, id) = self.last.unwrap_or((i64::MIN, i64::MIN));
        let query = "SELECT timestamp, id FROM messages WHERE timestamp >= ?1 AND (timestamp > ?1 OR id > ?2) \
                     ORDER BY timestamp, id LIMIT ?3";
        let mut statement = self.database.prepare_cached(query)?;
        let page = i64::try_from(PAGE).unwrap_or(i64::MAX);
        statement.query_map((time, id, page), |row| Ok((row.get(0)?, row.get(1)?)))?.collect()
    }

    /// The message of a key: its topic, and its bytes unless there are too many.
    fn read_message(&self, id: i64) -> rusqlite::Result<(i64, i64, Option<Vec<u8>>)> {
        let query =
            "SELECT topic_id, length(data), CASE WHEN length(data) <= ?2 THEN data END FROM messages WHERE id = ?1";
        let mut statement = self.database.prepare_cached(query)?;
        let limit = i64::try_from(self.options.max_message).unwrap_or(i64::MAX);
        statement.query_row((id, limit), |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)))
    }

    fn message(&mut self, time: i64, id: i64) -> Result<Option<SourceItem>, IngestError> {
        let (topic_id, length, data) = match self.read_message(id) {
            Ok(row) => row,
            Err(error @ rusqlite::Error::SqliteFailure(..)) => return Err(self.sqlite(error)),
            // A value of another type than the table says; SQLite allows that.
            Err(error) => {
                return Ok(Some(SourceItem::Damaged { reason: format!("message {id} is unreadable: {error}") }));
            }
        };
        let Some(topic) = self.topics.get_mut(&topic_id) else {
            return Ok(Some(SourceItem::Damaged { reason: format!("message {id} belongs to no topic") }));
        };
        if matches!(topic.decoding, Some(Decoding::Skip)) {
            return Ok(None);
        }
        let name = Arc::clone(&topic.name);
        let max = self.options.max_message;
        let Some(data) = data else {
            let reason = format!("message of {length} bytes; at most {max} are read");
            return Ok(Some(SourceItem::Dropped { topic: name, reason }));
        };
        let raw = self.options.raw.contains(&name);
        let notice =
            if topic.decoding.is_none() { topic.choose(&data, raw, self.options.keep_undecoded) } else { None };
        let decoding = topic.decoding.as_ref().unwrap_or(&Decoding::Skip);
        let log_time_ns = u64::try_from(time).unwrap_or(0);
        let item = match decoding.content(&data, max) {
            Ok(None) => None,
            Ok(Some(content)) => Some(SourceItem::Message(SourceMessage {
                topic: name,
                type_name: Arc::clone(&topic.type_name),
                log_time_ns,
                publish_time_ns: log_time_ns,
                content,
            })),
            Err(reason) => Some(SourceItem::Dropped { topic: name, reason }),
        };
        Ok(match notice {
            Some(notice) => {
                self.waiting.extend(item);
                Some(notice)
            }
            None => item,
        })
    }
}

impl Topic {
    /// Decides how to read this topic by its first message. Returns what the user should know.
    fn choose(&mut self, message: &[u8], raw: bool, keep_undecoded: bool) -> Option<SourceItem> {
        let left = |candidate: &Candidate| {
            cdr::measure(&candidate.plan, message).ok().map(|used| message.len().saturating_sub(used))
        };
        let best = self
            .candidates
            .iter()
            .filter_map(|candidate| Some((left(candidate).filter(|&n| n < NEAR_END)?, candidate)))
            // The first of equals: the order of sources decides.
            .min_by_key(|(left, _)| *left)
            .map(|(_, candidate)| candidate.clone());
        let topic = Arc::clone(&self.name);
        let schema = best.as_ref().map(|best| RawSchema {
            name: Arc::clone(&self.type_name),
            encoding: "ros2msg".into(),
            text: Arc::clone(&best.text),
        });
        let (decoding, notice) = match best {
            _ if raw => (Decoding::Raw { plan: best.map(|b| b.plan), schema }, None),
            Some(best) => {
                let definition = Definition::of(&self.type_name, &best.text, &best.plan, &NoLookup);
                (Decoding::Cdr { plan: best.plan, definition }, None)
            }
            None => {
                let known = if self.candidates.is_empty() { "no definition of" } else { "no known definition fits" };
                let hint = "give a directory with its .msg file";
                let reason = format!("{known} {}; {hint}", self.type_name);
                if keep_undecoded {
                    (Decoding::Raw { plan: None, schema: None }, Some(SourceItem::TopicUndecoded { topic, reason }))
                } else {
                    (Decoding::Skip, Some(SourceItem::TopicLost { topic, reason }))
                }
            }
        };
        self.decoding = Some(decoding);
        notice
    }
}

impl Source for Db3Source {
    fn next(&mut self) -> Result<Option<SourceItem>, IngestError> {
        loop {
            if let Some(item) = self.waiting.pop() {
                return Ok(Some(item));
            }
            if self.ended {
                return Ok(None);
            }
            let step = match self.next_key() {
                Ok(None) => {
                    self.ended = true;
                    return Ok(None);
                }
                Ok(Some((time, id))) => self.message(time, id),
                Err(error) => Err(error),
            };
            match step {
                Ok(None) => {}
                Ok(item) => return Ok(item),
                Err(error) => {
                    self.ended = true;
                    return Err(error);
                }
            }
        }
    }

    fn schema_paths(&self, topic: &str) -> Option<SchemaPaths> {
        self.topics.values().find(|t| &*t.name == topic)?.decoding.as_ref()?.schema_paths()
    }
}

/// Whether there is a real table of this name: a view or a virtual table could run code of the file's author.
fn has_table(database: &Connection, name: &str) -> rusqlite::Result<bool> {
    let query = "SELECT count(*) FROM sqlite_master WHERE type = 'table' AND name = ?1 AND rootpage > 0";
    database.query_row(query, [name], |row| row.get::<_, i64>(0)).map(|n| n > 0)
}

/// A path as it stands in a `file:` URI.
fn percent_encode(path: &Path) -> String {
    let mut out = String::new();
    for &byte in path.as_os_str().as_encoded_bytes() {
        if byte.is_ascii_alphanumeric() || matches!(byte, b'/' | b'-' | b'_' | b'.' | b'~') {
            out.push(char::from(byte));
        } else {
            out.push_str(&format!("%{byte:02X}"));
        }
    }
    out
}
