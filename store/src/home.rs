//! The store directory itself: its lock and its `FORMAT` file.
//!
//! ```text
//! FORMAT   three lines: "tributary store", "version 1", "frame key <64 hex digits>"
//! lock     held with flock while open; holds the pid of the holder
//! ballast  space to give up when the disk is full
//! log/     segments; index/ sled
//! ```

use std::{
    fs::{self, File, OpenOptions},
    io::{Read, Seek, SeekFrom, Write},
    os::unix::fs::{DirBuilderExt, OpenOptionsExt},
    path::Path,
};

use tributary_protocol::ids::Hash;

use crate::{
    error::{IoContext, StoreError},
    frame::FrameKey,
    segment::VERSION,
};

const FORMAT: &str = "FORMAT";
const FIRST_LINE: &str = "tributary store";
const LONGEST_FORMAT: u64 = 4096;

/// Creates a directory only its owner can enter.
pub(crate) fn create_dir(dir: &Path) -> Result<(), StoreError> {
    fs::DirBuilder::new().recursive(true).mode(0o700).create(dir).at("create", dir)
}

/// Takes the store's lock; it is held until the file is dropped.
pub(crate) fn lock(dir: &Path) -> Result<File, StoreError> {
    let path = dir.join("lock");
    let mut file = OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .open(&path)
        .at("open", &path)?;
    match file.try_lock() {
        Ok(()) => {}
        Err(fs::TryLockError::WouldBlock) => {
            let mut text = String::new();
            let _ = file.take(32).read_to_string(&mut text);
            return Err(StoreError::Locked { dir: dir.to_owned(), pid: text.trim().parse().ok() });
        }
        Err(fs::TryLockError::Error(error)) => return Err(StoreError::io("lock", &path, error)),
    }
    // The pid is a courtesy to the next process: a full disk must not keep the store from being opened and cleaned.
    let pid = format!("{}\n", std::process::id());
    let _ = file.set_len(0).and_then(|()| file.seek(SeekFrom::Start(0))).and_then(|_| file.write_all(pid.as_bytes()));
    Ok(file)
}

/// The frame key in `FORMAT`; `None` when there is no such file.
pub(crate) fn read_format(dir: &Path) -> Result<Option<FrameKey>, StoreError> {
    let path = dir.join(FORMAT);
    let mut text = String::new();
    match File::open(&path) {
        Ok(file) => file.take(LONGEST_FORMAT).read_to_string(&mut text).at("read", &path)?,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(StoreError::io("open", &path, error)),
    };
    let not = |reason: &str| StoreError::NotAStore { dir: dir.to_owned(), reason: reason.to_owned() };
    let mut lines = text.lines();
    if lines.next() != Some(FIRST_LINE) {
        return Err(not("FORMAT does not begin with \"tributary store\""));
    }
    let version = lines.next().and_then(|line| line.strip_prefix("version ")).and_then(|text| text.parse().ok());
    match version {
        Some(found) if found > VERSION => {
            return Err(StoreError::UnsupportedVersion { dir: dir.to_owned(), found, supported: VERSION });
        }
        Some(1..) => {}
        _ => return Err(not("FORMAT names no version")),
    }
    let key = lines.next().and_then(|line| line.strip_prefix("frame key ")).and_then(|text| text.parse::<Hash>().ok());
    key.map(|key| Some(FrameKey(key.to_bytes()))).ok_or_else(|| not("FORMAT holds no frame key"))
}

/// Writes `FORMAT` durably.
pub(crate) fn write_format(dir: &Path, key: &FrameKey) -> Result<(), StoreError> {
    let text = format!("{FIRST_LINE}\nversion {VERSION}\nframe key {}\n", Hash::from_bytes(key.0));
    let (new, path) = (dir.join("FORMAT.tmp"), dir.join(FORMAT));
    let mut file =
        OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&new).at("create", &new)?;
    file.write_all(text.as_bytes()).and_then(|()| file.sync_all()).at("write", &new)?;
    fs::rename(&new, &path).at("rename", &new)?;
    File::open(dir).and_then(|dir| dir.sync_all()).at("sync", dir)
}

/// A fresh random key.
pub(crate) fn new_key() -> Result<FrameKey, StoreError> {
    let path = Path::new("/dev/urandom");
    let mut key = [0; 32];
    File::open(path).and_then(|mut file| file.read_exact(&mut key)).at("read", path)?;
    Ok(FrameKey(key))
}
