use std::time::Duration;

use tributary::net::{
    Acceptance, MAX_GOSSIP_MESSAGE, NetConfig, PeerEvent, PublishError, PublishOutcome, SubscribeError,
};

use super::support::{Node, pair, soon, tcp_config};

const TOPIC: &str = "/tributary/feed/1/did:peaq:0x00000000000000000000000000000000000000aa";

fn subscribed(node: &Node, topic: &str) -> PeerEvent {
    PeerEvent::Subscribed { peer: node.id(), topic: topic.into() }
}

#[tokio::test]
async fn messages_travel_both_ways_and_repeats_are_duplicates() {
    let (mut a, mut b) = pair().await;
    assert_eq!(a.client.publish(TOPIC, b"nobody".to_vec()).await, Ok(PublishOutcome::NoPeers));
    assert_eq!(a.client.subscribe(TOPIC).await, Ok(true));
    assert_eq!(a.client.subscribe(TOPIC).await, Ok(false));
    assert_eq!(b.client.subscribe(TOPIC).await, Ok(true));
    a.wait(subscribed(&b, TOPIC)).await;
    b.wait(subscribed(&a, TOPIC)).await;

    assert_eq!(a.client.publish(TOPIC, b"ping".to_vec()).await, Ok(PublishOutcome::Sent { listeners: 1 }));
    assert_eq!(a.client.publish(TOPIC, b"ping".to_vec()).await, Ok(PublishOutcome::Duplicate));
    let message = soon("ping", b.events.gossip.recv()).await.unwrap();
    assert_eq!((message.source, &*message.topic, &*message.bytes), (a.id(), TOPIC, &b"ping"[..]));
    assert_eq!(message.id.0, blake3::hash(b"ping").as_bytes());

    assert_eq!(b.client.publish(TOPIC, b"pong".to_vec()).await, Ok(PublishOutcome::Sent { listeners: 1 }));
    assert_eq!(soon("pong", a.events.gossip.recv()).await.unwrap().bytes, b"pong");

    assert_eq!(b.client.unsubscribe(TOPIC).await, Ok(true));
    a.wait(PeerEvent::Unsubscribed { peer: b.id(), topic: TOPIC.into() }).await;
    assert_eq!(a.client.publish(TOPIC, b"gone".to_vec()).await, Ok(PublishOutcome::NoPeers));
}

#[tokio::test]
async fn only_an_accepted_message_travels_on() {
    let fast = || NetConfig { gossip_heartbeat: Duration::from_millis(200), ..tcp_config() };
    let (mut a, mut b, mut c) = (Node::new(fast()).await, Node::new(fast()).await, Node::new(fast()).await);
    a.dial(&b).await;
    c.dial(&b).await;
    for node in [&a, &b, &c] {
        node.client.subscribe(TOPIC).await.unwrap();
    }
    a.wait(subscribed(&b, TOPIC)).await;
    c.wait(subscribed(&b, TOPIC)).await;
    b.wait(subscribed(&a, TOPIC)).await;
    for (body, verdict) in [("no", Acceptance::Ignore), ("yes", Acceptance::Accept)] {
        a.client.publish(TOPIC, body.into()).await.unwrap();
        let message = soon("message at b", b.events.gossip.recv()).await.unwrap();
        b.client.report(message.id, message.source, verdict).await.unwrap();
    }
    let message = soon("message at c", c.events.gossip.recv()).await.unwrap();
    assert_eq!((message.source, &*message.bytes), (b.id(), &b"yes"[..]));
}

#[tokio::test]
async fn copies_that_come_again_are_counted_and_not_handed_on() {
    let fast = || NetConfig { gossip_heartbeat: Duration::from_millis(200), ..tcp_config() };
    let (mut a, mut b, mut c) = (Node::new(fast()).await, Node::new(fast()).await, Node::new(fast()).await);
    a.dial(&b).await;
    a.dial(&c).await;
    b.dial(&c).await;
    for node in [&a, &b, &c] {
        node.client.subscribe(TOPIC).await.unwrap();
    }
    a.wait(subscribed(&b, TOPIC)).await;
    a.wait(subscribed(&c, TOPIC)).await;
    // Once all three are in one mesh, b and c pass on to each other what both have from a.
    let mut sent = 0u32;
    soon("duplicates", async {
        while [&b, &c].iter().any(|node| node.client.stats().gossip_duplicates == 0) {
            a.client.publish(TOPIC, sent.to_be_bytes().to_vec()).await.unwrap();
            sent += 1;
            for node in [&mut b, &mut c] {
                let message = soon("message", node.events.gossip.recv()).await.unwrap();
                assert_eq!(message.bytes, (sent - 1).to_be_bytes());
                node.client.report(message.id, message.source, Acceptance::Accept).await.unwrap();
            }
        }
    })
    .await;
    for node in [&mut b, &mut c] {
        assert!(node.events.gossip.try_recv().is_err(), "a copy was handed on");
        let stats = node.client.stats();
        assert_eq!(stats.gossip_received, u64::from(sent));
        assert!(stats.gossip_arrived > u64::from(sent) && stats.gossip_bytes > u64::from(4 * sent), "{stats:?}");
    }
}

#[tokio::test]
async fn an_oversized_message_is_refused_before_it_is_sent() {
    let (mut a, b) = pair().await;
    b.client.subscribe(TOPIC).await.unwrap();
    a.wait(subscribed(&b, TOPIC)).await;
    let refused = a.client.publish(TOPIC, vec![0; MAX_GOSSIP_MESSAGE + 1]).await;
    assert_eq!(refused, Err(PublishError::TooLarge { len: MAX_GOSSIP_MESSAGE + 1, max: MAX_GOSSIP_MESSAGE }));
    assert!(matches!(a.client.publish("weather", vec![1]).await, Err(PublishError::Topic(_))));
    assert_eq!(a.client.stats().gossip_sent, 0);
}

/// Gossipsub checks the size of its whole read buffer, the next frame included.
#[tokio::test]
async fn the_largest_messages_in_a_row_do_not_silence_the_sender() {
    let (mut a, mut b) = pair().await;
    b.client.subscribe(TOPIC).await.unwrap();
    a.wait(subscribed(&b, TOPIC)).await;
    for i in 0..60u8 {
        let sent = a.client.publish(TOPIC, vec![i; MAX_GOSSIP_MESSAGE]).await;
        assert_eq!(sent, Ok(PublishOutcome::Sent { listeners: 1 }), "{i}");
    }
    for _ in 0..60 {
        assert_eq!(soon("large message", b.events.gossip.recv()).await.unwrap().bytes.len(), MAX_GOSSIP_MESSAGE);
    }
}

#[tokio::test]
async fn rejected_messages_lower_the_score_until_the_sender_is_unheard() {
    let (mut a, mut b) = pair().await;
    b.client.subscribe(TOPIC).await.unwrap();
    a.wait(subscribed(&b, TOPIC)).await;
    for i in 0..3u8 {
        a.client.publish(TOPIC, vec![i]).await.unwrap();
        let message = soon("bad message", b.events.gossip.recv()).await.unwrap();
        b.client.report(message.id, message.source, Acceptance::Reject).await.unwrap();
    }
    let peers = b.client.peers().await.unwrap();
    assert!(peers.len() == 1 && peers[0].score < -80.0, "{peers:?}");
    assert_eq!(b.client.stats().gossip_rejected, 3);
}

#[tokio::test]
async fn a_full_queue_ignores_messages_and_counts_them() {
    let mut config = tcp_config();
    config.queues.gossip = 1;
    let (mut a, mut b) = (Node::new(tcp_config()).await, Node::new(config).await);
    a.dial(&b).await;
    b.client.subscribe(TOPIC).await.unwrap();
    a.wait(subscribed(&b, TOPIC)).await;
    for i in 0..10u8 {
        a.client.publish(TOPIC, vec![i]).await.unwrap();
    }
    // The queue holds one; a request on another protocol shows that the node goes on.
    assert_eq!(soon("first", b.events.gossip.recv()).await.unwrap().bytes, [0]);
    soon("drops", async {
        while b.client.stats().gossip_dropped + b.client.stats().gossip_received < 10 {
            tokio::task::yield_now().await;
        }
    })
    .await;
    assert!(b.client.stats().gossip_dropped > 0);
    assert!(b.client.peers().await.unwrap()[0].score >= 0.0, "dropping is not the sender's fault");
}

#[tokio::test]
async fn a_peer_with_150_topics_is_heard_in_its_hello_and_later() {
    let name = |i: usize| format!("/tributary/feed/1/did:peaq:0x{i:040x}/{:064x}", i + 1);
    let (mut a, b) = (Node::new(tcp_config()).await, Node::new(tcp_config()).await);
    let mut taken = 0;
    // As many as we allow ourselves, all of which must fit the one frame of the hello.
    while b.client.subscribe(name(taken)).await.is_ok() {
        taken += 1;
    }
    assert!(taken >= 150, "{taken}");
    assert!(matches!(b.client.subscribe(name(taken)).await, Err(SubscribeError::TooMany { .. })));
    a.dial(&b).await;
    let mut heard = std::collections::BTreeSet::new();
    while heard.len() < taken {
        if let PeerEvent::Subscribed { topic, .. } = soon("topics", a.peers.recv()).await.unwrap() {
            heard.insert(topic);
        }
    }
    // The stream of the hello still works.
    assert_eq!(b.client.unsubscribe(name(0)).await, Ok(true));
    a.wait(PeerEvent::Unsubscribed { peer: b.id(), topic: name(0) }).await;
    assert_eq!(a.client.publish(name(1), vec![1]).await, Ok(PublishOutcome::Sent { listeners: 1 }));
}
