//! Transfers of chunks, to peers and from them.

use std::fmt;

use super::{Page, Snapshot};
use crate::metrics::catalog::metrics;

metrics! {
    SERVED = Counter "tributary_pull_server_transfers" in "transfers" by ["result"]: "Transfers that peers asked for: `completed`, `busy` (told to come back), `dropped` (even the refusals were too many), `failed` (broken or stalled), `malformed`.";
    SERVED_CHUNKS = Counter "tributary_pull_server_chunks" in "chunks" by []: "Chunks sent to peers.";
    SERVED_BYTES = Counter "tributary_pull_server_bytes" in "bytes" by []: "Bytes of ciphertext sent to peers.";
    ACTIVE = Gauge "tributary_pull_server_active_transfers" in "transfers" by []: "Transfers to peers under way.";
    LIMIT = Gauge "tributary_pull_server_transfers_limit" in "transfers" by []: "How many there may be, `network.limits.pulls`.";
    SERVED_TOOK = Histogram "tributary_pull_server_transfer_seconds" in "seconds" by []: "Transfers to peers that ran to their end.";
    PULLED = Counter "tributary_pull_client_transfers" in "transfers" by ["result"]: "Transfers from peers: `completed`, `busy` (the peer said so), `failed` (broken, wrong bytes, or given up).";
    PULLED_CHUNKS = Counter "tributary_pull_client_chunks" in "chunks" by []: "Chunks that came from peers, with the right bytes.";
    PULLED_BYTES = Counter "tributary_pull_client_bytes" in "bytes" by []: "Bytes of ciphertext that came from peers.";
    PULLED_TOOK = Histogram "tributary_pull_client_transfer_seconds" in "seconds" by []: "Transfers from peers that ran to their end.";
}

pub(super) fn write(snapshot: &Snapshot, page: &mut Page<'_>) -> fmt::Result {
    let Snapshot { status, timings, .. } = snapshot;
    let (served, pulled) = (&status.served, &status.traffic.pulled);
    let results = [
        (["completed"], served.transfers),
        (["busy"], served.busy),
        (["dropped"], served.dropped),
        (["failed"], served.failed),
        (["malformed"], served.malformed),
    ];
    page.each(&SERVED, results)?;
    page.one(&SERVED_CHUNKS, served.chunks)?;
    page.one(&SERVED_BYTES, served.bytes)?;
    page.one(&ACTIVE, served.active)?;
    page.one(&LIMIT, served.limit)?;
    page.one(&SERVED_TOOK, timings.served)?;
    let results = [(["completed"], pulled.completed), (["busy"], pulled.busy), (["failed"], pulled.failed)];
    page.each(&PULLED, results)?;
    page.one(&PULLED_CHUNKS, pulled.chunks)?;
    page.one(&PULLED_BYTES, pulled.bytes)?;
    page.one(&PULLED_TOOK, timings.net.pulls)
}
