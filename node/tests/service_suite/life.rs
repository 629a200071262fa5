//! Starting, stopping, starting again.

use tributary::{
    buyer::{AccessOutcome, Verdict},
    feeds::PullSelection,
    home::HomeError,
    service::{
        JobError, NodeError,
        status::{NodeStatus, WarningCode},
    },
};
use tributary_protocol::{
    dataset::DatasetEntry,
    entry::{Entry, EntryBody, SignedEntry},
    ids::{LogId, LogKey},
    keys::FeedKey,
    wire::{AccessMessage, AccessReply, FeedMessage, SyncRequest, SyncResponse, topic_machine},
};
use tributary_store::{Store, StoreOptions, Table};

use super::support::{
    Bare, buyer_config, dataset, fill, follow, machine_config, messages, soon, start, stop, stream, stream_id,
    try_start,
};

#[tokio::test(flavor = "multi_thread")]
async fn a_graceful_stop_leaves_nothing_undurable() {
    let dir = tempfile::tempdir().unwrap();
    // Nothing but the end of the node seals the last chunk and closes the dataset.
    let slow = stream("/imu", "policy: free").replace("100ms", "1h");
    let node = start(dir.path(), &machine_config(&[slow])).await;
    let summary = soon("ingest", node.ingest(messages("/imu", 0, 97), |_| {})).await.unwrap();
    assert_eq!(summary.messages(), 97);
    let (stream, did) = (stream_id(&node, "/imu"), node.did());
    let other = node.clone();
    let (first, second) = tokio::join!(node.shutdown(), other.shutdown());
    first.unwrap();
    second.unwrap();
    assert!(matches!(node.ingest(messages("/imu", 0, 1), |_| {}).await, Err(JobError::Stopped)));
    drop(other);
    stop(node, dir.path()).await;

    let (store, report) = Store::open(dir.path().join("home/store"), &StoreOptions::default()).unwrap();
    assert_eq!(report.recovery, tributary_store::Recovery::Clean);
    let rows = store.rows(Table::Dataset, &[], None, 10).unwrap();
    assert_eq!(rows.len(), 1);
    let closed = DatasetEntry::decode(&rows[0].1).unwrap();
    assert_eq!(closed.package_count, 97);
    let log = LogKey { did, log: LogId::from(stream), incarnation: 0 };
    let mut packages = 0;
    for entry in store.entries(&log, 0, 1000, 1 << 20).unwrap() {
        let signed = SignedEntry::decode(&entry.bytes).unwrap();
        let EntryBody::Chunk(record) = &signed.entry().body else { panic!("not a chunk") };
        assert!(store.has_chunk(&record.hash).unwrap());
        packages += record.package_count;
    }
    assert_eq!(packages, 97);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restarted_machine_goes_on_with_its_feed() {
    let (m, b) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let config = machine_config(&[stream("/imu", "policy: free")]);
    let machine = start(m.path(), &config).await;
    let buyer = start(b.path(), &buyer_config()).await;
    fill(&machine, "/imu", 0, 60).await;
    let (did, incarnation) = (machine.did(), machine.machine().unwrap().incarnation());
    follow(&buyer, &machine).await;
    let before = machine.status().await.logs;
    stop(machine, m.path()).await;

    let machine = start(m.path(), &config).await;
    assert_eq!((machine.did(), machine.machine().unwrap().incarnation()), (did, incarnation));
    let id = fill(&machine, "/imu", 60, 40).await;
    let after = machine.status().await.logs;
    assert_eq!(before.len(), after.len(), "no new logs");
    assert!(before.iter().zip(&after).all(|(before, after)| before.entries < after.entries), "{before:?} {after:?}");
    let side = follow(&buyer, &machine).await;
    let status = side.feeds().status(&did).await.unwrap();
    assert_eq!((status.equivocations, status.logs.len()), (0, after.len()));
    let granted = soon("request", side.request_access(&did, dataset(id), std::time::Duration::ZERO)).await.unwrap();
    assert!(matches!(granted, AccessOutcome::Granted { .. }));
    soon("pull", side.pull(&did, PullSelection::Dataset(id), None)).await.unwrap();
    let report = side.verify(&did, id).await.unwrap();
    assert_eq!((report.verdict, report.packages_verified), (Verdict::Proven, 40), "{report:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_home_belongs_to_one_node_at_a_time() {
    let dir = tempfile::tempdir().unwrap();
    let node = start(dir.path(), &buyer_config()).await;
    let second = try_start(dir.path(), &buyer_config()).await.err().unwrap();
    assert!(matches!(&second, NodeError::Home(error) if matches!(**error, HomeError::Locked { .. })), "{second}");
    stop(node, dir.path()).await;
    stop(start(dir.path(), &buyer_config()).await, dir.path()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_start_that_fails_leaves_the_home_free() {
    let dir = tempfile::tempdir().unwrap();
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port();
    let config = machine_config(&[stream("/imu", "policy: free")]);
    let busy = config.replace("tcp/0", &format!("tcp/{port}"));
    assert!(matches!(try_start(dir.path(), &busy).await, Err(NodeError::Net(_))));
    start(dir.path(), &config).await.shutdown().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn the_status_says_what_somebody_should_look_at() {
    let dir = tempfile::tempdir().unwrap();
    let streams = [stream("/imu", "policy: free"), stream("/gps", "policy: manual")];
    let node = start(dir.path(), &machine_config(&streams)).await;
    fill(&node, "/imu", 0, 30).await;
    let status = node.status().await;
    assert_eq!((status.did, status.roles.as_slice()), (node.did(), ["machine".to_owned()].as_slice()));
    assert_eq!(status.listen.len(), 1);
    assert!(status.links[0].starts_with(&format!("tributary://{}?addr=/ip4/127.0.0.1/", node.did())));
    let imu = status.streams.iter().find(|stream| stream.name == "/imu").unwrap();
    assert_eq!((imu.policy.as_str(), imu.lane.durable_packages, imu.lane.datasets), ("free", 30, 1));
    assert!(status.logs.iter().any(|log| log.stream.as_deref() == Some("/imu") && log.entries == imu.entries));
    assert!(status.store.chunks > 0 && !status.store.stopped);
    assert_eq!(status.outbox.unwrap().sent, 0, "nobody listens");
    let codes: Vec<WarningCode> = status.warnings.iter().map(|warning| warning.code).collect();
    assert_eq!(codes, [WarningCode::OwnerKeyHere]);
    let text = serde_json::to_string(&status).unwrap();
    assert_eq!(serde_json::from_str::<NodeStatus>(&text).unwrap(), status);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_endless_source_ends_with_the_node() {
    use tributary::ingest::{IngestError, Source, SourceItem};
    struct Endless(Box<dyn Source + Send>, std::sync::Arc<tokio::sync::Notify>);
    impl Source for Endless {
        fn next(&mut self) -> Result<Option<SourceItem>, IngestError> {
            let item = self.0.next()?;
            if item.is_none() {
                self.1.notify_one();
                self.0 = messages("/imu", 0, 100);
                return self.0.next();
            }
            Ok(item)
        }

        fn schema_paths(&self, topic: &str) -> Option<tributary_protocol::rules::native::SchemaPaths> {
            self.0.schema_paths(topic)
        }
    }
    let dir = tempfile::tempdir().unwrap();
    let node = start(dir.path(), &machine_config(&[stream("/imu", "policy: free")])).await;
    let round = std::sync::Arc::new(tokio::sync::Notify::new());
    let source = Endless(messages("/imu", 0, 100), round.clone());
    let ingest = tokio::spawn({
        let node = node.clone();
        async move { node.ingest(Box::new(source), |_| {}).await }
    });
    soon("a round", round.notified()).await;
    soon("shutdown", node.shutdown()).await.unwrap();
    let summary = soon("ingest", ingest).await.unwrap().unwrap();
    let messages = summary.messages();
    assert!(messages >= 100);
    stop(node, dir.path()).await;
    let (store, _) = Store::open(dir.path().join("home/store"), &StoreOptions::default()).unwrap();
    let rows = store.rows(Table::Dataset, &[], None, 100).unwrap();
    let packages: u64 = rows.iter().map(|(_, row)| DatasetEntry::decode(row).unwrap().package_count).sum();
    assert_eq!(packages, messages, "what was taken in is durable");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_meets_its_twin_stops_publishing_and_says_so() {
    let dir = tempfile::tempdir().unwrap();
    let node = start(dir.path(), &machine_config(&[stream("/imu", "policy: free")])).await;
    let id = fill(&node, "/imu", 0, 10).await;
    let log = LogKey { did: node.did(), log: LogId::MACHINE, incarnation: 0 };
    let head = SignedEntry::decode(&node.store().head(&log).unwrap().unwrap().1).unwrap();
    let other = Entry { time_ms: head.entry().time_ms + 1, ..head.entry().clone() };
    let message =
        |entry: SignedEntry| FeedMessage::Entry { entry: entry.into_bytes(), attachment: None }.encode().unwrap();

    // Signed with another key, it proves nothing.
    let forged = SignedEntry::sign(other.clone(), &FeedKey::generate(&mut rand::rng())).unwrap();
    let mut stranger = Bare::connect(&node).await;
    stranger.gossip(&topic_machine(&node.did()), message(forged)).await;
    let feed = node.home().keys(None).unwrap().feed;
    let mut twin = Bare::connect(&node).await;
    assert!(matches!(
        twin.sync(&SyncRequest::Dataset { did: node.did(), dataset: id }).await,
        SyncResponse::Dataset { .. }
    ));
    assert_eq!(node.machine().unwrap().displaced(), None);
    twin.gossip(&topic_machine(&node.did()), message(SignedEntry::sign(other, &feed).unwrap())).await;
    soon("displaced", async {
        while node.machine().unwrap().displaced().is_none() {
            tokio::task::yield_now().await;
        }
    })
    .await;
    let codes: Vec<WarningCode> = node.status().await.warnings.iter().map(|warning| warning.code).collect();
    assert!(codes.contains(&WarningCode::Displaced), "{codes:?}");
    let answer = twin.sync(&SyncRequest::Heads { did: node.did(), from_log: LogId::MACHINE }).await;
    assert!(matches!(answer, SyncResponse::Busy { .. }), "{answer:?}");
    let selection = dataset(id);
    let quote = AccessMessage::Quote { machine: node.did(), buyer: node.did(), selection };
    assert!(matches!(twin.access(&quote).await, AccessReply::Busy { .. }));
}
