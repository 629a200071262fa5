//! The limits of the server. Holds numbers only.

use std::{num::NonZeroU32, time::Duration};

/// Limits of the server.
#[derive(Debug, Clone)]
pub struct PullServerConfig {
    /// Transfers at a time.
    pub max_streams: usize,
    /// Transfers at a time of one peer.
    pub max_streams_per_peer: usize,
    /// Refusals at a time; beyond, streams are reset without a word.
    pub max_refusals: usize,
    /// The request must be here within this time.
    pub request_timeout: Duration,
    /// A peer must take 64 KiB within this time.
    pub stall_timeout: Duration,
    /// When a refused peer may try again.
    pub retry_after: Duration,
    /// Bytes read ahead per batch. A stream holds two batches, each up to this and one chunk.
    pub batch_bytes: usize,
    /// Bytes per second to all peers.
    pub bytes_per_second: Option<NonZeroU32>,
    /// Bytes per second to one peer.
    pub bytes_per_second_per_peer: Option<NonZeroU32>,
}

impl Default for PullServerConfig {
    fn default() -> Self {
        Self {
            max_streams: 32,
            max_streams_per_peer: 8,
            max_refusals: 256,
            request_timeout: Duration::from_secs(10),
            stall_timeout: Duration::from_secs(30),
            retry_after: Duration::from_secs(1),
            batch_bytes: 256 << 10,
            bytes_per_second: None,
            bytes_per_second_per_peer: None,
        }
    }
}
