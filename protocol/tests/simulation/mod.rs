//! The feed at scale: one machine that writes, rotates its key and leaves, and many followers who come late, go offline, and lose
//! messages. The same seed gives the same run, to the byte.
//!
//! What is real is the protocol: [`Follower`](tributary_protocol::feed::Follower), the signed objects, and the messages of gossip and
//! sync as bytes. What is a model is the network, which knows nothing of the protocol ([`network`], [`mesh`]): who is connected to
//! whom, who is online, what is lost, and how many rounds a hop takes. What a node does with a verdict ([`peer`], [`catch_up`]) is
//! what the node of the crate `tributary` does.
//!
//! Gossip is the eager half of gossipsub: what is accepted goes on to all mesh peers but the one that sent it, once. There is no
//! IHAVE and IWANT, and a gossip message that is lost is lost: heads and catch-up have to make up for it.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a simulation stops where the protocol is wrong")]

mod catch_up;
mod machine;
mod mesh;
mod network;
mod peer;
mod report;
mod run;

pub(crate) use peer::Counted;
pub(crate) use report::Report;
pub(crate) use run::{Settings, run};
