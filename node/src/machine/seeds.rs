//! The epoch seeds of a machine as its store has them, and how they are forgotten.
//!
//! Table Seed, key `stream (32) || epoch (8, big endian)`. Value: `seed key (32) || started ms (8, big endian) || HPKE enc (32) ||
//! ciphertext (48)`, the seed sealed to the home's *seed key*; or only `started ms (8)`, when the seed was forgotten.
//!
//! A row that is deleted or written over may stay in the store's log until it is compacted, and in backups for good. So a seed is
//! forgotten by its key: every seed that is to be kept is sealed anew to the next seed key, in one batch with the marks of those
//! that are not; when that is durable, the old seed key is destroyed. A process that ends in between goes on at the next start.
//! No seed is forgotten whose epoch is not over, or that does not stand in the machine log sealed to the owner.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use tributary_protocol::{
    entry::{EntryBody, EpochInfo, EpochName, SealedSeed, SignedEntry},
    ids::{LogId, StreamId},
    keys::{EncryptionKey, EncryptionPublicKey},
    keytree::{EpochSeed, KeyTree, Position},
};
use tributary_store::{Store, StoreError, Table, WriteBatch};

use super::{Keys, epochs::EpochError};
use crate::home::{Home, HomeError, SeedKeys};

/// Epoch numbers of one incarnation: the incarnation is the upper half, so that a restored machine never reuses one.
pub(super) const PER_INCARNATION_BITS: u32 = 32;
const ROW_LEN: usize = 32 + 8 + 32 + 48;
const FORGOTTEN_LEN: usize = 8;
/// Rows read at a time.
const PAGE: usize = 256;

/// Why seeds cannot be forgotten.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ForgetError {
    /// The seed key cannot be read or replaced.
    #[error(transparent)]
    Home(#[from] HomeError),
    /// The seeds cannot be read or written.
    #[error("the epoch seeds cannot be read or written: {0}")]
    Store(#[from] StoreError),
    /// A seed cannot be sealed or opened.
    #[error(transparent)]
    Epoch(#[from] EpochError),
}

/// The seeds of one machine. The lock is held while a row is made and stored, so that none is sealed to a key that goes.
pub(crate) struct Seeds {
    store: Store,
    home: Home,
    keys: Arc<Keys>,
    state: Mutex<State>,
}

/// A row, taken apart.
enum Row {
    Kept(EpochInfo),
    Forgotten,
}

struct State {
    key: EncryptionKey,
    /// Whether the file of the seed key in use is in its place, and that of the one before destroyed.
    settled: bool,
}

impl Seeds {
    /// Reads the seed key of a home, or makes the first one, and ends a replacement that broke off.
    pub(crate) fn open(store: Store, home: &Home, keys: Arc<Keys>) -> Result<Self, ForgetError> {
        let key = match home.seed_keys(&keys.encryption)? {
            SeedKeys { current: Some(key), next: None } => key,
            SeedKeys { current: None, next: None } => {
                let key = home.stage_seed_key(&keys.encryption)?;
                home.promote_seed_key()?;
                key
            }
            SeedKeys { current, next: Some(next) } => {
                let all = rows(&store)?;
                let used = |key: &EncryptionKey| all.iter().any(|(_, _, row)| row.starts_with(key.public().as_bytes()));
                match current {
                    // The batch never became durable. Without any row that the old key opens, it did, and forgot everything.
                    Some(current) if used(&current) && !used(&next) => {
                        home.drop_next_seed_key()?;
                        current
                    }
                    _ => {
                        home.promote_seed_key()?;
                        next
                    }
                }
            }
        };
        Ok(Self { store, home: home.clone(), keys, state: Mutex::new(State { key, settled: true }) })
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn name(&self, stream: StreamId, epoch: u64) -> EpochName {
        let incarnation = u32::try_from(epoch >> PER_INCARNATION_BITS).unwrap_or(u32::MAX);
        EpochName { did: self.keys.did, incarnation, stream, epoch }
    }

    /// Adds the seed of a new epoch to a batch, which `commit` makes durable.
    pub(crate) fn put<E: From<EpochError>>(
        &self,
        stream: StreamId,
        epoch: u64,
        started_ms: u64,
        seed: &EpochSeed,
        commit: impl FnOnce(WriteBatch) -> Result<(), E>,
    ) -> Result<(), E> {
        let state = self.state();
        let mut batch = WriteBatch::new();
        batch.put_row(Table::Seed, row_key(stream, epoch), self.row(&state.key, stream, epoch, started_ms, seed)?);
        commit(batch)
    }

    fn row(
        &self,
        key: &EncryptionKey,
        stream: StreamId,
        epoch: u64,
        started_ms: u64,
        seed: &EpochSeed,
    ) -> Result<Vec<u8>, EpochError> {
        let name = self.name(stream, epoch);
        let info = EpochInfo::seal(&name, started_ms, key.public(), seed, &mut rand::rng())
            .map_err(|error| EpochError::Seal { stream, reason: error.to_string() })?;
        let mut row = key.public().as_bytes().to_vec();
        row.extend_from_slice(&started_ms.to_be_bytes());
        row.extend_from_slice(&info.sealed_seed.enc);
        row.extend_from_slice(&info.sealed_seed.ciphertext);
        Ok(row)
    }

    /// When an epoch began, and its seed.
    pub(crate) fn load(&self, stream: StreamId, epoch: u64) -> Result<(u64, EpochSeed), EpochError> {
        let row = self
            .store
            .row(Table::Seed, &row_key(stream, epoch))
            .map_err(|source| EpochError::Store { stream, source })?
            .ok_or(EpochError::Unknown { stream, epoch })?;
        self.open_row(&self.state().key, stream, epoch, &row)
    }

    fn open_row(
        &self,
        key: &EncryptionKey,
        stream: StreamId,
        epoch: u64,
        row: &[u8],
    ) -> Result<(u64, EpochSeed), EpochError> {
        match parse(stream, epoch, row) {
            None => Err(EpochError::Seed { stream, epoch }),
            Some(Row::Forgotten) => Err(EpochError::Forgotten { stream, epoch }),
            Some(Row::Kept(info)) => {
                let name = self.name(stream, epoch);
                let seed = info.open(name.did, name.incarnation, key);
                Ok((info.started_ms, seed.map_err(|_| EpochError::Seed { stream, epoch })?))
            }
        }
    }

    /// The key tree of an epoch, and when it began.
    pub(crate) fn tree(&self, stream: StreamId, epoch: u64) -> Result<(u64, KeyTree), EpochError> {
        let (started_ms, seed) = self.load(stream, epoch)?;
        Ok((started_ms, KeyTree::new(&seed, &stream, epoch)))
    }

    /// The newest epoch of a stream, whether its seed is still there or not.
    pub(crate) fn newest(&self, stream: StreamId) -> Result<Option<u64>, EpochError> {
        let all = rows_of(&self.store, stream.as_bytes()).map_err(|source| EpochError::Store { stream, source })?;
        Ok(all.last().map(|(_, epoch, _)| *epoch))
    }

    /// Forgets the seeds of epochs that are over, in `incarnation` and before. Returns how many those are.
    ///
    /// An epoch is over when a newer one of its stream or its incarnation has begun, or its time has passed.
    pub(crate) fn forget_ended(&self, incarnation: u32, now_ms: u64) -> Result<u64, ForgetError> {
        let mut state = self.state();
        if !state.settled {
            // The next seed key must not be written over the file of the one that is in use.
            self.home.promote_seed_key()?;
            state.settled = true;
        }
        let all = rows(&self.store)?;
        let mut newest: BTreeMap<StreamId, u64> = BTreeMap::new();
        for (stream, epoch, _) in &all {
            newest.insert(*stream, *epoch);
        }
        let over = |stream: &StreamId, epoch: u64, started_ms: u64| {
            newest.get(stream).is_some_and(|newest| epoch < *newest)
                || epoch >> PER_INCARNATION_BITS < u64::from(incarnation)
                || Position::slot_at(started_ms, now_ms).is_none()
        };
        let mut goes: BTreeMap<(StreamId, u64), u64> = BTreeMap::new();
        for (stream, epoch, row) in &all {
            if let Some(Row::Kept(info)) = parse(*stream, *epoch, row)
                && over(stream, *epoch, info.started_ms)
            {
                goes.insert((*stream, *epoch), info.started_ms);
            }
        }
        if goes.is_empty() {
            return Ok(0);
        }
        let published = self.published()?;
        goes.retain(|name, _| published.contains(name));
        if goes.is_empty() {
            return Ok(0);
        }
        let next = self.home.stage_seed_key(&self.keys.encryption)?;
        let mut batch = WriteBatch::new();
        for (stream, epoch, row) in &all {
            if let Some(started_ms) = goes.get(&(*stream, *epoch)) {
                batch.put_row(Table::Seed, row_key(*stream, *epoch), started_ms.to_be_bytes().to_vec());
                continue;
            }
            // What does not open now will not open later either, and stays as it is.
            if let Ok((started_ms, seed)) = self.open_row(&state.key, *stream, *epoch, row) {
                let sealed = self.row(&next, *stream, *epoch, started_ms, &seed)?;
                batch.put_row(Table::Seed, row_key(*stream, *epoch), sealed);
            }
        }
        self.store.commit(batch)?;
        *state = State { key: next, settled: false };
        self.home.promote_seed_key()?;
        state.settled = true;
        tracing::info!(epochs = goes.len(), "seeds of ended key epochs were forgotten; only the owner opens them");
        Ok(goes.len() as u64)
    }

    /// The epochs whose seeds stand in the machine's logs, sealed to its owner.
    fn published(&self) -> Result<BTreeSet<(StreamId, u64)>, StoreError> {
        let mut published = BTreeSet::new();
        for log in self.store.logs(Some(&self.keys.did))?.into_iter().filter(|log| log.log == LogId::MACHINE) {
            for stored in self.store.log(&log, ..) {
                let Ok(signed) = SignedEntry::decode(&stored?.bytes) else { continue };
                if let EntryBody::Epoch(info) = &signed.entry().body
                    && info.sealed_seed.owner_enc == self.keys.owner
                {
                    published.insert((info.stream, info.epoch));
                }
            }
        }
        Ok(published)
    }
}

fn parse(stream: StreamId, epoch: u64, row: &[u8]) -> Option<Row> {
    if row.len() == FORGOTTEN_LEN {
        return Some(Row::Forgotten);
    }
    let row: &[u8; ROW_LEN] = row.try_into().ok()?;
    let (owner_enc, rest) = row.split_first_chunk::<32>()?;
    let (started, rest) = rest.split_first_chunk::<8>()?;
    let (enc, ciphertext) = rest.split_first_chunk::<32>()?;
    let owner_enc = EncryptionPublicKey::from_bytes(*owner_enc);
    let sealed_seed = SealedSeed { owner_enc, enc: *enc, ciphertext: ciphertext.try_into().ok()? };
    Some(Row::Kept(EpochInfo { stream, epoch, started_ms: u64::from_be_bytes(*started), sealed_seed }))
}

fn row_key(stream: StreamId, epoch: u64) -> Vec<u8> {
    let mut key = stream.as_bytes().to_vec();
    key.extend_from_slice(&epoch.to_be_bytes());
    key
}

fn rows(store: &Store) -> Result<Vec<(StreamId, u64, Vec<u8>)>, StoreError> {
    rows_of(store, &[])
}

/// Rows whose keys begin with `prefix`, ascending. An epoch lasts up to 30 days, so there are few.
fn rows_of(store: &Store, prefix: &[u8]) -> Result<Vec<(StreamId, u64, Vec<u8>)>, StoreError> {
    let mut found = Vec::new();
    let mut after: Option<Vec<u8>> = None;
    loop {
        let page = store.rows(Table::Seed, prefix, after.as_deref(), PAGE)?;
        let full = page.len() == PAGE;
        for (key, value) in page {
            if let Some((stream, epoch)) = key.split_first_chunk::<32>()
                && let Ok(epoch) = epoch.try_into()
            {
                found.push((StreamId::from_bytes(*stream), u64::from_be_bytes(epoch), value));
            }
            after = Some(key);
        }
        if !full {
            return Ok(found);
        }
    }
}

#[cfg(test)]
mod tests;
