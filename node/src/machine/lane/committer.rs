//! Making sealed chunks durable, then announcing them.
//!
//! One batch is on its way to the disk while the next one is being sealed. A batch that the store refuses (disk full, quota) is
//! offered again with the same bytes until there is room: its entries are signed, so nothing else may ever stand at their
//! positions. Only what is durable is announced.

use std::{
    sync::{
        Arc,
        mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel},
    },
    time::{Duration, Instant},
};

use tributary_store::{EntryIndex, Store, StoreError, VerifiedChunk, WriteBatch};

use super::{LaneError, sealer::SealedChunk, stats::LaneStats};
use crate::machine::Announcer;

/// Chunks in one batch at most: 4 MiB at the usual size, where one sync costs little against the writing.
pub(crate) const BATCH: usize = 16;
/// How long a refused batch waits before it is offered again.
pub(crate) const RETRY: Duration = Duration::from_millis(500);

/// Called when a batch has ended, from the thread that writes the store: it must not wait.
pub(crate) type Wake = Arc<dyn Fn() + Send + Sync>;

/// How a batch ended.
type Landed = Result<(), StoreError>;

/// Writes one lane's chunks in order.
pub(crate) struct Committer {
    store: Store,
    announcer: Arc<dyn Announcer>,
    stats: Arc<LaneStats>,
    waiting: Vec<SealedChunk>,
    flying: Vec<SealedChunk>,
    done: (SyncSender<Landed>, Receiver<Landed>),
    wake: Option<Wake>,
    /// When a refused batch is offered again.
    retry_at: Option<Instant>,
    /// When the batch on its way was offered first.
    offered: Instant,
}

impl Committer {
    pub(crate) fn new(store: Store, announcer: Arc<dyn Announcer>, stats: Arc<LaneStats>) -> Self {
        let (waiting, flying) = (Vec::new(), Vec::new());
        Self {
            store,
            announcer,
            stats,
            waiting,
            flying,
            done: sync_channel(1),
            wake: None,
            retry_at: None,
            offered: Instant::now(),
        }
    }

    /// Sets what is called when it is time to [`Committer::advance`]: what is durable is announced then, and not before.
    pub(crate) fn wake_by(&mut self, wake: Wake) {
        self.wake = Some(wake);
    }

    /// Takes a chunk. Waits while a whole batch is on its way and another one is ready.
    pub(crate) fn add(&mut self, chunk: SealedChunk) -> Result<(), LaneError> {
        self.waiting.push(chunk);
        self.advance()?;
        while self.waiting.len() >= BATCH {
            self.wait()?;
        }
        Ok(())
    }

    /// Waits until everything is durable and announced.
    pub(crate) fn flush(&mut self) -> Result<(), LaneError> {
        self.advance()?;
        while !self.flying.is_empty() {
            self.wait()?;
        }
        Ok(())
    }

    /// When [`Committer::advance`] should be called although no chunk came.
    pub(crate) fn deadline(&self) -> Option<Instant> {
        // Whoever waits is woken when a batch has ended, but for the rare time when the call comes right before the wait.
        (!self.flying.is_empty()).then(|| self.retry_at.unwrap_or_else(|| Instant::now() + Duration::from_millis(5)))
    }

    /// Does what can be done without waiting.
    pub(crate) fn advance(&mut self) -> Result<(), LaneError> {
        if self.flying.is_empty() {
            return self.launch();
        }
        if let Some(at) = self.retry_at {
            return if Instant::now() >= at { self.offer() } else { Ok(()) };
        }
        match self.done.1.try_recv() {
            Ok(result) => self.landed(result),
            Err(_) => Ok(()),
        }
    }

    fn wait(&mut self) -> Result<(), LaneError> {
        if self.flying.is_empty() {
            return self.launch();
        }
        if let Some(at) = self.retry_at {
            // Nothing to wait for but room on the disk; the store is asked again at a steady pace.
            std::thread::sleep(at.saturating_duration_since(Instant::now()));
            return self.offer();
        }
        match self.done.1.recv_timeout(Duration::from_secs(3600)) {
            Ok(result) => self.landed(result),
            Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected) => Err(LaneError::StoreSilent),
        }
    }

    fn launch(&mut self) -> Result<(), LaneError> {
        if self.waiting.is_empty() {
            return Ok(());
        }
        std::mem::swap(&mut self.waiting, &mut self.flying);
        self.offered = Instant::now();
        self.offer()
    }

    fn offer(&mut self) -> Result<(), LaneError> {
        self.retry_at = None;
        let mut batch = WriteBatch::new();
        for chunk in &self.flying {
            let (log, seq) = (chunk.entry.entry().key(), chunk.entry.entry().seq);
            let index = EntryIndex { chunk: Some(chunk.hash), dataset: Some((chunk.dataset, chunk.index)) };
            // Sealing has just hashed these bytes.
            batch.put_verified(VerifiedChunk::trust(chunk.hash, Arc::clone(&chunk.body)));
            batch.put_entry(log, seq, chunk.entry.bytes(), index);
        }
        let (done, wake) = (self.done.0.clone(), self.wake.clone());
        let first = self.flying.first().map(|chunk| (chunk.entry.entry().log, chunk.entry.entry().seq));
        let count = self.flying.len();
        self.store
            .submit(batch, move |result| {
                if let (Some((log, first)), true) = (first, result.is_ok()) {
                    // The benchmark's latency begins here.
                    tracing::trace!(%log, first, count, "durable");
                }
                // One batch is on its way at a time, so there is room for its result.
                let _ = done.try_send(result);
                if let Some(wake) = wake {
                    wake();
                }
            })
            .map_err(LaneError::Store)
    }

    fn landed(&mut self, result: Result<(), StoreError>) -> Result<(), LaneError> {
        match result {
            Ok(()) => {
                self.stats.unstall();
                self.stats.committed(self.offered);
                for chunk in self.flying.drain(..) {
                    self.stats.durable(u64::from(chunk.packages), chunk.body.len());
                    self.announcer.announce(&chunk.entry, Some(chunk.body));
                    self.stats.announced(u64::from(chunk.packages));
                }
                self.launch()
            }
            Err(error) if error.is_no_room() => {
                self.stats.stall(&error.to_string());
                self.retry_at = Some(Instant::now() + RETRY);
                Ok(())
            }
            Err(error) => Err(LaneError::Store(error)),
        }
    }
}
