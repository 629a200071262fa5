//! What can be said of a frame without the others: nearly all of the work.

use std::collections::HashMap;

use super::{Judge, ReceiveError};
use crate::{
    keys::FeedPublicKey,
    peaq::{
        StreamError,
        access::AccessEntry,
        decrypt::{check_plaintext, decrypt_unhashed, open_chunk_key},
        envelope::Envelope,
        frame::{ChunkFrame, ErrorFrame, Frame, FrameError, MAX_FRAME_BYTES, lenient, lines::Lines},
        hexes,
        sealed_box::BoxSecretKey,
        verify::signing_key,
    },
    sha256,
};

/// What a chunk's bytes are worked on in. Reused from chunk to chunk.
#[derive(Default)]
pub struct Buffers {
    ciphertext: Vec<u8>,
    plaintext: Vec<u8>,
}

impl Buffers {
    /// The plaintext of the chunk that was examined last, which is one only if the [`Judge`] says so.
    #[must_use]
    pub fn plaintext(&self) -> &[u8] {
        &self.plaintext
    }
}

/// The keys of a delivery, for examining its frames.
pub struct Examiner {
    /// By chunk id: which of the chunks that were bought it is, and its sealed key as hex.
    keys: HashMap<String, (usize, String)>,
    private: BoxSecretKey,
}

impl Examiner {
    /// For the chunks that `access` has keys for. Of two entries for one chunk the later one counts.
    #[must_use]
    pub fn new(access: impl IntoIterator<Item = AccessEntry>, private: BoxSecretKey) -> Self {
        let mut keys = HashMap::new();
        for AccessEntry { chunk_id, buyer, .. } in access {
            let next = keys.len();
            keys.entry(chunk_id).or_insert((next, String::new())).1 = buyer.wrapped_key_hex;
        }
        Self { keys, private }
    }

    /// What cuts the seller's bytes into lines. All the lines of the chunks that were bought have room in it.
    #[must_use]
    pub fn lines(&self) -> Lines {
        Lines::bounded((self.keys.len() as u64).saturating_mul(MAX_FRAME_BYTES as u64))
    }

    /// What says what to do with frames that were examined.
    #[must_use]
    pub fn judge(&self) -> Judge {
        Judge::new(self.keys.len())
    }

    /// Looks into a line. Its plaintext, if it is a chunk that opens, is in `buffers` then.
    #[must_use]
    pub fn examine(&self, line: &[u8], buffers: &mut Buffers) -> Examined {
        Examined(match Frame::parse(line) {
            Ok(Frame::Chunk(chunk)) => Content::Chunk(Box::new(self.chunk(chunk, buffers))),
            Ok(Frame::Complete { total_chunks }) => Content::Complete { total_chunks },
            Ok(Frame::Error(error)) => Content::Error(error),
            Ok(Frame::Handshake(_)) => Content::Handshake,
            Err(error) => Content::None(error),
        })
    }

    fn chunk(&self, frame: ChunkFrame<'_>, buffers: &mut Buffers) -> Chunk {
        let ChunkFrame { chunk_id, index, envelope, ciphertext_b64 } = frame;
        let signed = if chunk_id != envelope.chunk_id || index != envelope.index {
            Err(ReceiveError::Disagrees { index })
        } else if let Some((place, wrapped_hex)) = self.keys.get(&chunk_id) {
            Ok((*place, self.open(&envelope, wrapped_hex, &ciphertext_b64, buffers)))
        } else {
            Err(ReceiveError::Unauthorized { index })
        };
        Chunk { envelope, bought: signed }
    }

    fn open(
        &self,
        envelope: &Envelope,
        wrapped_hex: &str,
        ciphertext_b64: &str,
        buffers: &mut Buffers,
    ) -> Result<Signed, ReceiveError> {
        let index = envelope.index;
        let Buffers { ciphertext, plaintext } = buffers;
        lenient::decode(ciphertext_b64, ciphertext)?;
        // Before it is known whether this is the ciphertext the envelope names, because both hashes together take less time than one
        // after the other.
        let opened = open_chunk_key(envelope, wrapped_hex, &self.private)
            .and_then(|key| decrypt_unhashed(envelope, &key, ciphertext, plaintext));
        let (hash, plaintext_hash) = match &opened {
            Ok(()) => sha256::digest_both(ciphertext, plaintext),
            Err(_) => (hexes::sha256(ciphertext), [0; 32]),
        };
        if hexes::hash_text(&hash) != envelope.encrypted_data_hash {
            return Err(ReceiveError::CiphertextHash { index });
        }
        let signer = signing_key(envelope, &hash).ok().flatten().ok_or(ReceiveError::Signature { index })?;
        Ok(Signed { signer, opened: opened.and_then(|()| check_plaintext(envelope, &plaintext_hash)) })
    }
}

/// A frame that was looked into.
pub struct Examined(pub(super) Content);

/// Where the bytes of a delivery are no lines.
impl From<FrameError> for Examined {
    fn from(error: FrameError) -> Self {
        Self(Content::None(error))
    }
}

pub(super) enum Content {
    Chunk(Box<Chunk>),
    Complete {
        total_chunks: serde_json::Value,
    },
    Error(ErrorFrame),
    Handshake,
    /// No frame at all.
    None(FrameError),
}

/// A chunk, with what its checks gave; those that need the chunks before it lie between them.
pub(super) struct Chunk {
    pub(super) envelope: Envelope,
    /// Its place among the chunks that were bought, if it is one of them; then, whether the ciphertext is the one that was signed.
    pub(super) bought: Result<(usize, Result<Signed, ReceiveError>), ReceiveError>,
}

/// A chunk whose ciphertext is good.
pub(super) struct Signed {
    pub(super) signer: FeedPublicKey,
    /// Whether it opened, to the plaintext that the envelope names.
    pub(super) opened: Result<(), StreamError>,
}
