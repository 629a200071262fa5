//! Errors of the peaq formats, each with the words peaq's SDK uses for it.

/// Something about a chunk, a key or an access entry is not as it must be.
///
/// `Display` is for people; [`StreamError::peaq_message`], [`StreamError::field`] and [`StreamError::constraint`] are the
/// exact texts of peaq's SDK, for whoever answers its tools.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum StreamError {
    /// Text that should be hex digits is not.
    #[error("{field} is not hex: expected an even, non-zero number of hex digits, optionally behind a lower-case 0x")]
    Hex {
        /// Which value, by peaq's name.
        field: &'static str,
    },
    /// An X25519 public key of the wrong length.
    #[error("{field} is not an X25519 public key: expected 32 bytes, found {found}")]
    PublicKeyLength {
        /// Which value, by peaq's name.
        field: &'static str,
        /// Length found, in bytes.
        found: usize,
    },
    /// An X25519 public key nobody can have made: every shared secret with it is zero.
    #[error("{field} is a low-order X25519 point; anyone could open what is sealed to it, so ask for another key")]
    WeakPublicKey {
        /// Which value, by peaq's name.
        field: &'static str,
    },
    /// An X25519 private key of the wrong length.
    #[error("{field} is not an X25519 private key: expected 32 bytes, found {found}")]
    PrivateKeyLength {
        /// Which value, by peaq's name.
        field: &'static str,
        /// Length found, in bytes.
        found: usize,
    },
    /// An Ed25519 key of the wrong length, or a point that is none.
    #[error("{field} is not an Ed25519 key: expected 32 bytes that encode a key")]
    SigningKey {
        /// Which value, by peaq's name.
        field: &'static str,
    },
    /// The signing public key given does not belong to the private key.
    #[error("signing_public_key_hex does not belong to the signing private key; leave it out or give the right one")]
    SigningKeyMismatch,
    /// A text that must say something is blank.
    #[error("{field} is blank: expected some text")]
    Blank {
        /// Which value, by peaq's name.
        field: &'static str,
    },
    /// The sealed box does not open with this key.
    #[error("wrapped_key_hex does not open: the private key is not this recipient's, or the sealed key is damaged")]
    Unwrap,
    /// The unwrapped key is not the one the envelope commits to.
    #[error("the unwrapped chunk key does not match keyCommitment: the envelope or the entry was altered")]
    Commitment,
    /// The unwrapped key is not 32 bytes.
    #[error("the unwrapped chunk key has {found} bytes, expected 32")]
    ChunkKeyLength {
        /// Length found, in bytes.
        found: usize,
    },
    /// The nonce is not 24 bytes.
    #[error("the nonce has {found} bytes, expected 24")]
    NonceLength {
        /// Length found, in bytes.
        found: usize,
    },
    /// The plaintext is longer than the cipher can take.
    #[error("the chunk is too long to encrypt; use a smaller chunk size")]
    Encrypt,
    /// The ciphertext is not authentic under this key and nonce.
    #[error("the ciphertext does not decrypt: it, its nonce or its key was altered")]
    Decrypt,
    /// The plaintext is not the one the envelope names.
    #[error("the decrypted bytes do not match plaintextHash: the envelope was altered")]
    PlaintextHash,
    /// No recipient entry of type `owner`.
    #[error("the envelope has no owner recipient, so the owner key cannot grant access to this chunk")]
    OwnerMissing,
    /// `createdAt` is not written as peaq's tools write it.
    #[error("created_at has another shape than YYYY-MM-DDTHH:MM:SSZ")]
    CreatedAt,
    /// A chunk size of zero, or above what is held in memory.
    #[error("chunk size {found} is out of range: expected 1 to {max} bytes")]
    ChunkSize {
        /// Size asked for, in bytes.
        found: usize,
        /// Largest size allowed, in bytes.
        max: usize,
    },
}

impl StreamError {
    /// Class, message and constraint in peaq's words, and the field in peaq's snake_case spelling.
    fn peaq(&self) -> (&'static str, &'static str, Option<&'static str>, Option<&'static str>) {
        const VALIDATION: &str = "StreamValidationError";
        const SIGNING: &str = "StreamSigningError";
        let checked = |message: &'static str, field: &'static str, constraint: &'static str| {
            (VALIDATION, message, Some(field), Some(constraint))
        };
        match self {
            Self::Hex { field } => checked("Invalid hex encoding", field, "even-length hexadecimal string"),
            Self::PublicKeyLength { field, .. } | Self::WeakPublicKey { field } => {
                checked("Invalid X25519 public key length", field, "32-byte X25519 public key")
            }
            Self::PrivateKeyLength { field, .. } => {
                checked("Invalid X25519 private key length", field, "32-byte X25519 private key")
            }
            Self::SigningKey { field } => checked("Invalid Ed25519 key", field, "32-byte Ed25519 key"),
            Self::SigningKeyMismatch => (
                VALIDATION,
                "Signing public key does not match private key",
                Some("signing_public_key_hex"),
                Some("public key of signing_private_key_hex"),
            ),
            Self::Blank { field } => checked("Value must not be blank", field, "non-blank string"),
            Self::Unwrap => checked(
                "Failed to unwrap per-chunk encryption key",
                "wrapped_key_hex",
                "valid sealed box for recipient key pair",
            ),
            Self::Commitment => checked(
                "Recovered chunk key does not match key_commitment",
                "key_commitment",
                "sha256 digest of per-chunk encryption key",
            ),
            Self::ChunkKeyLength { .. } => (SIGNING, "Invalid per-chunk encryption key length", None, None),
            Self::NonceLength { .. } => (SIGNING, "Invalid XChaCha20 nonce length", None, None),
            Self::Encrypt => (SIGNING, "Failed to encrypt chunk", None, None),
            Self::Decrypt => (SIGNING, "Failed to decrypt chunk ciphertext", None, None),
            Self::PlaintextHash => checked(
                "Decrypted chunk data does not match plaintext_hash",
                "plaintext_hash",
                "sha-256 digest of decrypted plaintext",
            ),
            Self::OwnerMissing => {
                checked("Owner key recipient not found on chunk", "key_recipients", "owner recipient entry")
            }
            Self::CreatedAt => checked("Invalid timestamp", "created_at", "YYYY-MM-DDTHH:MM:SSZ"),
            Self::ChunkSize { .. } => checked("Invalid chunk size", "chunk_size", "positive integer"),
        }
    }

    /// Name of the exception peaq's SDK raises here.
    #[must_use]
    pub fn peaq_type(&self) -> &'static str {
        self.peaq().0
    }

    /// Message of peaq's SDK for this case; where its SDK has no such case, one in its manner.
    #[must_use]
    pub fn peaq_message(&self) -> &'static str {
        self.peaq().1
    }

    /// Field that is wrong, in peaq's snake_case spelling.
    #[must_use]
    pub fn field(&self) -> Option<&'static str> {
        self.peaq().2
    }

    /// What peaq's SDK says the field should have been.
    #[must_use]
    pub fn constraint(&self) -> Option<&'static str> {
        self.peaq().3
    }
}

/// A JSON file of peaq's that cannot be read.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ReadError {
    /// Longer than such a file may be.
    #[error("{what} has {found} bytes, more than the {max} allowed")]
    TooLarge {
        /// Which kind of file.
        what: &'static str,
        /// Length found, in bytes.
        found: usize,
        /// Largest length allowed, in bytes.
        max: usize,
    },
    /// Not JSON, or a key is missing or of another type; the source names the key, line and column.
    #[error("{what} cannot be read")]
    Json {
        /// Which kind of file.
        what: &'static str,
        /// Where and why.
        source: serde_json::Error,
    },
    /// Another format, or a version of it that is not known here.
    #[error("{what} has schemaVersion {found:?}, expected {expected:?}")]
    Schema {
        /// Which kind of file.
        what: &'static str,
        /// Start of the text found.
        found: String,
        /// The only version read here.
        expected: &'static str,
    },
    /// Two envelopes with the same index.
    #[error("two chunks have index {index}; remove the one that does not belong here")]
    DuplicateIndex {
        /// The index.
        index: u64,
    },
    /// An index between 0 and the last one is missing.
    #[error("chunk {index} is missing")]
    MissingIndex {
        /// The first index that is missing.
        index: u64,
    },
    /// A name in a manifest's `files` that could lead out of the directory, or too many of them.
    #[error("manifest lists file {name:?}: expected a plain .json or .bin name of letters, digits, '.', '_' and '-'")]
    FileName {
        /// Start of the name found.
        name: String,
    },
    /// More `files` in a manifest than a download may have.
    #[error("manifest lists {found} files, more than the {max} allowed")]
    TooManyFiles {
        /// Number found.
        found: usize,
        /// Largest number allowed.
        max: usize,
    },
}

impl ReadError {
    /// Refuses text that is longer than `max` before anything is parsed.
    pub(super) fn check_length(what: &'static str, text: &[u8], max: usize) -> Result<(), Self> {
        if text.len() > max { Err(Self::TooLarge { what, found: text.len(), max }) } else { Ok(()) }
    }

    /// Refuses another format or version.
    pub(super) fn check_schema(what: &'static str, found: &str, expected: &'static str) -> Result<(), Self> {
        if found == expected { Ok(()) } else { Err(Self::Schema { what, found: excerpt(found), expected }) }
    }
}

/// The start of a refused text, short enough for an error message.
pub(super) fn excerpt(text: &str) -> String {
    text.chars().take(80).collect()
}
