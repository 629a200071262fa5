//! The node as a ROS 2 package: colcon builds and installs it, the launch file starts what was installed.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use rustix::process::Signal;
use serde_json::{Value, json};
use tributary_tests::{
    home::Sandbox,
    node::NodeProcess,
    ros2::{Network, Rclpy, program, python},
    wait::soon,
};

use super::world::listen;

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../node/ros2").canonicalize().unwrap()
}

/// A command of the ROS 2 environment, whose programs it finds.
fn ros(program: impl AsRef<std::ffi::OsStr>) -> Command {
    let mut command = Command::new(program);
    let path = std::env::var("PATH").unwrap();
    let beside = python().parent().filter(|folder| folder.is_absolute()).map(|folder| format!("{}:", folder.display()));
    command.env("PATH", beside.unwrap_or_default() + &path).env_remove("LD_PRELOAD");
    command
}

/// What the command says; it must succeed.
async fn said(command: Command, what: &str) -> String {
    let output = soon(what, tokio::process::Command::from(command).kill_on_drop(true).output()).await.unwrap();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    assert!(output.status.success(), "{what}: {}\n{}\n{}", output.status, text(&output.stdout), text(&output.stderr));
    text(&output.stdout)
}

async fn python_says(script: &str, arguments: &[&str]) -> String {
    let mut command = ros(python());
    command.args(["-c", script]).args(arguments);
    said(command, script).await
}

#[tokio::test]
async fn the_package_is_what_the_workspace_is() {
    let script = "import json, sys; from catkin_pkg.package import parse_package\n\
        package = parse_package(sys.argv[1]); package.validate()\n\
        print(json.dumps([package.package_format, package.name, package.version, package.licenses, package.get_build_type()]))";
    let description: Value = serde_json::from_str(&python_says(script, &[folder().to_str().unwrap()]).await).unwrap();
    assert_eq!(description, json!([3, "tributary", env!("CARGO_PKG_VERSION"), ["Apache-2.0"], "ament_cmake"]));
}

#[tokio::test]
async fn the_example_in_it_is_a_configuration_with_live_topics() {
    let mut command = Command::new(program());
    command.args(["config", "check", "--json", "--config"]).arg(folder().join("config/robot.yaml"));
    let report: Value = serde_json::from_str(&said(command, "config check").await).unwrap();
    assert_eq!((&report["valid"], report["streams"].as_array().unwrap().len()), (&json!(true), 3), "{report}");
}

/// Builds the package as colcon does it, with the program that is built already, and says how the installed launch file starts it.
async fn launched(sandbox: &Sandbox, values: &Value) -> Value {
    let colcon = "import sys; from colcon_core.command import main; sys.exit(main())";
    let mut command = ros(python());
    command.args(["-c", colcon, "build", "--base-paths"]).arg(folder()).arg("--cmake-args");
    command.arg(format!("-DTRIBUTARY_PROGRAM={}", program().display())).current_dir(sandbox.path());
    // ament's own packages lie in no workspace of colcon's, so CMake is told where.
    command.env("CMAKE_PREFIX_PATH", std::env::var_os("AMENT_PREFIX_PATH").unwrap());
    said(command, "colcon build").await;

    let share = sandbox.path().join("install/tributary/share/tributary");
    let mut command = ros("sh");
    let script = "unset COLCON_CURRENT_PREFIX; . install/setup.sh >&2 && exec \"$0\" \"$@\"";
    command
        .args(["-c", script])
        .arg(python())
        .arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("tools/launch_process.py"));
    command.arg(share.join("launch/tributary.launch.py")).arg(values.to_string()).current_dir(sandbox.path());
    serde_json::from_str(&said(command, "the launch file").await).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn colcon_installs_it_and_the_launch_file_starts_it() {
    let sandbox = Sandbox::new();
    let home = sandbox.home("robot", "roles: [machine]\n");
    let config = sandbox.path().join("event-map.yaml");
    fs::write(&config, "roles: [machine]\nstore: { ballast: none }\nstreams: []\n").unwrap();
    let listen = listen(&sandbox, "robot");
    let values = json!({
        "config_yaml": config, "home": home, "node_name": "feeder", "namespace": "/fleet",
        "ros_arguments": "-p use_sim_time:=true", "arguments": format!("-v --set '{listen}'"),
    });
    let process = launched(&sandbox, &values).await;
    let arguments = process["arguments"].as_array().unwrap();
    assert!(
        arguments.len() >= 6 && arguments.iter().all(|argument| argument["description"].as_str().unwrap().len() > 20)
    );
    // Sealing and storing take longer than the five seconds that launch gives by itself.
    assert_eq!((process["sigterm_timeout"].as_str(), process["sigkill_timeout"].as_str()), (Some("60"), Some("10")));

    let words: Vec<&str> = process["command"].as_array().unwrap().iter().map(|word| word.as_str().unwrap()).collect();
    let installed = sandbox.path().canonicalize().unwrap().join("install/tributary/lib/tributary/tributary");
    assert_eq!(Path::new(words[0]).canonicalize().unwrap(), installed);
    let network = Network::new(sandbox.path());
    let mut command = network.command(words[0]);
    command.args(&words[1..]);
    let mut node = NodeProcess::try_start_by(command, &home).await.unwrap();
    let status = node.status().await.ros2.unwrap();
    assert_eq!((status.node.as_str(), status.use_sim_time), ("/fleet/feeder", true));
    let mut other = Rclpy::start(&network, "other").await;
    other.exists("/fleet/feeder").await;
    // How launch ends it.
    node.signal(Signal::INT);
    assert!(node.ended().await.success(), "{}", node.log());
}

#[tokio::test(flavor = "multi_thread")]
async fn without_arguments_the_launch_file_starts_the_home_that_there_is() {
    let sandbox = Sandbox::new();
    let process = launched(&sandbox, &json!({})).await;
    let words: Vec<&str> = process["command"].as_array().unwrap()[1..].iter().map(|w| w.as_str().unwrap()).collect();
    assert_eq!(words, ["run", "--ros-args", "--ros-args"]);
}
