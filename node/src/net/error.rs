//! What can go wrong in the network, one enum per operation.

use libp2p::{Multiaddr, PeerId};

use super::frame::FrameError;

/// The network task has ended, so nothing can be asked of it any more.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the network has been shut down")]
pub struct NetError;

/// Why the network could not start.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StartError {
    /// A part of libp2p refused its settings.
    #[error("cannot set up {part}: {reason}")]
    Setup {
        /// Which part.
        part: &'static str,
        /// What it said.
        reason: String,
    },
    /// An address could not be listened on.
    #[error("cannot listen on {address}: {reason}; choose another address or port")]
    Listen {
        /// The address.
        address: Multiaddr,
        /// What the system said.
        reason: String,
    },
}

/// Why a connection did not come about.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum DialFailure {
    /// Nobody answered at any address.
    #[error("cannot connect to {target}: {reason}")]
    Unreachable {
        /// Peer or address that was dialled.
        target: String,
        /// What the transports said.
        reason: String,
    },
    /// Somebody else answered.
    #[error("{address} is not {target} but {found}; the address is out of date or somebody is in between")]
    WrongPeer {
        /// Who was expected.
        target: String,
        /// Who answered.
        found: PeerId,
        /// Where.
        address: Multiaddr,
    },
    /// The address is our own.
    #[error("{0} is an address of this node itself")]
    Myself(Multiaddr),
    /// A limit, or the block list, forbids it.
    #[error("connection to {target} refused by our own limits: {reason}")]
    Denied {
        /// Peer or address that was dialled.
        target: String,
        /// Which limit.
        reason: String,
    },
    /// No address of the peer is known.
    #[error("no address of {0} is known")]
    NoAddress(PeerId),
    /// The network has been shut down.
    #[error(transparent)]
    Closed(#[from] NetError),
}

/// Why it is not known who serves a feed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ProvidersError {
    /// Kademlia is switched off.
    #[error("nobody can be asked who serves a feed: `network.discovery.kademlia` is false")]
    Off,
    /// Too many lookups are under way.
    #[error("too many lookups are under way; try again later")]
    Busy,
    /// The network has been shut down.
    #[error(transparent)]
    Closed(#[from] NetError),
}

/// Why a topic could not be subscribed to.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SubscribeError {
    /// The name is no topic of this network.
    #[error("{topic:?} is no topic of this network: a topic is {prefix:?}, a DID and, for a stream, its id")]
    Name {
        /// The start of the refused name.
        topic: String,
        /// What every topic starts with.
        prefix: &'static str,
    },
    /// The list of all our topics would not fit the one frame in which gossipsub tells it to a new peer.
    #[error(
        "too many topics: {topics} are subscribed and one more would not fit one gossip frame; follow fewer streams"
    )]
    TooMany {
        /// How many are subscribed.
        topics: usize,
    },
    /// The network has been shut down.
    #[error(transparent)]
    Closed(#[from] NetError),
}

/// Why a message was not published. That nobody listens is no error: see [`super::PublishOutcome`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum PublishError {
    /// The message is larger than any peer accepts.
    #[error("a gossip message of {len} bytes is too large: at most {max} bytes")]
    TooLarge {
        /// Its length, bytes.
        len: usize,
        /// The limit, bytes.
        max: usize,
    },
    /// The topic is not one of ours.
    #[error("{0:?} is no topic of this network")]
    Topic(String),
    /// Gossipsub refused it.
    #[error("gossip message not published: {0}")]
    Refused(String),
    /// The network has been shut down.
    #[error(transparent)]
    Closed(#[from] NetError),
}

/// Why a request has no answer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum RequestError {
    /// Our own message, or the peer's, is over the limit or broken.
    #[error(transparent)]
    Frame(#[from] FrameError),
    /// Too many requests of ours are open.
    #[error("{open} requests wait for an answer already; try again later")]
    TooManyOpen {
        /// How many.
        open: usize,
    },
    /// The peer could not be reached.
    #[error("cannot reach {0}")]
    Unreachable(PeerId),
    /// The peer did not answer in time.
    #[error("{0} did not answer in time")]
    Timeout(PeerId),
    /// The peer does not speak the protocol.
    #[error("{peer} does not speak {protocol}")]
    Unsupported {
        /// The peer.
        peer: PeerId,
        /// The protocol.
        protocol: &'static str,
    },
    /// The connection or the stream broke.
    #[error("the connection to {peer} broke: {reason}")]
    Broken {
        /// The peer.
        peer: PeerId,
        /// What happened.
        reason: String,
    },
    /// The network has been shut down.
    #[error(transparent)]
    Closed(#[from] NetError),
}
