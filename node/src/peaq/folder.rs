//! Chunks that lie in a folder: of `peaqos stream publish`, or of the ROS 2 agent.
//!
//! The folder is the operator's own, but it may be large and may change: envelopes are read once and held, ciphertexts are read
//! one at a time and compared with their hash before they leave.

use std::{
    collections::HashMap,
    fs::{self, File},
    io::{ErrorKind, Read as _},
    path::{Path, PathBuf},
};

use sha2::{Digest as _, Sha256};
use tributary_protocol::peaq::{
    agent::manifests,
    chain::chunk_id,
    envelope::{Envelope, MAX_ENVELOPE_BYTES, in_order},
    frame::MAX_FRAME_BYTES,
    hexes,
};

use super::chunks::{Chunk, ChunkError, ChunkSource, check_frame};

/// Most chunks of one folder. Their envelopes take about 2.5 kB each.
const MAX_CHUNKS: usize = 262_144;
/// The agent's file of manifests.
const AGENT_FILE: &str = "manifests.json";

/// A folder of chunks.
pub struct FolderChunks {
    folder: PathBuf,
    envelopes: Vec<Envelope>,
    places: HashMap<String, u64>,
}

impl FolderChunks {
    /// Reads the envelopes of a folder and makes sure that every chunk is there and can be delivered. Blocks.
    ///
    /// # Errors
    /// No chunks, a file that cannot be read or is not what it should be, a chunk too large for a frame.
    pub fn open(folder: &Path) -> Result<Self, ChunkError> {
        let mut envelopes = Vec::new();
        while envelopes.len() < MAX_CHUNKS {
            let path = folder.join(format!("chunk-{}.json", envelopes.len()));
            let Some(text) = read(&path, MAX_ENVELOPE_BYTES)? else { break };
            envelopes.push(Envelope::parse(&text).map_err(|error| ChunkError::format(path, &error))?);
        }
        if envelopes.is_empty() {
            let path = folder.join(AGENT_FILE);
            if let Some(text) = read(&path, manifests::MAX_FILE_BYTES)? {
                envelopes = manifests::parse(&text).map_err(|error| ChunkError::format(path, &error))?;
            }
        } else {
            let bad = |reason: String| ChunkError::BadFile { path: folder.to_owned(), reason };
            envelopes = in_order(envelopes).map_err(|error| bad(error.to_string()))?;
            check_links(&envelopes).map_err(bad)?;
        }
        if envelopes.is_empty() {
            return Err(ChunkError::NoChunks { path: folder.to_owned() });
        }
        let mut places = HashMap::new();
        for (place, envelope) in (0..).zip(&envelopes) {
            let path = bin_path(folder, envelope)?;
            let len = fs::metadata(&path).map_err(|source| ChunkError::File { path: path.clone(), source })?.len();
            check_frame(envelope, usize::try_from(len).unwrap_or(usize::MAX))?;
            if places.insert(envelope.chunk_id.clone(), place).is_some() {
                let reason = format!("chunk id {} is there twice", envelope.chunk_id);
                return Err(ChunkError::BadFile { path: folder.to_owned(), reason });
            }
        }
        Ok(Self { folder: folder.to_owned(), envelopes, places })
    }
}

/// Whether every envelope follows the one before it, so that a buyer does not find out.
fn check_links(envelopes: &[Envelope]) -> Result<(), String> {
    let mut previous: Option<&str> = None;
    for envelope in envelopes {
        let expected = chunk_id(previous, &envelope.encrypted_data_hash, envelope.index);
        if envelope.previous_chunk_id.as_deref() != previous || envelope.chunk_id != expected {
            return Err(format!("chunk {} does not follow the chunk before it", envelope.index));
        }
        previous = Some(&envelope.chunk_id);
    }
    Ok(())
}

fn bin_path(folder: &Path, envelope: &Envelope) -> Result<PathBuf, ChunkError> {
    let name = if manifests::is_agents(envelope) {
        manifests::file_name(envelope)
    } else {
        Some(format!("chunk-{}.bin", envelope.index))
    };
    name.map(|name| folder.join(name)).ok_or_else(|| ChunkError::BadFile {
        path: folder.to_owned(),
        reason: format!("chunk id {:?} is no file name", envelope.chunk_id.chars().take(80).collect::<String>()),
    })
}

/// A file of at most `max` bytes; `None` where there is none.
fn read(path: &Path, max: usize) -> Result<Option<Vec<u8>>, ChunkError> {
    let failed = |source| ChunkError::File { path: path.to_owned(), source };
    let file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(failed(error)),
    };
    let limit = u64::try_from(max).unwrap_or(u64::MAX).saturating_add(1);
    let mut bytes = Vec::new();
    file.take(limit).read_to_end(&mut bytes).map_err(failed)?;
    if bytes.len() > max {
        let reason = format!("it has more than {max} bytes");
        return Err(ChunkError::BadFile { path: path.to_owned(), reason });
    }
    Ok(Some(bytes))
}

impl ChunkSource for FolderChunks {
    fn count(&self) -> u64 {
        self.envelopes.len() as u64
    }

    fn read(&self, place: u64) -> Result<Chunk, ChunkError> {
        let damaged = |reason: &str| ChunkError::Damaged { index: place, reason: reason.to_owned() };
        let envelope = usize::try_from(place).ok().and_then(|place| self.envelopes.get(place));
        let envelope = envelope.ok_or_else(|| damaged("there is no such chunk"))?.clone();
        let path = bin_path(&self.folder, &envelope)?;
        let ciphertext = read(&path, MAX_FRAME_BYTES)?.ok_or(ChunkError::Dropped { index: place })?;
        if manifests::is_agents(&envelope) {
            manifests::check(&envelope, &ciphertext).map_err(|error| damaged(&error.to_string()))?;
        } else if hexes::hash_text(&Sha256::digest(&ciphertext).into()) != envelope.encrypted_data_hash {
            return Err(damaged("the file is not the one that the envelope names"));
        }
        Ok(Chunk { envelope, ciphertext })
    }

    fn find(&self, chunk_id: &str) -> Option<u64> {
        self.places.get(chunk_id).copied()
    }
}
