//! What verifying a dataset found.

use serde::{Deserialize, Serialize};
use tributary_protocol::{
    dataset::DatasetEntry,
    ids::{DatasetId, Did},
};

/// What was proven.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// From the DID down: everything that is here is the machine's.
    Proven,
    /// Nothing contradicts anything, but nothing links it to the DID.
    Consistent,
    /// Something is not what it should be.
    Broken,
}

/// How a step ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum StepState {
    /// Everything was there and right.
    Passed,
    /// What was there was right.
    Partial,
    /// Not done: nothing to check, or what it needs is missing.
    Skipped,
    /// Something was wrong.
    Failed,
}

/// One step of the proof.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Step {
    /// Its name.
    pub name: String,
    /// How it ended.
    pub state: StepState,
    /// What was found, for people.
    pub detail: String,
}

/// What verifying a dataset found.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Report {
    /// The machine.
    pub did: Did,
    /// The dataset.
    pub dataset: DatasetId,
    /// The verdict.
    pub verdict: Verdict,
    /// What was done, in order; nothing is done after a step that failed.
    pub steps: Vec<Step>,
    /// What was wrong first.
    pub first_failure: Option<String>,
    /// Whether the machine closed the dataset. Of an open one, what is known here was checked, and there is no total to check it
    /// against.
    pub complete: bool,
    /// Chunks of the dataset; of an open one, those known here.
    pub chunks: u64,
    /// Chunks whose ciphertext is here and right.
    pub chunks_held: u64,
    /// Chunks that were also decrypted and right.
    pub chunks_opened: u64,
    /// Packages of the dataset.
    pub packages: u64,
    /// Packages whose signature is right.
    pub packages_verified: u64,
    /// Packages that the machine says it dropped.
    pub gaps: u64,
    /// How long it took.
    pub seconds: f64,
}

/// The first field in which two dataset entries differ.
pub(super) fn difference(built: &DatasetEntry, said: &DatasetEntry) -> String {
    let fields = [
        ("number of chunks", built.chunk_count == said.chunk_count),
        ("number of packages", built.package_count == said.package_count),
        ("number of bytes", built.bytes == said.bytes),
        ("time range", (built.time_from_ms, built.time_to_ms) == (said.time_from_ms, said.time_to_ms)),
        ("range of key positions", {
            (built.first_position, built.last_position) == (said.first_position, said.last_position)
        }),
        ("Merkle root", built.merkle_root == said.merkle_root),
    ];
    let name = fields.iter().find(|(_, same)| !same).map_or("description", |(name, _)| name);
    format!("the {name} of the chunks is not the one of the dataset entry")
}
