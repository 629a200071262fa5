//! From a source on one node to files on another.

use std::time::Duration;

use tributary::{
    buyer::{AccessError, AccessOutcome, ExportFormat, Verdict},
    feeds::{FeedEvent, PullSelection},
    service::access::{AuditEvent, OrderState},
};
use tributary_protocol::{
    access::{Range, Selection},
    ids::LogId,
    wire::DenyCode,
};

use super::support::{buyer_config, dataset, fill, follow, machine_config, soon, start, stream, stream_id};

const SHORT: Duration = Duration::ZERO;
const LONG: Duration = Duration::from_secs(30);

#[tokio::test(flavor = "multi_thread")]
async fn a_free_dataset_goes_from_the_source_to_files() {
    let (m, b, out) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let machine = start(m.path(), &machine_config(&[stream("/imu", "policy: free")])).await;
    let buyer = start(b.path(), &buyer_config()).await;
    let id = fill(&machine, "/imu", 0, 300).await;

    let side = follow(&buyer, &machine).await;
    let did = machine.did();
    assert_eq!(side.feeds().datasets(&did).await.unwrap().len(), 1);
    let outcome = soon("request", side.request_access(&did, dataset(id), LONG)).await.unwrap();
    assert!(matches!(outcome, AccessOutcome::Granted { ref grants, .. } if grants.len() == 1), "{outcome:?}");
    let pulled = soon("pull", side.pull(&did, PullSelection::Dataset(id), None)).await.unwrap();
    assert!(pulled.chunks + pulled.skipped > 5, "{pulled:?}");
    let report = side.verify(&did, id).await.unwrap();
    assert_eq!((report.verdict, report.packages_verified), (Verdict::Proven, 300), "{report:?}");
    side.export(&did, id, out.path(), &[ExportFormat::Ndjson]).await.unwrap();
    let file = std::fs::read_dir(out.path()).unwrap().map(|f| f.unwrap().path()).find(|p| p.is_file()).unwrap();
    assert_eq!(std::fs::read_to_string(file).unwrap().lines().count(), 300);

    let status = machine.status().await;
    assert!(status.served.chunks + status.outbox.unwrap().attached > 5, "{status:?}");
    buyer.shutdown().await.unwrap();
    machine.shutdown().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_buyer_who_is_not_on_the_list_is_denied_and_one_who_is_gets_keys() {
    let (m, b) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let buyer = start(b.path(), &buyer_config()).await;
    let list = format!("policy: allowlist, allow: ['{}']", buyer.did());
    let nobody = "policy: allowlist, allow: ['did:peaq:0x00112233445566778899aabbccddeeff00112233']";
    let streams = [stream("/mine", &list), stream("/others", nobody)];
    let machine = start(m.path(), &machine_config(&streams)).await;
    let (mine, others) = (fill(&machine, "/mine", 0, 10).await, fill(&machine, "/others", 0, 10).await);
    let (side, did) = (follow(&buyer, &machine).await, machine.did());

    let denied = soon("request", side.request_access(&did, dataset(others), SHORT)).await;
    assert!(matches!(denied, Err(AccessError::Denied { code: DenyCode::Policy, .. })), "{denied:?}");
    // A selection over several streams needs all of them.
    let both = Selection::new(vec![Range::Dataset(mine), Range::Dataset(others)]).unwrap();
    let denied = soon("request", side.request_access(&did, both, SHORT)).await;
    assert!(matches!(denied, Err(AccessError::Denied { code: DenyCode::Policy, .. })), "{denied:?}");
    let granted = soon("request", side.request_access(&did, dataset(mine), SHORT)).await.unwrap();
    assert!(matches!(granted, AccessOutcome::Granted { .. }), "{granted:?}");
    let orders = machine.access().orders(false, 10).unwrap();
    assert_eq!(orders.len(), 3);
    assert!(matches!(orders[0].state, OrderState::Granted { delivered_ms: Some(_), .. }), "{orders:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_manual_request_waits_for_the_operator() {
    let (m, b) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let machine = start(m.path(), &machine_config(&[stream("/imu", "policy: manual")])).await;
    let buyer = start(b.path(), &buyer_config()).await;
    let id = fill(&machine, "/imu", 0, 20).await;
    let (side, did) = (follow(&buyer, &machine).await, machine.did());

    let outcome = soon("request", side.request_access(&did, dataset(id), SHORT)).await.unwrap();
    let AccessOutcome::Pending { request_id } = outcome else { panic!("{outcome:?}") };
    assert_eq!(machine.status().await.pending_requests, 1);
    let waiting = machine.access().orders(true, 10).unwrap();
    assert_eq!((waiting.len(), waiting[0].id, waiting[0].buyer), (1, request_id, buyer.did()));
    machine.access().approve(&request_id).unwrap();
    assert!(machine.access().approve(&request_id).is_err(), "decided once");
    let outcome = soon("fetch", side.fetch_access(&did, request_id, LONG)).await.unwrap();
    assert!(matches!(outcome, AccessOutcome::Granted { .. }), "{outcome:?}");
    soon("pull", side.pull(&did, PullSelection::Dataset(id), None)).await.unwrap();
    assert_eq!(side.verify(&did, id).await.unwrap().verdict, Verdict::Proven);

    let outcome = soon("request", side.request_access(&did, dataset(id), SHORT)).await.unwrap();
    let AccessOutcome::Pending { request_id } = outcome else { panic!("{outcome:?}") };
    machine.access().deny(&request_id, "not today").unwrap();
    let denied = soon("fetch", side.fetch_access(&did, request_id, LONG)).await;
    let Err(AccessError::Denied { code: DenyCode::Refused, reason, .. }) = denied else { panic!("{denied:?}") };
    assert_eq!(reason, "not today");

    let audit = machine.access().audit(0, 100).unwrap();
    let events: Vec<AuditEvent> = audit.iter().map(|(_, line)| line.event).collect();
    assert_eq!(
        events,
        [
            AuditEvent::Quoted,
            AuditEvent::Requested,
            AuditEvent::Granted,
            AuditEvent::Delivered,
            AuditEvent::Quoted,
            AuditEvent::Requested,
            AuditEvent::Denied
        ]
    );
    assert!(audit.iter().map(|(number, _)| *number).eq(0..7));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_revoked_buyer_gets_nothing_more_until_reinstated() {
    let (m, b) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let machine = start(m.path(), &machine_config(&[stream("/imu", "policy: free")])).await;
    let buyer = start(b.path(), &buyer_config()).await;
    let first = fill(&machine, "/imu", 0, 10).await;
    let (side, did) = (follow(&buyer, &machine).await, machine.did());
    let live = Selection::new(vec![Range::Live { stream: stream_id(&machine, "/imu"), seconds: 600 }]).unwrap();
    let granted = soon("request", side.request_access(&did, live, SHORT)).await.unwrap();
    let AccessOutcome::Granted { grants, .. } = granted else { panic!("{granted:?}") };

    let (access, who) = (machine.access().clone(), buyer.did());
    let done = tokio::task::spawn_blocking(move || access.revoke(&who, "/imu", true)).await.unwrap().unwrap();
    assert!(done.epoch_renewed);
    let denied = soon("request", side.request_access(&did, dataset(first), SHORT)).await;
    assert!(matches!(denied, Err(AccessError::Denied { code: DenyCode::Revoked, .. })), "{denied:?}");
    // What is sealed from now on is in another epoch than the keys that were prepaid.
    let second = fill(&machine, "/imu", 10, 10).await;
    soon("catch up", side.feeds().catch_up(&did)).await.unwrap();
    let epoch = side.feeds().datasets(&did).await.unwrap().into_iter().find(|d| d.dataset == second).unwrap().epoch;
    assert!(grants.iter().all(|grant| grant.epoch < epoch));

    machine.access().reinstate(&buyer.did(), "/imu").unwrap();
    let granted = soon("request", side.request_access(&did, dataset(second), SHORT)).await.unwrap();
    assert!(matches!(granted, AccessOutcome::Granted { .. }));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_comes_later_reaches_followers_by_gossip() {
    let (m, b) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let machine = start(m.path(), &machine_config(&[stream("/imu", "policy: free")])).await;
    let buyer = start(b.path(), &buyer_config()).await;
    let (side, did) = (follow(&buyer, &machine).await, machine.did());
    let mut events = side.feeds().watch();
    let id = fill(&machine, "/imu", 0, 100).await;
    let log = LogId::from(stream_id(&machine, "/imu"));
    let chunks = machine.machine().unwrap().report().unwrap()[0].entries;
    soon("entries", async {
        let mut seen = 0;
        while seen < chunks {
            match events.recv().await.unwrap() {
                FeedEvent::Entries { log: found, first, count, .. } if found == log => seen = seen.max(first + count),
                _ => {}
            }
        }
    })
    .await;
    soon("closing", async {
        while !side.feeds().datasets(&did).await.unwrap().iter().any(|d| d.dataset == id && d.closed) {
            events.recv().await.unwrap();
        }
    })
    .await;
    let followed = buyer.status().await.followed;
    assert_eq!((followed.len(), followed[0].equivocations), (1, 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_late_follower_catches_up_on_everything() {
    let (m, b) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let machine = start(m.path(), &machine_config(&[stream("/imu", "policy: free")])).await;
    let mut ids = Vec::new();
    for round in 0..3 {
        ids.push(fill(&machine, "/imu", round * 50, 50).await);
    }
    let buyer = start(b.path(), &buyer_config()).await;
    let (side, did) = (follow(&buyer, &machine).await, machine.did());
    let held = side.feeds().datasets(&did).await.unwrap();
    assert!(ids.iter().all(|id| held.iter().any(|d| d.dataset == *id && d.closed && d.packages == 50)), "{held:?}");
}
