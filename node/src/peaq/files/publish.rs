//! A closed dataset as a directory that peaq's tools read.
//!
//! The ciphertexts are those of the feed, byte for byte; an envelope is made for each from its record, with the chunk's key
//! sealed for owner, operator and machine. A few chunks are in memory at a time.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};
use time::{OffsetDateTime, macros::format_description};
use tributary_protocol::{
    ids::DatasetId,
    keys::FeedPublicKey,
    peaq::{
        DEFAULT_CHUNK_SIZE,
        chain::ChainSummary,
        frame, hexes,
        manifest::{MAX_MANIFEST_BYTES, Manifest},
        parties::Recipients,
    },
    record::{ChunkRecord, TAG_LEN},
    seal,
};
use tributary_store::Store;
use zeroize::Zeroizing;

use super::{
    super::{
        own::OwnDataset,
        parties::{Parties, PartyNames},
    },
    FilesError,
    proof::origin,
    spread::{spread, width},
    staging::{Staging, check_free},
};
use crate::machine::Machine;

/// Records read at a time.
const PAGE: usize = 256;
/// Bytes of the manifest that are not records.
const MANIFEST_MARGIN: u64 = 4 << 20;

/// How a dataset is published.
pub struct PublishOptions {
    /// The folder to make; nothing or an empty folder may be there.
    pub out: PathBuf,
    /// For whom the chunk keys are sealed, and what the files call the machine and its key.
    pub parties: Parties,
    /// Also take chunks that peaq's peer-to-peer delivery has no room for.
    pub any_chunk_size: bool,
    /// Now, ms since 1970.
    pub now_ms: u64,
}

/// What was published; as JSON the answer of `peaqos stream publish`, and more.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PublishedFiles {
    /// `peaq.stream.chunks.v1`
    pub schema_version: String,
    /// SHA-256 of the whole plaintext.
    pub source_hash: String,
    /// Number of chunks.
    pub total_chunks: u64,
    /// Bytes per chunk.
    pub chunk_size: u64,
    /// What the files call the machine.
    pub machine_did: String,
    /// When they were made.
    pub created_at: String,
    /// The dataset.
    pub dataset: DatasetId,
    /// Bytes of the plaintext.
    pub total_bytes: u64,
    /// The folder.
    pub output_dir: PathBuf,
}

/// The parties of every envelope.
///
/// # Errors
/// A key or a name that peaq's format does not take, and whose it is.
pub(crate) fn parties(names: PartyNames) -> Result<Parties, FilesError> {
    for (what, text) in [
        ("the owner's public key", &names.owner),
        ("the operator's public key", &names.operator),
        ("the machine's public key", &names.machine),
    ] {
        Recipients::new(text, text, text).map_err(|source| FilesError::Value { what, source })?;
    }
    let parties = Parties::try_from(names).map_err(|source| FilesError::Value { what: "a public key", source })?;
    let named = parties.signer(FeedPublicKey::from_bytes([0; 32]));
    named.map_err(|source| FilesError::Value { what: "the machine's DID or key id", source })?;
    Ok(parties)
}

/// Whether peaq's delivery has room for chunks of so many bytes in a chain with these names.
///
/// # Errors
/// [`FilesError::ChunkTooLarge`] with the limit.
pub(crate) fn check_chunk_size(parties: &Parties, found: u64) -> Result<(), FilesError> {
    let envelope = parties.longest_envelope().map_err(|source| FilesError::Value { what: "a public key", source })?;
    let max = frame::max_ciphertext_len(&envelope).saturating_sub(TAG_LEN) as u64;
    if found > max { Err(FilesError::ChunkTooLarge { found, max }) } else { Ok(()) }
}

/// Publishes a closed dataset of this machine as a directory. `progress` hears the bytes of ciphertext done, and in all.
///
/// # Errors
/// When there is no such dataset, it is compressed, a chunk is too large or gone, or the folder cannot be made. Nothing is left
/// then.
pub fn publish_dataset(
    machine: &Machine,
    store: &Store,
    dataset: DatasetId,
    options: &PublishOptions,
    progress: &mut dyn FnMut(u64, u64) -> Result<(), FilesError>,
) -> Result<PublishedFiles, FilesError> {
    check_free(&options.out)?;
    let own = OwnDataset::open(machine, store, dataset)?;
    let (count, total) = (u64::from(own.entry().chunk_count), own.entry().bytes);
    let record_text = (ChunkRecord::LEN as u64).div_ceil(3) * 4;
    if count.saturating_mul(record_text) > (MAX_MANIFEST_BYTES as u64).saturating_sub(MANIFEST_MARGIN) {
        return Err(FilesError::TooManyChunks(dataset));
    }
    let mut records = Vec::new();
    let (mut longest, mut next) = (0, 0);
    while next < own.entry().chunk_count {
        for (record, _) in own.records(next, PAGE)? {
            if record.encoding.zstd {
                return Err(FilesError::Compressed(dataset));
            }
            longest = longest.max(u64::from(record.len));
            records.extend_from_slice(&record.encode());
            next += 1;
        }
    }
    let longest = longest.saturating_sub(TAG_LEN as u64);
    if !options.any_chunk_size {
        check_chunk_size(&options.parties, longest)?;
    }

    // A single chunk does not tell how long it could have been.
    let configured = machine.stream_config(&own.entry().stream).map(|stream| u64::from(stream.chunk.bytes));
    let staging = Staging::create(&options.out)?;
    let mut hasher = Sha256::new();
    let (mut done, mut total_bytes, mut next) = (0, 0, 0);
    progress(0, total)?;
    while next < own.entry().chunk_count {
        let batch = own.records(next, 2 * width())?;
        let written = spread(&batch, |(record, signer)| {
            let index = u64::from(record.index);
            let damaged = |reason: String| FilesError::Damaged { index, reason };
            let key = own.key(record).ok_or_else(|| damaged("its key is not in the epoch".to_owned()))?;
            let ciphertext = store.chunk(&record.hash)?.ok_or(FilesError::Dropped { index })?;
            seal::check_bytes(record, &ciphertext).map_err(|error| damaged(error.to_string()))?;
            staging.write(&format!("chunk-{index}.bin"), &ciphertext)?;
            let plaintext =
                seal::open_unhashed(record, &key, ciphertext).map_err(|error| damaged(error.to_string()))?;
            let plaintext = Zeroizing::new(plaintext);
            let sha256 =
                seal::verify_plaintext(record, &key, &plaintext).map_err(|error| damaged(error.to_string()))?;
            let envelope = options.parties.envelope(record, *signer, &key, &sha256);
            let envelope = envelope.map_err(|error| damaged(error.to_string()))?;
            staging.write(&format!("chunk-{index}.json"), &envelope.to_file_text())?;
            Ok::<_, FilesError>(plaintext)
        });
        for ((record, _), plaintext) in batch.iter().zip(written) {
            let plaintext = plaintext?;
            hasher.update(&plaintext);
            total_bytes += plaintext.len() as u64;
            done += u64::from(record.len);
            next += 1;
        }
        progress(done, total)?;
    }

    let summary = ChainSummary {
        source_hash: hexes::hash_text(&hasher.finalize().into()),
        total_chunks: count,
        chunk_size: if count > 1 { longest } else { configured.unwrap_or(DEFAULT_CHUNK_SIZE as u64) },
        total_bytes,
    };
    let mut manifest = Manifest::new(&summary, &options.parties.machine_did, &utc_seconds(options.now_ms))
        .map_err(|source| FilesError::Value { what: "the machine's DID", source })?;
    manifest.tributary = Some(origin(store, &machine.did(), own.entry(), &records)?);
    let text = manifest.to_file_text();
    if text.len() > MAX_MANIFEST_BYTES {
        return Err(FilesError::TooManyChunks(dataset));
    }
    staging.write("manifest.json", &text)?;
    let output_dir = staging.commit()?;
    Ok(PublishedFiles {
        schema_version: manifest.schema_version,
        source_hash: manifest.source_hash,
        total_chunks: manifest.total_chunks,
        chunk_size: manifest.chunk_size,
        machine_did: manifest.machine_did,
        created_at: manifest.created_at,
        dataset,
        total_bytes,
        output_dir,
    })
}

/// `YYYY-MM-DDTHH:MM:SSZ`.
fn utc_seconds(now_ms: u64) -> String {
    const FORM: &[time::format_description::BorrowedFormatItem<'_>] =
        format_description!("[year]-[month]-[day]T[hour]:[minute]:[second]Z");
    let time = i64::try_from(now_ms / 1000).ok().and_then(|s| OffsetDateTime::from_unix_timestamp(s).ok());
    // A clock beyond the year 9999 has no such form.
    time.and_then(|time| time.format(FORM).ok()).unwrap_or_else(|| "1970-01-01T00:00:00Z".to_owned())
}
