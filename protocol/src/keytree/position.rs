//! Where a chunk's key is in the tree, and which place is next.

use std::fmt;

/// A leaf of the key tree: 48 bits, `slot (16) || counter (32)`.
///
/// The slot is the minute since the epoch began, so a span of time is a range of positions before its chunks exist.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Position(u64);

/// Length of a slot in milliseconds.
pub const SLOT_MS: u64 = 60_000;

/// Slots of an epoch: 30 days of minutes.
pub const EPOCH_SLOTS: u16 = 30 * 24 * 60;

impl Position {
    /// The first position of an epoch.
    pub const MIN: Self = Self(0);
    /// The last one of the tree. No chunk gets it: an epoch ends before.
    pub const MAX: Self = Self((1 << 48) - 1);

    /// The position of a slot and a counter in it.
    #[must_use]
    pub const fn new(slot: u16, counter: u32) -> Self {
        Self((slot as u64) << 32 | counter as u64)
    }

    /// The position of its 48 bits; `None` when there are more.
    #[must_use]
    pub const fn from_u64(bits: u64) -> Option<Self> {
        if bits <= Self::MAX.0 { Some(Self(bits)) } else { None }
    }

    /// The 48 bits.
    #[must_use]
    pub const fn as_u64(self) -> u64 {
        self.0
    }

    /// The minute since the epoch began.
    #[must_use]
    pub fn slot(self) -> u16 {
        u16::try_from(self.0 >> 32).expect("a position has 48 bits, so 16 above the counter")
    }

    /// The number within the slot.
    #[must_use]
    pub fn counter(self) -> u32 {
        u32::try_from(self.0 & u64::from(u32::MAX)).expect("32 bits were kept")
    }

    /// The first position of a slot: where a range that begins with that minute begins.
    #[must_use]
    pub const fn first_of_slot(slot: u16) -> Self {
        Self::new(slot, 0)
    }

    /// The last position of a slot: where a range that ends with that minute ends.
    #[must_use]
    pub const fn last_of_slot(slot: u16) -> Self {
        Self::new(slot, u32::MAX)
    }

    /// The slot that the time `now_ms` falls in, in an epoch that began at `started_ms` (both Unix milliseconds): 0 before it
    /// began, and `None` when it is over.
    #[must_use]
    pub fn slot_at(started_ms: u64, now_ms: u64) -> Option<u16> {
        u16::try_from(now_ms.saturating_sub(started_ms) / SLOT_MS).ok().filter(|slot| *slot < EPOCH_SLOTS)
    }
}

impl fmt::Display for Position {
    /// `slot:counter`, both decimal.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.slot(), self.counter())
    }
}

/// Why an epoch has no further position: begin a new one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum EpochEnded {
    /// Its 30 days are over.
    #[error("the key epoch that began at {started_ms} ms is older than 30 days; begin a new epoch")]
    Expired {
        /// When it began, Unix milliseconds.
        started_ms: u64,
    },
    /// The counter of the current slot has run out.
    #[error("minute {slot} of the key epoch holds 2^32 chunks already; begin a new epoch")]
    Full {
        /// The slot that is full.
        slot: u16,
    },
}

/// Gives every new chunk of an epoch its position: later than all before it, whatever the clock does.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PositionCursor {
    started_ms: u64,
    last: Option<Position>,
}

impl PositionCursor {
    /// Continues an epoch that began at `started_ms` (Unix milliseconds) behind its last position used, if there is one.
    #[must_use]
    pub const fn new(started_ms: u64, last: Option<Position>) -> Self {
        Self { started_ms, last }
    }

    /// The last position given.
    #[must_use]
    pub const fn last(&self) -> Option<Position> {
        self.last
    }

    /// The next position, at `now_ms` (Unix milliseconds). A clock that goes back stays in the last slot.
    ///
    /// # Errors
    ///
    /// When the epoch is over. The cursor is unchanged then.
    pub fn next(&mut self, now_ms: u64) -> Result<Position, EpochEnded> {
        let expired = EpochEnded::Expired { started_ms: self.started_ms };
        let now = Position::slot_at(self.started_ms, now_ms).ok_or(expired)?;
        let next = match self.last {
            Some(last) if last.slot() >= EPOCH_SLOTS => return Err(expired),
            Some(last) if last.slot() >= now => {
                let full = EpochEnded::Full { slot: last.slot() };
                Position::new(last.slot(), last.counter().checked_add(1).ok_or(full)?)
            }
            _ => Position::first_of_slot(now),
        };
        self.last = Some(next);
        Ok(next)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const START: u64 = 1_800_000_000_000;

    #[test]
    fn a_position_is_slot_then_counter() {
        let position = Position::new(0x1234, 0x5678_9abc);
        assert_eq!(position.as_u64(), 0x1234_5678_9abc);
        assert_eq!((position.slot(), position.counter()), (0x1234, 0x5678_9abc));
        assert_eq!(Position::from_u64(1 << 48), None);
        assert!(Position::last_of_slot(3) < Position::first_of_slot(4));
        assert_eq!(position.to_string(), "4660:1450744508");
    }

    #[test]
    fn the_counter_runs_within_a_minute_and_starts_again_in_the_next() {
        let mut cursor = PositionCursor::new(START, None);
        assert_eq!(cursor.next(START), Ok(Position::new(0, 0)));
        assert_eq!(cursor.next(START + SLOT_MS - 1), Ok(Position::new(0, 1)));
        assert_eq!(cursor.next(START + SLOT_MS), Ok(Position::new(1, 0)));
        assert_eq!(cursor.next(START + 5 * SLOT_MS), Ok(Position::new(5, 0)));
    }

    #[test]
    fn a_clock_that_goes_back_stays_in_the_last_slot() {
        let mut cursor = PositionCursor::new(START, Some(Position::new(9, 4)));
        assert_eq!(cursor.next(START + SLOT_MS), Ok(Position::new(9, 5)));
        assert_eq!(cursor.next(0), Ok(Position::new(9, 6)));
    }

    #[test]
    fn an_epoch_ends_after_30_days_or_when_a_minute_is_full() {
        let mut cursor = PositionCursor::new(START, Some(Position::new(2, u32::MAX)));
        assert_eq!(cursor.next(START), Err(EpochEnded::Full { slot: 2 }));
        assert_eq!(cursor.next(START + 3 * SLOT_MS), Ok(Position::new(3, 0)));
        let end = START + u64::from(EPOCH_SLOTS) * SLOT_MS;
        assert_eq!(cursor.next(end - 1), Ok(Position::new(EPOCH_SLOTS - 1, 0)));
        let before = cursor.clone();
        for over in [end, u64::MAX] {
            assert_eq!(cursor.next(over), Err(EpochEnded::Expired { started_ms: START }));
        }
        assert_eq!(cursor, before);
        let mut outside = PositionCursor::new(START, Some(Position::MAX));
        assert_eq!(outside.next(START), Err(EpochEnded::Expired { started_ms: START }));
    }

    proptest! {
        #[test]
        fn positions_only_go_up(times in proptest::collection::vec(any::<u64>(), 0..100), minutes in any::<[u32; 32]>()) {
            let mut cursor = PositionCursor::new(START, None);
            let near = minutes.iter().map(|m| START + u64::from(*m));
            let mut last = None;
            for now in times.into_iter().chain(near) {
                if let Ok(next) = cursor.next(now) {
                    prop_assert!(Some(next) > last);
                    last = Some(next);
                }
            }
        }
    }
}
