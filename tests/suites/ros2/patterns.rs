//! Streams whose topics are found while the machine runs.

use serde_json::{Value, json};
use tributary::control::api::StreamReport;
use tributary_tests::ros2::Publish;

use super::world::{World, fields};

const ROS2: &str = "ros2: {}\n";
const TEXT: &str = "std_msgs/msg/String";

fn text() -> Publish {
    Publish::fields(json!({ "data": "$n" }))
}

#[tokio::test(flavor = "multi_thread")]
async fn each_topic_that_a_pattern_means_becomes_a_stream_of_its_own() {
    // The name in front of the pattern wins for its topic, whatever the order.
    let own = fields("/camera/private", ", rules: [{ path: data, action: anonymize, strategy: redact }]");
    let mut world = World::start(&[fields("/camera/*", ""), own, fields("/deep/**", "")], ROS2).await;
    let mut robot = world.rclpy("robot").await;
    let meant = ["/camera/left", "/camera/right", "/deep/a", "/deep/a/b/c"];
    for topic in meant.iter().chain(&["/camera/private", "/camera/left/info", "/other"]) {
        robot.advertise(topic, TEXT, Value::Null).await;
    }
    for topic in meant.iter().chain(&["/camera/private"]) {
        world.meet(&mut robot, topic, 1).await;
        robot.publish(topic, 10, text()).await;
        world.durable(topic, 10).await;
    }
    let all: Vec<StreamReport> = world.machine.client().get("/v1/streams").await.unwrap();
    let mut names: Vec<_> = all.iter().map(|stream| stream.name.as_str()).collect();
    names.sort_unstable();
    assert_eq!(names, ["/camera/left", "/camera/private", "/camera/right", "/deep/a", "/deep/a/b/c"]);
    robot.matched("/other", 0).await;
    robot.matched("/camera/left/info", 0).await;

    // They are there again after a restart, with what they had.
    world.machine.kill();
    world.restart().await;
    world.meet(&mut robot, "/camera/left", 1).await;
    robot.publish("/camera/left", 5, text().first(10)).await;
    world.durable("/camera/left", 5).await;
    let bought = world.buy(&["/camera/left", "/camera/private", "/deep/a/b/c"]).await;
    assert!(bought[0].numbers("/data").into_iter().eq(0..15));
    let redacted = json!({ "__anonymized": true, "strategy": "redact", "value": "[REDACTED]" });
    assert_eq!(bought[1].column("/data"), vec![redacted; 10]);
    assert!(bought[2].numbers("/data").into_iter().eq(0..10));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_machine_has_no_more_streams_than_its_binding_can_list() {
    const TOPICS: usize = 160;
    const LIMIT: usize = 150;
    let world = World::start(&[fields("/many/*", "")], ROS2).await;
    let mut robot = world.rclpy("robot").await;
    for n in 0..TOPICS {
        robot.advertise(&format!("/many/topic_{n}"), "std_msgs/msg/Empty", json!({ "depth": 1 })).await;
    }
    let refused = tributary_tests::wait::until("the topics that are too many", async || {
        let status = world.machine.status().await;
        status.ros2.filter(|ros2| ros2.refused_count == (TOPICS - LIMIT) as u64)
    })
    .await;
    assert_eq!(refused.refused.len(), TOPICS - LIMIT);
    assert!(refused.refused.iter().all(|topic| topic.topic.starts_with("/many/") && topic.reason.contains("150")));
    let all: Vec<StreamReport> = world.machine.client().get("/v1/streams").await.unwrap();
    assert_eq!(all.len(), LIMIT);
    // What is refused is refused for good reason; the others go on.
    let taken = all[0].name.clone();
    robot.matched(&taken, 1).await;
    robot.publish(&taken, 5, Publish::random(0)).await;
    world.durable(&taken, 5).await;
}
