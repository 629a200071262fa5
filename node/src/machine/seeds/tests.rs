use std::{fs, os::unix::fs::PermissionsExt as _, path::Path, sync::atomic::Ordering::Relaxed};

use tributary_protocol::{access::GrantRange, ids::Hash};

use super::*;
use crate::machine::{
    MachineError, SelectionError,
    tests::{Bench, MAP, Open, fixes},
};

const FORGETS: &str = "forget_epochs: true\n";

fn forgetful() -> String {
    format!("{FORGETS}{MAP}")
}

impl Open {
    fn stream(&self) -> StreamId {
        self.machine.stream_id("position").expect("known")
    }

    fn row(&self, epoch: u64) -> Vec<u8> {
        self.store.row(Table::Seed, &row_key(self.stream(), epoch)).expect("read").expect("a row")
    }

    fn cover_of(&self, epoch: u64) -> Result<(), MachineError> {
        let record = self.records("position").into_iter().find(|record| record.epoch == epoch).expect("a chunk");
        let range = GrantRange { stream: self.stream(), epoch, first: record.position, last: record.position };
        self.machine.cover(&range).map(drop)
    }
}

fn is_forgotten(result: Result<(), MachineError>) -> bool {
    matches!(result, Err(MachineError::Selection(SelectionError::Epoch(EpochError::Forgotten { .. }))))
}

/// Every file below a folder.
fn files(folder: &Path, found: &mut Vec<(std::path::PathBuf, Vec<u8>)>) {
    for entry in fs::read_dir(folder).expect("a folder") {
        let path = entry.expect("an entry").path();
        if path.is_dir() {
            files(&path, found);
        } else if path.is_file() {
            let bytes = fs::read(&path).expect("read");
            found.push((path, bytes));
        }
    }
}

fn holds(bytes: &[u8], what: &[u8]) -> bool {
    bytes.windows(what.len()).any(|window| window == what)
}

#[test]
fn a_forgotten_seed_opens_with_nothing_that_is_left_in_the_home() {
    let bench = Bench::new();
    let open = bench.try_open(&forgetful()).unwrap_or_else(|error| panic!("{error}"));
    open.machine.ingest(&mut fixes(20), |_| {}).expect("read");
    let stream = open.stream();
    let (row, old) = (open.row(0), open.machine.seeds.state().key.to_bytes());
    let (started_ms, seed) = open.machine.seeds.load(stream, 0).expect("the epoch runs");
    open.cover_of(0).expect("the epoch runs");
    // The next one begins, and the first is over.
    open.machine.renew_epochs(Some("position")).expect("renewed");
    open.machine.ingest(&mut fixes(20), |_| {}).expect("read");
    assert!(is_forgotten(open.cover_of(0)));
    open.cover_of(1).expect("the epoch runs");
    let owner = bench.home().owner_key(None).expect("readable").expect("still here");
    let did = open.machine.did();
    open.end();

    let open = bench.try_open(&forgetful()).unwrap_or_else(|error| panic!("{error}"));
    assert!(is_forgotten(open.cover_of(0)), "also after the store was opened anew");
    assert_eq!(open.row(0), started_ms.to_be_bytes());
    let kept = open.machine.seeds.state().key.to_bytes();
    assert!(*kept != *old);
    let log = tributary_protocol::ids::LogKey { did, log: LogId::MACHINE, incarnation: 0 };
    let published = open.store.log(&log, ..).find_map(|entry| {
        match &SignedEntry::decode(&entry.expect("read").bytes).expect("an entry").entry().body {
            EntryBody::Epoch(info) if info.epoch == 0 => Some(info.clone()),
            _ => None,
        }
    });
    open.end();

    // The owner opens it.
    let opened = published.expect("published").open(did, 0, &owner.encryption).expect("for the owner");
    assert_eq!(opened.as_bytes(), seed.as_bytes());
    // What lies in the home: the seed in no form, and the key that would open its old row in no form.
    fs::remove_file(bench.home().owner_key_path()).expect("moved off the machine");
    let mut all = Vec::new();
    files(bench.home().path(), &mut all);
    let hexed = |bytes: &[u8]| hex::encode(bytes).into_bytes();
    for (path, bytes) in &all {
        for secret in [seed.as_bytes().as_slice(), old.as_slice()] {
            assert!(!holds(bytes, secret) && !holds(bytes, &hexed(secret)), "{}", path.display());
        }
    }
    // The store's log still has the old row, as it may; with the old seed key it would open, and with no key of the home it does.
    let sealed = &row[40..];
    assert!(all.iter().any(|(_, bytes)| holds(bytes, sealed)), "then this test proves nothing about the log");
    let Some(Row::Kept(info)) = parse(stream, 0, &row) else { panic!("a row") };
    assert!(info.open(did, 0, &EncryptionKey::from_bytes(&old)).is_ok());
    let keys = bench.keys();
    for key in [&EncryptionKey::from_bytes(&kept), &*keys.encryption] {
        assert!(info.open(did, 0, key).is_err());
    }
}

#[test]
fn a_machine_that_does_not_forget_can_grant_everything_and_forgets_it_when_told_to() {
    let bench = Bench::new();
    let open = bench.open();
    for _ in 0..3 {
        open.machine.ingest(&mut fixes(1), |_| {}).expect("read");
        open.machine.renew_epochs(Some("position")).expect("renewed");
    }
    open.machine.ingest(&mut fixes(1), |_| {}).expect("read");
    assert_eq!(open.machine.forget_ended_epochs().expect("nothing to do"), 0);
    (0..4).for_each(|epoch| open.cover_of(epoch).expect("kept"));
    open.end();
    let open = bench.try_open(&forgetful()).unwrap_or_else(|error| panic!("{error}"));
    assert!((0..3).all(|epoch| is_forgotten(open.cover_of(epoch))));
    open.cover_of(3).expect("the epoch runs");
    // Its time passes without a successor: forgotten, and the next chunk begins another.
    bench.clock.fetch_add(46 * 24 * 3_600_000, Relaxed);
    assert_eq!(open.machine.forget_ended_epochs().expect("written"), 1);
    assert!(is_forgotten(open.cover_of(3)));
    open.machine.ingest(&mut fixes(1), |_| {}).expect("read");
    open.cover_of(4).expect("the epoch runs");
    open.end();
    bench.clock.fetch_add(46 * 24 * 3_600_000, Relaxed);
    let open = bench.try_open(&forgetful()).unwrap_or_else(|error| panic!("{error}"));
    open.machine.ingest(&mut fixes(1), |_| {}).expect("read");
    assert_eq!(open.records("position").last().expect("some").epoch, 5);
    open.end();
}

#[test]
fn no_seed_is_forgotten_that_the_owner_cannot_open() {
    let bench = Bench::new();
    let open = bench.open();
    // Two epochs of a stream that no log tells of.
    let stream = StreamId::from_bytes([5; 32]);
    for epoch in 0..2 {
        let seed = EpochSeed::from_bytes(&[u8::try_from(epoch).expect("small"); 32]);
        let commit = |batch| open.store.commit(batch).map_err(|source| EpochError::Store { stream, source });
        open.machine.seeds.put(stream, epoch, 1_800_000_000_000, &seed, commit).expect("written");
    }
    assert_eq!(open.machine.seeds.forget_ended(1, 1_800_000_000_000).expect("read"), 0);
    assert_eq!(open.machine.seeds.load(stream, 0).expect("kept").1.as_bytes(), &[0; 32]);
    open.end();
}

#[test]
fn a_process_that_ends_in_between_goes_on_with_the_seeds_it_should_have() {
    let bench = Bench::new();
    let keys = bench.folder.path().join("home/keys");
    let (current, next) = (keys.join("seed.key"), keys.join("seed.next.key"));
    let open = bench.open();
    open.machine.ingest(&mut fixes(1), |_| {}).expect("read");
    // Before anything is sealed to the next key.
    open.machine.seeds.home.stage_seed_key(&bench.keys().encryption).expect("staged");
    let before = fs::read(&current).expect("there");
    open.end();
    let open = bench.open();
    open.cover_of(0).expect("kept");
    assert!(!next.exists() && fs::read(&current).expect("there") == before);
    open.machine.renew_epochs(Some("position")).expect("renewed");
    open.machine.ingest(&mut fixes(1), |_| {}).expect("read");
    // After everything is, with the old key still there, whole or overwritten.
    assert_eq!(open.machine.seeds.forget_ended(0, bench.clock.load(Relaxed)).expect("written"), 1);
    open.end();
    let after = fs::read(&current).expect("there");
    assert_ne!(Hash::of(&after), Hash::of(&before));
    for old in [before.clone(), vec![0; before.len()]] {
        fs::rename(&current, &next).expect("renamed");
        fs::write(&current, &old).expect("put back");
        fs::set_permissions(&current, fs::Permissions::from_mode(0o600)).expect("private");
        let open = bench.open();
        assert!(is_forgotten(open.cover_of(0)));
        open.cover_of(1).expect("kept");
        assert!(!next.exists() && fs::read(&current).expect("there") == after);
        open.end();
    }
}

#[test]
fn a_seed_key_put_back_from_a_copy_costs_an_epoch_and_nothing_else() {
    let bench = Bench::new();
    let current = bench.folder.path().join("home/keys/seed.key");
    let open = bench.open();
    let copy = fs::read(&current).expect("there");
    for _ in 0..2 {
        open.machine.ingest(&mut fixes(1), |_| {}).expect("read");
        open.machine.renew_epochs(Some("position")).expect("renewed");
    }
    open.machine.ingest(&mut fixes(1), |_| {}).expect("read");
    assert_eq!(open.machine.seeds.forget_ended(0, bench.clock.load(Relaxed)).expect("written"), 2);
    open.end();
    fs::write(&current, copy).expect("put back");
    let open = bench.open();
    open.machine.ingest(&mut fixes(1), |_| {}).expect("read");
    assert!(matches!(
        open.cover_of(2),
        Err(MachineError::Selection(SelectionError::Epoch(EpochError::Seed { epoch: 2, .. })))
    ));
    open.cover_of(3).expect("the new one");
    open.end();
}
