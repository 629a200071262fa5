//! The chunk store.

use std::fmt;

use super::{Page, Snapshot};
use crate::metrics::catalog::metrics;

metrics! {
    BYTES = Gauge "tributary_store_bytes" in "bytes" by ["kind"]: "Bytes on the disk: `chunks`, bodies of chunks; `index`, the index, the ballast and small files; `log`, the rest: entries, rows, what was deleted and not collected yet, what is allocated ahead.";
    USED = Gauge "tributary_store_used_bytes" in "bytes" by []: "Bytes on the disk in all: what the quota limits.";
    QUOTA = Gauge "tributary_store_quota_bytes" in "bytes" by []: "`store.quota`; missing where there is none.";
    FREE = Gauge "tributary_store_free_bytes" in "bytes" by []: "Bytes the file system has left.";
    CHUNKS = Gauge "tributary_store_chunks" in "chunks" by []: "Chunks held.";
    ENTRIES = Gauge "tributary_store_entries" in "entries" by []: "Log entries held.";
    EVIDENCE = Gauge "tributary_store_evidence_entries" in "entries" by []: "Entries kept as evidence that a machine tells two stories.";
    ROWS = Gauge "tributary_store_rows" in "rows" by []: "Rows in all tables.";
    TOMBSTONES = Gauge "tributary_store_tombstones" in "chunks" by []: "Chunks removed on purpose.";
    SEGMENTS = Gauge "tributary_store_segments" in "files" by []: "Segment files.";
    QUEUED = Gauge "tributary_store_queued_batches" in "batches" by []: "Batches that wait to be written.";
    STOPPED = Gauge "tributary_store_stopped" in "0 or 1" by []: "Whether the store stopped after a failure.";
}

pub(super) fn write(snapshot: &Snapshot, page: &mut Page<'_>) -> fmt::Result {
    let store = &snapshot.status.store;
    let log = store.used_bytes.saturating_sub(store.index_bytes).saturating_sub(store.chunk_bytes);
    let kinds = [("chunks", store.chunk_bytes), ("index", store.index_bytes), ("log", log)];
    page.each(&BYTES, kinds.map(|(kind, bytes)| ([kind], bytes)))?;
    page.one(&USED, store.used_bytes)?;
    page.maybe(&QUOTA, store.quota_bytes)?;
    page.maybe(&FREE, store.free_bytes)?;
    page.one(&CHUNKS, store.chunks)?;
    page.one(&ENTRIES, store.entries)?;
    page.one(&EVIDENCE, store.evidence)?;
    page.one(&ROWS, store.rows)?;
    page.one(&TOMBSTONES, store.tombstones)?;
    page.one(&SEGMENTS, store.segments)?;
    page.one(&QUEUED, store.queued_batches)?;
    page.one(&STOPPED, store.stopped)
}
