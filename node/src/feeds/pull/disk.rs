//! From the wire to the disk: arrived chunks are checked on threads and stored in batches.

use std::sync::{Arc, Mutex};

use tokio::sync::{OwnedSemaphorePermit, mpsc};
use tributary_protocol::record::ChunkRecord;
use tributary_store::{StoreError, VerifiedChunk, WriteBatch};

use super::job::{Job, locked};

/// Chunks in one store batch.
pub(super) const BATCH_CHUNKS: usize = 16;
/// Bytes in one store batch, unless one chunk has more.
const BATCH_BYTES: usize = 4 << 20;

/// A chunk with the right bytes.
pub(super) struct Arrived {
    pub(super) record: Arc<ChunkRecord>,
    pub(super) body: Vec<u8>,
    pub(super) room: OwnedSemaphorePermit,
}

/// Checks what arrives and hands it to the store. Blocks until the workers are done.
pub(super) fn check_and_store(
    job: &Job,
    arrived: &Mutex<mpsc::Receiver<Arrived>>,
    wrote: &Arc<Mutex<Option<StoreError>>>,
) {
    let mut batch = Batch::default();
    loop {
        // What is there already goes into the same batch; nothing waits for more.
        let ready = arrived.try_lock().map(|mut queue| queue.try_recv());
        let next = match ready {
            Ok(Ok(next)) => next,
            Ok(Err(mpsc::error::TryRecvError::Disconnected)) => break,
            _ => {
                batch.submit(job, wrote);
                let Some(next) = locked(arrived).blocking_recv() else { break };
                next
            }
        };
        if job.stop.is_cancelled() {
            continue;
        }
        match job.intake.check(&job.did, &next.record, &next.body) {
            Ok(()) => batch.add(next),
            Err(error) => job.fail(error),
        }
        if batch.rooms.len() >= BATCH_CHUNKS || batch.bytes >= BATCH_BYTES {
            batch.submit(job, wrote);
        }
    }
    batch.submit(job, wrote);
}

/// Chunks on their way to the store.
#[derive(Default)]
struct Batch {
    batch: WriteBatch,
    rooms: Vec<OwnedSemaphorePermit>,
    bytes: usize,
}

impl Batch {
    fn add(&mut self, chunk: Arrived) {
        self.bytes += chunk.body.len();
        // Its BLAKE3 was computed from these very bytes when they arrived.
        self.batch.put_verified(VerifiedChunk::trust(chunk.record.hash, chunk.body));
        self.rooms.push(chunk.room);
    }

    fn submit(&mut self, job: &Job, wrote: &Arc<Mutex<Option<StoreError>>>) {
        let Self { batch, rooms, bytes } = std::mem::take(self);
        if rooms.is_empty() {
            return;
        }
        let (stop, counts, wrote_later) = (job.stop.clone(), Arc::clone(&job.counts), Arc::clone(wrote));
        let submitted = job.feeds.store().submit(batch, move |result| {
            match result {
                Ok(()) => counts.durable(rooms.len() as u64, bytes as u64),
                Err(error) => {
                    locked(&wrote_later).get_or_insert(error);
                    stop.cancel();
                }
            }
            drop(rooms);
        });
        if let Err(error) = submitted {
            job.fail(error.into());
        }
    }
}
