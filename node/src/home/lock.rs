//! One process per home.

use std::{
    fs::{File, OpenOptions},
    io::{Read as _, Seek as _, Write as _},
    os::unix::fs::OpenOptionsExt as _,
    path::Path,
};

use rustix::{
    fs::{FlockOperation, flock},
    io::Errno,
};

use super::{
    error::HomeError,
    files::{FILE_MODE, io},
};

/// The right to use a home. The system takes it back when this value, or the process, ends; a stale lock cannot exist.
#[derive(Debug)]
pub struct HomeLock {
    _file: File,
}

impl HomeLock {
    /// Locks the file at `path` for the home `home`, without waiting.
    pub(super) fn take(path: &Path, home: &Path) -> Result<Self, HomeError> {
        let mut file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(FILE_MODE)
            .open(path)
            .map_err(io("open", path))?;
        match flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => {}
            Err(Errno::WOULDBLOCK) => {
                let mut text = String::new();
                // The pid is only for the message: without it the lock is just as real.
                let _ = (&mut file).take(32).read_to_string(&mut text);
                return Err(HomeError::Locked { path: home.to_owned(), pid: text.trim().parse().ok() });
            }
            Err(error) => return Err(io("lock", path)(error.into())),
        }
        file.set_len(0)
            .and_then(|()| file.rewind())
            .and_then(|()| writeln!(file, "{}", std::process::id()))
            .map_err(io("write", path))?;
        Ok(Self { _file: file })
    }
}
