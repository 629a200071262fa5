//! A configuration of peaq's ROS 2 agent, as it is: the same topics, and never more of them than there.

use std::fs;

use serde_json::{Value, json};
use tributary_tests::{
    node::NodeProcess,
    ros2::{Publish, assert_same, program},
};

use super::world::{World, listen};

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

#[tokio::test(flavor = "multi_thread")]
async fn the_agents_ros_parameters_count_for_its_file() {
    let world = World::start(&[], "ros2: {}\n").await;
    let home = world.sandbox.home("robot", "roles: [machine]\n");
    let (file, policy) = (world.sandbox.path().join("agent.yaml"), world.sandbox.path().join("policy.yaml"));
    fs::write(&file, AGENT.replace("enabled: true", "enabled: false")).unwrap();
    fs::write(&policy, "stream_policy: { topics: [{ topic: /only, messageType: std_msgs/msg/String }] }\n").unwrap();
    let mut command = world.network.command(program());
    command.args([
        "run",
        "-v",
        "--set",
        &listen(&world.sandbox, "robot"),
        "--ros-args",
        "-r",
        "__node:=stream_agent_node",
    ]);
    for parameter in [
        format!("config.yaml_path:={}", file.display()),
        format!("stream_agent.policy_path:={}", policy.display()),
        "stream_agent.enabled:=true".to_owned(),
        "stream_agent.agent_token:=s3cr3t".to_owned(),
        "stream_agent.delivery_port:=9000".to_owned(),
    ] {
        command.args(["-p", &parameter]);
    }
    let robot = NodeProcess::try_start_by(command, &home).await.unwrap();
    let status = robot.status().await;
    assert_eq!(status.ros2.unwrap().node, "/stream_agent_node");
    assert_eq!(status.streams.iter().map(|stream| stream.name.as_str()).collect::<Vec<_>>(), ["/only"]);
    let log = robot.log();
    assert_eq!(log.matches("`agent_token`").count(), 1, "{log}");
    assert!(!log.contains("s3cr3t"), "{log}");
    robot.stop().await;
}
