//! Directories: the parts of a split recording as one source, and watching for finished files.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    fs,
    path::{Path, PathBuf},
    time::{Duration, SystemTime},
};

use tributary_protocol::rules::native::SchemaPaths;

use super::{IngestError, IngestOptions, Source, SourceItem};

/// Most files looked at in one directory.
const MAX_FILES: usize = 65_536;

fn io(path: &Path) -> impl Fn(std::io::Error) -> IngestError {
    move |source| IngestError::Io { path: path.to_owned(), source }
}

/// A file of a directory: its path, length and time of the last write.
type Listed = (PathBuf, u64, Option<SystemTime>);

/// The regular files of a directory, hidden ones left out. Links are not followed: they may lead anywhere.
fn files(directory: &Path) -> Result<Vec<Listed>, IngestError> {
    let mut out = Vec::new();
    for entry in fs::read_dir(directory).map_err(io(directory))? {
        let entry = entry.map_err(io(directory))?;
        if entry.file_name().as_encoded_bytes().starts_with(b".") {
            continue;
        }
        let Ok(metadata) = entry.metadata() else { continue };
        if !metadata.is_file() {
            continue;
        }
        if out.len() == MAX_FILES {
            return Err(IngestError::TooMany { path: directory.to_owned(), what: "files", limit: MAX_FILES });
        }
        out.push((entry.path(), metadata.len(), metadata.modified().ok()));
    }
    Ok(out)
}

/// Splits digits from text, so that `bag_10` comes after `bag_9`.
fn natural_key(path: &Path) -> Vec<(u128, String)> {
    let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let mut key = Vec::new();
    let mut rest = name.as_str();
    while !rest.is_empty() {
        let text_end = rest.find(|c: char| c.is_ascii_digit()).unwrap_or(rest.len());
        let (text, behind) = rest.split_at(text_end);
        let digits_end = behind.find(|c: char| !c.is_ascii_digit()).unwrap_or(behind.len());
        let (digits, behind) = behind.split_at(digits_end);
        key.push((0, text.to_owned()));
        key.push((digits.parse().unwrap_or(u128::MAX), String::new()));
        rest = behind;
    }
    key
}

/// The recordings of a directory (`.mcap`, `.db3`, `.ndjson`, `.jsonl`) one after the other, in the order of the numbers in
/// their names, each opened when the one before has ended.
pub struct DirectorySource {
    waiting: VecDeque<PathBuf>,
    current: Option<Box<dyn Source + Send>>,
    options: IngestOptions,
}

impl DirectorySource {
    /// Lists a directory.
    ///
    /// # Errors
    /// It cannot be listed or holds no recording.
    pub fn open(directory: &Path, options: &IngestOptions) -> Result<Self, IngestError> {
        let known = |path: &Path| {
            path.extension().and_then(|e| e.to_str()).is_some_and(|e| matches!(e, "mcap" | "db3" | "ndjson" | "jsonl"))
        };
        let mut paths: Vec<_> = files(directory)?.into_iter().map(|f| f.0).filter(|p| known(p)).collect();
        paths.sort_by_cached_key(|path| natural_key(path));
        if paths.is_empty() {
            let reason = "no .mcap, .db3 or .ndjson file in this directory".to_owned();
            return Err(IngestError::Unsupported { path: directory.to_owned(), reason });
        }
        Ok(Self { waiting: paths.into(), current: None, options: options.clone() })
    }
}

impl Source for DirectorySource {
    fn next(&mut self) -> Result<Option<SourceItem>, IngestError> {
        loop {
            if let Some(source) = &mut self.current {
                match source.next() {
                    Ok(Some(item)) => return Ok(Some(item)),
                    Ok(None) => {}
                    Err(error) => {
                        self.current = None;
                        self.waiting.clear();
                        return Err(error);
                    }
                }
            }
            let Some(path) = self.waiting.pop_front() else {
                // The last source is kept for its schemas.
                return Ok(None);
            };
            match super::open(&path, &self.options) {
                Ok(source) => self.current = Some(source),
                // One unreadable part of a split recording does not cost the others.
                Err(error) => {
                    let reason = format!("{} was left out: {error}", path.display());
                    return Ok(Some(SourceItem::Damaged { reason }));
                }
            }
        }
    }

    fn schema_paths(&self, topic: &str) -> Option<SchemaPaths> {
        self.current.as_ref()?.schema_paths(topic)
    }
}

/// Finds files that are finished: neither length nor time of the last write has changed for a while. Drives nothing by
/// itself; call [`DirectoryWatch::poll`] now and then.
#[derive(Debug)]
pub struct DirectoryWatch {
    directory: PathBuf,
    quiet: Duration,
    seen: BTreeMap<PathBuf, (u64, Option<SystemTime>, SystemTime)>,
    done: BTreeSet<PathBuf>,
}

impl DirectoryWatch {
    /// Watches `directory` for files that stay unchanged for `quiet`.
    #[must_use]
    pub fn new(directory: &Path, quiet: Duration) -> Self {
        Self { directory: directory.to_owned(), quiet, seen: BTreeMap::new(), done: BTreeSet::new() }
    }

    /// A file that was handled before (in an earlier run) and is not to be reported.
    pub fn mark_done(&mut self, path: &Path) {
        self.done.insert(path.to_owned());
    }

    /// The files that have become finished by `now`, each reported once, in natural order.
    ///
    /// # Errors
    /// The directory cannot be listed.
    pub fn poll(&mut self, now: SystemTime) -> Result<Vec<PathBuf>, IngestError> {
        let listed = files(&self.directory)?;
        let present: BTreeSet<_> = listed.iter().map(|f| f.0.clone()).collect();
        // What was deleted is forgotten, so both maps stay as small as the directory.
        self.seen.retain(|path, _| present.contains(path));
        self.done.retain(|path| present.contains(path));
        let mut finished = Vec::new();
        for (path, length, modified) in listed {
            if self.done.contains(&path) {
                continue;
            }
            let seen = self.seen.entry(path.clone()).or_insert((length, modified, now));
            if (seen.0, seen.1) != (length, modified) {
                *seen = (length, modified, now);
            }
            // SQLite removes its side file when the writer closes the recording.
            let open = ["-wal", "-journal"].iter().any(|suffix| {
                let mut side = path.as_os_str().to_owned();
                side.push(suffix);
                present.contains(Path::new(&side))
            });
            let side_file = path.as_os_str().as_encoded_bytes().ends_with(b"-wal")
                || path.as_os_str().as_encoded_bytes().ends_with(b"-shm")
                || path.as_os_str().as_encoded_bytes().ends_with(b"-journal");
            let quiet = now.duration_since(seen.2).unwrap_or_default() >= self.quiet;
            if quiet && !open && !side_file {
                self.seen.remove(&path);
                self.done.insert(path.clone());
                finished.push(path);
            }
        }
        finished.sort_by_cached_key(|path| natural_key(path));
        Ok(finished)
    }
}
