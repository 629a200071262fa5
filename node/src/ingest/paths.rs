//! The paths of a message type, for checking field rules before any message is seen.

/// What stands at a path of a message type.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum SchemaPathKind {
    /// A number, a boolean or a string.
    Leaf,
    /// A nested message: its fields are listed under it.
    Object,
    /// A byte array: a base64 string, or a blob when longer than [`super::INLINE_BYTES`] bytes. One value for a rule.
    Bytes,
    /// Any other array or sequence. Rules cannot address its elements, so nothing is listed under it.
    List,
}

/// One path of a message type.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct SchemaPath {
    /// Field names from the top of the message.
    pub path: Vec<String>,
    /// What stands there.
    pub kind: SchemaPathKind,
}
