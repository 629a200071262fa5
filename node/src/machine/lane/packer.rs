//! From a message to a signed package: rules, blobs, signature.
//!
//! Owns what may leave the machine in clear. Whatever a rule cannot decide stops the lane; a message is never let through
//! because something about it was not understood.

use std::sync::Arc;

use tributary_protocol::{
    identity::IdentityKey,
    json::{Number, Object},
    package::{BlobMarker, DEFINITION_KEY, DEFINITION_TEXT_KEY, PackageSigner, TOPIC_KEY, TYPE_KEY, timestamp_text},
    rules::{RuleSet, RuleViolation},
};

use crate::ingest::{BlobField, Content, Definition, Fields, PathSegment, RawMessage, SourceMessage};

/// Version of the payload's form, which peaq's package format asks for.
const SCHEMA_VERSION: &str = "1.0.0";
/// After how many bytes of packages the text of their definition stands in one again: so that nearly every chunk of the usual size
/// can be read alone.
const TELL_AGAIN: usize = 256 << 10;
/// Nor is the text more than one part in so many of what is packed.
const TEXT_SHARE: usize = 64;

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
    rules: Option<RuleSet>,
    /// What the payload calls the topic: the alias where the stream has one.
    name: String,
    /// The definition whose text was told last, and the bytes packed since.
    told: Option<(Arc<str>, usize)>,
}

impl Packer {
    pub(crate) fn new(key: Arc<IdentityKey>, rules: Option<RuleSet>, name: &str) -> Self {
        let key_id = format!("{}#identity", key.did());
        let signer = PackageSigner::new(key, &key_id, SCHEMA_VERSION).expect("the schema version is not blank");
        Self { signer, rules, name: name.to_owned(), told: None }
    }

    /// Makes the package `number` of a message.
    pub(crate) fn pack(&mut self, message: SourceMessage, number: u64) -> Result<Packed, PackError> {
        let SourceMessage { type_name, log_time_ns, content, .. } = message;
        let (mut payload, mut blobs, whole) = match content {
            Content::Fields(mut fields) => {
                let definition = fields.definition.take();
                let (payload, blobs, changed) = self.apply_rules(fields)?;
                (payload, blobs, definition.filter(|_| !changed))
            }
            Content::Raw(raw) => {
                let (payload, blobs) = raw_payload(raw, self.rules.is_some())?;
                (payload, blobs, None)
            }
            _ => return Err(PackError::Message("a slice of a file is not a message".to_owned())),
        };
        payload.insert(TOPIC_KEY, self.name.as_str());
        payload.insert(TYPE_KEY, &*type_name);
        if let Some(definition) = &whole {
            payload.insert(DEFINITION_KEY, &*definition.id);
            if self.must_tell(definition) {
                payload.insert(DEFINITION_TEXT_KEY, &*definition.text);
            }
        }
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
        if let Some(definition) = whole {
            let before = self.told.take().filter(|_| !payload.contains_key(DEFINITION_TEXT_KEY));
            let since = before.map_or(0, |(_, since)| since);
            self.told = Some((Arc::clone(&definition.id), since.saturating_add(packed.len())));
        }
        Ok(packed)
    }

    /// The next package begins a dataset, which others can have without the ones before.
    pub(crate) fn begin_dataset(&mut self) {
        self.told = None;
    }

    fn must_tell(&self, definition: &Definition) -> bool {
        match &self.told {
            Some((id, since)) if *id == definition.id => {
                *since >= TELL_AGAIN.max(definition.text.len().saturating_mul(TEXT_SHARE))
            }
            _ => true,
        }
    }

    /// The fields that may leave. A byte array that a rule changes is given to the rule as base64: a rule changes the value it
    /// finds, and must find the bytes, not the marker that stands for them. Says too whether a rule changed anything.
    fn apply_rules(&mut self, mut fields: Fields) -> Result<(Object, Vec<BlobField>, bool), PackError> {
        let Some(rules) = &self.rules else {
            return Err(PackError::Message("a raw stream cannot carry decoded fields".to_owned()));
        };
        if !fields.blobs.is_empty() {
            fields.inline_where(|path| changes(rules, path));
        }
        let Fields { value, blobs, .. } = fields;
        let (value, changed) = rules.apply_noting(value, &mut rand::rng())?;
        Ok((value, blobs, changed))
    }
}

/// Whether a rule makes something of what stands at a path.
fn changes(rules: &RuleSet, path: &[PathSegment]) -> bool {
    let keys: Vec<&str> = path
        .iter()
        .map_while(|segment| match segment {
            PathSegment::Key(key) => Some(key.as_str()),
            // Rules end at lists, and so does what they govern.
            PathSegment::Index(_) => None,
        })
        .collect();
    rules.needs_value(&keys)
}

fn raw_payload(raw: RawMessage, has_rules: bool) -> Result<(Object, Vec<BlobField>), PackError> {
    if has_rules {
        let reason =
            "the message cannot be decoded, so its field rules cannot be applied; set `mode: raw` to sell it whole";
        return Err(PackError::Message(reason.to_owned()));
    }
    let Fields { value, blobs, .. } = raw.into_fields();
    Ok((value, blobs))
}

#[cfg(test)]
mod tests {
    use base64::{Engine as _, engine::general_purpose::STANDARD};
    use sha2::{Digest as _, Sha256};
    use tributary_protocol::{
        json::Value,
        package::DataPackage,
        rules::{
            Action,
            agent::{AgentAction, AgentRule, AgentRules},
            native::{DefaultAction, NativeRule, NativeRules},
        },
    };

    use super::*;

    fn packer(rules: &[(&str, Action)]) -> Packer {
        let rules = rules.iter().map(|(path, action)| NativeRule {
            path: (*path).to_owned(),
            action: *action,
            strategy: None,
            optional: true,
            key: None,
        });
        let rules = NativeRules::load(DefaultAction::Include, rules.collect()).unwrap();
        packing(RuleSet::Native(rules))
    }

    fn packing(rules: RuleSet) -> Packer {
        Packer::new(Arc::new(IdentityKey::generate(&mut rand::rng())), Some(rules), "/t")
    }

    fn message(definition: Option<&Arc<Definition>>, field: &str, bytes: usize) -> SourceMessage {
        let mut fields = Fields { definition: definition.cloned(), ..Fields::default() };
        fields.value.insert(field, "x".repeat(bytes));
        let content = Content::Fields(fields);
        SourceMessage { topic: "/t".into(), type_name: "p/msg/T".into(), log_time_ns: 1, publish_time_ns: 1, content }
    }

    fn definition(text: &str) -> Arc<Definition> {
        Arc::new(Definition { id: crate::ingest::definition_id(text).into(), text: text.into() })
    }

    /// What a package says: the definition's id, and whether its text is there.
    fn told(packer: &mut Packer, message: SourceMessage) -> Option<(String, bool)> {
        let packed = packer.pack(message, 1).unwrap();
        let payload = DataPackage::from_json(packed.line.trim_ascii_end()).unwrap().payload;
        let id = payload.get(DEFINITION_KEY).map(|id| id.as_str().unwrap().to_owned());
        let text = payload.get(DEFINITION_TEXT_KEY).map(|text| crate::ingest::definition_id(text.as_str().unwrap()));
        assert!(text.is_none() || text == id);
        assert_eq!(payload.len(), 3 + usize::from(id.is_some()) + usize::from(text.is_some()));
        assert_eq!(payload.get(TYPE_KEY), Some(&Value::from("p/msg/T")));
        Some((id?, text.is_some()))
    }

    #[test]
    fn a_whole_message_names_its_definition_and_the_text_comes_again_in_time() {
        let mut packer = packer(&[("gone", Action::Exclude)]);
        let (a, b) = (definition("string data\n"), definition("string data\nint8 X=1\n"));
        let mut text_of = |definition: &Arc<Definition>, bytes| {
            let said = told(&mut packer, message(Some(definition), "data", bytes)).unwrap();
            assert_eq!(said.0, *definition.id);
            said.1
        };
        assert!(text_of(&a, 5));
        assert!(!text_of(&a, TELL_AGAIN));
        assert!(text_of(&a, 5), "a chunk later");
        assert!(!text_of(&a, 5));
        assert!(text_of(&b, 5) && !text_of(&b, 5), "another definition");
        packer.begin_dataset();
        assert_eq!(told(&mut packer, message(Some(&b), "data", 5)).map(|(_, text)| text), Some(true));
    }

    #[test]
    fn what_a_rule_changed_or_nobody_defined_claims_nothing() {
        let whole = definition("string data\n");
        let mut packer = packer(&[("secret", Action::Exclude)]);
        assert!(told(&mut packer, message(None, "data", 5)).is_none());
        let packed = packer.pack(message(Some(&whole), "secret", 5), 1).unwrap();
        let payload = DataPackage::from_json(packed.line.trim_ascii_end()).unwrap().payload;
        assert_eq!(payload.keys().collect::<Vec<_>>(), [TOPIC_KEY, TYPE_KEY]);
        assert_eq!(told(&mut packer, message(Some(&whole), "data", 5)), Some((whole.id.to_string(), true)));
    }

    #[test]
    fn a_blob_that_an_agents_rule_hashes_is_hashed_and_one_that_no_rule_includes_stays() {
        let rule = |path: &str, action| AgentRule { path: path.to_owned(), action };
        let packed = |rules: Vec<AgentRule>| {
            let mut fields = Fields::default();
            for name in ["data", "other"] {
                let blob = BlobField::new(vec![PathSegment::Key(name.to_owned())], vec![7; 5000]);
                fields.value.insert(name, blob.marker.to_value());
                fields.blobs.push(blob);
            }
            let content = Content::Fields(fields);
            let message = SourceMessage { content, ..message(None, "unused", 0) };
            let mut packer = packing(RuleSet::Agent(AgentRules::load(rules).unwrap()));
            let packed = packer.pack(message, 1).unwrap();
            let payload = DataPackage::from_json(packed.line.trim_ascii_end()).unwrap().payload;
            (payload, packed.blobs)
        };
        let (payload, blobs) = packed(vec![rule("data", AgentAction::Include)]);
        assert_eq!((payload.contains_key("other"), blobs), (false, vec![vec![7; 5000]]));
        let (payload, blobs) = packed(vec![rule("data", AgentAction::Hash), rule("other", AgentAction::Anonymize)]);
        assert!(blobs.is_empty());
        // SHA-256 of the base64 text of the bytes, in quotes.
        let text = format!("\"{}\"", STANDARD.encode([7; 5000]));
        let hash = format!("sha256:{}", hex::encode(Sha256::digest(text)));
        assert_eq!(payload.get("data"), Some(&Value::from(hash)));
        assert_eq!(payload.get("other"), Some(&Value::from(Object::from_iter([("redacted", true)]))));
    }
}
