//! Serves chunks to peers over pull streams.
//!
//! The accept loop does nothing but spawn, so that no stream waits or is lost. Whether there is room is decided
//! in the spawned task; one without room says "busy" and when to come back. Chunks are read on the blocking pool, the next
//! batch while the last one is being written, so a stream holds at most two batches whatever the size of the transfer. No
//! thread waits for a slow peer, and one that makes no progress is cut off.

mod batch;
mod limits;
mod slots;

use std::{
    io,
    num::NonZeroU32,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
};

use futures::{AsyncRead, AsyncWrite, AsyncWriteExt};
use governor::DefaultDirectRateLimiter;
use libp2p::{PeerId, Stream};
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore},
    task::JoinSet,
    time::{Instant, timeout, timeout_at},
};
use tokio_util::sync::{CancellationToken, DropGuard};
use tributary_protocol::{
    ids::Hash,
    wire::{PullHeader, PullStatus},
};

use self::{
    batch::{Batch, read_batch},
    slots::{Slot, Slots, limiter},
};
pub use self::{
    batch::{ChunkLookup, ChunkProvider},
    limits::PullServerConfig,
};
use super::{
    Client, FrameError, Offence,
    pull::{PullRequestError, read_request},
    shaping::{Class, Way},
    streams::Incoming,
};
use crate::durations::{Durations, DurationsReport};

/// A stream must take this much within the stall timeout, and is charged for it at once, bytes.
const SLICE: usize = 64 << 10;

/// Why the server could not start.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum PullServerError {
    /// Another server takes the streams already.
    #[error("pull streams of this node are served already")]
    AlreadyServing,
}

/// Counters since the server started.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, serde::Serialize)]
pub struct PullServerStats {
    /// Transfers that ran to their end.
    pub completed: u64,
    /// Streams refused with "busy".
    pub busy: u64,
    /// Streams reset because even the refusals were too many.
    pub dropped: u64,
    /// Transfers that broke or stalled.
    pub failed: u64,
    /// Requests that made no sense.
    pub malformed: u64,
    /// Chunks sent.
    pub chunks: u64,
    /// Bytes of ciphertext sent.
    pub bytes: u64,
    /// Transfers under way now.
    pub active: usize,
}

#[derive(Default)]
struct Counters {
    completed: AtomicU64,
    busy: AtomicU64,
    dropped: AtomicU64,
    failed: AtomicU64,
    malformed: AtomicU64,
    chunks: AtomicU64,
    bytes: AtomicU64,
    took: Durations,
}

/// A running server. It stops, and resets its streams, when this is dropped or the network shuts down.
pub struct PullServer {
    shared: Arc<Shared>,
    _stop: DropGuard,
}

impl PullServer {
    /// Starts to serve the pull streams of `client`'s node from `provider`.
    pub fn start(
        client: &Client,
        provider: Arc<dyn ChunkProvider>,
        config: PullServerConfig,
    ) -> Result<Self, PullServerError> {
        let incoming = client.pulls.take().ok_or(PullServerError::AlreadyServing)?;
        let limiter = config.bytes_per_second.map(limiter);
        let refusals = Arc::new(Semaphore::new(config.max_refusals));
        let shared = Arc::new(Shared {
            provider,
            client: client.clone(),
            limiter,
            refusals,
            slots: Mutex::default(),
            counters: Counters::default(),
            config,
        });
        let stop = client.stop.child_token();
        tokio::spawn(accept(incoming, Arc::clone(&shared), stop.clone()));
        Ok(Self { shared, _stop: stop.drop_guard() })
    }

    /// Counters since the start.
    #[must_use]
    pub fn stats(&self) -> PullServerStats {
        let counters = &self.shared.counters;
        PullServerStats {
            completed: counters.completed.load(Relaxed),
            busy: counters.busy.load(Relaxed),
            dropped: counters.dropped.load(Relaxed),
            failed: counters.failed.load(Relaxed),
            malformed: counters.malformed.load(Relaxed),
            chunks: counters.chunks.load(Relaxed),
            bytes: counters.bytes.load(Relaxed),
            active: self.shared.slots.lock().unwrap_or_else(PoisonError::into_inner).active(),
        }
    }

    /// How long transfers took that ran to their end, the request included.
    #[must_use]
    pub fn durations(&self) -> DurationsReport {
        self.shared.counters.took.report()
    }
}

struct Shared {
    provider: Arc<dyn ChunkProvider>,
    client: Client,
    config: PullServerConfig,
    limiter: Option<DefaultDirectRateLimiter>,
    refusals: Arc<Semaphore>,
    slots: Mutex<Slots>,
    counters: Counters,
}

async fn accept(mut incoming: Incoming, shared: Arc<Shared>, stop: CancellationToken) {
    // Bounded by `max_streams` and `max_refusals`; dropped with this function, which ends all of them.
    let mut tasks = JoinSet::new();
    loop {
        tokio::select! {
            () = stop.cancelled() => break,
            next = incoming.recv() => match next {
                Some((peer, stream)) => take(&shared, peer, stream, &mut tasks),
                None => break,
            },
            Some(ended) = tasks.join_next() => if let Err(error) = ended && error.is_panic() {
                tracing::error!(%error, "a pull task panicked");
            },
        }
    }
    shared.client.pulls.give_back(incoming);
}

/// Decides without waiting what becomes of a stream.
fn take(shared: &Arc<Shared>, peer: PeerId, stream: Stream, tasks: &mut JoinSet<()>) {
    if let Some(slot) = Slot::take(shared, peer) {
        tasks.spawn(serve(slot, stream));
    } else if let Ok(permit) = Arc::clone(&shared.refusals).try_acquire_owned() {
        shared.counters.busy.fetch_add(1, Relaxed);
        tasks.spawn(refuse(Arc::clone(shared), stream, permit));
    } else {
        shared.counters.dropped.fetch_add(1, Relaxed);
        drop(stream);
    }
}

/// Reads the request, so that the peer is not cut off while it writes, and says "busy".
async fn refuse(shared: Arc<Shared>, mut stream: Stream, permit: OwnedSemaphorePermit) {
    let refusal = async {
        let hash = read_request(&mut stream).await.ok()?.first().copied()?;
        let retry_ms = u32::try_from(shared.config.retry_after.as_millis()).unwrap_or(u32::MAX);
        let busy = PullHeader { hash, status: PullStatus::Busy { retry_ms } };
        stream.write_all(&busy.encode()).await.ok()?;
        stream.close().await.ok()
    };
    let _ = timeout(shared.config.request_timeout, refusal).await;
    drop(permit);
}

/// Why a transfer ended early.
#[derive(Debug, thiserror::Error)]
enum ServeError {
    #[error("the request did not come in time")]
    RequestTimeout,
    #[error(transparent)]
    Request(#[from] PullRequestError),
    #[error("the peer takes no bytes")]
    Stalled,
    #[error("the stream broke")]
    Broken(#[from] io::Error),
    #[error("reading chunks failed")]
    Provider,
}

async fn serve(slot: Slot, mut stream: Stream) {
    let (shared, peer) = (Arc::clone(&slot.shared), slot.peer);
    let begun = Instant::now();
    let result = transfer(&slot, &mut stream).await;
    drop(slot);
    let Err(error) = result else {
        shared.counters.took.record(begun.elapsed());
        shared.counters.completed.fetch_add(1, Relaxed);
        return;
    };
    tracing::debug!(%peer, %error, "pull ended early");
    let offence = match &error {
        ServeError::Request(PullRequestError::Frame(FrameError::TooLarge { .. })) => Some(Offence::Oversized),
        ServeError::Request(PullRequestError::Wire(_) | PullRequestError::Trailing) => Some(Offence::Malformed),
        ServeError::RequestTimeout | ServeError::Stalled => Some(Offence::Stalled),
        _ => None,
    };
    let counter = match error {
        ServeError::Request(_) => &shared.counters.malformed,
        _ => &shared.counters.failed,
    };
    counter.fetch_add(1, Relaxed);
    if let Some(offence) = offence {
        // The only error is that the network is gone, and then this is too.
        let _ = shared.client.penalize(peer, offence).await;
    }
}

async fn transfer<S>(slot: &Slot, stream: &mut S) -> Result<(), ServeError>
where
    S: AsyncRead + AsyncWrite + Unpin + Send,
{
    let shared = &slot.shared;
    let request = timeout(shared.config.request_timeout, read_request(stream)).await;
    let hashes: Arc<[Hash]> = request.map_err(|_| ServeError::RequestTimeout)??.into();
    let mut reading = spawn_read(shared, &hashes, 0, Vec::new());
    let mut spare = Vec::new();
    loop {
        let batch = reading.await.map_err(|_| ServeError::Provider)?;
        let last = batch.next >= hashes.len();
        // The batch after this one is read while this one is written; the two buffers take turns.
        let ahead = (!last).then(|| spawn_read(shared, &hashes, batch.next, std::mem::take(&mut spare)));
        write(slot, stream, &batch).await?;
        match ahead {
            Some(ahead) => (reading, spare) = (ahead, batch.bytes),
            None => break,
        }
    }
    timeout(shared.config.stall_timeout, stream.close()).await.map_err(|_| ServeError::Stalled)??;
    Ok(())
}

fn spawn_read(
    shared: &Arc<Shared>,
    hashes: &Arc<[Hash]>,
    next: usize,
    buffer: Vec<u8>,
) -> tokio::task::JoinHandle<Batch> {
    let (provider, hashes, limit) = (Arc::clone(&shared.provider), Arc::clone(hashes), shared.config.batch_bytes);
    tokio::task::spawn_blocking(move || read_batch(&*provider, &hashes, next, limit, buffer))
}

/// Writes slice by slice, each paid for first, each within the stall timeout. A chunk counts when the stream has taken its last
/// byte, so a transfer that breaks in the middle of a batch has counted what went out.
async fn write<S: AsyncWrite + Unpin>(slot: &Slot, stream: &mut S, batch: &Batch) -> Result<(), ServeError> {
    let Shared { config, limiter, counters, .. } = &*slot.shared;
    let (mut taken, mut ends) = (0, batch.ends.iter().peekable());
    for slice in batch.bytes.chunks(SLICE) {
        if let Some(cost) = u32::try_from(slice.len()).ok().and_then(NonZeroU32::new) {
            // The buckets hold at least a slice, so the only error, "more than the bucket holds", cannot come.
            for limiter in [slot.limiter.as_deref(), limiter.as_ref()].into_iter().flatten() {
                let _ = limiter.until_n_ready(cost).await;
            }
            slot.shared.client.shaper.pass(Class::Pull, Way::Up, slot.peer, slice.len()).await;
        }
        let deadline = Instant::now() + config.stall_timeout;
        let mut rest = slice;
        while !rest.is_empty() {
            let written = timeout_at(deadline, stream.write(rest)).await.map_err(|_| ServeError::Stalled)??;
            if written == 0 {
                return Err(io::Error::from(io::ErrorKind::WriteZero).into());
            }
            rest = &rest[written..];
            taken += written;
            while let Some((_, len)) = ends.next_if(|(end, _)| *end <= taken) {
                counters.chunks.fetch_add(1, Relaxed);
                counters.bytes.fetch_add(u64::from(*len), Relaxed);
            }
        }
    }
    Ok(())
}
