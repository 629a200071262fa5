//! Shared by the store's tests.
#![allow(dead_code, unreachable_pub, reason = "every test binary uses its own part")]

pub mod disk;
pub mod workload;

use tributary_protocol::ids::{Did, Hash, LogId, LogKey};
use tributary_store::StoreOptions;

/// Defaults without the parts that only cost time in a test.
pub fn options() -> StoreOptions {
    StoreOptions {
        ballast_bytes: 64 << 10,
        preallocate_bytes: 1 << 20,
        min_free_bytes: 1 << 20,
        ..StoreOptions::default()
    }
}

/// Segments so small that every test crosses their borders.
pub fn small() -> StoreOptions {
    StoreOptions { segment_bytes: 128 << 10, preallocate_bytes: 16 << 10, ..options() }
}

/// Bytes that depend on a number and do not compress.
pub fn body(number: u64, len: usize) -> Vec<u8> {
    let mut out = vec![0; len];
    let mut hasher = blake3::Hasher::new();
    hasher.update(&number.to_le_bytes());
    hasher.finalize_xof().fill(&mut out);
    out
}

pub fn hash_of(bytes: &[u8]) -> Hash {
    Hash::of(bytes)
}

pub fn log(number: u8) -> LogKey {
    LogKey { did: Did::from_bytes([number; 20]), log: LogId::from_bytes([number; 32]), incarnation: 0 }
}
