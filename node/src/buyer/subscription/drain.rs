//! Taking what was announced: pulled, checked, written, noted.
//!
//! The place that is noted lies between two packages, and everything before it is in the files. A package that is cut into
//! several chunks is held back until it is whole; after a kill its chunks are read again from the store.

use std::sync::Arc;

use tributary_protocol::{
    access::Range,
    binding::chain::Reigns,
    entry::EntryBody,
    ids::{DatasetId, Did, LogId, LogKey, StreamId},
    keys::FeedPublicKey,
    record::{ChunkRecord, Content},
};

use super::{
    Shared,
    renew::full,
    row::{self, Place, Row},
    sink::{Sink, SinkError},
};
use crate::{
    buyer::{Buyer, error::ContentError, export::refused, plaintext::open_chunk},
    export::{PlainPackage, PlaintextError, PlaintextLimits, PlaintextReader},
    feeds::{FeedsError, PullJobError, blocking, entries, stored_chain, stream_logs},
};

/// Chunks that are pulled together, unless a package is cut into more of them.
const BATCH: u64 = 64;
/// A package of the largest size, in chunks of the smallest one.
const MAX_BATCH: u64 = 1 << 16;
/// Chunks that are written before the place is noted, when a package ends there.
const NOTED_EVERY: u64 = 32;
/// A chunk that nobody has is looked for so often before it is left out.
const LOOKED_FOR: u32 = 5;

/// How far it came.
pub(super) enum Drained {
    /// To the end of what is announced.
    All,
    /// To a chunk whose key is not here. The ranges of all such chunks, as far as they were looked through.
    Locked(Vec<Range>),
}

/// What is remembered between two calls; lost without harm.
#[derive(Default)]
pub(super) struct Drain {
    /// How often the chunk at the place was nowhere to be had.
    looked_for: Option<(Place, u32)>,
    /// How many times [`BATCH`] chunks are taken together, less one: more while a package has more chunks.
    more: u64,
}

/// Why it does not go on.
#[derive(Debug, thiserror::Error)]
enum DrainError {
    #[error(transparent)]
    Feeds(#[from] FeedsError),
    #[error(transparent)]
    Pull(#[from] PullJobError),
    #[error(transparent)]
    Content(#[from] ContentError),
    #[error("the stream does not read as packages")]
    Plaintext(#[from] PlaintextError),
    #[error("package {number} is not signed by the machine: {reason}; nothing of its chunk was written")]
    Package { number: String, reason: String },
    #[error(transparent)]
    Sink(#[from] SinkError),
    #[error("the stream holds files, which are not written as lines; export its datasets instead")]
    File,
}

impl From<tributary_store::StoreError> for DrainError {
    fn from(error: tributary_store::StoreError) -> Self {
        Self::Feeds(error.into())
    }
}

impl Buyer {
    /// Notes where a subscription begins: behind what is announced by now.
    pub(super) async fn begin(&self, shared: &Arc<Shared>) -> Result<(), String> {
        self.feeds().catch_up(&shared.did).await.map_err(|error| full(&error))?;
        let (buyer, did, stream) = (self.clone(), shared.did, shared.stream);
        let place = blocking(move || {
            let handle = buyer.feeds().handle(&did)?;
            let feed = handle.feed();
            if !feed.row.streams.wants(&did, &LogId::from(stream)) {
                return Ok(None);
            }
            let logs = feed.follower().tips().filter(|tip| tip.log.log.stream() == Some(stream));
            let newest = logs.max_by_key(|tip| tip.log.incarnation);
            let (incarnation, seq) = newest.map_or((0, 0), |tip| (tip.log.incarnation, tip.next));
            Ok::<_, FeedsError>(Some(Place { incarnation, seq }))
        });
        let place = place.await.and_then(|place| place).map_err(|error| full(&error))?;
        let Some(place) = place else {
            return Err("the stream is not among those that are followed; follow it, too".to_owned());
        };
        let row = Row { next: Some(place), ..shared.row().clone() };
        self.keep_row(shared, row).await.map_err(|error| full(&error))
    }
}

impl Drain {
    /// Takes what is announced, as far as there are keys.
    pub(super) async fn take(&mut self, buyer: &Buyer, shared: &Arc<Shared>) -> Result<Drained, String> {
        self.try_take(buyer, shared).await.map_err(|error| full(&error))
    }

    async fn try_take(&mut self, buyer: &Buyer, shared: &Arc<Shared>) -> Result<Drained, DrainError> {
        loop {
            let row = shared.row().clone();
            let Some(place) = row.next else { return Ok(Drained::All) };
            if !row.terms.pull {
                // Keys only: what is announced counts as taken, and what is locked is asked for.
                return self.keys_only(buyer, shared, place).await;
            }
            let (looker, did, stream) = (buyer.clone(), shared.did, shared.stream);
            let batch = BATCH.saturating_mul(self.more + 1).min(MAX_BATCH);
            let found = blocking(move || look(&looker, (did, stream), place, batch)).await??;
            let Some(found) = found else { return Ok(Drained::All) };
            if found.open > 0 {
                let log = found.log;
                let last = found.from + found.open - 1;
                let what = format!("stream {}", row.terms.stream);
                let pulled = buyer.pull_places(&shared.did, vec![(log, found.from, last)], None, what, None).await;
                let absent = matches!(&pulled, Err(PullJobError::Exhausted(said)) if said.nobody_has_them());
                if !absent {
                    pulled?;
                }
                let place = Place { incarnation: log.incarnation, seq: found.from };
                let (writer, job) = (buyer.clone(), Job { row, log, place, last, did, stream });
                let writing = Arc::clone(shared);
                let written = blocking(move || {
                    writing.writing(|| {
                        let (row, result) = write(&writer, job);
                        *writing.row() = row;
                        Ok(result)
                    })
                });
                let result = written.await??;
                let went_on = shared.row().next > Some(place);
                match result {
                    Ok(()) if went_on => (self.looked_for, self.more) = (None, 0),
                    // A package goes on behind these chunks: in those that are announced, or in those that will be.
                    Ok(()) if found.open < batch || batch == MAX_BATCH => return Ok(Drained::All),
                    Ok(()) => self.more = self.more * 4 + 3,
                    Err(DrainError::Content(ContentError::Missing { .. })) if absent => {
                        self.missing(buyer, shared, went_on).await?;
                    }
                    Err(error) => return Err(error),
                }
                continue;
            }
            return Ok(Drained::Locked(found.locked));
        }
    }

    /// Goes on behind a chunk that nobody has, when it was looked for often enough.
    async fn missing(&mut self, buyer: &Buyer, shared: &Arc<Shared>, went_on: bool) -> Result<(), DrainError> {
        if went_on {
            self.looked_for = None;
            return Ok(());
        }
        let mut row = shared.row().clone();
        let Some(place) = row.next else { return Ok(()) };
        let tries = self.looked_for.filter(|(known, _)| *known == place).map_or(0, |(_, tries)| tries) + 1;
        self.looked_for = Some((place, tries));
        if tries < LOOKED_FOR {
            return Err(DrainError::Pull(PullJobError::NotFound { what: format!("the chunk at entry {}", place.seq) }));
        }
        tracing::warn!(machine = %shared.did, stream = %row.terms.stream, seq = place.seq, "nobody has a chunk any more; it is left out");
        row.next = Some(Place { seq: place.seq.saturating_add(1), ..place });
        row.skipped += 1;
        buyer.keep_row(shared, row).await?;
        self.looked_for = None;
        Ok(())
    }

    async fn keys_only(&self, buyer: &Buyer, shared: &Arc<Shared>, mut place: Place) -> Result<Drained, DrainError> {
        let (looker, did, stream) = (buyer.clone(), shared.did, shared.stream);
        let (place, locked) = blocking(move || -> Result<_, FeedsError> {
            while let Some(found) = look(&looker, (did, stream), place, BATCH)? {
                place = Place { incarnation: found.log.incarnation, seq: found.from + found.open };
                if found.open == 0 {
                    return Ok((place, found.locked));
                }
            }
            Ok((place, Vec::new()))
        })
        .await??;
        if shared.row().next != Some(place) {
            let row = Row { next: Some(place), ..shared.row().clone() };
            buyer.keep_row(shared, row).await?;
        }
        Ok(if locked.is_empty() { Drained::All } else { Drained::Locked(locked) })
    }
}

/// Chunks that follow a place.
struct Found {
    log: LogKey,
    /// Position of the first.
    from: u64,
    /// How many of them have keys here, from the first on.
    open: u64,
    /// When the first has none: the ranges of those that have none.
    locked: Vec<Range>,
}

/// What is announced from a place on; `None` when nothing is.
fn look(buyer: &Buyer, (did, stream): (Did, StreamId), place: Place, batch: u64) -> Result<Option<Found>, FeedsError> {
    let store = buyer.feeds().store();
    for log in stream_logs(store, &did, &stream)?.into_iter().filter(|log| log.incarnation >= place.incarnation) {
        let from = if log.incarnation == place.incarnation { place.seq } else { 0 };
        let mut found: Option<Found> = None;
        let mut runs: Vec<(u64, ChunkRecord, ChunkRecord)> = Vec::new();
        let mut looked = 0;
        for entry in entries(store, log, from..) {
            let entry = entry?;
            let EntryBody::Chunk(record) = &entry.entry().body else { continue };
            let held = buyer.inner.wallet.holds(&did, record);
            let found = found.get_or_insert(Found { log, from: entry.entry().seq, open: 0, locked: Vec::new() });
            looked += 1;
            if held && runs.is_empty() {
                found.open += 1;
            } else if found.open > 0 {
                break;
            } else if !held {
                // Between two of them lie only positions that no chunk has, or chunks whose keys are here.
                match runs.last_mut() {
                    Some((epoch, _, last)) if *epoch == record.epoch => *last = record.clone(),
                    _ => runs.push((record.epoch, record.clone(), record.clone())),
                }
            }
            if found.open >= batch || looked >= 16 * batch {
                break;
            }
        }
        if let Some(mut found) = found {
            found.locked = runs
                .into_iter()
                .map(|(epoch, first, last)| Range::Positions {
                    stream,
                    epoch,
                    first: first.position,
                    last: last.position,
                })
                .collect();
            return Ok(Some(found));
        }
    }
    Ok(None)
}

/// A stretch of a log that is written.
struct Job {
    row: Row,
    log: LogKey,
    place: Place,
    last: u64,
    did: Did,
    stream: StreamId,
}

/// Writes the chunks of a stretch into the files and notes how far it came. The row is the one that is noted, also after an
/// error.
fn write(buyer: &Buyer, job: Job) -> (Row, Result<(), DrainError>) {
    let mut writing = Writing { buyer, row: job.row, log: job.log, did: job.did, stream: job.stream };
    let result = writing.run(job.place, job.last);
    (writing.row, result)
}

struct Writing<'a> {
    buyer: &'a Buyer,
    row: Row,
    log: LogKey,
    did: Did,
    stream: StreamId,
}

impl Writing<'_> {
    fn note(&mut self, row: Row) -> Result<(), DrainError> {
        row::save(self.buyer.feeds().store(), &self.did, &self.stream, &row)?;
        self.row = row;
        Ok(())
    }

    /// The file that grows.
    fn sink(&mut self) -> Result<Option<Sink>, DrainError> {
        let Some(terms) = self.row.terms.sink.clone() else { return Ok(None) };
        let name = self.row.terms.stream.clone();
        if self.row.sink.is_none() {
            let state = Sink::begin(&terms, &name, &self.stream)?;
            self.note(Row { sink: Some(state), ..self.row.clone() })?;
        }
        // A second time, when the first found that somebody took the file away.
        for _ in 0..2 {
            let Some(state) = self.row.sink else { break };
            match Sink::open(&terms, &name, &self.stream, state)? {
                Ok(sink) => return Ok(Some(sink)),
                Err(next) => self.note(Row { sink: Some(next), ..self.row.clone() })?,
            }
        }
        Ok(None)
    }

    fn run(&mut self, place: Place, last: u64) -> Result<(), DrainError> {
        let chain = stored_chain(self.buyer.feeds().store(), &self.did)?.ok_or(FeedsError::NotFollowed(self.did))?;
        let reigns = chain.reigns(&self.log.log, self.log.incarnation);
        let mut sink = self.sink()?;
        let mut stretch = Stretch::default();
        let (mut chunks, mut packages) = (0, 0);
        let store = self.buyer.feeds().store().clone();
        for entry in entries(&store, self.log, place.seq..=last) {
            let entry = entry?;
            let (seq, EntryBody::Chunk(record)) = (entry.entry().seq, &entry.entry().body) else { continue };
            if let Some(sink) = &mut sink {
                packages += self.chunk(seq, record, &reigns, &mut stretch, sink)?;
            } else if !store.has_chunk(&record.hash)? {
                return Err(ContentError::Missing { dataset: record.dataset, index: record.index }.into());
            }
            chunks += 1;
            if stretch.is_whole() && (chunks >= NOTED_EVERY || seq == last) {
                let mut row = self.row.clone();
                row.next = Some(Place { incarnation: self.log.incarnation, seq: seq.saturating_add(1) });
                row.chunks += std::mem::take(&mut chunks);
                row.packages += std::mem::take(&mut packages);
                let mut full = false;
                if let Some(sink) = &mut sink {
                    let state = sink.sync()?;
                    let next = sink.next();
                    full = next.is_some();
                    row.sink = Some(next.unwrap_or(state));
                }
                self.note(row)?;
                if full {
                    sink = self.sink()?;
                }
            }
        }
        Ok(())
    }

    /// Opens a chunk and writes the packages that end in it. Returns how many.
    fn chunk(
        &self,
        seq: u64,
        record: &ChunkRecord,
        reigns: &Reigns,
        stretch: &mut Stretch,
        sink: &mut Sink,
    ) -> Result<u64, DrainError> {
        let (dataset, index) = (record.dataset, record.index);
        if record.encoding.content == Content::File {
            return Err(DrainError::File);
        }
        let feed_key: FeedPublicKey =
            reigns.at(seq).map(|reign| reign.key).ok_or(ContentError::Record { dataset, index })?;
        let body = self.buyer.feeds().store().chunk(&record.hash)?.ok_or(ContentError::Missing { dataset, index })?;
        let key = self.buyer.key_for(&self.did, record)?.ok_or(ContentError::NotGranted { dataset, index })?;
        let plaintext = open_chunk(record, &feed_key, &key, &body)?;
        let whole = stretch.push(record, &plaintext)?;
        for package in &whole {
            if let Some(reason) = refused(&self.did, package) {
                let number = package.package.sequence_number.to_string();
                return Err(DrainError::Package { number, reason });
            }
        }
        for package in &whole {
            sink.write(package)?;
        }
        Ok(whole.len() as u64)
    }
}

/// Packages out of chunks that follow each other. Where reading begins, or behind a chunk that was left out, a chunk may begin
/// in the middle of a package; such chunks are left out until one begins with the package that its record names.
#[derive(Default)]
struct Stretch {
    run: Option<Run>,
    /// Dataset and index of the last chunk.
    last: Option<(DatasetId, u32)>,
}

struct Run {
    reader: PlaintextReader,
    /// The number that the first package must have; `None` when it is certain that the run began with a package.
    due: Option<u64>,
}

impl Stretch {
    /// Whether no package waits for its end.
    fn is_whole(&self) -> bool {
        self.run.as_ref().is_none_or(|run| run.reader.is_between_packages())
    }

    fn push(&mut self, record: &ChunkRecord, plaintext: &[u8]) -> Result<Vec<PlainPackage>, DrainError> {
        let before = record.index.checked_sub(1).map(|before| (record.dataset, before));
        let follows = before.is_some() && self.last == before;
        self.last = Some((record.dataset, record.index));
        let new = || Run {
            reader: PlaintextReader::new(PlaintextLimits::default()),
            due: (record.index > 0).then_some(record.first_number),
        };
        let mut run = match self.run.take() {
            Some(run) if follows => run,
            // No package begins in it: nothing of it can be read.
            _ if record.index > 0 && record.package_count == 0 => return Ok(Vec::new()),
            _ => new(),
        };
        run.reader.push(plaintext);
        let mut whole = Vec::new();
        loop {
            let next = run.reader.next_package();
            match (next, run.due) {
                (Ok(Some(package)), None) => whole.push(package),
                (Ok(Some(package)), Some(due)) if package.package.sequence_number.as_u64() == Some(due) => {
                    run.due = None;
                    whole.push(package);
                }
                (Ok(None), _) => break,
                // The end of a package whose beginning is not here.
                (Ok(Some(_)) | Err(_), Some(_)) => return Ok(Vec::new()),
                (Err(error), None) => return Err(error.into()),
            }
        }
        self.run = Some(run);
        Ok(whole)
    }
}
