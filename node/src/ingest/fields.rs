//! Decoded fields of a message, with large byte arrays beside them.
//!
//! A byte array longer than [`INLINE_BYTES`] stands in the fields as a marker object (see [`BlobMarker`]), and its bytes
//! travel next to the fields.

use std::{fmt, sync::Arc};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use tributary_protocol::{
    json::{Object, Value},
    package::BlobMarker,
};

use super::Definition;

/// Longest byte array that stays inside the JSON (as base64), in bytes.
pub const INLINE_BYTES: usize = 1024;

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
    /// What stands there: the BLAKE3 hash and the length.
    pub marker: BlobMarker,
    /// The bytes.
    pub bytes: Vec<u8>,
}

impl fmt::Debug for BlobField {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BlobField").field("path", &self.path).field("marker", &self.marker).finish_non_exhaustive()
    }
}

impl BlobField {
    /// Takes the bytes and hashes them.
    #[must_use]
    pub fn new(path: Vec<PathSegment>, bytes: Vec<u8>) -> Self {
        Self { path, marker: BlobMarker::of(&bytes), bytes }
    }
}

/// The fields of one message.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Fields {
    /// The fields, with a marker in the place of each blob.
    pub value: Object,
    /// The blobs in the order their markers stand in `value`.
    pub blobs: Vec<BlobField>,
    /// The ROS 2 definition of which these are all fields, when nothing of the message was lost in decoding it. Then they can be
    /// the same message again.
    pub definition: Option<Arc<Definition>>,
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
    object.iter().find_map(|(key, value)| if key.starts_with('@') { Some(key.to_owned()) } else { in_value(value) })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with_blobs() -> Fields {
        let blob = |path: Vec<PathSegment>| BlobField::new(path, vec![7; 2000]);
        let top = blob(vec![PathSegment::Key("a".into())]);
        let deep = blob(vec![PathSegment::Key("l".into()), PathSegment::Index(1), PathSegment::Key("d".into())]);
        let mut element = Object::new();
        element.insert("d", deep.marker.to_value());
        let mut value = Object::new();
        value.insert("a", top.marker.to_value());
        value.insert("l", vec![Value::Null, Value::Object(element)]);
        Fields { value, blobs: vec![top, deep], definition: None }
    }

    #[test]
    fn a_blob_goes_back_into_the_fields_where_asked() {
        let mut fields = with_blobs();
        fields.inline_where(|path| path.len() == 3);
        assert_eq!(fields.blobs.len(), 1);
        let Some(Value::Array(list)) = fields.value.get("l") else { panic!("a list") };
        let text = list[1].as_object().unwrap().get("d").unwrap().as_str().unwrap();
        assert_eq!(STANDARD.decode(text).unwrap(), vec![7; 2000]);
        assert!(BlobMarker::from_value(fields.value.get("a").unwrap()).is_some());
    }

    #[test]
    fn reserved_keys_are_found_at_any_depth() {
        assert_eq!(reserved_key(&with_blobs().value).as_deref(), Some("@blob"));
        let mut plain = Object::new();
        plain.insert("a@b", 1i64);
        assert_eq!(reserved_key(&plain), None);
    }
}
