//! Key epochs of one stream: the seeds that chunk keys come from, and the place of the next key.
//!
//! A seed lies in the store only sealed, to the machine's own encryption key; the machine log has it sealed to the owner. Both
//! are durable before the first chunk of the epoch is sealed, so no chunk is ever without somebody who can open it.

use std::sync::Arc;

use tributary_protocol::{
    entry::{EntryBody, EpochInfo, EpochName, SealedSeed},
    ids::{LogId, LogKey, StreamId},
    keys::EncryptionPublicKey,
    keytree::{ChunkKey, EpochSeed, KeyTree, Position, PositionCursor},
    record::ChunkRecord,
};
use tributary_store::{Store, StoreError, Table, WriteBatch};

use super::{
    Keys,
    machine_log::{MachineLog, MachineLogError},
};

/// Epoch numbers of one incarnation: the incarnation is the upper half, so that a restored machine never reuses one.
const PER_INCARNATION_BITS: u32 = 32;
const ROW_LEN: usize = 8 + 32 + 48;

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
    /// The stored seed does not open with this machine's encryption key.
    #[error(
        "the seed of key epoch {epoch} of stream {stream} does not open with this machine's encryption key; restore the key, or close the epoch with `tributary key rotate`"
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
    /// No such epoch in this store.
    #[error(
        "key epoch {epoch} of stream {stream} is not in this store; its seed was dropped, or another incarnation made it"
    )]
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
    store: Store,
    keys: Arc<Keys>,
    log: Arc<MachineLog>,
    stream: StreamId,
    incarnation: u32,
    current: Option<Current>,
    renew: bool,
}

impl Epochs {
    /// Goes on in the stream's last epoch of this incarnation, behind `last`, the newest chunk of its log.
    pub(crate) fn recover(
        store: Store,
        keys: Arc<Keys>,
        log: Arc<MachineLog>,
        stream: StreamId,
        last: Option<&ChunkRecord>,
    ) -> Result<Self, EpochError> {
        let incarnation = log.incarnation();
        let mut epochs = Self { store, keys, log, stream, incarnation, current: None, renew: false };
        let first = u64::from(incarnation) << PER_INCARNATION_BITS;
        let newest = seeds(&epochs.store, stream)?.into_iter().rfind(|number| *number >= first);
        if let Some(number) = newest {
            let (started_ms, seed) = load(&epochs.store, &epochs.keys, incarnation, stream, number)?;
            let tree = KeyTree::new(&seed, &stream, number);
            let last = last.filter(|record| record.epoch == number).map(|record| record.position);
            epochs.current = Some(Current { number, tree, cursor: PositionCursor::new(started_ms, last), started_ms });
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
            (self.current, self.renew) = (Some(self.begin(now_ms)?), false);
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

    fn begin(&self, now_ms: u64) -> Result<Current, EpochError> {
        let stream = self.stream;
        let first = u64::from(self.incarnation) << PER_INCARNATION_BITS;
        let number = self.current.as_ref().map_or(first, |current| current.number + 1);
        let seed = EpochSeed::generate(&mut rand::rng());
        let name = EpochName { did: self.keys.did, incarnation: self.incarnation, stream, epoch: number };
        let seal = |to: EncryptionPublicKey| {
            EpochInfo::seal(&name, now_ms, to, &seed, &mut rand::rng())
                .map_err(|error| EpochError::Seal { stream, reason: error.to_string() })
        };
        let own = seal(self.keys.encryption.public())?;
        let mut batch = WriteBatch::new();
        batch.put_row(Table::Seed, row_key(stream, number), row(&own));
        // The row and the entry are one batch: there is no epoch that only one of owner and machine can open.
        self.log.append(now_ms, EntryBody::Epoch(seal(self.keys.owner)?), batch)?;
        let tree = KeyTree::new(&seed, &stream, number);
        tracing::info!(%stream, epoch = number, "key epoch begun");
        Ok(Current { number, tree, cursor: PositionCursor::new(now_ms, None), started_ms: now_ms })
    }
}

/// The key tree of any epoch that this store has the seed of, and when it began.
pub(crate) fn tree(store: &Store, keys: &Keys, stream: StreamId, number: u64) -> Result<(u64, KeyTree), EpochError> {
    let incarnation = u32::try_from(number >> PER_INCARNATION_BITS).unwrap_or(u32::MAX);
    let (started_ms, seed) = load(store, keys, incarnation, stream, number)?;
    Ok((started_ms, KeyTree::new(&seed, &stream, number)))
}

/// The newest epoch of a stream.
pub(crate) fn newest(store: &Store, stream: StreamId) -> Result<Option<u64>, EpochError> {
    Ok(seeds(store, stream)?.pop())
}

fn load(
    store: &Store,
    keys: &Keys,
    incarnation: u32,
    stream: StreamId,
    epoch: u64,
) -> Result<(u64, EpochSeed), EpochError> {
    let row = store
        .row(Table::Seed, &row_key(stream, epoch))
        .map_err(|source| EpochError::Store { stream, source })?
        .ok_or(EpochError::Unknown { stream, epoch })?;
    let damaged = EpochError::Seed { stream, epoch };
    let Ok(row) = <&[u8; ROW_LEN]>::try_from(row.as_slice()) else { return Err(damaged) };
    let (started, rest) = row.split_first_chunk::<8>().expect("the row is 88 bytes long");
    let (enc, ciphertext) = rest.split_first_chunk::<32>().expect("80 bytes are left");
    let ciphertext = ciphertext.try_into().expect("48 bytes are left");
    let started_ms = u64::from_be_bytes(*started);
    let sealed_seed = SealedSeed { owner_enc: keys.encryption.public(), enc: *enc, ciphertext };
    let info = EpochInfo { stream, epoch, started_ms, sealed_seed };
    let seed = info.open(keys.did, incarnation, &keys.encryption).map_err(|_| damaged)?;
    Ok((started_ms, seed))
}

fn row(info: &EpochInfo) -> Vec<u8> {
    let mut row = info.started_ms.to_be_bytes().to_vec();
    row.extend_from_slice(&info.sealed_seed.enc);
    row.extend_from_slice(&info.sealed_seed.ciphertext);
    row
}

fn row_key(stream: StreamId, epoch: u64) -> Vec<u8> {
    let mut key = stream.as_bytes().to_vec();
    key.extend_from_slice(&epoch.to_be_bytes());
    key
}

/// The epochs whose seeds are here, ascending. An epoch lasts up to 30 days, so there are few.
fn seeds(store: &Store, stream: StreamId) -> Result<Vec<u64>, EpochError> {
    const PAGE: usize = 256;
    let mut found = Vec::new();
    let mut after: Option<Vec<u8>> = None;
    loop {
        let rows = store
            .rows(Table::Seed, stream.as_bytes(), after.as_deref(), PAGE)
            .map_err(|source| EpochError::Store { stream, source })?;
        let full = rows.len() == PAGE;
        for (key, _) in rows {
            if let Some(number) = key.get(32..).and_then(|n| n.try_into().ok()) {
                found.push(u64::from_be_bytes(number));
            }
            after = Some(key);
        }
        if !full {
            return Ok(found);
        }
    }
}

/// The log that a stream's chunks stand in.
pub(crate) fn stream_log(keys: &Keys, stream: StreamId, incarnation: u32) -> LogKey {
    LogKey { did: keys.did, log: LogId::from(stream), incarnation }
}
