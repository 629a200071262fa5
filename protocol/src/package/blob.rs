//! Blob markers: what stands in a payload for a byte array that follows the line.

use crate::{
    ids::Hash,
    json::{Object, Value},
};

/// Stands in a payload for bytes that follow the package's line: `{"@blob":"<64 hex digits of BLAKE3>","@bytes":N}`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BlobMarker {
    /// BLAKE3 of the bytes.
    pub hash: Hash,
    /// How many there are.
    pub bytes: u64,
}

impl BlobMarker {
    const HASH_KEY: &str = "@blob";
    const BYTES_KEY: &str = "@bytes";

    /// The marker of these bytes.
    #[must_use]
    pub fn of(bytes: &[u8]) -> Self {
        Self { hash: Hash::of(bytes), bytes: bytes.len() as u64 }
    }

    /// The object that stands in the payload.
    #[must_use]
    pub fn to_value(&self) -> Value {
        let mut object = Object::with_capacity(2);
        object.insert(Self::HASH_KEY, self.hash.to_string());
        object.insert(Self::BYTES_KEY, self.bytes);
        Value::Object(object)
    }

    /// Reads a marker; `None` for anything that is not exactly one.
    #[must_use]
    pub fn from_value(value: &Value) -> Option<Self> {
        let object = value.as_object().filter(|object| object.len() == 2)?;
        let hash = object.get(Self::HASH_KEY)?.as_str()?.parse().ok()?;
        Some(Self { hash, bytes: object.get(Self::BYTES_KEY)?.as_u64()? })
    }

    /// The markers of a payload in the order in which the blobs follow the line: that of the canonical form, keys sorted.
    #[must_use]
    pub fn all_in(payload: &Object) -> Vec<Self> {
        let mut found = Vec::new();
        collect(payload, &mut found);
        found
    }
}

/// A parsed payload is at most 128 levels deep, and so is this recursion.
fn collect(object: &Object, found: &mut Vec<BlobMarker>) {
    let mut fields: Vec<_> = object.iter().filter(|(_, value)| holds_values(value)).collect();
    fields.sort_unstable_by_key(|(key, _)| *key);
    for (_, value) in fields {
        collect_value(value, found);
    }
}

fn collect_value(value: &Value, found: &mut Vec<BlobMarker>) {
    match value {
        Value::Object(inner) => match BlobMarker::from_value(value) {
            Some(marker) => found.push(marker),
            None => collect(inner, found),
        },
        Value::Array(items) => items.iter().for_each(|item| collect_value(item, found)),
        _ => {}
    }
}

fn holds_values(value: &Value) -> bool {
    matches!(value, Value::Object(_) | Value::Array(_))
}
