//! Live subscriptions: a copy of a stream that grows by itself.
//!
//! A subscription keeps the keys of what comes (it asks for the next range before the prepaid one ends), pulls chunks as they
//! are announced, and writes their packages into rolling NDJSON files. Owns one task per stream and its row in the store,
//! which says how far it has come: that row is written after the files are on the disk, so a kill costs no line and repeats
//! none. It never pays: a quote that asks for money is refused and shown. Tasks end with the buyer, or by
//! [`Buyer::end_subscriptions`].
//!
//! Everything announced after the subscription began is its business, also what came while the node was down or the prepaid
//! range had ended: keys for such chunks are asked for by their positions.

mod drain;
mod renew;
mod row;
mod sink;
mod worker;

use std::{
    collections::BTreeMap,
    path::PathBuf,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use serde::{Deserialize, Serialize};
use tokio_util::task::AbortOnDropHandle;
use tributary_protocol::ids::{Did, StreamId};

use self::row::{Ended, Row};
use super::Buyer;
use crate::feeds::{FeedsError, blocking, stream_logs};

/// At most this many streams are subscribed to.
pub const MAX_SUBSCRIPTIONS: usize = 1024;

/// Where the packages of a subscription are written.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SinkTerms {
    /// The folder; made if it is not there.
    pub dir: PathBuf,
    /// A file that has grown to this many bytes is finished, and the next one begun.
    pub rotate_bytes: u64,
}

/// What a subscription does.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SubscriptionTerms {
    /// The stream, by its public name.
    pub stream: String,
    /// Whether keys are asked for, and the next range before the prepaid one ends.
    pub renew: bool,
    /// Seconds that one request covers.
    pub live_seconds: u32,
    /// The highest price of one request, in the smallest units of its token.
    #[serde(with = "row::decimal")]
    pub max_price: u128,
    /// Whether chunks are pulled as they are announced.
    pub pull: bool,
    /// Where their packages are written; needs `pull`.
    pub sink: Option<SinkTerms>,
}

/// How a subscription stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SubscriptionState {
    /// Nothing was granted yet.
    Starting,
    /// The keys of what comes are here.
    Live,
    /// A request waits for the machine's operator.
    Waiting,
    /// Something does not work; it is tried again.
    Failing,
    /// The machine took access back or refused it. Nothing is asked any more until somebody subscribes again.
    Ended,
    /// It asks for no keys, and pulls what is granted otherwise.
    Passive,
}

/// A subscription, as it may be shown.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SubscriptionStatus {
    /// The machine.
    pub machine: Did,
    /// The stream's public name.
    pub stream: String,
    /// How it stands.
    pub state: SubscriptionState,
    /// Why, for people; when it does not just work.
    pub reason: Option<String>,
    /// Until when keys are here, ms since 1970.
    pub until_ms: Option<u64>,
    /// Chunks that were taken.
    pub chunks: u64,
    /// Packages that were written.
    pub packages: u64,
    /// Chunks that nobody had any more and that were left out.
    pub skipped: u64,
    /// Chunks that are announced and not taken yet.
    pub behind: u64,
    /// The file that grows.
    pub file: Option<PathBuf>,
}

type Key = (Did, StreamId);

/// A subscription and its task.
pub(super) struct Live {
    shared: Arc<Shared>,
    _task: Option<AbortOnDropHandle<()>>,
}

impl Live {
    /// Ends the task. When this returns, nothing of it writes any more.
    async fn end(self) -> Result<(), FeedsError> {
        let Self { shared, _task: task } = self;
        drop(task);
        blocking(move || *shared.over.lock().unwrap_or_else(PoisonError::into_inner) = true).await
    }
}

/// What the task and those who look at it share.
struct Shared {
    did: Did,
    stream: StreamId,
    row: Mutex<Row>,
    /// Why it does not go on at the moment.
    problem: Mutex<Option<String>>,
    /// Held while the row and the files are written; `true` when nothing of this task may write any more. Work on a thread goes
    /// on when its task is dropped.
    over: Mutex<bool>,
}

impl Shared {
    fn row(&self) -> MutexGuard<'_, Row> {
        self.row.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Runs what writes the row or the files. Blocks.
    fn writing<T>(&self, write: impl FnOnce() -> Result<T, FeedsError>) -> Result<T, FeedsError> {
        let over = self.over.lock().unwrap_or_else(PoisonError::into_inner);
        if *over { Err(FeedsError::Stopped) } else { write() }
    }

    fn say(&self, problem: Option<String>) {
        let mut known = self.problem.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(problem) = problem.as_ref().filter(|problem| known.as_ref() != Some(problem)) {
            tracing::warn!(machine = %self.did, stream = %self.stream, %problem, "a subscription does not go on");
        }
        *known = problem;
    }

    fn problem(&self) -> Option<String> {
        self.problem.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// Subscriptions by machine and stream.
#[derive(Default)]
pub(super) struct Subscriptions(Mutex<BTreeMap<Key, Live>>);

impl Subscriptions {
    fn all(&self) -> MutexGuard<'_, BTreeMap<Key, Live>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Why a subscription was not made.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SubscriptionError {
    /// What is stored.
    #[error(transparent)]
    Feeds(#[from] FeedsError),
    /// The terms do not fit together.
    #[error("{0}")]
    Terms(&'static str),
    /// Too many.
    #[error("{MAX_SUBSCRIPTIONS} streams are subscribed to, which is the limit")]
    TooMany,
}

impl SubscriptionTerms {
    fn check(&self) -> Result<(), SubscriptionError> {
        let live = 1..=tributary_protocol::access::selection::MAX_LIVE_SECONDS;
        if !live.contains(&self.live_seconds) {
            return Err(SubscriptionError::Terms("one request covers 1 second to 30 days; give another duration"));
        }
        if self.sink.is_some() && !self.pull {
            return Err(SubscriptionError::Terms("files need chunks; pull them, or leave out the folder"));
        }
        if !self.renew && !self.pull {
            return Err(SubscriptionError::Terms("it would do nothing; renew keys, or pull chunks"));
        }
        Ok(())
    }
}

impl Buyer {
    /// Subscribes to a stream of a machine, or changes the terms of the subscription. One that had ended begins again.
    ///
    /// # Errors
    ///
    /// See [`SubscriptionError`].
    pub async fn subscribe_live(&self, did: Did, terms: SubscriptionTerms) -> Result<(), SubscriptionError> {
        self.set_subscription(did, terms, false).await
    }

    /// Makes the subscriptions of the configuration what they are there. Those that were there and are not any more rest; when
    /// they come back, they go on where they were.
    ///
    /// # Errors
    ///
    /// See [`SubscriptionError`].
    pub async fn configure_subscriptions(
        &self,
        wanted: Vec<(Did, SubscriptionTerms)>,
    ) -> Result<(), SubscriptionError> {
        for (did, terms) in wanted {
            self.set_subscription(did, terms, true).await?;
        }
        Ok(())
    }

    async fn set_subscription(
        &self,
        did: Did,
        terms: SubscriptionTerms,
        configured: bool,
    ) -> Result<(), SubscriptionError> {
        terms.check()?;
        let stream = StreamId::of(&did, &terms.stream);
        let key = (did, stream);
        let (store, now_ms) = (self.feeds().store().clone(), self.feeds().now());
        let old = {
            let mut known = self.inner.subscriptions.all();
            if known.len() >= MAX_SUBSCRIPTIONS && !known.contains_key(&key) {
                return Err(SubscriptionError::TooMany);
            }
            known.remove(&key)
        };
        // The task that runs with the old terms ends first: two would write one file.
        if let Some(old) = old {
            old.end().await?;
        }
        let row = blocking(move || {
            let mut row = row::load(&store, &did, &stream)?.unwrap_or_else(|| Row::new(terms.clone(), now_ms));
            // A configuration that is read again is no new wish; a command is.
            if !configured {
                row.ended = None;
            }
            (row.terms, row.configured) = (terms, configured);
            row::save(&store, &did, &stream, &row)?;
            Ok::<_, FeedsError>(row)
        })
        .await??;
        self.start_subscription(key, row);
        Ok(())
    }

    /// Starts what was subscribed to by command. Reads the store.
    pub(super) fn resume_subscriptions(&self) -> Result<(), FeedsError> {
        for (key, row) in row::load_all(self.feeds().store())? {
            if !row.configured {
                self.start_subscription(key, row);
            }
        }
        Ok(())
    }

    fn start_subscription(&self, key: Key, row: Row) {
        let (did, stream) = key;
        let shared =
            Arc::new(Shared { did, stream, row: Mutex::new(row), problem: Mutex::default(), over: Mutex::default() });
        let task = self.feeds().net().is_ok().then(|| {
            let run = worker::run(Arc::downgrade(&self.inner), Arc::clone(&shared), self.feeds().watch());
            AbortOnDropHandle::new(tokio::spawn(run))
        });
        self.inner.subscriptions.all().insert(key, Live { shared, _task: task });
    }

    /// Ends the subscriptions to a machine for good: nothing is asked for, pulled or written any more. Files stay.
    ///
    /// # Errors
    ///
    /// The store.
    pub async fn unsubscribe_live(&self, did: &Did) -> Result<(), FeedsError> {
        let gone: Vec<(Key, Live)> = {
            let mut all = self.inner.subscriptions.all();
            let keys: Vec<Key> = all.keys().filter(|key| key.0 == *did).copied().collect();
            keys.into_iter().filter_map(|key| all.remove_entry(&key)).collect()
        };
        for ((did, stream), live) in gone {
            live.end().await?;
            let store = self.feeds().store().clone();
            blocking(move || row::delete(&store, &did, &stream)).await??;
        }
        Ok(())
    }

    /// Ends all tasks of subscriptions; they go on when the buyer is opened again.
    pub fn end_subscriptions(&self) {
        std::mem::take(&mut *self.inner.subscriptions.all());
    }

    /// How the subscriptions stand, by machine and stream.
    ///
    /// # Errors
    ///
    /// The store.
    pub async fn subscriptions(&self) -> Result<Vec<SubscriptionStatus>, FeedsError> {
        let all: Vec<Arc<Shared>> =
            self.inner.subscriptions.all().values().map(|live| Arc::clone(&live.shared)).collect();
        let buyer = self.clone();
        blocking(move || all.iter().map(|shared| buyer.subscription_status(shared)).collect()).await?
    }

    fn subscription_status(&self, shared: &Shared) -> Result<SubscriptionStatus, FeedsError> {
        let (row, problem, now_ms) = (shared.row().clone(), shared.problem(), self.feeds().now());
        let mut behind = 0;
        if let Some(next) = row.next {
            for log in stream_logs(self.feeds().store(), &shared.did, &shared.stream)? {
                let from = match log.incarnation.cmp(&next.incarnation) {
                    std::cmp::Ordering::Less => continue,
                    std::cmp::Ordering::Equal => next.seq,
                    std::cmp::Ordering::Greater => 0,
                };
                behind += self.feeds().span(&log)?.map_or(0, |(_, end)| end.saturating_sub(from));
            }
        }
        let state = match &row {
            Row { ended: Some(_), .. } => SubscriptionState::Ended,
            _ if problem.is_some() => SubscriptionState::Failing,
            Row { request: Some(_), .. } => SubscriptionState::Waiting,
            Row { terms, .. } if !terms.renew => SubscriptionState::Passive,
            Row { until_ms: Some(until_ms), .. } if *until_ms > now_ms => SubscriptionState::Live,
            _ => SubscriptionState::Starting,
        };
        let reason = row.ended.as_ref().map(|Ended { reason, .. }| reason.clone()).or(problem);
        let file = row.terms.sink.as_ref().zip(row.sink);
        Ok(SubscriptionStatus {
            machine: shared.did,
            state,
            reason,
            until_ms: row.until_ms,
            chunks: row.chunks,
            packages: row.packages,
            skipped: row.skipped,
            behind,
            file: file.map(|(terms, state)| sink::path(terms, &row.terms.stream, &shared.stream, state.file)),
            stream: row.terms.stream,
        })
    }
}
