//! Reading the log back: frames of many segments merged into the order in which they were written, and applied to the index.

use std::{
    cmp::Reverse,
    collections::{BinaryHeap, VecDeque},
};

use crate::{
    apply::apply,
    error::{IoContext, StoreError},
    frame::{Change, FrameKey, Kind, Reader},
    index::{Delta, Fingerprint, Index, Loc, Tail},
    recover::Damage,
    segment::{Cursor, RawFrame, Segment, SegmentKind, Step, body_matches},
};

/// A segment to read, from where to where, and whether its bodies must be hashed.
#[derive(Debug, Clone)]
pub(crate) struct Source {
    pub(crate) segment: Segment,
    pub(crate) from: u64,
    pub(crate) to: Option<u64>,
    pub(crate) hash_bodies: bool,
}

/// A frame in log order.
pub(crate) struct Merged {
    pub(crate) segment: Segment,
    pub(crate) frame: RawFrame,
    pub(crate) body_ok: bool,
}

struct Open {
    source: Source,
    cursor: Cursor,
    next: Option<RawFrame>,
    found: u64,
}

/// Frames of all sources, ascending by lsn, each lsn once. A segment is opened when the order reaches it, so that memory does
/// not grow with the store.
pub(crate) struct Merge {
    key: FrameKey,
    waiting: VecDeque<Source>,
    open: Vec<Option<Open>>,
    heap: BinaryHeap<Reverse<(u64, bool, usize)>>,
    last: Option<u64>,
    body: Vec<u8>,
    pub(crate) damage: Vec<Damage>,
    pub(crate) lost_frames: u64,
}

impl Merge {
    pub(crate) fn new(key: FrameKey, mut sources: Vec<Source>) -> Self {
        sources.sort_by_key(|source| (source.segment.first_lsn, source.segment.id));
        Self {
            key,
            waiting: sources.into(),
            open: Vec::new(),
            heap: BinaryHeap::new(),
            last: None,
            body: Vec::new(),
            damage: Vec::new(),
            lost_frames: 0,
        }
    }

    pub(crate) fn next(&mut self) -> Result<Option<Merged>, StoreError> {
        loop {
            while let Some(source) = self.waiting.front() {
                let due = self.heap.peek().is_none_or(|Reverse((lsn, ..))| source.segment.first_lsn <= *lsn);
                if !due {
                    break;
                }
                let source = self.waiting.pop_front().expect("just looked at");
                let cursor =
                    Cursor::new(&source.segment, self.key, source.from, source.to).at("read", &source.segment.path)?;
                let at = self.open.iter().position(Option::is_none).unwrap_or(self.open.len());
                if at == self.open.len() {
                    self.open.push(None);
                }
                self.open[at] = Some(Open { source, cursor, next: None, found: 0 });
                self.advance(at)?;
            }
            let Some(Reverse((lsn, _, at))) = self.heap.pop() else { return Ok(None) };
            let slot = self.open[at].as_mut().expect("the heap names open sources only");
            let frame = slot.next.take().expect("a source in the heap has its next frame");
            let segment = slot.source.segment.clone();
            let hash = slot.source.hash_bodies;
            self.advance(at)?;
            if self.last == Some(lsn) {
                continue;
            }
            self.last = Some(lsn);
            let body_ok = !hash || body_matches(&segment, &frame, &mut self.body).at("read", &segment.path)?;
            return Ok(Some(Merged { segment, frame, body_ok }));
        }
    }

    /// Reads a source's next frame into the heap; closes it at its end.
    fn advance(&mut self, at: usize) -> Result<(), StoreError> {
        let Some(open) = self.open[at].as_mut() else { return Ok(()) };
        loop {
            match open.cursor.step().at("read", &open.source.segment.path)? {
                Step::Frame(frame) => match frame.header.kind {
                    Kind::GroupEnd => {}
                    Kind::Footer => {
                        let whole = open.source.from <= crate::segment::SEGMENT_HEADER;
                        let frames = Reader(&frame.meta).u64().unwrap_or(0);
                        if whole {
                            self.lost_frames += frames.saturating_sub(open.found);
                        }
                    }
                    _ => {
                        open.found += 1;
                        // Copies win over the segments they were made from.
                        let original = open.source.segment.kind != SegmentKind::Copy;
                        self.heap.push(Reverse((frame.header.lsn, original, at)));
                        open.next = Some(frame);
                        return Ok(());
                    }
                },
                Step::Damage { from, next } => {
                    self.damage.push(Damage::new(&open.source.segment, from, next - from));
                }
                Step::End { at: end, zeros } => {
                    let to = open.cursor.pos();
                    if !zeros && to > end {
                        self.damage.push(Damage::new(&open.source.segment, end, to - end));
                    }
                    self.open[at] = None;
                    return Ok(());
                }
            }
        }
    }
}

pub(crate) fn loc_of(segment: &Segment, frame: &RawFrame) -> Option<Loc> {
    let len = if frame.header.kind == Kind::Chunk {
        frame.header.body_len
    } else {
        u32::try_from(frame.header.frame_len()).ok()?
    };
    Some(Loc { segment: segment.id, offset: u32::try_from(frame.offset).ok()?, len })
}

/// What a replay did.
#[derive(Debug, Default)]
pub(crate) struct Replayed {
    pub(crate) frames: u64,
    pub(crate) last_lsn: u64,
    /// A garbage collection was met whose effect on the index is not known to be there: rebuild.
    pub(crate) moved: bool,
    pub(crate) damage: Vec<Damage>,
    pub(crate) lost_frames: u64,
    pub(crate) print: Fingerprint,
}

/// Rows are handed to sled in batches of about this many.
const BATCH_ROWS: usize = 4096;

/// Applies everything in `sources` to `index`, whose rows have `print`. TAIL is left alone: until the caller writes it, the
/// index does not match it, and a stop in between only means another rebuild.
pub(crate) fn replay(
    index: &Index,
    key: FrameKey,
    sources: Vec<Source>,
    print: Fingerprint,
    stop_at_moved: bool,
) -> Result<Replayed, StoreError> {
    let segments: Vec<Segment> = sources.iter().map(|source| source.segment.clone()).collect();
    let mut merge = Merge::new(key, sources);
    let mut report = Replayed { print, ..Replayed::default() };
    let mut delta = Delta::new(index, print);
    while let Some(Merged { segment, frame, body_ok }) = merge.next()? {
        let (kind, lsn) = (frame.header.kind, frame.header.lsn);
        report.frames += 1;
        report.last_lsn = report.last_lsn.max(lsn);
        if kind == Kind::Moved {
            if stop_at_moved {
                report.moved = true;
                return Ok(report);
            }
            continue;
        }
        if !body_ok {
            // A hole explained by a later tombstone, or damage: absent either way, and `check` would say so.
            continue;
        }
        let (Some(loc), Some(change)) = (loc_of(&segment, &frame), Change::decode(kind, &frame.meta)) else {
            merge.damage.push(Damage::new(&segment, frame.offset, frame.header.frame_len()));
            continue;
        };
        let mut lookup = |at: Loc| lookup_entry(&segments, key, at);
        apply(&mut delta, lsn, loc, &change, &mut lookup)?;
        if delta.len() >= BATCH_ROWS {
            let (batch, next) = delta.finish_without_tail();
            index.apply(batch)?;
            report.print = next;
            delta = Delta::new(index, next);
        }
    }
    let (batch, print) = delta.finish_without_tail();
    index.apply(batch)?;
    report.print = print;
    report.damage = merge.damage;
    report.lost_frames = merge.lost_frames;
    Ok(report)
}

fn lookup_entry(segments: &[Segment], key: FrameKey, at: Loc) -> Option<crate::batch::EntryIndex> {
    let segment = segments.iter().find(|segment| segment.id == at.segment)?;
    let len = usize::try_from(at.len).ok().filter(|len| *len <= crate::frame::MAX_META)?;
    let mut bytes = vec![0; len];
    segment.file.read_exact_at(&mut bytes, u64::from(at.offset)).ok()?;
    let header = key.decode(segment.id, &bytes)?;
    let meta = bytes.get(crate::frame::HEADER_LEN..)?;
    match Change::decode(header.kind, meta)? {
        Change::Entry { index, .. } => Some(index),
        _ => None,
    }
}

/// The TAIL after a replay.
pub(crate) fn tail_after(replayed: &Replayed, old: Option<Tail>, chunk: (u32, u32), state: (u32, u32)) -> Tail {
    let lsn = replayed.last_lsn.max(old.map_or(0, |tail| tail.lsn));
    Tail { lsn, chunk, state, print: replayed.print }
}
