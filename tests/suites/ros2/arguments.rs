//! ROS arguments on the command line of `tributary run`, as launch files give them.

use std::fs;

use serde_json::{Value, json};
use tributary_tests::{
    home::head,
    node::NodeProcess,
    ros2::{Publish, program},
    wait::soon,
};

use super::world::{World, fields};

const TEXT: &str = "std_msgs/msg/String";

fn text() -> Publish {
    Publish::fields(json!({ "data": "$n" }))
}

#[tokio::test(flavor = "multi_thread")]
async fn name_namespace_and_topics_are_remapped() {
    let arguments = ["--ros-args", "-r", "__node:=feeder", "-r", "__ns:=/fleet", "-r", "/text:=/robot7/text"];
    // Without a section `ros2`: the arguments say that topics are wanted.
    let world = World::start_with(&[fields("/text", "")], "", &arguments).await;
    let mut robot = world.rclpy("robot").await;
    robot.exists("/fleet/feeder").await;
    robot.advertise("/robot7/text", TEXT, Value::Null).await;
    robot.matched("/robot7/text", 1).await;
    let source = world.source("/text", "the publisher", |source| source.publishers == 1).await;
    assert_eq!(source.topic, "/robot7/text");
    robot.publish("/robot7/text", 10, text()).await;
    world.durable("/text", 10).await;
    let answer = robot.call("/fleet/feeder/status", "std_srvs/srv/Trigger", json!({})).await;
    assert_eq!(answer["success"], true, "{answer}");
    assert_eq!(world.machine.status().await.ros2.unwrap().node, "/fleet/feeder");
    // What is sold keeps the name that the configuration gives it.
    assert!(world.buy(&["/text"]).await[0].numbers("/data").into_iter().eq(0..10));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_parameter_file_says_where_the_configuration_is_and_which_time_counts() {
    let world = World::start(&[], "ros2: {}\n").await;
    let home = world.sandbox.home("robot", "roles: [machine]\n");
    let config = world.sandbox.path().join("event-map.yaml");
    let port = world.sandbox.port("robot");
    fs::write(&config, format!("{}streams:\n{}", head("machine", port, ""), fields("/text", ""))).unwrap();
    let parameters = world.sandbox.path().join("parameters.yaml");
    let text_of_it =
        format!("/**:\n  ros__parameters:\n    config_yaml: {}\n    use_sim_time: true\n", config.display());
    fs::write(&parameters, text_of_it).unwrap();
    let mut command = world.network.command(program());
    command.args(["run", "-v", "--ros-args", "-r", "__node:=robot_node", "--params-file"]).arg(&parameters);
    let machine = NodeProcess::try_start_by(command, &home).await.unwrap();
    let status = machine.status().await;
    let ros2 = status.ros2.unwrap();
    assert_eq!((ros2.node.as_str(), ros2.use_sim_time), ("/robot_node", true));
    assert_eq!(status.streams.iter().map(|stream| stream.name.as_str()).collect::<Vec<_>>(), ["/text"]);
    machine.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn arguments_that_mean_nothing_end_the_program_before_it_listens() {
    let world = World::start(&[], "ros2: {}\n").await;
    let home = world.sandbox.home("other", "roles: [machine]\nnetwork: { listen: [] }\n");
    for wrong in [&["--ros-args", "-r", "no rule"][..], &["--ros-args", "--no-such-thing"], &["--ros-args", "-p"]] {
        let mut command = world.network.command(program());
        command.arg("run").args(wrong).env("TRIBUTARY_HOME", &home);
        let output = soon("the end", tokio::process::Command::from(command).kill_on_drop(true).output()).await.unwrap();
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(!output.status.success() && output.status.code().is_some(), "{wrong:?}: {:?} {said}", output.status);
        assert!(said.contains("ROS"), "{wrong:?}: {said}");
    }
}
