//! The canonical writer.

use super::{JsonError, Number, Object, Value, parse::MAX_DEPTH};

/// Writes values in canonical form and keeps its working memory between them: hold one per worker.
#[derive(Debug)]
pub struct CanonicalWriter {
    /// The sorted places of the fields of every object that is open, one after the other.
    order: Vec<u32>,
    escapes: &'static Escapes,
}

impl Default for CanonicalWriter {
    fn default() -> Self {
        Self { order: Vec::new(), escapes: &ESCAPES }
    }
}

impl CanonicalWriter {
    /// A writer that leaves characters from U+007F on as they are, in UTF-8: the form of peaq's ROS 2 agent.
    pub(super) fn raw() -> Self {
        Self { order: Vec::new(), escapes: &RAW_ESCAPES }
    }

    /// Writes `value` at the end of `out`. When it fails, `out` may end with a part of it.
    ///
    /// # Errors
    /// [`JsonError::NonFinite`], [`JsonError::TooDeep`].
    pub fn value(&mut self, value: &Value, out: &mut Vec<u8>) -> Result<(), JsonError> {
        self.order.clear();
        self.write(value, out, 0)
    }

    /// Writes `object` at the end of `out`. When it fails, `out` may end with a part of it.
    ///
    /// # Errors
    /// As [`CanonicalWriter::value`].
    pub fn object(&mut self, object: &Object, out: &mut Vec<u8>) -> Result<(), JsonError> {
        self.order.clear();
        self.write_object(object, out, 0)
    }

    /// Writes `number` at the end of `out`.
    ///
    /// # Errors
    /// [`JsonError::NonFinite`].
    pub fn number(&mut self, number: &Number, out: &mut Vec<u8>) -> Result<(), JsonError> {
        write_number(number, out)
    }

    fn write(&mut self, value: &Value, out: &mut Vec<u8>, depth: usize) -> Result<(), JsonError> {
        match value {
            Value::Null => out.extend_from_slice(b"null"),
            Value::Bool(true) => out.extend_from_slice(b"true"),
            Value::Bool(false) => out.extend_from_slice(b"false"),
            Value::Number(number) => write_number(number, out)?,
            Value::String(text) => write_string(text, self.escapes, out),
            // It has no UTF-8 form.
            Value::IllFormed(_) if self.escapes[0x7f] == 0 => return Err(JsonError::Surrogate),
            Value::IllFormed(text) => write_units(text.units(), out),
            Value::Array(items) => {
                open(depth)?;
                out.push(b'[');
                for (i, item) in items.iter().enumerate() {
                    if i > 0 {
                        out.push(b',');
                    }
                    self.write(item, out, depth + 1)?;
                }
                out.push(b']');
            }
            Value::Object(object) => self.write_object(object, out, depth)?,
        }
        Ok(())
    }

    fn write_object(&mut self, object: &Object, out: &mut Vec<u8>, depth: usize) -> Result<(), JsonError> {
        open(depth)?;
        out.push(b'{');
        let start = self.order.len();
        // An object of 2^32 fields does not fit any limit or memory this code runs with; its tail would be refused here.
        let count = u32::try_from(object.len())
            .map_err(|_| JsonError::TooLarge { bytes: object.len(), limit: u32::MAX as usize })?;
        self.order.extend(0..count);
        // Byte order of UTF-8 is code point order, which is what Python sorts by.
        self.order[start..].sort_unstable_by(|a, b| object.at(*a as usize).0.cmp(object.at(*b as usize).0));
        for i in start..start + object.len() {
            if i > start {
                out.push(b',');
            }
            let (key, value) = object.at(self.order[i] as usize);
            write_string(key, self.escapes, out);
            out.push(b':');
            self.write(value, out, depth + 1)?;
        }
        self.order.truncate(start);
        out.push(b'}');
        Ok(())
    }
}

fn open(depth: usize) -> Result<(), JsonError> {
    if depth < MAX_DEPTH { Ok(()) } else { Err(JsonError::TooDeep { limit: MAX_DEPTH }) }
}

fn write_number(number: &Number, out: &mut Vec<u8>) -> Result<(), JsonError> {
    match number {
        Number::Int(n) => write_integer(n.unsigned_abs(), *n < 0, out),
        Number::UInt(n) => write_integer(*n, false, out),
        Number::BigInt(n) => out.extend_from_slice(n.as_str().as_bytes()),
        Number::Float(n) if n.is_finite() => write_float(*n, out),
        Number::Float(_) => return Err(JsonError::NonFinite),
    }
    Ok(())
}

fn write_integer(mut n: u64, negative: bool, out: &mut Vec<u8>) {
    let mut text = [0u8; 20];
    let mut start = text.len();
    loop {
        start -= 1;
        // A remainder of ten always fits.
        text[start] = b'0' + (n % 10) as u8;
        n /= 10;
        if n == 0 {
            break;
        }
    }
    if negative {
        out.push(b'-');
    }
    out.extend_from_slice(&text[start..]);
}

/// Writes a finite float as Python's `repr`: shortest digits that read back, positional for exponents -4 to 15, else
/// scientific with a sign and at least two exponent digits.
///
/// The digits are `ryu`'s, which breaks ties to even like Python; the standard library's shortest digits do not. `ryu`
/// lays numbers out alike except for two forms: its exponents have no sign or padding, and 1e-05 is still positional.
pub(super) fn write_float(n: f64, out: &mut Vec<u8>) {
    let mut buffer = ryu::Buffer::new();
    let text = buffer.format_finite(n).as_bytes();
    let (sign, digits) = match text {
        [b'-', digits @ ..] => (&text[..1], digits),
        digits => (&text[..0], digits),
    };
    out.extend_from_slice(sign);
    if let Some(e) = digits.iter().position(|b| *b == b'e') {
        let (mantissa, exponent) = (&digits[..e], &digits[e + 1..]);
        let (sign, exponent) = match exponent {
            [b'-', exponent @ ..] => (b'-', exponent),
            exponent => (b'+', exponent),
        };
        write_scientific(mantissa, sign, exponent, out);
    } else if let Some(significant) = digits.strip_prefix(b"0.0000") {
        // ryu is positional down to 1e-05; "0.0000" is followed by the first significant digit.
        let mut mantissa = [0u8; 20];
        let len = match significant {
            [first] => {
                mantissa[0] = *first;
                1
            }
            [first, rest @ ..] => {
                mantissa[0] = *first;
                mantissa[1] = b'.';
                mantissa[2..2 + rest.len()].copy_from_slice(rest);
                2 + rest.len()
            }
            [] => 0,
        };
        write_scientific(&mantissa[..len], b'-', b"5", out);
    } else {
        out.extend_from_slice(digits);
    }
}

fn write_scientific(mantissa: &[u8], sign: u8, exponent: &[u8], out: &mut Vec<u8>) {
    out.extend_from_slice(mantissa.strip_suffix(b".0").unwrap_or(mantissa));
    out.extend_from_slice(&[b'e', sign]);
    if exponent.len() < 2 {
        out.push(b'0');
    }
    out.extend_from_slice(exponent);
}

/// For every byte: 0 when it stands for itself, else what follows the backslash, or `u` for `\uXXXX` (and for the bytes of a
/// character beyond ASCII).
type Escapes = [u8; 256];

static ESCAPES: Escapes = escapes(0x7f);
static RAW_ESCAPES: Escapes = escapes(0x100);

/// Every byte from a space to `end` stands for itself, but for quotes and backslashes.
const fn escapes(end: usize) -> Escapes {
    let mut table = [b'u'; 256];
    let mut byte = 0x20;
    while byte < end {
        table[byte] = 0;
        byte += 1;
    }
    table[b'"' as usize] = b'"';
    table[b'\\' as usize] = b'\\';
    table[0x08] = b'b';
    table[0x0c] = b'f';
    table[b'\n' as usize] = b'n';
    table[b'\r' as usize] = b'r';
    table[b'\t' as usize] = b't';
    table
}

/// Writes a string in canonical form, with its quotes.
pub fn write_canonical_string(text: &str, out: &mut Vec<u8>) {
    write_string(text, &ESCAPES, out);
}

fn write_string(text: &str, escapes: &Escapes, out: &mut Vec<u8>) {
    out.push(b'"');
    let bytes = text.as_bytes();
    let mut plain = 0;
    let mut at = 0;
    while at < bytes.len() {
        let escape = escapes[usize::from(bytes[at])];
        if escape == 0 {
            at += 1;
            continue;
        }
        out.extend_from_slice(&bytes[plain..at]);
        // Runs stop only at ASCII bytes and at the first byte of a character, so this is always a character boundary.
        let character = text[at..].chars().next().unwrap_or_default();
        if escape == b'u' {
            let mut units = [0; 2];
            for unit in character.encode_utf16(&mut units) {
                write_unit(*unit, out);
            }
        } else {
            out.extend_from_slice(&[b'\\', escape]);
        }
        at += character.len_utf8();
        plain = at;
    }
    out.extend_from_slice(&bytes[plain..]);
    out.push(b'"');
}

/// As [`write_canonical_string`] for a string that has no UTF-8 form.
fn write_units(units: &[u16], out: &mut Vec<u8>) {
    out.push(b'"');
    for unit in units {
        match u8::try_from(*unit) {
            Ok(byte) => match ESCAPES[usize::from(byte)] {
                0 => out.push(byte),
                b'u' => write_unit(*unit, out),
                escape => out.extend_from_slice(&[b'\\', escape]),
            },
            Err(_) => write_unit(*unit, out),
        }
    }
    out.push(b'"');
}

fn write_unit(unit: u16, out: &mut Vec<u8>) {
    const HEX: &[u8; 16] = b"0123456789abcdef";
    let digit = |shift: u16| HEX[usize::from((unit >> shift) & 0xf)];
    out.extend_from_slice(&[b'\\', b'u', digit(12), digit(8), digit(4), digit(0)]);
}
