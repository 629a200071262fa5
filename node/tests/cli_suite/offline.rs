//! Commands that work on a home without a running node.

use std::fs;

use crate::support::{Home, err, lines, noise, out, tributary};

#[test]
fn messages_and_files_become_datasets() {
    let machine = Home::machine();
    let taken = machine.with_input(&["ingest", "-", "--stream", "/imu", "--json"], &lines(30));
    assert!(taken.status.success(), "{}", err(&taken));
    let taken: serde_json::Value = serde_json::from_slice(&taken.stdout).expect("JSON");
    assert_eq!((&taken["messages"], &taken["topics"]["/imu"]["messages"]), (&30.into(), &30.into()));
    fs::write(machine.path("file.bin"), noise(600_000)).expect("written");
    let published = machine.json(&["publish", "file.bin", "--stream", "files"]);
    assert_eq!((&published["bytes"], &published["chunks"]), (&600_000.into(), &3.into()));
    let list = machine.json(&["dataset", "ls"]);
    let rows: Vec<_> =
        list.as_array().expect("a list").iter().map(|d| (&d["stream"], &d["closed"], &d["content"])).collect();
    assert_eq!(
        rows,
        [(&"/imu".into(), &true.into(), &"packages".into()), (&"files".into(), &true.into(), &"file".into())]
    );
    assert_eq!(machine.json(&["feed", "ls"])[0]["own"], true);
    // Numbers go on.
    machine.ends(0, &["publish", "file.bin", "--stream", "files"]);
    assert_eq!(machine.json(&["dataset", "ls", "--stream", "files"]).as_array().map(Vec::len), Some(2));
    assert_eq!(machine.json(&["dataset", "close"])["datasets"].as_array().map(Vec::len), Some(0));
}

#[test]
fn a_source_or_stream_that_does_not_fit_is_explained() {
    let machine = Home::machine();
    machine.fails(5, &["ingest", "nothing.mcap"]);
    fs::write(machine.path("lines.ndjson"), lines(3)).expect("written");
    // Two streams take messages, and the lines do not say which.
    let ambiguous = machine.fails(5, &["ingest", "lines.ndjson"]);
    assert!(ambiguous["hint"].as_str().expect("a hint").contains("--stream"), "{ambiguous}");
    let ambiguous = machine.with_input(&["ingest", "-"], &lines(3));
    assert_eq!(ambiguous.status.code(), Some(2), "{}", err(&ambiguous));
    let unknown = machine.fails(5, &["ingest", "lines.ndjson", "--stream", "/lidar"]);
    assert!(unknown["hint"].as_str().expect("a hint").contains("/imu"), "{unknown}");
    machine.fails(2, &["ingest", "lines.ndjson", "--stream", "files"]);
    machine.fails(2, &["publish", "lines.ndjson", "--stream", "/imu"]);
    machine.fails(5, &["publish", "lines.ndjson", "--stream", "more"]);
    machine.fails(5, &["publish", "nothing", "--stream", "files"]);
    machine.fails(2, &["publish", "/tmp", "--stream", "files"]);
    // Lines with their topics.
    fs::write(machine.path("topics.ndjson"), "{\"t\":\"/imu\",\"secret\":1}\n{\"t\":\"/gps\"}\nnot json\n")
        .expect("written");
    let partly = machine.ends(1, &["ingest", "topics.ndjson", "--topic-field", "t"]);
    assert!(out(&partly).contains("/gps") && err(&partly).contains("not everything"), "{}", err(&partly));
    // A rule that is not optional must match: nothing leaves.
    fs::write(machine.path("none.ndjson"), "{\"a\":1}\n").expect("written");
    let stopped = machine.ends(1, &["ingest", "none.ndjson", "--stream", "/imu"]);
    assert!(out(&stopped).contains("secret"), "{}", out(&stopped));
}

#[test]
fn what_needs_a_node_says_so() {
    let (machine, buyer) = (Home::machine(), Home::buyer());
    for args in [&["status"][..], &["peers"], &["access", "ls"], &["feed", "follow"]] {
        let refused = machine.fails(1, args);
        assert!(refused["what"].as_str().expect("text").contains("no node is running in"), "{refused}");
        assert!(refused["hint"].as_str().expect("a hint").contains("tributary run"), "{refused}");
    }
    buyer.fails(1, &["subscribe", "tributary://x"]);
    buyer.fails(1, &["pull", "--stream", "/imu"]);
    buyer.fails(5, &["verify", "abcdef"]);
    buyer.fails(5, &["export", "--stream", "/imu", "--out", "x"]);
    buyer.fails(2, &["export", "--out", "x"]);
    buyer.fails(2, &["verify", "xyz"]);
    assert_eq!(buyer.json(&["feed", "ls"]), serde_json::json!([]));
    buyer.fails(5, &["feed", "show"]);
}

#[test]
fn rules_are_shown_field_by_field_and_violations_fail() {
    let machine = Home::machine();
    fs::write(machine.path("good.ndjson"), lines(7)).expect("written");
    let report = machine.json(&["rules", "test", "--recording", "good.ndjson", "--stream", "/imu"]);
    let topic = &report["topics"]["/imu"];
    assert_eq!((&topic["messages"], &topic["leaving"]), (&7.into(), &7.into()), "{report}");
    assert_eq!(
        (&topic["fields"]["secret"]["action"], &topic["fields"]["secret"]["rule"]),
        (&"exclude".into(), &"secret".into())
    );
    assert_eq!(topic["fields"]["i"]["action"], "include");
    fs::write(machine.path("bad.ndjson"), "{\"i\":1,\"secret\":2}\n{\"i\":1}\n").expect("written");
    let bad = machine.ends(1, &["rules", "test", "--recording", "bad.ndjson", "--stream", "/imu"]);
    assert!(out(&bad).contains("VIOLATION (1x)") && out(&bad).contains("1 of 2 messages would leave"), "{}", out(&bad));
    assert!(err(&bad).contains("optional"), "{}", err(&bad));
    // Nothing was stored.
    assert_eq!(machine.json(&["dataset", "ls"]), serde_json::json!([]));
    machine.fails(5, &["rules", "test", "--recording", "nothing.ndjson"]);
}

#[test]
fn a_recording_is_tried_and_ingested_by_topic() {
    let recording = concat!(env!("CARGO_MANIFEST_DIR"), "/../examples/recordings/robot.mcap");
    let machine = Home::new(
        "roles: [machine]\nnetwork: { listen: [/ip4/127.0.0.1/tcp/0] }\nstreams:\n  - { topic: /imu, mode: fields, default: include }\n",
    );
    let report = machine.json(&["rules", "test", "--recording", recording]);
    let topics = report["topics"].as_object().expect("topics");
    let (mapped, stay): (Vec<_>, Vec<_>) = topics.iter().partition(|(_, topic)| topic["stream"].is_string());
    assert_eq!((mapped.len(), mapped[0].0.as_str()), (1, "/imu"), "{:?}", topics.keys());
    assert!(!stay.is_empty() && mapped[0].1["fields"].as_object().expect("fields").len() > 5);
    let taken = machine.json(&["ingest", recording]);
    assert_eq!(taken["topics"]["/imu"]["messages"], mapped[0].1["messages"]);
    assert_eq!(machine.json(&["dataset", "ls"])[0]["packages"], mapped[0].1["messages"]);
}

#[test]
fn a_store_is_checked_backed_up_and_restored_into_a_new_incarnation() {
    let machine = Home::machine();
    fs::write(machine.path("imu.ndjson"), lines(20)).expect("written");
    machine.ends(0, &["ingest", "imu.ndjson", "--stream", "/imu"]);
    assert_eq!(machine.json(&["store", "check"])["clean"], true);
    assert_eq!(machine.json(&["store", "stats"])["chunks"], 1);
    assert_eq!(machine.json(&["store", "gc", "--dry-run"])["expired_chunks"], 0);
    machine.json(&["store", "gc"]);
    assert!(machine.json(&["store", "backup", "backup"])["bytes"].as_u64() > Some(0));
    machine.fails(1, &["store", "backup", "backup"]);
    // More is published after the backup: the restored store must not go on as if it had not been.
    machine.start().stop();
    machine.ends(0, &["ingest", "imu.ndjson", "--stream", "/imu"]);
    machine.start().stop();
    let full = machine.fails(1, &["store", "restore", "backup"]);
    assert!(full["hint"].as_str().expect("a hint").starts_with("move it away"), "{full}");
    fs::rename(machine.path("home/store"), machine.path("old")).expect("moved");
    let restored = machine.json(&["store", "restore", "backup"]);
    assert_eq!(restored["stats"]["chunks"], 1);
    let refused = machine.fails(1, &["ingest", "imu.ndjson", "--stream", "/imu"]);
    assert!(refused["hint"].as_str().expect("a hint").contains("key bind --incarnation"), "{refused}");
    assert_eq!(machine.json(&["key", "bind", "--incarnation"])["incarnation"], 1);
    machine.ends(0, &["ingest", "imu.ndjson", "--stream", "/imu"]);
    assert_eq!(machine.json(&["feed", "show"])["incarnation"], 1);
}

#[test]
fn feed_keys_are_rotated_with_the_owners_key_only() {
    let machine = Home::machine();
    fs::write(machine.path("imu.ndjson"), lines(5)).expect("written");
    machine.fails(1, &["key", "bind"]);
    machine.ends(0, &["ingest", "imu.ndjson", "--stream", "/imu"]);
    let before = machine.json(&["key", "show"])["feed_key"].clone();
    let rotated = machine.json(&["key", "rotate"]);
    assert_eq!((&rotated["serial"], &rotated["incarnation"]), (&1.into(), &0.into()));
    let after = machine.json(&["key", "show"])["feed_key"].clone();
    assert!(after != before && after == rotated["feed_key"]);
    machine.ends(0, &["ingest", "imu.ndjson", "--stream", "/imu"]);
    // The owner's key is elsewhere.
    fs::rename(machine.path("home/keys/owner.key"), machine.path("owner.key")).expect("moved");
    machine.fails(5, &["key", "rotate"]);
    let other = Home::machine();
    let wrong = machine.fails(1, &["key", "rotate", "--owner-key", &other.text("home/keys/owner.key")]);
    assert!(wrong["what"].as_str().expect("text").contains("not the key of this machine's owner"), "{wrong}");
    assert_eq!(machine.json(&["key", "rotate", "--owner-key", &machine.text("owner.key")])["serial"], 2);
}

#[test]
fn chunks_beyond_the_retention_of_their_stream_are_dropped_and_their_entries_stay() {
    let config = "roles: [machine]\nnetwork: { listen: [/ip4/127.0.0.1/tcp/0] }\nstore: { ballast: none }\nstreams:\n  - { topic: files, mode: file, retention: { bytes: 1MiB } }\n";
    let machine = Home::new(config);
    fs::write(machine.path("file.bin"), noise(1_500_000)).expect("written");
    machine.ends(0, &["publish", "file.bin", "--stream", "files"]);
    let before = machine.json(&["store", "stats"]);
    let dry = machine.json(&["store", "gc", "--dry-run"]);
    assert_eq!(machine.json(&["store", "stats"])["chunks"], before["chunks"]);
    let done = machine.json(&["store", "gc"]);
    assert_eq!((&done["expired_chunks"], &dry["expired_chunks"]), (&2.into(), &2.into()));
    let dataset = machine.dataset("files");
    let detail = machine.json(&["dataset", "show", &dataset]);
    assert_eq!((&detail["chunks"], &detail["held_chunks"]), (&6.into(), &4.into()));
    assert_eq!(machine.json(&["store", "stats"])["entries"], before["entries"]);
}

#[test]
fn completions_and_manual_pages_know_every_command() {
    const COMMANDS: [&str; 21] = [
        "init",
        "run",
        "status",
        "peers",
        "ingest",
        "publish",
        "rules",
        "feed",
        "subscribe",
        "dataset",
        "access",
        "grant",
        "pull",
        "verify",
        "export",
        "store",
        "key",
        "config",
        "completions",
        "man",
        "help",
    ];
    for shell in ["bash", "zsh", "fish"] {
        let script = tributary().args(["completions", shell]).output().expect("runs");
        for command in COMMANDS {
            assert!(out(&script).contains(command), "{shell}: {command}");
        }
    }
    let folder = tempfile::tempdir().expect("a folder");
    let made = tributary().args(["man", "--out"]).arg(folder.path()).output().expect("runs");
    assert!(made.status.success());
    let mut pages: Vec<String> =
        COMMANDS.iter().filter(|name| **name != "help").map(|name| format!("tributary-{name}.1")).collect();
    let nested = [
        "rules-test",
        "feed-ls",
        "feed-show",
        "feed-follow",
        "dataset-ls",
        "dataset-show",
        "dataset-close",
        "access-quote",
        "access-request",
        "access-fetch",
        "access-ls",
        "access-approve",
        "access-deny",
        "access-revoke",
        "access-import",
        "store-check",
        "store-gc",
        "store-backup",
        "store-restore",
        "store-stats",
        "key-show",
        "key-rotate",
        "key-bind",
        "config-check",
    ];
    pages.extend(nested.iter().map(|name| format!("tributary-{name}.1")));
    for page in pages {
        assert!(folder.path().join(&page).exists(), "{page}");
    }
}

#[test]
fn wrong_flags_are_usage_errors() {
    for args in [
        &["pull", "--last", "10m"][..],
        &["pull", "--stream", "x", "--last", "soon"],
        &["pull", "--stream", "x", "--last", "1m", "--from", "2026-01-01T00:00:00Z"],
        &["access", "request", "--stream", "x", "--from", "yesterday"],
        &["access", "revoke", "somebody"],
        &["export", "--stream", "x", "--format", "pdf", "--out", "x"],
        &["grant", "--buyer", "me", "--key", "00", "--out", "x"],
    ] {
        let refused = tributary().args(args).output().expect("runs");
        assert_eq!(refused.status.code(), Some(2), "{args:?}: {}", err(&refused));
    }
}
