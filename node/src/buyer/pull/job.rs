//! One job: workers that each take chunks from one provider, and their end.

use std::{
    collections::VecDeque,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use libp2p::PeerId;
use tokio::sync::{Semaphore, mpsc};
use tokio_util::sync::CancellationToken;
use tributary_protocol::{ids::Did, record::ChunkRecord};
use tributary_store::StoreError;

use super::{
    super::{
        Buyer, blocking,
        error::{BuyerError, FollowError, PullJobError, WrongBytes},
        follow::backoff,
    },
    PullProgress,
    disk::{Arrived, check_and_store},
    plan::{Item, Plan},
};
use crate::net::{MAX_PULL_HASHES, Offence, PullClient, PullError, PullOptions, RequestError, Wanted, Way};

/// Bytes of chunks between the wire and the disk.
pub(super) const WINDOW: usize = 10 << 20;
/// Unit of the window, bytes.
pub(super) const UNIT: usize = 1 << 10;
/// Chunks of one pull that were read and not taken yet.
const ON_THE_WIRE: usize = 3;
/// Threads that check chunks.
const CHECKERS: usize = 2;
/// How often a provider is tried again when it breaks off without having sent anything.
const RETRIES: usize = 3;
/// Longest wait for a busy provider.
const MAX_WAIT: Duration = Duration::from_secs(15);

/// What the parts of a job share.
pub(super) struct Job {
    pub(super) buyer: Buyer,
    pub(super) did: Did,
    pub(super) plan: Mutex<Plan>,
    pub(super) window: Arc<Semaphore>,
    /// Taken away when the workers are done: the checking threads end then.
    pub(super) arrived: Mutex<Option<mpsc::Sender<Arrived>>>,
    pub(super) stop: CancellationToken,
    pub(super) failed: Mutex<Option<PullJobError>>,
    pub(super) counts: Arc<Counts>,
}

/// Counters of what is durable, and where they are told.
pub(super) struct Counts {
    pub(super) chunks: AtomicU64,
    pub(super) bytes: AtomicU64,
    pub(super) total_chunks: u64,
    pub(super) total_bytes: u64,
    pub(super) progress: Option<mpsc::Sender<PullProgress>>,
}

impl Counts {
    pub(super) fn durable(&self, chunks: u64, bytes: u64) {
        let chunks = self.chunks.fetch_add(chunks, Relaxed) + chunks;
        let bytes = self.bytes.fetch_add(bytes, Relaxed) + bytes;
        if let Some(progress) = &self.progress {
            let (total_chunks, total_bytes) = (self.total_chunks, self.total_bytes);
            // A full channel has a newer state to come.
            let _ = progress.try_send(PullProgress { chunks, bytes, total_chunks, total_bytes });
        }
    }
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

pub(super) fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Job {
    pub(super) fn fail(&self, error: PullJobError) {
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
        let options =
            PullOptions { window: ON_THE_WIRE, pace: Some(net.pace(Way::Down, peer)), ..PullOptions::default() };
        let mut client = PullClient::start(stream, wanted, options).map_err(Failure::Pull)?.counted(net);
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

/// Runs the workers, round after round while chunks came back and somebody is left to ask, then waits for the disk.
pub(super) async fn run(
    job: &Arc<Job>,
    providers: Vec<PeerId>,
    queue: mpsc::Receiver<Arrived>,
) -> Result<(), PullJobError> {
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
