//! What is left of a job to pull, and who was asked for it in vain.

use std::{collections::VecDeque, sync::Arc};

use libp2p::PeerId;
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

/// A chunk that is wanted, and which providers were asked for it in vain (one bit each).
pub(super) struct Item {
    pub(super) record: ChunkRecord,
    pub(super) tried: u32,
}

/// What is left to do.
pub(super) struct Plan {
    pub(super) feeds: Feeds,
    pub(super) did: Did,
    pub(super) dataset: Option<DatasetId>,
    pub(super) intake: Arc<dyn Intake>,
    /// Stretches of logs that were not looked at yet.
    pub(super) places: VecDeque<(LogKey, u64, u64)>,
    /// Chunks that came back.
    pub(super) returned: VecDeque<Item>,
}

impl Plan {
    /// Whether one of these providers has something to do.
    pub(super) fn has_work(&self, providers: &[(PeerId, u32)]) -> bool {
        let untried = |bit: u32| self.returned.iter().any(|item| item.tried & bit == 0);
        providers.iter().any(|(_, bit)| !self.places.is_empty() || untried(*bit))
    }

    /// At most `max` chunks that the provider with this bit was not asked for. Blocks.
    pub(super) fn take(&mut self, bit: u32, max: usize) -> Result<Vec<Item>, FeedsError> {
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
            let page = self.feeds.inner.store.entries(&log, from, PAGE, PAGE_BYTES)?;
            let end = page.last().map(|entry| entry.seq);
            for entry in page {
                let decoded = decode_stored(&entry.bytes)?;
                let EntryBody::Chunk(record) = &decoded.entry().body else { continue };
                let meant = entry.seq <= last && self.dataset.is_none_or(|dataset| dataset == record.dataset);
                if meant && self.intake.wants(&self.did, record) && !self.feeds.inner.store.has_chunk(&record.hash)? {
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
