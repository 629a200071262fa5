//! Keeping one feed: find it, follow it, fetch its chunks, drop what there is no room for.
//!
//! Two tasks for each feed. One looks for the machine, or for somebody who has its feed, until it is followed; catching up and
//! gossip are the business of [`crate::feeds`]. The other fetches chunks as entries come, in steps, each durable and counted
//! before the next; what cannot be had is asked for again later. Both end when the node stops.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use tokio::sync::broadcast::{Receiver, error::RecvError};
use tributary_protocol::{
    ids::{Did, LogId},
    record::ChunkRecord,
};
use tributary_store::{ChunkState, Store};

use super::{Mirror, MirrorError, shelf::Place};
use crate::{
    config::{MirroredFeed, Retention},
    feeds::{FeedEvent, Intake, JoinPoint, PullJobError, SourceError, Streams, blocking},
};

/// How often a feed that was not found is looked for again, at first and at most.
const FIND_AGAIN: (Duration, Duration) = (Duration::from_secs(2), Duration::from_secs(120));
/// Positions fetched in one step: up to 128 MiB of chunks of the default size.
const STEP: u64 = 512;
/// Retention is looked at, and heads are kept, at least this often.
const TICK: Duration = Duration::from_secs(30);
/// News that come together are fetched together.
const TOGETHER: Duration = Duration::from_millis(50);
/// How often chunks that could not be had are asked for again, at first and at most.
const FETCH_AGAIN: (Duration, Duration) = (Duration::from_secs(2), Duration::from_secs(600));

/// Takes what is not here and was not dropped.
struct Whole(Store);

impl Intake for Whole {
    fn wants(&self, _: &Did, record: &ChunkRecord) -> bool {
        matches!(self.0.chunk_state(&record.hash), Ok(ChunkState::Absent))
    }

    fn check(&self, _: &Did, _: &ChunkRecord, _: &[u8]) -> Result<(), PullJobError> {
        // Length and hash are right, and there is no key here to check more with.
        Ok(())
    }
}

/// Looks for a feed until it is followed.
pub(super) async fn find(mirror: Mirror, feed: MirroredFeed) {
    let (mut wait, longest) = FIND_AGAIN;
    let did = feed.link.did;
    loop {
        match mirror.inner.feeds.follow_from(&feed.link, Streams::All, Some(JoinPoint::Start)).await {
            Ok((found, report)) => {
                tracing::info!(machine = %did, from = %found.peer, entries = report.entries, "feed kept");
                return;
            }
            Err(error) => {
                tracing::warn!(machine = %did, %error, "the feed is not found; it is looked for again");
                mirror.note(&did, |state| state.unfound = Some(error.to_string()));
            }
        }
        tokio::time::sleep(wait).await;
        wait = (wait * 2).min(longest);
    }
}

/// Fetches what comes.
pub(super) async fn keep(mirror: Mirror, feed: MirroredFeed) {
    let did = feed.link.did;
    let mut news = mirror.inner.feeds.watch();
    let mut again = FETCH_AGAIN.0;
    let mut retry: Option<Instant> = None;
    loop {
        if retry.is_some_and(|at| at <= Instant::now()) {
            retry = None;
            if let Err(error) = mirror.go_back(&did).await {
                tracing::warn!(machine = %did, %error, "what is missing cannot be looked for");
            }
        }
        let wait = match mirror.step(&feed).await {
            Ok(Step::More) => continue,
            Ok(Step::Done { missing: 0 }) => {
                again = FETCH_AGAIN.0;
                mirror.note(&did, |state| state.trouble = None);
                TICK
            }
            Ok(Step::Done { missing }) => {
                mirror.note(&did, |state| state.trouble = Some(format!("nobody had {missing} chunks")));
                if retry.is_none() {
                    retry = Instant::now().checked_add(again);
                    again = (again * 2).min(FETCH_AGAIN.1);
                }
                TICK
            }
            Err(error) => {
                tracing::debug!(machine = %did, %error, "chunks could not be fetched");
                mirror.note(&did, |state| state.trouble = Some(error.to_string()));
                let wait = again;
                again = (again * 2).min(FETCH_AGAIN.1);
                // News do not make the disk or the network better.
                tokio::time::sleep(FETCH_AGAIN.0.min(wait)).await;
                wait
            }
        };
        let wait = retry.map_or(wait, |at| wait.min(at.saturating_duration_since(Instant::now())));
        wait_for_news(&mut news, &did, wait).await;
    }
}

/// Waits until entries of a stream have come, or for `longest`.
async fn wait_for_news(news: &mut Receiver<FeedEvent>, did: &Did, longest: Duration) {
    let come = async {
        loop {
            match news.recv().await {
                Ok(FeedEvent::Entries { did: of, log, .. }) if of == *did && log != LogId::MACHINE => return,
                Err(RecvError::Lagged(_)) => return,
                Err(RecvError::Closed) => std::future::pending().await,
                Ok(_) => {}
            }
        }
    };
    if tokio::time::timeout(longest, come).await.is_ok() {
        tokio::time::sleep(TOGETHER).await;
        while news.try_recv().is_ok() {}
    }
}

/// Whether a peer was there and had no chunks to give.
fn has_not(said: &SourceError) -> bool {
    matches!(said, SourceError::Lacks | SourceError::WrongBytes(_))
}

/// What a step came to.
enum Step {
    /// There is more to fetch.
    More,
    /// There is not; so many chunks nobody had.
    Done { missing: u64 },
}

impl Mirror {
    async fn step(&self, feed: &MirroredFeed) -> Result<Step, MirrorError> {
        let did = feed.link.did;
        let feeds = &self.inner.feeds;
        if feeds.handle(&did).is_err() {
            return Ok(Step::Done { missing: 0 });
        }
        self.note(&did, |state| state.unfound = None);
        self.inner.net.provide(&did).await.map_err(|_| MirrorError::Stopped)?;
        feeds.keep_heads(&did).await?;
        let (mirror, retention) = (self.clone(), feed.retention);
        let places = blocking(move || mirror.plan(&did, &retention)).await??;
        if places.is_empty() {
            let mirror = self.clone();
            blocking(move || mirror.sweep()).await??;
            return Ok(Step::Done { missing: self.missing(&did) });
        }
        let whole = Arc::new(Whole(self.inner.store.clone()));
        let pulled = feeds.pull(&did, places.clone(), None, whole, None).await;
        if let Ok(pulled) = &pulled {
            self.note(&did, |state| {
                state.fetched += pulled.chunks;
                state.fetched_bytes += pulled.bytes;
            });
        }
        match pulled {
            Ok(_) => {}
            // Somebody was there who does not have them: newer chunks go on, and these are asked for again later.
            Err(PullJobError::Exhausted(missing)) if missing.said.iter().any(|(_, said)| has_not(said)) => {}
            Err(error) => return Err(error.into()),
        }
        let mirror = self.clone();
        blocking(move || mirror.settle(&did, &places)).await??;
        Ok(Step::More)
    }

    /// Counts what has come, drops what there is no room for, and says what to fetch.
    fn plan(&self, did: &Did, retention: &Retention) -> Result<Vec<Place>, MirrorError> {
        let store = &self.inner.store;
        let mut shelves = self.shelves();
        let age = retention.age.map(|age| u64::try_from(age.as_millis()).unwrap_or(u64::MAX));
        let before_ms = age.map_or(0, |age| (self.inner.clock)().saturating_sub(age));
        let shelf = shelves.entry(*did).or_default();
        shelf.count(store, did)?;
        let mut victims = shelf.trim(store, before_ms, retention.bytes)?;
        if let Some(space) = self.inner.config.space {
            while shelves.values().map(super::shelf::Shelf::due_bytes).sum::<u64>() > space {
                let mut oldest = None;
                for (of, shelf) in shelves.iter_mut() {
                    if let Some((log, time_ms)) = shelf.oldest(store)?
                        && oldest.is_none_or(|(_, _, least)| time_ms < least)
                    {
                        oldest = Some((*of, log, time_ms));
                    }
                }
                let Some((of, log, _)) = oldest else { break };
                if let Some(shelf) = shelves.get_mut(&of) {
                    victims.extend(shelf.pass(store, &log)?);
                }
            }
        }
        let places = shelves.get(did).map(|shelf| shelf.places(STEP)).unwrap_or_default();
        drop(shelves);
        self.drop_chunks(did, &victims)?;
        Ok(places)
    }

    fn settle(&self, did: &Did, places: &[Place]) -> Result<(), MirrorError> {
        let victims = match self.shelves().get_mut(did) {
            Some(shelf) => shelf.settle(&self.inner.store, places)?,
            None => Vec::new(),
        };
        self.drop_chunks(did, &victims)
    }

    async fn go_back(&self, did: &Did) -> Result<(), MirrorError> {
        let (mirror, did) = (self.clone(), *did);
        blocking(move || {
            if let Some(shelf) = mirror.shelves().get_mut(&did) {
                shelf.go_back(&mirror.inner.store)?;
            }
            Ok(())
        })
        .await?
    }
}
