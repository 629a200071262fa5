//! Pulling chunks: from providers, past the checks, into the store.
//!
//! Owns one job at a time per call: what is wanted and not here yet, who is asked, and the bounds. A chunk is stored only after
//! length and BLAKE3 (checked by the pull client) and what its [`Intake`] checks. What is durable is never asked for again, so a job that broke off continues by chunk.
//!
//! ```text
//! plan (records wanted) -> schedule -> one worker per source -> window of bytes -> checking threads -> store batches -> durable
//! ```
//!
//! Memory: [`schedule::LOOK_AHEAD`] records, 10 MiB of chunks between the workers and the disk, and at most five chunks per
//! worker (one in hand, two on each of two streams), whatever the size of the job. A kill costs what of this was not durable.

mod counts;
mod disk;
mod job;
mod plan;
mod schedule;
mod worker;

use std::{sync::Arc, time::Instant};

use serde::{Deserialize, Serialize};
use tokio::sync::mpsc;
use tributary_protocol::{
    ids::{DatasetId, Did, LogKey},
    record::ChunkRecord,
};

pub use self::counts::SourceCounts;
use self::{
    counts::Counts,
    job::{Job, run},
    plan::Plan,
};
use super::{Feeds, blocking, error::PullJobError};

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
#[derive(Debug, Clone, Default, PartialEq)]
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
    /// Who was asked, those that brought the most first.
    pub sources: Vec<SourceCounts>,
}

/// How far a pull has come. Sent when there is room in the channel; the report is what counts.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PullProgress {
    /// Chunks that are durable.
    pub chunks: u64,
    /// Their ciphertext, bytes.
    pub bytes: u64,
    /// Chunks that were wanted when the job began.
    pub total_chunks: u64,
    /// Their ciphertext, bytes.
    pub total_bytes: u64,
    /// Sources that have brought something.
    #[serde(default)]
    pub sources: u64,
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
        let net = self.net()?.clone();
        self.seek(&handle).await?;
        let plan = Plan { feeds: self.clone(), did: *did, dataset, intake: Arc::clone(&intake), places: places.into() };
        let counts = Counts::new((total_chunks, total_bytes), progress);
        let job = Arc::new(Job::new(self.clone(), net, *did, intake, counts));
        // Whoever gives up waiting for the job ends it.
        let _stop = (job.stop.clone().drop_guard(), job.over.clone().drop_guard());
        let outcome = run(&job, &handle, plan).await;
        (report.chunks, report.bytes) = job.counts.durable_so_far();
        report.sources = job.counts.report();
        handle.brought(&report.sources);
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
