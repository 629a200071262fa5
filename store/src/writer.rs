//! The writer: turns queued batches into groups, and a group into one gathered write and one `fdatasync`. It works on a thread
//! of its own, or on that of a caller who found nothing to wait for.
//!
//! A group is the durable unit: it lies in one file and ends with a frame that counts and checksums it. Groups with a chunk
//! body go to the chunk segment together with everything committed beside it, others to the state segment. Order in a group:
//! check, place, write, `fdatasync`, index, tell the callers. When the write fails the segment is cut back and the store goes
//! on; when the `fdatasync` fails nobody knows what the disk holds, so the store stops.

use std::{
    collections::HashMap,
    io::IoSlice,
    ops::Range,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{Arc, Mutex},
};

use crate::{
    apply::{apply, chunk_row, digest},
    batch::{Body, Op, WriteBatch},
    error::{IoContext, StoreError},
    frame::{Change, HEADER_LEN, Kind},
    index::{Delta, Fingerprint, Loc, PlaceRow, Tail, entry_key},
    queue::{BatchJob, Work, lock},
    segment::{GroupSum, SEGMENT_HEADER, Segment, SegmentHeader, SegmentKind, VERSION},
    shared::{SegmentInfo, Shared, now_ms},
};

/// A segment that is appended to.
#[derive(Debug)]
pub(crate) struct Active {
    pub(crate) segment: Segment,
    /// Where the next frame goes; everything before is durable.
    pub(crate) end: u64,
    /// The file is allocated up to here.
    pub(crate) allocated_to: u64,
    /// Frames without group ends.
    pub(crate) frames: u64,
}

pub(crate) struct Writer {
    pub(crate) shared: Arc<Shared>,
    pub(crate) tail: Tail,
    pub(crate) next_lsn: u64,
    pub(crate) next_id: u32,
    pub(crate) chunk: Option<Active>,
    pub(crate) state: Option<Active>,
    /// Bytes written since the index was measured last.
    unmeasured: u64,
}

/// The index is measured again after so many bytes of log.
const MEASURE_EVERY: u64 = 16 << 20;
/// State segments are allocated at most this far ahead.
const STATE_AHEAD: u64 = 1 << 20;
/// A group fits a segment offset (`u32`) whatever the segment size.
const MAX_GROUP: u64 = 1 << 30;

/// The writer thread: works until the queue is closed and empty, then leaves the store settled.
pub(crate) fn run(shared: &Arc<Shared>, writer: &Mutex<Writer>) {
    let _abandon = Abandon(Arc::clone(shared));
    let group_bytes = shared.options.group_bytes.min(shared.options.segment_bytes / 2);
    loop {
        let work = shared.queue.pop(group_bytes);
        let turn = Turn(shared);
        match work {
            Work::Group(group) => commit_group(writer, group),
            Work::Call(call) => call(&mut lock(writer)),
            Work::Stop => {
                drop(turn);
                break;
            }
        }
    }
    if shared.check_poison().is_ok()
        && let Err(error) = lock(writer).settle()
    {
        tracing::warn!(%error, "the store could not be closed cleanly; the next open replays the log");
    }
}

/// Commits on the caller's thread if it is nobody's turn; otherwise the batch comes back.
pub(crate) fn commit_here(
    shared: &Shared,
    writer: &Mutex<Writer>,
    batch: WriteBatch,
    bytes: u64,
) -> Result<Result<(), StoreError>, WriteBatch> {
    if !shared.queue.try_begin() {
        return Err(batch);
    }
    let turn = Turn(shared);
    let batches = [(batch, bytes)];
    let result = lock(writer).commit(&batches).pop().unwrap_or(Err(StoreError::Closed));
    drop(turn);
    Ok(result)
}

fn commit_group(writer: &Mutex<Writer>, jobs: Vec<BatchJob>) {
    let (batches, done): (Vec<_>, Vec<_>) = jobs.into_iter().map(|job| ((job.batch, job.bytes), job.done)).unzip();
    let results = lock(writer).commit(&batches);
    for (done, result) in done.into_iter().zip(results) {
        // A callback that panics must not take the writer with it: the others wait for theirs.
        if catch_unwind(AssertUnwindSafe(|| done(result))).is_err() {
            tracing::error!("a commit callback panicked");
        }
    }
}

/// The turn to write; given back however it ends. A panic in the middle of a group leaves nobody knows what behind.
struct Turn<'a>(&'a Shared);

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.0.poison("the writer panicked");
        }
        self.0.queue.end();
    }
}

/// However the writer thread ends, by a panic too, nobody waits for it for ever.
struct Abandon(Arc<Shared>);

impl Drop for Abandon {
    fn drop(&mut self) {
        self.0.queue.abandon();
    }
}

/// A group being laid out for one segment.
struct Layout<'a> {
    writer_key: crate::frame::FrameKey,
    segment: u32,
    at: u64,
    arena: Vec<u8>,
    parts: Vec<Part<'a>>,
    sum: GroupSum,
    meta: Vec<u8>,
}

enum Part<'a> {
    Arena(Range<usize>),
    Body(&'a Body),
}

impl<'a> Layout<'a> {
    fn push(&mut self, kind: Kind, lsn: u64, body: Option<&'a Body>) -> Loc {
        let from = self.arena.len();
        let body_len = body.map_or(0, |body| body.as_ref().len());
        let body_len = u32::try_from(body_len).expect("bodies are bounded by MAX_BODY when a batch is checked");
        let sum = self.writer_key.encode(&mut self.arena, self.segment, kind, lsn, &self.meta, body_len);
        if kind != Kind::GroupEnd {
            self.sum.add(&sum);
        }
        match self.parts.last_mut() {
            Some(Part::Arena(range)) => range.end = self.arena.len(),
            _ => self.parts.push(Part::Arena(from..self.arena.len())),
        }
        let framed = (self.arena.len() - from) as u64;
        let offset = u32::try_from(self.at).expect("a segment and a group stay below 4 GiB");
        let len = if body.is_some() { body_len } else { u32::try_from(framed).expect("metas are bounded") };
        self.at += framed + u64::from(body_len);
        if let Some(body) = body {
            self.parts.push(Part::Body(body));
        }
        Loc { segment: self.segment, offset, len }
    }
}

impl Writer {
    pub(crate) fn new(shared: Arc<Shared>, tail: Tail, next_lsn: u64, next_id: u32) -> Self {
        Self { shared, tail, next_lsn, next_id, chunk: None, state: None, unmeasured: 0 }
    }

    /// Cuts what was allocated ahead, and writes the index out.
    fn settle(&mut self) -> Result<(), StoreError> {
        for active in [&mut self.chunk, &mut self.state].into_iter().flatten() {
            active.segment.file.set_len(active.end).at("cut", &active.segment.path)?;
            active.allocated_to = active.end;
        }
        self.shared.index.flush()
    }

    /// Commits batches as one group; each has its own result, because one may be refused alone.
    pub(crate) fn commit(&mut self, batches: &[(WriteBatch, u64)]) -> Vec<Result<(), StoreError>> {
        let mut results: Vec<Result<(), StoreError>> = batches.iter().map(|_| Ok(())).collect();
        let outcome = self.try_commit(batches, &mut results);
        let outcome = match outcome {
            // What only removes must work on a full disk: that is what the ballast is for.
            Err(StoreError::DiskFull { .. })
                if batches.iter().all(|(batch, _)| batch.only_frees()) && self.shared.release_ballast() =>
            {
                results.iter_mut().for_each(|result| *result = Ok(()));
                self.try_commit(batches, &mut results)
            }
            outcome => outcome,
        };
        if let Err(error) = outcome {
            for result in &mut results {
                if result.is_ok() {
                    *result = Err(error.clone());
                }
            }
        }
        results
    }

    fn try_commit(
        &mut self,
        batches: &[(WriteBatch, u64)],
        results: &mut [Result<(), StoreError>],
    ) -> Result<(), StoreError> {
        self.shared.check_poison()?;
        let shared = Arc::clone(&self.shared);
        self.refuse_without_room(batches, results)?;
        let accepted = || batches.iter().zip(results.iter()).filter(|(_, result)| result.is_ok());
        let bytes: u64 = accepted().map(|((_, bytes), _)| bytes).sum();
        let with_chunk = accepted().any(|((batch, _), _)| batch.has_chunk());
        if accepted().next().is_none() {
            return Ok(());
        }
        let kind = if with_chunk { SegmentKind::Chunk } else { SegmentKind::State };
        self.make_room(kind, bytes)?;
        let (segment, start) = {
            let active = self.active(kind).as_ref().expect("make_room has just opened it");
            (active.segment.clone(), active.end)
        };

        let mut delta = Delta::new(&shared.index, self.tail.print);
        let mut layout = Layout {
            writer_key: shared.key,
            segment: segment.id,
            at: start,
            arena: Vec::with_capacity(4096),
            parts: Vec::new(),
            sum: GroupSum::new(),
            meta: Vec::with_capacity(1024),
        };
        let mut lsn = self.next_lsn;
        let now = now_ms();
        for ((batch, _), result) in batches.iter().zip(results.iter_mut()) {
            if result.is_err() {
                continue;
            }
            let skip = match conflicts(&delta, batch) {
                Ok(skip) => skip,
                Err(error @ StoreError::EntryConflict { .. }) => {
                    *result = Err(error);
                    continue;
                }
                Err(error) => return Err(self.stop(error)),
            };
            let mut pending = HashMap::new();
            for (op, skip) in batch.ops.iter().zip(skip) {
                if skip {
                    continue;
                }
                let change = Change::of(op, now);
                let body = match op {
                    Op::Chunk { hash, body, .. } => {
                        let there = chunk_row(&delta, hash).map_err(|error| self.stop(error))?;
                        if there.is_some_and(|row| row.tombstone.is_none()) {
                            continue;
                        }
                        Some(body)
                    }
                    _ => None,
                };
                change.encode(&mut layout.meta);
                let loc = layout.push(change.kind(), lsn, body);
                if let Op::Entry { index, .. } = op {
                    pending.insert(loc.offset, *index);
                }
                let mut lookup = |at: Loc| {
                    let own = (at.segment == segment.id).then(|| pending.get(&at.offset).copied()).flatten();
                    own.or_else(|| shared.entry_index(at))
                };
                apply(&mut delta, lsn, loc, &change, &mut lookup).map_err(|error| self.stop(error))?;
                lsn += 1;
            }
        }
        if layout.sum.frames == 0 {
            return Ok(());
        }
        let frames = u64::from(layout.sum.frames);
        self.append(kind, layout, lsn - 1)?;
        self.next_lsn = lsn;
        if let Some(active) = self.active(kind) {
            active.frames += frames;
        }
        self.publish(delta, lsn - 1)
    }

    /// Writes a laid out group and makes it durable.
    fn append(&mut self, kind: SegmentKind, mut layout: Layout<'_>, last_lsn: u64) -> Result<(), StoreError> {
        let end_meta = layout.sum.finish();
        layout.meta.clear();
        layout.meta.extend_from_slice(&end_meta);
        layout.push(Kind::GroupEnd, last_lsn, None);
        let slices: Vec<IoSlice<'_>> = layout
            .parts
            .iter()
            .map(|part| match part {
                Part::Arena(range) => IoSlice::new(&layout.arena[range.clone()]),
                Part::Body(body) => IoSlice::new(body.as_ref()),
            })
            .collect();
        let end = layout.at;
        let shared = Arc::clone(&self.shared);
        let active = self.active(kind).as_mut().expect("the caller made room in this segment");
        let start = active.end;
        if let Err(error) = active.segment.file.write_all_at(&slices, start) {
            let error = StoreError::io("append to", &active.segment.path, error);
            // Nothing was acknowledged; cut what was written, so that it can never be taken for a group.
            if let Err(cut) = active.segment.file.set_len(start) {
                shared.poison(&format!("a failed append could not be taken back: {cut}"));
            }
            active.allocated_to = start;
            return Err(error);
        }
        if let Err(error) = active.segment.file.sync_data() {
            let path = active.segment.path.clone();
            let reason = format!("fdatasync of {} failed: {error}", path.display());
            // Not a second try: the pages may be gone though marked clean. Cutting keeps a replay from trusting them.
            let _ = active.segment.file.set_len(start);
            shared.poison(&reason);
            return Err(StoreError::Poisoned { reason });
        }
        active.end = end;
        active.allocated_to = active.allocated_to.max(end);
        let (id, allocated) = (active.segment.id, active.allocated_to.next_multiple_of(4096));
        if let Some(info) = lock(&shared.segments).get_mut(&id) {
            info.allocated = info.allocated.max(allocated);
        }
        self.unmeasured += end - start;
        if self.unmeasured >= MEASURE_EVERY {
            self.unmeasured = 0;
            shared.measure_index();
        }
        Ok(())
    }

    /// Makes durable changes visible.
    pub(crate) fn publish(&mut self, delta: Delta<'_>, lsn: u64) -> Result<(), StoreError> {
        let shared = Arc::clone(&self.shared);
        let place = |active: &Option<Active>, old: (u32, u32)| {
            active.as_ref().map_or(old, |active| (active.segment.id, u32::try_from(active.end).unwrap_or(u32::MAX)))
        };
        let tail = Tail {
            lsn,
            chunk: place(&self.chunk, self.tail.chunk),
            state: place(&self.state, self.tail.state),
            print: Fingerprint::default(),
        };
        let (batch, tail, totals) = delta.finish(tail);
        shared.index.apply(batch).map_err(|error| self.stop(error))?;
        self.tail = tail;
        lock(&shared.totals).merge(&totals);
        Ok(())
    }

    /// The index failed: what is durable is no longer what is visible, so nothing further is taken.
    pub(crate) fn stop(&self, error: StoreError) -> StoreError {
        self.shared.poison(&error.to_string());
        error
    }

    pub(crate) fn active(&mut self, kind: SegmentKind) -> &mut Option<Active> {
        match kind {
            SegmentKind::Chunk => &mut self.chunk,
            SegmentKind::State | SegmentKind::Copy => &mut self.state,
        }
    }

    fn refuse_without_room(
        &self,
        batches: &[(WriteBatch, u64)],
        results: &mut [Result<(), StoreError>],
    ) -> Result<(), StoreError> {
        let options = &self.shared.options;
        let free = options.fs.free_bytes(&self.shared.dir).at("measure", &self.shared.dir)?;
        let used = self.shared.used_bytes();
        let ahead: u64 = [&self.chunk, &self.state]
            .into_iter()
            .flatten()
            .map(|active| active.allocated_to.saturating_sub(active.end))
            .sum();
        let mut taken = 0u64;
        for ((batch, bytes), result) in batches.iter().zip(results.iter_mut()) {
            let frees = batch.only_frees();
            let needed = taken.saturating_add(*bytes);
            if *bytes > MAX_GROUP {
                *result = Err(StoreError::TooLarge { what: "batch", len: *bytes, max: MAX_GROUP });
                continue;
            }
            if let Some(quota) = options.quota_bytes {
                // Deleting must be possible at the limit, and needs a few records.
                let reserve = if frees { 0 } else { (quota / 16).min(1 << 20) };
                if used.saturating_sub(ahead).saturating_add(needed) > quota.saturating_sub(reserve) {
                    *result = Err(StoreError::QuotaExceeded { used, quota, needed: *bytes });
                    continue;
                }
            }
            // Bodies are what fills a disk. The few bytes that say what became of them get the first half of the reserve, so
            // that a node whose disk is full can still start, close its datasets and number what waits.
            let keep = match (frees, batch.has_chunk()) {
                (true, _) => 0,
                (false, true) => options.min_free_bytes,
                (false, false) => options.min_free_bytes / 2,
            };
            if !frees && free.saturating_add(ahead) < needed.saturating_add(keep) {
                *result = Err(StoreError::DiskFull { path: self.shared.dir.clone(), needed: *bytes });
                continue;
            }
            taken = needed;
        }
        Ok(())
    }

    /// Opens or changes the active segment so that `bytes` fit, and allocates ahead.
    fn make_room(&mut self, kind: SegmentKind, bytes: u64) -> Result<(), StoreError> {
        let limit = self.shared.options.segment_bytes;
        let full = self
            .active(kind)
            .as_ref()
            .is_some_and(|active| active.end > SEGMENT_HEADER && active.end.saturating_add(bytes) > limit);
        if full {
            self.seal(kind)?;
        }
        if self.active(kind).is_none() {
            let active = self.create(kind)?;
            *self.active(kind) = Some(active);
        }
        let options = self.shared.options.clone();
        let used = self.shared.used_bytes();
        let shared = Arc::clone(&self.shared);
        let active = self.active(kind).as_mut().expect("opened just above");
        let end = active.end.saturating_add(bytes);
        if end > active.allocated_to && options.preallocate_bytes > 0 {
            let ahead = options.preallocate_bytes.min(if kind == SegmentKind::Chunk { u64::MAX } else { STATE_AHEAD });
            let quota_left = options.quota_bytes.map_or(u64::MAX, |quota| quota.saturating_sub(used + bytes) / 4);
            let to = end.saturating_add(ahead.min(quota_left)).min(limit.max(end)).next_multiple_of(4096);
            let from = active.allocated_to;
            // Without the allocation the append still works, or says itself that the disk is full.
            if active.segment.file.allocate(from, to - from).is_ok() {
                active.allocated_to = to;
                if let Some(info) = lock(&shared.segments).get_mut(&active.segment.id) {
                    info.allocated = to;
                }
            } else {
                active.segment.file.set_len(from).at("cut", &active.segment.path)?;
            }
        }
        Ok(())
    }

    /// Creates a segment, durable with its directory entry.
    fn create(&mut self, kind: SegmentKind) -> Result<Active, StoreError> {
        let id = self.next_id;
        let path = self.shared.path_of(kind, id);
        let fs = &self.shared.options.fs;
        let file = fs.create(&path).at("create", &path)?;
        let created_ms = now_ms();
        let header =
            SegmentHeader { version: VERSION, kind, id, first_lsn: self.next_lsn, created_ms, key: self.shared.key };
        let written = file
            .write_all_at(&[IoSlice::new(&header.encode())], 0)
            .and_then(|()| file.sync_data())
            .and_then(|()| fs.sync_dir(&self.shared.log_dir));
        if let Err(error) = written {
            let _ = fs.remove(&path);
            return Err(StoreError::io("create", &path, error));
        }
        self.next_id += 1;
        let info = SegmentInfo { kind, first_lsn: self.next_lsn, allocated: 4096, punched_at: None };
        lock(&self.shared.segments).insert(id, info);
        let segment = Segment { kind, id, first_lsn: self.next_lsn, path, file };
        Ok(Active { segment, end: SEGMENT_HEADER, allocated_to: SEGMENT_HEADER, frames: 0 })
    }

    /// Closes the active segment of a kind: footer, cut to length, synced.
    pub(crate) fn seal(&mut self, kind: SegmentKind) -> Result<(), StoreError> {
        let last_lsn = self.next_lsn.saturating_sub(1);
        let key = self.shared.key;
        let shared = Arc::clone(&self.shared);
        let Some(active) = self.active(kind).as_mut() else { return Ok(()) };
        if active.end == SEGMENT_HEADER {
            return Ok(());
        }
        let mut meta = active.frames.to_le_bytes().to_vec();
        meta.extend_from_slice(&last_lsn.to_le_bytes());
        let mut footer = Vec::with_capacity(HEADER_LEN + meta.len());
        key.encode(&mut footer, active.segment.id, Kind::Footer, last_lsn, &meta, 0);
        let (file, path) = (&active.segment.file, &active.segment.path);
        let end = active.end + footer.len() as u64;
        if let Err(error) = file.write_all_at(&[IoSlice::new(&footer)], active.end).and_then(|()| file.set_len(end)) {
            let _ = file.set_len(active.end);
            active.allocated_to = active.end;
            return Err(StoreError::io("close", path, error));
        }
        if let Err(error) = file.sync_data() {
            let reason = format!("fdatasync of {} failed: {error}", path.display());
            shared.poison(&reason);
            return Err(StoreError::Poisoned { reason });
        }
        let allocated = file.allocated().unwrap_or(end.next_multiple_of(4096));
        if let Some(info) = lock(&shared.segments).get_mut(&active.segment.id) {
            info.allocated = allocated;
        }
        *self.active(kind) = None;
        Ok(())
    }

    /// Appends one frame of the log's own kinds to the state segment, as a group.
    pub(crate) fn append_own(&mut self, kind: Kind, meta: &[u8]) -> Result<u64, StoreError> {
        self.shared.check_poison()?;
        let bytes = (2 * HEADER_LEN + meta.len() + 36) as u64;
        self.make_room(SegmentKind::State, bytes)?;
        let active = self.state.as_ref().expect("make_room has just opened it");
        let mut layout = Layout {
            writer_key: self.shared.key,
            segment: active.segment.id,
            at: active.end,
            arena: Vec::new(),
            parts: Vec::new(),
            sum: GroupSum::new(),
            meta: meta.to_vec(),
        };
        let lsn = self.next_lsn;
        layout.push(kind, lsn, None);
        self.append(SegmentKind::State, layout, lsn)?;
        self.next_lsn += 1;
        if let Some(active) = &mut self.state {
            active.frames += 1;
        }
        Ok(lsn)
    }
}

/// Which operations change nothing because the same entry is already there; an error if a different one is.
fn conflicts(delta: &Delta<'_>, batch: &WriteBatch) -> Result<Vec<bool>, StoreError> {
    let mut skip = vec![false; batch.ops.len()];
    // What this batch itself did before: a truncation makes room, an entry takes it.
    let mut own: HashMap<Vec<u8>, Option<[u8; 16]>> = HashMap::new();
    let mut truncated: Vec<(tributary_protocol::ids::LogKey, u64)> = Vec::new();
    for (op, skip) in batch.ops.iter().zip(&mut skip) {
        match op {
            Op::Truncate { log, from_seq } => {
                truncated.push((*log, *from_seq));
                own.retain(|key, _| {
                    crate::index::place_of(&key[1..]).is_none_or(|(own_log, seq)| own_log != *log || seq < *from_seq)
                });
            }
            Op::Entry { log, seq, bytes, .. } => {
                let key = entry_key(log, *seq);
                let new = digest(bytes);
                let there = match own.get(&key) {
                    Some(there) => *there,
                    None if truncated.iter().any(|(cut, from)| cut == log && seq >= from) => None,
                    None => delta
                        .get(&key)?
                        .and_then(|value| PlaceRow::decode(&value).and_then(|row| row.rest.try_into().ok())),
                };
                match there {
                    Some(there) if there == new => *skip = true,
                    Some(_) => return Err(StoreError::EntryConflict { log: *log, seq: *seq }),
                    None => {
                        own.insert(key, Some(new));
                    }
                }
            }
            _ => {}
        }
    }
    Ok(skip)
}

/// Upper bound of the bytes a batch takes in a segment.
pub(crate) fn batch_bytes(batch: &WriteBatch) -> u64 {
    let frames: u64 = batch
        .ops
        .iter()
        .map(|op| {
            let len = match op {
                Op::Chunk { body, .. } => 40 + body.as_ref().len(),
                Op::Entry { bytes, .. } => 133 + bytes.len(),
                Op::RowPut { key, value, .. } => 3 + key.len() + value.len(),
                Op::RowDelete { key, .. } => 1 + key.len(),
                Op::Tombstone { .. } => 41,
                Op::Truncate { .. } => 64,
                Op::Counter { name, .. } => 8 + name.len(),
                Op::Release { .. } => 32,
            };
            (HEADER_LEN + len) as u64
        })
        .sum();
    frames + (HEADER_LEN + 36) as u64
}
