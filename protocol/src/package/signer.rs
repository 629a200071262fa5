//! The fast path of a machine: from payload to signed line with no allocation once warm.

use std::sync::Arc;

use super::PackageError;
use crate::{
    identity::{IdentityKey, SIGNATURE_LEN},
    json::{CanonicalWriter, Number, Object, write_canonical_string},
};

/// Signs the packages of one stream of one machine. Hold one per lane: it keeps its buffers between packages.
pub struct PackageSigner {
    key: Arc<IdentityKey>,
    writer: CanonicalWriter,
    /// `{"did":"…"`, which the signed bytes and the line both start with.
    head: Vec<u8>,
    /// `,"schemaVersion":"…","sequenceNumber":`, which both have.
    schema: Vec<u8>,
    /// `,"signingKeyId":"…"}`.
    tail: Vec<u8>,
    /// The signed bytes.
    signed: Vec<u8>,
    /// The number and the timestamp as text.
    number: Vec<u8>,
    timestamp: Vec<u8>,
}

impl PackageSigner {
    /// A signer for the machine whose key this is. `signing_key_id` is how the machine calls its key; peaq does not sign it.
    ///
    /// # Errors
    /// When `schema_version` is blank.
    pub fn new(key: Arc<IdentityKey>, signing_key_id: &str, schema_version: &str) -> Result<Self, PackageError> {
        if schema_version.trim().is_empty() {
            return Err(PackageError::BlankSchemaVersion);
        }
        let mut head = b"{\"did\":".to_vec();
        write_canonical_string(&key.did().to_string(), &mut head);
        let mut schema = b",\"schemaVersion\":".to_vec();
        write_canonical_string(schema_version, &mut schema);
        schema.extend_from_slice(b",\"sequenceNumber\":");
        let mut tail = b",\"signingKeyId\":".to_vec();
        write_canonical_string(signing_key_id, &mut tail);
        tail.push(b'}');
        let (writer, signed, number, timestamp) = Default::default();
        Ok(Self { key, writer, head, schema, tail, signed, number, timestamp })
    }

    /// Signs one package and writes its line, without a newline, at the end of `line`; nothing is written on an error.
    ///
    /// # Errors
    /// When the sequence number is a float, or a number in the payload is not finite.
    pub fn sign_into(
        &mut self,
        line: &mut Vec<u8>,
        timestamp: &str,
        sequence_number: &Number,
        payload: &Object,
    ) -> Result<(), PackageError> {
        if !sequence_number.is_integer() {
            return Err(PackageError::SequenceNumber);
        }
        self.number.clear();
        self.writer.number(sequence_number, &mut self.number)?;
        self.timestamp.clear();
        self.timestamp.extend_from_slice(b",\"timestamp\":");
        write_canonical_string(timestamp, &mut self.timestamp);

        self.signed.clear();
        self.signed.extend_from_slice(&self.head);
        self.signed.extend_from_slice(b",\"payload\":");
        let start = self.signed.len();
        self.writer.object(payload, &mut self.signed)?;
        let payload = start..self.signed.len();
        self.signed.extend_from_slice(&self.schema);
        self.signed.extend_from_slice(&self.number);
        self.signed.extend_from_slice(&self.timestamp);
        self.signed.push(b'}');
        let signature = self.key.sign_eip191(&self.signed);

        line.reserve(self.signed.len() + self.tail.len() + 2 * SIGNATURE_LEN + 32);
        line.extend_from_slice(&self.head);
        line.extend_from_slice(&self.timestamp);
        line.extend_from_slice(&self.schema);
        line.extend_from_slice(&self.number);
        line.extend_from_slice(b",\"payload\":");
        line.extend_from_slice(&self.signed[payload]);
        line.extend_from_slice(b",\"signature\":\"0x");
        let at = line.len();
        line.resize(at + 2 * SIGNATURE_LEN, 0);
        hex::encode_to_slice(signature, &mut line[at..]).expect("the space is twice the length of the signature");
        line.push(b'"');
        line.extend_from_slice(&self.tail);
        Ok(())
    }
}
