//! Retention: which chunk bodies the store may drop, as the configuration says.
//!
//! Owns the decision; dropping is the store's. Log entries are never dropped: a feed stays provable when its bodies are gone.

use std::time::Duration;

use tributary_protocol::{
    entry::{EntryBody, SignedEntry},
    ids::{Did, Hash, LogId, LogKey, StreamId},
};
use tributary_store::{Reason, Retention, Store, StoreError, WriteBatch};

use crate::{
    config::{self, Config, Role, StreamConfig},
    machine::known_streams,
};

/// Tombstones written at a time.
const PAGE: usize = 256;

/// What was dropped, or would be.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Collected {
    /// Chunks.
    pub expired_chunks: u64,
    /// Their ciphertext, bytes.
    pub expired_bytes: u64,
    /// Segments that went whole.
    pub removed_segments: u64,
    /// Bytes the store occupied before.
    pub used_before: u64,
    /// Bytes it occupies now.
    pub used_after: u64,
}

/// Whether the configuration limits what is kept at all.
#[must_use]
pub fn is_limited(config: &Config) -> bool {
    let none = config::Retention::default();
    config.store.retention != none || config.streams.iter().any(|stream| stream.retention != none)
}

/// Drops what is no longer kept, of single streams first and then of all together, and gives space back. With `dry_run` it only
/// counts. `now_ms` is ms since 1970. Blocks.
///
/// # Errors
///
/// When the store cannot be read or written.
pub fn carry_out(
    store: &Store,
    config: &Config,
    did: &Did,
    dry_run: bool,
    now_ms: u64,
) -> Result<Collected, StoreError> {
    let (mut chunks, mut bytes) = (0, 0);
    if config.has_role(Role::Machine) {
        for stream in &known_streams(store, &config.streams)? {
            let (victims, size) = expired(store, did, stream, now_ms)?;
            chunks += victims.len() as u64;
            bytes += size;
            for part in victims.chunks(PAGE).filter(|_| !dry_run) {
                let mut batch = WriteBatch::new();
                for hash in part {
                    batch.tombstone_chunk(*hash, Reason::Expired);
                }
                store.commit(batch)?;
            }
        }
    }
    let retention = Retention {
        stored_before_ms: config.store.retention.age.map(|age| now_ms.saturating_sub(millis(age))),
        max_chunk_bytes: config.store.retention.bytes,
        ..Retention::default()
    };
    let report = store.gc(dry_run, &retention)?;
    Ok(Collected {
        expired_chunks: chunks + report.expired_chunks,
        expired_bytes: bytes + report.expired_bytes,
        removed_segments: report.removed_segments,
        used_before: report.used_before,
        used_after: report.used_after,
    })
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

/// The chunks of a stream that its own retention no longer keeps, oldest first, and their bytes.
fn expired(store: &Store, did: &Did, stream: &StreamConfig, now_ms: u64) -> Result<(Vec<Hash>, u64), StoreError> {
    let retention = &stream.retention;
    if retention.age.is_none() && retention.bytes.is_none() {
        return Ok((Vec::new(), 0));
    }
    let id = LogId::from(StreamId::of(did, stream.name()));
    let mut logs: Vec<LogKey> = store.logs(Some(did))?.into_iter().filter(|log| log.log == id).collect();
    logs.sort_by_key(|log| log.incarnation);
    let before = retention.age.map_or(0, |age| now_ms.saturating_sub(millis(age)));
    let mut kept: u64 = 0;
    let mut held = Vec::new();
    for log in &logs {
        for stored in store.log(log, ..) {
            let Ok(signed) = SignedEntry::decode(&stored?.bytes) else { continue };
            let EntryBody::Chunk(record) = &signed.entry().body else { continue };
            if store.has_chunk(&record.hash)? {
                kept = kept.saturating_add(record.len.into());
                held.push((record.hash, record.len, signed.entry().time_ms));
            }
        }
    }
    let (mut victims, mut bytes) = (Vec::new(), 0);
    for (hash, len, time_ms) in held {
        let too_old = time_ms < before;
        let too_much = retention.bytes.is_some_and(|most| kept > most);
        if !too_old && !too_much {
            break;
        }
        kept -= u64::from(len);
        bytes += u64::from(len);
        victims.push(hash);
    }
    Ok((victims, bytes))
}
