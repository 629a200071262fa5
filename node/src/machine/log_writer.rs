//! The only writer of one log.
//!
//! A log has one writer, and the writer has one thought: the position after the last entry it signed. It goes on from what the
//! store holds, so it can be made anew at any time. It signs; storing is the caller's, who must not sign a second entry for a
//! position whose first one might have been seen: a batch that failed is offered again with the same bytes.

use std::sync::Arc;

use tributary_protocol::{
    entry::{Entry, EntryBody, SignedEntry},
    ids::{Hash, LogKey},
    keys::FeedKey,
};
use tributary_store::{Store, StoreError};

/// Why a log cannot be written.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LogError {
    /// The store cannot be read or written.
    #[error("the log {log:?} cannot be read: {source}")]
    Store {
        /// The log.
        log: LogKey,
        /// The store's reason.
        source: StoreError,
    },
    /// What the store holds as the last entry is not one.
    #[error("the last entry of log {log:?} is damaged ({reason}); run `tributary store check --repair`")]
    Damaged {
        /// The log.
        log: LogKey,
        /// What is wrong with it.
        reason: String,
    },
    /// An entry is larger than an entry may be.
    #[error("an entry for log {log:?} cannot be made: {reason}")]
    Entry {
        /// The log.
        log: LogKey,
        /// What is wrong with it.
        reason: String,
    },
}

/// Signs the entries of one log, each linked to the one before.
pub(crate) struct LogWriter {
    log: LogKey,
    feed: Arc<FeedKey>,
    next_seq: u64,
    prev: Hash,
    last_time_ms: u64,
}

impl LogWriter {
    /// Goes on behind what `store` holds. The first entry of a log names `before` as its predecessor: the head of the incarnation
    /// before, or zeros.
    pub(crate) fn recover(store: &Store, log: LogKey, feed: Arc<FeedKey>, before: Hash) -> Result<Self, LogError> {
        let Some((seq, bytes)) = store.head(&log).map_err(|source| LogError::Store { log, source })? else {
            return Ok(Self { log, feed, next_seq: 0, prev: before, last_time_ms: 0 });
        };
        let damaged = |reason: String| LogError::Damaged { log, reason };
        let head = SignedEntry::decode(&bytes).map_err(|error| damaged(error.to_string()))?;
        if head.entry().key() != log || head.entry().seq != seq {
            return Err(damaged("it is an entry of another place".to_owned()));
        }
        Ok(Self { log, feed, next_seq: seq + 1, prev: head.hash(), last_time_ms: head.entry().time_ms })
    }

    /// Which log this is.
    pub(crate) fn log(&self) -> LogKey {
        self.log
    }

    /// The position that the next entry gets.
    pub(crate) fn next_seq(&self) -> u64 {
        self.next_seq
    }

    /// Signs the next entry. Times never go back in a log, whatever the clock does.
    pub(crate) fn sign(&mut self, now_ms: u64, body: EntryBody) -> Result<SignedEntry, LogError> {
        let time_ms = now_ms.max(self.last_time_ms);
        let LogKey { did, log, incarnation } = self.log;
        let entry = Entry { did, log, incarnation, seq: self.next_seq, prev: self.prev, time_ms, body };
        let signed = SignedEntry::sign(entry, &self.feed)
            .map_err(|error| LogError::Entry { log: self.log, reason: error.to_string() })?;
        self.next_seq += 1;
        self.prev = signed.hash();
        self.last_time_ms = time_ms;
        Ok(signed)
    }
}
