//! ROS 2 CDR messages decoded to JSON fields by a compiled [`Plan`].
//!
//! Owns the wire rules (XCDR version 1 as Fast CDR and Cyclone DDS write it) and the form each ROS 2 type takes in JSON:
//!
//! | ROS 2 | JSON |
//! |---|---|
//! | integers | integer, all digits kept (`uint64` too) |
//! | `float64` | float; NaN and infinities are the strings `"NaN"`, `"Infinity"`, `"-Infinity"`, since JSON has no such numbers and a laser scan means something different by each |
//! | `float32` | as `float64`, with the fewest digits that give the same `float32` back: 0.1 stays 0.1 |
//! | `uint8[]`, `byte[]`, `char[]`, fixed size too | base64 string; a blob when longer than [`INLINE_BYTES`] |
//! | `int8[]` | list of integers; a blob of two's complement bytes when longer than [`INLINE_BYTES`] (maps, audio) |
//! | `string`, `wstring` | string; invalid UTF-8 or UTF-16 becomes U+FFFD |
//! | nested message | object, fields in the order of the definition |
//!
//! Each UTF-16 unit of a `wstring` has four bytes in what Fast CDR writes (a C++ `wchar_t`), and two in what Cyclone DDS writes. No
//! message says which: it is read with four, and where that does not fit, with two.
//!
//! Never trusts a count: a sequence that cannot fit in what is left, by the smallest size of its type, is refused before
//! anything is allocated, and the values of one message are counted against a bound. Bytes may remain behind the last field
//! (rclpy leaves up to 16 of stale memory): up to [`MAX_LEFTOVER`] are ignored, more mean that the definition does not fit.

mod reader;
mod stamp;

use std::borrow::Cow;

use base64::{Engine as _, engine::general_purpose::STANDARD};
use tributary_protocol::json::{Number, Object, Value};

use self::reader::Reader;
pub use self::stamp::StampPlace;
use super::{
    fields::{BlobField, Fields, INLINE_BYTES, PathSegment},
    msgdef::{Arity, Field, Kind, Plan},
};

/// Length of the encapsulation header in front of every message, in bytes.
pub const HEADER: usize = 4;
/// Most bytes that may remain behind the last field.
pub const MAX_LEFTOVER: usize = 64;
/// Most values (fields and list elements) of one message. A list of that many floats takes some 40 MiB decoded.
pub const MAX_VALUES: usize = 1 << 20;
/// The usual quiet not-a-number, bits of a `float32`. `"NaN"` stands for it.
pub(crate) const QUIET_F32: u32 = 0x7fc0_0000;
/// The same of a `float64`.
pub(crate) const QUIET_F64: u64 = 0x7ff8_0000_0000_0000;

/// Why a message cannot be decoded. Names carry no field values.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum CdrError {
    /// Shorter than its header.
    #[error("message of {0} bytes is too short to have a CDR header")]
    NoHeader(usize),
    /// A representation other than plain CDR.
    #[error("CDR representation 0x{0:04x} is not supported, only plain CDR (0x0000 and 0x0001)")]
    Representation(u16),
    /// The message ends inside a field.
    #[error("message ends inside the field {field}: {needed} bytes needed, {left} left")]
    Truncated {
        /// Dotted path of the field.
        field: String,
        /// Fewest bytes the field takes from here.
        needed: u64,
        /// Bytes left.
        left: usize,
    },
    /// A sequence longer than its definition allows.
    #[error("the field {field} has {count} elements, its definition allows {bound}")]
    OverBound {
        /// Dotted path of the field.
        field: String,
        /// Elements in the message.
        count: u32,
        /// Elements allowed.
        bound: u32,
    },
    /// A boolean that is neither 0 nor 1.
    #[error("the field {field} is a boolean with the value {value}")]
    NotABool {
        /// Dotted path of the field.
        field: String,
        /// The byte.
        value: u8,
    },
    /// A `wstring` with a unit that is none of UTF-16.
    #[error("the field {field} is no UTF-16 text, neither in units of four bytes nor of two")]
    NotAUnit {
        /// Dotted path of the field.
        field: String,
    },
    /// More than [`MAX_VALUES`] values.
    #[error("the message has more than {MAX_VALUES} values; take the topic as a raw stream")]
    TooManyValues,
    /// Too many bytes behind the last field.
    #[error("{left} bytes remain behind the last field; the definition is not the one this message was written with")]
    Leftover {
        /// Bytes left.
        left: usize,
    },
}

/// What can be made of decoded fields again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fidelity {
    /// The same bytes up to [`Decoded::used`]: little endian, zeros as padding, texts ended by one zero.
    Bytes,
    /// The same message in other bytes: big endian, stale memory as padding, or a not-a-number with a payload.
    Values,
    /// Not the same message: a text was not valid UTF-8 or UTF-16.
    Lossy,
}

/// A decoded message.
#[derive(Debug, Clone, PartialEq)]
pub struct Decoded {
    /// The fields; large byte arrays beside them.
    pub fields: Fields,
    /// Bytes of the message that hold fields, header included. What lies behind is stale memory of the writer.
    pub used: usize,
    /// Whether the message can be made of the fields again.
    pub fidelity: Fidelity,
}

/// Decodes a whole message.
///
/// # Errors
/// The bytes do not fit the plan, or exceed a bound.
pub fn decode(plan: &Plan, message: &[u8]) -> Result<Decoded, CdrError> {
    with_either_unit(plan, |unit| {
        let mut decoder = Decoder::new(plan, message, unit, true)?;
        let value = decoder.structure(plan.root, &Place::TOP)?;
        let used = decoder.finish()?;
        let plain = decoder.reader.little && decoder.reader.plain;
        let fidelity = if !plain && decoder.fidelity == Fidelity::Bytes { Fidelity::Values } else { decoder.fidelity };
        Ok(Decoded { fields: Fields { value, blobs: decoder.blobs, definition: None }, used, fidelity })
    })
}

/// The length of the message without what lies behind its last field, header included, found without building values. For
/// raw streams, which must not carry stale memory of the writer.
///
/// # Errors
/// As [`decode`], except that the number of values is not bounded, since none is kept.
pub fn measure(plan: &Plan, message: &[u8]) -> Result<usize, CdrError> {
    with_either_unit(plan, |unit| {
        let mut decoder = Decoder::new(plan, message, unit, false)?;
        decoder.structure(plan.root, &Place::TOP)?;
        decoder.finish()
    })
}

/// Bytes of one UTF-16 unit of a `wstring`.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Unit {
    Four,
    Two,
}

/// Reads with units of four bytes, and if the message has units that this does not fit, with two.
fn with_either_unit<T>(plan: &Plan, read: impl Fn(Unit) -> Result<T, CdrError>) -> Result<T, CdrError> {
    match read(Unit::Four) {
        Err(error) if plan.wide && error != CdrError::TooManyValues => read(Unit::Two).map_err(|_| error),
        result => result,
    }
}

/// Where the decoder stands: a list on the stack, spelled out only for blobs and errors.
struct Place<'a> {
    parent: Option<&'a Place<'a>>,
    step: Step<'a>,
}

#[derive(Clone, Copy)]
enum Step<'a> {
    Top,
    Field(&'a str),
    Element(usize),
}

impl Place<'_> {
    const TOP: Place<'static> = Place { parent: None, step: Step::Top };

    fn segments(&self) -> Vec<PathSegment> {
        let mut out = self.parent.map(Place::segments).unwrap_or_default();
        match self.step {
            Step::Top => {}
            Step::Field(name) => out.push(PathSegment::Key(name.to_owned())),
            Step::Element(index) => out.push(PathSegment::Index(index)),
        }
        out
    }

    fn dotted(&self) -> String {
        let parts: Vec<_> = self.segments().iter().map(ToString::to_string).collect();
        parts.join(".")
    }
}

struct Decoder<'a> {
    plan: &'a Plan,
    reader: Reader<'a>,
    values: usize,
    blobs: Vec<BlobField>,
    /// Build values; otherwise only walk.
    emit: bool,
    /// Only meaningful while values are built.
    fidelity: Fidelity,
    unit: Unit,
}

impl<'a> Decoder<'a> {
    fn new(plan: &'a Plan, message: &'a [u8], unit: Unit, emit: bool) -> Result<Self, CdrError> {
        let reader = Reader::new(message)?;
        Ok(Self { plan, reader, values: 0, blobs: Vec::new(), emit, fidelity: Fidelity::Bytes, unit })
    }

    fn finish(&self) -> Result<usize, CdrError> {
        let left = self.reader.left();
        if left > MAX_LEFTOVER { Err(CdrError::Leftover { left }) } else { Ok(self.reader.used()) }
    }

    fn count_values(&mut self, more: usize) -> Result<(), CdrError> {
        self.values = self.values.saturating_add(more);
        if self.emit && self.values > MAX_VALUES { Err(CdrError::TooManyValues) } else { Ok(()) }
    }

    /// Recursion is bounded by the plan: types nest at most `msgdef::MAX_DEPTH` deep.
    fn structure(&mut self, index: usize, place: &Place<'_>) -> Result<Object, CdrError> {
        let structure = &self.plan.structs[index];
        if structure.fields.is_empty() {
            // An empty message has one member that no definition shows.
            let dummy = self.reader.take::<1>().map_err(|short| short.at(place))?;
            self.reader.plain &= dummy == [0];
            return Ok(Object::new());
        }
        self.count_values(structure.fields.len())?;
        let mut fields = Vec::with_capacity(if self.emit { structure.fields.len() } else { 0 });
        for field in &structure.fields {
            let place = Place { parent: Some(place), step: Step::Field(&field.name) };
            let value = self.field(field, &place)?;
            if self.emit {
                fields.push((field.name.to_string(), value));
            }
        }
        Ok(fields.into_iter().collect())
    }

    fn field(&mut self, field: &Field, place: &Place<'_>) -> Result<Value, CdrError> {
        let count = match field.arity {
            Arity::One => return self.element(field.kind, place),
            Arity::Array(count) => count,
            Arity::Sequence(bound) => {
                let count = self.reader.u32().map_err(|short| short.at(place))?;
                if let Some(bound) = bound.filter(|&bound| count > bound) {
                    return Err(CdrError::OverBound { field: place.dotted(), count, bound });
                }
                count
            }
        };
        let least = match field.kind {
            Kind::Struct(index) => self.plan.structs[index].min_size,
            Kind::String | Kind::WString => 4,
            kind => kind.primitive_size().unwrap_or(1) as u64,
        };
        let needed = least.saturating_mul(u64::from(count));
        let left = self.reader.left();
        if needed > left as u64 {
            return Err(CdrError::Truncated { field: place.dotted(), needed, left });
        }
        // Every element takes at least one byte, so the count is below what is left and fits.
        let count = usize::try_from(count).unwrap_or(usize::MAX);
        match field.kind {
            Kind::U8 => return self.bytes(count, place),
            Kind::I8 if count > INLINE_BYTES => return self.bytes(count, place),
            _ => {}
        }
        if !self.emit {
            return self.skip_elements(field.kind, count, place);
        }
        self.count_values(count)?;
        let mut list = Vec::with_capacity(count);
        for index in 0..count {
            list.push(self.element(field.kind, &Place { parent: Some(place), step: Step::Element(index) })?);
        }
        Ok(Value::Array(list))
    }

    fn skip_elements(&mut self, kind: Kind, count: usize, place: &Place<'_>) -> Result<Value, CdrError> {
        match kind.primitive_size() {
            Some(size) if kind != Kind::Bool && count > 0 => {
                self.reader.align(size);
                let total = size.saturating_mul(count);
                self.reader.slice(total).map_err(|short| short.at(place))?;
            }
            _ => {
                for index in 0..count {
                    self.element(kind, &Place { parent: Some(place), step: Step::Element(index) })?;
                }
            }
        }
        Ok(Value::Null)
    }

    fn bytes(&mut self, count: usize, place: &Place<'_>) -> Result<Value, CdrError> {
        let bytes = self.reader.slice(count).map_err(|short| short.at(place))?;
        if !self.emit {
            return Ok(Value::Null);
        }
        if count <= INLINE_BYTES {
            return Ok(Value::String(STANDARD.encode(bytes)));
        }
        let blob = BlobField::new(place.segments(), bytes.to_vec());
        let marker = blob.marker.to_value();
        self.blobs.push(blob);
        Ok(marker)
    }

    fn element(&mut self, kind: Kind, place: &Place<'_>) -> Result<Value, CdrError> {
        macro_rules! number {
            ($type:ty, $size:literal) => {{
                let bytes = self.reader.take::<$size>().map_err(|short| short.at(place))?;
                if self.reader.little { <$type>::from_le_bytes(bytes) } else { <$type>::from_be_bytes(bytes) }
            }};
        }
        Ok(match kind {
            Kind::Bool => match self.reader.take::<1>().map_err(|short| short.at(place))?[0] {
                0 => Value::Bool(false),
                1 => Value::Bool(true),
                value => return Err(CdrError::NotABool { field: place.dotted(), value }),
            },
            Kind::U8 => integer(number!(u8, 1)),
            Kind::I8 => integer(number!(i8, 1)),
            Kind::U16 => integer(number!(u16, 2)),
            Kind::I16 => integer(number!(i16, 2)),
            Kind::U32 => integer(number!(u32, 4)),
            Kind::I32 => integer(number!(i32, 4)),
            Kind::I64 => integer(number!(i64, 8)),
            Kind::U64 => unsigned(number!(u64, 8)),
            Kind::F32 => {
                let value = number!(f32, 4);
                self.reader.plain &= !value.is_nan() || value.to_bits() == QUIET_F32;
                single(value)
            }
            Kind::F64 => {
                let value = number!(f64, 8);
                self.reader.plain &= !value.is_nan() || value.to_bits() == QUIET_F64;
                double(value)
            }
            Kind::String => {
                let length = self.reader.length().map_err(|short| short.at(place))?;
                let bytes = self.reader.slice(length).map_err(|short| short.at(place))?;
                if !self.emit {
                    return Ok(Value::Null);
                }
                // The length counts a terminating zero; some writers leave it out of an empty string.
                self.reader.plain &= bytes.ends_with(&[0]);
                let bytes = bytes.strip_suffix(&[0]).unwrap_or(bytes);
                let text = String::from_utf8_lossy(bytes);
                if matches!(text, Cow::Owned(_)) {
                    self.fidelity = Fidelity::Lossy;
                }
                Value::String(text.into_owned())
            }
            Kind::WString => {
                let units = self.units(place)?;
                if !self.emit {
                    return Ok(Value::Null);
                }
                let mut lossy = false;
                let text: String = char::decode_utf16(units)
                    .map(|c| {
                        lossy |= c.is_err();
                        c.unwrap_or(char::REPLACEMENT_CHARACTER)
                    })
                    .collect();
                if lossy {
                    self.fidelity = Fidelity::Lossy;
                }
                Value::String(text)
            }
            Kind::Struct(index) => Value::Object(self.structure(index, place)?),
        })
    }
}

impl Decoder<'_> {
    /// The UTF-16 units of a `wstring`.
    fn units(&mut self, place: &Place<'_>) -> Result<Vec<u16>, CdrError> {
        let count = self.reader.length().map_err(|short| short.at(place))?;
        let little = self.reader.little;
        match self.unit {
            Unit::Four => {
                let bytes = self.reader.slice(count.saturating_mul(4)).map_err(|short| short.at(place))?;
                let (words, _) = bytes.as_chunks::<4>();
                let word = |&b: &[u8; 4]| if little { u32::from_le_bytes(b) } else { u32::from_be_bytes(b) };
                let units: Result<_, _> = words.iter().map(|bytes| u16::try_from(word(bytes))).collect();
                units.map_err(|_| CdrError::NotAUnit { field: place.dotted() })
            }
            Unit::Two => {
                let bytes = self.reader.slice(count.saturating_mul(2)).map_err(|short| short.at(place))?;
                // Made again of its fields, it has units of four.
                self.reader.plain &= count == 0;
                let (pairs, _) = bytes.as_chunks::<2>();
                let unit = |&b: &[u8; 2]| if little { u16::from_le_bytes(b) } else { u16::from_be_bytes(b) };
                Ok(pairs.iter().map(unit).collect())
            }
        }
    }
}

fn integer(value: impl Into<i64>) -> Value {
    Value::Number(Number::Int(value.into()))
}

fn unsigned(value: u64) -> Value {
    Value::Number(i64::try_from(value).map_or(Number::UInt(value), Number::Int))
}

fn double(value: f64) -> Value {
    if value.is_finite() {
        Value::Number(Number::Float(value))
    } else {
        let name = if value.is_nan() {
            "NaN"
        } else if value > 0.0 {
            "Infinity"
        } else {
            "-Infinity"
        };
        Value::from(name)
    }
}

/// The JSON form of a `float32`.
pub(crate) fn single(value: f32) -> Value {
    if !value.is_finite() {
        return double(f64::from(value));
    }
    // Short values (most settings, zeros, halves) are the same in both widths; the rest goes through its shortest digits.
    let wide = f64::from(value);
    if value.to_bits() & 0xffff == 0 && wide.fract() == 0.0 && wide.abs() < 1e6 {
        return Value::Number(Number::Float(wide));
    }
    let mut buffer = ryu::Buffer::new();
    let digits = buffer.format_finite(value);
    Value::Number(Number::Float(digits.parse().unwrap_or(wide)))
}

#[cfg(test)]
mod tests;
