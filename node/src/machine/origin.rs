//! Is this home still where it was made?
//!
//! A home that was copied or restored must not go on as if it were the first: two machines that sign different entries for one
//! position look like a liar. So a home remembers where it lies (machine id, device, inode and birth of its `keys` folder) and
//! the highest entry of each log that others may have seen. The record names the very file it stands in: one that a backup
//! program put back is another file, made later, even where its folder stayed. When either no longer fits, the node may not publish in this
//! incarnation any more; a new binding, co-signed by the owner, starts the next one.
//!
//! A copy of a whole disk that keeps its machine id and inodes is not seen here. It is seen when its twin's entries arrive: a
//! node that meets an entry signed by itself that it does not hold stops publishing.

use std::{
    collections::BTreeMap,
    fs, io,
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
    time::UNIX_EPOCH,
};

use serde::{Deserialize, Serialize};
use tributary_protocol::ids::{LogId, LogKey};
use tributary_store::{RESTORED, Store, StoreError};

/// Where a home lies.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Place {
    /// What the system calls itself; empty where it has no name.
    machine_id: String,
    device: u64,
    keys: Stamp,
}

/// What tells a file or folder from another one that had its name or its number before. No tool that copies can set it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Stamp {
    inode: u64,
    /// When it was made, ns since 1970; 0 where the file system does not say.
    born_ns: u64,
}

impl Stamp {
    fn of(metadata: &fs::Metadata) -> Self {
        let born = metadata.created().ok().and_then(|time| time.duration_since(UNIX_EPOCH).ok()).unwrap_or_default();
        Self { inode: metadata.ino(), born_ns: u64::try_from(born.as_nanos()).unwrap_or(u64::MAX) }
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Record {
    version: u32,
    incarnation: u32,
    place: Place,
    /// The file that this stands in.
    file: Stamp,
    /// How often the store had been restored from a backup.
    restored: u64,
    /// Log to the number of its entries that others may have seen.
    published: BTreeMap<LogId, u64>,
}

/// Why this home must not go on in its incarnation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Displaced {
    /// The home lies elsewhere than where it was made: it was copied, or restored to another disk or machine.
    Moved,
    /// The record of what was published was put back from a copy, so the store may be as old.
    PutBack,
    /// The store holds less than was published: it was restored from a backup.
    Behind {
        /// The log.
        log: LogId,
        /// How many entries others may have seen.
        published: u64,
        /// How many the store holds.
        held: u64,
    },
    /// The store was restored from a backup, or is older than this record, or the record is gone: how much was published before
    /// is not known.
    Restored,
    /// An entry signed by this machine arrived from outside: somebody else runs with its keys.
    Twin {
        /// The log.
        log: LogKey,
        /// The position.
        seq: u64,
    },
}

impl std::fmt::Display for Displaced {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Moved => write!(f, "this home was copied or moved since it last published"),
            Self::PutBack => {
                write!(f, "files of this home were put back from a copy, and how much was published since is not known")
            }
            Self::Restored => {
                write!(f, "the store was restored from a backup, and how much was published since is not known")
            }
            Self::Behind { log, published, held } => {
                write!(
                    f,
                    "the store holds {held} entries of log {log}, but {published} were published: it was restored from an older state"
                )
            }
            Self::Twin { log, seq } => {
                write!(
                    f,
                    "an entry signed by this machine arrived that it did not make (log {}, entry {seq}): another node runs with its keys",
                    log.log
                )
            }
        }
    }
}

/// Why the origin record cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum OriginError {
    /// The file cannot be read or written.
    #[error("{}: {source}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// The system's reason.
        source: io::Error,
    },
    /// The file is not an origin record.
    #[error("{} is damaged ({source}); if this home is the only copy, remove the file and bind a new incarnation with `tributary key bind`", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        source: serde_json::Error,
    },
    /// The store cannot be read.
    #[error("cannot compare the store with what was published: {0}")]
    Store(#[from] StoreError),
}

/// The record `origin.json` of a home.
pub(crate) struct Origin {
    path: PathBuf,
    record: Record,
    /// The file that the record was read from.
    found: Stamp,
}

impl Origin {
    /// Reads the record of the home that `keys` belongs to, or makes the first one.
    ///
    /// A home without a record is new only if its store has no logs of the machine's own: `published_before` says whether it
    /// has.
    pub(crate) fn open(home: &Path, keys: &Path, published_before: bool) -> Result<Self, OriginError> {
        let path = home.join("origin.json");
        match fs::read(&path) {
            Ok(bytes) => {
                let record = serde_json::from_slice(&bytes)
                    .map_err(|source| OriginError::Damaged { path: path.clone(), source })?;
                let found = fs::metadata(&path).map_err(|source| OriginError::Io { path: path.clone(), source })?;
                Ok(Self { path, record, found: Stamp::of(&found) })
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                let place = place(keys).map_err(|source| OriginError::Io { path: keys.to_owned(), source })?;
                // Logs without a record: one restore more than the store counts, so that they never fit.
                let restored = if published_before { u64::MAX } else { 0 };
                let file = Stamp { inode: 0, born_ns: 0 };
                let record = Record { version: 1, incarnation: 0, place, file, restored, published: BTreeMap::new() };
                let mut origin = Self { path, record, found: file };
                if !published_before {
                    origin.write()?;
                }
                Ok(origin)
            }
            Err(source) => Err(OriginError::Io { path, source }),
        }
    }

    /// The incarnation that the home lives in.
    pub(crate) fn incarnation(&self) -> u32 {
        self.record.incarnation
    }

    /// Whether the home must not publish in its incarnation any more.
    pub(crate) fn displaced(
        &self,
        keys: &Path,
        store: &Store,
        key_of: impl Fn(LogId) -> LogKey,
    ) -> Result<Option<Displaced>, OriginError> {
        let now = place(keys).map_err(|source| OriginError::Io { path: keys.to_owned(), source })?;
        if now != self.record.place {
            return Ok(Some(Displaced::Moved));
        }
        if self.found != self.record.file {
            return Ok(Some(Displaced::PutBack));
        }
        if store.counter(RESTORED)? != self.record.restored {
            return Ok(Some(Displaced::Restored));
        }
        for (&log, &published) in &self.record.published {
            let held = store.head(&key_of(log))?.map_or(0, |(seq, _)| seq + 1);
            if held < published {
                return Ok(Some(Displaced::Behind { log, published, held }));
            }
        }
        Ok(None)
    }

    /// Notes that others may have seen `count` entries of `log`; written by [`Origin::save`].
    pub(crate) fn published(&mut self, log: LogId, count: u64) -> bool {
        let known = self.record.published.entry(log).or_insert(0);
        let news = count > *known;
        *known = count.max(*known);
        news
    }

    /// Makes this place, this store and `incarnation` the home's own.
    pub(crate) fn settle(&mut self, keys: &Path, store: &Store, incarnation: u32) -> Result<(), OriginError> {
        self.record.restored = store.counter(RESTORED)?;
        self.record.place = place(keys).map_err(|source| OriginError::Io { path: keys.to_owned(), source })?;
        if incarnation != self.record.incarnation {
            self.record.incarnation = incarnation;
            self.record.published.clear();
        }
        self.write()
    }

    /// Writes what [`Origin::published`] noted.
    pub(crate) fn save(&mut self) -> Result<(), OriginError> {
        self.write()
    }

    fn write(&mut self) -> Result<(), OriginError> {
        let path = self.path.clone();
        let io_error = |source| OriginError::Io { path: path.clone(), source };
        let new = self.path.with_extension("json.new");
        // A file of its own each time: what an older copy of the record says about its file is then no longer true.
        match fs::remove_file(&new) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(io_error(error)),
            _ => {}
        }
        let mut file = fs::File::create_new(&new).map_err(io_error)?;
        self.record.file = Stamp::of(&file.metadata().map_err(io_error)?);
        self.found = self.record.file;
        let text = serde_json::to_vec_pretty(&self.record)
            .map_err(|source| OriginError::Damaged { path: self.path.clone(), source })?;
        io::Write::write_all(&mut file, &text).map_err(io_error)?;
        file.sync_all().map_err(io_error)?;
        fs::rename(&new, &self.path).map_err(io_error)?;
        if let Some(folder) = self.path.parent() {
            fs::File::open(folder).and_then(|folder| folder.sync_all()).map_err(io_error)?;
        }
        Ok(())
    }
}

fn place(keys: &Path) -> io::Result<Place> {
    let folder = fs::metadata(keys)?;
    // systemd's name of the installation; absent in small containers, where device and inode have to do.
    let machine_id = fs::read_to_string("/etc/machine-id").unwrap_or_default().trim().to_owned();
    Ok(Place { machine_id, device: folder.dev(), keys: Stamp::of(&folder) })
}

#[cfg(test)]
mod tests {
    use tributary_protocol::ids::Did;
    use tributary_store::StoreOptions;

    use super::*;

    fn key(log: LogId) -> LogKey {
        LogKey { did: Did::from_bytes([1; 20]), log, incarnation: 0 }
    }

    #[test]
    fn a_copied_home_is_displaced_until_it_settles() {
        let dir = tempfile::tempdir().expect("a temporary folder");
        let (store, _) = Store::open(dir.path().join("store"), &StoreOptions::default()).expect("opens");
        let [first, copy] = ["first", "copy"].map(|name| {
            let home = dir.path().join(name);
            fs::create_dir_all(home.join("keys")).expect("made");
            home
        });
        let origin = Origin::open(&first, &first.join("keys"), false).expect("made");
        assert_eq!(origin.displaced(&first.join("keys"), &store, key).expect("read"), None);

        fs::copy(first.join("origin.json"), copy.join("origin.json")).expect("copied");
        let mut copied = Origin::open(&copy, &copy.join("keys"), true).expect("read");
        assert_eq!(copied.displaced(&copy.join("keys"), &store, key).expect("read"), Some(Displaced::Moved));
        copied.settle(&copy.join("keys"), &store, 1).expect("written");
        let settled = Origin::open(&copy, &copy.join("keys"), true).expect("read");
        assert_eq!(settled.displaced(&copy.join("keys"), &store, key).expect("read"), None);
        assert_eq!(settled.incarnation(), 1);
    }

    #[test]
    fn a_store_behind_its_own_head_is_displaced() {
        let dir = tempfile::tempdir().expect("a temporary folder");
        let (store, _) = Store::open(dir.path().join("store"), &StoreOptions::default()).expect("opens");
        let keys = dir.path().join("keys");
        fs::create_dir(&keys).expect("made");
        let mut origin = Origin::open(dir.path(), &keys, false).expect("made");
        assert!(origin.published(LogId::MACHINE, 3));
        assert!(!origin.published(LogId::MACHINE, 2));
        origin.save().expect("written");
        let origin = Origin::open(dir.path(), &keys, false).expect("read");
        let behind = Displaced::Behind { log: LogId::MACHINE, published: 3, held: 0 };
        assert_eq!(origin.displaced(&keys, &store, key).expect("read"), Some(behind));
    }

    #[test]
    fn a_record_put_back_from_a_copy_is_displaced() {
        let dir = tempfile::tempdir().expect("a temporary folder");
        let (store, _) = Store::open(dir.path().join("store"), &StoreOptions::default()).expect("opens");
        let keys = dir.path().join("keys");
        fs::create_dir(&keys).expect("made");
        let path = dir.path().join("origin.json");
        let mut origin = Origin::open(dir.path(), &keys, false).expect("made");
        let old = fs::read(&path).expect("read");
        origin.save().expect("written");
        let displaced = || {
            let origin = Origin::open(dir.path(), &keys, true).expect("read");
            origin.displaced(&keys, &store, key).expect("read")
        };
        assert_eq!(displaced(), None);
        fs::write(&path, &old).expect("over the newer one");
        assert_eq!(displaced(), Some(Displaced::PutBack));
        fs::remove_file(&path).expect("removed");
        fs::write(&path, &old).expect("as a file of its own");
        assert_eq!(displaced(), Some(Displaced::PutBack));
    }

    #[test]
    fn a_damaged_record_is_refused() {
        let dir = tempfile::tempdir().expect("a temporary folder");
        fs::write(dir.path().join("origin.json"), b"{}").expect("written");
        assert!(matches!(Origin::open(dir.path(), dir.path(), false), Err(OriginError::Damaged { .. })));
    }
}
