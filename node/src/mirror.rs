//! The role mirror: keeps the feeds of machines, entries and ciphertext, and serves them to whoever asks, also when the machine is
//! gone.
//!
//! A mirror follows all logs of a machine from their start and checks every entry from the machine's DID, as a buyer does. It
//! fetches the ciphertext, of new chunks and of what was published before, as far as space and retention allow, and says to
//! others that it serves the feed. Peers ask it as they ask the machine, over the same protocols, and believe it nothing that the
//! machine has not signed. It holds no key that opens anything.

mod deposits;
mod keep;
mod shelf;

use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};

use serde::{Deserialize, Serialize};
use tokio::task::JoinSet;
use tributary_protocol::ids::{Did, Hash};
use tributary_store::{Reason, Store, StoreError, WriteBatch};

pub use self::deposits::{DepositCounts, Deposits};
use self::shelf::Shelf;
use crate::{
    config::MirrorConfig,
    feeds::{Feeds, FeedsError, PullJobError},
    machine::Clock,
    net::Client,
};

/// How often deposits are looked through.
const HOUSE_EVERY: Duration = Duration::from_secs(600);
/// Chunks dropped in one batch.
const PAGE: usize = 256;
/// Space of dropped chunks is given back at most so often.
const SWEEP_EVERY: Duration = Duration::from_secs(60);

/// Why a feed could not be kept at the moment.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum MirrorError {
    /// The feed cannot be read or written.
    #[error(transparent)]
    Feeds(#[from] FeedsError),
    /// Chunks could not be fetched.
    #[error(transparent)]
    Pull(#[from] PullJobError),
    /// The store.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The node stops.
    #[error("the node is stopping")]
    Stopped,
}

/// What a mirror works with.
pub struct MirrorOptions {
    /// What it keeps.
    pub config: MirrorConfig,
    /// The feeds it follows; it follows further ones there.
    pub feeds: Feeds,
    /// Where everything is kept.
    pub store: Store,
    /// The network.
    pub net: Client,
    /// The clock.
    pub clock: Clock,
}

/// The mirroring side of a node. Clones share it.
#[derive(Clone)]
pub struct Mirror {
    inner: Arc<Inner>,
}

struct Inner {
    config: MirrorConfig,
    feeds: Feeds,
    store: Store,
    net: Client,
    clock: Clock,
    /// Held for steps that read the disk; never across an await.
    shelves: Mutex<BTreeMap<Did, Shelf>>,
    states: Mutex<BTreeMap<Did, State>>,
    deposits: Option<Arc<Deposits>>,
    /// Whether chunks were dropped whose space the disk does not have back.
    unswept: AtomicBool,
    swept: Mutex<Option<Instant>>,
}

/// How keeping a feed goes.
#[derive(Debug, Clone, Default)]
struct State {
    /// Why it is not found yet.
    unfound: Option<String>,
    /// Why chunks cannot be fetched at the moment.
    trouble: Option<String>,
    fetched: u64,
    fetched_bytes: u64,
}

/// How a mirrored feed stands.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MirroredStatus {
    /// The machine.
    pub did: Did,
    /// Whether it was found and is followed.
    pub followed: bool,
    /// Log entries held.
    pub entries: u64,
    /// Entries that the machine says there are and that are not here.
    pub behind: u64,
    /// Age of the oldest of the newest heads of its logs, in seconds. Minutes mean that the machine is offline.
    pub head_age_s: Option<u64>,
    /// Chunks that its entries name.
    pub chunks_known: u64,
    /// Their ciphertext, bytes.
    pub bytes_known: u64,
    /// Chunks kept.
    pub chunks: u64,
    /// Their ciphertext, bytes.
    pub bytes: u64,
    /// Chunks that are to be kept and that nobody had.
    pub missing: u64,
    /// Chunks dropped since the start, for age or room.
    pub dropped: u64,
    /// Chunks fetched since the start.
    pub fetched: u64,
    /// Their ciphertext, bytes.
    pub fetched_bytes: u64,
    /// Requests that the machine left something about, for their buyers.
    pub deposits: u64,
    /// Bytes of that.
    pub deposit_bytes: u64,
    /// Most bytes of chunks that are kept of it; `None` is no limit of its own.
    pub limit_bytes: Option<u64>,
    /// What keeps it from being complete at the moment.
    pub trouble: Option<String>,
}

/// How a mirror stands.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MirrorStatus {
    /// Its feeds.
    pub feeds: Vec<MirroredStatus>,
    /// What became of deposits since the start.
    pub deposits: DepositCounts,
    /// Most bytes of chunks of all feeds together; `None` is no limit of its own.
    pub space_bytes: Option<u64>,
}

/// Forgets deposits that are over.
async fn keep_house(deposits: Arc<Deposits>) {
    let mut timer = tokio::time::interval(HOUSE_EVERY);
    timer.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        timer.tick().await;
        let deposits = Arc::clone(&deposits);
        match tokio::task::spawn_blocking(move || deposits.expire()).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => tracing::warn!(%error, "deposits could not be looked through"),
            Err(_) => return,
        }
    }
}

impl Mirror {
    /// Opens the mirroring side. Reads the store, so call it where blocking is allowed.
    ///
    /// # Errors
    ///
    /// When the store cannot be read.
    pub fn open(options: MirrorOptions) -> Result<Self, FeedsError> {
        let MirrorOptions { config, feeds, store, net, clock } = options;
        let (shelves, states) = (Mutex::default(), Mutex::default());
        let (unswept, swept) = (AtomicBool::new(false), Mutex::default());
        let machines = config.feeds.iter().map(|feed| feed.link.did).collect();
        let deposits = match config.deposits {
            true => Some(Deposits::open(store.clone(), feeds.clone(), Arc::clone(&clock), machines)?),
            false => None,
        };
        let deposits = deposits.map(Arc::new);
        let inner = Inner { config, feeds, store, net, clock, shelves, states, deposits, unswept, swept };
        Ok(Self { inner: Arc::new(inner) })
    }

    /// Starts the tasks; they end when they are dropped.
    pub(crate) fn start(&self, tasks: &mut JoinSet<()>) {
        for feed in &self.inner.config.feeds {
            tasks.spawn(keep::find(self.clone(), feed.clone()));
            tasks.spawn(keep::keep(self.clone(), feed.clone()));
        }
        if let Some(deposits) = &self.inner.deposits {
            tasks.spawn(keep_house(Arc::clone(deposits)));
        }
    }

    /// What machines left here, where that is kept.
    pub(crate) fn deposits(&self) -> Option<&Arc<Deposits>> {
        self.inner.deposits.as_ref()
    }

    /// How it stands.
    pub async fn status(&self) -> MirrorStatus {
        let now_ms = (self.inner.clock)();
        let mut feeds = Vec::new();
        for feed in &self.inner.config.feeds {
            let did = feed.link.did;
            let followed = self.inner.feeds.status(&did).await.ok();
            let logs = followed.as_ref().map(|followed| followed.logs.as_slice()).unwrap_or_default();
            let heads = logs.iter().filter_map(|log| log.head_ms);
            let state = self.states().get(&did).cloned().unwrap_or_default();
            let mut status = MirroredStatus {
                did,
                followed: followed.is_some(),
                entries: logs.iter().map(|log| log.next).sum(),
                behind: logs.iter().map(|log| log.announced.unwrap_or(log.next).saturating_sub(log.next)).sum(),
                head_age_s: heads.min().map(|head_ms| now_ms.saturating_sub(head_ms) / 1000),
                chunks_known: 0,
                bytes_known: 0,
                chunks: 0,
                bytes: 0,
                missing: 0,
                dropped: 0,
                fetched: state.fetched,
                fetched_bytes: state.fetched_bytes,
                deposits: 0,
                deposit_bytes: 0,
                limit_bytes: feed.retention.bytes,
                trouble: state.unfound.filter(|_| followed.is_none()).or(state.trouble),
            };
            // A shelf is held while the disk is read.
            let mirror = self.clone();
            let read = tokio::task::spawn_blocking(move || {
                let deposits = mirror.deposits().map(|deposits| deposits.held(&did)).unwrap_or_default();
                let shelves = mirror.shelves();
                (deposits, shelves.get(&did).map(|shelf| (shelf.known, shelf.held, shelf.missing, shelf.dropped)))
            });
            let (deposits, shelf) = read.await.unwrap_or_default();
            (status.deposits, status.deposit_bytes) = (deposits.requests, deposits.bytes);
            if let Some((known, held, missing, dropped)) = shelf {
                (status.chunks_known, status.bytes_known) = (known.chunks, known.bytes);
                (status.chunks, status.bytes) = (held.chunks, held.bytes);
                (status.missing, status.dropped) = (missing, dropped);
            }
            feeds.push(status);
        }
        let deposits = self.deposits().map(|deposits| deposits.counts()).unwrap_or_default();
        MirrorStatus { feeds, deposits, space_bytes: self.inner.config.space }
    }

    fn shelves(&self) -> MutexGuard<'_, BTreeMap<Did, Shelf>> {
        self.inner.shelves.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn states(&self) -> MutexGuard<'_, BTreeMap<Did, State>> {
        self.inner.states.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn note(&self, did: &Did, change: impl FnOnce(&mut State)) {
        change(self.states().entry(*did).or_default());
    }

    fn missing(&self, did: &Did) -> u64 {
        self.shelves().get(did).map_or(0, |shelf| shelf.missing)
    }

    /// Drops chunk bodies, and gives their space back.
    fn drop_chunks(&self, did: &Did, victims: &[Hash]) -> Result<(), MirrorError> {
        if victims.is_empty() {
            return Ok(());
        }
        for part in victims.chunks(PAGE) {
            let mut batch = WriteBatch::new();
            for hash in part {
                batch.tombstone_chunk(*hash, Reason::Expired);
            }
            self.inner.store.commit(batch)?;
        }
        tracing::info!(machine = %did, chunks = victims.len(), "chunks dropped for age or room; their entries stay");
        self.inner.unswept.store(true, Relaxed);
        Ok(())
    }

    /// Gives the space of dropped chunks back to the disk, now and then: it may have to rewrite what lies beside them.
    fn sweep(&self) -> Result<(), MirrorError> {
        let now = Instant::now();
        {
            let mut last = self.inner.swept.lock().unwrap_or_else(PoisonError::into_inner);
            let due = last.is_none_or(|last| now.saturating_duration_since(last) >= SWEEP_EVERY);
            if !due || !self.inner.unswept.swap(false, Relaxed) {
                return Ok(());
            }
            *last = Some(now);
        }
        self.inner.store.gc(false, &tributary_store::Retention::default())?;
        Ok(())
    }
}
