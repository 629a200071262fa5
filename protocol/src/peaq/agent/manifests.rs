//! Chunk manifests as the agent writes them.
//!
//! The fields are those of an [`Envelope`], the values are made in another way: hashes are `sha256:…`, the chunk id is the
//! hash of a JSON text, there may be any recipients, and a chunk links to the machine's last one of any topic, so a set of them
//! need not be a chain. An older agent's hashes are of the JSON text of the ciphertext's hex; they are not read.

use serde::Serialize;

use crate::{
    keys::FeedPublicKey,
    peaq::{
        ReadError,
        envelope::{Envelope, MAX_ENVELOPE_BYTES},
        hexes,
        verify::is_named,
    },
};

/// Longest manifest file that is read, in bytes.
pub const MAX_FILE_BYTES: usize = 64 << 20;

const WHAT: &str = "agent's manifest file";

/// What is wrong with an agent's chunk.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum AgentChunkError {
    /// The ciphertext is not the one named.
    #[error("the ciphertext does not match encryptedDataHash")]
    CiphertextHash,
    /// The id does not follow from the other fields.
    #[error("chunkId does not follow from the fields that it is made of")]
    ChunkId,
    /// The key in the manifest did not sign.
    #[error("the signature is not good")]
    Signature,
}

/// Reads the agent's file: an array of manifests, in the order they were made.
///
/// # Errors
/// Too long, not such an array, or of another schema.
pub fn parse(text: &[u8]) -> Result<Vec<Envelope>, ReadError> {
    ReadError::check_length(WHAT, text, MAX_FILE_BYTES)?;
    let manifests: Vec<Envelope> =
        serde_json::from_slice(text).map_err(|source| ReadError::Json { what: WHAT, source })?;
    for manifest in &manifests {
        ReadError::check_schema(WHAT, &manifest.schema_version, super::super::CHUNK_SCHEMA)?;
    }
    Ok(manifests)
}

/// Whether hashes in this envelope are written as the agent writes them.
#[must_use]
pub fn is_agents(envelope: &Envelope) -> bool {
    envelope.encrypted_data_hash.starts_with("sha256:")
}

/// The name of a chunk's ciphertext file: the id without its prefix.
#[must_use]
pub fn file_name(envelope: &Envelope) -> Option<String> {
    let digits = envelope.chunk_id.strip_prefix("sha256:").unwrap_or(&envelope.chunk_id);
    // It becomes part of a path.
    let plain = !digits.is_empty() && digits.len() <= 128 && digits.bytes().all(|b| b.is_ascii_alphanumeric());
    (plain && envelope.chunk_id.len() <= MAX_ENVELOPE_BYTES).then(|| format!("{digits}.bin"))
}

/// Checks one chunk by itself and returns the key that signed it. Whether it belongs to a machine, or follows another chunk,
/// is not looked at.
///
/// # Errors
/// The first check that fails.
pub fn check(envelope: &Envelope, ciphertext: &[u8]) -> Result<FeedPublicKey, AgentChunkError> {
    if hash_text(ciphertext) != envelope.encrypted_data_hash {
        return Err(AgentChunkError::CiphertextHash);
    }
    if chunk_id(envelope) != envelope.chunk_id {
        return Err(AgentChunkError::ChunkId);
    }
    let signature = &envelope.signature;
    let key = hexes::decode(&signature.public_key_hex, "public_key_hex").ok().and_then(|key| key.try_into().ok());
    let value = hexes::decode(&signature.value, "signature").ok().and_then(|value| value.try_into().ok());
    match (key, value) {
        (Some(key), Some(value)) if is_named(signature) => {
            let key = FeedPublicKey::from_bytes(key);
            let good = key.verify_text(&envelope.encrypted_data_hash, &value).is_ok();
            good.then_some(key).ok_or(AgentChunkError::Signature)
        }
        _ => Err(AgentChunkError::Signature),
    }
}

/// `sha256:` and 64 digits.
#[must_use]
pub fn hash_text(bytes: &[u8]) -> String {
    format!("sha256:{}", hex::encode(hexes::sha256(bytes)))
}

/// The id the agent gives a chunk: the hash of a JSON text with sorted keys, in which nothing but controls is escaped.
#[must_use]
pub fn chunk_id(envelope: &Envelope) -> String {
    #[derive(Serialize)]
    #[serde(rename_all = "camelCase")]
    struct Named<'a> {
        encrypted_data_hash: &'a str,
        index: u64,
        plaintext_hash: &'a str,
        previous_chunk_id: Option<&'a str>,
        schema_version: &'a str,
    }
    let named = Named {
        encrypted_data_hash: &envelope.encrypted_data_hash,
        index: envelope.index,
        plaintext_hash: &envelope.plaintext_hash,
        previous_chunk_id: envelope.previous_chunk_id.as_deref(),
        schema_version: &envelope.schema_version,
    };
    hash_text(&serde_json::to_vec(&named).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        keys::FeedKey,
        peaq::{
            CHUNK_SCHEMA,
            envelope::{CHUNK_CIPHER, Encryption, SIGNATURE, Signature},
        },
    };

    fn chunk(ciphertext: &[u8], index: u64, previous: Option<&str>) -> Envelope {
        let key = FeedKey::from_bytes(&[9; 32]);
        let hash = hash_text(ciphertext);
        let mut envelope = Envelope {
            schema_version: CHUNK_SCHEMA.into(),
            chunk_id: String::new(),
            previous_chunk_id: previous.map(str::to_owned),
            index,
            plaintext_hash: hash_text(b"plain"),
            storage_ref: Some("file:///data/x.bin".into()),
            encryption: Encryption {
                algorithm: CHUNK_CIPHER.into(),
                nonce: "00".repeat(24),
                key_commitment: hexes::key_commitment(&[1; 32]),
                key_recipients: vec![],
            },
            signature: Signature {
                algorithm: SIGNATURE.into(),
                machine_did: "did:peaq:7".into(),
                key_id: "k".into(),
                public_key_hex: hex::encode(key.public().as_bytes()),
                value: hex::encode(key.sign_text(&hash)),
            },
            encrypted_data_hash: hash,
        };
        envelope.chunk_id = chunk_id(&envelope);
        envelope
    }

    #[test]
    fn a_file_of_manifests_reads_back_and_each_chunk_is_checked() {
        let first = chunk(b"one", 5, None);
        let second = chunk(b"two", 2, Some(&first.chunk_id));
        let text = serde_json::to_vec_pretty(&[&first, &second]).unwrap();
        assert_eq!(parse(&text).unwrap(), [first.clone(), second.clone()]);
        assert!(is_agents(&first));
        assert_eq!(file_name(&first).unwrap(), format!("{}.bin", &first.chunk_id[7..]));
        let key = FeedKey::from_bytes(&[9; 32]).public();
        assert_eq!(check(&second, b"two"), Ok(key));
        assert_eq!(check(&second, b"one"), Err(AgentChunkError::CiphertextHash));
        let changes: [fn(&mut Envelope); 3] =
            [|e| e.index += 1, |e| e.previous_chunk_id = None, |e| e.plaintext_hash.push('0')];
        for change in changes {
            let mut other = second.clone();
            change(&mut other);
            assert_eq!(check(&other, b"two"), Err(AgentChunkError::ChunkId));
        }
        let changes: [fn(&mut Envelope); 3] = [
            |e| e.signature.value.replace_range(..2, "00"),
            |e| e.signature.public_key_hex = "00".repeat(32),
            |e| e.signature.machine_did = " ".into(),
        ];
        for change in changes {
            let mut other = second.clone();
            change(&mut other);
            assert_eq!(check(&other, b"two"), Err(AgentChunkError::Signature));
        }
    }

    #[test]
    fn an_id_that_could_lead_out_of_the_folder_is_no_file_name() {
        let mut envelope = chunk(b"x", 0, None);
        for id in ["sha256:../../etc/passwd", "sha256:", "..", "a/b", &"a".repeat(129)] {
            envelope.chunk_id = id.to_owned();
            assert_eq!(file_name(&envelope), None, "{id}");
        }
    }
}
