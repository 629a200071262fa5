//! Frames into lines, keys sorted at every level.

use base64::{Engine, encoded_len};
use serde::Serialize;

use super::{ErrorFrame, Frame, Handshake, MAX_FRAME_BYTES};
use crate::peaq::{
    ascii_json,
    base64_engine::BASE64,
    envelope::{Encryption, Envelope, RecipientEntry, Signature},
};

impl Frame<'_> {
    /// The line, newline included.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut line = match self {
            Self::Handshake(Handshake { purchase_id, session_id, buyer_id }) => {
                ascii_json::compact(&HandshakeOut { buyer_id, purchase_id, session_id, kind: "handshake" })
            }
            Self::Chunk(chunk) => {
                let mut line = Vec::new();
                write_chunk(&mut line, &chunk.chunk_id, chunk.index, &chunk.envelope, |line| {
                    // The text may be anything that was read, so it is written as text.
                    let text = ascii_json::compact(&chunk.ciphertext_b64);
                    line.extend_from_slice(&text[1..text.len() - 1]);
                });
                return line;
            }
            Self::Complete { total_chunks } => ascii_json::compact(&CompleteOut { total_chunks, kind: "complete" }),
            Self::Error(ErrorFrame { code, reason }) => ascii_json::compact(&ErrorOut { code, reason, kind: "error" }),
        };
        line.push(b'\n');
        line
    }
}

/// Appends the line of a chunk, newline included.
pub fn encode_chunk(envelope: &Envelope, ciphertext: &[u8], line: &mut Vec<u8>) {
    line.reserve(chunk_frame_len(envelope, ciphertext.len()) + 1);
    write_chunk(line, &envelope.chunk_id, envelope.index, envelope, |line| {
        let start = line.len();
        line.resize(start + base64_len(ciphertext.len()), 0);
        BASE64.encode_slice(ciphertext, &mut line[start..]).expect("the room was made for exactly this text");
    });
}

/// Length of a chunk's line without its newline, bytes. Over [`MAX_FRAME_BYTES`] it cannot be delivered.
#[must_use]
pub fn chunk_frame_len(envelope: &Envelope, ciphertext_len: usize) -> usize {
    let mut empty = Vec::new();
    write_chunk(&mut empty, &envelope.chunk_id, envelope.index, envelope, |_| {});
    empty.len() - 1 + base64_len(ciphertext_len)
}

/// The longest ciphertext that fits in a frame with this envelope, bytes.
#[must_use]
pub fn max_ciphertext_len(envelope: &Envelope) -> usize {
    MAX_FRAME_BYTES.saturating_sub(chunk_frame_len(envelope, 0)) / 4 * 3
}

/// An envelope with its keys sorted at every level.
pub(in crate::peaq) fn sorted_envelope(envelope: &Envelope) -> impl Serialize + '_ {
    EnvelopeOut::from(envelope)
}

fn base64_len(len: usize) -> usize {
    encoded_len(len, true).unwrap_or(usize::MAX)
}

fn write_chunk(
    line: &mut Vec<u8>,
    chunk_id: &str,
    index: u64,
    envelope: &Envelope,
    ciphertext: impl FnOnce(&mut Vec<u8>),
) {
    line.extend_from_slice(b"{\"chunkId\":");
    line.extend_from_slice(&ascii_json::compact(&chunk_id));
    line.extend_from_slice(b",\"ciphertextB64\":\"");
    ciphertext(line);
    line.extend_from_slice(b"\",\"envelope\":");
    line.extend_from_slice(&ascii_json::compact(&EnvelopeOut::from(envelope)));
    line.extend_from_slice(format!(",\"index\":{index},\"type\":\"chunk\"}}\n").as_bytes());
}

// Field order is key order, so the fields below stand in the order of their names on the wire.

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct HandshakeOut<'a> {
    buyer_id: &'a str,
    purchase_id: &'a str,
    session_id: &'a str,
    #[serde(rename = "type")]
    kind: &'static str,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct CompleteOut<'a> {
    total_chunks: &'a serde_json::Value,
    #[serde(rename = "type")]
    kind: &'static str,
}

#[derive(Serialize)]
struct ErrorOut<'a> {
    code: &'a str,
    reason: &'a str,
    #[serde(rename = "type")]
    kind: &'static str,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct EnvelopeOut<'a> {
    chunk_id: &'a str,
    encrypted_data_hash: &'a str,
    encryption: EncryptionOut<'a>,
    index: u64,
    plaintext_hash: &'a str,
    previous_chunk_id: Option<&'a str>,
    schema_version: &'a str,
    signature: SignatureOut<'a>,
    storage_ref: Option<&'a str>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct EncryptionOut<'a> {
    algorithm: &'a str,
    key_commitment: &'a str,
    key_recipients: Vec<RecipientOut<'a>>,
    nonce: &'a str,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct RecipientOut<'a> {
    algorithm: &'a str,
    public_key_hex: &'a str,
    recipient_id: &'a str,
    recipient_type: &'a str,
    wrapped_key_hex: &'a str,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct SignatureOut<'a> {
    algorithm: &'a str,
    key_id: &'a str,
    machine_did: &'a str,
    public_key_hex: &'a str,
    value: &'a str,
}

impl<'a> From<&'a Envelope> for EnvelopeOut<'a> {
    fn from(envelope: &'a Envelope) -> Self {
        let Encryption { algorithm, nonce, key_commitment, key_recipients } = &envelope.encryption;
        Self {
            chunk_id: &envelope.chunk_id,
            encrypted_data_hash: &envelope.encrypted_data_hash,
            encryption: EncryptionOut {
                algorithm,
                key_commitment,
                key_recipients: key_recipients.iter().map(RecipientOut::from).collect(),
                nonce,
            },
            index: envelope.index,
            plaintext_hash: &envelope.plaintext_hash,
            previous_chunk_id: envelope.previous_chunk_id.as_deref(),
            schema_version: &envelope.schema_version,
            signature: SignatureOut::from(&envelope.signature),
            storage_ref: envelope.storage_ref.as_deref(),
        }
    }
}

impl<'a> From<&'a RecipientEntry> for RecipientOut<'a> {
    fn from(entry: &'a RecipientEntry) -> Self {
        let RecipientEntry { recipient_id, recipient_type, algorithm, public_key_hex, wrapped_key_hex } = entry;
        Self { algorithm, public_key_hex, recipient_id, recipient_type, wrapped_key_hex }
    }
}

impl<'a> From<&'a Signature> for SignatureOut<'a> {
    fn from(signature: &'a Signature) -> Self {
        let Signature { algorithm, machine_did, key_id, public_key_hex, value } = signature;
        Self { algorithm, key_id, machine_did, public_key_hex, value }
    }
}
