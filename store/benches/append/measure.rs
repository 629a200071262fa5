//! What is measured of the store, for its own bench and for the table of the whole project (`tests/benches/end_to_end.rs`).
//!
//! Whoever includes this calls [`run_child`] first thing in `main`: the kill is one of a real process.

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

/// Bytes of an ordinary chunk.
pub(crate) const BODY: usize = 256 << 10;
/// Chunks of the store that is opened after a kill.
pub(crate) const SMALL: u64 = 100_000;
const CHILD: &str = "STORE_BENCH_CHILD";

fn body(number: u64, len: usize) -> Vec<u8> {
    let mut out = vec![0; len];
    let mut hasher = blake3::Hasher::new();
    hasher.update(&number.to_le_bytes());
    hasher.finalize_xof().fill(&mut out);
    out
}

/// Chunks of [`BODY`] bytes under their names.
pub(crate) fn bodies(count: u64) -> Vec<(Hash, Vec<u8>)> {
    (0..count)
        .map(|number| {
            let body = body(number, BODY);
            (Hash::of(&body), body)
        })
        .collect()
}

fn log() -> LogKey {
    LogKey { did: Did::from_bytes([1; 20]), log: LogId::from_bytes([2; 32]), incarnation: 0 }
}

/// Seconds to append everything raw: plain 64 MiB files, `fdatasync` after each batch.
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
    let (mut seconds, mut first) = (0.0, 0);
    for chunks in bodies.chunks(per_batch) {
        // The bodies are moved into the store; making the copies is not its work. One batch at a time, so that the memory of the
        // copies is used again: where a virtual machine gets its memory on first use, that use costs more than the write.
        let batch = batch((first..).zip(chunks).map(|(seq, (hash, body))| (seq, *hash, body.clone())));
        first += chunks.len() as u64;
        let begun = Instant::now();
        store.commit(batch).unwrap();
        seconds += begun.elapsed().as_secs_f64();
    }
    seconds
}

/// One round of appending, seconds.
pub(crate) struct Append {
    pub(crate) raw: f64,
    pub(crate) store: f64,
}

/// Appends the same raw and to a store. Who goes first changes from round to round. Nothing is removed in between: freeing (and
/// discarding) half a gigabyte would be paid by whoever comes next.
pub(crate) fn append(dir: &Path, bodies: &[(Hash, Vec<u8>)], per_batch: usize, round: usize) -> Append {
    let (raw_dir, store_dir) =
        (dir.join(format!("raw-{per_batch}-{round}")), dir.join(format!("store-{per_batch}-{round}")));
    if round.is_multiple_of(2) {
        let raw = raw(&raw_dir, bodies, per_batch);
        Append { raw, store: store(&store_dir, bodies, per_batch) }
    } else {
        let store = store(&store_dir, bodies, per_batch);
        Append { raw: raw(&raw_dir, bodies, per_batch), store }
    }
}

/// Writes and removes a file of so many bytes. A virtual machine may have to get the memory of the page cache from its host on
/// first use, which costs several times the write; afterwards it has it.
pub(crate) fn warm_up(dir: &Path, bytes: u64) {
    let (path, block) = (dir.join("warm-up"), vec![1; 1 << 20]);
    let mut file = File::create(&path).unwrap();
    for _ in 0..bytes >> 20 {
        file.write_all(&block).unwrap();
    }
    file.sync_data().unwrap();
    drop(file);
    fs::remove_file(path).unwrap();
}

/// The one in the middle.
pub(crate) fn median(values: &[f64]) -> f64 {
    let mut values = values.to_vec();
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

/// Disk used over live bytes.
pub(crate) struct Space {
    pub(crate) full: f64,
    /// After the oldest half was deleted.
    pub(crate) after: f64,
    /// Seconds to delete it.
    pub(crate) took: f64,
    /// What the store says it uses over what it uses.
    pub(crate) accounted: f64,
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

/// Fills a store with `count` chunks of [`BODY`] bytes and deletes the oldest half. Removes the store.
pub(crate) fn space(dir: &Path, count: u64) -> Space {
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
    let full = du(dir) as f64 / (count * BODY as u64) as f64;
    let begun = Instant::now();
    store.gc(false, &Retention { max_chunk_bytes: Some(half), ..Retention::default() }).unwrap();
    let took = begun.elapsed().as_secs_f64();
    let after = du(dir) as f64 / store.stats().chunk_bytes as f64;
    let accounted = store.stats().used_bytes as f64 / du(dir) as f64;
    drop(store);
    fs::remove_dir_all(dir).unwrap();
    Space { full, after, took, accounted }
}

/// How long a store with [`SMALL`] chunks of 4 KiB takes to open, seconds.
pub(crate) struct Opens {
    pub(crate) after_kill: f64,
    /// How it was recovered, and from how many frames.
    pub(crate) recovery: String,
    pub(crate) after_close: f64,
    pub(crate) without_index: f64,
}

/// Fills a store in a child process, kills it, and opens the store in three ways.
pub(crate) fn opens(dir: &Path) -> Opens {
    let mut child =
        Command::new(std::env::current_exe().unwrap()).env(CHILD, dir).stdout(Stdio::piped()).spawn().unwrap();
    let mut line = String::new();
    std::io::BufRead::read_line(&mut std::io::BufReader::new(child.stdout.take().unwrap()), &mut line).unwrap();
    child.kill().unwrap();
    child.wait().unwrap();
    assert_eq!(line.trim(), "filled");
    let (store, report) = Store::open(dir, &StoreOptions::default()).unwrap();
    assert_eq!(store.stats().chunks, SMALL);
    let after_kill = report.elapsed.as_secs_f64();
    let recovery = format!("{:?}, {} frames", report.recovery, report.replayed_frames);
    drop(store);
    let (store, report) = Store::open(dir, &StoreOptions::default()).unwrap();
    let after_close = report.elapsed.as_secs_f64();
    drop(store);
    fs::remove_dir_all(dir.join("index")).unwrap();
    let (_, report) = Store::open(dir, &StoreOptions::default()).unwrap();
    Opens { after_kill, recovery, after_close, without_index: report.elapsed.as_secs_f64() }
}

/// When this process is the child of [`opens`]: fills the store, and waits to be killed.
pub(crate) fn run_child() -> bool {
    let Some(dir) = std::env::var_os(CHILD) else { return false };
    let (store, _) = Store::open(Path::new(&dir), &StoreOptions::default()).unwrap();
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
    true
}
