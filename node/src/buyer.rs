//! The buying side: following feeds, asking for access, pulling, verifying, and reading what was bought.
//!
//! [`Buyer`] owns everything a node keeps about other machines' data. It never signs in a machine's name and never writes to
//! a machine's logs except what that machine signed. It works without a network too (`net: None`), on what is stored:
//! listings, [`Buyer::verify`] and [`Buyer::export`]. Its background task ends when the last clone is dropped.

mod complete;
mod error;
mod export;
mod feed;
mod follow;
mod import;
mod link;
mod listing;
mod plaintext;
mod pull;
mod request;
mod subscription;
mod verify;
mod wallet;

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use tokio::sync::{broadcast, mpsc};
use tributary_protocol::{identity::IdentityKey, ids::Did, keys::EncryptionKey};
use tributary_store::Store;

pub use self::{
    error::{
        AccessError, BuyerError, ContentError, ExportJobError, FollowError, Incomplete, IncompleteError, PullJobError,
        VerifyError, WrongBytes,
    },
    export::{ExportFormat, ExportReport, ExportedFile},
    feed::{FollowInfo, JoinPoint, Streams, followed},
    follow::{CatchUpReport, EvidenceStatus, FeedEvent, FeedStatus, LogStatus, MachineInfo},
    link::{FeedLink, LinkError, MAX_LINK_ADDRS, MAX_LINK_LEN},
    listing::{ChunkInfo, DatasetInfo, PullSelection, StreamSummary},
    plaintext::DatasetPlaintext,
    pull::{PullProgress, PullReport},
    request::{AccessOutcome, OpenRequest},
    subscription::{
        MAX_SUBSCRIPTIONS, SinkTerms, SubscriptionError, SubscriptionState, SubscriptionStatus, SubscriptionTerms,
    },
    verify::{Report, Step, StepState, Verdict},
    wallet::GrantInfo,
};
use self::{
    feed::Feed,
    follow::{Handle, Work},
    subscription::Subscriptions,
    wallet::Wallet,
};
use crate::{
    durations::{Durations, DurationsReport},
    home::MachineKeys,
    net::Client,
};

/// Most feeds that are followed.
pub const MAX_FEEDS: usize = 1024;

/// Tells the time, in milliseconds since 1970.
pub type Clock = Arc<dyn Fn() -> u64 + Send + Sync>;

/// What a [`Buyer`] works with.
pub struct BuyerOptions<'a> {
    /// Whose identity signs requests, and what grants are sealed to.
    pub keys: &'a MachineKeys,
    /// Where everything is kept.
    pub store: Store,
    /// The network; `None` to work on what is stored. With one, [`Buyer::open`] must be called on a Tokio runtime.
    pub net: Option<Client>,
    /// The clock.
    pub clock: Clock,
}

/// The buying side of a node. Clones share it.
#[derive(Clone)]
pub struct Buyer {
    inner: Arc<Inner>,
}

struct Inner {
    did: Did,
    identity: Arc<IdentityKey>,
    encryption: Arc<EncryptionKey>,
    store: Store,
    net: Option<Client>,
    clock: Clock,
    feeds: Mutex<BTreeMap<Did, Arc<Handle>>>,
    wallet: Wallet,
    subscriptions: Subscriptions,
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
async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Result<T, BuyerError> {
    tokio::task::spawn_blocking(work).await.map_err(|_| BuyerError::Stopped)
}

impl Buyer {
    /// Opens the buying side: restores the followed feeds and the wallet. Reads the store, so call it where blocking is
    /// allowed.
    ///
    /// # Errors
    ///
    /// When what is stored cannot be read.
    pub fn open(options: BuyerOptions<'_>) -> Result<Self, BuyerError> {
        let BuyerOptions { keys, store, net, clock } = options;
        let (identity, encryption) = (Arc::clone(&keys.identity), Arc::clone(&keys.encryption));
        let feeds = Feed::restore_all(&store)?.into_iter().map(|feed| (feed.did, Handle::new(feed))).collect();
        let wallet = Wallet::open(&store)?;
        let (work, queue) = mpsc::channel(follow::WORK_QUEUE);
        let inner = Arc::new(Inner {
            did: identity.did(),
            identity,
            encryption,
            store,
            work: net.is_some().then_some(work),
            net: net.clone(),
            clock,
            feeds: Mutex::new(feeds),
            wallet,
            subscriptions: Subscriptions::default(),
            events: broadcast::channel(follow::EVENT_QUEUE).0,
            lag: Durations::default(),
        });
        if let Some(net) = net {
            tokio::spawn(follow::background(Arc::downgrade(&inner), net, queue));
        }
        let buyer = Self { inner };
        buyer.resume_subscriptions()?;
        Ok(buyer)
    }

    /// Who buys.
    #[must_use]
    pub fn did(&self) -> Did {
        self.inner.did
    }

    /// The followed machines.
    #[must_use]
    pub fn followed(&self) -> Vec<Did> {
        self.feeds().keys().copied().collect()
    }

    /// How old entries were when gossip brought them, from the machine's clock to ours. What is caught up on later is not in it.
    #[must_use]
    pub fn lag(&self) -> DurationsReport {
        self.inner.lag.report()
    }

    fn now(&self) -> u64 {
        (self.inner.clock)()
    }

    fn feeds(&self) -> MutexGuard<'_, BTreeMap<Did, Arc<Handle>>> {
        self.inner.feeds.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn handle(&self, did: &Did) -> Result<Arc<Handle>, BuyerError> {
        self.feeds().get(did).cloned().ok_or(BuyerError::NotFollowed(*did))
    }
}
