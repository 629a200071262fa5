//! Directories of peaq's CLI: written for peaq's buyers, read and judged whoever wrote them.
//!
//! Owns the way between files and the formats of [`tributary_protocol::peaq`]: what `peaqos stream publish` writes
//! ([`publish_dataset`], from a closed dataset of this machine), what `peaqos stream grant` writes ([`grant_dataset`],
//! [`grant_directory`]), and reading both ([`check`]), which proves or refutes what peaq's own reader takes on trust.
//!
//! What is read comes from strangers: files are opened without following links, only regular ones, only up to the length
//! their kind may have, and one chunk is in memory at a time. What is written appears whole or not at all. Everything here
//! blocks.

mod access;
mod directory;
mod error;
mod grant;
mod proof;
mod publish;
mod report;
mod spread;
mod staging;
mod verify;

pub use self::{
    directory::read_key_file,
    error::FilesError,
    grant::{GrantedFile, GrantedFiles, grant_dataset, grant_directory},
    publish::{PublishOptions, PublishedFiles, publish_dataset},
    report::FilesReport,
    verify::{CheckOptions, check},
};

pub(crate) use self::{
    publish::{check_chunk_size, parties},
    staging::check_free,
};
