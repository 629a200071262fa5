//! What a node left on the disk, read without the node.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::Path,
};

use tributary_protocol::{
    binding::SignedBinding,
    dataset::DatasetEntry,
    entry::{EntryBody, SignedEntry},
    feed::{EntryVerdict, Follower, History},
    ids::{DatasetId, Did, LogId, LogKey, StreamId},
    keytree::Position,
    record::ChunkRecord,
};
use tributary_store::{Store, StoreOptions, Table};

/// Everything in the logs of one machine, checked from its DID.
#[derive(Debug, Default)]
pub struct Logs {
    /// Chunk records in the order of their logs, with the log they stand in.
    pub records: Vec<(LogKey, ChunkRecord)>,
    /// Datasets that were closed.
    pub datasets: BTreeMap<DatasetId, DatasetEntry>,
    /// Entries by log.
    pub entries: BTreeMap<LogKey, Vec<SignedEntry>>,
    /// Proofs that the machine tells two stories, as a follower finds them.
    pub equivocations: usize,
}

struct Stored<'a>(&'a Store);

impl History for Stored<'_> {
    fn entry(&self, log: &LogKey, seq: u64) -> Option<Vec<u8>> {
        self.0.entry(log, seq).unwrap()
    }

    fn dataset_closed(&self, _: &Did, _: &DatasetId) -> Option<Vec<u8>> {
        None
    }
}

/// Opens the store of a home whose node does not run.
///
/// # Panics
///
/// When it cannot be opened.
#[must_use]
pub fn store(home: &Path) -> Store {
    Store::open(home.join("store"), &StoreOptions { create: false, ..StoreOptions::default() }).unwrap().0
}

/// The signed bindings of `did`, oldest first.
///
/// # Panics
///
/// When they cannot be read.
#[must_use]
pub fn bindings(store: &Store, did: &Did) -> Vec<SignedBinding> {
    let rows = store.rows(Table::Binding, did.as_bytes(), None, 1024).unwrap();
    rows.iter().map(|(_, bytes)| SignedBinding::decode(bytes).unwrap()).collect()
}

/// Follows `did` through all its logs in the store of `home`, as a stranger would: bindings first, then every entry.
///
/// # Panics
///
/// When a log has a gap, or an entry in it does not count.
#[must_use]
pub fn follow(home: &Path, did: &Did) -> Logs {
    let store = store(home);
    let logs = follow_store(&store, did);
    store.close().unwrap();
    logs
}

fn follow_store(store: &Store, did: &Did) -> Logs {
    let mut follower = Follower::new(*did);
    for signed in bindings(store, did) {
        let _ = follower.on_binding(&signed, &Stored(store)).unwrap();
    }
    let mut logs = Logs::default();
    let mut keys = store.logs(Some(did)).unwrap();
    keys.sort_unstable_by_key(|log| (log.incarnation, log.log));
    for log in keys {
        let (newest, _) = store.head(&log).unwrap().unwrap();
        let mut all = Vec::new();
        for seq in 0..=newest {
            let bytes = store.entry(&log, seq).unwrap();
            let bytes = bytes.unwrap_or_else(|| panic!("{log:?} has no entry {seq} of {newest}"));
            let signed = SignedEntry::decode(&bytes).unwrap();
            let verdict = follower.on_entry(&signed, u64::MAX / 2, &Stored(store));
            assert!(matches!(verdict, EntryVerdict::Apply { .. }), "entry {seq} of {log:?}: {verdict:?}");
            match &signed.entry().body {
                EntryBody::Chunk(record) => logs.records.push((log, record.clone())),
                EntryBody::DatasetClosed(entry) => {
                    let before = logs.datasets.insert(entry.dataset, entry.clone());
                    assert!(before.is_none(), "dataset {} was closed twice", entry.dataset);
                }
                _ => {}
            }
            all.push(signed);
        }
        assert_eq!(follower.settled(&log.log, log.incarnation), newest + 1, "{log:?} is not certain to its end");
        logs.entries.insert(log, all);
    }
    logs.equivocations = follower.evidence().len();
    logs
}

impl Logs {
    /// Packages in the records of a stream.
    #[must_use]
    pub fn packages(&self, stream: &StreamId) -> u64 {
        self.of(stream).map(|record| u64::from(record.package_count)).sum()
    }

    /// The records of a stream.
    pub fn of<'a>(&'a self, stream: &StreamId) -> impl Iterator<Item = &'a ChunkRecord> {
        self.records.iter().filter(|(log, _)| log.log == LogId::from(*stream)).map(|(_, record)| record)
    }

    /// Asserts that every chunk belongs to a closed dataset which has exactly the chunks it says.
    ///
    /// # Panics
    ///
    /// When one does not.
    pub fn assert_all_closed(&self) {
        let mut counts: BTreeMap<DatasetId, u32> = BTreeMap::new();
        for (_, record) in &self.records {
            *counts.entry(record.dataset).or_default() += 1;
        }
        for (dataset, count) in counts {
            let entry = self.datasets.get(&dataset).unwrap_or_else(|| panic!("dataset {dataset} was never closed"));
            assert_eq!(entry.chunk_count, count, "dataset {dataset}");
        }
    }
}

/// Asserts that no key position and no package number was used for two different chunks in any of `logs`: copies of one chunk
/// are the same chunk.
///
/// # Panics
///
/// When one was.
pub fn assert_nothing_used_twice<'a>(logs: impl IntoIterator<Item = &'a Logs>) {
    let mut positions: BTreeMap<(StreamId, u64, Position, [u8; 32]), ChunkRecord> = BTreeMap::new();
    let mut commitments: BTreeMap<[u8; 32], ChunkRecord> = BTreeMap::new();
    let mut numbers: BTreeMap<StreamId, BTreeSet<(u64, u64, [u8; 24])>> = BTreeMap::new();
    for record in logs.into_iter().flat_map(|logs| &logs.records).map(|(_, record)| record) {
        // The commitment is of the key itself: the same key would have the same, wherever it stands.
        let place = (record.stream, record.epoch, record.position, record.key_commitment);
        let first = positions.entry(place).or_insert_with(|| record.clone());
        assert_eq!(first, record, "position {:?} of epoch {} holds two chunks", record.position, record.epoch);
        let first = commitments.entry(record.key_commitment).or_insert_with(|| record.clone());
        assert_eq!(first, record, "two chunks have one key");
        if record.package_count > 0 {
            let last = record.first_number + u64::from(record.package_count) - 1;
            numbers.entry(record.stream).or_default().insert((record.first_number, last, record.nonce));
        }
    }
    for (stream, ranges) in numbers {
        let mut end = None;
        for (first, last, _) in ranges {
            assert!(
                end < Some(first),
                "packages {first} to {last} of stream {stream} have numbers that were given before"
            );
            end = Some(last);
        }
    }
}
