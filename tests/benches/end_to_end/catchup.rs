//! A new follower catches up with a machine that has written 100,000 entries: bindings, signatures, hashes, the disk.

use std::{fs, path::Path};

use rand::Rng as _;
use serde_json::json;
use tributary_tests::disk;

use crate::{
    Bench,
    machine::clock,
    measure::median,
    nodes::{Node, STREAM, program},
    table::Goal,
};

const ENTRIES: usize = 100_000;
/// The smallest chunks there are: it is their entries that count here.
const CHUNK: usize = 4 << 10;
/// A round takes seconds.
const MAX_ROUNDS: usize = 3;

pub(crate) fn run(bench: &mut Bench) {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime.block_on(follow(bench, &program()));
}

async fn follow(bench: &mut Bench, program: &Path) {
    let dir = bench.dir.join("catchup");
    fs::create_dir_all(&dir).unwrap();
    let config = format!(
        "roles: [machine]\nnetwork: {{ listen: [/ip4/127.0.0.1/tcp/0] }}\nstreams:\n  - {{ topic: {STREAM}, mode: file, \
         access: {{ policy: free }}, chunk: {{ bytes: 4KiB }} }}\n"
    );
    let machine = Node::start(program, &dir.join("machine"), &config).await;
    let file = dir.join("file.bin");
    let mut bytes = vec![0; ENTRIES * CHUNK];
    rand::rng().fill_bytes(&mut bytes);
    fs::write(&file, bytes).unwrap();
    machine.work("/v1/publish", json!({ "path": file, "stream": STREAM })).await;
    let link = machine.link().await;

    let (mut entries, mut mib) = (Vec::new(), Vec::new());
    for _ in 0..bench.rounds.min(MAX_ROUNDS) {
        let home = dir.join("follower");
        let follower = Node::buyer(program, &home).await;
        let subscribed = follower.post("/v1/subscribe", json!({ "link": link, "streams": [] }));
        let (seconds, following) = clock(subscribed).await;
        follower.stop().await;
        let (count, size) = held(&home);
        assert!(count >= ENTRIES as u64, "not all entries came: {following}");
        #[expect(clippy::cast_precision_loss, reason = "a rate")]
        {
            entries.push(count as f64 / seconds);
            mib.push(size as f64 / 1_048_576.0 / seconds);
        }
        fs::remove_dir_all(home).unwrap();
    }
    bench.table.value("catch up with 100,000 entries", median(&entries), "entries/s", Goal::None);
    bench.table.value("the same in bytes of entries", median(&mib), "MiB/s", Goal::None);
    machine.stop().await;
    fs::remove_dir_all(dir).unwrap();
}

/// The entries that are stored: how many, and their bytes.
fn held(home: &Path) -> (u64, u64) {
    let store = disk::store(home);
    let mut held = (0, 0);
    for log in store.logs(None).unwrap() {
        for entry in store.log(&log, ..) {
            held = (held.0 + 1, held.1 + entry.unwrap().bytes.len() as u64);
        }
    }
    held
}
