//! Why a machine cannot be opened or asked.

use tributary_store::StoreError;

use super::{
    Displaced, ForgetError, LaneError, LogError, MachineLogError, OriginError, OwnBindingError, SelectionError,
};
use crate::{
    config::{MAX_NAME, RulesError},
    home::HomeError,
    proposal::Change,
};

/// Why a machine cannot be opened or asked.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum MachineError {
    /// The home's keys cannot be read.
    #[error(transparent)]
    Home(#[from] HomeError),
    /// The store failed.
    #[error("the store failed: {0}")]
    Store(#[from] StoreError),
    /// The bindings are missing, damaged, or do not fit.
    #[error(transparent)]
    Binding(#[from] OwnBindingError),
    /// The home's origin cannot be checked.
    #[error(transparent)]
    Origin(#[from] OriginError),
    /// The home was copied or restored and may not publish in its incarnation.
    #[error(
        "{reason}; nothing may be published in incarnation {incarnation} any more. Run `tributary key bind --incarnation --owner-key FILE` with the owner's key to start the next one"
    )]
    Displaced {
        /// What was found.
        reason: Displaced,
        /// The incarnation that is over.
        incarnation: u32,
    },
    /// The feed key in the home is not the one that the binding names.
    #[error(
        "the feed key in this home is not the one of binding {serial}; apply the signed proposal again with `tributary key apply FILE`, or run `tributary key bind --owner-key FILE` with the owner's key"
    )]
    FeedKey {
        /// Serial of the newest binding.
        serial: u64,
    },
    /// The epoch seeds cannot be read or forgotten.
    #[error(transparent)]
    Forget(#[from] ForgetError),
    /// New keys wait for the owner's signature: what is published now would count for nobody.
    #[error(
        "{change} waits for the owner's signature, as binding {serial}, and nothing may be published before; put it into force with `tributary key apply FILE`, or give it up with `tributary key cancel`"
    )]
    Waiting {
        /// What waits.
        change: Change,
        /// Serial of the binding.
        serial: u64,
    },
    /// A stream's rules cannot be loaded.
    #[error("the rules of stream {stream} cannot be loaded: {source}")]
    Rules {
        /// The stream.
        stream: String,
        /// What is wrong.
        source: RulesError,
    },
    /// A lane failed.
    #[error("stream {stream}: {source}")]
    Lane {
        /// The stream.
        stream: String,
        /// What is wrong.
        source: LaneError,
    },
    /// No stream of that name.
    #[error("no stream {name:?} in the configuration; there are: {known}")]
    NoStream {
        /// What was asked for.
        name: String,
        /// The names of the streams.
        known: String,
    },
    /// A pattern means more topics than there may be streams.
    #[error(
        "no stream for the topic {topic}: there are {limit} streams already, which is the most; name fewer topics with patterns"
    )]
    TooManyStreams {
        /// The topic.
        topic: String,
        /// The most streams there may be.
        limit: usize,
    },
    /// A topic that a pattern means is called as another stream is published.
    #[error(
        "no stream for the topic {topic}: the stream of the topic {other} is published under that name; give one of them an alias"
    )]
    NameTaken {
        /// The topic.
        topic: String,
        /// Topic of the other stream.
        other: String,
    },
    /// A topic that a pattern means has a name that cannot be published.
    #[error("no stream for the topic {topic:?}: a name has at most {MAX_NAME} bytes and no control characters")]
    BadName {
        /// The beginning of the topic.
        topic: String,
    },
    /// A stream was to begin while the machine ends.
    #[error("no stream for the topic {topic}: the node is shutting down")]
    Ended {
        /// The topic.
        topic: String,
    },
    /// The machine log cannot be written.
    #[error(transparent)]
    Log(#[from] MachineLogError),
    /// A log cannot be read.
    #[error(transparent)]
    Entry(#[from] LogError),
    /// A selection has no keys.
    #[error(transparent)]
    Selection(#[from] SelectionError),
}
