//! What the API does, apart from HTTP: orders, payments, deliveries, and the operator's decisions.
//!
//! Owns the order book, the shelf, the verifier and the open deliveries. Everything here may wait for the disk. What buyers do is
//! in [`buying`], what a seller with peaq's SDK does in [`selling`].

mod buying;
mod selling;

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use governor::DefaultKeyedRateLimiter;
use rand::RngExt as _;
use serde::Serialize;
use tokio::sync::broadcast;
use tributary_store::Store;

use super::{
    answer::ApiError,
    book::{BookError, OrderBook, Sight},
    desk::{DeliveryDesk, DeskEvent, OpenSessions, Progress},
    gate::{Caller, Gate},
    goods::Shelf,
    payment::PaymentVerifier,
    purchase::{Goods, Price, Purchase, Report},
    times,
};
use crate::{config::OrchestrationConfig, machine::Clock, service::access::AccessService};

/// What the seller with peaq's SDK is told over its control socket.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Notice {
    #[serde(rename = "type")]
    pub(super) kind: &'static str,
    pub(super) payload: NoticePayload,
    pub(super) created_at: String,
}

#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct NoticePayload {
    purchase_id: String,
    listing_id: String,
    status: super::purchase::Status,
    #[serde(skip_serializing_if = "Option::is_none")]
    rail: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    reference: Option<String>,
    payment_status: &'static str,
    delivery_status: &'static str,
}

/// See the module.
pub(super) struct Shop {
    pub(super) config: OrchestrationConfig,
    pub(super) gate: Gate,
    pub(super) book: OrderBook,
    pub(super) shelf: Shelf,
    pub(super) store: Store,
    pub(super) verifier: Box<dyn PaymentVerifier>,
    pub(super) desk: Box<dyn DeliveryDesk>,
    pub(super) policies: Arc<AccessService>,
    pub(super) clock: Clock,
    pub(super) price: Option<Price>,
    /// How fast each account may order. There are as many accounts as tokens.
    pub(super) orders: DefaultKeyedRateLimiter<String>,
    pub(super) did: String,
    /// Held while a delivery is opened: one at a time.
    pub(super) sessions: Mutex<OpenSessions>,
    pub(super) notices: broadcast::Sender<Notice>,
}

/// The price of a configuration.
pub(super) fn price_of(config: &OrchestrationConfig) -> Option<Price> {
    config.price.as_ref().map(|price| Price {
        amount: price.amount.clone(),
        token: price.token.clone(),
        chain: price.chain.clone(),
        pay_to: price.pay_to.clone(),
        token_address: price.token_address.clone(),
    })
}

/// An id that nobody can guess: 128 random bits.
pub(super) fn new_id(prefix: &str) -> String {
    let bits: [u8; 16] = rand::rng().random();
    format!("{prefix}_{}", hex::encode(bits))
}

/// What a caller sees of the purchases.
pub(super) fn sight(caller: &Caller) -> Sight<'_> {
    match caller {
        Caller::Buyer { account, .. } => Sight::Account(account),
        Caller::Agent => Sight::All,
    }
}

impl Shop {
    pub(super) fn now_ms(&self) -> u64 {
        (self.clock)()
    }

    fn open_sessions(&self) -> MutexGuard<'_, OpenSessions> {
        self.sessions.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The machine's id, in one of the spellings that peaq's SDK has for it.
    pub(super) fn check_machine(&self, id: &str) -> Result<(), ApiError> {
        let decimal = id.strip_prefix("did:peaq:").or_else(|| id.strip_prefix("peaqos:machine:")).unwrap_or(id);
        if decimal == self.config.machine_id {
            return Ok(());
        }
        Err(ApiError::not_found("MACHINE_UNKNOWN", format!("this is the node of machine {}", self.config.machine_id)))
    }

    /// Tells the seller with peaq's SDK, if the purchase is of its goods. It may listen or not.
    pub(super) fn notify(&self, kind: &'static str, purchase: &Purchase) {
        if matches!(purchase.goods, Goods::Foreign { .. }) {
            let _ = self.notices.send(notice(kind, purchase, self.now_ms()));
        }
    }

    /// Purchases that are paid and wait for the seller with peaq's SDK; it may have been away when they were paid.
    pub(super) fn missed_notices(&self) -> Result<Vec<Notice>, BookError> {
        const MAX: usize = 256;
        let waits = |purchase: &Purchase| {
            matches!(purchase.goods, Goods::Foreign { .. })
                && purchase.status == super::purchase::Status::PaymentVerified
        };
        let now_ms = self.now_ms();
        let waiting = self.book.newest(MAX, waits)?;
        Ok(waiting.iter().rev().map(|purchase| notice("purchase.payment_proof.recorded", purchase, now_ms)).collect())
    }

    /// The operator accepts what a purchase waits for.
    pub(super) fn confirm(&self, id: &str) -> Result<Purchase, BookError> {
        let purchase = self.book.confirm(id, self.now_ms())?;
        tracing::info!(purchase = id, status = ?purchase.status, "the operator confirmed an order");
        if purchase.is_paid() {
            self.notify("purchase.payment_proof.recorded", &purchase);
        }
        Ok(purchase)
    }

    /// The operator ends a purchase.
    pub(super) fn reject(&self, id: &str, reason: &str) -> Result<Purchase, BookError> {
        let now_ms = self.now_ms();
        let purchase = self.book.change(id, Sight::All, |purchase| purchase.end(reason, now_ms).map(|()| true))?;
        tracing::info!(purchase = id, status = ?purchase.status, "the operator rejected an order");
        self.desk.close(id, reason);
        self.open_sessions().end(id, None);
        Ok(purchase)
    }

    /// Notes what became of a delivery of this node's own.
    pub(super) fn on_desk_event(&self, event: &DeskEvent) {
        let DeskEvent { purchase_id, session_id, what } = event;
        let report = match what {
            Progress::Claimed => {
                self.open_sessions().claim(purchase_id, session_id, true);
                Report::Started
            }
            Progress::Broken => {
                self.open_sessions().claim(purchase_id, session_id, false);
                return;
            }
            Progress::Sent => {
                // Whether it arrived, only the buyer can say.
                self.open_sessions().end(purchase_id, Some(session_id));
                tracing::info!(purchase = %purchase_id, "everything of a purchase was sent");
                return;
            }
            Progress::Failed(reason) => {
                self.open_sessions().end(purchase_id, Some(session_id));
                tracing::info!(purchase = %purchase_id, reason, "a delivery failed; the buyer can ask for the next one");
                Report::Failed
            }
        };
        let noted = self.book.report(purchase_id, Sight::All, Some(session_id), report, self.now_ms());
        // A delivery that the operator offered by hand is of no purchase.
        if let Err(error) = noted
            && !matches!(error, BookError::NotFound { .. })
        {
            tracing::warn!(purchase = %purchase_id, %error, "the state of a delivery could not be stored");
        }
    }
}

fn notice(kind: &'static str, purchase: &Purchase, now_ms: u64) -> Notice {
    let paid = purchase.is_paid();
    let payload = NoticePayload {
        purchase_id: purchase.id.clone(),
        listing_id: purchase.listing.clone(),
        status: purchase.status,
        rail: purchase.proof.as_ref().map(|_| "transfer"),
        reference: purchase.proof.as_ref().map(|proof| proof.reference.hash().to_owned()),
        payment_status: super::wire::payment_status(purchase),
        delivery_status: if paid { "releasable" } else { "blocked" },
    };
    Notice { kind, payload, created_at: times::text(now_ms) }
}
