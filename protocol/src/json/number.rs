//! Numbers that keep their class: integers of any size, and floats.

use std::fmt;

/// A JSON number. An integer value has exactly one form: `Int` when it fits, else `UInt`, else `BigInt`; build it with
/// `From` or [`Number::from_digits`] and that holds by itself.
#[derive(Debug, Clone, PartialEq)]
pub enum Number {
    /// An integer from -2^63 to 2^63-1.
    Int(i64),
    /// An integer from 2^63 to 2^64-1.
    UInt(u64),
    /// Any other integer.
    BigInt(BigInt),
    /// A float; NaN and infinities have no canonical form.
    Float(f64),
}

/// An integer outside the range of `i64` and `u64`, as its decimal text.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct BigInt(Box<str>);

impl BigInt {
    /// The decimal text: an optional `-` and digits without leading zeros.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl Number {
    /// Reads an optional `-` and decimal digits, and nothing else; leading zeros are dropped and `-0` is 0.
    #[must_use]
    pub fn from_digits(text: &str) -> Option<Self> {
        let (negative, digits) = match text.strip_prefix('-') {
            Some(digits) => (true, digits),
            None => (false, text),
        };
        if digits.is_empty() || !digits.bytes().all(|b| b.is_ascii_digit()) {
            return None;
        }
        if let Ok(small) = text.parse::<i64>() {
            return Some(Self::Int(small));
        }
        if let Ok(small) = text.parse::<u64>() {
            return Some(Self::UInt(small));
        }
        let digits = digits.trim_start_matches('0');
        Some(Self::BigInt(BigInt(if negative { format!("-{digits}") } else { digits.to_owned() }.into())))
    }

    /// Whether this is an integer.
    #[must_use]
    pub fn is_integer(&self) -> bool {
        !matches!(self, Self::Float(_))
    }

    /// The integer, when it is one that fits.
    #[must_use]
    pub fn as_i64(&self) -> Option<i64> {
        match self {
            Self::Int(n) => Some(*n),
            Self::UInt(n) => i64::try_from(*n).ok(),
            Self::BigInt(_) | Self::Float(_) => None,
        }
    }

    /// The integer, when it is one from 0 to 2^64-1.
    #[must_use]
    pub fn as_u64(&self) -> Option<u64> {
        match self {
            Self::Int(n) => u64::try_from(*n).ok(),
            Self::UInt(n) => Some(*n),
            Self::BigInt(_) | Self::Float(_) => None,
        }
    }

    /// The nearest float; infinite when the integer is beyond the range.
    #[must_use]
    #[expect(clippy::cast_precision_loss, reason = "the nearest float is what is asked for")]
    pub fn to_f64(&self) -> f64 {
        match self {
            Self::Int(n) => *n as f64,
            Self::UInt(n) => *n as f64,
            Self::BigInt(n) => n.0.parse().unwrap_or(f64::NAN),
            Self::Float(n) => *n,
        }
    }
}

impl From<i64> for Number {
    fn from(n: i64) -> Self {
        Self::Int(n)
    }
}

impl From<i32> for Number {
    fn from(n: i32) -> Self {
        Self::Int(n.into())
    }
}

impl From<u32> for Number {
    fn from(n: u32) -> Self {
        Self::Int(n.into())
    }
}

impl From<u64> for Number {
    fn from(n: u64) -> Self {
        i64::try_from(n).map_or(Self::UInt(n), Self::Int)
    }
}

impl From<f64> for Number {
    fn from(n: f64) -> Self {
        Self::Float(n)
    }
}

impl fmt::Display for Number {
    /// The canonical text; a float without one (NaN, an infinity) prints as Rust names it.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Int(n) => n.fmt(f),
            Self::UInt(n) => n.fmt(f),
            Self::BigInt(n) => f.write_str(n.as_str()),
            Self::Float(n) if n.is_finite() => {
                let mut out = Vec::with_capacity(24);
                super::canonical::write_float(*n, &mut out);
                f.write_str(std::str::from_utf8(&out).unwrap_or_default())
            }
            Self::Float(n) => n.fmt(f),
        }
    }
}
