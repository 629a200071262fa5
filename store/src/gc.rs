//! Giving space back: expiry, holes, removal of segments, compaction.
//!
//! Every deletion is a durable tombstone first and space afterwards, so that a rebuild of the index never brings a chunk back.
//! Space comes back in three ways: dead bodies become holes (their headers stay, the log stays walkable); a chunk segment
//! without live bodies, or mostly of bodies too small to punch, is rewritten; state and copy segments are rewritten when half
//! of them is dead. To *rewrite* is to copy the frames that still count into copy segments, make those durable, record that
//! in the log (`Moved`), point the index to them, flush the index, and only then remove the originals. A stop in between
//! leaves both, and a segment that some row still points to is never removed.

use std::{collections::BTreeSet, io::IoSlice};

use tributary_protocol::ids::Hash;

use crate::{
    Store,
    apply::owners,
    batch::WriteBatch,
    error::{IoContext, StoreError},
    frame::{Change, HEADER_LEN, Kind},
    index::{ChunkRow, Delta, PlaceRow, row_loc, with_loc},
    options::{Reason, Retention},
    queue::lock,
    replay::{Merge, Merged, Source, loc_of},
    segment::{Cursor, GroupSum, SEGMENT_HEADER, Segment, SegmentHeader, SegmentKind, Step, VERSION},
    shared::{SegmentInfo, Shared, now_ms},
    writer::Writer,
};

/// What a garbage collection did, or with `dry_run` would do.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct GcReport {
    /// Chunks that retention removed.
    pub expired_chunks: u64,
    /// Bytes of their bodies.
    pub expired_bytes: u64,
    /// Segments removed, their live frames saved. In a dry run: chunk segments without live bodies.
    pub removed_segments: u64,
    /// Bytes the file system got back from holes.
    pub punched_bytes: u64,
    /// Bytes the store takes on the disk before.
    pub used_before: u64,
    /// Bytes the store takes on the disk afterwards.
    pub used_after: u64,
}

/// Tombstones per batch.
const EXPIRE_BATCH: usize = 512;
/// The file system gives space back in blocks of this size.
const BLOCK: u64 = 4096;
/// Small segments are left alone until so many bytes can be gained.
const WORTH: u64 = 1 << 20;
/// Copy and closed state segments are merged when there are more of them.
const MANY: usize = 16;
/// Frames of a copy are written in pieces of about this size.
const PIECE: usize = 1 << 20;

impl Store {
    /// Removes what `retention` says, and gives free space back to the file system. Reading and writing go on meanwhile.
    ///
    /// # Errors
    /// As [`Store::commit`].
    pub fn gc(&self, dry_run: bool, retention: &Retention<'_>) -> Result<GcReport, StoreError> {
        let shared = &self.inner.shared;
        let _one_at_a_time = lock(&shared.maintenance);
        shared.measure_index();
        let mut report = GcReport { used_before: shared.used_bytes(), ..GcReport::default() };
        let victims = expired(shared, retention)?;
        report.expired_chunks = victims.len() as u64;
        report.expired_bytes = victims.iter().map(|(_, row)| u64::from(row.loc.len)).sum();
        if dry_run {
            let mut left: std::collections::HashMap<u32, i64> =
                lock(&shared.totals).segments.iter().map(|(id, live)| (*id, live.bodies)).collect();
            for (_, row) in &victims {
                *left.entry(row.loc.segment).or_default() -= 1;
            }
            let segments = lock(&shared.segments);
            let empty = |id: &u32| left.get(id).is_none_or(|bodies| *bodies <= 0);
            report.removed_segments =
                segments.iter().filter(|(id, info)| info.kind == SegmentKind::Chunk && empty(id)).count() as u64;
            report.used_after = report.used_before.saturating_sub(report.expired_bytes);
            return Ok(report);
        }
        for part in victims.chunks(EXPIRE_BATCH) {
            let mut batch = WriteBatch::new();
            for (hash, _) in part {
                batch.tombstone_chunk(*hash, Reason::Expired);
            }
            self.commit(batch)?;
        }
        drop(victims);
        self.reclaim(&mut report)?;
        shared.restore_ballast()?;
        shared.measure_index();
        report.used_after = shared.used_bytes();
        Ok(report)
    }

    fn reclaim(&self, report: &mut GcReport) -> Result<(), StoreError> {
        let shared = &self.inner.shared;
        let active = self.on_writer(seal_if_wasteful)?;
        let mut rewrite = BTreeSet::new();
        let infos: Vec<(u32, SegmentInfo)> = lock(&shared.segments).iter().map(|(id, info)| (*id, *info)).collect();
        let live_of = |id: u32| lock(&shared.totals).segments.get(&id).copied().unwrap_or_default();
        let mut plain = Vec::new();
        let (mut plain_bytes, mut plain_live) = (0u64, 0u64);
        for (id, info) in infos.into_iter().filter(|(id, _)| !active.contains(id)) {
            let live = live_of(id);
            let bytes = u64::try_from(live.body_bytes + live.state_bytes).unwrap_or(0);
            if live.bodies <= 0 && info.kind == SegmentKind::Chunk {
                rewrite.insert(id);
                continue;
            }
            if live.bodies <= 0 {
                plain.push(id);
                plain_bytes += info.allocated;
                plain_live += bytes;
                continue;
            }
            let waste = info.allocated.saturating_sub(bytes);
            if waste > info.allocated / 50 + 2 * BLOCK && info.punched_at != Some(live.body_bytes) {
                let allocated = punch_dead(shared, id)?;
                report.punched_bytes += info.allocated.saturating_sub(allocated);
                if let Some(info) = lock(&shared.segments).get_mut(&id) {
                    info.allocated = allocated;
                    info.punched_at = Some(live.body_bytes);
                }
                if allocated > bytes.saturating_mul(3) / 2 + BLOCK {
                    rewrite.insert(id);
                }
            }
        }
        if plain.len() > MANY || plain_bytes > plain_live.saturating_mul(2).saturating_add(WORTH) {
            rewrite.extend(plain);
        }
        if !rewrite.is_empty() {
            report.removed_segments += self.rewrite(rewrite)?;
        }
        Ok(())
    }

    /// Copies what still counts in `sources` and removes them; returns how many were removed.
    fn rewrite(&self, sources: BTreeSet<u32>) -> Result<u64, StoreError> {
        let shared = &self.inner.shared;
        let mut open = Vec::new();
        for id in &sources {
            if let Some(segment) = shared.segment(*id)? {
                open.push(Source { segment, from: SEGMENT_HEADER, to: None, hash_bodies: false });
            }
        }
        // A deletion must be remembered while a segment that is not rewritten may hold what it deletes.
        let oldest_other =
            lock(&shared.segments).iter().filter(|(id, _)| !sources.contains(id)).map(|(_, info)| info.first_lsn).min();
        let mut merge = Merge::new(shared.key, open);
        let mut copies: Vec<CopyWriter<'_>> = Vec::new();
        let mut body = Vec::new();
        while let Some(Merged { segment, frame, .. }) = merge.next()? {
            let Some(change) = Change::decode(frame.header.kind, &frame.meta) else { continue };
            if !counts(shared, &sources, frame.header.lsn, &change, oldest_other)? {
                continue;
            }
            body.clear();
            if let Change::Chunk { hash, .. } = change {
                body.resize(frame.header.body_len as usize, 0);
                segment.file.read_exact_at(&mut body, frame.body_offset()).at("read", &segment.path)?;
                if Hash::of(&body) != hash {
                    // Stays where it is, with its segment; `check` reports it.
                    continue;
                }
            }
            if copies.last().is_none_or(|copy| copy.end() >= shared.options.segment_bytes) {
                let id = self.on_writer(|writer| {
                    let id = writer.next_id;
                    writer.next_id += 1;
                    Ok(id)
                })?;
                if let Some(full) = copies.last_mut() {
                    full.finish()?;
                }
                copies.push(CopyWriter::create(shared, id, frame.header.lsn)?);
            }
            let copy = copies.last_mut().expect("there is one, it was just made if need be");
            copy.push(frame.header.kind, frame.header.lsn, &frame.meta, &body)?;
        }
        if let Some(last) = copies.last_mut() {
            last.finish()?;
        }
        let copies: Vec<(Segment, u64)> =
            copies.into_iter().map(CopyWriter::publish).collect::<Result<_, StoreError>>()?;
        shared.options.fs.sync_dir(&shared.log_dir).at("sync", &shared.log_dir)?;
        self.on_writer(move |writer| switch_over(writer, &sources, &copies))
    }
}

/// Chunks that may go, by retention, oldest first.
fn expired(shared: &Shared, retention: &Retention<'_>) -> Result<Vec<(Hash, ChunkRow)>, StoreError> {
    if retention.stored_before_ms.is_none() && retention.max_chunk_bytes.is_none() {
        return Ok(Vec::new());
    }
    let mut candidates = Vec::new();
    let mut present = 0u64;
    shared.index.scan(b"c", |key, value| {
        if let Some(row) = ChunkRow::decode(value).filter(|row| row.tombstone.is_none())
            && let Ok(hash) = <[u8; 32]>::try_from(&key[1..])
        {
            present += u64::from(row.loc.len);
            if row.released || !retention.only_released {
                candidates.push((Hash::from_bytes(hash), row));
            }
        }
        true
    })?;
    candidates.sort_by_key(|(_, row)| (row.time_ms, row.lsn));
    let mut over = retention.max_chunk_bytes.map_or(0, |max| present.saturating_sub(max));
    candidates.retain(|(hash, row)| {
        let old = retention.stored_before_ms.is_some_and(|before| row.time_ms < before);
        let expires = (old || over > 0) && !retention.keep.is_some_and(|keep| keep(hash));
        if expires {
            over = over.saturating_sub(u64::from(row.loc.len));
        }
        expires
    });
    Ok(candidates)
}

/// Closes an active segment of which much is dead; returns the ids that are still appended to.
fn seal_if_wasteful(writer: &mut Writer) -> Result<Vec<u32>, StoreError> {
    for kind in [SegmentKind::Chunk, SegmentKind::State] {
        let Some(active) = writer.active(kind) else { continue };
        let (id, end) = (active.segment.id, active.end);
        let live = lock(&writer.shared.totals).segments.get(&id).copied().unwrap_or_default();
        let live = u64::try_from(live.body_bytes + live.state_bytes).unwrap_or(0);
        let enough = kind == SegmentKind::Chunk || end > WORTH;
        if enough && live < end - end / 4 {
            writer.seal(kind)?;
        }
    }
    Ok([&writer.chunk, &writer.state].into_iter().flatten().map(|active| active.segment.id).collect())
}

/// Makes holes of the dead bodies of a closed segment; returns its bytes on the disk afterwards.
fn punch_dead(shared: &Shared, id: u32) -> Result<u64, StoreError> {
    let Some(segment) = shared.segment(id)? else { return Ok(0) };
    let mut cursor = Cursor::new(&segment, shared.key, SEGMENT_HEADER, None).at("read", &segment.path)?;
    loop {
        match cursor.step().at("read", &segment.path)? {
            Step::Frame(frame) if frame.header.kind == Kind::Chunk => {
                let Some(Change::Chunk { hash, .. }) = Change::decode(Kind::Chunk, &frame.meta) else { continue };
                let row = shared.index.get(&crate::index::chunk_key(&hash))?.and_then(|row| ChunkRow::decode(&row));
                let alive = row.is_some_and(|row| row.tombstone.is_none() && Some(row.loc) == loc_of(&segment, &frame));
                let from = frame.body_offset().next_multiple_of(BLOCK);
                let to = (frame.body_offset() + u64::from(frame.header.body_len)) / BLOCK * BLOCK;
                if !alive && to > from {
                    segment.file.punch(from, to - from).at("punch a hole in", &segment.path)?;
                }
            }
            Step::Frame(_) | Step::Damage { .. } => {}
            Step::End { .. } => break,
        }
    }
    // What the file system has in flight is not counted in its blocks before a sync.
    segment.file.sync_data().at("sync", &segment.path)?;
    segment.file.allocated().at("measure", &segment.path)
}

/// Whether a frame in one of `sources` must be kept.
fn counts(
    shared: &Shared,
    sources: &BTreeSet<u32>,
    lsn: u64,
    change: &Change<'_>,
    oldest_other: Option<u64>,
) -> Result<bool, StoreError> {
    match change {
        // Few, and needed for as long as an entry they removed may be anywhere.
        Change::Truncate { .. } => Ok(true),
        Change::RowDelete { .. } => {
            let gone = shared.index.get(&owners(change, lsn)[0])?.is_none();
            Ok(gone && oldest_other.is_some_and(|oldest| oldest < lsn))
        }
        Change::Release { .. } => {
            let row = shared.index.get(&owners(change, lsn)[0])?.and_then(|row| ChunkRow::decode(&row));
            Ok(row.is_some_and(|row| row.tombstone.is_none() && row.released && row.lsn < lsn))
        }
        _ => {
            for key in owners(change, lsn) {
                if let Some(value) = shared.index.get(&key)?
                    && points_here(&key, &value, sources, lsn)
                {
                    return Ok(true);
                }
            }
            Ok(false)
        }
    }
}

fn points_here(key: &[u8], value: &[u8], sources: &BTreeSet<u32>, lsn: u64) -> bool {
    let row_lsn = match key.first() {
        Some(b'c') => ChunkRow::decode(value).map(|row| row.lsn),
        _ => PlaceRow::decode(value).map(|row| row.lsn),
    };
    row_lsn == Some(lsn) && row_loc(key, value).is_some_and(|(loc, _)| sources.contains(&loc.segment))
}

/// On the writer thread: records the move, points the index to the copies, makes that durable, removes the originals.
fn switch_over(writer: &mut Writer, sources: &BTreeSet<u32>, copies: &[(Segment, u64)]) -> Result<u64, StoreError> {
    let shared = std::sync::Arc::clone(&writer.shared);
    for (segment, allocated) in copies {
        let info = SegmentInfo {
            kind: SegmentKind::Copy,
            first_lsn: segment.first_lsn,
            allocated: *allocated,
            punched_at: None,
        };
        lock(&shared.segments).insert(segment.id, info);
    }
    let meta: Vec<u8> = sources.iter().flat_map(|id| id.to_le_bytes()).collect();
    let lsn = writer.append_own(Kind::Moved, &meta)?;
    let mut delta = Delta::new(&shared.index, writer.tail.print);
    for (segment, _) in copies {
        let mut cursor = Cursor::new(segment, shared.key, SEGMENT_HEADER, None).at("read", &segment.path)?;
        while let Step::Frame(frame) = cursor.step().at("read", &segment.path)? {
            let (Some(change), Some(loc)) = (Change::decode(frame.header.kind, &frame.meta), loc_of(segment, &frame))
            else {
                continue;
            };
            for key in owners(&change, frame.header.lsn) {
                let Some(value) = delta.get(&key)? else { continue };
                if points_here(&key, &value, sources, frame.header.lsn)
                    && let Some(value) = with_loc(&key, &value, loc)
                {
                    delta.put(key, value)?;
                }
            }
            if delta.len() >= 4096 {
                writer.publish(delta, lsn)?;
                delta = Delta::new(&shared.index, writer.tail.print);
            }
        }
    }
    writer.publish(delta, lsn)?;
    if let Err(error) = shared.index.flush() {
        return Err(writer.stop(error));
    }
    let mut removed = 0;
    for id in sources {
        let live = lock(&shared.totals).segments.get(id).copied().unwrap_or_default();
        if live.bodies > 0 || live.state_bytes > 0 {
            tracing::warn!(segment = id, "a damaged segment is kept: something in it could not be copied");
            continue;
        }
        let Some(info) = lock(&shared.segments).get(id).copied() else { continue };
        let path = shared.path_of(info.kind, *id);
        shared.options.fs.remove(&path).at("remove", &path)?;
        shared.forget(*id);
        removed += 1;
    }
    shared.options.fs.sync_dir(&shared.log_dir).at("sync", &shared.log_dir)?;
    Ok(removed)
}

/// Writes one copy segment under a temporary name.
struct CopyWriter<'a> {
    shared: &'a Shared,
    segment: Segment,
    at: u64,
    buf: Vec<u8>,
    sum: GroupSum,
    frames: u64,
    last_lsn: u64,
}

impl<'a> CopyWriter<'a> {
    fn create(shared: &'a Shared, id: u32, first_lsn: u64) -> Result<Self, StoreError> {
        let kind = SegmentKind::Copy;
        let path = shared.path_of(kind, id).with_extension("seg.tmp");
        let file = shared.options.fs.create(&path).at("create", &path)?;
        let header = SegmentHeader { version: VERSION, kind, id, first_lsn, created_ms: now_ms(), key: shared.key };
        let segment = Segment { kind, id, first_lsn, path, file };
        let buf = header.encode().to_vec();
        Ok(Self { shared, segment, at: 0, buf, sum: GroupSum::new(), frames: 0, last_lsn: first_lsn })
    }

    fn end(&self) -> u64 {
        self.at + self.buf.len() as u64
    }

    fn push(&mut self, kind: Kind, lsn: u64, meta: &[u8], body: &[u8]) -> Result<(), StoreError> {
        let len = u32::try_from(body.len()).expect("bodies are bounded by MAX_BODY");
        let sum = self.shared.key.encode(&mut self.buf, self.segment.id, kind, lsn, meta, len);
        self.buf.extend_from_slice(body);
        self.sum.add(&sum);
        self.frames += 1;
        self.last_lsn = lsn;
        if self.buf.len() >= PIECE { self.write() } else { Ok(()) }
    }

    fn write(&mut self) -> Result<(), StoreError> {
        if self.sum.frames > 0 {
            let meta = self.sum.finish();
            self.shared.key.encode(&mut self.buf, self.segment.id, Kind::GroupEnd, self.last_lsn, &meta, 0);
        }
        let written = self.segment.file.write_all_at(&[IoSlice::new(&self.buf)], self.at);
        written.at("write", &self.segment.path)?;
        self.at += self.buf.len() as u64;
        self.buf.clear();
        Ok(())
    }

    fn finish(&mut self) -> Result<(), StoreError> {
        self.write()?;
        let mut meta = self.frames.to_le_bytes().to_vec();
        meta.extend_from_slice(&self.last_lsn.to_le_bytes());
        self.shared.key.encode(&mut self.buf, self.segment.id, Kind::Footer, self.last_lsn, &meta, 0);
        debug_assert!(self.buf.len() == HEADER_LEN + 16);
        self.write()?;
        self.segment.file.sync_data().at("sync", &self.segment.path)
    }

    /// Gives the segment its name; returns it with its bytes on the disk.
    fn publish(self) -> Result<(Segment, u64), StoreError> {
        let path = self.shared.path_of(SegmentKind::Copy, self.segment.id);
        self.shared.options.fs.rename(&self.segment.path, &path).at("rename", &self.segment.path)?;
        let allocated = self.segment.file.allocated().at("measure", &path)?;
        Ok((Segment { path, ..self.segment }, allocated))
    }
}
