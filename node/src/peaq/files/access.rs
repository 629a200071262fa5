//! A buyer's keys, from a directory of access files in either spelling.

use std::path::Path;

use tributary_protocol::peaq::{
    access::{AccessBook, MAX_ACCESS_FILE_BYTES, ParsedAccessFile},
    manifest::MAX_FILES,
};

use super::{FilesError, directory::Directory};

/// All access files together, bytes: keys for two million chunks.
const MAX_TOTAL: usize = 1 << 30;

/// Whose entries are taken.
#[derive(Clone, Copy)]
pub(super) enum Whose<'a> {
    /// Those with this id.
    Id(&'a str),
    /// Those that are sealed to this key.
    Key(&'a [u8; 32]),
}

/// Reads every access file of a directory, by name. Files of a published chain that lie there too are left out.
pub(super) fn read_access(path: &Path, whose: Whose<'_>) -> Result<AccessBook, FilesError> {
    let directory = Directory::open(path, "name the folder with the buyer's access files")?;
    let mut names: Vec<String> = Vec::new();
    directory.names(|name| {
        if name.ends_with(".json") && name != "manifest.json" && !is_chunk(name) {
            names.push(name.to_owned());
        }
        names.len() <= MAX_FILES
    })?;
    if names.len() > MAX_FILES {
        return Err(FilesError::TooMany { path: path.to_owned() });
    }
    // Of two entries for a chunk the later file's counts, as with peaq.
    names.sort_unstable();
    let mut book = AccessBook::new();
    let mut left = MAX_TOTAL;
    for name in &names {
        let Some(bytes) = directory.read(name, MAX_ACCESS_FILE_BYTES)? else { continue };
        left = left.checked_sub(bytes.len()).ok_or_else(|| FilesError::TooMany { path: path.to_owned() })?;
        let file = ParsedAccessFile::parse(&bytes)
            .map_err(|source| FilesError::Format { path: directory.path_of(name), source })?;
        match whose {
            Whose::Id(id) => book.add(file, id),
            Whose::Key(key) => book.add_for_key(file, key),
        }
    }
    Ok(book)
}

fn is_chunk(name: &str) -> bool {
    chunk_number(name).is_some()
}

/// The digits in `chunk-<digits>.json`.
fn chunk_number(name: &str) -> Option<&str> {
    let digits = name.strip_prefix("chunk-")?.strip_suffix(".json")?;
    (!digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit())).then_some(digits)
}

/// A file that is called a chunk and is none of the first `count`: there is a gap before it. Chunks are asked for by number, so
/// it was not read.
pub(super) fn behind_gap(directory: &Directory, count: u64) -> Result<Option<String>, FilesError> {
    let mut behind = None;
    directory.names(|name| {
        let read = |digits: &str| digits.parse::<u64>().is_ok_and(|n| n < count && n.to_string() == digits);
        if chunk_number(name).is_some_and(|digits| !read(digits)) {
            behind = Some(name.to_owned());
        }
        behind.is_none()
    })?;
    Ok(behind)
}
