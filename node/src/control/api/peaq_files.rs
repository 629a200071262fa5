//! Files for peaq's tools.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::peaq::PartyNames;

/// Publish a closed dataset of this machine as a directory for peaq's tools.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PeaqPublishRequest {
    /// The dataset, by id or a beginning of it.
    pub dataset: String,
    /// The folder to make, absolute.
    pub out: PathBuf,
    /// The owner's X25519 key, hex.
    pub owner_public_key: String,
    /// The operator's.
    pub operator_public_key: String,
    /// The machine's.
    pub machine_public_key: String,
    /// What the files call the machine.
    pub machine_did: String,
    /// What they call its signing key.
    pub machine_key_id: String,
    /// Also take chunks that peaq's peer-to-peer delivery has no room for.
    pub any_chunk_size: bool,
}

impl PeaqPublishRequest {
    /// Who stands in the envelopes.
    #[must_use]
    pub fn names(&self) -> PartyNames {
        PartyNames {
            owner: self.owner_public_key.clone(),
            operator: self.operator_public_key.clone(),
            machine: self.machine_public_key.clone(),
            machine_did: self.machine_did.clone(),
            key_id: self.machine_key_id.clone(),
        }
    }
}

/// Write access files of peaq's format for a closed dataset of this machine.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PeaqGrantRequest {
    /// The dataset, by id or a beginning of it.
    pub dataset: String,
    /// Who gets the keys: any name, usually a DID.
    pub buyer_id: String,
    /// Their X25519 key, hex.
    pub buyer_public_key: String,
    /// Longest access file, bytes of its snake_case text.
    pub max_file_size: usize,
    /// The folder to make, absolute.
    pub out: PathBuf,
}

/// How many chunks have been done.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct ChunksProgress {
    /// Chunks so far.
    pub chunks: u64,
}
