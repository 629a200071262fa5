//! Package sequence numbers: given once, never again.
//!
//! A number is `incarnation * 2^40 + counter`, counted per stream. Numbers are reserved in the store in blocks before any of them
//! is given, so a machine that loses power goes on behind the reserved block: what is skipped is a visible gap, and nothing is
//! given twice. A clean end writes back the exact position. Reserving waits for the disk; giving never does while others reserve.

use std::sync::{Mutex, MutexGuard, PoisonError};

use tributary_protocol::ids::StreamId;
use tributary_store::{Store, StoreError, WriteBatch};

/// Numbers of one incarnation: 2^40, which is 34 years at 1 kHz.
const PER_INCARNATION: u64 = 1 << 40;
/// How many numbers one durable write reserves at least: 4 s of a 1 kHz topic.
const BLOCK: u64 = 4096;
/// What [`Numbers::reserve`] keeps ready, for as many sources as may push at once.
const READY: u64 = 64;

/// Why no number can be given.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum NumberError {
    /// The reservation could not be made durable.
    #[error("cannot reserve package numbers: {0}")]
    Store(#[from] StoreError),
    /// 2^40 numbers were given in this incarnation.
    #[error(
        "stream {stream} has used every package number of this incarnation; bind a new one with `tributary key bind`"
    )]
    Exhausted {
        /// The stream.
        stream: StreamId,
    },
}

/// Counters within the incarnation.
struct State {
    next: u64,
    reserved: u64,
}

/// Gives the numbers of one stream.
pub(crate) struct Numbers {
    store: Store,
    stream: StreamId,
    counter: String,
    base: u64,
    /// What one durable write reserves, and what a power cut can skip at most.
    block: u64,
    state: Mutex<State>,
    /// Held while a block is being written, so that only one is.
    extending: Mutex<()>,
}

impl Numbers {
    /// Goes on where the stream's numbers ended in `incarnation`. A block lasts twice as long as a queue of `queued` messages, so
    /// that one that is reserved in time is never the reason why a message finds no place.
    pub(crate) fn open(store: Store, stream: StreamId, incarnation: u32, queued: u32) -> Result<Self, NumberError> {
        let counter = format!("number/{stream}/{incarnation}");
        let next = store.counter(&counter)?;
        let base = u64::from(incarnation).checked_mul(PER_INCARNATION).ok_or(NumberError::Exhausted { stream })?;
        let state = Mutex::new(State { next, reserved: next });
        let block = BLOCK.max(2 * u64::from(queued));
        Ok(Self { store, stream, counter, base, block, state, extending: Mutex::new(()) })
    }

    /// The number that [`Numbers::take`] gives next.
    pub(crate) fn upcoming(&self) -> u64 {
        self.base + self.state().next
    }

    /// Makes sure that [`Numbers::take`] need not wait for the disk. Waits for it itself, about once in a block.
    pub(crate) fn reserve(&self) -> Result<(), NumberError> {
        self.keep(READY)
    }

    /// As [`Numbers::reserve`], with half a block ready.
    pub(crate) fn reserve_ahead(&self) -> Result<(), NumberError> {
        self.keep(self.block / 2)
    }

    fn keep(&self, ready: u64) -> Result<(), NumberError> {
        let enough = |state: &State| state.reserved - state.next >= ready;
        if enough(&self.state()) {
            return Ok(());
        }
        let _extending = self.extending.lock().unwrap_or_else(PoisonError::into_inner);
        let reserved = {
            let state = self.state();
            if enough(&state) {
                return Ok(());
            }
            state.next + self.block
        };
        if reserved > PER_INCARNATION {
            return Err(NumberError::Exhausted { stream: self.stream });
        }
        // Numbers that were reserved before are given meanwhile.
        self.write(reserved)?;
        self.state().reserved = reserved;
        Ok(())
    }

    /// The next number; `None` when none is reserved.
    pub(crate) fn try_take(&self) -> Option<u64> {
        let mut state = self.state();
        (state.next < state.reserved).then(|| {
            state.next += 1;
            self.base + state.next - 1
        })
    }

    /// The next number. Waits for the disk where none is reserved.
    pub(crate) fn take(&self) -> Result<u64, NumberError> {
        loop {
            match self.try_take() {
                Some(number) => return Ok(number),
                None => self.keep(1)?,
            }
        }
    }

    /// Gives back what is reserved and not used: after this no gap is left by the next start.
    pub(crate) fn close(&self) -> Result<(), NumberError> {
        let _extending = self.extending.lock().unwrap_or_else(PoisonError::into_inner);
        let next = {
            let mut state = self.state();
            if state.reserved == state.next {
                return Ok(());
            }
            // Nothing is given any more, so nothing is given that is not reserved.
            state.reserved = state.next;
            state.next
        };
        Ok(self.write(next)?)
    }

    fn write(&self, value: u64) -> Result<(), StoreError> {
        let mut batch = WriteBatch::new();
        batch.set_counter(self.counter.as_str(), value);
        self.store.commit(batch)
    }

    // Both counters are right after every statement under the lock.
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use tributary_store::StoreOptions;

    use super::*;

    fn stream() -> StreamId {
        StreamId::from_bytes([3; 32])
    }

    #[test]
    fn a_crash_skips_numbers_and_a_clean_end_does_not() {
        let dir = tempfile::tempdir().expect("a temporary folder");
        let (store, _) = Store::open(dir.path(), &StoreOptions::default()).expect("opens");
        let numbers = Numbers::open(store.clone(), stream(), 0, 1).expect("opens");
        assert_eq!([numbers.take().expect("given"), numbers.take().expect("given")], [0, 1]);
        numbers.close().expect("written");

        let numbers = Numbers::open(store.clone(), stream(), 0, 1).expect("opens");
        assert_eq!(numbers.take().expect("given"), 2);
        drop(numbers); // as a crash leaves it: the block stays reserved

        let numbers = Numbers::open(store, stream(), 0, 1).expect("opens");
        assert_eq!(numbers.take().expect("given"), 2 + BLOCK);
    }

    #[test]
    fn every_incarnation_has_numbers_of_its_own() {
        let dir = tempfile::tempdir().expect("a temporary folder");
        let (store, _) = Store::open(dir.path(), &StoreOptions::default()).expect("opens");
        let numbers = Numbers::open(store, stream(), 2, 1).expect("opens");
        assert_eq!(numbers.take().expect("given"), 2 << 40);
    }

    #[test]
    fn numbers_reserved_ahead_outlast_a_full_queue_and_no_more_are_given() {
        let dir = tempfile::tempdir().expect("a temporary folder");
        let (store, _) = Store::open(dir.path(), &StoreOptions::default()).expect("opens");
        let numbers = Numbers::open(store, stream(), 0, 10_000).expect("opens");
        assert_eq!(numbers.try_take(), None, "nothing is reserved");
        numbers.reserve_ahead().expect("written");
        let given = std::iter::from_fn(|| numbers.try_take()).count();
        assert_eq!(given, 20_000);
        numbers.reserve_ahead().expect("written");
        assert_eq!(numbers.try_take(), Some(20_000));
    }
}
