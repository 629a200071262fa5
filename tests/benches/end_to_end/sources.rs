//! A dataset from three nodes that hold it, each limited to 20 MiB/s by the node's own limit, while its machine is gone.
//!
//! The limit holds one second's worth, which a first pull takes, so that the second one is measured without it.

use std::{fs, path::Path};

use rand::Rng as _;
use serde_json::{Value, json};

use crate::{
    Bench,
    machine::clock,
    nodes::{Node, STREAM, program},
    table::Goal,
};

const SOURCES: usize = 3;
const LIMIT_MIB: f64 = 20.0;
/// What the sources' limits have saved up is gone behind so many MiB.
const FIRST_MIB: usize = 96;
/// What is measured, MiB: some seconds of three sources.
const MIB: usize = 384;
/// What three sources of 20 MiB/s should bring together, MiB/s.
const TOGETHER: f64 = 50.0;

pub(crate) fn run(bench: &mut Bench) {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime.block_on(three(bench, &program()));
}

async fn publish(machine: &Node, dir: &Path, mib: usize) -> String {
    let file = dir.join(format!("{mib}.bin"));
    let mut bytes = vec![0; mib << 20];
    rand::rng().fill_bytes(&mut bytes);
    fs::write(&file, bytes).unwrap();
    let published = machine.work("/v1/publish", json!({ "path": file, "stream": STREAM })).await;
    published["dataset"].as_str().unwrap().to_owned()
}

/// Follows, and gets the keys of the datasets.
async fn enter(node: &Node, link: &str, datasets: &[String]) {
    node.post("/v1/subscribe", json!({ "link": link, "streams": [] })).await;
    let selection = json!({ "datasets": datasets });
    node.work("/v1/access/request", json!({ "selection": selection, "wait_ms": 10_000 })).await;
}

async fn pull(node: &Node, datasets: &[String]) -> Value {
    node.work("/v1/pull", json!({ "selection": { "datasets": datasets } })).await
}

async fn three(bench: &mut Bench, program: &Path) {
    let dir = bench.dir.join("sources");
    fs::create_dir_all(&dir).unwrap();
    let machine = Node::machine(program, &dir.join("machine")).await;
    let datasets = [publish(&machine, &dir, FIRST_MIB).await, publish(&machine, &dir, MIB).await];
    let link = machine.link().await;

    let (mut sources, mut peers) = (Vec::new(), Vec::new());
    for n in 0..SOURCES {
        let config = format!(
            "roles: [buyer]\nnetwork:\n  listen: [/ip4/127.0.0.1/tcp/0]\n  limits: {{ pull_bytes_per_second: {LIMIT_MIB}MiB }}\n\
             buyer: {{ reseed: true }}\n"
        );
        let source = Node::start(program, &dir.join(format!("source-{n}")), &config).await;
        enter(&source, &link, &datasets).await;
        pull(&source, &datasets).await;
        peers.push(source.get("/v1/status").await["listen"][0].as_str().unwrap().to_owned());
        sources.push(source);
    }
    let config =
        format!("roles: [buyer]\nnetwork:\n  listen: [/ip4/127.0.0.1/tcp/0]\n  peers: [{}]\n", peers.join(", "));
    let buyer = Node::start(program, &dir.join("buyer"), &config).await;
    enter(&buyer, &link, &datasets).await;
    machine.stop().await;

    let (_, first) = clock(pull(&buyer, &datasets[..1])).await;
    assert!(brought(&first).iter().all(|bytes| *bytes > 0.0), "not all sources brought something: {first}");
    let (seconds, pulled) = clock(pull(&buyer, &datasets[1..])).await;
    let shares = brought(&pulled);
    assert_eq!(shares.len(), SOURCES, "not all sources brought something: {pulled}");
    let total: f64 = shares.iter().sum();
    let table = &mut bench.table;
    table.value(
        &format!("pull {MIB} MiB from {SOURCES} nodes of {LIMIT_MIB} MiB/s"),
        total / seconds,
        "MiB/s",
        Goal::AtLeast(TOGETHER),
    );
    let most = shares.iter().copied().fold(0.0, f64::max);
    table.note(format!("the largest share of the {SOURCES} sources was {:.0} % of the bytes", 100.0 * most / total));
    buyer.stop().await;
    for source in sources {
        source.stop().await;
    }
    fs::remove_dir_all(dir).unwrap();
}

/// MiB that came from each source that brought something.
#[expect(clippy::cast_precision_loss, reason = "a share")]
fn brought(report: &Value) -> Vec<f64> {
    let sources = report["sources"].as_array().unwrap();
    let bytes = sources.iter().filter_map(|source| source["bytes"].as_u64());
    bytes.filter(|bytes| *bytes > 0).map(|bytes| bytes as f64 / 1_048_576.0).collect()
}
