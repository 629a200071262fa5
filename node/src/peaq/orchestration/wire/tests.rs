//! Requests and answers against the published vectors, and what is refused.

use super::*;
use crate::peaq::orchestration::{
    goods::MAX_CHUNKS,
    purchase::{Price, Purchase},
};

fn price() -> Price {
    super::super::purchase::tests::price()
}

#[test]
fn a_payment_that_was_not_asked_for_is_named() {
    let said = |text: &str| serde_json::from_str::<Destination>(text).unwrap();
    assert!(fits(&price(), &said("{}"), None).is_ok());
    let right = said(r#"{"payTo": "0xABC", "chain": "Peaq", "token": "usdc"}"#);
    for amount in ["1.5", "1.50", " 1.500 "] {
        assert!(fits(&price(), &right, Some(&amount.to_owned())).is_ok(), "{amount}");
    }
    for amount in ["1", "1.51", "15", ""] {
        let error = fits(&price(), &right, Some(&amount.to_owned())).unwrap_err();
        assert!(error.code == "PAYMENT_MISMATCH" && error.message.contains("the amount"), "{error:?}");
    }
    assert!(fits(&price(), &said(r#"{"payTo": "0xdef"}"#), None).unwrap_err().message.contains("payee"));
    assert!(fits(&price(), &said(r#"{"chain": "base"}"#), None).unwrap_err().message.contains("chain"));
    assert_eq!((requests::plain("10"), requests::plain("10.0"), requests::plain("0.50")), ("10", "10", "0.5"));
}

#[test]
fn orders_that_cannot_be_meant_are_refused() {
    let order = |key: &str, more: &str| {
        let text = format!(
            r#"{{"resource": {{"type": "stream.listing", "listingId": "l"{more}}},
                "buyer": {{"id": "b", "publicKey": {{"type": "x25519", "publicKeyHex": "{key}"}}}}}}"#
        );
        serde_json::from_str::<CreatePurchase>(&text).unwrap().check()
    };
    let key = "46b63aa6b4f25940607bf3bdde6d988f77ca454e77559ee196826e8827851c31";
    assert!(order(key, "").is_ok());
    assert!(order("00", "").is_err());
    assert!(order(&"00".repeat(32), "").is_err(), "a key that opens for everybody");
    let many = vec!["\"a\""; MAX_CHUNKS as usize + 1].join(",");
    assert!(order(key, &format!(r#", "selection": {{"chunkIds": [{many}]}}"#)).is_err());
    assert!(order(key, r#", "selection": {"chunkIds": [""]}"#).is_err());
}

fn vectors() -> serde_json::Value {
    crate::vectors::read_vectors("orchestration_http")
}

fn read<T: serde::de::DeserializeOwned>(body: &serde_json::Value) -> T {
    serde_json::from_value(body.clone()).unwrap()
}

#[test]
fn vector_requests_of_peaqs_sdk_are_understood() {
    let mut understood = 0;
    for case in vectors()["cases"].as_array().unwrap() {
        let body = &case["request"]["json"];
        let Some(path) = case["request"]["url"].as_str().filter(|_| !body.is_null()) else { continue };
        let rail = body["rail"]["type"].as_str().or(body["rail"].as_str());
        let checked = match path.rsplit('/').next().unwrap() {
            "purchases" => read::<CreatePurchase>(body).check(),
            "payment-intent" => read::<PaymentIntent>(body).check(),
            "payment-proof" => read::<PaymentProof>(body).check(),
            "delivery-capabilities" => read::<PutCapabilities>(body).check(),
            "lst_1" => read::<PatchListing>(body).check(),
            "events" => {
                assert!(!read::<EventText>(body).kind.is_empty());
                Ok(())
            }
            "prepare-access" => {
                // The vector's key is a stand-in of one byte.
                let mut whole = body.clone();
                whole["items"][0]["buyer"]["wrappedKeyHex"] = "00".repeat(80).into();
                read::<PrepareAccess>(&whole).check()
            }
            // To another server.
            "proof" => continue,
            other => panic!("a request of an unknown shape: {other}"),
        };
        match rail {
            Some("x402") => assert_eq!(checked.unwrap_err().code, "PAYMENT_RAIL_UNSUPPORTED"),
            _ => assert_eq!(checked, Ok(()), "{}", case["name"]),
        }
        understood += 1;
    }
    assert!(understood >= 11, "{understood}");
}

/// Asserts that everything in `theirs` is in `ours`, whatever its value.
fn covers(ours: &serde_json::Value, theirs: &serde_json::Value, path: &str) {
    if let Some(fields) = theirs.as_object() {
        for (name, value) in fields {
            covers(
                ours.get(name).unwrap_or_else(|| panic!("{path}.{name} is missing")),
                value,
                &format!("{path}.{name}"),
            );
        }
    }
}

#[test]
fn vector_answers_have_all_that_peaqs_sdk_reads() {
    let vectors = vectors();
    let case = |name: &str| {
        let found = vectors["cases"].as_array().unwrap().iter().find(|case| case["name"] == name);
        found.unwrap_or_else(|| panic!("no case {name}"))["responseJson"].clone()
    };
    let transports = serde_json::to_value(transport()).unwrap();
    assert_eq!(transports, case("list delivery transports")["items"][0]);
    let asked =
        &vectors["cases"].as_array().unwrap().iter().find(|case| case["name"] == "create purchase").unwrap()["request"];
    let mut order = super::super::purchase::tests::order("p", Some(price()), false);
    order.buyer = read::<CreatePurchase>(&asked["json"]).into_buyer();
    let mut purchase = Purchase::new(order, 0);
    let shown =
        |purchase: &Purchase| serde_json::to_value(PurchaseText::new(purchase, Some(vec!["0x01".to_owned()]))).unwrap();
    covers(&shown(&purchase), &case("create purchase")["item"], "purchase");
    let reference = super::super::reference::Reference::new("peaq", "0xaa").unwrap();
    purchase.claim(super::super::purchase::Proof { reference, payer: None, recorded_ms: 1 }).unwrap();
    covers(&shown(&purchase), &case("get purchase")["item"], "purchase");
}
