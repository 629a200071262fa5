//! Random operations, reopenings, power cuts and lost indexes against a model in memory.

#![allow(clippy::unwrap_used, clippy::panic, clippy::print_stdout, reason = "helpers of tests are tests")]

mod support;

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, atomic::Ordering},
};

use proptest::prelude::*;
use support::{body, disk::MemoryDisk, hash_of, log, small};
use tributary_store::{ChunkState, EntryIndex, Reason, Retention, Store, StoreError, StoreOptions, Table, WriteBatch};

#[derive(Debug, Clone)]
enum Step {
    Put { log: u8, chunks: Vec<u64> },
    Row { key: u8, len: usize },
    DeleteRow { key: u8 },
    Counter { value: u64 },
    Tombstone { chunk: u64 },
    Release { chunk: u64 },
    Truncate { log: u8, keep: u64 },
    Refused { log: u8 },
    Gc { max_chunks: Option<u64> },
    Reopen,
    Rebuild,
    Cut { seed: u64, lose_index: bool },
    CutInCommit { seed: u64, log: u8 },
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        8 => (0u8..3, prop::collection::vec(0u64..60, 1..4)).prop_map(|(log, chunks)| Step::Put { log, chunks }),
        3 => (0u8..6, 0usize..900).prop_map(|(key, len)| Step::Row { key, len }),
        2 => (0u8..6).prop_map(|key| Step::DeleteRow { key }),
        1 => any::<u64>().prop_map(|value| Step::Counter { value }),
        3 => (0u64..60).prop_map(|chunk| Step::Tombstone { chunk }),
        1 => (0u64..60).prop_map(|chunk| Step::Release { chunk }),
        1 => (0u8..3, 0u64..6).prop_map(|(log, keep)| Step::Truncate { log, keep }),
        1 => (0u8..3).prop_map(|log| Step::Refused { log }),
        2 => prop::option::of(0u64..20).prop_map(|max_chunks| Step::Gc { max_chunks }),
        1 => Just(Step::Reopen),
        1 => Just(Step::Rebuild),
        1 => (any::<u64>(), any::<bool>()).prop_map(|(seed, lose_index)| Step::Cut { seed, lose_index }),
        1 => (any::<u64>(), 0u8..3).prop_map(|(seed, log)| Step::CutInCommit { seed, log }),
    ]
}

const LEN: usize = 5000;

#[derive(Debug, Default, Clone, PartialEq)]
struct Model {
    logs: BTreeMap<u8, Vec<Vec<u8>>>,
    evidence: BTreeMap<u8, u64>,
    chunks: BTreeSet<u64>,
    tombstones: BTreeSet<u64>,
    rows: BTreeMap<u8, Vec<u8>>,
    counter: u64,
}

struct World {
    dir: tempfile::TempDir,
    disk: MemoryDisk,
    store: Option<Store>,
    model: Model,
    /// Makes every entry different.
    tick: u64,
}

impl World {
    fn new() -> Self {
        let mut world = Self {
            dir: tempfile::tempdir().unwrap(),
            disk: MemoryDisk::default(),
            store: None,
            model: Model::default(),
            tick: 0,
        };
        world.open();
        world
    }

    fn open(&mut self) {
        let options = StoreOptions { fs: Arc::new(self.disk.clone()), segment_bytes: 64 << 10, ..small() };
        let (store, report) = Store::open(self.dir.path(), &options).unwrap();
        assert!(report.damage.is_empty() && report.lost_frames == 0, "{report:?}");
        self.store = Some(store);
    }

    fn store(&self) -> &Store {
        self.store.as_ref().unwrap()
    }

    fn lose_index(&self) {
        std::fs::remove_dir_all(self.dir.path().join("index")).unwrap();
    }

    fn batch(&mut self, log_number: u8, chunks: &[u64], model: &mut Model) -> WriteBatch {
        let mut batch = WriteBatch::new();
        for chunk in chunks {
            self.tick += 1;
            let hash = hash_of(&body(*chunk, LEN));
            let entries = model.logs.entry(log_number).or_default();
            let bytes = self.tick.to_be_bytes().to_vec();
            let index = EntryIndex { chunk: Some(hash), dataset: None };
            batch.put_entry(log(log_number), entries.len() as u64, bytes.clone(), index);
            entries.push(bytes);
            batch.put_chunk(hash, body(*chunk, LEN));
            model.chunks.insert(*chunk);
            model.tombstones.remove(chunk);
        }
        batch
    }

    fn run(&mut self, step: &Step) {
        let mut model = self.model.clone();
        let mut batch = WriteBatch::new();
        match step {
            Step::Put { log, chunks } => batch = self.batch(*log, chunks, &mut model),
            Step::Row { key, len } => {
                let value = body(u64::from(*key) + *len as u64, *len);
                batch.put_row(Table::Order, [*key], value.clone());
                model.rows.insert(*key, value);
            }
            Step::DeleteRow { key } => {
                batch.delete_row(Table::Order, [*key]);
                model.rows.remove(key);
            }
            Step::Counter { value } => {
                batch.set_counter("counter", *value);
                model.counter = *value;
            }
            Step::Tombstone { chunk } => {
                batch.tombstone_chunk(hash_of(&body(*chunk, LEN)), Reason::Deleted);
                model.chunks.remove(chunk);
                model.tombstones.insert(*chunk);
            }
            Step::Release { chunk } => {
                batch.release_chunk(hash_of(&body(*chunk, LEN)));
            }
            Step::Truncate { log: number, keep } => {
                let entries = model.logs.entry(*number).or_default();
                batch.truncate_log(log(*number), *keep);
                let removed = entries.len().saturating_sub(*keep as usize);
                entries.truncate(*keep as usize);
                *model.evidence.entry(*number).or_default() += removed as u64;
            }
            Step::Refused { log: number } => {
                if model.logs.get(number).is_some_and(|entries| !entries.is_empty()) {
                    batch.put_row(Table::Order, [0], *b"never");
                    batch.put_entry(log(*number), 0, *b"never", EntryIndex::default());
                    assert!(matches!(self.store().commit(batch), Err(StoreError::EntryConflict { .. })));
                }
                return;
            }
            Step::Gc { max_chunks } => {
                let max_chunk_bytes = max_chunks.map(|max| max * LEN as u64);
                self.store().gc(false, &Retention { max_chunk_bytes, ..Retention::default() }).unwrap();
                if let Some(max) = max_chunks {
                    // Which went is the store's choice (the oldest); how many is not.
                    let there = |chunk: &u64| self.store().has_chunk(&hash_of(&body(*chunk, LEN))).unwrap();
                    let left: BTreeSet<u64> = model.chunks.iter().copied().filter(there).collect();
                    assert_eq!(left.len() as u64, (model.chunks.len() as u64).min(*max));
                    let gone: Vec<u64> = model.chunks.difference(&left).copied().collect();
                    model.tombstones.extend(gone);
                    model.chunks = left;
                }
                self.model = model;
                return;
            }
            Step::Reopen | Step::Rebuild => {
                self.store = None;
                if matches!(step, Step::Rebuild) {
                    self.lose_index();
                }
                self.open();
                return;
            }
            Step::Cut { seed, lose_index } => {
                self.disk.power_off();
                self.store = None;
                self.disk.power_on(*seed);
                if *lose_index {
                    self.lose_index();
                }
                self.open();
                return;
            }
            Step::CutInCommit { seed, log } => {
                let batch = self.batch(*log, &[100 + self.tick % 7, 101], &mut model);
                self.disk.faults.fail_sync.store(true, Ordering::SeqCst);
                assert!(self.store().commit(batch).is_err());
                self.disk.power_off();
                self.store = None;
                self.disk.power_on(*seed);
                self.disk.faults.fail_sync.store(false, Ordering::SeqCst);
                self.open();
                // All of it or nothing of it.
                let found = self.store().head(&support::log(*log)).unwrap().map_or(0, |(seq, _)| seq as usize + 1);
                if found == model.logs[log].len() {
                    self.model = model;
                }
                return;
            }
        }
        self.store().commit(batch).unwrap();
        self.model = model;
    }

    fn compare(&self) {
        let (store, model) = (self.store(), &self.model);
        for (number, entries) in &model.logs {
            let found = store.entries(&log(*number), 0, usize::MAX, usize::MAX).unwrap();
            assert_eq!(&found.into_iter().map(|entry| entry.bytes).collect::<Vec<_>>(), entries);
        }
        for (number, count) in &model.evidence {
            assert_eq!(store.evidence(&log(*number), 0, usize::MAX).unwrap().len() as u64, *count);
        }
        for chunk in (0..60).chain(100..108) {
            let expected = body(chunk, LEN);
            let hash = hash_of(&expected);
            let state = store.chunk_state(&hash).unwrap();
            if model.chunks.contains(&chunk) {
                assert_eq!(store.chunk(&hash).unwrap(), Some(expected));
            } else if model.tombstones.contains(&chunk) {
                assert_eq!(state, ChunkState::Tombstoned);
            } else {
                assert_eq!(state, ChunkState::Absent);
            }
        }
        let rows = store.rows(Table::Order, &[], None, 100).unwrap();
        let expected: Vec<_> = model.rows.iter().map(|(key, value)| (vec![*key], value.clone())).collect();
        assert_eq!(rows, expected);
        assert_eq!(store.counter("counter").unwrap(), model.counter);
        assert_eq!(store.stats().chunks, model.chunks.len() as u64);
        assert_eq!(store.stats().tombstones, model.tombstones.len() as u64);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 40, max_shrink_iters: 200, ..ProptestConfig::default() })]
    #[test]
    fn the_store_does_what_the_model_does(steps in prop::collection::vec(step(), 1..40)) {
        let mut world = World::new();
        for step in &steps {
            world.run(step);
        }
        world.compare();
        world.run(&Step::Reopen);
        world.compare();
        world.run(&Step::Rebuild);
        world.compare();
        prop_assert!(world.store().check(false).unwrap().is_clean());
    }
}
