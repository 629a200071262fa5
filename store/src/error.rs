//! What can go wrong in the store, one enum for all of its operations: callers decide by variant whether to wait, to free space
//! or to stop. Errors are `Clone`, because one failed group is reported to every batch in it.

use std::{
    io,
    path::{Path, PathBuf},
    sync::Arc,
};

use tributary_protocol::ids::{Hash, LogKey};

/// A failed operation of the store.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum StoreError {
    /// Another process has this store open.
    #[error("store {} is in use by {}; stop that process or use another directory", dir.display(), holder(*pid))]
    Locked {
        /// The store directory.
        dir: PathBuf,
        /// The process that holds the lock, when it could be read.
        pid: Option<u32>,
    },
    /// The directory holds something else, or a store that lost its `FORMAT` file and every segment header.
    #[error("{} is not a store: {reason}", dir.display())]
    NotAStore {
        /// The directory.
        dir: PathBuf,
        /// What was found there.
        reason: String,
    },
    /// A newer program wrote this store.
    #[error("store {} has format version {found}, this program reads up to {supported}; use a newer program", dir.display())]
    UnsupportedVersion {
        /// The store directory.
        dir: PathBuf,
        /// The version found.
        found: u16,
        /// The newest version this program reads.
        supported: u16,
    },
    /// The operating system refused a file operation.
    #[error("cannot {action} {}: {source}", path.display())]
    Io {
        /// What was tried.
        action: &'static str,
        /// On which file.
        path: PathBuf,
        /// Why it failed.
        source: Arc<io::Error>,
    },
    /// The disk has no room. Nothing acknowledged is lost; delete, then collect garbage.
    #[error("disk full: {} needs {needed} bytes more than the file system can spare; free space and retry", path.display())]
    DiskFull {
        /// The store directory.
        path: PathBuf,
        /// How many bytes the refused write needed.
        needed: u64,
    },
    /// The store's own byte quota has no room.
    #[error(
        "store quota reached: {used} of {quota} bytes used, {needed} more needed; raise the quota or collect garbage"
    )]
    QuotaExceeded {
        /// Bytes the store occupies.
        used: u64,
        /// The quota in bytes.
        quota: u64,
        /// How many bytes the refused write needed.
        needed: u64,
    },
    /// A write or sync failed before; what the disk holds is unknown until the store is opened again.
    #[error("the store stopped after a failure ({reason}); open it again to replay the log")]
    Poisoned {
        /// The first failure.
        reason: String,
    },
    /// The store was closed.
    #[error("the store is closed")]
    Closed,
    /// The write queue is full; the batch was not taken.
    #[error("the write queue is full; retry when earlier batches are done")]
    Busy,
    /// A chunk body does not have the hash it was given under.
    #[error("chunk body hashes to {actual}, but was given as {expected}")]
    HashMismatch {
        /// The hash the caller gave.
        expected: Hash,
        /// The hash of the bytes.
        actual: Hash,
    },
    /// Something exceeds the store's format limits.
    #[error("{what} has {len} bytes, at most {max} are possible")]
    TooLarge {
        /// What was too large.
        what: &'static str,
        /// Its length in bytes.
        len: u64,
        /// The limit in bytes.
        max: u64,
    },
    /// A different entry already stands at this place of the log; an entry is never overwritten (truncate first).
    #[error(
        "log {} of {} (incarnation {}) already has a different entry {seq}; truncate the log first", log.log, log.did, log.incarnation
    )]
    EntryConflict {
        /// The log.
        log: LogKey,
        /// The sequence number.
        seq: u64,
    },
    /// The index (sled) failed. The log is whole; the index is rebuilt when the store is opened again.
    #[error("the index failed ({reason}); open the store again to rebuild it from the log")]
    Index {
        /// What sled reported.
        reason: String,
    },
    /// Stored bytes do not match their checksum.
    #[error("{what} is damaged on disk; run a check with repair, then fetch it again")]
    Damaged {
        /// What is damaged.
        what: String,
    },
    /// A backup or restore cannot write where it was told to.
    #[error("{} is not empty; choose an empty or new directory", dir.display())]
    NotEmpty {
        /// The directory.
        dir: PathBuf,
    },
}

fn holder(pid: Option<u32>) -> String {
    pid.map_or_else(|| "another process".to_owned(), |pid| format!("process {pid}"))
}

impl StoreError {
    /// Whether there was no room for it, on the disk or under the quota: the same write succeeds once there is.
    #[must_use]
    pub fn is_no_room(&self) -> bool {
        matches!(self, Self::QuotaExceeded { .. } | Self::DiskFull { .. })
    }

    /// An I/O error, or [`StoreError::DiskFull`] when that is what it means.
    pub(crate) fn io(action: &'static str, path: &Path, source: io::Error) -> Self {
        if matches!(source.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded) {
            return Self::DiskFull { path: path.to_owned(), needed: 0 };
        }
        Self::Io { action, path: path.to_owned(), source: Arc::new(source) }
    }
}

/// Names the action and the file of an I/O result.
pub(crate) trait IoContext<T> {
    fn at(self, action: &'static str, path: &Path) -> Result<T, StoreError>;
}

impl<T> IoContext<T> for io::Result<T> {
    fn at(self, action: &'static str, path: &Path) -> Result<T, StoreError> {
        self.map_err(|source| StoreError::io(action, path, source))
    }
}
