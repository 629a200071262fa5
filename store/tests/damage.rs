//! Damaged files: the index in every way seen, the log in every place.

#![allow(clippy::unwrap_used, clippy::panic, clippy::print_stdout, reason = "helpers of tests are tests")]

mod support;

use std::{
    fs,
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
};

use support::{body, hash_of, log, small};
use tributary_store::{ChunkState, EntryIndex, Reason, Recovery, Retention, Store, StoreError, Table, WriteBatch};

const CHUNKS: u64 = 300;
const LEN: usize = 6000;

fn fill(store: &Store, range: std::ops::Range<u64>) {
    for seq in range {
        let chunk = body(seq, LEN);
        let mut batch = WriteBatch::new();
        batch.put_entry(log(1), seq, seq.to_be_bytes(), EntryIndex::default());
        batch.put_chunk(hash_of(&chunk), chunk);
        batch.put_row(Table::Grant, seq.to_be_bytes(), vec![7; 300]);
        store.commit(batch).unwrap();
    }
}

fn lost(store: &Store) -> u64 {
    let there = |seq: &u64| {
        let chunk = body(*seq, LEN);
        store.chunk(&hash_of(&chunk)).is_ok_and(|found| found == Some(chunk))
            && store.entry(&log(1), *seq).is_ok_and(|entry| entry == Some(seq.to_be_bytes().to_vec()))
            && store.row(Table::Grant, &seq.to_be_bytes()).is_ok_and(|row| row == Some(vec![7; 300]))
    };
    (0..CHUNKS).filter(|seq| !there(seq)).count() as u64
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        if entry.file_type().unwrap().is_dir() {
            copy(&entry.path(), &to.join(entry.file_name()));
        } else {
            fs::copy(entry.path(), to.join(entry.file_name())).unwrap();
        }
    }
}

/// A store closed cleanly, the same as a kill leaves it, and an index that is much older than both.
struct Originals {
    _dir: tempfile::TempDir,
    clean: PathBuf,
    killed: PathBuf,
    old_index: PathBuf,
}

fn originals() -> Originals {
    let dir = tempfile::tempdir().unwrap();
    let (clean, killed, old_index) = (dir.path().join("clean"), dir.path().join("killed"), dir.path().join("old"));
    let (store, _) = Store::open(&clean, &small()).unwrap();
    fill(&store, 0..CHUNKS / 2);
    drop(store);
    copy(&clean.join("index"), &old_index);
    let (store, _) = Store::open(&clean, &small()).unwrap();
    fill(&store, CHUNKS / 2..CHUNKS);
    copy(&clean, &killed);
    drop(store);
    Originals { _dir: dir, clean, killed, old_index }
}

/// Changes a file in place; the size stays.
fn overwrite(path: &Path, offset: u64, change: impl Fn(u8) -> u8, len: usize) {
    let file = fs::OpenOptions::new().read(true).write(true).open(path).unwrap();
    let mut bytes = vec![0; len];
    file.read_exact_at(&mut bytes, offset).unwrap();
    bytes.iter_mut().for_each(|byte| *byte = change(*byte));
    file.write_all_at(&bytes, offset).unwrap();
}

#[test]
fn no_damage_of_the_index_loses_anything() {
    let originals = originals();
    let db = |dir: &Path| dir.join("index/db");
    // sled allocates ahead: its tail is where the zeros begin.
    let end = |path: &Path| fs::read(path).unwrap().iter().rposition(|byte| *byte != 0).unwrap() as u64 + 1;
    let cut = |path: &Path, to: u64| {
        fs::OpenOptions::new().write(true).open(path).unwrap().set_len(to).unwrap();
    };
    type Fault<'a> = (&'a str, Box<dyn Fn(&Path) + 'a>);
    let faults: Vec<Fault<'_>> = vec![
        ("tail cut", Box::new(|dir| cut(&db(dir), end(&db(dir)) - 5000))),
        ("half cut", Box::new(|dir| cut(&db(dir), end(&db(dir)) / 2))),
        ("tail flipped", Box::new(|dir| overwrite(&db(dir), end(&db(dir)) - 64, |b| !b, 64))),
        ("tail zeroed", Box::new(|dir| overwrite(&db(dir), end(&db(dir)) - 8192, |_| 0, 8192))),
        ("8 bytes flipped in the middle", Box::new(|dir| overwrite(&db(dir), end(&db(dir)) / 2, |b| !b, 8))),
        ("8 bytes flipped at a quarter", Box::new(|dir| overwrite(&db(dir), end(&db(dir)) / 4, |b| !b, 8))),
        ("8 bytes flipped at the start", Box::new(|dir| overwrite(&db(dir), 40, |b| !b, 8))),
        ("64 KiB of zeros in the middle", Box::new(|dir| overwrite(&db(dir), end(&db(dir)) / 3, |_| 0, 1 << 16))),
        ("all garbage", Box::new(|dir| fs::write(db(dir), body(1, 1 << 18)).unwrap())),
        ("emptied", Box::new(|dir| fs::write(db(dir), b"").unwrap())),
        ("db removed", Box::new(|dir| fs::remove_file(db(dir)).unwrap())),
        ("conf garbage", Box::new(|dir| fs::write(dir.join("index/conf"), b"what").unwrap())),
        ("conf removed", Box::new(|dir| fs::remove_file(dir.join("index/conf")).unwrap())),
        ("index removed", Box::new(|dir| fs::remove_dir_all(dir.join("index")).unwrap())),
        (
            "an old index",
            Box::new(|dir| {
                fs::remove_dir_all(dir.join("index")).unwrap();
                copy(&originals.old_index, &dir.join("index"));
            }),
        ),
    ];
    let mut rebuilt = 0;
    for original in [&originals.clean, &originals.killed] {
        for (what, fault) in &faults {
            let dir = tempfile::tempdir().unwrap();
            let copied = dir.path().join("store");
            copy(original, &copied);
            let before = fs::read(copied.join("index/db")).unwrap();
            fault(&copied);
            let untouched = fs::read(copied.join("index/db")).is_ok_and(|after| after == before);
            assert!(!untouched || what.starts_with("conf"), "{what}: the fault did not happen");
            let (store, report) = Store::open(&copied, &small()).unwrap_or_else(|error| panic!("{what}: {error}"));
            rebuilt += u64::from(matches!(report.recovery, Recovery::Rebuilt { .. }));
            assert_eq!(lost(&store), 0, "{what}: {report:?}");
            assert!(report.damage.is_empty() && report.cut_bytes == 0, "{what}: {report:?}");
            assert_eq!(store.stats().chunks, CHUNKS);
            drop(store);
            let (store, report) = Store::open(&copied, &small()).unwrap();
            assert_eq!((report.recovery, lost(&store)), (Recovery::Clean, 0), "{what}, opened again");
        }
    }
    assert!(rebuilt > 10, "only {rebuilt} faults were ones");
}

#[test]
fn an_index_that_is_only_locked_is_never_rebuilt_or_moved() {
    let dir = tempfile::tempdir().unwrap();
    let (store, _) = Store::open(dir.path(), &small()).unwrap();
    fill(&store, 0..20);
    drop(store);
    let holder = sled::Config::new().path(dir.path().join("index")).open().unwrap();
    let rows = holder.len();
    let error = Store::open(dir.path(), &small()).expect_err("the index is locked by somebody else");
    assert!(matches!(error, StoreError::Io { .. }), "{error:?}");
    assert!(!dir.path().join("index.discarded").exists());
    assert_eq!(holder.len(), rows);
    drop(holder);
    let (_, report) = Store::open(dir.path(), &small()).unwrap();
    assert_eq!(report.recovery, Recovery::Clean);
}

fn segments(dir: &Path, kind: &str) -> Vec<PathBuf> {
    let names = fs::read_dir(dir.join("log")).unwrap().map(|entry| entry.unwrap().path());
    let mut found: Vec<_> =
        names.filter(|path| path.file_name().unwrap().to_string_lossy().starts_with(kind)).collect();
    found.sort();
    found
}

#[test]
fn damage_in_a_closed_segment_costs_what_it_hits_and_is_reported() {
    let dir = tempfile::tempdir().unwrap();
    let (store, _) = Store::open(dir.path(), &small()).unwrap();
    fill(&store, 0..CHUNKS);
    drop(store);
    let closed = &segments(dir.path(), "chunk")[2];
    let size = fs::metadata(closed).unwrap().len();
    overwrite(closed, size / 2, |_| 0, 9000);
    fs::remove_dir_all(dir.path().join("index")).unwrap();
    let (store, report) = Store::open(dir.path(), &small()).unwrap();
    assert_eq!(report.cut_bytes, 0, "only the last segment is ever cut");
    assert_eq!(fs::metadata(closed).unwrap().len(), size, "a closed segment is never cut");
    assert!(!report.damage.is_empty() && report.lost_frames > 0, "{report:?}");
    let missing = lost(&store);
    assert!((1..=3).contains(&missing), "9,000 bytes cost {missing} of {CHUNKS}");
    let check = store.check(false).unwrap();
    assert_eq!(check.damage, report.damage);
}

#[test]
fn a_flipped_bit_in_a_body_is_found_reported_repaired_and_fetched_again() {
    let dir = tempfile::tempdir().unwrap();
    let (store, _) = Store::open(dir.path(), &small()).unwrap();
    fill(&store, 0..CHUNKS);
    let chunk = body(100, LEN);
    let hash = hash_of(&chunk);
    let mut hit = None;
    for path in segments(dir.path(), "chunk") {
        let bytes = fs::read(&path).unwrap();
        if let Some(at) = bytes.windows(64).position(|window| *window == chunk[1000..1064]) {
            overwrite(&path, at as u64, |byte| byte ^ 1, 1);
            hit = Some(path);
        }
    }
    assert!(hit.is_some(), "the fault did not happen");
    assert!(matches!(store.chunk(&hash), Err(StoreError::Damaged { .. })));
    let report = store.check(false).unwrap();
    assert_eq!(report.damaged_chunks, [hash]);
    assert_eq!(report.index_differences, 0);
    let report = store.check(true).unwrap();
    assert!(report.repaired);
    assert_eq!(store.chunk_state(&hash).unwrap(), ChunkState::Absent);
    assert!(store.check(false).unwrap().is_clean());
    let mut batch = WriteBatch::new();
    batch.put_chunk(hash, chunk.clone());
    store.commit(batch).unwrap();
    assert_eq!(store.chunk(&hash).unwrap(), Some(chunk));
}

#[test]
fn scattered_deletes_holes_and_a_lost_index_together_lose_nothing_and_bring_nothing_back() {
    let dir = tempfile::tempdir().unwrap();
    let (store, _) = Store::open(dir.path(), &small()).unwrap();
    for seq in 0..60u64 {
        let chunk = body(seq, 40_000);
        let mut batch = WriteBatch::new();
        batch.put_entry(log(1), seq, seq.to_be_bytes(), EntryIndex::default());
        batch.put_chunk(hash_of(&chunk), chunk);
        store.commit(batch).unwrap();
    }
    let mut batch = WriteBatch::new();
    for seq in (0..60).step_by(2) {
        batch.tombstone_chunk(hash_of(&body(seq, 40_000)), Reason::Deleted);
    }
    store.commit(batch).unwrap();
    let report = store.gc(false, &Retention::default()).unwrap();
    assert!(report.punched_bytes > 20 * 32_768, "no holes were punched: {report:?}");
    assert!(report.used_after < report.used_before);
    drop(store);
    fs::remove_dir_all(dir.path().join("index")).unwrap();
    let (store, report) = Store::open(dir.path(), &small()).unwrap();
    assert!(report.damage.is_empty() && report.cut_bytes == 0 && report.lost_frames == 0, "{report:?}");
    for seq in 0..60u64 {
        let chunk = body(seq, 40_000);
        assert_eq!(store.chunk(&hash_of(&chunk)).unwrap(), (seq % 2 == 1).then_some(chunk));
        assert!(store.entry(&log(1), seq).unwrap().is_some());
    }
    assert!(store.check(false).unwrap().is_clean());
}

#[test]
fn frames_inside_a_chunk_body_are_never_taken_for_records() {
    let dir = tempfile::tempdir().unwrap();
    let foreign = tempfile::tempdir().unwrap();
    // Frames of another store, with the segment number this store uses too.
    let (store, _) = Store::open(foreign.path(), &small()).unwrap();
    let mut batch = WriteBatch::new();
    batch.put_row(Table::Grant, *b"everything", *b"for the attacker");
    store.commit(batch).unwrap();
    drop(store);
    let forged = fs::read(&segments(foreign.path(), "state")[0]).unwrap()[128..].to_vec();
    assert!(forged.starts_with(b"TRF1"));
    let (store, _) = Store::open(dir.path(), &small()).unwrap();
    let mut batch = WriteBatch::new();
    let evil = forged.repeat(20);
    batch.put_chunk(hash_of(&evil), evil.clone());
    store.commit(batch).unwrap();
    fill(&store, 0..50);
    drop(store);
    // Damage the evil chunk's own header, so that the search for the next frame walks through its body.
    let first = &segments(dir.path(), "chunk")[0];
    overwrite(first, 128, |byte| !byte, 8);
    fs::remove_dir_all(dir.path().join("index")).unwrap();
    let (store, report) = Store::open(dir.path(), &small()).unwrap();
    assert!(!report.damage.is_empty(), "the fault did not happen: {report:?}");
    assert_eq!(store.row(Table::Grant, b"everything").unwrap(), None);
    assert_eq!(store.stats().chunks, 50);
}

#[test]
fn a_segment_with_a_damaged_header_is_still_read() {
    let dir = tempfile::tempdir().unwrap();
    let (store, _) = Store::open(dir.path(), &small()).unwrap();
    fill(&store, 0..CHUNKS);
    drop(store);
    overwrite(&segments(dir.path(), "chunk")[1], 0, |byte| !byte, 100);
    fs::remove_dir_all(dir.path().join("index")).unwrap();
    let (store, report) = Store::open(dir.path(), &small()).unwrap();
    assert_eq!((report.damage.len(), lost(&store)), (1, 0), "{report:?}");
}

#[test]
fn a_backup_is_the_whole_store_and_a_restore_counts_itself() {
    let dir = tempfile::tempdir().unwrap();
    let (store, _) = Store::open(dir.path().join("a"), &small()).unwrap();
    fill(&store, 0..CHUNKS);
    store.backup(dir.path().join("b")).unwrap();
    assert!(matches!(store.backup(dir.path().join("b")), Err(StoreError::NotEmpty { .. })));
    fill(&store, CHUNKS..CHUNKS + 5);
    let (restored, report) = Store::restore(dir.path().join("b"), dir.path().join("c"), &small()).unwrap();
    assert!(report.damage.is_empty(), "{report:?}");
    assert_eq!(lost(&restored), 0);
    assert_eq!(restored.head(&log(1)).unwrap().unwrap().0, CHUNKS - 1);
    assert_eq!(restored.counter(tributary_store::RESTORED).unwrap(), 1);
    assert_eq!(store.counter(tributary_store::RESTORED).unwrap(), 0);
    assert!(matches!(
        Store::restore(dir.path().join("b"), dir.path().join("c"), &small()),
        Err(StoreError::NotEmpty { .. })
    ));
}
