//! Writes the store that `tests/format.rs` opens for ever: `cargo run -p tributary-store --example make_store_fixture -- <dir>`.
//!
//! Run it once per released format version, into a new directory under `store/tests/fixtures/`; never over an old one. The
//! index and the lock are left out: the log is the format.

use std::{fs, path::PathBuf};

use tributary_protocol::ids::{DatasetId, Did, Hash, LogId, LogKey};
use tributary_store::{EntryIndex, Reason, Store, StoreOptions, Table, WriteBatch};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let dir = PathBuf::from(std::env::args().nth(1).ok_or("usage: make_store_fixture <new directory>")?);
    let options =
        StoreOptions { segment_bytes: 64 << 10, preallocate_bytes: 0, ballast_bytes: 0, ..StoreOptions::default() };
    let (store, _) = Store::open(&dir, &options)?;
    let log = LogKey { did: Did::from_bytes([1; 20]), log: LogId::from_bytes([2; 32]), incarnation: 3 };
    for seq in 0..12u64 {
        let body = vec![seq as u8; 2000];
        let index = EntryIndex {
            chunk: Some(Hash::of(&body)),
            dataset: Some((DatasetId::from_bytes([4; 32]), u32::try_from(seq)?)),
        };
        let mut batch = WriteBatch::new();
        batch.put_entry(log, seq, format!("entry {seq}"), index);
        batch.put_chunk(Hash::of(&body), body);
        store.commit(batch)?;
    }
    let mut batch = WriteBatch::new();
    for table in Table::ALL {
        batch.put_row(table, *b"small", *b"value");
        batch.put_row(table, *b"large", vec![table as u8; 1000]);
    }
    batch.delete_row(Table::Audit, *b"small");
    batch.set_counter("packages", 77);
    batch.tombstone_chunk(Hash::of(&[1; 2000]), Reason::Deleted);
    batch.tombstone_chunk(Hash::of(&[2; 2000]), Reason::Expired);
    batch.release_chunk(Hash::of(&[3; 2000]));
    batch.truncate_log(log, 10);
    batch.put_entry(log, 10, *b"another entry 10", EntryIndex::default());
    store.commit(batch)?;
    store.close()?;
    fs::remove_dir_all(dir.join("index"))?;
    fs::remove_file(dir.join("lock"))?;
    Ok(())
}
