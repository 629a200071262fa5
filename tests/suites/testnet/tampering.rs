//! `verify` believes nobody.

use std::{
    fs,
    io::{Seek as _, SeekFrom, Write as _},
    path::{Path, PathBuf},
};

use tributary_protocol::entry::{EntryBody, SignedEntry};
use tributary_store::{Store, StoreOptions};

use super::common::Net;

fn files(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    entries.flat_map(|path| if path.is_dir() { files(&path) } else { vec![path] }).collect()
}

/// Flips one bit of a chunk on a stopped node's disk.
fn flip(home: &Path) {
    let (store, _) = Store::open(home.join("store"), &StoreOptions::default()).unwrap();
    let logs = store.logs(None).unwrap().into_iter().filter(|log| log.log.stream().is_some());
    let entries = logs.flat_map(|log| store.entries(&log, 0, 1024, 1 << 22).unwrap());
    let body = entries
        .filter_map(|entry| match &SignedEntry::decode(&entry.bytes).unwrap().entry().body {
            EntryBody::Chunk(record) => store.chunk(&record.hash).unwrap(),
            _ => None,
        })
        .find(|body| body.len() >= 256)
        .unwrap();
    store.close().unwrap();
    for path in files(&home.join("store")) {
        let bytes = fs::read(&path).unwrap();
        if let Some(at) = bytes.windows(256).position(|part| part == &body[..256]) {
            let mut file = fs::OpenOptions::new().write(true).open(&path).unwrap();
            file.seek(SeekFrom::Start(u64::try_from(at).unwrap() + 100)).unwrap();
            file.write_all(&[bytes[at + 100] ^ 1]).unwrap();
            return;
        }
    }
    panic!("the chunk is in no file");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_flipped_bit_in_a_home_is_found() {
    let net = Net::up(&["--machines", "1", "--buyers", "2", "--speed", "4"]).await;
    net.closed_datasets("machine-1", 6).await;
    assert_eq!(net.run("verify", &[]).await.json()["ok"], true);

    assert_eq!(net.run("kill", &["buyer-1"]).await.code, Some(0));
    flip(&net.dir().join("buyer-1"));
    assert_eq!(net.run("restart", &["buyer-1"]).await.code, Some(0));
    let verified = net.run("verify", &["--wait", "5"]).await;
    assert_eq!(verified.code, Some(3), "{verified:?}");
    let found: serde_json::Value = serde_json::from_str(&verified.stdout).unwrap();
    let findings = found["findings"].as_array().unwrap();
    assert!(!findings.is_empty() && findings.iter().all(|finding| finding["node"] == "buyer-1"), "{found}");
    assert!(findings.iter().any(|finding| finding["what"].as_str().unwrap().contains("damaged")), "{found}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_opens_and_was_not_bought_is_found() {
    let net = Net::up(&["--machines", "1", "--buyers", "1", "--speed", "4"]).await;
    net.closed_datasets("machine-1", 6).await;
    assert_eq!(net.run("verify", &[]).await.json()["ok"], true);
    // The testnet's own word about what was bought is changed: now it holds more than it may.
    let path = net.dir().join("testnet.json");
    let mut state: serde_json::Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
    let buyer = state["nodes"].as_array_mut().unwrap().iter_mut().find(|node| node["name"] == "buyer-1").unwrap();
    let gone = buyer["buys"].as_array_mut().unwrap().pop().unwrap();
    fs::write(&path, state.to_string()).unwrap();
    let verified = net.run("verify", &["--wait", "5"]).await;
    assert_eq!(verified.code, Some(3), "{verified:?}");
    let (opens, grant) =
        (format!("of {} opens, and was not bought", gone.as_str().unwrap()), "holds a grant of stream");
    assert!(verified.stdout.contains(&opens) && verified.stdout.contains(grant), "{verified:?}");
}
