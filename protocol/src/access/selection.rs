//! Selections: what a buyer wants, as a list of ranges.
//!
//! Layout: `count (1)`, 1 to 64, then for each range a tag (1) and its fields:
//!
//! | tag | range | fields |
//! |---|---|---|
//! | 1 | dataset | dataset (32) |
//! | 2 | time | stream (32), from ms (8), to ms (8), both included, by capture time |
//! | 3 | positions | stream (32), epoch (8), first (8), last (8), both included |
//! | 4 | live | stream (32), seconds (4), from the grant on |

use crate::{
    entry::layout::{LayoutError, Reader},
    ids::{DatasetId, StreamId},
    keytree::Position,
};

/// At most this many ranges in a selection.
pub const MAX_RANGES: usize = 64;
/// A live range has at most this many seconds: 30 days, the life of an epoch.
pub const MAX_LIVE_SECONDS: u32 = 30 * 24 * 60 * 60;

/// One range of data of a machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Range {
    /// A dataset.
    Dataset(DatasetId),
    /// All chunks with content that was captured in this time: those whose record's earliest and latest capture time overlap it.
    /// A chunk is sold whole, so one that straddles an end of the range is in, with what it holds from beyond. When a chunk was
    /// sealed, and its key made, plays no part: a recording of last week that is ingested today is last week's.
    Time {
        /// The stream.
        stream: StreamId,
        /// From here on, ms since 1970.
        from_ms: u64,
        /// To here, included, ms since 1970.
        to_ms: u64,
    },
    /// Chunk keys by position.
    Positions {
        /// The stream.
        stream: StreamId,
        /// The key epoch.
        epoch: u64,
        /// The first position.
        first: Position,
        /// The last position, included.
        last: Position,
    },
    /// What will come.
    Live {
        /// The stream.
        stream: StreamId,
        /// For so long, 1 second to 30 days.
        seconds: u32,
    },
}

impl Range {
    fn check(&self) -> Result<(), LayoutError> {
        let ordered = match self {
            Self::Dataset(_) => true,
            Self::Time { from_ms, to_ms, .. } => from_ms <= to_ms,
            Self::Positions { first, last, .. } => first <= last,
            Self::Live { seconds, .. } => (1..=MAX_LIVE_SECONDS).contains(seconds),
        };
        if ordered {
            return Ok(());
        }
        Err(LayoutError::Value { what: "range", reason: "ends before it begins, or lasts 0 seconds or over 30 days" })
    }
}

/// What a buyer wants: 1 to 64 ranges of one machine.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Selection(Vec<Range>);

impl Selection {
    /// Makes a selection.
    ///
    /// # Errors
    ///
    /// When there is no range or more than 64, or one that ends before it begins.
    pub fn new(ranges: Vec<Range>) -> Result<Self, LayoutError> {
        check_count(ranges.len())?;
        ranges.iter().try_for_each(Range::check)?;
        Ok(Self(ranges))
    }

    /// The ranges.
    #[must_use]
    pub fn ranges(&self) -> &[Range] {
        &self.0
    }

    /// The byte layout above.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut out = vec![u8::try_from(self.0.len()).expect("checked when made: at most 64")];
        for range in &self.0 {
            match range {
                Range::Dataset(dataset) => {
                    out.push(1);
                    out.extend_from_slice(dataset.as_bytes());
                }
                Range::Time { stream, from_ms, to_ms } => {
                    out.push(2);
                    out.extend_from_slice(stream.as_bytes());
                    out.extend_from_slice(&from_ms.to_be_bytes());
                    out.extend_from_slice(&to_ms.to_be_bytes());
                }
                Range::Positions { stream, epoch, first, last } => {
                    out.push(3);
                    out.extend_from_slice(stream.as_bytes());
                    out.extend_from_slice(&epoch.to_be_bytes());
                    out.extend_from_slice(&first.as_u64().to_be_bytes());
                    out.extend_from_slice(&last.as_u64().to_be_bytes());
                }
                Range::Live { stream, seconds } => {
                    out.push(4);
                    out.extend_from_slice(stream.as_bytes());
                    out.extend_from_slice(&seconds.to_be_bytes());
                }
            }
        }
        out
    }

    /// Reads the bytes of one selection.
    ///
    /// # Errors
    ///
    /// For anything but one whole, valid selection.
    pub fn decode(bytes: &[u8]) -> Result<Self, LayoutError> {
        let mut r = Reader::new(bytes);
        let selection = Self::read(&mut r)?;
        r.finish("selection")?;
        Ok(selection)
    }

    pub(crate) fn read(r: &mut Reader<'_>) -> Result<Self, LayoutError> {
        let count = usize::from(r.u8("range count")?);
        check_count(count)?;
        let mut ranges = Vec::with_capacity(count);
        for _ in 0..count {
            let range = match r.u8("range")? {
                1 => Range::Dataset(DatasetId::from_bytes(r.array("dataset")?)),
                2 => Range::Time {
                    stream: StreamId::from_bytes(r.array("stream")?),
                    from_ms: r.u64("time")?,
                    to_ms: r.u64("time")?,
                },
                3 => Range::Positions {
                    stream: StreamId::from_bytes(r.array("stream")?),
                    epoch: r.u64("epoch")?,
                    first: read_position(r)?,
                    last: read_position(r)?,
                },
                4 => Range::Live { stream: StreamId::from_bytes(r.array("stream")?), seconds: r.u32("seconds")? },
                _ => return Err(LayoutError::Value { what: "range", reason: "no such kind" }),
            };
            range.check()?;
            ranges.push(range);
        }
        Ok(Self(ranges))
    }
}

/// A position of the key tree: 48 bits in 8 bytes.
pub(crate) fn read_position(r: &mut Reader<'_>) -> Result<Position, LayoutError> {
    let bits = r.u64("position")?;
    Position::from_u64(bits).ok_or(LayoutError::Value { what: "position", reason: "more than 48 bits" })
}

fn check_count(found: usize) -> Result<(), LayoutError> {
    match found {
        0 => Err(LayoutError::Value { what: "selection", reason: "selects nothing" }),
        1..=MAX_RANGES => Ok(()),
        _ => Err(LayoutError::TooLong { what: "selection", found, limit: MAX_RANGES }),
    }
}
