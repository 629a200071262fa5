//! What a caller sees: batches, reads, reopening.

#![allow(clippy::unwrap_used, clippy::panic, clippy::print_stdout, reason = "helpers of tests are tests")]

mod support;

use std::ops::Bound;

use support::{body, hash_of, log, options, small};
use tributary_protocol::ids::DatasetId;
use tributary_store::{ChunkState, EntryIndex, Reason, Recovery, Store, StoreError, Table, VerifiedChunk, WriteBatch};

#[test]
fn what_was_committed_is_there_after_a_clean_reopen_and_after_a_rebuild() {
    let dir = tempfile::tempdir().unwrap();
    let dataset = DatasetId::from_bytes([9; 32]);
    {
        let (store, report) = Store::open(dir.path(), &options()).unwrap();
        assert_eq!(report.recovery, Recovery::Created);
        for seq in 0..40u64 {
            let chunk = body(seq, 5000);
            let hash = hash_of(&chunk);
            let mut batch = WriteBatch::new();
            let index = EntryIndex { chunk: Some(hash), dataset: Some((dataset, seq as u32)) };
            batch.put_entry(log(1), seq, format!("entry {seq}"), index);
            batch.put_chunk(hash, chunk);
            batch.put_row(Table::Audit, seq.to_be_bytes(), vec![seq as u8; seq as usize * 20]);
            batch.set_counter("next", seq + 1);
            store.commit(batch).unwrap();
        }
        let mut batch = WriteBatch::new();
        batch.tombstone_chunk(hash_of(&body(3, 5000)), Reason::Deleted);
        batch.delete_row(Table::Audit, 5u64.to_be_bytes());
        batch.release_chunk(hash_of(&body(4, 5000)));
        store.commit(batch).unwrap();
        store.close().unwrap();
    }
    for rebuild in [false, true] {
        if rebuild {
            std::fs::remove_dir_all(dir.path().join("index")).unwrap();
        }
        let (store, report) = Store::open(dir.path(), &options()).unwrap();
        assert_eq!(matches!(report.recovery, Recovery::Rebuilt { .. }), rebuild, "{report:?}");
        assert!(report.damage.is_empty() && report.cut_bytes == 0 && report.lost_frames == 0, "{report:?}");
        for seq in 0..40u64 {
            assert_eq!(store.entry(&log(1), seq).unwrap().unwrap(), format!("entry {seq}").into_bytes());
            let expected = body(seq, 5000);
            let hash = hash_of(&expected);
            assert_eq!(store.chunk(&hash).unwrap(), (seq != 3).then_some(expected));
            assert_eq!(store.chunk_entry(&hash).unwrap(), Some((log(1), seq)));
            let row = store.row(Table::Audit, &seq.to_be_bytes()).unwrap();
            assert_eq!(row, (seq != 5).then(|| vec![seq as u8; seq as usize * 20]));
        }
        assert_eq!(store.chunk_state(&hash_of(&body(3, 5000))).unwrap(), ChunkState::Tombstoned);
        assert_eq!(store.chunk_state(&hash_of(b"never")).unwrap(), ChunkState::Absent);
        assert!(store.is_released(&hash_of(&body(4, 5000))).unwrap());
        assert!(!store.is_released(&hash_of(&body(6, 5000))).unwrap());
        assert_eq!(store.counter("next").unwrap(), 40);
        assert_eq!(store.counter("other").unwrap(), 0);
        assert_eq!(store.head(&log(1)).unwrap(), Some((39, b"entry 39".to_vec())));
        assert_eq!(store.logs(None).unwrap(), [log(1)]);
        let chunks = store.dataset_chunks(&dataset, 10, 5).unwrap();
        assert_eq!(
            chunks.iter().map(|chunk| (chunk.0, chunk.2)).collect::<Vec<_>>(),
            [(10, 10), (11, 11), (12, 12), (13, 13), (14, 14)]
        );
        assert_eq!(store.rows(Table::Audit, &[], Some(&4u64.to_be_bytes()), 2).unwrap().len(), 2);
        assert_eq!(store.entries(&log(1), 35, 100, usize::MAX).unwrap().len(), 5);
        assert_eq!(store.entries(&log(1), 0, 100, 20).unwrap().len(), 2);
        let stats = store.stats();
        assert_eq!((stats.chunks, stats.entries, stats.rows, stats.tombstones), (39, 40, 39, 1));
    }
}

#[test]
fn a_batch_is_refused_as_a_whole() {
    let dir = tempfile::tempdir().unwrap();
    let (store, _) = Store::open(dir.path(), &options()).unwrap();
    let mut batch = WriteBatch::new();
    batch.put_entry(log(1), 0, *b"first", EntryIndex::default());
    store.commit(batch).unwrap();

    let mut batch = WriteBatch::new();
    batch.put_row(Table::Meta, *b"k", *b"v");
    batch.put_entry(log(1), 0, *b"other", EntryIndex::default());
    assert!(matches!(store.commit(batch), Err(StoreError::EntryConflict { seq: 0, .. })));
    assert_eq!(store.row(Table::Meta, b"k").unwrap(), None);

    let mut batch = WriteBatch::new();
    batch.put_row(Table::Meta, *b"k", *b"v");
    batch.put_chunk(hash_of(b"one"), b"two".as_slice());
    assert!(matches!(store.commit(batch), Err(StoreError::HashMismatch { .. })));
    let mut batch = WriteBatch::new();
    batch.put_row(Table::Meta, vec![0; 2000], *b"v");
    assert!(matches!(store.commit(batch), Err(StoreError::TooLarge { .. })));
    let mut batch = WriteBatch::new();
    batch.put_entry(log(1), 0, *b"first", EntryIndex::default());
    store.commit(batch).expect("the same entry again is no conflict");
}

#[test]
fn a_truncated_log_goes_on_and_keeps_the_old_entries_as_evidence() {
    let dir = tempfile::tempdir().unwrap();
    let dataset = DatasetId::from_bytes([9; 32]);
    let put = |store: &Store, seq: u64, text: &str, cut: bool| {
        let mut batch = WriteBatch::new();
        if cut {
            batch.truncate_log(log(1), seq);
        }
        let index = EntryIndex { chunk: Some(hash_of(text.as_bytes())), dataset: Some((dataset, seq as u32)) };
        batch.put_entry(log(1), seq, text, index);
        store.commit(batch)
    };
    let (store, _) = Store::open(dir.path(), &options()).unwrap();
    for seq in 0..5 {
        put(&store, seq, &format!("old {seq}"), false).unwrap();
    }
    assert!(put(&store, 3, "new 3", false).is_err());
    put(&store, 3, "new 3", true).unwrap();
    drop(store);
    for rebuild in [false, true] {
        if rebuild {
            std::fs::remove_dir_all(dir.path().join("index")).unwrap();
        }
        let (store, _) = Store::open(dir.path(), &options()).unwrap();
        assert_eq!(store.head(&log(1)).unwrap(), Some((3, b"new 3".to_vec())));
        let evidence = store.evidence(&log(1), 0, 10).unwrap();
        assert_eq!(
            evidence.iter().map(|entry| entry.bytes.clone()).collect::<Vec<_>>(),
            [b"old 3".to_vec(), b"old 4".to_vec()]
        );
        assert_eq!(store.chunk_entry(&hash_of(b"old 4")).unwrap(), None);
        assert_eq!(store.dataset_chunks(&dataset, 0, 10).unwrap().len(), 4);
    }
}

#[test]
fn a_second_open_of_the_same_store_is_refused_and_named() {
    let dir = tempfile::tempdir().unwrap();
    let (store, _) = Store::open(dir.path(), &options()).unwrap();
    match Store::open(dir.path(), &options()) {
        Err(StoreError::Locked { pid, .. }) => assert_eq!(pid, Some(std::process::id())),
        other => panic!("{other:?}"),
    }
    drop(store);
    Store::open(dir.path(), &options()).expect("the lock was given back");
}

#[test]
fn a_directory_that_is_no_store_is_left_alone() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("thesis.txt"), "years of work").unwrap();
    assert!(matches!(Store::open(dir.path(), &options()), Err(StoreError::NotAStore { .. })));
    assert!(!dir.path().join("log").exists() && !dir.path().join("index").exists());
    let missing = dir.path().join("missing");
    let only_existing = tributary_store::StoreOptions { create: false, ..options() };
    assert!(Store::open(&missing, &only_existing).is_err());
}

#[test]
fn a_newer_format_is_refused_by_name() {
    let dir = tempfile::tempdir().unwrap();
    drop(Store::open(dir.path(), &options()).unwrap());
    let format = dir.path().join("FORMAT");
    let text = std::fs::read_to_string(&format).unwrap();
    std::fs::write(&format, text.replace("version 1", "version 2")).unwrap();
    let error = Store::open(dir.path(), &options()).unwrap_err();
    assert!(matches!(error, StoreError::UnsupportedVersion { found: 2, supported: 1, .. }), "{error}");
}

#[test]
fn a_lost_format_file_is_made_again_from_a_segment() {
    let dir = tempfile::tempdir().unwrap();
    let chunk = body(1, 5000);
    {
        let (store, _) = Store::open(dir.path(), &options()).unwrap();
        let mut batch = WriteBatch::new();
        batch.put_verified(VerifiedChunk::of(chunk.clone()));
        store.commit(batch).unwrap();
    }
    std::fs::remove_file(dir.path().join("FORMAT")).unwrap();
    let (store, _) = Store::open(dir.path(), &options()).unwrap();
    assert_eq!(store.chunk(&hash_of(&chunk)).unwrap(), Some(chunk));
}

#[test]
fn many_writers_share_the_log_and_every_callback_comes_once() {
    let dir = tempfile::tempdir().unwrap();
    let (store, _) = Store::open(dir.path(), &small()).unwrap();
    let done = std::sync::Arc::new(std::sync::atomic::AtomicU64::new(0));
    std::thread::scope(|scope| {
        for writer in 0..4u64 {
            let (store, done) = (store.clone(), done.clone());
            scope.spawn(move || {
                for seq in 0..60 {
                    let mut batch = WriteBatch::new();
                    batch.put_chunk(hash_of(&body(writer * 1000 + seq, 3000)), body(writer * 1000 + seq, 3000));
                    batch.put_entry(log(writer as u8), seq, vec![seq as u8], EntryIndex::default());
                    let done = done.clone();
                    store
                        .submit(batch, move |result| {
                            result.unwrap();
                            done.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
                        })
                        .unwrap();
                }
            });
        }
    });
    store.close().unwrap();
    assert_eq!(done.load(std::sync::atomic::Ordering::Relaxed), 240);
    let (store, report) = Store::open(dir.path(), &small()).unwrap();
    assert_eq!(report.recovery, Recovery::Clean);
    assert_eq!(store.stats().chunks, 240);
    assert!(store.stats().segments > 5, "small segments must have been closed on the way");
    for writer in 0..4u64 {
        assert_eq!(store.entries(&log(writer as u8), 0, 1000, usize::MAX).unwrap().len(), 60);
    }
}

#[test]
fn a_chunk_is_read_in_parts() {
    let dir = tempfile::tempdir().unwrap();
    let (store, _) = Store::open(dir.path(), &options()).unwrap();
    let chunk = body(1, 10_000);
    let hash = hash_of(&chunk);
    let mut batch = WriteBatch::new();
    batch.put_chunk(hash, chunk.clone());
    store.commit(batch).unwrap();
    let reader = store.chunk_reader(&hash).unwrap().unwrap();
    let mut part = [0; 4096];
    assert_eq!(reader.read_at(&mut part, 8000).unwrap(), 2000);
    assert_eq!(part[..2000], chunk[8000..]);
    assert_eq!(reader.read_at(&mut part, u32::MAX).unwrap(), 0);
}

#[test]
fn a_callback_that_panics_harms_nobody_else() {
    let dir = tempfile::tempdir().unwrap();
    let (store, _) = Store::open(dir.path(), &options()).unwrap();
    let mut batch = WriteBatch::new();
    batch.set_counter("a", 1);
    store.submit(batch, |_| panic!("a bug of the caller")).unwrap();
    let mut batch = WriteBatch::new();
    batch.set_counter("b", 2);
    store.commit(batch).unwrap();
    assert_eq!((store.counter("a").unwrap(), store.counter("b").unwrap()), (1, 2));
}

#[test]
fn readers_see_whole_chunks_or_none_while_others_write_delete_and_collect() {
    const CHUNKS: u64 = 400;
    let dir = tempfile::tempdir().unwrap();
    let (store, _) = Store::open(dir.path(), &small()).unwrap();
    let done = std::sync::atomic::AtomicBool::new(false);
    let seen = std::sync::atomic::AtomicU64::new(0);
    std::thread::scope(|scope| {
        for reader in 0..2u64 {
            let (store, done, seen) = (&store, &done, &seen);
            scope.spawn(move || {
                let mut seq = reader;
                while !done.load(std::sync::atomic::Ordering::SeqCst) {
                    seq = (seq + 7) % CHUNKS;
                    let expected = body(seq, 9000);
                    if let Some(found) = store.chunk(&hash_of(&expected)).unwrap() {
                        assert_eq!(found, expected);
                        seen.fetch_add(1, std::sync::atomic::Ordering::SeqCst);
                    }
                    if let Some(entry) = store.entry(&log(1), seq).unwrap() {
                        assert_eq!(entry, seq.to_be_bytes());
                    }
                }
            });
        }
        for seq in 0..CHUNKS {
            let mut batch = WriteBatch::new();
            batch.put_entry(log(1), seq, seq.to_be_bytes(), EntryIndex::default());
            batch.put_chunk(hash_of(&body(seq, 9000)), body(seq, 9000));
            if seq >= 40 {
                batch.tombstone_chunk(hash_of(&body(seq - 40 + seq % 3, 9000)), Reason::Deleted);
            }
            store.commit(batch).unwrap();
            if seq % 25 == 24 {
                store.gc(false, &tributary_store::Retention::default()).unwrap();
            }
        }
        done.store(true, std::sync::atomic::Ordering::SeqCst);
    });
    assert!(seen.into_inner() > 0);
    assert!(store.check(false).unwrap().is_clean());
    assert_eq!(store.entries(&log(1), 0, usize::MAX, usize::MAX).unwrap().len() as u64, CHUNKS);
}

#[test]
fn a_store_opens_right_after_it_was_closed() {
    let dir = tempfile::tempdir().unwrap();
    for round in 0..60u64 {
        let (store, _) = Store::open(dir.path(), &small()).unwrap_or_else(|e| panic!("round {round}: {e:?}"));
        let mut batch = WriteBatch::new();
        batch.put_row(Table::Meta, round.to_be_bytes(), *b"row");
        store.commit(batch).unwrap();
        store.close().unwrap();
    }
}

#[test]
fn a_log_is_read_in_any_range_page_by_page_and_over_gaps() {
    let dir = tempfile::tempdir().unwrap();
    let (store, _) = Store::open(dir.path(), &options()).unwrap();
    let seqs: Vec<u64> = (3..700).filter(|seq| !(300..400).contains(seq)).collect();
    let mut batch = WriteBatch::new();
    for seq in &seqs {
        batch.put_entry(log(1), *seq, vec![7; 3000], EntryIndex::default());
    }
    batch.put_entry(log(2), 0, "of another log", EntryIndex::default());
    store.commit(batch).unwrap();
    let read = |range: (Bound<u64>, Bound<u64>)| -> Vec<u64> {
        store.log(&log(1), range).map(|entry| entry.unwrap().seq).collect()
    };
    let all = (Bound::Unbounded, Bound::Unbounded);
    assert_eq!(read(all), seqs);
    for (first, last) in
        [(0, 2), (0, 3), (3, 3), (258, 259), (290, 410), (310, 390), (310, 400), (600, 900), (700, 800)]
    {
        let expected: Vec<u64> = seqs.iter().copied().filter(|seq| (first..=last).contains(seq)).collect();
        assert_eq!(read((Bound::Included(first), Bound::Included(last))), expected, "{first}..={last}");
        assert_eq!(read((Bound::Included(first), Bound::Excluded(last + 1))), expected, "{first}..{}", last + 1);
    }
    assert!(read((Bound::Excluded(u64::MAX), Bound::Unbounded)).is_empty());
    assert!(read((Bound::Unbounded, Bound::Excluded(0))).is_empty());
    assert!(read((Bound::Included(9), Bound::Included(5))).is_empty());
}
