//! Beginning with the logs of streams where the feeds wants to, and going back to an earlier place.
//!
//! What a peer sends is proven before it counts: a head or entry by the key of its position, and what lies before by the
//! hashes that lead to what is followed already. Each page is durable before the next is asked for, so going back goes on
//! after a restart.

use std::{collections::BTreeMap, sync::Arc};

use libp2p::PeerId;
use tributary_protocol::{
    entry::{EntryBody, SignedEntry, SignedHead},
    feed::JoinError,
    ids::{DatasetId, Did, LogId, LogKey, StreamId},
    wire::{SyncRequest, SyncResponse},
};
use tributary_store::Store;

use super::{
    super::{
        Feeds, blocking,
        error::{FeedsError, FollowError},
        feed::{JoinPoint, closing_entry},
        listing::visit_machine_log,
    },
    CatchUpReport,
    ask::{ask, decode_page, odd},
    handle::Handle,
};
use crate::net::Offence;

/// Entries asked for at a time while going back.
const PAGE: u64 = 256;

/// Where the logs of a machine begin when following begins with a dataset.
pub(super) struct Beginnings {
    dataset: (LogKey, u64),
    /// One behind the last dataset that was closed before, by stream and incarnation.
    before: BTreeMap<(StreamId, u32), u64>,
}

impl Beginnings {
    /// `None` when the machine has not closed the dataset, as far as its log is here.
    fn of(store: &Store, did: &Did, dataset: &DatasetId) -> Result<Option<Self>, FeedsError> {
        let mut before = BTreeMap::new();
        let mut found = None;
        visit_machine_log(store, did, |entry| {
            let EntryBody::DatasetClosed(close) = &entry.entry().body else { return true };
            if close.dataset == *dataset {
                let log = LogKey { did: *did, log: LogId::from(close.stream), incarnation: close.incarnation };
                found = Some((log, close.first_seq));
                return false;
            }
            before.insert((close.stream, close.incarnation), close.last_seq.saturating_add(1));
            true
        })?;
        Ok(found.map(|dataset| Self { dataset, before }))
    }

    /// The first position of a log that is wanted; `None` for a log that was over before.
    fn first(&self, log: &LogKey) -> Option<u64> {
        let (own, first) = &self.dataset;
        if log == own {
            return Some(*first);
        }
        if log.incarnation < own.incarnation {
            return None;
        }
        let stream = log.log.stream()?;
        Some(self.before.get(&(stream, log.incarnation)).copied().unwrap_or(0))
    }
}

/// Where following begins, once the machine log is here.
pub(super) enum Beginning {
    Start,
    Now,
    Dataset(Beginnings),
}

impl Beginning {
    /// The first position of a log that is wanted; `None` is what comes next.
    fn first(&self, log: &LogKey) -> Option<u64> {
        match self {
            Self::Start => Some(0),
            Self::Now => None,
            Self::Dataset(beginnings) => beginnings.first(log),
        }
    }
}

impl Feeds {
    /// Where logs that are not followed yet begin; `None` when they begin at their start and nothing has to go back.
    pub(super) async fn join_from(&self, handle: &Arc<Handle>) -> Result<Option<Beginning>, FollowError> {
        let (store, known) = (self.inner.store.clone(), Arc::clone(handle));
        let (point, from) = blocking(move || {
            let (joining, point) = {
                let feed = known.feed();
                (feed.row.joining, feed.row.from)
            };
            let from = match point {
                _ if !joining => None,
                JoinPoint::Start => Some(Beginning::Start),
                JoinPoint::Now => Some(Beginning::Now),
                JoinPoint::Dataset(dataset) => Beginnings::of(&store, &known.did, &dataset)?.map(Beginning::Dataset),
            };
            Ok::<_, FeedsError>((joining.then_some(point), from))
        })
        .await??;
        match (point, from) {
            (Some(JoinPoint::Dataset(dataset)), None) => Err(FollowError::NoDataset { did: handle.did, dataset }),
            (_, from) => Ok(from),
        }
    }

    /// Begins to follow a log that the head is of.
    pub(super) async fn join_log(
        &self,
        handle: &Arc<Handle>,
        peer: PeerId,
        from: &Beginning,
        head: &SignedHead,
    ) -> Result<(), FollowError> {
        let (log, newest) = (head.head().key(), head.head().seq);
        let first = match from.first(&log) {
            Some(first) if first <= newest => Some(first),
            Some(_) => None,
            None => self.open_since(handle, peer, &log, newest).await?,
        };
        match first {
            // Nothing to join: the log is followed from its start.
            Some(0) => Ok(()),
            Some(first) => self.join_log_at(handle, peer, log, first).await,
            None => {
                let (known, head) = (Arc::clone(handle), *head);
                let joined = blocking(move || known.feed().join_after(&head)).await??;
                self.joined(peer, joined).await
            }
        }
    }

    /// Begins to follow a log of an earlier incarnation; `false` when nothing of it is wanted.
    pub(super) async fn join_closed(
        &self,
        handle: &Arc<Handle>,
        peer: PeerId,
        from: &Beginning,
        log: LogKey,
        end: u64,
    ) -> Result<bool, FollowError> {
        match from.first(&log) {
            Some(0) => Ok(true),
            Some(first) if first < end => self.join_log_at(handle, peer, log, first).await.map(|()| true),
            _ => Ok(false),
        }
    }

    async fn join_log_at(
        &self,
        handle: &Arc<Handle>,
        peer: PeerId,
        log: LogKey,
        first: u64,
    ) -> Result<(), FollowError> {
        let Some(entry) = self.fetch_entries(peer, log, first, 1).await?.pop() else {
            return Err(odd(self.net()?, peer, "it has a head, and not the entries before it").await);
        };
        let known = Arc::clone(handle);
        let joined = blocking(move || known.feed().join_at(&entry)).await??;
        self.joined(peer, joined).await
    }

    async fn joined(&self, peer: PeerId, joined: Result<(), JoinError>) -> Result<(), FollowError> {
        match joined {
            // Gossip may have been faster.
            Ok(()) | Err(JoinError::Followed) => Ok(()),
            Err(source) => {
                self.net()?.penalize(peer, Offence::BadProof).await?;
                Err(FollowError::Join { peer, source })
            }
        }
    }

    /// Where the dataset begins that is being written at the end of a log; `None` when the last one is closed.
    async fn open_since(
        &self,
        handle: &Arc<Handle>,
        peer: PeerId,
        log: &LogKey,
        newest: u64,
    ) -> Result<Option<u64>, FollowError> {
        let Some(entry) = self.fetch_entries(peer, *log, newest, 1).await?.pop() else { return Ok(None) };
        // Believed only as far as it says where to look: joining proves the entry that is found there.
        let EntryBody::Chunk(record) = &entry.entry().body else { return Ok(None) };
        let (store, did, dataset) = (self.inner.store.clone(), handle.did, record.dataset);
        let closed = blocking(move || closing_entry(&store, &did, &dataset)).await?.map_err(FeedsError::from)?;
        Ok(closed.is_none().then(|| newest.saturating_sub(u64::from(record.index))))
    }

    /// Entries `from..from + max` of a log, as far as the peer sends them; in order, without gaps, decoded and not checked.
    async fn fetch_entries(
        &self,
        peer: PeerId,
        log: LogKey,
        from: u64,
        max: u64,
    ) -> Result<Vec<SignedEntry>, FollowError> {
        let net = self.net()?;
        let request = SyncRequest::Entries { log, from, max: u32::try_from(max).unwrap_or(u32::MAX) };
        let page = match ask(net, peer, &request).await? {
            SyncResponse::Entries { entries, .. } => entries,
            SyncResponse::NotFound => return Ok(Vec::new()),
            _ => return Err(odd(net, peer, "it was asked for entries").await),
        };
        let asked_for = page.len().min(usize::try_from(max).unwrap_or(usize::MAX));
        decode_page(net, peer, log, from, &page[..asked_for]).await
    }

    /// Goes back with every log that is followed from a later place than wanted.
    pub(super) async fn extend_logs(
        &self,
        handle: &Arc<Handle>,
        peer: PeerId,
        from: &Beginning,
        report: &mut CatchUpReport,
    ) -> Result<(), FollowError> {
        if matches!(from, Beginning::Now) {
            return Ok(());
        }
        let known = Arc::clone(handle);
        let tips = blocking(move || {
            let feed = known.feed();
            let wanted = |log: &LogId| feed.row.streams.wants(&known.did, log);
            feed.follower().tips().filter(|tip| tip.start > 0 && wanted(&tip.log.log)).collect::<Vec<_>>()
        })
        .await?;
        for tip in tips {
            let Some(first) = from.first(&tip.log) else { continue };
            let mut start = tip.start;
            while start > first {
                let page_from = start.saturating_sub(PAGE).max(first);
                let mut page: Vec<SignedEntry> = Vec::new();
                while page_from + (page.len() as u64) < start {
                    let next = page_from + page.len() as u64;
                    let more = self.fetch_entries(peer, tip.log, next, start - next).await?;
                    if more.is_empty() {
                        return Err(FollowError::Answer { peer, what: "it does not have the beginning of a log" });
                    }
                    page.extend(more);
                }
                report.entries += page.len() as u64;
                report.bytes += page.iter().map(|entry| entry.bytes().len() as u64).sum::<u64>();
                let known = Arc::clone(handle);
                let extended = blocking(move || known.feed().extend_back(&page)).await??;
                self.joined(peer, extended).await?;
                start = page_from;
            }
        }
        Ok(())
    }
}
