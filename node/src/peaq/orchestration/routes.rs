//! The routes under `/api/v1`: from HTTP to the [`Shop`] and back.

use std::sync::Arc;

use axum::{
    Json, Router,
    extract::{DefaultBodyLimit, Path, Query, State},
    http::{HeaderMap, StatusCode},
    response::IntoResponse,
    routing::{get, patch, post, put},
};
use serde::{Deserialize, Serialize};
use tokio::sync::Semaphore;

use super::{
    answer::{Answer, ApiError, Body, Item, Items},
    foreign,
    gate::Caller,
    goods::{self, GoodsError},
    shop::{self, Shop},
    socket, times,
    wire::{
        CapabilityShown, CreatePurchase, EventText, ListingText, PatchListing, PaymentIntent, PaymentProof,
        PrepareAccess, PurchaseText, PutCapabilities, Seller, TransportText, transport,
    },
};
use crate::config::Policy;

/// The longest body, bytes: an order that names its chunks one by one.
const MAX_BODY: usize = 2 << 20;
/// The longest body of a prepared delivery, bytes: one entry of 500 bytes per chunk.
const MAX_PREPARED: usize = 16 << 20;
/// Requests that wait for the disk at a time; the others queue.
const AT_A_TIME: usize = 8;
/// Listings on a page.
const PAGE: usize = 100;

/// What handlers work with.
#[derive(Clone)]
pub(super) struct Api {
    pub(super) shop: Arc<Shop>,
    places: Arc<Semaphore>,
}

impl Api {
    pub(super) fn new(shop: Arc<Shop>) -> Self {
        Self { shop, places: Arc::new(Semaphore::new(AT_A_TIME)) }
    }

    /// Runs work that waits for the disk.
    pub(super) async fn run<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Shop) -> Result<T, ApiError> + Send + 'static,
    ) -> Result<T, ApiError> {
        let stopping = || ApiError::new(StatusCode::SERVICE_UNAVAILABLE, "UNAVAILABLE", "the node is stopping");
        let place = Arc::clone(&self.places).acquire_owned().await.map_err(|_| stopping())?;
        let shop = Arc::clone(&self.shop);
        let done = tokio::task::spawn_blocking(move || {
            let _place = place;
            work(&shop)
        });
        done.await.map_err(|_| stopping())?
    }

    fn caller(&self, headers: &HeaderMap) -> Result<Caller, ApiError> {
        self.shop.gate.caller(headers)
    }
}

pub(super) fn routes(api: Api) -> Router {
    let v1 = Router::new()
        .route("/payment-rails", get(payment_rails))
        .route("/delivery-transports", get(delivery_transports))
        .route("/stream/listings", get(listings))
        .route("/stream/listings/{id}", get(listing))
        .route("/purchases", post(create))
        .route("/purchases/{id}", get(purchase))
        .route("/purchases/{id}/payment-intent", post(payment_intent))
        .route("/purchases/{id}/payment-proof", post(payment_proof))
        .route("/purchases/{id}/delivery", get(delivery))
        .route("/purchases/{id}/events", post(event))
        .route("/machines/{id}/delivery-capabilities", put(capabilities))
        .route("/machines/{id}/stream/listings/{listing}", patch(put_listing))
        .route("/machines/{id}/control-socket", get(socket::control_socket))
        .layer(DefaultBodyLimit::max(MAX_BODY))
        .route("/stream/orders/{id}/prepare-access", post(prepare_access).layer(DefaultBodyLimit::max(MAX_PREPARED)));
    let no_route = || async {
        ApiError::not_found("NOT_FOUND", "this node has no such route; it offers what a stream purchase needs")
    };
    let no_method = || async {
        ApiError::new(StatusCode::METHOD_NOT_ALLOWED, "METHOD_NOT_ALLOWED", "this route does not know that method")
    };
    Router::new().nest("/api/v1", v1).fallback(no_route).method_not_allowed_fallback(no_method).with_state(api)
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct PaymentRail {
    #[serde(rename = "type")]
    kind: &'static str,
    chains: Vec<String>,
    tokens: Vec<String>,
    /// The only word that peaq's SDK takes here. Who verifies is in the configuration.
    verification: &'static str,
}

async fn payment_rails(State(api): State<Api>, headers: HeaderMap) -> Answer<Items<PaymentRail>> {
    api.caller(&headers)?;
    let rail = api.shop.price.as_ref().map(|price| PaymentRail {
        kind: "transfer",
        chains: vec![price.chain.clone()],
        tokens: vec![price.token.clone()],
        verification: "destination-chain-finality",
    });
    Ok(Json(Items { items: rail.into_iter().collect(), next_cursor: None }))
}

async fn delivery_transports(State(api): State<Api>, headers: HeaderMap) -> Answer<Items<TransportText>> {
    api.caller(&headers)?;
    Ok(Json(Items { items: vec![transport()], next_cursor: None }))
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct ListingQuery {
    machine_id: Option<String>,
    cursor: Option<String>,
    limit: Option<usize>,
}

fn policy_name(policy: &Policy) -> &'static str {
    match policy {
        Policy::Free => "free",
        Policy::Allowlist(_) => "allowlist",
        Policy::Manual => "manual",
    }
}

impl Shop {
    fn seller(&self) -> Seller<'_> {
        Seller { machine_id: &self.config.machine_id, did: &self.did, price: self.price.as_ref() }
    }

    fn show_listing(&self, listing: &goods::Listing, chunk_ids: Option<Vec<String>>) -> ListingText {
        let config = self.shelf.machine().stream_config(&listing.entry.stream);
        let policy = config.map_or("manual", |config| policy_name(&config.access.policy));
        ListingText::own(&self.seller(), listing, policy, chunk_ids)
    }

    fn list(&self, query: &ListingQuery) -> Result<Items<ListingText>, ApiError> {
        if query.machine_id.as_ref().is_some_and(|id| self.check_machine(id).is_err()) {
            return Ok(Items { items: Vec::new(), next_cursor: None });
        }
        let limit = query.limit.unwrap_or(PAGE).clamp(1, PAGE);
        let (own, next_cursor) = self.shelf.list(query.cursor.as_deref(), limit)?;
        let mut items: Vec<ListingText> = own.iter().map(|listing| self.show_listing(listing, None)).collect();
        if next_cursor.is_none() {
            // Those of the seller with peaq's SDK stand behind the node's own, on the last page.
            for (id, resource) in foreign::listings(&self.store)? {
                items.push(ListingText::foreign(&self.seller(), &id, resource));
            }
        }
        Ok(Items { items, next_cursor })
    }

    fn one_listing(&self, id: &str) -> Result<ListingText, ApiError> {
        if !goods::is_own(id) {
            let resource = foreign::listing(&self.store, id)?.ok_or(GoodsError::NotFound)?;
            return Ok(ListingText::foreign(&self.seller(), id, resource));
        }
        let listing = self.shelf.find(id)?;
        let count = listing.entry.chunk_count.min(goods::MAX_CHUNKS);
        let chunk_ids = self.shelf.sold(&listing.entry.dataset, count)?.ids();
        Ok(self.show_listing(&listing, Some(chunk_ids)))
    }
}

async fn listings(
    State(api): State<Api>,
    headers: HeaderMap,
    Query(query): Query<ListingQuery>,
) -> Answer<Items<ListingText>> {
    api.caller(&headers)?;
    Ok(Json(api.run(move |shop| shop.list(&query)).await?))
}

async fn listing(State(api): State<Api>, headers: HeaderMap, Path(id): Path<String>) -> Answer<Item<ListingText>> {
    api.caller(&headers)?;
    let item = api.run(move |shop| shop.one_listing(&id)).await?;
    Ok(Json(Item { item }))
}

async fn create(
    State(api): State<Api>,
    headers: HeaderMap,
    Body(request): Body<CreatePurchase>,
) -> Result<impl IntoResponse, ApiError> {
    let caller = api.caller(&headers)?;
    let (purchase, named) = api
        .run(move |shop| {
            let purchase = shop.create(&caller, request)?;
            let named = shop.named(&purchase);
            Ok((purchase, named))
        })
        .await?;
    Ok((StatusCode::CREATED, Json(Item { item: PurchaseText::new(&purchase, named) })).into_response())
}

async fn purchase(
    State(api): State<Api>,
    headers: HeaderMap,
    Path(id): Path<String>,
) -> Result<impl IntoResponse, ApiError> {
    let caller = api.caller(&headers)?;
    let (purchase, named) = api.run(move |shop| shop.show(&caller, &id)).await?;
    Ok(Json(Item { item: PurchaseText::new(&purchase, named) }).into_response())
}

async fn payment_intent(
    State(api): State<Api>,
    headers: HeaderMap,
    Path(id): Path<String>,
    Body(request): Body<PaymentIntent>,
) -> Result<impl IntoResponse, ApiError> {
    let caller = api.caller(&headers)?;
    let item = api.run(move |shop| shop.intend(&caller, &id, request)).await?;
    Ok(Json(Item { item }))
}

async fn payment_proof(
    State(api): State<Api>,
    headers: HeaderMap,
    Path(id): Path<String>,
    Body(request): Body<PaymentProof>,
) -> Result<impl IntoResponse, ApiError> {
    let caller = api.caller(&headers)?;
    let item = api.run(move |shop| shop.prove(&caller, &id, request)).await?;
    Ok(Json(Item { item }))
}

async fn delivery(
    State(api): State<Api>,
    headers: HeaderMap,
    Path(id): Path<String>,
) -> Result<impl IntoResponse, ApiError> {
    let caller = api.caller(&headers)?;
    Ok(Json(api.run(move |shop| shop.deliver(&caller, &id)).await?))
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct EventShown {
    id: String,
    purchase_id: String,
    #[serde(rename = "type")]
    kind: &'static str,
    created_at: String,
}

async fn event(
    State(api): State<Api>,
    headers: HeaderMap,
    Path(id): Path<String>,
    Body(request): Body<EventText>,
) -> Answer<Item<EventShown>> {
    let caller = api.caller(&headers)?;
    let purchase_id = id.clone();
    let kind = api.run(move |shop| shop.report(&caller, &id, &request)).await?;
    let created_at = times::text(api.shop.now_ms());
    Ok(Json(Item { item: EventShown { id: shop::new_id("evt"), purchase_id, kind, created_at } }))
}

async fn capabilities(
    State(api): State<Api>,
    headers: HeaderMap,
    Path(id): Path<String>,
    Body(request): Body<PutCapabilities>,
) -> Result<impl IntoResponse, ApiError> {
    #[derive(Serialize)]
    #[serde(rename_all = "camelCase")]
    struct Registered<'a> {
        machine_id: &'a str,
        agent_id: &'a str,
        capabilities: Vec<CapabilityShown<'a>>,
        resource_types: &'a [String],
        status: &'static str,
        updated_at: String,
        expires_at: &'a str,
    }
    let caller = api.caller(&headers)?;
    let machine_id = id.clone();
    let agent_id = request.agent_id.clone();
    let held = api.run(move |shop| shop.register(&caller, &id, request)).await?;
    let item = Registered {
        machine_id: &machine_id,
        agent_id: &agent_id,
        capabilities: held.capabilities.iter().map(CapabilityShown::from).collect(),
        resource_types: &held.resource_types,
        status: if held.expires_ms > api.shop.now_ms() { "active" } else { "expired" },
        updated_at: times::text(held.updated_ms),
        expires_at: &held.expires_at,
    };
    Ok(Json(Item { item }).into_response())
}

async fn put_listing(
    State(api): State<Api>,
    headers: HeaderMap,
    Path((id, listing)): Path<(String, String)>,
    Body(request): Body<PatchListing>,
) -> Answer<Item<ListingText>> {
    let caller = api.caller(&headers)?;
    let item = api
        .run(move |shop| {
            let resource = shop.put_listing(&caller, &id, &listing, request)?;
            Ok(ListingText::foreign(&shop.seller(), &listing, resource))
        })
        .await?;
    Ok(Json(Item { item }))
}

async fn prepare_access(
    State(api): State<Api>,
    headers: HeaderMap,
    Path(id): Path<String>,
    Body(request): Body<PrepareAccess>,
) -> Result<impl IntoResponse, ApiError> {
    // The seller's own credentials are in the body; the headers may carry any token that opens the API.
    api.caller(&headers)?;
    Ok(Json(api.run(move |shop| shop.prepare(&id, request)).await?))
}
