//! JSON fields back into ROS 2 CDR: the inverse of [`crate::ingest::cdr`].
//!
//! Owns writing plain CDR (XCDR version 1), little endian, with zeros as padding and nothing behind the last field. It takes only
//! what the decoder can have made with the same plan: all fields and no others, numbers in the range of their type, a `float32`
//! by its own shortest digits. So what it accepts decodes to exactly the same fields again; anything else is an error, never an
//! approximation. Which not-a-number it was is not in the JSON: the usual quiet one is written.

use std::collections::HashMap;

use base64::{Engine as _, engine::general_purpose::STANDARD};
use tributary_protocol::{
    ids::Hash,
    json::{Number, Object, Value},
    package::BlobMarker,
};

use crate::ingest::{
    BlobField,
    cdr::{HEADER, QUIET_F32, QUIET_F64, single},
    msgdef::{Arity, Field, Kind, Plan},
};

/// Plain CDR, little endian, no options.
const LITTLE_ENDIAN: [u8; HEADER] = [0, 1, 0, 0];

/// Why fields are not a message of the definition.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the field {field:?} {reason}")]
pub struct EncodeError {
    /// Dotted path of the field; empty for the message itself.
    pub field: String,
    /// What is wrong with it.
    pub reason: &'static str,
}

impl EncodeError {
    fn new(reason: &'static str) -> Self {
        Self { field: String::new(), reason }
    }

    /// The same error, seen from the level above.
    fn within(mut self, step: &str) -> Self {
        if !self.field.is_empty() {
            self.field.insert(0, '.');
        }
        self.field.insert_str(0, step);
        self
    }
}

/// The message that `fields` were decoded from, in the form described above. `blobs` are the byte arrays whose markers stand in
/// the fields, in any order.
///
/// # Errors
/// The fields are not what the decoder makes of a message of this plan.
pub fn encode_cdr(plan: &Plan, fields: &Object, blobs: &[BlobField]) -> Result<Vec<u8>, EncodeError> {
    let blobs: HashMap<Hash, &[u8]> = blobs.iter().map(|blob| (blob.marker.hash, blob.bytes.as_slice())).collect();
    let room = HEADER + blobs.values().map(|bytes| bytes.len()).sum::<usize>() + 256;
    let mut out = Vec::with_capacity(room);
    out.extend_from_slice(&LITTLE_ENDIAN);
    let mut encoder = Encoder { plan, blobs, out };
    encoder.structure(plan.root, fields)?;
    Ok(encoder.out)
}

struct Encoder<'a> {
    plan: &'a Plan,
    blobs: HashMap<Hash, &'a [u8]>,
    out: Vec<u8>,
}

impl Encoder<'_> {
    /// A primitive at the next multiple of its size, counted from behind the header.
    fn put<const N: usize>(&mut self, bytes: [u8; N]) {
        let body = self.out.len() - HEADER;
        self.out.resize(HEADER + body.next_multiple_of(N), 0);
        self.out.extend_from_slice(&bytes);
    }

    fn length(&mut self, length: usize) -> Result<(), EncodeError> {
        let length = u32::try_from(length).map_err(|_| EncodeError::new("is longer than CDR can say"))?;
        self.put(length.to_le_bytes());
        Ok(())
    }

    /// Recursion is bounded by the plan: types nest at most `msgdef::MAX_DEPTH` deep.
    fn structure(&mut self, index: usize, object: &Object) -> Result<(), EncodeError> {
        let plan = self.plan;
        let fields = &plan.structs[index].fields;
        if object.len() != fields.len() {
            let other = object.keys().find(|key| fields.iter().all(|field| &*field.name != *key));
            if let Some(other) = other {
                return Err(EncodeError::new("is not in the definition").within(other));
            }
        }
        if fields.is_empty() {
            // The one member of an empty message, which no definition shows.
            self.put([0]);
            return Ok(());
        }
        for field in fields {
            let value = object.get(&field.name).ok_or_else(|| EncodeError::new("is missing"));
            value.and_then(|value| self.field(field, value)).map_err(|error| error.within(&field.name))?;
        }
        Ok(())
    }

    fn field(&mut self, field: &Field, value: &Value) -> Result<(), EncodeError> {
        if field.arity == Arity::One {
            return self.element(field.kind, value);
        }
        if matches!(field.kind, Kind::U8 | Kind::I8)
            && let Some(marker) = BlobMarker::from_value(value)
        {
            let bytes = self.blobs.get(&marker.hash).copied();
            let bytes = bytes.ok_or_else(|| EncodeError::new("stands for bytes that are not there"))?;
            self.count(field.arity, bytes.len())?;
            self.out.extend_from_slice(bytes);
            return Ok(());
        }
        if field.kind == Kind::U8 {
            let text = value.as_str().ok_or_else(|| EncodeError::new("is no byte array"))?;
            let bytes = STANDARD.decode(text).map_err(|_| EncodeError::new("is not base64"))?;
            self.count(field.arity, bytes.len())?;
            self.out.extend_from_slice(&bytes);
            return Ok(());
        }
        let list = value.as_array().ok_or_else(|| EncodeError::new("is no list"))?;
        self.count(field.arity, list.len())?;
        for (index, value) in list.iter().enumerate() {
            self.element(field.kind, value).map_err(|error| error.within(&index.to_string()))?;
        }
        Ok(())
    }

    fn count(&mut self, arity: Arity, count: usize) -> Result<(), EncodeError> {
        let is = |limit: u32| usize::try_from(limit).is_ok_and(|limit| limit == count);
        match arity {
            Arity::Array(expected) if is(expected) => Ok(()),
            Arity::Sequence(bound) if bound.is_none_or(|b| usize::try_from(b).map_or(true, |b| count <= b)) => {
                self.length(count)
            }
            _ => Err(EncodeError::new("has a number of elements that the definition does not allow")),
        }
    }

    fn element(&mut self, kind: Kind, value: &Value) -> Result<(), EncodeError> {
        macro_rules! integer {
            ($type:ty) => {{
                let number = match value {
                    Value::Number(Number::Int(number)) => <$type>::try_from(*number).ok(),
                    Value::Number(Number::UInt(number)) => <$type>::try_from(*number).ok(),
                    _ => return Err(EncodeError::new("is no integer")),
                };
                let number = number.ok_or_else(|| EncodeError::new("is out of the range of its type"))?;
                self.put(number.to_le_bytes());
            }};
        }
        match kind {
            Kind::Bool => {
                let flag = value.as_bool().ok_or_else(|| EncodeError::new("is no boolean"))?;
                self.put([u8::from(flag)]);
            }
            Kind::U8 => integer!(u8),
            Kind::I8 => integer!(i8),
            Kind::U16 => integer!(u16),
            Kind::I16 => integer!(i16),
            Kind::U32 => integer!(u32),
            Kind::I32 => integer!(i32),
            Kind::U64 => integer!(u64),
            Kind::I64 => integer!(i64),
            Kind::F32 => self.put(float32(value)?.to_le_bytes()),
            Kind::F64 => {
                let bits = match value {
                    Value::Number(Number::Float(number)) => number.to_bits(),
                    Value::String(name) => match name.as_str() {
                        "NaN" => QUIET_F64,
                        "Infinity" => f64::INFINITY.to_bits(),
                        "-Infinity" => f64::NEG_INFINITY.to_bits(),
                        _ => return Err(EncodeError::new("is no float")),
                    },
                    _ => return Err(EncodeError::new("is no float")),
                };
                self.put(bits.to_le_bytes());
            }
            Kind::String => {
                let text = value.as_str().ok_or_else(|| EncodeError::new("is no text"))?;
                // The length counts the terminating zero.
                self.length(text.len().saturating_add(1))?;
                self.out.extend_from_slice(text.as_bytes());
                self.out.push(0);
            }
            Kind::WString => {
                let text = value.as_str().ok_or_else(|| EncodeError::new("is no text"))?;
                self.length(text.encode_utf16().count())?;
                // As Fast CDR does, the middleware that ROS 2 comes with: in four bytes each.
                self.out.extend(text.encode_utf16().flat_map(|unit| u32::from(unit).to_le_bytes()));
            }
            Kind::Struct(index) => {
                let object = value.as_object().ok_or_else(|| EncodeError::new("is no message"))?;
                self.structure(index, object)?;
            }
        }
        Ok(())
    }
}

/// The bits of the `float32` whose JSON form this is.
fn float32(value: &Value) -> Result<u32, EncodeError> {
    match value {
        Value::Number(Number::Float(number)) => {
            #[expect(
                clippy::cast_possible_truncation,
                reason = "whether anything was lost is checked in the next line"
            )]
            let narrow = *number as f32;
            match single(narrow) {
                Value::Number(Number::Float(again)) if again.to_bits() == number.to_bits() => Ok(narrow.to_bits()),
                _ => Err(EncodeError::new("is no float32")),
            }
        }
        Value::String(name) => match name.as_str() {
            "NaN" => Ok(QUIET_F32),
            "Infinity" => Ok(f32::INFINITY.to_bits()),
            "-Infinity" => Ok(f32::NEG_INFINITY.to_bits()),
            _ => Err(EncodeError::new("is no float32")),
        },
        _ => Err(EncodeError::new("is no float32")),
    }
}

#[cfg(test)]
mod tests;
