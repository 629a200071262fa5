//! Looking after the store: counts, checks, retention, backups. The same beside a running node and without one.

use axum::{Json, extract::State};
use tributary_protocol::{
    entry::{EntryBody, SignedEntry},
    ids::{Did, Hash, LogId, LogKey, StreamId},
};
use tributary_store::{CheckReport, Reason, Retention, Store, StoreError, WriteBatch};

use super::{
    api::{BackupRequest, BackupResult, CheckRequest, GcRequest, GcResult, Problem, StoreCheck, StoreStats},
    server::{Answer, Api, Document, blocking},
};
use crate::{
    config::{Config, Role, StreamConfig},
    machine::system_clock,
};

/// Entries read at a time.
const PAGE: usize = 256;
/// Bytes of entries read at a time.
const PAGE_BYTES: usize = 1 << 20;

/// What the store holds and takes.
pub(crate) fn store_stats(store: &Store) -> StoreStats {
    let stats = store.stats();
    StoreStats {
        chunks: stats.chunks,
        chunk_bytes: stats.chunk_bytes,
        entries: stats.entries,
        rows: stats.rows,
        tombstones: stats.tombstones,
        evidence: stats.evidence,
        segments: stats.segments,
        used_bytes: stats.used_bytes,
        quota_bytes: stats.quota_bytes,
        free_bytes: stats.free_bytes,
        queued_batches: stats.queued_batches,
        stopped: stats.stopped,
    }
}

/// Reads everything and compares. Blocks.
pub(crate) fn store_check(store: &Store, repair: bool) -> Result<StoreCheck, Problem> {
    let report: CheckReport = store.check(repair)?;
    Ok(StoreCheck {
        clean: report.is_clean(),
        chunks: report.chunks,
        chunk_bytes: report.chunk_bytes,
        frames: report.frames,
        damage: report.damage.iter().map(|damage| format!("{damage:?}")).collect(),
        damaged_chunks: report.damaged_chunks,
        lost_frames: report.lost_frames,
        unreadable: report.unreadable,
        index_differences: report.index_differences,
        repaired: report.repaired,
    })
}

/// Copies the store. Blocks.
pub(crate) fn store_backup(store: &Store, request: &BackupRequest) -> Result<BackupResult, Problem> {
    let bytes = store.backup(&request.out)?;
    Ok(BackupResult { out: request.out.clone(), bytes })
}

fn millis(duration: std::time::Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

/// Drops what retention says, of single streams first and then of all together, and gives space back. Blocks.
pub(crate) fn store_gc(
    store: &Store,
    config: &Config,
    did: &Did,
    request: GcRequest,
    now_ms: u64,
) -> Result<GcResult, Problem> {
    let (mut chunks, mut bytes) = (0, 0);
    if config.has_role(Role::Machine) {
        for stream in &config.streams {
            let (victims, size) = expired(store, did, stream, now_ms)?;
            chunks += victims.len() as u64;
            bytes += size;
            for part in victims.chunks(PAGE).filter(|_| !request.dry_run) {
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
    let report = store.gc(request.dry_run, &retention)?;
    Ok(GcResult {
        dry_run: request.dry_run,
        expired_chunks: chunks + report.expired_chunks,
        expired_bytes: bytes + report.expired_bytes,
        removed_segments: report.removed_segments,
        used_before: report.used_before,
        used_after: report.used_after,
    })
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
        let mut from = 0;
        loop {
            let page = store.entries(log, from, PAGE, PAGE_BYTES)?;
            let Some(last) = page.last() else { break };
            from = last.seq.saturating_add(1);
            for entry in &page {
                let Ok(signed) = SignedEntry::decode(&entry.bytes) else { continue };
                let EntryBody::Chunk(record) = &signed.entry().body else { continue };
                if store.has_chunk(&record.hash)? {
                    kept = kept.saturating_add(record.len.into());
                    held.push((record.hash, record.len, signed.entry().time_ms));
                }
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

pub(super) async fn stats(State(api): State<Api>) -> Answer<StoreStats> {
    let store = api.node.store().clone();
    Ok(Json(blocking(move || Ok(store_stats(&store))).await?))
}

pub(super) async fn check(State(api): State<Api>, Document(request): Document<CheckRequest>) -> Answer<StoreCheck> {
    let store = api.node.store().clone();
    Ok(Json(blocking(move || store_check(&store, request.repair)).await?))
}

pub(super) async fn gc(State(api): State<Api>, Document(request): Document<GcRequest>) -> Answer<GcResult> {
    let node = api.node.clone();
    let work = move || store_gc(node.store(), node.config(), &node.did(), request, system_clock()());
    Ok(Json(blocking(work).await?))
}

pub(super) async fn backup(State(api): State<Api>, Document(request): Document<BackupRequest>) -> Answer<BackupResult> {
    let store = api.node.store().clone();
    Ok(Json(blocking(move || store_backup(&store, &request)).await?))
}
