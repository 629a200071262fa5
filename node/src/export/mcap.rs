//! MCAP export: one channel per topic.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    path::{Path, PathBuf},
};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use mcap::{
    Compression, WriteOptions, Writer,
    records::{MessageHeader, Metadata},
};
use serde::{Deserialize, Serialize};
use time::{OffsetDateTime, format_description::well_known::Rfc3339};
use tributary_protocol::{
    json::{Object, Value},
    package::{DEFINITION_KEY, DEFINITION_TEXT_KEY, TOPIC_KEY, TYPE_KEY, parse_timestamp},
};

use super::{
    AtomicFile, ChannelForms, ExportError, PlainPackage,
    forms::{Claim, Encoded},
    schema,
};
use crate::ingest::{BlobField, PathSegment};

/// Most channels of one export; a dataset is one stream.
const MAX_CHANNELS: usize = 4096;
/// Uncompressed bytes per chunk.
const CHUNK: u64 = 1 << 20;

/// What distinguishes channels: topic, type, and the raw definition or none.
type ChannelKey = (String, String, Option<(String, String)>);

/// How the messages of a channel are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ChannelEncoding {
    /// ROS 2 messages as they were recorded.
    Cdr,
    /// JSON, with a JSON schema.
    Json,
}

/// A channel of an MCAP file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct McapChannel {
    /// Its topic.
    pub topic: String,
    /// Its message type; empty when none is known.
    pub message_type: String,
    /// How its messages are written.
    pub encoding: ChannelEncoding,
    /// Why not as they were recorded, for JSON.
    pub reason: Option<String>,
}

/// How a pass of an export ended.
pub enum McapOutcome {
    /// The file is there.
    Written {
        /// How many packages it holds.
        packages: u64,
        /// Its channels, by topic.
        channels: Vec<McapChannel>,
    },
    /// A channel that began as CDR cannot be it as a whole, or the other way round: nothing was written; write the same packages
    /// again into an exporter with these forms.
    Again(ChannelForms),
}

/// Writes packages as an MCAP file. [`McapExporter::finish`] may ask for a second pass.
pub struct McapExporter {
    path: PathBuf,
    writer: Writer<AtomicFile>,
    channels: HashMap<ChannelKey, u16>,
    forms: ChannelForms,
    packages: u64,
    dids: BTreeMap<String, u64>,
}

/// The parts of a raw payload.
struct Raw {
    /// Language and text of the definition.
    schema: Option<(String, String)>,
    cdr: Vec<u8>,
}

impl McapExporter {
    /// Begins to write `path`. `forms` are new ones, or those that the pass before left.
    ///
    /// # Errors
    /// The file cannot be created.
    pub fn create(path: &Path, forms: ChannelForms) -> Result<Self, ExportError> {
        let file = AtomicFile::create(path).map_err(ExportError::io(path))?;
        let options = WriteOptions::new()
            .compression(Some(Compression::Zstd))
            .compression_threads(0)
            .chunk_size(Some(CHUNK))
            .library(concat!("tributary ", env!("CARGO_PKG_VERSION")));
        let writer = Writer::with_options(file, options)
            .map_err(|source| ExportError::Mcap { path: path.to_owned(), source })?;
        Ok(Self { path: path.to_owned(), writer, channels: HashMap::new(), forms, packages: 0, dids: BTreeMap::new() })
    }

    fn mcap(path: &Path) -> impl Fn(mcap::McapError) -> ExportError {
        move |source| ExportError::Mcap { path: path.to_owned(), source }
    }

    /// Writes one package. Takes it, since its blobs go back into its fields.
    ///
    /// # Errors
    /// The package has no topic or no readable time, or the disk refused.
    pub fn write(&mut self, package: PlainPackage) -> Result<(), ExportError> {
        let PlainPackage { package, blobs, .. } = package;
        let number = &package.sequence_number;
        let refuse = |reason: &str| ExportError::Package { number: number.to_string(), reason: reason.to_owned() };
        let time = nanoseconds(&package.timestamp).ok_or_else(|| refuse("its timestamp is not RFC 3339"))?;
        // The counter below the incarnation; it wraps in MCAP after 2^32 packages.
        let sequence = u32::try_from(number.as_u64().unwrap_or(0) & 0xffff_ffff).unwrap_or(0);
        let mut fields = package.payload;
        let Some(Value::String(topic)) = fields.remove(TOPIC_KEY) else {
            return Err(refuse("its payload names no @topic"));
        };
        let type_name = match fields.remove(TYPE_KEY) {
            Some(Value::String(name)) => name,
            _ => String::new(),
        };
        let text = |value: Option<Value>| if let Some(Value::String(text)) = value { Some(text) } else { None };
        let (definition, definition_text) =
            (text(fields.remove(DEFINITION_KEY)), text(fields.remove(DEFINITION_TEXT_KEY)));
        let claim = Claim { number, definition: definition.as_deref(), text: definition_text.as_deref() };
        let (channel_id, data) = if let Some(raw) = as_raw(&fields, &blobs).filter(|_| definition.is_none()) {
            let channel = self.channel(topic, type_name, raw.schema, Vec::new).map_err(Self::mcap(&self.path))?;
            (channel, raw.cdr)
        } else if let Some(encoded) = self.forms.encode((&topic, &type_name), &claim, &fields, &blobs) {
            let Encoded { definition, cdr } = encoded;
            let definition = Some(("ros2msg".to_owned(), definition.to_string()));
            let channel = self.channel(topic, type_name, definition, Vec::new).map_err(Self::mcap(&self.path))?;
            (channel, cdr)
        } else {
            let paths: Vec<_> = blobs.iter().map(|blob| blob.path.clone()).collect();
            for blob in blobs {
                if let Some(place) = crate::ingest::find_mut(&mut fields, &blob.path) {
                    *place = Value::String(STANDARD.encode(&blob.bytes));
                }
            }
            let data = fields.to_canonical().map_err(|e| refuse(&e.to_string()))?;
            let schema_name = type_name.clone();
            let channel = self.json_channel(topic, type_name, || schema::infer(&schema_name, &fields, &paths));
            (channel.map_err(Self::mcap(&self.path))?, data)
        };
        let channel_id = channel_id.ok_or_else(|| refuse("the dataset has more topics than an export may hold"))?;
        let header = MessageHeader { channel_id, sequence, log_time: time, publish_time: time };
        self.writer.write_to_known_channel(&header, &data).map_err(Self::mcap(&self.path))?;
        self.packages += 1;
        if self.dids.len() < MAX_CHANNELS || self.dids.contains_key(&package.did) {
            *self.dids.entry(package.did).or_default() += 1;
        }
        Ok(())
    }

    fn json_channel(
        &mut self,
        topic: String,
        type_name: String,
        infer: impl FnOnce() -> Vec<u8>,
    ) -> mcap::McapResult<Option<u16>> {
        // No recording calls a definition's language this, so the key cannot be that of a raw channel.
        self.channel(topic, type_name, Some(("jsonschema".to_owned(), String::new())), infer)
    }

    fn channel(
        &mut self,
        topic: String,
        type_name: String,
        definition: Option<(String, String)>,
        json_schema: impl FnOnce() -> Vec<u8>,
    ) -> mcap::McapResult<Option<u16>> {
        let key = (topic, type_name, definition);
        if let Some(id) = self.channels.get(&key) {
            return Ok(Some(*id));
        }
        if self.channels.len() == MAX_CHANNELS {
            return Ok(None);
        }
        let (topic, type_name, definition) = &key;
        let name = if type_name.is_empty() { topic } else { type_name };
        let (schema, encoding) = match definition {
            Some((language, _)) if language == "jsonschema" => {
                (self.writer.add_schema(name, "jsonschema", &json_schema())?, "json")
            }
            Some((language, text)) => (self.writer.add_schema(name, language, text.as_bytes())?, "cdr"),
            // Schema 0: none is known.
            None => (0, "cdr"),
        };
        let id = self.writer.add_channel(schema, topic, encoding, &BTreeMap::new())?;
        self.channels.insert(key, id);
        Ok(Some(id))
    }

    /// Completes the file and says what it holds, or that it must be written again.
    ///
    /// # Errors
    /// The disk refused; the target is as it was.
    pub fn finish(mut self) -> Result<McapOutcome, ExportError> {
        if self.forms.again() {
            return Ok(McapOutcome::Again(self.forms));
        }
        let mcap = Self::mcap(&self.path);
        let metadata: BTreeMap<_, _> = self.dids.iter().map(|(did, count)| (did.clone(), count.to_string())).collect();
        self.writer
            .write_metadata(&Metadata { name: "tributary packages by machine".to_owned(), metadata })
            .map_err(&mcap)?;
        self.writer.finish().map_err(&mcap)?;
        let channels = described(&self.channels, &self.forms);
        self.writer.into_inner().commit().map_err(ExportError::io(&self.path))?;
        Ok(McapOutcome::Written { packages: self.packages, channels })
    }
}

/// The channels as a reader thinks of them: definitions of one type that differ are not told apart.
fn described(channels: &HashMap<ChannelKey, u16>, forms: &ChannelForms) -> Vec<McapChannel> {
    let is_json = |definition: &Option<(String, String)>| definition.as_ref().is_some_and(|(l, _)| l == "jsonschema");
    let all: BTreeSet<_> = channels.keys().map(|(topic, kind, text)| (topic, kind, is_json(text))).collect();
    let describe = |(topic, kind, json): (&String, &String, bool)| McapChannel {
        topic: topic.clone(),
        message_type: kind.clone(),
        encoding: if json { ChannelEncoding::Json } else { ChannelEncoding::Cdr },
        reason: forms.reason(topic, kind).filter(|_| json).map(|reason| reason.to_string()),
    };
    all.into_iter().map(describe).collect()
}

fn nanoseconds(timestamp: &str) -> Option<u64> {
    let any = || u64::try_from(OffsetDateTime::parse(timestamp, &Rfc3339).ok()?.unix_timestamp_nanos()).ok();
    parse_timestamp(timestamp).or_else(any)
}

/// The CDR bytes and definition of a raw payload; `None` for fields.
fn as_raw(fields: &Object, blobs: &[BlobField]) -> Option<Raw> {
    let text = |object: &Object, key: &str| object.get(key)?.as_str().map(ToOwned::to_owned);
    let schema = match fields.get("schema")? {
        Value::Null => None,
        Value::Object(schema) if schema.len() == 2 => Some((text(schema, "encoding")?, text(schema, "text")?)),
        _ => return None,
    };
    if fields.len() != 2 || schema.as_ref().is_some_and(|(language, _)| language == "jsonschema") {
        return None;
    }
    let is_cdr = |blob: &&BlobField| matches!(blob.path.as_slice(), [PathSegment::Key(key)] if key == "cdr");
    let cdr = match (fields.get("cdr")?, blobs.iter().find(is_cdr)) {
        (_, Some(blob)) => blob.bytes.clone(),
        (Value::String(text), None) => STANDARD.decode(text).ok()?,
        _ => return None,
    };
    Some(Raw { schema, cdr })
}
