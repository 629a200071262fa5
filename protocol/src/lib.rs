//! Formats and cryptography of Tributary, without I/O.
//!
//! Nothing in this crate opens a file or a socket, reads a clock or draws randomness by itself: `now` and `rng` are arguments,
//! and what comes from a peer comes in as bytes. A second implementation of the network could be written against this crate
//! alone. Three layers, each built on the ones before:
//!
//! - **names and data**: [`ids`], [`json`], [`identity`], [`keys`], [`package`], [`rules`];
//! - **feeds and chunks**: [`keytree`], [`seal`], [`record`], [`entry`], [`dataset`], [`binding`], [`feed`];
//! - **trade**: [`access`], [`wire`], and [`peaq`], the formats of peaq's own SDK and CLI.

pub mod access;
pub mod binding;
pub mod dataset;
pub mod entry;
pub mod feed;
pub mod identity;
pub mod ids;
pub mod json;
pub mod keys;
pub mod keytree;
pub mod package;
pub mod peaq;
pub mod record;
pub mod rules;
pub mod seal;
mod sha256;
pub mod wire;
mod xchacha;
