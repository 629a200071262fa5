//! Copies of streams that grow by themselves.

use std::{
    fs,
    io::Write as _,
    path::{Path, PathBuf},
};

use serde_json::Value;
use tributary::{
    control::api::{
        AccessList, Decide, IngestProgress, IngestRequest, IngestResult, ListAccess, Order, Revocation, RevokeRequest,
    },
    service::status::{SubscriptionState, SubscriptionStatus, WarningCode},
};
use tributary_tests::{
    home::{Sandbox, head, stream},
    lines,
    node::NodeProcess,
    trade,
    wait::{soon, until},
};

const CHUNKS: &str = ", chunk: { bytes: 4KiB, max_age: 100ms }";

/// A machine with one stream, and a buyer that subscribes to it in its configuration.
async fn world(sandbox: &Sandbox, access: &str, subscription: &str) -> (NodeProcess, PathBuf) {
    let stream = stream("/imu", CHUNKS).replace("policy: free", access);
    let config = format!("{}streams:\n{stream}", head("machine", sandbox.port("machine"), "access_per_minute: 100000"));
    let machine = NodeProcess::start(&sandbox.home("machine", &config)).await;
    let status = machine.status().await;
    let address = status.links[0].split_once("addr=").unwrap().1;
    let address = if address.contains("/p2p/") { address.to_owned() } else { format!("{address}/p2p/{}", status.peer) };
    let did = status.did;
    let more = format!(
        "follow:\n  - {{ machine: '{did}', addresses: ['{address}'] }}\n\
         buyer:\n  subscriptions:\n    - {{ machine: '{did}', streams: [/imu], {subscription} }}\n"
    );
    (machine, sandbox.buyer("buyer", &more))
}

async fn feed_lines(machine: &NodeProcess, first: u64, count: u64) {
    let path = lines::file(machine.home().parent().unwrap(), "/imu", first, count);
    let request = IngestRequest { path: Some(path), ..lines::by_topic() };
    let run = machine.client().run("/v1/ingest", &request, |_: IngestProgress| {});
    let result: IngestResult = soon("ingest", run).await.unwrap();
    assert_eq!(result.messages, count, "{result:?}");
}

async fn subscription(buyer: &NodeProcess) -> SubscriptionStatus {
    until("the subscription", async || buyer.status().await.subscriptions.into_iter().next()).await
}

async fn stands(buyer: &NodeProcess, state: SubscriptionState) -> SubscriptionStatus {
    until("the state of the subscription", async || {
        Some(subscription(buyer).await).filter(|subscription| subscription.state == state)
    })
    .await
}

fn files(dir: &Path) -> Vec<PathBuf> {
    let mut files: Vec<PathBuf> = fs::read_dir(dir).into_iter().flatten().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    files
}

/// The numbers of the messages in the files, in order; every line must be a package.
fn numbers(dir: &Path) -> Vec<u64> {
    let text: String = files(dir).iter().map(|path| fs::read_to_string(path).unwrap()).collect();
    text.lines()
        .map(|line| {
            let package: Value = serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}"));
            package["payload"]["n"].as_u64().unwrap()
        })
        .collect()
}

/// Complete lines so far; the files are growing.
fn count(dir: &Path) -> u64 {
    files(dir).iter().map(|path| fs::read(path).unwrap().iter().filter(|byte| **byte == b'\n').count() as u64).sum()
}

#[tokio::test(flavor = "multi_thread")]
async fn kills_neither_lose_nor_repeat_a_line() {
    const BATCH: u64 = 150;
    const ROTATE: u64 = 128 << 10;
    let sandbox = Sandbox::new();
    let (machine, home) = world(&sandbox, "policy: free", "export: { dir: out, rotate: 128KiB }").await;
    let out = home.join("out");
    trade::ingest(&machine, "/imu", 0, 20).await;
    let mut buyer = NodeProcess::start(&home).await;
    stands(&buyer, SubscriptionState::Live).await;

    let (mut fed, mut kills, mut torn) = (20, 0, 0);
    while kills < 6 || torn < 3 {
        assert!(kills < 60, "the buyer was never killed while a file grew");
        kills += 1;
        let before = count(&out);
        feed_lines(&machine, fed, BATCH).await;
        fed += BATCH;
        // While more is announced than is written; what comes meanwhile is announced to nobody.
        until("some new lines", async || (count(&out) > before).then_some(())).await;
        buyer.kill();
        feed_lines(&machine, fed, BATCH).await;
        fed += BATCH;
        // What a kill between writing and noting leaves behind: bytes that do not count. A file that has grown enough may be
        // finished, and then it is the reader's.
        let growing = files(&out).pop().filter(|path| fs::metadata(path).unwrap().len() < ROTATE);
        if let Some(growing) = growing {
            torn += 1;
            let mut file = fs::OpenOptions::new().append(true).open(growing).unwrap();
            file.write_all(b"{\"payload\":{\"n\":99999999}}\n{\"torn").unwrap();
        }
        buyer = NodeProcess::start(&home).await;
        let restored = count(&out);
        assert!(restored <= fed - 20, "{restored} lines of {}", fed - 20);
    }
    let expected: Vec<u64> = (20..fed).collect();
    until("all lines", async || {
        let subscription = subscription(&buyer).await;
        (subscription.behind == 0 && count(&out) >= expected.len() as u64).then_some(())
    })
    .await;
    assert_eq!(numbers(&out), expected, "each message is there once, in order");
    assert!(files(&out).len() > 3, "files roll: {:?}", files(&out));
    let subscription = subscription(&buyer).await;
    assert_eq!((subscription.packages, subscription.skipped), (expected.len() as u64, 0));

    // A file that was moved away is the reader's; the next one begins, and nothing is written twice.
    let growing = || files(&out).pop().filter(|path| fs::metadata(path).unwrap().len() > 0);
    while growing().is_none() {
        // The last one was full; the next one is empty, and a name without a line is still free.
        let before = count(&out);
        feed_lines(&machine, fed, 5).await;
        fed += 5;
        until("a line in the next file", async || (count(&out) == before + 5).then_some(())).await;
    }
    let moved = growing().unwrap();
    buyer.stop().await;
    let kept = sandbox.path().join("moved.ndjson");
    fs::rename(&moved, &kept).unwrap();
    let before = count(&out);
    let buyer = NodeProcess::start(&home).await;
    feed_lines(&machine, fed, 50).await;
    until("the lines behind", async || (count(&out) >= before + 50).then_some(())).await;
    assert!(!moved.exists(), "a name is used once");
    assert_eq!(*numbers(&out).last().unwrap(), fed + 49);
    buyer.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn keys_are_renewed_until_access_is_revoked() {
    let sandbox = Sandbox::new();
    let (machine, home) = world(&sandbox, "policy: free", "live: 2s, export: { dir: out }").await;
    let out = home.join("out");
    trade::ingest(&machine, "/imu", 0, 20).await;
    let buyer = NodeProcess::start(&home).await;
    let did = buyer.status().await.did;
    let orders = async || -> Vec<Order> {
        let list: AccessList = machine.client().post("/v1/access/list", &ListAccess { pending: false }).await.unwrap();
        list.received
    };
    until("three renewals", async || (orders().await.len() > 3).then_some(())).await;
    feed_lines(&machine, 20, 30).await;
    until("the lines", async || (count(&out) == 30).then_some(())).await;

    let revoke = RevokeRequest { buyer: did, streams: vec!["/imu".to_owned()], now: true };
    let _: Vec<Revocation> = machine.client().post("/v1/access/revoke", &revoke).await.unwrap();
    let ended = stands(&buyer, SubscriptionState::Ended).await;
    assert!(ended.reason.as_deref().is_some_and(|reason| reason.contains("revoked")), "{ended:?}");
    let status = buyer.status().await;
    let warning = status.warnings.iter().find(|warning| warning.code == WarningCode::SubscriptionEnded).unwrap();
    assert!(warning.message.contains("/imu") && warning.message.contains("revoked"), "{warning:?}");

    // A restart does not ask again, and what comes stays closed.
    buyer.stop().await;
    let asked = orders().await.len();
    let buyer = NodeProcess::start(&home).await;
    feed_lines(&machine, 50, 30).await;
    until("news that cannot be opened", async || (subscription(&buyer).await.behind > 0).then_some(())).await;
    assert_eq!(subscription(&buyer).await.state, SubscriptionState::Ended);
    assert_eq!((count(&out), orders().await.len()), (30, asked));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_operator_is_asked_once_and_what_came_meanwhile_is_not_lost() {
    let sandbox = Sandbox::new();
    let (machine, home) = world(&sandbox, "policy: manual", "live: 1h, export: { dir: out }").await;
    let out = home.join("out");
    trade::ingest(&machine, "/imu", 0, 20).await;
    let buyer = NodeProcess::start(&home).await;
    stands(&buyer, SubscriptionState::Waiting).await;
    feed_lines(&machine, 20, 40).await;
    until("news that cannot be opened", async || (subscription(&buyer).await.behind > 0).then_some(())).await;
    buyer.stop().await;
    let buyer = NodeProcess::start(&home).await;
    stands(&buyer, SubscriptionState::Waiting).await;
    let waiting = async || -> Vec<Order> {
        let list: AccessList = machine.client().post("/v1/access/list", &ListAccess { pending: true }).await.unwrap();
        list.received
    };
    // What came in the meantime is of the past when the first request is granted: it is asked for then.
    let mut approved = 0;
    until("all lines", async || {
        for order in waiting().await {
            let decide = Decide { request: order.id.to_string(), reason: None };
            let _: Order = machine.client().post("/v1/access/approve", &decide).await.unwrap();
            approved += 1;
        }
        (count(&out) == 40).then_some(())
    })
    .await;
    assert!(approved <= 3, "{approved} requests were made");
    assert_eq!(numbers(&out), (20..60).collect::<Vec<u64>>());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_package_that_is_cut_into_many_chunks_is_written_whole() {
    let sandbox = Sandbox::new();
    let (machine, home) = world(&sandbox, "policy: free", "export: { dir: out }").await;
    let out = home.join("out");
    trade::ingest(&machine, "/imu", 0, 20).await;
    let buyer = NodeProcess::start(&home).await;
    stands(&buyer, SubscriptionState::Live).await;
    // More chunks than are pulled together, and packages on both sides.
    feed_lines(&machine, 20, 3).await;
    let before = machine.stream("/imu").await.lane.chunks;
    let large = format!("{{\"topic\":\"/imu\",\"n\":23,\"pad\":\"{}\"}}\n", "x".repeat(600_000));
    let path = sandbox.path().join("large.ndjson");
    fs::write(&path, large).unwrap();
    let request = IngestRequest { path: Some(path), ..lines::by_topic() };
    let run = machine.client().run("/v1/ingest", &request, |_: IngestProgress| {});
    let result: IngestResult = soon("ingest", run).await.unwrap();
    assert_eq!(result.messages, 1);
    feed_lines(&machine, 24, 3).await;
    until("all lines", async || (count(&out) == 7).then_some(())).await;
    assert_eq!(numbers(&out), (20..27).collect::<Vec<u64>>());
    assert!(machine.stream("/imu").await.lane.chunks - before > 128, "the package has more chunks than one batch");
    let subscription = subscription(&buyer).await;
    assert_eq!((subscription.behind, subscription.packages, subscription.skipped), (0, 7, 0));
}
