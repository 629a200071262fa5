//! What the operator of a machine is told, and what is written down.

use std::{
    fs,
    process::Command,
    time::{Duration, Instant},
};

use crate::support::{Home, MACHINE, lines, out};

/// A machine whose manual stream runs `hook`, with data.
fn machine(hook: impl FnOnce(&Home) -> String) -> Home {
    let machine = Home::machine();
    let hook = format!("policy: manual, hook: {}", hook(&machine));
    fs::write(machine.path("home/config.yaml"), MACHINE.replace("policy: manual", &hook)).expect("written");
    fs::write(machine.path("gps.ndjson"), lines(5)).expect("written");
    machine.ends(0, &["ingest", "gps.ndjson", "--stream", "/gps"]);
    machine
}

#[test]
fn a_hook_tells_of_a_request_and_can_act_on_it() {
    // Nobody has to wait for it: reading the pipe ends when the program has written everything.
    let machine = machine(|home| format!("[/usr/bin/tee, {}]", home.text("told")));
    assert!(Command::new("mkfifo").arg(machine.path("told")).status().expect("runs").success());
    let buyer = Home::buyer();
    let (selling, buying) = (machine.start(), buyer.start());
    buyer.ends(0, &["subscribe", selling.link()]);
    buyer.ends(4, &["access", "request", "--stream", "/gps", "--wait", "0s"]);
    let told = fs::read_to_string(machine.path("told")).expect("written");
    let told: serde_json::Value = serde_json::from_str(&told).expect("JSON");
    assert_eq!((&told["buyer"], &told["machine"]), (&buying.ready["did"], &selling.ready["did"]), "{told}");
    assert_eq!((&told["stream_names"][0], &told["ranges"][0]["kind"]), (&"/gps".into(), &"time".into()), "{told}");
    let id = told["id"].as_str().expect("text").to_owned();
    assert_eq!(machine.json(&["access", "approve", &id])["state"], "granted");
    assert_eq!(buyer.json(&["access", "fetch", &id])["outcome"], "granted");
}

#[test]
fn a_hook_that_fails_is_counted_and_the_request_waits_all_the_same() {
    let machine = machine(|_| "[/nothing/here]".to_owned());
    let buyer = Home::buyer();
    let (selling, _buying) = (machine.start(), buyer.start());
    assert_eq!(machine.json(&["status"])["hooks"]["failed"], 0);
    buyer.ends(0, &["subscribe", selling.link()]);
    buyer.ends(4, &["access", "request", "--stream", "/gps", "--wait", "0s"]);
    assert_eq!(machine.json(&["access", "ls", "--pending"])["received"].as_array().map(Vec::len), Some(1));
    let deadline = Instant::now() + Duration::from_secs(60);
    let status = loop {
        let status = machine.json(&["status"]);
        if status["hooks"]["failed"] == 1 {
            break status;
        }
        assert!(Instant::now() < deadline, "the failure was not counted: {status}");
    };
    let codes: Vec<_> = status["warnings"].as_array().expect("a list").iter().map(|warning| &warning["code"]).collect();
    assert!(codes.contains(&&"hook_failed".into()), "{codes:?}");
}

#[test]
fn what_is_granted_by_hand_is_in_the_audit_log_and_survives_a_kill() {
    let (machine, buyer) = (Home::machine(), Home::buyer());
    fs::write(machine.path("imu.ndjson"), lines(5)).expect("written");
    machine.ends(0, &["ingest", "imu.ndjson", "--stream", "/imu"]);
    let keys = buyer.json(&["key", "show"]);
    let (did, key) = (keys["did"].as_str().expect("text"), keys["encryption_key"].as_str().expect("text"));
    let grant = |name: &str| {
        let args = ["grant", "--buyer", did, "--key", key, "--stream", "/imu", "--out", name];
        assert_eq!(machine.json(&args)["grants"], 1);
    };
    // Without a node, and with one that is killed right after.
    grant("first.grant");
    let selling = machine.start();
    assert_eq!(machine.json(&["access", "ls"])["given"].as_array().map(Vec::len), Some(1));
    grant("second.grant");
    machine.fails(5, &["grant", "--buyer", did, "--key", key, "--stream", "/gps", "--out", "none.grant"]);
    selling.signal("-KILL");
    assert_eq!(selling.wait().0, None);
    let audit = machine.json(&["access", "audit"]);
    let audit = audit.as_array().expect("a list");
    assert_eq!(audit.len(), 2, "{audit:?}");
    for (number, line) in audit.iter().enumerate() {
        assert_eq!((&line["number"], &line["event"], &line["buyer"]), (&number.into(), &"granted".into(), &did.into()));
        assert_eq!(line["detail"], "operator, by hand");
    }
    assert!(out(&machine.ends(0, &["access", "audit", "--from", "1"])).contains("by hand"));
    let _selling = machine.start();
    let given = machine.json(&["access", "ls"])["given"].clone();
    let ids: Vec<_> = given.as_array().expect("a list").iter().map(|given| &given["id"]).collect();
    assert!(ids.len() == 2 && audit.iter().all(|line| ids.contains(&&line["request"])), "{given}");
    assert!(out(&machine.ends(0, &["access", "ls"])).contains("Given by hand"));
}
