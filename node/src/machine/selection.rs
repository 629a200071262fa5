//! From what a buyer asks for to ranges of chunk keys.

use tributary_protocol::{
    access::{GrantRange, Range, Selection},
    dataset::DatasetEntry,
    entry::{EntryBody, SignedEntry},
    ids::{Did, LogId, LogKey, StreamId},
    keytree::{Cover, EPOCH_SLOTS, Position},
    record::ChunkRecord,
};
use tributary_store::{Store, StoreError, Table};

use super::{
    Keys,
    epochs::{EpochError, stream_log},
    seeds::Seeds,
};

/// Why a selection has no keys.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SelectionError {
    /// The store cannot be read.
    #[error("the selection cannot be looked up: {0}")]
    Store(#[from] StoreError),
    /// The key epoch cannot be read.
    #[error(transparent)]
    Epoch(#[from] EpochError),
    /// The range holds nothing.
    #[error("nothing to grant: {what}")]
    Empty {
        /// What was asked for.
        what: String,
    },
    /// The range is not a range.
    #[error("the range cannot be covered: {reason}")]
    Cover {
        /// Why.
        reason: String,
    },
}

/// The key ranges of a selection, one for each stream and epoch, in order.
pub(crate) fn resolve(
    store: &Store,
    seeds: &Seeds,
    keys: &Keys,
    incarnation: u32,
    selection: &Selection,
    now_ms: u64,
) -> Result<Vec<GrantRange>, SelectionError> {
    let mut ranges: Vec<GrantRange> = Vec::new();
    for range in selection.ranges() {
        match *range {
            Range::Dataset(id) => {
                let row = store.row(Table::Dataset, id.as_bytes())?;
                let entry = row.and_then(|row| DatasetEntry::decode(&row).ok());
                let entry = entry.ok_or_else(|| SelectionError::Empty { what: format!("no closed dataset {id}") })?;
                let DatasetEntry { stream, epoch, first_position: first, last_position: last, .. } = entry;
                ranges.push(GrantRange { stream, epoch, first, last });
            }
            Range::Positions { stream, epoch, first, last } => {
                if first > last {
                    return Err(SelectionError::Cover { reason: "it ends before it begins".to_owned() });
                }
                ranges.push(GrantRange { stream, epoch, first, last });
            }
            Range::Time { stream, from_ms, to_ms } => {
                let found = in_time(store, &keys.did, stream, from_ms, to_ms)?;
                if found.is_empty() {
                    return Err(nothing_in_time(stream));
                }
                ranges.extend(found);
            }
            Range::Live { stream, seconds } => {
                ranges.push(live(store, seeds, keys, incarnation, stream, seconds, now_ms)?)
            }
        }
    }
    Ok(ranges)
}

/// The keys of a range, as one cover.
pub(crate) fn cover(seeds: &Seeds, range: &GrantRange) -> Result<Cover, SelectionError> {
    let (_, tree) = seeds.tree(range.stream, range.epoch)?;
    tree.cover(range.first..=range.last).map_err(|error| SelectionError::Cover { reason: error.to_string() })
}

pub(crate) fn nothing_in_time(stream: StreamId) -> SelectionError {
    SelectionError::Empty { what: format!("no chunk of stream {stream} in that time") }
}

pub(crate) fn no_epoch(stream: StreamId) -> SelectionError {
    SelectionError::Empty { what: format!("stream {stream} has no key epoch yet; nothing was published") }
}

/// Runs of chunks whose packages overlap a time, by capture time, in all incarnations. A chunk is whole: it may hold packages from
/// beyond.
pub(crate) fn in_time(
    store: &Store,
    did: &Did,
    stream: StreamId,
    from_ms: u64,
    to_ms: u64,
) -> Result<Vec<GrantRange>, SelectionError> {
    let mut runs: Vec<GrantRange> = Vec::new();
    for log in store.logs(Some(did))?.into_iter().filter(|log| log.log == LogId::from(stream)) {
        let mut open = false;
        for record in records(store, &log) {
            let record = record?;
            let inside = record.time_to_ms >= from_ms && record.time_from_ms <= to_ms;
            match runs.last_mut() {
                Some(run) if inside && open && run.epoch == record.epoch => run.last = record.position,
                _ if inside => {
                    let (epoch, position) = (record.epoch, record.position);
                    runs.push(GrantRange { stream, epoch, first: position, last: position });
                }
                _ => {}
            }
            open = inside;
        }
    }
    Ok(runs)
}

/// What comes in the next `seconds`: keys of chunks that do not exist yet.
fn live(
    store: &Store,
    seeds: &Seeds,
    keys: &Keys,
    incarnation: u32,
    stream: StreamId,
    seconds: u32,
    now_ms: u64,
) -> Result<GrantRange, SelectionError> {
    let epoch = seeds.newest(stream)?.ok_or_else(|| no_epoch(stream))?;
    let (started_ms, _) = seeds.tree(stream, epoch)?;
    let newest = newest_record(store, &stream_log(keys, stream, incarnation))?;
    live_range(stream, (epoch, started_ms), newest.as_ref(), seconds, now_ms).ok_or_else(|| no_epoch(stream))
}

/// The positions of the next `seconds` in the key epoch that began at `epoch.1`; `None` when it is over.
pub(crate) fn live_range(
    stream: StreamId,
    epoch: (u64, u64),
    newest: Option<&ChunkRecord>,
    seconds: u32,
    now_ms: u64,
) -> Option<GrantRange> {
    let (epoch, started_ms) = epoch;
    let end_ms = now_ms.saturating_add(u64::from(seconds).saturating_mul(1000));
    let slot = Position::slot_at(started_ms, now_ms)?;
    let last = Position::last_of_slot(Position::slot_at(started_ms, end_ms).unwrap_or(EPOCH_SLOTS - 1));
    // From the newest chunk on: what is being written at this moment belongs to the buyer, what was before does not.
    let newest = newest.filter(|record| record.epoch == epoch);
    let first = newest.map_or(Position::first_of_slot(slot), |record| record.position);
    Some(GrantRange { stream, epoch, first, last: last.max(first) })
}

/// The newest chunk of a stream's log.
pub(crate) fn newest_record(store: &Store, log: &LogKey) -> Result<Option<ChunkRecord>, StoreError> {
    Ok(store.head(log)?.and_then(|(_, bytes)| record_of(&bytes)))
}

/// The chunk records of a log, in order.
pub(crate) fn records(store: &Store, log: &LogKey) -> impl Iterator<Item = Result<ChunkRecord, StoreError>> {
    store.log(log, ..).filter_map(|stored| stored.map(|stored| record_of(&stored.bytes)).transpose())
}

fn record_of(bytes: &[u8]) -> Option<ChunkRecord> {
    match SignedEntry::decode(bytes).ok()?.entry().body {
        EntryBody::Chunk(ref record) => Some(record.clone()),
        _ => None,
    }
}
