//! A writer that is stopped in mid-work: it appends batches of chunks with their entries, deletes old ones, collects garbage,
//! and prints what was acknowledged. What is on the disk afterwards must agree.

use std::{
    io::{BufRead, BufReader, Write},
    path::Path,
    process::{Child, Command, Stdio},
    sync::mpsc::{Receiver, sync_channel},
};

use tributary_store::{ChunkState, EntryIndex, OpenReport, Reason, Retention, Store, StoreOptions, WriteBatch};

use super::{body, hash_of, log, small};

const DIR: &str = "STORE_CHILD_DIR";
const BATCH: &str = "STORE_CHILD_BATCH";
const LEN: usize = 3000;

/// Runs in the child; a no-op in the test run itself.
pub fn child() {
    let (Ok(dir), Ok(batch)) = (std::env::var(DIR), std::env::var(BATCH)) else { return };
    let per_batch: u64 = batch.parse().unwrap();
    let (store, _) = Store::open(dir, &small()).unwrap();
    let mut out = std::io::stdout().lock();
    let mut deleted = store.counter("deleted").unwrap();
    for round in 0u64.. {
        let first = store.head(&log(1)).unwrap().map_or(0, |(seq, _)| seq + 1);
        let mut batch = WriteBatch::new();
        for seq in first..first + per_batch {
            let chunk = body(seq, LEN);
            let hash = hash_of(&chunk);
            batch.put_entry(log(1), seq, seq.to_be_bytes(), EntryIndex { chunk: Some(hash), dataset: None });
            batch.put_chunk(hash, chunk);
        }
        if store.commit(batch).is_err() {
            return;
        }
        if writeln!(out, "acked {}", first + per_batch).and_then(|()| out.flush()).is_err() {
            return;
        }
        if round % 4 == 3 {
            let mut batch = WriteBatch::new();
            let until = deleted + per_batch;
            for seq in deleted..until {
                batch.tombstone_chunk(hash_of(&body(seq, LEN)), Reason::Expired);
            }
            batch.set_counter("deleted", until);
            if store.commit(batch).is_err() {
                return;
            }
            deleted = until;
            writeln!(out, "deleted {until}").and_then(|()| out.flush()).unwrap();
        }
        if round % 25 == 24 && store.gc(false, &Retention::default()).is_err() {
            return;
        }
    }
}

/// A running child and what it has acknowledged so far.
pub struct Running {
    pub child: Child,
    lines: Receiver<String>,
    pub acked: u64,
    pub deleted: u64,
}

/// Starts the child: the test named `child` of the running test binary.
pub fn start(dir: &Path, per_batch: u64) -> Running {
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["child", "--exact", "--nocapture", "--test-threads=1"])
        .env(DIR, dir)
        .env(BATCH, per_batch.to_string())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let out = BufReader::new(child.stdout.take().unwrap());
    let (sender, lines) = sync_channel(1 << 16);
    std::thread::spawn(move || out.lines().map_while(Result::ok).try_for_each(|line| sender.send(line)));
    Running { child, lines, acked: 0, deleted: 0 }
}

impl Running {
    fn note(&mut self, line: &str) -> u64 {
        // The first acknowledgement can follow libtest's own words on the same line.
        if let Some(at) = line.find("acked ") {
            self.acked = line[at + 6..].trim().parse().unwrap();
            return 1;
        }
        if let Some(at) = line.find("deleted ") {
            self.deleted = line[at + 8..].trim().parse().unwrap();
        }
        0
    }

    /// Waits until so many acknowledgements came, or the child ended; returns how many came.
    pub fn read(&mut self, acknowledgements: u64) -> u64 {
        let mut read = 0;
        while read < acknowledgements {
            let Ok(line) = self.lines.recv() else { break };
            read += self.note(&line);
        }
        read
    }

    /// What has been acknowledged up to this moment.
    pub fn now(&mut self) -> (u64, u64) {
        while let Ok(line) = self.lines.try_recv() {
            self.note(&line);
        }
        (self.acked, self.deleted)
    }

    /// Kills it (SIGKILL) and reads what it had still printed.
    pub fn kill(mut self) -> (u64, u64) {
        self.child.kill().unwrap();
        self.read(u64::MAX);
        self.child.wait().unwrap();
        (self.acked, self.deleted)
    }
}

/// Everything acknowledged is there, batches are whole, deletions hold.
pub fn verify(store: &Store, report: &OpenReport, per_batch: u64, acked: u64, deleted: u64) -> u64 {
    assert!(report.damage.is_empty() && report.lost_frames == 0, "{report:?}");
    let entries = store.entries(&log(1), 0, usize::MAX, usize::MAX).unwrap();
    let count = entries.len() as u64;
    assert!(count >= acked, "{acked} entries were acknowledged, {count} are there: {report:?}");
    assert_eq!(count % per_batch, 0, "a batch is there in part");
    let gone = store.counter("deleted").unwrap();
    assert!(gone >= deleted, "{deleted} deletions were acknowledged, {gone} are there");
    for (number, entry) in entries.iter().enumerate() {
        let seq = number as u64;
        assert_eq!((entry.seq, entry.bytes.as_slice()), (seq, seq.to_be_bytes().as_slice()));
        let chunk = body(seq, LEN);
        let hash = hash_of(&chunk);
        if seq < gone {
            assert_eq!(store.chunk_state(&hash).unwrap(), ChunkState::Tombstoned, "chunk {seq} came back");
        } else {
            assert_eq!(store.chunk(&hash).unwrap(), Some(chunk), "chunk {seq}");
        }
    }
    let check = store.check(false).unwrap();
    assert!(check.is_clean(), "{check:?}");
    count
}

pub fn child_options() -> StoreOptions {
    small()
}
