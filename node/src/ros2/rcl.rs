//! rcl, the client library of ROS 2 (C), in safe Rust: as much of it as the node needs.
//!
//! Owns every call into C and all unsafe code of the node; it decides nothing. The bindings are those of `r2r` (`r2r_rcl`). r2r's own
//! node is not used: it subscribes raw bytes of compiled-in types only, behind a queue of ten that drops silently, shows neither
//! publishers nor sequence numbers, and ends the process on a malformed argument. Here any installed type is found at run time and
//! messages stay serialized, so there are no message bindings to build.
//!
//! What is made of a [`Node`] keeps it alive, and it keeps its [`Context`], so things end in the order that rcl asks for.

mod context;
mod error;
mod graph;
mod guard;
mod node;
mod parameters;
mod publisher;
mod service;
mod subscription;
mod type_support;
mod wait_set;

pub(super) use self::{
    context::{Arguments, Context},
    error::RclError,
    graph::Endpoint,
    guard::Guard,
    node::Node,
    parameters::Parameters,
    publisher::Publisher,
    service::{RequestId, TriggerService},
    subscription::{Subscription, TakeError},
    type_support::{MessageType, ServiceType},
    wait_set::{WaitSet, Waiting},
};
