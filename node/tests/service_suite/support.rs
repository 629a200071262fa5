//! Homes, nodes, sources and a bare peer for the tests.

use std::{future::Future, io::Cursor, path::Path, time::Duration};

use tokio::sync::broadcast;
use tributary::{
    buyer::Buyer,
    config::{Config, Overrides},
    feeds::{FeedLink, Streams},
    home::{Home, InitOptions},
    ingest::{IngestOptions, NdjsonOptions, NdjsonSource, Source},
    net::{self, Client, Keypair, NetConfig, NetEvents, PeerEvent, PeerId, PublishOutcome},
    service::{Node, NodeError, NodeOptions},
};
use tributary_protocol::{
    access::{Grant, Range, Selection},
    ids::{DatasetId, StreamId},
    wire::{AccessMessage, AccessReply, SyncRequest, SyncResponse},
};
use tributary_store::{Store, StoreOptions};

/// No test may wait longer than this for anything.
const PATIENCE: Duration = Duration::from_secs(60);

pub(crate) async fn soon<T>(what: &str, future: impl Future<Output = T>) -> T {
    tokio::time::timeout(PATIENCE, future).await.unwrap_or_else(|_| panic!("timed out: {what}"))
}

/// A stream of field messages with small chunks.
pub(crate) fn stream(topic: &str, access: &str) -> String {
    format!(
        "  - topic: {topic}\n    mode: fields\n    default: include\n    chunk: {{ bytes: 4KiB, max_age: 100ms }}\n    \
         access: {{ {access} }}\n"
    )
}

pub(crate) fn machine_config(streams: &[String]) -> String {
    format!("{}streams:\n{}", head("machine", ""), streams.concat())
}

pub(crate) fn buyer_config() -> String {
    head("buyer", "")
}

pub(crate) fn head(roles: &str, limits: &str) -> String {
    format!(
        "roles: [{roles}]\nnetwork:\n  listen: [/ip4/127.0.0.1/tcp/0]\n  limits: {{ {limits} }}\n\
         store: {{ ballast: none }}\n"
    )
}

pub(crate) async fn try_start(dir: &Path, text: &str) -> Result<Node, NodeError> {
    let path = dir.join("home");
    let home = if path.exists() {
        Home::open(&path).unwrap()
    } else {
        let options = InitOptions { owner: None, identity: None, passphrase: None, config: text.to_owned() };
        Home::init(&path, options, &mut rand::rng()).unwrap()
    };
    let config = Config::parse(text, "config.yaml", &path, &Overrides::none()).unwrap();
    soon("start", Node::start(NodeOptions { home, config, passphrase: None, ros_arguments: None })).await
}

/// Starts a node in `dir`; the second time it is the same home.
pub(crate) async fn start(dir: &Path, text: &str) -> Node {
    try_start(dir, text).await.unwrap()
}

/// Stops a node and waits until nothing of it is left: a process that ends lets go of its store, here the last handle does.
pub(crate) async fn stop(node: Node, dir: &Path) {
    soon("shutdown", node.shutdown()).await.unwrap();
    drop(node);
    soon("release", async {
        while Store::open(dir.join("home/store"), &StoreOptions::default()).is_err() {
            tokio::task::yield_now().await;
        }
    })
    .await;
}

/// `count` messages on `topic`, numbered from `first`.
pub(crate) fn messages(topic: &str, first: u64, count: u64) -> Box<dyn Source + Send> {
    let line = |n: u64| format!("{{\"n\":{n},\"pad\":\"{}\"}}\n", "x".repeat(200));
    let lines: String = (first..first + count).map(line).collect();
    let ndjson = NdjsonOptions { topic: topic.to_owned(), ..NdjsonOptions::default() };
    let options = IngestOptions { ndjson, ..IngestOptions::default() };
    Box::new(NdjsonSource::new(Cursor::new(lines.into_bytes()), Path::new("lines"), &options))
}

/// Puts `count` messages into a stream and closes its dataset.
pub(crate) async fn fill(node: &Node, topic: &str, first: u64, count: u64) -> DatasetId {
    let summary = soon("ingest", node.ingest(messages(topic, first, count), |_| {})).await.unwrap();
    assert!(summary.is_clean(), "{summary:?}");
    assert_eq!(summary.messages(), count);
    let (machine, topic) = (node.machine().unwrap().clone(), topic.to_owned());
    let closed = tokio::task::spawn_blocking(move || machine.close_datasets(Some(&topic))).await.unwrap().unwrap();
    assert_eq!(closed.len(), 1);
    closed[0]
}

pub(crate) fn stream_id(node: &Node, topic: &str) -> StreamId {
    node.machine().unwrap().stream_id(topic).unwrap()
}

pub(crate) async fn link(node: &Node) -> FeedLink {
    node.links().await.unwrap().remove(0)
}

/// Lets a buyer follow everything of a machine.
pub(crate) async fn follow<'a>(buyer: &'a Node, machine: &Node) -> &'a Buyer {
    let link = link(machine).await;
    let side = buyer.buyer().unwrap();
    soon("follow", side.feeds().follow(&link, Streams::All)).await.unwrap();
    side
}

pub(crate) fn dataset(id: DatasetId) -> Selection {
    Selection::new(vec![Range::Dataset(id)]).unwrap()
}

/// A peer that speaks the protocols message by message.
pub(crate) struct Bare {
    pub(crate) client: Client,
    peers: broadcast::Receiver<PeerEvent>,
    _events: NetEvents,
    target: PeerId,
}

impl Bare {
    pub(crate) async fn connect(node: &Node) -> Self {
        let (client, events, _) = net::start(Keypair::generate_ed25519(), NetConfig::default()).await.unwrap();
        let peers = client.watch_peers();
        let address = node.net().listen_addrs().await.unwrap().remove(0);
        let target = soon("dial", client.dial(address)).await.unwrap();
        Self { client, peers, _events: events, target }
    }

    /// Publishes a message as soon as the node listens to the topic.
    pub(crate) async fn gossip(&mut self, topic: &str, bytes: Vec<u8>) {
        let listens = PeerEvent::Subscribed { peer: self.target, topic: topic.to_owned() };
        soon("subscription", async { while self.peers.recv().await.unwrap() != listens {} }).await;
        let sent = self.client.publish(topic, bytes).await.unwrap();
        assert!(matches!(sent, PublishOutcome::Sent { .. }), "{sent:?}");
    }

    pub(crate) async fn access_bytes(&self, bytes: Vec<u8>) -> AccessReply {
        let reply = soon("access", self.client.access(self.target, bytes)).await.unwrap();
        AccessReply::decode(&reply).unwrap()
    }

    pub(crate) async fn access(&self, message: &AccessMessage) -> AccessReply {
        self.access_bytes(message.encode().unwrap()).await
    }

    pub(crate) async fn sync(&self, request: &SyncRequest) -> SyncResponse {
        let response = soon("sync", self.client.sync(self.target, request.encode().unwrap())).await.unwrap();
        SyncResponse::decode(&response).unwrap()
    }

    /// The answer to these bytes; `None` when the stream was closed without one.
    pub(crate) async fn sync_bytes(&self, bytes: Vec<u8>) -> Option<SyncResponse> {
        let response = soon("sync", self.client.sync(self.target, bytes)).await.ok()?;
        Some(SyncResponse::decode(&response).unwrap())
    }
}

pub(crate) fn granted(reply: AccessReply) -> Vec<Grant> {
    match reply {
        AccessReply::Granted { grants, .. } => grants.iter().map(|bytes| Grant::decode(bytes).unwrap()).collect(),
        other => panic!("not granted: {other:?}"),
    }
}
