//! How many bytes a second may go: up and down, in all, by class, and with one peer.
//!
//! Owns the token buckets and the meters, and says who has to wait; it moves no byte and has no buffer. What is limited:
//!
//! | class | what | at the limit |
//! |---|---|---|
//! | gossip | entries and heads, each copy that goes out or comes in | not sent, not passed on, not handed on: heads tell, catch-up brings |
//! | sync | requests and answers of the sync protocol | peers are told "busy, retry after"; we wait before we ask on |
//! | pull | chunks | the reader or writer of the stream waits, and behind it the peer, by the flow control of the stream |
//!
//! A bucket goes into debt for what has gone already, and nothing more goes until the debt is paid; so one piece may be larger
//! than a second's worth. Gossip may put the bucket for everything into debt of up to a second, the others take only what is
//! left: bulk never starves gossip. What is not in a class (access, identify, pings, relayed traffic of others) is small or has
//! limits of its own and is not counted here.

mod bucket;
mod meter;

use std::{
    collections::HashMap,
    fmt,
    num::NonZeroU64,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use libp2p::PeerId;

use self::{bucket::Bucket, meter::Meter};

/// Peers with buckets of their own at a time; those that do not fit share one.
const MAX_PEERS: usize = 1024;
/// Nobody waits longer before he looks again: limits are not worth a stream that looks dead.
const LONGEST_NAP: Duration = Duration::from_secs(1);

/// What bytes are for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Class {
    /// Entries and heads as they are made.
    Gossip,
    /// Catching up.
    Sync,
    /// Chunks.
    Pull,
}

/// Which way bytes go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Way {
    /// From this node.
    Up,
    /// To this node.
    Down,
}

/// Limits of one direction, bytes per second; `None` is no limit.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct RateCaps {
    /// All classes together.
    pub total: Option<NonZeroU64>,
    /// All classes together, with one peer.
    pub per_peer: Option<NonZeroU64>,
    /// Gossip.
    pub gossip: Option<NonZeroU64>,
    /// Sync.
    pub sync: Option<NonZeroU64>,
    /// Pulls.
    pub pull: Option<NonZeroU64>,
}

impl RateCaps {
    fn of(&self, class: Class) -> Option<NonZeroU64> {
        match class {
            Class::Gossip => self.gossip,
            Class::Sync => self.sync,
            Class::Pull => self.pull,
        }
    }
}

/// What went in one direction or class.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct RateReport {
    /// The limit, bytes per second.
    pub limit: Option<u64>,
    /// What went lately, bytes per second: the mean of the last ten seconds.
    pub rate: u64,
    /// What went since the start, bytes.
    pub bytes: u64,
    /// How often something had to wait, or was left out, because of a limit.
    pub held: u64,
}

/// What went in one direction.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct WayReport {
    /// All classes together.
    pub total: RateReport,
    /// Gossip.
    pub gossip: RateReport,
    /// Sync.
    pub sync: RateReport,
    /// Pulls.
    pub pull: RateReport,
    /// The limit with one peer, bytes per second.
    pub per_peer_limit: Option<u64>,
}

/// What went, both ways.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct RatesReport {
    /// From this node.
    pub up: WayReport,
    /// To this node.
    pub down: WayReport,
}

/// One direction.
struct Side {
    caps: RateCaps,
    total: Bucket,
    classes: [Bucket; 3],
    peers: HashMap<PeerId, Bucket>,
    strangers: Bucket,
    meters: [Meter; 3],
    held: [u64; 3],
}

const CLASSES: [Class; 3] = [Class::Gossip, Class::Sync, Class::Pull];

impl Side {
    fn new(caps: RateCaps, now: Instant) -> Self {
        let bucket = |rate| Bucket::new(rate, now);
        Self {
            caps,
            total: bucket(caps.total),
            classes: CLASSES.map(|class| bucket(caps.of(class))),
            peers: HashMap::new(),
            strangers: bucket(caps.per_peer),
            meters: [Meter::new(now); 3],
            held: [0; 3],
        }
    }

    /// The peer, if it has a limit.
    fn limited(&self, peer: Option<PeerId>) -> Option<PeerId> {
        peer.filter(|_| self.caps.per_peer.is_some())
    }

    fn peer(&mut self, peer: PeerId, now: Instant) -> &mut Bucket {
        if !self.peers.contains_key(&peer) && self.peers.len() >= MAX_PEERS {
            // A full bucket remembers nothing.
            self.peers.retain(|_, bucket| !bucket.is_full(now));
            if self.peers.len() >= MAX_PEERS {
                return &mut self.strangers;
            }
        }
        let rate = self.caps.per_peer;
        self.peers.entry(peer).or_insert_with(|| Bucket::new(rate, now))
    }

    /// Takes `bytes`, or says when to try again.
    fn take(&mut self, class: Class, peer: Option<PeerId>, bytes: u64, now: Instant) -> Result<(), Duration> {
        let debt = if class == Class::Gossip { Duration::from_secs(1) } else { Duration::ZERO };
        let at = class as usize;
        let mut wait = self.total.wait(debt, now).max(self.classes[at].wait(Duration::ZERO, now));
        if let Some(peer) = self.limited(peer) {
            wait = wait.max(self.peer(peer, now).wait(debt, now));
        }
        if !wait.is_zero() {
            self.held[at] = self.held[at].saturating_add(1);
            return Err(wait);
        }
        self.spend(class, peer, bytes, now);
        Ok(())
    }

    fn spend(&mut self, class: Class, peer: Option<PeerId>, bytes: u64, now: Instant) {
        let at = class as usize;
        self.total.spend(bytes, now);
        self.classes[at].spend(bytes, now);
        if let Some(peer) = self.limited(peer) {
            self.peer(peer, now).spend(bytes, now);
        }
        self.meters[at].add(bytes, now);
    }

    fn report(&mut self, now: Instant) -> WayReport {
        let each = |class: Class, side: &mut Self| RateReport {
            limit: side.caps.of(class).map(NonZeroU64::get),
            rate: side.meters[class as usize].rate(now),
            bytes: side.meters[class as usize].total(),
            held: side.held[class as usize],
        };
        let [gossip, sync, pull] = CLASSES.map(|class| each(class, self));
        let sum = |value: fn(&RateReport) -> u64| [gossip, sync, pull].iter().map(value).fold(0, u64::saturating_add);
        let total = RateReport {
            limit: self.caps.total.map(NonZeroU64::get),
            rate: sum(|report| report.rate),
            bytes: sum(|report| report.bytes),
            held: sum(|report| report.held),
        };
        WayReport { total, gossip, sync, pull, per_peer_limit: self.caps.per_peer.map(NonZeroU64::get) }
    }
}

/// The buckets and meters of a node. Held by whoever moves bytes.
pub(super) struct Shaper {
    // Held for some arithmetic, never across a wait.
    sides: Mutex<[Side; 2]>,
}

impl fmt::Debug for Shaper {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Shaper").finish_non_exhaustive()
    }
}

impl Shaper {
    pub(super) fn new(up: RateCaps, down: RateCaps) -> Arc<Self> {
        let now = Instant::now();
        Arc::new(Self { sides: Mutex::new([Side::new(up, now), Side::new(down, now)]) })
    }

    fn sides(&self) -> MutexGuard<'_, [Side; 2]> {
        self.sides.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes `bytes` at once, or says how long there is nothing to take. Copies of gossip have no peer: gossipsub does not say whose
    /// they are, or whom they go to.
    pub(super) fn take(&self, class: Class, way: Way, peer: Option<PeerId>, bytes: usize) -> Result<(), Duration> {
        let bytes = u64::try_from(bytes).unwrap_or(u64::MAX);
        self.sides()[way as usize].take(class, peer, bytes, Instant::now())
    }

    /// Notes what has gone already: whoever comes next waits for it.
    pub(super) fn spend(&self, class: Class, way: Way, peer: Option<PeerId>, bytes: usize) {
        let bytes = u64::try_from(bytes).unwrap_or(u64::MAX);
        self.sides()[way as usize].spend(class, peer, bytes, Instant::now());
    }

    /// Waits until `bytes` may go.
    pub(super) async fn pass(&self, class: Class, way: Way, peer: PeerId, bytes: usize) {
        while let Err(wait) = self.take(class, way, Some(peer), bytes) {
            tokio::time::sleep(wait.min(LONGEST_NAP)).await;
        }
    }

    pub(super) fn report(&self) -> RatesReport {
        let now = Instant::now();
        let mut sides = self.sides();
        let [up, down] = &mut *sides;
        RatesReport { up: up.report(now), down: down.report(now) }
    }
}

/// The limits on chunks from a peer or to it; see [`super::Client::pace`].
#[derive(Debug, Clone)]
pub struct Pace {
    pub(super) shaper: Arc<Shaper>,
    pub(super) way: Way,
    pub(super) peer: PeerId,
}

impl Pace {
    /// Waits until so many bytes may be read or written.
    pub async fn pass(&self, bytes: usize) {
        self.shaper.pass(Class::Pull, self.way, self.peer, bytes).await;
    }
}

#[cfg(test)]
mod tests;
