//! Looking after the store: counts, checks, retention, backups. The same beside a running node and without one.

use axum::{Json, extract::State};
use tributary_protocol::ids::Did;
use tributary_store::{CheckReport, Store};

use super::{
    api::{BackupRequest, BackupResult, CheckRequest, GcRequest, GcResult, Problem, StoreCheck, StoreStats},
    server::{Answer, Api, Document, blocking},
};
use crate::{
    config::Config,
    machine::system_clock,
    retention::{self, Collected},
};

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

/// Drops what retention says and gives space back. Blocks.
pub(crate) fn store_gc(
    store: &Store,
    config: &Config,
    did: &Did,
    request: GcRequest,
    now_ms: u64,
) -> Result<GcResult, Problem> {
    let Collected { expired_chunks, expired_bytes, removed_segments, used_before, used_after } =
        retention::carry_out(store, config, did, request.dry_run, now_ms)?;
    Ok(GcResult { dry_run: request.dry_run, expired_chunks, expired_bytes, removed_segments, used_before, used_after })
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
