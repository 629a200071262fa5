//! Files for peaq's tools and from them: `publish`, `grant`, `verify` and `export` against the official CLI and SDK.
//!
//! Everything here runs the program as it is typed. The official side is the real `peaqos`, in the environment that
//! `tests/run.sh` makes; without it these tests fail and say so.

#![allow(clippy::unwrap_used, clippy::panic, reason = "helpers of tests stop at the first failure, as the tests do")]

#[path = "peaq_files/common.rs"]
mod common;
#[path = "peaq_files/limits.rs"]
mod limits;
#[path = "peaq_files/origin.rs"]
mod origin;
#[path = "peaq_files/round_trips.rs"]
mod round_trips;
#[path = "peaq_files/tampered.rs"]
mod tampered;
#[path = "peaq_files/untrusted.rs"]
mod untrusted;
#[path = "peaq_files/vectors.rs"]
mod vectors;
