//! What buyers do: order, pay, fetch.

use std::sync::Arc;

use axum::http::StatusCode;
use serde::Serialize;
use tributary_protocol::{
    ids::{DatasetId, Did},
    peaq::{
        access::AccessEntry,
        parties::{Recipient, Role},
    },
};

use super::{Shop, new_id, selling::Prepared, sight};
use crate::{
    peaq::orchestration::{
        answer::ApiError,
        book::BookError,
        desk::{DeskError, Handoff, OpenSession},
        foreign,
        gate::Caller,
        goods::{self, GoodsError},
        payment::{Claim, Verdict},
        purchase::{Goods, Order, Proof, Purchase, Refused, Status},
        reference::Reference,
        times,
        wire::{
            AccessText, AmountText, Bounded as _, CONNECT, Connect, CreatePurchase, Destination, ENCODING, PROTOCOL,
            PaymentIntent, PaymentProof, PurchaseText, SIGNALING, TRANSPORT, destination, fits, payment_status,
        },
    },
    service::access::Admission,
};

/// A handoff is good for so long. A buyer that fails after everything was sent gets the next one only when this one is over.
const HANDOFF_MS: u64 = 180_000;
/// What has to be left of it when it is handed out: peaq's buyers refuse one with less than 35 s.
const MARGIN_MS: u64 = 60_000;

/// Answer of POST /purchases/:id/payment-intent
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(in super::super) struct IntentText {
    purchase_id: String,
    status: &'static str,
    rail: RailShown,
    amount: AmountText,
    instructions: Instructions,
}

#[derive(Debug, Serialize)]
struct RailShown {
    #[serde(rename = "type")]
    kind: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    destination: Option<Destination>,
}

#[derive(Debug, Default, Serialize)]
struct Instructions {
    #[serde(flatten)]
    destination: Option<Destination>,
    #[serde(skip_serializing_if = "Option::is_none")]
    amount: Option<String>,
}

/// Answer of POST /purchases/:id/payment-proof
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(in super::super) struct ProofText {
    purchase_id: String,
    payment_status: &'static str,
    delivery_status: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    receipt: Option<Receipt>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Receipt {
    verified_at: String,
    chain: String,
    transaction_hash: String,
    /// Nothing looked at a chain: somebody said so, and it was recorded.
    verification_mode: &'static str,
    status: &'static str,
}

/// Answer of GET /purchases/:id/delivery
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(in super::super) struct DeliveryText {
    purchase_id: String,
    delivery: DeliveryDetails,
    access: Vec<AccessText>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct DeliveryDetails {
    status: &'static str,
    mode: &'static str,
    transport_id: &'static str,
    session_id: String,
    signaling: Signaling,
    protocols: [&'static str; 1],
    encoding: &'static str,
    connect: Connect,
}

/// Where the two sides would signal.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(in super::super) struct Signaling {
    #[serde(rename = "type")]
    pub(in super::super) kind: &'static str,
    pub(in super::super) channel_id: String,
}

impl Shop {
    /// A new order.
    pub(in super::super) fn create(&self, caller: &Caller, request: CreatePurchase) -> Result<Purchase, ApiError> {
        request.check()?;
        let Caller::Buyer { account, id } = caller else {
            return Err(ApiError::forbidden("NOT_A_BUYER", "a seller's token orders nothing; use a buyer's"));
        };
        self.check_buyer(id.as_deref(), &request.buyer.id)?;
        if self.orders.check_key(account).is_err() {
            return Err(ApiError::new(
                StatusCode::TOO_MANY_REQUESTS,
                "TOO_MANY_PURCHASES",
                "too many orders at once; order again in a minute",
            ));
        }
        let (goods, waits) = self.goods(id.is_some(), &request)?;
        let listing = request.resource.listing_id.clone();
        let order = Order {
            id: new_id("pur"),
            account: account.clone(),
            listing,
            goods,
            buyer: request.into_buyer(),
            price: self.price.clone(),
            waits,
        };
        let purchase = self.book.create(order, self.now_ms())?;
        tracing::info!(purchase = %purchase.id, buyer = %purchase.buyer.id, status = ?purchase.status, "an order came");
        self.notify("purchase.created", &purchase);
        if purchase.is_paid() {
            self.notify("purchase.payment_proof.recorded", &purchase);
        }
        Ok(purchase)
    }

    /// A name that has a token of its own is used with that token, and such a token with no other name.
    fn check_buyer(&self, proven: Option<&str>, claimed: &str) -> Result<(), ApiError> {
        let allowed = match proven {
            Some(id) => id == claimed,
            None => !self.gate.is_reserved(claimed),
        };
        if allowed {
            return Ok(());
        }
        Err(ApiError::forbidden("BUYER_MISMATCH", "this token does not belong to the buyer that `buyer.id` names"))
    }

    /// What an order is for, and whether the operator decides about it.
    fn goods(&self, proven: bool, request: &CreatePurchase) -> Result<(Goods, bool), ApiError> {
        let id = &request.resource.listing_id;
        let part = request.part()?;
        if !goods::is_own(id) {
            foreign::listing(&self.store, id)?.ok_or(GoodsError::NotFound)?;
            if !foreign::is_registered(&self.store, self.now_ms())? {
                return Err(ApiError::conflict(
                    "SELLER_OFFLINE",
                    "the seller of this listing is away; order again later",
                ));
            }
            return Ok((Goods::Foreign { chunk_ids: part.chunk_ids.unwrap_or_default() }, false));
        }
        let listing = self.shelf.find(id)?;
        let buyer = request.buyer.id.parse::<Did>().ok();
        let admission = self.policies.admission(buyer.as_ref(), proven, &listing.entry.stream);
        let waits = match admission.map_err(|error| ApiError::trouble(&error))? {
            Admission::Yes => false,
            Admission::Waits => true,
            Admission::No(reason) => return Err(ApiError::forbidden("ACCESS_DENIED", reason)),
        };
        let chunks = self.shelf.select(&listing, &part)?;
        let (dataset, named) = (listing.entry.dataset, part.chunk_ids.is_some());
        Ok((Goods::Dataset { dataset, stream: listing.stream, chunks, named }, waits))
    }

    /// A purchase, and the chunks that the buyer named.
    pub(in super::super) fn show(
        &self,
        caller: &Caller,
        id: &str,
    ) -> Result<(Purchase, Option<Vec<String>>), ApiError> {
        let purchase = self.book.get(id, sight(caller))?;
        let named = self.named(&purchase);
        Ok((purchase, named))
    }

    /// The chunks that the buyer of a purchase named. They are left out where they cannot be read any more.
    pub(in super::super) fn named(&self, purchase: &Purchase) -> Option<Vec<String>> {
        match &purchase.goods {
            Goods::Dataset { dataset, chunks, named: true, .. } => Some(self.shelf.sold(dataset, *chunks).ok()?.ids()),
            goods => PurchaseText::named(goods),
        }
    }

    /// The buyer is about to pay.
    pub(in super::super) fn intend(
        &self,
        caller: &Caller,
        id: &str,
        request: PaymentIntent,
    ) -> Result<IntentText, ApiError> {
        request.check()?;
        let purchase = self.book.get(id, sight(caller))?;
        if let (Some(price), Some(said)) = (&purchase.price, &request.rail.destination) {
            fits(price, said, None)?;
        }
        // Nobody should pay for what it would not get.
        self.check_not_revoked(&purchase)?;
        let (payer, now_ms) = (request.payer.map(|payer| payer.address), self.now_ms());
        let purchase = self.book.change(id, sight(caller), |purchase| purchase.intend(payer, now_ms))?;
        let to = purchase.price.as_ref().map(destination);
        Ok(IntentText {
            purchase_id: purchase.id,
            // The only word that peaq's SDK has for it, also where nothing is to be paid.
            status: "payment_pending",
            rail: RailShown { kind: "transfer", destination: to.clone() },
            amount: purchase.price.as_ref().into(),
            instructions: Instructions { destination: to, amount: purchase.price.map(|price| price.amount) },
        })
    }

    fn check_not_revoked(&self, purchase: &Purchase) -> Result<(), ApiError> {
        let (Goods::Dataset { dataset, .. }, Ok(buyer)) = (&purchase.goods, purchase.buyer.id.parse::<Did>()) else {
            return Ok(());
        };
        let listing = self.shelf.find(&goods::listing_id(dataset))?;
        let revoked =
            self.policies.revoked(&buyer, &listing.entry.stream).map_err(|error| ApiError::trouble(&error))?;
        if revoked {
            return Err(ApiError::forbidden("ACCESS_DENIED", "access to this stream was revoked; do not pay"));
        }
        Ok(())
    }

    /// The buyer says that it has paid.
    pub(in super::super) fn prove(
        &self,
        caller: &Caller,
        id: &str,
        request: PaymentProof,
    ) -> Result<ProofText, ApiError> {
        request.check()?;
        let purchase = self.book.get(id, sight(caller))?;
        let Some(price) = &purchase.price else {
            if purchase.status == Status::DeliveryReserving {
                return Err(Refused::NotAccepted.into());
            }
            return Ok(proof_text(&purchase));
        };
        let said = Destination {
            pay_to: request.payee_address,
            chain: request.chain,
            token: request.token,
            token_address: request.token_address,
        };
        fits(price, &said, request.amount.as_ref())?;
        let Some(hash) = &request.transaction_hash else {
            return Err(ApiError::unfit(
                "PAYMENT_PROOF_INCOMPLETE",
                "transactionHash is needed: it is what the payment is known by",
            ));
        };
        let reference = Reference::new(&price.chain, hash)
            .map_err(|error| ApiError::unfit("PAYMENT_PROOF_INCOMPLETE", error.to_string()))?;
        let payer = request.payer_address.or_else(|| purchase.payer.clone());
        let known = purchase.proof.as_ref().is_some_and(|held| held.reference == reference);
        let verdict = if known && purchase.is_paid() {
            Verdict::Paid
        } else {
            // A payment that is used up is not looked at again.
            if self.book.paid_with(&reference)?.is_some_and(|other| other != id) {
                return Err(BookError::Used { reference }.into());
            }
            self.verifier.verify(&Claim {
                purchase_id: id,
                buyer_id: &purchase.buyer.id,
                price,
                reference: &reference,
                payer: payer.as_deref(),
            })?
        };
        let paid = match verdict {
            Verdict::Paid => true,
            Verdict::Waits => false,
            Verdict::Unpaid(reason) => return Err(ApiError::unfit("PAYMENT_NOT_FOUND", reason)),
        };
        let now_ms = self.now_ms();
        let proof = Proof { reference, payer, recorded_ms: now_ms };
        let (purchase, news) = self.book.claim(id, sight(caller), proof, paid, now_ms)?;
        if news {
            tracing::info!(purchase = id, paid = purchase.is_paid(), "a payment was claimed");
            self.notify("purchase.payment_proof.recorded", &purchase);
        }
        Ok(proof_text(&purchase))
    }

    /// Where the buyer gets what it bought. Opens a delivery unless one waits for it.
    pub(in super::super) fn deliver(&self, caller: &Caller, id: &str) -> Result<DeliveryText, ApiError> {
        let Caller::Buyer { .. } = caller else {
            return Err(ApiError::forbidden("NOT_A_BUYER", "a seller's token fetches nothing; use the buyer's"));
        };
        let purchase = self.book.get(id, sight(caller))?;
        match &purchase.goods {
            Goods::Dataset { dataset, chunks, .. } => self.deliver_own(caller, &purchase, dataset, *chunks),
            Goods::Foreign { .. } => self.deliver_prepared(&purchase),
        }
    }

    fn deliver_prepared(&self, purchase: &Purchase) -> Result<DeliveryText, ApiError> {
        let waits = || ApiError::not_ready("the seller has not prepared the delivery yet; ask again later");
        if !matches!(purchase.status, Status::DeliveryReleased | Status::Active) {
            purchase.check_release()?;
            return Err(waits());
        }
        let prepared: Prepared = self.book.prepared(&purchase.id)?.ok_or_else(waits)?;
        if times::parse(&prepared.connect.expires_at).is_none_or(|expires| expires <= self.now_ms()) {
            return Err(waits());
        }
        self.notify("purchase.delivery.accessed", purchase);
        let session_id = purchase.session_id.clone().unwrap_or_default();
        let channel = prepared.channel_id.unwrap_or_else(|| session_id.clone());
        Ok(delivery_text(&purchase.id, session_id, channel, prepared.connect, prepared.access))
    }

    fn deliver_own(
        &self,
        caller: &Caller,
        purchase: &Purchase,
        dataset: &DatasetId,
        chunks: u32,
    ) -> Result<DeliveryText, ApiError> {
        purchase.check_release()?;
        if let Some(reason) = self.shelf.machine().displaced() {
            tracing::warn!(%reason, "nothing is delivered while the machine must not publish");
            return Err(ApiError::not_ready("the machine delivers nothing at the moment; ask again later"));
        }
        let id = &purchase.id;
        let mut sessions = self.open_sessions();
        let now_ms = self.now_ms();
        if let Some(open) = sessions.usable(id, now_ms, MARGIN_MS) {
            if purchase.status == Status::PaymentVerified {
                let session_id = &open.session_id;
                self.book.change(id, sight(caller), |purchase| purchase.release(session_id, now_ms).map(|()| true))?;
            }
            return Ok(own_text(id, open));
        }
        if !sessions.has_room(id, chunks, now_ms) {
            return Err(ApiError::not_ready("too many deliveries are open; ask again in a few minutes"));
        }
        let sold = self.shelf.sold(dataset, chunks)?;
        let buyer = Recipient::new(&purchase.buyer.id, Role::Buyer, &purchase.buyer.public_key_hex)
            .map_err(|error| ApiError::trouble(&error))?;
        let access: Vec<AccessEntry> = sold.access(&buyer)?;
        let (session_id, expires_ms) = (new_id("dls"), now_ms.saturating_add(HANDOFF_MS));
        let handoff = Handoff {
            purchase_id: id.clone(),
            session_id: session_id.clone(),
            buyer_id: purchase.buyer.id.clone(),
            expires_ms,
            sold,
        };
        let url = self.desk.open(handoff).map_err(|error| match error {
            DeskError::Busy => ApiError::not_ready(error.to_string()),
            other => ApiError::trouble(&other),
        })?;
        let released =
            self.book.change(id, sight(caller), |purchase| purchase.release(&session_id, now_ms).map(|()| true));
        if let Err(error) = released {
            self.desk.close(id, "it could not be stored");
            return Err(error.into());
        }
        let open = OpenSession { session_id, url, expires_ms, access: Arc::new(access), claimed: false };
        let text = own_text(id, &open);
        sessions.insert(id, open);
        tracing::info!(purchase = %id, "a delivery waits for its buyer");
        Ok(text)
    }
}

fn own_text(purchase_id: &str, open: &OpenSession) -> DeliveryText {
    let expires_at = times::text(open.expires_ms);
    let connect = Connect { kind: CONNECT.to_owned(), url: open.url.clone(), expires_at };
    let access = open.access.iter().map(AccessText::from).collect();
    delivery_text(purchase_id, open.session_id.clone(), open.session_id.clone(), connect, access)
}

fn delivery_text(
    purchase_id: &str,
    session_id: String,
    channel_id: String,
    connect: Connect,
    access: Vec<AccessText>,
) -> DeliveryText {
    DeliveryText {
        purchase_id: purchase_id.to_owned(),
        delivery: DeliveryDetails {
            status: "ready",
            mode: "p2p",
            transport_id: TRANSPORT,
            session_id,
            signaling: Signaling { kind: SIGNALING, channel_id },
            protocols: [PROTOCOL],
            encoding: ENCODING,
            connect,
        },
        access,
    }
}

fn proof_text(purchase: &Purchase) -> ProofText {
    let receipt = purchase.verified_ms.zip(purchase.proof.as_ref()).zip(purchase.price.as_ref());
    ProofText {
        purchase_id: purchase.id.clone(),
        payment_status: payment_status(purchase),
        delivery_status: if purchase.is_paid() { "releasable" } else { "blocked" },
        receipt: receipt.map(|((verified_ms, proof), price)| Receipt {
            verified_at: times::text(verified_ms),
            chain: price.chain.clone(),
            transaction_hash: proof.reference.hash().to_owned(),
            verification_mode: "recorded",
            status: "verified",
        }),
    }
}
