//! A bounded cursor over the bytes of one message: header, alignment, byte order.

use super::{CdrError, HEADER, Place};

/// The message ended: what was needed and what was left.
pub(super) struct Short {
    needed: u64,
    left: usize,
}

impl Short {
    #[cold]
    pub(super) fn at(self, place: &Place<'_>) -> CdrError {
        CdrError::Truncated { field: place.dotted(), needed: self.needed, left: self.left }
    }
}

pub(super) struct Reader<'a> {
    /// The message behind its header; alignment counts from here.
    body: &'a [u8],
    position: usize,
    pub(super) little: bool,
    /// What carries nothing (options, padding and the like) has been as our own writer leaves it, so far.
    pub(super) plain: bool,
}

impl<'a> Reader<'a> {
    pub(super) fn new(message: &'a [u8]) -> Result<Self, CdrError> {
        let Some((header, body)) = message.split_first_chunk::<HEADER>() else {
            return Err(CdrError::NoHeader(message.len()));
        };
        // The last two bytes are options; writers leave anything there.
        let little = match u16::from_be_bytes([header[0], header[1]]) {
            0 => false,
            1 => true,
            other => return Err(CdrError::Representation(other)),
        };
        Ok(Self { body, position: 0, little, plain: header[2..] == [0, 0] })
    }

    pub(super) fn left(&self) -> usize {
        self.body.len().saturating_sub(self.position)
    }

    /// Bytes read so far, with the header.
    pub(super) fn used(&self) -> usize {
        self.position.min(self.body.len()) + HEADER
    }

    /// Moves to the next multiple of `size`, a power of two. May move behind the end; the next read then fails.
    pub(super) fn align(&mut self, size: usize) {
        let next = self.position.next_multiple_of(size);
        if next != self.position {
            let padding = self.body.get(self.position..next.min(self.body.len())).unwrap_or_default();
            self.plain &= padding.iter().all(|&byte| byte == 0);
            self.position = next;
        }
    }

    pub(super) fn take<const N: usize>(&mut self) -> Result<[u8; N], Short> {
        self.align(N);
        let found = self.body.get(self.position..).and_then(|rest| rest.first_chunk::<N>());
        let Some(bytes) = found else {
            return Err(Short { needed: N as u64, left: self.left() });
        };
        self.position += N;
        Ok(*bytes)
    }

    pub(super) fn slice(&mut self, length: usize) -> Result<&'a [u8], Short> {
        let short = Short { needed: length as u64, left: self.left() };
        let end = self.position.checked_add(length).ok_or(Short { needed: u64::MAX, left: short.left })?;
        let bytes = self.body.get(self.position..end).ok_or(short)?;
        self.position = end;
        Ok(bytes)
    }

    pub(super) fn u32(&mut self) -> Result<u32, Short> {
        let bytes = self.take::<4>()?;
        Ok(if self.little { u32::from_le_bytes(bytes) } else { u32::from_be_bytes(bytes) })
    }

    /// A u32 length in front of a string.
    pub(super) fn length(&mut self) -> Result<usize, Short> {
        let length = self.u32()?;
        usize::try_from(length).map_err(|_| Short { needed: u64::from(length), left: self.left() })
    }
}
