//! Publishers and machines that end without warning, and begin again.

use serde_json::{Value, json};
use tributary::machine::SourceState;
use tributary_tests::{
    disk,
    ros2::{Publish, Rclpy},
    wait::until,
};

use super::world::{World, fields};

const ROS2: &str = "ros2: {}\n";
const TEXT: &str = "std_msgs/msg/String";

fn numbered(first: u64) -> Publish {
    Publish::fields(json!({ "data": "$n" })).first(first)
}

/// Waits until so many of the background's messages are durable.
async fn some_durable(world: &World, topic: &str, count: u64) {
    until("durable messages", async || (world.stream(topic).await.lane.durable_packages >= count).then_some(())).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_publisher_that_is_killed_and_comes_back_goes_on_where_it_is() {
    let world = World::start(&[fields("/text", "")], ROS2).await;
    let mut robot = world.publisher("/text", TEXT).await;
    robot.begin("/text", numbered(0).rate(200)).await;
    some_durable(&world, "/text", 100).await;
    robot.kill().await;
    // The middleware gives a silent publisher up after its lease.
    world.source("/text", "the machine to miss the publisher", |source| source.publishers == 0).await;
    let of_first = world.stream("/text").await.source.unwrap();
    assert_eq!((of_first.state, of_first.lost), (SourceState::Waiting, 0));

    let mut robot = world.publisher("/text", TEXT).await;
    robot.publish("/text", 100, numbered(1_000_000)).await;
    world.durable("/text", of_first.received + 100).await;
    let numbers = world.buy(&["/text"]).await[0].numbers("/data");
    let expected = (0..of_first.received).chain(1_000_000..1_000_100);
    assert!(numbers.iter().copied().eq(expected), "{numbers:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_topic_that_appears_late_and_comes_and_goes_is_taken_each_time() {
    let world = World::start(&[fields("/early", ""), fields("/late", "")], ROS2).await;
    let mut robot = world.publisher("/early", TEXT).await;
    let waiting = world.source("/late", "to wait", |source| source.state == SourceState::Waiting).await;
    assert_eq!((waiting.publishers, waiting.message_type, waiting.topic.as_str()), (0, None, "/late"));
    robot.publish("/early", 10, numbered(0)).await;
    world.durable("/early", 10).await;
    for round in 0..3 {
        robot.advertise("/late", TEXT, Value::Null).await;
        world.meet(&mut robot, "/late", 1).await;
        robot.publish("/late", 10, numbered(round * 10)).await;
        world.durable("/late", (round + 1) * 10).await;
        robot.retire("/late").await;
        world.source("/late", "to wait again", |source| source.state == SourceState::Waiting).await;
    }
    let numbers = world.buy(&["/late"]).await[0].numbers("/data");
    assert!(numbers.iter().copied().eq(0..30), "{numbers:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_machine_that_is_killed_loses_nothing_it_acknowledged_and_uses_no_number_twice() {
    const KILLS: usize = 4;
    let mut world = World::start(&[fields("/text", "")], ROS2).await;
    let did = world.machine.status().await.did;
    let mut robot = world.publisher("/text", TEXT).await;
    robot.begin("/text", numbered(0).rate(500)).await;
    let mut promised = 0;
    for _ in 0..KILLS {
        // Counters count since the start.
        some_durable(&world, "/text", 100).await;
        promised += world.stream("/text").await.lane.durable_packages;
        world.machine.kill();
        let before = robot.published("/text").await;
        world.restart().await;
        // The publisher never stopped.
        until("the publisher to go on", async || (robot.published("/text").await > before).then_some(())).await;
    }
    some_durable(&world, "/text", 100).await;
    let published = robot.end("/text").await.len() as u64;
    // The last one is there: nothing more is on its way.
    robot.publish("/text", 1, numbered(published)).await;
    let report = until("the last message", async || {
        let report = world.stream("/text").await;
        let source = report.source.as_ref().unwrap();
        (source.received == report.lane.durable_packages && report.lane.queued == 0).then_some(report)
    })
    .await;
    let bought = world.buy(&["/text"]).await.remove(0);
    let messages = bought.numbers("/data");
    assert_eq!(messages.last(), Some(&published));
    // Meeting in the middle of a stream, the middleware may lose one even so. Then the machine knows of it.
    let source = report.source.unwrap();
    let of_last_run = &messages[messages.len() - usize::try_from(source.received).unwrap()..];
    assert_eq!(source.received + source.lost, published - of_last_run[0] + 1, "{source:?}");
    assert_eq!((source.refused, report.lane.refused, report.lane.dropped), (0, 0, 0));
    assert!(messages.windows(2).all(|pair| pair[1] > pair[0]), "each message once, in order: {messages:?}");
    assert!(messages.len() as u64 >= promised, "{promised} were acknowledged, {} arrived", messages.len());
    assert!(messages.len() as u64 <= published, "the machine was down for a while");
    let numbers: Vec<u64> = bought.packages.iter().map(|package| package.number).collect();
    assert!(numbers.windows(2).all(|pair| pair[1] > pair[0]), "no number is used twice");
    let gaps = numbers.windows(2).filter(|pair| pair[1] > pair[0] + 1).count();
    assert!(
        (1..=KILLS).contains(&gaps),
        "a gap at {gaps} of {KILLS} kills: numbers that were reserved are never given"
    );

    world.machine.signal(rustix::process::Signal::TERM);
    assert!(world.machine.ended().await.success());
    let logs = disk::follow(world.machine.home(), &did);
    logs.assert_all_closed();
    disk::assert_nothing_used_twice([&logs]);
}

#[tokio::test(flavor = "multi_thread")]
async fn publishers_of_one_topic_are_told_apart_and_all_are_taken() {
    const EACH: u64 = 300;
    let world = World::start(&[fields("/text", "")], ROS2).await;
    let mut robots: Vec<Rclpy> = Vec::new();
    for name in ["left", "right"] {
        let mut robot = world.rclpy(name).await;
        robot.advertise("/text", TEXT, Value::Null).await;
        robots.push(robot);
    }
    for robot in &mut robots {
        world.meet(robot, "/text", 2).await;
    }
    let [left, right] = &mut robots[..] else { unreachable!() };
    tokio::join!(left.publish("/text", EACH, numbered(0)), right.publish("/text", EACH, numbered(EACH)));
    world.durable("/text", 2 * EACH).await;
    let numbers = world.buy(&["/text"]).await[0].numbers("/data");
    let (left, right): (Vec<u64>, Vec<u64>) = numbers.iter().partition(|number| **number < EACH);
    assert!(left.into_iter().eq(0..EACH) && right.into_iter().eq(EACH..2 * EACH), "{numbers:?}");
}
