//! Publishers that a stream cannot take: they are named, and nothing of them gets in.

use serde_json::{Value, json};
use tributary::machine::{FaultyPublisher, SourceReport, SourceState};
use tributary_tests::ros2::Publish;

use super::world::{World, fields};

const ROS2: &str = "ros2: {}\n";
const TEXT: &str = "std_msgs/msg/String";

fn text() -> Publish {
    Publish::fields(json!({ "data": "$n" }))
}

/// The only publisher of a topic whose messages do not come, once it is known by its node.
async fn faulty(world: &World, topic: &str, node: &str) -> FaultyPublisher {
    let named = |source: &SourceReport| source.faulty_count == 1 && source.faulty[0].node == node;
    world.source(topic, &format!("{node} as faulty"), named).await.faulty.remove(0)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_publisher_of_another_type_than_configured_is_named() {
    let world = World::start(&[fields("/text", ", type: std_msgs/msg/String")], ROS2).await;
    let mut liar = world.rclpy("liar").await;
    liar.advertise("/text", "std_msgs/msg/Int32", Value::Null).await;
    let faulty = faulty(&world, "/text", "/liar").await;
    assert_eq!(faulty.message_type, "std_msgs/msg/Int32");
    assert!(faulty.reason.contains("std_msgs/msg/String"), "{faulty:?}");
    liar.publish("/text", 5, Publish::random(0)).await;

    // The right one is taken beside it.
    let mut robot = world.rclpy("robot").await;
    robot.advertise("/text", TEXT, Value::Null).await;
    robot.matched("/text", 1).await;
    let source = world.source("/text", "both", |source| source.publishers == 2).await;
    assert_eq!((source.state, source.faulty_count), (SourceState::Subscribed, 1));
    robot.publish("/text", 20, text()).await;
    world.durable("/text", 20).await;
    let bought = world.buy(&["/text"]).await.remove(0);
    assert!(bought.packages.iter().all(|package| package.kind == TEXT));
    assert!(bought.numbers("/data").into_iter().eq(0..20));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_type_on_a_topic_stays_out_until_it_is_the_only_one() {
    let world = World::start(&[fields("/text", "")], ROS2).await;
    let mut liar = world.rclpy("liar").await;
    let mut robot = world.rclpy("robot").await;
    liar.advertise("/text", TEXT, Value::Null).await;
    world.meet(&mut liar, "/text", 1).await;

    // Who is first is taken; a second type is named, and its messages stay out.
    robot.advertise("/text", "std_msgs/msg/Int32", Value::Null).await;
    faulty(&world, "/text", "/robot").await;
    assert_eq!(world.stream("/text").await.source.unwrap().state, SourceState::Subscribed);
    // The first one leaves; one type is left, and that is taken.
    liar.retire("/text").await;
    robot.matched("/text", 1).await;
    let source = world.source("/text", "the type that is left", |source| source.faulty_count == 0).await;
    assert_eq!(source.message_type.as_deref(), Some("std_msgs/msg/Int32"));
    robot.publish("/text", 3, Publish::fields(json!({ "data": "$n" }))).await;
    world.durable("/text", 3).await;
    let bought = world.buy(&["/text"]).await.remove(0);
    assert!(bought.packages.iter().all(|package| package.kind == "std_msgs/msg/Int32"));
}

#[tokio::test(flavor = "multi_thread")]
async fn of_two_types_that_are_there_before_the_machine_one_is_taken_at_most() {
    let mut world = World::start(&[fields("/text", "")], ROS2).await;
    world.machine.kill();
    let mut liar = world.rclpy("liar").await;
    let mut robot = world.rclpy("robot").await;
    liar.advertise("/text", "std_msgs/msg/Int32", Value::Null).await;
    robot.advertise("/text", TEXT, Value::Null).await;
    // A witness that knows both, so that both were announced before the machine begins to listen.
    for witness in [&mut liar, &mut robot] {
        witness.types("/text", 2).await;
    }
    world.restart().await;
    // Discovery has no order: the machine meets both at once and refuses the topic, or takes whom it meets first. In both cases
    // everybody whose messages do not come is named.
    let source = world
        .source("/text", "the conflict", |source| {
            // The names of nodes come after their publishers.
            let named = source.faulty.iter().all(|faulty| ["/liar", "/robot"].contains(&faulty.node.as_str()));
            source.publishers == 2 && source.faulty_count > 0 && named
        })
        .await;
    match source.state {
        SourceState::Refused => {
            let reason = source.reason.unwrap();
            for part in ["std_msgs/msg/Int32", "std_msgs/msg/String", "/liar", "/robot"] {
                assert!(reason.contains(part), "{reason}");
            }
            assert_eq!(source.faulty_count, 2);
        }
        SourceState::Subscribed => {
            let [other] = &source.faulty[..] else { panic!("{source:?}") };
            assert_ne!(Some(&other.message_type), source.message_type.as_ref());
        }
        other => panic!("{other:?}"),
    }
    liar.retire("/text").await;
    world.meet(&mut robot, "/text", 1).await;
    robot.publish("/text", 20, text().first(100)).await;
    world.durable("/text", 20).await;
    assert!(world.buy(&["/text"]).await[0].numbers("/data").into_iter().eq(100..120));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_publisher_whose_quality_of_service_does_not_fit_is_named_and_not_missed_in_silence() {
    let world = World::start(&[fields("/text", "")], ROS2).await;
    let mut hasty = world.rclpy("hasty").await;
    hasty.advertise("/text", TEXT, json!({ "reliability": "best_effort" })).await;
    let reason = faulty(&world, "/text", "/hasty").await.reason;
    assert!(reason.contains("quality of service") && reason.to_lowercase().contains("reliab"), "{reason}");
    hasty.matched("/text", 0).await;
    hasty.publish("/text", 5, text()).await;

    let mut robot = world.rclpy("robot").await;
    robot.advertise("/text", TEXT, Value::Null).await;
    robot.matched("/text", 1).await;
    world.source("/text", "both", |source| source.publishers == 2).await;
    robot.publish("/text", 5, text().first(50)).await;
    world.durable("/text", 5).await;
    assert!(world.buy(&["/text"]).await[0].numbers("/data").into_iter().eq(50..55));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_published_before_is_had_where_both_sides_keep_it() {
    let kept = ", qos: { durability: transient_local, depth: 50 }";
    let stream = fields("/map", "").replace(super::world::DEEP, kept);
    let mut world = World::start(&[stream], ROS2).await;
    world.machine.kill();
    let mut robot = world.rclpy("robot").await;
    robot.advertise("/map", TEXT, json!({ "durability": "transient_local", "depth": 20 })).await;
    robot.publish("/map", 30, text()).await;
    world.restart().await;
    world.meet(&mut robot, "/map", 1).await;
    world.durable("/map", 20).await;
    assert!(world.buy(&["/map"]).await[0].numbers("/data").into_iter().eq(10..30), "the last that the publisher kept");

    let mut brief = world.rclpy("brief").await;
    brief.advertise("/map", TEXT, Value::Null).await;
    let reason = faulty(&world, "/map", "/brief").await.reason;
    assert!(reason.contains("transient local"), "{reason}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_type_that_is_not_installed_is_refused_by_its_name() {
    let world = World::start(&[fields("/strange", ", type: no_such_msgs/msg/Thing"), fields("/text", "")], ROS2).await;
    let source = world.source("/strange", "to be refused", |source| source.state == SourceState::Refused).await;
    assert!(source.reason.as_ref().unwrap().contains("no_such_msgs"), "{source:?}");
    let mut robot = world.publisher("/text", TEXT).await;
    robot.publish("/text", 5, text()).await;
    world.durable("/text", 5).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn rules_that_the_type_cannot_have_refuse_the_topic_before_anything_leaves() {
    let world = World::start(&[fields("/text", ", rules: [{ path: secret, action: exclude }]")], ROS2).await;
    let mut robot = world.rclpy("robot").await;
    robot.advertise("/text", TEXT, Value::Null).await;
    let source = world.source("/text", "to be refused", |source| source.state == SourceState::Refused).await;
    assert!(source.reason.as_ref().unwrap().contains("secret"), "{source:?}");
    robot.publish("/text", 5, text()).await;
    assert_eq!(world.stream("/text").await.lane.packages, 0);
}
