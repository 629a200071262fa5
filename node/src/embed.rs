//! A node inside a program of your own.
//!
//! What a program needs and no more: [`Node::builder`] starts a node on a home, a [`Publisher`] publishes values of a type of yours, a
//! [`PackageStream`] gives you what another machine publishes, [`Node::ingest`] reads a [`Source`](crate::ingest::Source) of yours, and an
//! [`AccessPolicy`] decides who gets keys. Nothing is global: a process may have several nodes. Everything else that a node can do is behind
//! [`Node::machine`], [`Node::buyer`] and [`Node::access`]. Small programs, one for each of these, are in `examples/src/bin`.
//!
//! The node runs on the Tokio runtime it was started on. It ends with [`Node::shutdown`]; a process that ends without loses nothing that was
//! acknowledged.
//!
//! ```no_run
//! # #[derive(serde::Serialize)] struct Reading { celsius: f64 }
//! # async fn example() -> Result<(), Box<dyn std::error::Error>> {
//! use tributary::Node;
//!
//! let node = Node::builder("/var/lib/thermometer")
//!     .config("roles: [machine]\nstreams: [{ topic: /temperature, mode: fields, default: include, access: { policy: free } }]")
//!     .create_home()
//!     .start()
//!     .await?;
//! let temperature = node.publisher::<Reading>("/temperature")?;
//! temperature.publish(&Reading { celsius: 21.5 }).await?;
//! println!("{}", node.links().await?[0]);
//! node.shutdown().await?;
//! # Ok(()) }
//! ```

mod builder;
mod packages;
mod publisher;

pub use self::{
    builder::{BuildError, NodeBuilder},
    packages::{Package, PackageStream, PackagesError},
    publisher::{Publisher, PublisherError},
};
pub use crate::{
    feeds::FeedLink,
    service::{
        Node,
        access::{AccessPolicy, AccessQuestion, PolicyDecision},
    },
};
