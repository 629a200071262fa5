//! A node as a process: how it starts and stops, and what may happen beside it.

use std::{
    fs,
    io::Write as _,
    os::unix::fs::{FileTypeExt as _, PermissionsExt as _},
    process::Stdio,
};

use crate::support::{Home, err, lines, noise, out};

#[test]
fn signals_end_a_node_in_order_and_what_it_took_in_is_complete() {
    let machine = Home::machine();
    for name in ["-TERM", "-INT"] {
        let node = machine.start();
        let taken = machine.with_input(&["ingest", "-", "--stream", "/imu"], &lines(10));
        assert!(taken.status.success(), "{}", err(&taken));
        node.signal(name);
        let (code, last) = node.wait();
        assert_eq!((code, last.trim()), (Some(0), r#"{"event":"stopped"}"#));
        assert!(!machine.socket().exists());
    }
    let list = machine.json(&["dataset", "ls"]);
    let packages: Vec<_> = list.as_array().expect("a list").iter().map(|d| (&d["closed"], &d["packages"])).collect();
    assert_eq!(packages, [(&true.into(), &10.into()), (&true.into(), &10.into())]);
}

#[test]
fn a_killed_node_leaves_nothing_that_stops_the_next_one() {
    let machine = Home::machine();
    let node = machine.start();
    let taken = machine.with_input(&["ingest", "-", "--stream", "/imu"], &lines(10));
    assert!(taken.status.success(), "{}", err(&taken));
    node.signal("-KILL");
    drop(node);
    assert!(machine.socket().exists());
    // The socket without a node is nobody: commands work on the home.
    assert_eq!(machine.json(&["dataset", "ls"]).as_array().map(Vec::len), Some(1));
    let node = machine.start();
    let list = machine.json(&["dataset", "ls"]);
    assert_eq!((&list[0]["closed"], &list[0]["packages"]), (&true.into(), &10.into()), "{list}");
    node.stop();
}

#[test]
fn a_home_has_one_node_and_nothing_goes_behind_its_back() {
    let machine = Home::machine();
    let node = machine.start();
    let metadata = fs::metadata(machine.socket()).expect("there");
    assert!(metadata.file_type().is_socket() && metadata.permissions().mode() & 0o777 == 0o600);
    let second = machine.fails(1, &["run"]);
    assert!(second["cause"].as_str().expect("a cause").contains("in use by another process"), "{second}");
    for args in [&["key", "rotate"][..], &["key", "bind"], &["store", "restore", "x"]] {
        let refused = machine.fails(1, args);
        assert!(refused["hint"].as_str().expect("a hint").contains("stop the node"), "{refused}");
    }
    // The same commands through the node.
    fs::write(machine.path("file.bin"), noise(100_000)).expect("written");
    machine.ends(0, &["publish", "file.bin", "--stream", "files"]);
    let taken = machine.with_input(&["ingest", "-", "--stream", "/imu", "--close"], &lines(10));
    assert!(out(&taken).contains("closed dataset"), "{}", out(&taken));
    machine.fails(5, &["publish", "nothing", "--stream", "files"]);
    machine.fails(5, &["ingest", "nothing.mcap"]);
    machine.fails(5, &["dataset", "show", "abcdef"]);
    machine.fails(2, &["dataset", "show", "../status"]);
    machine.fails(5, &["dataset", "close", "--stream", "/nothing"]);
    machine.ends(0, &["dataset", "close"]);
    machine.fails(2, &["pull", "--stream", "/imu", "--machine", &machine.did()]);
    assert_eq!(machine.json(&["store", "check"])["clean"], true);
    assert_eq!(machine.json(&["store", "stats"])["chunks"], 2);
    machine.json(&["store", "gc", "--dry-run"]);
    machine.json(&["store", "backup", "backup"]);
    assert_eq!(machine.json(&["status"])["streams"][0]["lane"]["received"], 10);
    node.stop();
}

#[test]
fn a_command_that_is_killed_ends_only_its_own_work() {
    let machine = Home::machine();
    let node = machine.start();
    let mut child = machine
        .command(&["ingest", "-", "--stream", "/imu"])
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .spawn()
        .expect("starts");
    let mut input = child.stdin.take().expect("piped");
    input.write_all(lines(25).as_bytes()).and_then(|()| input.flush()).expect("written");
    let received = || machine.json(&["status"])["streams"][0]["lane"]["received"].as_u64();
    while received() < Some(25) {}
    child.kill().expect("killed");
    child.wait().expect("ended");
    // The node goes on, and what was read is not lost.
    let taken = machine.with_input(&["ingest", "-", "--stream", "/imu"], &lines(5));
    assert!(taken.status.success(), "{}", err(&taken));
    node.stop();
    assert_eq!(machine.json(&["dataset", "ls"])[0]["packages"], 30);
}

#[test]
fn a_socket_path_that_is_too_long_is_explained_before_anything_runs() {
    let machine = Home::machine();
    let deep = machine.path(&"x".repeat(90));
    fs::rename(machine.path("home"), &deep).expect("moved");
    fs::write(deep.join("config.yaml"), crate::support::MACHINE).expect("written");
    let mut command = crate::support::tributary();
    let refused = command.args(["run", "--home"]).arg(&deep).stdin(Stdio::null()).output().expect("runs");
    assert_eq!(refused.status.code(), Some(1), "{}", err(&refused));
    assert!(err(&refused).contains("control.socket"), "{}", err(&refused));
}

#[test]
fn a_node_does_only_what_its_roles_say() {
    let (machine, buyer) = (Home::machine(), Home::buyer());
    let (selling, _buying) = (machine.start(), buyer.start());
    let refused = buyer.fails(2, &["ingest", "x.ndjson"]);
    assert!(refused["what"].is_string(), "{refused}");
    buyer.fails(2, &["dataset", "close"]);
    let refused = machine.fails(2, &["subscribe", selling.link()]);
    assert!(refused["hint"].as_str().expect("a hint").contains("`buyer`"), "{refused}");
}
