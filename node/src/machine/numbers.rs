//! Package sequence numbers: given once, never again.
//!
//! A number is `incarnation * 2^40 + counter`, counted per stream. Numbers are reserved in the store in blocks before any of them
//! is given, so a machine that loses power goes on behind the reserved block: what is skipped is a visible gap, and nothing is
//! given twice. A clean end writes back the exact position.

use tributary_protocol::ids::StreamId;
use tributary_store::{Store, StoreError, WriteBatch};

/// Numbers of one incarnation: 2^40, which is 34 years at 1 kHz.
const PER_INCARNATION: u64 = 1 << 40;
/// How many numbers one durable write reserves: 4 s of a 1 kHz topic, and what a power cut can skip at most.
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

/// Gives the numbers of one stream.
pub(crate) struct Numbers {
    store: Store,
    stream: StreamId,
    counter: String,
    base: u64,
    next: u64,
    reserved: u64,
}

impl Numbers {
    /// Goes on where the stream's numbers ended in `incarnation`.
    pub(crate) fn open(store: Store, stream: StreamId, incarnation: u32) -> Result<Self, NumberError> {
        let counter = format!("number/{stream}/{incarnation}");
        let next = store.counter(&counter)?;
        let base = u64::from(incarnation).checked_mul(PER_INCARNATION).ok_or(NumberError::Exhausted { stream })?;
        Ok(Self { store, stream, counter, base, next, reserved: next })
    }

    /// The number that [`Numbers::take`] gives next.
    pub(crate) fn upcoming(&self) -> u64 {
        self.base + self.next
    }

    /// Makes sure that [`Numbers::take`] need not wait for the disk. Waits for it itself, about once in 4,096 numbers.
    pub(crate) fn reserve(&mut self) -> Result<(), NumberError> {
        if self.reserved - self.next < READY { self.extend() } else { Ok(()) }
    }

    fn extend(&mut self) -> Result<(), NumberError> {
        let reserved = self.next + BLOCK;
        if reserved > PER_INCARNATION {
            return Err(NumberError::Exhausted { stream: self.stream });
        }
        self.write(reserved)?;
        self.reserved = reserved;
        Ok(())
    }

    /// The next number. Waits for the disk where none is reserved.
    pub(crate) fn take(&mut self) -> Result<u64, NumberError> {
        if self.next == self.reserved {
            self.extend()?;
        }
        let number = self.base + self.next;
        self.next += 1;
        Ok(number)
    }

    /// Gives back what is reserved and not used: after this no gap is left by the next start.
    pub(crate) fn close(&mut self) -> Result<(), NumberError> {
        if self.reserved != self.next {
            self.write(self.next)?;
            self.reserved = self.next;
        }
        Ok(())
    }

    fn write(&self, value: u64) -> Result<(), StoreError> {
        let mut batch = WriteBatch::new();
        batch.set_counter(self.counter.as_str(), value);
        self.store.commit(batch)
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
        let mut numbers = Numbers::open(store.clone(), stream(), 0).expect("opens");
        assert_eq!([numbers.take().expect("given"), numbers.take().expect("given")], [0, 1]);
        numbers.close().expect("written");

        let mut numbers = Numbers::open(store.clone(), stream(), 0).expect("opens");
        assert_eq!(numbers.take().expect("given"), 2);
        drop(numbers); // as a crash leaves it: the block stays reserved

        let mut numbers = Numbers::open(store, stream(), 0).expect("opens");
        assert_eq!(numbers.take().expect("given"), 2 + BLOCK);
    }

    #[test]
    fn every_incarnation_has_numbers_of_its_own() {
        let dir = tempfile::tempdir().expect("a temporary folder");
        let (store, _) = Store::open(dir.path(), &StoreOptions::default()).expect("opens");
        let mut numbers = Numbers::open(store, stream(), 2).expect("opens");
        assert_eq!(numbers.take().expect("given"), 2 << 40);
    }
}
