//! Connections through a relay, and from there to direct ones.

use std::time::Duration;

use tributary::net::{
    Client, Keypair, Multiaddr, NetConfig, PeerInfo, PublishOutcome, RelayCaps, RelayReservation, RequestError,
    ReservationState, start,
};

use super::support::{Node, soon, tcp_config, until};

const TOPIC: &str = "/tributary/feed/1/did:peaq:0x00000000000000000000000000000000000000aa";

fn relay_config() -> NetConfig {
    NetConfig { relay: Some(RelayCaps::default()), ..tcp_config() }
}

async fn address(node: &Client) -> Multiaddr {
    node.listen_addrs().await.unwrap().remove(0)
}

/// A node that wants to be reached through `relay`; without hole punching, or loopback would soon carry everything.
fn behind(relay: &Multiaddr) -> NetConfig {
    NetConfig { relays: vec![relay.clone()], hole_punching: false, ..tcp_config() }
}

async fn reservation(node: &Client) -> RelayReservation {
    node.reach().await.unwrap().relays.remove(0)
}

/// Where a node is reached through its relay.
async fn circuit(node: &Client) -> Multiaddr {
    until("a place at the relay", async || reservation(node).await.circuit).await
}

async fn peer(node: &Client, other: &Client) -> Option<PeerInfo> {
    node.peers().await.unwrap().into_iter().find(|peer| peer.peer == other.peer_id())
}

/// Answers sync requests with what was asked.
fn echo(mut events: tributary::net::NetEvents) {
    tokio::spawn(async move {
        while let Some(inbound) = events.sync.recv().await {
            let _ = inbound.responder.send(inbound.bytes).await;
        }
    });
}

#[tokio::test]
async fn two_peers_talk_through_a_relay_and_both_know_it() {
    let relay = Node::new(relay_config()).await;
    let at = address(&relay.client).await;
    let (robot, buyer) = (Node::new(behind(&at)).await, Node::new(behind(&at)).await);
    let through = circuit(&robot.client).await;
    assert_eq!(soon("dial", buyer.client.dial(through)).await, Ok(robot.id()));
    echo(robot.events);
    let answer = soon("sync", buyer.client.sync(robot.client.peer_id(), b"through a relay".to_vec())).await;
    assert_eq!(answer, Ok(b"through a relay".to_vec()));

    let seen = peer(&buyer.client, &robot.client).await.unwrap();
    assert_eq!((seen.direct, seen.inbound, seen.paths[0].relay), (false, false, Some(relay.id())));
    let seen = peer(&robot.client, &buyer.client).await.unwrap();
    assert_eq!((seen.direct, seen.inbound, seen.paths[0].relay), (false, true, Some(relay.id())));
    let relaying = relay.client.reach().await.unwrap().relaying.unwrap();
    assert_eq!((relaying.reservations, relaying.circuits, relaying.circuits_served), (2, 1, 1));
    assert_eq!(robot.client.reach().await.unwrap().relaying, None);
    assert_eq!(reservation(&robot.client).await.circuit_bytes, Some(RelayCaps::default().circuit_bytes));
}

#[tokio::test]
async fn a_hole_is_punched_and_the_relayed_connection_gives_way() {
    let relay = Node::new(relay_config()).await;
    let at = address(&relay.client).await;
    // Without pings nothing but gossip itself wakes a connection.
    let ping_interval = Duration::from_secs(3600);
    let punching = || NetConfig { hole_punching: true, ping_interval, ..behind(&at) };
    let (mut robot, mut buyer) = (Node::new(punching()).await, Node::new(punching()).await);
    for node in [&robot, &buyer] {
        node.client.subscribe(TOPIC).await.unwrap();
    }
    let through = circuit(&robot.client).await;
    assert_eq!(soon("dial", buyer.client.dial(through)).await, Ok(robot.id()));
    let upgrade = until("a direct connection", async || peer(&buyer.client, &robot.client).await?.upgrade).await;
    assert_eq!(upgrade.error, None);
    for (one, other) in [(&buyer.client, &robot.client), (&robot.client, &buyer.client)] {
        until("direct connections alone", async || {
            let seen = peer(one, other).await?;
            seen.paths.iter().all(|path| path.direct).then_some(())
        })
        .await;
    }
    // What is said now goes over a connection that gossip has not used before.
    assert!(matches!(robot.client.publish(TOPIC, b"news".to_vec()).await, Ok(PublishOutcome::Sent { .. })));
    assert_eq!(soon("news", buyer.events.gossip.recv()).await.unwrap().bytes, b"news");
    assert!(matches!(buyer.client.publish(TOPIC, b"thanks".to_vec()).await, Ok(PublishOutcome::Sent { .. })));
    assert_eq!(soon("thanks", robot.events.gossip.recv()).await.unwrap().bytes, b"thanks");
}

#[tokio::test]
async fn a_place_at_a_relay_that_restarts_is_asked_for_again() {
    let key = Keypair::generate_ed25519();
    let (client, _events, task) = start(key.clone(), relay_config()).await.unwrap();
    let at = address(&client).await;
    let robot = Node::new(behind(&at)).await;
    circuit(&robot.client).await;
    client.shutdown().await;
    soon("the end of the relay", task).await.unwrap();
    until("the loss", async || {
        let known = reservation(&robot.client).await;
        (known.state == ReservationState::Failed && known.circuit.is_none()).then_some(())
    })
    .await;

    let port = at.iter().nth(1).unwrap();
    let listen = "/ip4/127.0.0.1".parse::<Multiaddr>().unwrap().with(port);
    let config = NetConfig { listen: vec![listen], ..relay_config() };
    let (client, _events, _) = start(key, config).await.unwrap();
    circuit(&robot.client).await;
    assert_eq!(client.reach().await.unwrap().relaying.unwrap().reservations, 1);
}

#[tokio::test]
async fn a_relay_keeps_to_its_limits() {
    let caps = RelayCaps { reservations: 1, circuit_bytes: 64 << 10, ..RelayCaps::default() };
    let relay = Node::new(NetConfig { relay: Some(caps), ..tcp_config() }).await;
    let at = address(&relay.client).await;
    let robot = Node::new(behind(&at)).await;
    let through = circuit(&robot.client).await;
    let late = Node::new(behind(&at)).await;
    let refused = until("a refusal", async || {
        let known = reservation(&late.client).await;
        (known.state == ReservationState::Failed).then_some(known)
    })
    .await;
    let reason = refused.reason.unwrap();
    assert!(reason.contains("resource limit"), "{reason}");

    // A connection that has carried what it may ends; the next one begins anew.
    let buyer = Node::new(NetConfig { hole_punching: false, ..tcp_config() }).await;
    echo(robot.events);
    let target = robot.client.peer_id();
    assert_eq!(soon("dial", buyer.client.dial(through.clone())).await, Ok(target));
    let mut rounds = 0;
    while let Ok(answer) = soon("sync", buyer.client.sync(target, vec![7; 4000])).await {
        assert_eq!(answer.len(), 4000);
        rounds += 1;
        assert!(rounds < 20, "more went through than may");
    }
    assert!(rounds > 3, "{rounds} rounds of 8,000 bytes went through");
    let again = until("a new connection", async || buyer.client.dial(through.clone()).await.ok()).await;
    assert_eq!(again, target);
    assert!(relay.client.reach().await.unwrap().relaying.unwrap().circuits_served >= 2);
}

#[tokio::test]
async fn a_node_that_is_no_relay_relays_nothing() {
    let node = Node::new(tcp_config()).await;
    let robot = Node::new(behind(&address(&node.client).await)).await;
    let known = until("a refusal", async || {
        let known = reservation(&robot.client).await;
        (known.failures > 0).then_some(known)
    })
    .await;
    let reason = known.reason.unwrap();
    assert!(reason.contains("support"), "{reason}");
}

#[tokio::test]
async fn a_peer_is_found_by_its_id_through_others() {
    let hub = Node::new(relay_config()).await;
    let at = address(&hub.client).await;
    // Reached through the relay, so it takes part in finding peers.
    let robot = Node::new(behind(&at)).await;
    circuit(&robot.client).await;
    let buyer = Node::new(tcp_config()).await;
    let unknown = soon("connect", buyer.client.connect(robot.id(), Vec::new())).await.unwrap_err();
    assert!(unknown.to_string().contains("no address"), "{unknown}");
    soon("dial", buyer.client.dial(at)).await.unwrap();
    until("the robot", async || buyer.client.connect(robot.id(), Vec::new()).await.ok()).await;
    assert!(peer(&buyer.client, &robot.client).await.is_some());
    let nobody = Keypair::generate_ed25519().public().to_peer_id();
    let missing = soon("connect", buyer.client.connect(nobody, Vec::new())).await.unwrap_err();
    assert!(missing.to_string().contains("no address"), "{missing}");
}

#[tokio::test]
async fn pulls_get_a_connection_over_tcp_beside_quic() {
    let both = ["/ip4/127.0.0.1/udp/0/quic-v1", "/ip4/127.0.0.1/tcp/0"];
    let listen = both.map(|text| text.parse().unwrap()).to_vec();
    let robot = Node::new(NetConfig { listen, ..NetConfig::default() }).await;
    let buyer = Node::new(tcp_config()).await;
    let addresses = robot.client.listen_addrs().await.unwrap();
    let quic = addresses.iter().find(|address| address.to_string().contains("quic")).unwrap();
    soon("dial", buyer.client.dial(quic.clone())).await.unwrap();
    until("over TCP as well", async || {
        let refused = buyer.client.open_pull(robot.id()).await.unwrap_err();
        assert!(matches!(refused, RequestError::Unsupported { .. }), "nobody serves here: {refused}");
        let seen = peer(&buyer.client, &robot.client).await?;
        (seen.paths.len() == 2).then_some(())
    })
    .await;
}
