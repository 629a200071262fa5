//! The dialect of peaq's ROS 2 agent: the protocol id and encoding name of [`super::frame`], other bytes.
//!
//! A frame is a length (4 bytes, big endian) and a JSON object. A buyer asks for chunks by id, with an offset for each that it
//! has the start of; the seller answers each with `chunk.manifest`, `chunk.data` (everything from the offset on) and
//! `chunk.end`, or with one `delivery.error`. The first byte of a dialogue tells the two apart: a length below 16 MiB begins
//! with 0x00, a line with `{`.
//!
//! - [`frames`]: bytes into frames
//! - [`messages`]: frames into what they say, and back
//! - [`manifests`]: the agent's file of chunk manifests, whose hashes and ids are made in a way of their own

pub mod frames;
pub mod manifests;
pub mod messages;

/// Longest frame of the agent, in bytes.
pub const MAX_FRAME_BYTES: usize = 32 << 20;
/// Longest request that is taken, in bytes; one for 10,000 chunks has about 1.4 MB.
pub const MAX_REQUEST_BYTES: usize = 2 << 20;
/// Most chunks in one request.
pub const MAX_CHUNKS: usize = 10_000;

/// Whether a dialogue that begins with this byte is one of the agent's.
#[must_use]
pub const fn is_agent(first: u8) -> bool {
    first == 0
}
