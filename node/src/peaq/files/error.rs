//! Why files could not be read or written. That files are not what they claim is no error but a verdict.

use std::path::{Path, PathBuf};

use tributary_protocol::{
    ids::DatasetId,
    peaq::{ReadError, StreamError},
};
use tributary_store::StoreError;

use super::super::own::OwnError;
use crate::machine::{MachineError, OwnBindingError};

/// Why peaq's files could not be read or written.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum FilesError {
    /// The file system refused.
    #[error("{} cannot be {action}", path.display())]
    Io {
        /// The file or folder.
        path: PathBuf,
        /// Read, listed, written…
        action: &'static str,
        /// Why.
        source: std::io::Error,
    },
    /// A link, a device, a pipe, a folder.
    #[error("{} is no regular file; links and devices are not followed", path.display())]
    NotRegular {
        /// The file.
        path: PathBuf,
    },
    /// Longer than such a file may be.
    #[error("{} has {found} bytes, more than the {max} that are read", path.display())]
    TooLarge {
        /// The file.
        path: PathBuf,
        /// Its length.
        found: u64,
        /// The bound.
        max: usize,
    },
    /// More files than a folder of them may have, or more bytes.
    #[error("{} holds more access files than are read (10000 files, 1 GiB); give the folder of one buyer", path.display())]
    TooMany {
        /// The folder.
        path: PathBuf,
    },
    /// No such file where one must be.
    #[error("{} is not there; {hint}", path.display())]
    Missing {
        /// The file or folder.
        path: PathBuf,
        /// What to do.
        hint: &'static str,
    },
    /// A file that is not of its format.
    #[error("{} is not of peaq's format", path.display())]
    Format {
        /// The file.
        path: PathBuf,
        /// Why.
        source: ReadError,
    },
    /// Something must not be written over.
    #[error("{} is there already and is not an empty folder; name another one, or remove it", path.display())]
    Occupied {
        /// The folder.
        path: PathBuf,
    },
    /// No key file.
    #[error("{} does not hold a private X25519 key; 64 hex digits are expected, with or without 0x", path.display())]
    KeyFile {
        /// The file.
        path: PathBuf,
    },
    /// A key or a name that peaq's format does not take.
    #[error("{what} cannot be used: {source}")]
    Value {
        /// Which one.
        what: &'static str,
        /// Why.
        source: StreamError,
    },
    /// Something about one chunk.
    #[error("chunk {index} cannot be granted: {source}")]
    Chunk {
        /// Its index.
        index: u64,
        /// Why.
        source: StreamError,
    },
    /// The folder's chunks are not 0, 1, 2 and so on.
    #[error("chunk-{index}.json says that it is chunk {found}; the folder is not what a publisher wrote")]
    Order {
        /// The number in the name.
        index: u64,
        /// The number inside.
        found: u64,
    },
    /// A chunk is missing between others.
    #[error("chunk-{index}.json is missing, and {} is there; get the whole folder again", behind.display())]
    Gap {
        /// Its index.
        index: u64,
        /// A file behind it.
        behind: PathBuf,
    },
    /// The buyer has no key for a chunk.
    #[error("there is no key for chunk {index}; ask the owner of the data for access to all of it")]
    NoAccess {
        /// Its index.
        index: u64,
    },
    /// The buyer's key does not open what is for it.
    #[error("the key for chunk {index} does not open with this private key; is it the buyer's?")]
    WrongKey {
        /// Its index.
        index: u64,
    },
    /// No such closed dataset of this machine.
    #[error("this machine has no closed dataset {0}; list them with `tributary dataset ls`")]
    NoDataset(DatasetId),
    /// Compressed chunks, which peaq's tools would hand over as they are.
    #[error("dataset {0} is compressed, which peaq's tools do not undo; publish on a stream with `compression: none`")]
    Compressed(DatasetId),
    /// A chunk that peaq's peer-to-peer delivery has no room for.
    #[error(
        "a chunk of {found} bytes is too large for peaq's delivery, which takes at most {max} bytes in a chunk; set `chunk.bytes` of the stream to less, or say --any-chunk-size if the files are handed over in another way"
    )]
    ChunkTooLarge {
        /// Bytes of plaintext.
        found: u64,
        /// The limit, bytes of plaintext.
        max: u64,
    },
    /// The manifest would be longer than anybody reads.
    #[error("dataset {0} has too many chunks for one folder; publish it in larger chunks or in parts")]
    TooManyChunks(DatasetId),
    /// A chunk's bytes are gone.
    #[error("the bytes of chunk {index} are not here any more; retention has dropped them")]
    Dropped {
        /// Its index.
        index: u64,
    },
    /// A chunk in the store is not what its record says.
    #[error("chunk {index} in the store is damaged: {reason}; run `tributary store check`")]
    Damaged {
        /// Its index.
        index: u64,
        /// What is wrong.
        reason: String,
    },
    /// The work was cut off.
    #[error("cancelled, and nothing was written")]
    Cancelled,
    /// The store refused.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The machine refused.
    #[error(transparent)]
    Machine(#[from] Box<MachineError>),
    /// The machine's bindings cannot be read.
    #[error(transparent)]
    Binding(#[from] Box<OwnBindingError>),
}

impl FilesError {
    pub(super) fn io<'a>(action: &'static str, path: &'a Path) -> impl Fn(std::io::Error) -> Self + 'a {
        move |source| Self::Io { path: path.to_owned(), action, source }
    }
}

impl From<OwnError> for FilesError {
    fn from(error: OwnError) -> Self {
        match error {
            OwnError::NotFound(dataset) => Self::NoDataset(dataset),
            OwnError::Damaged { index, reason } => Self::Damaged { index, reason },
            OwnError::Store(error) => error.into(),
            OwnError::Machine(error) => error.into(),
        }
    }
}
