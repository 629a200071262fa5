//! Pulling the chunks that were granted: from providers, past the checks, into the store.
//!
//! Owns one job at a time per call: what is wanted and not here yet, who is asked, and the bounds. A chunk is stored only after
//! length and BLAKE3 (checked by the pull client), key commitment and authentication tag (checked here; nothing is
//! decrypted). What is durable is never asked for again, so a job that broke off continues by chunk.
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
use tributary_protocol::ids::{DatasetId, Did, LogKey};

use self::{
    disk::BATCH_CHUNKS,
    job::{Counts, Job, UNIT, WINDOW, run},
    plan::Plan,
};
use super::{
    Buyer, blocking,
    error::{FollowError, PullJobError},
    listing::PullSelection,
};

/// Providers at a time.
const MAX_PROVIDERS: usize = 4;

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
    /// Whether this is all there will be: `false` while the machine still writes a dataset of the selection.
    pub complete: bool,
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

impl Buyer {
    /// Pulls every granted chunk of a selection that is not here yet, and waits until all of them are durable. Chunk entries of
    /// closed datasets that are not known here are fetched first; of open datasets, what is known is pulled.
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
        self.handle(did)?;
        let complete = self.complete(did, selection).await?;
        let (buyer, machine) = (self.clone(), *did);
        let places = blocking(move || buyer.places(&machine, selection)).await??;
        if places.is_empty() {
            return Err(PullJobError::NotFound { what: selection.to_string() });
        }
        let dataset = match selection {
            PullSelection::Dataset(dataset) => Some(dataset),
            PullSelection::Stream(_) => None,
        };
        let report = self.pull_places(did, places, dataset, selection.to_string(), progress).await?;
        Ok(PullReport { complete, ..report })
    }

    /// Pulls what was granted of stretches of logs, each from a position to another one, included; of `dataset` only, if one is
    /// given. `what` names them in errors.
    ///
    /// # Errors
    ///
    /// As [`Buyer::pull`].
    pub(super) async fn pull_places(
        &self,
        did: &Did,
        places: Vec<(LogKey, u64, u64)>,
        dataset: Option<DatasetId>,
        what: String,
        progress: Option<mpsc::Sender<PullProgress>>,
    ) -> Result<PullReport, PullJobError> {
        let begun = Instant::now();
        let handle = self.handle(did)?;
        let (buyer, machine, surveyed) = (self.clone(), *did, places.clone());
        let survey = blocking(move || buyer.survey(&machine, &surveyed, dataset, &what)).await?;
        let (mut report, total_chunks, total_bytes) = survey?;
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

        let plan = Plan { buyer: self.clone(), did: *did, dataset, places: places.into(), returned: VecDeque::new() };
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

    /// Counts what stretches of logs hold.
    fn survey(
        &self,
        did: &Did,
        places: &[(LogKey, u64, u64)],
        dataset: Option<DatasetId>,
        what: &str,
    ) -> Result<(PullReport, u64, u64), PullJobError> {
        let mut report = PullReport::default();
        let (mut chunks, mut bytes, mut failed) = (0, 0, None);
        self.visit_places(places, dataset, &mut |_, _, record| {
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
        if chunks == 0 && report.skipped == 0 && report.not_granted > 0 {
            return Err(PullJobError::NotGranted { what: what.to_owned() });
        }
        Ok((report, chunks, bytes))
    }
}
