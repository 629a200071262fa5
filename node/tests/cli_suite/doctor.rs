//! `tributary doctor`, with a node and without.

use std::{fs, net::TcpListener, os::unix::fs::PermissionsExt as _};

use serde_json::Value;

use crate::support::{BUYER, Home, err, out};

/// The checks of this name in a report.
fn named<'a>(report: &'a Value, name: &str) -> Vec<&'a Value> {
    report["checks"].as_array().expect("a list").iter().filter(|check| check["name"] == name).collect()
}

/// Runs `doctor`, which must end with `code`, and returns its report.
fn report(home: &Home, code: i32) -> Value {
    let output = home.ends(code, &["doctor", "--json"]);
    serde_json::from_slice(&output.stdout).unwrap_or_else(|error| panic!("{error}: {}", out(&output)))
}

/// A configuration of a buyer that wants a peer at a port of loopback.
fn wants(port: u16) -> String {
    let peer = "12D3KooWK99VoVxNE7XzyBwXEzW7xhK7Gpv85r9F3V3fyKSUKPH5";
    BUYER.replace("tcp/0]", &format!("tcp/0], peers: [/ip4/127.0.0.1/tcp/{port}/p2p/{peer}]"))
}

#[test]
fn a_new_home_is_sound_but_for_the_owners_key() {
    let machine = Home::machine();
    let found = report(&machine, 0);
    assert_eq!((&found["running"], &found["verdict"]), (&false.into(), &"warning".into()), "{found}");
    for name in ["home", "configuration", "keys", "clock", "port"] {
        assert!(named(&found, name).iter().all(|check| check["state"] == "ok"), "{name}: {found}");
    }
    let owner = named(&found, "owner key")[0];
    assert_eq!(owner["state"], "warning");
    fs::remove_file(machine.path("home/keys/owner.key")).expect("removed");
    assert_eq!(named(&report(&machine, 0), "owner key")[0]["state"], "ok");
    assert!(out(&machine.ends(0, &["doctor"])).contains("not on this machine"));
}

#[test]
fn what_others_can_read_or_nobody_can_use_is_a_failure() {
    let machine = Home::machine();
    let key = machine.path("home/keys/feed.key");
    fs::set_permissions(&key, fs::Permissions::from_mode(0o644)).expect("changed");
    let found = report(&machine, 1);
    let keys = named(&found, "keys")[0];
    assert_eq!(keys["state"], "failed");
    assert!(keys["hint"].as_str().expect("a hint").contains("chmod 600"), "{keys}");
    fs::set_permissions(&key, fs::Permissions::from_mode(0o600)).expect("changed");

    fs::set_permissions(machine.path("home"), fs::Permissions::from_mode(0o755)).expect("changed");
    assert_eq!(named(&report(&machine, 1), "home")[0]["state"], "failed");
    fs::set_permissions(machine.path("home"), fs::Permissions::from_mode(0o700)).expect("changed");

    fs::write(machine.path("home/config.yaml"), "roles: [robot]").expect("written");
    let wrong = report(&machine, 1);
    assert!(named(&wrong, "configuration")[0]["message"].as_str().expect("text").contains("roles[0]"), "{wrong}");
    fs::remove_dir_all(machine.path("home/keys")).expect("removed");
    machine.fails(5, &["doctor"]);
}

#[test]
fn without_a_node_the_peers_of_the_configuration_are_tried() {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let port = listener.local_addr().expect("bound").port();
    let buyer = Home::new(&wants(port));
    assert_eq!(named(&report(&buyer, 0), "peer")[0]["state"], "ok");
    // Nobody listens on port 1.
    let output = Home::new(&wants(1)).ends(6, &["doctor"]);
    assert!(
        out(&output).contains("takes no connection") && err(&output).contains("1 check failed"),
        "{}",
        out(&output)
    );
}

#[test]
fn a_running_node_says_how_its_peers_are_connected() {
    let (machine, buyer) = (Home::machine(), Home::buyer());
    let (selling, _buying) = (machine.start(), buyer.start());
    buyer.json(&["subscribe", selling.link()]);
    let found = report(&buyer, 0);
    assert_eq!(found["running"], true);
    let peer = &found["peers"][0];
    assert_eq!((&peer["peer"], &peer["path"]), (&selling.ready["peer_id"], &"direct over tcp".into()), "{found}");
    assert!(out(&machine.ends(0, &["doctor"])).contains("direct over tcp"));
    assert!(out(&buyer.ends(0, &["peers"])).contains("direct over tcp"));
    assert!(out(&buyer.ends(0, &["status"])).contains("reached"));

    // A peer that the configuration wants, and that is not there.
    let lonely = Home::new(&wants(1));
    let _alone = lonely.start();
    let found = report(&lonely, 6);
    assert_eq!(
        (&named(&found, "peer")[0]["state"], &named(&found, "peer")[0]["area"]),
        (&"failed".into(), &"network".into())
    );
}
