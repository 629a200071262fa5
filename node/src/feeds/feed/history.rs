//! What is known of a machine while a batch of entries is looked at: the batch itself, in front of the store.

use std::collections::HashMap;

use tributary_protocol::{
    feed::History,
    ids::{DatasetId, Did, LogKey},
};
use tributary_store::Store;

use super::closing_entry;

/// Entries of a batch that the store does not have yet, in front of the store.
pub(super) struct Overlay<'a> {
    store: &'a Store,
    pub(super) entries: HashMap<(LogKey, u64), Vec<u8>>,
    pub(super) closed: HashMap<DatasetId, Vec<u8>>,
}

impl<'a> Overlay<'a> {
    pub(super) fn new(store: &'a Store) -> Self {
        Self { store, entries: HashMap::new(), closed: HashMap::new() }
    }
}

impl History for Overlay<'_> {
    fn entry(&self, log: &LogKey, seq: u64) -> Option<Vec<u8>> {
        match self.entries.get(&(*log, seq)) {
            Some(bytes) => Some(bytes.clone()),
            None => self.store.entry(log, seq).ok().flatten(),
        }
    }

    fn dataset_closed(&self, did: &Did, dataset: &DatasetId) -> Option<Vec<u8>> {
        match self.closed.get(dataset) {
            Some(bytes) => Some(bytes.clone()),
            None => closing_entry(self.store, did, dataset).ok().flatten(),
        }
    }
}
