//! A configuration of peaq's ROS 2 agent, as it is: the same topics, and never more of them than there.

use serde_json::{Value, json};
use tributary_tests::ros2::{Publish, assert_same};

use super::world::World;

const AGENT: &str = "\
stream_agent:
  enabled: true
  machine_id: '1234'
  topics:
    - topic: /fix
      message_type: sensor_msgs/msg/NavSatFix
      qos_preset: sensor_data
      field_rules:
        - { path: header, action: include }
        - { path: latitude, action: include }
        - { path: longitude, action: include }
        - { path: altitude, action: include }
        - { path: altitude, action: exclude }
        - { path: longitude, action: anonymize }
    - topic: /text
      message_type: std_msgs/msg/String
      qosPreset: reliable
  buffer: { max_events: 500, overflow: drop_oldest }
  storage: { backend: walrus, walrus: { publisher_url: 'http://walrus.example' } }
";

#[tokio::test(flavor = "multi_thread")]
async fn an_agents_file_lets_out_what_it_lets_out_there() {
    // What the agent has no key for: that everybody may have the data here, and that chunks do not wait.
    let set = ["--set", "defaults.access.policy=free", "--set", "defaults.chunk.max_age=100ms"];
    let world = World::start_as(AGENT, &set).await;
    let mut robot = world.rclpy("robot").await;
    for (topic, kind) in [("/fix", "sensor_msgs/msg/NavSatFix"), ("/text", "std_msgs/msg/String")] {
        robot.advertise(topic, kind, Value::Null).await;
        world.meet(&mut robot, topic, 1).await;
    }
    let fix = json!({ "header": { "frame_id": "gps", "stamp": { "sec": 1_700_000_000 } }, "latitude": "$n",
                      "longitude": 13.4, "altitude": 34.0 });
    // The topic is not acknowledged: one after the other, so that none is in the way of the next.
    for n in 0..10 {
        robot.publish("/fix", 1, Publish::fields(fix.clone()).first(n)).await;
        world.durable("/fix", n + 1).await;
    }
    let text = robot.publish("/text", 10, Publish::random(1)).await;
    world.durable("/text", 10).await;

    let bought = world.buy(&["/fix", "/text"]).await;
    for (n, package) in bought[0].packages.iter().enumerate() {
        let stamp = json!({ "sec": 1_700_000_000, "nanosec": 0 });
        let expected = json!({ "header": { "frame_id": "gps", "stamp": stamp }, "latitude": n as f64,
                               "longitude": { "redacted": true } });
        assert_same(&expected, &package.fields);
    }
    for (published, package) in text.iter().zip(&bought[1].packages) {
        assert_same(published.value.as_ref().unwrap(), &package.fields);
    }
    let log = world.machine.log();
    assert_eq!(log.matches("walrus").count(), 1, "what has no meaning here is named, once:\n{log}");
}
