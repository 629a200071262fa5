//! The envelope of one chunk: `peaq.stream.chunks.v1`.
//!
//! Field order here is key order in the file. Reading keeps every text exactly as it was (hashes are compared as text, and
//! peaq's tools write them back as they came), ignores unknown keys, takes peaq's snake_case spelling too, and checks
//! nothing but the schema: that is [`super::verify`] and [`super::decrypt`]. A text with a lone surrogate is refused.

use rand_core::CryptoRng;
use serde::{Deserialize, Serialize};

use super::{
    CHUNK_SCHEMA, ReadError, StreamError, ascii_json,
    chain::{ChunkSigner, chunk_id},
    hexes,
    sealed_box::BoxPublicKey,
};

/// `encryption.algorithm`.
pub const CHUNK_CIPHER: &str = "xchacha20-poly1305";
/// `algorithm` of a recipient entry.
pub const KEY_WRAPPING: &str = "x25519-sealedbox";
/// `signature.algorithm`.
pub const SIGNATURE: &str = "ed25519";
/// Longest envelope that is read, in bytes; an ordinary one has about 2,300.
pub const MAX_ENVELOPE_BYTES: usize = 256 * 1024;

const WHAT: &str = "chunk envelope";

/// One chunk's envelope, texts as they stand in the file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Envelope {
    /// Always [`CHUNK_SCHEMA`].
    #[serde(alias = "schema_version")]
    pub schema_version: String,
    /// `0x` hash of the linkage text, see [`chunk_id`].
    #[serde(alias = "chunk_id")]
    pub chunk_id: String,
    /// `chunkId` of the chunk before; none on the first.
    #[serde(alias = "previous_chunk_id")]
    pub previous_chunk_id: Option<String>,
    /// Position in the chain, from 0.
    pub index: u64,
    /// `0x` SHA-256 of the ciphertext.
    #[serde(alias = "encrypted_data_hash")]
    pub encrypted_data_hash: String,
    /// `0x` SHA-256 of the plaintext. Unsalted: it lets anyone test guesses, so it is only in files for peaq's tools.
    #[serde(alias = "plaintext_hash")]
    pub plaintext_hash: String,
    /// Where the ciphertext lies, if it lies somewhere.
    #[serde(alias = "storage_ref")]
    pub storage_ref: Option<String>,
    /// How it is encrypted and for whom.
    pub encryption: Encryption,
    /// Signature over the text of `encrypted_data_hash`.
    pub signature: Signature,
}

/// `encryption` of an envelope.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Encryption {
    /// [`CHUNK_CIPHER`].
    pub algorithm: String,
    /// 24 bytes as hex.
    pub nonce: String,
    /// `sha256:` hash of the chunk key.
    #[serde(alias = "key_commitment")]
    pub key_commitment: String,
    /// The chunk key, sealed for owner, operator and machine in this order.
    #[serde(alias = "key_recipients")]
    pub key_recipients: Vec<RecipientEntry>,
}

/// The chunk key sealed for one recipient.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct RecipientEntry {
    /// Any text that is not blank.
    #[serde(alias = "recipient_id")]
    pub recipient_id: String,
    /// A [`Role`] as text.
    #[serde(alias = "recipient_type")]
    pub recipient_type: String,
    /// [`KEY_WRAPPING`].
    pub algorithm: String,
    /// The recipient's X25519 key in the spelling its owner gave.
    #[serde(alias = "public_key_hex")]
    pub public_key_hex: String,
    /// The sealed box as hex.
    #[serde(alias = "wrapped_key_hex")]
    pub wrapped_key_hex: String,
}

/// `signature` of an envelope.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Signature {
    /// [`SIGNATURE`].
    pub algorithm: String,
    /// The machine that claims to have signed. Not covered by the signature.
    #[serde(alias = "machine_did")]
    pub machine_did: String,
    /// Name of the key in the machine's DID document. Not covered by the signature.
    #[serde(alias = "key_id")]
    pub key_id: String,
    /// Ed25519 key, 64 hex digits.
    #[serde(alias = "public_key_hex")]
    pub public_key_hex: String,
    /// Ed25519 signature, 128 hex digits.
    pub value: String,
}

/// What a recipient is to the data.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Role {
    /// Who owns the machine, and can grant access.
    Owner,
    /// Who runs it.
    Operator,
    /// The machine itself.
    Machine,
    /// Who was granted access.
    Buyer,
}

impl Role {
    /// The text in `recipientType`.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Owner => "owner",
            Self::Operator => "operator",
            Self::Machine => "machine",
            Self::Buyer => "buyer",
        }
    }
}

/// Somebody chunk keys are sealed for. Keeps the key's text as given: it is copied into the files verbatim.
#[derive(Debug, Clone)]
pub struct Recipient {
    id: String,
    role: Role,
    public_key_hex: String,
    public_key: BoxPublicKey,
}

impl Recipient {
    /// A recipient with the id `id` and the X25519 key in `public_key_hex`.
    ///
    /// # Errors
    /// A blank id; a key that is not hex, not 32 bytes, or a low-order point.
    pub fn new(id: &str, role: Role, public_key_hex: &str) -> Result<Self, StreamError> {
        if hexes::is_blank(id) {
            return Err(StreamError::Blank { field: "recipient_id" });
        }
        let public_key = BoxPublicKey::from_hex(public_key_hex, "public_key_hex")?;
        Ok(Self { id: id.to_owned(), role, public_key_hex: public_key_hex.to_owned(), public_key })
    }

    /// The key's text as given; hex digits and perhaps `0x`, so it is safe in a file name.
    #[must_use]
    pub fn public_key_hex(&self) -> &str {
        &self.public_key_hex
    }

    /// Seals a chunk key for this recipient.
    ///
    /// # Errors
    /// None that the constructor has not ruled out.
    pub fn wrap(&self, key: &[u8; 32], rng: &mut impl CryptoRng) -> Result<RecipientEntry, StreamError> {
        Ok(RecipientEntry {
            recipient_id: self.id.clone(),
            recipient_type: self.role.as_str().to_owned(),
            algorithm: KEY_WRAPPING.to_owned(),
            public_key_hex: self.public_key_hex.clone(),
            wrapped_key_hex: hex::encode(self.public_key.seal(key, rng)?),
        })
    }
}

/// The three parties every envelope is sealed for, in the order peaq's tools expect.
#[derive(Debug, Clone)]
pub struct Recipients([Recipient; 3]);

impl Recipients {
    /// Recipients with the ids peaq's tools give them when none are given.
    ///
    /// # Errors
    /// As [`Recipient::new`].
    pub fn new(owner_hex: &str, operator_hex: &str, machine_hex: &str) -> Result<Self, StreamError> {
        Self::with_ids([("owner-1", owner_hex), ("operator-1", operator_hex), ("machine-1", machine_hex)])
    }

    /// Owner, operator and machine, each as id and public key.
    ///
    /// # Errors
    /// As [`Recipient::new`].
    pub fn with_ids([owner, operator, machine]: [(&str, &str); 3]) -> Result<Self, StreamError> {
        Ok(Self([
            Recipient::new(owner.0, Role::Owner, owner.1)?,
            Recipient::new(operator.0, Role::Operator, operator.1)?,
            Recipient::new(machine.0, Role::Machine, machine.1)?,
        ]))
    }

    fn wrap(&self, key: &[u8; 32], rng: &mut impl CryptoRng) -> Result<Vec<RecipientEntry>, StreamError> {
        self.0.iter().map(|recipient| recipient.wrap(key, rng)).collect()
    }
}

/// What is known of a chunk that is sealed already, wherever it was sealed.
#[derive(Debug, Clone, Copy)]
pub struct SealedParts<'a> {
    /// Position in the chain, from 0.
    pub index: u64,
    /// `chunkId` text of the chunk before; none for index 0.
    pub previous_chunk_id: Option<&'a str>,
    /// SHA-256 of the ciphertext.
    pub encrypted_data_hash: [u8; 32],
    /// SHA-256 of the plaintext.
    pub plaintext_hash: [u8; 32],
    /// XChaCha20 nonce.
    pub nonce: [u8; 24],
    /// Ed25519 signature over the text of `encrypted_data_hash`.
    pub signature: [u8; 64],
    /// Where the ciphertext lies, if it lies somewhere.
    pub storage_ref: Option<&'a str>,
}

impl Envelope {
    /// The envelope of a sealed chunk, with its key sealed for `recipients` (32 bytes of `rng` for each, in order).
    ///
    /// # Errors
    /// None that the constructors of `recipients` and `signer` have not ruled out.
    pub fn from_parts(
        parts: SealedParts<'_>,
        key: &[u8; 32],
        recipients: &Recipients,
        signer: &ChunkSigner<'_>,
        rng: &mut impl CryptoRng,
    ) -> Result<Self, StreamError> {
        let encrypted_data_hash = hexes::hash_text(&parts.encrypted_data_hash);
        Ok(Self {
            schema_version: CHUNK_SCHEMA.to_owned(),
            chunk_id: chunk_id(parts.previous_chunk_id, &encrypted_data_hash, parts.index),
            previous_chunk_id: parts.previous_chunk_id.map(str::to_owned),
            index: parts.index,
            encrypted_data_hash,
            plaintext_hash: hexes::hash_text(&parts.plaintext_hash),
            storage_ref: parts.storage_ref.map(str::to_owned),
            encryption: Encryption {
                algorithm: CHUNK_CIPHER.to_owned(),
                nonce: hex::encode(parts.nonce),
                key_commitment: hexes::key_commitment(key),
                key_recipients: recipients.wrap(key, rng)?,
            },
            signature: Signature {
                algorithm: SIGNATURE.to_owned(),
                machine_did: signer.machine_did().to_owned(),
                key_id: signer.key_id().to_owned(),
                public_key_hex: signer.public_key().to_string(),
                value: hex::encode(parts.signature),
            },
        })
    }

    /// Reads an envelope from JSON text.
    ///
    /// # Errors
    /// Longer than [`MAX_ENVELOPE_BYTES`], not such a JSON object, or another schema.
    pub fn parse(text: &[u8]) -> Result<Self, ReadError> {
        ReadError::check_length(WHAT, text, MAX_ENVELOPE_BYTES)?;
        let envelope: Self = serde_json::from_slice(text).map_err(|source| ReadError::Json { what: WHAT, source })?;
        ReadError::check_schema(WHAT, &envelope.schema_version, CHUNK_SCHEMA)?;
        Ok(envelope)
    }

    /// The text of `chunk-<i>.json`: two spaces of indentation, ASCII, trailing newline.
    #[must_use]
    pub fn to_file_text(&self) -> Vec<u8> {
        ascii_json::indented(self)
    }

    /// The text peaq's peer-to-peer frames carry: compact, ASCII, no trailing newline.
    #[must_use]
    pub fn to_compact_text(&self) -> Vec<u8> {
        ascii_json::compact(self)
    }

    /// The first recipient entry of this role.
    #[must_use]
    pub fn recipient(&self, role: Role) -> Option<&RecipientEntry> {
        self.encryption.key_recipients.iter().find(|entry| entry.recipient_type == role.as_str())
    }
}

/// Puts envelopes, read in any order, in the order of their indices, which must be 0, 1, 2 and so on.
///
/// # Errors
/// [`ReadError::DuplicateIndex`] or [`ReadError::MissingIndex`] for the first index that is wrong.
pub fn in_order(mut envelopes: Vec<Envelope>) -> Result<Vec<Envelope>, ReadError> {
    envelopes.sort_by_key(|envelope| envelope.index);
    for (expected, envelope) in (0u64..).zip(&envelopes) {
        match envelope.index {
            index if index < expected => return Err(ReadError::DuplicateIndex { index }),
            index if index > expected => return Err(ReadError::MissingIndex { index: expected }),
            _ => {}
        }
    }
    Ok(envelopes)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::peaq::{decrypt, sealed_box::BoxSecretKey, verify::ChainVerifier};

    fn sample() -> Envelope {
        let text = |text: &str| text.to_owned();
        let entry = RecipientEntry {
            recipient_id: text("owner-1"),
            recipient_type: text("owner"),
            algorithm: text(KEY_WRAPPING),
            public_key_hex: text("0xAB"),
            wrapped_key_hex: text("cd"),
        };
        Envelope {
            schema_version: text(CHUNK_SCHEMA),
            chunk_id: text("0x01"),
            previous_chunk_id: None,
            index: 0,
            encrypted_data_hash: text("0x02"),
            plaintext_hash: text("0x03"),
            storage_ref: None,
            encryption: Encryption {
                algorithm: text(CHUNK_CIPHER),
                nonce: text("04"),
                key_commitment: text("sha256:05"),
                key_recipients: vec![entry],
            },
            signature: Signature {
                algorithm: text(SIGNATURE),
                machine_did: text("did:é\u{7f}"),
                key_id: text("k"),
                public_key_hex: text("06"),
                value: text("07"),
            },
        }
    }

    const FILE: &str = r#"{
  "schemaVersion": "peaq.stream.chunks.v1",
  "chunkId": "0x01",
  "previousChunkId": null,
  "index": 0,
  "encryptedDataHash": "0x02",
  "plaintextHash": "0x03",
  "storageRef": null,
  "encryption": {
    "algorithm": "xchacha20-poly1305",
    "nonce": "04",
    "keyCommitment": "sha256:05",
    "keyRecipients": [
      {
        "recipientId": "owner-1",
        "recipientType": "owner",
        "algorithm": "x25519-sealedbox",
        "publicKeyHex": "0xAB",
        "wrappedKeyHex": "cd"
      }
    ]
  },
  "signature": {
    "algorithm": "ed25519",
    "machineDid": "did:\u00e9\u007f",
    "keyId": "k",
    "publicKeyHex": "06",
    "value": "07"
  }
}
"#;

    #[test]
    fn the_file_has_peaqs_layout_and_key_order() {
        assert_eq!(String::from_utf8(sample().to_file_text()).unwrap(), FILE);
        assert_eq!(Envelope::parse(FILE.as_bytes()).unwrap(), sample());
        let compact = FILE.replace("\n", "").replace("  ", "").replace("\": ", "\":");
        assert_eq!(String::from_utf8(sample().to_compact_text()).unwrap(), compact);
    }

    #[test]
    fn unknown_keys_missing_nulls_and_snake_case_are_read() {
        let with_more = FILE.replacen('{', "{\"more\": [{\"x\": 1.5}],", 1).replace("\"nonce\"", "\"z\":{},\"nonce\"");
        let without_nulls = FILE.replace("  \"previousChunkId\": null,\n", "").replace("  \"storageRef\": null,\n", "");
        let snake = FILE
            .replace("schemaVersion", "schema_version")
            .replace("chunkId", "chunk_id")
            .replace("keyRecipients", "key_recipients")
            .replace("wrappedKeyHex", "wrapped_key_hex")
            .replace("machineDid", "machine_did");
        for text in [with_more, without_nulls, snake] {
            assert_eq!(Envelope::parse(text.as_bytes()).unwrap(), sample());
        }
    }

    #[test]
    fn what_is_missing_mistyped_or_of_another_schema_is_named() {
        let refused = |text: String| {
            let error = Envelope::parse(text.as_bytes()).unwrap_err();
            std::error::Error::source(&error).map_or_else(|| error.to_string(), ToString::to_string)
        };
        assert!(refused(FILE.replace("\"nonce\"", "\"n\"")).contains("missing field `nonce`"));
        assert!(refused(FILE.replace("\"index\": 0", "\"index\": -1")).contains("invalid value: integer `-1`"));
        assert!(refused(FILE.replace("chunks.v1", "chunks.v2")).contains("chunks.v2"));
        assert!(refused(" ".repeat(MAX_ENVELOPE_BYTES + 1)).contains("more than the 262144 allowed"));
        let deep = FILE.replacen('{', &format!("{{\"more\": {}", "[".repeat(100_000)), 1);
        assert!(refused(deep).contains("EOF"), "what is skipped costs no stack, however deep");
    }

    #[test]
    fn order_has_no_gaps_and_no_doubles() {
        let at = |index| Envelope { index, ..sample() };
        let order = |indices: &[u64]| in_order(indices.iter().copied().map(at).collect());
        assert_eq!(order(&[2, 0, 1]).unwrap().iter().map(|e| e.index).collect::<Vec<_>>(), [0, 1, 2]);
        assert!(order(&[]).unwrap().is_empty());
        assert!(matches!(order(&[0, 1, 1]), Err(ReadError::DuplicateIndex { index: 1 })));
        assert!(matches!(order(&[0, 2]), Err(ReadError::MissingIndex { index: 1 })));
        assert!(matches!(order(&[u64::MAX]), Err(ReadError::MissingIndex { index: 0 })));
    }

    proptest! {
        #[test]
        fn garbage_is_refused_without_panic(garbage in proptest::collection::vec(any::<u8>(), 0..300)) {
            prop_assert!(Envelope::parse(&garbage).is_err());
        }

        #[test]
        fn any_texts_are_judged_without_panic_and_come_back(texts in proptest::collection::vec(any::<String>(), 12)) {
            let mut envelope = sample();
            let entry = &mut envelope.encryption.key_recipients[0];
            let fields = [
                &mut envelope.chunk_id, &mut envelope.encrypted_data_hash, &mut envelope.plaintext_hash,
                &mut envelope.encryption.nonce, &mut envelope.encryption.key_commitment, &mut entry.recipient_id,
                &mut entry.public_key_hex, &mut entry.wrapped_key_hex, &mut envelope.signature.machine_did,
                &mut envelope.signature.key_id, &mut envelope.signature.public_key_hex, &mut envelope.signature.value,
            ];
            for (field, text) in fields.into_iter().zip(texts) {
                *field = text;
            }
            prop_assert!(ChainVerifier::new().check(&envelope, Some(b"x")).is_err());
            let secret = BoxSecretKey::from_bytes(&[5; 32]);
            let entry = &envelope.encryption.key_recipients[0];
            prop_assert!(decrypt::decrypt_chunk(&envelope, entry, &secret, b"x").is_err());
            prop_assert!(decrypt::decrypt_with_key(&envelope, &[0; 32], b"x").is_err());
            prop_assert_eq!(&Envelope::parse(&envelope.to_file_text()).unwrap(), &envelope);
        }
    }
}
