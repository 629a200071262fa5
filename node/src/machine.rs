//! The selling side of a node: one lane for each stream, the logs, the keys, and what may be granted.
//!
//! [`Machine`] owns everything that is signed in the machine's name. It does not know the network: entries that became durable go
//! to an [`Announcer`]. It is stopped by [`Machine::shutdown`], after which everything taken in is sealed, durable and announced.

mod bindings;
mod epochs;
mod ingest;
mod lane;
mod log_writer;
mod machine_log;
mod numbers;
mod origin;
mod publish;
mod selection;

use std::{
    cmp::Ordering,
    path::PathBuf,
    sync::{Arc, Mutex, PoisonError},
};

use serde::{Deserialize, Serialize};
use tributary_protocol::{
    access::{GrantRange, Selection},
    binding::{BindingChain, SignedBinding},
    entry::{self, EntryBody, Head, SignedEntry, SignedHead, StreamInfo},
    identity::IdentityKey,
    ids::{DatasetId, Did, LogId, LogKey, StreamId},
    keys::{EncryptionKey, EncryptionPublicKey, FeedKey},
    keytree::Cover,
    record::Content,
    rules::native::NativeRules,
};
use tributary_store::{Store, StoreError, Table, WriteBatch};

use self::{
    epochs::{Epochs, stream_log},
    lane::{Lane, LaneParts, committer::Committer, packer::Packer, sealer::Sealer, stats::LaneStats},
    log_writer::LogWriter,
    machine_log::MachineLog,
    numbers::Numbers,
    origin::Origin,
};
use crate::{
    config::{Compression, Mode, Policy, RulesError, StreamConfig},
    home::{Home, HomeError, MachineKeys},
};

pub use self::{
    bindings::OwnBindingError,
    epochs::EpochError,
    ingest::{IngestProgress, IngestSummary, SourceTrouble, TopicSummary},
    lane::{LaneError, LaneReport},
    log_writer::LogError,
    machine_log::MachineLogError,
    numbers::NumberError,
    origin::{Displaced, OriginError},
    publish::{PublishError, Published},
    selection::SelectionError,
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
        "the feed key in this home is not the one of binding {serial}; run `tributary key bind --owner-key FILE` with the owner's key"
    )]
    FeedKey {
        /// Serial of the newest binding.
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
    /// Where durable entries go.
    pub announcer: Arc<dyn Announcer>,
    /// The time.
    pub clock: Clock,
}

/// A stream as it runs.
struct Stream {
    config: StreamConfig,
    id: StreamId,
    kind: Kind,
}

enum Kind {
    Messages(Box<Lane>),
    Files(Box<Mutex<publish::FileStream>>),
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
    key_dir: PathBuf,
    streams: Vec<Stream>,
}

impl Machine {
    /// Opens the machine: its first binding is made here, datasets that a crash left open are closed, new streams are announced.
    ///
    /// # Errors
    ///
    /// Names what is wrong and what to run. Nothing is published then.
    pub fn open(options: MachineOptions<'_>) -> Result<Self, MachineError> {
        let MachineOptions { home, keys: home_keys, store, streams, announcer, clock } = options;
        let owner = home.owner()?;
        let keys = Arc::new(keys_of(home_keys, owner.encryption));
        let key_dir = home.keys_dir();
        let origin = Origin::open(home.path(), &key_dir, !store.logs(Some(&keys.did))?.is_empty())?;
        let chain = match bindings::load(&store, &keys.did)? {
            Some((chain, _)) => chain,
            None => {
                let terms = bindings::Terms {
                    owner: owner.address,
                    owner_enc: owner.encryption,
                    node_key: node_key(home_keys),
                };
                let first = bindings::first(&keys, &terms, clock())?;
                let mut batch = WriteBatch::new();
                bindings::put(&mut batch, &first);
                store.commit(batch)?;
                BindingChain::new(&first).map_err(OwnBindingError::from)?
            }
        };
        let binding = chain.current();
        let (incarnation, serial) = (binding.incarnation, binding.serial);
        let key_of = |log| LogKey { did: keys.did, log, incarnation };
        // A binding of a later incarnation than the home has settled in was made for this home as it is now.
        let displaced = match incarnation.cmp(&origin.incarnation()) {
            Ordering::Less => Some(Displaced::Restored),
            Ordering::Equal => origin.displaced(&key_dir, &store, key_of)?,
            Ordering::Greater => None,
        };
        if let Some(reason) = displaced {
            return Err(MachineError::Displaced { reason, incarnation });
        }
        if binding.feed_key != keys.feed.public() {
            return Err(MachineError::FeedKey { serial });
        }
        let before = chain.origin(&LogId::MACHINE, incarnation);
        let log = MachineLog::recover(store.clone(), Arc::clone(&keys), incarnation, before, Arc::clone(&announcer))?;
        let mut machine = Self {
            store,
            keys,
            log: Arc::new(log),
            announcer,
            clock,
            origin: Mutex::new(origin),
            displaced: Mutex::new(None),
            key_dir,
            streams: Vec::new(),
        };
        machine.settle(incarnation)?;
        machine.write_bindings()?;
        machine.close_left_open()?;
        for config in streams {
            let stream = machine.start_stream(config, &chain)?;
            machine.streams.push(stream);
        }
        Ok(machine)
    }

    /// Whose machine this is.
    #[must_use]
    pub fn did(&self) -> Did {
        self.keys.did
    }

    /// The incarnation it lives in.
    #[must_use]
    pub fn incarnation(&self) -> u32 {
        self.log.incarnation()
    }

    /// The id of a stream by the name it is published under.
    #[must_use]
    pub fn stream_id(&self, name: &str) -> Option<StreamId> {
        self.streams.iter().find(|stream| stream.config.name() == name).map(|stream| stream.id)
    }

    /// The configuration of a stream.
    #[must_use]
    pub fn stream_config(&self, id: &StreamId) -> Option<&StreamConfig> {
        self.streams.iter().find(|stream| stream.id == *id).map(|stream| &stream.config)
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
            let lane = match &stream.kind {
                Kind::Messages(lane) => lane.report(),
                Kind::Files(files) => files.lock().unwrap_or_else(PoisonError::into_inner).report(),
            };
            Ok(StreamReport { name: stream.config.name().to_owned(), stream: stream.id, entries, lane })
        };
        self.streams.iter().map(each).collect()
    }

    /// Closes the open dataset of one stream, or of all. What was taken in before is in it and durable.
    ///
    /// # Errors
    ///
    /// When there is no such stream, or its lane has stopped.
    pub fn close_datasets(&self, name: Option<&str>) -> Result<Vec<DatasetId>, MachineError> {
        let mut closed = Vec::new();
        for stream in self.named(name)? {
            if let Kind::Messages(lane) = &stream.kind {
                closed.extend(lane.close_dataset().map_err(|source| lane_error(stream, source))?);
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
                Kind::Messages(lane) => drop(lane.renew_epoch().map_err(|source| lane_error(stream, source))?),
                Kind::Files(files) => files.lock().unwrap_or_else(PoisonError::into_inner).renew_epoch(),
            }
        }
        Ok(())
    }

    /// The key ranges that a selection means.
    ///
    /// # Errors
    ///
    /// When a part of it holds nothing.
    pub fn resolve(&self, selection: &Selection) -> Result<Vec<GrantRange>, MachineError> {
        Ok(selection::resolve(&self.store, &self.keys, self.incarnation(), selection, (self.clock)())?)
    }

    /// The keys of a range.
    ///
    /// # Errors
    ///
    /// When the epoch's seed is not here.
    pub fn cover(&self, range: &GrantRange) -> Result<Cover, MachineError> {
        Ok(selection::cover(&self.store, &self.keys, range)?)
    }

    /// Signed heads of all logs of this incarnation, and the note of how far others may have seen them, which is durable first.
    ///
    /// # Errors
    ///
    /// When the store cannot be read, or the note not written.
    pub fn heads(&self) -> Result<Vec<SignedHead>, MachineError> {
        let now_ms = (self.clock)();
        let mut heads = Vec::new();
        let mut origin = self.origin.lock().unwrap_or_else(PoisonError::into_inner);
        let mut news = false;
        for log in self.store.logs(Some(&self.keys.did))?.into_iter().filter(|l| l.incarnation == self.incarnation()) {
            let Some((seq, bytes)) = self.store.head(&log)? else { continue };
            let Ok(entry) = SignedEntry::decode(&bytes) else { continue };
            news |= origin.published(log.log, seq + 1);
            let LogKey { did, log, incarnation } = log;
            let head = Head { did, log, incarnation, seq, entry_hash: entry.hash(), time_ms: now_ms };
            heads.push(SignedHead::sign(head, &self.keys.feed));
        }
        if news {
            origin.save()?;
        }
        Ok(heads)
    }

    /// Tells the machine that an entry signed with its keys arrived. If it does not hold that entry, it has a twin, and stops
    /// publishing.
    pub fn met_own_entry(&self, entry: &SignedEntry) {
        let (log, seq) = (entry.entry().key(), entry.entry().seq);
        if self.is_ours(&log) && self.store.entry(&log, seq).ok().flatten().as_deref() != Some(entry.bytes()) {
            self.meet_twin(log, seq);
        }
    }

    /// Tells the machine that a head signed with its keys arrived. If it goes beyond the machine's log, it is a twin's.
    pub fn met_own_head(&self, head: &SignedHead) {
        let (log, seq) = (head.head().key(), head.head().seq);
        if self.is_ours(&log) && self.store.entry(&log, seq).is_ok_and(|held| held.is_none()) {
            self.meet_twin(log, seq);
        }
    }

    /// Logs of past incarnations are closed, and what somebody adds to them counts for nobody. Those of a later one exist only
    /// where a copy of this home was bound anew.
    fn is_ours(&self, log: &LogKey) -> bool {
        log.did == self.keys.did && log.incarnation >= self.incarnation()
    }

    fn meet_twin(&self, log: LogKey, seq: u64) {
        let mut displaced = self.displaced.lock().unwrap_or_else(PoisonError::into_inner);
        if displaced.is_none() {
            let reason = Displaced::Twin { log, seq };
            tracing::error!(%reason, "publishing stopped");
            *displaced = Some(reason);
        }
    }

    /// Why the machine must not publish, if it must not.
    #[must_use]
    pub fn displaced(&self) -> Option<Displaced> {
        self.displaced.lock().unwrap_or_else(PoisonError::into_inner).clone()
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
        for stream in &self.streams {
            if let Kind::Messages(lane) = &stream.kind
                && let Err(source) = lane.finish()
                && first.is_none()
            {
                first = Some(lane_error(stream, source));
            }
        }
        self.heads()?;
        first.map_or(Ok(()), Err)
    }

    fn named(&self, name: Option<&str>) -> Result<Vec<&Stream>, MachineError> {
        let Some(name) = name else { return Ok(self.streams.iter().collect()) };
        match self.streams.iter().find(|stream| stream.config.name() == name) {
            Some(stream) => Ok(vec![stream]),
            None => {
                let known: Vec<&str> = self.streams.iter().map(|stream| stream.config.name()).collect();
                Err(MachineError::NoStream { name: name.to_owned(), known: known.join(", ") })
            }
        }
    }

    /// A new incarnation makes this place the home's own.
    fn settle(&self, incarnation: u32) -> Result<(), MachineError> {
        let mut origin = self.origin.lock().unwrap_or_else(PoisonError::into_inner);
        if origin.incarnation() == incarnation {
            // Made anew with every start, so that a copy from before it can be told from what was there then. A full disk
            // costs only that: the record that is there stays good.
            match origin.save() {
                Err(OriginError::Io { source, path }) if source.kind() == std::io::ErrorKind::StorageFull => {
                    tracing::warn!(path = %path.display(), "the disk is full; the origin record stays as it is");
                }
                saved => saved?,
            }
        } else {
            origin.settle(&self.key_dir, &self.store, incarnation)?;
        }
        Ok(())
    }

    /// Bindings stand in the machine log too, so that a follower meets them where they begin to count.
    fn write_bindings(&self) -> Result<(), MachineError> {
        let Some((_, all)) = bindings::load(&self.store, &self.keys.did)? else { return Ok(()) };
        let name = format!("binding/{}", self.incarnation());
        // The counter is the serial after the last one written; 0 means none.
        let written = self.store.counter(&name)?;
        for signed in all {
            let binding = signed.binding();
            if binding.incarnation != self.incarnation() || binding.serial < written {
                continue;
            }
            let mut batch = WriteBatch::new();
            batch.set_counter(name.as_str(), binding.serial + 1);
            self.log.append((self.clock)(), EntryBody::Binding(signed), batch)?;
        }
        Ok(())
    }

    /// Closes the datasets that a crash left open, in every log of this incarnation, whatever the configuration says now.
    fn close_left_open(&self) -> Result<(), MachineError> {
        for log in self.store.logs(Some(&self.keys.did))? {
            if log.incarnation != self.incarnation() || log.log == LogId::MACHINE {
                continue;
            }
            let Some(newest) = selection::newest_record(&self.store, &log)? else { continue };
            if self.store.row(Table::Dataset, newest.dataset.as_bytes())?.is_some() {
                continue;
            }
            let open = publish::reopen(&self.store, &log, &newest)?;
            if let Some(open) = open {
                let close = || lane::close(&self.log, &open, (self.clock)());
                close().map_err(|source| MachineError::Lane { stream: log.log.to_string(), source })?;
            }
        }
        Ok(())
    }

    fn start_stream(&self, config: &StreamConfig, chain: &BindingChain) -> Result<Stream, MachineError> {
        let id = StreamId::of(&self.keys.did, config.name());
        self.announce_stream(config, id)?;
        let log = stream_log(&self.keys, id, self.incarnation());
        let before = chain.origin(&log.log, self.incarnation());
        let writer = LogWriter::recover(&self.store, log, Arc::clone(&self.keys.feed), before)?;
        let newest = selection::newest_record(&self.store, &log)?;
        let failed = |source: LaneError| MachineError::Lane { stream: config.name().to_owned(), source };
        let epochs =
            Epochs::recover(self.store.clone(), Arc::clone(&self.keys), Arc::clone(&self.log), id, newest.as_ref())
                .map_err(|error| failed(error.into()))?;
        let content = if config.mode == Mode::File { Content::File } else { Content::Packages };
        let zstd = config.compression == Compression::Zstd;
        let sealer = Sealer::new(id, Arc::clone(&self.keys.feed), writer, epochs, content, zstd);
        let stats = Arc::new(LaneStats::default());
        let committer = Committer::new(self.store.clone(), Arc::clone(&self.announcer), Arc::clone(&stats));
        let kind = if config.mode == Mode::File {
            let stream = publish::FileStream::new(sealer, committer, stats, config.chunk.bytes);
            Kind::Files(Box::new(Mutex::new(stream)))
        } else {
            let rules = rules_of(config)?;
            let packer = Packer::new(Arc::clone(&self.keys.identity), rules, config.name());
            let numbers = Numbers::open(self.store.clone(), id, self.incarnation()).map_err(|e| failed(e.into()))?;
            let parts = LaneParts {
                stream: id,
                packer,
                sealer,
                committer,
                machine_log: Arc::clone(&self.log),
                stats,
                clock: Arc::clone(&self.clock),
                chunk: config.chunk,
                close_after: config.close_after,
            };
            Kind::Messages(Box::new(Lane::start(parts, numbers, config.queue).map_err(failed)?))
        };
        Ok(Stream { config: config.clone(), id, kind })
    }

    /// Writes what the stream is into the machine log, when that is news.
    fn announce_stream(&self, config: &StreamConfig, id: StreamId) -> Result<(), MachineError> {
        let info = StreamInfo {
            stream: id,
            name: config.name().to_owned(),
            message_type: config.message_type.clone().unwrap_or_default(),
            mode: match config.mode {
                Mode::Fields { .. } => entry::Mode::Fields,
                Mode::Raw => entry::Mode::Raw,
                Mode::File => entry::Mode::File,
            },
            policy: match config.access.policy {
                Policy::Free => entry::Policy::Free,
                Policy::Allowlist(_) => entry::Policy::Allowlist,
                Policy::Manual => entry::Policy::Manual,
            },
            price: String::new(),
            chunk_target: config.chunk.bytes,
        };
        let key = format!("stream/{}/{id}", self.incarnation()).into_bytes();
        let value = format!("{info:?}").into_bytes();
        if self.store.row(Table::Meta, &key)?.as_deref() == Some(&value) {
            return Ok(());
        }
        let mut batch = WriteBatch::new();
        batch.put_row(Table::Meta, key, value);
        self.log.append((self.clock)(), EntryBody::Stream(info), batch)?;
        Ok(())
    }
}

/// Makes the binding for what the home has now, with the owner's key: a rotated feed key, a moved home, a binding near its end.
/// The machine must not be open.
///
/// # Errors
///
/// When there is no binding yet, or the owner is not the one that it names.
pub fn rebind(
    home: &Home,
    home_keys: &MachineKeys,
    store: &Store,
    owner: &IdentityKey,
    next_incarnation: bool,
    now_ms: u64,
) -> Result<SignedBinding, MachineError> {
    let keys = keys_of(home_keys, home.owner()?.encryption);
    let (chain, _) = bindings::load(store, &keys.did)?.ok_or(OwnBindingError::None)?;
    let node = node_key(home_keys);
    let signed = bindings::next(store, &chain, &keys, node, owner, next_incarnation, now_ms)?;
    let mut batch = WriteBatch::new();
    bindings::put(&mut batch, &signed);
    store.commit(batch)?;
    Ok(signed)
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
pub(crate) fn rules_of(config: &StreamConfig) -> Result<Option<NativeRules>, MachineError> {
    config.native_rules().map_err(|source| MachineError::Rules { stream: config.name().to_owned(), source })
}

fn keys_of(home: &MachineKeys, owner: EncryptionPublicKey) -> Keys {
    Keys {
        did: home.identity.did(),
        identity: Arc::clone(&home.identity),
        feed: Arc::clone(&home.feed),
        encryption: Arc::clone(&home.encryption),
        owner,
    }
}

/// The Ed25519 key behind the node's PeerId.
fn node_key(home: &MachineKeys) -> [u8; 32] {
    home.node.public().try_into_ed25519().map(|key| key.to_bytes()).unwrap_or_default()
}

fn lane_error(stream: &Stream, source: LaneError) -> MachineError {
    MachineError::Lane { stream: stream.config.name().to_owned(), source }
}

#[cfg(test)]
mod tests;
