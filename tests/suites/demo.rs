//! `tributary demo`, as a newcomer runs it.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
};

use serde_json::Value;
use tributary::ingest::{self, IngestOptions, SourceItem};
use tributary_tests::{home::Sandbox, node::command};

fn recording(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("recordings").join(name)
}

/// Messages by topic that a recording holds and a node can read.
fn messages(path: &Path) -> BTreeMap<String, u64> {
    let mut counts = BTreeMap::new();
    let mut source = ingest::open(path, &IngestOptions::default()).unwrap();
    while let Some(item) = source.next().unwrap() {
        if let SourceItem::Message(message) = item {
            *counts.entry(message.topic.to_string()).or_default() += 1;
        }
    }
    counts
}

/// Packages by topic in a folder of the demo. A blob follows its package in the file of blobs, not here.
fn packages(out: &Path) -> BTreeMap<String, u64> {
    let mut counts = BTreeMap::new();
    for line in fs::read_to_string(out.join("packages.ndjson")).unwrap().lines() {
        let package: Value = serde_json::from_str(line).unwrap();
        *counts.entry(package["payload"]["@topic"].as_str().unwrap().to_owned()).or_default() += 1;
    }
    counts
}

#[tokio::test]
async fn the_demo_delivers_everything_and_nothing_that_is_protected() {
    let sandbox = Sandbox::new();
    let out = sandbox.path().join("out");
    let ended = command(sandbox.path(), &["demo", "--out", out.to_str().unwrap(), "--json"]).await;
    let report = ended.json();
    let counts = packages(&out);
    let topics = report["topics"].as_object().unwrap();
    assert!(topics.len() >= 6, "{topics:?}");
    for (topic, line) in topics {
        assert_eq!(line["recorded"], line["arrived"], "{topic}");
        assert_eq!(counts.get(topic).copied(), line["arrived"].as_u64(), "{topic}");
    }
    assert_eq!(report["packages"].as_u64(), Some(counts.values().sum()));
    assert_eq!(messages(&out.join("data.mcap")), counts);
    // What the owner keeps: the exact place of the robot.
    let text = fs::read_to_string(out.join("packages.ndjson")).unwrap();
    let fix = text.lines().find(|line| line.contains("\"/fix\"")).unwrap();
    let fix: Value = serde_json::from_str(fix).unwrap();
    assert_eq!(fix["payload"].get("altitude"), None);
    assert!(
        fix["payload"]["latitude"]["__anonymized"].is_object() || fix["payload"]["latitude"]["__anonymized"] == true,
        "{fix}"
    );
}

#[tokio::test]
async fn the_summary_is_for_people() {
    let sandbox = Sandbox::new();
    let out = sandbox.path().join("out");
    let ended = command(sandbox.path(), &["demo", "--out", out.to_str().unwrap()]).await;
    assert_eq!(ended.code, Some(0), "{ended:?}");
    for word in ["protected", "sealed", "pulled", "verified", "packages.ndjson", "data.mcap"] {
        assert!(ended.stdout.contains(word), "{word} is missing:\n{}", ended.stdout);
    }
}

#[tokio::test]
async fn a_byte_that_was_changed_on_the_way_is_refused() {
    let sandbox = Sandbox::new();
    let out = sandbox.path().join("out");
    let ended = command(sandbox.path(), &["demo", "--tamper", "--out", out.to_str().unwrap()]).await;
    assert_eq!(ended.code, Some(3), "{ended:?}");
    assert!(ended.stderr.contains("refused") && ended.stderr.contains("flipped"), "{ended:?}");
    assert!(!out.join("packages.ndjson").exists() && !out.join("data.mcap").exists());
}

#[tokio::test]
async fn other_recordings_are_delivered_too() {
    for name in ["talker.mcap", "talker.db3", "cdr_test_0.mcap"] {
        let sandbox = Sandbox::new();
        let out = sandbox.path().join("out");
        let path = recording(name);
        let args = ["demo", "--recording", path.to_str().unwrap(), "--out", out.to_str().unwrap(), "--json"];
        let report = command(sandbox.path(), &args).await.json();
        let counts = messages(&path);
        assert!(!counts.is_empty());
        assert_eq!(packages(&out), counts, "{name}: {report}");
        assert_eq!(messages(&out.join("data.mcap")), counts, "{name}");
    }
}

#[tokio::test]
async fn a_recording_that_is_none_is_named() {
    let sandbox = Sandbox::new();
    let path = sandbox.path().join("no.mcap");
    let ended = command(sandbox.path(), &["demo", "--recording", path.to_str().unwrap()]).await;
    assert_eq!(ended.code, Some(5), "{ended:?}");
    assert!(ended.stderr.contains("no.mcap"), "{ended:?}");
}
