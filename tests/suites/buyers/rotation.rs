//! A machine that changes its feed key under its followers.

use std::{collections::BTreeSet, fs, path::Path};

use tributary_protocol::ids::Did;
use tributary_tests::{
    disk,
    home::{Sandbox, stream},
    node::{NodeProcess, command},
    trade,
};

const TOPIC: &str = "/imu";

async fn feed_key(home: &Path) -> String {
    let shown = command(home, &["--json", "key", "show"]).await.json();
    shown["feed_key"].as_str().unwrap().to_owned()
}

/// Asserts that a buyer has come to this binding, and suspects nobody.
async fn assert_bound(buyer: &NodeProcess, did: Did, serial: u64) {
    let followed = buyer.status().await.followed.remove(0);
    assert_eq!((followed.did, followed.binding_serial, followed.equivocations), (did, Some(serial), 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_machine_changes_its_feed_key_while_one_buyer_listens_and_another_one_is_away() {
    let sandbox = Sandbox::new();
    let home = sandbox.machine("machine", &[stream(TOPIC, ", chunk: { bytes: 8KiB }")]);
    let owner_key = sandbox.path().join("owner.key");
    fs::rename(home.join("keys/owner.key"), &owner_key).unwrap();
    let mut machine = NodeProcess::start(&home).await;
    let did = machine.status().await.did;
    let homes = ["near", "far"].map(|name| sandbox.buyer(name, ""));
    let (near, far) = (NodeProcess::start(&homes[0]).await, NodeProcess::start(&homes[1]).await);
    let mut datasets = vec![trade::ingest(&machine, TOPIC, 0, 100).await];
    for buyer in [&near, &far] {
        trade::follow(buyer, &machine).await;
        trade::know(buyer, datasets[0]).await;
    }
    far.stop().await;

    // Twice: whoever was away has to find both.
    let mut keys = BTreeSet::from([feed_key(&home).await]);
    for serial in [1, 2] {
        machine.stop().await;
        let rotated = command(&home, &["key", "rotate", "--owner-key", owner_key.to_str().unwrap()]).await;
        assert_eq!(rotated.code, Some(0), "{rotated:?}");
        assert!(keys.insert(feed_key(&home).await), "it is a new one");
        machine = NodeProcess::start(&home).await;
        let dataset = trade::ingest(&machine, TOPIC, serial * 100, 100).await;
        trade::know(&near, dataset).await;
        assert_bound(&near, did, serial).await;
        datasets.push(dataset);
    }
    let far = NodeProcess::start(&homes[1]).await;
    for dataset in datasets {
        trade::know(&far, dataset).await;
        for buyer in [&near, &far] {
            trade::buy(buyer, dataset).await;
        }
    }
    assert_bound(&far, did, 2).await;

    for node in [machine, near, far] {
        node.stop().await;
    }
    let truth = disk::follow(&home, &did);
    let signers: BTreeSet<String> = truth.entries.values().flatten().map(|entry| entry.signer().to_string()).collect();
    assert_eq!(signers, keys, "each key has signed a part of the logs");
    for home in homes {
        let held = disk::follow(&home, &did);
        assert_eq!((held.equivocations, &held.records), (0, &truth.records));
        // What the machine wrote when it stopped nobody may have heard.
        assert!(held.entries.iter().all(|(log, entries)| truth.entries[log].starts_with(entries)));
    }
}
