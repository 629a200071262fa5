//! Following the feeds of machines and pulling their ciphertext, for whoever keeps it: a buyer, or a mirror.
//!
//! [`Feeds`] owns what a node keeps of other machines' logs, finds who has them, and fetches what is missing. It never signs in
//! a machine's name, holds no keys of chunks, and never writes to a machine's logs except what that machine signed. It works
//! without a network too (`net: None`), on what is stored. Its background task ends when the last clone is dropped.
//!
//! What a pull is for is said by an [`Intake`]: the buying side takes what was granted to it, and tries the keys.

mod complete;
mod error;
mod feed;
mod follow;
mod link;
mod listing;
mod pull;

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use tokio::sync::{broadcast, mpsc};
use tributary_protocol::ids::Did;
use tributary_store::Store;

pub use self::{
    complete::{Incomplete, IncompleteError},
    error::{Exhausted, FeedsError, FollowError, PullJobError, SourceError, WrongBytes},
    feed::{FollowInfo, JoinPoint, Streams, followed},
    follow::{CatchUpReport, EvidenceStatus, FeedEvent, FeedStatus, LogStatus, MachineInfo, SourceTotal},
    link::{FeedLink, LinkError, MAX_LINK_ADDRS, MAX_LINK_LEN},
    listing::{DatasetInfo, PullSelection, StreamSummary},
    pull::{Intake, PullProgress, Pulled, SourceCounts},
};
use self::{
    feed::Feed,
    follow::{Handle, Work},
};
pub(crate) use self::{
    feed::{closing_entry, decode_stored, stored_chain},
    follow::backoff,
    listing::{dataset_place, entries, stream_logs},
};
use crate::{
    durations::{Durations, DurationsReport},
    net::Client,
};

/// Most feeds that are followed.
pub const MAX_FEEDS: usize = 1024;

/// Tells the time, in milliseconds since 1970.
pub type Clock = Arc<dyn Fn() -> u64 + Send + Sync>;

/// What [`Feeds`] work with.
pub struct FeedsOptions {
    /// Who this node is: it does not follow itself.
    pub did: Did,
    /// Where everything is kept.
    pub store: Store,
    /// The network; `None` to work on what is stored. With one, [`Feeds::open`] must be called on a Tokio runtime.
    pub net: Option<Client>,
    /// The clock.
    pub clock: Clock,
}

/// The followed feeds of a node. Clones share them.
#[derive(Clone)]
pub struct Feeds {
    inner: Arc<Inner>,
}

struct Inner {
    did: Did,
    store: Store,
    net: Option<Client>,
    clock: Clock,
    handles: Mutex<BTreeMap<Did, Arc<Handle>>>,
    work: Option<mpsc::Sender<Work>>,
    events: broadcast::Sender<FeedEvent>,
    /// How old entries were when they came as news.
    lag: Durations,
}

impl Inner {
    /// Hands work to the background task; when there is too much, the next head brings it again.
    fn queue(&self, work: Work) {
        if let Some(queue) = &self.work {
            let _ = queue.try_send(work);
        }
    }

    fn tell(&self, event: FeedEvent) {
        // Nobody has to listen.
        let _ = self.events.send(event);
    }
}

/// Runs what blocks where blocking is allowed.
pub(crate) async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Result<T, FeedsError> {
    tokio::task::spawn_blocking(work).await.map_err(|_| FeedsError::Stopped)
}

impl Feeds {
    /// Restores the followed feeds. Reads the store, so call it where blocking is allowed.
    ///
    /// # Errors
    ///
    /// When what is stored cannot be read.
    pub fn open(options: FeedsOptions) -> Result<Self, FeedsError> {
        let FeedsOptions { did, store, net, clock } = options;
        let handles = Feed::restore_all(&store)?.into_iter().map(|feed| (feed.did, Handle::new(feed))).collect();
        let (work, queue) = mpsc::channel(follow::WORK_QUEUE);
        let inner = Arc::new(Inner {
            did,
            store,
            work: net.is_some().then_some(work),
            net: net.clone(),
            clock,
            handles: Mutex::new(handles),
            events: broadcast::channel(follow::EVENT_QUEUE).0,
            lag: Durations::default(),
        });
        if let Some(net) = net {
            tokio::spawn(follow::background(Arc::downgrade(&inner), net, queue));
        }
        Ok(Self { inner })
    }

    /// The followed machines.
    #[must_use]
    pub fn followed(&self) -> Vec<Did> {
        self.handles().keys().copied().collect()
    }

    /// How old entries were when gossip brought them, from the machine's clock to ours. What is caught up on later is not in it.
    #[must_use]
    pub fn lag(&self) -> DurationsReport {
        self.inner.lag.report()
    }

    /// Where everything is kept.
    pub(crate) fn store(&self) -> &Store {
        &self.inner.store
    }

    /// The network.
    pub(crate) fn net(&self) -> Result<&Client, FollowError> {
        self.inner.net.as_ref().ok_or(FollowError::Offline)
    }

    /// The time, ms since 1970.
    pub(crate) fn now(&self) -> u64 {
        (self.inner.clock)()
    }

    /// A followed feed.
    pub(crate) fn handle(&self, did: &Did) -> Result<Arc<Handle>, FeedsError> {
        self.handles().get(did).cloned().ok_or(FeedsError::NotFollowed(*did))
    }

    fn handles(&self) -> MutexGuard<'_, BTreeMap<Did, Arc<Handle>>> {
        self.inner.handles.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
