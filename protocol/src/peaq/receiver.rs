//! The buyer's side of a delivery: frames into verified plaintext, in order.
//!
//! The checks, their order and their reasons are those of peaq's buyer, which keeps every chunk and checks the chain once more
//! at the end. Here nothing is kept but ids: a chunk that could only fail that last check marks the delivery as broken, and
//! from then on nothing is handed out, while the remaining frames are still judged, so that both end with the same reason.
//!
//! What was received is *consistent*: these chunks, in this order, under keys that were bought. Whose machine signed them is
//! not proven, see [`super::verify`]; the report names the key, for comparison with one that is trusted.
//!
//! No I/O and no clock: how long to wait for the next frame is the caller's business.

use std::collections::{HashMap, HashSet};

use super::{
    StreamError,
    access::AccessEntry,
    chain::chunk_id,
    decrypt::{check_plaintext, decrypt_unhashed, open_chunk_key},
    frame::{ChunkFrame, Frame, FrameCode, FrameError, MAX_FRAME_BYTES, PublicCode, lenient, lines::Lines},
    hexes,
    sealed_box::BoxSecretKey,
    verify::{ChainReport, is_named, signing_key},
};
use crate::{keys::FeedPublicKey, sha256};

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

/// What came of a frame.
enum Step {
    /// The plaintext may be handed out.
    Chunk {
        index: u64,
    },
    /// The chunk is good, but one before it has broken the chain.
    Withheld,
    Complete(ChainReport),
}

struct Key {
    wrapped_hex: String,
    used: bool,
}

/// The state of one delivery. After an error it is of no further use.
pub struct Receiver {
    /// One per chunk that was bought.
    keys: HashMap<String, Key>,
    private: BoxSecretKey,
    lines: Lines,
    /// Both are reused from chunk to chunk.
    ciphertext: Vec<u8>,
    plaintext: Vec<u8>,
    received: u64,
    /// At most as many as there are keys.
    indices: HashSet<u64>,
    previous: Option<String>,
    /// The first chunk that the last check of the chain would refuse.
    broken: Option<u64>,
    signer: Option<FeedPublicKey>,
    machine_did: Option<String>,
    complete: bool,
}

impl Receiver {
    /// A receiver for the chunks that `access` has keys for. Of two entries for one chunk the later one counts.
    #[must_use]
    pub fn new(access: impl IntoIterator<Item = AccessEntry>, private: BoxSecretKey) -> Self {
        let keys: HashMap<_, _> = access
            .into_iter()
            .map(|entry| (entry.chunk_id, Key { wrapped_hex: entry.buyer.wrapped_key_hex, used: false }))
            .collect();
        let lines = Lines::bounded((keys.len() as u64).saturating_mul(MAX_FRAME_BYTES as u64));
        Self {
            keys,
            private,
            lines,
            ciphertext: Vec::new(),
            plaintext: Vec::new(),
            received: 0,
            indices: HashSet::new(),
            previous: None,
            broken: None,
            signer: None,
            machine_did: None,
            complete: false,
        }
    }

    /// Takes bytes off the front of `input` until there is something to tell; `None` when `input` is used up first. Call it
    /// again with the same `input` until it returns `None`.
    ///
    /// # Errors
    /// The first check that fails.
    pub fn advance(&mut self, input: &mut &[u8]) -> Result<Option<Received<'_>>, ReceiveError> {
        while !self.complete {
            // The line is lent by `self.lines` while the rest of `self` works on it.
            let mut lines = std::mem::take(&mut self.lines);
            let step = match lines.next(input) {
                Ok(None) => Ok(None),
                Ok(Some(line)) => {
                    Frame::parse(line).map_err(ReceiveError::from).and_then(|frame| self.frame(frame)).map(Some)
                }
                Err(error) => Err(error.into()),
            };
            self.lines = lines;
            match step? {
                None => return Ok(None),
                Some(Step::Chunk { index }) => {
                    return Ok(Some(Received::Chunk { index, plaintext: &self.plaintext }));
                }
                Some(Step::Complete(report)) => return Ok(Some(Received::Complete(report))),
                Some(Step::Withheld) => {}
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
        if self.complete {
            return Ok(());
        }
        self.lines.finish()?;
        Err(ReceiveError::Incomplete)
    }

    /// Chunks there are keys for.
    #[must_use]
    pub fn bought(&self) -> u64 {
        self.keys.len() as u64
    }

    /// Chunks that have come.
    #[must_use]
    pub const fn received(&self) -> u64 {
        self.received
    }

    fn frame(&mut self, frame: Frame<'_>) -> Result<Step, ReceiveError> {
        match frame {
            Frame::Chunk(chunk) => self.chunk(chunk),
            Frame::Complete { total_chunks } => self.end(&total_chunks).map(Step::Complete),
            Frame::Error(error) => Err(ReceiveError::Aborted(FrameCode::from_text(&error.code))),
            Frame::Handshake(_) => Err(ReceiveError::Unexpected),
        }
    }

    fn chunk(&mut self, frame: ChunkFrame<'_>) -> Result<Step, ReceiveError> {
        let ChunkFrame { chunk_id: id, index, envelope, ciphertext_b64 } = frame;
        if id != envelope.chunk_id || index != envelope.index {
            return Err(ReceiveError::Disagrees { index });
        }
        let key = self.keys.get_mut(&id).ok_or(ReceiveError::Unauthorized { index })?;
        if key.used || self.indices.contains(&index) {
            return Err(ReceiveError::Duplicate { index });
        }
        lenient::decode(&ciphertext_b64, &mut self.ciphertext)?;
        // Before its turn, because both hashes together take less time than one after the other; judged in its turn.
        let opened = open_chunk_key(&envelope, &key.wrapped_hex, &self.private)
            .and_then(|key| decrypt_unhashed(&envelope, &key, &self.ciphertext, &mut self.plaintext));
        let (hash, plaintext_hash) = sha256::digest_both(&self.ciphertext, &self.plaintext);
        if hexes::hash_text(&hash) != envelope.encrypted_data_hash {
            return Err(ReceiveError::CiphertextHash { index });
        }
        let signer = signing_key(&envelope, &hash).ok().flatten().ok_or(ReceiveError::Signature { index })?;
        if envelope.previous_chunk_id != self.previous {
            return Err(ReceiveError::Linking { index });
        }
        opened
            .and_then(|()| check_plaintext(&envelope, &plaintext_hash))
            .map_err(|source| ReceiveError::Decryption { index, source })?;

        key.used = true;
        self.indices.insert(index);
        let linked = index == self.received
            && is_named(&envelope.signature)
            && chunk_id(self.previous.as_deref(), &envelope.encrypted_data_hash, index) == id;
        if !linked {
            self.broken.get_or_insert(index);
        }
        if self.received == 0 {
            self.signer = Some(signer);
            self.machine_did = Some(envelope.signature.machine_did);
        } else {
            self.signer = self.signer.filter(|known| *known == signer);
            self.machine_did = self.machine_did.take().filter(|known| *known == envelope.signature.machine_did);
        }
        self.previous = Some(id);
        self.received += 1;
        Ok(if self.broken.is_none() { Step::Chunk { index } } else { Step::Withheld })
    }

    fn end(&mut self, total: &serde_json::Value) -> Result<ChainReport, ReceiveError> {
        let received = self.received;
        let bought = self.bought();
        // Python compares numbers by value, so 3.0 is 3.
        #[expect(clippy::cast_precision_loss, reason = "counts are far below 2^53")]
        let is_total = |count: u64| total.as_u64() == Some(count) || total.as_f64() == Some(count as f64);
        if !is_total(received) || received != bought {
            let announced = total.to_string().chars().take(40).collect();
            return Err(ReceiveError::Count { announced, received, bought });
        }
        if (0..received).any(|index| !self.indices.contains(&index)) {
            return Err(ReceiveError::Missing);
        }
        if let Some(index) = self.broken {
            return Err(ReceiveError::Chain { index });
        }
        if received == 0 {
            // Nothing was bought and nothing came: a chain of no chunks is none.
            return Err(ReceiveError::Chain { index: 0 });
        }
        self.complete = true;
        Ok(ChainReport { total_chunks: received, signer: self.signer, machine_did: self.machine_did.take() })
    }
}

#[cfg(test)]
mod tests;
