//! A small CDR writer, little endian.

use std::num::TryFromIntError;

pub(super) struct Cdr(Vec<u8>);

/// Bytes of the encapsulation header; alignment counts from behind it.
const HEADER: usize = 4;

impl Cdr {
    pub(super) fn new() -> Self {
        Self(vec![0, 1, 0, 0])
    }

    fn put<const N: usize>(&mut self, bytes: [u8; N]) -> &mut Self {
        let aligned = (self.0.len() - HEADER).next_multiple_of(N) + HEADER;
        self.0.resize(aligned, 0);
        self.0.extend_from_slice(&bytes);
        self
    }

    pub(super) fn u8(&mut self, value: u8) -> &mut Self {
        self.put([value])
    }

    pub(super) fn u16(&mut self, value: u16) -> &mut Self {
        self.put(value.to_le_bytes())
    }

    pub(super) fn u32(&mut self, value: u32) -> &mut Self {
        self.put(value.to_le_bytes())
    }

    pub(super) fn i32(&mut self, value: i32) -> &mut Self {
        self.put(value.to_le_bytes())
    }

    pub(super) fn f64(&mut self, value: f64) -> &mut Self {
        self.put(value.to_le_bytes())
    }

    pub(super) fn f64s(&mut self, values: &[f64]) -> &mut Self {
        for value in values {
            self.f64(*value);
        }
        self
    }

    pub(super) fn f32s(&mut self, values: &[f32]) -> &mut Self {
        for value in values {
            self.put(value.to_le_bytes());
        }
        self
    }

    /// A sequence; those of the demo are short.
    pub(super) fn sequence_f32(&mut self, values: &[f32]) -> &mut Self {
        self.u32(u32::try_from(values.len()).unwrap_or(0));
        self.f32s(values)
    }

    pub(super) fn text(&mut self, text: &str) -> &mut Self {
        self.u32(u32::try_from(text.len() + 1).unwrap_or(0));
        self.0.extend_from_slice(text.as_bytes());
        self.0.push(0);
        self
    }

    pub(super) fn bytes(&mut self, bytes: &[u8]) -> Result<&mut Self, TryFromIntError> {
        self.u32(u32::try_from(bytes.len())?);
        self.0.extend_from_slice(bytes);
        Ok(self)
    }

    pub(super) fn finish(self) -> Vec<u8> {
        self.0
    }
}
