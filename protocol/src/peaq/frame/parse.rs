//! A line into a frame.

use std::borrow::Cow;

use serde::Deserialize;
use serde_json::Value;

use super::{ChunkFrame, ErrorFrame, Frame, FrameError, Handshake};
use crate::peaq::envelope::Envelope;

const TYPES: [&str; 4] = ["handshake", "chunk", "complete", "error"];

/// A text that stays in the line. `Option<Cow<str>>` alone would copy it.
#[derive(Deserialize)]
#[serde(transparent)]
struct Text<'a>(#[serde(borrow)] Cow<'a, str>);

/// A `null` that is there is something else than nothing.
fn present<'de, D: serde::Deserializer<'de>>(source: D) -> Result<Option<Value>, D::Error> {
    Value::deserialize(source).map(Some)
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Raw<'a> {
    #[serde(borrow, rename = "type")]
    kind: Option<Text<'a>>,
    purchase_id: Option<String>,
    session_id: Option<String>,
    buyer_id: Option<String>,
    chunk_id: Option<String>,
    index: Option<u64>,
    envelope: Option<Envelope>,
    #[serde(borrow)]
    ciphertext_b64: Option<Text<'a>>,
    #[serde(default, deserialize_with = "present")]
    total_chunks: Option<Value>,
    code: Option<String>,
    reason: Option<String>,
}

impl<'a> Frame<'a> {
    /// Reads a line, given without its newline.
    ///
    /// # Errors
    /// [`FrameError::Malformed`] or [`FrameError::Shape`]. The length was checked by [`super::lines`].
    pub fn parse(line: &'a [u8]) -> Result<Self, FrameError> {
        let text = std::str::from_utf8(line).map_err(|_| FrameError::Malformed)?;
        let raw: Raw<'a> = serde_json::from_str(text).map_err(|error| blame(text, &error))?;
        raw.frame()
    }
}

/// Why a line was not read, found in a second pass that only bad lines need.
fn blame(text: &str, error: &serde_json::Error) -> FrameError {
    if !error.is_data() {
        return FrameError::Malformed;
    }
    match serde_json::from_str::<Value>(text) {
        Ok(Value::Object(object)) => {
            let known = object.get("type").and_then(Value::as_str).is_some_and(|kind| TYPES.contains(&kind));
            if known { FrameError::Shape } else { FrameError::Malformed }
        }
        Ok(_) => FrameError::Shape,
        Err(_) => FrameError::Malformed,
    }
}

impl<'a> Raw<'a> {
    fn frame(self) -> Result<Frame<'a>, FrameError> {
        let missing = FrameError::Shape;
        let kind = self.kind.ok_or(FrameError::Malformed)?.0;
        match kind.as_ref() {
            "handshake" => Ok(Frame::Handshake(Handshake {
                purchase_id: self.purchase_id.ok_or(missing)?,
                session_id: self.session_id.ok_or(missing)?,
                buyer_id: self.buyer_id.ok_or(missing)?,
            })),
            "chunk" => Ok(Frame::Chunk(ChunkFrame {
                chunk_id: self.chunk_id.ok_or(missing)?,
                index: self.index.ok_or(missing)?,
                envelope: self.envelope.ok_or(missing)?,
                ciphertext_b64: self.ciphertext_b64.ok_or(missing)?.0,
            })),
            "complete" => Ok(Frame::Complete { total_chunks: self.total_chunks.ok_or(missing)? }),
            "error" => {
                Ok(Frame::Error(ErrorFrame { code: self.code.ok_or(missing)?, reason: self.reason.ok_or(missing)? }))
            }
            _ => Err(FrameError::Malformed),
        }
    }
}
