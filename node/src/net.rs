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
//!    \--pull streams, PullServer and PullClient on top
//! ```

mod addresses;
mod autonat;
mod behaviour;
mod book;
mod buckets;
mod client;
mod config;
mod error;
mod event;
mod frame;
mod guard;
mod kad;
mod lone;
mod meter;
mod muxer;
mod nudge;
mod providers;
mod providing;
mod pull;
mod pull_client;
mod pull_server;
mod reachability;
mod relay_server;
mod reputation;
mod reservations;
mod room;
mod scope;
mod shaping;
mod streams;
mod swarm;
mod task;
mod tls;
mod topics;
mod wanted;

pub use book::{Ban, KnownPeer, Remembered};
pub use client::{Client, PeaqStreams};
pub use config::{AddressCaps, ConnectionCaps, NetConfig, QueueCaps, RelayCaps};
pub use error::{DialFailure, NetError, ProvidersError, PublishError, RequestError, StartError, SubscribeError};
pub use event::{
    Acceptance, GossipMessage, InboundRequest, NetEvents, NetStats, Path, PeerEvent, PeerInfo, Provider,
    ProvidingReport, PublishOutcome, ReachReport, Relaying, RespondError, Responder, Translation, Transport, Upgrade,
    Upnp,
};
pub use frame::FrameError;
pub use lone::{Lone, LoneError, open_lone};
pub use meter::{NetTimings, PulledStats, RequestStats};
pub use providers::ProviderCaps;
pub use pull_client::{PullClient, PullError, PullItem, PullOptions, Wanted};
pub use pull_server::{ChunkLookup, ChunkProvider, PullServer, PullServerConfig, PullServerError, PullServerStats};
pub use reachability::{AddressState, OwnAddress, Reach};
pub use reputation::Offence;
pub use reservations::{RelayReservation, ReservationState};
pub use shaping::{Class, Pace, RateCaps, RateReport, RatesReport, Way, WayReport};
pub use task::start;

// The types of libp2p that appear in our signatures.
pub use libp2p::{Multiaddr, PeerId, Stream, gossipsub::MessageId, identity::Keypair};

pub use tributary_protocol::peaq::frame::PROTOCOL as PEAQ_PROTOCOL;
// Names and limits of the protocols, where their messages are defined.
pub use tributary_protocol::wire::{
    access::{MAX_MESSAGE as MAX_ACCESS_MESSAGE, PROTOCOL as ACCESS_PROTOCOL},
    gossip::{MAX_MESSAGE as MAX_GOSSIP_MESSAGE, TRANSMIT_LIMIT as MAX_GOSSIP_FRAME},
    pull::{MAX_HASHES as MAX_PULL_HASHES, PROTOCOL as PULL_PROTOCOL},
    sync::{MAX_REQUEST as MAX_SYNC_REQUEST, MAX_RESPONSE as MAX_SYNC_RESPONSE, PROTOCOL as SYNC_PROTOCOL},
};

/// Most topics one peer may subscribe to.
pub const MAX_TOPICS_PER_PEER: usize = 4096;
