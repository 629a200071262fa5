//! Sources of messages: recordings, NDJSON and files, each behind [`Source`].
//!
//! Owns reading and decoding: a source turns what a robot recorded into [`SourceMessage`]s, one at a time, with bounded memory
//! whatever the file holds. It never applies rules, signs or stores, and never writes to what it reads. A source ends by
//! returning `None` (or an error, after which it stays ended); dropping it closes the file.
//!
//! Recordings come from anywhere. What cannot be decoded costs the topic or the message, by name, never the recording:
//! [`SourceItem::TopicLost`], [`SourceItem::Dropped`]. A damaged place is reported and reading goes on behind it where the
//! format allows: [`SourceItem::Damaged`].

pub mod cdr;
mod db3;
mod definition;
pub mod definitions;
mod directory;
mod fields;
mod file;
mod live;
mod mcap;
pub mod msgdef;
mod ndjson;
mod replay;
mod topic;

use std::{
    collections::BTreeSet,
    fmt, fs,
    io::Read as _,
    path::{Path, PathBuf},
    sync::Arc,
};

use tributary_protocol::rules::native::SchemaPaths;

pub(crate) use self::fields::find_mut;
pub use self::{
    db3::Db3Source,
    definition::{Definition, MAX_DEFINITION, definition_id},
    directory::{DirectorySource, DirectoryWatch},
    fields::{BlobField, Fields, INLINE_BYTES, PathSegment, reserved_key},
    file::{FileSlices, FileSource},
    live::{Installed, LiveDecoder},
    mcap::McapSource,
    ndjson::{NdjsonOptions, NdjsonSource},
    replay::{MAX_SILENCE, Pace, Replay, SPEEDS},
    topic::{RawMessage, RawSchema},
};

/// Largest message that is read unless the options say otherwise, in bytes.
pub const DEFAULT_MAX_MESSAGE: usize = 64 << 20;

/// Why a source cannot be opened or read on.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum IngestError {
    /// The file system refused.
    #[error("cannot read {path}")]
    Io {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// The file is of a kind that cannot be ingested this way.
    #[error("{path}: {reason}")]
    Unsupported {
        /// The file.
        path: PathBuf,
        /// What it is and what to do instead.
        reason: String,
    },
    /// The SQLite library refused the recording.
    #[error("{path} is not a readable rosbag2 recording")]
    Sqlite {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: rusqlite::Error,
    },
    /// More channels, schemas or files than any recording has.
    #[error("{path}: more than {limit} {what}")]
    TooMany {
        /// The file.
        path: PathBuf,
        /// What there is too much of.
        what: &'static str,
        /// The bound.
        limit: usize,
    },
}

/// Which topics.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum TopicFilter {
    /// Every topic.
    #[default]
    All,
    /// No topic.
    None,
    /// The named ones.
    Only(BTreeSet<String>),
    /// Those that a test says yes to.
    Where(TopicTest),
}

/// A test of topic names. Two are equal when they are the same one.
#[derive(Clone)]
pub struct TopicTest(Arc<dyn Fn(&str) -> bool + Send + Sync>);

impl TopicTest {
    /// From what decides.
    #[must_use]
    pub fn new(test: impl Fn(&str) -> bool + Send + Sync + 'static) -> Self {
        Self(Arc::new(test))
    }
}

impl fmt::Debug for TopicTest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("TopicTest")
    }
}

impl PartialEq for TopicTest {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
}

impl Eq for TopicTest {}

impl TopicFilter {
    /// Whether the topic is one of them.
    #[must_use]
    pub fn contains(&self, topic: &str) -> bool {
        match self {
            Self::All => true,
            Self::None => false,
            Self::Only(names) => names.contains(topic),
            Self::Where(TopicTest(test)) => test(topic),
        }
    }
}

/// How to read.
#[derive(Debug, Clone)]
pub struct IngestOptions {
    /// Topics to read; the others are skipped without decoding.
    pub topics: TopicFilter,
    /// Topics handed out as CDR bytes ([`Content::Raw`]) instead of fields.
    pub raw: TopicFilter,
    /// Directories with `.msg` files, for recordings without usable definitions.
    pub definition_dirs: Vec<PathBuf>,
    /// Look in the prefixes of `AMENT_PREFIX_PATH` too.
    pub ament: bool,
    /// A `.db3` recording may lack the definition of a type. Then hand its messages out raw, after a
    /// [`SourceItem::TopicUndecoded`]; without this the topic is lost.
    pub keep_undecoded: bool,
    /// Largest message or recording chunk, in bytes.
    pub max_message: usize,
    /// How NDJSON lines are read.
    pub ndjson: NdjsonOptions,
}

impl Default for IngestOptions {
    fn default() -> Self {
        Self {
            topics: TopicFilter::All,
            raw: TopicFilter::None,
            definition_dirs: Vec::new(),
            ament: true,
            keep_undecoded: true,
            max_message: DEFAULT_MAX_MESSAGE,
            ndjson: NdjsonOptions::default(),
        }
    }
}

/// One message of a source.
#[derive(Debug, Clone, PartialEq)]
pub struct SourceMessage {
    /// The topic.
    pub topic: Arc<str>,
    /// Its type (`pkg/msg/Type`, a schema name, or empty when the source knows none).
    pub type_name: Arc<str>,
    /// When it was recorded, nanoseconds since 1970 UTC.
    pub log_time_ns: u64,
    /// When it was published, nanoseconds since 1970 UTC; the log time where the source has no other.
    pub publish_time_ns: u64,
    /// What it says.
    pub content: Content,
}

impl SourceMessage {
    /// A value as a message of now: its fields are those of its JSON object.
    ///
    /// # Errors
    ///
    /// Why the value is no JSON object, such as a struct or a map, or cannot be a message.
    pub fn of(topic: &str, value: &impl serde::Serialize) -> Result<Self, String> {
        let text = serde_json::to_vec(value).map_err(|error| error.to_string())?;
        let fields = topic::json_fields(&text, tributary_protocol::package::MAX_LINE)?;
        let now = ndjson::now_ns();
        let content = Content::Fields(fields);
        Ok(Self { topic: topic.into(), type_name: "".into(), log_time_ns: now, publish_time_ns: now, content })
    }
}

/// What a message says.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub enum Content {
    /// Decoded fields, large byte arrays beside them.
    Fields(Fields),
    /// CDR bytes as they are.
    Raw(RawMessage),
    /// A slice of a file, in order; the topic is the file's name.
    Slice {
        /// The bytes.
        bytes: Vec<u8>,
        /// Where they start in the file.
        offset: u64,
    },
}

/// What a source yields.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub enum SourceItem {
    /// A message.
    Message(SourceMessage),
    /// Messages of this topic cannot be decoded and are left out from here on; the others go on.
    TopicLost {
        /// The topic.
        topic: Arc<str>,
        /// Why.
        reason: String,
    },
    /// No definition fits this topic's messages: they follow as raw CDR. Field rules cannot be applied to them.
    TopicUndecoded {
        /// The topic.
        topic: Arc<str>,
        /// Why.
        reason: String,
    },
    /// One message is left out.
    Dropped {
        /// Its topic.
        topic: Arc<str>,
        /// Why.
        reason: String,
    },
    /// A part of the recording is damaged or missing.
    Damaged {
        /// What and where, and whether reading goes on.
        reason: String,
    },
}

/// A source of messages. Reading blocks; run it on a thread that may.
pub trait Source {
    /// The next item, or `None` at the end.
    ///
    /// # Errors
    /// The source cannot be read on. What was yielded before is whole and valid.
    fn next(&mut self) -> Result<Option<SourceItem>, IngestError>;

    /// The paths of a topic's messages by its type's definition, once the source has met the topic. `None` when the topic
    /// has no schema here, or not yet.
    fn schema_paths(&self, topic: &str) -> Option<SchemaPaths>;
}

/// Opens a recording, an NDJSON file, any other file, or a directory of recordings, by what it is, not by its name. `-` is
/// NDJSON on standard input.
///
/// # Errors
/// The path cannot be read, or holds a compressed recording.
pub fn open(path: &Path, options: &IngestOptions) -> Result<Box<dyn Source + Send>, IngestError> {
    if path.as_os_str() == "-" {
        return Ok(Box::new(NdjsonSource::new(std::io::stdin(), path, options)));
    }
    let io = |source| IngestError::Io { path: path.to_owned(), source };
    if fs::metadata(path).map_err(io)?.is_dir() {
        return Ok(Box::new(DirectorySource::open(path, options)?));
    }
    Ok(match sniff(path)? {
        Kind::Mcap => Box::new(McapSource::open(path, options)?),
        Kind::Sqlite => Box::new(Db3Source::open(path, options)?),
        Kind::Ndjson => Box::new(NdjsonSource::new(fs::File::open(path).map_err(io)?, path, options)),
        Kind::Other => Box::new(FileSource::open(path)?),
        Kind::Compressed => {
            let reason = "a compressed recording; decompress it first (zstd -d)".to_owned();
            return Err(IngestError::Unsupported { path: path.to_owned(), reason });
        }
    })
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Mcap,
    Sqlite,
    Ndjson,
    Compressed,
    Other,
}

fn sniff(path: &Path) -> Result<Kind, IngestError> {
    let io = |source| IngestError::Io { path: path.to_owned(), source };
    let mut start = Vec::with_capacity(64);
    fs::File::open(path).map_err(io)?.take(64).read_to_end(&mut start).map_err(io)?;
    let name = path.file_name().unwrap_or_default().to_string_lossy().to_ascii_lowercase();
    let ends = |suffix: &str| name.ends_with(suffix);
    Ok(if start.starts_with(::mcap::MAGIC) {
        Kind::Mcap
    } else if start.starts_with(b"SQLite format 3\0") && !ends(".sqlite") {
        Kind::Sqlite
    } else if start.starts_with(&[0x28, 0xb5, 0x2f, 0xfd]) && (ends(".mcap.zstd") || ends(".db3.zstd")) {
        Kind::Compressed
    } else if ends(".ndjson") || ends(".jsonl") {
        // Any text may begin with a brace, so a file of lines says so by its name.
        Kind::Ndjson
    } else {
        Kind::Other
    })
}

#[cfg(test)]
mod tests;
