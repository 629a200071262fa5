//! The streams of a machine, and what became of their announcements.

use std::fmt;

use super::{Page, Snapshot, Value};
use crate::{metrics::catalog::metrics, service::status::StreamStatus};

metrics! {
    RECEIVED = Counter "tributary_stream_received_messages" in "messages" by ["stream"]: "Messages that came from sources.";
    DROPPED = Counter "tributary_stream_dropped_messages" in "messages" by ["stream", "by"]: "Messages lost before they were packages, and who dropped them: `queue`, the stream's own queue under `drop_oldest`; `middleware`, they were published and never came; `pause`, the operator paused the node. The last two only for live sources.";
    REFUSED = Counter "tributary_stream_refused_messages" in "messages" by ["stream"]: "Messages that could not become a package.";
    PACKAGES = Counter "tributary_stream_packages" in "packages" by ["stream"]: "Packages signed.";
    DURABLE = Counter "tributary_stream_durable_packages" in "packages" by ["stream"]: "Packages in chunks that are on the disk.";
    ANNOUNCED_PACKAGES = Counter "tributary_stream_announced_packages" in "packages" by ["stream"]: "Packages in chunks that were announced; who was offline catches up on them.";
    BYTES_IN = Counter "tributary_stream_input_bytes" in "bytes" by ["stream"]: "Bytes of package lines, blobs and files, before compression and sealing.";
    CHUNKS = Counter "tributary_stream_chunks" in "chunks" by ["stream"]: "Chunks on the disk.";
    SEALED = Counter "tributary_stream_sealed_bytes" in "bytes" by ["stream"]: "Bytes of their ciphertext.";
    DATASETS = Counter "tributary_stream_datasets" in "datasets" by ["stream"]: "Datasets closed.";
    ENTRIES = Gauge "tributary_stream_log_entries" in "entries" by ["stream"]: "Entries in the stream's log, those of earlier runs included.";
    QUEUED = Gauge "tributary_stream_queue_messages" in "messages" by ["stream"]: "Messages that wait in the stream's queue.";
    QUEUE_LIMIT = Gauge "tributary_stream_queue_limit_messages" in "messages" by ["stream"]: "How many may wait; 0 for a stream of files.";
    STALLED = Gauge "tributary_stream_stalled" in "0 or 1" by ["stream"]: "Whether nothing can be stored at the moment.";
    STOPPED = Gauge "tributary_stream_stopped" in "0 or 1" by ["stream"]: "Whether the stream has stopped for good.";
    COMMITS = Histogram "tributary_stream_commit_seconds" in "seconds" by ["stream"]: "From a batch of sealed chunks to the disk, waits for room included.";
    ANNOUNCED = Counter "tributary_outbox_announced_entries" in "entries" by []: "Log entries that became durable and were to be announced.";
    SENT = Counter "tributary_outbox_sent_entries" in "entries" by []: "Of these, sent to at least one peer.";
    ATTACHED = Counter "tributary_outbox_attached_entries" in "entries" by []: "Of these, sent with their ciphertext.";
    OVERFLOWED = Counter "tributary_outbox_overflowed_entries" in "entries" by []: "Entries that did not fit into the queue; followers catch up on them.";
    UNHEARD = Counter "tributary_outbox_unheard_entries" in "entries" by []: "Entries that nobody heard; followers catch up on them.";
    LOGS_UNHEARD = Gauge "tributary_outbox_unheard_logs" in "logs" by []: "Logs with such entries and without a head sent since.";
    LISTENERS = Gauge "tributary_outbox_listeners" in "peers" by []: "Most peers that listened to one log when it was last sent something.";
}

/// Who lost messages of a stream, and how many: every way in which a message can fail to become a package without being refused.
fn losses(stream: &StreamStatus) -> impl Iterator<Item = (&'static str, u64)> + use<> {
    let source = stream.source.as_ref().map(|source| [("middleware", source.lost), ("pause", source.paused)]);
    [("queue", stream.lane.dropped)].into_iter().chain(source.into_iter().flatten())
}

pub(super) fn write(snapshot: &Snapshot, page: &mut Page<'_>) -> fmt::Result {
    let streams = &snapshot.status.streams;
    let of = |value: fn(&StreamStatus) -> Value| {
        streams.iter().map(move |stream| ([stream.name.as_str()], value(stream))).collect::<Vec<_>>()
    };
    page.each(&RECEIVED, of(|stream| stream.lane.received.into()))?;
    let lost = streams.iter().flat_map(|stream| losses(stream).map(|(by, count)| ([stream.name.as_str(), by], count)));
    page.each(&DROPPED, lost)?;
    page.each(&REFUSED, of(|stream| stream.lane.refused.into()))?;
    page.each(&PACKAGES, of(|stream| stream.lane.packages.into()))?;
    page.each(&DURABLE, of(|stream| stream.lane.durable_packages.into()))?;
    page.each(&ANNOUNCED_PACKAGES, of(|stream| stream.lane.announced_packages.into()))?;
    page.each(&BYTES_IN, of(|stream| stream.lane.bytes_in.into()))?;
    page.each(&CHUNKS, of(|stream| stream.lane.chunks.into()))?;
    page.each(&SEALED, of(|stream| stream.lane.bytes_sealed.into()))?;
    page.each(&DATASETS, of(|stream| stream.lane.datasets.into()))?;
    page.each(&ENTRIES, of(|stream| stream.entries.into()))?;
    page.each(&QUEUED, of(|stream| stream.lane.queued.into()))?;
    page.each(&QUEUE_LIMIT, of(|stream| stream.queue_limit.into()))?;
    page.each(&STALLED, of(|stream| stream.lane.stalled.is_some().into()))?;
    page.each(&STOPPED, of(|stream| stream.lane.stopped.is_some().into()))?;
    page.each(&COMMITS, snapshot.timings.commits.iter().map(|(stream, took)| ([stream.as_str()], *took)))?;
    let outbox = snapshot.status.outbox;
    page.maybe(&ANNOUNCED, outbox.map(|outbox| outbox.announced))?;
    page.maybe(&SENT, outbox.map(|outbox| outbox.sent))?;
    page.maybe(&ATTACHED, outbox.map(|outbox| outbox.attached))?;
    page.maybe(&OVERFLOWED, outbox.map(|outbox| outbox.overflowed))?;
    page.maybe(&UNHEARD, outbox.map(|outbox| outbox.unheard))?;
    page.maybe(&LOGS_UNHEARD, outbox.map(|outbox| outbox.logs_unheard))?;
    page.maybe(&LISTENERS, outbox.map(|outbox| outbox.listeners))
}
