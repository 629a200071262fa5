//! Grants that the machine left with its mirror, and who tries to leave others.

use std::path::{Path, PathBuf};

use tributary::{
    control::api::{AccessRequestBody, AccessResult, ExportFormat, FetchRequest, Stage, Verdict},
    home::Home,
    service::status::LeavingStatus,
};
use tributary_protocol::{
    access::{Deposit, DepositState, SignedDeposit},
    ids::{DatasetId, Did, Hash},
    keys::FeedKey,
    wire::{AccessMessage, AccessReply, DenyCode},
};
use tributary_tests::{
    home::Sandbox,
    node::{NodeProcess, command},
    peer::Stranger,
    trade,
    wait::{soon, until},
};

use super::common::{address, keeps_all, kept, machine, mirror, publish, with_more, with_network};

const CHUNKS: u64 = 40;

/// A machine that leaves its grants with its mirror, and a buyer that waits for its operator.
struct World {
    sandbox: Sandbox,
    did: Did,
    machine_home: PathBuf,
    machine: NodeProcess,
    mirror_home: PathBuf,
    mirror: NodeProcess,
    buyer_home: PathBuf,
    dataset: DatasetId,
    file: PathBuf,
    request: Hash,
}

async fn world() -> World {
    let sandbox = Sandbox::new();
    let machine_home = machine(&sandbox, "", "manual");
    let machine = NodeProcess::start(&machine_home).await;
    let did = machine.status().await.did;
    let (dataset, file) = publish(&machine, 1, 40).await;
    let mirror_home = mirror(&sandbox, "mirror", &machine.link().await, "");
    let mirror = NodeProcess::start(&mirror_home).await;
    machine.stop().await;
    with_more(&machine_home, &format!("mirrors: [{}]\n", address(&mirror).await));
    let machine = NodeProcess::start(&machine_home).await;
    keeps_all(&mirror, CHUNKS).await;

    let buyer_home = sandbox.buyer("buyer", "");
    with_network(&buyer_home, &format!("  peers: [{}]\n", address(&mirror).await));
    let buyer = NodeProcess::start(&buyer_home).await;
    trade::follow(&buyer, &machine).await;
    trade::know(&buyer, dataset).await;
    let body = AccessRequestBody { selection: trade::datasets(&[dataset]), wait_ms: 0 };
    let run = buyer.client().run("/v1/access/request", &body, |_: Stage| {});
    let asked: AccessResult = soon("access", run).await.unwrap();
    assert_eq!(asked.outcome, "pending");
    buyer.stop().await;
    let request = asked.request;
    World { sandbox, did, machine_home, machine, mirror_home, mirror, buyer_home, dataset, file, request }
}

/// Waits until the mirror has heard of everything.
async fn left(machine: &NodeProcess, orders: u64) -> LeavingStatus {
    until("the deposit", async || {
        let leaving = machine.status().await.leaving.remove(0);
        (leaving.waiting == 0 && leaving.left >= orders).then_some(leaving)
    })
    .await
}

async fn decide(home: &Path, args: &[&str]) {
    let ended = command(home, args).await;
    assert_eq!(ended.code, Some(0), "{ended:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn grants_reach_the_buyer_through_the_mirror_when_the_machine_is_gone() {
    let World { sandbox, machine_home, machine, mirror_home, mirror, buyer_home, dataset, file, request, .. } =
        world().await;
    // The mirror is away when the operator decides, and the machine restarts before it comes back.
    mirror.stop().await;
    decide(&machine_home, &["access", "approve", &request.to_string()]).await;
    until("a try in vain", async || machine.status().await.leaving.remove(0).error).await;
    assert_eq!(machine.status().await.leaving[0].waiting, 1);
    machine.stop().await;
    let mut machine = NodeProcess::start(&machine_home).await;
    assert_eq!(machine.status().await.leaving[0].left, 0);
    let mirror = NodeProcess::start(&mirror_home).await;
    left(&machine, 1).await;
    assert_eq!(kept(&mirror).await.deposits, 1);
    machine.kill();
    mirror.stop().await;
    let mirror = NodeProcess::start(&mirror_home).await;

    let buyer = NodeProcess::start(&buyer_home).await;
    let body = FetchRequest { request: request.to_string(), wait_ms: 0 };
    let fetched = until("the grants", async || {
        let run = buyer.client().run::<Stage, AccessResult>("/v1/access/fetch", &body, |_| {});
        soon("fetch", run).await.ok()
    })
    .await;
    assert_eq!(fetched.outcome, "granted");
    let selection = trade::datasets(&[dataset]);
    let pulled = trade::pull(&buyer, &selection).await;
    assert_eq!((pulled.chunks, pulled.not_granted), (CHUNKS, 0));
    until("what the mirror sent", async || (mirror.status().await.served.chunks >= CHUNKS).then_some(())).await;
    let proof = trade::verify(&buyer, dataset).await;
    assert_eq!((proof.verdict, proof.chunks_opened), (Verdict::Proven, CHUNKS), "{proof:?}");
    let exported = trade::export(&buyer, &selection, &[ExportFormat::File], &sandbox.path().join("out")).await;
    assert_eq!(std::fs::read(&exported.report.files[0].path).unwrap(), std::fs::read(file).unwrap());
    assert!(mirror.status().await.mirror.unwrap().deposits.given > 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn access_that_was_revoked_is_no_longer_given_by_the_mirror() {
    let World { sandbox: _sandbox, machine_home, mut machine, mirror, buyer_home, request, .. } = world().await;
    decide(&machine_home, &["access", "approve", &request.to_string()]).await;
    left(&machine, 1).await;
    let with_grants = kept(&mirror).await.deposit_bytes;
    let buyer = Home::open(&buyer_home).unwrap().public_keys().unwrap().did;
    decide(&machine_home, &["access", "revoke", &buyer.to_string(), "--stream", "files"]).await;
    left(&machine, 2).await;
    let feed = kept(&mirror).await;
    assert!(feed.deposits == 1 && feed.deposit_bytes < with_grants, "the denial stands in the place of the grants");
    machine.kill();

    let buyer = NodeProcess::start(&buyer_home).await;
    let refused = until("the machine's own word", async || {
        let ended = command(buyer.home(), &["access", "fetch", &request.to_string()]).await;
        (ended.code == Some(4)).then_some(ended)
    })
    .await;
    assert!(refused.stderr.contains("access was revoked"), "{refused:?}");
}

fn now_ms() -> u64 {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
    u64::try_from(now.as_millis()).unwrap()
}

fn deposit(machine: Did, request_id: Hash, revision: u64, state: DepositState, key: &FeedKey) -> Vec<u8> {
    let (issued_ms, expires_ms) = (1, now_ms() + 1_000_000);
    let deposit = Deposit { machine, request_id, revision, issued_ms, expires_ms, state };
    SignedDeposit::sign(deposit, key).unwrap().bytes().to_vec()
}

fn denial(machine: Did, request: Hash, revision: u64, key: &FeedKey) -> AccessMessage {
    let state = DepositState::Denied { code: DenyCode::Refused, reason: format!("number {revision}") };
    let deposit = deposit(machine, request, revision, state, key);
    AccessMessage::Deposit { deposit, first: 0, grants: Vec::new() }
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_but_the_machine_leaves_anything_and_nothing_old_comes_back() {
    let World { sandbox: _sandbox, did, machine_home, machine, mirror, request, .. } = world().await;
    decide(&machine_home, &["access", "approve", &request.to_string()]).await;
    left(&machine, 1).await;
    let stranger = Stranger::connect(&address(&mirror).await.parse().unwrap()).await;
    let counts = async || mirror.status().await.mirror.unwrap().deposits;
    let fetch = AccessMessage::Fetch { request_id: request, from: 0 };
    // It is there for whoever names the request; only the buyer's key opens it.
    let granted = stranger.access(&fetch).await;
    assert!(matches!(granted, AccessReply::Granted { from: 0, total: 1, .. }), "{granted:?}");

    let forger = FeedKey::generate(&mut rand::rng());
    let newer = now_ms() + 500_000;
    let refused = stranger.access(&denial(did, request, newer, &forger)).await;
    assert!(matches!(&refused, AccessReply::Denied { code: DenyCode::Invalid, .. }), "{refused:?}");
    let refused = stranger.access(&denial(Did::from_bytes([9; 20]), request, newer, &forger)).await;
    assert!(matches!(&refused, AccessReply::Denied { code: DenyCode::NotFound, .. }), "{refused:?}");
    assert_eq!((counts().await.refused, kept(&mirror).await.deposits), (2, 1));
    assert_eq!(stranger.access(&fetch).await, granted);

    // What the machine itself says counts, if it is newer; what it said before does not come back.
    let key = Home::open(&machine_home).unwrap().keys(None).unwrap().feed;
    let said = denial(did, request, newer, &key);
    assert_eq!(stranger.access(&said).await, AccessReply::Deposited { count: 0 });
    assert_eq!(stranger.access(&denial(did, request, newer - 1, &key)).await, AccessReply::Deposited { count: 0 });
    assert_eq!(counts().await.outdated, 1);
    let AccessMessage::Deposit { deposit: said, .. } = said else { panic!("a deposit") };
    assert_eq!(stranger.access(&fetch).await, AccessReply::Statement(said));

    // A deposit that comes with what is no grant.
    let state = DepositState::Granted { total: 2, grants: Hash::ZERO };
    let deposit = deposit(did, Hash::of(b"other"), 1, state, &key);
    let message = AccessMessage::Deposit { deposit, first: 0, grants: vec![vec![1; 500]] };
    let refused = stranger.access(&message).await;
    assert!(matches!(&refused, AccessReply::Denied { code: DenyCode::Invalid, .. }), "{refused:?}");
    assert_eq!(counts().await.refused, 3);
}
