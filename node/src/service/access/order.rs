//! Orders as they are stored.
//!
//! | table | key | value |
//! |---|---|---|
//! | Order | `sale/`, request id (32) | JSON of [`Row`] |
//! | Grant | `issued/`, request id (32), number (2, big endian) | the grant, as it travels |
//! | Order | `hand/`, id (32) | JSON of [`Given`] |
//! | Grant | `given/`, that id (32), number (2, big endian) | the grant, as it travels |
//! | Policy | `revoked/`, stream (32), buyer (20) | when, ms since 1970 (8, big endian) |
//!
//! What a buyer's side of the same node stores in these tables has other keys.

use serde::{Deserialize, Serialize};
use tributary_protocol::{
    access::{Range, Selection, SignedQuote, SignedRequest},
    ids::{DatasetId, Did, Hash, StreamId},
    wire::DenyCode,
};

const ORDERS: &[u8] = b"sale/";
const GRANTS: &[u8] = b"issued/";
const REVOKED: &[u8] = b"revoked/";
const GIVEN: &[u8] = b"hand/";
const GIVEN_GRANTS: &[u8] = b"given/";
const VERSION: u32 = 1;

/// A request for access and what became of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Order {
    /// The request's id.
    pub id: Hash,
    /// Who asks.
    pub buyer: Did,
    /// For what.
    pub ranges: Vec<OrderRange>,
    /// The streams it touches.
    pub streams: Vec<StreamId>,
    /// When it came, ms since 1970.
    pub received_ms: u64,
    /// Until when it can be decided, ms since 1970.
    pub expires_ms: u64,
    /// What became of it.
    #[serde(flatten)]
    pub state: OrderState,
}

/// What became of an order.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "state", rename_all = "snake_case")]
#[non_exhaustive]
pub enum OrderState {
    /// It waits for the operator.
    Pending,
    /// Grants were issued.
    Granted {
        /// When, ms since 1970.
        decided_ms: u64,
        /// How many.
        grants: u16,
        /// When the buyer first got them, ms since 1970.
        delivered_ms: Option<u64>,
    },
    /// It was refused.
    Denied {
        /// When, ms since 1970.
        decided_ms: u64,
        /// Why, for programs: a code of the access protocol.
        code: u8,
        /// Why, for people.
        reason: String,
    },
}

/// One range of an order, for people and programs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
#[non_exhaustive]
pub enum OrderRange {
    /// A dataset.
    Dataset {
        /// Which.
        dataset: DatasetId,
    },
    /// A time.
    Time {
        /// The stream.
        stream: StreamId,
        /// From, ms since 1970.
        from_ms: u64,
        /// To, included, ms since 1970.
        to_ms: u64,
    },
    /// Key positions.
    Positions {
        /// The stream.
        stream: StreamId,
        /// The key epoch.
        epoch: u64,
        /// The first.
        first: u64,
        /// The last, included.
        last: u64,
    },
    /// What is to come.
    Live {
        /// The stream.
        stream: StreamId,
        /// For so long.
        seconds: u32,
    },
}

impl From<&Range> for OrderRange {
    fn from(range: &Range) -> Self {
        match *range {
            Range::Dataset(dataset) => Self::Dataset { dataset },
            Range::Time { stream, from_ms, to_ms } => Self::Time { stream, from_ms, to_ms },
            Range::Positions { stream, epoch, first, last } => {
                Self::Positions { stream, epoch, first: first.as_u64(), last: last.as_u64() }
            }
            Range::Live { stream, seconds } => Self::Live { stream, seconds },
        }
    }
}

/// Grants that the operator gave by hand, without a request.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Given {
    version: u32,
    /// Its id: what the audit log names.
    pub id: Hash,
    /// Who got them.
    pub buyer: Did,
    /// For what.
    pub ranges: Vec<OrderRange>,
    /// The streams they open.
    pub streams: Vec<StreamId>,
    /// When, ms since 1970.
    pub issued_ms: u64,
    /// Until when they can be taken into a wallet, ms since 1970. Then this is forgotten; the audit log stays.
    pub expires_ms: u64,
    /// How many.
    pub grants: u16,
}

impl Given {
    pub(super) fn new(id: Hash, buyer: Did, ranges: Vec<OrderRange>, streams: Vec<StreamId>, grants: u16) -> Self {
        Self { version: VERSION, id, buyer, ranges, streams, issued_ms: 0, expires_ms: 0, grants }
    }

    pub(super) fn encode(&self) -> Result<Vec<u8>, BadOrder> {
        serde_json::to_vec(self).map_err(|error| BadOrder(error.to_string()))
    }

    pub(super) fn decode(bytes: &[u8]) -> Result<Self, BadOrder> {
        let given: Self = serde_json::from_slice(bytes).map_err(|error| BadOrder(error.to_string()))?;
        if given.version == VERSION { Ok(given) } else { Err(BadOrder(format!("version {}", given.version))) }
    }
}

/// Where it stands what was given by hand; with `None` what all those keys begin with.
pub(super) fn given_key(id: Option<&Hash>) -> Vec<u8> {
    [GIVEN, id.map_or(&[][..], |id| id.as_bytes())].concat()
}

/// Where a grant is that was given by hand.
pub(super) fn given_grant_key(id: &Hash, number: u16) -> Vec<u8> {
    [GIVEN_GRANTS, id.as_bytes().as_slice(), &number.to_be_bytes()].concat()
}

/// A live range of a granted order: it goes on in the next key epoch until it is over or revoked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Live {
    pub(super) stream: StreamId,
    pub(super) until_ms: u64,
    /// The newest epoch that was granted.
    pub(super) epoch: u64,
}

/// An order with what is needed to carry it out.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Row {
    version: u32,
    #[serde(flatten)]
    pub(super) order: Order,
    /// The signed quote, hex.
    quote: String,
    /// The signed request, hex.
    request: String,
    pub(super) live: Vec<Live>,
    /// Which of its states this is, for mirrors; only grows.
    #[serde(default)]
    pub(super) revision: u64,
    /// Until when the row is kept, ms since 1970: as long as its grants can be opened. The audit log stays.
    pub(super) keep_ms: u64,
}

/// A stored order that cannot be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("a stored order cannot be read ({0}); run `tributary store check`")]
pub struct BadOrder(String);

impl Row {
    pub(super) fn new(
        quote: &SignedQuote,
        request: &SignedRequest,
        streams: Vec<StreamId>,
        now_ms: u64,
        keep_ms: u64,
    ) -> Self {
        let order = Order {
            id: request.id(),
            buyer: request.request().buyer,
            ranges: quote.quote().selection.ranges().iter().map(OrderRange::from).collect(),
            streams,
            received_ms: now_ms,
            expires_ms: request.request().expires_ms,
            state: OrderState::Pending,
        };
        let (quote, request) = (hex::encode(quote.bytes()), hex::encode(request.encode()));
        Self { version: VERSION, order, quote, request, live: Vec::new(), revision: 0, keep_ms }
    }

    pub(super) fn key(&self) -> Vec<u8> {
        order_key(&self.order.id)
    }

    pub(super) fn encode(&self) -> Result<Vec<u8>, BadOrder> {
        serde_json::to_vec(self).map_err(|error| BadOrder(error.to_string()))
    }

    pub(super) fn decode(bytes: &[u8]) -> Result<Self, BadOrder> {
        let row: Self = serde_json::from_slice(bytes).map_err(|error| BadOrder(error.to_string()))?;
        if row.version == VERSION { Ok(row) } else { Err(BadOrder(format!("version {}", row.version))) }
    }

    /// The quote and the request, which were verified when they came.
    pub(super) fn signed(&self) -> Result<(SignedQuote, SignedRequest), BadOrder> {
        let bytes = |text: &str| hex::decode(text).map_err(|error| BadOrder(error.to_string()));
        let quote = SignedQuote::decode(&bytes(&self.quote)?).map_err(|error| BadOrder(error.to_string()))?;
        let request = SignedRequest::decode(&bytes(&self.request)?).map_err(|error| BadOrder(error.to_string()))?;
        Ok((quote, request))
    }

    pub(super) fn deny(&mut self, now_ms: u64, code: DenyCode, reason: &str) {
        let reason = clip(reason);
        self.order.state = OrderState::Denied { decided_ms: now_ms, code: code as u8, reason };
    }
}

/// Where an order is.
pub(super) fn order_key(id: &Hash) -> Vec<u8> {
    [ORDERS, id.as_bytes()].concat()
}

/// What all orders' keys begin with.
pub(super) fn orders() -> &'static [u8] {
    ORDERS
}

/// Where a grant is.
pub(super) fn grant_key(id: &Hash, number: u16) -> Vec<u8> {
    [GRANTS, id.as_bytes().as_slice(), &number.to_be_bytes()].concat()
}

/// What the keys of an order's grants begin with.
pub(super) fn grants_of(id: &Hash) -> Vec<u8> {
    [GRANTS, id.as_bytes()].concat()
}

/// Where it stands that a buyer's access to a stream was revoked.
pub(super) fn revoked_key(stream: &StreamId, buyer: &Did) -> Vec<u8> {
    [REVOKED, stream.as_bytes().as_slice(), buyer.as_bytes()].concat()
}

/// The code behind its number; a number from nowhere is the operator's no.
pub(super) fn deny_code(number: u8) -> DenyCode {
    [
        DenyCode::Invalid,
        DenyCode::NotFound,
        DenyCode::Policy,
        DenyCode::Refused,
        DenyCode::Expired,
        DenyCode::Payment,
        DenyCode::PaymentUsed,
        DenyCode::Revoked,
        DenyCode::RateLimited,
    ]
    .into_iter()
    .find(|code| *code as u8 == number)
    .unwrap_or(DenyCode::Refused)
}

/// Cuts a reason to what a reply can carry: 256 bytes.
pub(super) fn clip(reason: &str) -> String {
    let end = (0..=reason.len().min(256)).rev().find(|end| reason.is_char_boundary(*end)).unwrap_or(0);
    reason[..end].to_owned()
}

/// The streams that a selection names directly; datasets are looked up by the caller.
pub(super) fn named_streams(selection: &Selection) -> impl Iterator<Item = StreamId> + '_ {
    selection.ranges().iter().filter_map(|range| match range {
        Range::Time { stream, .. } | Range::Positions { stream, .. } | Range::Live { stream, .. } => Some(*stream),
        Range::Dataset(_) => None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_code_comes_back_from_its_number() {
        for number in 1..=9 {
            assert_eq!(deny_code(number) as u8, number);
        }
        assert_eq!(deny_code(0), DenyCode::Refused);
    }

    #[test]
    fn a_long_reason_is_cut_between_characters() {
        let reason = "é".repeat(200);
        assert_eq!(clip(&reason).len(), 256);
        assert_eq!(clip(&format!("a{reason}")).len(), 255);
        assert_eq!(clip("no"), "no");
    }
}
