//! Files as datasets: the bytes as they are, one dataset for each file.

use std::{
    io::{self, Read},
    path::PathBuf,
    sync::{Arc, PoisonError},
};

use serde::{Deserialize, Serialize};
use tributary_protocol::{
    dataset::DatasetBuilder,
    entry::{EntryBody, SignedEntry},
    ids::{DatasetId, LogKey},
    record::ChunkRecord,
};
use tributary_store::{Store, StoreError};

use super::{
    Machine, MachineError,
    lane::{
        LaneError, close,
        committer::Committer,
        sealer::{OpenDataset, Sealer},
        slices::Slice,
        stats::LaneStats,
    },
};

/// Why a file was not published.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PublishError {
    /// The file cannot be read.
    #[error("{}: {source}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// The system's reason.
        source: io::Error,
    },
    /// The stream is not for files.
    #[error("stream {stream} carries messages; give it `mode: file`, or name another stream")]
    NotForFiles {
        /// The stream.
        stream: String,
    },
    /// The machine failed.
    #[error(transparent)]
    Machine(#[from] MachineError),
}

/// A file that is sealed, durable and announced.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Published {
    /// Its dataset.
    pub dataset: DatasetId,
    /// Bytes of the file.
    pub bytes: u64,
    /// Chunks it was cut into.
    pub chunks: u32,
}

/// A stream of files.
pub(super) struct FileStream {
    sealer: Sealer,
    committer: Committer,
    stats: Arc<LaneStats>,
    chunk_bytes: usize,
}

impl FileStream {
    pub(super) fn new(sealer: Sealer, committer: Committer, stats: Arc<LaneStats>, chunk_bytes: u32) -> Self {
        Self { sealer, committer, stats, chunk_bytes: usize::try_from(chunk_bytes).unwrap_or(usize::MAX) }
    }

    pub(super) fn renew_epoch(&mut self) {
        self.sealer.renew_epoch();
    }
}

impl Machine {
    /// Publishes what `source` holds as one dataset of the file stream `stream`. An empty file is one empty chunk, as with peaq.
    /// `progress` hears the bytes read so far.
    ///
    /// # Errors
    ///
    /// When the file cannot be read or the stream is not for files. What was sealed before stays, and its dataset is closed.
    pub fn publish(
        &self,
        stream: &str,
        source: &mut dyn Read,
        path: &std::path::Path,
        mut progress: impl FnMut(u64),
    ) -> Result<Published, PublishError> {
        let found = self.named(Some(stream))?;
        let Some(files) = found.first().and_then(|stream| stream.files()) else {
            return Err(PublishError::NotForFiles { stream: stream.to_owned() });
        };
        let failed = |source: LaneError| MachineError::Lane { stream: stream.to_owned(), source };
        let mut files = files.lock().unwrap_or_else(PoisonError::into_inner);
        let FileStream { sealer, committer, stats, chunk_bytes } = &mut *files;
        let mut total = 0u64;
        let mut broken = None;
        loop {
            let mut bytes = Vec::with_capacity(*chunk_bytes + 16);
            let limit = u64::try_from(*chunk_bytes).unwrap_or(u64::MAX);
            if let Err(source) = (&mut *source).take(limit).read_to_end(&mut bytes) {
                broken = Some(PublishError::Read { path: path.to_owned(), source });
                break;
            }
            if bytes.is_empty() && total > 0 {
                break;
            }
            let last = bytes.len() < *chunk_bytes;
            total += bytes.len() as u64;
            stats.sliced(bytes.len());
            let slice = Slice { bytes, ..Slice::default() };
            let chunk = sealer.seal(slice, (self.clock)()).map_err(failed)?;
            committer.add(chunk).map_err(failed)?;
            progress(total);
            if last {
                break;
            }
        }
        committer.flush().map_err(failed)?;
        let Some(open) = sealer.close_dataset() else {
            return Err(broken.unwrap_or_else(|| PublishError::NotForFiles { stream: stream.to_owned() }));
        };
        let chunks = open.builder.next_index();
        let dataset = close(&self.log, &open, (self.clock)()).map_err(failed)?;
        stats.dataset_closed();
        match broken {
            Some(error) => Err(error),
            None => Ok(Published { dataset, bytes: total, chunks }),
        }
    }
}

/// Rebuilds a dataset that was never closed from the entries of its log; `newest` is its last chunk.
pub(super) fn reopen(store: &Store, log: &LogKey, newest: &ChunkRecord) -> Result<Option<OpenDataset>, StoreError> {
    let mut open: Option<OpenDataset> = None;
    let Some((head, _)) = store.head(log)? else { return Ok(None) };
    let first = head.saturating_sub(u64::from(newest.index));
    for stored in store.log(log, first..) {
        let stored = stored?;
        let Ok(signed) = SignedEntry::decode(&stored.bytes) else { return Ok(None) };
        let EntryBody::Chunk(record) = &signed.entry().body else { return Ok(None) };
        let dataset = open.get_or_insert_with(|| OpenDataset {
            builder: DatasetBuilder::new(record.stream, record.epoch, log.incarnation, first),
            opened_ms: signed.entry().time_ms,
        });
        if dataset.builder.push(stored.seq, record).is_err() {
            tracing::error!(
                ?log,
                seq = stored.seq,
                "a dataset left open cannot be closed; run `tributary store check`"
            );
            return Ok(None);
        }
    }
    Ok(open)
}
