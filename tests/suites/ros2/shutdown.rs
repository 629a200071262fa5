//! A machine that is told to end: what it has received is sealed, announced and durable, and it does end.

use rustix::process::Signal;
use serde_json::json;
use tributary_protocol::ids::StreamId;
use tributary_tests::{disk, ros2::Publish, wait::until};

use super::world::{World, fields};

const TEXT: &str = "std_msgs/msg/String";

/// Received and not yet sealed when the signal comes: the chunk is neither full nor old.
async fn ends_well(signal: Signal) {
    const COUNT: u64 = 250;
    let stream = fields("/text", "").replace(super::world::SOON, ", chunk: { bytes: 1MiB, max_age: 1h }");
    let mut world = World::start(&[stream], "ros2: {}\n").await;
    let did = world.machine.status().await.did;
    let mut robot = world.publisher("/text", TEXT).await;
    robot.publish("/text", COUNT, Publish::fields(json!({ "data": "$n" }))).await;
    world.source("/text", "all messages", |source| source.received == COUNT).await;
    assert_eq!(world.stream("/text").await.lane.durable_packages, 0, "nothing is sealed yet");
    // And more is coming all the time.
    robot.begin("/text", Publish::fields(json!({ "data": "$n" })).first(COUNT).rate(500)).await;
    world.source("/text", "more messages", |source| source.received > COUNT).await;
    world.machine.signal(signal);
    let status = world.machine.ended().await;
    assert!(status.success(), "{signal:?}: {status}");
    let published = robot.end("/text").await.len() as u64 + COUNT;

    let logs = disk::follow(world.machine.home(), &did);
    logs.assert_all_closed();
    disk::assert_nothing_used_twice([&logs]);
    let sealed = logs.packages(&StreamId::of(&did, "/text"));
    assert!((COUNT + 1..=published).contains(&sealed), "{sealed} of {published}");

    // The buyer gets them from the next start: all that came before the end, without a hole.
    world.restart().await;
    let numbers = world.buy(&["/text"]).await[0].numbers("/data");
    assert!(numbers.iter().copied().eq(0..numbers.len() as u64), "{numbers:?}");
    assert!(numbers.len() as u64 >= sealed);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_interrupt_seals_everything() {
    ends_well(Signal::INT).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_termination_seals_everything() {
    ends_well(Signal::TERM).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_node_leaves_the_graph_and_lets_others_go_on() {
    let mut world = World::start(&[fields("/text", "")], "ros2: {}\n").await;
    let mut robot = world.publisher("/text", TEXT).await;
    robot.begin("/text", Publish::fields(json!({ "data": "$n" })).rate(500)).await;
    world.source("/text", "messages", |source| source.received > 0).await;
    world.machine.signal(Signal::INT);
    assert!(world.machine.ended().await.success());
    // A node that was killed would be given up after a lease of many seconds; one that ends says so.
    robot.matched("/text", 0).await;
    let before = robot.published("/text").await;
    until("the publisher to go on", async || (robot.published("/text").await > before).then_some(())).await;
}
