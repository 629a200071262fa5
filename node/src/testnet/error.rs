//! Why a testnet does not do what it is asked to.

use std::{io, path::PathBuf};

use crate::{control::ClientError, demo::DemoError, home::HomeError};

/// Why a testnet does not do what it is asked to.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TestnetError {
    /// There is one already.
    #[error("there is a testnet in {}", dir.display())]
    Exists {
        /// The folder.
        dir: PathBuf,
    },
    /// The folder has something else in it.
    #[error("the folder {} is not empty, and no testnet's", dir.display())]
    Occupied {
        /// The folder.
        dir: PathBuf,
    },
    /// There is none.
    #[error("there is no testnet in {}", dir.display())]
    None {
        /// The folder.
        dir: PathBuf,
    },
    /// Another command changes it.
    #[error("another command is at work on the testnet in {}", dir.display())]
    Busy {
        /// The folder.
        dir: PathBuf,
    },
    /// A file cannot be read or written.
    #[error("{}: {source}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// The system's reason.
        source: io::Error,
    },
    /// `testnet.json` is not what was written.
    #[error("{} is no description of a testnet: {reason}", path.display())]
    State {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        reason: String,
    },
    /// What is asked for cannot be.
    #[error("{0}")]
    Plan(String),
    /// The recording cannot be used.
    #[error(transparent)]
    Recording(DemoError),
    /// A home cannot be made.
    #[error("the home of {node} cannot be made: {source}")]
    Home {
        /// The node.
        node: String,
        /// Why.
        source: Box<HomeError>,
    },
    /// There is no such node.
    #[error("there is no node {name:?} in this testnet")]
    NoNode {
        /// What was asked for.
        name: String,
        /// What there is.
        known: String,
    },
    /// A node does not do what it should.
    #[error("{node} {what}")]
    Node {
        /// The node.
        node: String,
        /// What happened, and what its log says.
        what: String,
    },
    /// A node refused something.
    #[error("{node}: {step}: {source}")]
    Step {
        /// The node.
        node: String,
        /// What was tried.
        step: &'static str,
        /// What it said.
        source: ClientError,
    },
    /// Something did not come in time.
    #[error("{what}, after {seconds} s")]
    Late {
        /// What is missing.
        what: String,
        /// How long it was waited for.
        seconds: u64,
    },
    /// The system does not let us make networks.
    #[error("network namespaces cannot be made here: {reason}")]
    Namespaces {
        /// What it said.
        reason: String,
    },
    /// The nodes share the computer's network.
    #[error("the nodes of this testnet share one network, which cannot be cut")]
    OneNetwork,
}
