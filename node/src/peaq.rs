//! Trading with peaq's own software: over libp2p with the protocol `/peaqos/stream/chunk/1.0.0`, over HTTP with peaq's
//! orchestration API ([`orchestration`]), and in folders of its CLI ([`files`]).
//!
//! Owns the network side of the formats in [`tributary_protocol::peaq`]: a machine delivers to peaq's buyers ([`Deliveries`]),
//! from a closed dataset or a published directory ([`ChunkSource`]), and a buyer receives from peaq's sellers ([`receive`]).
//! Which purchase is whose, whoever opens a session says: the operator, or the orders of [`orchestration`]. Nothing here talks to a
//! marketplace.
//!
//! A delivery proves less than a pull. A handshake names a purchase, a session and a buyer without proof, so whoever learns
//! these three takes the buyer's place (and gets nothing but ciphertext); chunks say who signed them but nothing ties that key
//! to a machine.

mod chunks;
mod dataset;
pub mod delivery;
pub mod files;
mod folder;
pub mod orchestration;
mod own;
mod parties;
pub mod receive;

pub use chunks::{Chunk, ChunkError, ChunkSource};
pub use dataset::DatasetChunks;
pub use delivery::{Deliveries, DeliveryError, DeliveryEvent, DeliveryLimits, DeliveryState, DeliveryStatus, Handoff};
pub use folder::FolderChunks;
pub use parties::{Parties, PartyNames};
