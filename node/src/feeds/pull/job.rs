//! One job: keeps the schedule fed, finds sources, runs a worker for each, and says how it ended.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use libp2p::PeerId;
use tokio::{
    sync::{Notify, Semaphore, mpsc, watch},
    task::JoinSet,
};
use tokio_util::sync::CancellationToken;
use tributary_protocol::{ids::Did, record::ChunkRecord};
use tributary_store::StoreError;

use super::{
    super::{
        Feeds, blocking,
        error::{Exhausted, FeedsError, FollowError, PullJobError, SourceError},
        feed::PAGE,
        follow::Handle,
    },
    Intake,
    counts::Counts,
    disk::{Arrived, BATCH_CHUNKS, check_and_store},
    plan::Plan,
    schedule::{LOOK_AHEAD, MAX_SOURCES, Schedule},
    worker::work,
};
use crate::net::Client;

/// Bytes of chunks between the wire and the disk.
const WINDOW: usize = 10 << 20;
/// Unit of the window, bytes.
pub(super) const UNIT: usize = 1 << 10;
/// Threads that check chunks.
const CHECKERS: usize = 2;
/// How often sources are looked for that were learned of meanwhile.
const LOOK_EVERY: Duration = Duration::from_secs(2);
/// A source that was given up, and was not at fault, is tried again after this time if the pull still runs.
const AGAIN_AFTER: Duration = Duration::from_secs(10);
/// Peers that one pull asks, those that were given up included.
const MAX_ASKED: usize = 256;

/// What the parts of a job share.
pub(super) struct Job {
    pub(super) feeds: Feeds,
    pub(super) net: Client,
    pub(super) did: Did,
    pub(super) intake: Arc<dyn Intake>,
    pub(super) counts: Arc<Counts>,
    pub(super) window: Arc<Semaphore>,
    /// Changes when there may be something to do, or to let go, for a worker that waits.
    pub(super) changed: watch::Sender<()>,
    /// Told when there may be something to do for the job itself.
    pub(super) moved: Notify,
    /// Cancelled when no worker is needed any more.
    pub(super) over: CancellationToken,
    /// Cancelled when the job has failed: what arrives is dropped.
    pub(super) stop: CancellationToken,
    schedule: Mutex<Schedule<Arc<ChunkRecord>>>,
    /// Taken away when the workers are done: the checking threads end then.
    arrived: Mutex<Option<mpsc::Sender<Arrived>>>,
    failed: Mutex<Option<PullJobError>>,
}

pub(super) fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// What is known of a peer that was asked.
#[derive(Default)]
struct Asked {
    /// When its worker ended.
    ended: Option<Instant>,
    /// Why it was given up.
    said: Option<SourceError>,
}

impl Asked {
    fn again(&self) -> bool {
        let late = self.ended.is_some_and(|ended| ended.elapsed() >= AGAIN_AFTER);
        late && self.said.as_ref().is_none_or(|said| !said.is_final())
    }
}

impl Job {
    pub(super) fn new(feeds: Feeds, net: Client, did: Did, intake: Arc<dyn Intake>, counts: Counts) -> Self {
        Self {
            feeds,
            net,
            did,
            intake,
            counts: Arc::new(counts),
            window: Arc::new(Semaphore::new(WINDOW / UNIT)),
            changed: watch::Sender::new(()),
            moved: Notify::new(),
            over: CancellationToken::new(),
            stop: CancellationToken::new(),
            schedule: Mutex::new(Schedule::new(LOOK_AHEAD)),
            arrived: Mutex::default(),
            failed: Mutex::default(),
        }
    }

    pub(super) fn schedule(&self) -> MutexGuard<'_, Schedule<Arc<ChunkRecord>>> {
        locked(&self.schedule)
    }

    /// Where chunks go that arrived; `None` when nothing is taken any more.
    pub(super) fn arrived(&self) -> Option<mpsc::Sender<Arrived>> {
        locked(&self.arrived).clone()
    }

    /// Ends the job with its first error.
    pub(super) fn fail(&self, error: PullJobError) {
        locked(&self.failed).get_or_insert(error);
        self.stop.cancel();
    }

    /// Wakes whoever waits for a change.
    pub(super) fn tell(&self) {
        self.changed.send_replace(());
        self.moved.notify_one();
    }

    /// Keeps the schedule full.
    async fn feed(self: &Arc<Self>, plan: &Arc<Mutex<Plan>>) -> Result<(), FeedsError> {
        loop {
            let room = self.schedule().room();
            if room < PAGE || locked(plan).is_over() {
                return Ok(());
            }
            let taken = Arc::clone(plan);
            let records = blocking(move || locked(&taken).take(room)).await??;
            let last = locked(plan).is_over();
            self.schedule().feed(records.into_iter().map(|record| (record.len, record)), last);
            self.tell();
        }
    }
}

/// The workers of a job, and what is known of the peers.
struct Sources<'a> {
    job: &'a Arc<Job>,
    handle: &'a Arc<Handle>,
    workers: JoinSet<(PeerId, Result<(), SourceError>)>,
    asked: BTreeMap<PeerId, Asked>,
}

impl Sources<'_> {
    /// Starts a worker for every source that was not asked yet, and for those worth another try. Says whether there was one of
    /// the former.
    async fn look(&mut self) -> Result<bool, FollowError> {
        let mut found = false;
        for peer in self.job.feeds.sources(self.handle).await? {
            if self.workers.len() >= MAX_SOURCES {
                break;
            }
            let new = match self.asked.get(&peer) {
                None if self.asked.len() < MAX_ASKED => true,
                Some(asked) if asked.again() => false,
                _ => continue,
            };
            found |= new;
            self.asked.insert(peer, Asked::default());
            let (job, handle) = (Arc::clone(self.job), Arc::clone(self.handle));
            self.workers.spawn(async move { (peer, work(&job, &handle, peer).await) });
        }
        Ok(found)
    }

    fn ended(&mut self, peer: PeerId, result: Result<(), SourceError>) {
        let asked = self.asked.entry(peer).or_default();
        asked.ended = Some(Instant::now());
        if let Err(said) = result {
            // Most followers of a feed are like that: nothing to tell.
            if !matches!(said, SourceError::ServesNone) {
                self.job.counts.of(peer, |source| source.said = Some(said.whole()));
            }
            asked.said = Some(said);
        }
    }

    /// Runs until every chunk has arrived, nobody is left who could send one, or the job has failed.
    async fn run(&mut self, plan: &Arc<Mutex<Plan>>) -> Result<(), PullJobError> {
        self.look().await?;
        if self.asked.is_empty() {
            return Err(FollowError::NoAddress(self.job.did).into());
        }
        let mut look = tokio::time::interval_at(tokio::time::Instant::now() + LOOK_EVERY, LOOK_EVERY);
        loop {
            self.job.feed(plan).await?;
            // All of one moment: a schedule that nobody has joined yet is stuck, too.
            let (over, stuck, sources) = {
                let schedule = self.job.schedule();
                (schedule.is_over(), schedule.is_stuck(), schedule.sources())
            };
            if over {
                return Ok(());
            }
            // Those that are not in the schedule are being reached, or about to be noticed as ended.
            if stuck && self.workers.len() == sources && !self.look().await? {
                if self.workers.is_empty() || locked(plan).is_over() {
                    return Err(self.exhausted());
                }
                self.job.schedule().give_up();
                continue;
            }
            tokio::select! {
                () = self.job.stop.cancelled() => return Ok(()),
                Some(ended) = self.workers.join_next() => {
                    let (peer, result) = ended.map_err(|_| FeedsError::Stopped)?;
                    self.ended(peer, result);
                }
                () = self.job.moved.notified() => {}
                _ = look.tick() => drop(self.look().await?),
            }
        }
    }

    fn exhausted(&mut self) -> PullJobError {
        let (missing, first) = self.job.schedule().missing();
        let said = |asked: Asked| asked.said.unwrap_or(SourceError::Lacks);
        let said = std::mem::take(&mut self.asked).into_iter().map(|(peer, asked)| (peer, said(asked))).collect();
        match first {
            Some(first) => {
                let (dataset, index) = (first.dataset, first.index);
                Box::new(Exhausted { missing, dataset, index, said }).into()
            }
            // Only when the plan was read and nothing was wanted: then it is over.
            None => FeedsError::Stopped.into(),
        }
    }
}

/// Lets the checking threads end when it is dropped, which is also when whoever waits for the job gives up.
struct Checking<'a>(&'a Job);

impl Drop for Checking<'_> {
    fn drop(&mut self) {
        locked(&self.0.arrived).take();
    }
}

/// Runs the workers, then waits for the disk.
pub(super) async fn run(job: &Arc<Job>, handle: &Arc<Handle>, plan: Plan) -> Result<(), PullJobError> {
    let (arrived, queue) = mpsc::channel(BATCH_CHUNKS);
    *locked(&job.arrived) = Some(arrived);
    let checking = Checking(job);
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

    let mut sources = Sources { job, handle, workers: JoinSet::new(), asked: BTreeMap::new() };
    let outcome = sources.run(&Arc::new(Mutex::new(plan))).await;
    job.over.cancel();
    // They hand on what they have in hand.
    while sources.workers.join_next().await.is_some() {}

    // Everything that arrived goes through the checks and to the disk, also when the job failed: room in the window comes back
    // only then.
    drop(checking);
    while checkers.recv().await.is_some() {}
    let whole = u32::try_from(WINDOW / UNIT).unwrap_or(u32::MAX);
    let _all = job.window.acquire_many(whole).await.map_err(|_| FeedsError::Stopped)?;
    if let Some(error) = locked(&wrote).take() {
        return Err(error.into());
    }
    if let Some(error) = locked(&job.failed).take() {
        return Err(error);
    }
    outcome
}
