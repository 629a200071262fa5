//! What can go wrong on the buying side, one enum per operation.

use tributary_protocol::{
    access::{GrantError, QuoteError},
    ids::{DatasetId, Did, Hash},
    seal::OpenError as SealOpenError,
    wire::DenyCode,
};
use tributary_store::StoreError;

use crate::{
    export::{ExportError, PlaintextError},
    feeds::{FeedsError, FollowError, IncompleteError},
};

/// Why access was not obtained.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum AccessError {
    /// What is stored.
    #[error(transparent)]
    Feeds(#[from] FeedsError),
    /// The machine could not be asked.
    #[error(transparent)]
    Follow(#[from] FollowError),
    /// No node of the machine could be reached: requests go nowhere else.
    #[error("no node of {did} could be reached; requests are sent to the machine itself only")]
    Unreachable {
        /// The machine.
        did: Did,
        /// What happened at the last one.
        source: Option<Box<FollowError>>,
    },
    /// The quote does not bind.
    #[error("the quote of {did} does not bind")]
    Quote {
        /// The machine.
        did: Did,
        /// Why.
        source: QuoteError,
    },
    /// The quote is for something else.
    #[error("{0} quoted something else than was asked for")]
    OtherSelection(Did),
    /// It costs something, and there is no payment.
    #[error("access costs {amount} {token} on {chain}, to be paid to {pay_to}; pay, then ask with the payment")]
    PaymentRequired {
        /// Smallest units of the token.
        amount: u128,
        /// The token.
        token: String,
        /// The chain.
        chain: String,
        /// Whom to pay.
        pay_to: String,
    },
    /// The request could not be made.
    #[error("the access request could not be made")]
    Request(#[from] tributary_protocol::access::RequestError),
    /// The machine said no.
    #[error("{did} denied access ({code:?}): {reason}")]
    Denied {
        /// The machine.
        did: Did,
        /// Why, for programs.
        code: DenyCode,
        /// Why, for people.
        reason: String,
    },
    /// A grant is no good.
    #[error("{did} sent a grant that is no good")]
    Grant {
        /// The machine.
        did: Did,
        /// Why.
        source: GrantError,
    },
    /// No such request here.
    #[error("no access request {0} was made from here")]
    UnknownRequest(Hash),
}

impl From<StoreError> for AccessError {
    fn from(error: StoreError) -> Self {
        Self::Feeds(error.into())
    }
}

/// Why a dataset could not be checked at all. What a check finds is a report, not an error.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum VerifyError {
    /// What is stored.
    #[error(transparent)]
    Feeds(#[from] FeedsError),
    /// The dataset is not known.
    #[error("dataset {0} is not in the feed as far as it is known here; catch up first")]
    NotFound(DatasetId),
    /// Not every chunk entry of it is known here.
    #[error(transparent)]
    Incomplete(#[from] IncompleteError),
}

impl From<StoreError> for VerifyError {
    fn from(error: StoreError) -> Self {
        Self::Feeds(error.into())
    }
}

/// Why the plaintext of a dataset cannot be read.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ContentError {
    /// The store.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The dataset is not known.
    #[error("dataset {0} is not in the feed as far as it is known here; catch up first")]
    NotFound(DatasetId),
    /// A chunk was not pulled.
    #[error("chunk {index} of dataset {dataset} is not here; pull it first")]
    Missing {
        /// The dataset.
        dataset: DatasetId,
        /// Its index.
        index: u32,
    },
    /// A chunk was not granted.
    #[error("the key of chunk {index} of dataset {dataset} was not granted to this node; request access first")]
    NotGranted {
        /// The dataset.
        dataset: DatasetId,
        /// Its index.
        index: u32,
    },
    /// A chunk does not open.
    #[error("chunk {index} of dataset {dataset} does not open")]
    Open {
        /// The dataset.
        dataset: DatasetId,
        /// Its index.
        index: u32,
        /// Why.
        source: SealOpenError,
    },
    /// A chunk does not unpack.
    #[error("chunk {index} of dataset {dataset} does not unpack to at most 1 MiB; the machine packed it wrongly")]
    Unpack {
        /// The dataset.
        dataset: DatasetId,
        /// Its index.
        index: u32,
    },
    /// The records do not follow each other.
    #[error("chunk {index} of dataset {dataset} is not in the feed where it should be")]
    Record {
        /// The dataset.
        dataset: DatasetId,
        /// Its index.
        index: u32,
    },
}

/// Why a dataset could not be exported.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ExportJobError {
    /// What is stored.
    #[error(transparent)]
    Feeds(#[from] FeedsError),
    /// The content.
    #[error(transparent)]
    Content(#[from] ContentError),
    /// Not every chunk entry of a closed dataset is known here.
    #[error(transparent)]
    Incomplete(#[from] IncompleteError),
    /// It does not read as packages.
    #[error("the dataset does not read as packages")]
    Plaintext(#[from] PlaintextError),
    /// A package is not signed by the machine.
    #[error("package {number} is not signed by {did}: {reason}; the export was not made")]
    Package {
        /// Its number.
        number: String,
        /// The machine.
        did: Did,
        /// Why.
        reason: String,
    },
    /// The writer.
    #[error(transparent)]
    Export(#[from] ExportError),
    /// A folder or file could not be made.
    #[error("cannot write {path}")]
    Io {
        /// Where.
        path: std::path::PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// The dataset is a file, the format is for packages, or the other way round.
    #[error("dataset {dataset} holds {holds}; it cannot be exported as {format}")]
    Format {
        /// The dataset.
        dataset: DatasetId,
        /// What it holds.
        holds: &'static str,
        /// What was asked for.
        format: &'static str,
    },
}

impl From<StoreError> for ExportJobError {
    fn from(error: StoreError) -> Self {
        Self::Feeds(error.into())
    }
}
