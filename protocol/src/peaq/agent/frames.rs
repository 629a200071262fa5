//! Frames with a length in front.

/// A frame over the limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a frame of {found} bytes is longer than the {max} allowed")]
pub struct FrameTooLong {
    /// Its length, in bytes.
    pub found: usize,
    /// The limit, in bytes.
    pub max: usize,
}

/// Collects bytes until a frame is whole. Holds one frame, and reserves nothing for bytes that have not come.
#[derive(Debug)]
pub struct Frames {
    max: usize,
    buffer: Vec<u8>,
    taken: bool,
}

const LENGTH: usize = 4;

impl Frames {
    /// Frames of at most `max` bytes.
    #[must_use]
    pub const fn new(max: usize) -> Self {
        Self { max, buffer: Vec::new(), taken: false }
    }

    /// Takes bytes off the front of `input` until a frame ends, and returns its JSON text; `None` when `input` is used up first.
    ///
    /// # Errors
    /// A length over the limit, as soon as it is known.
    pub fn next<'a>(&'a mut self, input: &mut &[u8]) -> Result<Option<&'a [u8]>, FrameTooLong> {
        if std::mem::take(&mut self.taken) {
            self.buffer.clear();
        }
        if !self.fill(input, LENGTH) {
            return Ok(None);
        }
        let length = self.buffer.first_chunk::<LENGTH>().map_or(0, |length| u32::from_be_bytes(*length));
        let found = usize::try_from(length).unwrap_or(usize::MAX);
        if found > self.max {
            return Err(FrameTooLong { found, max: self.max });
        }
        if !self.fill(input, LENGTH + found) {
            return Ok(None);
        }
        self.taken = true;
        Ok(Some(&self.buffer[LENGTH..]))
    }

    /// Whether the stream may end here: not inside a frame.
    #[must_use]
    pub const fn is_at_boundary(&self) -> bool {
        self.taken || self.buffer.is_empty()
    }

    fn fill(&mut self, input: &mut &[u8], len: usize) -> bool {
        let missing = len.saturating_sub(self.buffer.len()).min(input.len());
        let (piece, rest) = input.split_at(missing);
        self.buffer.extend_from_slice(piece);
        *input = rest;
        self.buffer.len() >= len
    }
}

/// Puts the length in front of a JSON text.
pub(super) fn framed(json: &[u8]) -> Vec<u8> {
    let length = u32::try_from(json.len()).unwrap_or(u32::MAX);
    [length.to_be_bytes().as_slice(), json].concat()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_length_over_the_limit_is_refused_before_its_bytes_come() {
        let mut frames = Frames::new(10);
        assert_eq!(frames.next(&mut [0, 0, 0, 11].as_slice()), Err(FrameTooLong { found: 11, max: 10 }));
        let mut frames = Frames::new(10);
        assert_eq!(frames.next(&mut [0, 0, 0, 10, b'x'].as_slice()), Ok(None));
        assert!(!frames.is_at_boundary());
        assert!(frames.buffer.capacity() < 64);
    }

    proptest! {
        #[test]
        fn frames_come_out_however_they_are_cut(
            texts in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..40), 1..6),
            cut in 1usize..20,
        ) {
            let bytes: Vec<u8> = texts.iter().flat_map(|text| framed(text)).collect();
            let mut frames = Frames::new(40);
            let mut found = Vec::new();
            for mut piece in bytes.chunks(cut) {
                while let Some(frame) = frames.next(&mut piece).unwrap() {
                    found.push(frame.to_vec());
                }
            }
            prop_assert!(frames.is_at_boundary());
            prop_assert_eq!(found, texts);
        }
    }
}
