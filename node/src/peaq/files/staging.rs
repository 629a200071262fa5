//! A directory that appears whole or not at all.

use std::{
    fs::{self, DirBuilder, File},
    io::{self, Write as _},
    path::{Path, PathBuf},
    process,
    sync::atomic::{AtomicU64, Ordering},
};

use super::FilesError;

/// Written beside its target under a hidden name; gets its name when everything in it is on the disk. Dropped before that, it
/// is removed. A target that holds anything is refused.
pub(super) struct Staging {
    target: PathBuf,
    temporary: PathBuf,
    done: bool,
}

impl Staging {
    /// Begins to write `target`.
    pub(super) fn create(target: &Path) -> Result<Self, FilesError> {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        let target = std::path::absolute(target).map_err(FilesError::io("found", target))?;
        check_free(&target)?;
        let Some((parent, name)) = target.parent().zip(target.file_name()) else {
            return Err(FilesError::Occupied { path: target });
        };
        fs::create_dir_all(parent).map_err(FilesError::io("made", parent))?;
        loop {
            let mut hidden = std::ffi::OsString::from(".");
            hidden.push(name);
            hidden.push(format!(".{}-{}.tmp", process::id(), NEXT.fetch_add(1, Ordering::Relaxed)));
            let temporary = parent.join(hidden);
            match DirBuilder::new().create(&temporary) {
                Ok(()) => return Ok(Self { target, temporary, done: false }),
                // Left by a killed process that had our number.
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
                Err(error) => return Err(FilesError::io("made", &temporary)(error)),
            }
        }
    }

    /// Writes a file into it.
    pub(super) fn write(&self, name: &str, bytes: &[u8]) -> Result<(), FilesError> {
        let write = || {
            let mut file = File::options().write(true).create_new(true).open(self.temporary.join(name))?;
            file.write_all(bytes)
        };
        write().map_err(FilesError::io("written", &self.target.join(name)))
    }

    /// Makes it durable and gives it its name. Returns the path.
    pub(super) fn commit(mut self) -> Result<PathBuf, FilesError> {
        let finish = || -> io::Result<()> {
            // One call for thousands of files, where a sync of each would take minutes on a slow disk.
            rustix::fs::syncfs(File::open(&self.temporary)?)?;
            // Takes the place of an empty directory, and of nothing else.
            fs::rename(&self.temporary, &self.target)?;
            File::open(self.target.parent().unwrap_or(Path::new("/")))?.sync_all()
        };
        match finish() {
            Ok(()) => {
                self.done = true;
                Ok(self.target.clone())
            }
            Err(error) if error.kind() == io::ErrorKind::DirectoryNotEmpty => {
                Err(FilesError::Occupied { path: self.target.clone() })
            }
            Err(error) => Err(FilesError::io("written", &self.target)(error)),
        }
    }
}

impl Drop for Staging {
    fn drop(&mut self) {
        if !self.done {
            // Best effort: what is left has a hidden name that nothing reads.
            let _ = fs::remove_dir_all(&self.temporary);
        }
    }
}

/// Refuses a target that holds anything.
pub(crate) fn check_free(target: &Path) -> Result<(), FilesError> {
    let occupied = || FilesError::Occupied { path: target.to_owned() };
    match fs::read_dir(target) {
        Ok(mut entries) => match entries.next() {
            None => Ok(()),
            Some(_) => Err(occupied()),
        },
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) if error.kind() == io::ErrorKind::NotADirectory => Err(occupied()),
        Err(error) => Err(FilesError::io("listed", target)(error)),
    }
}
