//! A machine whose address changes, and one that is found without any address.

use tributary_tests::{
    home::Sandbox,
    netns::World,
    node::NodeProcess,
    trade,
    wait::{until, until_within},
};

use super::common::{LONG, buyer, list, machine, peer, relay, reserved, trade};

/// Waits until one node is connected to another directly, at this address.
async fn directly_at(node: &NodeProcess, other: &NodeProcess, ip: &str) {
    until_within(&format!("a direct connection at {ip}"), LONG, async || {
        let seen = peer(node, other).await?;
        seen.paths.iter().any(|path| path.direct && path.addr.contains(&format!("/ip4/{ip}/"))).then_some(())
    })
    .await;
}

#[tokio::test]
async fn a_machine_whose_address_changes_is_found_again_and_directly() {
    let Some(world) = World::new() else { return };
    let sandbox = Sandbox::new();
    let hub = world.public("hub", "198.51.100.10");
    let (_hub_node, at) = relay(&sandbox, &hub, "198.51.100.10").await;
    let robot = world.public("robot", "198.51.100.20");
    let office = world.public("office", "198.51.100.30");
    let robot_node = machine(&sandbox, &robot, &list("relays", &[&at])).await;
    let link = reserved(&robot_node, 1).await;
    let office_node = buyer(&sandbox, &office, &list("peers", &[&at])).await;
    trade::try_follow(&office_node, &link).await.unwrap();
    directly_at(&office_node, &robot_node, "198.51.100.20").await;
    trade(&robot_node, &office_node, 0, 200).await;

    robot.sh("ip addr del 198.51.100.20/24 dev eth0 && ip addr add 198.51.100.21/24 dev eth0");
    directly_at(&office_node, &robot_node, "198.51.100.21").await;
    trade(&robot_node, &office_node, 200, 200).await;
    let status = until("the addresses, at the machine", async || {
        let status = robot_node.status().await;
        status.listen.iter().any(|addr| addr.contains("198.51.100.21")).then_some(status)
    })
    .await;
    assert!(!status.listen.iter().any(|addr| addr.contains("198.51.100.20/")), "{:?}", status.listen);
    assert!(robot_node.log().contains("an address of this node is gone"));
    // The next buyer gets a link that leads there.
    until_within("a new link", LONG, async || {
        let links = robot_node.status().await.links;
        let gone = links.iter().any(|link| link.contains("198.51.100.20/"));
        (!gone && links.iter().any(|link| link.contains("198.51.100.21/"))).then_some(())
    })
    .await;
}

#[tokio::test]
async fn a_relay_that_loses_an_address_names_none_of_its_ports_any_more() {
    let Some(world) = World::new() else { return };
    let sandbox = Sandbox::new();
    let hub = world.public("hub", "198.51.100.10");
    hub.sh("ip addr add 198.51.100.11/24 dev eth0");
    let (hub_node, at) = relay(&sandbox, &hub, "198.51.100.10").await;
    let robot = world.public("robot", "198.51.100.20");
    let robot_node = machine(&sandbox, &robot, &list("relays", &[&at])).await;
    reserved(&robot_node, 1).await;
    let ports = async |ip: &str| {
        let own = hub_node.status().await.reach.addresses.into_iter().map(|own| own.addr);
        own.filter(|own| own.contains(&format!("/{ip}/"))).count()
    };
    // TCP and QUIC.
    until("both addresses", async || (ports("198.51.100.11").await == 2).then_some(())).await;

    hub.sh("ip addr del 198.51.100.11/24 dev eth0");
    until_within("the end of the address", LONG, async || (ports("198.51.100.11").await == 0).then_some(())).await;
    assert_eq!(ports("198.51.100.10").await, 2);
    // Who came by the other address stays.
    reserved(&robot_node, 1).await;
}

#[tokio::test]
async fn peers_on_one_local_network_find_each_other_without_an_address() {
    let Some(world) = World::new() else { return };
    let sandbox = Sandbox::new();
    let (robot, office) = (world.public("robot", "10.9.0.2"), world.public("office", "10.9.0.3"));
    let network = "  discovery: { mdns: true }\n";
    let robot_node = machine(&sandbox, &robot, network).await;
    let office_node = buyer(&sandbox, &office, network).await;
    let seen = until("the machine", async || peer(&office_node, &robot_node).await).await;
    assert!(seen.direct && (seen.addr.contains("10.9.0.2") || seen.inbound), "{seen:?}");
    assert!(office_node.status().await.reach.mdns);
}
