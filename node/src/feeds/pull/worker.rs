//! One source of a pull: asks the schedule, fetches, and says what became of it.
//!
//! Owns the streams to one peer: one that is read, and at most one behind it that was opened ahead of time, so that the way
//! there and back costs nothing. Of chunks it holds one in hand, and up to two per stream on the wire. It ends when the pull is
//! over, or when there is nothing to hope from the peer; the work that it still has goes to the others.

use std::{collections::VecDeque, sync::Arc, time::Instant};

use futures::future::{BoxFuture, FutureExt as _, OptionFuture};
use libp2p::PeerId;
use tokio::sync::watch;
use tributary_protocol::record::ChunkRecord;

use super::{
    super::{
        error::{SourceError, WrongBytes},
        follow::Handle,
    },
    disk::Arrived,
    job::{Job, UNIT},
    schedule::{Ask, ChunkId, Fault, SourceId},
};
use crate::net::{Offence, PullClient, PullError, PullItem, PullOptions, RequestError, Wanted, Way};

/// Chunks of one stream that were read and not taken yet.
const ON_THE_WIRE: usize = 1;
/// Streams to a source: the one that is read, and the next one.
const STREAMS: usize = 2;

/// A stream, and what is still due on it.
struct Transfer {
    client: PullClient,
    due: VecDeque<(ChunkId, Arc<ChunkRecord>)>,
    /// Whether it was opened while another one was under way.
    ahead: bool,
}

/// What a chunk, or a failure to open a stream, means for the source.
enum Outcome {
    GoOn,
    /// It does not deliver for the moment.
    Failed(Fault, SourceError),
}

/// Fetches from one peer until the pull is over (`Ok`) or there is nothing to hope from the peer.
pub(super) async fn work(job: &Arc<Job>, handle: &Arc<Handle>, peer: PeerId) -> Result<(), SourceError> {
    tokio::select! {
        biased;
        () = job.over.cancelled() => return Ok(()),
        reached = job.feeds.reach(handle, peer) => reached.map_err(SourceError::unreachable)?,
    }
    let Some(id) = job.schedule().join(Instant::now()) else { return Ok(()) };
    let _left = Leaving { job, id };
    let changed = job.changed.subscribe();
    let mut source =
        Source { job, handle, peer, id, streams: STREAMS, transfers: VecDeque::new(), opening: None, changed };
    source.run().await
}

/// Gives a source's work to the others when its worker ends, however it ends.
struct Leaving<'a> {
    job: &'a Job,
    id: SourceId,
}

impl Drop for Leaving<'_> {
    fn drop(&mut self) {
        self.job.schedule().leave(self.id);
        self.job.tell();
    }
}

struct Source<'a> {
    job: &'a Arc<Job>,
    handle: &'a Arc<Handle>,
    peer: PeerId,
    id: SourceId,
    /// Streams at a time; one for a server that takes no second one.
    streams: usize,
    transfers: VecDeque<Transfer>,
    opening: Option<BoxFuture<'static, Result<Transfer, (Fault, SourceError)>>>,
    changed: watch::Receiver<()>,
}

impl Source<'_> {
    async fn run(&mut self) -> Result<(), SourceError> {
        loop {
            self.changed.mark_unchanged();
            self.let_go();
            let wait = self.ask();
            let under_way = !self.transfers.is_empty();
            let next = self.transfers.front_mut().map(|transfer| transfer.client.next());
            tokio::select! {
                biased;
                () = self.job.over.cancelled() => return Ok(()),
                Some(item) = OptionFuture::from(next) => {
                    let outcome = match item {
                        Some(item) => self.take(item).await?,
                        None => Outcome::Failed(Fault::Broke, SourceError::Pull(PullError::Closed)),
                    };
                    self.settle(outcome).await?;
                }
                Some(opened) = OptionFuture::from(self.opening.as_mut()) => {
                    self.opening = None;
                    match opened {
                        Ok(transfer) => self.transfers.push_back(transfer),
                        Err((fault, error)) => self.settle(Outcome::Failed(fault, error)).await?,
                    }
                }
                // The sender lives in the job.
                _ = self.changed.changed() => {}
                () = sleep_until(wait), if !under_way && wait.is_some() => {}
            }
        }
    }

    /// Asks for work where there is room for a stream. Returns until when to wait if nothing else happens.
    fn ask(&mut self) -> Option<Instant> {
        if self.opening.is_some() || self.transfers.len() >= self.streams {
            return None;
        }
        match self.job.schedule().ask(self.id, Instant::now()) {
            Ask::Wait(until) => until,
            Ask::Fetch(items) => {
                let ahead = !self.transfers.is_empty();
                self.opening = Some(open(Arc::clone(self.job), self.peer, items, ahead).boxed());
                None
            }
        }
    }

    /// Ends streams on which nothing is due any more: others have taken it over, or had it first.
    fn let_go(&mut self) {
        let schedule = self.job.schedule();
        self.transfers.retain(|transfer| transfer.due.iter().any(|(chunk, _)| schedule.owes(self.id, *chunk)));
    }

    /// What came on the first stream.
    async fn take(&mut self, item: PullItem) -> Result<Outcome, SourceError> {
        let Some(transfer) = self.transfers.front_mut() else { return Ok(Outcome::GoOn) };
        // A server may answer in any order; what it answers was asked for on this stream, so says the client.
        let found = transfer.due.iter().position(|(_, record)| record.hash == item.hash);
        let due = found.and_then(|at| transfer.due.remove(at));
        match (item.result, due) {
            (Ok(body), Some((chunk, record))) => {
                let delivered = self.job.schedule().delivered(self.id, chunk, Instant::now());
                if delivered.relieved.is_some() {
                    self.job.tell();
                }
                self.job.moved.notify_one();
                if !delivered.first {
                    self.job.counts.of(self.peer, |source| source.duplicates += 1);
                    return Ok(Outcome::GoOn);
                }
                self.job.counts.of(self.peer, |source| {
                    source.chunks += 1;
                    source.bytes += body.len() as u64;
                });
                self.hand_on(record, body).await;
                Ok(Outcome::GoOn)
            }
            (Err(PullError::NotFound(_) | PullError::Gone(_)), Some((chunk, _))) => {
                self.job.schedule().lacks(self.id, chunk);
                self.job.counts.of(self.peer, |source| source.lacking += 1);
                if transfer.due.is_empty() {
                    self.job.tell();
                }
                Ok(Outcome::GoOn)
            }
            (Err(error), due) if error.is_offence() => Err(self.offence(error, due).await),
            (Err(PullError::Busy { .. }), _) if transfer.ahead => {
                // It serves us, and takes no second stream.
                self.streams = 1;
                self.drop_all();
                self.job.schedule().put_back(self.id);
                Ok(Outcome::GoOn)
            }
            (Err(PullError::Busy { retry_after }), _) => {
                Ok(Outcome::Failed(Fault::Busy(retry_after), SourceError::Pull(PullError::Busy { retry_after })))
            }
            (Err(error), _) => Ok(Outcome::Failed(Fault::Broke, SourceError::Pull(error))),
            (Ok(_), None) => Ok(Outcome::GoOn),
        }
    }

    /// To the checks and the disk, when there is room.
    async fn hand_on(&mut self, record: Arc<ChunkRecord>, body: Vec<u8>) {
        let units = u32::try_from(body.len().div_ceil(UNIT)).unwrap_or(u32::MAX);
        let Ok(room) = Arc::clone(&self.job.window).acquire_many_owned(units).await else { return };
        let Some(arrived) = self.job.arrived() else { return };
        // Nobody takes it only when the job has failed.
        let _ = arrived.send(Arrived { record, body, room }).await;
    }

    /// An honest peer would never do this.
    async fn offence(&mut self, error: PullError, due: Option<(ChunkId, Arc<ChunkRecord>)>) -> SourceError {
        // The only error is that the network is gone, and then this is too.
        let _ = self.job.net.penalize(self.peer, Offence::WrongBytes).await;
        let first = self.transfers.front().and_then(|transfer| transfer.due.front());
        let Some((_, record)) = due.as_ref().or(first) else { return SourceError::Pull(error) };
        let (peer, dataset, index, hash) = (self.peer, record.dataset, record.index, record.hash);
        tracing::warn!(%peer, %dataset, index, %error, "wrong bytes refused");
        SourceError::WrongBytes(Box::new(WrongBytes { peer, dataset, index, hash, source: error }))
    }

    fn drop_all(&mut self) {
        self.transfers.clear();
        self.opening = None;
    }

    /// Waits before the source is tried again, or gives it up.
    async fn settle(&mut self, outcome: Outcome) -> Result<(), SourceError> {
        let Outcome::Failed(fault, error) = outcome else { return Ok(()) };
        self.drop_all();
        tracing::debug!(peer = %self.peer, %error, "a source does not deliver");
        let again = self.job.schedule().failed(self.id, fault, Instant::now());
        self.job.tell();
        let Some(again) = again else { return Err(error) };
        let ready = async {
            sleep_until(Some(again)).await;
            match fault {
                Fault::Broke => self.job.feeds.reach(self.handle, self.peer).await.map_err(SourceError::unreachable),
                _ => Ok(()),
            }
        };
        tokio::select! {
            () = self.job.over.cancelled() => Ok(()),
            ready = ready => ready,
        }
    }
}

async fn sleep_until(at: Option<Instant>) {
    if let Some(at) = at {
        tokio::time::sleep_until(at.into()).await;
    }
}

/// Opens a stream and asks for chunks on it.
async fn open(
    job: Arc<Job>,
    peer: PeerId,
    items: Vec<(ChunkId, Arc<ChunkRecord>)>,
    ahead: bool,
) -> Result<Transfer, (Fault, SourceError)> {
    let stream = job.net.open_pull(peer).await.map_err(|error| match error {
        RequestError::Unsupported { .. } => (Fault::Final, SourceError::ServesNone),
        RequestError::Closed(_) => (Fault::Final, SourceError::NoStream(Box::new(error))),
        _ => (Fault::Broke, SourceError::NoStream(Box::new(error))),
    })?;
    let wanted = items.iter().map(|(_, record)| Wanted { hash: record.hash, len: Some(record.len) }).collect();
    let options =
        PullOptions { window: ON_THE_WIRE, pace: Some(job.net.pace(Way::Down, peer)), ..PullOptions::default() };
    let client = PullClient::start(stream, wanted, options);
    let client = client.map_err(|error| (Fault::Final, SourceError::Pull(error)))?.counted(&job.net);
    Ok(Transfer { client, due: items.into(), ahead })
}
