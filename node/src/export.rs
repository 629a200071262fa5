//! Datasets back into files: NDJSON as it was signed, and MCAP for robotics tools.
//!
//! Owns the plaintext of a dataset as a stream ([`PlaintextReader`]: package lines, each followed by its blobs) and the two
//! writers. Takes bytes that were decrypted and verified; it checks blob hashes again, since a line names them, but no
//! signatures: [`PlainPackage::package`] is there for the caller to verify. A file appears under its name whole or not at all.
//!
//! What MCAP holds: a raw stream is CDR with its `ros2msg` definition again, byte for byte what the robot recorded. So are fields
//! that no rule changed, where the packages name their definition: see [`encode_cdr`]. Everything else is JSON with a JSON schema:
//! a channel is JSON as a whole as soon as one of its messages cannot be CDR, and [`McapChannel`] says why. Byte arrays stand in
//! the JSON as base64 with `contentEncoding` in the schema, so viewers show images. Signatures do not fit into MCAP messages;
//! NDJSON keeps them.

mod atomic;
mod cdr;
mod forms;
mod mcap;
mod ndjson;
mod plaintext;
mod schema;

use std::path::{Path, PathBuf};

pub(crate) use self::ndjson::write_blobs;
pub use self::{
    atomic::AtomicFile,
    cdr::{EncodeError, encode_cdr},
    forms::{ChannelForms, JsonReason},
    mcap::{ChannelEncoding, McapChannel, McapExporter, McapOutcome},
    ndjson::NdjsonExporter,
    plaintext::{PlainPackage, PlaintextError, PlaintextLimits, PlaintextReader},
};

/// Why an export stopped. The target file is as it was before.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ExportError {
    /// The file system refused.
    #[error("cannot write {path}")]
    Io {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// The MCAP writer refused.
    #[error("cannot write {path} as MCAP")]
    Mcap {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: ::mcap::McapError,
    },
    /// A package that has no place in the format.
    #[error("package {number} cannot be exported: {reason}")]
    Package {
        /// Its sequence number.
        number: String,
        /// What is wrong.
        reason: String,
    },
}

impl ExportError {
    fn io(path: &Path) -> impl Fn(std::io::Error) -> Self {
        move |source| Self::Io { path: path.to_owned(), source }
    }
}

#[cfg(test)]
mod tests;
