//! Links that lose packets, that are slow, that take their time, and that are cut.

use std::time::Duration;

use tributary_tests::{
    home::Sandbox,
    link::{Conditions, Counted},
    netns::{Host, World},
    node::NodeProcess,
    trade,
    wait::{until, until_within},
};

use super::common::{FILES, LONG, TOPIC, buyer, machine, peer, trade};

/// A machine and a buyer that follows it, both on the Internet.
struct Two {
    world: World,
    sandbox: Sandbox,
    robot: Host,
    office: Host,
    robot_node: NodeProcess,
    office_node: NodeProcess,
}

impl Two {
    async fn new() -> Option<Self> {
        let world = World::new()?;
        let sandbox = Sandbox::new();
        let (robot, office) = (world.public("robot", "198.51.100.20"), world.public("office", "198.51.100.30"));
        let robot_node = machine(&sandbox, &robot, "").await;
        let office_node = buyer(&sandbox, &office, "").await;
        trade::follow(&office_node, &robot_node).await;
        Some(Self { world, sandbox, robot, office, robot_node, office_node })
    }
}

#[tokio::test]
async fn after_a_partition_the_buyer_has_everything() {
    let Some(two) = Two::new().await else { return };
    let Two { robot_node, office_node, .. } = &two;
    trade(robot_node, office_node, 0, 200).await;

    two.office.cut();
    let missed = trade::ingest(robot_node, TOPIC, 200, 300).await;
    for node in [robot_node, office_node] {
        until_within("the end of the connection", LONG, async || node.status().await.peers.is_empty().then_some(()))
            .await;
    }
    let known = office_node.feeds().await;
    assert!(known.iter().flat_map(|feed| &feed.datasets).all(|known| known.dataset != missed), "it was cut off");
    assert!(two.office.heal() > 0, "packets were dropped");

    trade::know(office_node, missed).await;
    trade::buy(office_node, missed).await;
    trade(robot_node, office_node, 500, 100).await;
    drop(two.world);
    drop(two.sandbox);
}

#[tokio::test]
async fn one_packet_of_ten_may_be_lost() {
    let Some(two) = Two::new().await else { return };
    let Two { robot, robot_node, office_node, .. } = &two;
    robot.lose_one_in_ten();
    // Until enough was lost to tell: how many packets a trade takes is the kernel's choice.
    let mut first = 0;
    while robot.counted("lossy", "lossy") < 40 {
        trade(robot_node, office_node, first, 400).await;
        first += 400;
        assert!(first < 40_000, "{} packets were lost", robot.counted("lossy", "lossy"));
    }
    assert!(peer(office_node, robot_node).await.is_some());
}

/// 150 ms each way, so 300 ms there and back, and one packet of ten lost in each direction.
const FAR_AND_BAD: Conditions = Conditions { delay_ms: 150, jitter_ms: 20, loss_per_mille: 100, queue: 1000, seed: 7 };

#[tokio::test]
async fn over_150_ms_each_way_and_with_one_packet_of_ten_lost_all_arrives() {
    let Some(world) = World::new() else { return };
    let sandbox = Sandbox::new();
    let (robot, office) = (world.host("robot"), world.host("office"));
    let ends = [(&robot, "198.51.100.20"), (&office, "198.51.100.30")];
    let Some(mut link) = world.link(ends, FAR_AND_BAD) else { return };
    let robot_node = machine(&sandbox, &robot, "").await;
    let office_node = buyer(&sandbox, &office, "").await;
    trade::follow(&office_node, &robot_node).await;
    // Until enough was lost to tell: how many packets a trade takes is the kernel's choice.
    let (mut first, mut counted) = (0, [Counted::default(); 2]);
    while counted.iter().any(|counted| counted.lost < 5) {
        trade(&robot_node, &office_node, first, 200).await;
        first += 200;
        assert!(first < 20_000, "{counted:?}");
        counted = link.counted();
    }
    for counted in link.counted() {
        let late = Duration::from_micros(counted.shortest_us);
        assert!(late >= Duration::from_millis(150) && counted.delivered > 5 * counted.lost, "{counted:?}");
    }
    // The nodes see it, too.
    let rtt = until_within("a ping there and back", LONG, async || peer(&office_node, &robot_node).await?.rtt_ms).await;
    assert!(rtt >= 300, "{rtt} ms");
}

#[tokio::test]
async fn an_uplink_of_one_megabit_carries_a_file_and_the_feed_beside_it() {
    const SIZE: usize = 1 << 20;
    let Some(two) = Two::new().await else { return };
    let Two { robot, robot_node, office_node, sandbox, .. } = &two;
    robot.shape(1000);
    let path = sandbox.path().join("recording.bin");
    let bytes: Vec<u8> = (0..SIZE).map(|i| (i.wrapping_mul(2_654_435_761) >> 13) as u8).collect();
    std::fs::write(&path, &bytes).unwrap();
    let file = trade::publish(robot_node, FILES, &path).await;
    trade::know(office_node, file).await;
    let selection = trade::datasets(&[file]);
    trade::request(office_node, &selection).await;
    let (pulled, live) = tokio::join!(trade::pull(office_node, &selection), async {
        let dataset = trade::ingest(robot_node, TOPIC, 0, 100).await;
        trade::know(office_node, dataset).await;
        dataset
    });
    assert!(pulled.bytes as usize >= SIZE, "{pulled:?}");
    trade::buy(office_node, live).await;
    let proof = trade::verify(office_node, file).await;
    assert_eq!(proof.verdict, tributary::control::api::Verdict::Proven, "{proof:?}");
    let (waited, sent) = robot.shaped();
    assert!(waited > 0 && sent as usize > SIZE, "{waited} packets waited, {sent} bytes were sent");
    let seen = until("the connection", async || peer(office_node, robot_node).await).await;
    assert!(seen.direct, "{seen:?}");
}
