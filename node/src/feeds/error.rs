//! What can go wrong with followed feeds, one enum per operation.

use tributary_protocol::{
    binding::ChainError,
    entry::EntryError,
    feed::JoinError,
    ids::{DatasetId, Did, Hash},
    seal::OpenError as SealOpenError,
    wire::WireError,
};
use tributary_store::StoreError;

use super::complete::IncompleteError;
use crate::net::{DialFailure, NetError, PeerId, PullError, RequestError, SubscribeError};

/// Why followed feeds could not be opened, or something stored about them could not be read.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum FeedsError {
    /// The store.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// A row that was stored is not readable.
    #[error("the stored {what} cannot be read ({reason}); run a store check")]
    Row {
        /// What it should be.
        what: &'static str,
        /// Why.
        reason: String,
    },
    /// The stored bindings of a machine are no chain.
    #[error("the stored bindings of {did} are no chain; remove the feed and follow it again")]
    Chain {
        /// The machine.
        did: Did,
        /// Why.
        source: ChainError,
    },
    /// The machine is not followed.
    #[error("{0} is not followed; subscribe to it first")]
    NotFollowed(Did),
    /// The work was cut off because the node stops.
    #[error("the node is stopping")]
    Stopped,
}

/// Why a machine was not found, or its logs could not be brought up to date.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum FollowError {
    /// What is stored.
    #[error(transparent)]
    Feeds(#[from] FeedsError),
    /// There is no network: the feeds were opened without one.
    #[error("this needs the network, and the node was opened without it")]
    Offline,
    /// No address to try.
    #[error("no address of {0} is known; give one in the link: tributary://{0}?addr=...")]
    NoAddress(Did),
    /// No address led to a peer.
    #[error("cannot reach {did}")]
    Dial {
        /// The machine.
        did: Did,
        /// What happened at the last address.
        source: Box<DialFailure>,
    },
    /// A peer did not answer.
    #[error("asking {peer} failed")]
    Request {
        /// The peer.
        peer: PeerId,
        /// Why.
        source: Box<RequestError>,
    },
    /// A peer has too much to do.
    #[error("{peer} is busy; try again later")]
    Busy {
        /// The peer.
        peer: PeerId,
    },
    /// A peer answered with nonsense.
    #[error("{peer} sent a malformed answer")]
    Malformed {
        /// The peer.
        peer: PeerId,
        /// What is wrong with it.
        source: Box<WireError>,
    },
    /// A peer answered with something that is not an entry, head or binding.
    #[error("{peer} sent something that is no entry, head or binding")]
    Entry {
        /// The peer.
        peer: PeerId,
        /// What is wrong with it.
        source: Box<EntryError>,
    },
    /// A peer answered something else than was asked.
    #[error("{peer} answered something else than was asked: {what}")]
    Answer {
        /// The peer.
        peer: PeerId,
        /// What is odd about it.
        what: &'static str,
    },
    /// A peer does not know the machine.
    #[error("{peer} knows nothing of {did}")]
    Unknown {
        /// The peer.
        peer: PeerId,
        /// The machine.
        did: Did,
    },
    /// The bindings a peer sent are not the machine's.
    #[error("the key bindings that {peer} sent are not {did}'s")]
    Chain {
        /// The peer.
        peer: PeerId,
        /// The machine.
        did: Did,
        /// Why.
        source: Box<ChainError>,
    },
    /// A peer sent an entry that is not good.
    #[error("{peer} sent a bad entry {seq}: {reason}")]
    BadEntry {
        /// The peer.
        peer: PeerId,
        /// Its position in its log.
        seq: u64,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// The machine signs two stories.
    #[error("{0} signs two different stories of one log: the proof is kept, and the feed is flagged")]
    Equivocation(Did),
    /// The dataset to begin with is not there.
    #[error(
        "{did} has not closed a dataset {dataset}; see what it offers with `tributary feed show`, or follow from the start"
    )]
    NoDataset {
        /// The machine.
        did: Did,
        /// The dataset.
        dataset: DatasetId,
    },
    /// A log cannot be joined with what a peer sent.
    #[error("{peer} does not show where a log can be joined")]
    Join {
        /// The peer.
        peer: PeerId,
        /// Why.
        source: JoinError,
    },
    /// Own feed.
    #[error("{0} is this node itself")]
    Myself(Did),
    /// Too many feeds.
    #[error("{0} feeds are followed, which is the limit")]
    TooManyFeeds(usize),
    /// Too many stream names, or one that is too long.
    #[error("at most 256 stream names of at most 256 bytes can be chosen; follow all streams instead")]
    Streams,
    /// No more topics.
    #[error(transparent)]
    Subscribe(#[from] SubscribeError),
    /// The network stopped.
    #[error(transparent)]
    Closed(#[from] NetError),
}

impl From<StoreError> for FollowError {
    fn from(error: StoreError) -> Self {
        Self::Feeds(error.into())
    }
}

/// A peer sent other bytes than the machine announced.
#[derive(Debug, Clone, thiserror::Error)]
#[error("{peer} sent wrong bytes for chunk {index} of dataset {dataset} ({hash}): they were refused")]
pub struct WrongBytes {
    /// Who sent them.
    pub peer: PeerId,
    /// The dataset.
    pub dataset: DatasetId,
    /// Index of the chunk.
    pub index: u32,
    /// BLAKE3 of what the machine announced.
    pub hash: Hash,
    /// What was wrong.
    pub source: PullError,
}

/// Why a source was given up.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SourceError {
    /// There is no connection to it.
    #[error("it cannot be reached")]
    Unreachable(#[source] Box<FollowError>),
    /// It takes no stream.
    #[error("it takes no stream")]
    NoStream(#[source] Box<RequestError>),
    /// It broke off, or was busy for too long.
    #[error(transparent)]
    Pull(PullError),
    /// It sent other bytes than the machine announced. Nothing of them was kept.
    #[error(transparent)]
    WrongBytes(Box<WrongBytes>),
    /// It does not have the chunks.
    #[error("it does not have them")]
    Lacks,
    /// It follows the feed, and serves no chunks to others.
    #[error("it serves no chunks")]
    ServesNone,
}

impl SourceError {
    pub(super) fn unreachable(error: FollowError) -> Self {
        Self::Unreachable(Box::new(error))
    }

    /// Whether trying it again is no use.
    pub(super) fn is_final(&self) -> bool {
        match self {
            Self::WrongBytes(_) | Self::ServesNone => true,
            Self::Pull(error) => error.is_offence(),
            _ => false,
        }
    }

    /// What it says, causes included, in one line.
    pub(super) fn whole(&self) -> String {
        let (mut text, mut next) = (self.to_string(), std::error::Error::source(self));
        while let Some(cause) = next {
            let cause_text = cause.to_string();
            if !text.contains(&cause_text) {
                text.push_str(": ");
                text.push_str(&cause_text);
            }
            next = cause.source();
        }
        text
    }
}

/// A pull that ended before every chunk was here, since nobody is left who could send the rest. What came is kept.
#[derive(Debug, thiserror::Error)]
pub struct Exhausted {
    /// Chunks that are missing.
    pub missing: u64,
    /// The first one's dataset.
    pub dataset: DatasetId,
    /// The first one's index.
    pub index: u32,
    /// Every peer that was asked, and why it does not send them.
    pub said: Vec<(PeerId, SourceError)>,
}

/// Peers that an error shows.
const SHOWN: usize = 8;

impl Exhausted {
    /// Whether every peer that was asked answered, and has, or serves, none of the missing chunks.
    #[must_use]
    pub fn nobody_has_them(&self) -> bool {
        self.said.iter().all(|(_, said)| matches!(said, SourceError::Lacks | SourceError::ServesNone))
    }

    /// The wrong bytes that a peer sent, if one did.
    #[must_use]
    pub fn wrong_bytes(&self) -> Option<&WrongBytes> {
        self.said.iter().find_map(|(_, said)| match said {
            SourceError::WrongBytes(wrong) => Some(&**wrong),
            _ => None,
        })
    }
}

impl std::fmt::Display for Exhausted {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { missing, dataset, index, said } = self;
        write!(f, "{missing} chunks could not be had, the first is chunk {index} of dataset {dataset}")?;
        for (n, (peer, said)) in said.iter().take(SHOWN).enumerate() {
            // What to do comes behind the last semicolon of a message, so there is none in here.
            write!(f, "{}{peer}: {}", if n == 0 { " (" } else { ", " }, said.whole().replace("; ", ", "))?;
        }
        match said.len().checked_sub(SHOWN) {
            Some(more) if more > 0 => write!(f, ", and {more} more peers)")?,
            _ if said.is_empty() => {}
            _ => write!(f, ")")?,
        }
        write!(f, "; what came is kept, run it again to continue")
    }
}

/// Why chunks could not be pulled.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PullJobError {
    /// What is stored.
    #[error(transparent)]
    Feeds(#[from] FeedsError),
    /// No provider could be reached.
    #[error(transparent)]
    Follow(#[from] FollowError),
    /// Not every chunk entry of a closed dataset is known here.
    #[error(transparent)]
    Incomplete(#[from] IncompleteError),
    /// Nothing of the selection was granted.
    #[error("no key of {what} was granted to this node; request access first")]
    NotGranted {
        /// What was asked for.
        what: String,
    },
    /// Nothing of the selection is known.
    #[error("{what} is not in the feed as far as it is known here; catch up first")]
    NotFound {
        /// What was asked for.
        what: String,
    },
    /// The right bytes cannot be opened with the granted key.
    #[error("chunk {index} of dataset {dataset} cannot be opened with the granted keys")]
    Unreadable {
        /// The dataset.
        dataset: DatasetId,
        /// Index of the chunk.
        index: u32,
        /// Why.
        source: SealOpenError,
    },
    /// Nobody is left who could send the rest.
    #[error(transparent)]
    Exhausted(#[from] Box<Exhausted>),
}

impl From<StoreError> for PullJobError {
    fn from(error: StoreError) -> Self {
        Self::Feeds(error.into())
    }
}
