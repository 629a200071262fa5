//! Requests of those who should get nothing.

use serde_json::{Value, json};
use tributary_tests::{
    delivery::{BUYER, buyer_public},
    orchestration::{AGENTS, ALICES, MACHINE, Market, SHARED},
};

/// The status and the error code of an answer.
fn refusal(answer: &str) -> (u16, String) {
    let status = answer.split(' ').nth(1).unwrap_or_default().parse().unwrap_or(0);
    let body = answer.split_once("\r\n\r\n").map(|(_, body)| body).unwrap_or_default();
    let body: Value = serde_json::from_str(body).unwrap_or_default();
    (status, body["error"]["code"].as_str().unwrap_or_default().to_owned())
}

async fn ask(market: &Market, method: &str, path: &str, headers: &[(&str, &str)], body: &str) -> (u16, Value, String) {
    let host = format!("127.0.0.1:{}", market.port);
    let mut head = format!("{method} {path} HTTP/1.1\r\nconnection: close\r\n");
    if !headers.iter().any(|(name, _)| *name == "host") {
        head.push_str(&format!("host: {host}\r\n"));
    }
    for (name, value) in headers {
        head.push_str(&format!("{name}: {value}\r\n"));
    }
    if !body.is_empty() {
        head.push_str(&format!("content-type: application/json\r\ncontent-length: {}\r\n", body.len()));
    }
    let answer = market.raw(format!("{head}\r\n{body}").as_bytes()).await;
    let (status, code) = refusal(&answer);
    let body = answer.split_once("\r\n\r\n").map(|(_, body)| body).unwrap_or_default();
    (status, serde_json::from_str(body).unwrap_or_default(), code)
}

const KEY: (&str, &str) = ("x-api-key", SHARED);

#[tokio::test]
async fn wrong_tokens_hosts_bodies_and_ids_get_nothing() {
    let market = Market::open(70_000, "policy: free", "").await;
    let listings = "/api/v1/stream/listings";
    let refused = async |method: &str, path: &str, headers: &[(&str, &str)], body: &str| {
        let (status, _, code) = ask(&market, method, path, headers, body).await;
        (status, code)
    };
    let is = |status: u16, code: &str| (status, code.to_owned());

    assert_eq!(ask(&market, "GET", listings, &[KEY], "").await.0, 200);
    for headers in [vec![], vec![("x-api-key", "shared-token-of-all-buyer")], vec![("authorization", SHARED)]] {
        assert_eq!(refused("GET", listings, &headers, "").await, is(401, "UNAUTHORIZED"), "{headers:?}");
    }
    // A name that a page brought along (DNS rebinding), with a good token, and a page that says where it comes from.
    let rebound = [KEY, ("host", "evil.example:80")];
    assert_eq!(refused("GET", listings, &rebound, "").await, is(421, "HOST_NOT_ALLOWED"));
    let page = [KEY, ("origin", "https://evil.example")];
    assert_eq!(refused("GET", listings, &page, "").await, is(403, "ORIGIN_NOT_ALLOWED"));

    let huge = format!("{{\"pad\": \"{}\"}}", "x".repeat(3 << 20));
    assert_eq!(refused("POST", "/api/v1/purchases", &[KEY], &huge).await, is(413, "BODY_TOO_LARGE"));
    for bad in ["{", "[]", "{\"resource\": 7}"] {
        let (status, code) = refused("POST", "/api/v1/purchases", &[KEY], bad).await;
        assert!(matches!(status, 400 | 422) && code == "INVALID_REQUEST", "{bad}: {status} {code}");
    }
    let order = |buyer: &str, key: &str, listing: &str| {
        json!({
            "resource": { "type": "stream.listing", "listingId": listing },
            "buyer": { "id": buyer, "publicKey": { "type": "x25519", "publicKeyHex": key } },
        })
        .to_string()
    };
    let zero = order(BUYER, &"00".repeat(32), &market.listing);
    assert_eq!(refused("POST", "/api/v1/purchases", &[KEY], &zero).await, is(400, "INVALID_REQUEST"));
    let unknown = order(BUYER, &buyer_public(), &format!("lst_{}", "ab".repeat(32)));
    assert_eq!(refused("POST", "/api/v1/purchases", &[KEY], &unknown).await, is(404, "LISTING_NOT_FOUND"));
    assert_eq!(refused("GET", "/api/v1/purchases/pur_nothing", &[KEY], "").await, is(404, "PURCHASE_NOT_FOUND"));
    assert_eq!(refused("GET", "/api/v1/machines", &[KEY], "").await, is(404, "NOT_FOUND"));
    assert_eq!(refused("DELETE", listings, &[KEY], "").await.0, 405);

    // Another token does not see the order, and a buyer's is not a seller's.
    let good = order(BUYER, &buyer_public(), &market.listing);
    let (status, created, _) = ask(&market, "POST", "/api/v1/purchases", &[KEY], &good).await;
    assert_eq!(status, 201, "{created}");
    let purchase = format!("/api/v1/purchases/{}", created["item"]["id"].as_str().unwrap());
    let alice = [("x-agent-pairing-token", ALICES)];
    for path in [purchase.clone(), format!("{purchase}/delivery")] {
        assert_eq!(refused("GET", &path, &alice, "").await, is(404, "PURCHASE_NOT_FOUND"), "{path}");
    }
    let events = format!("{purchase}/events");
    let completed = r#"{"actor": {"type": "buyer"}, "type": "delivery.completed"}"#;
    assert_eq!(refused("POST", &events, &alice, completed).await, is(404, "PURCHASE_NOT_FOUND"));
    let seller = r#"{"actor": {"type": "seller"}, "type": "delivery.completed"}"#;
    assert_eq!(refused("POST", &events, &[KEY], seller).await, is(403, "ACTOR_MISMATCH"));
    let agent = [("x-api-key", AGENTS)];
    assert_eq!(refused("GET", &format!("{purchase}/delivery"), &agent, "").await, is(403, "NOT_A_BUYER"));
    assert_eq!(refused("POST", "/api/v1/purchases", &agent, &good).await, is(403, "NOT_A_BUYER"));

    let capability = r#"{"agentId": "agent-1", "capabilities": [{"transportId": "peaqos-p2p", "version": "v1"}]}"#;
    let path = |machine: &str| format!("/api/v1/machines/{machine}/delivery-capabilities");
    assert_eq!(refused("PUT", &path(MACHINE), &[KEY], capability).await, is(403, "NOT_A_SELLER"));
    assert_eq!(refused("PUT", &path("99"), &agent, capability).await, is(404, "MACHINE_UNKNOWN"));
    assert_eq!(ask(&market, "PUT", &path(&format!("did:peaq:{MACHINE}")), &agent, capability).await.0, 200);

    let prepare = json!({
        "machineId": MACHINE, "agentId": "agent-1", "agentToken": SHARED,
        "items": [{
            "schemaVersion": "peaq.stream.buyer-access.v1", "chunkId": "0x01",
            "buyer": {
                "recipientId": BUYER, "recipientType": "buyer", "algorithm": "x25519-sealedbox",
                "publicKeyHex": buyer_public(), "wrappedKeyHex": "00".repeat(80),
            },
        }],
        "delivery": {
            "mode": "p2p", "transportId": "peaqos-p2p",
            "connect": { "type": "peaqos-p2p-url", "url": "peaqos-p2p://s", "expiresAt": "2100-01-01T00:00:00Z" },
        },
    });
    let id = created["item"]["id"].as_str().unwrap();
    let path = format!("/api/v1/stream/orders/{id}/prepare-access");
    assert_eq!(refused("POST", &path, &[KEY], &prepare.to_string()).await, is(401, "UNAUTHORIZED"));
    let mut by_agent = prepare;
    by_agent["agentToken"] = json!(AGENTS);
    assert_eq!(refused("POST", &path, &agent, &by_agent.to_string()).await, is(409, "DELIVERED_BY_NODE"));

    // The control socket is for the seller, and says so before it becomes a socket.
    let socket = format!("/api/v1/machines/{MACHINE}/control-socket");
    let upgrade = [
        ("x-machine-agent-id", "agent-1"),
        ("x-machine-agent-token", SHARED),
        ("upgrade", "websocket"),
        ("sec-websocket-version", "13"),
        ("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ=="),
    ];
    assert_eq!(refused("GET", &socket, &upgrade, "").await, is(401, "UNAUTHORIZED"));
    assert!(market.node.log().contains("not proven"), "nobody was told that the machine's id is unproven");
}

#[tokio::test]
async fn a_seller_cannot_swap_the_buyers_key_and_prepares_once() {
    let market = Market::open(1_000, "policy: free", "").await;
    let agent = [("x-api-key", AGENTS)];
    let capability = r#"{"agentId": "agent-1", "capabilities": [{"transportId": "peaqos-p2p", "version": "v1"}]}"#;
    let machine = format!("/api/v1/machines/{MACHINE}");
    let order = json!({
        "resource": { "type": "stream.listing", "listingId": "theirs", "selection": { "chunkIds": ["0x01"] } },
        "buyer": { "id": BUYER, "publicKey": { "type": "x25519", "publicKeyHex": buyer_public() } },
    })
    .to_string();
    let listing = format!("{machine}/stream/listings/theirs");
    assert_eq!(ask(&market, "PATCH", &listing, &[KEY], "{}").await.2, "NOT_A_SELLER");
    assert_eq!(ask(&market, "PATCH", &listing, &agent, "{}").await.0, 200);
    assert_eq!(ask(&market, "POST", "/api/v1/purchases", &[KEY], &order).await.2, "SELLER_OFFLINE");
    assert_eq!(ask(&market, "PUT", &format!("{machine}/delivery-capabilities"), &agent, capability).await.0, 200);
    let (status, created, _) = ask(&market, "POST", "/api/v1/purchases", &[KEY], &order).await;
    assert_eq!((status, &created["item"]["status"]), (201, &json!("payment_verified")));
    let id = created["item"]["id"].as_str().unwrap();
    let delivery = format!("/api/v1/purchases/{id}/delivery");
    assert_eq!(ask(&market, "GET", &delivery, &[KEY], "").await.2, "STREAM_DELIVERY_NOT_READY");

    let prepare = |chunk: &str, buyer: &str, key: &str| {
        json!({
            "machineId": MACHINE, "agentId": "agent-1", "agentToken": AGENTS,
            "items": [{
                "schemaVersion": "peaq.stream.buyer-access.v1", "chunkId": chunk,
                "buyer": {
                    "recipientId": buyer, "recipientType": "buyer", "algorithm": "x25519-sealedbox",
                    "publicKeyHex": key, "wrappedKeyHex": "00".repeat(80),
                },
            }],
            "delivery": {
                "mode": "p2p", "transportId": "peaqos-p2p",
                "connect": { "type": "peaqos-p2p-url", "url": "peaqos-p2p://s", "expiresAt": "2026-01-01T00:00:00Z" },
            },
        })
    };
    let path = format!("/api/v1/stream/orders/{id}/prepare-access");
    let other = "63a98d7fe982a79d10a7a785ab4a347c23bae6e5d4fded76865febe138ef212d";
    for (request, code) in [
        (prepare("0x01", BUYER, other), "ACCESS_NOT_FOR_BUYER"),
        (prepare("0x01", "somebody", &buyer_public()), "ACCESS_NOT_FOR_BUYER"),
        (prepare("0x02", BUYER, &buyer_public()), "ACCESS_NOT_AS_ORDERED"),
        // Long over.
        (prepare("0x01", BUYER, &buyer_public()), "INVALID_REQUEST"),
    ] {
        assert_eq!(ask(&market, "POST", &path, &agent, &request.to_string()).await.2, code);
    }
    let soon = market.node.status().await.now_ms / 1000 + 300;
    let soon = tributary_protocol::package::timestamp_text(soon * 1_000_000_000);
    let mut good = prepare("0x01", BUYER, &buyer_public());
    good["delivery"]["connect"]["expiresAt"] = json!(format!("{}Z", &soon[..19]));
    let (status, first, _) = ask(&market, "POST", &path, &agent, &good.to_string()).await;
    assert_eq!(status, 200, "{first}");
    let (_, again, _) = ask(&market, "POST", &path, &agent, &good.to_string()).await;
    assert_eq!(again, first, "the same once more is the same session");
    let (status, fetched, _) = ask(&market, "GET", &delivery, &[KEY], "").await;
    assert_eq!((status, &fetched["delivery"]["sessionId"]), (200, &first["item"]["deliverySessionId"]));
    assert_eq!(fetched["access"], good["items"]);
    assert_eq!(fetched["delivery"]["connect"], good["delivery"]["connect"]);
}
