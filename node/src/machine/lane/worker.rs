//! The thread of a lane.

use std::{
    sync::{Arc, mpsc::SyncSender},
    time::{Duration, Instant},
};

use tributary_protocol::{
    entry::EntryBody,
    ids::{DatasetId, StreamId},
};
use tributary_store::{Table, WriteBatch};

use super::{
    LaneError,
    committer::{Committer, RETRY},
    packer::{PackError, Packer},
    queue::{Popped, Queue},
    sealer::{OpenDataset, Sealer},
    slices::{PackageInfo, Slice, Slicer},
    stats::LaneStats,
};
use crate::{
    config::{ChunkConfig, CloseAfter},
    ingest::{Content, SourceMessage},
    machine::{Clock, machine_log::MachineLog, numbers::Numbers},
};

/// What a lane is asked to do.
pub(crate) enum Input {
    Message {
        message: SourceMessage,
        number: u64,
    },
    Flush(SyncSender<Result<(), LaneError>>),
    CloseDataset(SyncSender<Result<Option<DatasetId>, LaneError>>),
    RenewEpoch(SyncSender<Result<Option<DatasetId>, LaneError>>),
    /// Messages come from a source that does not wait for the disk.
    ReserveAhead,
}

impl std::fmt::Debug for Input {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Message { .. } => "Message",
            Self::Flush(_) => "Flush",
            Self::CloseDataset(_) => "CloseDataset",
            Self::RenewEpoch(_) => "RenewEpoch",
            Self::ReserveAhead => "ReserveAhead",
        })
    }
}

/// What a lane is made of.
pub(crate) struct LaneParts {
    pub(crate) stream: StreamId,
    pub(crate) packer: Packer,
    pub(crate) sealer: Sealer,
    pub(crate) committer: Committer,
    pub(crate) machine_log: Arc<MachineLog>,
    pub(crate) stats: Arc<LaneStats>,
    pub(crate) clock: Clock,
    pub(crate) chunk: ChunkConfig,
    pub(crate) close_after: CloseAfter,
}

pub(super) struct Worker {
    parts: LaneParts,
    queue: Arc<Queue<Input>>,
    numbers: Arc<Numbers>,
    /// Whether numbers are kept reserved here.
    reserves: bool,
    /// When that is tried again after it failed.
    reserve_again: Option<Instant>,
    slicer: Slicer,
    expected: u64,
    /// When the open slice got its first bytes.
    slice_since: Option<Instant>,
}

impl Worker {
    pub(super) fn new(mut parts: LaneParts, queue: Arc<Queue<Input>>, numbers: Arc<Numbers>) -> Self {
        let waiting = Arc::clone(&queue);
        parts.committer.wake_by(Arc::new(move || waiting.wake()));
        let slicer = Slicer::new(usize::try_from(parts.chunk.bytes).unwrap_or(usize::MAX));
        let expected = numbers.upcoming();
        Self { parts, queue, numbers, reserves: false, reserve_again: None, slicer, expected, slice_since: None }
    }

    /// Works until the queue is closed and empty, or something cannot go on.
    pub(super) fn run(mut self) {
        let stream = self.parts.stream;
        if let Err(error) = self.work() {
            tracing::error!(%stream, %error, "lane stopped");
            self.parts.stats.stop(&error.to_string());
            // What is sealed is whole and may leave; what is not taken in never will.
            if let Err(error) = self.parts.committer.flush() {
                tracing::error!(%stream, %error, "sealed chunks could not be stored");
            }
        }
        self.queue.close();
        // Whoever waits for an answer learns from the dropped sender that none will come.
        while let Popped::Item(input) = self.queue.pop(None) {
            if let Input::Message { .. } = input {
                self.parts.stats.refused();
            }
        }
    }

    fn work(&mut self) -> Result<(), LaneError> {
        loop {
            self.parts.committer.advance()?;
            self.on_time()?;
            self.reserve_ahead()?;
            match self.queue.pop(self.deadline()) {
                Popped::Item(Input::Message { message, number }) => self.message(message, number)?,
                Popped::Item(Input::Flush(reply)) => reply_with(&reply, self.flush())?,
                Popped::Item(Input::CloseDataset(reply)) => reply_with(&reply, self.close_dataset())?,
                Popped::Item(Input::RenewEpoch(reply)) => {
                    let closed = self.close_dataset();
                    self.parts.sealer.renew_epoch();
                    reply_with(&reply, closed)?;
                }
                Popped::Item(Input::ReserveAhead) => self.reserves = true,
                Popped::TimedOut => {}
                Popped::Closed => return self.close_dataset().map(drop),
            }
        }
    }

    /// Keeps numbers ready for a source that cannot wait for them. While there is no room for the reservation, the lane goes on
    /// with what it has.
    fn reserve_ahead(&mut self) -> Result<(), LaneError> {
        if !self.reserves || self.reserve_again.is_some_and(|at| at > Instant::now()) {
            return Ok(());
        }
        match self.numbers.reserve_ahead().map_err(LaneError::from) {
            Ok(()) => {
                if self.reserve_again.take().is_some() {
                    self.parts.stats.unstall();
                }
                self.queue.try_again();
            }
            Err(error) if error.is_no_room() => {
                self.parts.stats.stall(&error.to_string());
                self.reserve_again = Some(Instant::now() + RETRY);
            }
            Err(error) => return Err(error),
        }
        Ok(())
    }

    fn message(&mut self, message: SourceMessage, number: u64) -> Result<(), LaneError> {
        let time_ms = message.log_time_ns / 1_000_000;
        if let Content::Slice { .. } = message.content {
            self.parts.stats.refused();
            return Ok(());
        }
        let packed = match self.parts.packer.pack(message, number) {
            Ok(packed) => packed,
            Err(PackError::Rules(violation)) => return Err(LaneError::Rules(violation.to_string())),
            Err(PackError::Message(reason)) => {
                tracing::warn!(stream = %self.parts.stream, number, reason, "message refused");
                self.parts.stats.refused();
                return Ok(());
            }
        };
        let gap = number.saturating_sub(self.expected);
        self.expected = number + 1;
        self.parts.stats.packaged(packed.len());
        let mut full = Vec::new();
        self.slicer.push(PackageInfo { number, gap, time_ms }, &packed.parts(), &mut full);
        for slice in full {
            self.seal(slice)?;
        }
        self.slice_since = match self.slicer.is_empty() {
            true => None,
            false => self.slice_since.or_else(|| Some(Instant::now())),
        };
        self.close_when_due()
    }

    fn seal(&mut self, slice: Slice) -> Result<(), LaneError> {
        let now_ms = (self.parts.clock)();
        if self.parts.sealer.epoch_ended(now_ms) {
            self.close_sealed()?;
            self.parts.sealer.renew_epoch();
        }
        let LaneParts { sealer, stats, .. } = &mut self.parts;
        with_room(stats, || sealer.prepare(now_ms))?;
        let chunk = self.parts.sealer.seal(slice, now_ms)?;
        self.slice_since = None;
        self.parts.committer.add(chunk)
    }

    fn cut(&mut self) -> Result<(), LaneError> {
        match self.slicer.cut() {
            Some(slice) => self.seal(slice),
            None => Ok(()),
        }
    }

    fn flush(&mut self) -> Result<(), LaneError> {
        self.cut()?;
        self.parts.committer.flush()
    }

    fn close_dataset(&mut self) -> Result<Option<DatasetId>, LaneError> {
        self.cut()?;
        self.close_sealed()
    }

    /// Closes the dataset of the chunks sealed so far.
    fn close_sealed(&mut self) -> Result<Option<DatasetId>, LaneError> {
        self.parts.committer.flush()?;
        let Some(open) = self.parts.sealer.close_dataset() else { return Ok(None) };
        let LaneParts { machine_log, stats, clock, .. } = &self.parts;
        let id = with_room(stats, || close(machine_log, &open, clock()))?;
        self.parts.stats.dataset_closed();
        self.parts.packer.begin_dataset();
        Ok(Some(id))
    }

    fn close_when_due(&mut self) -> Result<(), LaneError> {
        let Some(open) = self.parts.sealer.dataset() else { return Ok(()) };
        let CloseAfter { time, bytes, packages } = self.parts.close_after;
        let age = Duration::from_millis((self.parts.clock)().saturating_sub(open.opened_ms));
        let due = time.is_some_and(|limit| age >= limit)
            || bytes.is_some_and(|limit| open.builder.bytes() >= limit)
            || packages.is_some_and(|limit| open.builder.packages() >= limit);
        if due { self.close_dataset().map(drop) } else { Ok(()) }
    }

    /// What is due although no message came: an old slice, an old dataset.
    fn on_time(&mut self) -> Result<(), LaneError> {
        if self.slice_since.is_some_and(|since| since.elapsed() >= self.parts.chunk.max_age) {
            self.cut()?;
        }
        self.close_when_due()
    }

    fn deadline(&self) -> Option<Instant> {
        let slice = self.slice_since.map(|since| since + self.parts.chunk.max_age);
        let dataset = self.parts.sealer.dataset().and_then(|open| {
            let opened = Duration::from_millis((self.parts.clock)().saturating_sub(open.opened_ms));
            Some(Instant::now() + self.parts.close_after.time?.saturating_sub(opened))
        });
        [slice, dataset, self.reserve_again, self.parts.committer.deadline()].into_iter().flatten().min()
    }
}

/// Does work that writes, again and again while there is no room for it. The lane waits, and its report says why.
fn with_room<T>(stats: &LaneStats, mut work: impl FnMut() -> Result<T, LaneError>) -> Result<T, LaneError> {
    let mut waited = false;
    loop {
        match work() {
            Err(error) if error.is_no_room() => {
                waited = true;
                stats.stall(&error.to_string());
                std::thread::sleep(RETRY);
            }
            result => {
                if waited {
                    stats.unstall();
                }
                return result;
            }
        }
    }
}

/// Writes the statement that ends a dataset whose chunks are durable.
pub(crate) fn close(log: &MachineLog, open: &OpenDataset, now_ms: u64) -> Result<DatasetId, LaneError> {
    let entry = open.builder.close().ok_or_else(|| LaneError::Seal("a dataset without chunks".to_owned()))?;
    let id = entry.dataset;
    let mut batch = WriteBatch::new();
    batch.put_row(Table::Dataset, id.as_bytes().to_vec(), entry.encode());
    let (chunks, packages, bytes) = (entry.chunk_count, entry.package_count, entry.bytes);
    log.append(now_ms, EntryBody::DatasetClosed(entry), batch)?;
    tracing::info!(dataset = %id, chunks, packages, bytes, "dataset closed");
    Ok(id)
}

/// Answers a command. What went wrong is for the asker and for the lane: it stops.
fn reply_with<T>(reply: &SyncSender<Result<T, LaneError>>, result: Result<T, LaneError>) -> Result<(), LaneError> {
    match result {
        Ok(value) => {
            let _ = reply.try_send(Ok(value)); // the asker may have given up
            Ok(())
        }
        Err(error) => {
            let _ = reply.try_send(Err(LaneError::Stopped { reason: error.to_string() }));
            Err(error)
        }
    }
}
