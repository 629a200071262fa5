//! Which time a message has: that of its header, that of its arrival, or that of a simulation.

use serde_json::{Value, json};
use tributary_protocol::package::{parse_timestamp, timestamp_text};
use tributary_tests::ros2::{Publish, Rclpy};

use super::world::{World, fields};

const FIX: &str = "sensor_msgs/msg/NavSatFix";

fn at(sec: i32, nanosec: u32) -> Publish {
    Publish::fields(json!({ "header": { "stamp": { "sec": sec, "nanosec": nanosec } }, "latitude": "$n" }))
}

fn now_ns() -> u64 {
    u64::try_from(std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_nanos()).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_header_says_when_unless_it_says_nothing_or_is_not_asked() {
    let streams = [fields("/header", ""), fields("/receive", ", stamp: receive"), fields("/text", "")];
    let world = World::start(&streams, "ros2: {}\n").await;
    let mut robot = world.rclpy("robot").await;
    for (topic, kind) in [("/header", FIX), ("/receive", FIX), ("/text", "std_msgs/msg/String")] {
        robot.advertise(topic, kind, Value::Null).await;
        world.meet(&mut robot, topic, 1).await;
    }
    let begun = now_ns();
    for topic in ["/header", "/receive"] {
        robot.publish(topic, 1, at(1_700_000_000, 123_456_789)).await;
        robot.publish(topic, 1, at(0, 0)).await;
        world.durable(topic, 2).await;
    }
    robot.publish("/text", 1, Publish::random(0)).await;
    world.durable("/text", 1).await;
    let ended = now_ns();
    let bought = world.buy(&["/header", "/receive", "/text"]).await;
    let times = |of: usize| bought[of].packages.iter().map(|package| package.timestamp.clone()).collect::<Vec<_>>();
    assert_eq!(times(0)[0], timestamp_text(1_700_000_000_123_456_789));
    for received in [&times(0)[1], &times(1)[0], &times(1)[1], &times(2)[0]] {
        let received = parse_timestamp(received).unwrap();
        assert!((begun..=ended).contains(&received), "{received} is not between {begun} and {ended}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn in_a_simulation_messages_have_its_time() {
    const SECONDS: u64 = 1_000;
    let world = World::start(&[fields("/fix", ", stamp: receive")], "ros2: { use_sim_time: true }\n").await;
    let mut robot = world.publisher("/fix", FIX).await;
    let mut simulator = world.rclpy("simulator").await;
    simulator.advertise("/clock", "rosgraph_msgs/msg/Clock", json!({ "reliability": "best_effort", "depth": 1 })).await;
    simulator.matched("/clock", 1).await;
    // The clock is not acknowledged, so nobody knows when the machine has it: it goes on until a message has its time.
    let mut published = 0;
    loop {
        tick(&mut simulator, SECONDS).await;
        robot.publish("/fix", 1, at(7, 0).first(published)).await;
        published += 1;
        world.durable("/fix", published).await;
        let summary = world.machine.feeds().await.remove(0);
        if summary.datasets.iter().any(|dataset| dataset.to_ms == SECONDS * 1000) {
            break;
        }
    }
    let times = world.buy(&["/fix"]).await.remove(0).packages;
    let times: Vec<u64> = times.iter().map(|package| parse_timestamp(&package.timestamp).unwrap()).collect();
    assert_eq!(*times.last().unwrap(), SECONDS * 1_000_000_000);
    assert!(
        times.iter().all(|time| [0, SECONDS * 1_000_000_000].contains(time)),
        "before the first tick it is 0: {times:?}"
    );
}

async fn tick(simulator: &mut Rclpy, seconds: u64) {
    simulator.publish("/clock", 1, Publish::fields(json!({ "clock": { "sec": seconds } }))).await;
}
