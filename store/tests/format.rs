//! Stores of every released format version open for ever.

#![allow(clippy::unwrap_used, clippy::panic, clippy::print_stdout, reason = "helpers of tests are tests")]

mod support;

use std::{fs, path::Path};

use support::options;
use tributary_protocol::ids::{DatasetId, Did, Hash, LogId, LogKey};
use tributary_store::{ChunkState, Store, Table};

#[test]
fn a_store_of_format_1_opens_with_everything_in_it() {
    let fixture = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/v1");
    let dir = tempfile::tempdir().unwrap();
    fs::create_dir(dir.path().join("log")).unwrap();
    fs::copy(fixture.join("FORMAT"), dir.path().join("FORMAT")).unwrap();
    for entry in fs::read_dir(fixture.join("log")).unwrap() {
        let entry = entry.unwrap();
        fs::copy(entry.path(), dir.path().join("log").join(entry.file_name())).unwrap();
    }
    let (store, report) = Store::open(dir.path(), &options()).unwrap();
    assert!(report.damage.is_empty() && report.cut_bytes == 0 && report.lost_frames == 0, "{report:?}");
    let log = LogKey { did: Did::from_bytes([1; 20]), log: LogId::from_bytes([2; 32]), incarnation: 3 };
    assert_eq!(store.logs(Some(&log.did)).unwrap(), [log]);
    assert_eq!(store.head(&log).unwrap(), Some((10, b"another entry 10".to_vec())));
    assert_eq!(store.entry(&log, 5).unwrap().unwrap(), b"entry 5");
    assert_eq!(store.evidence(&log, 0, 10).unwrap().len(), 2);
    assert_eq!(store.dataset_chunks(&DatasetId::from_bytes([4; 32]), 0, 100).unwrap().len(), 10);
    for seq in 0..12u8 {
        let body = vec![seq; 2000];
        let gone = seq == 1 || seq == 2;
        assert_eq!(store.chunk_state(&Hash::of(&body)).unwrap() == ChunkState::Tombstoned, gone);
        assert_eq!(store.chunk(&Hash::of(&body)).unwrap(), (!gone).then_some(body));
    }
    assert!(store.is_released(&Hash::of(&[3; 2000])).unwrap());
    for table in Table::ALL {
        assert_eq!(store.row(table, b"small").unwrap().is_some(), table != Table::Audit);
        assert_eq!(store.row(table, b"large").unwrap(), Some(vec![table as u8; 1000]));
    }
    assert_eq!(store.counter("packages").unwrap(), 77);
    assert!(store.check(false).unwrap().is_clean());
}
