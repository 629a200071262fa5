//! What an operator does with ROS tools: services of the node, and what it says on `/diagnostics`.

use serde_json::{Value, json};
use tributary::machine::SourceState;
use tributary_tests::ros2::{Publish, Rclpy};

use super::world::{World, fields};

const ROS2: &str = "ros2: { diagnostics: 200ms }\n";
const TEXT: &str = "std_msgs/msg/String";
const TRIGGER: &str = "std_srvs/srv/Trigger";

fn text(first: u64) -> Publish {
    Publish::fields(json!({ "data": "$n" })).first(first)
}

/// Calls a service that must succeed, and gives what it says.
async fn trigger(operator: &mut Rclpy, service: &str) -> String {
    let answer = operator.call(service, TRIGGER, json!({})).await;
    assert_eq!(answer["success"], true, "{service}: {answer}");
    answer["message"].as_str().unwrap().to_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn pause_resume_close_and_status_are_services_of_the_node() {
    let world = World::start(&[fields("/text", "")], ROS2).await;
    let mut robot = world.publisher("/text", TEXT).await;
    let mut operator = world.rclpy("operator").await;
    robot.publish("/text", 10, text(0)).await;
    world.durable("/text", 10).await;

    trigger(&mut operator, "/tributary/pause").await;
    world.source("/text", "to pause", |source| source.state == SourceState::Paused).await;
    robot.publish("/text", 7, text(10)).await;
    let paused = world.source("/text", "what is left out", |source| source.paused == 7).await;
    assert_eq!((paused.received, paused.lost, paused.refused), (17, 0, 0), "what was left out is counted, too");
    assert_eq!(world.stream("/text").await.lane.packages, 10);
    assert!(world.machine.status().await.ros2.unwrap().paused);

    trigger(&mut operator, "/tributary/resume").await;
    world.source("/text", "to go on", |source| source.state == SourceState::Subscribed).await;
    robot.publish("/text", 5, text(17)).await;
    world.source("/text", "new messages", |source| source.received == 22).await;

    let before = world.machine.feeds().await.remove(0);
    assert!(before.datasets.iter().all(|dataset| !dataset.closed));
    trigger(&mut operator, "/tributary/close_dataset").await;
    tributary_tests::wait::until("the dataset to be closed", async || {
        let own = world.machine.feeds().await.remove(0);
        own.datasets.iter().any(|dataset| dataset.closed && dataset.packages == Some(15)).then_some(())
    })
    .await;

    let status: Value = serde_json::from_str(&trigger(&mut operator, "/tributary/status").await).unwrap();
    assert!(status.to_string().contains("/text"), "{status}");
    let numbers = world.buy(&["/text"]).await[0].numbers("/data");
    assert!(numbers.iter().copied().eq((0..10).chain(17..22)), "{numbers:?}");
}

/// The newest word of the node about a stream that satisfies `wanted`.
async fn diagnosed(
    operator: &mut Rclpy,
    stream: &str,
    wanted: impl Fn(&Value, &dyn Fn(&str) -> String) -> bool,
) -> Value {
    loop {
        let array = operator.next("/diagnostics").await;
        let all = array["status"].as_array().unwrap();
        let Some(one) = all.iter().find(|one| one["name"].as_str().unwrap().ends_with(stream)) else { continue };
        let value = |key: &str| {
            let all = one["values"].as_array().unwrap();
            let found = all.iter().find(|pair| pair["key"] == key).unwrap_or_else(|| panic!("no {key} in {one}"));
            found["value"].as_str().unwrap().to_owned()
        };
        if wanted(one, &value) {
            return one.clone();
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn diagnostics_say_what_came_and_what_is_wrong() {
    const OK: u64 = 0;
    let world = World::start(&[fields("/text", "")], ROS2).await;
    let mut operator = world.rclpy("operator").await;
    operator.subscribe("/diagnostics", "diagnostic_msgs/msg/DiagnosticArray", json!({ "depth": 100 })).await;
    let mut robot = world.publisher("/text", TEXT).await;
    robot.publish("/text", 12, text(0)).await;
    world.durable("/text", 12).await;
    let well = diagnosed(&mut operator, "/text", |_, value| value("received") == "12").await;
    assert_eq!(well["level"].as_u64(), Some(OK), "{well}");

    // A publisher that gives nothing is a warning at least.
    let mut hasty = world.rclpy("hasty").await;
    hasty.advertise("/text", TEXT, json!({ "reliability": "best_effort" })).await;
    let warned = diagnosed(&mut operator, "/text", |one, _| one.to_string().contains("/hasty")).await;
    assert_ne!(warned["level"].as_u64(), Some(OK), "{warned}");
}
