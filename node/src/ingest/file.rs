//! Any file as its bytes: read in slices, in order, unchanged.

use std::{
    fs::File,
    io::{ErrorKind, Read},
    path::{Path, PathBuf},
    sync::Arc,
    time::UNIX_EPOCH,
};

use tributary_protocol::rules::native::SchemaPaths;

use super::{Content, IngestError, Source, SourceItem, SourceMessage};

/// Bytes per slice, except the last.
const SLICE: usize = 256 << 10;

/// The bytes of one file in slices. The length is that of the moment of opening: what is appended later is not read, and a
/// file that shrinks is an error, so that a dataset never holds a mixture.
pub struct FileSlices {
    path: PathBuf,
    file: File,
    length: u64,
    modified_ns: u64,
    offset: u64,
}

impl FileSlices {
    /// Opens a file.
    ///
    /// # Errors
    /// It cannot be read or is not a regular file.
    pub fn open(path: &Path) -> Result<Self, IngestError> {
        let io = |source| IngestError::Io { path: path.to_owned(), source };
        let file = File::open(path).map_err(io)?;
        let metadata = file.metadata().map_err(io)?;
        if !metadata.is_file() {
            let reason = "not a regular file".to_owned();
            return Err(IngestError::Unsupported { path: path.to_owned(), reason });
        }
        let modified = metadata.modified().ok().and_then(|t| t.duration_since(UNIX_EPOCH).ok()).unwrap_or_default();
        let modified_ns = u64::try_from(modified.as_nanos()).unwrap_or(u64::MAX);
        Ok(Self { path: path.to_owned(), file, length: metadata.len(), modified_ns, offset: 0 })
    }

    /// Bytes of the file.
    #[must_use]
    pub fn length(&self) -> u64 {
        self.length
    }

    /// When it was last written, nanoseconds since 1970.
    #[must_use]
    pub fn modified_ns(&self) -> u64 {
        self.modified_ns
    }

    /// Reads the next bytes into `buffer`, filling it unless the file ends; 0 at the end.
    ///
    /// # Errors
    /// The file cannot be read, or became shorter.
    pub fn read(&mut self, buffer: &mut [u8]) -> Result<usize, IngestError> {
        let left = usize::try_from(self.length - self.offset).unwrap_or(usize::MAX);
        let want = buffer.len().min(left);
        self.file.read_exact(&mut buffer[..want]).map_err(|source| match source.kind() {
            ErrorKind::UnexpectedEof => IngestError::Unsupported {
                path: self.path.clone(),
                reason: "became shorter while it was read; ingest it when it is finished".to_owned(),
            },
            _ => IngestError::Io { path: self.path.clone(), source },
        })?;
        self.offset += want as u64;
        Ok(want)
    }
}

/// A [`Source`] over the slices of one file; its topic is the file's name.
pub struct FileSource {
    slices: FileSlices,
    topic: Arc<str>,
    type_name: Arc<str>,
    ended: bool,
}

impl FileSource {
    /// Opens a file.
    ///
    /// # Errors
    /// As [`FileSlices::open`].
    pub fn open(path: &Path) -> Result<Self, IngestError> {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        Ok(Self {
            slices: FileSlices::open(path)?,
            topic: Arc::from(&*name),
            type_name: Arc::from("file"),
            ended: false,
        })
    }
}

impl Source for FileSource {
    fn next(&mut self) -> Result<Option<SourceItem>, IngestError> {
        if self.ended {
            return Ok(None);
        }
        let offset = self.slices.offset;
        let left = usize::try_from(self.slices.length - offset).unwrap_or(usize::MAX);
        let mut bytes = vec![0; left.min(SLICE)];
        let read = self.slices.read(&mut bytes).inspect_err(|_| self.ended = true)?;
        if read == 0 {
            self.ended = true;
            return Ok(None);
        }
        Ok(Some(SourceItem::Message(SourceMessage {
            topic: Arc::clone(&self.topic),
            type_name: Arc::clone(&self.type_name),
            log_time_ns: self.slices.modified_ns,
            publish_time_ns: self.slices.modified_ns,
            content: Content::Slice { bytes, offset },
        })))
    }

    fn schema_paths(&self, _topic: &str) -> Option<SchemaPaths> {
        None
    }
}
