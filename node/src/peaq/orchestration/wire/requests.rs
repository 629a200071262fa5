//! What clients send.

use serde::{Deserialize, Serialize};
use tributary_protocol::peaq::{
    ACCESS_SCHEMA,
    access::{self, AccessEntry},
    envelope::RecipientEntry,
};
use zeroize::Zeroizing;

use super::{Bounded, CONNECT, MAX_URL, TRANSPORT, name, optional, short};
use crate::peaq::orchestration::{
    answer::ApiError,
    goods::{MAX_CHUNKS, Part},
    purchase::{Buyer, Capability, Price},
    times,
};

/// POST /purchases
#[derive(Debug, Deserialize)]
pub(in super::super) struct CreatePurchase {
    pub(in super::super) resource: ResourceText,
    pub(in super::super) buyer: BuyerText,
    pub(in super::super) delivery: Option<Requirements>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(in super::super) struct ResourceText {
    #[serde(rename = "type")]
    kind: String,
    pub(in super::super) listing_id: String,
    selection: Option<SelectionText>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
struct SelectionText {
    chunk_ids: Option<Vec<String>>,
    topic: Option<String>,
    start_time: Option<String>,
    end_time: Option<String>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(in super::super) struct BuyerText {
    pub(in super::super) id: String,
    public_key: PublicKeyText,
    #[serde(default)]
    delivery_capabilities: Vec<Capability>,
    machine_id: Option<String>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct PublicKeyText {
    #[serde(rename = "type")]
    kind: String,
    public_key_hex: String,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(in super::super) struct Requirements {
    acceptable_modes: Option<Vec<String>>,
}

impl Bounded for CreatePurchase {
    fn check(&self) -> Result<(), ApiError> {
        name(&self.resource.listing_id, "resource.listingId")?;
        if self.resource.kind != "stream.listing" {
            return Err(ApiError::invalid("resource.type has to be stream.listing"));
        }
        if let Some(selection) = &self.resource.selection {
            optional(selection.topic.as_ref(), "resource.selection.topic")?;
            let ids = selection.chunk_ids.as_deref().unwrap_or_default();
            if ids.len() > MAX_CHUNKS as usize {
                return Err(ApiError::invalid(format!(
                    "resource.selection.chunkIds has more than {MAX_CHUNKS} values"
                )));
            }
            ids.iter().try_for_each(|id| name(id, "resource.selection.chunkIds"))?;
        }
        let buyer = &self.buyer;
        name(&buyer.id, "buyer.id")?;
        optional(buyer.machine_id.as_ref(), "buyer.machineId")?;
        if buyer.public_key.kind != "x25519" {
            return Err(ApiError::invalid("buyer.publicKey.type has to be x25519"));
        }
        name(&buyer.public_key.public_key_hex, "buyer.publicKey.publicKeyHex")?;
        access::buyer(&buyer.id, &buyer.public_key.public_key_hex)
            .map_err(|error| ApiError::invalid(format!("buyer.publicKey.publicKeyHex cannot be used: {error}")))?;
        short(&buyer.delivery_capabilities, "buyer.deliveryCapabilities")?;
        buyer.delivery_capabilities.iter().try_for_each(Bounded::check)?;
        if let Some(modes) = self.delivery.as_ref().and_then(|delivery| delivery.acceptable_modes.as_ref()) {
            short(modes, "delivery.acceptableModes")?;
            if !modes.is_empty() && !modes.iter().any(|mode| mode == "p2p") {
                return Err(ApiError::unfit("DELIVERY_UNSUPPORTED", "deliveries are made by p2p only"));
            }
        }
        let capabilities = &buyer.delivery_capabilities;
        if !capabilities.is_empty() && !capabilities.iter().any(|capability| capability.transport_id == TRANSPORT) {
            let message = format!("deliveries are made by the transport {TRANSPORT} only");
            return Err(ApiError::unfit("DELIVERY_UNSUPPORTED", message));
        }
        Ok(())
    }
}

impl CreatePurchase {
    /// Which part of the listing is meant.
    pub(in super::super) fn part(&self) -> Result<Part, ApiError> {
        let Some(selection) = &self.resource.selection else { return Ok(Part::default()) };
        let time = |text: &Option<String>, field: &str| match text {
            None => Ok(None),
            Some(text) => times::parse(text)
                .map(Some)
                .ok_or_else(|| ApiError::invalid(format!("{field} is no time such as 2026-01-01T00:00:00Z"))),
        };
        Ok(Part {
            chunk_ids: selection.chunk_ids.clone(),
            topic: selection.topic.clone(),
            from_ms: time(&selection.start_time, "resource.selection.startTime")?,
            to_ms: time(&selection.end_time, "resource.selection.endTime")?,
        })
    }

    /// Who buys.
    pub(in super::super) fn into_buyer(self) -> Buyer {
        let BuyerText { id, public_key, delivery_capabilities, machine_id } = self.buyer;
        Buyer { id, public_key_hex: public_key.public_key_hex, machine_id, capabilities: delivery_capabilities }
    }
}

/// POST /purchases/:id/payment-intent
#[derive(Debug, Deserialize)]
pub(in super::super) struct PaymentIntent {
    pub(in super::super) rail: RailText,
    pub(in super::super) payer: Option<PayerText>,
}

#[derive(Debug, Deserialize)]
pub(in super::super) struct RailText {
    #[serde(rename = "type")]
    pub(in super::super) kind: String,
    pub(in super::super) destination: Option<Destination>,
}

#[derive(Debug, Clone, Deserialize, Serialize)]
#[serde(rename_all = "camelCase")]
pub(in super::super) struct Destination {
    pub(in super::super) pay_to: Option<String>,
    pub(in super::super) chain: Option<String>,
    pub(in super::super) token: Option<String>,
    pub(in super::super) token_address: Option<String>,
}

#[derive(Debug, Deserialize)]
pub(in super::super) struct PayerText {
    pub(in super::super) address: String,
}

impl Bounded for PaymentIntent {
    fn check(&self) -> Result<(), ApiError> {
        transfer(&self.rail.kind)?;
        self.payer.as_ref().map_or(Ok(()), |payer| name(&payer.address, "payer.address"))
    }
}

/// Only transfers can be settled here: an x402 header is a promise that somebody would have to cash in.
fn transfer(rail: &str) -> Result<(), ApiError> {
    if rail == "transfer" {
        return Ok(());
    }
    Err(ApiError::unfit(
        "PAYMENT_RAIL_UNSUPPORTED",
        "this node takes the rail transfer only; GET /payment-rails lists it",
    ))
}

/// POST /purchases/:id/payment-proof. An `rpcUrl` in it is passed over: nobody dials what a buyer names.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(in super::super) struct PaymentProof {
    pub(in super::super) rail: String,
    pub(in super::super) transaction_hash: Option<String>,
    pub(in super::super) chain: Option<String>,
    pub(in super::super) token: Option<String>,
    pub(in super::super) payer_address: Option<String>,
    pub(in super::super) payee_address: Option<String>,
    pub(in super::super) token_address: Option<String>,
    pub(in super::super) amount: Option<String>,
}

impl Bounded for PaymentProof {
    fn check(&self) -> Result<(), ApiError> {
        transfer(&self.rail)?;
        optional(self.payer_address.as_ref(), "payerAddress")
    }
}

/// Whether what a buyer says about a payment fits what it was asked for; what it does not say, fits.
pub(in super::super) fn fits(price: &Price, said: &Destination, amount: Option<&String>) -> Result<(), ApiError> {
    let same = |said: Option<&String>, wanted: &str| said.is_none_or(|said| said.trim().eq_ignore_ascii_case(wanted));
    let token_address = price.token_address.as_deref();
    let rules = [
        ("chain", same(said.chain.as_ref(), &price.chain)),
        ("token", same(said.token.as_ref(), &price.token)),
        ("payee address", same(said.pay_to.as_ref(), &price.pay_to)),
        ("token address", token_address.is_none_or(|wanted| same(said.token_address.as_ref(), wanted))),
        ("amount", amount.is_none_or(|amount| plain(amount) == plain(&price.amount))),
    ];
    match rules.iter().find(|(_, kept)| !kept) {
        None => Ok(()),
        Some((what, _)) => Err(ApiError::unfit(
            "PAYMENT_MISMATCH",
            format!(
                "the {what} is not what the order asks for: {} {} on {} to {}",
                price.amount, price.token, price.chain, price.pay_to
            ),
        )),
    }
}

/// A decimal number without zeros that say nothing.
pub(super) fn plain(amount: &str) -> &str {
    let amount = amount.trim();
    if amount.contains('.') { amount.trim_end_matches('0').trim_end_matches('.') } else { amount }
}

/// POST /purchases/:id/events
#[derive(Debug, Deserialize)]
pub(in super::super) struct EventText {
    #[serde(default)]
    pub(in super::super) actor: ActorText,
    #[serde(rename = "type")]
    pub(in super::super) kind: String,
}

#[derive(Debug, Default, Deserialize)]
pub(in super::super) struct ActorText {
    #[serde(rename = "type")]
    pub(in super::super) kind: Option<String>,
}

/// PUT /machines/:id/delivery-capabilities
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(in super::super) struct PutCapabilities {
    pub(in super::super) agent_id: String,
    pub(in super::super) capabilities: Vec<Capability>,
    #[serde(default)]
    pub(in super::super) resource_types: Vec<String>,
    pub(in super::super) expires_at: Option<String>,
}

impl Bounded for PutCapabilities {
    fn check(&self) -> Result<(), ApiError> {
        name(&self.agent_id, "agentId")?;
        short(&self.capabilities, "capabilities")?;
        short(&self.resource_types, "resourceTypes")?;
        self.resource_types.iter().try_for_each(|text| name(text, "resourceTypes"))?;
        self.capabilities.iter().try_for_each(Bounded::check)
    }
}

/// PATCH /machines/:id/stream/listings/:lid
#[derive(Debug, Deserialize)]
pub(in super::super) struct PatchListing {
    pub(in super::super) resource: Option<ListingResource>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(in super::super) struct ListingResource {
    #[serde(rename = "type")]
    pub(in super::super) kind: String,
    pub(in super::super) mode: String,
    #[serde(default)]
    pub(in super::super) supports_live: bool,
}

impl Bounded for PatchListing {
    fn check(&self) -> Result<(), ApiError> {
        let Some(resource) = &self.resource else { return Ok(()) };
        name(&resource.kind, "resource.type")?;
        name(&resource.mode, "resource.mode")
    }
}

/// A token in a body. Erased when it is dropped.
#[derive(Deserialize)]
#[serde(from = "String")]
pub(in super::super) struct Secret(Zeroizing<String>);

impl From<String> for Secret {
    fn from(text: String) -> Self {
        Self(Zeroizing::new(text))
    }
}

impl Secret {
    /// The token.
    pub(in super::super) fn expose(&self) -> &str {
        &self.0
    }
}

/// POST /stream/orders/:id/prepare-access
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub(in super::super) struct PrepareAccess {
    pub(in super::super) machine_id: String,
    pub(in super::super) agent_id: String,
    pub(in super::super) agent_token: Secret,
    pub(in super::super) items: Vec<AccessText>,
    pub(in super::super) delivery: PreparedDelivery,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(in super::super) struct PreparedDelivery {
    mode: String,
    transport_id: String,
    pub(in super::super) connect: Connect,
    pub(in super::super) channel_id: Option<String>,
}

/// Where a buyer fetches what it bought.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(in super::super) struct Connect {
    #[serde(rename = "type")]
    pub(in super::super) kind: String,
    pub(in super::super) url: String,
    pub(in super::super) expires_at: String,
}

/// A chunk's key, sealed for a buyer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(in super::super) struct AccessText {
    pub(in super::super) schema_version: String,
    pub(in super::super) chunk_id: String,
    pub(in super::super) buyer: RecipientEntry,
}

impl From<&AccessEntry> for AccessText {
    fn from(entry: &AccessEntry) -> Self {
        Self { schema_version: ACCESS_SCHEMA.to_owned(), chunk_id: entry.chunk_id.clone(), buyer: entry.buyer.clone() }
    }
}

impl Bounded for PrepareAccess {
    fn check(&self) -> Result<(), ApiError> {
        name(&self.machine_id, "machineId")?;
        name(&self.agent_id, "agentId")?;
        if self.items.is_empty() || self.items.len() > MAX_CHUNKS as usize {
            return Err(ApiError::invalid(format!("items has to have 1 to {MAX_CHUNKS} values")));
        }
        for item in &self.items {
            name(&item.chunk_id, "items.chunkId")?;
            let bad = |what: &str| Err(ApiError::invalid(format!("items.{what} is not peaq's buyer access v1")));
            if item.schema_version != ACCESS_SCHEMA {
                return bad("schemaVersion");
            }
            if item.buyer.recipient_type != "buyer" || item.buyer.algorithm != "x25519-sealedbox" {
                return bad("buyer");
            }
            let wrapped = &item.buyer.wrapped_key_hex;
            // A sealed box of a 32-byte key, with or without 0x.
            if !matches!(wrapped.len(), 160 | 162) || !wrapped.bytes().all(|byte| byte.is_ascii_alphanumeric()) {
                return bad("buyer.wrappedKeyHex");
            }
        }
        let PreparedDelivery { mode, transport_id, connect, channel_id } = &self.delivery;
        optional(channel_id.as_ref(), "delivery.channelId")?;
        if mode != "p2p" || transport_id != TRANSPORT || connect.kind != CONNECT {
            return Err(ApiError::unfit("DELIVERY_UNSUPPORTED", format!("the transport has to be {TRANSPORT}")));
        }
        if connect.url.is_empty() || connect.url.len() > MAX_URL || connect.url.chars().any(char::is_control) {
            return Err(ApiError::invalid(format!(
                "delivery.connect.url has to be 1 to {MAX_URL} printable characters"
            )));
        }
        name(&connect.expires_at, "delivery.connect.expiresAt")
    }
}

/// Whom to pay, and how.
pub(in super::super) fn destination(price: &Price) -> Destination {
    Destination {
        pay_to: Some(price.pay_to.clone()),
        chain: Some(price.chain.clone()),
        token: Some(price.token.clone()),
        token_address: price.token_address.clone(),
    }
}
