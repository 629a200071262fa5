//! What a follower asks its caller, and what it answers.

use super::{Evidence, MAX_LOGS};
use crate::{
    binding::chain::Accepted,
    entry::SignedEntry,
    ids::{DatasetId, Did, Hash, LogKey},
};

/// What the caller has stored of the machine.
pub trait History {
    /// The bytes of the applied entry at a position.
    fn entry(&self, log: &LogKey, seq: u64) -> Option<Vec<u8>>;
    /// The bytes of the applied entry that closed a dataset.
    fn dataset_closed(&self, did: &Did, dataset: &DatasetId) -> Option<Vec<u8>>;
}

/// What looks odd about an entry that counts all the same.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Flags {
    /// Its time is more than ten minutes ahead of our clock.
    pub ahead_of_clock: bool,
    /// Its time is before that of the entry before it.
    pub time_went_back: bool,
    /// Its time is after the end of the binding whose key signed it. The machine should have renewed it.
    pub stale_binding: bool,
    /// It closes a dataset that another entry closed before. That one counts; do not index this one.
    pub second_close: bool,
}

/// What to do with an entry.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub enum EntryVerdict {
    /// Store it, pass it on.
    Apply {
        /// Whether it is certain that it stays: not before the next pin is reached, if there is one above.
        settled: bool,
        /// What looks odd about it.
        flags: Flags,
    },
    /// It is stored already: drop it.
    Known,
    /// It is good as far as one can see. Fetch positions `from` to before `to`, then bring it again. Pass it on.
    Ahead {
        /// The first missing position.
        from: u64,
        /// Its own position.
        to: u64,
    },
    /// Its signer is not known: fetch the machine's bindings (rate-limited) and bring it again. If its body is a binding, that
    /// is a good one to begin with.
    UnknownKey,
    /// The key it names did not sign it: drop it, the sender is at fault.
    BadSignature,
    /// It proves that the machine signs two stories. Report the proof; the entry is not applied.
    Equivocation(Box<Evidence>),
    /// It contradicts entries that are not settled yet, and one of the two is a thief's. If the peer one syncs from says so
    /// consistently, [`super::Follower::abandon`] and sync from that peer.
    Forked {
        /// Up to here (exclusive) everything is certain.
        settled: u64,
    },
    /// It is on the way to the pin, and what was held below it is not: cut, then fetch from there.
    Diverged(Truncated),
    /// Noise: counted, nothing else.
    Stale(Stale),
    /// It is before the position at which following began.
    BelowStart,
    /// It is another machine's.
    WrongMachine,
    /// One log more than are followed.
    TooManyLogs,
}

/// Why an entry or head is noise.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Stale {
    /// Signed by a key of the machine that may not write there.
    RetiredKey,
    /// Not on the way to the entry that a binding names.
    OffThePin,
    /// Behind the end of a log that a later incarnation closed.
    Closed,
}

/// What to do with a head.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub enum HeadVerdict {
    /// The log is complete.
    Current,
    /// Fetch positions `from` to before `to`.
    Behind {
        /// The first missing position.
        from: u64,
        /// One behind the newest position.
        to: u64,
    },
    /// It says less than what is held.
    Old,
    /// It contradicts an entry of the same key.
    Equivocation(Box<Evidence>),
    /// Its signer is not known: fetch the machine's bindings.
    UnknownKey,
    /// The key it names did not sign it.
    BadSignature,
    /// Noise.
    Stale(Stale),
    /// It is another machine's.
    WrongMachine,
}

/// A log that was cut back: everything from `from_seq` on no longer counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Truncated {
    /// The log.
    pub log: LogKey,
    /// The first position that no longer counts.
    pub from_seq: u64,
}

/// What became of a binding.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BindingOutcome {
    /// Whether it was new.
    pub accepted: Accepted,
    /// The logs that were cut back.
    pub truncated: Vec<Truncated>,
}

/// Where a log stands: what a [`super::Follower`] is restored from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LogTip {
    /// The log.
    pub log: LogKey,
    /// The first position that was followed; 0 unless one joined later.
    pub start: u64,
    /// What the entry at `start` names as its predecessor.
    pub start_prev: Hash,
    /// The next position.
    pub next: u64,
    /// Hash of the entry at `next - 1`, or `start_prev`.
    pub hash: Hash,
    /// Time of that entry, ms since 1970; 0 if not known.
    pub time_ms: u64,
}

impl LogTip {
    /// The tip of a log of which the entries from `first` to `last` are stored.
    #[must_use]
    pub fn of(first: &SignedEntry, last: &SignedEntry) -> Self {
        Self {
            log: first.entry().key(),
            start: first.entry().seq,
            start_prev: first.entry().prev,
            next: last.entry().seq.saturating_add(1),
            hash: last.hash(),
            time_ms: last.entry().time_ms,
        }
    }
}

/// Why one cannot begin to follow a log at a position.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum JoinError {
    /// It is followed already.
    #[error("the log is followed already")]
    Followed,
    /// The signature, key or pin is not right.
    #[error(
        "this is not where the log can be joined: it is not signed by the key of that position, or off the pinned chain"
    )]
    NotProven,
    /// One log more than are followed.
    #[error("{MAX_LOGS} logs of this machine are followed, which is the limit")]
    TooManyLogs,
}
