//! A testnet of one test, driven by commands.

use std::path::{Path, PathBuf};

use serde_json::Value;
use tempfile::TempDir;
use tributary_tests::{
    cleanup,
    node::{Ended, command},
    wait::until,
};

/// A testnet in a folder of its own. Taken down when it is dropped, however the test ends.
pub(super) struct Net {
    place: TempDir,
}

impl Net {
    /// A place without a testnet yet.
    pub(super) fn new() -> Self {
        let place = tempfile::Builder::new().prefix("trib-net-").tempdir().unwrap();
        cleanup::testnet(&place.path().join("net"));
        Self { place }
    }

    /// Brings it up.
    pub(super) async fn up(arguments: &[&str]) -> Self {
        let net = Self::new();
        let ended = net.run("up", arguments).await;
        assert_eq!(ended.code, Some(0), "{ended:?}");
        net
    }

    pub(super) fn dir(&self) -> PathBuf {
        self.place.path().join("net")
    }

    /// A place beside the testnet's folder.
    pub(super) fn beside(&self, name: &str) -> PathBuf {
        self.place.path().join(name)
    }

    /// Runs `tributary testnet <step> <arguments> --dir <folder> --json`.
    pub(super) async fn run(&self, step: &str, arguments: &[&str]) -> Ended {
        let dir = self.dir();
        let mut all = vec!["testnet", step, "--json", "--dir", dir.to_str().unwrap()];
        all.extend(arguments);
        command(self.place.path(), &all).await
    }

    /// How it stands.
    pub(super) async fn status(&self) -> Value {
        self.run("status", &[]).await.json()
    }

    /// How a node stands.
    pub(super) async fn node(&self, name: &str) -> Value {
        let status = self.status().await;
        status["nodes"].as_array().unwrap().iter().find(|node| node["name"] == name).unwrap().clone()
    }

    /// Waits until a buyer has written so many packages.
    pub(super) async fn packages(&self, buyer: &str, least: u64) {
        until(&format!("{least} packages at {buyer}"), async || {
            (self.node(buyer).await["packages"].as_u64().unwrap() >= least).then_some(())
        })
        .await;
    }

    /// Entries of the machines' logs at a node that follows them.
    pub(super) async fn entries(&self, name: &str) -> u64 {
        let status = command(&self.dir().join(name), &["status", "--json"]).await.json();
        let feeds = status["followed"].as_array().unwrap();
        let logs = feeds.iter().flat_map(|feed| feed["logs"].as_array().unwrap());
        logs.map(|log| log["entries"].as_u64().unwrap()).sum()
    }

    /// Waits until there is a closed dataset of every stream at a machine.
    pub(super) async fn closed_datasets(&self, machine: &str, streams: usize) {
        let home = self.dir().join(machine);
        until("closed datasets of all streams", async || {
            let datasets = command(&home, &["dataset", "ls", "--json"]).await.json();
            let closed = datasets.as_array().unwrap().iter().filter(|dataset| dataset["closed"] == true);
            let names: std::collections::BTreeSet<&str> =
                closed.filter_map(|dataset| dataset["stream"].as_str()).collect();
            (names.len() >= streams).then_some(())
        })
        .await;
    }

    /// The id in the environment of its processes.
    pub(super) fn id(&self) -> String {
        let text = std::fs::read_to_string(self.dir().join("testnet.json")).unwrap();
        let state: Value = serde_json::from_str(&text).unwrap();
        state["id"].as_str().unwrap().to_owned()
    }
}

impl Drop for Net {
    fn drop(&mut self) {
        cleanup::end_testnet(&self.dir());
    }
}

/// Processes that carry this id, zombies left out.
pub(super) fn processes(id: &str) -> Vec<i32> {
    let wanted = format!("TRIBUTARY_TESTNET_ID={id}");
    let carries = |pid: i32| {
        let environment = std::fs::read(format!("/proc/{pid}/environ")).unwrap_or_default();
        environment.split(|byte| *byte == 0).any(|variable| variable == wanted.as_bytes())
    };
    let pids = std::fs::read_dir("/proc").unwrap().flatten();
    pids.filter_map(|entry| entry.file_name().to_str()?.parse().ok()).filter(|pid| carries(*pid)).collect()
}

/// Asserts that nothing of a testnet is left.
pub(super) fn nothing_left(dir: &Path, id: &str) {
    assert_eq!(processes(id), [0_i32; 0], "processes of the testnet live");
    assert!(!dir.exists(), "{} is there", dir.display());
}
