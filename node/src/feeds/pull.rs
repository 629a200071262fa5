//! Pulling chunks: from providers, past the checks, into the store.
//!
//! Owns one job at a time per call: what is wanted and not here yet, who is asked, and the bounds. A chunk is stored only after
//! length and BLAKE3 (checked by the pull client) and what its [`Intake`] checks. What is durable is never asked for again, so a job that broke off continues by chunk.
//!
//! ```text
//! plan (records wanted) -> one worker per provider -> window of bytes -> checking threads -> store batches -> durable
//! ```
//!
//! Memory: 10 MiB of chunks between the workers and the disk, and a few chunks per worker on the wire, whatever the
//! size of the job.

mod disk;
mod job;
mod plan;

use std::{
    collections::VecDeque,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::Instant,
};

use serde::{Deserialize, Serialize};
use tokio::sync::{Semaphore, mpsc};
use tokio_util::sync::CancellationToken;
use tributary_protocol::{
    ids::{DatasetId, Did, LogKey},
    record::ChunkRecord,
};

use self::{
    disk::BATCH_CHUNKS,
    job::{Counts, Job, UNIT, WINDOW, run},
    plan::Plan,
};
use super::{
    Feeds, blocking,
    error::{FollowError, PullJobError},
};

/// Providers at a time.
const MAX_PROVIDERS: usize = 4;

/// Which chunks a pull is for, and what must hold before they are kept.
pub trait Intake: Send + Sync + 'static {
    /// Whether a chunk is wanted. Called where blocking is allowed, once per chunk and again where one comes back.
    fn wants(&self, did: &Did, record: &ChunkRecord) -> bool;

    /// Checks a chunk of which length and BLAKE3 are right. Blocks.
    ///
    /// # Errors
    ///
    /// What is wrong; the pull ends then, since every provider would send the same bytes.
    fn check(&self, did: &Did, record: &ChunkRecord, body: &[u8]) -> Result<(), PullJobError>;
}

/// What a pull brought.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Pulled {
    /// Chunks that came and are durable.
    pub chunks: u64,
    /// Their ciphertext, bytes.
    pub bytes: u64,
    /// Chunks that were here already.
    pub skipped: u64,
    /// Chunks that are not wanted: not asked for.
    pub unwanted: u64,
    /// How long it took, s.
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

impl Feeds {
    /// Pulls what is wanted of stretches of logs, each from a position to another one, included; of `dataset` only, if one is
    /// given. Waits until all of it is durable.
    ///
    /// # Errors
    ///
    /// See [`PullJobError`]. What came before stays, and calling again continues.
    pub(crate) async fn pull(
        &self,
        did: &Did,
        places: Vec<(LogKey, u64, u64)>,
        dataset: Option<DatasetId>,
        intake: Arc<dyn Intake>,
        progress: Option<mpsc::Sender<PullProgress>>,
    ) -> Result<Pulled, PullJobError> {
        let begun = Instant::now();
        let handle = self.handle(did)?;
        let (feeds, machine, surveyed, wanted) = (self.clone(), *did, places.clone(), Arc::clone(&intake));
        let survey = blocking(move || feeds.survey(&machine, &surveyed, dataset, &*wanted)).await?;
        let (mut report, total_chunks, total_bytes) = survey?;
        let finish = |mut report: Pulled| {
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

        let plan = Plan {
            feeds: self.clone(),
            did: *did,
            dataset,
            intake: Arc::clone(&intake),
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
            feeds: self.clone(),
            did: *did,
            intake,
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

    /// Counts what stretches of logs hold: the chunks that are here or not wanted, then those that are wanted, and their bytes.
    fn survey(
        &self,
        did: &Did,
        places: &[(LogKey, u64, u64)],
        dataset: Option<DatasetId>,
        intake: &dyn Intake,
    ) -> Result<(Pulled, u64, u64), PullJobError> {
        let mut report = Pulled::default();
        let (mut chunks, mut bytes, mut failed) = (0, 0, None);
        self.visit_places(places, dataset, &mut |_, _, record| {
            match self.inner.store.has_chunk(&record.hash) {
                Ok(true) => report.skipped += 1,
                Ok(false) if !intake.wants(did, record) => report.unwanted += 1,
                Ok(false) => {
                    chunks += 1;
                    bytes += u64::from(record.len);
                }
                Err(error) => failed = Some(error),
            }
            failed.is_none()
        })?;
        failed.map_or(Ok((report, chunks, bytes)), |error| Err(error.into()))
    }
}
