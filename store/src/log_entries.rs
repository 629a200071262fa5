//! A log from one place to another, read page by page.

use std::ops::{Bound, RangeBounds};

use tributary_protocol::ids::LogKey;

use crate::{LogEntry, Store, StoreError};

/// Entries read at a time, at most. The first page has one and each has twice as many as the one before it: whoever wants only
/// the first entry does not pay for more.
const PAGE: usize = 256;
/// Bytes of entries read at a time, unless one alone has more.
const PAGE_BYTES: usize = 1 << 20;

/// The entries of a log in order: [`Store::log`]. Holds one page; ends with the first error.
#[derive(Debug)]
pub struct LogEntries<'a> {
    store: &'a Store,
    log: LogKey,
    /// First and last sequence number of what was not read yet.
    rest: Option<(u64, u64)>,
    /// Entries to read next.
    count: usize,
    page: std::vec::IntoIter<LogEntry>,
}

impl Store {
    /// The entries of a log with sequence numbers in `range`, oldest first. A gap in the log does not end them. Entries that are
    /// put while they are read may be among them.
    pub fn log(&self, log: &LogKey, range: impl RangeBounds<u64>) -> LogEntries<'_> {
        let first = match range.start_bound() {
            Bound::Included(first) => Some(*first),
            Bound::Excluded(before) => before.checked_add(1),
            Bound::Unbounded => Some(0),
        };
        let last = match range.end_bound() {
            Bound::Included(last) => Some(*last),
            Bound::Excluded(end) => end.checked_sub(1),
            Bound::Unbounded => Some(u64::MAX),
        };
        let rest = first.zip(last).filter(|(first, last)| first <= last);
        LogEntries { store: self, log: *log, rest, count: 1, page: Vec::new().into_iter() }
    }
}

impl Iterator for LogEntries<'_> {
    type Item = Result<LogEntry, StoreError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.page.as_slice().is_empty() {
            let (from, last) = self.rest.take()?;
            match self.store.entries(&self.log, from, self.count, PAGE_BYTES) {
                Ok(page) => {
                    let next = page.last().and_then(|entry| entry.seq.checked_add(1));
                    self.rest = next.filter(|next| *next <= last).map(|next| (next, last));
                    self.page = page.into_iter();
                    self.count = (2 * self.count).min(PAGE);
                    // A page can reach beyond the end of the range.
                    let beyond = self.page.as_slice().iter().filter(|entry| entry.seq > last).count();
                    (0..beyond).for_each(|_| drop(self.page.next_back()));
                }
                Err(error) => return Some(Err(error)),
            }
        }
        self.page.next().map(Ok)
    }
}

impl std::iter::FusedIterator for LogEntries<'_> {}
