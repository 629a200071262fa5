//! One topic of a recording: how its messages become content.

use std::sync::Arc;

use tributary_protocol::{
    json::{self, Object, Value},
    package::MAX_LINE,
    rules::native::SchemaPaths,
};

use super::{
    Content, Definition,
    cdr::{self, CdrError, Fidelity},
    fields::{BlobField, Fields, PathSegment, reserved_key},
    msgdef::Plan,
};

/// The definition that goes with raw bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RawSchema {
    /// Type name.
    pub name: Arc<str>,
    /// Language of the definition, `ros2msg` or what the recording says.
    pub encoding: Arc<str>,
    /// The definition with the types it uses.
    pub text: Arc<str>,
}

/// A message as it was recorded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RawMessage {
    /// CDR with its 4-byte header.
    pub cdr: Vec<u8>,
    /// The bytes end with the last field. Otherwise nothing is known about where the fields end, and up to some 16 bytes of
    /// the writer's stale memory may follow.
    pub trimmed: bool,
    /// The definition, where the recording has one.
    pub schema: Option<RawSchema>,
}

impl RawMessage {
    /// The fields of a raw stream's payload: `cdr`, the bytes, always as a blob, and `schema`, `{"encoding": .., "text": ..}`
    /// or null when there is no definition. The text is in every payload, so that any part of a dataset can be read alone;
    /// compression makes it cheap.
    #[must_use]
    pub fn into_fields(self) -> Fields {
        let schema = self.schema.map_or(Value::Null, |schema| {
            let mut object = Object::with_capacity(2);
            object.insert("encoding", &*schema.encoding);
            object.insert("text", &*schema.text);
            Value::Object(object)
        });
        let blob = BlobField::new(vec![PathSegment::Key("cdr".to_owned())], self.cdr);
        let mut value = Object::with_capacity(2);
        value.insert("cdr", blob.marker.to_value());
        value.insert("schema", schema);
        Fields { value, blobs: vec![blob], definition: None }
    }
}

/// How messages of a topic are turned into content.
#[derive(Debug, Clone)]
pub(super) enum Decoding {
    Cdr {
        plan: Arc<Plan>,
        /// What goes with fields that are a whole message.
        definition: Option<Arc<Definition>>,
    },
    Json,
    /// Raw bytes, cut where the plan says the fields end.
    Raw {
        plan: Option<Arc<Plan>>,
        schema: Option<RawSchema>,
    },
    /// Not asked for, or lost.
    Skip,
}

impl Decoding {
    pub(super) fn schema_paths(&self) -> Option<SchemaPaths> {
        match self {
            Self::Cdr { plan, .. } => plan.schema_paths(),
            Self::Json | Self::Raw { .. } | Self::Skip => None,
        }
    }

    /// The content of one message, `None` for a skipped topic, or why it is dropped.
    pub(super) fn content(&self, data: &[u8], max_message: usize) -> Result<Option<Content>, String> {
        if data.len() > max_message && !matches!(self, Self::Skip) {
            return Err(format!("message of {} bytes; at most {max_message} are read", data.len()));
        }
        match self {
            Self::Skip => Ok(None),
            Self::Cdr { plan, definition } => {
                let decoded = cdr::decode(plan, data).map_err(|e: CdrError| e.to_string())?;
                let mut fields = decoded.fields;
                if decoded.fidelity != Fidelity::Lossy {
                    fields.definition.clone_from(definition);
                }
                Ok(Some(Content::Fields(fields)))
            }
            Self::Json => json_fields(data, max_message.min(MAX_LINE)).map(|fields| Some(Content::Fields(fields))),
            Self::Raw { plan, schema } => {
                let used = plan.as_ref().and_then(|plan| cdr::measure(plan, data).ok());
                let cdr = data.get(..used.unwrap_or(data.len())).unwrap_or(data).to_vec();
                Ok(Some(Content::Raw(RawMessage { cdr, trimmed: used.is_some(), schema: schema.clone() })))
            }
        }
    }
}

/// A JSON object as fields.
pub(super) fn json_fields(text: &[u8], max_bytes: usize) -> Result<Fields, String> {
    let limits = json::Limits { max_bytes, ..json::Limits::default() };
    match json::parse(text, limits).map_err(|e| e.to_string())? {
        Value::Object(value) => match reserved_key(&value) {
            Some(key) => {
                let key: String = key.chars().take(64).collect();
                Err(format!("the field {key:?} begins with @, which is reserved; rename it at the source"))
            }
            None => Ok(Fields { value, ..Fields::default() }),
        },
        _ => Err("the JSON text is not an object".to_owned()),
    }
}
