//! Nodes that are killed between payment and delivery.

use serde_json::json;
use tributary_tests::{
    delivery::BUYER,
    orchestration::{Market, SHARED, private},
};

use super::{fetch, id, orders, seen, transaction};

#[tokio::test]
async fn a_recorded_payment_outlives_a_kill_and_releases_one_delivery() {
    let more = format!("{}    references_file: paid.txt\n", Market::priced("static"));
    let mut market = Market::open(150_000, "policy: free", &more).await;
    private(&market.home.join("paid.txt"), &transaction(7));
    let mut sdk = market.sdk(SHARED, SHARED);
    let purchase = id(&sdk.order(&market.listing, BUYER).await);
    let other = id(&sdk.order(&market.listing, BUYER).await);
    let proof = json!({ "purchase": purchase, "transaction_hash": transaction(7) });
    let first = sdk.get("proof", proof.clone()).await;
    assert_eq!(first["payment_status"], "verified");
    // A handoff that was given out before the kill is worth nothing after it.
    let before = sdk.get("delivery", json!({ "purchase": purchase })).await;
    market.crash().await;

    // Even when the list forgets it: it was decided.
    private(&market.home.join("paid.txt"), "");
    assert_eq!(sdk.get("proof", proof).await, first);
    let replayed = json!({ "purchase": other, "transaction_hash": transaction(7) });
    assert_eq!(sdk.refused("proof", replayed).await, "PAYMENT_REFERENCE_USED");
    let after = sdk.get("delivery", json!({ "purchase": purchase })).await;
    assert_ne!(after["delivery"]["session_id"], before["delivery"]["session_id"]);
    fetch(&market, &mut sdk, &purchase, BUYER, 3).await;
    market.crash().await;
    assert_eq!(sdk.get("show", json!({ "purchase": purchase })).await["status"], "completed");
    assert_eq!(sdk.refused("delivery", json!({ "purchase": purchase })).await, "PURCHASE_OVER");
    assert_eq!(sdk.refused("delivery", json!({ "purchase": other })).await, "STREAM_DELIVERY_NOT_READY");
}

#[tokio::test]
async fn a_proof_that_waits_and_its_confirmation_outlive_kills() {
    let mut market = Market::open(70_000, "policy: free", &Market::priced("manual")).await;
    let mut sdk = market.sdk(SHARED, SHARED);
    let purchase = id(&sdk.order(&market.listing, BUYER).await);
    let proof = json!({ "purchase": purchase, "transaction_hash": transaction(9), "payer_address": "0x22" });
    assert_eq!(sdk.get("proof", proof).await["payment_status"], "pending");
    market.crash().await;
    let waits = seen(&market, &purchase).await;
    assert_eq!((&waits["waits_for"], &waits["payer"]), (&json!("payment"), &json!("0x22")));
    assert_eq!(waits["payment"], format!("peaq:{}", transaction(9)));
    assert_eq!(orders(&market, &["confirm", &purchase]).await.json()["status"], "payment_verified");
    market.crash().await;
    assert_eq!(orders(&market, &["confirm", &purchase]).await.code, Some(1));
    fetch(&market, &mut sdk, &purchase, BUYER, 2).await;
}
