//! What a seller with peaq's SDK does at this node: register, list, prepare a delivery; and the reports of both sides.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};
use tributary_protocol::peaq::hexes;

use super::{Shop, buying::Signaling, new_id, sight};
use crate::peaq::orchestration::{
    answer::ApiError,
    foreign::{self, Registration},
    gate::Caller,
    goods,
    purchase::{Goods, Purchase, Report},
    times,
    wire::{
        AccessText, Bounded as _, Connect, ENCODING, EventText, ListingResource, PROTOCOL, PatchListing, PrepareAccess,
        PutCapabilities, SIGNALING, TRANSPORT, payment_status,
    },
};

/// A registration is good for so long where the seller does not say, and at most, ms.
const REGISTERED_MS: (u64, u64) = (3_600_000, 24 * 3_600_000);
/// The longest that a prepared handoff may be good, ms.
const MAX_HANDOFF_MS: u64 = 24 * 3_600_000;

/// What the seller prepared, as it is stored.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(in super::super) struct Prepared {
    pub(in super::super) connect: Connect,
    pub(in super::super) channel_id: Option<String>,
    pub(in super::super) access: Vec<AccessText>,
}

/// Answer of POST /stream/orders/:id/prepare-access
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(in super::super) struct PreparedText {
    item: OrderText,
    access: Vec<AccessText>,
    delivery_session: SessionText,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct OrderText {
    id: String,
    listing_id: String,
    machine_id: String,
    buyer_id: String,
    chunk_ids: Vec<String>,
    amount: f64,
    currency: String,
    status: &'static str,
    payment: OrderPayment,
    access_grant_ids: Vec<String>,
    delivery_session_id: String,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct OrderPayment {
    status: &'static str,
    reference: Option<String>,
    recorded_at: Option<String>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct SessionText {
    id: String,
    machine_id: String,
    order_id: String,
    buyer_id: String,
    chunk_ids: Vec<String>,
    delivery: SessionDelivery,
    status: &'static str,
    created_at: String,
    updated_at: String,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct SessionDelivery {
    mode: &'static str,
    transport_id: &'static str,
    signaling: Signaling,
    protocols: [&'static str; 1],
    encoding: &'static str,
    connect: Connect,
}

impl Shop {
    fn check_seller(caller: &Caller) -> Result<(), ApiError> {
        match caller {
            Caller::Agent => Ok(()),
            Caller::Buyer { .. } => Err(ApiError::forbidden(
                "NOT_A_SELLER",
                "only the seller agent of `peaq.orchestration.agent` may do this; give its token as the API key",
            )),
        }
    }

    /// The seller says that it can deliver.
    pub(in super::super) fn register(
        &self,
        caller: &Caller,
        machine_id: &str,
        request: PutCapabilities,
    ) -> Result<Registration, ApiError> {
        self.check_machine(machine_id)?;
        Self::check_seller(caller)?;
        request.check()?;
        if self.gate.agent_id() != Some(request.agent_id.as_str()) {
            return Err(ApiError::forbidden("AGENT_UNKNOWN", "the token belongs to another agent id"));
        }
        if !request.capabilities.iter().any(|capability| capability.transport_id == TRANSPORT) {
            return Err(ApiError::unfit("DELIVERY_UNSUPPORTED", format!("one capability has to be {TRANSPORT}")));
        }
        let now_ms = self.now_ms();
        let (usual, longest) = REGISTERED_MS;
        let said = match &request.expires_at {
            None => None,
            Some(text) => Some((
                times::parse(text)
                    .ok_or_else(|| ApiError::invalid("expiresAt is no time such as 2026-01-01T00:00:00Z"))?,
                text.clone(),
            )),
        };
        let (expires_ms, expires_at) = match said {
            Some((ms, text)) if ms <= now_ms.saturating_add(longest) => (ms, text),
            Some(_) => (now_ms + longest, times::text(now_ms + longest)),
            None => (now_ms + usual, times::text(now_ms + usual)),
        };
        let resource_types =
            if request.resource_types.is_empty() { vec!["stream.bundle".to_owned()] } else { request.resource_types };
        let capabilities = request.capabilities;
        let registration = Registration { capabilities, resource_types, updated_ms: now_ms, expires_ms, expires_at };
        foreign::register(&self.store, &registration)?;
        Ok(registration)
    }

    /// The seller lists something.
    pub(in super::super) fn put_listing(
        &self,
        caller: &Caller,
        machine_id: &str,
        id: &str,
        request: PatchListing,
    ) -> Result<ListingResource, ApiError> {
        self.check_machine(machine_id)?;
        Self::check_seller(caller)?;
        request.check()?;
        crate::peaq::orchestration::wire::name(id, "the listing's id")?;
        if goods::is_own(id) {
            let message = "this listing is a dataset of the node; its price and transport come from the configuration";
            return Err(ApiError::conflict("LISTING_MANAGED_BY_NODE", message));
        }
        foreign::put_listing(&self.store, id, request.resource)?
            .ok_or_else(|| ApiError::conflict("TOO_MANY_LISTINGS", "there are too many listings already"))
    }

    /// The seller prepares a delivery. The same once more gives the same session.
    pub(in super::super) fn prepare(&self, id: &str, request: PrepareAccess) -> Result<PreparedText, ApiError> {
        request.check()?;
        self.gate.check_agent(&request.agent_id, request.agent_token.expose())?;
        self.check_machine(&request.machine_id)?;
        let purchase = self.book.get(id, sight(&Caller::Agent))?;
        let Goods::Foreign { chunk_ids: wanted } = &purchase.goods else {
            return Err(ApiError::conflict("DELIVERED_BY_NODE", "the node delivers this purchase itself"));
        };
        self.check_items(&purchase, wanted, &request.items)?;
        let now_ms = self.now_ms();
        let connect = request.delivery.connect;
        match times::parse(&connect.expires_at) {
            Some(ms) if ms > now_ms && ms <= now_ms.saturating_add(MAX_HANDOFF_MS) => {}
            _ => return Err(ApiError::invalid("delivery.connect.expiresAt has to be a time within the next 24 hours")),
        }
        let prepared = Prepared { connect, channel_id: request.delivery.channel_id, access: request.items };
        let held = self.book.prepared::<Prepared>(id)?;
        let under_way = crate::peaq::orchestration::purchase::Status::DeliveryReleased;
        let purchase = if held.as_ref() == Some(&prepared) && purchase.status == under_way {
            purchase
        } else {
            self.book.prepare(id, &new_id("dls"), &prepared, now_ms)?
        };
        Ok(self.prepared_text(&purchase, prepared))
    }

    /// Whether the keys are for exactly the chunks that were bought, and sealed for exactly the buyer that bought them.
    fn check_items(&self, purchase: &Purchase, wanted: &[String], items: &[AccessText]) -> Result<(), ApiError> {
        let mut given = BTreeSet::new();
        let key = |text: &str| hexes::decode(text, "public_key_hex").unwrap_or_default();
        let buyer_key = key(&purchase.buyer.public_key_hex);
        for item in items {
            if item.buyer.recipient_id != purchase.buyer.id || key(&item.buyer.public_key_hex) != buyer_key {
                return Err(ApiError::unfit(
                    "ACCESS_NOT_FOR_BUYER",
                    "items has a key that is not sealed for the buyer",
                ));
            }
            if !given.insert(item.chunk_id.as_str()) {
                return Err(ApiError::invalid("items has a chunk twice"));
            }
        }
        let wanted: BTreeSet<&str> = wanted.iter().map(String::as_str).collect();
        if !wanted.is_empty() && wanted != given {
            return Err(ApiError::unfit("ACCESS_NOT_AS_ORDERED", "items are not the chunks that were ordered"));
        }
        Ok(())
    }

    fn prepared_text(&self, purchase: &Purchase, prepared: Prepared) -> PreparedText {
        let Prepared { connect, channel_id, access } = prepared;
        let session_id = purchase.session_id.clone().unwrap_or_default();
        let chunk_ids: Vec<String> = access.iter().map(|item| item.chunk_id.clone()).collect();
        let (machine_id, updated_at) = (self.config.machine_id.clone(), times::text(purchase.updated_ms));
        let price = purchase.price.as_ref();
        let proof = purchase.proof.as_ref();
        PreparedText {
            item: OrderText {
                id: purchase.id.clone(),
                listing_id: purchase.listing.clone(),
                machine_id: machine_id.clone(),
                buyer_id: purchase.buyer.id.clone(),
                chunk_ids: chunk_ids.clone(),
                amount: price.and_then(|price| price.amount.parse().ok()).unwrap_or(0.0),
                currency: price.map(|price| price.token.clone()).unwrap_or_default(),
                status: "paid",
                payment: OrderPayment {
                    status: payment_status(purchase),
                    reference: proof.map(|proof| proof.reference.hash().to_owned()),
                    recorded_at: proof.map(|proof| times::text(proof.recorded_ms)),
                },
                access_grant_ids: vec![session_id.clone()],
                delivery_session_id: session_id.clone(),
            },
            access,
            delivery_session: SessionText {
                id: session_id.clone(),
                machine_id,
                order_id: purchase.id.clone(),
                buyer_id: purchase.buyer.id.clone(),
                chunk_ids,
                delivery: SessionDelivery {
                    mode: "p2p",
                    transport_id: TRANSPORT,
                    signaling: Signaling { kind: SIGNALING, channel_id: channel_id.unwrap_or(session_id) },
                    protocols: [PROTOCOL],
                    encoding: ENCODING,
                    connect,
                },
                status: "ready",
                created_at: updated_at.clone(),
                updated_at,
            },
        }
    }

    /// One side reports how it goes. Returns the event's kind.
    pub(in super::super) fn report(
        &self,
        caller: &Caller,
        id: &str,
        event: &EventText,
    ) -> Result<&'static str, ApiError> {
        let by_seller = *caller == Caller::Agent;
        let (kind, notice) = match event.kind.as_str() {
            "delivery.started" => ("delivery.started", "purchase.delivery.started"),
            "delivery.completed" => ("delivery.completed", "purchase.delivery.completed"),
            "delivery.failed" => ("delivery.failed", "purchase.delivery.failed"),
            "buyer.connected" => ("buyer.connected", "purchase.buyer.connected"),
            "seller.ready" => ("seller.ready", "purchase.seller.ready"),
            "seller.offline" => ("seller.offline", "purchase.seller.offline"),
            _ => return Err(ApiError::invalid("type is none of the events of a purchase")),
        };
        let says_seller = event.actor.kind.as_deref() == Some("seller") || kind.starts_with("seller.");
        let says_buyer = event.actor.kind.as_deref() == Some("buyer") || kind.starts_with("buyer.");
        if (by_seller && says_buyer) || (!by_seller && says_seller) {
            return Err(ApiError::forbidden("ACTOR_MISMATCH", "the token belongs to the other side of the purchase"));
        }
        let purchase = self.book.get(id, sight(caller))?;
        let own = matches!(purchase.goods, Goods::Dataset { .. });
        if by_seller && own {
            return Err(ApiError::conflict("DELIVERED_BY_NODE", "the node delivers this purchase itself"));
        }
        let report = match kind {
            "delivery.started" => Some(Report::Started),
            // That everything was sent says nothing about what arrived.
            "delivery.completed" => (!by_seller).then_some(Report::Received),
            "delivery.failed" => Some(Report::Failed),
            _ => None,
        };
        if let Some(report) = report {
            let (purchase, _) = self.book.report(id, sight(caller), None, report, self.now_ms())?;
            // After a failure the session stays open while its handoff lasts: the buyer may come again.
            if own && report == Report::Received {
                self.open_sessions().end(id, None);
            }
            self.notify(notice, &purchase);
        } else {
            self.notify(notice, &purchase);
        }
        Ok(kind)
    }
}
