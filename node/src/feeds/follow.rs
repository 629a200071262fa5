//! Finding machines, following their feeds, and catching up.
//!
//! Owns what is asked of peers about feeds and in which order. Nothing a peer says counts before it is checked from the
//! machine's DID. One catch-up per feed at a time; what gossip cannot apply at once (a gap, a new key) is left to it.

mod ask;
mod background;
mod catch_up;
mod discover;
mod find;
mod gossip;
mod handle;
mod join;
mod reach;
mod sources;
mod status;

use std::sync::Arc;

use tokio::sync::broadcast;
use tributary_protocol::{
    binding::SignedBinding,
    ids::{Did, LogId, StreamId},
    wire::{topic_machine, topic_stream},
};
use tributary_store::{Table, WriteBatch};

pub(super) use self::background::{WORK_QUEUE, Work, background};
pub(crate) use self::{ask::backoff, handle::Handle};
pub use self::{
    catch_up::CatchUpReport,
    find::MachineInfo,
    handle::SourceTotal,
    status::{EvidenceStatus, FeedStatus, LogStatus},
};
use super::{
    Feeds, MAX_FEEDS, blocking,
    error::{FeedsError, FollowError},
    feed::{Feed, FollowRow, JoinPoint, Streams},
    link::FeedLink,
};

/// Events a slow watcher may fall behind.
pub(super) const EVENT_QUEUE: usize = 1024;

/// Something that happened on a followed feed.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub enum FeedEvent {
    /// Entries were stored.
    Entries {
        /// The machine.
        did: Did,
        /// The log.
        log: LogId,
        /// Its incarnation.
        incarnation: u32,
        /// Position of the first.
        first: u64,
        /// How many.
        count: u64,
    },
    /// The machine contradicted itself.
    Equivocation {
        /// The machine.
        did: Did,
    },
}

impl Feeds {
    /// As [`Feeds::follow_from`], from the start, or from where it is followed already.
    ///
    /// # Errors
    ///
    /// As [`Feeds::follow_from`].
    pub async fn follow(&self, link: &FeedLink, streams: Streams) -> Result<(MachineInfo, CatchUpReport), FollowError> {
        self.follow_from(link, streams, None).await
    }

    /// Finds a machine or somebody who has its feed, follows it from `from` on (`None` is the start), and catches up. Following again changes which
    /// streams are followed, and goes back to an earlier `from`; it never forgets what is here.
    ///
    /// # Errors
    ///
    /// When the machine is not found, or has not closed the dataset to begin with, nothing changes. When catching up fails, the
    /// feed is followed all the same, and [`Feeds::catch_up`] continues.
    pub async fn follow_from(
        &self,
        link: &FeedLink,
        streams: Streams,
        from: Option<JoinPoint>,
    ) -> Result<(MachineInfo, CatchUpReport), FollowError> {
        if let Streams::Names(names) = &streams
            && (names.len() > 256 || names.iter().any(|name| name.len() > 256))
        {
            return Err(FollowError::Streams);
        }
        let (info, bindings) = self.look_up(link).await?;
        let mut addrs: Vec<String> = vec![info.addr.to_string()];
        addrs.extend(link.addrs.iter().map(ToString::to_string).filter(|addr| *addr != info.addr.to_string()));
        let from_start = from.unwrap_or_default();
        let row = FollowRow {
            version: 1,
            streams,
            addrs,
            since_ms: self.now(),
            from: from_start,
            joining: from_start != JoinPoint::Start,
            joined: Vec::new(),
        };
        let feeds = self.clone();
        let did = link.did;
        let (handle, before) = blocking(move || feeds.keep(did, row, from, &bindings)).await??;
        if info.own {
            handle.remember(info.peer);
        } else {
            self.add_provider(&did, info.peer)?;
        }
        self.leave_others(&handle).await?;
        self.subscribe(&handle).await?;
        match self.catch_up_with(&handle, Some(info.peer)).await {
            Ok(report) => Ok((info, report)),
            Err(error @ FollowError::NoDataset { .. }) => {
                match before {
                    Some(row) => blocking(move || handle.feed().set_row(row)).await??,
                    None => self.unfollow(&did).await?,
                }
                Err(error)
            }
            Err(error) => Err(error),
        }
    }

    /// Stores what is followed. Returns the feed, and the row that it had before.
    fn keep(
        &self,
        did: Did,
        row: FollowRow,
        from: Option<JoinPoint>,
        bindings: &[SignedBinding],
    ) -> Result<(Arc<Handle>, Option<FollowRow>), FollowError> {
        if let Ok(handle) = self.handle(&did) {
            let mut feed = handle.feed();
            let before = feed.row.clone();
            // Going back is possible, going forward would only forget.
            let from = match (before.from, from) {
                (JoinPoint::Start, _) | (_, None | Some(JoinPoint::Now)) => before.from,
                (_, Some(from)) => from,
            };
            let changed = from != before.from || row.streams != before.streams;
            let joining = before.joining || (changed && (from, before.from) != (JoinPoint::Start, JoinPoint::Start));
            let FollowRow { since_ms, joined, .. } = before.clone();
            feed.set_row(FollowRow { since_ms, from, joining, joined, ..row })?;
            drop(feed);
            return Ok((handle, Some(before)));
        }
        if self.handles().len() >= MAX_FEEDS {
            return Err(FollowError::TooManyFeeds(MAX_FEEDS));
        }
        let feed = Feed::create(&self.inner.store, did, row, bindings)?;
        let handle = Handle::new(feed);
        Ok((Arc::clone(self.handles().entry(did).or_insert(handle)), None))
    }

    /// Stops following a machine: no more gossip, no more catching up. What is stored stays.
    ///
    /// # Errors
    ///
    /// [`FeedsError::NotFollowed`], or the store.
    pub async fn unfollow(&self, did: &Did) -> Result<(), FollowError> {
        let handle = self.handle(did)?;
        let (store, key) = (self.inner.store.clone(), *did);
        blocking(move || {
            let mut batch = WriteBatch::new();
            batch.delete_row(Table::Follow, key.as_bytes().to_vec());
            store.commit(batch)
        })
        .await??;
        self.handles().remove(did);
        if let Ok(net) = self.net() {
            for topic in self.topics(handle).await? {
                net.unsubscribe(topic).await?;
            }
        }
        Ok(())
    }

    /// The topics of a feed as far as its streams are known.
    async fn topics(&self, handle: Arc<Handle>) -> Result<Vec<String>, FollowError> {
        let feeds = self.clone();
        Ok(blocking(move || -> Result<Vec<String>, FeedsError> {
            let (did, streams) = (handle.did, handle.feed().row.streams.clone());
            let mut topics = vec![topic_machine(&did)];
            match &streams {
                Streams::Names(names) => {
                    topics.extend(names.iter().map(|name| topic_stream(&did, &StreamId::of(&did, name))));
                }
                Streams::All => {
                    let announced = feeds.stream_infos(&did)?;
                    topics.extend(announced.keys().map(|stream| topic_stream(&did, stream)));
                }
            }
            Ok(topics)
        })
        .await??)
    }

    /// Leaves the gossip of streams that are no longer followed.
    async fn leave_others(&self, handle: &Arc<Handle>) -> Result<(), FollowError> {
        let (net, feeds, handle) = (self.net()?, self.clone(), Arc::clone(handle));
        let others = blocking(move || -> Result<Vec<String>, FeedsError> {
            let (did, streams) = (handle.did, handle.feed().row.streams.clone());
            let announced = feeds.stream_infos(&did)?;
            let other = announced.keys().filter(|stream| !streams.wants(&did, &LogId::from(**stream)));
            Ok(other.map(|stream| topic_stream(&did, stream)).collect())
        })
        .await??;
        for topic in others {
            net.unsubscribe(topic).await?;
        }
        Ok(())
    }

    /// Subscribes to the gossip of a feed.
    async fn subscribe(&self, handle: &Arc<Handle>) -> Result<(), FollowError> {
        let net = self.net()?;
        for topic in self.topics(Arc::clone(handle)).await? {
            net.subscribe(topic).await?;
        }
        Ok(())
    }

    /// What happens on followed feeds from now on. A reader that falls behind loses the oldest events.
    #[must_use]
    pub fn watch(&self) -> broadcast::Receiver<FeedEvent> {
        self.inner.events.subscribe()
    }
}
