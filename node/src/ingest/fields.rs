//! Decoded fields of a message, with large byte arrays beside them.
//!
//! A byte array longer than [`INLINE_BYTES`] stands in the fields as a marker object, `{"@blob": <BLAKE3, 64 hex digits>,
//! "@bytes": <length>}`, and its bytes travel next to the fields. Owns the marker's form, for the writer (the lane) and the
//! reader (export) alike.

use std::fmt;

use base64::{Engine as _, engine::general_purpose::STANDARD};
use tributary_protocol::{
    ids::Hash,
    json::{Number, Object, Value},
};

/// Longest byte array that stays inside the JSON (as base64), in bytes.
pub const INLINE_BYTES: usize = 1024;
/// Key of a blob's BLAKE3 hash in its marker.
pub const BLOB_HASH: &str = "@blob";
/// Key of a blob's length in bytes in its marker.
pub const BLOB_BYTES: &str = "@bytes";

/// One step of a path into a JSON value.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum PathSegment {
    /// A key of an object.
    Key(String),
    /// An index of a list.
    Index(usize),
}

impl fmt::Display for PathSegment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Key(key) => f.write_str(key),
            Self::Index(index) => write!(f, "{index}"),
        }
    }
}

/// A byte array that was taken out of the fields.
#[derive(Clone, PartialEq, Eq)]
pub struct BlobField {
    /// Where its marker stands.
    pub path: Vec<PathSegment>,
    /// BLAKE3 of the bytes, as in the marker.
    pub hash: Hash,
    /// The bytes.
    pub bytes: Vec<u8>,
}

impl fmt::Debug for BlobField {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { path, hash, bytes } = self;
        f.debug_struct("BlobField").field("path", path).field("hash", hash).field("bytes", &bytes.len()).finish()
    }
}

impl BlobField {
    /// Takes the bytes and hashes them.
    #[must_use]
    pub fn new(path: Vec<PathSegment>, bytes: Vec<u8>) -> Self {
        let hash = Hash::from_bytes(*blake3::hash(&bytes).as_bytes());
        Self { path, hash, bytes }
    }
}

/// The fields of one message.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Fields {
    /// The fields, with a marker in the place of each blob.
    pub value: Object,
    /// The blobs in the order their markers stand in `value`.
    pub blobs: Vec<BlobField>,
}

impl Fields {
    /// Puts the blobs for which `inline` says yes back into the fields as base64 strings: those that a rule will encrypt or
    /// anonymize, since a rule changes the value it finds and must find the bytes, not the marker.
    pub fn inline_where(&mut self, mut inline: impl FnMut(&[PathSegment]) -> bool) {
        let value = &mut self.value;
        self.blobs.retain(|blob| {
            if !inline(&blob.path) {
                return true;
            }
            // A path of ours always leads to its marker; if a caller changed the fields, there is nothing to fill in.
            if let Some(place) = find_mut(value, &blob.path) {
                *place = Value::String(STANDARD.encode(&blob.bytes));
            }
            false
        });
    }
}

/// The value at a path.
pub(crate) fn find_mut<'a>(object: &'a mut Object, path: &[PathSegment]) -> Option<&'a mut Value> {
    let (first, rest) = path.split_first()?;
    let PathSegment::Key(key) = first else { return None };
    let mut place = object.get_mut(key)?;
    for segment in rest {
        place = match (segment, place) {
            (PathSegment::Key(key), Value::Object(object)) => object.get_mut(key)?,
            (PathSegment::Index(index), Value::Array(list)) => list.get_mut(*index)?,
            _ => return None,
        };
    }
    Some(place)
}

/// The marker of a blob.
#[must_use]
pub fn blob_marker(hash: Hash, bytes: u64) -> Value {
    let mut marker = Object::new();
    marker.insert(BLOB_HASH, hash.to_string());
    marker.insert(BLOB_BYTES, bytes);
    Value::Object(marker)
}

/// Hash and length, if the object is a blob's marker: exactly the two keys, in their exact forms.
#[must_use]
pub fn parse_marker(object: &Object) -> Option<(Hash, u64)> {
    if object.len() != 2 {
        return None;
    }
    let (Value::String(hash), Value::Number(Number::Int(bytes))) = (object.get(BLOB_HASH)?, object.get(BLOB_BYTES)?) else {
        return None;
    };
    let hash = hash.parse().ok()?;
    Some((hash, u64::try_from(*bytes).ok()?))
}

/// The first key, at any depth, that starts with `@`. Such names are kept for what Tributary adds to a payload, so a message
/// that has one is refused.
#[must_use]
pub fn reserved_key(object: &Object) -> Option<String> {
    fn in_value(value: &Value) -> Option<String> {
        match value {
            Value::Object(object) => reserved_key(object),
            Value::Array(list) => list.iter().find_map(in_value),
            _ => None,
        }
    }
    object.iter().find_map(|(key, value)| {
        if key.starts_with('@') { Some(key.to_owned()) } else { in_value(value) }
    })
}
