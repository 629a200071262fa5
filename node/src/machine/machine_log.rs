//! The machine log: what a machine says about itself and its streams.
//!
//! Bindings, key epochs, streams, closed datasets and tombstones stand in one log, which every lane writes to now and then. An
//! entry is durable when [`MachineLog::append`] returns, and is announced then.

use std::sync::{Arc, Mutex, PoisonError};

use tributary_protocol::{
    entry::{EntryBody, SignedEntry},
    ids::{Hash, LogId, LogKey},
};
use tributary_store::{EntryIndex, Store, StoreError, WriteBatch};

use super::{
    Announcer, Keys,
    log_writer::{LogError, LogWriter},
};

/// Why the machine log could not be written.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum MachineLogError {
    /// The entry could not be made, or the log could not be read.
    #[error(transparent)]
    Log(#[from] LogError),
    /// The entry could not be made durable.
    #[error("the machine log cannot be written: {0}")]
    Store(#[from] StoreError),
}

/// The writer of the machine log, shared by everyone in the process.
pub(crate) struct MachineLog {
    store: Store,
    key: LogKey,
    announcer: Arc<dyn Announcer>,
    keys: Arc<Keys>,
    before: Hash,
    // Held across the sync on purpose: an entry may only be signed when the one before it is durable.
    writer: Mutex<LogWriter>,
}

impl MachineLog {
    /// Goes on behind what the store holds. `before` is what entry 0 of a new incarnation names.
    pub(crate) fn recover(
        store: Store,
        keys: Arc<Keys>,
        incarnation: u32,
        before: Hash,
        announcer: Arc<dyn Announcer>,
    ) -> Result<Self, MachineLogError> {
        let key = LogKey { did: keys.did, log: LogId::MACHINE, incarnation };
        let writer = Mutex::new(LogWriter::recover(&store, key, Arc::clone(&keys.feed), before)?);
        Ok(Self { store, key, announcer, keys, before, writer })
    }

    /// The incarnation whose log this is.
    pub(crate) fn incarnation(&self) -> u32 {
        self.key.incarnation
    }

    /// Signs an entry, makes it durable together with `batch`, and announces it.
    pub(crate) fn append(
        &self,
        now_ms: u64,
        body: EntryBody,
        mut batch: WriteBatch,
    ) -> Result<Arc<SignedEntry>, MachineLogError> {
        let mut writer = self.writer.lock().unwrap_or_else(PoisonError::into_inner);
        let entry = Arc::new(writer.sign(now_ms, body)?);
        batch.put_entry(self.key, entry.entry().seq, entry.bytes(), EntryIndex::default());
        if let Err(error) = self.store.commit(batch) {
            // Nothing of the batch is visible, to us or to anyone; the next entry takes the same place.
            *writer = LogWriter::recover(&self.store, self.key, Arc::clone(&self.keys.feed), self.before)?;
            return Err(error.into());
        }
        drop(writer);
        self.announcer.announce(&entry, None);
        Ok(entry)
    }
}
