//! Serves chunks to peers over pull streams.
//!
//! The accept loop does nothing but spawn, so that no stream waits or is lost. Whether there is room is decided
//! in the spawned task; one without room says "busy" and when to come back. Chunks are read on the blocking pool, the next
//! batch while the last one is being written, so a stream holds at most two batches whatever the size of the transfer. No
//! thread waits for a slow peer, and one that makes no progress is cut off.

use std::{
    collections::HashMap,
    io,
    num::NonZeroU32,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use futures::{AsyncRead, AsyncWrite, AsyncWriteExt};
use governor::{DefaultDirectRateLimiter, Quota};
use libp2p::{PeerId, Stream};
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore},
    task::JoinSet,
    time::timeout,
};
use tokio_util::sync::{CancellationToken, DropGuard};
use tributary_protocol::{
    ids::Hash,
    record::MAX_CIPHERTEXT_LEN,
    wire::{PullHeader, PullStatus},
};

use super::{
    Client, FrameError, Offence,
    pull::{PullRequestError, read_request},
    streams::Incoming,
};

/// A stream must take this much within the stall timeout, and is charged for it at once, bytes.
const SLICE: usize = 64 << 10;

/// What a provider knows about a chunk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ChunkLookup {
    /// Its ciphertext was appended.
    Found,
    /// It was withdrawn by a tombstone.
    Gone,
    /// It is not here.
    Absent,
}

/// Where the server finds chunks: the store, or anything else that maps hashes to ciphertext.
pub trait ChunkProvider: Send + Sync + 'static {
    /// Appends the ciphertext of `hash`, at most [`MAX_CIPHERTEXT_LEN`] bytes, to `into`. Called on a thread that may block.
    /// What it appends is not checked again: the puller does that.
    fn read(&self, hash: &Hash, into: &mut Vec<u8>) -> ChunkLookup;
}

impl<F: Fn(&Hash, &mut Vec<u8>) -> ChunkLookup + Send + Sync + 'static> ChunkProvider for F {
    fn read(&self, hash: &Hash, into: &mut Vec<u8>) -> ChunkLookup {
        self(hash, into)
    }
}

/// Limits of the server.
#[derive(Debug, Clone)]
pub struct PullServerConfig {
    /// Transfers at a time.
    pub max_streams: usize,
    /// Transfers at a time of one peer.
    pub max_streams_per_peer: usize,
    /// Refusals at a time; beyond, streams are reset without a word.
    pub max_refusals: usize,
    /// The request must be here within this time.
    pub request_timeout: Duration,
    /// A peer must take 64 KiB within this time.
    pub stall_timeout: Duration,
    /// When a refused peer may try again.
    pub retry_after: Duration,
    /// Bytes read ahead per batch. A stream holds two batches, each up to this and one chunk.
    pub batch_bytes: usize,
    /// Bytes per second to all peers.
    pub bytes_per_second: Option<NonZeroU32>,
    /// Bytes per second to one peer.
    pub bytes_per_second_per_peer: Option<NonZeroU32>,
}

impl Default for PullServerConfig {
    fn default() -> Self {
        Self {
            max_streams: 32,
            max_streams_per_peer: 8,
            max_refusals: 256,
            request_timeout: Duration::from_secs(10),
            stall_timeout: Duration::from_secs(30),
            retry_after: Duration::from_secs(1),
            batch_bytes: 256 << 10,
            bytes_per_second: None,
            bytes_per_second_per_peer: None,
        }
    }
}

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
        }
    }
}

/// A bucket that holds at least one slice, so that a slice can always be paid for.
fn limiter(rate: NonZeroU32) -> DefaultDirectRateLimiter {
    let slice = NonZeroU32::new(SLICE as u32).unwrap_or(NonZeroU32::MAX);
    DefaultDirectRateLimiter::direct(Quota::per_second(rate).allow_burst(rate.max(slice)))
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

/// Peers whose rate is remembered after their last transfer, so that a new stream is no fresh allowance.
const MAX_IDLE_PEERS: usize = 1024;

type PeerLimiter = Option<Arc<DefaultDirectRateLimiter>>;

/// Who has transfers under way. Bounded by `max_streams` and [`MAX_IDLE_PEERS`].
#[derive(Default)]
struct Slots {
    total: usize,
    peers: HashMap<PeerId, (usize, PeerLimiter)>,
}

impl Slots {
    /// Takes a place for `peer`; `None` when there is none. Returns what limits the peer's rate.
    fn take(&mut self, peer: PeerId, config: &PullServerConfig) -> Option<PeerLimiter> {
        if self.total >= config.max_streams {
            return None;
        }
        if self.peers.len() >= MAX_IDLE_PEERS && !self.peers.contains_key(&peer) {
            self.peers.retain(|_, (streams, _)| *streams > 0);
        }
        let fresh = || (0, config.bytes_per_second_per_peer.map(limiter).map(Arc::new));
        let (streams, limiter) = self.peers.entry(peer).or_insert_with(fresh);
        if *streams >= config.max_streams_per_peer {
            return None;
        }
        *streams += 1;
        self.total += 1;
        Some(limiter.clone())
    }

    /// Gives a place back.
    fn give(&mut self, peer: &PeerId) {
        self.total -= 1;
        if let Some((streams, limiter)) = self.peers.get_mut(peer) {
            *streams -= 1;
            if *streams == 0 && limiter.is_none() {
                self.peers.remove(peer);
            }
        }
    }
}

/// One transfer's place; given back on drop.
struct Slot {
    shared: Arc<Shared>,
    peer: PeerId,
    limiter: PeerLimiter,
}

impl Slot {
    fn take(shared: &Arc<Shared>, peer: PeerId) -> Option<Self> {
        let limiter = shared.slots.lock().unwrap_or_else(PoisonError::into_inner).take(peer, &shared.config)?;
        Some(Self { shared: Arc::clone(shared), peer, limiter })
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        self.shared.slots.lock().unwrap_or_else(PoisonError::into_inner).give(&self.peer);
    }
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
    let result = transfer(&slot, &mut stream).await;
    drop(slot);
    let Err(error) = result else {
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

/// A batch of headers and ciphertexts, ready to be written.
struct Batch {
    bytes: Vec<u8>,
    chunks: u64,
    body_bytes: u64,
    /// The next hash to look up.
    next: usize,
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
        write(slot, stream, &batch.bytes).await?;
        shared.counters.chunks.fetch_add(batch.chunks, Relaxed);
        shared.counters.bytes.fetch_add(batch.body_bytes, Relaxed);
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

/// Reads chunks into one buffer, each behind its header, until it holds `limit` bytes or all are there.
fn read_batch(
    provider: &dyn ChunkProvider,
    hashes: &[Hash],
    mut next: usize,
    limit: usize,
    mut bytes: Vec<u8>,
) -> Batch {
    bytes.clear();
    let (mut chunks, mut body_bytes) = (0, 0);
    while let Some(hash) = hashes.get(next) {
        next += 1;
        let start = bytes.len();
        bytes.extend_from_slice(&[0; PullHeader::LEN]);
        let body = start + PullHeader::LEN;
        let found = provider.read(hash, &mut bytes);
        let len = bytes.len() - body;
        let status = match (found, u32::try_from(len)) {
            (ChunkLookup::Found, Ok(small)) if (1..=MAX_CIPHERTEXT_LEN).contains(&len) => {
                PullStatus::Found { len: small }
            }
            (ChunkLookup::Found, _) => {
                tracing::error!(%hash, len, "a stored chunk has a length that no chunk has; not served");
                PullStatus::NotFound
            }
            (ChunkLookup::Gone, _) => PullStatus::Gone,
            (ChunkLookup::Absent, _) => PullStatus::NotFound,
        };
        if let PullStatus::Found { len } = status {
            chunks += 1;
            body_bytes += u64::from(len);
        } else {
            bytes.truncate(body);
        }
        bytes[start..body].copy_from_slice(&PullHeader { hash: *hash, status }.encode());
        if bytes.len() >= limit {
            break;
        }
    }
    Batch { bytes, chunks, body_bytes, next }
}

/// Writes slice by slice, each paid for first, each within the stall timeout.
async fn write<S: AsyncWrite + Unpin>(slot: &Slot, stream: &mut S, bytes: &[u8]) -> Result<(), ServeError> {
    let shared = &slot.shared;
    for slice in bytes.chunks(SLICE) {
        if let Some(cost) = u32::try_from(slice.len()).ok().and_then(NonZeroU32::new) {
            // The buckets hold at least a slice, so the only error, "more than the bucket holds", cannot come.
            if let Some(limiter) = &slot.limiter {
                let _ = limiter.until_n_ready(cost).await;
            }
            if let Some(limiter) = &shared.limiter {
                let _ = limiter.until_n_ready(cost).await;
            }
        }
        timeout(shared.config.stall_timeout, stream.write_all(slice)).await.map_err(|_| ServeError::Stalled)??;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn provider(hash: &Hash, into: &mut Vec<u8>) -> ChunkLookup {
        match hash.as_bytes()[0] {
            0 => ChunkLookup::Absent,
            1 => ChunkLookup::Gone,
            2 => {
                into.resize(into.len() + MAX_CIPHERTEXT_LEN + 1, 0);
                ChunkLookup::Found
            }
            n => {
                into.extend(std::iter::repeat_n(n, 1000));
                ChunkLookup::Found
            }
        }
    }

    #[test]
    fn places_are_bounded_per_peer_and_in_all_and_come_back() {
        let config = PullServerConfig { max_streams: 3, max_streams_per_peer: 2, ..PullServerConfig::default() };
        let (mut slots, [a, b]) = (Slots::default(), [PeerId::random(), PeerId::random()]);
        assert!(slots.take(a, &config).is_some() && slots.take(a, &config).is_some());
        assert!(slots.take(a, &config).is_none(), "per peer");
        assert!(slots.take(b, &config).is_some());
        assert!(slots.take(b, &config).is_none(), "in all");
        slots.give(&a);
        assert!(slots.take(b, &config).is_some());
        for peer in [a, b, b] {
            slots.give(&peer);
        }
        assert_eq!((slots.total, slots.peers.len()), (0, 0));
    }

    #[test]
    fn a_new_stream_is_no_fresh_allowance() {
        let rate = NonZeroU32::new(1);
        let config = PullServerConfig { bytes_per_second_per_peer: rate, ..PullServerConfig::default() };
        let (mut slots, peer) = (Slots::default(), PeerId::random());
        let slice = NonZeroU32::new(SLICE as u32).unwrap();
        let first = slots.take(peer, &config).flatten().unwrap();
        assert_eq!(first.check_n(slice), Ok(Ok(())), "a slice always fits the bucket");
        slots.give(&peer);
        let second = slots.take(peer, &config).flatten().unwrap();
        assert!(second.check_n(slice).unwrap().is_err());
        slots.give(&peer);
        // Forgotten only when many others came in between.
        for _ in 0..=MAX_IDLE_PEERS {
            let other = PeerId::random();
            assert!(slots.take(other, &config).is_some());
            slots.give(&other);
        }
        assert!(slots.peers.len() <= MAX_IDLE_PEERS);
    }

    #[test]
    fn batches_cut_at_the_limit_and_lose_nothing() {
        let hashes: Vec<Hash> = (0..20).map(|n| Hash::from_bytes([n; 32])).collect();
        let (mut next, mut all, mut chunks, mut buffer) = (0, Vec::new(), 0, Vec::new());
        while next < hashes.len() {
            let batch = read_batch(&provider, &hashes, next, 3000, buffer);
            assert!(batch.bytes.len() < 3000 + 1000 + PullHeader::LEN, "{}", batch.bytes.len());
            assert!(batch.next > next);
            all.extend_from_slice(&batch.bytes);
            (next, chunks, buffer) = (batch.next, chunks + batch.chunks, batch.bytes);
        }
        assert_eq!(chunks, 17);
        assert_eq!(all.len(), 20 * PullHeader::LEN + 17 * 1000);
        // An oversized chunk is not there, rather than a frame no puller accepts.
        let third: &[u8; PullHeader::LEN] = all[2 * PullHeader::LEN..3 * PullHeader::LEN].try_into().unwrap();
        assert_eq!(PullHeader::decode(third).unwrap().status, PullStatus::NotFound);
    }
}
