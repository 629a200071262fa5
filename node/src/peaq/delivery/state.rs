//! What is said about deliveries: their limits, how far they are, and why one cannot begin.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use tributary_protocol::peaq::sessions::SessionError;

use crate::net::NetError;

/// Limits of deliveries.
#[derive(Debug, Clone)]
pub struct DeliveryLimits {
    /// Transfers at a time; further buyers wait.
    pub transfers: usize,
    /// Streams whose peer has not said what it wants. One more, and the oldest is closed.
    pub handshakes: usize,
    /// The same for one peer. One more is closed.
    pub handshakes_per_peer: usize,
    /// A peer must say what it wants within this time.
    pub handshake_timeout: Duration,
    /// A buyer must take 64 KiB within this time.
    pub stall_timeout: Duration,
    /// How long a buyer may wait for its transfer to begin. peaq's buyers give up after 60 s without a frame.
    pub queue_timeout: Duration,
    /// How often a buyer may come for one session.
    pub attempts: u32,
}

impl Default for DeliveryLimits {
    fn default() -> Self {
        Self {
            transfers: 32,
            handshakes: 1024,
            handshakes_per_peer: 8,
            handshake_timeout: Duration::from_secs(30),
            stall_timeout: Duration::from_secs(30),
            queue_timeout: Duration::from_secs(45),
            attempts: 8,
        }
    }
}

/// Why a session cannot be opened.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DeliveryError {
    /// There is one, there just was one, or there are too many.
    #[error(transparent)]
    Session(#[from] SessionError),
    /// The network has stopped.
    #[error(transparent)]
    Net(#[from] NetError),
    /// peaq's buyers dial TCP only.
    #[error(
        "this node listens on no TCP address that peaq's buyers could dial; add one to `network.listen`, or the public one to `network.external`"
    )]
    NoAddress,
    /// The handoff would be over at once.
    #[error("the handoff expires in the past; give it at least a minute")]
    Expired,
}

/// Where a buyer finds its delivery.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Handoff {
    /// `peaqos-p2p://…`
    pub url: String,
    /// Until when a buyer may come, RFC 3339.
    pub expires_at: String,
    /// The same, ms since 1970.
    pub expires_ms: u64,
}

/// How far a delivery is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "state")]
pub enum DeliveryState {
    /// Session and buyer are not known yet.
    Preparing,
    /// Nobody has come, or a transfer broke.
    Waiting,
    /// The buyer is there.
    Sending,
    /// Everything was sent.
    Completed {
        /// Chunks.
        chunks: u64,
        /// Bytes on the wire.
        bytes: u64,
        /// Whether the buyer then closed its side, as it does when it has read everything.
        confirmed: bool,
    },
    /// It is over.
    Failed {
        /// Why.
        reason: String,
    },
}

impl DeliveryState {
    /// Whether nothing more will come of it.
    #[must_use]
    pub const fn is_over(&self) -> bool {
        matches!(self, Self::Completed { .. } | Self::Failed { .. })
    }
}

/// A delivery that changed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeliveryEvent {
    /// The purchase.
    pub purchase: String,
    /// How far it is now. [`DeliveryState::Waiting`] after [`DeliveryState::Sending`]: the transfer broke.
    #[serde(flatten)]
    pub state: DeliveryState,
}

/// A delivery, for lists.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeliveryStatus {
    /// The purchase.
    pub purchase: String,
    /// The delivery session, once it is known.
    pub session: Option<String>,
    /// The buyer, once it is known.
    pub buyer: Option<String>,
    /// Chunks.
    pub chunks: u64,
    /// How often the buyer has come.
    pub attempts: u32,
    /// Until when a buyer may come, ms since 1970.
    pub expires_ms: u64,
    /// How far it is.
    #[serde(flatten)]
    pub state: DeliveryState,
}
