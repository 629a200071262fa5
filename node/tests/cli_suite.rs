//! The commands end to end: real processes, real sockets, loopback only.

// A failed expectation ends a test, with what was found.
#![allow(clippy::panic)]

#[path = "cli_suite/agent.rs"]
mod agent;
#[path = "cli_suite/control.rs"]
mod control;
#[path = "cli_suite/doctor.rs"]
mod doctor;
#[path = "cli_suite/life.rs"]
mod life;
#[path = "cli_suite/offline.rs"]
mod offline;
#[path = "cli_suite/operator.rs"]
mod operator;
#[path = "cli_suite/owner.rs"]
mod owner;
#[path = "cli_suite/support.rs"]
mod support;
#[path = "cli_suite/trade.rs"]
mod trade;
