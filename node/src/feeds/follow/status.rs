//! How followed feeds stand, for people and for peers that ask this node.

use std::sync::atomic::Ordering::Relaxed;

use serde::{Deserialize, Serialize};
use tributary_protocol::{
    binding::BindingChain,
    entry::SignedHead,
    feed::{Evidence, LogTip},
    ids::{Did, Hash, LogId, LogKey},
};

use super::{
    super::{
        Feeds, blocking,
        error::FeedsError,
        feed::{JoinPoint, Streams},
    },
    handle::SourceTotal,
};

/// How a feed stands.
#[derive(Debug, Clone, Serialize)]
pub struct FeedStatus {
    /// The machine.
    pub did: Did,
    /// Which streams are followed.
    pub streams: Streams,
    /// Since when, ms since 1970.
    pub since_ms: u64,
    /// From where its streams are followed.
    pub from: JoinPoint,
    /// Where its nodes were found.
    pub addrs: Vec<String>,
    /// Serial of the newest binding.
    pub binding_serial: Option<u64>,
    /// Whether the newest binding is past its time: the machine should have renewed it.
    pub stale_binding: bool,
    /// Proofs that the machine signs two stories. Anything but 0 means: do not trust its newest statements.
    pub equivocations: u64,
    /// These proofs.
    pub proofs: Vec<EvidenceStatus>,
    /// Entries and heads that counted for nothing.
    pub noise: u64,
    /// Entries whose time or binding looked odd.
    pub flagged: u64,
    /// By how much its clock was ahead of ours when it last spoke to us, ms; negative when it was behind.
    pub clock_offset_ms: Option<i64>,
    /// Its logs.
    pub logs: Vec<LogStatus>,
    /// Who brought its chunks since the node started, the most first.
    pub sources: Vec<SourceTotal>,
}

/// A proof that a machine signs two stories: what it says for one position, and what else.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct EvidenceStatus {
    /// The log.
    pub log: LogId,
    /// Its incarnation.
    pub incarnation: u32,
    /// The position.
    pub seq: u64,
    /// The hashes of the two entries that were signed for it; of a head, the hash that it names.
    pub entries: [Hash; 2],
    /// The feed key that signed both.
    pub key: String,
    /// Both statements with their signatures, hex: what convinces others (docs/protocol.md).
    pub evidence: String,
}

impl EvidenceStatus {
    fn of(evidence: &Evidence) -> Self {
        let (entry, other) = match evidence {
            Evidence::Entries(two) => (&two.0, two.1.hash()),
            Evidence::Head(two) => (&two.1, two.0.head().entry_hash),
        };
        let key = entry.entry().key();
        Self {
            log: key.log,
            incarnation: key.incarnation,
            seq: entry.entry().seq,
            entries: [entry.hash(), other],
            key: entry.signer().to_string(),
            evidence: hex::encode(evidence.encode()),
        }
    }
}

/// How a log of a feed stands.
#[derive(Debug, Clone, Serialize)]
pub struct LogStatus {
    /// The log.
    pub log: LogId,
    /// Its incarnation.
    pub incarnation: u32,
    /// Position of the first entry that is followed; more than 0 when following began later. Nothing is proven of what is before.
    pub start: u64,
    /// Position of the next entry to come.
    pub next: u64,
    /// Up to here (exclusive) everything is certain.
    pub settled: u64,
    /// Time of the newest entry, ms since 1970.
    pub time_ms: u64,
    /// How far the machine says that it goes: one behind the newest entry.
    pub announced: Option<u64>,
    /// When it said so, ms since 1970: an old head may mean that somebody hides newer ones.
    pub head_ms: Option<u64>,
}

impl Feeds {
    /// Makes the newest heads of a followed feed durable, where entries have come since.
    ///
    /// # Errors
    ///
    /// [`FeedsError::NotFollowed`], or the store.
    pub async fn keep_heads(&self, did: &Did) -> Result<(), FeedsError> {
        let handle = self.handle(did)?;
        blocking(move || handle.feed().keep_heads()).await?
    }

    /// Newest heads of a followed machine's logs, as they were signed, for peers that ask this node. Call it where blocking is
    /// allowed.
    #[must_use]
    pub fn heads(&self, did: &Did) -> Vec<Vec<u8>> {
        let Ok(handle) = self.handle(did) else { return Vec::new() };
        let feed = handle.feed();
        let follower = feed.follower();
        let head = |tip: LogTip| {
            let newest = follower.newest_head(&tip.log.log, tip.log.incarnation)?;
            Some(newest.bytes().to_vec())
        };
        follower.tips().filter_map(head).collect()
    }

    /// How a followed feed stands.
    ///
    /// # Errors
    ///
    /// [`FeedsError::NotFollowed`].
    pub async fn status(&self, did: &Did) -> Result<FeedStatus, FeedsError> {
        let (handle, now) = (self.handle(did)?, self.now());
        blocking(move || {
            let feed = handle.feed();
            let follower = feed.follower();
            let log = |tip: LogTip| {
                let LogKey { log, incarnation, .. } = tip.log;
                let head = follower.newest_head(&log, incarnation).map(SignedHead::head);
                LogStatus {
                    log,
                    incarnation,
                    start: tip.start,
                    next: tip.next,
                    settled: follower.settled(&log, incarnation),
                    time_ms: tip.time_ms,
                    announced: head.map(|head| head.seq.saturating_add(1)),
                    head_ms: head.map(|head| head.time_ms),
                }
            };
            let binding = follower.chain().map(BindingChain::current);
            FeedStatus {
                did: handle.did,
                streams: feed.row.streams.clone(),
                since_ms: feed.row.since_ms,
                from: feed.row.from,
                addrs: feed.row.addrs.clone(),
                binding_serial: binding.map(|binding| binding.serial),
                stale_binding: binding.is_some_and(|binding| binding.is_stale_at(now)),
                equivocations: feed.proofs().len() as u64,
                proofs: feed.proofs().iter().map(EvidenceStatus::of).collect(),
                noise: follower.noise(),
                flagged: handle.flagged.load(Relaxed),
                clock_offset_ms: handle.clock_offset_ms(),
                logs: follower.tips().map(log).collect(),
                sources: handle.totals(),
            }
        })
        .await
    }
}
