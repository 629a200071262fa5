//! A machine and buyers behind NATs of each kind, and what becomes of their connections.

use tributary::control::api::{NodeStatus, Reach};
use tributary_tests::{
    home::Sandbox,
    netns::{Nat, World},
    node::{NodeProcess, command},
    trade,
    wait::{until, until_within},
};

use super::common::{LONG, buyer, list, machine, peer, relay, reserved, trade};

/// Waits until a node has given up replacing its relayed connection to another.
async fn given_up(node: &NodeProcess, other: &NodeProcess) {
    until_within("the last attempt at a direct connection", LONG, async || {
        let seen = peer(node, other).await?;
        assert!(!seen.direct, "{seen:?}");
        seen.upgrade?.error.filter(|error| error.contains("Giving up")).map(drop)
    })
    .await;
}

async fn reachable(node: &NodeProcess) -> NodeStatus {
    until_within("a verdict about the node's addresses", LONG, async || {
        let status = node.status().await;
        (status.reach.reach != Reach::Unknown).then_some(status)
    })
    .await
}

#[tokio::test]
async fn behind_symmetric_nats_everything_goes_through_the_relay() {
    let Some(world) = World::new() else { return };
    let sandbox = Sandbox::new();
    let hub = world.public("hub", "198.51.100.10");
    let (hub_node, at) = relay(&sandbox, &hub, "198.51.100.10").await;
    let robot = world.behind(Nat::Symmetric, "robot", "198.51.100.1", "10.1.0");
    let office = world.behind(Nat::Symmetric, "office", "198.51.100.2", "10.2.0");
    let robot_node = machine(&sandbox, &robot, &list("relays", &[&at])).await;
    let link = reserved(&robot_node, 1).await;

    let office_node = buyer(&sandbox, &office, &list("peers", &[&at])).await;
    trade::try_follow(&office_node, &link).await.unwrap();
    trade(&robot_node, &office_node, 0, 500).await;

    // Holes were tried to be punched, and nothing came in.
    given_up(&robot_node, &office_node).await;
    assert!(robot.router().counted("nat", "unsolicited") > 0);
    for (one, other) in [(&robot_node, &office_node), (&office_node, &robot_node)] {
        let seen = peer(one, other).await.unwrap();
        assert!(!seen.direct && seen.relay.as_deref() == at.rsplit('/').next(), "{seen:?}");
        assert!(seen.paths.iter().all(|path| !path.direct), "{seen:?}");
    }
    let relaying = hub_node.status().await.reach.relaying.unwrap();
    assert!(relaying.reservations == 1 && relaying.circuits > 0, "{relaying:?}");

    // Its doctor says how, and why.
    let found = command(office_node.home(), &["doctor", "--json"]).await.json();
    let robot_id = robot_node.status().await.peer;
    let report = found["peers"].as_array().unwrap().iter().find(|peer| peer["peer"] == robot_id.as_str()).unwrap();
    assert_eq!(report["direct"], false, "{report}");
    assert!(report["path"].as_str().unwrap().starts_with("relayed by 12D3Koo"), "{report}");
    assert!(report["why_not_direct"].as_str().unwrap().contains("direct connection was tried"), "{report}");

    // It goes on as long as it is needed.
    trade(&robot_node, &office_node, 500, 200).await;
    let status = reachable(&robot_node).await;
    assert_eq!(status.reach.reach, Reach::Unreachable, "{:?}", status.reach);
}

#[tokio::test]
async fn behind_port_restricted_nats_a_hole_is_punched() {
    let Some(world) = World::new() else { return };
    let sandbox = Sandbox::new();
    let hub = world.public("hub", "198.51.100.10");
    let (hub_node, at) = relay(&sandbox, &hub, "198.51.100.10").await;
    let robot = world.behind(Nat::PortRestricted, "robot", "198.51.100.1", "10.1.0");
    let office = world.behind(Nat::PortRestricted, "office", "198.51.100.2", "10.2.0");
    let robot_node = machine(&sandbox, &robot, &list("relays", &[&at])).await;
    let link = reserved(&robot_node, 1).await;

    let office_node = buyer(&sandbox, &office, &list("peers", &[&at])).await;
    // Its own place in the Internet must be known before a hole can be punched to it.
    until("the relay", async || peer(&office_node, &hub_node).await).await;
    trade::try_follow(&office_node, &link).await.unwrap();
    for (one, other) in [(&office_node, &robot_node), (&robot_node, &office_node)] {
        until_within("direct connections alone", LONG, async || {
            let seen = peer(one, other).await?;
            seen.paths.iter().all(|path| path.direct).then_some(())
        })
        .await;
    }
    // It began at the relay.
    let relaying = hub_node.status().await.reach.relaying.unwrap();
    assert!(relaying.circuits_served > 0, "{relaying:?}");
    until("the end of the relayed connection", async || {
        (hub_node.status().await.reach.relaying.unwrap().circuits == 0).then_some(())
    })
    .await;
    trade(&robot_node, &office_node, 0, 500).await;
    let after = hub_node.status().await.reach.relaying.unwrap();
    assert_eq!((after.circuits, after.circuits_served), (0, relaying.circuits_served));
}

#[tokio::test]
async fn a_forwarded_port_is_found_and_needs_no_relay() {
    let Some(world) = World::new() else { return };
    let sandbox = Sandbox::new();
    let hub = world.public("hub", "198.51.100.10");
    let (hub_node, at) = relay(&sandbox, &hub, "198.51.100.10").await;
    let robot = world.behind(Nat::FullCone, "robot", "198.51.100.1", "10.1.0");
    let robot_node = machine(&sandbox, &robot, &list("peers", &[&at])).await;
    let link = until_within("an address that peers have tested", LONG, async || {
        let status = robot_node.status().await;
        let reached = status.reach.reach == Reach::Reachable;
        status.links.first().filter(|link| reached && link.contains("/ip4/198.51.100.1/tcp/4600")).cloned()
    })
    .await;
    assert!(robot.router().counted("nat", "forwarded") > 0);

    let one = world.behind(Nat::PortRestricted, "one", "198.51.100.2", "10.2.0");
    let other = world.behind(Nat::Symmetric, "other", "198.51.100.3", "10.3.0");
    for host in [&one, &other] {
        let node = buyer(&sandbox, host, "").await;
        trade::try_follow(&node, &link).await.unwrap();
        let first = if host.name() == "one" { 0 } else { 300 };
        trade(&robot_node, &node, first, 300).await;
        let seen = peer(&node, &robot_node).await.unwrap();
        assert!(seen.paths.iter().all(|path| path.direct), "{seen:?}");
    }
    assert_eq!(hub_node.status().await.reach.relaying.unwrap().circuits_served, 0);
}
