//! Scenario files: the ones that ship, and one that cannot end well.

use std::path::{Path, PathBuf};

use serde_json::Value;
use tributary_tests::netns::World;

use super::common::Net;

fn shipped(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples/scenarios").join(name)
}

fn lines(text: &str) -> Vec<Value> {
    text.lines().map(|line| serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}"))).collect()
}

fn events<'a>(lines: &'a [Value], event: &str) -> Vec<&'a Value> {
    lines.iter().filter(|line| line["event"] == event).collect()
}

/// Runs a scenario that ships, and returns its report.
async fn passes(name: &str) -> Vec<Value> {
    let net = Net::new();
    let report = net.beside("report.ndjson");
    let ended = net.run("run", &[shipped(name).to_str().unwrap(), "--report", report.to_str().unwrap()]).await;
    assert_eq!(ended.code, Some(0), "{ended:?}");
    assert!(!net.dir().exists(), "the testnet was taken down");
    let text = std::fs::read_to_string(report).unwrap();
    assert_eq!(text, ended.stdout, "--json prints the report");
    let lines = lines(&text);
    assert_eq!(lines.first().unwrap()["event"], "started");
    assert_eq!(lines.last().unwrap()["outcome"], "passed");
    let verified = events(&lines, "verified");
    assert!(verified[0]["buyers"].as_array().unwrap().iter().all(|buyer| buyer["datasets_open"].as_u64() >= Some(5)));
    assert!(events(&lines, "expected").iter().all(|line| line["met"] == true));
    lines
}

#[tokio::test(flavor = "multi_thread")]
async fn the_market_passes() {
    let lines = passes("market.yaml").await;
    assert_eq!(events(&lines, "expected").len(), 4, "every buyer has its packages");
    assert!(events(&lines, "sample").len() >= 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_crashes_happen_and_nobody_misses_anything() {
    let lines = passes("crashes.yaml").await;
    let killed: Vec<&str> = events(&lines, "killed").iter().map(|line| line["node"].as_str().unwrap()).collect();
    assert_eq!(killed, ["machine-1", "buyer-1", "machine-1"]);
    let started: Vec<&str> = events(&lines, "restarted").iter().map(|line| line["node"].as_str().unwrap()).collect();
    assert_eq!(started, ["machine-1", "machine-1", "buyer-1"]);
    // The second process of the machine is the one that is killed the second time.
    assert_eq!(events(&lines, "killed")[2]["pid"], events(&lines, "restarted")[0]["pid"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_network_is_cut_and_the_buyer_beyond_catches_up() {
    if World::new().is_none() {
        return;
    }
    let lines = passes("cut.yaml").await;
    let healed = events(&lines, "healed");
    // The machine goes on sending; whether the buyer beyond has something to say meanwhile is up to it.
    assert!(healed[0]["dropped"]["machine-1"].as_u64() > Some(0), "{healed:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_not_as_expected_fails_and_says_so() {
    let net = Net::new();
    let file = net.beside("bad.yaml");
    let text = "name: hopeless\nmachines: 1\nbuyers: 1\nfeed: { packages: { bytes: 1KiB, every: 1s } }\nduration: 4s\n\
                faults: [{ at: 1s, restart: buyer-9 }]\nexpect: { packages: 1000000 }\n";
    std::fs::write(&file, text).unwrap();
    let ended = net.run("run", &[file.to_str().unwrap()]).await;
    assert_eq!(ended.code, Some(1), "{ended:?}");
    let lines = lines(&ended.stdout);
    assert_eq!(lines.last().unwrap()["outcome"], "failed");
    assert_eq!(events(&lines, "expected")[0]["met"], false);
    let failed = events(&lines, "fault_failed");
    assert!(failed[0]["what"].as_str().unwrap().contains("buyer-9"), "{failed:?}");
    assert!(!net.dir().exists());

    std::fs::write(&file, text.replace("duration", "during")).unwrap();
    let refused = net.run("run", &[file.to_str().unwrap()]).await;
    assert!(refused.code == Some(2) && refused.stderr.contains("duration"), "{refused:?}");
}
