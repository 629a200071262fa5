//! From a message to a signed package: rules, blobs, signature.
//!
//! Owns what may leave the machine in clear. Whatever a rule cannot decide stops the lane; a message is never let through
//! because something about it was not understood.

use std::sync::Arc;

use tributary_protocol::{
    identity::IdentityKey,
    json::{Number, Object},
    package::{BlobMarker, PackageSigner, TOPIC_KEY, TYPE_KEY, timestamp_text},
    rules::{
        Action,
        native::{NativeRules, RuleViolation},
    },
};

use crate::ingest::{BlobField, Content, Fields, PathSegment, RawMessage, SourceMessage};

/// Version of the payload's form, which peaq's package format asks for.
const SCHEMA_VERSION: &str = "1.0.0";
/// Why there is no package of a message.
#[derive(Debug, thiserror::Error)]
pub(crate) enum PackError {
    /// The rules cannot decide about this message. Fail-closed: the stream stops.
    #[error(transparent)]
    Rules(#[from] RuleViolation),
    /// This message cannot be a package; others can.
    #[error("{0}")]
    Message(String),
}

/// A package and its blobs, as they follow each other in a dataset.
#[derive(Debug, Default)]
pub(crate) struct Packed {
    /// The package's line with its newline.
    pub(crate) line: Vec<u8>,
    /// The bytes behind the line.
    pub(crate) blobs: Vec<Vec<u8>>,
}

impl Packed {
    pub(crate) fn parts(&self) -> Vec<&[u8]> {
        std::iter::once(self.line.as_slice()).chain(self.blobs.iter().map(Vec::as_slice)).collect()
    }

    pub(crate) fn len(&self) -> usize {
        self.line.len() + self.blobs.iter().map(Vec::len).sum::<usize>()
    }
}

/// Makes the packages of one stream.
pub(crate) struct Packer {
    signer: PackageSigner,
    /// `None` for raw streams, whose bytes no rule can look into.
    rules: Option<NativeRules>,
    /// What the payload calls the topic: the alias where the stream has one.
    name: String,
}

impl Packer {
    pub(crate) fn new(key: Arc<IdentityKey>, rules: Option<NativeRules>, name: &str) -> Self {
        let key_id = format!("{}#identity", key.did());
        let signer = PackageSigner::new(key, &key_id, SCHEMA_VERSION).expect("the schema version is not blank");
        Self { signer, rules, name: name.to_owned() }
    }

    /// Makes the package `number` of a message.
    pub(crate) fn pack(&mut self, message: SourceMessage, number: u64) -> Result<Packed, PackError> {
        let SourceMessage { type_name, log_time_ns, content, .. } = message;
        let (mut payload, mut blobs) = match content {
            Content::Fields(fields) => self.apply_rules(fields)?,
            Content::Raw(raw) => raw_payload(raw, self.rules.is_some())?,
            _ => return Err(PackError::Message("a slice of a file is not a message".to_owned())),
        };
        payload.insert(TOPIC_KEY, self.name.as_str());
        payload.insert(TYPE_KEY, &*type_name);
        let mut packed = Packed::default();
        let number = Number::from(number);
        self.signer
            .sign_into(&mut packed.line, &timestamp_text(log_time_ns), &number, &payload)
            .map_err(|error| PackError::Message(error.to_string()))?;
        packed.line.push(b'\n');
        if !blobs.is_empty() {
            for marker in BlobMarker::all_in(&payload) {
                let at = blobs.iter().position(|blob| blob.marker == marker);
                let at = at.ok_or_else(|| PackError::Message("a blob's marker stands without its bytes".to_owned()))?;
                packed.blobs.push(blobs.swap_remove(at).bytes);
            }
        }
        Ok(packed)
    }

    /// The fields that may leave. A byte array that a rule changes is given to the rule as base64: a rule changes the value it
    /// finds, and must find the bytes, not the marker that stands for them.
    fn apply_rules(&mut self, mut fields: Fields) -> Result<(Object, Vec<BlobField>), PackError> {
        let Some(rules) = &self.rules else {
            return Err(PackError::Message("a raw stream cannot carry decoded fields".to_owned()));
        };
        if !fields.blobs.is_empty() {
            fields.inline_where(|path| changes(rules, path));
        }
        let Fields { value, blobs } = fields;
        Ok((rules.apply_owned(value, &mut rand::rng())?, blobs))
    }
}

/// Whether the rule that governs a path replaces what stands there.
fn changes(rules: &NativeRules, path: &[PathSegment]) -> bool {
    let keys: Vec<&str> = path
        .iter()
        .map_while(|segment| match segment {
            PathSegment::Key(key) => Some(key.as_str()),
            // Rules end at lists, and so does what they govern.
            PathSegment::Index(_) => None,
        })
        .collect();
    matches!(rules.action_for(&keys).action, Action::Encrypt | Action::Anonymize)
}

fn raw_payload(raw: RawMessage, has_rules: bool) -> Result<(Object, Vec<BlobField>), PackError> {
    if has_rules {
        let reason =
            "the message cannot be decoded, so its field rules cannot be applied; set `mode: raw` to sell it whole";
        return Err(PackError::Message(reason.to_owned()));
    }
    let Fields { value, blobs } = raw.into_fields();
    Ok((value, blobs))
}
