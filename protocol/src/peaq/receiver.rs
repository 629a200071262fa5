//! The buyer's side of a delivery: frames into verified plaintext, in order.
//!
//! The checks, their order and their reasons are those of peaq's buyer, which keeps every chunk and checks the chain once more
//! at the end. Here nothing is kept but ids: a chunk that could only fail that last check marks the delivery as broken, and
//! from then on nothing is handed out, while the remaining frames are still judged, so that both end with the same reason.
//!
//! Most of the work on a frame needs no other frame: [`Examiner`] does it, several frames at a time if it is called so. The rest needs
//! to know what came before: [`Judge`] says of each frame in its turn what to do with it, and the first check that fails, whoever made
//! it, is the verdict. [`Receiver`] does one after the other.
//!
//! What was received is *consistent*: these chunks, in this order, under keys that were bought. Whose machine signed them is
//! not proven, see [`super::verify`]; the report names the key, for comparison with one that is trusted.
//!
//! No I/O and no clock: how long to wait for the next frame is the caller's business.

mod examine;
mod judge;

pub use examine::{Buffers, Examined, Examiner};
pub use judge::{Judge, Verdict};

use super::{
    StreamError,
    access::AccessEntry,
    frame::{FrameCode, FrameError, PublicCode, lines::Lines},
    sealed_box::BoxSecretKey,
    verify::ChainReport,
};

/// Why a delivery failed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ReceiveError {
    /// What came is no frame, or too much.
    #[error(transparent)]
    Frame(#[from] FrameError),
    /// The seller sent an error frame. Its free text is not repeated.
    #[error("the seller gave up: {}", .0.map_or("error", FrameCode::as_str))]
    Aborted(
        /// Its code, if it is a known one.
        Option<FrameCode>,
    ),
    /// A frame that a seller does not send.
    #[error("the seller sent a frame that only buyers send")]
    Unexpected,
    /// Frame and envelope name different chunks.
    #[error("chunk {index}: chunkId or index of the frame are not those of its envelope")]
    Disagrees {
        /// Index of the frame.
        index: u64,
    },
    /// There is no key for it.
    #[error("chunk {index} was not bought: there is no access entry for it")]
    Unauthorized {
        /// Its index.
        index: u64,
    },
    /// Its id or index came before.
    #[error("chunk {index} came twice")]
    Duplicate {
        /// Its index.
        index: u64,
    },
    /// The ciphertext is not the one the envelope names.
    #[error("chunk {index}: the ciphertext does not match encryptedDataHash")]
    CiphertextHash {
        /// Its index.
        index: u64,
    },
    /// The key in the envelope did not sign this ciphertext.
    #[error("chunk {index}: the signature is not good")]
    Signature {
        /// Its index.
        index: u64,
    },
    /// It does not follow the chunk that came just before.
    #[error("chunk {index} does not follow the chunk that came before it")]
    Linking {
        /// Its index.
        index: u64,
    },
    /// It does not open with the key that was bought.
    #[error("chunk {index} does not decrypt")]
    Decryption {
        /// Its index.
        index: u64,
        /// Where it failed.
        source: StreamError,
    },
    /// The number announced is not the number received, or not the number bought.
    #[error("the seller says that it sent {announced} chunks; {received} came and {bought} were bought")]
    Count {
        /// `totalChunks`, as JSON.
        announced: String,
        /// Chunks received.
        received: u64,
        /// Chunks there are keys for.
        bought: u64,
    },
    /// The indices are not 0, 1, 2 and so on.
    #[error("the chunks that came are not numbered from 0 without gaps")]
    Missing,
    /// The chain is broken, though every chunk in it is good.
    #[error("the chain is not consistent: index, chunkId or the signer's name is wrong in chunk {index}")]
    Chain {
        /// The first chunk that is wrong.
        index: u64,
    },
    /// The stream ended before `complete`.
    #[error("the stream ended before the seller said that it was complete")]
    Incomplete,
}

impl ReceiveError {
    /// The coarse code of peaq's SDK.
    #[must_use]
    pub const fn code(&self) -> PublicCode {
        match self {
            Self::Frame(error) => match error.code() {
                Some(code) => code.public(),
                None => PublicCode::Transfer,
            },
            Self::Aborted(Some(code)) => code.public(),
            Self::Incomplete => PublicCode::Transfer,
            _ => PublicCode::Protocol,
        }
    }

    /// The reason of peaq's SDK, word for word.
    #[must_use]
    pub const fn reason(&self) -> &'static str {
        match self {
            Self::Frame(error) => match error.code() {
                Some(code) => code.as_str(),
                None => "receive failure",
            },
            Self::Aborted(Some(code)) => code.as_str(),
            Self::Aborted(None) => "error",
            Self::Unexpected | Self::Disagrees { .. } => "malformed frame",
            Self::Unauthorized { .. } => "unauthorized chunk",
            Self::Duplicate { .. } => "duplicate chunk",
            Self::CiphertextHash { .. } => "ciphertext hash mismatch",
            Self::Signature { .. } => "signature verification failure",
            Self::Linking { .. } => "chain linking failure",
            Self::Decryption { .. } => "decryption failure",
            Self::Count { .. } => "count mismatch",
            Self::Missing => "missing chunk",
            Self::Chain { .. } => "chain verification failure",
            Self::Incomplete => "incomplete transfer",
        }
    }
}

/// What came of the bytes so far.
#[derive(Debug, PartialEq, Eq)]
pub enum Received<'a> {
    /// The next chunk's plaintext.
    Chunk {
        /// Its index; they come as 0, 1, 2 and so on.
        index: u64,
        /// Decrypted, and what the envelope names. The next chunk takes its place.
        plaintext: &'a [u8],
    },
    /// Everything came and the chain is consistent. Whatever follows is ignored.
    Complete(ChainReport),
}

/// The state of one delivery. After an error it is of no further use.
pub struct Receiver {
    examiner: Examiner,
    lines: Lines,
    buffers: Buffers,
    judge: Judge,
}

impl Receiver {
    /// A receiver for the chunks that `access` has keys for. Of two entries for one chunk the later one counts.
    #[must_use]
    pub fn new(access: impl IntoIterator<Item = AccessEntry>, private: BoxSecretKey) -> Self {
        let examiner = Examiner::new(access, private);
        let (lines, judge) = (examiner.lines(), examiner.judge());
        Self { examiner, lines, buffers: Buffers::default(), judge }
    }

    /// Takes bytes off the front of `input` until there is something to tell; `None` when `input` is used up first. Call it
    /// again with the same `input` until it returns `None`.
    ///
    /// # Errors
    /// The first check that fails.
    pub fn advance(&mut self, input: &mut &[u8]) -> Result<Option<Received<'_>>, ReceiveError> {
        while !self.judge.is_complete() {
            let Some(line) = self.lines.next(input)? else { return Ok(None) };
            let examined = self.examiner.examine(line, &mut self.buffers);
            match self.judge.judge(examined)? {
                Verdict::Chunk { index } => {
                    return Ok(Some(Received::Chunk { index, plaintext: self.buffers.plaintext() }));
                }
                Verdict::Complete(report) => return Ok(Some(Received::Complete(report))),
                Verdict::Withheld => {}
            }
        }
        *input = &[];
        Ok(None)
    }

    /// The stream has ended.
    ///
    /// # Errors
    /// Unless [`Received::Complete`] came before.
    pub fn finish(&self) -> Result<(), ReceiveError> {
        if self.judge.is_complete() {
            return Ok(());
        }
        self.lines.finish()?;
        Err(ReceiveError::Incomplete)
    }

    /// Chunks there are keys for.
    #[must_use]
    pub fn bought(&self) -> u64 {
        self.judge.bought()
    }

    /// Chunks that have come.
    #[must_use]
    pub const fn received(&self) -> u64 {
        self.judge.received()
    }
}

#[cfg(test)]
mod tests;
