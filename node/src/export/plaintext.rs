//! The plaintext of a dataset of packages, taken apart as it arrives.

use tributary_protocol::{
    json::{Object, Value},
    package::{BlobMarker, DataPackage, MAX_LINE, PackageError},
};

use crate::ingest::{BlobField, PathSegment};

/// One package with its blobs.
#[derive(Debug, Clone, PartialEq)]
pub struct PlainPackage {
    /// The line as it was signed, without its newline.
    pub line: Vec<u8>,
    /// The package. Its signature is not checked here.
    pub package: DataPackage,
    /// Its blobs, their hashes checked, in the order of the stream; paths lead into the payload.
    pub blobs: Vec<BlobField>,
}

/// Why a plaintext is not one. Nothing behind that place can be read.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PlaintextError {
    /// A line longer than the bound, or bytes that are no lines at all.
    #[error("a package line is longer than {limit} bytes")]
    LineTooLong {
        /// The bound.
        limit: usize,
    },
    /// A line that is not a package.
    #[error("package {index} of the dataset is not a data package")]
    Package {
        /// Counted from 0.
        index: u64,
        /// Why.
        #[source]
        source: PackageError,
    },
    /// The blobs of one package are larger than the bound.
    #[error("package {index} of the dataset has {bytes} bytes of blobs; at most {limit} are read")]
    BlobsTooLarge {
        /// Counted from 0.
        index: u64,
        /// What the markers ask for.
        bytes: u64,
        /// The bound.
        limit: usize,
    },
    /// A blob's bytes are not what its marker says.
    #[error("a blob of package {index} of the dataset does not match its hash")]
    BlobHash {
        /// Counted from 0.
        index: u64,
    },
    /// The plaintext ends inside a package.
    #[error("the dataset ends inside package {index}")]
    Unfinished {
        /// Counted from 0.
        index: u64,
    },
}

/// Bounds of a [`PlaintextReader`], in bytes.
#[derive(Debug, Clone, Copy)]
pub struct PlaintextLimits {
    /// Longest line.
    pub line: usize,
    /// All blobs of one package together.
    pub blobs: usize,
}

impl Default for PlaintextLimits {
    fn default() -> Self {
        Self { line: MAX_LINE, blobs: 128 << 20 }
    }
}

/// A package whose blobs are still arriving.
struct Pending {
    line: Vec<u8>,
    package: DataPackage,
    /// In reverse: the next one is the last.
    wanted: Vec<(Vec<PathSegment>, BlobMarker)>,
    blobs: Vec<BlobField>,
    /// Bytes of the next blob so far.
    bytes: Vec<u8>,
}

/// Takes a plaintext in pieces of any size ([`PlaintextReader::push`]) and gives back whole packages
/// ([`PlaintextReader::next_package`]). Ask until there is no more before pushing again: then it holds at most one package
/// and one piece. After an error it stays at that error's place and yields nothing more.
pub struct PlaintextReader {
    limits: PlaintextLimits,
    buffer: Vec<u8>,
    /// Bytes of the buffer that are used up.
    used: usize,
    /// Bytes of the buffer known to hold no newline, counted from `used`.
    searched: usize,
    pending: Option<Pending>,
    index: u64,
    failed: bool,
}

impl PlaintextReader {
    /// A reader with these bounds.
    #[must_use]
    pub fn new(limits: PlaintextLimits) -> Self {
        Self { limits, buffer: Vec::new(), used: 0, searched: 0, pending: None, index: 0, failed: false }
    }

    /// Adds the next bytes of the plaintext.
    pub fn push(&mut self, bytes: &[u8]) {
        self.buffer.drain(..self.used);
        self.used = 0;
        self.buffer.extend_from_slice(bytes);
    }

    /// The next whole package, or `None` when more bytes are needed.
    ///
    /// # Errors
    /// The bytes are not a dataset's plaintext.
    pub fn next_package(&mut self) -> Result<Option<PlainPackage>, PlaintextError> {
        if self.failed {
            return Ok(None);
        }
        let result = self.step();
        self.failed = result.is_err();
        result
    }

    /// Whether nothing waits for more bytes: the last package has ended, and no other one has begun.
    #[must_use]
    pub fn is_between_packages(&self) -> bool {
        self.pending.is_none() && self.used == self.buffer.len()
    }

    /// Says that the plaintext is complete.
    ///
    /// # Errors
    /// It ends inside a package.
    pub fn finish(self) -> Result<(), PlaintextError> {
        if self.pending.is_some() || self.used < self.buffer.len() {
            return Err(PlaintextError::Unfinished { index: self.index });
        }
        Ok(())
    }

    fn step(&mut self) -> Result<Option<PlainPackage>, PlaintextError> {
        if self.pending.is_none() {
            let Some(line) = self.line()? else { return Ok(None) };
            self.pending = Some(self.begin(line)?);
        }
        let Some(pending) = &mut self.pending else { return Ok(None) };
        while let Some((_, marker)) = pending.wanted.last() {
            let missing = usize::try_from(marker.bytes).unwrap_or(usize::MAX) - pending.bytes.len();
            let available = &self.buffer[self.used..];
            let part = &available[..missing.min(available.len())];
            pending.bytes.extend_from_slice(part);
            self.used += part.len();
            if part.len() < missing {
                return Ok(None);
            }
            let Some((path, marker)) = pending.wanted.pop() else { break };
            let blob = BlobField::new(path, std::mem::take(&mut pending.bytes));
            if blob.marker != marker {
                return Err(PlaintextError::BlobHash { index: self.index });
            }
            pending.blobs.push(blob);
        }
        self.index += 1;
        Ok(self.pending.take().map(|p| PlainPackage { line: p.line, package: p.package, blobs: p.blobs }))
    }

    fn line(&mut self) -> Result<Option<Vec<u8>>, PlaintextError> {
        let unread = &self.buffer[self.used..];
        let limit = self.limits.line;
        let found = unread[self.searched..].iter().position(|&b| b == b'\n').map(|at| at + self.searched);
        if found.unwrap_or(unread.len()) > limit {
            return Err(PlaintextError::LineTooLong { limit });
        }
        let Some(end) = found else {
            self.searched = unread.len();
            return Ok(None);
        };
        let line = unread[..end].to_vec();
        self.used += end + 1;
        self.searched = 0;
        Ok(Some(line))
    }

    fn begin(&self, line: Vec<u8>) -> Result<Pending, PlaintextError> {
        let index = self.index;
        let package = DataPackage::from_json(&line).map_err(|source| PlaintextError::Package { index, source })?;
        let mut wanted = markers(&package.payload);
        let bytes = wanted.iter().fold(0u64, |sum, (_, marker)| sum.saturating_add(marker.bytes));
        let limit = self.limits.blobs;
        if bytes > limit as u64 {
            return Err(PlaintextError::BlobsTooLarge { index, bytes, limit });
        }
        wanted.reverse();
        Ok(Pending { line, package, wanted, blobs: Vec::new(), bytes: Vec::new() })
    }
}

/// The markers of a payload and where they stand, in the order of [`BlobMarker::all_in`].
fn markers(payload: &Object) -> Vec<(Vec<PathSegment>, BlobMarker)> {
    fn in_object(object: &Object, path: &mut Vec<PathSegment>, out: &mut Vec<(Vec<PathSegment>, BlobMarker)>) {
        let mut fields: Vec<_> =
            object.iter().filter(|(_, v)| matches!(v, Value::Object(_) | Value::Array(_))).collect();
        fields.sort_unstable_by_key(|(key, _)| *key);
        for (key, value) in fields {
            path.push(PathSegment::Key(key.to_owned()));
            in_value(value, path, out);
            path.pop();
        }
    }
    // A parsed line nests at most 128 levels, and so does this.
    fn in_value(value: &Value, path: &mut Vec<PathSegment>, out: &mut Vec<(Vec<PathSegment>, BlobMarker)>) {
        match value {
            Value::Object(object) => match BlobMarker::from_value(value) {
                Some(marker) => out.push((path.clone(), marker)),
                None => in_object(object, path, out),
            },
            Value::Array(list) => {
                for (index, item) in list.iter().enumerate() {
                    path.push(PathSegment::Index(index));
                    in_value(item, path, out);
                    path.pop();
                }
            }
            _ => {}
        }
    }
    let mut out = Vec::new();
    in_object(payload, &mut Vec::new(), &mut out);
    out
}
