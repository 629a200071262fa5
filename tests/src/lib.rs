//! What the suites over real processes stand on: homes in temporary folders, child nodes that never outlive their test,
//! messages to ingest, hostile peers, and readers of what nodes left on the disk.
//!
//! Nodes are driven as a person would drive them, by commands and the control socket. Nothing here waits by sleeping for a
//! time that should do: states are polled until they are reached, or a deadline names what did not come. Nothing sends a
//! packet beyond loopback, or beyond the network namespaces that a test has made.

#![allow(clippy::unwrap_used, clippy::panic, clippy::print_stderr, reason = "a test ends where something is wrong")]

pub mod cleanup;
pub mod containers;
pub mod delivery;
pub mod disk;
pub mod home;
pub mod hostile;
pub mod http;
pub mod lines;
pub mod link;
mod namespace;
pub mod netns;
pub mod node;
pub mod openmetrics;
pub mod orchestration;
pub mod peaq;
pub mod peer;
pub mod promql;
pub mod ros2;
pub mod trade;
pub mod vectors;
pub mod wait;
