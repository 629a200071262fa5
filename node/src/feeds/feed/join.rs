//! Following that begins behind the start of a log: where it began, kept with the feed, and going back from there.
//!
//! The machine log is always followed from its start: it names keys, streams and datasets, and has one entry per dataset.
//! What can be joined later are the logs of the streams.

use serde::{Deserialize, Serialize};
use tributary_protocol::{
    entry::{EntryBody, SignedEntry, SignedHead},
    feed::{JoinError, LogTip, Truncated},
    ids::{DatasetId, Did, Hash, LogId, LogKey},
};
use tributary_store::{Store, WriteBatch};

use super::{super::error::FeedsError, Feed, FollowRow, decode_stored, index_of, put_row};

/// From where the streams of a machine are followed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum JoinPoint {
    /// Everything there is.
    #[default]
    Start,
    /// What is announced from now on: each stream from the start of the dataset that is being written, so that every dataset
    /// that comes is whole.
    Now,
    /// From this dataset on: its stream from its first chunk, the other streams from the first dataset that was closed after it.
    Dataset(DatasetId),
}

impl std::fmt::Display for JoinPoint {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Start => f.write_str("start"),
            Self::Now => f.write_str("now"),
            Self::Dataset(dataset) => write!(f, "dataset:{dataset}"),
        }
    }
}

impl std::str::FromStr for JoinPoint {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        const FORM: &str = "expected start, now, or dataset: and the 64 hex digits of a closed dataset";
        match text {
            "start" => Ok(Self::Start),
            "now" => Ok(Self::Now),
            _ => text.strip_prefix("dataset:").and_then(|id| id.parse().ok()).map(Self::Dataset).ok_or(FORM),
        }
    }
}

/// A log that was joined behind a head. Until an entry of it is stored, nothing else says where.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(in crate::feeds) struct Joined {
    log: LogId,
    incarnation: u32,
    /// The first position that is followed.
    start: u64,
    /// Hash of the entry before it.
    prev: Hash,
}

impl Joined {
    /// The tip of the log while nothing of it is stored.
    fn tip(&self, did: Did) -> LogTip {
        let Self { log, incarnation, start, prev } = *self;
        let log = LogKey { did, log, incarnation };
        LogTip { log, start, start_prev: prev, next: start, hash: prev, time_ms: 0 }
    }

    fn is(&self, log: &LogKey) -> bool {
        (self.log, self.incarnation) == (log.log, log.incarnation)
    }
}

/// Where the logs of a machine stand, as far as they are stored or were joined.
pub(super) fn stored_tips(store: &Store, did: Did, row: &FollowRow) -> Result<Vec<LogTip>, FeedsError> {
    let mut tips = Vec::new();
    for log in store.logs(Some(&did))? {
        let first = store.log(&log, ..).next().transpose()?.map(|entry| entry.bytes);
        let last = store.head(&log)?.map(|(_, bytes)| bytes);
        if let (Some(first), Some(last)) = (first, last) {
            tips.push(LogTip::of(&decode_stored(&first)?, &decode_stored(&last)?));
        }
    }
    for joined in &row.joined {
        let tip = joined.tip(did);
        if !tips.iter().any(|known| known.log == tip.log) {
            tips.push(tip);
        }
    }
    Ok(tips)
}

/// The row without the joined logs that were cut away.
pub(super) fn without(row: &FollowRow, cuts: &[Truncated]) -> Option<FollowRow> {
    let gone = |joined: &Joined| cuts.iter().any(|cut| joined.is(&cut.log) && cut.from_seq <= joined.start);
    row.joined.iter().any(gone).then(|| {
        let mut row = row.clone();
        row.joined.retain(|joined| !gone(joined));
        row
    })
}

impl Feed {
    /// Whether a log is one to begin with where [`FollowRow::from`] says, not at its start.
    pub(in crate::feeds) fn must_join(&self, log: &LogKey) -> bool {
        let later = self.row.joining && self.row.from != JoinPoint::Start && log.log != LogId::MACHINE;
        later && self.follower.tip(&log.log, log.incarnation).is_none()
    }

    /// Begins to follow a log behind a head.
    pub(in crate::feeds) fn join_after(&mut self, head: &SignedHead) -> Result<Result<(), JoinError>, FeedsError> {
        if let Err(error) = self.follower.join_after(head) {
            return Ok(Err(error));
        }
        let key = head.head().key();
        let mut row = self.row.clone();
        row.joined.retain(|joined| !joined.is(&key));
        if let Some(tip) = self.follower.tip(&key.log, key.incarnation) {
            let LogTip { start, start_prev: prev, .. } = tip;
            row.joined.push(Joined { log: key.log, incarnation: key.incarnation, start, prev });
        }
        let mut batch = WriteBatch::new();
        put_row(&mut batch, &self.did, &row)?;
        self.commit(batch)?;
        self.row = row;
        Ok(Ok(()))
    }

    /// Begins to follow a log with this entry.
    pub(in crate::feeds) fn join_at(&mut self, first: &SignedEntry) -> Result<Result<(), JoinError>, FeedsError> {
        if !matches!(first.entry().body, EntryBody::Chunk(_)) {
            return Ok(Err(JoinError::NotProven));
        }
        if let Err(error) = self.follower.join_at(first) {
            return Ok(Err(error));
        }
        let mut batch = WriteBatch::new();
        let entry = first.entry();
        batch.put_entry(entry.key(), entry.seq, first.bytes(), index_of(&entry.body));
        self.commit(batch)?;
        Ok(Ok(()))
    }

    /// Takes the entries right before the place where following a log began.
    pub(in crate::feeds) fn extend_back(
        &mut self,
        entries: &[SignedEntry],
    ) -> Result<Result<(), JoinError>, FeedsError> {
        if let Err(error) = self.follower.extend_back(entries) {
            return Ok(Err(error));
        }
        let mut batch = WriteBatch::new();
        for signed in entries {
            let entry = signed.entry();
            batch.put_entry(entry.key(), entry.seq, signed.bytes(), index_of(&entry.body));
        }
        self.commit(batch)?;
        Ok(Ok(()))
    }

    /// Notes that every log was joined that there was: a log that comes later begins after that.
    pub(in crate::feeds) fn all_joined(&mut self) -> Result<(), FeedsError> {
        if self.row.joining {
            self.set_row(FollowRow { joining: false, ..self.row.clone() })?;
        }
        Ok(())
    }
}
