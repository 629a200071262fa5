//! Why a node does not start, and what may go wrong while it stops.

use std::time::Duration;

use tributary_protocol::peaq::StreamError;
use tributary_store::StoreError;

use super::access::AccessError;
use crate::{
    feeds::FeedsError,
    home::HomeError,
    machine::MachineError,
    net::{NetError, PullServerError, StartError, SubscribeError},
    peaq::orchestration::OrchestrationError,
    ros2::Ros2Error,
};

/// Why a node did not start.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum NodeError {
    /// The home is in use, or its keys cannot be read.
    #[error(transparent)]
    Home(Box<HomeError>),
    /// The store cannot be opened.
    #[error("the store cannot be opened: {0}")]
    Store(#[from] StoreError),
    /// The network cannot be started.
    #[error(transparent)]
    Net(#[from] StartError),
    /// The network ended while the node started.
    #[error(transparent)]
    Closed(#[from] NetError),
    /// The machine's own topics cannot be subscribed to.
    #[error(transparent)]
    Subscribe(#[from] SubscribeError),
    /// Pulls cannot be served.
    #[error(transparent)]
    Pull(#[from] PullServerError),
    /// The selling side cannot be opened.
    #[error(transparent)]
    Machine(Box<MachineError>),
    /// The followed feeds, or what was bought from them, cannot be opened.
    #[error(transparent)]
    Feeds(Box<FeedsError>),
    /// Orders or policies cannot be read.
    #[error(transparent)]
    Access(Box<AccessError>),
    /// The parties of envelopes for peaq's software cannot be used.
    #[error("the section `peaq` of the configuration cannot be used: {0}")]
    Parties(#[source] StreamError),
    /// The orchestration API cannot be offered.
    #[error(transparent)]
    Orchestration(Box<OrchestrationError>),
    /// Live ROS 2 topics cannot be ingested.
    #[error(transparent)]
    Ros2(#[from] Ros2Error),
    /// The runtime is going down.
    #[error("the node was stopped while it started")]
    Stopped,
}

/// The errors of the parts are large and this one is rare.
macro_rules! boxed {
    ($($kind:ident($error:ty)),*) => {$(
        impl From<$error> for NodeError {
            fn from(error: $error) -> Self {
                Self::$kind(Box::new(error))
            }
        }
    )*};
}

boxed!(
    Home(HomeError),
    Machine(MachineError),
    Feeds(FeedsError),
    Access(AccessError),
    Orchestration(OrchestrationError)
);

/// What did not go well while a node stopped. It has stopped all the same.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum ShutdownError {
    /// A stream could not be brought to its end.
    #[error("a stream could not be brought to its end: {0}")]
    Machine(String),
    /// The store had stopped before.
    #[error("the store did not close cleanly: {0}")]
    Store(#[from] StoreError),
    /// Something took too long.
    #[error("{what} took longer than {} s and was left behind; what was acknowledged is safe", limit.as_secs())]
    Late {
        /// What.
        what: &'static str,
        /// How long it may take.
        limit: Duration,
    },
}
