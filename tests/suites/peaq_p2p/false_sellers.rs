//! Sellers that send something else than what was bought.

use std::{collections::BTreeMap, path::PathBuf};

use serde_json::Value;
use tributary::peaq::receive::{Failure, Order, Receipt, receive};
use tributary_protocol::peaq::{
    access::AccessEntry,
    frame::{Handshake, MAX_FRAME_BYTES},
    purchase::PurchaseDelivery,
    receiver::ReceiveError,
    sealed_box::BoxSecretKey,
};
use tributary_tests::{
    delivery::{BUYER, FalseSeller, PURCHASE, SESSION, Said},
    home::Sandbox,
    vectors::read_vectors,
    wait::soon,
};

/// The published sessions of peaq's buyer.
struct Sessions {
    lines: BTreeMap<String, String>,
    delivery: Value,
    key: String,
    cases: Vec<Value>,
}

impl Sessions {
    fn load() -> Self {
        let file = read_vectors("receiver_sessions");
        Self {
            lines: serde_json::from_value(file["lines"].clone()).unwrap(),
            delivery: file["defaultDelivery"].clone(),
            key: file["buyerPrivateKeyHex"].as_str().unwrap().to_owned(),
            cases: file["cases"].as_array().unwrap().clone(),
        }
    }

    fn access(&self, delivery: &Value) -> Vec<AccessEntry> {
        let delivery = if delivery.is_null() { &self.delivery } else { delivery };
        PurchaseDelivery::parse(delivery.to_string().as_bytes()).unwrap().into_access()
    }

    fn bytes(&self, case: &Value) -> Vec<u8> {
        let sent = case["sellerSends"].as_array().unwrap().iter().flat_map(|sent| {
            match (sent["ref"].as_str(), sent["base64"].as_str()) {
                (Some(name), None) => self.lines[name].clone().into_bytes(),
                (None, Some(text)) => {
                    let mut bytes = Vec::new();
                    tributary_protocol::peaq::frame::lenient::decode(text, &mut bytes).unwrap();
                    bytes
                }
                _ => panic!("{sent} is not known here"),
            }
        });
        sent.collect()
    }

    async fn buy(&self, seller: &FalseSeller, access: Vec<AccessEntry>, out: PathBuf) -> Result<Receipt, Failure> {
        let order = Order {
            handshake: Handshake { purchase_id: PURCHASE.into(), session_id: SESSION.into(), buyer_id: BUYER.into() },
            seller: seller.address().clone(),
            access,
            key: BoxSecretKey::from_hex(&self.key).unwrap(),
            trusted: None,
        };
        soon("a delivery", receive(order, &out, |_, _| {})).await
    }
}

fn reason(result: Result<Receipt, Failure>) -> (String, String) {
    match result.unwrap_err() {
        Failure::Delivery(error) => (error.code().as_str().to_owned(), error.reason().to_owned()),
        other => panic!("{other}"),
    }
}

#[tokio::test]
async fn every_published_session_ends_over_the_wire_as_peaqs_buyer_ends_it() {
    let sessions = Sessions::load();
    let sandbox = Sandbox::new();
    let mut played = 0;
    for case in &sessions.cases {
        let name = case["name"].as_str().unwrap();
        // Deliveries that are refused before anybody dials.
        if case["buyerSentUtf8"] == "" {
            continue;
        }
        let seller = FalseSeller::start(Said::Once(sessions.bytes(case))).await;
        let out = sandbox.path().join("out");
        let result = sessions.buy(&seller, sessions.access(&case["delivery"]), out.clone()).await;
        assert_eq!(seller.heard(), [case["buyerSentUtf8"].as_str().unwrap().trim_end()], "{name}");
        let expected = &case["expected"];
        if expected["dataBase64"].is_string() {
            assert_eq!(result.unwrap().chunk_count, expected["chunksReceived"].as_u64().unwrap(), "{name}");
            std::fs::remove_file(&out).unwrap();
        } else {
            let (code, reason) = reason(result);
            assert_eq!(
                (&*code, &*reason),
                (expected["code"].as_str().unwrap(), expected["reason"].as_str().unwrap()),
                "{name}"
            );
        }
        // Nothing is left of what was refused, not even its beginning.
        assert_eq!(std::fs::read_dir(sandbox.path()).unwrap().count(), 0, "{name}");
        played += 1;
    }
    assert!(played > 20, "{played} sessions");
}

#[tokio::test]
async fn frames_over_the_limit_and_frames_that_never_end_are_refused() {
    let sessions = Sessions::load();
    let sandbox = Sandbox::new();
    let line = |len: usize| [vec![b' '; len], b"\n".to_vec()].concat();
    for said in [Said::Once(line(MAX_FRAME_BYTES + 1)), Said::Endless(vec![b'x'; 100_000])] {
        let seller = FalseSeller::start(said).await;
        let result = sessions.buy(&seller, sessions.access(&Value::Null), sandbox.path().join("out")).await;
        assert_eq!(reason(result), ("transfer".to_owned(), "frame_too_large".to_owned()));
        // What is on its way comes on top: windows of the stream, buffers of the sockets.
        assert!(seller.sent() < 32 << 20, "{} bytes were taken", seller.sent());
    }
}

#[tokio::test]
async fn a_seller_that_sends_ten_times_what_it_announced_is_cut_off() {
    let sessions = Sessions::load();
    let sandbox = Sandbox::new();
    let access = sessions.access(&Value::Null);
    let announced = access.len() as u64 * MAX_FRAME_BYTES as u64;
    // Chunks that are good, wrapped in so much white space that they fill their frames, ten times over.
    let padded = |name: &str| {
        let line = &sessions.lines[name];
        [vec![b' '; MAX_FRAME_BYTES - line.len() + 1], line.clone().into_bytes()].concat()
    };
    let chunks = [padded("chunk0"), padded("chunk1"), padded("chunk2")].concat();
    assert_eq!(chunks.len() as u64, announced + 3);
    let seller = FalseSeller::start(Said::Once(chunks.repeat(10))).await;
    let result = sessions.buy(&seller, access, sandbox.path().join("out")).await;
    assert_eq!(reason(result), ("transfer".to_owned(), "transfer_too_large".to_owned()));
    assert!(seller.sent() < announced * 10, "everything was taken");
    assert_eq!(std::fs::read_dir(sandbox.path()).unwrap().count(), 0);
}

#[tokio::test]
async fn a_seller_that_is_not_there_or_ends_too_early_is_told_apart_from_a_false_one() {
    let sessions = Sessions::load();
    let sandbox = Sandbox::new();
    let seller = FalseSeller::start(Said::Once(Vec::new())).await;
    let ended = sessions.buy(&seller, sessions.access(&Value::Null), sandbox.path().join("out")).await;
    assert!(matches!(ended, Err(Failure::Delivery(ReceiveError::Incomplete))), "{ended:?}");
    let address = seller.address().clone();
    drop(seller);
    let gone = tributary::net::open_lone(address, tributary::net::PEAQ_PROTOCOL, tributary_tests::wait::PATIENCE).await;
    assert!(matches!(gone, Err(tributary::net::LoneError::Unreachable { .. })));
}
