//! One container.

use std::{
    fs,
    io::Write as _,
    process::{Command, Stdio},
};

use serde_json::Value;
use tributary_tests::{
    containers::{Solo, docker, docker_ok, docker_with, health, image},
    home::Sandbox,
    lines,
    wait::until,
};

const TOPIC: &str = "/odom";

/// A machine whose chunks are sealed by size or at the end, and by nothing else.
fn machine() -> String {
    let stream = "mode: fields, default: include, access: { policy: free }, chunk: { max_age: 1h }";
    format!("roles: [machine]\nstore: {{ ballast: none }}\nstreams:\n  - {{ topic: {TOPIC}, {stream} }}\n")
}

#[tokio::test]
async fn a_node_is_ready_without_root_rights_or_a_root_that_can_be_written() {
    let solo = Solo::new("rights", &machine()).await;
    solo.start().await;
    health(solo.name(), " healthy").await;
    assert_eq!(docker_ok(&["exec", solo.name(), "id", "-u"]).await, "10001");
    // Whose process it is that runs, not only whom a command would be: the owner of process 1.
    assert_eq!(docker_ok(&["exec", solo.name(), "stat", "-c", "%u", "/proc/1"]).await, "10001");
    let written = docker(&["exec", "--user", "0", solo.name(), "touch", "/usr/local/bin/other"]).await;
    assert!(written.code != Some(0) && written.stderr.contains("Read-only"), "{written:?}");
    assert_eq!(docker_ok(&["exec", solo.name(), "stat", "-c", "%a %u", "keys/identity.key"]).await, "600 10001");
}

#[tokio::test]
async fn a_node_that_hangs_is_unhealthy_and_healthy_when_it_goes_on() {
    let solo = Solo::new("hangs", &machine()).await;
    solo.start().await;
    health(solo.name(), " healthy").await;
    docker_ok(&["kill", "--signal", "STOP", solo.name()]).await;
    health(solo.name(), " unhealthy").await;
    docker_ok(&["kill", "--signal", "CONT", solo.name()]).await;
    health(solo.name(), " healthy").await;
}

#[tokio::test]
async fn docker_stop_seals_what_came_in_and_ends_with_0_before_docker_kills() {
    const MESSAGES: u64 = 30;
    let solo = Solo::new("stop", &machine()).await;
    solo.start().await;
    health(solo.name(), " healthy").await;
    // A source that does not end.
    let mut source = Command::new("docker")
        .args(["exec", "-i", solo.name(), "tributary", "ingest", "-", "--stream", TOPIC])
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let mut input = source.stdin.take().unwrap();
    (0..MESSAGES).for_each(|n| input.write_all(lines::line(TOPIC, n).as_bytes()).unwrap());
    until("the messages", async || {
        let status = solo.status().await?;
        let lane = &status.streams.first()?.lane;
        assert_eq!(lane.durable_packages, 0, "sealed already: the stop had nothing to do");
        (lane.packages == MESSAGES).then_some(())
    })
    .await;
    // Ten seconds, then SIGKILL, of which the code would be 137.
    docker_ok(&["stop", "--time", "10", solo.name()]).await;
    assert_eq!(docker_ok(&["inspect", "--format", "{{.State.ExitCode}}", solo.name()]).await, "0");
    drop(input);
    source.wait().unwrap();
    let datasets = solo.once(&["dataset", "ls", "--json"]).await.json();
    let sealed: Vec<_> = datasets.as_array().unwrap().iter().map(|each| (&each["closed"], &each["packages"])).collect();
    assert_eq!(sealed, [(&Value::Bool(true), &Value::from(MESSAGES))]);
}

#[tokio::test]
async fn the_image_says_how_it_is_run() {
    let config: Value =
        serde_json::from_str(&docker_ok(&["inspect", "--format", "{{json .Config}}", &image()]).await).unwrap();
    assert_eq!(config["User"], "10001:10001");
    assert_eq!(config["StopSignal"], "SIGTERM");
    assert_eq!(config["Healthcheck"]["Test"], serde_json::json!(["CMD", "tributary", "health"]));
    assert!(config["Volumes"].as_object().unwrap().contains_key("/var/lib/tributary"), "{config:#}");
    assert_eq!(config["Labels"]["org.opencontainers.image.licenses"], "Apache-2.0");
    // Nothing but the program and the user was added to Debian: no sources, no keys, no home.
    let list = ["find", "/src", "/out", "/usr/local", "/var/lib/tributary", "/root", "-type", "f"];
    let run = ["run", "--rm", "--network", "none", "--user", "0", "--entrypoint"];
    let found = docker(&[&run[..], &list[..1], &[&image()], &list[1..]].concat()).await;
    let found: Vec<&str> = found.stdout.lines().filter(|path| !path.starts_with("/root/.")).collect();
    assert_eq!(found, ["/usr/local/bin/tributary"]);
}

#[tokio::test]
async fn keys_beside_the_sources_do_not_reach_the_builder() {
    let sandbox = Sandbox::new();
    let root = concat!(env!("CARGO_MANIFEST_DIR"), "/..");
    fs::copy(format!("{root}/.dockerignore"), sandbox.path().join(".dockerignore")).unwrap();
    let kept = ["Cargo.toml", "node/src/main.rs", "examples/recordings/robot.mcap"];
    let out = [
        ".git/config",
        "examples/position.key",
        "examples/buyers.token",
        "home/keys/identity.key",
        "node/keys/owner.key",
        "target/release/tributary",
        "node/target/x",
        "tests/vectors/x.json",
        ".env",
        "tests/.env",
    ];
    for path in kept.iter().chain(&out) {
        let path = sandbox.path().join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, "x").unwrap();
    }
    let dockerfile = format!("FROM {}\nUSER 0\nCOPY . /context\n", image());
    let tag = format!("{}-context", image());
    fs::write(sandbox.path().join("Dockerfile"), dockerfile).unwrap();
    let folder = sandbox.path().display().to_string();
    let file = format!("{folder}/Dockerfile");
    let built = docker_with(&["build", "--quiet", "--force-rm", "--tag", &tag, "--file", &file, &folder], "").await;
    assert_eq!(built.code, Some(0), "{built:?}");
    let find = ["run", "--rm", "--network", "none", "--entrypoint", "find", &tag, "/context", "-type", "f"];
    let found = docker_ok(&find).await;
    docker_ok(&["rmi", &tag]).await;
    let mut found: Vec<&str> = found.lines().map(|path| path.trim_start_matches("/context/")).collect();
    found.sort_unstable();
    let mut kept = kept.to_vec();
    kept.sort_unstable();
    assert_eq!(found, kept);
}
