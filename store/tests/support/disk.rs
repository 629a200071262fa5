//! A disk in memory that forgets what was not synced, fails when told to, and can be full.
//!
//! A power cut keeps what `sync_data` and `sync_dir` covered. Of everything else, each 512-byte sector is kept or lost by a
//! seeded coin, as a real disk would, in any order; unsynced directory changes are kept up to a random one of them.

use std::{
    collections::BTreeMap,
    io::{self, IoSlice},
    path::Path,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
};

use tributary_store::disk::{SegmentFile, SegmentFs};

const SECTOR: usize = 512;

#[derive(Debug, Default)]
struct Content {
    current: Vec<u8>,
    durable: Vec<u8>,
}

#[derive(Debug, Clone)]
enum DirChange {
    Create(String, Arc<Mutex<Content>>),
    Remove(String),
    Rename(String, String),
}

type Names = BTreeMap<String, Arc<Mutex<Content>>>;

#[derive(Debug, Default)]
struct Directory {
    current: Names,
    durable: Names,
    pending: Vec<DirChange>,
}

#[derive(Debug, Default)]
pub struct Faults {
    /// Everything fails from now on: the power is out.
    pub dead: AtomicBool,
    /// The next `sync_data` fails.
    pub fail_sync: AtomicBool,
    /// How often one did.
    pub failed_syncs: AtomicU64,
    /// Bytes that can still be written; `u64::MAX` is no limit.
    pub room: AtomicU64,
    /// How often a write met a full disk.
    pub full: AtomicU64,
    /// Sectors that cuts lost.
    pub lost_sectors: AtomicU64,
    pub syncs: AtomicU64,
}

#[derive(Debug, Clone)]
pub struct MemoryDisk {
    directory: Arc<Mutex<Directory>>,
    pub faults: Arc<Faults>,
}

impl Default for MemoryDisk {
    fn default() -> Self {
        let faults = Faults { room: AtomicU64::new(u64::MAX), ..Faults::default() };
        Self { directory: Arc::default(), faults: Arc::new(faults) }
    }
}

fn name(path: &Path) -> String {
    path.file_name().unwrap().to_string_lossy().into_owned()
}

fn apply(names: &mut Names, change: &DirChange) {
    match change {
        DirChange::Create(name, content) => {
            names.insert(name.clone(), content.clone());
        }
        DirChange::Remove(name) => {
            names.remove(name);
        }
        DirChange::Rename(from, to) => {
            if let Some(content) = names.remove(from) {
                names.insert(to.clone(), content);
            }
        }
    }
}

/// A small generator, so that a failing seed can be run again.
pub struct Coin(pub u64);

impl Coin {
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    pub fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound.max(1)
    }
}

impl MemoryDisk {
    /// The power goes: every call fails until [`MemoryDisk::power_on`].
    pub fn power_off(&self) {
        self.faults.dead.store(true, Ordering::SeqCst);
    }

    /// The disk as it is after the cut.
    pub fn power_on(&self, seed: u64) {
        let mut coin = Coin(seed);
        let mut directory = self.directory.lock().unwrap();
        let keep = coin.below(directory.pending.len() as u64 + 1) as usize;
        let mut names = std::mem::take(&mut directory.durable);
        for change in &directory.pending[..keep] {
            apply(&mut names, change);
        }
        let all_or_nothing = coin.below(4);
        let fresh: Names = names
            .into_iter()
            .map(|(name, content)| {
                let content = content.lock().unwrap();
                let (old, new) = (&content.durable, &content.current);
                let len = if coin.below(2) == 0 { old.len() } else { new.len() };
                let mut mixed = vec![0; len];
                for (number, sector) in mixed.chunks_mut(SECTOR).enumerate() {
                    let at = number * SECTOR;
                    let piece = |bytes: &Vec<u8>| {
                        let mut out = vec![0; sector.len()];
                        if let Some(found) = bytes.get(at..(at + out.len()).min(bytes.len())) {
                            out[..found.len()].copy_from_slice(found);
                        }
                        out
                    };
                    let (before, after) = (piece(old), piece(new));
                    let kept = match all_or_nothing {
                        0 => false,
                        1 => true,
                        _ => coin.below(2) == 0,
                    };
                    if before != after && !kept {
                        self.faults.lost_sectors.fetch_add(1, Ordering::SeqCst);
                    }
                    sector.copy_from_slice(if kept { &after } else { &before });
                }
                let content = Content { durable: mixed.clone(), current: mixed };
                (name, Arc::new(Mutex::new(content)))
            })
            .collect();
        *directory = Directory { current: fresh.clone(), durable: fresh, pending: Vec::new() };
        self.faults.dead.store(false, Ordering::SeqCst);
    }

    /// Changes a file behind the store's back; returns whether anything changed.
    pub fn damage(&self, file: &str, change: impl FnOnce(&mut Vec<u8>)) -> bool {
        let directory = self.directory.lock().unwrap();
        let mut content = directory.current[file].lock().unwrap();
        let before = content.current.clone();
        change(&mut content.current);
        content.durable = content.current.clone();
        content.current != before
    }

    pub fn names(&self) -> Vec<String> {
        self.directory.lock().unwrap().current.keys().cloned().collect()
    }

    fn alive(&self) -> io::Result<()> {
        if self.faults.dead.load(Ordering::SeqCst) { Err(io::Error::other("the power is out")) } else { Ok(()) }
    }

    fn change(&self, change: DirChange) {
        let mut directory = self.directory.lock().unwrap();
        apply(&mut directory.current, &change);
        directory.pending.push(change);
    }
}

#[derive(Debug)]
struct MemoryFile {
    content: Arc<Mutex<Content>>,
    disk: MemoryDisk,
}

impl SegmentFile for MemoryFile {
    fn write_all_at(&self, bufs: &[IoSlice<'_>], offset: u64) -> io::Result<()> {
        self.disk.alive()?;
        let mut at = offset as usize;
        let mut content = self.content.lock().unwrap();
        for buf in bufs {
            let room = self.disk.faults.room.load(Ordering::SeqCst);
            let len = buf.len().min(usize::try_from(room).unwrap_or(usize::MAX));
            if room != u64::MAX {
                self.disk.faults.room.store(room - len as u64, Ordering::SeqCst);
            }
            if content.current.len() < at + len {
                content.current.resize(at + len, 0);
            }
            content.current[at..at + len].copy_from_slice(&buf[..len]);
            at += len;
            if len < buf.len() {
                self.disk.faults.full.fetch_add(1, Ordering::SeqCst);
                return Err(io::ErrorKind::StorageFull.into());
            }
        }
        Ok(())
    }

    fn read_exact_at(&self, buf: &mut [u8], offset: u64) -> io::Result<()> {
        self.disk.alive()?;
        let content = self.content.lock().unwrap();
        let from = usize::try_from(offset).unwrap();
        let found = content.current.get(from..from + buf.len()).ok_or(io::ErrorKind::UnexpectedEof)?;
        buf.copy_from_slice(found);
        Ok(())
    }

    fn sync_data(&self) -> io::Result<()> {
        self.disk.alive()?;
        self.disk.faults.syncs.fetch_add(1, Ordering::SeqCst);
        if self.disk.faults.fail_sync.swap(false, Ordering::SeqCst) {
            self.disk.faults.failed_syncs.fetch_add(1, Ordering::SeqCst);
            return Err(io::Error::other("injected: the disk lost a write"));
        }
        let mut content = self.content.lock().unwrap();
        content.durable = content.current.clone();
        Ok(())
    }

    fn len(&self) -> io::Result<u64> {
        Ok(self.content.lock().unwrap().current.len() as u64)
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.disk.alive()?;
        self.content.lock().unwrap().current.resize(len as usize, 0);
        Ok(())
    }

    fn allocate(&self, offset: u64, len: u64) -> io::Result<()> {
        self.disk.alive()?;
        let mut content = self.content.lock().unwrap();
        let end = (offset + len) as usize;
        if content.current.len() < end {
            content.current.resize(end, 0);
        }
        Ok(())
    }

    fn punch(&self, offset: u64, len: u64) -> io::Result<()> {
        self.disk.alive()?;
        let mut content = self.content.lock().unwrap();
        content.current[offset as usize..(offset + len) as usize].fill(0);
        Ok(())
    }

    fn allocated(&self) -> io::Result<u64> {
        let content = self.content.lock().unwrap();
        let used = content.current.chunks(4096).filter(|block| block.iter().any(|byte| *byte != 0)).count();
        Ok(used as u64 * 4096)
    }
}

impl SegmentFs for MemoryDisk {
    fn create(&self, path: &Path) -> io::Result<Arc<dyn SegmentFile>> {
        self.alive()?;
        let content = Arc::new(Mutex::new(Content::default()));
        self.change(DirChange::Create(name(path), content.clone()));
        Ok(Arc::new(MemoryFile { content, disk: self.clone() }))
    }

    fn open(&self, path: &Path) -> io::Result<Arc<dyn SegmentFile>> {
        self.alive()?;
        let directory = self.directory.lock().unwrap();
        let content = directory.current.get(&name(path)).ok_or(io::ErrorKind::NotFound)?.clone();
        Ok(Arc::new(MemoryFile { content, disk: self.clone() }))
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        self.alive()?;
        self.change(DirChange::Remove(name(path)));
        Ok(())
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.alive()?;
        self.change(DirChange::Rename(name(from), name(to)));
        Ok(())
    }

    fn sync_dir(&self, _: &Path) -> io::Result<()> {
        self.alive()?;
        let mut directory = self.directory.lock().unwrap();
        directory.pending.clear();
        directory.durable = directory.current.clone();
        Ok(())
    }

    fn list(&self, _: &Path) -> io::Result<Vec<String>> {
        self.alive()?;
        Ok(self.names())
    }

    fn free_bytes(&self, _: &Path) -> io::Result<u64> {
        Ok(1 << 40)
    }
}
