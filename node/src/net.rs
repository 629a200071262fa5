//! The network: one task owns the libp2p swarm, everyone else holds a [`Client`].
//!
//! Owns connections, gossip, the two request-response protocols and raw pull streams, with every limit that keeps a hostile
//! peer from exhausting the node. It never looks inside a message: what arrives is handed on as bytes with its sender, and
//! whoever decodes it says what it was worth ([`Client::report`], [`Client::penalize`]). It stops when [`Client::shutdown`]
//! is called or the last client is dropped; open requests then end with an error, open streams with a reset.
//!
//! ```text
//! Client --commands (bounded)--> task (owns the Swarm) --bounded queues--> NetEvents { gossip, sync, access }
//!    |                                                \--broadcast-------> PeerEvent
//!    \--pull streams (libp2p-stream), PullServer and PullClient on top
//! ```

mod behaviour;
mod client;
mod config;
mod error;
mod event;
mod frame;
mod pull;
mod pull_client;
mod pull_server;
mod reputation;
mod task;
mod topics;

pub use client::Client;
pub use config::{ConnectionCaps, NetConfig, QueueCaps};
pub use error::{DialFailure, NetError, PublishError, RequestError, StartError, SubscribeError};
pub use event::{
    Acceptance, GossipMessage, InboundRequest, NetEvents, NetStats, PeerEvent, PeerInfo, PublishOutcome, RespondError,
    Responder, Transport,
};
pub use frame::FrameError;
pub use pull::{
    MAX_CHUNK_BODY, MAX_PULL_HASHES, MAX_PULL_REQUEST, PULL_HEADER_LEN, PullHeader, PullStatus, PullWireError,
};
pub use pull_client::{PullClient, PullError, PullItem, PullOptions, Wanted};
pub use pull_server::{ChunkLookup, ChunkProvider, PullServer, PullServerConfig, PullServerError, PullServerStats};
pub use reputation::Offence;
pub use task::start;

// The types of libp2p that appear in our signatures.
pub use libp2p::{Multiaddr, PeerId, Stream, gossipsub::MessageId, identity::Keypair};

/// Name of the catch-up protocol: requests up to [`MAX_SYNC_REQUEST`], responses up to [`MAX_SYNC_RESPONSE`].
pub const SYNC_PROTOCOL: &str = "/tributary/sync/1";
/// Name of the access protocol: both directions up to [`MAX_ACCESS_MESSAGE`].
pub const ACCESS_PROTOCOL: &str = "/tributary/access/1";
/// Name of the pull protocol.
pub const PULL_PROTOCOL: &str = "/tributary/pull/1";

/// Largest sync request, bytes.
pub const MAX_SYNC_REQUEST: usize = 4 << 10;
/// Largest sync response, bytes.
pub const MAX_SYNC_RESPONSE: usize = 1 << 20;
/// Largest message of the access protocol, bytes, either direction.
pub const MAX_ACCESS_MESSAGE: usize = 64 << 10;

/// Largest gossip frame a node may send, bytes: one RPC of gossipsub with everything around the message.
pub const MAX_GOSSIP_FRAME: usize = 64 << 10;
/// Largest gossip message a node may publish, bytes: the frame less 1 KiB for the topic and the framing. A peer that reads a
/// larger frame drops the whole stream, so this is checked before anything is sent.
pub const MAX_GOSSIP_MESSAGE: usize = MAX_GOSSIP_FRAME - (1 << 10);
/// Most topics one peer may subscribe to.
pub const MAX_TOPICS_PER_PEER: usize = 4096;
