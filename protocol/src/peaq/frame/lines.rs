//! Bytes as they arrive, cut into lines.

use super::{FrameError, MAX_FRAME_BYTES};

/// Collects bytes until a line is whole. Holds one line, at most [`MAX_FRAME_BYTES`].
#[derive(Debug, Default)]
pub struct Lines {
    line: Vec<u8>,
    /// The line was handed out and its bytes are of no further use.
    taken: bool,
    total: u64,
    max_total: Option<u64>,
}

impl Lines {
    /// Lines without a bound on their sum.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Lines of at most `max_total` bytes together, newlines included.
    #[must_use]
    pub fn bounded(max_total: u64) -> Self {
        Self { max_total: Some(max_total), ..Self::default() }
    }

    /// Takes bytes off the front of `input` until a line ends, and returns it without its newline; `None` when `input` is used
    /// up first. Call it again with the same `input` until it returns `None`.
    ///
    /// # Errors
    /// [`FrameError::TooLarge`] as soon as a line is over the limit, ended or not; [`FrameError::TransferTooLarge`] for the line
    /// that brings the sum over the bound.
    pub fn next<'a>(&'a mut self, input: &mut &[u8]) -> Result<Option<&'a [u8]>, FrameError> {
        if std::mem::take(&mut self.taken) {
            self.line.clear();
        }
        let end = memchr::memchr(b'\n', input);
        let (piece, rest) = input.split_at(end.unwrap_or(input.len()));
        if self.line.len() + piece.len() > MAX_FRAME_BYTES {
            return Err(FrameError::TooLarge);
        }
        self.line.extend_from_slice(piece);
        let Some(rest) = rest.split_first().map(|(_, rest)| rest) else {
            *input = &[];
            return Ok(None);
        };
        *input = rest;
        self.taken = true;
        self.total = self.total.saturating_add(self.line.len() as u64 + 1);
        match self.max_total {
            Some(max) if self.total > max => Err(FrameError::TransferTooLarge { max }),
            _ => Ok(Some(&self.line)),
        }
    }

    /// Gives the line that [`Lines::next`] returned last, and takes `line` for the next one. Nothing is copied.
    pub fn swap(&mut self, line: &mut Vec<u8>) {
        std::mem::swap(&mut self.line, line);
        self.line.clear();
        self.taken = false;
    }

    /// The stream has ended.
    ///
    /// # Errors
    /// [`FrameError::Malformed`] if it ended inside a line.
    pub fn finish(&self) -> Result<(), FrameError> {
        if self.taken || self.line.is_empty() { Ok(()) } else { Err(FrameError::Malformed) }
    }
}
