//! A market on one computer: as many buyers as machines, each machine one package of 1 KiB a second, each buyer a live subscription with files.
//!
//! All of it shares the processors, the feeder and this bench included. Time counts from when every buyer has bought. Feed lag is from the time
//! in a log entry until its buyer says that it has it, over its control socket; every entry of a stream in that time counts. At the end all
//! datasets are closed and the whole testnet is verified: a buyer that misses anything fails the bench.

use std::{
    collections::BTreeMap,
    path::Path,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use serde_json::{Value, json};
use tributary::{
    control::{
        ControlClient,
        api::{EntryHash, EntryHashesRequest, FeedChange, FollowFeedRequest, LogPlace},
    },
    testnet::{
        self, Feed, Folder, NodeRole, State, Topology, UpOptions,
        status::{NetStatus, NodeLine, status},
        verify::{CATCH_UP, verify},
    },
};
use tributary_protocol::ids::{LogId, StreamId};

use crate::{Bench, measure::median, nodes::program, table::Goal};

const STREAM: &str = "/load";
const PACKAGE: u32 = 1024;
const EVERY: Duration = Duration::from_secs(1);
/// Places in one request for hashes.
const PLACES: usize = 1000;

/// A number from the environment.
fn setting<T: std::str::FromStr>(name: &str, default: T) -> T
where
    T::Err: std::fmt::Debug,
{
    std::env::var(name).map_or(default, |text| text.parse().unwrap())
}

fn now_ms() -> u64 {
    u64::try_from(SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_millis()).unwrap()
}

pub(crate) fn run(bench: &mut Bench) {
    let pairs = setting("TRIBUTARY_BENCH_TESTNET_PAIRS", 20);
    let seconds = setting("TRIBUTARY_BENCH_TESTNET_SECONDS", 180);
    let dir = bench.dir.join("net");
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let measured = runtime.block_on(async {
        let measured = measure(&dir, pairs, Duration::from_secs(seconds));
        // Ctrl-C must not leave forty nodes behind.
        let measured = tokio::select! {
            measured = measured => Some(measured),
            _ = tokio::signal::ctrl_c() => None,
        };
        testnet::down(&dir, false).await.unwrap();
        measured
    });
    let measured = measured.expect("stopped");
    let what = |figure: &str| format!("testnet, {pairs} machines and {pairs} buyers: {figure}");
    let mut figure = |name: &str, value: f64, unit: &str| bench.table.value(&what(name), value, unit, Goal::None);
    figure("up, until everybody has bought", measured.up, "s");
    figure("buyers that have everything", measured.complete, "");
    for (role, nodes) in [("machine", &measured.machines), ("buyer", &measured.buyers)] {
        figure(&format!("memory of a {role}, median"), nodes.memory, "MiB");
        figure(&format!("memory of a {role}, most"), nodes.most, "MiB");
        figure(&format!("processor time of a {role}, median"), nodes.cpu, "% of a core");
    }
    figure("feed lag, median", at(&measured.lags, 0.5), "ms");
    figure("feed lag, 99 of 100", at(&measured.lags, 0.99), "ms");
    bench.table.note(format!(
        "testnet: {seconds} s, a package of {PACKAGE} B every second at each machine; {} entries arrived",
        measured.lags.len()
    ));
}

struct Measured {
    up: f64,
    complete: f64,
    machines: Nodes,
    buyers: Nodes,
    /// ms, sorted.
    lags: Vec<f64>,
}

/// Nodes of one role.
struct Nodes {
    memory: f64,
    most: f64,
    cpu: f64,
}

impl Nodes {
    fn of(role: NodeRole, before: &NetStatus, after: &NetStatus, seconds: f64) -> Self {
        let of_role = |status: &'_ NetStatus| -> Vec<NodeLine> {
            status.nodes.iter().filter(|node| node.role == role).cloned().collect()
        };
        let (before, after) = (of_role(before), of_role(after));
        let memory: Vec<f64> = after.iter().map(|node| node.memory_bytes as f64 / f64::from(1 << 20)).collect();
        let cpu: Vec<f64> =
            before.iter().zip(&after).map(|(before, after)| (after.cpu_s - before.cpu_s) / seconds * 100.0).collect();
        Self { memory: median(&memory), most: memory.iter().copied().fold(0.0, f64::max), cpu: median(&cpu) }
    }
}

/// The value that this part of the sorted values is not above.
fn at(sorted: &[f64], part: f64) -> f64 {
    let last = sorted.len() - 1;
    sorted[((last as f64 * part).round() as usize).min(last)]
}

async fn measure(dir: &Path, pairs: u16, time: Duration) -> Measured {
    let options = UpOptions {
        dir: dir.to_owned(),
        program: Some(program()),
        topology: Topology { machines: pairs, buyers: pairs, mirrors: 0 },
        feed: Feed::Packages { bytes: PACKAGE, every: EVERY },
        namespaces: false,
    };
    let brought = testnet::up(&options, &mut |step| eprintln!("  {step}")).await.unwrap();
    let folder = Folder::new(dir).unwrap();
    let before = status(&folder, None).await.unwrap();
    let begun = Instant::now();
    let lags = lags(&folder, &brought.state, time).await;
    let after = status(&folder, Some(&before)).await.unwrap();
    let seconds = begun.elapsed().as_secs_f64();
    for machine in brought.state.machines() {
        let _: Value = folder.client(&machine.name).post("/v1/datasets/close", &json!({})).await.unwrap();
    }
    let verified = verify(&folder, CATCH_UP).await.unwrap();
    assert!(verified.ok, "{:#?}", verified.findings);
    let published = time.as_secs();
    let complete = verified.buyers.iter().filter(|buyer| buyer.packages >= published).count();
    assert_eq!(complete, usize::from(pairs), "a machine published less than a package a second: {verified:#?}");
    Measured {
        up: brought.seconds,
        complete: complete as f64,
        machines: Nodes::of(NodeRole::Machine, &before, &after, seconds),
        buyers: Nodes::of(NodeRole::Buyer, &before, &after, seconds),
        lags,
    }
}

/// Watches all buyers for a time. How old each entry of a stream was when its buyer had it, ms, sorted.
async fn lags(folder: &Folder, state: &State, time: Duration) -> Vec<f64> {
    let watches = state.buyers().map(|buyer| {
        let machine = state.node(buyer.follows.as_ref().unwrap()).unwrap().did;
        let (client, log) = (folder.client(&buyer.name), LogId::from(StreamId::of(&machine, STREAM)));
        tokio::spawn(async move {
            let arrived = watch(&client, time).await;
            let places: Vec<LogPlace> = arrived.keys().map(|seq| LogPlace { log, incarnation: 0, seq: *seq }).collect();
            let mut lags = Vec::new();
            for places in places.chunks(PLACES) {
                let request = EntryHashesRequest { machine, places: places.to_vec() };
                let entries: Vec<EntryHash> = client.post("/v1/logs/hashes", &request).await.unwrap();
                lags.extend(entries.iter().map(|entry| arrived[&entry.place.seq].saturating_sub(entry.time_ms) as f64));
            }
            lags
        })
    });
    let mut all = Vec::new();
    for watch in watches.collect::<Vec<_>>() {
        all.extend(watch.await.unwrap());
    }
    assert!(!all.is_empty(), "no entry arrived");
    all.sort_by(f64::total_cmp);
    all
}

/// When which entry of the stream arrived, by its position.
async fn watch(client: &ControlClient, time: Duration) -> BTreeMap<u64, u64> {
    let mut arrived = BTreeMap::new();
    let note = |change: FeedChange| {
        if change.stream.as_deref() == Some(STREAM) {
            let now = now_ms();
            arrived.extend((change.first..change.first + change.count).map(|seq| (seq, now)));
        }
    };
    let request = FollowFeedRequest::default();
    let watching = client.run::<FeedChange, Value>("/v1/feeds/watch", &request, note);
    // The watch has no end of its own.
    let ended = tokio::time::timeout(time, watching).await;
    assert!(ended.is_err(), "a buyer ended its watch: {ended:?}");
    arrived
}
