//! What becomes of connections when a relay dies, and when it comes back.

use tributary::{control::api::PeerStatus, service::status::ReservationState};
use tributary_tests::{
    home::Sandbox,
    netns::{Nat, World},
    node::NodeProcess,
    trade,
    wait::until_within,
};

use super::common::{LONG, NO_HOLES, buyer, list, machine, peer, relay, reserved, trade};

async fn relayed_by(node: &NodeProcess, other: &NodeProcess, relay: &str) -> PeerStatus {
    until_within("a path through the relay", LONG, async || {
        let seen = peer(node, other).await?;
        seen.paths.iter().any(|path| path.relay.as_deref() == Some(relay)).then_some(seen)
    })
    .await
}

#[tokio::test]
async fn when_a_relay_dies_the_other_one_carries_on() {
    let Some(world) = World::new() else { return };
    let sandbox = Sandbox::new();
    let (one, other) = (world.public("one", "198.51.100.10"), world.public("other", "198.51.100.11"));
    let (mut one_node, one_at) = relay(&sandbox, &one, "198.51.100.10").await;
    let (_other_node, other_at) = relay(&sandbox, &other, "198.51.100.11").await;
    let id = |at: &str| at.rsplit('/').next().unwrap().to_owned();

    let robot = world.behind(Nat::Symmetric, "robot", "198.51.100.1", "10.1.0");
    let office = world.behind(Nat::Symmetric, "office", "198.51.100.2", "10.2.0");
    let network = format!("{}{NO_HOLES}", list("relays", &[&one_at, &other_at]));
    let robot_node = machine(&sandbox, &robot, &network).await;
    let link = reserved(&robot_node, 2).await;
    let office_node = buyer(&sandbox, &office, NO_HOLES).await;
    trade::try_follow(&office_node, &link).await.unwrap();
    trade(&robot_node, &office_node, 0, 200).await;
    relayed_by(&office_node, &robot_node, &id(&one_at)).await;

    one_node.kill();
    let seen = relayed_by(&office_node, &robot_node, &id(&other_at)).await;
    assert!(!seen.direct && seen.paths.iter().all(|path| path.relay == Some(id(&other_at))), "{seen:?}");
    until_within("the loss, at the machine", LONG, async || {
        let relays = robot_node.status().await.reach.relays;
        let lost = relays.iter().find(|relay| relay.relay == id(&one_at))?;
        (lost.state == ReservationState::Failed && lost.reason.is_some()).then_some(())
    })
    .await;
    trade(&robot_node, &office_node, 200, 200).await;

    // It comes back, and so does the place at it.
    let (_one_node, again) = relay(&sandbox, &one, "198.51.100.10").await;
    assert_eq!(again, one_at);
    reserved(&robot_node, 2).await;
}
