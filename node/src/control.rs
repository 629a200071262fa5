//! The control API: how commands talk to a running node, over a Unix socket in its home.
//!
//! Owns the socket ([`ControlListener`]), the HTTP/JSON routes under `/v1` ([`serve`]), the types that travel ([`api`]) and
//! the client ([`ControlClient`]). Whoever can open the socket can do everything the operator can, so its mode is 0600. It
//! never opens a home or a store: it works on a node that runs.
//!
//! An answer is one JSON document, or an [`api::Problem`] with a status that says whose fault it is. Long work answers with
//! NDJSON: [`api::Event`]s, the last of which is the result or the problem. A client that hangs up cancels what it asked for;
//! what was durable by then stays.

pub mod api;
mod binding;
mod buying;
mod catalog;
mod client;
mod granting;
mod jobs;
mod logs;
mod orders;
mod peaq;
mod peaq_files;
mod problem;
mod selecting;
mod selling;
mod server;
mod socket;
mod upkeep;

pub use catalog::{DatasetSummary, Feed, StreamSummary};
pub use client::{ClientError, ControlClient};
pub use server::serve;
pub use socket::{ControlListener, SocketError};

pub(crate) use buying::{export_all, import_file, verify_dataset};
pub(crate) use catalog::{all_feeds, detail};
pub(crate) use granting::{grant_file, issue, material};
pub(crate) use jobs::{Cancel, ingest_options, run_ingest, run_publish};
pub(crate) use peaq_files::{grant_files, publish_files};
pub(crate) use selecting::Target;
pub(crate) use selling::audit_lines;
pub(crate) use upkeep::{store_backup, store_check, store_gc, store_stats};
