//! What a node tells about itself: metrics, health, and the dashboards and alerts that stand on them.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::print_stdout,
    reason = "helpers of tests stop at the first failure, as the tests do, and say what they see"
)]

#[path = "metrics/boards.rs"]
mod boards;
#[path = "metrics/crowd.rs"]
mod crowd;
#[path = "metrics/health.rs"]
mod health;
#[path = "metrics/scrape.rs"]
mod scrape;
#[path = "metrics/systemd.rs"]
mod systemd;
