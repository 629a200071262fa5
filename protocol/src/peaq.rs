//! The formats of peaq's own SDK and CLI: chunk chains, sealed keys, buyer access files.
//!
//! This module owns the bytes of `peaq.stream.chunks.v1` and `peaq.stream.buyer-access.v1`, so that files written here are
//! read by peaq's tools and the other way round. It knows nothing of feeds or grants, and it never vouches for an origin:
//! in these formats the verification key lies inside the envelope, and the machine signs only the text of one hash per chunk
//! (not index, order, count, recipients or plaintext hash). A chain that verifies here is *consistent*; who made it is the
//! business of [`crate::feed`] or of a key the user pinned.
//!
//! - [`envelope`]: one chunk's JSON, with [`parties`] for who stands in it, [`manifest`]: the directory's JSON, both byte-exact
//! - [`chain`]: plaintext into sealed, linked, signed chunks, one chunk in memory at a time
//! - [`verify`]: the checks of peaq's verifier in peaq's order, with its texts
//! - [`decrypt`]: opening one chunk with a recipient key
//! - [`access`]: chunk keys re-wrapped for a buyer, as files
//! - [`origin`]: the feed's own statements in a directory of these files, which do prove an origin
//! - [`frame`], [`connect_url`], [`purchase`]: what travels between peaq's sellers and buyers, [`sessions`]: the seller's side,
//!   [`receiver`]: the buyer's
//! - [`agent`]: the same protocol id in the bytes of peaq's ROS 2 agent
//! - [`sealed_box`], [`hexes`], [`ascii_json`]: what these are made of

pub mod access;
pub mod agent;
pub mod ascii_json;
mod base64_engine;
pub mod chain;
pub mod connect_url;
pub mod decrypt;
pub mod envelope;
mod error;
pub mod frame;
pub mod hexes;
pub mod manifest;
pub mod origin;
pub mod parties;
pub mod purchase;
pub mod receiver;
pub mod sealed_box;
pub mod sessions;
pub mod verify;

pub use error::{ReadError, StreamError};

/// `schemaVersion` of chunk envelopes and of the manifest.
pub const CHUNK_SCHEMA: &str = "peaq.stream.chunks.v1";
/// `schemaVersion` of buyer access files.
pub const ACCESS_SCHEMA: &str = "peaq.stream.buyer-access.v1";
/// Chunk size that peaq's tools use when none is given, in bytes.
pub const DEFAULT_CHUNK_SIZE: usize = 262_144;
/// Size limit of one buyer access file that peaq's tools use when none is given, in bytes.
pub const DEFAULT_ACCESS_FILE_SIZE: usize = 512_000;
