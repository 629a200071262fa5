//! Limits on bytes per second between real swarms: who waits, who is told to, and what goes ahead of it. Nothing here measures time:
//! the limits are so low, or what has gone is so much, that they must be met.

use std::{collections::HashMap, num::NonZeroU64, sync::Arc};

use tributary::net::{
    Acceptance, ChunkLookup, MAX_GOSSIP_MESSAGE, MAX_SYNC_RESPONSE, NetConfig, PublishOutcome, PullClient, PullOptions,
    PullServer, PullServerConfig, RateCaps, Wanted, Way,
};
use tributary_protocol::{
    ids::{Did, Hash},
    wire::{SyncResponse, topic_machine},
};

use super::support::{Node, soon, tcp_config, until};

const CHUNKS: usize = 12;
const CHUNK: usize = 256 << 10;

fn rate(bytes: u64) -> Option<NonZeroU64> {
    NonZeroU64::new(bytes)
}

fn config(up: RateCaps, down: RateCaps) -> NetConfig {
    NetConfig { up, down, gossip_heartbeat: std::time::Duration::from_millis(200), ..tcp_config() }
}

fn message(n: u8) -> Vec<u8> {
    vec![n; MAX_GOSSIP_MESSAGE]
}

/// Both listen to the topic, and know it of each other.
async fn listen(a: &Node, b: &Node) -> String {
    let topic = topic_machine(&Did::from_bytes([7; 20]));
    for (node, other) in [(a, b), (b, a)] {
        node.client.subscribe(&topic).await.unwrap();
        until("the subscription", async || {
            let peers = other.client.peers().await.unwrap();
            peers.iter().any(|peer| peer.peer == node.id() && peer.topics == 1).then_some(())
        })
        .await;
    }
    topic
}

#[tokio::test]
async fn a_pull_over_the_limit_waits_at_both_ends_and_gossip_goes_ahead_of_it() {
    for (up, down) in [(rate(1 << 20), None), (None, rate(1 << 20))] {
        let limit = |pull| RateCaps { total: pull, ..RateCaps::default() };
        let mut puller = Node::new(config(RateCaps::default(), limit(down))).await;
        let server = Node::new(config(limit(up), RateCaps::default())).await;
        puller.dial(&server).await;
        let topic = listen(&puller, &server).await;
        let bodies: HashMap<Hash, Vec<u8>> =
            (0..CHUNKS).map(|n| vec![n as u8; CHUNK]).map(|body| (Hash::of(&body), body)).collect();
        let wanted = bodies.keys().map(|hash| Wanted { hash: *hash, len: None }).collect();
        let served = bodies.clone();
        let provider = move |hash: &Hash, into: &mut Vec<u8>| {
            into.extend_from_slice(&served[hash]);
            ChunkLookup::Found
        };
        let pulls = PullServer::start(&server.client, Arc::new(provider), PullServerConfig::default()).unwrap();
        let stream = soon("open", puller.client.open_pull(server.id())).await.unwrap();
        let options = PullOptions { pace: Some(puller.client.pace(Way::Down, server.id())), ..PullOptions::default() };
        let mut pull = PullClient::start(stream, wanted, options).unwrap();
        let first = soon("the first chunk", pull.next()).await.unwrap();
        assert_eq!(first.result.as_ref().unwrap(), &bodies[&first.hash]);

        // While the pull waits for its rate, an announcement passes it.
        assert!(matches!(server.client.publish(&topic, message(1)).await.unwrap(), PublishOutcome::Sent { .. }));
        let heard = soon("gossip", puller.events.gossip.recv()).await.unwrap();
        assert_eq!(heard.bytes, message(1));
        assert_eq!(pulls.stats().completed, 0, "the pull had not ended");
        puller.client.report(heard.id, heard.source, Acceptance::Accept).await.unwrap();

        let mut count = 1;
        while let Some(item) = soon("chunk", pull.next()).await {
            assert_eq!(item.result.as_ref().unwrap(), &bodies[&item.hash]);
            count += 1;
        }
        assert_eq!(count, CHUNKS);
        let (sent, got) = (server.client.rates().up, puller.client.rates().down);
        assert!(sent.pull.bytes >= (CHUNKS * CHUNK) as u64 && got.pull.bytes == (CHUNKS * CHUNK) as u64);
        let limited = if up.is_some() { sent } else { got };
        assert_eq!(limited.total.limit, Some(1 << 20));
        assert!(limited.pull.held > 0, "{limited:?}");
        assert_eq!(limited.gossip.held, 0, "{limited:?}");
        assert!(limited.gossip.bytes >= MAX_GOSSIP_MESSAGE as u64);
    }
}

#[tokio::test]
async fn who_asks_on_before_his_answers_are_paid_for_is_told_when_to_come_back() {
    let limit = RateCaps { per_peer: rate(16 << 10), ..RateCaps::default() };
    let (asks, mut answers) = (Node::new(tcp_config()).await, Node::new(config(limit, RateCaps::default())).await);
    let other = Node::new(tcp_config()).await;
    asks.dial(&answers).await;
    other.dial(&answers).await;
    let serve = async |answers: &mut Node| {
        let inbound = soon("a request", answers.events.sync.recv()).await.unwrap();
        inbound.responder.send(vec![7; MAX_SYNC_RESPONSE]).await.unwrap();
    };
    let ask = async |node: &Node, answers: &Node| {
        soon("an answer", node.client.sync(answers.id(), b"more".to_vec())).await.unwrap()
    };
    let id = answers.id();
    let client = asks.client.clone();
    let first = tokio::spawn(async move { client.sync(id, b"first".to_vec()).await });
    serve(&mut answers).await;
    assert_eq!(soon("the first", first).await.unwrap().unwrap().len(), MAX_SYNC_RESPONSE);

    let busy = SyncResponse::decode(&ask(&asks, &answers).await).unwrap();
    let SyncResponse::Busy { retry_ms } = busy else { panic!("{busy:?}") };
    assert!((1000..=61_000).contains(&retry_ms), "{retry_ms}");
    assert!(answers.client.rates().up.sync.held > 0 && answers.client.stats().sync.busy > 0);
    // Another peer is answered.
    let client = other.client.clone();
    let second = tokio::spawn(async move { client.sync(id, b"second".to_vec()).await });
    serve(&mut answers).await;
    assert_eq!(soon("the second", second).await.unwrap().unwrap().len(), MAX_SYNC_RESPONSE);
}

#[tokio::test]
async fn gossip_over_its_limit_is_left_out_and_nobody_is_blamed() {
    let limit = RateCaps { gossip: rate(16 << 10), ..RateCaps::default() };
    let loud = Node::new(config(RateCaps::default(), RateCaps::default())).await;
    let mut thrifty = Node::new(config(limit, limit)).await;
    loud.dial(&thrifty).await;
    let topic = listen(&loud, &thrifty).await;
    for n in 0..20 {
        assert!(matches!(loud.client.publish(&topic, message(n)).await.unwrap(), PublishOutcome::Sent { .. }));
    }
    until("messages to be left out", async || (thrifty.client.stats().gossip_dropped > 0).then_some(())).await;
    let rates = thrifty.client.rates().down.gossip;
    assert!(rates.held > 0 && rates.bytes > MAX_GOSSIP_MESSAGE as u64, "{rates:?}");
    let peers = thrifty.client.peers().await.unwrap();
    assert!(peers[0].score >= 0.0, "{peers:?}");
    assert_eq!(thrifty.client.stats().gossip_rejected, 0);
    while thrifty.events.gossip.try_recv().is_ok() {}

    // What it has to say itself goes once, and then only when that is paid for.
    let mut outcomes = Vec::new();
    for n in 100..110 {
        outcomes.push(thrifty.client.publish(&topic, message(n)).await.unwrap());
    }
    assert!(matches!(outcomes[0], PublishOutcome::Sent { .. }), "{outcomes:?}");
    assert!(outcomes.contains(&PublishOutcome::QueuesFull), "{outcomes:?}");
}
