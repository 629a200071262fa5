//! Private files: written whole or not at all, never readable by others.

use std::{
    fs::{self, DirBuilder, File, OpenOptions},
    io::{ErrorKind, Read as _, Write as _},
    os::unix::fs::{DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _},
    path::Path,
};

use zeroize::Zeroizing;

use super::error::HomeError;

/// Mode of private folders.
pub(super) const DIR_MODE: u32 = 0o700;
/// Mode of private files.
pub(super) const FILE_MODE: u32 = 0o600;
/// No file read here is larger.
const MAX_FILE: u64 = 16 << 10;

pub(super) fn io<'a>(action: &'static str, path: &'a Path) -> impl FnOnce(std::io::Error) -> HomeError + 'a {
    move |source| HomeError::Io { action, path: path.to_owned(), source }
}

/// Makes a folder that only the owner can enter.
pub(super) fn make_dir(path: &Path) -> Result<(), HomeError> {
    DirBuilder::new().recursive(true).mode(DIR_MODE).create(path).map_err(io("create the folder", path))
}

/// Takes access from everyone but the owner.
pub(super) fn make_private(path: &Path) -> Result<(), HomeError> {
    fs::set_permissions(path, fs::Permissions::from_mode(DIR_MODE)).map_err(io("set the permissions of", path))
}

/// Refuses a file or folder that others can read or write.
pub(super) fn check_private(path: &Path) -> Result<(), HomeError> {
    let metadata = fs::metadata(path).map_err(io("look at", path))?;
    private(path, &metadata)
}

fn private(path: &Path, metadata: &fs::Metadata) -> Result<(), HomeError> {
    let mode = metadata.mode() & 0o777;
    if mode & 0o077 == 0 {
        return Ok(());
    }
    let wanted = if metadata.is_dir() { DIR_MODE } else { FILE_MODE };
    Err(HomeError::Permissions { path: path.to_owned(), mode, wanted })
}

/// Reads a small private file; `None` if it is not there. The permissions of the opened file are checked, so that it cannot
/// be exchanged in between.
pub(super) fn read_private(path: &Path) -> Result<Option<Zeroizing<String>>, HomeError> {
    let file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(io("open", path)(error)),
    };
    private(path, &file.metadata().map_err(io("look at", path))?)?;
    // Full size at once: growing would leave copies of the secret behind.
    let mut text = Zeroizing::new(String::with_capacity(usize::try_from(MAX_FILE).unwrap_or(usize::MAX)));
    file.take(MAX_FILE).read_to_string(&mut text).map_err(io("read", path))?;
    Ok(Some(text))
}

/// Writes a private file: a temporary file, synced, renamed over `path`, and the folder synced. After a crash there is the old
/// file or the new one.
pub(super) fn write_private(path: &Path, bytes: &[u8]) -> Result<(), HomeError> {
    let mut name = std::ffi::OsString::from(".");
    name.push(path.file_name().unwrap_or_default());
    name.push(".tmp");
    let temporary = path.with_file_name(name);
    match fs::remove_file(&temporary) {
        Err(error) if error.kind() != ErrorKind::NotFound => return Err(io("remove", &temporary)(error)),
        _ => {}
    }
    let mut file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(FILE_MODE)
        .open(&temporary)
        .map_err(io("create", &temporary))?;
    file.write_all(bytes).and_then(|()| file.sync_all()).map_err(io("write", &temporary))?;
    fs::rename(&temporary, path).map_err(io("rename to", path))?;
    sync_parent(path)
}

/// Adds one line to a private file that grows, under its lock. `line` sees the lines that are there, at most `max` bytes, and says
/// what is added, or refuses. Durable when this returns. A last line that a crash cut off counts for nothing and is taken away.
pub(crate) fn append_private<E: From<HomeError>>(
    path: &Path,
    max: u64,
    line: impl FnOnce(&str) -> Result<Option<String>, E>,
) -> Result<(), E> {
    let mut file =
        OpenOptions::new().read(true).append(true).create(true).mode(FILE_MODE).open(path).map_err(io("open", path))?;
    rustix::fs::flock(&file, rustix::fs::FlockOperation::LockExclusive).map_err(|e| io("lock", path)(e.into()))?;
    let metadata = file.metadata().map_err(io("look at", path))?;
    private(path, &metadata)?;
    if metadata.len() > max {
        let full = std::io::Error::other(format!("it is larger than {max} bytes"));
        return Err(io("read", path)(full).into());
    }
    let mut held = String::new();
    (&mut file).take(max).read_to_string(&mut held).map_err(io("read", path))?;
    let whole = held.rfind('\n').map_or(0, |at| at + 1);
    let Some(line) = line(&held[..whole])? else { return Ok(()) };
    file.set_len(whole as u64)
        .and_then(|()| file.write_all(format!("{line}\n").as_bytes()))
        .and_then(|()| file.sync_all())
        .map_err(io("write", path))?;
    sync_parent(path)?;
    Ok(())
}

/// Makes a rename or a new file in the folder of `path` durable.
pub(super) fn sync_parent(path: &Path) -> Result<(), HomeError> {
    let parent = match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    };
    File::open(parent).and_then(|dir| dir.sync_all()).map_err(io("sync the folder", parent))
}

/// Reads 32 bytes written as 64 hex digits (either case, with or without `0x`) from a private file.
pub(crate) fn read_hex_key(path: &Path) -> Result<Zeroizing<[u8; 32]>, HomeError> {
    let bad = |problem| HomeError::BadHexKey { path: path.to_owned(), problem };
    let text = read_private(path)?.ok_or_else(|| bad("there is no such file"))?;
    let digits = text.trim();
    let digits = digits.strip_prefix("0x").unwrap_or(digits);
    let mut key = Zeroizing::new([0; 32]);
    hex::decode_to_slice(digits, &mut *key).map_err(|_| bad("expected 64 hex digits"))?;
    Ok(key)
}

/// Reads a token, 16 to 512 printable ASCII characters without spaces, from a private file.
pub(crate) fn read_token(path: &Path) -> Result<Zeroizing<String>, HomeError> {
    let bad = |problem| HomeError::BadToken { path: path.to_owned(), problem };
    let text = read_private(path)?.ok_or_else(|| bad("there is no such file"))?;
    let token = text.trim();
    if !(16..=512).contains(&token.len()) || !token.bytes().all(|byte| byte.is_ascii_graphic()) {
        return Err(bad("expected 16 to 512 printable characters without spaces"));
    }
    Ok(Zeroizing::new(token.to_owned()))
}
