//! Rolling NDJSON files: `<stream>-<8 digits of its id>-<number>.ndjson`, blobs beside them in `blobs`.
//!
//! Owns one growing file. Lines are appended and synced, then the caller notes the length; whatever a kill leaves behind that
//! length is cut when the file is opened again, so that every line is there once. A file that has grown enough is finished,
//! and never touched again. Files that are not ours are never overwritten.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, BufWriter, Seek as _, SeekFrom, Write as _},
    path::{Path, PathBuf},
};

use tributary_protocol::ids::StreamId;

use super::{SinkTerms, row::SinkState};
use crate::{
    buyer::export::safe_name,
    export::{ExportError, PlainPackage, write_blobs},
};

/// Writes that are collected before they go to the system, bytes.
const BUFFER: usize = 256 << 10;

/// A file cannot be written.
#[derive(Debug, thiserror::Error)]
pub(super) enum SinkError {
    #[error("cannot write {path}; make room, or correct the folder")]
    Io { path: PathBuf, source: io::Error },
    #[error(transparent)]
    Blob(#[from] ExportError),
}

/// Where file `number` of a stream lies.
pub(super) fn path(terms: &SinkTerms, name: &str, stream: &StreamId, number: u64) -> PathBuf {
    let id: String = stream.to_string().chars().take(8).collect();
    let name = safe_name(name);
    let dash = if name.is_empty() { "" } else { "-" };
    terms.dir.join(format!("{name}{dash}{id}-{number:06}.ndjson"))
}

/// The file that grows.
pub(super) struct Sink {
    terms: SinkTerms,
    name: String,
    stream: StreamId,
    state: SinkState,
    file: BufWriter<File>,
}

impl Sink {
    /// The state of the first file: one that nobody has written. Makes the folder.
    pub(super) fn begin(terms: &SinkTerms, name: &str, stream: &StreamId) -> Result<SinkState, SinkError> {
        let io = |source| SinkError::Io { path: terms.dir.clone(), source };
        fs::create_dir_all(&terms.dir).map_err(io)?;
        Ok(SinkState { file: free(terms, name, stream, 1), len: 0 })
    }

    /// Opens the file of a noted state, and cuts what is behind it. `Ok(Err(state))` when the file is shorter than noted or
    /// gone: somebody took it away, and the state of the next free one is to be noted first.
    pub(super) fn open(
        terms: &SinkTerms,
        name: &str,
        stream: &StreamId,
        state: SinkState,
    ) -> Result<Result<Self, SinkState>, SinkError> {
        let path = path(terms, name, stream, state.file);
        let io = |source| SinkError::Io { path: path.clone(), source };
        fs::create_dir_all(&terms.dir).map_err(io)?;
        let found = match fs::metadata(&path) {
            Ok(found) => found.len(),
            Err(error) if error.kind() == io::ErrorKind::NotFound => 0,
            Err(error) => return Err(io(error)),
        };
        if found < state.len {
            tracing::warn!(path = %path.display(), found, noted = state.len, "a file was taken away; the next one is begun");
            return Ok(Err(SinkState { file: free(terms, name, stream, state.file.saturating_add(1)), len: 0 }));
        }
        let mut file =
            OpenOptions::new().read(true).write(true).create(true).truncate(false).open(&path).map_err(io)?;
        file.set_len(state.len).map_err(io)?;
        file.seek(SeekFrom::Start(state.len)).map_err(io)?;
        // The name is durable only when its directory is.
        File::open(&terms.dir).and_then(|dir| dir.sync_all()).map_err(io)?;
        let (terms, name, stream) = (terms.clone(), name.to_owned(), *stream);
        Ok(Ok(Self { terms, name, stream, state, file: BufWriter::with_capacity(BUFFER, file) }))
    }

    fn path(&self) -> PathBuf {
        path(&self.terms, &self.name, &self.stream, self.state.file)
    }

    /// Appends a package. It counts when the state that [`Sink::sync`] returns is noted.
    pub(super) fn write(&mut self, package: &PlainPackage) -> Result<(), SinkError> {
        if !package.blobs.is_empty() {
            let blobs = self.terms.dir.join("blobs");
            fs::create_dir_all(&blobs).map_err(|source| SinkError::Io { path: blobs.clone(), source })?;
            write_blobs(&blobs, package)?;
        }
        let written = self.file.write_all(&package.line).and_then(|()| self.file.write_all(b"\n"));
        written.map_err(|source| SinkError::Io { path: self.path(), source })?;
        self.state.len += package.line.len() as u64 + 1;
        Ok(())
    }

    /// Makes what was written durable. Returns the state to note.
    pub(super) fn sync(&mut self) -> Result<SinkState, SinkError> {
        let synced = self.file.flush().and_then(|()| self.file.get_ref().sync_data());
        synced.map_err(|source| SinkError::Io { path: self.path(), source })?;
        Ok(self.state)
    }

    /// The state of the next file, when this one has grown enough. To be noted with the end of this one, before it is opened.
    pub(super) fn next(&self) -> Option<SinkState> {
        let full = self.state.len >= self.terms.rotate_bytes;
        let next = || free(&self.terms, &self.name, &self.stream, self.state.file.saturating_add(1));
        full.then(|| SinkState { file: next(), len: 0 })
    }
}

/// The first number from `from` on that no file has.
fn free(terms: &SinkTerms, name: &str, stream: &StreamId, from: u64) -> u64 {
    let taken = |number: &u64| Path::exists(&path(terms, name, stream, *number));
    (from..u64::MAX).find(|number| !taken(number)).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use tributary_protocol::{json::Number, package::DataPackage};

    use super::*;

    fn package(text: &str) -> PlainPackage {
        use tributary_protocol::{identity::IdentityKey, json::Object, package::PackageSigner};
        let identity = std::sync::Arc::new(IdentityKey::generate(&mut rand::rng()));
        let mut signer = PackageSigner::new(identity, "identity", "1").expect("made");
        let mut payload = Object::default();
        payload.insert("text", text);
        let mut line = Vec::new();
        let stamp = "2026-09-21T12:00:00.000000000Z";
        signer.sign_into(&mut line, stamp, &Number::from(1u64), &payload).expect("signed");
        let package = DataPackage::from_json(&line).expect("a package");
        PlainPackage { line, package, blobs: Vec::new() }
    }

    fn world() -> (tempfile::TempDir, SinkTerms, StreamId) {
        let dir = tempfile::tempdir().expect("made");
        let terms = SinkTerms { dir: dir.path().join("out"), rotate_bytes: 1 };
        (dir, terms, StreamId::from_bytes([7; 32]))
    }

    #[test]
    fn what_was_not_noted_is_cut() {
        let (_dir, terms, stream) = world();
        let state = Sink::begin(&terms, "/imu", &stream).expect("begun");
        let mut sink = Sink::open(&terms, "/imu", &stream, state).expect("opens").expect("whole");
        sink.write(&package("kept")).expect("written");
        let noted = sink.sync().expect("synced");
        sink.write(&package("lost")).expect("written");
        sink.sync().expect("synced");
        drop(sink);
        let path = path(&terms, "/imu", &stream, 1);
        assert!(path.ends_with("imu-07070707-000001.ndjson"), "{path:?}");
        assert!(fs::metadata(&path).expect("there").len() > noted.len, "more was written than noted");
        let mut sink = Sink::open(&terms, "/imu", &stream, noted).expect("opens").expect("whole");
        sink.write(&package("again")).expect("written");
        sink.sync().expect("synced");
        let text = fs::read_to_string(&path).expect("read");
        assert_eq!(text.lines().count(), 2);
        assert!(text.contains("kept") && text.contains("again") && !text.contains("lost"));
    }

    #[test]
    fn a_full_file_is_followed_by_the_next_and_no_other_file_is_touched() {
        let (_dir, terms, stream) = world();
        let state = Sink::begin(&terms, "/imu", &stream).expect("begun");
        fs::write(path(&terms, "/imu", &stream, 2), "somebody else's").expect("written");
        let mut sink = Sink::open(&terms, "/imu", &stream, state).expect("opens").expect("whole");
        assert_eq!(sink.next(), None);
        sink.write(&package("one")).expect("written");
        sink.sync().expect("synced");
        assert_eq!(sink.next(), Some(SinkState { file: 3, len: 0 }));
        let again = Sink::begin(&terms, "/imu", &stream).expect("begun");
        assert_eq!(again, SinkState { file: 3, len: 0 }, "also by one that knows nothing of the first");
        // A file that was moved away is not missed, and nothing is written into its place.
        fs::remove_file(path(&terms, "/imu", &stream, 1)).expect("removed");
        let moved = Sink::open(&terms, "/imu", &stream, SinkState { file: 1, len: 5 }).expect("looked");
        assert_eq!(moved.err(), Some(SinkState { file: 3, len: 0 }));
    }
}
