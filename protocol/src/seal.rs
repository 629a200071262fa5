//! Sealing a chunk and opening it again.
//!
//! Owns the cryptography between the plaintext of a chunk and its [`ChunkRecord`]. It never chooses a key, a nonce or a place
//! in the chain, and never stores anything.
//!
//! # Construction
//!
//! Everything except the commitment to the plaintext is peaq's chunk chain (`peaq.stream.chunks.v1`), so its tools can check
//! a chunk of ours:
//!
//! ```text
//! ciphertext           = XChaCha20-Poly1305(chunk key, nonce, plaintext), no associated data: ciphertext || tag (16)
//! chunkId              = SHA-256("<0x hex of previousChunkId, or empty>|<0x hex of SHA-256(ciphertext)>|<index, decimal>")
//! key commitment       = SHA-256(chunk key)
//! v1 signature         = Ed25519 over the 66 ASCII bytes of 0x hex of SHA-256(ciphertext)
//! plaintext commitment = BLAKE3.keyed_hash(
//!                            key = BLAKE3.derive_key("tributary 2026 plaintext commitment", chunk key),
//!                            SHA-256(plaintext))
//! ```
//!
//! # Two levels of checking
//!
//! A **pull** needs to know that it got the bytes it asked for and can read them: BLAKE3, key commitment, tag ([`open`]). That
//! is as strong as anything below, because the record is signed. **Verify** and **export** also prove what peaq's tools will
//! look at, both SHA-256s, the chain link and the v1 signature ([`verify_v1`], [`open_verified`]).

use sha2::{Digest, Sha256};
use zeroize::Zeroizing;

use crate::{
    ids::{DatasetId, Hash, StreamId},
    keys::{FeedKey, FeedPublicKey, v1_hash_text},
    keytree::{ChunkKey, Position},
    record::{ChunkRecord, ContentEncoding, MAX_CIPHERTEXT_LEN, MAX_PLAINTEXT_LEN, RecordError, TAG_LEN},
    sha256, xchacha,
};

const COMMITMENT_CONTEXT: &str = "tributary 2026 plaintext commitment";

/// A chunk to be sealed.
pub struct SealInput<'a> {
    /// The key at `position` of the epoch's tree.
    pub key: &'a ChunkKey,
    /// Makes the v1 signature.
    pub feed_key: &'a FeedKey,
    /// 24 random bytes.
    pub nonce: [u8; 24],
    /// At most [`MAX_PLAINTEXT_LEN`] bytes.
    pub plaintext: Vec<u8>,
    /// The stream.
    pub stream: StreamId,
    /// The dataset.
    pub dataset: DatasetId,
    /// Index in the dataset, from 0.
    pub index: u32,
    /// The key epoch of the stream.
    pub epoch: u64,
    /// Where the key is in the epoch's tree.
    pub position: Position,
    /// The id of the chunk before; `None` exactly at index 0.
    pub previous_chunk_id: Option<[u8; 32]>,
    /// What the plaintext is.
    pub encoding: ContentEncoding,
    /// How many packages begin in the chunk.
    pub package_count: u32,
    /// The number of the first of them; 0 when there is none.
    pub first_number: u64,
    /// How many packages are missing before or between them.
    pub gaps: u64,
    /// Time of the earliest content, Unix milliseconds.
    pub time_from_ms: u64,
    /// Time of the latest content, Unix milliseconds.
    pub time_to_ms: u64,
}

/// A sealed chunk.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sealed {
    /// What is stored and pulled.
    pub ciphertext: Vec<u8>,
    /// What the feed entry signs.
    pub record: ChunkRecord,
    /// SHA-256 of the plaintext, which peaq's envelope shows and the record hides.
    pub plaintext_sha256: [u8; 32],
}

/// A chunk that cannot be sealed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SealError {
    /// Too long.
    #[error("the chunk has {found} bytes, at most 1048576 can be sealed; cut it")]
    TooLong {
        /// Its length in bytes.
        found: usize,
    },
    /// Its record would be refused by every reader.
    #[error("chunk {index} cannot be described")]
    Record {
        /// Its index in the dataset.
        index: u32,
        /// What is wrong.
        source: RecordError,
    },
}

/// A ciphertext that is not what its record says, or cannot be read with the key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum OpenError {
    /// Not as long as the record says.
    #[error("chunk {index} should have {expected} bytes and has {found}; get it from another peer")]
    Length {
        /// Index of the chunk in its dataset.
        index: u32,
        /// The length in the record.
        expected: u32,
        /// The length that was found.
        found: usize,
    },
    /// Other bytes: BLAKE3 differs.
    #[error("the bytes of chunk {index} are not the announced ones; get it from another peer")]
    Hash {
        /// Index of the chunk in its dataset.
        index: u32,
    },
    /// Another key than it was sealed with.
    #[error("the key for chunk {index} is not the one it was sealed with; the grant is not good for it")]
    Key {
        /// Index of the chunk in its dataset.
        index: u32,
    },
    /// The right bytes and the right key, and still no plaintext: the machine published a broken chunk.
    #[error(
        "chunk {index} cannot be decrypted although key and bytes are the announced ones; the machine sealed it wrongly"
    )]
    Decrypt {
        /// Index of the chunk in its dataset.
        index: u32,
    },
    /// Decrypts to other bytes than the machine committed to.
    #[error("chunk {index} decrypts to other data than its machine committed to; the machine sealed it wrongly")]
    Plaintext {
        /// Index of the chunk in its dataset.
        index: u32,
    },
    /// What peaq's tools check does not hold.
    #[error(transparent)]
    V1(#[from] V1Error),
}

/// What peaq's tools check about a ciphertext does not hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum V1Error {
    /// SHA-256 differs.
    #[error("the SHA-256 of chunk {index} is not the announced one; get it from another peer")]
    Sha256 {
        /// Index of the chunk in its dataset.
        index: u32,
    },
    /// The chunkId does not follow from the chunk before, the SHA-256 and the index.
    #[error("the id of chunk {index} does not link it to the chunk before; the machine linked it wrongly")]
    ChunkId {
        /// Index of the chunk in its dataset.
        index: u32,
    },
    /// The v1 signature is not by this key.
    #[error("the v1 signature of chunk {index} is not by the machine's feed key; refuse the dataset")]
    Signature {
        /// Index of the chunk in its dataset.
        index: u32,
    },
}

/// Seals a chunk: encrypts and describes it.
///
/// # Errors
///
/// When it is too long, or the fields do not fit together (see [`ChunkRecord::check`]).
pub fn seal(input: SealInput<'_>) -> Result<Sealed, SealError> {
    let SealInput { key, feed_key, nonce, plaintext, index, previous_chunk_id, .. } = input;
    if plaintext.len() > MAX_PLAINTEXT_LEN {
        return Err(SealError::TooLong { found: plaintext.len() });
    }
    let mut record = ChunkRecord {
        stream: input.stream,
        dataset: input.dataset,
        index,
        epoch: input.epoch,
        position: input.position,
        chunk_id: [0; 32],
        previous_chunk_id,
        sha256: [0; 32],
        hash: Hash::ZERO,
        len: u32::try_from(plaintext.len() + TAG_LEN).expect("at most 1 MiB and a tag"),
        nonce,
        key_commitment: key.commitment(),
        plaintext_commitment: [0; 32],
        package_count: input.package_count,
        first_number: input.first_number,
        gaps: input.gaps,
        time_from_ms: input.time_from_ms,
        time_to_ms: input.time_to_ms,
        encoding: input.encoding,
        v1_signature: [0; 64],
    };
    record.check().map_err(|source| SealError::Record { index, source })?;

    let ciphertext =
        xchacha::encrypt(key.as_bytes(), &nonce, &plaintext).expect("1 MiB is far below the cipher's limit");
    let (plaintext_sha256, sha256) = sha256::digest_both(&plaintext, &ciphertext);
    record.hash = Hash::of(&ciphertext);
    record.sha256 = sha256;
    record.chunk_id = chunk_id(previous_chunk_id.as_ref(), &record.sha256, index);
    record.plaintext_commitment = plaintext_commitment(key, &plaintext_sha256);
    record.v1_signature = feed_key.sign_v1_hash(&record.sha256);
    Ok(Sealed { ciphertext, record, plaintext_sha256 })
}

/// Opens a chunk that came from anywhere: length, BLAKE3, key commitment, tag.
///
/// # Errors
///
/// The first of these that does not hold.
pub fn open(record: &ChunkRecord, key: &ChunkKey, ciphertext: &[u8]) -> Result<Vec<u8>, OpenError> {
    check_bytes(record, ciphertext)?;
    decrypt(record, key, ciphertext)
}

/// Checks that these are the bytes a record announces: length and BLAKE3. What a pull can check without a key.
///
/// # Errors
///
/// [`OpenError::Length`] or [`OpenError::Hash`].
pub fn check_bytes(record: &ChunkRecord, ciphertext: &[u8]) -> Result<(), OpenError> {
    check_len(record, ciphertext)?;
    if Hash::of(ciphertext) == record.hash { Ok(()) } else { Err(OpenError::Hash { index: record.index }) }
}

/// Opens, in place, a chunk whose BLAKE3 was checked before: length, key commitment, tag.
///
/// # Errors
///
/// The first of these that does not hold.
pub fn open_unhashed(record: &ChunkRecord, key: &ChunkKey, ciphertext: Vec<u8>) -> Result<Vec<u8>, OpenError> {
    check_key(record, key, &ciphertext)?;
    xchacha::decrypt_in_place(key.as_bytes(), &record.nonce, ciphertext)
        .map_err(|_| OpenError::Decrypt { index: record.index })
}

/// Checks that a chunk whose BLAKE3 was checked before can be opened: length, key commitment, tag. Passes exactly when
/// [`open_unhashed`] does, in half the time, because nothing is decrypted.
///
/// # Errors
///
/// The first of these that does not hold.
pub fn check_readable(record: &ChunkRecord, key: &ChunkKey, ciphertext: &[u8]) -> Result<(), OpenError> {
    check_key(record, key, ciphertext)?;
    xchacha::authenticate(key.as_bytes(), &record.nonce, ciphertext)
        .map_err(|_| OpenError::Decrypt { index: record.index })
}

/// Opens a chunk and proves everything about it: [`check_bytes`], then [`open_proven`].
///
/// # Errors
///
/// The first check that does not hold.
pub fn open_verified(
    record: &ChunkRecord,
    feed_key: &FeedPublicKey,
    key: &ChunkKey,
    ciphertext: &[u8],
) -> Result<Vec<u8>, OpenError> {
    check_bytes(record, ciphertext)?;
    open_proven(record, feed_key, key, ciphertext)
}

/// Opens a chunk whose BLAKE3 was checked before and proves everything else about it: [`verify_v1`], key commitment, tag,
/// [`verify_plaintext`].
///
/// # Errors
///
/// The first check that does not hold.
pub fn open_proven(
    record: &ChunkRecord,
    feed_key: &FeedPublicKey,
    key: &ChunkKey,
    ciphertext: &[u8],
) -> Result<Vec<u8>, OpenError> {
    check_len(record, ciphertext)?;
    let opened = decrypt(record, key, ciphertext);
    // Both hashes in one go; what an empty plaintext would hash to is of no interest.
    let (sha256, plaintext_sha256) = sha256::digest_both(ciphertext, opened.as_deref().unwrap_or_default());
    verify_v1_hashed(record, feed_key, &sha256)?;
    let plaintext = opened?;
    check_plaintext(record, key, &plaintext_sha256)?;
    Ok(plaintext)
}

/// Checks what peaq's tools check, without a key: SHA-256 of the ciphertext, the chunkId, the v1 signature. That
/// `previous_chunk_id` is the id of the chunk before needs that chunk's record.
///
/// # Errors
///
/// The first of these that does not hold.
pub fn verify_v1(record: &ChunkRecord, feed_key: &FeedPublicKey, ciphertext: &[u8]) -> Result<(), V1Error> {
    verify_v1_hashed(record, feed_key, &Sha256::digest(ciphertext).into())
}

fn verify_v1_hashed(record: &ChunkRecord, feed_key: &FeedPublicKey, sha256: &[u8; 32]) -> Result<(), V1Error> {
    let index = record.index;
    if *sha256 != record.sha256 {
        return Err(V1Error::Sha256 { index });
    }
    verify_chunk_id(record)?;
    feed_key.verify_v1_hash(&record.sha256, &record.v1_signature).map_err(|_| V1Error::Signature { index })
}

/// Checks that the chunkId of a record follows from its other fields.
///
/// # Errors
///
/// [`V1Error::ChunkId`].
pub fn verify_chunk_id(record: &ChunkRecord) -> Result<(), V1Error> {
    let expected = chunk_id(record.previous_chunk_id.as_ref(), &record.sha256, record.index);
    if expected == record.chunk_id { Ok(()) } else { Err(V1Error::ChunkId { index: record.index }) }
}

/// Checks a decrypted chunk against the machine's commitment to it. Yields its SHA-256, which peaq's envelope shows.
///
/// # Errors
///
/// [`OpenError::Plaintext`].
pub fn verify_plaintext(record: &ChunkRecord, key: &ChunkKey, plaintext: &[u8]) -> Result<[u8; 32], OpenError> {
    let sha256 = Sha256::digest(plaintext).into();
    check_plaintext(record, key, &sha256)?;
    Ok(sha256)
}

fn check_plaintext(record: &ChunkRecord, key: &ChunkKey, sha256: &[u8; 32]) -> Result<(), OpenError> {
    if plaintext_commitment(key, sha256) == record.plaintext_commitment {
        Ok(())
    } else {
        Err(OpenError::Plaintext { index: record.index })
    }
}

/// The chunkId of peaq's chain.
#[must_use]
pub fn chunk_id(previous: Option<&[u8; 32]>, ciphertext_sha256: &[u8; 32], index: u32) -> [u8; 32] {
    let mut hasher = Sha256::new();
    if let Some(previous) = previous {
        hasher.update(v1_hash_text(previous));
    }
    hasher.update(b"|");
    hasher.update(v1_hash_text(ciphertext_sha256));
    hasher.update(format!("|{index}"));
    hasher.finalize().into()
}

/// The commitment to a plaintext that only holders of the chunk key can test.
#[must_use]
pub fn plaintext_commitment(key: &ChunkKey, plaintext_sha256: &[u8; 32]) -> [u8; 32] {
    let commitment_key = Zeroizing::new(blake3::derive_key(COMMITMENT_CONTEXT, key.as_bytes()));
    *blake3::keyed_hash(&commitment_key, plaintext_sha256).as_bytes()
}

fn check_len(record: &ChunkRecord, ciphertext: &[u8]) -> Result<(), OpenError> {
    let found = ciphertext.len();
    // A record that was built by hand can say anything; nothing longer than a chunk is hashed or copied.
    if usize::try_from(record.len) == Ok(found) && (TAG_LEN..=MAX_CIPHERTEXT_LEN).contains(&found) {
        Ok(())
    } else {
        Err(OpenError::Length { index: record.index, expected: record.len, found })
    }
}

fn decrypt(record: &ChunkRecord, key: &ChunkKey, ciphertext: &[u8]) -> Result<Vec<u8>, OpenError> {
    check_key(record, key, ciphertext)?;
    xchacha::decrypt(key.as_bytes(), &record.nonce, ciphertext).map_err(|_| OpenError::Decrypt { index: record.index })
}

fn check_key(record: &ChunkRecord, key: &ChunkKey, ciphertext: &[u8]) -> Result<(), OpenError> {
    check_len(record, ciphertext)?;
    // XChaCha20-Poly1305 does not commit to its key: without this, one ciphertext could have two plaintexts.
    if key.commitment() == record.key_commitment { Ok(()) } else { Err(OpenError::Key { index: record.index }) }
}

#[cfg(test)]
mod tests;
