//! JSON values in peaq's canonical form: what packages sign, and what field rules encrypt and hash.
//!
//! Owns the value model, a bounded parser and the canonical writer. It never loses the class of a number: `1` and `1.0` are
//! different values with different bytes, and an integer has any number of digits, since a signature covers the text.
//!
//! Canonical form (peaq's, not RFC 8785): no whitespace; object keys sorted by Unicode code point, which is the byte order
//! of UTF-8; everything outside U+0020..U+007E written as `\uXXXX` in lower-case hex, so the output is pure ASCII; floats as
//! Python's `repr` spells them.
//!
//! A JSON text can spell half of a surrogate pair (`"\ud800"`), which no Rust string can hold. peaq signs such a string as
//! it stands, so a string value carries it through as [`Value::IllFormed`]; ordinary strings stay [`Value::String`]. As an
//! object key it is refused ([`JsonError::SurrogateKey`]).

mod canonical;
mod number;
mod object;
mod parse;

pub use self::{
    canonical::{CanonicalWriter, write_canonical_string},
    number::{BigInt, Number},
    object::Object,
    parse::{Limits, parse},
};

/// Why a text is no JSON value, or a value has no canonical form.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum JsonError {
    /// NaN or an infinity, also as a literal too large for a float. The text is peaq's own.
    #[error("Canonical JSON does not support non-finite numbers")]
    NonFinite,
    /// Arrays and objects nested deeper than the limit.
    #[error("the JSON value is nested deeper than {limit} levels: flatten it")]
    TooDeep {
        /// How many levels are allowed.
        limit: usize,
    },
    /// A text longer than the limit.
    #[error("the JSON text has {bytes} bytes, more than the limit of {limit}")]
    TooLarge {
        /// Length of the text in bytes.
        bytes: usize,
        /// How many are allowed.
        limit: usize,
    },
    /// A number of more digits than the limit.
    #[error("the number at byte {offset} has more than {limit} digits")]
    NumberTooLong {
        /// Where it starts.
        offset: usize,
        /// How many digits are allowed.
        limit: usize,
    },
    /// Not UTF-8.
    #[error("the JSON text is not UTF-8 at byte {offset}")]
    Utf8 {
        /// The first byte that is not.
        offset: usize,
    },
    /// An object key with half of a surrogate pair.
    #[error("the object key at byte {offset} has half of a surrogate pair, which is no text: rename the field")]
    SurrogateKey {
        /// Where the key starts.
        offset: usize,
    },
    /// Half of a surrogate pair where the form has no way to write it.
    #[error("the string has half of a surrogate pair, which is no text")]
    Surrogate,
    /// Not JSON.
    #[error("not JSON at byte {offset}: expected {expected}")]
    Syntax {
        /// Where reading stopped.
        offset: usize,
        /// What could have stood there.
        expected: &'static str,
    },
}

/// One JSON value.
#[derive(Debug, Clone, PartialEq, Default)]
pub enum Value {
    /// `null`.
    #[default]
    Null,
    /// `true` or `false`.
    Bool(bool),
    /// An integer or a float.
    Number(Number),
    /// A string of whole characters.
    String(String),
    /// A string that has half of a surrogate pair somewhere.
    IllFormed(IllFormed),
    /// An array.
    Array(Vec<Value>),
    /// An object.
    Object(Object),
}

/// A string with at least one lone surrogate, as UTF-16 code units, the way JSON spells it. Only the parser makes one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IllFormed(Box<[u16]>);

impl IllFormed {
    /// The string of these code units: a [`Value::String`] when they are well-formed after all.
    #[must_use]
    pub fn value_of(units: &[u16]) -> Value {
        String::from_utf16(units).map_or_else(|_| Value::IllFormed(Self(units.into())), Value::String)
    }

    /// The UTF-16 code units.
    #[must_use]
    pub fn units(&self) -> &[u16] {
        &self.0
    }
}

impl Value {
    /// Writes the canonical form at the end of `out`. When it fails, `out` may end with a part of it.
    ///
    /// # Errors
    /// [`JsonError::NonFinite`] and, for a value built deeper than the parser allows, [`JsonError::TooDeep`].
    pub fn write_canonical(&self, out: &mut Vec<u8>) -> Result<(), JsonError> {
        CanonicalWriter::default().value(self, out)
    }

    /// The canonical form.
    ///
    /// # Errors
    /// As [`Value::write_canonical`].
    pub fn to_canonical(&self) -> Result<Vec<u8>, JsonError> {
        let mut out = Vec::new();
        self.write_canonical(&mut out)?;
        Ok(out)
    }

    /// The form that peaq's ROS 2 agent hashes and encrypts: the canonical one, but with every character from U+007F on as it
    /// is, in UTF-8.
    ///
    /// # Errors
    /// As [`Value::write_canonical`], and [`JsonError::Surrogate`].
    pub fn to_raw_canonical(&self) -> Result<Vec<u8>, JsonError> {
        let mut out = Vec::new();
        CanonicalWriter::raw().value(self, &mut out)?;
        Ok(out)
    }

    /// The text, when this is a string of whole characters.
    #[must_use]
    pub fn as_str(&self) -> Option<&str> {
        if let Self::String(text) = self { Some(text) } else { None }
    }

    /// The object, when this is one.
    #[must_use]
    pub fn as_object(&self) -> Option<&Object> {
        if let Self::Object(object) = self { Some(object) } else { None }
    }

    /// The elements, when this is an array.
    #[must_use]
    pub fn as_array(&self) -> Option<&[Self]> {
        if let Self::Array(items) = self { Some(items) } else { None }
    }

    /// The number, when this is one.
    #[must_use]
    pub fn as_number(&self) -> Option<&Number> {
        if let Self::Number(number) = self { Some(number) } else { None }
    }

    /// The integer, when this is one from 0 to 2^64-1.
    #[must_use]
    pub fn as_u64(&self) -> Option<u64> {
        self.as_number().and_then(Number::as_u64)
    }

    /// The integer, when this is one that fits.
    #[must_use]
    pub fn as_i64(&self) -> Option<i64> {
        self.as_number().and_then(Number::as_i64)
    }

    /// The truth value, when this is one.
    #[must_use]
    pub fn as_bool(&self) -> Option<bool> {
        if let Self::Bool(value) = self { Some(*value) } else { None }
    }

    /// Whether this is `null`.
    #[must_use]
    pub fn is_null(&self) -> bool {
        matches!(self, Self::Null)
    }
}

impl Object {
    /// Writes the canonical form at the end of `out`. When it fails, `out` may end with a part of it.
    ///
    /// # Errors
    /// As [`Value::write_canonical`].
    pub fn write_canonical(&self, out: &mut Vec<u8>) -> Result<(), JsonError> {
        CanonicalWriter::default().object(self, out)
    }

    /// The canonical form.
    ///
    /// # Errors
    /// As [`Value::write_canonical`].
    pub fn to_canonical(&self) -> Result<Vec<u8>, JsonError> {
        let mut out = Vec::new();
        self.write_canonical(&mut out)?;
        Ok(out)
    }
}

/// `Value::from` for what needs no thought.
macro_rules! value_from {
    ($($from:ty => $make:expr),* $(,)?) => {$(
        impl From<$from> for Value {
            fn from(value: $from) -> Self {
                let make: fn($from) -> Self = $make;
                make(value)
            }
        }
    )*};
}

value_from! {
    bool => Self::Bool,
    Number => Self::Number,
    i32 => |n| Self::Number(n.into()),
    i64 => |n| Self::Number(n.into()),
    u32 => |n| Self::Number(n.into()),
    u64 => |n| Self::Number(n.into()),
    f64 => |n| Self::Number(Number::Float(n)),
    String => Self::String,
    Vec<Value> => Self::Array,
    Object => Self::Object,
}

impl From<&str> for Value {
    fn from(text: &str) -> Self {
        Self::String(text.to_owned())
    }
}

#[cfg(test)]
mod tests;
