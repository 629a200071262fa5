//! The Tributary node: everything between a robot's sensors and a buyer's file.
//!
//! The program `tributary` is this library with a command line ([`cli`]). A node inside a program of your own begins with
//! [`Node::builder`]; [`embed`] says what else there is.

pub mod buyer;
pub mod cli;
pub mod config;
pub mod control;
pub mod demo;
pub mod durations;
pub mod embed;
pub mod export;
pub mod feeds;
pub mod home;
mod http;
pub mod ingest;
pub mod machine;
pub mod metrics;
pub mod mirror;
pub mod net;
pub mod owner;
pub mod peaq;
pub mod proposal;
pub mod retention;
pub mod ros2;
pub mod service;
pub mod testnet;
#[cfg(test)]
mod vectors;

pub use embed::{
    AccessPolicy, AccessQuestion, BuildError, FeedLink, Node, NodeBuilder, Package, PackageStream, PackagesError,
    PolicyDecision, Publisher, PublisherError,
};
