//! The owner's key on a computer of its own: bindings are proposed, signed and applied in three places.

use std::{
    fs,
    time::{Duration, Instant},
};

use crate::support::{Home, err, lines, out, tributary};

/// A machine that has published, and whose owner's key lies elsewhere.
fn machine() -> Home {
    let machine = Home::machine();
    fs::write(machine.path("imu.ndjson"), lines(20)).expect("written");
    machine.ends(0, &["ingest", "imu.ndjson", "--stream", "/imu"]);
    fs::create_dir(machine.path("owner")).expect("made");
    fs::rename(machine.path("home/keys/owner.key"), machine.path("owner/owner.key")).expect("moved");
    machine
}

/// Signs on a computer without any home.
fn sign(proposal: &str, key: &str) -> std::process::Output {
    let mut command = tributary();
    command.env_remove("HOME").args(["key", "sign", proposal, "--owner-key", key, "--json"]);
    command.stdin(std::process::Stdio::null()).output().expect("runs")
}

fn signed(proposal: &str, key: &str) -> String {
    let output = sign(proposal, key);
    assert!(output.status.success(), "{}", err(&output));
    format!("{proposal}.signed")
}

#[test]
fn the_owner_signs_elsewhere_and_the_key_never_comes_to_the_machine() {
    let (machine, other) = (machine(), machine());
    let (file, key) = (machine.text("p.json"), machine.text("owner/owner.key"));
    let before = machine.json(&["key", "show"])["feed_key"].clone();
    let proposed = machine.json(&["key", "rotate", "--prepare", &file]);
    assert_eq!((&proposed["change"], &proposed["serial"]), (&"rotate".into(), &1.into()));
    // What the old key signs from here on would count for nobody.
    let held = machine.fails(1, &["ingest", "imu.ndjson", "--stream", "/imu"]);
    assert!(held["what"].as_str().expect("text").contains("waits for the owner's signature"), "{held}");
    // Asked again, it is the same binding: the owner signs one of each serial.
    assert_eq!(machine.json(&["key", "rotate", "--prepare", &file])["binding"], proposed["binding"]);
    let waiting = machine.fails(1, &["key", "bind", "--prepare", &machine.text("q.json")]);
    assert!(waiting["hint"].as_str().expect("a hint").contains("key cancel"), "{waiting}");
    let unsigned = machine.fails(1, &["key", "apply", &file]);
    assert!(unsigned["what"].as_str().expect("text").contains("not signed"), "{unsigned}");

    let shown = tributary().args(["key", "sign", &file, "--show"]).output().expect("runs");
    assert!(out(&shown).contains("feed key: NEW") && out(&shown).contains(&machine.did()), "{}", out(&shown));
    let wrong = sign(&file, &other.text("owner/owner.key"));
    assert_eq!(wrong.status.code(), Some(1), "{}", err(&wrong));
    assert!(err(&wrong).contains("not the key of this machine's owner"), "{}", err(&wrong));
    assert!(!machine.path("p.json.signed").exists());
    let ready = signed(&file, &key);

    // Changed on the way, somebody else's, or signed by somebody else.
    let text = fs::read_to_string(&ready).expect("there");
    fs::write(machine.path("words.json"), text.replace("feed key: NEW", "feed key: new")).expect("written");
    machine.fails(3, &["key", "apply", &machine.text("words.json")]);
    let document: serde_json::Value = serde_json::from_str(&text).expect("JSON");
    let bytes = document["binding"].as_str().expect("hex").to_owned();
    for at in [80, bytes.len() - 40] {
        let digit = if &bytes[at..=at] == "0" { "1" } else { "0" };
        let changed = text.replace(&bytes, &format!("{}{digit}{}", &bytes[..at], &bytes[at + 1..]));
        fs::write(machine.path("bytes.json"), changed).expect("written");
        machine.fails(3, &["key", "apply", &machine.text("bytes.json")]);
    }
    let elsewhere = other.fails(1, &["key", "apply", &ready]);
    assert!(elsewhere["what"].as_str().expect("text").contains("the proposal is of"), "{elsewhere}");
    machine.fails(2, &["key", "apply", &machine.text("imu.ndjson")]);
    machine.fails(5, &["key", "apply", &machine.text("nothing")]);

    let applied = machine.json(&["key", "apply", &ready]);
    assert_eq!((&applied["serial"], &applied["change"]), (&1.into(), &"rotate".into()));
    let after = machine.json(&["key", "show"])["feed_key"].clone();
    assert!(after != before && after == applied["feed_key"]);
    let twice = machine.fails(1, &["key", "apply", &ready]);
    assert!(twice["what"].as_str().expect("text").contains("applied already"), "{twice}");
    machine.ends(0, &["ingest", "imu.ndjson", "--stream", "/imu"]);
    assert!(!machine.path("home/keys/owner.key").exists() && !machine.path("home/proposal.json").exists());
}

#[test]
fn a_proposal_that_is_out_of_date_has_to_be_prepared_again() {
    let machine = machine();
    let (file, key) = (machine.text("p.json"), machine.text("owner/owner.key"));
    // The logs went on behind an incarnation that was given up.
    machine.json(&["key", "bind", "--incarnation", "--prepare", &file]);
    let ready = signed(&file, &key);
    assert_eq!(machine.json(&["key", "cancel"])["change"], "incarnation");
    machine.fails(5, &["key", "cancel"]);
    machine.ends(0, &["ingest", "imu.ndjson", "--stream", "/imu"]);
    let moved = machine.fails(1, &["key", "apply", &ready]);
    assert!(moved["hint"].as_str().expect("a hint").contains("prepare again"), "{moved}");
    // A feed key that was given up.
    machine.json(&["key", "rotate", "--prepare", &file]);
    fs::copy(&key, machine.path("copy.key")).expect("copied");
    let ready = signed(&file, &machine.text("copy.key"));
    machine.json(&["key", "cancel"]);
    let gone = machine.fails(1, &["key", "apply", &ready]);
    assert!(gone["what"].as_str().expect("text").contains("another feed key"), "{gone}");
    // Another binding took its place.
    machine.json(&["key", "bind", "--prepare", &file]);
    fs::copy(&key, machine.path("third.key")).expect("copied");
    let ready = signed(&file, &machine.text("third.key"));
    machine.json(&["key", "cancel"]);
    fs::copy(&key, machine.path("fourth.key")).expect("copied");
    machine.json(&["key", "rotate", "--owner-key", &machine.text("fourth.key")]);
    let moved = machine.fails(1, &["key", "apply", &ready]);
    assert!(moved["what"].as_str().expect("text").contains("binding 1 is in force"), "{moved}");
    assert!(moved["hint"].as_str().expect("a hint").contains("prepare again"), "{moved}");
}

#[test]
fn an_owner_signs_for_one_of_two_copies_only() {
    let machine = machine();
    let key = machine.text("owner/owner.key");
    let (first, second) = (machine.text("first.json"), machine.text("second.json"));
    let copy = Home::machine();
    fs::remove_dir_all(copy.path("home")).expect("removed");
    let copied = std::process::Command::new("cp").arg("-a").arg(machine.path("home")).arg(copy.path("home")).status();
    assert!(copied.expect("runs").success());
    machine.json(&["key", "bind", "--incarnation", "--prepare", &first]);
    copy.json(&["key", "bind", "--incarnation", "--prepare", &second]);
    let ready = signed(&first, &key);
    let before = fs::read(&ready).expect("there");
    let refused = sign(&second, &key);
    assert_eq!(refused.status.code(), Some(1), "{}", err(&refused));
    let said = err(&refused);
    assert!(said.contains("has signed another binding 1") && said.contains("owner.key.signed"), "{said}");
    assert!(!machine.path("second.json.signed").exists());
    // Nor in one step, with the key brought to the copy.
    let refused = copy.fails(1, &["key", "bind", "--incarnation", "--owner-key", &key]);
    assert!(refused["what"].as_str().expect("text").contains("has signed another binding 1"), "{refused}");
    // The first one again is the same one.
    assert_eq!(fs::read(signed(&first, &key)).expect("there"), before);
    assert_eq!(machine.json(&["key", "apply", &ready])["incarnation"], 1);
    machine.ends(0, &["ingest", "imu.ndjson", "--stream", "/imu"]);
}

#[test]
fn a_binding_is_renewed_while_the_node_runs_and_followers_go_on() {
    let (machine, buyer) = (machine(), Home::buyer());
    fs::write(machine.path("gps.ndjson"), lines(5)).expect("written");
    machine.ends(0, &["ingest", "gps.ndjson", "--stream", "/gps"]);
    let (selling, _buying) = (machine.start(), buyer.start());
    buyer.ends(0, &["subscribe", selling.link()]);
    // Granted under the binding before, fetched under the one after.
    buyer.ends(4, &["access", "request", "--stream", "/gps", "--wait", "0s"]);
    let id = machine.json(&["access", "ls", "--pending"])["received"][0]["id"].as_str().expect("text").to_owned();
    machine.json(&["access", "approve", &id]);

    let file = machine.text("p.json");
    assert_eq!(machine.json(&["key", "bind", "--prepare", &file])["change"], "renew");
    machine.fails(1, &["key", "rotate", "--prepare", &machine.text("q.json")]);
    // The logs go on meanwhile: the key stays the same.
    let taken = machine.with_input(&["ingest", "-", "--stream", "/imu", "--close"], &lines(20));
    assert!(taken.status.success(), "{}", err(&taken));
    let ready = signed(&file, &machine.text("owner/owner.key"));
    assert_eq!(machine.json(&["key", "apply", &ready])["serial"], 1);
    machine.fails(1, &["key", "apply", &ready]);
    let taken = machine.with_input(&["ingest", "-", "--stream", "/imu", "--close"], &lines(20));
    assert!(taken.status.success(), "{}", err(&taken));

    buyer.ends(0, &["subscribe", selling.link()]);
    let followed = buyer.json(&["status"])["followed"][0].clone();
    assert_eq!((&followed["binding_serial"], &followed["equivocations"]), (&1.into(), &0.into()), "{followed}");
    assert_eq!(buyer.json(&["access", "fetch", &id])["outcome"], "granted");
    buyer.ends(0, &["pull", "--stream", "/gps"]);
    buyer.ends(0, &["access", "request", "--stream", "/imu"]);
    buyer.ends(0, &["pull", "--stream", "/imu"]);
    let datasets = buyer.json(&["dataset", "ls", "--stream", "/imu"]);
    let datasets = datasets.as_array().expect("a list");
    assert_eq!(datasets.len(), 3);
    for dataset in datasets {
        let id = dataset["dataset"].as_str().expect("text");
        assert_eq!(buyer.json(&["verify", id])["verdict"], "proven", "{dataset}");
    }
    selling.stop();
    machine.start().stop();
}

#[test]
fn a_machine_that_forgets_sends_buyers_of_old_data_to_its_owner() {
    let (machine, buyer) = (machine(), Home::buyer());
    let config = fs::read_to_string(machine.path("home/config.yaml")).expect("there");
    fs::write(machine.path("home/config.yaml"), format!("forget_epochs: true\n{config}")).expect("written");
    let dataset = machine.dataset("/imu");
    let (selling, _buying) = (machine.start(), buyer.start());
    buyer.ends(0, &["subscribe", selling.link()]);
    // A new epoch begins: what was is over.
    let nobody = format!("did:peaq:0x{}", "12".repeat(20));
    machine.json(&["access", "revoke", &nobody, "--stream", "/imu", "--now"]);
    let taken = machine.with_input(&["ingest", "-", "--stream", "/imu", "--close"], &lines(20));
    assert!(taken.status.success(), "{}", err(&taken));
    let refused = buyer.fails(4, &["access", "request", "--dataset", &dataset]);
    assert!(refused.to_string().contains("ask its owner"), "{refused}");
    let audit = machine.json(&["access", "audit"]);
    let last = audit.as_array().and_then(|lines| lines.last()).expect("a line").clone();
    assert!(last["event"] == "denied" && last["detail"].to_string().contains("ask its owner"), "{last}");
    let keys = buyer.json(&["key", "show"]);
    let (did, key) = (keys["did"].as_str().expect("text"), keys["encryption_key"].as_str().expect("text"));
    let grant = ["grant", "--buyer", did, "--key", key, "--dataset", &dataset, "--out", "one.grant"];
    let refused = machine.fails(1, &grant);
    assert!(refused["hint"].as_str().expect("a hint").contains("--owner-key"), "{refused}");
    // What is new can be had as ever.
    buyer.ends(0, &["subscribe", selling.link()]);
    buyer.ends(0, &["access", "request", "--stream", "/imu", "--live", "1h"]);
    // The owner grants it, here with the machine still there to pull from.
    buyer.ends(0, &[&grant[..], &["--owner-key", &machine.text("owner/owner.key")]].concat());
    buyer.json(&["access", "import", &buyer.text("one.grant")]);
    buyer.ends(0, &["pull", "--dataset", &dataset]);
    let proof = buyer.json(&["verify", &dataset]);
    assert_eq!((&proof["verdict"], &proof["packages_verified"]), (&"proven".into(), &20.into()), "{proof}");
}

/// Publishes until a follower has all chunks of one dataset, which small ones come to it with their announcement. Returns it.
fn published_to(machine: &Home, follower: &Home, link: &str) -> String {
    let deadline = Instant::now() + Duration::from_secs(60);
    loop {
        let taken = machine.with_input(&["ingest", "-", "--stream", "/gps", "--close", "--json"], &lines(7));
        let taken: serde_json::Value = serde_json::from_slice(&taken.stdout).expect("JSON");
        let dataset = taken["closed"][0].as_str().expect("closed").to_owned();
        follower.ends(0, &["subscribe", link]);
        let detail = follower.json(&["dataset", "show", &dataset]);
        if detail["held_chunks"] == detail["chunks"] && detail["closed"] == true {
            return dataset;
        }
        assert!(Instant::now() < deadline, "no chunk came with its announcement: {detail}");
    }
}

#[test]
fn the_owner_grants_from_a_copy_of_the_feed_when_the_machine_is_gone() {
    let (machine, other) = (machine(), machine());
    let (owner, buyer, stranger) = (Home::buyer(), Home::buyer(), Home::buyer());
    let selling = machine.start();
    let (_watching, buying, _third) = (owner.start(), buyer.start(), stranger.start());
    for home in [&owner, &buyer, &stranger] {
        home.ends(0, &["subscribe", selling.link()]);
    }
    let dataset = published_to(&machine, &buyer, selling.link());
    for home in [&owner, &stranger] {
        home.ends(0, &["subscribe", selling.link()]);
    }
    // The stream is sold by hand only, and this buyer has never been granted anything.
    buyer.fails(4, &["export", "--dataset", &dataset, "--out", "files"]);
    selling.stop();
    fs::remove_dir_all(machine.path("home")).expect("gone");

    let keys = buyer.json(&["key", "show"]);
    let (did, key) = (keys["did"].as_str().expect("text"), keys["encryption_key"].as_str().expect("text"));
    let owner_key = machine.text("owner/owner.key");
    let grant = |with: &str, selection: &[&str], out: &str| {
        let args =
            [&["grant", "--buyer", did, "--key", key, "--owner-key", with, "--out", out][..], selection].concat();
        owner.run(&[&args[..], &["--json"]].concat())
    };
    let refused = grant(&other.text("owner/owner.key"), &["--dataset", &dataset], "no.grant");
    assert_eq!(refused.status.code(), Some(1), "{}", err(&refused));
    assert!(err(&refused).contains("and the owner of"), "{}", err(&refused));
    assert!(!owner.path("no.grant").exists());
    let given = grant(&owner_key, &["--dataset", &dataset], "one.grant");
    assert!(given.status.success(), "{}", err(&given));

    let file = owner.text("one.grant");
    stranger.fails(3, &["access", "import", &file]);
    // A signature that is not the owner's.
    let text = fs::read_to_string(&file).expect("there");
    let document: serde_json::Value = serde_json::from_str(&text).expect("JSON");
    let bytes = document["grants"][0].as_str().expect("hex").to_owned();
    let at = 2 * (1 + 281 + 1 + 10);
    let digit = if &bytes[at..=at] == "0" { "1" } else { "0" };
    let forged = text.replace(&bytes, &format!("{}{digit}{}", &bytes[..at], &bytes[at + 1..]));
    fs::write(owner.path("forged.grant"), forged).expect("written");
    let refused = buyer.fails(3, &["access", "import", &owner.text("forged.grant")]);
    assert!(refused.to_string().contains("not signed by"), "{refused}");

    assert_eq!(buyer.json(&["access", "import", &file])["grants"], 1);
    let proof = buyer.json(&["verify", &dataset]);
    assert_eq!((&proof["verdict"], &proof["packages_verified"]), (&"proven".into(), &7.into()), "{proof}");
    assert_eq!(buyer.json(&["export", "--dataset", &dataset, "--format", "ndjson", "--out", "files"])["packages"], 7);

    // By time too, and without a node; and what is not there is said.
    drop(buying);
    let given = grant(&owner_key, &["--stream", "/gps", "--last", "1h"], "two.grant");
    assert!(given.status.success(), "{}", err(&given));
    assert_eq!(buyer.json(&["access", "import", &owner.text("two.grant")])["machine"], document["machine"]);
    assert_eq!(grant(&owner_key, &["--stream", "/lidar"], "no.grant").status.code(), Some(5));
    assert_eq!(grant(&owner_key, &["--dataset", &"ab".repeat(32)], "no.grant").status.code(), Some(5));
}
