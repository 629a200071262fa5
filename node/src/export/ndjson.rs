//! NDJSON export: the package lines exactly as they were signed.

use std::{
    fs,
    io::Write as _,
    path::{Path, PathBuf},
};

use super::{AtomicFile, ExportError, PlainPackage};

/// Writes package lines to one file and, if asked, each blob to `<directory>/<BLAKE3 in hex>`.
pub struct NdjsonExporter {
    file: AtomicFile,
    blobs: Option<PathBuf>,
    packages: u64,
}

impl NdjsonExporter {
    /// Begins to write `path`. Blobs go to the directory `blobs`, which is created; without it the lines hold only their
    /// hashes.
    ///
    /// # Errors
    /// The file or the directory cannot be created.
    pub fn create(path: &Path, blobs: Option<&Path>) -> Result<Self, ExportError> {
        if let Some(directory) = blobs {
            fs::create_dir_all(directory).map_err(ExportError::io(directory))?;
        }
        let file = AtomicFile::create(path).map_err(ExportError::io(path))?;
        Ok(Self { file, blobs: blobs.map(ToOwned::to_owned), packages: 0 })
    }

    /// Writes one package.
    ///
    /// # Errors
    /// The disk refused.
    pub fn write(&mut self, package: &PlainPackage) -> Result<(), ExportError> {
        if let Some(directory) = &self.blobs {
            write_blobs(directory, package)?;
        }
        let written = self.file.write_all(&package.line).and_then(|()| self.file.write_all(b"\n"));
        written.map_err(|source| ExportError::Io { path: self.file.target().to_owned(), source })?;
        self.packages += 1;
        Ok(())
    }

    /// Completes the file and says how many packages it holds.
    ///
    /// # Errors
    /// The disk refused; the target is as it was.
    pub fn finish(self) -> Result<u64, ExportError> {
        let path = self.file.target().to_owned();
        self.file.commit().map_err(ExportError::io(&path))?;
        Ok(self.packages)
    }
}

/// Writes the blobs of a package into a directory, each as a file named by its BLAKE3 in hex, unless it is there.
pub(crate) fn write_blobs(directory: &Path, package: &PlainPackage) -> Result<(), ExportError> {
    for blob in &package.blobs {
        let path = directory.join(blob.marker.hash.to_string());
        if fs::metadata(&path).is_ok_and(|m| m.len() == blob.marker.bytes) {
            continue;
        }
        let io = ExportError::io(&path);
        let mut file = AtomicFile::create(&path).map_err(&io)?;
        file.write_all(&blob.bytes).and_then(|()| file.commit()).map_err(&io)?;
    }
    Ok(())
}
