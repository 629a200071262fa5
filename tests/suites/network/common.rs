//! Nodes in a world, and how they are connected.

use std::time::Duration;

use tributary::control::api::{NodeStatus, PeerStatus};
use tributary_protocol::ids::DatasetId;
use tributary_tests::{
    home::{Sandbox, stream},
    netns::Host,
    node::NodeProcess,
    trade,
    wait::until,
};

/// What machines publish here.
pub(crate) const TOPIC: &str = "/odom";
/// Where machines publish files.
pub(crate) const FILES: &str = "recordings";
/// Relayed connections stay what they are.
pub(crate) const NO_HOLES: &str = "  nat: { hole_punching: false }\n";
/// For what a network takes its time for by itself: finding out that a peer is gone, trying again.
pub(crate) const LONG: Duration = Duration::from_secs(200);

/// A configuration that listens everywhere; `network` is more of `network`, `rest` more of the whole, in lines of their own.
fn config(role: &str, network: &str, rest: &str) -> String {
    let listen = "[/ip4/0.0.0.0/tcp/4600, /ip4/0.0.0.0/udp/4600/quic-v1]";
    format!("roles: [{role}]\nnetwork:\n  listen: {listen}\n{network}store: {{ ballast: none }}\n{rest}")
}

/// `key: [addresses]` in `network`.
pub(crate) fn list(key: &str, addresses: &[&str]) -> String {
    format!("  {key}: [{}]\n", addresses.join(", "))
}

async fn start(sandbox: &Sandbox, host: &Host, config: &str) -> NodeProcess {
    let home = sandbox.path().join(host.name());
    if !home.exists() {
        tributary_tests::home::make_home(&home, config);
    }
    match NodeProcess::try_start_by(host.node(), &home).await {
        Ok(node) => node,
        Err(status) => panic!("{} ended: {status}", host.name()),
    }
}

/// Starts a machine with a stream of messages and one of files.
pub(crate) async fn machine(sandbox: &Sandbox, host: &Host, network: &str) -> NodeProcess {
    let files = format!("  - {{ topic: {FILES}, mode: file, access: {{ policy: free }} }}\n");
    let streams = format!("streams:\n{}{files}", stream(TOPIC, ", chunk: { max_age: 200ms }"));
    start(sandbox, host, &config("machine", network, &streams)).await
}

/// Starts a buyer.
pub(crate) async fn buyer(sandbox: &Sandbox, host: &Host, network: &str) -> NodeProcess {
    start(sandbox, host, &config("buyer", network, "")).await
}

/// Starts a buyer that serves what it has to others.
pub(crate) async fn reseeder(sandbox: &Sandbox, host: &Host, network: &str) -> NodeProcess {
    start(sandbox, host, &config("buyer", network, "buyer: { reseed: true }\n")).await
}

/// Starts a relay, or starts it again, and returns it with its address.
pub(crate) async fn relay(sandbox: &Sandbox, host: &Host, ip: &str) -> (NodeProcess, String) {
    let node = start(sandbox, host, &config("relay", "", "")).await;
    let peer = node.status().await.peer;
    (node, format!("/ip4/{ip}/tcp/4600/p2p/{peer}"))
}

/// What a node knows about its connection to another one, if it has one.
pub(crate) async fn peer(node: &NodeProcess, other: &NodeProcess) -> Option<PeerStatus> {
    let id = other.status().await.peer;
    peers(&node.status().await, &id)
}

fn peers(status: &NodeStatus, id: &str) -> Option<PeerStatus> {
    status.peers.iter().find(|peer| peer.peer == id).cloned()
}

/// Waits until a node has a place at this many relays, and returns its link.
pub(crate) async fn reserved(node: &NodeProcess, relays: usize) -> String {
    until("places at relays", async || {
        let status = node.status().await;
        let circuits: Vec<_> = status.reach.relays.iter().filter_map(|relay| relay.circuit.clone()).collect();
        let link = status.links.first()?.clone();
        (circuits.len() == relays && circuits.iter().all(|circuit| link.contains(circuit))).then_some(link)
    })
    .await
}

/// Publishes messages, and lets a buyer who follows already get them, down to the proof.
pub(crate) async fn trade(machine: &NodeProcess, buyer: &NodeProcess, first: u64, count: u64) -> DatasetId {
    let dataset = trade::ingest(machine, TOPIC, first, count).await;
    trade::know(buyer, dataset).await;
    trade::buy(buyer, dataset).await;
    dataset
}
