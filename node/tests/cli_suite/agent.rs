//! A configuration of peaq's ROS 2 agent, given to the commands as it is.

use std::{fs, process::Stdio};

use serde_json::{Value, json};

use crate::support::{Home, err, out};

const EXAMPLE: &str = include_str!("../../../examples/peaq-agent.yaml");
const RECORDING: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../examples/recordings/robot.mcap");

/// What the example says and what the tests need beside it.
fn home() -> Home {
    Home::new(EXAMPLE)
}

#[test]
fn the_example_is_checked_and_its_rules_do_what_the_agent_does() {
    let machine = home();
    let report = machine.json(&["config", "check"]);
    assert_eq!(report["roles"], json!(["machine"]));
    let streams = report["streams"].as_array().expect("a list");
    let each: Vec<_> = streams.iter().map(|s| (s["topic"].as_str(), s["rules"].as_u64(), s["mode"].as_str())).collect();
    let (only, but) = (Some("fields, only what rules say"), Some("fields, all but what rules say"));
    assert_eq!(each, [(Some("/fix"), Some(6), only), (Some("/battery"), Some(2), but), (Some("/odom"), Some(0), but)]);
    assert_eq!(report["notices"].as_array().map(Vec::len), Some(1), "{report}");
    assert!(out(&machine.ends(0, &["config", "check"])).contains("note: "));

    let report = machine.json(&["rules", "test", "--recording", RECORDING]);
    let fate = |topic: &str, field: &str| report["topics"][topic]["fields"][field]["action"].clone();
    for (topic, field, action) in [
        ("/fix", "header.stamp.sec", "include"),
        ("/fix", "header.frame_id", "exclude"),
        ("/fix", "status.status", "include"),
        ("/fix", "latitude", "encrypt"),
        ("/fix", "longitude", "anonymize"),
        ("/fix", "altitude", "exclude"),
        ("/battery", "serial_number", "anonymize"),
        ("/battery", "location", "exclude"),
        ("/battery", "voltage", "include"),
        ("/odom", "child_frame_id", "include"),
    ] {
        assert_eq!(fate(topic, field), action, "{topic} {field}");
    }
    assert_eq!(report["topics"]["/imu"]["stream"], Value::Null, "what the file does not name stays");

    let taken = machine.json(&["ingest", RECORDING, "--close"]);
    let fix = &taken["topics"]["/fix"];
    assert_eq!((&fix["trouble"], &fix["messages"]), (&Value::Null, &json!(100)), "{taken}");
    let list = machine.json(&["dataset", "ls"]);
    assert_eq!(list.as_array().map(Vec::len), Some(3), "{list}");
}

#[test]
fn a_rule_for_what_the_message_type_does_not_have_lets_nothing_out() {
    let machine = Home::new(&EXAMPLE.replace("path: location", "path: locaton"));
    let report = machine.ends(1, &["rules", "test", "--recording", RECORDING]);
    assert!(out(&report).contains("\"locaton\" names a field that the message type does not have"), "{}", out(&report));
    let taken = machine.ends(1, &["ingest", RECORDING, "--json"]);
    let taken: Value = serde_json::from_slice(&taken.stdout).expect("one document");
    assert_eq!((&taken["topics"]["/battery"]["messages"], &taken["messages"]), (&json!(0), &json!(500)), "{taken}");
}

#[test]
fn a_node_names_what_has_no_meaning_once_when_it_starts_and_no_secret() {
    let machine = Home::machine();
    let text =
        "stream_agent:\n  enabled: false\n  api_key: s3cr3t-1\n  agent_token: s3cr3t-2\n  storage: {backend: walrus}\n";
    fs::write(machine.path("agent.yaml"), text).expect("written");
    let listen = "network.listen=[/ip4/127.0.0.1/tcp/0]";
    let mut child = machine
        .command(&["run", "--json", "--config", "agent.yaml", "--set", listen, "--set", "store.ballast=none"])
        .env("PEAQOS_STREAM_DELIVERY_TOKEN", "s3cr3t-3")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("starts");
    let mut line = String::new();
    let stdout = child.stdout.as_mut().expect("piped");
    std::io::BufRead::read_line(&mut std::io::BufReader::new(stdout), &mut line).expect("read");
    assert!(line.contains("\"ready\""), "{line}");
    let stopped = machine.command(&["status"]).output().expect("runs");
    assert!(stopped.status.success(), "{}", err(&stopped));
    let killed = std::process::Command::new("kill").arg("-TERM").arg(child.id().to_string()).status().expect("runs");
    assert!(killed.success());
    let output = child.wait_with_output().expect("ends");
    assert_eq!(output.status.code(), Some(0), "{}", err(&output));
    let said = err(&output);
    for (word, times) in
        [("`api_key`, `agent_token` mean nothing", 1), ("storage.backend", 1), ("delivery.token", 1), ("s3cr3t", 0)]
    {
        assert_eq!(said.matches(word).count(), times, "{word}: {said}");
    }
    assert!(said.contains("`stream_agent.enabled` is not true"), "{said}");
}
