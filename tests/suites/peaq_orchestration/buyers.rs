//! Buyers with peaq's SDK.

use serde_json::json;
use tributary_tests::{
    delivery::{BUYER, BUYER_KEY, buyer_public, hex},
    orchestration::{ALICE, ALICES, MACHINE, Market, PAY_TO, SHARED, private},
};

use super::{fetch, id, orders, same, seen, transaction};

#[tokio::test]
async fn a_buyer_with_peaqs_sdk_discovers_orders_pays_and_receives() {
    let more = format!("{}    references_file: paid.txt\n", Market::priced("static"));
    let market = Market::open(200_000, "policy: free", &more).await;
    let mut sdk = market.sdk(SHARED, SHARED);

    let rails = sdk.get("rails", json!({})).await;
    assert_eq!((&rails[0]["type"], &rails[0]["chains"][0]), (&json!("transfer"), &json!("peaq")));
    let transports = sdk.get("transports", json!({})).await;
    assert_eq!(transports[0]["connect_schema"]["properties"]["type"], "peaqos-p2p-url");
    let listings = sdk.get("listings", json!({})).await;
    assert_eq!(listings.as_array().unwrap().len(), 1);
    let listing = &listings[0];
    assert_eq!((&listing["id"], &listing["machine_id"]), (&json!(market.listing), &json!(MACHINE)));
    assert_eq!((&listing["machine_id_proven"], &listing["topic"]), (&json!(false), &json!("rec")));
    assert_eq!(listing["payment_rails"][0]["destination"]["pay_to"], PAY_TO);

    let order = sdk.order(&market.listing, BUYER).await;
    assert_eq!((&order["status"], &order["payment"]["status"]), (&json!("delivery_reserved"), &json!("pending")));
    let purchase = id(&order);
    assert_eq!(sdk.refused("delivery", json!({ "purchase": purchase })).await, "STREAM_DELIVERY_NOT_READY");
    assert_eq!(sdk.refused("intent", json!({ "purchase": purchase, "pay_to": "0xdef" })).await, "PAYMENT_MISMATCH");
    let intent = sdk.get("intent", json!({ "purchase": purchase, "pay_to": PAY_TO })).await;
    assert_eq!((&intent["status"], &intent["amount"]["value"]), (&json!("payment_pending"), &json!("1.5")));

    // Nobody has seen the payment yet, then somebody has.
    let proof =
        json!({ "purchase": purchase, "transaction_hash": transaction(0xaa), "amount": "1.50", "chain": "peaq" });
    assert_eq!(sdk.refused("proof", proof.clone()).await, "PAYMENT_NOT_FOUND");
    assert_eq!(sdk.get("show", json!({ "purchase": purchase })).await["payment"]["status"], "pending");
    private(&market.home.join("paid.txt"), &format!("{}\n", transaction(0xaa)));
    let mut wrong = proof.clone();
    wrong["amount"] = json!("1");
    assert_eq!(sdk.refused("proof", wrong).await, "PAYMENT_MISMATCH");
    let first = sdk.get("proof", proof.clone()).await;
    assert_eq!((&first["payment_status"], &first["delivery_status"]), (&json!("verified"), &json!("releasable")));
    assert_eq!(first["receipt"]["transaction_hash"], transaction(0xaa));
    assert_eq!(sdk.get("proof", proof).await, first, "the same proof again has the same answer");

    fetch(&market, &mut sdk, &purchase, BUYER, 4).await;
    let done = sdk.get("show", json!({ "purchase": purchase })).await;
    assert_eq!((&done["status"], &done["delivery"]["status"]), (&json!("completed"), &json!("completed")));

    // The payment is used up, however it is spelt.
    let second = id(&sdk.order(&market.listing, BUYER).await);
    let bare = transaction(0xaa).to_uppercase().replace("0X", "");
    for spelling in [transaction(0xaa), transaction(0xaa).to_uppercase(), bare] {
        let replayed = json!({ "purchase": second, "transaction_hash": spelling });
        assert_eq!(sdk.refused("proof", replayed).await, "PAYMENT_REFERENCE_USED", "{spelling}");
    }
    let x402 = json!({ "purchase": second, "rail": "x402", "payment_header": "abc" });
    assert_eq!(sdk.refused("proof", x402).await, "PAYMENT_RAIL_UNSUPPORTED");
    assert_eq!(sdk.refused("delivery", json!({ "purchase": second })).await, "STREAM_DELIVERY_NOT_READY");
}

#[tokio::test]
async fn the_first_chunks_are_sold_and_chunks_from_the_middle_are_not() {
    let market = Market::open(200_000, "policy: free", "").await;
    let mut sdk = market.sdk(SHARED, SHARED);
    let ids = sdk.get("listing", json!({ "id": market.listing })).await["chunk_ids"].clone();
    let ids = ids.as_array().unwrap();
    assert_eq!(ids.len(), 4);
    let order =
        |selection| json!({ "listing": market.listing, "buyer": BUYER, "key": buyer_public(), "selection": selection });
    for middle in [vec![&ids[1]], vec![&ids[0], &ids[2]], vec![&ids[3]]] {
        let code = sdk.refused("create", order(json!({ "chunk_ids": middle }))).await;
        assert_eq!(code, "SELECTION_NOT_A_PREFIX");
    }
    assert_eq!(sdk.refused("create", order(json!({ "topic": "other" }))).await, "SELECTION_UNKNOWN_TOPIC");
    let time = json!({ "start_time": "2100-01-01T00:00:00Z" });
    assert_eq!(sdk.refused("create", order(time)).await, "SELECTION_NOT_A_PREFIX");

    // Nothing is charged here, so nothing is to be paid.
    let order = sdk.get("create", order(json!({ "chunk_ids": [ids[1], ids[0]] }))).await;
    assert_eq!(order["status"], "payment_verified");
    assert_eq!(order["resource"]["selection"]["chunk_ids"], json!([ids[0], ids[1]]));
    let out = market.sandbox.path().join("out");
    let arguments = json!({ "purchase": id(&order), "buyer": BUYER, "key": hex(&BUYER_KEY), "out": out });
    assert_eq!(sdk.get("receive", arguments).await["chunks"], 2);
    let sold = std::fs::read(&market.input).unwrap()[..128 << 10].to_vec();
    assert!(std::fs::read(&out).unwrap() == sold, "other bytes came out");
    assert!(!same(&out, &market.input));
}

#[tokio::test]
async fn an_operator_decides_about_the_buyer_and_about_the_payment() {
    let market = Market::open(100_000, "policy: manual", &Market::priced("manual")).await;
    let mut sdk = market.sdk(SHARED, SHARED);
    let mut purchases = Vec::new();
    for _ in 0..2 {
        let order = sdk.order(&market.listing, BUYER).await;
        assert_eq!(order["status"], "delivery_reserving");
        let purchase = id(&order);
        let proof = json!({ "purchase": purchase, "transaction_hash": transaction(1) });
        assert_eq!(sdk.refused("proof", proof.clone()).await, "PURCHASE_NOT_RESERVED");
        assert_eq!(seen(&market, &purchase).await["waits_for"], "order");
        assert_eq!(orders(&market, &["confirm", &purchase]).await.json()["status"], "delivery_reserved");
        // Both claim the same payment; somebody has to look.
        let recorded = sdk.get("proof", proof).await;
        assert_eq!((&recorded["payment_status"], &recorded["delivery_status"]), (&json!("pending"), &json!("blocked")));
        purchases.push(purchase);
    }
    let other = json!({ "purchase": purchases[0], "transaction_hash": transaction(2) });
    assert_eq!(sdk.refused("proof", other).await, "PAYMENT_PROOF_PENDING");
    let waiting = orders(&market, &["ls", "--waiting"]).await.json();
    assert_eq!(waiting.as_array().unwrap().len(), 2);

    let short = purchases[0].strip_prefix("pur_").unwrap()[..12].to_owned();
    assert_eq!(orders(&market, &["confirm", &short]).await.json()["status"], "payment_verified");
    let used = seen(&market, &purchases[1]).await;
    assert_eq!(used["payment_used_for"], purchases[0].as_str(), "{used}");
    let refused = orders(&market, &["confirm", &purchases[1]]).await;
    assert_eq!(refused.code, Some(1), "{refused:?}");
    assert!(refused.stderr.contains("used for another purchase"), "{refused:?}");
    let rejected = orders(&market, &["reject", &purchases[1], "--reason", "paid once only"]).await.json();
    assert_eq!(rejected["status"], "cancelled");
    let again = orders(&market, &["confirm", &purchases[0]]).await;
    assert_eq!(again.code, Some(1), "it was confirmed twice: {again:?}");
    assert_eq!(orders(&market, &["confirm", "0123456789ab"]).await.code, Some(5));

    fetch(&market, &mut sdk, &purchases[0], BUYER, 2).await;
    assert_eq!(sdk.refused("delivery", json!({ "purchase": purchases[1] })).await, "PURCHASE_OVER");
}

#[tokio::test]
async fn a_list_is_for_names_that_a_token_proves() {
    let market = Market::open(70_000, &format!("policy: allowlist, allow: [\"{ALICE}\"]"), "").await;
    let order = |buyer: &str| json!({ "listing": market.listing, "buyer": buyer, "key": buyer_public() });
    let mut shared = market.sdk(SHARED, SHARED);
    assert_eq!(shared.refused("create", order(ALICE)).await, "BUYER_MISMATCH");
    assert_eq!(shared.refused("create", order(BUYER)).await, "ACCESS_DENIED");
    drop(shared);
    let mut alice = market.sdk(ALICES, ALICES);
    assert_eq!(alice.refused("create", order(BUYER)).await, "BUYER_MISMATCH");
    let purchase = id(&alice.order(&market.listing, ALICE).await);
    assert_eq!(seen(&market, &purchase).await["buyer_proven"], true);
    fetch(&market, &mut alice, &purchase, ALICE, 2).await;
}
