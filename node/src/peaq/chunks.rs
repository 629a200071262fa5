//! Where the chunks of a delivery come from.

use std::path::PathBuf;

use tributary_protocol::{
    ids::DatasetId,
    peaq::{
        ReadError, StreamError,
        envelope::Envelope,
        frame::{MAX_FRAME_BYTES, chunk_frame_len, max_ciphertext_len},
    },
    record::TAG_LEN,
};
use tributary_store::StoreError;

use crate::machine::MachineError;

/// A chunk as it is delivered.
#[derive(Debug, Clone)]
pub struct Chunk {
    /// Its envelope.
    pub envelope: Envelope,
    /// Its ciphertext.
    pub ciphertext: Vec<u8>,
}

/// The chunks of one delivery, in order. Everything here may block.
pub trait ChunkSource: Send + Sync + 'static {
    /// How many chunks there are.
    fn count(&self) -> u64;

    /// The chunk at this place, from 0.
    ///
    /// # Errors
    /// When it is not there any more, or is not what it was.
    fn read(&self, place: u64) -> Result<Chunk, ChunkError>;

    /// The place of the chunk with this id.
    fn find(&self, chunk_id: &str) -> Option<u64>;
}

/// Why chunks cannot be delivered.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ChunkError {
    /// A frame would be too long for every buyer of peaq's.
    #[error(
        "chunk {index} has {found} bytes, and peaq's buyers take frames of at most {MAX_FRAME_BYTES} bytes, in which {max} bytes of a chunk have room; publish with a smaller chunk size"
    )]
    TooLarge {
        /// Its index.
        index: u64,
        /// Plaintext bytes found.
        found: usize,
        /// Plaintext bytes that have room.
        max: usize,
    },
    /// No such closed dataset of this machine.
    #[error("this machine has no closed dataset {0}; list them with `tributary dataset ls`")]
    NoDataset(DatasetId),
    /// peaq's tools do not undo compression.
    #[error("dataset {0} is compressed, which peaq's tools do not undo; publish on a stream with `compression: none`")]
    Compressed(DatasetId),
    /// A chunk's bytes are gone.
    #[error("the bytes of chunk {index} are not here any more; retention has dropped them")]
    Dropped {
        /// Its index.
        index: u64,
    },
    /// A chunk is not what its record says.
    #[error("chunk {index} is damaged: {reason}; run `tributary store check`")]
    Damaged {
        /// Its index.
        index: u64,
        /// What is wrong.
        reason: String,
    },
    /// A party or a name that peaq's format does not take.
    #[error("the section `peaq` of the configuration cannot be used: {0}")]
    Party(#[source] StreamError),
    /// The folder has no chunks.
    #[error(
        "{} holds no chunks of peaq's; expected chunk-0.json and chunk-0.bin, or the agent's manifests.json",
        path.display()
    )]
    NoChunks {
        /// The folder.
        path: PathBuf,
    },
    /// A file cannot be read.
    #[error("{} cannot be read: {source}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// A file is not what it should be.
    #[error("{} is not as it should be: {reason}", path.display())]
    BadFile {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        reason: String,
    },
    /// The store refused.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The machine refused.
    #[error(transparent)]
    Machine(#[from] Box<MachineError>),
}

impl ChunkError {
    pub(super) fn format(path: PathBuf, error: &ReadError) -> Self {
        let source = std::error::Error::source(error).map(|source| format!(": {source}")).unwrap_or_default();
        Self::BadFile { path, reason: format!("{error}{source}") }
    }
}

/// Refuses a chunk that no buyer of peaq's could take.
pub(super) fn check_frame(envelope: &Envelope, ciphertext_len: usize) -> Result<(), ChunkError> {
    if chunk_frame_len(envelope, ciphertext_len) <= MAX_FRAME_BYTES {
        return Ok(());
    }
    Err(ChunkError::TooLarge {
        index: envelope.index,
        found: ciphertext_len.saturating_sub(TAG_LEN),
        max: max_ciphertext_len(envelope).saturating_sub(TAG_LEN),
    })
}
