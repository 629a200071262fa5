//! The machine dies by SIGKILL in the middle of ingest, again and again, in the same home.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use rand::{RngExt as _, SeedableRng as _, rngs::StdRng};
use tributary::control::api::{
    ExportFormat, ExportResult, Feed, IngestProgress, IngestResult, SelectionRequest, Verdict,
};
use tributary_protocol::{
    ids::{Did, StreamId},
    json::{self, Number, Value},
    package::DataPackage,
};
use tributary_tests::{
    disk,
    home::{Sandbox, stream},
    lines,
    node::NodeProcess,
    trade,
    wait::{soon, until},
};

const KILLS: u64 = 50;
const TOPICS: &[&str] = &["/imu", "/odom"];
/// Small, so that a kill meets every step often: full chunks, old chunks, closing datasets, new numbers.
const STREAM: &str = ", chunk: { bytes: 8KiB, max_age: 100ms }, close_after: { packages: 150 }";

/// What was acknowledged before a kill: messages `first..first + durable` of each topic.
struct Acknowledged {
    first: u64,
    durable: BTreeMap<&'static str, u64>,
}

/// Where in the ingest a kill comes.
enum Moment {
    Received(u64),
    Durable(u64),
    Closed(u64),
    After(Duration),
}

impl Moment {
    fn draw(rng: &mut StdRng) -> Self {
        match rng.random_range(0..4) {
            0 => Self::Received(rng.random_range(1..600)),
            1 => Self::Durable(rng.random_range(1..400)),
            2 => Self::Closed(rng.random_range(1..3)),
            _ => Self::After(Duration::from_micros(rng.random_range(0..200_000))),
        }
    }
}

/// Runs the machine until the moment, and kills it.
async fn ingest_and_die(home: &std::path::Path, moment: Moment, next: &Arc<AtomicU64>) -> Acknowledged {
    let mut machine = NodeProcess::start(home).await;
    let first = next.load(Relaxed);
    let client = machine.client().clone();
    let source = lines::endless(TOPICS, Arc::clone(next));
    let ingest = tokio::spawn(async move {
        client.run_with_lines::<IngestProgress, IngestResult>("/v1/ingest/lines", source, |_| {}).await
    });
    let mut durable = BTreeMap::new();
    let mut look = async || {
        let (mut received, mut datasets) = (0, 0);
        for topic in TOPICS {
            let lane = machine.stream(topic).await.lane;
            assert_eq!((lane.dropped, lane.refused, lane.stopped), (0, 0, None));
            received += lane.received;
            datasets += lane.datasets;
            durable.insert(*topic, lane.durable_packages);
        }
        (received, durable.values().sum::<u64>(), datasets)
    };
    match moment {
        Moment::After(time) => {
            until("the first message", async || (look().await.0 > 0).then_some(())).await;
            tokio::time::sleep(time).await;
            look().await;
        }
        Moment::Received(wanted) => until("messages", async || (look().await.0 >= wanted).then_some(())).await,
        Moment::Durable(wanted) => until("durable packages", async || (look().await.1 >= wanted).then_some(())).await,
        Moment::Closed(wanted) => until("closed datasets", async || (look().await.2 >= wanted).then_some(())).await,
    }
    assert!(machine.is_alive() && !ingest.is_finished(), "the kill comes while the ingest is under way");
    machine.kill();
    let broken = soon("the end of the ingest", ingest).await.unwrap();
    assert!(broken.is_err(), "the ingest never came to its end: {broken:?}");
    Acknowledged { first, durable }
}

fn closed(feed: &Feed) -> bool {
    !feed.datasets.is_empty() && feed.datasets.iter().all(|dataset| dataset.closed)
}

async fn feed_of(node: &NodeProcess, machine: Did) -> Option<Feed> {
    node.feeds().await.into_iter().find(|feed| feed.machine == machine)
}

#[tokio::test(flavor = "multi_thread")]
async fn fifty_kills_in_the_middle_of_ingest_lose_nothing_that_was_acknowledged() {
    let sandbox = Sandbox::new();
    let streams: Vec<String> = TOPICS.iter().map(|topic| stream(topic, STREAM)).collect();
    let home = sandbox.machine("machine", &streams);
    let next = Arc::new(AtomicU64::new(0));
    let machine = NodeProcess::start(&home).await;
    let did = machine.status().await.did;
    let link = machine.link().await;
    let address = link.split_once("?addr=").unwrap().1.to_owned();
    machine.stop().await;
    let follow = format!("follow: [{{ machine: \"{did}\", addresses: [\"{address}\"] }}]\n");
    let buyer = NodeProcess::start(&sandbox.buyer("buyer", &follow)).await;

    let mut rng = StdRng::seed_from_u64(50);
    let mut acknowledged = Vec::new();
    for _ in 0..KILLS {
        acknowledged.push(ingest_and_die(&home, Moment::draw(&mut rng), &next).await);
    }
    let promised: u64 = acknowledged.iter().flat_map(|run| run.durable.values()).sum();
    let after_one = acknowledged.iter().filter(|run| run.durable.values().any(|durable| *durable > 0)).count();
    assert!(after_one > 25, "only {after_one} of the kills came after something was acknowledged");

    // The last start closes what the last kill left open, and the follower hears of everything.
    let machine = NodeProcess::start(&home).await;
    let own = feed_of(&machine, did).await.unwrap();
    assert!(closed(&own), "no dataset is left open");
    until("the buyer to know everything", async || {
        let known = feed_of(&buyer, did).await?;
        let chunks = |feed: &Feed| feed.streams.iter().map(|stream| stream.chunks).sum::<u64>();
        let whole = (chunks(&known), known.entries) == (chunks(&own), own.entries);
        (whole && closed(&known) && known.datasets.len() == own.datasets.len()).then_some(())
    })
    .await;
    let followed = buyer.status().await.followed.remove(0);
    assert_eq!(followed.equivocations, 0);

    let selection = SelectionRequest {
        machine: Some(did),
        streams: TOPICS.iter().map(ToString::to_string).collect(),
        ..SelectionRequest::default()
    };
    trade::request(&buyer, &selection).await;
    assert_eq!(trade::pull(&buyer, &selection).await.not_granted, 0);
    let mut packages = 0;
    for dataset in &own.datasets {
        let report = trade::verify(&buyer, dataset.dataset).await;
        assert_eq!(report.verdict, Verdict::Proven, "{report:?}");
        assert_eq!((report.packages, report.chunks), (report.packages_verified, report.chunks_opened));
        packages += report.packages;
    }
    assert!(packages >= promised, "{promised} packages were acknowledged, {packages} arrived");

    let exported = trade::export(&buyer, &selection, &[ExportFormat::Ndjson], &sandbox.path().join("out")).await;
    machine.stop().await;
    buyer.stop().await;

    let arrived = Arrived::read(&exported);
    for run in &acknowledged {
        for (topic, durable) in &run.durable {
            for n in run.first..run.first + durable {
                assert!(arrived.messages[*topic].contains(&n), "message {n} on {topic} was acknowledged and is lost");
            }
        }
    }

    let logs = disk::follow(&home, &did);
    logs.assert_all_closed();
    disk::assert_nothing_used_twice([&logs]);
    assert_eq!(logs.equivocations, 0);
    for topic in TOPICS {
        let counted = logs.packages(&StreamId::of(&did, topic));
        assert_eq!(counted, arrived.messages[*topic].len() as u64, "what the log of {topic} says is what arrived");
    }
    let theirs = disk::follow(&sandbox.path().join("buyer"), &did);
    assert_eq!(theirs.entries, logs.entries, "the buyer holds the same logs");
}

/// Packages that were exported, by topic. Reading them asserts that no number stands in two of them.
struct Arrived {
    messages: BTreeMap<String, BTreeSet<u64>>,
}

impl Arrived {
    fn read(exported: &ExportResult) -> Self {
        let mut messages: BTreeMap<String, BTreeSet<u64>> = BTreeMap::new();
        let mut numbers = BTreeSet::new();
        for file in &exported.report.files {
            for line in std::fs::read_to_string(&file.path).unwrap().lines() {
                let package = DataPackage::from_json(line.as_bytes()).unwrap();
                let field = |name: &str| package.payload.get(name).unwrap();
                let topic = field("@topic").as_str().unwrap().to_owned();
                let number = whole(&package.sequence_number);
                assert!(numbers.insert((topic.clone(), number)), "number {number} occurs twice on {topic}");
                let Value::Number(n) = field("n") else { panic!("{line}") };
                let n = whole(n);
                assert_eq!(field("pose"), &pose(&topic, n));
                assert!(messages.entry(topic.clone()).or_default().insert(n), "message {n} on {topic} came twice");
            }
        }
        Self { messages }
    }
}

fn whole(number: &Number) -> u64 {
    match number {
        Number::Int(n) => u64::try_from(*n).unwrap(),
        other => panic!("{other:?} is no such number"),
    }
}

/// The pose in message `n`, as it was sent.
fn pose(topic: &str, n: u64) -> Value {
    let sent = json::parse(lines::line(topic, n).trim().as_bytes(), json::Limits::default()).unwrap();
    let Value::Object(fields) = sent else { panic!("a line is an object") };
    fields.get("pose").unwrap().clone()
}
