//! A machine, its mirror, and what is asked of both.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
};

use rand::{Rng as _, SeedableRng as _, rngs::StdRng};
use tributary::service::status::MirroredStatus;
use tributary_protocol::ids::{DatasetId, Did, LogKey};
use tributary_tests::{
    disk,
    home::{Sandbox, head},
    node::NodeProcess,
    trade,
    wait::until,
};

pub(crate) const CHUNK: usize = 4 << 10;

/// The home of a machine with a stream of files in small chunks.
pub(crate) fn machine(sandbox: &Sandbox, limits: &str, policy: &str) -> PathBuf {
    let streams = format!(
        "streams:\n  - {{ topic: files, mode: file, access: {{ policy: {policy} }}, chunk: {{ bytes: {CHUNK}B }} }}\n"
    );
    sandbox.home("machine", &format!("{}{streams}", head("machine", sandbox.port("machine"), limits)))
}

/// Puts lines into the configuration of a node that does not run, behind `network:`.
pub(crate) fn with_network(home: &Path, lines: &str) {
    let path = home.join("config.yaml");
    let text = fs::read_to_string(&path).unwrap();
    fs::write(&path, text.replace("network:\n", &format!("network:\n{lines}"))).unwrap();
}

/// Puts lines at the end of the configuration of a node that does not run.
pub(crate) fn with_more(home: &Path, lines: &str) {
    let path = home.join("config.yaml");
    let text = fs::read_to_string(&path).unwrap();
    fs::write(&path, format!("{text}{lines}")).unwrap();
}

/// The home of a mirror that keeps the feed of a link.
pub(crate) fn mirror(sandbox: &Sandbox, name: &str, link: &str, more: &str) -> PathBuf {
    let feeds = format!("mirror:\n  feeds:\n    - {{ machine: \"{link}\" }}\n");
    sandbox.home(name, &format!("{}{feeds}{more}", head("mirror", sandbox.port(name), "")))
}

/// Publishes a file of `chunks` chunks of the machine's.
pub(crate) async fn publish(machine: &NodeProcess, seed: u64, chunks: usize) -> (DatasetId, PathBuf) {
    let mut bytes = vec![0; chunks * CHUNK];
    StdRng::seed_from_u64(seed).fill_bytes(&mut bytes);
    let path = machine.home().with_file_name(format!("file-{seed}.bin"));
    fs::write(&path, bytes).unwrap();
    (trade::publish(machine, "files", &path).await, path)
}

/// How the feed that a mirror keeps stands.
pub(crate) async fn kept(mirror: &NodeProcess) -> MirroredStatus {
    mirror.status().await.mirror.unwrap().feeds.remove(0)
}

/// Waits until a mirror has all that the machine has: its entries, and `chunks` chunks.
pub(crate) async fn keeps_all(mirror: &NodeProcess, chunks: u64) -> MirroredStatus {
    until("the mirror to have everything", async || {
        let feed = kept(mirror).await;
        let all = feed.chunks == chunks && feed.chunks_known == chunks && feed.behind == 0 && feed.missing == 0;
        all.then_some(feed)
    })
    .await
}

/// Entries that a node has of a machine.
pub(crate) async fn entries(node: &NodeProcess, did: &Did) -> u64 {
    let status = node.status().await;
    let feed = status.followed.iter().find(|feed| feed.did == *did);
    feed.map_or(0, |feed| feed.logs.iter().map(|log| log.entries).sum())
}

/// Waits until a node has so many entries of a machine.
pub(crate) async fn has_entries(node: &NodeProcess, did: &Did, count: u64) {
    until(&format!("{count} entries"), async || (entries(node, did).await == count).then_some(())).await;
}

/// Where a node listens, with its peer id.
pub(crate) async fn address(node: &NodeProcess) -> String {
    node.status().await.listen.remove(0)
}

/// All entries of a machine in the store of a home whose node does not run, without a gap and checked from the DID.
pub(crate) fn log_of(home: &Path, did: &Did) -> BTreeMap<LogKey, Vec<Vec<u8>>> {
    let logs = disk::follow(home, did);
    let bytes = |entries: Vec<tributary_protocol::entry::SignedEntry>| {
        entries.iter().map(|entry| entry.bytes().to_vec()).collect()
    };
    logs.entries.into_iter().map(|(log, entries)| (log, bytes(entries))).collect()
}

/// How many entries that is.
pub(crate) fn count(log: &BTreeMap<LogKey, Vec<Vec<u8>>>) -> u64 {
    log.values().map(|entries| entries.len() as u64).sum()
}
