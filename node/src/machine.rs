//! The selling side of a node: one lane for each stream, the logs, the keys, and what may be granted.
//!
//! [`Machine`] owns everything that is signed in the machine's name. It does not know the network: entries that became durable go
//! to an [`Announcer`]. It is stopped by [`Machine::shutdown`], after which everything taken in is sealed, durable and announced.

mod bindings;
mod epochs;
mod error;
mod heads;
mod ingest;
mod lane;
mod live;
mod log_writer;
mod machine_log;
mod numbers;
mod open;
mod origin;
mod plaintext_hashes;
mod proposals;
mod publish;
mod seeds;
mod selection;
mod source;
mod streams;

use std::sync::{Arc, Mutex, PoisonError};

use serde::{Deserialize, Serialize};
use tributary_protocol::{
    access::{GrantRange, Selection},
    binding::{Binding, SignedBinding},
    entry::SignedEntry,
    identity::IdentityKey,
    ids::{DatasetId, Did, StreamId},
    keys::{EncryptionKey, EncryptionPublicKey, FeedKey},
    keytree::Cover,
    rules::RuleSet,
};
use tributary_store::Store;

use self::{
    epochs::stream_log,
    lane::{Lane, stats::LaneStats},
    machine_log::MachineLog,
    origin::Origin,
    seeds::Seeds,
    streams::{Stream, Streams},
};
use crate::{
    config::StreamConfig,
    durations::DurationsReport,
    home::{Home, MachineKeys},
};

pub(crate) use self::bindings::load as stored_chain;
pub(crate) use self::plaintext_hashes::PlaintextHashes;
pub(crate) use self::selection::{in_time, live_range, newest_record, no_epoch, nothing_in_time};
pub(crate) use self::streams::known_streams;
pub use self::{
    bindings::OwnBindingError,
    epochs::EpochError,
    error::MachineError,
    ingest::{IngestProgress, IngestSummary, SourceTrouble, TopicSummary},
    lane::{LaneError, LaneReport, Offered, Room},
    live::{LiveStream, check_schema},
    log_writer::LogError,
    machine_log::MachineLogError,
    numbers::NumberError,
    origin::{Displaced, OriginError},
    proposals::{BindError, apply, cancel, propose},
    publish::{PublishError, Published},
    seeds::ForgetError,
    selection::SelectionError,
    source::{FaultyPublisher, MAX_FAULTY, Situation, SourceReport, SourceState, SourceStats},
};

/// Tells the time, in milliseconds since 1970. Passed in so that tests can hold it.
pub type Clock = Arc<dyn Fn() -> u64 + Send + Sync>;

/// The system's clock.
#[must_use]
pub fn system_clock() -> Clock {
    Arc::new(|| {
        let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
        u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
    })
}

/// Takes entries that are durable, to be sent to whoever follows. Must not block: what cannot be sent now is caught up later.
pub trait Announcer: Send + Sync {
    /// An entry of one of the machine's logs, and the ciphertext it describes.
    fn announce(&self, entry: &Arc<SignedEntry>, body: Option<Arc<[u8]>>);
}

/// An announcer for a node without a network: followers catch up when it has one.
#[derive(Debug, Clone, Copy, Default)]
pub struct Silent;

impl Announcer for Silent {
    fn announce(&self, _: &Arc<SignedEntry>, _: Option<Arc<[u8]>>) {}
}

/// The keys that a machine signs and seals with.
pub(crate) struct Keys {
    pub(crate) did: Did,
    pub(crate) identity: Arc<IdentityKey>,
    pub(crate) feed: Arc<FeedKey>,
    pub(crate) encryption: Arc<EncryptionKey>,
    /// What epoch seeds are sealed to.
    pub(crate) owner: EncryptionPublicKey,
}

/// What a machine is opened with.
pub struct MachineOptions<'a> {
    /// The home: its keys, its owner, its place.
    pub home: &'a Home,
    /// The keys in it.
    pub keys: &'a MachineKeys,
    /// Its store.
    pub store: Store,
    /// The streams of the Data Event Map.
    pub streams: &'a [StreamConfig],
    /// Whether seeds of key epochs that are over are forgotten here.
    pub forget_epochs: bool,
    /// Where durable entries go.
    pub announcer: Arc<dyn Announcer>,
    /// The time.
    pub clock: Clock,
}

enum Kind {
    Messages(Box<Lane>),
    /// The counters stand beside the lock, which is held as long as a file takes.
    Files(Box<Mutex<publish::FileStream>>, Arc<LaneStats>),
}

/// What `status` shows of one stream.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StreamReport {
    /// Name it is published under.
    pub name: String,
    /// Its id.
    pub stream: StreamId,
    /// Entries in its log.
    pub entries: u64,
    /// What its lane counted.
    pub lane: LaneReport,
    /// How its live source stands, where it has one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source: Option<SourceReport>,
}

/// The selling side of a node.
pub struct Machine {
    store: Store,
    keys: Arc<Keys>,
    log: Arc<MachineLog>,
    announcer: Arc<dyn Announcer>,
    clock: Clock,
    origin: Mutex<Origin>,
    displaced: Mutex<Option<Displaced>>,
    home: Home,
    seeds: Arc<Seeds>,
    forget_epochs: bool,
    node_key: [u8; 32],
    /// The one in force.
    binding: Mutex<Binding>,
    plaintext_hashes: Arc<PlaintextHashes>,
    streams: Streams,
}

impl Machine {
    /// Whose machine this is.
    #[must_use]
    pub fn did(&self) -> Did {
        self.keys.did
    }

    /// What is known of the plaintexts of its chunks.
    pub(crate) fn plaintext_hashes(&self) -> &Arc<PlaintextHashes> {
        &self.plaintext_hashes
    }

    /// The incarnation it lives in.
    #[must_use]
    pub fn incarnation(&self) -> u32 {
        self.log.incarnation()
    }

    /// The id of a stream by the name it is published under.
    #[must_use]
    pub fn stream_id(&self, name: &str) -> Option<StreamId> {
        self.streams.find(|stream| stream.config.name() == name).map(|stream| stream.id)
    }

    /// The configuration of a stream.
    #[must_use]
    pub fn stream_config(&self, id: &StreamId) -> Option<Arc<StreamConfig>> {
        self.streams.find(|stream| stream.id == *id).map(|stream| Arc::clone(&stream.config))
    }

    /// The names of all streams that run, those of patterns included.
    #[must_use]
    pub fn stream_names(&self) -> Vec<String> {
        self.streams.all().iter().map(|stream| stream.config.name().to_owned()).collect()
    }

    /// What every stream counted.
    ///
    /// # Errors
    ///
    /// When the store cannot be read.
    pub fn report(&self) -> Result<Vec<StreamReport>, MachineError> {
        let each = |stream: &Stream| {
            let log = stream_log(&self.keys, stream.id, self.incarnation());
            let entries = self.store.head(&log)?.map_or(0, |(seq, _)| seq + 1);
            let (name, lane, source) = (stream.config.name().to_owned(), stream.lane_report(), stream.source.report());
            Ok(StreamReport { name, stream: stream.id, entries, lane, source })
        };
        self.streams.all().iter().map(|stream| each(stream)).collect()
    }

    /// What the lane of every stream counted, by the stream's public name. Does not wait for the disk.
    #[must_use]
    pub fn lanes(&self) -> Vec<(String, LaneReport)> {
        self.streams.all().iter().map(|stream| (stream.config.name().to_owned(), stream.lane_report())).collect()
    }

    /// How long batches of chunks took to the disk, by the public name of their stream.
    #[must_use]
    pub fn commits(&self) -> Vec<(String, DurationsReport)> {
        let each = |stream: &Arc<Stream>| {
            let took = match &stream.kind {
                Kind::Messages(lane) => lane.commits(),
                Kind::Files(_, stats) => stats.commits(),
            };
            (stream.config.name().to_owned(), took)
        };
        self.streams.all().iter().map(each).collect()
    }

    /// Closes the open dataset of one stream, or of all. What was taken in before is in it and durable.
    ///
    /// # Errors
    ///
    /// When there is no such stream, or its lane has stopped.
    pub fn close_datasets(&self, name: Option<&str>) -> Result<Vec<DatasetId>, MachineError> {
        let mut closed = Vec::new();
        for stream in self.named(name)? {
            if let Some(lane) = stream.lane() {
                closed.extend(lane.close_dataset().map_err(|source| lane_error(&stream, source))?);
            }
        }
        Ok(closed)
    }

    /// Begins a new key epoch in one stream, or in all: keys granted for times to come are worth nothing from here on.
    ///
    /// # Errors
    ///
    /// When there is no such stream, or its lane has stopped.
    pub fn renew_epochs(&self, name: Option<&str>) -> Result<(), MachineError> {
        for stream in self.named(name)? {
            match &stream.kind {
                Kind::Messages(lane) => drop(lane.renew_epoch().map_err(|source| lane_error(&stream, source))?),
                Kind::Files(files, _) => files.lock().unwrap_or_else(PoisonError::into_inner).renew_epoch(),
            }
        }
        Ok(())
    }

    /// Forgets the seeds of key epochs that are over, if the configuration says so. Returns how many those were.
    ///
    /// # Errors
    ///
    /// When the seed key or the store cannot be read or written; nothing is lost then.
    pub fn forget_ended_epochs(&self) -> Result<u64, ForgetError> {
        if self.forget_epochs { self.seeds.forget_ended(self.incarnation(), (self.clock)()) } else { Ok(0) }
    }

    /// The key ranges that a selection means.
    ///
    /// # Errors
    ///
    /// When a part of it holds nothing.
    pub fn resolve(&self, selection: &Selection) -> Result<Vec<GrantRange>, MachineError> {
        Ok(selection::resolve(&self.store, &self.seeds, &self.keys, self.incarnation(), selection, (self.clock)())?)
    }

    /// The keys of a range.
    ///
    /// # Errors
    ///
    /// When the epoch's seed is not here.
    pub fn cover(&self, range: &GrantRange) -> Result<Cover, MachineError> {
        Ok(selection::cover(&self.seeds, range)?)
    }

    /// The machine's keys, for what the access service signs.
    pub(crate) fn keys(&self) -> &Arc<Keys> {
        &self.keys
    }

    /// Ends every lane: all that was taken in is sealed, durable and announced, and every dataset closed.
    ///
    /// # Errors
    ///
    /// The first lane that failed; the others are ended all the same.
    pub fn shutdown(&self) -> Result<(), MachineError> {
        let mut first = None;
        for stream in self.streams.end() {
            if let Some(lane) = stream.lane()
                && let Err(source) = lane.finish()
                && first.is_none()
            {
                first = Some(lane_error(&stream, source));
            }
        }
        self.heads()?;
        first.map_or(Ok(()), Err)
    }

    fn named(&self, name: Option<&str>) -> Result<Vec<Arc<Stream>>, MachineError> {
        let Some(name) = name else { return Ok(self.streams.all()) };
        match self.streams.find(|stream| stream.config.name() == name) {
            Some(stream) => Ok(vec![stream]),
            None => Err(MachineError::NoStream { name: name.to_owned(), known: self.stream_names().join(", ") }),
        }
    }
}

/// The signed bindings of a machine that the store holds, in order.
///
/// # Errors
///
/// When the store cannot be read, or one of them is damaged.
pub fn stored_bindings(store: &Store, did: &Did) -> Result<Vec<SignedBinding>, OwnBindingError> {
    Ok(bindings::load(store, did)?.map(|(_, all)| all).unwrap_or_default())
}

/// The rules of a stream, ready to apply; `None` for streams whose bytes no rule can look into.
pub(crate) fn rules_of(config: &StreamConfig) -> Result<Option<RuleSet>, MachineError> {
    config.rule_set().map_err(|source| MachineError::Rules { stream: config.name().to_owned(), source })
}

fn lane_error(stream: &Stream, source: LaneError) -> MachineError {
    MachineError::Lane { stream: stream.config.name().to_owned(), source }
}

#[cfg(test)]
mod tests;
