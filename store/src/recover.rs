//! Opening: lock, format, segments, index, replay. Every path ends in an index that matches the log, or in an error.
//!
//! 1. Take the lock. A second process stops here, before it has touched anything.
//! 2. List the segments. A last segment whose creation was interrupted is removed; unfinished copies are removed.
//! 3. Open the index. Corruption or a panic: rebuild. An I/O error: that is the error (with a full disk, the ballast is given
//!    up and it is tried once more).
//! 4. Compare the index with its TAIL (rows, hash sum) and its locations with the segments. Anything else: rebuild.
//! 5. Find the last whole group of the last chunk and the last state segment, from TAIL on, and cut what is behind it.
//! 6. Replay from TAIL, sync what was replayed, write TAIL.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, atomic::AtomicU64},
    time::{Duration, Instant},
};

use crate::{
    disk::SegmentFs,
    error::{IoContext, StoreError},
    frame::FrameKey,
    home,
    index::{Fingerprint, Index, IndexError, TAIL_KEY, Tail, Totals, row_loc},
    options::StoreOptions,
    queue::Queue,
    replay::{Source, replay, tail_after},
    segment::{
        Cursor, SEGMENT_HEADER, Segment, SegmentHeader, SegmentKind, Step, VERSION, is_zero, parse_name, whole_groups,
    },
    shared::{SegmentInfo, Shared},
    writer::{Active, Writer},
};

/// Bytes of a segment that are no valid frames.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Damage {
    /// File name of the segment.
    pub segment: String,
    /// Where the damage begins, in bytes.
    pub offset: u64,
    /// How many bytes are affected.
    pub len: u64,
}

impl Damage {
    pub(crate) fn new(segment: &Segment, offset: u64, len: u64) -> Self {
        Self { segment: segment.name().display().to_string(), offset, len }
    }
}

/// How the index was brought to match the log.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum Recovery {
    /// The store is new.
    #[default]
    Created,
    /// Nothing was missing.
    Clean,
    /// The end of the log was replayed.
    Replayed,
    /// The index was rebuilt from the whole log.
    Rebuilt {
        /// Why.
        reason: String,
    },
}

/// What opening a store found and did.
#[derive(Debug, Clone, Default)]
#[non_exhaustive]
pub struct OpenReport {
    /// How the index was brought to match the log.
    pub recovery: Recovery,
    /// Log frames that were replayed.
    pub replayed_frames: u64,
    /// Bytes cut from the end of the log: groups that were never whole, so never acknowledged (or damaged in the last group).
    pub cut_bytes: u64,
    /// Damaged parts of the log that were skipped.
    pub damage: Vec<Damage>,
    /// Frames known to be missing because of the damage.
    pub lost_frames: u64,
    /// How long it took.
    pub elapsed: Duration,
}

pub(crate) struct Opened {
    pub(crate) writer: Writer,
    pub(crate) report: OpenReport,
}

const INDEX: &str = "index";
const DISCARDED: &str = "index.discarded";

pub(crate) fn open(dir: &Path, options: &StoreOptions) -> Result<Opened, StoreError> {
    let begun = Instant::now();
    if options.create {
        home::create_dir(dir)?;
    }
    let lock = home::lock(dir)?;
    let log_dir = dir.join("log");
    let key = format_key(dir, &log_dir, options)?;
    home::create_dir(&log_dir)?;
    let _ = fs::remove_dir_all(dir.join(DISCARDED));
    let mut report = OpenReport::default();
    let segments = list_segments(dir, &log_dir, options.fs.as_ref(), key, &mut report)?;

    let mut full_scan = None;
    let mut index = match open_index(dir, options) {
        Ok(index) => Some(index),
        Err(IndexError::Damaged(reason)) => {
            full_scan = Some(reason);
            None
        }
        Err(error @ IndexError::Io(_)) => return Err(error.into_store(&dir.join(INDEX))),
    };
    let mut tail = None;
    let mut totals = Totals::default();
    if let Some(found) = &index {
        match verify(found, &segments) {
            Ok((found, counted)) => {
                tail = found;
                totals = counted;
            }
            Err(Verdict::Rebuild(reason)) => full_scan = Some(reason),
            Err(Verdict::Stop(error)) => return Err(error),
        }
    }
    if tail.is_none() && full_scan.is_none() && !segments.is_empty() {
        full_scan = Some("the index has no TAIL".to_owned());
    }

    let last = |kind| segments.values().rfind(|segment| segment.kind == kind);
    let lasts = [last(SegmentKind::Chunk), last(SegmentKind::State)];
    let mut ends: BTreeMap<u32, u64> = BTreeMap::new();
    let mut replayed = None;
    if full_scan.is_none() {
        let from = tail.unwrap_or_default();
        let sources = sources(&segments, &lasts, Some(from), key, &mut ends, &mut report)?;
        match sources {
            Some(sources) => {
                let found = index.as_ref().expect("without a reason to rebuild there is an index");
                let done = replay(found, key, sources, from.print, true)?;
                if done.moved {
                    full_scan = Some("the log was compacted and the index did not keep that".to_owned());
                } else {
                    replayed = Some(done);
                }
            }
            None => full_scan = Some("a segment is shorter than the index knows it".to_owned()),
        }
    }
    let replayed = match (&full_scan, replayed) {
        (None, Some(replayed)) => replayed,
        (reason, _) => {
            let reason = reason.clone().unwrap_or_default();
            tracing::warn!(store = %dir.display(), reason, "rebuilding the index from the log");
            index = None;
            drop(index.take());
            discard_index(dir)?;
            let fresh = open_index(dir, options).map_err(|error| error.into_store(&dir.join(INDEX)))?;
            ends.clear();
            report.cut_bytes = 0;
            let all = sources(&segments, &lasts, None, key, &mut ends, &mut report)?.unwrap_or_default();
            let done = replay(&fresh, key, all, Fingerprint::default(), false)?;
            index = Some(fresh);
            report.recovery = Recovery::Rebuilt { reason };
            done
        }
    };
    let index = index.expect("opened or rebuilt above");
    let rebuilt = full_scan.is_some();
    let fresh = segments.is_empty() && tail.is_none();
    if !rebuilt {
        report.recovery = match (fresh, replayed.frames) {
            (true, _) => Recovery::Created,
            (false, 0) => Recovery::Clean,
            (false, _) => Recovery::Replayed,
        };
    }
    report.replayed_frames = replayed.frames;
    report.damage.extend(replayed.damage.iter().cloned());
    report.lost_frames = replayed.lost_frames;

    // What was replayed may still be in the page cache only.
    for segment in lasts.iter().flatten() {
        segment.file.sync_data().at("sync", &segment.path)?;
    }
    // Where the last segment is not in `ends`, one that came after it was closed and removed: TAIL stays where it is.
    let kept = tail.filter(|_| !rebuilt).unwrap_or_default();
    let place = |segment: Option<&Segment>, old: (u32, u32)| {
        let end = segment.and_then(|segment| Some((segment.id, *ends.get(&segment.id)?)));
        end.map_or(old, |(id, end)| (id, u32::try_from(end).unwrap_or(u32::MAX)))
    };
    let new_tail =
        tail_after(&replayed, tail.filter(|_| !rebuilt), place(lasts[0], kept.chunk), place(lasts[1], kept.state));
    if tail != Some(new_tail) || rebuilt {
        let mut batch = sled::Batch::default();
        batch.insert(TAIL_KEY, new_tail.encode());
        index.apply(batch)?;
    }
    if rebuilt {
        index.flush()?;
    }
    if rebuilt || replayed.frames > 0 {
        totals = count(&index)?;
    }

    let next_id = segments
        .keys()
        .next_back()
        .copied()
        .unwrap_or(0)
        .max(tail.map_or(0, |tail| tail.chunk.0.max(tail.state.0)))
        .saturating_add(1);
    let mut infos = BTreeMap::new();
    for segment in segments.values() {
        let allocated = segment.file.allocated().at("measure", &segment.path)?;
        let info = SegmentInfo { kind: segment.kind, first_lsn: segment.first_lsn, allocated, punched_at: None };
        infos.insert(segment.id, info);
    }
    let shared = Arc::new(Shared {
        dir: dir.to_owned(),
        log_dir,
        options: options.clone(),
        key,
        index,
        queue: Queue::new(options.queue_batches, options.queue_bytes),
        segments: Mutex::new(infos),
        totals: Mutex::new(totals),
        index_bytes: AtomicU64::new(0),
        poison: Mutex::new(None),
        maintenance: Mutex::new(()),
        open_files: Mutex::default(),
        _lock: lock,
    });
    shared.measure_index();
    shared.restore_ballast()?;
    shared.measure_index();
    // A segment's header promises that no frame in it is older; that holds even where damage took the newest frames.
    let promised = segments.values().map(|segment| segment.first_lsn).filter(|lsn| *lsn != u64::MAX).max();
    let next_lsn = new_tail.lsn.saturating_add(1).max(promised.unwrap_or(0));
    let mut writer = Writer::new(shared, new_tail, next_lsn, next_id);
    for segment in lasts.into_iter().flatten() {
        if let Some(end) = ends.get(&segment.id) {
            adopt(&mut writer, segment, *end)?;
        }
    }
    report.elapsed = begun.elapsed();
    Ok(Opened { writer, report })
}

/// Goes on appending to the last segment of a kind, unless it has its footer already.
fn adopt(writer: &mut Writer, segment: &Segment, end: u64) -> Result<(), StoreError> {
    let mut cursor = Cursor::new(segment, writer.shared.key, SEGMENT_HEADER, Some(end)).at("read", &segment.path)?;
    let mut frames = 0;
    loop {
        match cursor.step().at("read", &segment.path)? {
            Step::Frame(frame) => match frame.header.kind {
                crate::frame::Kind::Footer => return Ok(()),
                crate::frame::Kind::GroupEnd => {}
                _ => frames += 1,
            },
            Step::Damage { .. } => {}
            Step::End { .. } => break,
        }
    }
    let len = segment.file.len().at("measure", &segment.path)?;
    let active = Active { segment: segment.clone(), end, allocated_to: len.max(end), frames };
    *writer.active(segment.kind) = Some(active);
    Ok(())
}

fn open_index(dir: &Path, options: &StoreOptions) -> Result<Index, IndexError> {
    let path = dir.join(INDEX);
    match Index::open(&path, options.index_cache_bytes) {
        Err(IndexError::Io(first)) if fs::remove_file(dir.join(crate::shared::BALLAST)).is_ok() => {
            tracing::warn!(store = %dir.display(), error = %first, "the index did not open; gave up the ballast, trying again");
            Index::open(&path, options.index_cache_bytes)
        }
        result => result,
    }
}

/// Moves the index out of the way; what is left of it is deleted now, or by the next open.
fn discard_index(dir: &Path) -> Result<(), StoreError> {
    let (from, to) = (dir.join(INDEX), dir.join(DISCARDED));
    match fs::rename(&from, &to) {
        Ok(()) => {}
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(StoreError::io("move", &from, error)),
    }
    let _ = fs::remove_dir_all(&to);
    Ok(())
}

fn format_key(dir: &Path, log_dir: &Path, options: &StoreOptions) -> Result<FrameKey, StoreError> {
    if let Some(key) = home::read_format(dir)? {
        return Ok(key);
    }
    let names = options.fs.list(log_dir).unwrap_or_default();
    for (kind, id) in names.iter().filter_map(|name| parse_name(name)) {
        let path = log_dir.join(crate::segment::file_name(kind, id));
        let file = options.fs.open(&path).at("open", &path)?;
        if let Some(header) = read_header(file.as_ref()) {
            tracing::warn!(store = %dir.display(), "FORMAT was missing; its key is in the segments");
            home::write_format(dir, &header.key)?;
            return Ok(header.key);
        }
    }
    let strangers = fs::read_dir(dir)
        .at("list", dir)?
        .flatten()
        .map(|entry| entry.file_name().to_string_lossy().into_owned())
        .find(|name| !["lock", "FORMAT.tmp", "log"].contains(&name.as_str()));
    let not = |reason| Err(StoreError::NotAStore { dir: dir.to_owned(), reason });
    if let Some(name) = strangers {
        return not(format!("it holds {name:?} but no FORMAT file"));
    }
    if !names.is_empty() {
        return not("neither FORMAT nor a segment header can be read".to_owned());
    }
    if !options.create {
        return not("it is empty".to_owned());
    }
    let key = home::new_key()?;
    home::write_format(dir, &key)?;
    Ok(key)
}

fn read_header(file: &dyn crate::disk::SegmentFile) -> Option<SegmentHeader> {
    let mut bytes = [0; SEGMENT_HEADER as usize];
    file.read_exact_at(&mut bytes, 0).ok()?;
    SegmentHeader::decode(&bytes)
}

fn list_segments(
    dir: &Path,
    log_dir: &Path,
    disk: &dyn SegmentFs,
    key: FrameKey,
    report: &mut OpenReport,
) -> Result<BTreeMap<u32, Segment>, StoreError> {
    let mut segments = BTreeMap::new();
    for name in disk.list(log_dir).at("list", log_dir)? {
        let path: PathBuf = log_dir.join(&name);
        if name.ends_with(".tmp") {
            disk.remove(&path).at("remove", &path)?;
            continue;
        }
        let Some((kind, id)) = parse_name(&name) else { continue };
        let file = disk.open(&path).at("open", &path)?;
        let mut segment = Segment { kind, id, first_lsn: 0, path: path.clone(), file };
        match read_header(segment.file.as_ref()) {
            Some(header) if header.version > VERSION => {
                let found = header.version;
                return Err(StoreError::UnsupportedVersion { dir: dir.to_owned(), found, supported: VERSION });
            }
            Some(header) if header.id == id && header.kind == kind => segment.first_lsn = header.first_lsn,
            _ => {
                // Without a header: one whose creation was cut short has no frames, a damaged one has.
                let mut cursor = Cursor::new(&segment, key, SEGMENT_HEADER, None).at("read", &path)?;
                let first = loop {
                    match cursor.step().at("read", &path)? {
                        Step::Frame(frame) => break Some(frame.header.lsn),
                        Step::Damage { .. } => {}
                        Step::End { .. } => break None,
                    }
                };
                match first {
                    Some(lsn) => {
                        segment.first_lsn = lsn;
                        report.damage.push(Damage::new(&segment, 0, SEGMENT_HEADER));
                    }
                    None if is_empty(&segment)? => {
                        disk.remove(&path).at("remove", &path)?;
                        continue;
                    }
                    None => {
                        let len = segment.file.len().at("measure", &path)?;
                        report.damage.push(Damage::new(&segment, 0, len));
                        segment.first_lsn = u64::MAX;
                    }
                }
            }
        }
        segments.insert(id, segment);
    }
    Ok(segments)
}

/// Whether a file holds nothing but an unfinished header.
fn is_empty(segment: &Segment) -> Result<bool, StoreError> {
    let len = segment.file.len().at("measure", &segment.path)?;
    if len <= SEGMENT_HEADER {
        return Ok(true);
    }
    let mut bytes = vec![0; usize::try_from(len.min(1 << 16)).unwrap_or(0)];
    segment.file.read_exact_at(&mut bytes, 0).at("read", &segment.path)?;
    Ok(is_zero(&bytes[SEGMENT_HEADER as usize..]))
}

enum Verdict {
    Rebuild(String),
    Stop(StoreError),
}

impl From<StoreError> for Verdict {
    fn from(error: StoreError) -> Self {
        match error {
            StoreError::Index { reason } => Self::Rebuild(reason),
            error => Self::Stop(error),
        }
    }
}

/// Compares an index with its TAIL, and its locations with the segments there are.
fn verify(index: &Index, segments: &BTreeMap<u32, Segment>) -> Result<(Option<Tail>, Totals), Verdict> {
    let tail = index.tail()?;
    let mut print = Fingerprint::default();
    let mut totals = Totals::default();
    let mut dangling = false;
    index.scan(&[], |key, value| {
        if key == TAIL_KEY {
            return true;
        }
        print.add(key, value);
        totals.count(key, value, 1);
        dangling = dangling || row_loc(key, value).is_some_and(|(loc, _)| !segments.contains_key(&loc.segment));
        !dangling
    })?;
    if dangling {
        return Err(Verdict::Rebuild("the index points to a segment that is gone".to_owned()));
    }
    let expected = tail.unwrap_or_default().print;
    if print != expected {
        let (found, expected) = (print.rows, expected.rows);
        return Err(Verdict::Rebuild(format!(
            "the index has {found} rows that do not sum up to the {expected} of its TAIL"
        )));
    }
    Ok((tail, totals))
}

fn count(index: &Index) -> Result<Totals, StoreError> {
    let mut totals = Totals::default();
    index.scan(&[], |key, value| {
        if key != TAIL_KEY {
            totals.count(key, value, 1);
        }
        true
    })?;
    Ok(totals)
}

/// What to replay: from `tail` on, or everything. Cuts torn tails, and notes where the last segments end. `None` when a
/// segment ends before the place the index has seen.
fn sources(
    segments: &BTreeMap<u32, Segment>,
    lasts: &[Option<&Segment>; 2],
    tail: Option<Tail>,
    key: FrameKey,
    ends: &mut BTreeMap<u32, u64>,
    report: &mut OpenReport,
) -> Result<Option<Vec<Source>>, StoreError> {
    let mut out = Vec::new();
    for segment in segments.values() {
        let from = match (tail, segment.kind) {
            (None, _) => SEGMENT_HEADER,
            (Some(_), SegmentKind::Copy) => continue,
            (Some(tail), kind) => {
                let (id, offset) = if kind == SegmentKind::Chunk { tail.chunk } else { tail.state };
                match segment.id.cmp(&id) {
                    std::cmp::Ordering::Less => continue,
                    std::cmp::Ordering::Equal => u64::from(offset).max(SEGMENT_HEADER),
                    std::cmp::Ordering::Greater => SEGMENT_HEADER,
                }
            }
        };
        let len = segment.file.len().at("measure", &segment.path)?;
        if len < from && from > SEGMENT_HEADER {
            return Ok(None);
        }
        let last = lasts.iter().flatten().any(|last| last.id == segment.id);
        let mut to = None;
        if last {
            let (end, _) = whole_groups(segment, key, from).at("read", &segment.path)?;
            let end = end.max(SEGMENT_HEADER);
            let torn = torn_bytes(segment, end)?;
            if torn > 0 {
                tracing::warn!(segment = %segment.name().display(), bytes = torn, "cut a torn tail");
                segment.file.set_len(end).and_then(|()| segment.file.sync_data()).at("cut", &segment.path)?;
                report.cut_bytes += torn;
            }
            ends.insert(segment.id, end);
            to = Some(end);
        }
        out.push(Source { segment: segment.clone(), from, to, hash_bodies: last || tail.is_some() });
    }
    Ok(Some(out))
}

/// Bytes behind `end` up to the last one that is not zero.
fn torn_bytes(segment: &Segment, end: u64) -> Result<u64, StoreError> {
    let len = segment.file.len().at("measure", &segment.path)?;
    let mut torn = 0;
    let mut at = end;
    let mut buf = vec![0; 1 << 16];
    while at < len {
        let size = usize::try_from(len - at).unwrap_or(usize::MAX).min(buf.len());
        let bytes = &mut buf[..size];
        segment.file.read_exact_at(bytes, at).at("read", &segment.path)?;
        if !is_zero(bytes) {
            let last = bytes.iter().rposition(|byte| *byte != 0).unwrap_or(0);
            torn = at + last as u64 + 1 - end;
        }
        at += size as u64;
    }
    Ok(torn)
}
