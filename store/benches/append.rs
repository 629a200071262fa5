//! The store against a raw append: `cargo bench -p tributary-store --bench append`.
//!
//! Rounds of "write and `fdatasync` to plain 64 MiB files" and "commit to the store" take turns, because the speed of a disk
//! drifts; only ratios of the same round mean anything. Then: space after deleting the oldest half, and opening 100,000 small
//! chunks after a kill. `--quick` takes a quarter of the data.

#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a bench reports to the terminal and stops at the first failure"
)]

use std::{
    fs::{self, File},
    io::Write,
    os::unix::fs::MetadataExt,
    path::Path,
    process::{Command, Stdio},
    time::Instant,
};

use tributary_protocol::ids::{Did, Hash, LogId, LogKey};
use tributary_store::{EntryIndex, Retention, Store, StoreOptions, VerifiedChunk, WriteBatch};

const BODY: usize = 256 << 10;
const ROUNDS: usize = 5;
const CHILD: &str = "STORE_BENCH_CHILD";

fn body(number: u64, len: usize) -> Vec<u8> {
    let mut out = vec![0; len];
    let mut hasher = blake3::Hasher::new();
    hasher.update(&number.to_le_bytes());
    hasher.finalize_xof().fill(&mut out);
    out
}

fn log() -> LogKey {
    LogKey { did: Did::from_bytes([1; 20]), log: LogId::from_bytes([2; 32]), incarnation: 0 }
}

/// Seconds to append `total` bytes raw.
fn raw(dir: &Path, bodies: &[(Hash, Vec<u8>)], per_batch: usize) -> f64 {
    fs::create_dir_all(dir).unwrap();
    let begun = Instant::now();
    let mut file = File::create(dir.join("0")).unwrap();
    let mut written = 0;
    for (number, batch) in bodies.chunks(per_batch).enumerate() {
        if written > 64 << 20 {
            file = File::create(dir.join(number.to_string())).unwrap();
            written = 0;
        }
        for (_, body) in batch {
            file.write_all(body).unwrap();
            written += body.len();
        }
        file.sync_data().unwrap();
    }
    begun.elapsed().as_secs_f64()
}

/// A batch as the node makes it: bodies, their entries, one row.
fn batch(chunks: impl Iterator<Item = (u64, Hash, Vec<u8>)>) -> WriteBatch {
    let mut batch = WriteBatch::new();
    for (seq, hash, body) in chunks {
        batch.put_entry(log(), seq, vec![seq as u8; 600], EntryIndex { chunk: Some(hash), dataset: None });
        batch.put_verified(VerifiedChunk::trust(hash, body));
    }
    batch
}

/// Seconds to commit the same to a store.
fn store(dir: &Path, bodies: &[(Hash, Vec<u8>)], per_batch: usize) -> f64 {
    let (store, _) = Store::open(dir, &StoreOptions::default()).unwrap();
    // The bodies are moved into the store; making the copies is not its work.
    let batches: Vec<WriteBatch> = bodies
        .chunks(per_batch)
        .enumerate()
        .map(|(number, chunks)| {
            let first = (number * per_batch) as u64;
            batch(chunks.iter().enumerate().map(|(i, (hash, body))| (first + i as u64, *hash, body.clone())))
        })
        .collect();
    let begun = Instant::now();
    for batch in batches {
        store.commit(batch).unwrap();
    }
    begun.elapsed().as_secs_f64()
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

fn throughput(dir: &Path, count: usize) {
    let bodies: Vec<(Hash, Vec<u8>)> = (0..count as u64)
        .map(|number| {
            let body = body(number, BODY);
            (Hash::of(&body), body)
        })
        .collect();
    let mib = (count * BODY) as f64 / f64::from(1 << 20);
    println!("{:>6} {:>10} {:>10} {:>7}   ratios by round", "batch", "raw MiB/s", "store", "ratio");
    for per_batch in [16, 1] {
        let (mut raws, mut stores, mut ratios) = (Vec::new(), Vec::new(), Vec::new());
        for round in 0..ROUNDS {
            // Who goes first changes, too. Nothing is removed in between: freeing (and discarding) half a gigabyte would be
            // paid by whoever comes next.
            let (raw_dir, store_dir) =
                (dir.join(format!("raw-{per_batch}-{round}")), dir.join(format!("store-{per_batch}-{round}")));
            let (raw, store) = if round % 2 == 0 {
                let raw = raw(&raw_dir, &bodies, per_batch);
                (raw, store(&store_dir, &bodies, per_batch))
            } else {
                let store = store(&store_dir, &bodies, per_batch);
                (raw(&raw_dir, &bodies, per_batch), store)
            };
            raws.push(mib / raw);
            stores.push(mib / store);
            ratios.push(raw / store);
        }
        let each: Vec<String> = ratios.iter().map(|ratio| format!("{ratio:.2}")).collect();
        let (raw, store) = (median(raws), median(stores));
        println!("{per_batch:>6} {raw:>10.0} {store:>10.0} {:>7.2}   {}", median(ratios), each.join(" "));
    }
}

fn du(dir: &Path) -> u64 {
    fs::read_dir(dir)
        .unwrap()
        .map(|entry| {
            let entry = entry.unwrap();
            let found = entry.metadata().unwrap();
            if found.is_dir() { du(&entry.path()) } else { found.blocks() * 512 }
        })
        .sum()
}

fn space(dir: &Path, count: u64) {
    let options = StoreOptions { ballast_bytes: 0, ..StoreOptions::default() };
    let (store, _) = Store::open(dir, &options).unwrap();
    for first in (0..count).step_by(16) {
        let chunks = (first..(first + 16).min(count)).map(|seq| {
            let body = body(seq, BODY);
            (seq, Hash::of(&body), body)
        });
        store.commit(batch(chunks)).unwrap();
    }
    let half = count / 2 * BODY as u64;
    let before = du(dir) as f64 / (count * BODY as u64) as f64;
    let begun = Instant::now();
    store.gc(false, &Retention { max_chunk_bytes: Some(half), ..Retention::default() }).unwrap();
    let took = begun.elapsed().as_secs_f64();
    let after = du(dir) as f64 / store.stats().chunk_bytes as f64;
    let accounted = store.stats().used_bytes as f64 / du(dir) as f64;
    println!(
        "disk/live {before:.3} full, {after:.3} after deleting the oldest half ({took:.2} s); accounted/du {accounted:.4}"
    );
    drop(store);
    fs::remove_dir_all(dir).unwrap();
}

const SMALL: u64 = 100_000;

/// Fills the store with 100,000 chunks of 4 KiB and waits to be killed.
fn child(dir: &Path) {
    let (store, _) = Store::open(dir, &StoreOptions::default()).unwrap();
    for first in (0..SMALL).step_by(64) {
        let chunks = (first..(first + 64).min(SMALL)).map(|seq| {
            let body = body(seq, 4096);
            (seq, Hash::of(&body), body)
        });
        store.commit(batch(chunks)).unwrap();
    }
    println!("filled");
    std::io::stdout().flush().unwrap();
    std::thread::sleep(std::time::Duration::from_secs(3600));
}

fn open_after_kill(dir: &Path) {
    let mut child =
        Command::new(std::env::current_exe().unwrap()).env(CHILD, dir).stdout(Stdio::piped()).spawn().unwrap();
    let mut line = String::new();
    std::io::BufRead::read_line(&mut std::io::BufReader::new(child.stdout.take().unwrap()), &mut line).unwrap();
    child.kill().unwrap();
    child.wait().unwrap();
    assert_eq!(line.trim(), "filled");
    let (store, report) = Store::open(dir, &StoreOptions::default()).unwrap();
    assert_eq!(store.stats().chunks, SMALL);
    println!(
        "open of {SMALL} x 4 KiB after a kill: {:.2} s ({:?}, {} frames)",
        report.elapsed.as_secs_f64(),
        report.recovery,
        report.replayed_frames
    );
    drop(store);
    let (store, report) = Store::open(dir, &StoreOptions::default()).unwrap();
    println!("open after a clean close: {:.2} s", report.elapsed.as_secs_f64());
    drop(store);
    fs::remove_dir_all(dir.join("index")).unwrap();
    let (_, report) = Store::open(dir, &StoreOptions::default()).unwrap();
    println!("open without its index: {:.2} s ({} frames)", report.elapsed.as_secs_f64(), report.replayed_frames);
}

fn main() {
    if let Some(dir) = std::env::var_os(CHILD) {
        child(Path::new(&dir));
        return;
    }
    let quick = std::env::args().any(|argument| argument == "--quick");
    let count = if quick { 256 } else { 1024 };
    let dir = tempfile::tempdir_in(std::env::var_os("STORE_BENCH_DIR").unwrap_or_else(|| std::env::temp_dir().into()))
        .unwrap();
    throughput(dir.path(), count);
    space(&dir.path().join("space"), count as u64 * 2);
    open_after_kill(&dir.path().join("small"));
}
