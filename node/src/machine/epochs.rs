//! Key epochs of one stream: the seeds that chunk keys come from, and the place of the next key.
//!
//! A seed lies in the store only sealed, see [`super::seeds`]; the machine log has it sealed to the owner. Both are durable before
//! the first chunk of the epoch is sealed, so no chunk is ever without somebody who can open it. A machine that forgets seeds does
//! so when their epoch is over.

use std::sync::Arc;

use tributary_protocol::{
    entry::{EntryBody, EpochInfo, EpochName},
    ids::{LogId, LogKey, StreamId},
    keytree::{ChunkKey, EpochSeed, KeyTree, Position, PositionCursor},
    record::ChunkRecord,
};
use tributary_store::StoreError;

use super::{
    Keys,
    machine_log::{MachineLog, MachineLogError},
    seeds::{PER_INCARNATION_BITS, Seeds},
};

/// Why there is no key.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum EpochError {
    /// The store cannot be read or written.
    #[error("the key epoch of stream {stream} cannot be read or written: {source}")]
    Store {
        /// The stream.
        stream: StreamId,
        /// The store's reason.
        source: StoreError,
    },
    /// The epoch could not be written to the machine log.
    #[error(transparent)]
    Log(#[from] MachineLogError),
    /// The stored seed does not open with the seed key in the home: the keys were put back from a copy.
    #[error(
        "the seed of key epoch {epoch} of stream {stream} does not open with the seed key of this home; the owner can grant it: `tributary grant --owner-key FILE` in a home that follows this machine"
    )]
    Seed {
        /// The stream.
        stream: StreamId,
        /// The epoch.
        epoch: u64,
    },
    /// The owner's key cannot be sealed to.
    #[error("the seed of stream {stream} cannot be sealed: {reason}")]
    Seal {
        /// The stream.
        stream: StreamId,
        /// Why.
        reason: String,
    },
    /// The epoch is over, and its seed was forgotten.
    #[error(
        "the seed of key epoch {epoch} of stream {stream} was forgotten here when the epoch ended (forget_epochs); the owner can grant it: `tributary grant --owner-key FILE` in a home that follows this machine"
    )]
    Forgotten {
        /// The stream.
        stream: StreamId,
        /// The epoch.
        epoch: u64,
    },
    /// No such epoch in this store.
    #[error("key epoch {epoch} of stream {stream} is not in this store; another incarnation made it")]
    Unknown {
        /// The stream.
        stream: StreamId,
        /// The epoch.
        epoch: u64,
    },
}

/// The epoch in use.
struct Current {
    number: u64,
    tree: KeyTree,
    cursor: PositionCursor,
    started_ms: u64,
}

/// Gives chunk keys in order, and begins a new epoch when the old one is over.
pub(crate) struct Epochs {
    seeds: Arc<Seeds>,
    keys: Arc<Keys>,
    log: Arc<MachineLog>,
    stream: StreamId,
    incarnation: u32,
    current: Option<Current>,
    /// The newest epoch of this incarnation, which may have no keys any more.
    newest: Option<u64>,
    renew: bool,
    forget: bool,
}

impl Epochs {
    /// Goes on in the stream's last epoch of this incarnation, behind `last`, the newest chunk of its log.
    pub(crate) fn recover(
        seeds: Arc<Seeds>,
        keys: Arc<Keys>,
        log: Arc<MachineLog>,
        stream: StreamId,
        last: Option<&ChunkRecord>,
        forget: bool,
    ) -> Result<Self, EpochError> {
        let incarnation = log.incarnation();
        let first = u64::from(incarnation) << PER_INCARNATION_BITS;
        let newest = seeds.newest(stream)?.filter(|number| *number >= first);
        let mut epochs = Self { seeds, keys, log, stream, incarnation, current: None, newest, renew: false, forget };
        let Some(number) = newest else { return Ok(epochs) };
        match epochs.seeds.tree(stream, number) {
            Ok((started_ms, tree)) => {
                let last = last.filter(|record| record.epoch == number).map(|record| record.position);
                epochs.current =
                    Some(Current { number, tree, cursor: PositionCursor::new(started_ms, last), started_ms });
            }
            // It is over: the next chunk begins another.
            Err(EpochError::Forgotten { .. }) => {}
            Err(error @ EpochError::Seed { .. }) => tracing::warn!(%error, "a new key epoch begins"),
            Err(error) => return Err(error),
        }
        Ok(epochs)
    }

    /// Whether the next key needs a new epoch.
    pub(crate) fn ended(&self, now_ms: u64) -> bool {
        self.renew
            || self.current.as_ref().is_some_and(|current| Position::slot_at(current.started_ms, now_ms).is_none())
    }

    /// Lets the next key begin a new epoch.
    pub(crate) fn renew(&mut self) {
        self.renew = true;
    }

    /// Begins the first epoch, or the next one after [`Epochs::renew`], if there is none to take keys from. Waits for the disk.
    pub(crate) fn prepare(&mut self, now_ms: u64) -> Result<(), EpochError> {
        if self.renew || self.current.is_none() {
            let begun = self.begin(now_ms)?;
            (self.current, self.renew) = (Some(begun), false);
        }
        Ok(())
    }

    /// The next place and its key. Waits for the disk when an epoch begins.
    pub(crate) fn next_key(&mut self, now_ms: u64) -> Result<(Position, u64, ChunkKey), EpochError> {
        if !self.renew
            && let Some(current) = &mut self.current
            && let Ok(position) = current.cursor.next(now_ms)
        {
            return Ok((position, current.number, current.tree.chunk_key(position)));
        }
        let mut current = self.begin(now_ms)?;
        let first = Position::first_of_slot(0);
        let position = current.cursor.next(now_ms).unwrap_or(first);
        let key = current.tree.chunk_key(position);
        let number = current.number;
        (self.current, self.renew) = (Some(current), false);
        Ok((position, number, key))
    }

    fn begin(&mut self, now_ms: u64) -> Result<Current, EpochError> {
        let stream = self.stream;
        let first = u64::from(self.incarnation) << PER_INCARNATION_BITS;
        let number = self.newest.map_or(first, |newest| newest + 1);
        let seed = EpochSeed::generate(&mut rand::rng());
        let name = EpochName { did: self.keys.did, incarnation: self.incarnation, stream, epoch: number };
        let for_owner = EpochInfo::seal(&name, now_ms, self.keys.owner, &seed, &mut rand::rng())
            .map_err(|error| EpochError::Seal { stream, reason: error.to_string() })?;
        // The row and the entry are one batch: there is no epoch that only one of owner and machine can open.
        self.seeds.put(stream, number, now_ms, &seed, |batch| {
            self.log.append(now_ms, EntryBody::Epoch(for_owner), batch).map(drop).map_err(EpochError::from)
        })?;
        self.newest = Some(number);
        let tree = KeyTree::new(&seed, &stream, number);
        tracing::info!(%stream, epoch = number, "key epoch begun");
        if self.forget
            && let Err(error) = self.seeds.forget_ended(self.incarnation, now_ms)
        {
            // Tried again before long; what is published now does not depend on it.
            tracing::warn!(%error, "seeds of ended key epochs could not be forgotten yet");
        }
        Ok(Current { number, tree, cursor: PositionCursor::new(now_ms, None), started_ms: now_ms })
    }
}

/// The log that a stream's chunks stand in.
pub(crate) fn stream_log(keys: &Keys, stream: StreamId, incarnation: u32) -> LogKey {
    LogKey { did: keys.did, log: LogId::from(stream), incarnation }
}
