//! What is gossiped, and on which topics.
//!
//! A machine's own log has the topic `/tributary/feed/1/<did>`, a stream's `/tributary/feed/1/<did>/<stream id>`. A message is
//! CBOR, at most 63 KiB:
//!
//! | message | fields |
//! |---|---|
//! | 0 entry | the signed entry; or the signed entry and the ciphertext of its chunk, at most 32 KiB |
//! | 1 head | the signed head |
//!
//! Gossipsub counts its own framing too, and one message above its limit silences a direction for good. So every node has the
//! same limit, [`TRANSMIT_LIMIT`], and nobody publishes more than [`MAX_MESSAGE`].

use super::{
    WireError,
    cbor::{Reader, Writer},
};
use crate::{
    entry::{HEAD_LEN, MAX_ENTRY_LEN},
    ids::{Did, LogId, StreamId},
};

/// What every topic starts with.
pub const TOPIC_PREFIX: &str = "/tributary/feed/1/";
/// The limit that gossipsub is set to, on every node, in bytes.
pub const TRANSMIT_LIMIT: usize = 64 * 1024;
/// The longest message in bytes: 1 KiB below [`TRANSMIT_LIMIT`].
pub const MAX_MESSAGE: usize = 63 * 1024;
/// The longest attachment in bytes.
pub const MAX_ATTACHMENT: usize = 32 * 1024;
/// The longest attachment on a metered link, in bytes.
pub const MAX_ATTACHMENT_METERED: usize = 4 * 1024;

/// The topic of a machine's own log.
#[must_use]
pub fn topic_machine(did: &Did) -> String {
    format!("{TOPIC_PREFIX}{did}")
}

/// The topic of a stream's log.
#[must_use]
pub fn topic_stream(did: &Did, stream: &StreamId) -> String {
    format!("{TOPIC_PREFIX}{did}/{stream}")
}

/// The topic of a log.
#[must_use]
pub fn topic_log(did: &Did, log: &LogId) -> String {
    match log.stream() {
        Some(stream) => topic_stream(did, &stream),
        None => topic_machine(did),
    }
}

/// The machine and the log that a topic is about; `None` for a topic that is not ours, or in another spelling.
#[must_use]
pub fn parse_topic(topic: &str) -> Option<(Did, LogId)> {
    let rest = topic.strip_prefix(TOPIC_PREFIX)?;
    match rest.split_once('/') {
        None => Some((rest.parse().ok()?, LogId::MACHINE)),
        Some((did, stream)) => {
            let log = LogId::from(stream.parse::<StreamId>().ok()?);
            // Zeros are the machine log, which has another topic: one log, one topic.
            (log != LogId::MACHINE).then_some((did.parse().ok()?, log))
        }
    }
}

/// A message on a feed's topic.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum FeedMessage {
    /// A new entry.
    Entry {
        /// See [`crate::entry::SignedEntry::decode`].
        entry: Vec<u8>,
        /// The ciphertext of its chunk, if it is small. Unsigned: its hash is in the entry.
        attachment: Option<Vec<u8>>,
    },
    /// Where a log stands.
    Head(Vec<u8>),
}

impl FeedMessage {
    /// The bytes to publish.
    ///
    /// # Errors
    ///
    /// [`WireError::TooLarge`] when the message is too long, or its attachment.
    pub fn encode(&self) -> Result<Vec<u8>, WireError> {
        let writer = match self {
            Self::Entry { entry, attachment: None } => {
                let mut w = Writer::message(0, 1);
                w.bytes(entry);
                w
            }
            Self::Entry { entry, attachment: Some(attachment) } => {
                super::cbor::check_len("attachment", attachment.len(), MAX_ATTACHMENT)?;
                let mut w = Writer::message(0, 2);
                w.bytes(entry).bytes(attachment);
                w
            }
            Self::Head(head) => {
                let mut w = Writer::message(1, 1);
                w.bytes(head);
                w
            }
        };
        writer.finish("feed message", MAX_MESSAGE)
    }

    /// Reads a message.
    ///
    /// # Errors
    ///
    /// For anything but one whole message.
    pub fn decode(bytes: &[u8]) -> Result<Self, WireError> {
        let what = "feed message";
        let (mut r, number) = Reader::message(what, bytes, MAX_MESSAGE)?;
        let message = match number {
            0 => {
                let attached = r.expect(what, 2).is_ok();
                if !attached {
                    r.expect(what, 1)?;
                }
                let entry = r.bytes("entry", MAX_ENTRY_LEN)?.to_vec();
                let attachment = if attached { Some(r.bytes("attachment", MAX_ATTACHMENT)?.to_vec()) } else { None };
                Self::Entry { entry, attachment }
            }
            1 => {
                r.expect(what, 1)?;
                Self::Head(r.bytes("head", HEAD_LEN)?.to_vec())
            }
            _ => return Err(WireError::Value { what, reason: "no such message" }),
        };
        r.finish()?;
        Ok(message)
    }
}
