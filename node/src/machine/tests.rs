//! What the selling side promises, on a real store.

use std::{
    fs,
    path::Path,
    sync::atomic::{AtomicU64, Ordering::Relaxed},
};

use tributary_protocol::{
    access::Range,
    dataset::{DatasetBuilder, DatasetEntry},
    ids::{LogId, LogKey},
    json::{Object, Value},
    package::DataPackage,
    record::ChunkRecord,
    seal,
};
use tributary_store::{StoreOptions, Table};

use super::*;
use crate::{
    config::{Config, Overrides},
    home::{InitOptions, MachineKeys, OwnerKey},
    ingest::{Content as SourceContent, Fields, IngestError, Source, SourceItem, SourceMessage},
    proposal::Change,
};

pub(super) const MAP: &str = "
roles: [machine]
streams:
  - topic: /fix
    alias: position
    mode: fields
    default: include
    rules:
      - { path: altitude, action: exclude }
    chunk: { bytes: 4KiB, max_age: 1h }
    access: { policy: free }
  - topic: /files
    mode: file
    chunk: { bytes: 4KiB }
";

/// A home with a machine in it.
pub(super) struct Bench {
    pub(super) folder: tempfile::TempDir,
    pub(super) clock: Arc<AtomicU64>,
}

pub(super) struct Open {
    pub(super) machine: Machine,
    pub(super) store: Store,
    heard: Arc<Heard>,
}

#[derive(Default)]
pub(super) struct Heard(Mutex<Vec<Arc<SignedEntry>>>);

impl Announcer for Heard {
    fn announce(&self, entry: &Arc<SignedEntry>, _: Option<Arc<[u8]>>) {
        self.0.lock().expect("no panic").push(Arc::clone(entry));
    }
}

impl Bench {
    pub(super) fn new() -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let options = InitOptions { owner: None, identity: None, passphrase: None, config: MAP.to_owned() };
        Home::init(&folder.path().join("home"), options, &mut rand::rng()).expect("made");
        Self { folder, clock: Arc::new(AtomicU64::new(1_800_000_000_000)) }
    }

    pub(super) fn home(&self) -> Home {
        Home::open(&self.folder.path().join("home")).expect("opens")
    }

    pub(super) fn keys(&self) -> MachineKeys {
        self.home().keys(None).expect("readable")
    }

    pub(super) fn store(&self) -> Store {
        Store::open(self.folder.path().join("home/store"), &StoreOptions::default()).expect("opens").0
    }

    pub(super) fn try_open(&self, map: &str) -> Result<Open, MachineError> {
        let config = Config::parse(map, "test.yaml", Path::new(""), &Overrides::none()).expect("valid");
        let store = self.store();
        let heard = Arc::new(Heard::default());
        let clock = Arc::clone(&self.clock);
        let options = MachineOptions {
            home: &self.home(),
            keys: &self.keys(),
            store: store.clone(),
            streams: &config.streams,
            forget_epochs: config.forget_epochs,
            announcer: Arc::clone(&heard) as Arc<dyn Announcer>,
            clock: Arc::new(move || clock.load(Relaxed)),
        };
        match Machine::open(options) {
            Ok(machine) => Ok(Open { machine, store, heard }),
            Err(error) => {
                store.close().expect("closes");
                Err(error)
            }
        }
    }

    pub(super) fn open(&self) -> Open {
        self.try_open(MAP).unwrap_or_else(|error| panic!("{error}"))
    }
}

impl Open {
    pub(super) fn end(self) {
        self.machine.shutdown().expect("ends");
        drop(self.machine);
        self.store.close().expect("closes");
    }

    pub(super) fn log(&self, name: &str) -> LogKey {
        let id = self.machine.stream_id(name).expect("known");
        stream_log(self.machine.keys(), id, self.machine.incarnation())
    }

    pub(super) fn records(&self, name: &str) -> Vec<ChunkRecord> {
        selection::records(&self.store, &self.log(name)).collect::<Result<_, _>>().expect("read")
    }

    pub(super) fn plaintext(&self, record: &ChunkRecord) -> Vec<u8> {
        let range =
            GrantRange { stream: record.stream, epoch: record.epoch, first: record.position, last: record.position };
        let key = self.machine.cover(&range).expect("covered").chunk_key(record.position).expect("inside");
        let body = self.store.chunk(&record.hash).expect("read").expect("held");
        seal::open(record, &key, &body).expect("opens")
    }

    fn packages(&self, name: &str) -> Vec<DataPackage> {
        let bytes: Vec<u8> = self.records(name).iter().flat_map(|record| self.plaintext(record)).collect();
        let lines = bytes.split(|b| *b == b'\n').filter(|line| !line.is_empty());
        lines.map(|line| DataPackage::from_json(line).expect("a package")).collect()
    }
}

/// Messages made up for a test.
pub(super) struct Made(pub(super) std::vec::IntoIter<SourceMessage>);

impl Source for Made {
    fn next(&mut self) -> Result<Option<SourceItem>, IngestError> {
        Ok(self.0.next().map(SourceItem::Message))
    }

    fn schema_paths(&self, _: &str) -> Option<tributary_protocol::rules::native::SchemaPaths> {
        None
    }
}

pub(super) fn fixes(count: u64) -> Made {
    let message = |i: u64| {
        let mut value = Object::new();
        value.insert("latitude", Value::from(52.5 + 0.001 * i as f64));
        value.insert("altitude", Value::from(34.0));
        value.insert("i", i);
        SourceMessage {
            topic: "/fix".into(),
            type_name: "sensor_msgs/msg/NavSatFix".into(),
            log_time_ns: 1_700_000_000_000_000_000 + i * 1_000_000_000,
            publish_time_ns: 0,
            content: SourceContent::Fields(Fields { value, ..Fields::default() }),
        }
    };
    Made((0..count).map(message).collect::<Vec<_>>().into_iter())
}

#[test]
fn what_goes_in_comes_out_signed_numbered_and_without_protected_fields() {
    let bench = Bench::new();
    let open = bench.open();
    let summary = open.machine.ingest(&mut fixes(100), |_| {}).expect("read");
    assert!(summary.is_clean());
    assert_eq!(summary.messages(), 100);
    let closed = open.machine.close_datasets(Some("position")).expect("closed");
    assert_eq!(closed.len(), 1);

    let packages = open.packages("position");
    assert_eq!(packages.len(), 100);
    for (i, package) in packages.iter().enumerate() {
        assert!(package.verify_from(&open.machine.did()).expect("checked").valid);
        assert_eq!(package.sequence_number.as_u64(), Some(i as u64));
        assert_eq!(package.payload.get("@topic").and_then(Value::as_str), Some("position"));
        assert!(package.payload.get("altitude").is_none());
    }
    let records = open.records("position");
    assert!(records.len() > 3, "several chunks: {}", records.len());
    let mut builder = DatasetBuilder::new(records[0].stream, records[0].epoch, 0, 0);
    for (seq, record) in records.iter().enumerate() {
        builder.push(seq as u64, record).expect("follows");
    }
    let row = open.store.row(Table::Dataset, closed[0].as_bytes()).expect("read").expect("held");
    assert_eq!(builder.close(), Some(DatasetEntry::decode(&row).expect("a dataset entry")));
    // Everything announced was durable first, and everything durable was announced.
    let heard = open.heard.0.lock().expect("no panic").len();
    let machine_log = LogKey { did: open.machine.did(), log: LogId::MACHINE, incarnation: 0 };
    let held = open.store.head(&machine_log).expect("read").expect("held").0 + 1 + records.len() as u64;
    assert_eq!(heard as u64, held);
    open.end();
}

#[test]
fn a_restart_goes_on_in_numbers_log_and_epoch() {
    let bench = Bench::new();
    let open = bench.open();
    open.machine.ingest(&mut fixes(10), |_| {}).expect("read");
    open.end();
    let open = bench.open();
    open.machine.ingest(&mut fixes(10), |_| {}).expect("read");
    let numbers: Vec<_> = open.packages("position").iter().filter_map(|p| p.sequence_number.as_u64()).collect();
    assert_eq!(numbers, (0..20).collect::<Vec<_>>());
    let records = open.records("position");
    assert!(records.is_sorted_by(|a, b| a.epoch == b.epoch && a.position < b.position));
    assert_eq!(records.iter().filter(|record| record.index == 0).count(), 2, "a dataset ends with the run");
    open.end();
}

#[test]
fn a_dataset_left_open_is_closed_by_the_next_start() {
    let bench = Bench::new();
    let open = bench.open();
    open.machine.ingest(&mut fixes(50), |_| {}).expect("read");
    let newest = open.records("position").pop().expect("some");
    assert!(open.store.row(Table::Dataset, newest.dataset.as_bytes()).expect("read").is_none(), "still open");
    // As after a crash: nothing more is written, whatever the lanes still try.
    open.store.clone().close().expect("closes");
    drop(open);
    let open = bench.open();
    let row = open.store.row(Table::Dataset, newest.dataset.as_bytes()).expect("read").expect("closed");
    assert_eq!(DatasetEntry::decode(&row).expect("a dataset entry").package_count, 50);
    open.machine.ingest(&mut fixes(1), |_| {}).expect("read");
    assert!(open.packages("position").last().expect("some").sequence_number.as_u64() >= Some(50));
    open.end();
}

#[test]
fn a_rule_that_cannot_decide_stops_the_stream_and_is_named() {
    let bench = Bench::new();
    let open = bench.open();
    let mut messages = fixes(3).0.collect::<Vec<_>>();
    let SourceContent::Fields(fields) = &mut messages[1].content else { panic!("fields") };
    fields.value.remove("altitude");
    let summary = open.machine.ingest(&mut Made(messages.into_iter()), |_| {}).expect("read");
    let trouble = summary.topics["/fix"].trouble.clone().expect("stopped");
    assert!(trouble.contains("altitude"), "{trouble}");
    assert_eq!(open.packages("position").len(), 0, "nothing was sealed before the rule failed to match");
    assert!(open.machine.report().expect("read")[0].lane.stopped.is_some());
    assert!(open.machine.shutdown().is_err());
    drop(open.machine);
    open.store.close().expect("closes");
}

#[test]
fn a_file_is_a_dataset_and_an_empty_file_is_one_empty_chunk() {
    let bench = Bench::new();
    let open = bench.open();
    for len in [0usize, 1, 4096, 4097, 10_000] {
        let bytes: Vec<u8> = (0..len).map(|i| (i % 251) as u8).collect();
        let published =
            open.machine.publish("/files", &mut bytes.as_slice(), Path::new("x"), |_| {}).expect("published");
        assert_eq!(published.bytes, len as u64);
        assert_eq!(published.chunks as usize, len.div_ceil(4096).max(1));
        let records = open.records("/files").into_iter().filter(|record| record.dataset == published.dataset);
        assert_eq!(records.flat_map(|record| open.plaintext(&record)).collect::<Vec<_>>(), bytes);
    }
    assert!(matches!(
        open.machine.publish("position", &mut &b""[..], Path::new("x"), |_| {}),
        Err(PublishError::NotForFiles { .. })
    ));
    open.end();
}

#[test]
fn a_new_epoch_closes_the_dataset_and_takes_other_keys() {
    let bench = Bench::new();
    let open = bench.open();
    open.machine.ingest(&mut fixes(1), |_| {}).expect("read");
    open.machine.renew_epochs(Some("position")).expect("renewed");
    open.machine.ingest(&mut fixes(1), |_| {}).expect("read");
    let records = open.records("position");
    assert_eq!(records.iter().map(|record| (record.epoch, record.index)).collect::<Vec<_>>(), [(0, 0), (1, 0)]);
    // Thirty days later the epoch is over by itself.
    bench.clock.fetch_add(31 * 24 * 3_600_000, Relaxed);
    open.machine.ingest(&mut fixes(1), |_| {}).expect("read");
    assert_eq!(open.records("position").last().expect("some").epoch, 2);
    assert_eq!(open.packages("position").len(), 3);
    open.end();
}

#[test]
fn selections_become_exact_ranges() {
    let bench = Bench::new();
    let open = bench.open();
    open.machine.ingest(&mut fixes(100), |_| {}).expect("read");
    let dataset = open.machine.close_datasets(None).expect("closed")[0];
    let stream = open.machine.stream_id("position").expect("known");
    let records = open.records("position");
    let of = |range| open.machine.resolve(&Selection::new(vec![range]).expect("one range"));

    let whole = of(Range::Dataset(dataset)).expect("held");
    let (first, last) = (records[0].position, records[records.len() - 1].position);
    assert_eq!(whole, [GrantRange { stream, epoch: 0, first, last }]);
    let second = &records[1];
    let time = Range::Time { stream, from_ms: second.time_from_ms, to_ms: second.time_to_ms };
    assert_eq!(
        of(time).expect("held"),
        [GrantRange { stream, epoch: 0, first: second.position, last: second.position }]
    );
    // A range that begins and ends inside chunks has them whole; one millisecond beyond a chunk's end is the next one's.
    let (third, fourth) = (&records[2], &records[3]);
    assert!(
        second.time_from_ms < second.time_to_ms && third.time_to_ms < fourth.time_from_ms,
        "chunks of some seconds"
    );
    let straddling = Range::Time { stream, from_ms: second.time_to_ms, to_ms: third.time_from_ms };
    assert_eq!(
        of(straddling).expect("held"),
        [GrantRange { stream, epoch: 0, first: second.position, last: third.position }]
    );
    let after = Range::Time { stream, from_ms: third.time_to_ms + 1, to_ms: fourth.time_from_ms };
    assert_eq!(
        of(after).expect("held"),
        [GrantRange { stream, epoch: 0, first: fourth.position, last: fourth.position }]
    );
    // Capture time counts, not when the keys were made: that was years later.
    let sealed_ms = bench.clock.load(Relaxed);
    assert!(records.iter().all(|record| record.time_to_ms < sealed_ms - 1000));
    assert!(of(Range::Time { stream, from_ms: sealed_ms - 1000, to_ms: sealed_ms + 1000 }).is_err());
    let live = of(Range::Live { stream, seconds: 3600 }).expect("an epoch");
    assert!(live[0].first == last && live[0].last.slot() == 60);
    assert!(of(Range::Dataset(DatasetId::from_bytes([1; 32]))).is_err());
    assert!(of(Range::Time { stream, from_ms: 0, to_ms: 1 }).is_err());
    open.end();
}

/// As the machine and its owner do it, on one computer.
fn bind(bench: &Bench, store: &Store, change: Change, owner: &OwnerKey) -> SignedBinding {
    let now_ms = bench.clock.load(Relaxed);
    let proposal = propose(&bench.home(), &bench.keys(), store, change, now_ms).expect("proposed");
    apply(&bench.home(), store, &proposal.signed_by(&owner.identity), now_ms).expect("applied")
}

#[test]
fn a_copied_home_publishes_nothing_until_the_owner_binds_it_anew() {
    let bench = Bench::new();
    let open = bench.open();
    open.machine.ingest(&mut fixes(10), |_| {}).expect("read");
    open.end();
    // A copy has other inodes; the original folder is put aside, as on another machine.
    let (home, aside) = (bench.folder.path().join("home"), bench.folder.path().join("aside"));
    fs::rename(&home, &aside).expect("renamed");
    let status = std::process::Command::new("cp").arg("-a").arg(&aside).arg(&home).status().expect("runs");
    assert!(status.success());

    let Err(MachineError::Displaced { reason: Displaced::Moved, incarnation: 0 }) = bench.try_open(MAP) else {
        panic!("a copy must not publish");
    };
    let store = bench.store();
    let owner = bench.home().owner_key(None).expect("readable").expect("still here");
    bind(&bench, &store, Change::Incarnation, &owner);
    store.close().expect("closes");

    let open = bench.open();
    assert_eq!(open.machine.incarnation(), 1);
    open.machine.ingest(&mut fixes(1), |_| {}).expect("read");
    let numbers: Vec<_> = open.packages("position").iter().filter_map(|p| p.sequence_number.as_u64()).collect();
    assert_eq!(numbers, [1 << 40]);
    let records = open.records("position");
    assert_eq!(records[0].epoch, 1 << 32);
    // What was recorded before is still sold by its time.
    let ever = Range::Time { stream: records[0].stream, from_ms: 0, to_ms: u64::MAX };
    let ranges = open.machine.resolve(&Selection::new(vec![ever]).expect("one range")).expect("held");
    assert_eq!(ranges.iter().map(|range| range.epoch).collect::<Vec<_>>(), [0, 1 << 32]);
    let log = open.log("position");
    let first = SignedEntry::decode(&open.store.entry(&log, 0).expect("read").expect("held")).expect("an entry");
    let before = open.store.head(&LogKey { incarnation: 0, ..log }).expect("read").expect("held").1;
    assert_eq!(first.entry().prev, SignedEntry::decode(&before).expect("an entry").hash());
    open.end();
}

#[test]
fn a_store_restored_from_an_older_state_publishes_nothing() {
    let bench = Bench::new();
    let open = bench.open();
    open.machine.ingest(&mut fixes(10), |_| {}).expect("read");
    open.end();
    let (store, old) = (bench.folder.path().join("home/store"), bench.folder.path().join("old"));
    let copy = |from: &Path, to: &Path| {
        let status = std::process::Command::new("cp").arg("-a").arg(from).arg(to).status().expect("runs");
        assert!(status.success());
    };
    copy(&store, &old);
    let open = bench.open();
    open.machine.ingest(&mut fixes(10), |_| {}).expect("read");
    open.end();
    fs::remove_dir_all(&store).expect("removed");
    copy(&old, &store);
    assert!(matches!(bench.try_open(MAP), Err(MachineError::Displaced { reason: Displaced::Behind { .. }, .. })));
}

#[test]
fn a_lost_record_or_a_restored_store_publishes_nothing() {
    let bench = Bench::new();
    let open = bench.open();
    open.machine.ingest(&mut fixes(10), |_| {}).expect("read");
    open.end();
    let record = bench.folder.path().join("home/origin.json");
    // Put aside and back by name: a copy would be another file, which shows as well.
    let aside = bench.folder.path().join("aside.json");
    fs::rename(&record, &aside).expect("renamed");
    assert!(matches!(bench.try_open(MAP), Err(MachineError::Displaced { reason: Displaced::Restored, .. })));
    assert!(!record.exists(), "a refused start must not make the record that would let the next one pass");
    fs::rename(&aside, &record).expect("renamed");

    let (store, old) = (bench.folder.path().join("home/store"), bench.folder.path().join("old"));
    fs::rename(&store, &old).expect("renamed");
    Store::restore(&old, &store, &StoreOptions::default()).expect("restored").0.close().expect("closes");
    assert!(matches!(bench.try_open(MAP), Err(MachineError::Displaced { reason: Displaced::Restored, .. })));
    let restored = bench.store();
    let owner = bench.home().owner_key(None).expect("readable").expect("still here");
    bind(&bench, &restored, Change::Incarnation, &owner);
    restored.close().expect("closes");
    bench.open().end();
    bench.open().end();
}

#[test]
fn an_own_entry_that_is_not_held_shows_a_twin() {
    let bench = Bench::new();
    let open = bench.open();
    open.machine.ingest(&mut fixes(1), |_| {}).expect("read");
    let log = open.log("position");
    let held = SignedEntry::decode(&open.store.entry(&log, 0).expect("read").expect("held")).expect("an entry");
    open.machine.met_own_entry(&held);
    assert_eq!(open.machine.displaced(), None);
    let mut other = held.entry().clone();
    other.time_ms += 1;
    let other = SignedEntry::sign(other, &bench.keys().feed).expect("signed");
    open.machine.met_own_entry(&other);
    assert_eq!(open.machine.displaced(), Some(Displaced::Twin { log, seq: 0 }));
    open.end();
}

#[test]
fn a_changed_feed_key_needs_the_owner() {
    let bench = Bench::new();
    bench.open().end();
    let home = bench.home();
    home.stage_feed_key(None, &mut rand::rng()).expect("staged");
    home.promote_feed_key().expect("promoted");
    assert!(matches!(bench.try_open(MAP), Err(MachineError::FeedKey { serial: 0 })));
    let store = bench.store();
    let owner = home.owner_key(None).expect("readable").expect("still here");
    bind(&bench, &store, Change::Renew, &owner);
    store.close().expect("closes");
    let open = bench.open();
    open.machine.ingest(&mut fixes(1), |_| {}).expect("read");
    assert_eq!(open.packages("position").len(), 1);
    open.end();
}
