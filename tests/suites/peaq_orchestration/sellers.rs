//! A seller with peaq's SDK that uses the node as its marketplace.

use serde_json::json;
use tributary_tests::{
    delivery::{BUYER, BUYER_KEY, buyer_public, hex},
    orchestration::{AGENTS, MACHINE, Market, SHARED, private},
};

use super::{id, same, transaction};

#[tokio::test]
async fn a_seller_with_peaqs_sdk_hears_of_a_payment_and_delivers() {
    let more = format!("{}    references_file: paid.txt\n", Market::priced("static"));
    let market = Market::open(1_000, "policy: free", &more).await;
    private(&market.home.join("paid.txt"), &transaction(3));
    let goods = market.sandbox.path().join("goods");
    let bytes: Vec<u8> = (0..50_000_u32).flat_map(u32::to_be_bytes).collect();
    std::fs::write(&goods, bytes).unwrap();
    let mut buyer = market.sdk(SHARED, SHARED);
    let order = json!({ "listing": "lst-of-somebody", "buyer": BUYER, "key": buyer_public() });
    assert_eq!(buyer.refused("create", order.clone()).await, "LISTING_NOT_FOUND");

    let mut seller = market.sdk(AGENTS, AGENTS);
    let sell = |machine: &str, agent: &str, token: &str, listing: &str| json!({ "machine": machine, "agent": agent, "token": token, "listing": listing, "path": goods, "size": 65536 });
    assert_eq!(seller.refused("sell", sell("99", "agent-1", AGENTS, "lst-of-somebody")).await, "MACHINE_UNKNOWN");
    assert_eq!(
        seller.refused("sell", sell(MACHINE, "agent-1", AGENTS, &market.listing)).await,
        "LISTING_MANAGED_BY_NODE"
    );
    seller.get("sell", sell(MACHINE, "agent-1", AGENTS, "lst-of-somebody")).await;
    let listings = buyer.get("listings", json!({})).await;
    assert!(listings.as_array().unwrap().iter().any(|listing| listing["id"] == "lst-of-somebody"), "{listings}");

    let purchase = id(&buyer.get("create", order).await);
    assert_eq!(buyer.refused("delivery", json!({ "purchase": purchase })).await, "STREAM_DELIVERY_NOT_READY");
    let proof = json!({ "purchase": purchase, "transaction_hash": transaction(3) });
    assert_eq!(buyer.get("proof", proof).await["payment_status"], "verified");
    let out = market.sandbox.path().join("out");
    let arguments = json!({ "purchase": purchase, "buyer": BUYER, "key": hex(&BUYER_KEY), "out": out });
    assert_eq!(buyer.get("receive", arguments).await["chunks"], 4);
    assert!(same(&out, &goods), "other bytes came out");
    let heard = seller.get("sold", json!({ "purchase": purchase })).await["heard"].clone();
    for kind in [
        "purchase.created",
        "purchase.payment_proof.recorded",
        "purchase.delivery.accessed",
        "purchase.buyer.connected",
        "purchase.delivery.started",
    ] {
        assert!(heard.as_array().unwrap().contains(&json!(kind)), "{kind} is not among {heard}");
    }
    assert_eq!(buyer.get("show", json!({ "purchase": purchase })).await["status"], "completed");
}
