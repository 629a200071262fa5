//! A lane: what happens to one stream's messages between the source and the network.
//!
//! ```text
//! source -> number -> queue -> rules, package, signature -> slices -> seal, log entry -> one durable record -> announce
//! ```
//!
//! Each lane has a thread of its own and shares only the store and the machine log with the others. It is stopped by
//! [`Lane::finish`], which seals, stores and announces everything that was taken in. A lane that cannot go on (a rule that
//! cannot decide, a broken store) stops by itself, refuses further messages, and says why.

pub(crate) mod committer;
pub(crate) mod packer;
mod queue;
pub(crate) mod sealer;
pub(crate) mod slices;
pub(crate) mod stats;
mod worker;

use std::{
    sync::{Arc, Mutex, PoisonError, mpsc::sync_channel},
    thread::JoinHandle,
};

use tributary_protocol::ids::DatasetId;
use tributary_store::StoreError;

use self::{
    committer::RETRY,
    queue::{Closed, Pushed, Queue, QueueBounds},
    stats::LaneStats,
    worker::{Input, Worker},
};
use super::{
    epochs::EpochError,
    log_writer::LogError,
    machine_log::MachineLogError,
    numbers::{NumberError, Numbers},
};
use crate::{
    config::{Overflow, QueueConfig},
    durations::DurationsReport,
    ingest::{Content, SourceMessage},
};

pub use self::queue::Room;
pub use self::stats::LaneReport;
pub(crate) use self::worker::{LaneParts, close};

/// Bytes of messages that a queue holds at most: eight large images.
const QUEUE_BYTES: usize = 64 << 20;

/// Why a lane stopped, or did not take a message.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LaneError {
    /// No package number could be given.
    #[error(transparent)]
    Number(#[from] NumberError),
    /// No chunk key could be given.
    #[error(transparent)]
    Epoch(#[from] EpochError),
    /// The stream's log could not be written.
    #[error(transparent)]
    Log(#[from] LogError),
    /// The machine log could not be written.
    #[error(transparent)]
    MachineLog(#[from] MachineLogError),
    /// The store failed.
    #[error("the store failed: {0}")]
    Store(#[source] StoreError),
    /// The store gave no answer for an hour.
    #[error("the store has not answered for an hour; look at the disk, then restart the node")]
    StoreSilent,
    /// A chunk could not be sealed.
    #[error("a chunk cannot be sealed: {0}")]
    Seal(String),
    /// The field rules cannot decide about a message, so nothing more leaves.
    #[error("the stream is stopped, fail-closed: {0}")]
    Rules(String),
    /// The system gave no thread.
    #[error("no thread for the lane: {0}")]
    Thread(std::io::Error),
    /// The lane has stopped; its report says why.
    #[error("the lane has stopped: {reason}")]
    Stopped {
        /// Why.
        reason: String,
    },
}

impl LaneError {
    /// Whether there was no room for what should be written: it can be tried again.
    pub(crate) fn is_no_room(&self) -> bool {
        match self {
            Self::Number(NumberError::Store(error))
            | Self::Epoch(EpochError::Log(MachineLogError::Store(error)))
            | Self::MachineLog(MachineLogError::Store(error))
            | Self::Store(error) => error.is_no_room(),
            _ => false,
        }
    }
}

/// What became of an offered message.
#[derive(Debug)]
pub enum Offered {
    /// It is in, or was dropped and counted as the stream's configuration says.
    Taken,
    /// There is no room.
    Full(SourceMessage),
}

/// A running lane.
pub(crate) struct Lane {
    queue: Arc<Queue<Input>>,
    numbers: Arc<Numbers>,
    stats: Arc<LaneStats>,
    when_full: Overflow,
    worker: Mutex<Option<JoinHandle<()>>>,
}

impl Lane {
    /// Starts the lane's thread.
    pub(crate) fn start(parts: LaneParts, numbers: Numbers, queue: QueueConfig) -> Result<Self, LaneError> {
        let bounds = QueueBounds {
            messages: usize::try_from(queue.messages).unwrap_or(usize::MAX),
            bytes: QUEUE_BYTES,
            when_full: queue.overflow,
        };
        let when_full = queue.overflow;
        let queue = Arc::new(Queue::new(bounds));
        let stats = Arc::clone(&parts.stats);
        let numbers = Arc::new(numbers);
        let worker = Worker::new(parts, Arc::clone(&queue), Arc::clone(&numbers));
        let handle = std::thread::Builder::new()
            .name("lane".to_owned())
            .spawn(move || worker.run())
            .map_err(LaneError::Thread)?;
        Ok(Self { queue, numbers, stats, when_full, worker: Mutex::new(Some(handle)) })
    }

    /// Takes a message in. Waits for room where the stream says so, in the queue and on the disk.
    pub(crate) fn push(&self, message: SourceMessage) -> Result<(), LaneError> {
        self.stats.received();
        let size = size_of_message(&message);
        if !self.reserve_numbers()? {
            self.stats.dropped(1);
            return Ok(());
        }
        let taken = self.queue.push(size, || {
            let number = self.numbers.take()?;
            Ok::<_, NumberError>(Input::Message { message, number })
        });
        match taken {
            Ok(Ok(dropped)) => {
                self.stats.dropped(dropped);
                Ok(())
            }
            Ok(Err(error)) => Err(error.into()),
            Err(Closed) => {
                self.stats.refused();
                Err(self.stopped())
            }
        }
    }

    /// Prepares for [`Lane::offer`]: from here on the lane keeps numbers reserved, and `room` is called, from the lane's thread, when
    /// there is room again after an offer found none. It must not wait.
    pub(crate) fn go_live(&self, room: Room) -> Result<(), LaneError> {
        self.queue.when_room(room);
        self.queue.push_command(Input::ReserveAhead).map_err(|Closed| self.stopped())
    }

    /// Takes a message in as [`Lane::push`] does, but never waits. Where it would have to, the message comes back.
    pub(crate) fn offer(&self, message: SourceMessage) -> Result<Offered, LaneError> {
        let size = size_of_message(&message);
        let mut message = Some(message);
        let pushed = self.queue.try_push(size, || {
            let number = self.numbers.try_take()?;
            message.take().map(|message| Input::Message { message, number })
        });
        match (pushed, message) {
            (Pushed::In { dropped }, _) => {
                self.stats.received();
                self.stats.dropped(dropped);
                Ok(Offered::Taken)
            }
            // No number: the disk is slow or full. A stream that does not wait for its queue does not wait for the disk.
            (Pushed::Not, Some(_)) if self.when_full == Overflow::DropOldest => {
                self.stats.received();
                self.stats.dropped(1);
                Ok(Offered::Taken)
            }
            (Pushed::Full | Pushed::Not, Some(message)) => Ok(Offered::Full(message)),
            (Pushed::Closed | Pushed::Full | Pushed::Not, _) => {
                self.stats.received();
                self.stats.refused();
                Err(self.stopped())
            }
        }
    }

    /// Counts messages that a live source held for the lane and could not hand over before the end.
    pub(crate) fn count_dropped(&self, count: u64) {
        for _ in 0..count {
            self.stats.received();
        }
        self.stats.dropped(count);
    }

    /// Makes sure that the next message finds a number, outside the queue, which others need meanwhile. `false` when there is no
    /// room on the disk to reserve one, and the stream does not wait for room.
    fn reserve_numbers(&self) -> Result<bool, LaneError> {
        let mut waited = false;
        loop {
            let error = match self.numbers.reserve() {
                Ok(()) => {
                    if waited {
                        self.stats.unstall();
                    }
                    return Ok(true);
                }
                Err(error) => LaneError::from(error),
            };
            if !error.is_no_room() {
                return Err(error);
            }
            waited = true;
            self.stats.stall(&error.to_string());
            if self.when_full == Overflow::DropOldest {
                return Ok(false);
            }
            if self.queue.is_closed() {
                return Err(self.stopped());
            }
            // Nothing to wait for but room on the disk; the store is asked again at a steady pace.
            std::thread::sleep(RETRY);
        }
    }

    /// Closes the open dataset: all that was taken in before is in it, durable, when this returns. `None` when there was nothing.
    pub(crate) fn close_dataset(&self) -> Result<Option<DatasetId>, LaneError> {
        self.ask(Input::CloseDataset)
    }

    /// Makes all that was taken in before durable and announced, without closing the dataset.
    pub(crate) fn flush(&self) -> Result<(), LaneError> {
        self.ask(Input::Flush)
    }

    /// Begins a new key epoch, and so a new dataset.
    pub(crate) fn renew_epoch(&self) -> Result<Option<DatasetId>, LaneError> {
        self.ask(Input::RenewEpoch)
    }

    /// Seals, stores and announces everything, closes the dataset, and ends the thread.
    pub(crate) fn finish(&self) -> Result<(), LaneError> {
        let closed = self.close_dataset().map(drop);
        self.queue.close();
        self.join();
        self.numbers.close()?;
        closed
    }

    fn join(&self) {
        let handle = self.worker.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(handle) = handle
            && handle.join().is_err()
        {
            self.stats.stop("the lane's thread failed; see the log");
        }
    }

    /// What was counted so far.
    pub(crate) fn report(&self) -> LaneReport {
        self.stats.report(self.queue.len())
    }

    /// How long batches of chunks took to the disk.
    pub(crate) fn commits(&self) -> DurationsReport {
        self.stats.commits()
    }

    fn ask<T>(
        &self,
        command: impl FnOnce(std::sync::mpsc::SyncSender<Result<T, LaneError>>) -> Input,
    ) -> Result<T, LaneError> {
        let (reply, answer) = sync_channel(1);
        self.queue.push_command(command(reply)).map_err(|Closed| self.stopped())?;
        answer.recv().map_err(|_| self.stopped())?
    }

    fn stopped(&self) -> LaneError {
        let reason = self.stats.report(0).stopped.unwrap_or_else(|| "the node is shutting down".to_owned());
        LaneError::Stopped { reason }
    }
}

impl Drop for Lane {
    /// Without [`Lane::finish`] nobody asks, but what was taken in is still sealed and stored before the thread ends: whoever
    /// opens the store next finds it free.
    fn drop(&mut self) {
        self.queue.close();
        self.join();
    }
}

/// About how much memory a waiting message takes, in bytes.
fn size_of_message(message: &SourceMessage) -> usize {
    /// Fields of sensor messages are small; what is large in them are blobs, which are counted.
    const FIELDS: usize = 2048;
    match &message.content {
        Content::Fields(fields) => FIELDS + fields.blobs.iter().map(|blob| blob.bytes.len()).sum::<usize>(),
        Content::Raw(raw) => raw.cdr.len(),
        Content::Slice { bytes, .. } => bytes.len(),
    }
}
