//! `peaqos-json-frame-v1`: what peaq's SDK sends over a libp2p stream of [`PROTOCOL`].
//!
//! A frame is one JSON object on one line. Reading takes keys in any order, white space, unknown keys and raw UTF-8; writing is
//! byte for byte what the SDK writes: compact, pure ASCII, keys sorted at every level. A dialogue is: the buyer's handshake,
//! the seller's chunks by index, complete. Either side may send an error instead. Nothing is acknowledged.
//!
//! - [`lines`]: bytes as they arrive into lines, never holding more than [`MAX_FRAME_BYTES`]
//! - [`Frame::parse`]: a line into a frame; ciphertext stays where it lies
//! - [`Frame::encode`], [`encode_chunk`]: frames into lines
//!
//! A chunk whose frame would be over the limit can be published and sold, but peaq's buyer never takes it: sellers ask
//! [`chunk_frame_len`] first.

mod encode;
pub mod lenient;
pub mod lines;
mod parse;
#[cfg(test)]
mod tests;

use super::envelope::Envelope;

pub(super) use encode::sorted_envelope;
pub use encode::{chunk_frame_len, encode_chunk, max_ciphertext_len};

/// The libp2p protocol that carries the frames. The agent's dialect ([`super::agent`]) has the same name.
pub const PROTOCOL: &str = "/peaqos/stream/chunk/1.0.0";
/// The name of this encoding in peaq's orchestration API.
pub const ENCODING: &str = "peaqos-json-frame-v1";
/// Longest line, in bytes, without its newline. peaq's SDK has the same limit.
pub const MAX_FRAME_BYTES: usize = 1 << 20;

/// One frame; ciphertext is borrowed from the line where it has no escapes.
#[derive(Debug, Clone, PartialEq)]
#[expect(clippy::large_enum_variant, reason = "chunks are what frames are for, and one frame exists at a time")]
pub enum Frame<'a> {
    /// The buyer says what it came for.
    Handshake(Handshake),
    /// One chunk.
    Chunk(ChunkFrame<'a>),
    /// The seller has sent everything.
    Complete {
        /// Number of chunks. peaq's SDK does not look at its type before it compares, so this is any JSON value.
        total_chunks: serde_json::Value,
    },
    /// The other side gave up.
    Error(ErrorFrame),
}

/// `handshake`: first and only frame of a buyer.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Handshake {
    /// The purchase (order) id.
    pub purchase_id: String,
    /// The delivery session's id.
    pub session_id: String,
    /// The buyer's id. A name, not a proof.
    pub buyer_id: String,
}

/// `chunk`: envelope and ciphertext of one chunk.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ChunkFrame<'a> {
    /// Must be the envelope's.
    pub chunk_id: String,
    /// Must be the envelope's.
    pub index: u64,
    /// The envelope. Its schema was not looked at.
    pub envelope: Envelope,
    /// The ciphertext as base64 text; see [`lenient::decode`].
    pub ciphertext_b64: std::borrow::Cow<'a, str>,
}

/// `error`: why the other side gave up.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ErrorFrame {
    /// A [`FrameCode`] as text, or something unknown.
    pub code: String,
    /// Free text of the peer. Never shown as ours.
    pub reason: String,
}

impl ErrorFrame {
    /// An error frame.
    #[must_use]
    pub fn new(code: FrameCode, reason: &str) -> Self {
        Self { code: code.as_str().to_owned(), reason: reason.to_owned() }
    }
}

/// The codes an error frame may have.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum FrameCode {
    /// Purchase, session or buyer do not fit, or the session is taken.
    SessionMismatch,
    /// A line that is no frame, or not the one expected.
    MalformedFrame,
    /// A line over [`MAX_FRAME_BYTES`].
    FrameTooLarge,
    /// More bytes in all than the purchase can have.
    TransferTooLarge,
    /// A chunk that was not bought.
    UnauthorizedChunk,
    /// A chunk that came before.
    DuplicateChunk,
    /// A chunk that did not come.
    MissingChunk,
    /// `totalChunks` is not what came, or not what was bought.
    CountMismatch,
    /// Anything else.
    InternalError,
}

impl FrameCode {
    const ALL: [Self; 9] = [
        Self::SessionMismatch,
        Self::MalformedFrame,
        Self::FrameTooLarge,
        Self::TransferTooLarge,
        Self::UnauthorizedChunk,
        Self::DuplicateChunk,
        Self::MissingChunk,
        Self::CountMismatch,
        Self::InternalError,
    ];

    /// The text on the wire.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::SessionMismatch => "session_mismatch",
            Self::MalformedFrame => "malformed_frame",
            Self::FrameTooLarge => "frame_too_large",
            Self::TransferTooLarge => "transfer_too_large",
            Self::UnauthorizedChunk => "unauthorized_chunk",
            Self::DuplicateChunk => "duplicate_chunk",
            Self::MissingChunk => "missing_chunk",
            Self::CountMismatch => "count_mismatch",
            Self::InternalError => "internal_error",
        }
    }

    /// The code with this text.
    #[must_use]
    pub fn from_text(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|code| code.as_str() == text)
    }

    /// The coarse code of peaq's SDK for it.
    #[must_use]
    pub const fn public(self) -> PublicCode {
        match self {
            Self::FrameTooLarge | Self::TransferTooLarge | Self::InternalError => PublicCode::Transfer,
            _ => PublicCode::Protocol,
        }
    }
}

/// The coarse codes that peaq's SDK shows its users.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum PublicCode {
    /// What was agreed cannot work.
    Config,
    /// The other side did not keep to the protocol, or its data is not what it claims.
    Protocol,
    /// The transfer broke.
    Transfer,
}

impl PublicCode {
    /// peaq's text.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Config => "config",
            Self::Protocol => "protocol",
            Self::Transfer => "transfer",
        }
    }
}

/// Bytes that are no frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum FrameError {
    /// A line over the limit.
    #[error("a frame is longer than {MAX_FRAME_BYTES} bytes")]
    TooLarge,
    /// More bytes in all than were allowed.
    #[error("the transfer is longer than {max} bytes, all that the purchase can have")]
    TransferTooLarge {
        /// The bound, in bytes.
        max: u64,
    },
    /// Not JSON, not UTF-8, a `type` that is not known, or the end of the stream inside a line.
    #[error("a frame is malformed")]
    Malformed,
    /// JSON with a known type in which something is missing or of another type.
    #[error("a frame lacks a field, or has one of another type")]
    Shape,
}

impl FrameError {
    /// What peaq's SDK makes of it; `None` where its SDK stumbles over a missing key and says "receive failure".
    #[must_use]
    pub const fn code(self) -> Option<FrameCode> {
        match self {
            Self::TooLarge => Some(FrameCode::FrameTooLarge),
            Self::TransferTooLarge { .. } => Some(FrameCode::TransferTooLarge),
            Self::Malformed => Some(FrameCode::MalformedFrame),
            Self::Shape => None,
        }
    }
}
