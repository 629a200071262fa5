//! What an attacker may try (docs/design.md), tried on running nodes by a peer of plain libp2p while honest trade goes on.
//!
//! Each test says that the attack happened, by counters of both sides, that the buyer ended with what he bought, proven, that
//! both nodes stayed within their memory, and what became of the offender.

#![allow(clippy::unwrap_used, clippy::panic, reason = "helpers of tests stop at the first failure, as the tests do")]

#[path = "hostile/clocks.rs"]
mod clocks;
#[path = "hostile/entries.rs"]
mod entries;
#[path = "hostile/frames.rs"]
mod frames;
#[path = "hostile/restarts.rs"]
mod restarts;
#[path = "hostile/sellers.rs"]
mod sellers;
#[path = "hostile/storms.rs"]
mod storms;
#[path = "hostile/streams.rs"]
mod streams;
#[path = "hostile/uplink.rs"]
mod uplink;
