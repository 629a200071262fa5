//! Segment files: their header, their names, and a cursor that walks their frames.
//!
//! ```text
//! segment header, 128 bytes, little endian
//!   0  magic "TRIBSEG\0"     8  version u16 = 1   10  kind u8 (1 chunk, 2 state, 3 copy)   11  zero
//!  12  segment id u32       16  first lsn u64     24  created at, ms u64   32  frame key 32   64  zeros
//!  96  BLAKE3 of bytes 0..96
//! ```
//!
//! Files are `log/<kind>-<id, 8 hex digits>.seg`. Ids are shared by all kinds and grow. A segment is *closed* when a
//! later one of its kind exists, or when it is a copy; only the last chunk and the last state segment can have a torn tail.

use std::{
    io,
    path::{Path, PathBuf},
    sync::Arc,
};

use crate::{
    disk::SegmentFile,
    frame::{FrameKey, HEADER_LEN, Header, Kind, Reader},
};

pub(crate) const SEGMENT_HEADER: u64 = 128;
pub(crate) const VERSION: u16 = 1;
const MAGIC: [u8; 8] = *b"TRIBSEG\0";

/// What a segment is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub(crate) enum SegmentKind {
    /// Groups that hold chunk bodies, with all that was committed beside them.
    Chunk = 1,
    /// Groups without chunk bodies.
    State = 2,
    /// Live frames saved from segments that were removed. Written whole, never appended to.
    Copy = 3,
}

impl SegmentKind {
    const ALL: [(Self, &'static str); 3] = [(Self::Chunk, "chunk"), (Self::State, "state"), (Self::Copy, "copy")];

    fn name(self) -> &'static str {
        match self {
            Self::Chunk => "chunk",
            Self::State => "state",
            Self::Copy => "copy",
        }
    }
}

pub(crate) fn file_name(kind: SegmentKind, id: u32) -> String {
    format!("{}-{id:08x}.seg", kind.name())
}

pub(crate) fn parse_name(name: &str) -> Option<(SegmentKind, u32)> {
    let (kind, id) = name.strip_suffix(".seg")?.split_once('-')?;
    let kind = SegmentKind::ALL.iter().find(|(_, text)| *text == kind)?.0;
    (id.len() == 8).then(|| u32::from_str_radix(id, 16).ok()).flatten().map(|id| (kind, id))
}

/// The first bytes of a segment.
#[derive(Clone, Copy)]
pub(crate) struct SegmentHeader {
    pub(crate) version: u16,
    pub(crate) kind: SegmentKind,
    pub(crate) id: u32,
    pub(crate) first_lsn: u64,
    pub(crate) created_ms: u64,
    pub(crate) key: FrameKey,
}

impl SegmentHeader {
    pub(crate) fn encode(&self) -> [u8; SEGMENT_HEADER as usize] {
        let mut out = [0; SEGMENT_HEADER as usize];
        out[..8].copy_from_slice(&MAGIC);
        out[8..10].copy_from_slice(&self.version.to_le_bytes());
        out[10] = self.kind as u8;
        out[12..16].copy_from_slice(&self.id.to_le_bytes());
        out[16..24].copy_from_slice(&self.first_lsn.to_le_bytes());
        out[24..32].copy_from_slice(&self.created_ms.to_le_bytes());
        out[32..64].copy_from_slice(&self.key.0);
        let sum = blake3::hash(&out[..96]);
        out[96..].copy_from_slice(sum.as_bytes());
        out
    }

    pub(crate) fn decode(bytes: &[u8; SEGMENT_HEADER as usize]) -> Option<Self> {
        if bytes[..8] != MAGIC || bytes[96..] != *blake3::hash(&bytes[..96]).as_bytes() {
            return None;
        }
        let mut read = Reader(&bytes[8..]);
        let version = read.u16()?;
        let kind = read.u8()?;
        let kind = SegmentKind::ALL.iter().find(|(known, _)| *known as u8 == kind)?.0;
        read.u8()?;
        let (id, first_lsn, created_ms) = (read.u32()?, read.u64()?, read.u64()?);
        Some(Self { version, kind, id, first_lsn, created_ms, key: FrameKey(read.array()?) })
    }
}

/// An open segment.
#[derive(Debug, Clone)]
pub(crate) struct Segment {
    pub(crate) kind: SegmentKind,
    pub(crate) id: u32,
    pub(crate) first_lsn: u64,
    pub(crate) path: PathBuf,
    pub(crate) file: Arc<dyn SegmentFile>,
}

impl Segment {
    pub(crate) fn name(&self) -> &Path {
        self.path.file_name().map_or(&self.path, Path::new)
    }
}

/// A frame as found in a segment.
#[derive(Debug, Clone)]
pub(crate) struct RawFrame {
    pub(crate) offset: u64,
    pub(crate) header: Header,
    pub(crate) meta: Vec<u8>,
}

impl RawFrame {
    pub(crate) fn body_offset(&self) -> u64 {
        self.offset + HEADER_LEN as u64 + u64::from(self.header.meta_len)
    }
}

/// What a cursor meets next.
#[derive(Debug)]
pub(crate) enum Step {
    Frame(RawFrame),
    /// Bytes from here are no frame, but a valid one follows at `next`; the cursor stands there.
    Damage {
        from: u64,
        next: u64,
    },
    /// No valid frame follows. `zeros`: nothing but zeros do (a preallocated tail).
    End {
        at: u64,
        zeros: bool,
    },
}

/// Walks the frames of one segment through a small window, without reading bodies.
pub(crate) struct Cursor {
    file: Arc<dyn SegmentFile>,
    segment: u32,
    key: FrameKey,
    pos: u64,
    end: u64,
    window: Vec<u8>,
    window_at: u64,
}

const WINDOW: usize = 128 << 10;

impl Cursor {
    /// Walks `file` from `pos` to `end`, or to its length.
    pub(crate) fn new(segment: &Segment, key: FrameKey, pos: u64, end: Option<u64>) -> io::Result<Self> {
        let len = segment.file.len()?;
        Ok(Self {
            file: Arc::clone(&segment.file),
            segment: segment.id,
            key,
            pos: pos.max(SEGMENT_HEADER),
            end: end.map_or(len, |end| end.min(len)),
            window: Vec::new(),
            window_at: 0,
        })
    }

    pub(crate) fn pos(&self) -> u64 {
        self.pos
    }

    /// Bytes `at..at + len`, or fewer at the end.
    fn view(&mut self, at: u64, len: usize) -> io::Result<&[u8]> {
        let have = self.window_at + self.window.len() as u64;
        let want = at.saturating_add(len as u64).min(self.end);
        if at < self.window_at || want > have {
            let size = (self.end.saturating_sub(at)).min(len.max(WINDOW) as u64) as usize;
            self.window.resize(size, 0);
            self.window_at = at;
            let read = self.file.read_exact_at(&mut self.window, at);
            if let Err(error) = read {
                self.window.clear();
                return Err(error);
            }
        }
        let from = (at - self.window_at) as usize;
        let to = (want.max(at) - self.window_at) as usize;
        Ok(&self.window[from..to])
    }

    /// The frame at `at`, if a valid one is there.
    fn frame_at(&mut self, at: u64) -> io::Result<Option<RawFrame>> {
        let (key, segment, end) = (self.key, self.segment, self.end);
        let Some(header) = key.decode(segment, self.view(at, HEADER_LEN)?) else { return Ok(None) };
        if at.saturating_add(header.frame_len()) > end {
            return Ok(None);
        }
        let meta = self.view(at + HEADER_LEN as u64, header.meta_len as usize)?.to_vec();
        Ok(key.meta_matches(&header, &meta).then_some(RawFrame { offset: at, header, meta }))
    }

    pub(crate) fn step(&mut self) -> io::Result<Step> {
        let at = self.pos;
        if at >= self.end {
            return Ok(Step::End { at, zeros: true });
        }
        if let Some(frame) = self.frame_at(at)? {
            self.pos = at + frame.header.frame_len();
            return Ok(Step::Frame(frame));
        }
        let mut zeros = true;
        let mut next = at;
        while next < self.end {
            let bytes = self.view(next, WINDOW)?;
            let len = bytes.len() as u64;
            zeros = zeros && is_zero(bytes);
            // A magic that straddles two windows is seen by the next one, which begins three bytes early.
            let candidates: Vec<u64> = if is_zero(bytes) {
                Vec::new()
            } else {
                bytes.windows(4).enumerate().filter(|(_, w)| *w == b"TRF1").map(|(i, _)| next + i as u64).collect()
            };
            for candidate in candidates {
                if self.frame_at(candidate)?.is_some() {
                    self.pos = candidate;
                    return Ok(Step::Damage { from: at, next: candidate });
                }
            }
            next = if len > 3 && next + len < self.end { next + len - 3 } else { next + len };
        }
        self.pos = self.end;
        Ok(Step::End { at, zeros })
    }
}

pub(crate) fn is_zero(bytes: &[u8]) -> bool {
    let (chunks, rest) = bytes.as_chunks::<64>();
    chunks.iter().all(|chunk| *chunk == [0; 64]) && rest.iter().all(|byte| *byte == 0)
}

/// Counts and checksums the frames of a group, for its end.
pub(crate) struct GroupSum {
    hasher: blake3::Hasher,
    pub(crate) frames: u32,
}

impl GroupSum {
    pub(crate) fn new() -> Self {
        Self { hasher: blake3::Hasher::new(), frames: 0 }
    }

    pub(crate) fn add(&mut self, head_sum: &[u8; 16]) {
        self.hasher.update(head_sum);
        self.frames += 1;
    }

    /// The meta of the group end, and a fresh start.
    pub(crate) fn finish(&mut self) -> [u8; 36] {
        let mut meta = [0; 36];
        meta[..4].copy_from_slice(&self.frames.to_le_bytes());
        meta[4..].copy_from_slice(self.hasher.finalize().as_bytes());
        *self = Self::new();
        meta
    }
}

/// The end of the last whole group at or after `from`, and the highest lsn up to there. Bodies are hashed: this is for the
/// part of a segment that no `fdatasync` is known to have covered.
pub(crate) fn whole_groups(segment: &Segment, key: FrameKey, from: u64) -> io::Result<(u64, u64)> {
    let mut cursor = Cursor::new(segment, key, from, None)?;
    let (mut end, mut last_lsn) = (cursor.pos(), 0);
    let mut sum = GroupSum::new();
    let mut whole = true;
    let mut body = Vec::new();
    loop {
        match cursor.step()? {
            Step::Frame(frame) => match frame.header.kind {
                Kind::GroupEnd => {
                    if sum.finish()[..] == frame.meta[..] && whole {
                        end = cursor.pos();
                        last_lsn = frame.header.lsn;
                    }
                    whole = true;
                }
                Kind::Footer => end = cursor.pos(),
                _ => {
                    sum.add(&frame.header.head_sum);
                    whole = whole && body_matches(segment, &frame, &mut body)?;
                }
            },
            Step::Damage { .. } => whole = false,
            Step::End { .. } => return Ok((end, last_lsn)),
        }
    }
}

/// Whether a chunk's body has the hash in its meta; other frames have no body.
pub(crate) fn body_matches(segment: &Segment, frame: &RawFrame, buf: &mut Vec<u8>) -> io::Result<bool> {
    if frame.header.kind != Kind::Chunk {
        return Ok(true);
    }
    buf.resize(frame.header.body_len as usize, 0);
    segment.file.read_exact_at(buf, frame.body_offset())?;
    Ok(frame.meta.get(..32) == Some(blake3::hash(buf).as_bytes()))
}
