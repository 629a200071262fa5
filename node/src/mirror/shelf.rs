//! How much of one feed is kept: which chunks are to be here, which are, and which go when there is no more room.
//!
//! Log entries are never touched. Of the chunks a suffix of each log is to be kept: what lies before its `front` was dropped, or is
//! never fetched, because it is too old or there is no room for it. Chunks go in the order of the times in their entries, over
//! all logs of the feed. Nothing of this is stored: at the start the logs are counted once, and the same rule finds the same
//! fronts. Blocks.
//!
//! ```text
//! log:   0 ........ front ................ pulled ............ counted ....... end
//!        not kept      here (or missing)         to be fetched      not looked at
//! ```

use std::collections::{BTreeMap, VecDeque};

use tributary_protocol::{
    entry::EntryBody,
    ids::{Did, Hash, LogId, LogKey},
    record::ChunkRecord,
};
use tributary_store::{Store, StoreError};

use crate::feeds::{FeedsError, entries};

/// Entries looked at ahead of a front.
const AHEAD: usize = 256;

/// Chunks and their ciphertext, bytes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Tally {
    pub(super) chunks: u64,
    pub(super) bytes: u64,
}

impl Tally {
    fn add(&mut self, len: u32) {
        self.chunks += 1;
        self.bytes += u64::from(len);
    }

    fn sub(&mut self, len: u32) {
        self.chunks = self.chunks.saturating_sub(1);
        self.bytes = self.bytes.saturating_sub(u64::from(len));
    }
}

/// A chunk at the front.
#[derive(Debug, Clone, Copy)]
struct Slot {
    seq: u64,
    time_ms: u64,
    hash: Hash,
    len: u32,
}

#[derive(Debug, Default)]
struct LogShelf {
    front: u64,
    pulled: u64,
    counted: u64,
    ahead: VecDeque<Slot>,
    /// The first position of which the chunk could not be had.
    hole: Option<u64>,
}

/// A stretch of a log to be fetched: from a position to another one, included.
pub(super) type Place = (LogKey, u64, u64);

/// One feed.
#[derive(Debug, Default)]
pub(super) struct Shelf {
    logs: BTreeMap<LogKey, LogShelf>,
    /// Of all entries.
    pub(super) known: Tally,
    /// From the fronts on: what is to be here.
    due: Tally,
    /// What is here of it.
    pub(super) held: Tally,
    /// Chunks that nobody had.
    pub(super) missing: u64,
    /// Chunks dropped since the start.
    pub(super) dropped: u64,
}

fn chunks(
    store: &Store,
    log: LogKey,
    range: impl std::ops::RangeBounds<u64>,
) -> impl Iterator<Item = Result<(u64, u64, ChunkRecord), FeedsError>> {
    entries(store, log, range).filter_map(|signed| match signed {
        Ok(signed) => {
            let entry = signed.entry();
            match &entry.body {
                EntryBody::Chunk(record) => Some(Ok((entry.seq, entry.time_ms, record.clone()))),
                _ => None,
            }
        }
        Err(error) => Some(Err(error)),
    })
}

impl Shelf {
    /// Looks at entries that have come since.
    pub(super) fn count(&mut self, store: &Store, did: &Did) -> Result<(), FeedsError> {
        let logs: Vec<LogKey> = store.logs(Some(did))?.into_iter().filter(|log| log.log != LogId::MACHINE).collect();
        for log in &logs {
            let end = store.head(log)?.map_or(0, |(seq, _)| seq.saturating_add(1));
            if self.logs.get(log).is_some_and(|shelf| shelf.counted > end) {
                // A binding has cut the log back: what is here is counted anew.
                *self = Self { dropped: self.dropped, ..Self::default() };
                return self.count(store, did);
            }
        }
        for log in logs {
            let shelf = self.logs.entry(log).or_default();
            for chunk in chunks(store, log, shelf.counted..) {
                let (seq, _, record) = chunk?;
                self.known.add(record.len);
                self.due.add(record.len);
                shelf.counted = seq.saturating_add(1);
            }
        }
        Ok(())
    }

    /// Bytes that are to be here.
    pub(super) fn due_bytes(&self) -> u64 {
        self.due.bytes
    }

    /// Moves the fronts over what is older than `before_ms`, and over the oldest as long as more than `most` bytes are to be here.
    /// Returns chunks to drop.
    pub(super) fn trim(&mut self, store: &Store, before_ms: u64, most: Option<u64>) -> Result<Vec<Hash>, FeedsError> {
        let mut victims = Vec::new();
        while let Some((log, time_ms)) = self.oldest(store)? {
            if time_ms >= before_ms && most.is_none_or(|most| self.due.bytes <= most) {
                break;
            }
            victims.extend(self.pass(store, &log)?);
        }
        Ok(victims)
    }

    /// The log whose front is oldest, and the time there.
    pub(super) fn oldest(&mut self, store: &Store) -> Result<Option<(LogKey, u64)>, FeedsError> {
        let mut oldest = None;
        for (log, shelf) in &mut self.logs {
            if shelf.ahead.is_empty() && shelf.front < shelf.counted {
                for chunk in chunks(store, *log, shelf.front..shelf.counted).take(AHEAD) {
                    let (seq, time_ms, record) = chunk?;
                    shelf.ahead.push_back(Slot { seq, time_ms, hash: record.hash, len: record.len });
                }
            }
            let Some(slot) = shelf.ahead.front() else { continue };
            if oldest.is_none_or(|(_, time_ms)| slot.time_ms < time_ms) {
                oldest = Some((*log, slot.time_ms));
            }
        }
        Ok(oldest)
    }

    /// Moves a front over one chunk, which is returned when it is here.
    pub(super) fn pass(&mut self, store: &Store, log: &LogKey) -> Result<Option<Hash>, StoreError> {
        let Some(shelf) = self.logs.get_mut(log) else { return Ok(None) };
        let Some(slot) = shelf.ahead.pop_front() else { return Ok(None) };
        let here = store.has_chunk(&slot.hash)?;
        shelf.front = slot.seq.saturating_add(1);
        self.due.sub(slot.len);
        if slot.seq < shelf.pulled {
            if here {
                self.held.sub(slot.len);
            } else {
                self.missing = self.missing.saturating_sub(1);
            }
        }
        self.dropped += u64::from(here);
        Ok(here.then_some(slot.hash))
    }

    /// What is to be fetched next, at most `most` positions.
    pub(super) fn places(&self, most: u64) -> Vec<Place> {
        let mut left = most;
        let mut places = Vec::new();
        for (log, shelf) in &self.logs {
            let from = shelf.pulled.max(shelf.front);
            let count = shelf.counted.saturating_sub(from).min(left);
            if count > 0 {
                places.push((*log, from, from + count - 1));
                left -= count;
            }
        }
        places
    }

    /// Notes what of these places is here. Returns chunks to drop: those that a front has passed meanwhile.
    pub(super) fn settle(&mut self, store: &Store, places: &[Place]) -> Result<Vec<Hash>, FeedsError> {
        let mut victims = Vec::new();
        for (log, from, last) in places {
            let Some(shelf) = self.logs.get_mut(log).filter(|shelf| shelf.counted > *last) else { continue };
            for chunk in chunks(store, *log, *from..=*last) {
                let (seq, _, record) = chunk?;
                let here = store.has_chunk(&record.hash)?;
                if seq < shelf.front {
                    victims.extend(here.then_some(record.hash));
                } else if here {
                    self.held.add(record.len);
                } else {
                    self.missing += 1;
                    shelf.hole.get_or_insert(seq);
                }
            }
            shelf.pulled = last.saturating_add(1);
        }
        Ok(victims)
    }

    /// Goes back to the chunks that nobody had, to fetch them again. Returns whether there are any.
    pub(super) fn go_back(&mut self, store: &Store) -> Result<bool, FeedsError> {
        let mut any = false;
        for (log, shelf) in &mut self.logs {
            let Some(hole) = shelf.hole.take().map(|hole| hole.max(shelf.front)) else { continue };
            for chunk in chunks(store, *log, hole..shelf.pulled) {
                let (_, _, record) = chunk?;
                if store.has_chunk(&record.hash)? {
                    self.held.sub(record.len);
                } else {
                    self.missing = self.missing.saturating_sub(1);
                }
            }
            any |= hole < shelf.pulled;
            shelf.pulled = shelf.pulled.min(hole);
        }
        Ok(any)
    }
}

#[cfg(test)]
mod tests;
