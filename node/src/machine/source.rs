//! What a live source says about itself, beside what its stream's lane counts.

use std::sync::{
    Mutex, PoisonError,
    atomic::{AtomicU64, Ordering::Relaxed},
};

use serde::{Deserialize, Serialize};

/// Publishers that are listed by name; the others are counted.
pub const MAX_FAULTY: usize = 16;

/// How a live source stands.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SourceState {
    /// Nobody publishes the topic.
    #[default]
    Waiting,
    /// It is subscribed.
    Subscribed,
    /// It is subscribed, and what comes is left out, since the operator paused the node.
    Paused,
    /// It cannot be subscribed; the report says why.
    Refused,
}

/// A publisher whose messages do not come, and why.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FaultyPublisher {
    /// Full name of its node.
    pub node: String,
    /// The type it publishes.
    pub message_type: String,
    /// Why nothing of it comes.
    pub reason: String,
}

/// A reading of a live source's counters. All of them count since the node started. Every message that was published while the
/// topic was subscribed is either in `received` or in `lost`; of those received, the ones that are not in `refused` or
/// `paused` went to the lane, which counts them on.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SourceReport {
    /// The topic's name in the ROS graph, after remapping.
    pub topic: String,
    /// The type that is subscribed.
    pub message_type: Option<String>,
    /// How it stands.
    pub state: SourceState,
    /// Why it is refused.
    pub reason: Option<String>,
    /// Publishers of the topic, faulty ones included.
    pub publishers: u64,
    /// Messages taken from the middleware.
    pub received: u64,
    /// Messages that were published and never came: lost on the way, or overwritten in the middleware before they were taken.
    pub lost: u64,
    /// Messages that could not be read.
    pub refused: u64,
    /// Why the last of them could not.
    pub refusal: Option<String>,
    /// Messages left out while the node was paused.
    pub paused: u64,
    /// When the last message was received, ms since 1970.
    pub last_ms: Option<u64>,
    /// Publishers whose messages do not come, the first [`MAX_FAULTY`].
    pub faulty: Vec<FaultyPublisher>,
    /// How many of those there are.
    pub faulty_count: u64,
}

/// How a source stands, as whoever watches the graph sees it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Situation {
    /// See [`SourceReport::topic`].
    pub topic: String,
    /// See [`SourceReport::message_type`].
    pub message_type: Option<String>,
    /// See [`SourceReport::state`].
    pub state: SourceState,
    /// See [`SourceReport::reason`].
    pub reason: Option<String>,
    /// See [`SourceReport::publishers`].
    pub publishers: u64,
    /// All publishers whose messages do not come.
    pub faulty: Vec<FaultyPublisher>,
}

/// Counters of one live source, shared with whoever shows them.
#[derive(Debug, Default)]
pub struct SourceStats {
    received: AtomicU64,
    lost: AtomicU64,
    refused: AtomicU64,
    paused: AtomicU64,
    last_ms: AtomicU64,
    /// `None` until a live source looks after the stream.
    situation: Mutex<Option<Situation>>,
    refusal: Mutex<Option<String>>,
}

impl SourceStats {
    /// A message came at `now_ms`, ms since 1970.
    pub fn received(&self, now_ms: u64) {
        self.received.fetch_add(1, Relaxed);
        self.last_ms.store(now_ms, Relaxed);
    }

    /// Messages never came.
    pub fn lost(&self, count: u64) {
        self.lost.fetch_add(count, Relaxed);
    }

    /// A message could not be read.
    pub fn refused(&self, reason: String) {
        self.refused.fetch_add(1, Relaxed);
        *self.refusal.lock().unwrap_or_else(PoisonError::into_inner) = Some(reason);
    }

    /// A message was left out while the node was paused.
    pub fn paused(&self) {
        self.paused.fetch_add(1, Relaxed);
    }

    /// How the source stands now. Gives how it stood before.
    pub fn stands(&self, situation: Situation) -> Option<Situation> {
        self.situation.lock().unwrap_or_else(PoisonError::into_inner).replace(situation)
    }

    /// What was counted so far; `None` where no live source looks after the stream.
    #[must_use]
    pub fn report(&self) -> Option<SourceReport> {
        let situation = self.situation.lock().unwrap_or_else(PoisonError::into_inner).clone()?;
        let Situation { topic, message_type, state, reason, publishers, mut faulty } = situation;
        let faulty_count = faulty.len() as u64;
        faulty.truncate(MAX_FAULTY);
        let last_ms = self.last_ms.load(Relaxed);
        Some(SourceReport {
            topic,
            message_type,
            state,
            reason,
            publishers,
            received: self.received.load(Relaxed),
            lost: self.lost.load(Relaxed),
            refused: self.refused.load(Relaxed),
            refusal: self.refusal.lock().unwrap_or_else(PoisonError::into_inner).clone(),
            paused: self.paused.load(Relaxed),
            last_ms: (last_ms > 0).then_some(last_ms),
            faulty,
            faulty_count,
        })
    }
}
