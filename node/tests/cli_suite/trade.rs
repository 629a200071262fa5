//! A machine and a buyer: following, access, pulling, proving, files.

use std::fs;

use crate::support::{Home, damage, err, lines, noise, out};

/// A machine with 50 messages in a closed dataset of /imu.
fn machine_with_data() -> Home {
    let machine = Home::machine();
    fs::write(machine.path("imu.ndjson"), lines(50)).expect("written");
    machine.ends(0, &["ingest", "imu.ndjson", "--stream", "/imu"]);
    machine
}

#[test]
fn a_buyer_follows_asks_pulls_proves_and_exports() {
    let (machine, buyer) = (machine_with_data(), Home::buyer());
    let (selling, buying) = (machine.start(), buyer.start());
    let followed = buyer.json(&["subscribe", selling.link()]);
    assert_eq!(followed["machine"], selling.ready["did"]);
    let feed = buyer.json(&["feed", "show"]);
    let names: Vec<_> = feed["streams"].as_array().expect("a list").iter().map(|s| s["name"].clone()).collect();
    assert_eq!(names, ["/imu", "/gps", "files"]);
    let dataset = buyer.dataset("/imu");
    assert_eq!(dataset, machine.dataset("/imu"));
    // Not granted yet.
    let refused = buyer.fails(4, &["pull", "--dataset", &dataset]);
    assert!(refused["hint"].as_str().expect("a hint").contains("access request"), "{refused}");
    assert_eq!(buyer.json(&["access", "quote", "--dataset", &dataset])["amount"], "0");
    let granted = buyer.json(&["access", "request", "--dataset", &dataset]);
    assert_eq!((&granted["outcome"], granted["grants"].as_array().map(Vec::len)), (&"granted".into(), Some(1)));
    let pulled = buyer.json(&["pull", "--dataset", &dataset[..8]]);
    assert_eq!(pulled["chunks"].as_u64().zip(pulled["skipped"].as_u64()).map(|(a, b)| a + b), Some(1), "{pulled}");
    let detail = buyer.json(&["dataset", "show", &dataset[..8]]);
    assert_eq!((&detail["held_chunks"], &detail["chunks"], &detail["packages"]), (&1.into(), &1.into(), &50.into()));
    let proof = buyer.json(&["verify", &dataset]);
    assert_eq!((&proof["verdict"], &proof["packages_verified"]), (&"proven".into(), &50.into()), "{proof}");
    assert!(out(&buyer.ends(0, &["verify", &dataset])).contains("PROVEN"));
    let exported = buyer.json(&["export", "--dataset", &dataset, "--format", "ndjson,mcap", "--out", "files"]);
    let files = exported["files"].as_array().expect("a list").clone();
    assert_eq!(files.len(), 2);
    let ndjson = files.iter().find(|file| file["format"] == "ndjson").expect("written")["path"].as_str().expect("text");
    let text = fs::read_to_string(ndjson).expect("there");
    assert_eq!(text.lines().count(), 50);
    assert!(!text.contains("do not tell") && text.contains(r#""i":49"#));
    // How the nodes stand.
    let status = buyer.json(&["status"]);
    assert_eq!(status["followed"][0]["did"], selling.ready["did"]);
    assert_eq!(buyer.json(&["peers"])[0]["peer"], selling.ready["peer_id"]);
    assert!(out(&machine.ends(0, &["status"])).contains("feed link"));
    let listed = machine.json(&["access", "ls"]);
    assert_eq!(
        (&listed["received"][0]["state"], &listed["received"][0]["buyer"]),
        (&"granted".into(), &buying.ready["did"])
    );
    selling.stop();
    buying.stop();
    // Without a node, on what is here.
    assert_eq!(buyer.json(&["verify", &dataset])["verdict"], "proven");
    let again = buyer.json(&["export", "--stream", "/imu", "--format", "ndjson", "--out", "again"]);
    assert_eq!(again["packages"], 50);
    assert_eq!(buyer.json(&["feed", "ls"])[0]["own"], false);
}

#[test]
fn the_operator_approves_and_denies() {
    let (machine, buyer) = (Home::machine(), Home::buyer());
    fs::write(machine.path("gps.ndjson"), lines(5)).expect("written");
    machine.ends(0, &["ingest", "gps.ndjson", "--stream", "/gps"]);
    let (selling, _buying) = (machine.start(), buyer.start());
    buyer.ends(0, &["subscribe", selling.link()]);
    let ask = ["access", "request", "--stream", "/gps", "--wait", "0s"];
    let waits = buyer.fails(4, &ask);
    assert!(waits["hint"].as_str().expect("a hint").contains("access fetch"), "{waits}");
    let id = machine.json(&["access", "ls", "--pending"])["received"][0]["id"].as_str().expect("text").to_owned();
    assert_eq!(buyer.json(&["access", "ls"])["open"][0]["request"], id.as_str());
    assert_eq!(machine.json(&["access", "approve", &id[..8]])["state"], "granted");
    assert_eq!(buyer.json(&["access", "fetch", &id])["outcome"], "granted");
    buyer.ends(0, &["pull", "--stream", "/gps"]);
    // The second one is refused, and says why.
    buyer.ends(4, &ask);
    let id = machine.json(&["access", "ls", "--pending"])["received"][0]["id"].as_str().expect("text").to_owned();
    assert_eq!(machine.json(&["access", "deny", &id, "--reason", "not for sale"])["state"], "denied");
    let denied = buyer.fails(4, &["access", "fetch", &id]);
    assert!(denied["what"].as_str().expect("text").contains("not for sale"), "{denied}");
    // What is not there.
    machine.fails(5, &["access", "approve", &"ab".repeat(32)]);
    machine.fails(5, &["access", "approve", "abcdef"]);
    buyer.fails(5, &["access", "fetch", "abcdef"]);
    // Nothing more for this buyer.
    let revoked = machine.json(&["access", "revoke", &buyer.did(), "--stream", "/imu", "--now"]);
    assert_eq!(revoked[0]["stream"], "/imu");
    machine.fails(5, &["access", "revoke", &buyer.did(), "--stream", "/nothing"]);
}

#[test]
fn keys_can_be_given_by_hand_as_a_file_that_only_their_buyer_opens() {
    let (machine, buyer, other) = (machine_with_data(), Home::buyer(), Home::buyer());
    let keys = buyer.json(&["key", "show"]);
    let (did, key) = (keys["did"].as_str().expect("text"), keys["encryption_key"].as_str().expect("text"));
    // Without a node.
    let written = machine.json(&["grant", "--buyer", did, "--key", key, "--stream", "/imu", "--out", "keys.grant"]);
    assert_eq!(written["grants"], 1);
    let file = machine.text("keys.grant");
    let (selling, buying, _third) = (machine.start(), buyer.start(), other.start());
    // Only bindings prove a grant, and they come by following.
    buyer.fails(5, &["access", "import", &file]);
    buyer.ends(0, &["subscribe", selling.link()]);
    other.ends(0, &["subscribe", selling.link()]);
    let refused = other.fails(3, &["access", "import", &file]);
    assert!(refused["cause"].as_str().expect("a cause").contains("not for"), "{refused}");
    assert_eq!(buyer.json(&["access", "import", &file])["grants"], 1);
    let dataset = buyer.dataset("/imu");
    buyer.ends(0, &["pull", "--dataset", &dataset]);
    assert_eq!(buyer.json(&["verify", &dataset])["chunks_opened"], 1);
    buying.stop();
    // Without a node too, and again: nothing changes.
    assert_eq!(buyer.json(&["access", "import", &file])["grants"], 1);
    // With the machine's node running.
    machine.ends(0, &["grant", "--buyer", did, "--key", key, "--dataset", &dataset, "--out", "again.grant"]);
    machine.fails(5, &["grant", "--buyer", did, "--key", key, "--stream", "/gps", "--out", "none.grant"]);
    assert!(!machine.path("none.grant").exists());
    fs::write(machine.path("junk"), "{}").expect("written");
    buyer.fails(2, &["access", "import", &machine.text("junk")]);
    buyer.fails(5, &["access", "import", &machine.text("nothing")]);
}

#[test]
fn a_chunk_that_was_changed_on_the_way_is_refused() {
    let (machine, buyer) = (Home::machine(), Home::buyer());
    fs::write(machine.path("file.bin"), noise(200_000)).expect("written");
    let published = machine.json(&["publish", "file.bin", "--stream", "files"]);
    let dataset = published["dataset"].as_str().expect("text").to_owned();
    damage(&machine.path("home/store"));
    let (selling, _buying) = (machine.start(), buyer.start());
    buyer.ends(0, &["subscribe", selling.link()]);
    buyer.ends(0, &["access", "request", "--dataset", &dataset]);
    let refused = buyer.fails(3, &["pull", "--dataset", &dataset]);
    assert!(refused["what"].as_str().expect("text").contains("wrong bytes for chunk 0"), "{refused}");
    assert_eq!(buyer.json(&["dataset", "show", &dataset])["held_chunks"], 0);
    assert!(err(&buyer.ends(5, &["export", "--dataset", &dataset, "--out", "files"])).contains("not here"));
    assert!(!buyer.path("files").exists() || fs::read_dir(buyer.path("files")).expect("a folder").next().is_none());
}

#[test]
fn a_copy_that_was_damaged_here_is_broken_until_it_is_mended() {
    let (machine, buyer) = (Home::machine(), Home::buyer());
    let bytes = noise(200_000);
    fs::write(machine.path("file.bin"), &bytes).expect("written");
    machine.ends(0, &["publish", "file.bin", "--stream", "files"]);
    let (selling, buying) = (machine.start(), buyer.start());
    buyer.ends(0, &["subscribe", selling.link()]);
    let dataset = buyer.dataset("files");
    buyer.ends(0, &["access", "request", "--dataset", &dataset]);
    buyer.ends(0, &["pull", "--dataset", &dataset]);
    buying.stop();
    damage(&buyer.path("home/store"));
    let broken = buyer.ends(3, &["verify", &dataset]);
    assert!(out(&broken).contains("BROKEN"), "{}", out(&broken));
    buyer.ends(3, &["export", "--dataset", &dataset, "--out", "files"]);
    buyer.ends(3, &["store", "check"]);
    buyer.ends(0, &["store", "check", "--repair"]);
    let _buying = buyer.start();
    buyer.ends(0, &["pull", "--dataset", &dataset]);
    assert_eq!(buyer.json(&["verify", &dataset])["verdict"], "proven");
    let exported = buyer.json(&["export", "--dataset", &dataset, "--out", "files"]);
    let file = exported["files"][0]["path"].as_str().expect("text").to_owned();
    assert!(fs::read(file).expect("there") == bytes);
    buyer.fails(2, &["export", "--dataset", &dataset, "--format", "mcap", "--out", "files"]);
}

#[test]
fn what_cannot_be_reached_is_a_matter_of_the_network() {
    let (machine, buyer) = (machine_with_data(), Home::buyer());
    let (selling, _buying) = (machine.start(), buyer.start());
    let link = selling.link().to_owned();
    buyer.ends(0, &["subscribe", &link]);
    let dataset = buyer.dataset("/imu");
    selling.stop();
    let down = buyer.fails(6, &["access", "request", "--dataset", &dataset]);
    assert!(down["hint"].is_string() && !down["cause"].as_str().expect("a cause").contains('\n'), "{down}");
    let stranger = format!("tributary://did:peaq:0x{}?addr=/ip4/127.0.0.1/tcp/9", "12".repeat(20));
    buyer.fails(6, &["subscribe", &stranger]);
    buyer.fails(6, &["subscribe", &format!("tributary://did:peaq:0x{}", "12".repeat(20))]);
    buyer.fails(2, &["subscribe", "https://example.org"]);
    // The peer at the address is another machine.
    let other = Home::machine();
    let running = other.start();
    let address = running.link().split_once('?').expect("has an address").1.to_owned();
    let wrong = format!("tributary://did:peaq:0x{}?{address}", "12".repeat(20));
    let refused = buyer.run(&["subscribe", &wrong]);
    assert!(matches!(refused.status.code(), Some(3 | 5)), "{}", err(&refused));
}

#[test]
fn new_entries_are_printed_as_they_come_and_a_subscription_can_be_stopped() {
    use std::{
        io::{BufRead as _, BufReader},
        process::Stdio,
    };
    let (machine, buyer) = (Home::machine(), Home::buyer());
    let (selling, _buying) = (machine.start(), buyer.start());
    buyer.ends(0, &["subscribe", selling.link(), "--stream", "/imu"]);
    let mut follow =
        buyer.command(&["feed", "follow", "--json", "--count", "2"]).stdout(Stdio::piped()).spawn().expect("starts");
    let mut reader = BufReader::new(follow.stdout.take().expect("piped"));
    // The command may listen only after the first entries: go on until it has heard two changes.
    let printed = std::thread::scope(|scope| {
        let read = scope.spawn(move || {
            let mut printed = Vec::new();
            let mut line = String::new();
            while reader.read_line(&mut line).expect("read") > 0 {
                printed.push(serde_json::from_str::<serde_json::Value>(&line).expect("JSON"));
                line.clear();
            }
            printed
        });
        while !read.is_finished() {
            let taken = machine.with_input(&["ingest", "-", "--stream", "/imu", "--close"], &lines(3));
            assert!(taken.status.success(), "{}", err(&taken));
        }
        read.join().expect("reads")
    });
    assert!(follow.wait().expect("ends").success());
    assert_eq!(printed.len(), 2);
    assert!(printed.iter().all(|change| change["what"] == "entries" && change["machine"] == selling.ready["did"]));
    buyer.ends(0, &["subscribe", selling.link(), "--stop"]);
    buyer.fails(5, &["subscribe", selling.link(), "--stop"]);
}

#[test]
fn keys_for_what_is_to_come_open_it_when_it_is_there() {
    let (machine, buyer) = (machine_with_data(), Home::buyer());
    let (selling, _buying) = (machine.start(), buyer.start());
    buyer.ends(0, &["subscribe", selling.link()]);
    assert_eq!(buyer.json(&["access", "request", "--stream", "/imu", "--live", "1h"])["outcome"], "granted");
    let taken = machine.with_input(&["ingest", "-", "--stream", "/imu", "--close", "--json"], &lines(20));
    let taken: serde_json::Value = serde_json::from_slice(&taken.stdout).expect("JSON");
    let dataset = taken["closed"][0].as_str().expect("closed").to_owned();
    // What is announced comes by gossip, or by catching up when the subscription is renewed.
    buyer.ends(0, &["subscribe", selling.link()]);
    buyer.ends(0, &["pull", "--dataset", &dataset]);
    let proof = buyer.json(&["verify", &dataset]);
    assert_eq!((&proof["verdict"], &proof["packages_verified"]), (&"proven".into(), &20.into()), "{proof}");
    // Streams can be cut by time; what is yet to come cannot be pulled.
    buyer.ends(0, &["pull", "--stream", "/imu", "--last", "1h"]);
    buyer.fails(2, &["pull", "--stream", "/imu", "--live", "1h"]);
    buyer.fails(5, &["pull", "--stream", "/imu", "--to", "1990-01-01T00:00:00Z"]);
    buyer.fails(5, &["pull", "--stream", "/lidar"]);
}
