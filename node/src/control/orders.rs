//! Routes about orders of buyers with peaq's SDK: what the operator sees of them and decides.

use std::sync::Arc;

use axum::{Json, extract::State};
use serde::{Deserialize, Serialize};

use super::{
    api::{Code, Problem},
    server::{Answer, Api, Document, blocking},
};
use crate::peaq::orchestration::{
    Orchestration,
    book::BookError,
    purchase::{Goods, Price, Purchase, Status},
};

/// Orders that a list shows, newest first.
const MAX_ORDERS: usize = 1024;

/// List orders.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ListOrders {
    /// Only those that wait for the operator.
    #[serde(default)]
    pub waiting: bool,
}

/// Decide about an order.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DecideOrder {
    /// Its id, or a beginning of it.
    pub order: String,
    /// What the buyer is told; only when rejected.
    #[serde(default)]
    pub reason: Option<String>,
}

/// An order, as the operator sees it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct OrderInfo {
    /// Its id.
    pub id: String,
    /// What the buyer calls itself.
    pub buyer: String,
    /// Whether its token proves that name.
    pub buyer_proven: bool,
    /// What it is for: a stream's name, or the listing of another seller.
    pub what: String,
    /// Chunks; unknown where another seller delivers.
    pub chunks: Option<u32>,
    /// How far it is.
    pub status: Status,
    /// What waits for the operator: `order` or `payment`.
    pub waits_for: Option<String>,
    /// What it costs; `None` is nothing.
    pub price: Option<Price>,
    /// The payment that was claimed.
    pub payment: Option<String>,
    /// Who says to have paid.
    pub payer: Option<String>,
    /// Another order that this payment was used for: it cannot be confirmed.
    pub payment_used_for: Option<String>,
    /// When it was paid, ms since 1970.
    pub paid_ms: Option<u64>,
    /// Why it ended early.
    pub reason: Option<String>,
    /// When it came, ms since 1970.
    pub created_ms: u64,
    /// When it last changed, ms since 1970.
    pub updated_ms: u64,
}

impl OrderInfo {
    fn of(purchase: Purchase, payment_used_for: Option<String>) -> Self {
        let waits_for = match purchase.status {
            _ if !purchase.waits_for_operator() => None,
            Status::DeliveryReserving => Some("order".to_owned()),
            _ => Some("payment".to_owned()),
        };
        let (what, chunks) = match purchase.goods {
            Goods::Dataset { stream, chunks, .. } => (stream, Some(chunks)),
            Goods::Foreign { .. } => (format!("listing {}", purchase.listing), None),
        };
        Self {
            buyer_proven: purchase.account == format!("own/{}", purchase.buyer.id),
            id: purchase.id,
            buyer: purchase.buyer.id,
            what,
            chunks,
            status: purchase.status,
            waits_for,
            price: purchase.price,
            payment: purchase.proof.as_ref().map(|proof| proof.reference.to_string()),
            payer: purchase.proof.and_then(|proof| proof.payer).or(purchase.payer),
            payment_used_for,
            paid_ms: purchase.verified_ms,
            reason: purchase.reason,
            created_ms: purchase.created_ms,
            updated_ms: purchase.updated_ms,
        }
    }
}

impl From<BookError> for Problem {
    fn from(error: BookError) -> Self {
        match error {
            BookError::Store(error) => error.into(),
            BookError::NotFound { .. } => Self::of(Code::NotFound, &error),
            BookError::Refused(_) | BookError::Used { .. } => Self::of(Code::Failed, &error),
            other => Self::of(Code::Failed, &other),
        }
    }
}

fn orchestration(api: &Api) -> Result<Arc<Orchestration>, Problem> {
    api.node.orchestration().cloned().ok_or_else(|| {
        Problem::usage("this node offers no orchestration API")
            .hint("add `peaq.orchestration` to its configuration and start it again")
    })
}

fn info(orchestration: &Orchestration, purchase: Purchase) -> Result<OrderInfo, Problem> {
    let used = orchestration.used_elsewhere(&purchase)?;
    Ok(OrderInfo::of(purchase, used))
}

/// The order whose id is, or begins with, `text`; `pur_` may be left out.
fn find(orchestration: &Orchestration, text: &str) -> Result<String, Problem> {
    let digits = text.strip_prefix("pur_").unwrap_or(text);
    let missing = || {
        Problem::not_found(format!("there is no order {text}"))
            .hint("list them with `tributary peaq orders ls`; at least 6 digits of the id are needed")
    };
    if digits.len() < 6 || !digits.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return Err(missing());
    }
    let whole = format!("pur_{digits}");
    if digits.len() == 32 {
        return Ok(orchestration.order(&whole)?.id);
    }
    let mut found = orchestration.orders(false, MAX_ORDERS)?.into_iter().filter(|order| order.id.starts_with(&whole));
    match (found.next(), found.next()) {
        (Some(order), None) => Ok(order.id),
        (None, _) => Err(missing()),
        (Some(_), Some(_)) => {
            Err(Problem::usage(format!("more than one order begins with {text}")).hint("give more digits"))
        }
    }
}

pub(super) async fn list(State(api): State<Api>, Document(request): Document<ListOrders>) -> Answer<Vec<OrderInfo>> {
    let orchestration = orchestration(&api)?;
    let list = blocking(move || {
        let orders = orchestration.orders(request.waiting, MAX_ORDERS)?;
        orders.into_iter().map(|order| info(&orchestration, order)).collect::<Result<Vec<_>, _>>()
    });
    Ok(Json(list.await?))
}

pub(super) async fn confirm(State(api): State<Api>, Document(request): Document<DecideOrder>) -> Answer<OrderInfo> {
    let orchestration = orchestration(&api)?;
    let confirmed = blocking(move || {
        let id = find(&orchestration, &request.order)?;
        let order = orchestration.confirm(&id)?;
        info(&orchestration, order)
    });
    Ok(Json(confirmed.await?))
}

pub(super) async fn reject(State(api): State<Api>, Document(request): Document<DecideOrder>) -> Answer<OrderInfo> {
    let orchestration = orchestration(&api)?;
    let rejected = blocking(move || {
        let id = find(&orchestration, &request.order)?;
        let reason: String = request.reason.as_deref().unwrap_or("the seller said no").chars().take(256).collect();
        let order = orchestration.reject(&id, &reason)?;
        info(&orchestration, order)
    });
    Ok(Json(rejected.await?))
}
