//! What the writer, the readers and the maintenance work share: the index, the table of segments, and the counts.

use std::{
    collections::{BTreeMap, VecDeque},
    fs,
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering},
    },
    time::{SystemTime, UNIX_EPOCH},
};

use crate::{
    batch::EntryIndex,
    disk::SegmentFile,
    error::{IoContext, StoreError},
    frame::{Change, FrameKey, HEADER_LEN, Header},
    index::{Index, Loc, Totals},
    options::StoreOptions,
    queue::{Queue, lock},
    segment::{Segment, SegmentKind, file_name},
};

/// What is known of a segment without opening it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct SegmentInfo {
    pub(crate) kind: SegmentKind,
    pub(crate) first_lsn: u64,
    /// Bytes on the disk.
    pub(crate) allocated: u64,
    /// Live body bytes when its holes were punched last; unequal means there is more to punch.
    pub(crate) punched_at: Option<i64>,
}

/// At most this many segment files are open for reading.
const OPEN_FILES: usize = 96;

pub(crate) struct Shared {
    pub(crate) dir: PathBuf,
    pub(crate) log_dir: PathBuf,
    pub(crate) options: StoreOptions,
    pub(crate) key: FrameKey,
    pub(crate) index: Index,
    pub(crate) queue: Queue,
    pub(crate) segments: Mutex<BTreeMap<u32, SegmentInfo>>,
    pub(crate) totals: Mutex<Totals>,
    pub(crate) index_bytes: AtomicU64,
    pub(crate) poison: Mutex<Option<String>>,
    /// Held by garbage collection, check and backup: one at a time.
    pub(crate) maintenance: Mutex<()>,
    pub(crate) open_files: Mutex<VecDeque<(u32, Arc<dyn SegmentFile>)>>,
    /// The store's lock. The last field, so that it is given back after the index has closed its files.
    pub(crate) _lock: fs::File,
}

pub(crate) fn now_ms() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
}

impl Shared {
    pub(crate) fn path_of(&self, kind: SegmentKind, id: u32) -> PathBuf {
        self.log_dir.join(file_name(kind, id))
    }

    /// The first failure is kept: it is the one that explains the rest.
    pub(crate) fn poison(&self, reason: &str) {
        let mut poison = lock(&self.poison);
        if poison.is_none() {
            tracing::error!(reason, store = %self.dir.display(), "the store stopped; it must be opened again");
            *poison = Some(reason.to_owned());
        }
    }

    pub(crate) fn check_poison(&self) -> Result<(), StoreError> {
        match lock(&self.poison).as_ref() {
            Some(reason) => Err(StoreError::Poisoned { reason: reason.clone() }),
            None => Ok(()),
        }
    }

    /// Opens a segment, or takes it from the cache; `None` when it was removed.
    pub(crate) fn segment(&self, id: u32) -> Result<Option<Segment>, StoreError> {
        let Some(info) = lock(&self.segments).get(&id).copied() else { return Ok(None) };
        let path = self.path_of(info.kind, id);
        let segment = |file| Segment { kind: info.kind, id, first_lsn: info.first_lsn, path: path.clone(), file };
        {
            let mut open = lock(&self.open_files);
            if let Some(at) = open.iter().position(|(open, _)| *open == id) {
                let hit = open.remove(at).expect("the position was just found under this lock");
                let file = Arc::clone(&hit.1);
                open.push_back(hit);
                return Ok(Some(segment(file)));
            }
        }
        let file = match self.options.fs.open(&path) {
            Ok(file) => file,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(StoreError::io("open", &path, error)),
        };
        let mut open = lock(&self.open_files);
        if open.len() >= OPEN_FILES {
            open.pop_front();
        }
        open.push_back((id, Arc::clone(&file)));
        Ok(Some(segment(file)))
    }

    /// Forgets a removed segment.
    pub(crate) fn forget(&self, id: u32) {
        lock(&self.segments).remove(&id);
        lock(&self.open_files).retain(|(open, _)| *open != id);
        lock(&self.totals).segments.remove(&id);
    }

    /// Reads and checks the frame at `loc`; `None` when the segment is gone or the frame is not valid.
    pub(crate) fn read_frame(&self, loc: Loc) -> Result<Option<(Header, Vec<u8>)>, StoreError> {
        let Some(segment) = self.segment(loc.segment)? else { return Ok(None) };
        let max = HEADER_LEN + crate::frame::MAX_META;
        let len = loc.len as usize;
        if len < HEADER_LEN || len > max {
            return Ok(None);
        }
        let mut bytes = vec![0; len];
        match segment.file.read_exact_at(&mut bytes, u64::from(loc.offset)) {
            Ok(()) => {}
            Err(error) if error.kind() == std::io::ErrorKind::UnexpectedEof => return Ok(None),
            Err(error) => return Err(StoreError::io("read", &segment.path, error)),
        }
        let Some(header) = self.key.decode(segment.id, &bytes) else { return Ok(None) };
        let meta = bytes.split_off(HEADER_LEN);
        let whole = meta.len() == header.meta_len as usize && self.key.meta_matches(&header, &meta);
        Ok(whole.then_some((header, meta)))
    }

    /// What the entry whose frame is at `loc` is found by.
    pub(crate) fn entry_index(&self, loc: Loc) -> Option<EntryIndex> {
        let (header, meta) = self.read_frame(loc).ok()??;
        match Change::decode(header.kind, &meta)? {
            Change::Entry { index, .. } => Some(index),
            _ => None,
        }
    }

    /// Bytes everything in the directory takes on the disk, as accounted (`du` agrees within 1 % when nothing is written).
    pub(crate) fn used_bytes(&self) -> u64 {
        let segments: u64 = lock(&self.segments).values().map(|info| info.allocated).sum();
        segments + self.index_bytes.load(Ordering::Relaxed)
    }

    /// Measures what is not a segment: the index, the ballast and the small files.
    pub(crate) fn measure_index(&self) {
        let mut bytes = 0;
        let mut pending = vec![self.dir.clone()];
        while let Some(dir) = pending.pop() {
            bytes += allocated(&dir);
            if dir == self.log_dir {
                continue;
            }
            for entry in fs::read_dir(&dir).into_iter().flatten().flatten() {
                match entry.file_type() {
                    Ok(kind) if kind.is_dir() => pending.push(entry.path()),
                    Ok(kind) if kind.is_file() => bytes += allocated(&entry.path()),
                    _ => {}
                }
            }
        }
        self.index_bytes.store(bytes, Ordering::Relaxed);
    }

    pub(crate) fn ballast_path(&self) -> PathBuf {
        self.dir.join(BALLAST)
    }

    /// Gives the ballast up; `true` if there was any.
    pub(crate) fn release_ballast(&self) -> bool {
        let released = fs::remove_file(self.ballast_path()).is_ok();
        if released {
            tracing::warn!(store = %self.dir.display(), "disk full: the ballast file was given up to be able to delete");
        }
        self.measure_index();
        released
    }

    /// Puts the ballast back when there is room for it.
    pub(crate) fn restore_ballast(&self) -> Result<(), StoreError> {
        let (path, len) = (self.ballast_path(), self.options.ballast_bytes);
        if len == 0 || fs::metadata(&path).is_ok_and(|found| found.len() == len) {
            return Ok(());
        }
        let free = self.options.fs.free_bytes(&self.dir).at("measure", &self.dir)?;
        let quota = self.options.quota_bytes.unwrap_or(u64::MAX);
        if free < len.saturating_add(self.options.min_free_bytes) || self.used_bytes().saturating_add(len) > quota / 2 {
            return Ok(());
        }
        let file = fs::File::create(&path).at("create", &path)?;
        let made = rustix::fs::fallocate(&file, rustix::fs::FallocateFlags::empty(), 0, len);
        if made.is_err() {
            // Without fallocate the ballast would be a hole, and worth nothing.
            drop(file);
            let _ = fs::remove_file(&path);
        }
        Ok(())
    }
}

pub(crate) const BALLAST: &str = "ballast";

/// Blocks of a file or directory, in bytes.
fn allocated(path: &Path) -> u64 {
    use std::os::unix::fs::MetadataExt;
    fs::metadata(path).map_or(0, |found| found.blocks() * 512)
}
