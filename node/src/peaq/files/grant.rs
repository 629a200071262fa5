//! Access files for a buyer, from the machine's own keys or from a published directory with the owner's key.
//!
//! Linear in the number of chunks: the length of a file is counted while entries are added, never measured again. Holds a batch
//! of chunks and one access file; sealing keys is spread over the processors.

use std::path::Path;

use serde::{Deserialize, Serialize};
use tributary_protocol::{
    ids::DatasetId,
    peaq::{
        ACCESS_SCHEMA, StreamError,
        access::{AccessEntry, AccessFile, Sharder},
        envelope::{Envelope, MAX_ENVELOPE_BYTES},
        hexes,
        parties::Recipient,
        sealed_box::BoxSecretKey,
    },
};
use tributary_store::Store;

use super::{
    super::own::OwnDataset, FilesError, access::behind_gap, directory::Directory, spread::spread, staging::Staging,
};
use crate::machine::{Machine, MachineError};

/// Chunks whose keys are sealed at a time.
const BATCH: usize = 512;

/// One access file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct GrantedFile {
    /// Its name.
    pub name: String,
    /// Its length.
    pub size_bytes: u64,
}

/// What was granted; as JSON the answer of `peaqos stream grant`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct GrantedFiles {
    /// `peaq.stream.buyer-access.v1`
    pub schema_version: String,
    /// The buyer.
    pub buyer_id: String,
    /// Chunks whose keys are in the files.
    pub chunk_count: u64,
    /// Number of files.
    pub file_count: u64,
    /// The folder they are in.
    pub output_dir: String,
    /// The files, in order.
    pub files: Vec<GrantedFile>,
}

/// Writes access files into a folder that appears when it is complete.
struct Writer {
    staging: Staging,
    sharder: Sharder,
    chunks: u64,
    files: Vec<GrantedFile>,
}

impl Writer {
    fn new(out: &Path, buyer: &Recipient, max_file_size: usize) -> Result<Self, FilesError> {
        let (staging, sharder) = (Staging::create(out)?, Sharder::new(buyer, max_file_size));
        Ok(Self { staging, sharder, chunks: 0, files: Vec::new() })
    }

    fn push(&mut self, entry: AccessEntry) -> Result<(), FilesError> {
        self.chunks += 1;
        match self.sharder.push(entry) {
            Some(file) => write(&self.staging, &mut self.files, &file),
            None => Ok(()),
        }
    }

    fn finish(mut self, buyer: &Recipient) -> Result<GrantedFiles, FilesError> {
        if let Some(file) = self.sharder.finish() {
            write(&self.staging, &mut self.files, &file)?;
        }
        let output_dir = self.staging.commit()?.display().to_string();
        Ok(GrantedFiles {
            schema_version: ACCESS_SCHEMA.to_owned(),
            buyer_id: buyer.id().to_owned(),
            chunk_count: self.chunks,
            file_count: self.files.len() as u64,
            output_dir,
            files: self.files,
        })
    }
}

fn write(staging: &Staging, files: &mut Vec<GrantedFile>, file: &AccessFile) -> Result<(), FilesError> {
    let (name, text) = (file.file_name(), file.to_cli_text());
    staging.write(&name, &text)?;
    files.push(GrantedFile { name, size_bytes: text.len() as u64 });
    Ok(())
}

/// Access to a directory of published chunks, for whoever holds the owner's private key. `progress` hears how many chunks are
/// done.
///
/// # Errors
/// When a chunk is missing or is none, the key is not the owner's, or `out` holds anything.
pub fn grant_directory(
    chunks: &Path,
    owner: &BoxSecretKey,
    buyer: &Recipient,
    max_file_size: usize,
    out: &Path,
    progress: &mut dyn FnMut(u64) -> Result<(), FilesError>,
) -> Result<GrantedFiles, FilesError> {
    const HINT: &str = "name the folder with the published chunks";
    let directory = Directory::open(chunks, HINT)?;
    let mut writer = Writer::new(out, buyer, max_file_size)?;
    let mut next = 0u64;
    loop {
        let indices: Vec<u64> = (next..).take(BATCH).collect();
        let batch = spread(&indices, |index| entry_of(&directory, *index, owner, buyer));
        for entry in batch {
            let Some(entry) = entry? else {
                if next == 0 {
                    return Err(FilesError::Missing { path: directory.path_of("chunk-0.json"), hint: HINT });
                }
                if let Some(name) = behind_gap(&directory, next)? {
                    return Err(FilesError::Gap { index: next, behind: directory.path_of(&name) });
                }
                return writer.finish(buyer);
            };
            writer.push(entry)?;
            next += 1;
        }
        progress(next)?;
    }
}

fn entry_of(
    directory: &Directory,
    index: u64,
    owner: &BoxSecretKey,
    buyer: &Recipient,
) -> Result<Option<AccessEntry>, FilesError> {
    let name = format!("chunk-{index}.json");
    let Some(bytes) = directory.read(&name, MAX_ENVELOPE_BYTES)? else { return Ok(None) };
    let envelope =
        Envelope::parse(&bytes).map_err(|source| FilesError::Format { path: directory.path_of(&name), source })?;
    if envelope.index != index {
        return Err(FilesError::Order { index, found: envelope.index });
    }
    AccessEntry::grant(&envelope, owner, buyer, &mut rand::rng()).map(Some).map_err(|source| match source {
        StreamError::Unwrap => FilesError::WrongKey { index },
        source => FilesError::Chunk { index, source },
    })
}

/// Access to a closed dataset of this machine, from its own keys. The chunks must have been published for peaq, or the buyer
/// has nothing to open; their ids are the same wherever they were published.
///
/// # Errors
/// When there is no such dataset, its keys are not here, or `out` holds anything.
pub fn grant_dataset(
    machine: &Machine,
    store: &Store,
    dataset: DatasetId,
    buyer: &Recipient,
    max_file_size: usize,
    out: &Path,
    progress: &mut dyn FnMut(u64) -> Result<(), FilesError>,
) -> Result<GrantedFiles, FilesError> {
    let own = OwnDataset::open(machine, store, dataset)?;
    let mut writer = Writer::new(out, buyer, max_file_size)?;
    let mut next = 0;
    while next < own.entry().chunk_count {
        let batch = own.records(next, BATCH)?;
        let wrapped = spread(&batch, |(record, _)| {
            let key = own.key(record).ok_or(StreamError::Commitment)?;
            AccessEntry::wrap(&hexes::hash_text(&record.chunk_id), key.as_bytes(), buyer, &mut rand::rng())
        });
        for result in wrapped {
            let index = u64::from(next);
            writer.push(result.map_err(|source| FilesError::Chunk { index, source })?)?;
            next += 1;
        }
        progress(writer.chunks)?;
    }
    writer.finish(buyer)
}

impl From<MachineError> for FilesError {
    fn from(error: MachineError) -> Self {
        Self::Machine(Box::new(error))
    }
}
