//! What it costs a node to pass on entries of a feed that it follows, and buys nothing of: a machine, the node, and peers that have
//! the feed from that node alone. Every entry is verified and durable before it goes on.

use std::{
    fs,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
};

use serde_json::json;
use tributary::net::{self, Acceptance, Client, Keypair, NetConfig, PeerEvent};
use tributary_protocol::{
    ids::{Did, StreamId},
    wire::{topic_machine, topic_stream},
};

use crate::{
    Bench,
    machine::{cpu_of, peak_mib, resident_mib},
    measure::median,
    nodes::{Node, drip_line, eventually, program},
    table::Goal,
};

const TOPIC: &str = "/forward";
/// Peers behind the node that forwards.
const PEERS: usize = 4;
/// Entries that are written together: fewer than the queues of announcements and of gossip hold.
const TOGETHER: u64 = 50;

const MACHINE: &str = "\
roles: [machine]
network: { listen: [/ip4/127.0.0.1/tcp/0] }
streams:
  - { topic: /forward, mode: fields, default: include, access: { policy: free }, chunk: { bytes: 4KiB, max_age: 100ms } }
";

/// A peer that takes whatever comes, and counts entries.
struct Sink {
    client: Client,
    heard: Arc<AtomicUsize>,
}

impl Sink {
    async fn connect(link: &str, topics: [String; 2]) -> Self {
        let config = NetConfig { listen: vec!["/ip4/127.0.0.1/tcp/0".parse().unwrap()], ..NetConfig::default() };
        let (client, mut events, _) = net::start(Keypair::generate_ed25519(), config).await.unwrap();
        let mut peers = client.watch_peers();
        let forwarder = client.dial(link.parse().unwrap()).await.unwrap();
        let stream = topics[1].clone();
        for topic in topics {
            client.subscribe(topic).await.unwrap();
        }
        // The node passes on to who it knows to listen; it says the same of itself.
        let listens = PeerEvent::Subscribed { peer: forwarder, topic: stream.clone() };
        while peers.recv().await.unwrap() != listens {}
        let (heard, answers) = (Arc::new(AtomicUsize::new(0)), client.clone());
        let counted = Arc::clone(&heard);
        tokio::spawn(async move {
            while let Some(message) = events.gossip.recv().await {
                if message.topic == stream {
                    counted.fetch_add(1, Relaxed);
                }
                // Fails only when the network has stopped.
                let _ = answers.report(message.id, message.source, Acceptance::Accept).await;
            }
        });
        Self { client, heard }
    }
}

/// A file with messages, each of which becomes a chunk, and so an entry, of its own.
fn messages(dir: &Path, first: u64, count: u64) -> PathBuf {
    let path = dir.join(format!("messages-{first}.ndjson"));
    let text: Vec<u8> = (first..first + count).flat_map(|number| drip_line(TOPIC, number)).collect();
    fs::write(&path, text).unwrap();
    path
}

pub(crate) fn run(bench: &mut Bench) {
    tokio::runtime::Runtime::new().unwrap().block_on(measure(bench));
}

async fn measure(bench: &mut Bench) {
    let dir = bench.dir.join("forward");
    fs::create_dir_all(&dir).unwrap();
    let program = program();
    let machine = Node::start(&program, &dir.join("machine"), MACHINE).await;
    let forwarder = Node::buyer(&program, &dir.join("forwarder")).await;
    let link = machine.link().await;
    forwarder.post("/v1/subscribe", json!({ "link": link, "streams": [] })).await;
    let did: Did = machine.get("/v1/status").await["did"].as_str().unwrap().parse().unwrap();
    let topics = [topic_machine(&did), topic_stream(&did, &StreamId::of(&did, TOPIC))];
    let address = forwarder.get("/v1/status").await["listen"][0].as_str().unwrap().to_owned();
    let mut sinks = vec![];
    for _ in 0..PEERS {
        sinks.push(Sink::connect(&address, topics.clone()).await);
    }

    let (mut first, mut cpu, mut growth) = (0, vec![], vec![]);
    for round in 0..=bench.rounds {
        let before = (cpu_of(forwarder.pid()), resident_mib(forwarder.pid()), first);
        while first < before.2 + bench.messages as u64 {
            let wanted: Vec<usize> = sinks.iter().map(|sink| sink.heard.load(Relaxed) + TOGETHER as usize).collect();
            let path = messages(&dir, first, TOGETHER);
            machine.work("/v1/ingest", json!({ "path": path, "topic_field": "topic" })).await;
            fs::remove_file(path).unwrap();
            first += TOGETHER;
            let all = || sinks.iter().zip(&wanted).all(|(sink, wanted)| sink.heard.load(Relaxed) >= *wanted);
            eventually("entries at all peers", async || all().then_some(())).await;
        }
        // The first round warms up.
        if round > 0 {
            let (after, entries) = (cpu_of(forwarder.pid()), (first - before.2) as f64 / 1000.0);
            cpu.push((after.0 - before.0.0 + after.1 - before.0.1) / entries);
            growth.push((resident_mib(forwarder.pid()) - before.1) / entries);
        }
    }
    let table = &mut bench.table;
    let what = format!("1,000 entries passed on to {PEERS} peers by a node that only forwards");
    table.value(&format!("{what}: CPU"), median(&cpu), "s", Goal::None);
    table.value(&format!("{what}: memory it has more then"), median(&growth), "MiB", Goal::None);
    table.value("peak memory of the node that only forwards", peak_mib(forwarder.pid()), "MiB", Goal::None);
    for sink in &sinks {
        sink.client.shutdown().await;
    }
    forwarder.stop().await;
    machine.stop().await;
    fs::remove_dir_all(dir).unwrap();
}
