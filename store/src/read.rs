//! Reading. Every read takes a row of the index and one `pread`; nothing is mapped and nothing is cached here.
//!
//! Readers take no lock against garbage collection. Where a frame moved or a body was punched while it was read, what was read
//! does not pass its check; the row is then looked up again, and only an unchanged row with bad bytes is damage.

use std::ops::Bound;

use tributary_protocol::ids::{DatasetId, Did, Hash, LogKey};

use crate::{
    Store,
    apply::counter_value,
    error::StoreError,
    frame::{Change, Reader},
    index::{
        ChunkRow, Loc, PlaceRow, announced_key, chunk_key, counter_key, dataset_key, entry_key, log_prefix, place_of,
        row_key,
    },
    options::{Reason, Table},
    segment::Segment,
    shared::Shared,
};

/// Whether a chunk is there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ChunkState {
    /// Its body can be read.
    Present,
    /// It was removed on purpose.
    Tombstoned,
    /// It never came, or was found damaged.
    Absent,
}

/// One entry of a log, and where it stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogEntry {
    /// Sequence number.
    pub seq: u64,
    /// The entry as it was put.
    pub bytes: Vec<u8>,
}

/// A row's key and value.
pub type Row = (Vec<u8>, Vec<u8>);

/// A chunk of a dataset: its index there, and the entry that announces it.
pub type DatasetChunk = (u32, LogKey, u64);

/// A frame can move twice while somebody reads it, hardly more often.
const ATTEMPTS: usize = 8;

impl Store {
    fn shared(&self) -> &Shared {
        &self.inner.shared
    }

    /// The entry at a place of a log.
    ///
    /// # Errors
    /// [`StoreError::Damaged`] when its bytes are not what was written, or an I/O error.
    pub fn entry(&self, log: &LogKey, seq: u64) -> Result<Option<Vec<u8>>, StoreError> {
        self.entry_bytes(&entry_key(log, seq))
    }

    fn entry_bytes(&self, key: &[u8]) -> Result<Option<Vec<u8>>, StoreError> {
        let change = |meta: &[u8], kind| match Change::decode(kind, meta) {
            Some(Change::Entry { bytes, .. }) => Some(bytes.to_vec()),
            _ => None,
        };
        self.through_index(key, "a log entry", change)
    }

    /// Reads the frame that the row under `key` points to, again when it moved meanwhile.
    fn through_index(
        &self,
        key: &[u8],
        what: &str,
        read: impl Fn(&[u8], crate::frame::Kind) -> Option<Vec<u8>>,
    ) -> Result<Option<Vec<u8>>, StoreError> {
        let mut before: Option<Loc> = None;
        for _ in 0..ATTEMPTS {
            let Some(value) = self.shared().index.get(key)? else { return Ok(None) };
            let Some(row) = PlaceRow::decode(&value) else { break };
            if before == Some(row.loc) {
                break;
            }
            if let Some((header, meta)) = self.shared().read_frame(row.loc)?
                && let Some(bytes) = read(&meta, header.kind)
            {
                return Ok(Some(bytes));
            }
            before = Some(row.loc);
        }
        Err(StoreError::Damaged { what: what.to_owned() })
    }

    /// Entries of a log from sequence number `from` on, at most `max_count`, and no more bytes than `max_bytes` unless the
    /// first alone has more. Stops before a gap is not assumed: sequence numbers are in the result.
    ///
    /// # Errors
    /// As [`Store::entry`].
    pub fn entries(
        &self,
        log: &LogKey,
        from: u64,
        max_count: usize,
        max_bytes: usize,
    ) -> Result<Vec<LogEntry>, StoreError> {
        let mut out = Vec::new();
        let mut bytes = 0usize;
        let mut next = Bound::Included(entry_key(log, from));
        while out.len() < max_count {
            let rows = self.shared().index.range(next, &log_prefix(b'e', log), (max_count - out.len()).min(256))?;
            let Some((last, _)) = rows.last() else { break };
            next = Bound::Excluded(last.to_vec());
            for (key, _) in &rows {
                let Some((_, seq)) = place_of(&key[1..]) else { continue };
                let Some(entry) = self.entry_bytes(key)? else { continue };
                bytes = bytes.saturating_add(entry.len());
                if bytes > max_bytes && !out.is_empty() {
                    return Ok(out);
                }
                out.push(LogEntry { seq, bytes: entry });
            }
        }
        Ok(out)
    }

    /// The entry with the highest sequence number.
    ///
    /// # Errors
    /// As [`Store::entry`].
    pub fn head(&self, log: &LogKey) -> Result<Option<(u64, Vec<u8>)>, StoreError> {
        for _ in 0..ATTEMPTS {
            let Some((key, _)) = self.shared().index.last(&log_prefix(b'e', log))? else { return Ok(None) };
            let Some((_, seq)) = place_of(&key[1..]) else { break };
            if let Some(bytes) = self.entry_bytes(&key)? {
                return Ok(Some((seq, bytes)));
            }
        }
        Err(StoreError::Damaged { what: format!("the head of log {} of {}", log.log, log.did) })
    }

    /// Entries that truncations removed from a log, by sequence number, at most `limit`.
    ///
    /// # Errors
    /// As [`Store::entry`].
    pub fn evidence(&self, log: &LogKey, from: u64, limit: usize) -> Result<Vec<LogEntry>, StoreError> {
        let prefix = log_prefix(b'v', log);
        let first = [prefix.as_slice(), &from.to_be_bytes()].concat();
        let mut out = Vec::new();
        for (key, _) in self.shared().index.range(Bound::Included(first), &prefix, limit)? {
            let Some((_, seq)) = place_of(&key[1..]) else { continue };
            if let Some(bytes) = self.entry_bytes(&key)? {
                out.push(LogEntry { seq, bytes });
            }
        }
        Ok(out)
    }

    /// The logs that have entries, of one machine or of all, in key order.
    ///
    /// # Errors
    /// An error of the index.
    pub fn logs(&self, did: Option<&Did>) -> Result<Vec<LogKey>, StoreError> {
        let prefix = did.map_or_else(|| b"e".to_vec(), |did| [b"e", did.as_bytes().as_slice()].concat());
        let mut out = Vec::new();
        let mut next = self.shared().index.range(Bound::Included(prefix.clone()), &prefix, 1)?.pop();
        while let Some((key, _)) = next {
            if !key.starts_with(&prefix) {
                break;
            }
            let Some((log, _)) = place_of(&key[1..]) else { break };
            out.push(log);
            next = self.shared().index.after(entry_key(&log, u64::MAX))?;
        }
        Ok(out)
    }

    /// A chunk's body, hashed.
    ///
    /// # Errors
    /// [`StoreError::Damaged`] when the bytes do not have the hash, or an I/O error.
    pub fn chunk(&self, hash: &Hash) -> Result<Option<Vec<u8>>, StoreError> {
        let mut body = Vec::new();
        Ok(self.chunk_into(hash, &mut body)?.then_some(body))
    }

    /// Reads a chunk's body over `body` and hashes it; `false` when there is none.
    ///
    /// # Errors
    /// As [`Store::chunk`].
    pub fn chunk_into(&self, hash: &Hash, body: &mut Vec<u8>) -> Result<bool, StoreError> {
        let mut before = None;
        for _ in 0..ATTEMPTS {
            let Some(row) = self.present(hash)? else {
                body.clear();
                return Ok(false);
            };
            if before == Some(row.loc) {
                break;
            }
            if let Some(segment) = self.shared().segment(row.loc.segment)? {
                body.resize(row.loc.len as usize, 0);
                let read = read_at(&segment, body, row.body_offset())?;
                if read && Hash::of(body) == *hash {
                    return Ok(true);
                }
            }
            before = Some(row.loc);
        }
        body.clear();
        Err(StoreError::Damaged { what: format!("chunk {hash}") })
    }

    /// Opens a chunk for reading in parts. The bytes are not hashed: whoever gets them does that.
    ///
    /// # Errors
    /// An I/O error.
    pub fn chunk_reader(&self, hash: &Hash) -> Result<Option<ChunkReader>, StoreError> {
        for _ in 0..ATTEMPTS {
            let Some(row) = self.present(hash)? else { return Ok(None) };
            if let Some(segment) = self.shared().segment(row.loc.segment)? {
                return Ok(Some(ChunkReader { store: self.clone(), hash: *hash, row, segment }));
            }
        }
        Err(StoreError::Damaged { what: format!("chunk {hash}") })
    }

    fn chunk_row(&self, hash: &Hash) -> Result<Option<ChunkRow>, StoreError> {
        Ok(self.shared().index.get(&chunk_key(hash))?.and_then(|value| ChunkRow::decode(&value)))
    }

    fn present(&self, hash: &Hash) -> Result<Option<ChunkRow>, StoreError> {
        Ok(self.chunk_row(hash)?.filter(|row| row.tombstone.is_none()))
    }

    /// Whether a chunk's body is there.
    ///
    /// # Errors
    /// An error of the index.
    pub fn has_chunk(&self, hash: &Hash) -> Result<bool, StoreError> {
        Ok(self.present(hash)?.is_some())
    }

    /// Length of a chunk's body in bytes.
    ///
    /// # Errors
    /// An error of the index.
    pub fn chunk_len(&self, hash: &Hash) -> Result<Option<u32>, StoreError> {
        Ok(self.present(hash)?.map(|row| row.loc.len))
    }

    /// Whether a chunk is there, was removed, or never came.
    ///
    /// # Errors
    /// An error of the index.
    pub fn chunk_state(&self, hash: &Hash) -> Result<ChunkState, StoreError> {
        Ok(match self.chunk_row(hash)?.map(|row| row.tombstone) {
            Some(None) => ChunkState::Present,
            Some(Some(Reason::Damaged)) | None => ChunkState::Absent,
            Some(Some(_)) => ChunkState::Tombstoned,
        })
    }

    /// Whether a chunk was released (sold or mirrored).
    ///
    /// # Errors
    /// An error of the index.
    pub fn is_released(&self, hash: &Hash) -> Result<bool, StoreError> {
        Ok(self.present(hash)?.is_some_and(|row| row.released))
    }

    /// The entry that announces a chunk.
    ///
    /// # Errors
    /// An error of the index.
    pub fn chunk_entry(&self, hash: &Hash) -> Result<Option<(LogKey, u64)>, StoreError> {
        Ok(self.shared().index.get(&announced_key(hash))?.and_then(|value| place_of(&value)))
    }

    /// Chunks of a dataset from index `from` on, at most `limit`.
    ///
    /// # Errors
    /// An error of the index.
    pub fn dataset_chunks(
        &self,
        dataset: &DatasetId,
        from: u32,
        limit: usize,
    ) -> Result<Vec<DatasetChunk>, StoreError> {
        let first = dataset_key(dataset.as_bytes(), from);
        let prefix = first[..33].to_vec();
        let rows = self.shared().index.range(Bound::Included(first), &prefix, limit)?;
        let chunk = |(key, value): &(sled::IVec, sled::IVec)| {
            let index = u32::from_be_bytes(Reader(&key[33..]).array()?);
            let (log, seq) = place_of(value)?;
            Some((index, log, seq))
        };
        Ok(rows.iter().filter_map(chunk).collect())
    }

    /// A row.
    ///
    /// # Errors
    /// As [`Store::entry`].
    pub fn row(&self, table: Table, key: &[u8]) -> Result<Option<Vec<u8>>, StoreError> {
        let row = row_key(table as u8, key);
        let Some(value) = self.shared().index.get(&row)? else { return Ok(None) };
        if let Some(value) = inline(&value) {
            return Ok(Some(value.to_vec()));
        }
        let what = format!("a row of table {table:?}");
        self.through_index(&row, &what, |meta, kind| match Change::decode(kind, meta) {
            Some(Change::RowPut { value, .. }) => Some(value.to_vec()),
            _ => None,
        })
    }

    /// Rows whose key begins with `prefix` and is greater than `after`, in key order, at most `limit`.
    ///
    /// # Errors
    /// As [`Store::entry`].
    pub fn rows(
        &self,
        table: Table,
        prefix: &[u8],
        after: Option<&[u8]>,
        limit: usize,
    ) -> Result<Vec<Row>, StoreError> {
        let prefix = row_key(table as u8, prefix);
        let from = match after.map(|after| row_key(table as u8, after)) {
            Some(after) if after >= prefix => Bound::Excluded(after),
            _ => Bound::Included(prefix.clone()),
        };
        let mut out = Vec::new();
        for (key, value) in self.shared().index.range(from, &prefix, limit)? {
            let key = key[2..].to_vec();
            let value = match inline(&value) {
                Some(value) => Some(value.to_vec()),
                None => self.row(table, &key)?,
            };
            out.extend(value.map(|value| (key, value)));
        }
        Ok(out)
    }

    /// A named counter; 0 when it was never set.
    ///
    /// # Errors
    /// An error of the index.
    pub fn counter(&self, name: &str) -> Result<u64, StoreError> {
        let value = self.shared().index.get(&counter_key(name.as_bytes()))?;
        Ok(value.and_then(|value| counter_value(&value)).unwrap_or(0))
    }
}

/// The value of a row that is small enough to stand in the index.
fn inline(value: &[u8]) -> Option<&[u8]> {
    PlaceRow::decode(value)?.rest.split_first().and_then(|(tag, value)| (*tag == 1).then_some(value))
}

/// `false` when the file ends before.
fn read_at(segment: &Segment, buf: &mut [u8], offset: u64) -> Result<bool, StoreError> {
    match segment.file.read_exact_at(buf, offset) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == std::io::ErrorKind::UnexpectedEof => Ok(false),
        Err(error) => Err(StoreError::io("read", &segment.path, error)),
    }
}

/// Reads one chunk in parts, into the caller's buffer.
#[derive(Debug)]
pub struct ChunkReader {
    store: Store,
    hash: Hash,
    row: ChunkRow,
    segment: Segment,
}

impl ChunkReader {
    /// Length of the body in bytes.
    #[must_use]
    pub fn len(&self) -> u32 {
        self.row.loc.len
    }

    /// Whether the body has no bytes.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Reads from `offset` until `buf` is full or the body ends; returns how many bytes.
    ///
    /// # Errors
    /// [`StoreError::Damaged`] when the chunk was removed meanwhile, or an I/O error.
    pub fn read_at(&self, buf: &mut [u8], offset: u32) -> Result<usize, StoreError> {
        let left = self.len().saturating_sub(offset) as usize;
        let len = left.min(buf.len());
        let whole = read_at(&self.segment, &mut buf[..len], self.row.body_offset() + u64::from(offset))?;
        // A body can be punched while it is read: then the row has changed.
        let unchanged = self.store.present(&self.hash)?.is_some_and(|row| row.loc == self.row.loc);
        if whole && unchanged {
            return Ok(len);
        }
        Err(StoreError::Damaged { what: format!("chunk {} (removed while it was read)", self.hash) })
    }
}
