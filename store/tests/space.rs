//! Quota, full disks, retention, and what the file system says about it.

#![allow(clippy::unwrap_used, clippy::panic, clippy::print_stdout, reason = "helpers of tests are tests")]

mod support;

use std::{os::unix::fs::MetadataExt, path::Path, process::Command};

use support::{body, hash_of, log, options, small};
use tributary_protocol::ids::Hash;
use tributary_store::{EntryIndex, Reason, Recovery, Retention, Store, StoreError, StoreOptions, Table, WriteBatch};

const LEN: usize = 64 << 10;

fn put(store: &Store, seq: u64) -> Result<Hash, StoreError> {
    let chunk = body(seq, LEN);
    let hash = hash_of(&chunk);
    let mut batch = WriteBatch::new();
    batch.put_entry(log(1), seq, vec![seq as u8; 600], EntryIndex { chunk: Some(hash), dataset: None });
    batch.put_row(Table::Audit, seq.to_be_bytes(), *b"audit");
    batch.put_chunk(hash, chunk);
    store.commit(batch).map(|()| hash)
}

fn du(dir: &Path) -> u64 {
    let mut bytes = std::fs::metadata(dir).unwrap().blocks() * 512;
    for entry in std::fs::read_dir(dir).unwrap() {
        let entry = entry.unwrap();
        let found = entry.metadata().unwrap();
        bytes += if found.is_dir() { du(&entry.path()) } else { found.blocks() * 512 };
    }
    bytes
}

fn assert_accounts(store: &Store, dir: &Path) {
    let (du, used) = (du(dir), store.stats().used_bytes);
    assert!(du.abs_diff(used) * 100 <= du, "du says {du}, the store says {used}");
}

#[test]
fn a_quota_is_hard_and_deleting_makes_room() {
    let dir = tempfile::tempdir().unwrap();
    let quota = 24 << 20;
    let options = StoreOptions { quota_bytes: Some(quota), segment_bytes: 1 << 20, ..options() };
    let (store, _) = Store::open(dir.path(), &options).unwrap();
    let mut seq = 0;
    let error = loop {
        match put(&store, seq) {
            Ok(_) => seq += 1,
            Err(error) => break error,
        }
    };
    assert!(matches!(error, StoreError::QuotaExceeded { .. }), "{error}");
    assert!(seq > 200, "only {seq} chunks fit");
    assert!(du(dir.path()) <= quota, "{} bytes on the disk", du(dir.path()));
    let mut batch = WriteBatch::new();
    for seq in 0..seq / 2 {
        batch.tombstone_chunk(hash_of(&body(seq, LEN)), Reason::Deleted);
    }
    store.commit(batch).expect("deleting is possible at the limit");
    store.gc(false, &Retention::default()).unwrap();
    for more in seq..seq + seq / 3 {
        put(&store, more).unwrap();
    }
    assert!(du(dir.path()) <= quota);
}

#[test]
fn what_is_accounted_is_what_the_disk_says() {
    let dir = tempfile::tempdir().unwrap();
    let options = StoreOptions { segment_bytes: 4 << 20, ..options() };
    let (store, _) = Store::open(dir.path(), &options).unwrap();
    let hashes: Vec<_> = (0..400).map(|seq| put(&store, seq).unwrap()).collect();
    assert_accounts(&store, dir.path());
    let dry = store.gc(true, &Retention { max_chunk_bytes: Some(200 * LEN as u64), ..Retention::default() }).unwrap();
    assert_eq!((dry.expired_chunks, dry.expired_bytes), (200, 200 * LEN as u64));
    assert_eq!(store.stats().chunks, 400, "a dry run changes nothing");
    let report =
        store.gc(false, &Retention { max_chunk_bytes: Some(200 * LEN as u64), ..Retention::default() }).unwrap();
    assert_eq!(report.expired_chunks, 200);
    assert!(report.removed_segments >= 2, "{report:?}");
    assert_accounts(&store, dir.path());
    let live = 200 * (LEN as u64 + 600);
    let segments: u64 = store.stats().used_bytes - store.stats().index_bytes;
    assert!(segments < live * 115 / 100, "{segments} bytes of segments for {live} live ones");
    for (seq, hash) in hashes.iter().enumerate() {
        assert_eq!(store.has_chunk(hash).unwrap(), seq >= 200);
        assert_eq!(store.entry(&log(1), seq as u64).unwrap().unwrap().len(), 600, "entries outlive their chunks");
        assert!(store.row(Table::Audit, &(seq as u64).to_be_bytes()).unwrap().is_some());
    }
    drop(store);
    let (store, report) = Store::open(dir.path(), &options).unwrap();
    assert_eq!(report.recovery, Recovery::Clean);
    assert_accounts(&store, dir.path());
    drop(store);
    std::fs::remove_dir_all(dir.path().join("index")).unwrap();
    let (store, report) = Store::open(dir.path(), &options).unwrap();
    assert!(report.damage.is_empty() && report.lost_frames == 0, "{report:?}");
    assert_eq!((store.stats().chunks, store.stats().entries, store.stats().rows), (200, 400, 400));
    assert!(store.check(false).unwrap().is_clean());
}

#[test]
fn retention_keeps_what_was_not_released_and_what_the_caller_keeps() {
    let dir = tempfile::tempdir().unwrap();
    let (store, _) = Store::open(dir.path(), &small()).unwrap();
    let hashes: Vec<_> = (0..10).map(|seq| put(&store, seq).unwrap()).collect();
    let mut batch = WriteBatch::new();
    hashes[..4].iter().for_each(|hash| {
        batch.release_chunk(*hash);
    });
    store.commit(batch).unwrap();
    let kept = hashes[1];
    let keep = move |hash: &Hash| *hash == kept;
    let retention =
        Retention { stored_before_ms: Some(u64::MAX), only_released: true, keep: Some(&keep), ..Retention::default() };
    assert_eq!(store.gc(false, &retention).unwrap().expired_chunks, 3);
    let there: Vec<_> = hashes.iter().map(|hash| store.has_chunk(hash).unwrap()).collect();
    assert_eq!(there, [false, true, false, false, true, true, true, true, true, true]);
    assert!(store.is_released(&kept).unwrap(), "the mark survives a rewrite");
    let none = Retention { stored_before_ms: Some(1), ..Retention::default() };
    assert_eq!(store.gc(false, &none).unwrap().expired_chunks, 0);
}

#[test]
fn rewritten_state_forgets_what_was_overwritten_and_keeps_deletions() {
    let dir = tempfile::tempdir().unwrap();
    let options = StoreOptions { segment_bytes: 512 << 10, ..options() };
    let (store, _) = Store::open(dir.path(), &options).unwrap();
    for round in 0..40u64 {
        let mut batch = WriteBatch::new();
        for key in 0..50u64 {
            batch.put_row(Table::Outbox, key.to_be_bytes(), vec![round as u8; 2000]);
        }
        store.commit(batch).unwrap();
    }
    let mut batch = WriteBatch::new();
    for key in 0..25u64 {
        batch.delete_row(Table::Outbox, key.to_be_bytes());
    }
    store.commit(batch).unwrap();
    let report = store.gc(false, &Retention::default()).unwrap();
    assert!(report.removed_segments > 4 && report.used_after + (3 << 20) < report.used_before, "{report:?}");
    drop(store);
    std::fs::remove_dir_all(dir.path().join("index")).unwrap();
    let (store, _) = Store::open(dir.path(), &options).unwrap();
    let rows = store.rows(Table::Outbox, &[], None, 100).unwrap();
    assert_eq!(rows.len(), 25);
    assert!(rows.iter().all(|(_, value)| *value == [39; 2000]));
}

#[test]
fn after_the_newest_chunk_segment_is_removed_older_ones_are_neither_replayed_nor_written_over() {
    let dir = tempfile::tempdir().unwrap();
    let (store, _) = Store::open(dir.path(), &small()).unwrap();
    let hashes: Vec<_> = (0..5).map(|seq| put(&store, seq).unwrap()).collect();
    let mut batch = WriteBatch::new();
    batch.tombstone_chunk(hashes[4], Reason::Deleted);
    batch.put_row(Table::Audit, 0u64.to_be_bytes(), *b"newer");
    store.commit(batch).unwrap();
    let newest = |dir: &Path| {
        let names = std::fs::read_dir(dir.join("log")).unwrap().map(|entry| entry.unwrap().file_name());
        names.filter(|name| name.to_string_lossy().starts_with("chunk")).max().unwrap()
    };
    let before = newest(dir.path());
    store.gc(false, &Retention::default()).unwrap();
    assert!(newest(dir.path()) < before, "the newest chunk segment is still there");
    drop(store);
    for more in 5..9 {
        let (store, report) = Store::open(dir.path(), &small()).unwrap();
        assert_eq!(report.recovery, Recovery::Clean, "{report:?}");
        for (seq, hash) in hashes.iter().enumerate() {
            assert_eq!(store.chunk(hash).unwrap().is_some(), seq != 4);
        }
        assert_eq!(store.row(Table::Audit, &0u64.to_be_bytes()).unwrap().unwrap(), b"newer");
        put(&store, more).unwrap();
        assert!(store.check(false).unwrap().is_clean());
    }
}

/// A small file system of its own; unmounted whatever happens.
struct Tmpfs(tempfile::TempDir);

impl Tmpfs {
    fn new(size: &str) -> Option<Self> {
        let dir = tempfile::tempdir().unwrap();
        let option = format!("size={size}");
        let mounted = Command::new("mount").args(["-t", "tmpfs", "-o", &option, "tmpfs"]).arg(dir.path()).output();
        mounted.is_ok_and(|output| output.status.success()).then_some(Self(dir))
    }
}

impl Drop for Tmpfs {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(self.0.path()).output();
    }
}

#[test]
fn a_full_disk_loses_nothing_opens_and_can_be_cleaned() {
    let Some(disk) = Tmpfs::new("24m") else {
        let required = std::env::var_os("TRIBUTARY_REQUIRE_LOOP").is_some_and(|value| value == "1");
        assert!(!required, "TRIBUTARY_REQUIRE_LOOP=1, but no tmpfs can be mounted here");
        println!("no right to mount: the full disk of the memory layer (crash tests) stands in");
        return;
    };
    let dir = disk.0.path().join("store");
    let options = StoreOptions {
        segment_bytes: 1 << 20,
        ballast_bytes: 2 << 20,
        preallocate_bytes: 256 << 10,
        min_free_bytes: 2 << 20,
        ..StoreOptions::default()
    };
    let (store, _) = Store::open(&dir, &options).unwrap();
    let mut seq = 0;
    let error = loop {
        match put(&store, seq) {
            Ok(_) => seq += 1,
            Err(error) => break error,
        }
    };
    assert!(matches!(error, StoreError::DiskFull { .. }), "{error}");
    assert!(seq > 50, "only {seq} chunks fit");
    // Somebody else takes the rest, to the last byte.
    let filler = disk.0.path().join("filler");
    let mut file = std::fs::File::create(&filler).unwrap();
    let full = loop {
        if let Err(error) = std::io::Write::write_all(&mut file, &[1; 4096]) {
            break error;
        }
    };
    assert_eq!(full.kind(), std::io::ErrorKind::StorageFull, "the fault did not happen");
    drop(store);
    let (store, report) = Store::open(&dir, &options).expect("a full disk can be opened");
    assert!(!matches!(report.recovery, Recovery::Rebuilt { .. }), "{report:?}");
    for seq in 0..seq {
        assert_eq!(store.chunk(&hash_of(&body(seq, LEN))).unwrap(), Some(body(seq, LEN)));
    }
    assert!(matches!(put(&store, seq), Err(StoreError::DiskFull { .. })));
    let report = store.gc(false, &Retention { max_chunk_bytes: Some(seq * LEN as u64 / 2), ..Retention::default() });
    assert!(report.unwrap().expired_chunks >= seq / 2);
    put(&store, seq).expect("there is room again");
    drop(store);
    let (store, _) = Store::open(&dir, &options).unwrap();
    assert_eq!(store.entries(&log(1), 0, usize::MAX, usize::MAX).unwrap().len() as u64, seq + 1);
    assert!(store.check(false).unwrap().is_clean());
}
