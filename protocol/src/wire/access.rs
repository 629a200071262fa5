//! `/tributary/access/1`: asking for quotes and grants. One message, one reply, at most 64 KiB each.
//!
//! | message | fields |
//! |---|---|
//! | 0 quote | machine (20), buyer (20), selection |
//! | 1 request | the signed quote, the signed request |
//! | 2 fetch | request id (32), index of the first grant wanted |
//! | 3 deposit | what the machine says about a request, signed; index of the first grant; list of grants, for a mirror to keep |
//!
//! | reply | fields |
//! |---|---|
//! | 0 quote | the signed quote |
//! | 1 granted | list of grants, index of the first, number of all |
//! | 2 pending | request id (32) |
//! | 3 denied | code, reason |
//! | 4 busy | ms after which to ask again |
//! | 5 deposited | how many were kept; 0 when something newer is there |
//! | 6 statement | the signed deposit of a denial, from a mirror |
//!
//! A request carries its quote, so the machine needs not remember what it quoted. Fetching is idempotent.

use super::{
    WireError,
    cbor::{Reader, Writer},
};
use crate::{
    access::{Selection, deposit::MAX_DEPOSIT_LEN, grant::MAX_GRANT_LEN},
    ids::{Did, Hash},
};

/// Name of the protocol.
pub const PROTOCOL: &str = "/tributary/access/1";
/// The longest message or reply in bytes.
pub const MAX_MESSAGE: usize = 64 * 1024;
/// At most this many grants in one message or reply: as many of the longest ones fit.
pub const MAX_GRANTS: usize = (MAX_MESSAGE - 256) / (MAX_GRANT_LEN + 3);
/// A request has at most this many grants in all.
pub const MAX_GRANTS_OF_REQUEST: u16 = 4096;

const MAX_SELECTION: usize = 1 + 64 * 57;
const MAX_QUOTE: usize = 8 * 1024;
const MAX_REQUEST: usize = 1024;
const MAX_REASON: usize = 256;

/// What a buyer, or a machine that goes to sleep, sends.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AccessMessage {
    /// What does this cost?
    Quote {
        /// Whose data.
        machine: Did,
        /// For whom.
        buyer: Did,
        /// Which data.
        selection: Selection,
    },
    /// I take it.
    Request {
        /// The quote, see [`crate::access::SignedQuote::decode`].
        quote: Vec<u8>,
        /// The request, see [`crate::access::SignedRequest::decode`].
        request: Vec<u8>,
    },
    /// Is it ready?
    Fetch {
        /// The request.
        request_id: Hash,
        /// Index of the first grant wanted.
        from: u16,
    },
    /// Keep these for their buyer.
    Deposit {
        /// What they are, see [`crate::access::SignedDeposit::decode`].
        deposit: Vec<u8>,
        /// Index of the first of them; a long list comes in several messages, in any order.
        first: u16,
        /// See [`crate::access::Grant::decode`]; none with a denial.
        grants: Vec<Vec<u8>>,
    },
}

/// Why access is denied, as a number that programs can act on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum DenyCode {
    /// The message was malformed or badly signed.
    Invalid = 1,
    /// No such machine, stream, dataset or request here.
    NotFound = 2,
    /// The policy of the stream says no.
    Policy = 3,
    /// The operator said no.
    Refused = 4,
    /// The quote or the request is over.
    Expired = 5,
    /// The payment is missing, too small, not final, or not the buyer's.
    Payment = 6,
    /// The payment was used before.
    PaymentUsed = 7,
    /// Access was revoked.
    Revoked = 8,
    /// Too many requests.
    RateLimited = 9,
}

impl DenyCode {
    pub(crate) fn from_number(number: u32) -> Option<Self> {
        Some(match number {
            1 => Self::Invalid,
            2 => Self::NotFound,
            3 => Self::Policy,
            4 => Self::Refused,
            5 => Self::Expired,
            6 => Self::Payment,
            7 => Self::PaymentUsed,
            8 => Self::Revoked,
            9 => Self::RateLimited,
            _ => return None,
        })
    }
}

/// The answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AccessReply {
    /// So much.
    Quote(Vec<u8>),
    /// Grants, see [`crate::access::Grant::decode`].
    Granted {
        /// Those that fit.
        grants: Vec<Vec<u8>>,
        /// Index of the first of them.
        from: u16,
        /// How many the request has in all: fetch the rest.
        total: u16,
    },
    /// Not decided yet.
    Pending {
        /// What to fetch it with.
        request_id: Hash,
    },
    /// No.
    Denied {
        /// Why, for programs.
        code: DenyCode,
        /// Why, for people.
        reason: String,
    },
    /// Too much to do.
    Busy {
        /// When to ask again, in ms from now.
        retry_ms: u32,
    },
    /// Grants are kept.
    Deposited {
        /// How many of them; 0 for a denial, and when something newer is there.
        count: u16,
    },
    /// What the machine left here: a denial, see [`crate::access::SignedDeposit::decode`].
    Statement(Vec<u8>),
}

impl AccessMessage {
    /// The bytes to send.
    ///
    /// # Errors
    ///
    /// [`WireError::TooLarge`] when more was put in than fits in a message.
    pub fn encode(&self) -> Result<Vec<u8>, WireError> {
        let writer = match self {
            Self::Quote { machine, buyer, selection } => {
                let mut w = Writer::message(0, 3);
                w.bytes(machine.as_bytes()).bytes(buyer.as_bytes()).bytes(&selection.encode());
                w
            }
            Self::Request { quote, request } => {
                let mut w = Writer::message(1, 2);
                w.bytes(quote).bytes(request);
                w
            }
            Self::Fetch { request_id, from } => {
                let mut w = Writer::message(2, 2);
                w.bytes(request_id.as_bytes()).uint(u64::from(*from));
                w
            }
            Self::Deposit { deposit, first, grants } => {
                let mut w = Writer::message(3, 3);
                w.bytes(deposit).uint(u64::from(*first)).blobs(grants);
                w
            }
        };
        writer.finish("access message", MAX_MESSAGE)
    }

    /// Reads a message.
    ///
    /// # Errors
    ///
    /// For anything but one whole message.
    pub fn decode(bytes: &[u8]) -> Result<Self, WireError> {
        let what = "access message";
        let (mut r, number) = Reader::message(what, bytes, MAX_MESSAGE)?;
        r.expect(what, [3, 2, 2, 3].get(usize::from(number)).copied().unwrap_or(0))?;
        let message = match number {
            0 => Self::Quote {
                machine: r.did()?,
                buyer: r.did()?,
                selection: Selection::decode(r.bytes("selection", MAX_SELECTION)?)?,
            },
            1 => Self::Request {
                quote: r.bytes("quote", MAX_QUOTE)?.to_vec(),
                request: r.bytes("request", MAX_REQUEST)?.to_vec(),
            },
            2 => Self::Fetch { request_id: r.hash()?, from: r.u16()? },
            3 => Self::Deposit {
                deposit: r.bytes("deposit", MAX_DEPOSIT_LEN)?.to_vec(),
                first: r.u16()?,
                grants: r.blobs("grants", MAX_GRANTS_PACKED, MAX_GRANT_LEN)?,
            },
            _ => return Err(WireError::Value { what, reason: "no such message" }),
        };
        r.finish()?;
        Ok(message)
    }
}

/// Short grants are 500 bytes: more of them fit in a message than of the longest ones.
const MAX_GRANTS_PACKED: usize = 256;

impl AccessReply {
    /// The bytes to send.
    ///
    /// # Errors
    ///
    /// [`WireError::TooLarge`] when more was put in than fits in a reply.
    pub fn encode(&self) -> Result<Vec<u8>, WireError> {
        let writer = match self {
            Self::Quote(quote) => {
                let mut w = Writer::message(0, 1);
                w.bytes(quote);
                w
            }
            Self::Granted { grants, from, total } => {
                let mut w = Writer::message(1, 3);
                w.blobs(grants).uint(u64::from(*from)).uint(u64::from(*total));
                w
            }
            Self::Pending { request_id } => {
                let mut w = Writer::message(2, 1);
                w.bytes(request_id.as_bytes());
                w
            }
            Self::Denied { code, reason } => {
                let mut w = Writer::message(3, 2);
                w.uint(u64::from(*code as u8)).text(reason);
                w
            }
            Self::Busy { retry_ms } => {
                let mut w = Writer::message(4, 1);
                w.uint(u64::from(*retry_ms));
                w
            }
            Self::Deposited { count } => {
                let mut w = Writer::message(5, 1);
                w.uint(u64::from(*count));
                w
            }
            Self::Statement(deposit) => {
                let mut w = Writer::message(6, 1);
                w.bytes(deposit);
                w
            }
        };
        writer.finish("access reply", MAX_MESSAGE)
    }

    /// Reads a reply.
    ///
    /// # Errors
    ///
    /// For anything but one whole reply.
    pub fn decode(bytes: &[u8]) -> Result<Self, WireError> {
        let what = "access reply";
        let (mut r, number) = Reader::message(what, bytes, MAX_MESSAGE)?;
        r.expect(what, [1, 3, 1, 2, 1, 1, 1].get(usize::from(number)).copied().unwrap_or(0))?;
        let reply = match number {
            0 => Self::Quote(r.bytes("quote", MAX_QUOTE)?.to_vec()),
            1 => {
                let grants = r.blobs("grants", MAX_GRANTS_PACKED, MAX_GRANT_LEN)?;
                let (from, total) = (r.u16()?, r.u16()?);
                let end = usize::from(from) + grants.len();
                let stuck = grants.is_empty() && from < total;
                if total > MAX_GRANTS_OF_REQUEST || end > usize::from(total) || stuck {
                    return Err(WireError::Value { what: "grants", reason: "do not fit their number" });
                }
                Self::Granted { grants, from, total }
            }
            2 => Self::Pending { request_id: r.hash()? },
            3 => Self::Denied {
                code: DenyCode::from_number(r.u32()?)
                    .ok_or(WireError::Value { what: "deny code", reason: "no such code" })?,
                reason: r.text("reason", MAX_REASON)?,
            },
            4 => Self::Busy { retry_ms: r.u32()? },
            5 => Self::Deposited { count: r.u16()? },
            6 => Self::Statement(r.bytes("deposit", MAX_DEPOSIT_LEN)?.to_vec()),
            _ => return Err(WireError::Value { what, reason: "no such reply" }),
        };
        r.finish()?;
        Ok(reply)
    }
}
