//! Data packages: one message of a machine, numbered and signed by its identity key.
//!
//! Owns peaq's signed package: building it, its one-line text form, and verifying it as peaq's SDK does. It never applies
//! field rules (the payload is what they left), never checks freshness or order (the feed does), and gives out no numbers.
//!
//! Signed bytes: the canonical JSON of exactly five keys, signed as an EIP-191 message:
//!
//! ```text
//! {"did":…,"payload":…,"schemaVersion":…,"sequenceNumber":…,"timestamp":…}
//! ```
//!
//! Line form: a compact ASCII JSON object with these keys in this order and no newline, the payload canonical:
//!
//! ```text
//! {"did":…,"timestamp":…,"schemaVersion":…,"sequenceNumber":…,"payload":…,"signature":"0x…","signingKeyId":…}
//! ```
//!
//! The topic is not among peaq's signed keys, so a native payload carries it as `@topic`, beside `@type`.

mod blob;
mod signer;
mod timestamp;

use std::fmt;

pub use self::{
    blob::BlobMarker,
    signer::PackageSigner,
    timestamp::{parse_timestamp, timestamp_text},
};
use crate::{
    identity::{IdentityKey, SIGNATURE_LEN, recover_eip191_lenient, signature_text},
    ids::Did,
    json::{CanonicalWriter, JsonError, Limits, Number, Object, Value, parse, write_canonical_string},
};

/// The longest package line, in bytes. Byte arrays above 1 KiB are blobs beside the line, so only a message with a large
/// encrypted array comes near it.
pub const MAX_LINE: usize = 16 << 20;

/// The key in a native payload that names the topic.
pub const TOPIC_KEY: &str = "@topic";
/// The key in a native payload that names the message type.
pub const TYPE_KEY: &str = "@type";
/// The key in a native payload that names the definition of the message type, by its first 16 bytes of BLAKE3 in hex. It stands
/// only where no rule changed the message and no text in it was ill-formed: the fields are the whole message as recorded.
pub const DEFINITION_KEY: &str = "@definition";
/// The key in a native payload for the text behind [`DEFINITION_KEY`], in `ros2msg`. It stands in the first package of a dataset
/// that needs it, and now and then again.
pub const DEFINITION_TEXT_KEY: &str = "@definition_text";

/// Why a package cannot be built or read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum PackageError {
    /// The text is not JSON, or a number has no canonical form.
    #[error("the data package cannot be read or written: {0}")]
    Json(#[from] JsonError),
    /// The line is a JSON value, but no object.
    #[error("the data package is not a JSON object")]
    NotAnObject,
    /// A field is absent.
    #[error("the data package has no {field:?}")]
    Missing {
        /// Its wire name.
        field: &'static str,
    },
    /// A field has another type.
    #[error("{field:?} of the data package is not {expected}")]
    Type {
        /// Its wire name.
        field: &'static str,
        /// What it has to be.
        expected: &'static str,
    },
    /// A field that packages do not have; it would not be covered by the signature.
    #[error("the data package has a field that packages do not have: {field:?}")]
    Unknown {
        /// The start of its name.
        field: String,
    },
    /// `schemaVersion` is blank.
    #[error("schemaVersion of a data package must not be blank")]
    BlankSchemaVersion,
    /// `sequenceNumber` is a float.
    #[error("sequenceNumber of a data package must be an integer")]
    SequenceNumber,
}

/// What is signed.
#[derive(Debug, Clone, Copy)]
pub struct PackageFields<'a> {
    /// The machine, as text: its letter case is signed too.
    pub did: &'a str,
    /// Capture time; natively RFC 3339, UTC, with nanoseconds, to peaq any text.
    pub timestamp: &'a str,
    /// Version of the payload's schema, not blank.
    pub schema_version: &'a str,
    /// Any integer.
    pub sequence_number: &'a Number,
    /// The message after field rules.
    pub payload: &'a Object,
}

impl PackageFields<'_> {
    /// The canonical JSON that is signed.
    ///
    /// # Errors
    /// When a number in it is not finite.
    pub fn signed_bytes(&self) -> Result<Vec<u8>, JsonError> {
        let mut writer = CanonicalWriter::default();
        let mut out = Vec::with_capacity(1024);
        out.extend_from_slice(b"{\"did\":");
        write_canonical_string(self.did, &mut out);
        out.extend_from_slice(b",\"payload\":");
        writer.object(self.payload, &mut out)?;
        out.extend_from_slice(b",\"schemaVersion\":");
        write_canonical_string(self.schema_version, &mut out);
        out.extend_from_slice(b",\"sequenceNumber\":");
        writer.number(self.sequence_number, &mut out)?;
        out.extend_from_slice(b",\"timestamp\":");
        write_canonical_string(self.timestamp, &mut out);
        out.push(b'}');
        Ok(out)
    }
}

/// A signed package.
#[derive(Debug, Clone, PartialEq)]
pub struct DataPackage {
    /// The machine, as text.
    pub did: String,
    /// Capture time.
    pub timestamp: String,
    /// Version of the payload's schema.
    pub schema_version: String,
    /// Any integer; natively incarnation x 2^40 + counter.
    pub sequence_number: Number,
    /// The message after field rules.
    pub payload: Object,
    /// The EIP-191 signature as text: `0x` and 130 hex digits when we made it.
    pub signature: String,
    /// Which of the machine's keys signed; not covered by the signature.
    pub signing_key_id: String,
}

/// What verifying a package found. The DID is the claimed one also when the package is not valid.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Verdict {
    /// Whether the claimed machine signed exactly this.
    pub valid: bool,
    /// The DID the package claims.
    pub did: String,
    /// Why it is not valid.
    pub reason: Option<Reason>,
}

/// Why a package is not valid. The texts of the first three are peaq's own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Reason {
    /// The claimed DID is not `did:peaq:0x` and 40 hex digits.
    DidFormat,
    /// The signature is malformed.
    Signature,
    /// Another key signed, or something else was signed.
    Signer,
    /// The package is of another machine than the one expected; native verification only.
    OtherMachine,
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::DidFormat => "Invalid package DID format",
            Self::Signature => "Invalid signature",
            Self::Signer => "Recovered signer does not match package DID",
            Self::OtherMachine => "Package DID is not the expected machine",
        })
    }
}

impl DataPackage {
    /// Builds and signs a package. Lanes use [`PackageSigner`], which writes the line at once.
    ///
    /// # Errors
    /// When `schema_version` is blank, the sequence number a float, or a number not finite.
    pub fn sign(key: &IdentityKey, fields: &PackageFields<'_>, signing_key_id: &str) -> Result<Self, PackageError> {
        if fields.schema_version.trim().is_empty() {
            return Err(PackageError::BlankSchemaVersion);
        }
        if !fields.sequence_number.is_integer() {
            return Err(PackageError::SequenceNumber);
        }
        let signature = key.sign_eip191(&fields.signed_bytes()?);
        Ok(Self {
            did: fields.did.to_owned(),
            timestamp: fields.timestamp.to_owned(),
            schema_version: fields.schema_version.to_owned(),
            sequence_number: fields.sequence_number.clone(),
            payload: fields.payload.clone(),
            signature: signature_text(&signature),
            signing_key_id: signing_key_id.to_owned(),
        })
    }

    /// What is signed.
    #[must_use]
    pub fn fields(&self) -> PackageFields<'_> {
        PackageFields {
            did: &self.did,
            timestamp: &self.timestamp,
            schema_version: &self.schema_version,
            sequence_number: &self.sequence_number,
            payload: &self.payload,
        }
    }

    /// Verifies the package as peaq's SDK does: the format of the DID, then the signature, then the signer.
    ///
    /// # Errors
    /// When a number is not finite, so that there are no signed bytes; a parsed package has none such.
    pub fn verify(&self) -> Result<Verdict, JsonError> {
        let Some(claimed) = address_of(&self.did) else { return Ok(self.verdict(Some(Reason::DidFormat))) };
        let signed = self.fields().signed_bytes()?;
        let reason = match signature_bytes(&self.signature).map(|s| recover_eip191_lenient(&signed, &s)) {
            Some(Ok(signer)) if signer == claimed => None,
            Some(Ok(_)) => Some(Reason::Signer),
            Some(Err(_)) | None => Some(Reason::Signature),
        };
        Ok(self.verdict(reason))
    }

    /// Verifies the package as [`DataPackage::verify`] and that it is of `machine`, whose feed it came in.
    ///
    /// # Errors
    /// As [`DataPackage::verify`].
    pub fn verify_from(&self, machine: &Did) -> Result<Verdict, JsonError> {
        let verdict = self.verify()?;
        if verdict.valid && address_of(&self.did) != Some(*machine) {
            return Ok(self.verdict(Some(Reason::OtherMachine)));
        }
        Ok(verdict)
    }

    fn verdict(&self, reason: Option<Reason>) -> Verdict {
        Verdict { valid: reason.is_none(), did: self.did.clone(), reason }
    }

    /// Reads a package from its JSON text: exactly the seven keys in any order, with any whitespace.
    ///
    /// # Errors
    /// When the text is longer than [`MAX_LINE`], not JSON, or not a package.
    pub fn from_json(text: &[u8]) -> Result<Self, PackageError> {
        let Value::Object(object) = parse(text, Limits::bytes(MAX_LINE))? else {
            return Err(PackageError::NotAnObject);
        };
        let mut draft = Draft::default();
        for (key, value) in object {
            match key.as_str() {
                "did" => draft.did = Some(string("did", value)?),
                "timestamp" => draft.timestamp = Some(string("timestamp", value)?),
                "schemaVersion" => draft.schema_version = Some(string("schemaVersion", value)?),
                "signature" => draft.signature = Some(string("signature", value)?),
                "signingKeyId" => draft.signing_key_id = Some(string("signingKeyId", value)?),
                "sequenceNumber" => match value {
                    Value::Number(number) if number.is_integer() => draft.sequence_number = Some(number),
                    _ => return Err(PackageError::Type { field: "sequenceNumber", expected: "an integer" }),
                },
                "payload" => match value {
                    Value::Object(payload) => draft.payload = Some(payload),
                    _ => return Err(PackageError::Type { field: "payload", expected: "an object" }),
                },
                _ => return Err(PackageError::Unknown { field: key.chars().take(80).collect() }),
            }
        }
        draft.finish()
    }

    /// The line form, at the end of `line`, without a newline.
    ///
    /// # Errors
    /// When a number is not finite.
    pub fn write_line(&self, line: &mut Vec<u8>) -> Result<(), JsonError> {
        let mut writer = CanonicalWriter::default();
        line.extend_from_slice(b"{\"did\":");
        write_canonical_string(&self.did, line);
        line.extend_from_slice(b",\"timestamp\":");
        write_canonical_string(&self.timestamp, line);
        line.extend_from_slice(b",\"schemaVersion\":");
        write_canonical_string(&self.schema_version, line);
        line.extend_from_slice(b",\"sequenceNumber\":");
        writer.number(&self.sequence_number, line)?;
        line.extend_from_slice(b",\"payload\":");
        writer.object(&self.payload, line)?;
        line.extend_from_slice(b",\"signature\":");
        write_canonical_string(&self.signature, line);
        line.extend_from_slice(b",\"signingKeyId\":");
        write_canonical_string(&self.signing_key_id, line);
        line.push(b'}');
        Ok(())
    }

    /// The line form.
    ///
    /// # Errors
    /// When a number is not finite.
    pub fn to_line(&self) -> Result<Vec<u8>, JsonError> {
        let mut line = Vec::with_capacity(1024);
        self.write_line(&mut line)?;
        Ok(line)
    }
}

/// The fields of a package while it is read.
#[derive(Default)]
struct Draft {
    did: Option<String>,
    timestamp: Option<String>,
    schema_version: Option<String>,
    sequence_number: Option<Number>,
    payload: Option<Object>,
    signature: Option<String>,
    signing_key_id: Option<String>,
}

impl Draft {
    fn finish(self) -> Result<DataPackage, PackageError> {
        let missing = |field| PackageError::Missing { field };
        Ok(DataPackage {
            did: self.did.ok_or_else(|| missing("did"))?,
            timestamp: self.timestamp.ok_or_else(|| missing("timestamp"))?,
            schema_version: self.schema_version.ok_or_else(|| missing("schemaVersion"))?,
            sequence_number: self.sequence_number.ok_or_else(|| missing("sequenceNumber"))?,
            payload: self.payload.ok_or_else(|| missing("payload"))?,
            signature: self.signature.ok_or_else(|| missing("signature"))?,
            signing_key_id: self.signing_key_id.ok_or_else(|| missing("signingKeyId"))?,
        })
    }
}

fn string(field: &'static str, value: Value) -> Result<String, PackageError> {
    match value {
        Value::String(text) => Ok(text),
        _ => Err(PackageError::Type { field, expected: "a string" }),
    }
}

/// The address in a package's DID: `did:peaq:0x` in lower case, then 40 hex digits in any case.
fn address_of(did: &str) -> Option<Did> {
    let mut address = [0; Did::LEN];
    hex::decode_to_slice(did.strip_prefix(Did::PREFIX)?, &mut address).ok()?;
    Some(Did::from_bytes(address))
}

/// The bytes of a signature text as tolerant as peaq's SDK: hex in any case, with `0x`, `0X` or neither.
fn signature_bytes(text: &str) -> Option<[u8; SIGNATURE_LEN]> {
    let digits = text.strip_prefix("0x").or_else(|| text.strip_prefix("0X")).unwrap_or(text);
    let mut bytes = [0; SIGNATURE_LEN];
    hex::decode_to_slice(digits, &mut bytes).ok()?;
    Some(bytes)
}

#[cfg(test)]
mod tests;
