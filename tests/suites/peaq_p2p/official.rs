//! With peaq's own buyer and seller.

use serde_json::json;
use tributary::control::api::{Code, OfferRequest};
use tributary_protocol::peaq::{
    access::{buyer, grant_files},
    envelope::Envelope,
    sealed_box::BoxSecretKey,
};
use tributary_tests::{
    delivery::{BUYER, OfficialSeller, PURCHASE, SESSION, buyer_public, official_buyer, official_publisher, purchase},
    home::Sandbox,
    node::{NodeProcess, command},
    wait::{soon, until},
};

use super::{Shop, input, machine_home, receive, refused, same};

#[tokio::test]
async fn peaqs_buyer_receives_a_dataset_from_a_running_node() {
    let shop = Shop::open(1_000_000).await;
    let out = shop.path("out");
    let said = official_buyer(&shop.purchase(), &out).await;
    assert_eq!((&said["ok"], &said["chunks"]), (&json!(true), &json!(shop.offered.chunks)), "{said}");
    assert!(same(&shop.input, &out));
    let delivery = until("the end of the delivery", async || {
        Some(shop.delivery().await).filter(|delivery| delivery["state"] == "completed")
    })
    .await;
    assert_eq!(delivery["confirmed"], true, "{delivery}");
    // It was delivered: nobody gets it again under the same session.
    let again = official_buyer(&shop.purchase(), &shop.path("again")).await;
    assert_eq!((&again["code"], &again["reason"]), (&json!("protocol"), &json!("session_mismatch")), "{again}");
    shop.node.stop().await;
}

#[tokio::test]
async fn a_purchase_from_peaqs_seller_becomes_a_file() {
    let sandbox = Sandbox::new();
    let input = input(&sandbox, 700_000);
    let mut seller = OfficialSeller::start(&input, 262_144).await;
    let delivery = sandbox.path().join("delivery.json");
    std::fs::write(&delivery, seller.delivery.to_string()).unwrap();
    let out = sandbox.path().join("out");
    let report = receive(sandbox.path(), &delivery, &out, &[]).await.json();
    assert!(same(&input, &out));
    assert_eq!((&report["chunkCount"], &report["totalBytes"]), (&json!(3), &json!(700_000)));
    assert_eq!(report["verdict"], "consistent, origin not proven");
    assert_eq!((&report["trusted"], &report["signer"]), (&json!(false), &seller.delivery["signer"]));
    assert_eq!(seller.end().await["ok"], true);
}

#[tokio::test]
async fn chunks_of_peaqs_publisher_are_delivered_from_their_folder_and_a_trusted_key_proves_them() {
    let sandbox = Sandbox::new();
    let input = input(&sandbox, 300_000);
    let folder = sandbox.path().join("chunks");
    let published = official_publisher(&input, 100_000, &folder).await;
    let envelopes: Vec<Envelope> = (0..3)
        .map(|at| Envelope::parse(&std::fs::read(folder.join(format!("chunk-{at}.json"))).unwrap()).unwrap())
        .collect();
    let owner = BoxSecretKey::from_hex(published["ownerPrivateHex"].as_str().unwrap()).unwrap();
    let grantee = buyer(BUYER, &buyer_public()).unwrap();
    let files = grant_files(&envelopes, &owner, &grantee, usize::MAX, &mut rand::rng()).unwrap();
    let access = sandbox.path().join("access.json");
    std::fs::write(&access, files[0].to_cli_text()).unwrap();

    let home = machine_home(&sandbox, "64KiB");
    let node = NodeProcess::start(&home).await;
    let folder = folder.to_str().unwrap();
    let names = ["--purchase", PURCHASE, "--session", SESSION, "--buyer-id", BUYER];
    let args = [&["peaq", "offer", "--json", "--dir", folder], &names[..]].concat();
    let offered = command(&home, &args).await.json();
    let delivery = sandbox.path().join("delivery.json");
    let terms = purchase(offered["url"].as_str().unwrap(), offered["expires_at"].as_str().unwrap(), &access);
    std::fs::write(&delivery, terms.to_string()).unwrap();
    let out = sandbox.path().join("out");

    // Another key than the one that signed: nothing is written, and the buyer may come again.
    let other = receive(sandbox.path(), &delivery, &out, &["--trust-key", &"ab".repeat(32)]).await;
    assert_eq!(other.code, Some(3), "{other:?}");
    assert!(other.stderr.contains("not by the key that was trusted"), "{other:?}");
    assert!(!out.exists());
    assert_eq!(std::fs::read_dir(sandbox.path()).unwrap().filter(is_temporary).count(), 0);
    node.stop().await;

    let node = NodeProcess::start(&home).await;
    let offered = command(&home, &args).await.json();
    let terms = purchase(offered["url"].as_str().unwrap(), offered["expires_at"].as_str().unwrap(), &access);
    std::fs::write(&delivery, terms.to_string()).unwrap();
    let signer = published["signer"].as_str().unwrap();
    let report = receive(sandbox.path(), &delivery, &out, &["--trust-key", signer]).await.json();
    assert_eq!(report["verdict"], "consistent, and signed by the key that was trusted");
    assert!(same(&input, &out));
    node.stop().await;
}

fn is_temporary(entry: &std::io::Result<std::fs::DirEntry>) -> bool {
    entry.as_ref().unwrap().file_name().to_string_lossy().ends_with(".tmp")
}

#[tokio::test]
async fn chunks_that_no_frame_has_room_for_are_refused_when_the_session_is_opened() {
    let sandbox = Sandbox::new();
    let input = input(&sandbox, 900_000);
    let folder = sandbox.path().join("chunks");
    official_publisher(&input, 800_000, &folder).await;
    let node = NodeProcess::start(&machine_home(&sandbox, "1MiB")).await;
    let request = OfferRequest {
        purchase: PURCHASE.into(),
        session: SESSION.into(),
        buyer: BUYER.into(),
        folder: Some(folder),
        ..OfferRequest::default()
    };
    let problem = refused(&node, &request).await;
    assert_eq!(problem.code, Code::Usage, "{problem:?}");
    assert!(problem.message.contains("at most 1048576 bytes"), "{problem:?}");
    // The same from a dataset.
    let dataset = tributary_tests::trade::publish(&node, "rec", &input).await.to_string();
    let problem = refused(&node, &OfferRequest { dataset: Some(dataset), folder: None, ..request }).await;
    assert!(problem.message.contains("chunk 0 has 900000 bytes"), "{problem:?}");
    node.stop().await;
}

#[tokio::test]
async fn a_delivery_that_nobody_fetches_fails_when_it_expires_and_can_be_closed_before() {
    let shop = Shop::open(1000).await;
    let home = shop.node.home().to_owned();
    let closed = command(&home, &["peaq", "close", PURCHASE, "--json"]).await.json();
    assert_eq!((&closed["state"], &closed["reason"]), (&json!("failed"), &json!("the operator closed it")));
    assert_eq!(command(&home, &["peaq", "close", PURCHASE]).await.code, Some(5));
    let refused = shop.receive(&shop.path("out"), &[]).await;
    assert_eq!(refused.code, Some(4), "{refused:?}");
    let feeds = shop.node.feeds().await;
    let dataset = feeds[0].datasets[0].dataset.to_string();
    let args = ["--purchase", "p2", "--session", SESSION, "--buyer-id", BUYER, "--expires", "1s", "--wait"];
    let args = [&["peaq", "offer", "--dataset", &dataset], &args[..]].concat();
    let ended = soon("the end of the offer", command(&home, &args)).await;
    assert_eq!(ended.code, Some(1), "{ended:?}");
    assert!(ended.stdout.starts_with("peaqos-p2p://"), "{ended:?}");
    assert!(ended.stderr.contains("before the handoff expired"), "{ended:?}");
    shop.node.stop().await;
}
