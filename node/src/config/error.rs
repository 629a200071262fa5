//! What can be wrong with a configuration, told so that the reader can put it right: where, which key, what was expected.

use std::{fmt, path::PathBuf, sync::Arc};

/// At most this many characters of a refused value are repeated in an error.
const EXCERPT: usize = 60;

/// Where a value came from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Place {
    /// A place in the file.
    File {
        /// The file's path as it was given.
        file: Arc<str>,
        /// Line, from 1.
        line: usize,
        /// Column in characters, from 1.
        column: usize,
    },
    /// An environment variable of this name.
    Environment(Arc<str>),
    /// A command line flag, as it is written.
    Flag(Arc<str>),
    /// A parameter of the ROS node, of this name.
    Parameter(Arc<str>),
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File { file, line, column } => write!(f, "{file}:{line}:{column}"),
            Self::Environment(name) => write!(f, "environment variable {name}"),
            Self::Flag(name) => write!(f, "flag {name}"),
            Self::Parameter(name) => write!(f, "ROS parameter {name}"),
        }
    }
}

/// Something that was accepted, and that a person should know about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Notice {
    /// Where it stands.
    pub place: Place,
    /// What it is, and what to do instead. Holds no value of the configuration.
    pub text: String,
}

impl fmt::Display for Notice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.place, self.text)
    }
}

/// Why a configuration was refused. The message of each names the place, the key, and what was expected there.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ConfigError {
    /// The file cannot be read.
    #[error("cannot read the configuration {}: {source}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// The system's reason.
        source: std::io::Error,
    },
    /// The file is larger than any configuration should be.
    #[error("{place}: the configuration is larger than {limit} bytes")]
    TooLarge {
        /// Where reading stopped.
        place: Place,
        /// The bound, in bytes.
        limit: usize,
    },
    /// Not YAML, or YAML of a kind that a configuration does not need.
    #[error("{place}: {message}")]
    Syntax {
        /// Where it was noticed.
        place: Place,
        /// What is wrong.
        message: String,
    },
    /// A key that does not exist.
    #[error("{place}: unknown key `{key}`{}; expected one of {expected}", suggest(.suggestion))]
    UnknownKey {
        /// Where the key stands.
        place: Place,
        /// Full path of the key.
        key: String,
        /// The known key that looks most like it.
        suggestion: Option<String>,
        /// The keys that exist there.
        expected: String,
    },
    /// A key that must be there and is not.
    #[error("{place}: `{key}` is missing; expected {expected}")]
    Missing {
        /// Where the section starts that lacks it.
        place: Place,
        /// Full path of the key.
        key: String,
        /// What belongs there.
        expected: String,
    },
    /// A value of the wrong kind, form or range.
    #[error("{place}: `{key}` is {found}; expected {expected}")]
    Value {
        /// Where the value stands.
        place: Place,
        /// Full path of the key.
        key: String,
        /// What was found, shortened.
        found: String,
        /// What belongs there.
        expected: String,
    },
    /// Values that cannot stand together.
    #[error("{place}: `{key}` {problem}")]
    Conflict {
        /// Where the later of them stands.
        place: Place,
        /// Full path of the key.
        key: String,
        /// What does not fit, and what to do.
        problem: String,
    },
}

impl ConfigError {
    /// Where the problem is; `None` when the file could not be read at all.
    #[must_use]
    pub fn place(&self) -> Option<&Place> {
        match self {
            Self::Read { .. } => None,
            Self::TooLarge { place, .. }
            | Self::Syntax { place, .. }
            | Self::UnknownKey { place, .. }
            | Self::Missing { place, .. }
            | Self::Value { place, .. }
            | Self::Conflict { place, .. } => Some(place),
        }
    }

    /// Full path of the key, such as `streams[2].rules[0].path`; `None` when the problem is not a key's.
    #[must_use]
    pub fn key(&self) -> Option<&str> {
        match self {
            Self::Read { .. } | Self::TooLarge { .. } | Self::Syntax { .. } => None,
            Self::UnknownKey { key, .. }
            | Self::Missing { key, .. }
            | Self::Value { key, .. }
            | Self::Conflict { key, .. } => Some(key),
        }
    }

    /// What belongs at the place; `None` when there is no such list or form.
    #[must_use]
    pub fn expected(&self) -> Option<&str> {
        match self {
            Self::UnknownKey { expected, .. } | Self::Missing { expected, .. } | Self::Value { expected, .. } => {
                Some(expected)
            }
            _ => None,
        }
    }
}

fn suggest(suggestion: &Option<String>) -> String {
    suggestion.as_ref().map(|s| format!(", perhaps `{s}`")).unwrap_or_default()
}

/// `text` for a message: shortened, and with control characters escaped so that a file cannot drive a terminal.
pub(super) fn excerpt(text: &str) -> String {
    let mut out: String = text.chars().take(EXCERPT).flat_map(char::escape_debug).collect();
    if text.chars().nth(EXCERPT).is_some() {
        out.push('…');
    }
    out
}
