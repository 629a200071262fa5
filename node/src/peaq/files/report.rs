//! What checking a directory found.

use serde::{Deserialize, Serialize};
use tributary_protocol::{
    ids::{DatasetId, Did},
    keys::FeedPublicKey,
};

use crate::buyer::{Step, StepState, Verdict};

/// What checking a directory of peaq's files found.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FilesReport {
    /// The verdict.
    pub verdict: Verdict,
    /// The machine that the files are proven to be of.
    pub machine: Option<Did>,
    /// What the files call their machine. Proven only if it is `machine`.
    pub claimed_machine: String,
    /// The key that signed every chunk.
    pub signer: Option<FeedPublicKey>,
    /// Whether the user pinned that key.
    pub pinned: bool,
    /// The dataset, where the origin is proven.
    pub dataset: Option<DatasetId>,
    /// Serial of the newest key binding in the files.
    pub binding_serial: Option<u64>,
    /// When that binding becomes stale, ms since 1970. Then look whether the machine has made another one.
    pub binding_expires_ms: Option<u64>,
    /// What was done, in order; nothing is done after a step that failed.
    pub steps: Vec<Step>,
    /// What was wrong first.
    pub first_failure: Option<String>,
    /// The first chunk that is wrong, where it is about one chunk.
    pub failed_chunk: Option<u64>,
    /// Chunks that are right.
    pub chunks: u64,
    /// Bytes of their ciphertexts.
    pub ciphertext_bytes: u64,
    /// Chunks that were decrypted and right.
    pub chunks_opened: u64,
    /// Bytes of their plaintexts.
    pub plaintext_bytes: u64,
    /// SHA-256 of the whole plaintext as the manifest gives it.
    pub source_hash: String,
    /// Whether the plaintext was all there and has that hash.
    pub source_hash_checked: bool,
}

impl FilesReport {
    pub(super) fn new() -> Self {
        Self {
            verdict: Verdict::Broken,
            machine: None,
            claimed_machine: String::new(),
            signer: None,
            pinned: false,
            dataset: None,
            binding_serial: None,
            binding_expires_ms: None,
            steps: Vec::new(),
            first_failure: None,
            failed_chunk: None,
            chunks: 0,
            ciphertext_bytes: 0,
            chunks_opened: 0,
            plaintext_bytes: 0,
            source_hash: String::new(),
            source_hash_checked: false,
        }
    }

    pub(super) fn step(&mut self, name: &str, state: StepState, detail: impl Into<String>) {
        self.steps.push(Step { name: name.to_owned(), state, detail: detail.into() });
    }
}
