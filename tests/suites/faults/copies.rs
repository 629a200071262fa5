//! Homes that were restored or copied: nothing is signed twice for one place.

use std::{
    fs,
    path::{Path, PathBuf},
};

use tributary::service::status::WarningCode;
use tributary_protocol::ids::Did;
use tributary_tests::{
    disk::{self, Logs},
    home::{Sandbox, copy, stream, tail},
    node::{NodeProcess, command},
    trade,
    wait::until,
};

const TOPIC: &str = "/imu";
/// A buyer that serves what it follows to other followers.
const RESEED: &str = "buyer: { reseed: true }\n";

fn machine(sandbox: &Sandbox) -> PathBuf {
    sandbox.machine("machine", &[stream(TOPIC, ", chunk: { bytes: 8KiB }")])
}

/// Asserts that the node in `home` does not start, and says what to do.
async fn refused(home: &Path, because: &str) {
    match NodeProcess::try_start(home).await {
        Ok(_) => panic!("the node runs although it must not"),
        Err(status) => {
            let log = tail(&home.with_extension("log"));
            assert_eq!(status.code(), Some(1), "{log}");
            assert!(log.contains(because) && log.contains("tributary key bind --incarnation"), "{log}");
        }
    }
}

/// Starts the next incarnation with the owner's key, which the test keeps away from the machine.
async fn bind(home: &Path, owner_key: &Path) {
    let ended =
        command(home, &["--json", "key", "bind", "--incarnation", "--owner-key", owner_key.to_str().unwrap()]).await;
    assert_eq!(ended.json()["incarnation"], 1);
}

fn take_owner_key(home: &Path, sandbox: &Sandbox) -> PathBuf {
    let kept = sandbox.path().join("owner.key");
    fs::rename(home.join("keys/owner.key"), &kept).unwrap();
    kept
}

/// A machine whose owner key is elsewhere, a buyer, and where the machine is backed up.
struct Scene {
    home: PathBuf,
    owner_key: PathBuf,
    buyer: NodeProcess,
    backup: PathBuf,
}

async fn scene(sandbox: &Sandbox) -> Scene {
    let home = machine(sandbox);
    let owner_key = take_owner_key(&home, sandbox);
    let buyer = NodeProcess::start(&sandbox.buyer("buyer", "")).await;
    Scene { home, owner_key, buyer, backup: sandbox.path().join("backup") }
}

async fn copied_while_stopped(node: NodeProcess, home: &Path, backup: &Path) -> NodeProcess {
    node.stop().await;
    copy(home, backup);
    NodeProcess::start(home).await
}

/// Lets a new machine publish twice, with `between` in between, and a buyer follow it. Returns the machine's logs at the end.
async fn publish_twice(
    sandbox: &Sandbox,
    home: &Path,
    buyer: &NodeProcess,
    between: impl AsyncFnOnce(NodeProcess) -> NodeProcess,
) -> (Did, Logs) {
    let node = NodeProcess::start(home).await;
    let did = node.status().await.did;
    trade::follow(buyer, &node).await;
    trade::know(buyer, trade::ingest(&node, TOPIC, 0, 100).await).await;
    let node = between(node).await;
    trade::follow(buyer, &node).await;
    trade::know(buyer, trade::ingest(&node, TOPIC, 100, 100).await).await;
    node.stop().await;
    // Read from a copy: reading must not change what the test is about.
    let seen = sandbox.path().join("seen");
    copy(home, &seen);
    (did, disk::follow(&seen, &did))
}

/// What must be true once the machine has gone on in its next incarnation.
async fn goes_on(home: &Path, buyer: NodeProcess, did: Did, before: &Logs) {
    let node = NodeProcess::start(home).await;
    assert_eq!(node.status().await.incarnation, Some(1));
    trade::follow(&buyer, &node).await;
    let dataset = trade::ingest(&node, TOPIC, 200, 100).await;
    trade::know(&buyer, dataset).await;
    trade::buy(&buyer, dataset).await;
    let followed = buyer.status().await.followed.remove(0);
    assert_eq!((followed.did, followed.equivocations, followed.binding_serial), (did, 0, Some(1)));
    node.stop().await;
    let buyer_home = buyer.home().to_owned();
    buyer.stop().await;
    let (after, seen) = (disk::follow(home, &did), disk::follow(&buyer_home, &did));
    assert_eq!(after.equivocations + seen.equivocations, 0);
    disk::assert_nothing_used_twice([before, &after, &seen]);
    assert!(after.entries.keys().any(|log| log.incarnation == 1));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_store_restored_from_an_old_backup_goes_on_only_in_a_new_incarnation() {
    let sandbox = Sandbox::new();
    let Scene { home, owner_key, buyer, backup } = scene(&sandbox).await;
    let (did, before) = publish_twice(&sandbox, &home, &buyer, async |node| {
        let ended = command(node.home(), &["store", "backup", backup.to_str().unwrap()]).await;
        assert_eq!(ended.code, Some(0), "{ended:?}");
        node
    })
    .await;

    fs::remove_dir_all(home.join("store")).unwrap();
    let ended = command(&home, &["store", "restore", backup.to_str().unwrap()]).await;
    assert_eq!(ended.code, Some(0), "{ended:?}");
    refused(&home, "restored from a backup").await;
    // Not without the owner's key.
    assert_eq!(command(&home, &["key", "bind", "--incarnation"]).await.code, Some(5));
    refused(&home, "restored from a backup").await;
    bind(&home, &owner_key).await;
    goes_on(&home, buyer, did, &before).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_home_put_back_in_its_place_from_an_old_copy_goes_on_only_in_a_new_incarnation() {
    let sandbox = Sandbox::new();
    let Scene { home, owner_key, buyer, backup } = scene(&sandbox).await;
    let (did, before) =
        publish_twice(&sandbox, &home, &buyer, async |node| copied_while_stopped(node, &home, &backup).await).await;

    // Deleted and copied back at once: a file system may well give the new folder the number of the old one.
    fs::remove_dir_all(&home).unwrap();
    copy(&backup, &home);
    refused(&home, "copied or moved").await;
    bind(&home, &owner_key).await;
    goes_on(&home, buyer, did, &before).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_home_whose_files_were_put_back_one_by_one_goes_on_only_in_a_new_incarnation() {
    let sandbox = Sandbox::new();
    let Scene { home, owner_key, buyer, backup } = scene(&sandbox).await;
    let (did, before) =
        publish_twice(&sandbox, &home, &buyer, async |node| copied_while_stopped(node, &home, &backup).await).await;

    // As rsync --delete or a backup program does it: folders stay, files are made again, new ones go.
    fs::remove_dir_all(home.join("store")).unwrap();
    copy(&backup.join("store"), &home.join("store"));
    fs::remove_file(home.join("origin.json")).unwrap();
    copy(&backup.join("origin.json"), &home.join("origin.json"));
    refused(&home, "put back from a copy").await;
    bind(&home, &owner_key).await;
    goes_on(&home, buyer, did, &before).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cloned_home_is_refused_until_it_is_bound_and_the_first_one_learns_of_it() {
    let sandbox = Sandbox::new();
    let home = machine(&sandbox);
    let owner_key = take_owner_key(&home, &sandbox);
    // The two buyers are each other's only source once the copies have parted.
    let near = NodeProcess::start(&sandbox.buyer("near", RESEED)).await;
    let node = NodeProcess::start(&home).await;
    let did = node.status().await.did;
    trade::follow(&near, &node).await;
    trade::know(&near, trade::ingest(&node, TOPIC, 0, 100).await).await;
    node.stop().await;
    let clone = sandbox.path().join("clone");
    copy(&home, &clone);
    let config = fs::read_to_string(clone.join("config.yaml")).unwrap();
    let moved = config.replace(&sandbox.port("machine").to_string(), &sandbox.port("clone").to_string());
    fs::write(clone.join("config.yaml"), moved).unwrap();

    let node = NodeProcess::start(&home).await;
    trade::follow(&near, &node).await;
    refused(&clone, "copied or moved").await;
    trade::know(&near, trade::ingest(&node, TOPIC, 100, 100).await).await;
    refused(&clone, "copied or moved").await;

    // The clone goes on in a new incarnation; its own buyer knows the first one's buyer, so the news travel.
    bind(&clone, &owner_key).await;
    let peer = near.status().await.listen.first().unwrap().clone();
    let twin = NodeProcess::start(&clone).await;
    let far_home = sandbox.buyer("far", RESEED);
    let config = fs::read_to_string(far_home.join("config.yaml")).unwrap();
    fs::write(far_home.join("config.yaml"), config.replace("  limits:", &format!("  peers: [\"{peer}\"]\n  limits:")))
        .unwrap();
    let far = NodeProcess::start(&far_home).await;
    trade::follow(&far, &twin).await;
    let mut n = 200;
    until("the first one to stop publishing", async || {
        trade::know(&far, trade::ingest(&twin, TOPIC, n, 20).await).await;
        n += 20;
        let warnings = node.status().await.warnings;
        warnings.iter().any(|warning| warning.code == WarningCode::Displaced).then_some(())
    })
    .await;
    // What the first one still takes in goes nowhere, and nobody calls the machine a liar for it.
    let dataset = trade::ingest(&node, TOPIC, 10_000, 100).await;
    let newest = trade::ingest(&twin, TOPIC, 20_000, 100).await;
    for buyer in [&near, &far] {
        trade::know(buyer, newest).await;
        let followed = buyer.status().await.followed.remove(0);
        assert_eq!((followed.did, followed.equivocations, followed.binding_serial), (did, 0, Some(1)));
        assert!(!buyer.feeds().await.iter().any(|feed| feed.datasets.iter().any(|known| known.dataset == dataset)));
    }
    trade::buy(&far, newest).await;

    node.stop().await;
    twin.stop().await;
    let homes = [near.home().to_owned(), far.home().to_owned(), home, clone];
    near.stop().await;
    far.stop().await;
    let logs: Vec<Logs> = homes.iter().map(|home| disk::follow(home, &did)).collect();
    assert_eq!(logs.iter().map(|logs| logs.equivocations).sum::<usize>(), 0);
    disk::assert_nothing_used_twice(&logs);
}
