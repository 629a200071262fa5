//! What the node answers.

use serde::Serialize;

use super::{
    CONNECT, ENCODING, PROTOCOL, SIGNALING, TRANSPORT, VERSION,
    requests::{Destination, ListingResource, destination},
};
use crate::peaq::orchestration::{
    goods::Listing,
    purchase::{Capability, DeliveryStatus, Goods, Price, Purchase, Status},
    times,
};

/// A purchase, as the API shows it.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(in super::super) struct PurchaseText<'a> {
    id: &'a str,
    status: Status,
    resource: PurchaseResource<'a>,
    buyer: PurchaseBuyer<'a>,
    payment: PurchasePayment<'a>,
    delivery: PurchaseDelivery<'a>,
    created_at: String,
    updated_at: String,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct PurchaseResource<'a> {
    #[serde(rename = "type")]
    kind: &'static str,
    listing_id: &'a str,
    mode: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    selection: Option<SelectionShown>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct SelectionShown {
    chunk_ids: Vec<String>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct PurchaseBuyer<'a> {
    id: &'a str,
    public_key: PublicKeyShown<'a>,
    delivery_capabilities: Vec<CapabilityShown<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    machine_id: Option<&'a str>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct PublicKeyShown<'a> {
    #[serde(rename = "type")]
    kind: &'static str,
    public_key_hex: &'a str,
}

/// A capability with what the server adds.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(in super::super) struct CapabilityShown<'a> {
    mode: &'static str,
    signaling: &'static str,
    #[serde(flatten)]
    said: &'a Capability,
}

impl<'a> From<&'a Capability> for CapabilityShown<'a> {
    fn from(said: &'a Capability) -> Self {
        Self { mode: "p2p", signaling: SIGNALING, said }
    }
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct PurchasePayment<'a> {
    status: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    rail: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    reference: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    recorded_at: Option<String>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct PurchaseDelivery<'a> {
    status: DeliveryStatus,
    mode: &'static str,
    transport_id: &'static str,
    protocols: [&'static str; 1],
    encoding: &'static str,
    session_id: Option<&'a str>,
}

/// `pending` or `verified`.
pub(in super::super) fn payment_status(purchase: &Purchase) -> &'static str {
    if purchase.is_paid() { "verified" } else { "pending" }
}

impl<'a> PurchaseText<'a> {
    /// `chunk_ids` are those that the buyer named, if it did.
    pub(in super::super) fn new(purchase: &'a Purchase, chunk_ids: Option<Vec<String>>) -> Self {
        let proof = purchase.proof.as_ref();
        Self {
            id: &purchase.id,
            status: purchase.status,
            resource: PurchaseResource {
                kind: "stream.listing",
                listing_id: &purchase.listing,
                mode: "bundle",
                selection: chunk_ids.map(|chunk_ids| SelectionShown { chunk_ids }),
            },
            buyer: PurchaseBuyer {
                id: &purchase.buyer.id,
                public_key: PublicKeyShown { kind: "x25519", public_key_hex: &purchase.buyer.public_key_hex },
                delivery_capabilities: purchase.buyer.capabilities.iter().map(CapabilityShown::from).collect(),
                machine_id: purchase.buyer.machine_id.as_deref(),
            },
            payment: PurchasePayment {
                status: payment_status(purchase),
                rail: proof.map(|_| "transfer"),
                reference: proof.map(|proof| proof.reference.hash()),
                recorded_at: proof.map(|proof| times::text(proof.recorded_ms)),
            },
            delivery: PurchaseDelivery {
                status: purchase.delivery,
                mode: "p2p",
                transport_id: TRANSPORT,
                protocols: [PROTOCOL],
                encoding: ENCODING,
                session_id: purchase.session_id.as_deref(),
            },
            created_at: times::text(purchase.created_ms),
            updated_at: times::text(purchase.updated_ms),
        }
    }

    /// The chunks that the buyer named, where they stand in the purchase itself.
    pub(in super::super) fn named(goods: &Goods) -> Option<Vec<String>> {
        match goods {
            Goods::Foreign { chunk_ids } if !chunk_ids.is_empty() => Some(chunk_ids.clone()),
            _ => None,
        }
    }
}

/// A listing, as the API shows it.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(in super::super) struct ListingText {
    id: String,
    machine_id: String,
    /// The peaqID, which the node proves over its own protocol.
    did: String,
    /// Always false: nothing shows that the machine of this DID has that id at peaq.
    machine_id_proven: bool,
    status: &'static str,
    resource: ListingResource,
    #[serde(skip_serializing_if = "Option::is_none")]
    topic: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    policy: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    chunk_count: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    size_bytes: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    start_time: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    end_time: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    chunk_ids: Option<Vec<String>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    amount: Option<AmountText>,
    payment_rails: Vec<ListingRail>,
    delivery_options: [TransportText; 1],
}

/// An amount.
#[derive(Debug, Clone, Default, Serialize)]
pub(in super::super) struct AmountText {
    pub(in super::super) value: String,
    pub(in super::super) token: String,
    pub(in super::super) chain: String,
}

impl From<Option<&Price>> for AmountText {
    fn from(price: Option<&Price>) -> Self {
        match price {
            Some(Price { amount, token, chain, .. }) => {
                Self { value: amount.clone(), token: token.clone(), chain: chain.clone() }
            }
            None => Self { value: "0".to_owned(), ..Self::default() },
        }
    }
}

#[derive(Debug, Serialize)]
struct ListingRail {
    #[serde(rename = "type")]
    kind: &'static str,
    destination: Destination,
}

/// The transport, as GET /delivery-transports lists it.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(in super::super) struct TransportText {
    mode: &'static str,
    transport_id: &'static str,
    version: &'static str,
    features: [&'static str; 1],
    signaling: &'static str,
    protocols: [&'static str; 1],
    encoding: &'static str,
    handoff: &'static str,
    connect_schema: ConnectSchema,
}

#[derive(Debug, Serialize)]
struct ConnectSchema {
    #[serde(rename = "type")]
    kind: &'static str,
    properties: ConnectProperties,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct ConnectProperties {
    #[serde(rename = "type")]
    kind: &'static str,
    url: &'static str,
    expires_at: &'static str,
}

/// The one transport there is.
pub(in super::super) fn transport() -> TransportText {
    TransportText {
        mode: "p2p",
        transport_id: TRANSPORT,
        version: VERSION,
        features: ["chunks"],
        signaling: SIGNALING,
        protocols: [PROTOCOL],
        encoding: ENCODING,
        handoff: "prepare-access",
        connect_schema: ConnectSchema {
            kind: "object",
            properties: ConnectProperties { kind: CONNECT, url: "string", expires_at: "string" },
        },
    }
}

/// What all listings of a node have in common.
pub(in super::super) struct Seller<'a> {
    pub(in super::super) machine_id: &'a str,
    pub(in super::super) did: &'a str,
    pub(in super::super) price: Option<&'a Price>,
}

impl ListingText {
    fn common(seller: &Seller<'_>, id: &str, resource: ListingResource) -> Self {
        let rail = |price| ListingRail { kind: "transfer", destination: destination(price) };
        Self {
            id: id.to_owned(),
            machine_id: seller.machine_id.to_owned(),
            did: seller.did.to_owned(),
            machine_id_proven: false,
            status: "active",
            resource,
            topic: None,
            policy: None,
            chunk_count: None,
            size_bytes: None,
            start_time: None,
            end_time: None,
            chunk_ids: None,
            amount: seller.price.map(|price| Some(price).into()),
            payment_rails: seller.price.map(rail).into_iter().collect(),
            delivery_options: [transport()],
        }
    }

    /// A dataset of this machine; `chunk_ids` where they are wanted.
    pub(in super::super) fn own(
        seller: &Seller<'_>,
        listing: &Listing,
        policy: &'static str,
        chunk_ids: Option<Vec<String>>,
    ) -> Self {
        let resource =
            ListingResource { kind: "stream.bundle".to_owned(), mode: "bundle".to_owned(), supports_live: false };
        let entry = &listing.entry;
        Self {
            topic: Some(listing.stream.clone()),
            policy: Some(policy),
            chunk_count: Some(entry.chunk_count),
            size_bytes: Some(entry.bytes),
            start_time: Some(times::text(entry.time_from_ms)),
            // Rounded up: what ends within a second ends at its end.
            end_time: Some(times::text(entry.time_to_ms.saturating_add(999))),
            chunk_ids,
            ..Self::common(seller, &listing.id, resource)
        }
    }

    /// What a seller with peaq's SDK listed.
    pub(in super::super) fn foreign(seller: &Seller<'_>, id: &str, resource: ListingResource) -> Self {
        Self::common(seller, id, resource)
    }
}
