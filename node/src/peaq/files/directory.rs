//! A directory that a stranger wrote, and files in it.
//!
//! Names are opened relative to the directory that was opened first, so it cannot be exchanged in between; never through a
//! link, so nothing outside is read; and without waiting, so a pipe cannot hold anybody up.

use std::{
    fs::File,
    io::{self, Read as _},
    os::fd::OwnedFd,
    path::{Path, PathBuf},
};

use rustix::{
    fs::{CWD, Dir, FileType, Mode, OFlags, fstat, openat},
    io::Errno,
};
use tributary_protocol::peaq::sealed_box::BoxSecretKey;
use zeroize::Zeroizing;

use super::FilesError;

/// Longest file of a private key.
const MAX_KEY_FILE: usize = 4096;

/// An open directory.
pub(super) struct Directory {
    path: PathBuf,
    fd: OwnedFd,
}

impl Directory {
    /// Opens it; `hint` says what to do when it is not there.
    pub(super) fn open(path: &Path, hint: &'static str) -> Result<Self, FilesError> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        match openat(CWD, path, flags, Mode::empty()) {
            Ok(fd) => Ok(Self { path: path.to_owned(), fd }),
            Err(Errno::NOENT | Errno::NOTDIR) => Err(FilesError::Missing { path: path.to_owned(), hint }),
            Err(errno) => Err(FilesError::io("opened", path)(errno.into())),
        }
    }

    /// The path of a file in it, for messages.
    pub(super) fn path_of(&self, name: &str) -> PathBuf {
        self.path.join(name)
    }

    /// The bytes of a regular file of at most `max` bytes; `None` when it is not there.
    pub(super) fn read(&self, name: &str, max: usize) -> Result<Option<Vec<u8>>, FilesError> {
        let path = self.path_of(name);
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let fd = match openat(&self.fd, name, flags, Mode::empty()) {
            Ok(fd) => fd,
            Err(Errno::NOENT) => return Ok(None),
            // What opening a link, and a socket, says.
            Err(Errno::LOOP | Errno::NXIO | Errno::NODEV) => return Err(FilesError::NotRegular { path }),
            Err(errno) => return Err(FilesError::io("opened", &path)(errno.into())),
        };
        read_regular(fd, &path, max).map(Some)
    }

    /// Calls `each` with the names in it, in no order, until it says stop.
    pub(super) fn names(&self, mut each: impl FnMut(&str) -> bool) -> Result<(), FilesError> {
        let failed = |errno: Errno| FilesError::io("listed", &self.path)(errno.into());
        for entry in Dir::read_from(&self.fd).map_err(failed)? {
            let entry = entry.map_err(failed)?;
            // A name that is no UTF-8 is none of a file that is looked for.
            if let Ok(name) = entry.file_name().to_str()
                && !each(name)
            {
                break;
            }
        }
        Ok(())
    }
}

fn read_regular(fd: OwnedFd, path: &Path, max: usize) -> Result<Vec<u8>, FilesError> {
    let failed = FilesError::io("read", path);
    let stat = fstat(&fd).map_err(|errno| failed(errno.into()))?;
    if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile {
        return Err(FilesError::NotRegular { path: path.to_owned() });
    }
    let too_large = |found| FilesError::TooLarge { path: path.to_owned(), found, max };
    let found = u64::try_from(stat.st_size).unwrap_or(0);
    let size = usize::try_from(found).ok().filter(|size| *size <= max).ok_or_else(|| too_large(found))?;
    // It may grow while it is read; one byte more than it had tells.
    let mut bytes = Vec::with_capacity(size.saturating_add(1));
    let limit = u64::try_from(max).unwrap_or(u64::MAX).saturating_add(1);
    File::from(fd).take(limit).read_to_end(&mut bytes).map_err(&failed)?;
    if bytes.len() > max {
        return Err(too_large(limit));
    }
    Ok(bytes)
}

/// Reads a private X25519 key as peaq's key files hold it: 64 hex digits, perhaps behind `0x`, white space around them.
///
/// # Errors
/// The file cannot be read, or holds something else.
pub fn read_key_file(path: &Path) -> Result<BoxSecretKey, FilesError> {
    let bad = || FilesError::KeyFile { path: path.to_owned() };
    // The user's own file: a link to it is theirs as well.
    let file = File::open(path).map_err(|error| match error.kind() {
        io::ErrorKind::NotFound => {
            FilesError::Missing { path: path.to_owned(), hint: "name the file with the private key" }
        }
        _ => FilesError::io("opened", path)(error),
    })?;
    let mut bytes = Zeroizing::new(Vec::with_capacity(MAX_KEY_FILE));
    let limit = u64::try_from(MAX_KEY_FILE).unwrap_or(u64::MAX);
    file.take(limit).read_to_end(&mut bytes).map_err(FilesError::io("read", path))?;
    let text = std::str::from_utf8(&bytes).map_err(|_| bad())?;
    BoxSecretKey::from_hex(text.trim()).map_err(|_| bad())
}
