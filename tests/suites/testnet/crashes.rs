//! Whoever brings a testnet up may end at any moment; `down` takes the rest apart.

use std::process::{Child, Command, Stdio};

use rustix::process::{Pid, Signal, kill_process};
use tributary_tests::{node::program, wait::until};

use super::common::{Net, nothing_left, processes};

/// `up --foreground`, as a process of its own.
fn foreground(net: &Net) -> Child {
    let mut command = Command::new(program());
    command.args(["testnet", "up", "--foreground", "--machines", "1", "--buyers", "2", "--dir"]).arg(net.dir());
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap()
}

fn signal(child: &Child, signal: Signal) {
    kill_process(Pid::from_raw(i32::try_from(child.id()).unwrap()).unwrap(), signal).unwrap();
}

/// Waits until so many processes of the testnet live, and returns its id.
async fn started(net: &Net, least: usize) -> String {
    until("processes of the testnet", async || {
        if !net.dir().join("testnet.json").exists() {
            return None;
        }
        let id = net.id();
        (processes(&id).len() >= least).then_some(id)
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn after_the_kill_of_who_started_it_down_leaves_nothing() {
    // While the nodes are being started, and when they all run.
    for least in [1, 4] {
        let net = Net::new();
        let mut supervisor = foreground(&net);
        let id = started(&net, least).await;
        supervisor.kill().unwrap();
        supervisor.wait().unwrap();
        assert!(processes(&id).len() >= least, "the nodes live on without who started them");
        assert_eq!(net.run("down", &[]).await.code, Some(0));
        nothing_left(&net.dir(), &id);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn ctrl_c_leaves_nothing() {
    for least in [1, 4] {
        let net = Net::new();
        let mut supervisor = foreground(&net);
        let id = started(&net, least).await;
        signal(&supervisor, Signal::INT);
        until("the end", async || supervisor.try_wait().unwrap()).await;
        nothing_left(&net.dir(), &id);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_started_and_never_written_down_is_ended_too() {
    let net = Net::up(&["--machines", "1", "--buyers", "0"]).await;
    let id = net.id();
    // As if `up` had been killed right behind the start of a process.
    let mut child = Command::new("sleep").arg("300").env("TRIBUTARY_TESTNET_ID", &id).spawn().unwrap();
    let mut stranger = Command::new("sleep").arg("300").env("TRIBUTARY_TESTNET_ID", "another").spawn().unwrap();
    until("both to run", async || (processes(&id).len() == 3 && processes("another").len() == 1).then_some(())).await;
    assert_eq!(net.run("down", &[]).await.code, Some(0));
    assert!(child.try_wait().unwrap().is_some(), "it was ended");
    assert!(stranger.try_wait().unwrap().is_none(), "what is not of this testnet lives");
    stranger.kill().unwrap();
    stranger.wait().unwrap();
    nothing_left(&net.dir(), &id);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_process_with_a_used_up_id_is_left_alone() {
    let net = Net::up(&["--machines", "1", "--buyers", "0"]).await;
    let id = net.id();
    let mut stranger = Command::new("sleep").arg("300").spawn().unwrap();
    // As if the node had ended and its id had been given to somebody else.
    let path = net.dir().join("testnet.json");
    let mut state: serde_json::Value = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
    let node = &mut state["nodes"][0]["process"];
    assert!(node["pid"].is_number(), "{node}");
    node["pid"] = stranger.id().into();
    std::fs::write(&path, state.to_string()).unwrap();
    assert_eq!(net.node("machine-1").await["life"], "crashed");
    assert_eq!(net.run("down", &[]).await.code, Some(0));
    assert!(stranger.try_wait().unwrap().is_none(), "a stranger was ended");
    stranger.kill().unwrap();
    stranger.wait().unwrap();
    nothing_left(&net.dir(), &id);
}
