//! Live ROS 2: topics of the machine's graph feed its streams.
//!
//! Owns one node of the ROS graph, and two threads. The *receiver* waits for messages, takes them as they came over the wire, and
//! offers them to the lanes of their streams; it waits for nothing else, neither a lane nor a disk. The *supervisor* watches the
//! graph, decides what is subscribed, begins streams for topics that patterns mean, answers services and publishes
//! `/diagnostics`; it may wait for the disk. They share counters and a short list of orders.
//!
//! ```text
//! publishers ─► middleware ─► receiver ─► offer ─► lane of the stream
//!                   ▲            ▲ subscriptions
//!                   └ graph ─► supervisor ◄─ services, ─► diagnostics
//! ```
//!
//! It is stopped by the node's token: the receiver takes once more what has come, hands it over, and ends; then the lanes finish.
//! Everything below `rcl` is compiled with the feature `ros2` only. What decides is plain code and tested without ROS.

#[cfg(any(feature = "ros2", test))]
mod account;
#[cfg(any(feature = "ros2", test))]
mod alone;
#[cfg(any(feature = "ros2", test))]
mod choice;
#[cfg(any(feature = "ros2", test))]
mod diagnostics;
#[cfg(any(feature = "ros2", test))]
mod failures;
mod status;
#[cfg(any(feature = "ros2", test))]
mod type_name;

#[cfg(not(feature = "ros2"))]
mod absent;
#[cfg(feature = "ros2")]
mod feed;
#[cfg(feature = "ros2")]
#[expect(unsafe_code, reason = "rcl is a C library")]
mod rcl;
#[cfg(feature = "ros2")]
mod receiver;
#[cfg(feature = "ros2")]
mod reporter;
#[cfg(feature = "ros2")]
mod running;
#[cfg(feature = "ros2")]
mod services;
#[cfg(feature = "ros2")]
mod supervisor;
#[cfg(feature = "ros2")]
mod survey;

use std::sync::Arc;

use crate::{config::Ros2Config, machine::Machine};

#[cfg(not(feature = "ros2"))]
pub use self::absent::{Launch, Ros2};
#[cfg(feature = "ros2")]
pub use self::running::{Launch, Ros2};
pub use self::status::{MAX_REFUSED, RefusedTopic, Ros2Status};

/// Why the ROS side of a node cannot start.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Ros2Error {
    /// The program was built without ROS 2.
    #[error(
        "this build has no ROS 2: build with `--features ros2` where ROS 2 is installed, or remove `ros2` from the configuration and --ros-args from the command line"
    )]
    NotBuilt,
    /// A node that only buys has no streams to feed.
    #[error("live ROS 2 topics need the role `machine`; add it to `roles`")]
    NoMachine,
    /// ROS 2 does not start.
    #[error("{0}")]
    Start(String),
}

/// What the ROS side is started with.
pub struct Ros2Options {
    /// The section `ros2`.
    pub config: Ros2Config,
    /// ROS arguments of the command line, `--ros-args` first; may be empty.
    pub arguments: Vec<String>,
    /// Whose streams are fed.
    pub machine: Arc<Machine>,
}
