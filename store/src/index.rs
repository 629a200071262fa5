//! The index: one sled tree that says where everything in the log is. Derived, rebuildable, never flushed on the append path.
//!
//! ```text
//! key                                   value (little endian; loc = segment u32, offset u32, length u32)
//! 00                                    TAIL: see [`Tail`]
//! 'c' hash                              state u8, flags u8, reason u8, 0, lsn u64, loc, time ms u64
//! 'd' dataset, index u32 BE             log key, seq u64 BE
//! 'e' log key, seq u64 BE               lsn u64, loc, first 16 bytes of BLAKE3(entry)
//! 'n' counter name                      lsn u64, loc, value u64
//! 'r' table u8, key                     lsn u64, loc, 0 | 1, value (when 1: small enough to stand here)
//! 'v' log key, seq u64 BE, lsn u64 BE   as 'e': entries that a truncation removed
//! 'x' hash                              log key, seq u64 BE: the entry that announces a chunk
//! ```
//!
//! TAIL carries the number of rows and a 128-bit sum of their hashes, and changes in the same sled batch as the rows. After
//! any stop the rows are counted and summed again: an index that lost, kept back or resurrected a single row does not match
//! and is rebuilt. (A count per segment, kept in rows of its own, can go missing together with what it counts.)

use std::{
    collections::{BTreeMap, HashMap},
    fs::{File, TryLockError},
    panic::{AssertUnwindSafe, catch_unwind},
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use tributary_protocol::ids::{Hash, LogKey};

use crate::{
    error::StoreError,
    frame::{CHUNK_BODY_AT, Reader},
    options::Reason,
};

pub(crate) const TAIL_KEY: &[u8] = &[0];

/// A row value up to this length is kept in the index itself.
pub(crate) const INLINE: usize = 256;

/// Where a frame is. For a chunk `len` is that of its body, otherwise of the whole frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Loc {
    pub(crate) segment: u32,
    pub(crate) offset: u32,
    pub(crate) len: u32,
}

impl Loc {
    fn put(self, out: &mut Vec<u8>) {
        for number in [self.segment, self.offset, self.len] {
            out.extend_from_slice(&number.to_le_bytes());
        }
    }

    fn read(read: &mut Reader<'_>) -> Option<Self> {
        Some(Self { segment: read.u32()?, offset: read.u32()?, len: read.u32()? })
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct ChunkRow {
    /// `None`: present.
    pub(crate) tombstone: Option<Reason>,
    pub(crate) released: bool,
    pub(crate) lsn: u64,
    pub(crate) loc: Loc,
    pub(crate) time_ms: u64,
}

impl ChunkRow {
    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(32);
        out.extend_from_slice(&[
            1 + u8::from(self.tombstone.is_some()),
            u8::from(self.released),
            self.tombstone.map_or(0, |reason| reason as u8),
            0,
        ]);
        out.extend_from_slice(&self.lsn.to_le_bytes());
        self.loc.put(&mut out);
        out.extend_from_slice(&self.time_ms.to_le_bytes());
        out
    }

    pub(crate) fn decode(value: &[u8]) -> Option<Self> {
        let mut read = Reader(value);
        let [state, flags, reason, _] = read.array()?;
        let tombstone = match state {
            1 => None,
            2 => Some(Reason::from_u8(reason)?),
            _ => return None,
        };
        let (lsn, loc) = (read.u64()?, Loc::read(&mut read)?);
        Some(Self { tombstone, released: flags & 1 != 0, lsn, loc, time_ms: read.u64()? })
    }

    pub(crate) fn body_offset(&self) -> u64 {
        u64::from(self.loc.offset) + u64::from(CHUNK_BODY_AT)
    }
}

/// `'e'`, `'v'`, and the front of `'n'` and `'r'` rows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct PlaceRow<'a> {
    pub(crate) lsn: u64,
    pub(crate) loc: Loc,
    pub(crate) rest: &'a [u8],
}

impl<'a> PlaceRow<'a> {
    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(20 + self.rest.len());
        out.extend_from_slice(&self.lsn.to_le_bytes());
        self.loc.put(&mut out);
        out.extend_from_slice(self.rest);
        out
    }

    pub(crate) fn decode(value: &'a [u8]) -> Option<Self> {
        let mut read = Reader(value);
        Some(Self { lsn: read.u64()?, loc: Loc::read(&mut read)?, rest: read.0 })
    }
}

pub(crate) fn chunk_key(hash: &Hash) -> Vec<u8> {
    [b"c", hash.as_bytes().as_slice()].concat()
}

pub(crate) fn announced_key(hash: &Hash) -> Vec<u8> {
    [b"x", hash.as_bytes().as_slice()].concat()
}

pub(crate) fn log_prefix(tag: u8, log: &LogKey) -> Vec<u8> {
    [&[tag], log.to_bytes().as_slice()].concat()
}

pub(crate) fn entry_key(log: &LogKey, seq: u64) -> Vec<u8> {
    [b"e", log.to_bytes().as_slice(), &seq.to_be_bytes()].concat()
}

pub(crate) fn row_key(table: u8, key: &[u8]) -> Vec<u8> {
    [&[b'r', table], key].concat()
}

pub(crate) fn counter_key(name: &[u8]) -> Vec<u8> {
    [b"n", name].concat()
}

pub(crate) fn dataset_key(dataset: &[u8; 32], index: u32) -> Vec<u8> {
    [b"d", dataset.as_slice(), &index.to_be_bytes()].concat()
}

/// The log key and sequence number in a `'d'` or `'x'` value, or behind the tag of an `'e'` key.
pub(crate) fn place_of(bytes: &[u8]) -> Option<(LogKey, u64)> {
    let mut read = Reader(bytes);
    Some((read.log()?, u64::from_be_bytes(read.array()?)))
}

pub(crate) fn place_bytes(log: &LogKey, seq: u64) -> Vec<u8> {
    [log.to_bytes().as_slice(), &seq.to_be_bytes()].concat()
}

/// The frame a row stands for, and whether that is a chunk body.
pub(crate) fn row_loc(key: &[u8], value: &[u8]) -> Option<(Loc, bool)> {
    match key.first()? {
        b'c' => ChunkRow::decode(value).map(|row| (row.loc, row.tombstone.is_none())),
        b'e' | b'v' | b'r' | b'n' => PlaceRow::decode(value).map(|row| (row.loc, false)),
        _ => None,
    }
}

/// The same row with its frame elsewhere.
pub(crate) fn with_loc(key: &[u8], value: &[u8], loc: Loc) -> Option<Vec<u8>> {
    match key.first()? {
        b'c' => ChunkRow::decode(value).map(|row| ChunkRow { loc, ..row }.encode()),
        _ => PlaceRow::decode(value).map(|row| PlaceRow { loc, ..row }.encode()),
    }
}

/// Number and hash sum of all rows but TAIL.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Fingerprint {
    pub(crate) rows: u64,
    pub(crate) sum: u128,
}

impl Fingerprint {
    fn of(key: &[u8], value: &[u8]) -> u128 {
        let mut hasher = blake3::Hasher::new();
        hasher.update(&(key.len() as u64).to_le_bytes()).update(key).update(value);
        let mut sum = [0; 16];
        sum.copy_from_slice(&hasher.finalize().as_bytes()[..16]);
        u128::from_le_bytes(sum)
    }

    pub(crate) fn add(&mut self, key: &[u8], value: &[u8]) {
        self.rows = self.rows.wrapping_add(1);
        self.sum = self.sum.wrapping_add(Self::of(key, value));
    }

    fn remove(&mut self, key: &[u8], value: &[u8]) {
        self.rows = self.rows.wrapping_sub(1);
        self.sum = self.sum.wrapping_sub(Self::of(key, value));
    }
}

/// How far the index has come: everything in the log up to `lsn`, which stands before these two positions.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Tail {
    pub(crate) lsn: u64,
    pub(crate) chunk: (u32, u32),
    pub(crate) state: (u32, u32),
    pub(crate) print: Fingerprint,
}

impl Tail {
    /// `lsn u64, chunk segment u32, offset u32, state segment u32, offset u32, rows u64, sum u128`, little endian.
    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(48);
        out.extend_from_slice(&self.lsn.to_le_bytes());
        for number in [self.chunk.0, self.chunk.1, self.state.0, self.state.1] {
            out.extend_from_slice(&number.to_le_bytes());
        }
        out.extend_from_slice(&self.print.rows.to_le_bytes());
        out.extend_from_slice(&self.print.sum.to_le_bytes());
        out
    }

    pub(crate) fn decode(value: &[u8]) -> Option<Self> {
        let mut read = Reader(value);
        let tail = Self {
            lsn: read.u64()?,
            chunk: (read.u32()?, read.u32()?),
            state: (read.u32()?, read.u32()?),
            print: Fingerprint { rows: read.u64()?, sum: u128::from_le_bytes(read.array()?) },
        };
        read.0.is_empty().then_some(tail)
    }
}

/// What a segment still holds that counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Live {
    pub(crate) bodies: i64,
    pub(crate) body_bytes: i64,
    pub(crate) state_bytes: i64,
}

impl Live {
    pub(crate) fn merge(&mut self, other: Self) {
        self.bodies += other.bodies;
        self.body_bytes += other.body_bytes;
        self.state_bytes += other.state_bytes;
    }
}

/// Counts over the whole store, and per segment.
#[derive(Debug, Clone, Default)]
pub(crate) struct Totals {
    pub(crate) segments: HashMap<u32, Live>,
    /// Rows by tag: chunks present, tombstones, entries, evidence, rows, counters.
    pub(crate) kinds: BTreeMap<u8, i64>,
}

/// The tag under which tombstoned `'c'` rows are counted.
pub(crate) const TOMBSTONES: u8 = b't';

impl Totals {
    pub(crate) fn count(&mut self, key: &[u8], value: &[u8], sign: i64) {
        let Some(&tag) = key.first() else { return };
        let Some((loc, body)) = row_loc(key, value) else {
            *self.kinds.entry(tag).or_default() += sign;
            return;
        };
        let kind = if tag == b'c' && !body { TOMBSTONES } else { tag };
        *self.kinds.entry(kind).or_default() += sign;
        let live = self.segments.entry(loc.segment).or_default();
        let bytes = sign * i64::from(loc.len);
        if body {
            live.merge(Live { bodies: sign, body_bytes: bytes, state_bytes: 0 });
        } else {
            live.state_bytes += bytes;
        }
    }

    pub(crate) fn merge(&mut self, other: &Self) {
        for (segment, live) in &other.segments {
            self.segments.entry(*segment).or_default().merge(*live);
        }
        for (kind, count) in &other.kinds {
            *self.kinds.entry(*kind).or_default() += count;
        }
    }

    pub(crate) fn body_bytes(&self) -> u64 {
        let sum: i64 = self.segments.values().map(|live| live.body_bytes).sum();
        u64::try_from(sum).unwrap_or(0)
    }

    pub(crate) fn kind(&self, kind: u8) -> u64 {
        self.kinds.get(&kind).copied().and_then(|count| u64::try_from(count).ok()).unwrap_or(0)
    }
}

/// Key and value.
pub(crate) type OwnedRow = (Vec<u8>, Vec<u8>);

/// The sled database, every call guarded: sled 0.34 answers some damage with a panic.
#[derive(Clone)]
pub(crate) struct Index {
    db: sled::Db,
    path: Arc<PathBuf>,
}

/// Why an index could not be used.
#[derive(Debug)]
pub(crate) enum IndexError {
    /// Damaged: corruption reported, or a panic. Rebuilding from the log helps.
    Damaged(String),
    /// An I/O error (a lock, a full disk). Rebuilding would destroy a good index for nothing.
    Io(Arc<std::io::Error>),
}

impl IndexError {
    pub(crate) fn into_store(self, path: &Path) -> StoreError {
        match self {
            Self::Damaged(reason) => StoreError::Index { reason },
            Self::Io(source) => {
                if matches!(source.kind(), std::io::ErrorKind::StorageFull | std::io::ErrorKind::QuotaExceeded) {
                    return StoreError::DiskFull { path: path.to_owned(), needed: 0 };
                }
                StoreError::Io { action: "use the index", path: path.to_owned(), source }
            }
        }
    }
}

fn guard<T>(run: impl FnOnce() -> sled::Result<T>) -> Result<T, IndexError> {
    match catch_unwind(AssertUnwindSafe(run)) {
        Ok(Ok(value)) => Ok(value),
        Ok(Err(sled::Error::Io(source))) => Err(IndexError::Io(Arc::new(source))),
        Ok(Err(error)) => Err(IndexError::Damaged(error.to_string())),
        Err(panic) => {
            let text = panic
                .downcast_ref::<&str>()
                .map(|text| (*text).to_owned())
                .or_else(|| panic.downcast_ref::<String>().cloned());
            Err(IndexError::Damaged(format!("sled panicked: {}", text.as_deref().unwrap_or("no message"))))
        }
    }
}

/// Waits for an index that this process has just closed: sled's own threads may hold its file, and the lock on it, for some
/// milliseconds after the last handle is gone. If it is held by anybody else, opening will say so.
fn wait_until_released(file: &Path) {
    const STEP: Duration = Duration::from_millis(5);
    const STEPS: u32 = 400;
    for _ in 0..STEPS {
        // Closing the file gives the lock back at once.
        match File::open(file).map(|file| file.try_lock()) {
            Ok(Err(TryLockError::WouldBlock)) => std::thread::sleep(STEP),
            _ => return,
        }
    }
}

impl Index {
    /// Opens the index. The caller holds the lock of the store.
    pub(crate) fn open(path: &Path, cache_bytes: u64) -> Result<Self, IndexError> {
        wait_until_released(&path.join("db"));
        let db = guard(|| {
            sled::Config::new()
                .path(path)
                .cache_capacity(cache_bytes)
                .mode(sled::Mode::HighThroughput)
                .flush_every_ms(Some(1000))
                .open()
        })?;
        Ok(Self { db, path: Arc::new(path.to_owned()) })
    }

    fn run<T>(&self, run: impl FnOnce(&sled::Db) -> sled::Result<T>) -> Result<T, StoreError> {
        guard(|| run(&self.db)).map_err(|error| error.into_store(&self.path))
    }

    pub(crate) fn get(&self, key: &[u8]) -> Result<Option<sled::IVec>, StoreError> {
        self.run(|db| db.get(key))
    }

    pub(crate) fn tail(&self) -> Result<Option<Tail>, StoreError> {
        Ok(self.get(TAIL_KEY)?.and_then(|value| Tail::decode(&value)))
    }

    pub(crate) fn apply(&self, batch: sled::Batch) -> Result<(), StoreError> {
        self.run(|db| db.apply_batch(batch))
    }

    /// The first `limit` rows in `range`, in order.
    pub(crate) fn range(
        &self,
        from: std::ops::Bound<Vec<u8>>,
        prefix: &[u8],
        limit: usize,
    ) -> Result<Vec<(sled::IVec, sled::IVec)>, StoreError> {
        self.run(|db| {
            let rows = db.range((from, std::ops::Bound::Unbounded));
            let mut out = Vec::new();
            for row in rows {
                let row = row?;
                if out.len() == limit || !row.0.starts_with(prefix) {
                    break;
                }
                out.push(row);
            }
            Ok(out)
        })
    }

    /// The last row under `prefix`.
    pub(crate) fn last(&self, prefix: &[u8]) -> Result<Option<(sled::IVec, sled::IVec)>, StoreError> {
        self.run(|db| db.scan_prefix(prefix).next_back().transpose())
    }

    /// The first row after `key`.
    pub(crate) fn after(&self, key: Vec<u8>) -> Result<Option<(sled::IVec, sled::IVec)>, StoreError> {
        self.run(|db| db.range((std::ops::Bound::Excluded(key), std::ops::Bound::Unbounded)).next().transpose())
    }

    /// Visits every row under `prefix`; stops when `visit` says `false`.
    pub(crate) fn scan(&self, prefix: &[u8], mut visit: impl FnMut(&[u8], &[u8]) -> bool) -> Result<(), StoreError> {
        self.run(|db| {
            for row in db.scan_prefix(prefix) {
                let (key, value) = row?;
                if !visit(&key, &value) {
                    break;
                }
            }
            Ok(())
        })
    }

    /// Writes everything to the disk. sled's own `flush` calls `sync_file_range`, which survives no power cut, so its file is
    /// synced too.
    pub(crate) fn flush(&self) -> Result<(), StoreError> {
        self.run(|db| db.flush())?;
        let file = self.path.join("db");
        File::open(&file).and_then(|file| file.sync_data()).map_err(|source| StoreError::io("sync", &file, source))
    }
}

/// Changes to the index that are not applied yet, readable as if they were.
pub(crate) struct Delta<'a> {
    index: &'a Index,
    rows: BTreeMap<Vec<u8>, Option<Vec<u8>>>,
    print: Fingerprint,
    pub(crate) totals: Totals,
}

impl<'a> Delta<'a> {
    pub(crate) fn new(index: &'a Index, print: Fingerprint) -> Self {
        Self { index, rows: BTreeMap::new(), print, totals: Totals::default() }
    }

    pub(crate) fn len(&self) -> usize {
        self.rows.len()
    }

    pub(crate) fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, StoreError> {
        if let Some(value) = self.rows.get(key) {
            return Ok(value.clone());
        }
        Ok(self.index.get(key)?.map(|value| value.to_vec()))
    }

    pub(crate) fn put(&mut self, key: Vec<u8>, value: Vec<u8>) -> Result<(), StoreError> {
        self.forget(&key)?;
        self.print.add(&key, &value);
        self.totals.count(&key, &value, 1);
        self.rows.insert(key, Some(value));
        Ok(())
    }

    pub(crate) fn delete(&mut self, key: Vec<u8>) -> Result<(), StoreError> {
        if self.forget(&key)? {
            self.rows.insert(key, None);
        }
        Ok(())
    }

    fn forget(&mut self, key: &[u8]) -> Result<bool, StoreError> {
        let old = self.get(key)?;
        if let Some(old) = &old {
            self.print.remove(key, old);
            self.totals.count(key, old, -1);
        }
        Ok(old.is_some())
    }

    /// Rows under `prefix` from `from` on, merged with the changes.
    pub(crate) fn rows_from(&self, prefix: &[u8], from: Vec<u8>) -> Result<Vec<OwnedRow>, StoreError> {
        let mut out: BTreeMap<Vec<u8>, Option<Vec<u8>>> = self
            .index
            .range(std::ops::Bound::Included(from.clone()), prefix, usize::MAX)?
            .into_iter()
            .map(|(key, value)| (key.to_vec(), Some(value.to_vec())))
            .collect();
        for (key, value) in self.rows.range(from..).take_while(|(key, _)| key.starts_with(prefix)) {
            out.insert(key.clone(), value.clone());
        }
        Ok(out.into_iter().filter_map(|(key, value)| Some((key, value?))).collect())
    }

    /// The sled batch alone, and what the rows then sum up to.
    pub(crate) fn finish_without_tail(self) -> (sled::Batch, Fingerprint) {
        let mut batch = sled::Batch::default();
        for (key, value) in self.rows {
            match value {
                Some(value) => batch.insert(key, value),
                None => batch.remove(key),
            }
        }
        (batch, self.print)
    }

    /// The sled batch and the TAIL it makes true. `tail.print` is filled in.
    pub(crate) fn finish(mut self, mut tail: Tail) -> (sled::Batch, Tail, Totals) {
        let totals = std::mem::take(&mut self.totals);
        let (mut batch, print) = self.finish_without_tail();
        tail.print = print;
        batch.insert(TAIL_KEY, tail.encode());
        (batch, tail, totals)
    }
}
