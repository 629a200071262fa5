//! Pulling what was granted.
//!
//! Owns which chunks a buyer asks for, those whose keys are here, and what must hold before one is kept: its key commitment and
//! its authentication tag. Nothing is decrypted. How chunks come is the business of [`crate::feeds`].

use std::sync::Arc;

use serde::{Deserialize, Serialize};
use tokio::sync::mpsc;
use tributary_protocol::{
    ids::{DatasetId, Did, LogKey},
    record::ChunkRecord,
    seal,
};

use super::Buyer;
use crate::feeds::{Intake, PullJobError, PullProgress, PullSelection, Pulled, SourceCounts, blocking};

/// What a pull did.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
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
    /// Who was asked, those that brought the most first.
    #[serde(default)]
    pub sources: Vec<SourceCounts>,
}

/// Takes what the wallet has keys for.
struct Granted(Buyer);

impl Intake for Granted {
    fn wants(&self, did: &Did, record: &ChunkRecord) -> bool {
        self.0.inner.wallet.holds(did, record)
    }

    fn check(&self, did: &Did, record: &ChunkRecord, body: &[u8]) -> Result<(), PullJobError> {
        let Some(key) = self.0.key_for(did, record)? else {
            let what = format!("chunk {} of dataset {}", record.index, record.dataset);
            return Err(PullJobError::NotGranted { what });
        };
        let unreadable = |source| PullJobError::Unreadable { dataset: record.dataset, index: record.index, source };
        seal::check_readable(record, &key, body).map_err(unreadable)
    }
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
        let feeds = &self.inner.feeds;
        feeds.handle(did)?;
        let complete = feeds.complete(did, selection).await?;
        let (known, machine) = (feeds.clone(), *did);
        let places = blocking(move || known.places(&machine, selection)).await??;
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
        let granted = Arc::new(Granted(self.clone()));
        let pulled = self.feeds().pull(did, places, dataset, granted, progress).await?;
        let Pulled { chunks, bytes, skipped, unwanted: not_granted, seconds, sources } = pulled;
        if chunks == 0 && skipped == 0 && not_granted > 0 {
            return Err(PullJobError::NotGranted { what });
        }
        Ok(PullReport { chunks, bytes, skipped, not_granted, complete: false, seconds, sources })
    }
}
