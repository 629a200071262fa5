//! What travels between nodes: the messages of each protocol, and how large they may be.
//!
//! Owns the framing, and only that: signed objects inside a message are byte strings, checked by the module that owns them, so
//! that a bad one can be told from its good neighbours. Messages are CBOR (RFC 8949) with definite lengths: an array whose
//! first element is the number of the message. They are not signed, so there is no canonical form.
//!
//! Every decoder checks the size of the input before it reads, every count before it allocates, and that nothing is left.
//!
//! | protocol | name | messages |
//! |---|---|---|
//! | [`sync`] | `/tributary/sync/1` | request at most 4 KiB, response at most 1 MiB |
//! | [`access`] | `/tributary/access/1` | at most 64 KiB each way |
//! | [`pull`] | `/tributary/pull/1` | request at most 64 KiB, then a header of 37 bytes for each chunk |
//! | [`gossip`] | `/tributary/feed/1/...` | at most 63 KiB |

pub mod access;
pub(crate) mod cbor;
pub mod gossip;
pub mod providers;
pub mod pull;
pub mod sync;

pub use access::{AccessMessage, AccessReply, DenyCode};
pub use gossip::{FeedMessage, parse_topic, topic_machine, topic_stream};
pub use providers::{PROVIDER_EXPIRY, provider_key};
pub use pull::{PullHeader, PullRequest, PullStatus};
pub use sync::{SyncRequest, SyncResponse};

/// Why bytes are not a message, or a message is too large to be sent.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum WireError {
    /// More bytes than the protocol allows.
    #[error("{what} of {found} bytes, at most {limit} are allowed")]
    TooLarge {
        /// The message.
        what: &'static str,
        /// Its length in bytes.
        found: usize,
        /// The limit in bytes.
        limit: usize,
    },
    /// More elements in a list, or bytes in a field, than are allowed.
    #[error("{what} has {found} elements or bytes, at most {limit} are allowed")]
    TooMany {
        /// The list or field.
        what: &'static str,
        /// How many.
        found: u64,
        /// The limit.
        limit: usize,
    },
    /// Not CBOR, or not of the type that belongs there.
    #[error("not a message of this protocol")]
    Cbor(#[from] minicbor::decode::Error),
    /// CBOR, but not this message.
    #[error("{what}: {reason}")]
    Value {
        /// The field.
        what: &'static str,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// Bytes behind the end of the message.
    #[error("{count} bytes are left behind the message")]
    Trailing {
        /// How many.
        count: usize,
    },
    /// A selection in it is none.
    #[error("the message carries a bad selection")]
    Layout(#[from] crate::entry::LayoutError),
}

#[cfg(test)]
mod tests;
