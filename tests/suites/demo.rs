//! `tributary demo`, as a newcomer runs it.

#![allow(clippy::unwrap_used, clippy::panic, reason = "helpers of tests stop at the first failure, as the tests do")]

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    process::Stdio,
};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use tokio::io::{AsyncBufReadExt as _, BufReader};
use tributary::ingest::{self, Content, IngestOptions, RawMessage, SourceItem, TopicFilter};
use tributary_tests::{
    home::Sandbox,
    node::{command, program},
    wait::soon,
};

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

/// The messages of each topic as they stand in the file, CDR bytes and definition; a topic of JSON has none.
fn recorded(path: &Path) -> BTreeMap<String, Vec<RawMessage>> {
    let mut all: BTreeMap<String, Vec<RawMessage>> = BTreeMap::new();
    let options = IngestOptions { raw: TopicFilter::All, ..IngestOptions::default() };
    let mut source = ingest::open(path, &options).unwrap();
    while let Some(item) = source.next().unwrap() {
        if let SourceItem::Message(message) = item
            && let Content::Raw(raw) = message.content
        {
            all.entry(message.topic.to_string()).or_default().push(raw);
        }
    }
    all
}

/// The fields of each topic's messages.
fn decoded(path: &Path) -> BTreeMap<String, Vec<Content>> {
    let mut all: BTreeMap<String, Vec<Content>> = BTreeMap::new();
    let mut source = ingest::open(path, &IngestOptions::default()).unwrap();
    while let Some(item) = source.next().unwrap() {
        if let SourceItem::Message(message) = item {
            all.entry(message.topic.to_string()).or_default().push(message.content);
        }
    }
    all
}

/// The topics of data.mcap that are JSON, by what the report says.
fn json_topics(report: &Value) -> Vec<&str> {
    let channels = report["channels"].as_array().unwrap();
    let json = channels.iter().filter(|channel| channel["encoding"] == "json");
    json.map(|channel| {
        assert!(channel["reason"].as_str().unwrap().contains("a rule changed"), "{channel}");
        channel["topic"].as_str().unwrap()
    })
    .collect()
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
    // Topics that no rule changed are the robot's messages again, byte for byte; the others are JSON as a whole.
    assert_eq!(json_topics(&report), ["/battery", "/fix"]);
    let demo = Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples/recordings/robot.mcap");
    let mut expected = recorded(&demo);
    expected.retain(|topic, _| topic != "/battery" && topic != "/fix");
    assert!(expected.len() > 3);
    assert!(recorded(&out.join("data.mcap")) == expected);
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
        assert!(json_topics(&report).is_empty(), "{name}: {report}");
        // Two messages of the talker's have stale memory as padding; everything that means something is the same.
        let (ours, theirs) = (recorded(&out.join("data.mcap")), recorded(&path));
        assert!(ours.keys().eq(theirs.keys()), "{name}");
        let pairs = ours.values().flatten().zip(theirs.values().flatten());
        let (same, other): (Vec<_>, Vec<_>) = pairs.partition(|(ours, theirs)| ours == theirs);
        assert_eq!(other.len(), if name.starts_with("talker") { 2 } else { 0 }, "{name}");
        assert!(same.len() > 5 * other.len());
        assert!(other.iter().all(|(ours, theirs)| ours.schema == theirs.schema && ours.cdr.len() == theirs.cdr.len()));
        assert!(decoded(&out.join("data.mcap")) == decoded(&path), "{name}");
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

/// What is in a folder.
fn names(folder: &Path) -> Vec<String> {
    fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name().to_string_lossy().into_owned()).collect()
}

#[tokio::test]
async fn a_demo_that_is_terminated_leaves_no_node_and_no_folder() {
    for signal in [Signal::TERM, Signal::INT] {
        let sandbox = Sandbox::new();
        let temporary = sandbox.path().join("t");
        fs::create_dir(&temporary).unwrap();
        let mut demo = tokio::process::Command::new(program())
            .args(["demo", "--out"])
            .arg(sandbox.path().join("out"))
            .env("TMPDIR", &temporary)
            .env_remove("TRIBUTARY_LOG")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .unwrap();
        let mut said = BufReader::new(demo.stderr.take().unwrap()).lines();
        let mut nodes: Vec<u32> = Vec::new();
        while nodes.len() < 2 {
            let line = soon("the nodes of the demo", said.next_line()).await.unwrap().unwrap();
            if let Some((_, rest)) = line.split_once("(process ") {
                nodes.push(rest.trim_end_matches(')').parse().unwrap());
            }
        }
        let running = |pid: &u32| Path::new(&format!("/proc/{pid}")).exists();
        assert!(nodes.iter().all(running), "both nodes run when the signal comes");
        assert_eq!(names(&temporary).len(), 1, "and so does their folder");
        let pid = Pid::from_raw(i32::try_from(demo.id().unwrap()).unwrap()).unwrap();
        kill_process(pid, signal).unwrap();
        let mut rest = String::new();
        while let Some(line) = soon("the end of the demo", said.next_line()).await.unwrap() {
            rest.push_str(&line);
        }
        let status = soon("the end of the demo", demo.wait()).await.unwrap();
        assert_eq!(status.code(), Some(1), "{rest}");
        assert!(rest.contains("the demo was stopped by"), "{rest}");
        assert!(!nodes.iter().any(running), "a node of the demo lives on");
        assert_eq!(names(&temporary), Vec::<String>::new());
    }
}
