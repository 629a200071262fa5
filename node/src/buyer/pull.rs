//! Pulling the chunks that were granted: from providers, past the checks, into the store.
//!
//! Owns one job at a time per call: what is wanted and not here yet, who is asked, and the bounds. A chunk is stored only after
//! length and BLAKE3 (checked by the pull client), key commitment and authentication tag (checked here, the plaintext is
//! dropped). What is durable is never asked for again, so a job that broke off continues by chunk.
//!
//! ```text
//! plan (records wanted) -> one worker per provider -> window of bytes -> checking threads -> store batches -> durable
//! ```
//!
//! Memory: [`WINDOW`] bytes of chunks between the workers and the disk, and a few chunks per worker on the wire, whatever the
//! size of the job.

use std::{
    collections::VecDeque,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};

use libp2p::PeerId;
use serde::{Deserialize, Serialize};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio_util::sync::CancellationToken;
use tributary_protocol::{
    entry::EntryBody,
    ids::{DatasetId, Did, LogKey},
    record::ChunkRecord,
    seal,
};
use tributary_store::{StoreError, VerifiedChunk, WriteBatch};

use super::{
    Buyer, blocking,
    error::{BuyerError, FollowError, PullJobError, WrongBytes},
    feed::{PAGE, PAGE_BYTES, decode_stored},
    follow::backoff,
    listing::PullSelection,
};
use crate::net::{MAX_PULL_HASHES, Offence, PullClient, PullError, PullOptions, RequestError, Wanted};

/// Bytes of chunks between the wire and the disk.
const WINDOW: usize = 10 << 20;
/// Unit of the window, bytes.
const UNIT: usize = 1 << 10;
/// Chunks of one pull that were read and not taken yet.
const ON_THE_WIRE: usize = 3;
/// Providers at a time.
const MAX_PROVIDERS: usize = 4;
/// Threads that check chunks.
const CHECKERS: usize = 2;
/// Chunks in one store batch.
const BATCH_CHUNKS: usize = 16;
/// Bytes in one store batch, unless one chunk has more.
const BATCH_BYTES: usize = 4 << 20;
/// How often a provider is tried again when it breaks off without having sent anything.
const RETRIES: usize = 3;
/// Longest wait for a busy provider.
const MAX_WAIT: Duration = Duration::from_secs(15);

/// What a pull did.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub struct PullReport {
    /// Chunks that came and are durable.
    pub chunks: u64,
    /// Their ciphertext, bytes.
    pub bytes: u64,
    /// Chunks that were here already.
    pub skipped: u64,
    /// Chunks of the selection that were not granted: not asked for.
    pub not_granted: u64,
    /// How long it took.
    pub seconds: f64,
}

/// How far a pull has come. Sent when there is room in the channel; the report is what counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct PullProgress {
    /// Chunks that are durable.
    pub chunks: u64,
    /// Their ciphertext, bytes.
    pub bytes: u64,
    /// Chunks that were wanted when the job began.
    pub total_chunks: u64,
    /// Their ciphertext, bytes.
    pub total_bytes: u64,
}

/// A chunk that is wanted, and which providers were asked for it in vain (one bit each).
struct Item {
    record: ChunkRecord,
    tried: u32,
}

/// What is left to do.
struct Plan {
    buyer: Buyer,
    did: Did,
    dataset: Option<DatasetId>,
    /// Stretches of logs that were not looked at yet.
    places: VecDeque<(LogKey, u64, u64)>,
    /// Chunks that came back.
    returned: VecDeque<Item>,
}

impl Plan {
    /// Whether one of these providers has something to do.
    fn has_work(&self, providers: &[(PeerId, u32)]) -> bool {
        let untried = |bit: u32| self.returned.iter().any(|item| item.tried & bit == 0);
        providers.iter().any(|(_, bit)| !self.places.is_empty() || untried(*bit))
    }

    /// At most `max` chunks that the provider with this bit was not asked for. Blocks.
    fn take(&mut self, bit: u32, max: usize) -> Result<Vec<Item>, BuyerError> {
        let mut out = Vec::new();
        for _ in 0..self.returned.len() {
            let Some(item) = self.returned.pop_front() else { break };
            if item.tried & bit == 0 && out.len() < max {
                out.push(item);
            } else {
                self.returned.push_back(item);
            }
        }
        while out.len() < max
            && let Some((log, from, last)) = self.places.front().copied()
        {
            let page = self.buyer.inner.store.entries(&log, from, PAGE, PAGE_BYTES)?;
            let end = page.last().map(|entry| entry.seq);
            for entry in page {
                let decoded = decode_stored(&entry.bytes)?;
                let EntryBody::Chunk(record) = &decoded.entry().body else { continue };
                let meant = entry.seq <= last && self.dataset.is_none_or(|dataset| dataset == record.dataset);
                if meant
                    && self.buyer.inner.wallet.holds(&self.did, record)
                    && !self.buyer.inner.store.has_chunk(&record.hash)?
                {
                    out.push(Item { record: record.clone(), tried: 0 });
                }
            }
            match end.and_then(|end| end.checked_add(1)).filter(|next| *next <= last) {
                Some(next) => self.places[0].1 = next,
                None => drop(self.places.pop_front()),
            }
        }
        // A page may bring a few more than one request can name.
        for item in out.drain(max.min(out.len())..).rev() {
            self.returned.push_front(item);
        }
        Ok(out)
    }
}

/// What the parts of a job share.
struct Job {
    buyer: Buyer,
    did: Did,
    plan: Mutex<Plan>,
    window: Arc<Semaphore>,
    /// Taken away when the workers are done: the checking threads end then.
    arrived: Mutex<Option<mpsc::Sender<Arrived>>>,
    stop: CancellationToken,
    failed: Mutex<Option<PullJobError>>,
    counts: Arc<Counts>,
}

/// Counters of what is durable, and where they are told.
struct Counts {
    chunks: AtomicU64,
    bytes: AtomicU64,
    total_chunks: u64,
    total_bytes: u64,
    progress: Option<mpsc::Sender<PullProgress>>,
}

impl Counts {
    fn durable(&self, chunks: u64, bytes: u64) {
        let chunks = self.chunks.fetch_add(chunks, Relaxed) + chunks;
        let bytes = self.bytes.fetch_add(bytes, Relaxed) + bytes;
        if let Some(progress) = &self.progress {
            let (total_chunks, total_bytes) = (self.total_chunks, self.total_bytes);
            // A full channel has a newer state to come.
            let _ = progress.try_send(PullProgress { chunks, bytes, total_chunks, total_bytes });
        }
    }
}

/// A chunk with the right bytes.
struct Arrived {
    record: ChunkRecord,
    body: Vec<u8>,
    room: OwnedSemaphorePermit,
}

/// How a pull of one batch ended.
struct BatchEnd {
    /// Chunks that came.
    came: u64,
    /// Why it ended early.
    error: Option<Failure>,
}

enum Failure {
    /// An honest peer would never do this. Names the chunk that was due.
    Offence(Box<ChunkRecord>, PullError),
    Pull(PullError),
    Request(RequestError),
    /// The job is over.
    Stopped,
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Job {
    fn fail(&self, error: PullJobError) {
        locked(&self.failed).get_or_insert(error);
        self.stop.cancel();
    }

    fn give_back(&self, items: impl IntoIterator<Item = Item>) {
        locked(&self.plan).returned.extend(items);
    }

    /// Takes chunks from one provider until there is nothing left for it, or it fails.
    async fn work(self: &Arc<Self>, peer: PeerId, bit: u32) -> Result<(), PullJobError> {
        let (mut waits, mut tries) = (backoff(), 0);
        loop {
            let job = Arc::clone(self);
            let items = blocking(move || locked(&job.plan).take(bit, MAX_PULL_HASHES)).await??;
            if items.is_empty() || self.stop.is_cancelled() {
                self.give_back(items);
                return Ok(());
            }
            let end = self.batch(peer, bit, items).await;
            if end.came > 0 {
                (waits, tries) = (backoff(), 0);
            }
            let net = self.buyer.net()?;
            let (source, wait) = match end.error {
                None => continue,
                Some(Failure::Stopped) => return Ok(()),
                Some(Failure::Offence(record, source)) => {
                    net.penalize(peer, Offence::WrongBytes).await.map_err(FollowError::from)?;
                    let ChunkRecord { dataset, index, hash, .. } = *record;
                    tracing::warn!(%peer, %dataset, index, %source, "wrong bytes refused");
                    return Err(Box::new(WrongBytes { peer, dataset, index, hash, source }).into());
                }
                Some(Failure::Pull(PullError::Busy { retry_after })) => {
                    let source = PullError::Busy { retry_after };
                    match waits.next() {
                        Some(wait) => (source, wait.max(retry_after.min(MAX_WAIT))),
                        None => return Err(PullJobError::Broken { peer, source: Box::new(source) }),
                    }
                }
                Some(Failure::Pull(source)) => (source, Duration::from_millis(200)),
                Some(Failure::Request(error)) => {
                    if matches!(error, RequestError::Unsupported { .. } | RequestError::Closed(_)) {
                        return Err(FollowError::Request { peer, source: Box::new(error) }.into());
                    }
                    (PullError::Closed, Duration::from_millis(200))
                }
            };
            tries += usize::from(!matches!(source, PullError::Busy { .. }));
            if tries > RETRIES {
                return Err(PullJobError::Broken { peer, source: Box::new(source) });
            }
            tokio::select! {
                () = self.stop.cancelled() => return Ok(()),
                () = tokio::time::sleep(wait) => {}
            }
            let handle = self.buyer.handle(&self.did)?;
            self.buyer.reach(&handle, peer).await?;
        }
    }

    /// One pull stream.
    async fn batch(&self, peer: PeerId, bit: u32, items: Vec<Item>) -> BatchEnd {
        let mut due = VecDeque::from(items);
        let mut absent = Vec::new();
        let mut came = 0;
        let error = self.stream(peer, &mut due, &mut absent, &mut came).await.err();
        if let (Some(Failure::Offence(..)), Some(first)) = (&error, due.front_mut()) {
            first.tried |= bit;
        }
        for item in &mut absent {
            item.tried |= bit;
        }
        self.give_back(due.into_iter().chain(absent));
        BatchEnd { came, error }
    }

    async fn stream(
        &self,
        peer: PeerId,
        due: &mut VecDeque<Item>,
        absent: &mut Vec<Item>,
        came: &mut u64,
    ) -> Result<(), Failure> {
        let net = self.buyer.net().map_err(|_| Failure::Stopped)?;
        let arrived = locked(&self.arrived).clone().ok_or(Failure::Stopped)?;
        let stream = net.open_pull(peer).await.map_err(Failure::Request)?;
        let wanted = due.iter().map(|item| Wanted { hash: item.record.hash, len: Some(item.record.len) }).collect();
        let options = PullOptions { window: ON_THE_WIRE, ..PullOptions::default() };
        let mut client = PullClient::start(stream, wanted, options).map_err(Failure::Pull)?;
        while let Some(first) = due.front() {
            let item = tokio::select! {
                biased;
                () = self.stop.cancelled() => return Err(Failure::Stopped),
                item = client.next() => item.ok_or(Failure::Pull(PullError::Closed))?,
            };
            match item.result {
                Ok(body) => {
                    let units = u32::try_from(body.len().div_ceil(UNIT)).unwrap_or(u32::MAX);
                    let room = Arc::clone(&self.window).acquire_many_owned(units).await;
                    let Ok(room) = room else { return Err(Failure::Stopped) };
                    let Some(Item { record, .. }) = due.pop_front() else { return Ok(()) };
                    arrived.send(Arrived { record, body, room }).await.map_err(|_| Failure::Stopped)?;
                    *came += 1;
                }
                Err(error) if error.is_offence() => {
                    return Err(Failure::Offence(Box::new(first.record.clone()), error));
                }
                Err(error) if error.is_fatal() => return Err(Failure::Pull(error)),
                Err(_) => absent.extend(due.pop_front()),
            }
        }
        Ok(())
    }
}

/// Checks what arrives and hands it to the store. Blocks until the workers are done.
fn check_and_store(job: &Job, arrived: &Mutex<mpsc::Receiver<Arrived>>, wrote: &Arc<Mutex<Option<StoreError>>>) {
    let mut scratch = Vec::new();
    let mut batch = Batch::default();
    loop {
        // What is there already goes into the same batch; nothing waits for more.
        let ready = arrived.try_lock().map(|mut queue| queue.try_recv());
        let next = match ready {
            Ok(Ok(next)) => next,
            Ok(Err(mpsc::error::TryRecvError::Disconnected)) => break,
            _ => {
                batch.submit(job, wrote);
                let Some(next) = locked(arrived).blocking_recv() else { break };
                next
            }
        };
        if job.stop.is_cancelled() {
            continue;
        }
        match check(job, &next, &mut scratch) {
            Ok(()) => batch.add(next),
            Err(error) => job.fail(error),
        }
        if batch.rooms.len() >= BATCH_CHUNKS || batch.bytes >= BATCH_BYTES {
            batch.submit(job, wrote);
        }
    }
    batch.submit(job, wrote);
}

fn check(job: &Job, chunk: &Arrived, scratch: &mut Vec<u8>) -> Result<(), PullJobError> {
    let record = &chunk.record;
    let Some(key) = job.buyer.key_for(&job.did, record)? else {
        return Err(PullJobError::NotGranted { what: format!("chunk {} of dataset {}", record.index, record.dataset) });
    };
    // Decrypted in a buffer that is used again; the plaintext is of no interest here.
    let mut copy = std::mem::take(scratch);
    copy.clear();
    copy.extend_from_slice(&chunk.body);
    let unreadable = |source| PullJobError::Unreadable { dataset: record.dataset, index: record.index, source };
    *scratch = seal::open_unhashed(record, &key, copy).map_err(unreadable)?;
    Ok(())
}

/// Chunks on their way to the store.
#[derive(Default)]
struct Batch {
    batch: WriteBatch,
    rooms: Vec<OwnedSemaphorePermit>,
    bytes: usize,
}

impl Batch {
    fn add(&mut self, chunk: Arrived) {
        self.bytes += chunk.body.len();
        // Its BLAKE3 was computed from these very bytes when they arrived.
        self.batch.put_verified(VerifiedChunk::trust(chunk.record.hash, chunk.body));
        self.rooms.push(chunk.room);
    }

    fn submit(&mut self, job: &Job, wrote: &Arc<Mutex<Option<StoreError>>>) {
        let Self { batch, rooms, bytes } = std::mem::take(self);
        if rooms.is_empty() {
            return;
        }
        let (stop, counts, wrote_later) = (job.stop.clone(), Arc::clone(&job.counts), Arc::clone(wrote));
        let submitted = job.buyer.inner.store.submit(batch, move |result| {
            match result {
                Ok(()) => counts.durable(rooms.len() as u64, bytes as u64),
                Err(error) => {
                    locked(&wrote_later).get_or_insert(error);
                    stop.cancel();
                }
            }
            drop(rooms);
        });
        if let Err(error) = submitted {
            job.fail(error.into());
        }
    }
}

impl Buyer {
    /// Pulls every granted chunk of a selection that is not here yet, and waits until all of them are durable.
    ///
    /// # Errors
    ///
    /// See [`PullJobError`]. What came before stays, and calling again continues.
    pub async fn pull(
        &self,
        did: &Did,
        selection: PullSelection,
        progress: Option<mpsc::Sender<PullProgress>>,
    ) -> Result<PullReport, PullJobError> {
        let begun = Instant::now();
        let handle = self.handle(did)?;
        let (buyer, machine) = (self.clone(), *did);
        let (mut report, total_chunks, total_bytes) = blocking(move || buyer.survey(&machine, selection)).await??;
        let finish = |mut report: PullReport| {
            report.seconds = begun.elapsed().as_secs_f64();
            report
        };
        if total_chunks == 0 {
            return Ok(finish(report));
        }
        let mut providers = Vec::new();
        let mut last = PullJobError::Follow(FollowError::NoAddress(*did));
        for peer in self.providers_of(&handle).await? {
            match self.reach(&handle, peer).await {
                Ok(()) => providers.push(peer),
                Err(error) => last = error.into(),
            }
            if providers.len() == MAX_PROVIDERS {
                break;
            }
        }
        if providers.is_empty() {
            return Err(last);
        }

        let (buyer, machine) = (self.clone(), *did);
        let places = blocking(move || buyer.places(&machine, selection)).await??;
        let plan = Plan {
            buyer: self.clone(),
            did: *did,
            dataset: match selection {
                PullSelection::Dataset(dataset) => Some(dataset),
                PullSelection::Stream(_) => None,
            },
            places: places.into(),
            returned: VecDeque::new(),
        };
        let (arrived, queue) = mpsc::channel(BATCH_CHUNKS);
        let counts = Arc::new(Counts {
            chunks: AtomicU64::new(0),
            bytes: AtomicU64::new(0),
            total_chunks,
            total_bytes,
            progress,
        });
        let window = Arc::new(Semaphore::new(WINDOW / UNIT));
        let job = Arc::new(Job {
            buyer: self.clone(),
            did: *did,
            plan: Mutex::new(plan),
            window: Arc::clone(&window),
            arrived: Mutex::new(Some(arrived)),
            stop: CancellationToken::new(),
            failed: Mutex::new(None),
            counts: Arc::clone(&counts),
        });
        // Whoever gives up waiting for the job ends it.
        let _stop = job.stop.clone().drop_guard();
        let outcome = run(&job, providers, queue).await;
        report.chunks = counts.chunks.load(Relaxed);
        report.bytes = counts.bytes.load(Relaxed);
        outcome.map(|()| finish(report))
    }

    /// Counts what a selection holds.
    fn survey(&self, did: &Did, selection: PullSelection) -> Result<(PullReport, u64, u64), PullJobError> {
        let mut report = PullReport::default();
        let (mut chunks, mut bytes, mut failed) = (0, 0, None);
        let known = self.visit_chunks(did, selection, &mut |_, _, record| {
            match self.inner.store.has_chunk(&record.hash) {
                Ok(true) => report.skipped += 1,
                Ok(false) if !self.inner.wallet.holds(did, record) => report.not_granted += 1,
                Ok(false) => {
                    chunks += 1;
                    bytes += u64::from(record.len);
                }
                Err(error) => failed = Some(error),
            }
            failed.is_none()
        })?;
        if let Some(error) = failed {
            return Err(error.into());
        }
        if !known {
            return Err(PullJobError::NotFound { what: selection.to_string() });
        }
        if chunks == 0 && report.skipped == 0 && report.not_granted > 0 {
            return Err(PullJobError::NotGranted { what: selection.to_string() });
        }
        Ok((report, chunks, bytes))
    }
}

/// Runs the workers, round after round while chunks came back and somebody is left to ask, then waits for the disk.
async fn run(job: &Arc<Job>, providers: Vec<PeerId>, queue: mpsc::Receiver<Arrived>) -> Result<(), PullJobError> {
    let queue = Arc::new(Mutex::new(queue));
    let wrote: Arc<Mutex<Option<StoreError>>> = Arc::default();
    let (done, mut checkers) = mpsc::channel::<()>(1);
    for _ in 0..CHECKERS {
        let (job, queue, wrote, done) = (Arc::clone(job), Arc::clone(&queue), Arc::clone(&wrote), done.clone());
        tokio::task::spawn_blocking(move || {
            check_and_store(&job, &queue, &wrote);
            drop((job, done));
        });
    }
    drop(done);

    let mut alive: Vec<(PeerId, u32)> = providers.into_iter().zip((0..32).map(|shift| 1 << shift)).collect();
    let mut worst: Option<PullJobError> = None;
    loop {
        let mut round = tokio::task::JoinSet::new();
        for (peer, bit) in alive.iter().copied() {
            let job = Arc::clone(job);
            round.spawn(async move { (peer, job.work(peer, bit).await) });
        }
        while let Some(ended) = round.join_next().await {
            let (peer, result) = ended.map_err(|_| BuyerError::Stopped)?;
            if let Err(error) = result {
                alive.retain(|(other, _)| *other != peer);
                let named = matches!(worst, Some(PullJobError::WrongBytes(_)));
                if !named {
                    worst = Some(error);
                }
            }
        }
        if job.stop.is_cancelled() || !locked(&job.plan).has_work(&alive) {
            break;
        }
    }

    // Everything that arrived goes through the checks and to the disk, also when the job failed: room in the window comes back
    // only then.
    drop(locked(&job.arrived).take());
    while checkers.recv().await.is_some() {}
    let whole = u32::try_from(WINDOW / UNIT).unwrap_or(u32::MAX);
    let _all = job.window.acquire_many(whole).await.map_err(|_| BuyerError::Stopped)?;
    if let Some(error) = locked(&wrote).take() {
        return Err(error.into());
    }
    if let Some(error) = locked(&job.failed).take() {
        return Err(error);
    }
    let plan = locked(&job.plan);
    match plan.returned.front() {
        None => Ok(()),
        Some(item) => Err(worst.unwrap_or(PullJobError::Missing {
            missing: plan.returned.len() as u64,
            dataset: item.record.dataset,
            index: item.record.index,
        })),
    }
}
