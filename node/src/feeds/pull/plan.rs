//! What a job is to pull: read from the logs as the schedule has room, so that a job of any size fits.

use std::{collections::VecDeque, sync::Arc};

use tributary_protocol::{
    entry::EntryBody,
    ids::{DatasetId, Did, LogKey},
    record::ChunkRecord,
};

use super::{
    super::{
        Feeds,
        error::FeedsError,
        feed::{PAGE, PAGE_BYTES, decode_stored},
    },
    Intake,
};

/// What was not looked at yet.
pub(super) struct Plan {
    pub(super) feeds: Feeds,
    pub(super) did: Did,
    pub(super) dataset: Option<DatasetId>,
    pub(super) intake: Arc<dyn Intake>,
    /// Stretches of logs: from a position to another one, included.
    pub(super) places: VecDeque<(LogKey, u64, u64)>,
}

impl Plan {
    /// Whether there is nothing left to look at.
    pub(super) fn is_over(&self) -> bool {
        self.places.is_empty()
    }

    /// The next chunks that are wanted and not here, at least `most` less a page of entries unless there are no more. Blocks.
    pub(super) fn take(&mut self, most: usize) -> Result<Vec<Arc<ChunkRecord>>, FeedsError> {
        let mut out = Vec::new();
        while out.len() + PAGE <= most.max(PAGE)
            && let Some((log, from, last)) = self.places.front().copied()
        {
            let page = self.feeds.inner.store.entries(&log, from, PAGE, PAGE_BYTES)?;
            let end = page.last().map(|entry| entry.seq);
            for entry in page {
                let decoded = decode_stored(&entry.bytes)?;
                let EntryBody::Chunk(record) = &decoded.entry().body else { continue };
                let meant = entry.seq <= last && self.dataset.is_none_or(|dataset| dataset == record.dataset);
                if meant && self.intake.wants(&self.did, record) && !self.feeds.inner.store.has_chunk(&record.hash)? {
                    out.push(Arc::new(record.clone()));
                }
            }
            match end.and_then(|end| end.checked_add(1)).filter(|next| *next <= last) {
                Some(next) => self.places[0].1 = next,
                None => drop(self.places.pop_front()),
            }
        }
        Ok(out)
    }
}
