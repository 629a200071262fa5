//! Metrics and health over HTTP, for Prometheus and for whoever restarts nodes.
//!
//! Owns the names of all metrics ([`catalog`], described in `docs/metrics.md`), the page they are written on, and the server. It
//! counts nothing itself: counters come from the node's status, so that the two cannot disagree, and durations from the parts
//! that measure them. Labels are bounded: a machine has at most 150 streams, of followed machines and subscriptions the first are
//! named and the others added up, and neither a peer nor a buyer is ever a label. The server ends with its token.

mod catalog;
mod page;
mod server;

pub use self::{
    catalog::{Kind, Metric, catalog},
    server::{MetricsError, MetricsListener, serve},
};
