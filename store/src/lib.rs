//! The durable chunk store: an append-only segment log that is the truth, and a sled index over it that can be rebuilt.
//!
//! A [`WriteBatch`] becomes durable and visible together or not at all; when [`Store::commit`] returns `Ok`, one `fdatasync`
//! has covered it. Concurrent batches share that `fdatasync`. Nothing here knows what an entry or a row means, and nothing
//! here decrypts.
//!
//! # Where things go
//!
//! A group of batches is written to one file, so one `fdatasync` is enough: to the chunk segment when it has a chunk body
//! (with the entries and rows committed beside it), else to the state segment. Retention removes chunk segments as a whole;
//! before it does, the entries and rows in them that still count are copied, with their log sequence numbers, into a *copy*
//! segment. State and copy segments are compacted the same way. Because sequence numbers survive, reading all segments
//! merged by them gives the same result as ever, whatever was copied where.
//!
//! # What a stop can do
//!
//! - *killed, power lost*: the index is replayed from its TAIL row on; a group that was not whole is cut.
//! - *index damaged*: it is rebuilt from the log. Lost rows are noticed by a count and hash sum over all rows.
//! - *log damaged*: the last group of the last segment is cut if it is not whole; elsewhere the damage is skipped to the next
//!   valid frame and reported with what it cost. Chunks are hashed when they are read.
//! - *disk full, quota reached*: the batch is refused with a typed error, everything before stays readable and deletable.
//! - *`fdatasync` failed*: the store stops ([`StoreError::Poisoned`]). It must be opened again; a second `fdatasync` would
//!   report success for pages that are gone.

mod apply;
mod backup;
mod batch;
mod check;
pub mod disk;
mod error;
mod frame;
mod gc;
mod home;
mod index;
mod log_entries;
mod options;
mod queue;
mod read;
mod recover;
mod replay;
mod segment;
mod shared;
mod stats;
mod writer;

use std::{
    fmt,
    path::Path,
    sync::{Arc, Mutex, mpsc::sync_channel},
    thread::JoinHandle,
};

pub use backup::RESTORED;
pub use batch::{Body, EntryIndex, VerifiedChunk, WriteBatch};
pub use check::CheckReport;
pub use error::StoreError;
pub use gc::GcReport;
pub use log_entries::LogEntries;
pub use options::{Reason, Retention, StoreOptions, Table};
pub use read::{ChunkReader, ChunkState, DatasetChunk, LogEntry, Row};
pub use recover::{Damage, OpenReport, Recovery};
pub use stats::Stats;

use crate::{
    error::IoContext,
    queue::{BatchJob, Job, lock},
    shared::Shared,
    writer::{Writer, batch_bytes},
};

/// An open store. Clones share it; the last one closes it.
#[derive(Clone)]
pub struct Store {
    inner: Arc<Inner>,
}

struct Inner {
    shared: Arc<Shared>,
    writer: Arc<Mutex<Writer>>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

impl fmt::Debug for Store {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Store").field("dir", &self.inner.shared.dir).finish_non_exhaustive()
    }
}

/// A batch that the full queue did not take.
#[derive(Debug)]
pub struct Rejected {
    /// The batch, to be tried again.
    pub batch: WriteBatch,
    /// [`StoreError::Busy`], or why it will never be taken.
    pub error: StoreError,
}

impl Store {
    /// Opens the store in `dir`, replaying what an unclean stop left.
    ///
    /// # Errors
    /// [`StoreError::Locked`], [`StoreError::NotAStore`], [`StoreError::UnsupportedVersion`], or an I/O error. Damage is no
    /// error: it is in the report.
    pub fn open(dir: impl AsRef<Path>, options: &StoreOptions) -> Result<(Self, OpenReport), StoreError> {
        let dir = dir.as_ref();
        let opened = recover::open(dir, options)?;
        let shared = Arc::clone(&opened.writer.shared);
        let writer = Arc::new(Mutex::new(opened.writer));
        let (for_thread, writer_for_thread) = (Arc::clone(&shared), Arc::clone(&writer));
        let thread = std::thread::Builder::new()
            .name("store-writer".to_owned())
            .spawn(move || writer::run(&for_thread, &writer_for_thread))
            .at("start the writer of", dir)?;
        let inner = Inner { shared, writer, thread: Mutex::new(Some(thread)) };
        Ok((Self { inner: Arc::new(inner) }, opened.report))
    }

    /// Makes a batch durable and visible, and waits for it.
    ///
    /// # Errors
    /// [`StoreError::HashMismatch`], [`StoreError::TooLarge`] and [`StoreError::EntryConflict`] for a bad batch,
    /// [`StoreError::QuotaExceeded`] and [`StoreError::DiskFull`] when there is no room; then nothing of the batch was kept.
    /// After [`StoreError::Poisoned`] or [`StoreError::Index`] the store must be opened again, and may then have the batch.
    pub fn commit(&self, batch: WriteBatch) -> Result<(), StoreError> {
        batch.check()?;
        if batch.is_empty() {
            return self.inner.shared.check_poison();
        }
        let bytes = batch_bytes(&batch);
        let batch = match writer::commit_here(&self.inner.shared, &self.inner.writer, batch, bytes) {
            Ok(result) => return result,
            Err(batch) => batch,
        };
        let (sender, receiver) = sync_channel(1);
        let done = Box::new(move |result| {
            // Nobody waits any more only if the waiting thread panicked.
            let _ = sender.send(result);
        });
        self.inner.shared.queue.push(Job::Batch(BatchJob { batch, bytes, done }))?;
        receiver.recv().unwrap_or(Err(StoreError::Closed))
    }

    /// Queues a batch and returns; waits only while the queue is full. `done` runs on the writer thread and must be quick: it
    /// holds up every other batch, and must not wait for another commit of this store.
    ///
    /// # Errors
    /// As [`Store::commit`] for a bad batch, and [`StoreError::Closed`]; then `done` is never called.
    pub fn submit(
        &self,
        batch: WriteBatch,
        done: impl FnOnce(Result<(), StoreError>) + Send + 'static,
    ) -> Result<(), StoreError> {
        batch.check()?;
        if batch.is_empty() {
            done(self.inner.shared.check_poison());
            return Ok(());
        }
        let bytes = batch_bytes(&batch);
        self.inner.shared.queue.push(Job::Batch(BatchJob { batch, bytes, done: Box::new(done) }))
    }

    /// As [`Store::submit`], but never waits: for callers that must not block.
    ///
    /// # Errors
    /// The batch comes back with [`StoreError::Busy`] when the queue is full, otherwise with what is wrong with it.
    pub fn try_submit(
        &self,
        batch: WriteBatch,
        done: impl FnOnce(Result<(), StoreError>) + Send + 'static,
    ) -> Result<(), Box<Rejected>> {
        if let Err(error) = batch.check() {
            return Err(Box::new(Rejected { batch, error }));
        }
        let bytes = batch_bytes(&batch);
        let job = Job::Batch(BatchJob { batch, bytes, done: Box::new(done) });
        self.inner.shared.queue.try_push(job).map_err(|(job, error)| {
            let batch = match job {
                Job::Batch(job) => job.batch,
                Job::Call(_) => WriteBatch::new(),
            };
            Box::new(Rejected { batch, error })
        })
    }

    /// Batches and bytes that wait to be written.
    #[must_use]
    pub fn queued(&self) -> (usize, u64) {
        self.inner.shared.queue.depth()
    }

    /// Runs `call` on the writer thread, between groups.
    fn on_writer<T: Send + 'static>(
        &self,
        call: impl FnOnce(&mut Writer) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, StoreError> {
        let (sender, receiver) = sync_channel(1);
        self.inner.shared.queue.push(Job::Call(Box::new(move |writer| {
            let _ = sender.send(call(writer));
        })))?;
        receiver.recv().unwrap_or(Err(StoreError::Closed))
    }

    /// Writes what is queued, settles the files and closes. Further calls on any clone fail with [`StoreError::Closed`].
    ///
    /// # Errors
    /// [`StoreError::Poisoned`] if the store had stopped before.
    pub fn close(self) -> Result<(), StoreError> {
        self.inner.stop();
        self.inner.shared.check_poison()
    }
}

impl Inner {
    fn stop(&self) {
        self.shared.queue.close();
        let thread = lock(&self.thread).take();
        if let Some(thread) = thread
            && thread.thread().id() != std::thread::current().id()
        {
            // A panic of the writer was reported when it happened; the next open replays the log.
            let _ = thread.join();
        }
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        self.stop();
    }
}
