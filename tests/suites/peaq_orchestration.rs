//! peaq's orchestration API, offered by a node: buyers and a seller with peaq's official SDK, payments, kills, and strangers.

#![allow(clippy::unwrap_used, clippy::panic, reason = "helpers of tests stop at the first failure, as the tests do")]

#[path = "peaq_orchestration/buyers.rs"]
mod buyers;
#[path = "peaq_orchestration/crashes.rs"]
mod crashes;
#[path = "peaq_orchestration/sellers.rs"]
mod sellers;
#[path = "peaq_orchestration/strangers.rs"]
mod strangers;

use std::path::Path;

use serde_json::{Value, json};
use tributary_tests::{
    delivery::{BUYER_KEY, hex},
    node::{Ended, command},
    orchestration::{Market, Sdk},
};

/// A transaction that nobody made.
fn transaction(n: u8) -> String {
    format!("0x{}", format!("{n:02x}").repeat(32))
}

/// `tributary peaq orders …` on the market's node.
async fn orders(market: &Market, args: &[&str]) -> Ended {
    let mut all = vec!["peaq", "orders"];
    all.extend(args);
    all.push("--json");
    command(&market.home, &all).await
}

/// The order as the operator sees it.
async fn seen(market: &Market, purchase: &str) -> Value {
    let list = orders(market, &["ls"]).await.json();
    list.as_array().unwrap().iter().find(|order| order["id"] == purchase).unwrap().clone()
}

/// The buyer fetches a purchase; what comes is the file that was published.
async fn fetch(market: &Market, sdk: &mut Sdk, purchase: &str, buyer: &str, chunks: u64) {
    let out = market.sandbox.path().join(format!("out-{purchase}"));
    let arguments = json!({ "purchase": purchase, "buyer": buyer, "key": hex(&BUYER_KEY), "out": out });
    let received = sdk.get("receive", arguments).await;
    assert_eq!(received["chunks"], chunks);
    assert!(same(&out, &market.input), "other bytes came out");
}

fn same(a: &Path, b: &Path) -> bool {
    std::fs::read(a).unwrap() == std::fs::read(b).unwrap()
}

fn id(purchase: &Value) -> String {
    purchase["id"].as_str().unwrap().to_owned()
}
