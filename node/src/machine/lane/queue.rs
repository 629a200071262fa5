//! The bounded queue between a source and its lane.
//!
//! A message gets its package number before it enters, so a message that is dropped here leaves a visible gap. What happens
//! when the queue is full is the stream's choice: the source waits (`pause`), or the oldest message goes (`drop_oldest`).

use std::{
    collections::VecDeque,
    sync::{
        Arc, Condvar, Mutex, MutexGuard, PoisonError,
        atomic::{
            AtomicBool,
            Ordering::{AcqRel, Release},
        },
    },
    time::{Duration, Instant},
};

use crate::config::Overflow;

/// Bounds of a queue. It holds at least one message, whatever its size.
#[derive(Debug, Clone, Copy)]
pub(crate) struct QueueBounds {
    /// At most this many messages.
    pub(crate) messages: usize,
    /// At most this many bytes of messages.
    pub(crate) bytes: usize,
    /// What happens at either bound.
    pub(crate) when_full: Overflow,
}

/// What [`Queue::pop`] found.
#[derive(Debug)]
pub(crate) enum Popped<T> {
    /// The oldest item.
    Item(T),
    /// Nothing came in time, or until [`Queue::wake`].
    TimedOut,
    /// Empty, and nothing will come.
    Closed,
}

/// The receiver is gone: what is pushed would never be read.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Closed;

/// What [`Queue::try_push`] did.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Pushed {
    /// The item is in.
    In {
        /// How many older ones were dropped for it.
        dropped: u64,
    },
    /// There is no room, and nothing may be dropped for it.
    Full,
    /// There was room, and no item was made.
    Not,
    /// The receiver is gone.
    Closed,
}

/// Called when there is room again.
pub type Room = Arc<dyn Fn() + Send + Sync>;

struct Held<T> {
    item: T,
    size: usize,
    /// Commands are never dropped.
    pinned: bool,
}

struct State<T> {
    items: VecDeque<Held<T>>,
    bytes: usize,
    closed: bool,
    room: Option<Room>,
    /// Somebody found no room, and waits to be called.
    refused: bool,
    /// Somebody could make no item, and waits to be called.
    unmade: bool,
}

/// A bounded queue with a size for each item.
pub(crate) struct Queue<T> {
    state: Mutex<State<T>>,
    changed: Condvar,
    /// Whoever waits in [`Queue::pop`] is to look at something else. Not under the lock: see [`Queue::wake`].
    woken: AtomicBool,
    bounds: QueueBounds,
}

impl<T> Queue<T> {
    pub(crate) fn new(bounds: QueueBounds) -> Self {
        let state =
            State { items: VecDeque::new(), bytes: 0, closed: false, room: None, refused: false, unmade: false };
        Self { state: Mutex::new(state), changed: Condvar::new(), woken: AtomicBool::new(false), bounds }
    }

    /// Adds the item that `make` gives, `size` bytes of it, and says how many older ones were dropped for it. `make` runs while
    /// the place is held, so that items enter in the order in which they are numbered.
    pub(crate) fn push<E>(&self, size: usize, make: impl FnOnce() -> Result<T, E>) -> Result<Result<u64, E>, Closed> {
        let mut state = self.lock();
        let mut dropped = 0;
        match self.bounds.when_full {
            Overflow::Pause => {
                while !state.closed && self.is_full(&state, size) {
                    state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
                }
            }
            Overflow::DropOldest => dropped = self.drop_oldest(&mut state, size),
        }
        if state.closed {
            return Err(Closed);
        }
        let item = match make() {
            Ok(item) => item,
            Err(error) => return Ok(Err(error)),
        };
        state.bytes += size;
        state.items.push_back(Held { item, size, pinned: false });
        drop(state);
        self.changed.notify_all();
        Ok(Ok(dropped))
    }

    /// Sets what is called when there is room again after [`Queue::try_push`] found none.
    pub(crate) fn when_room(&self, room: Room) {
        self.lock().room = Some(room);
    }

    /// Adds the item that `make` gives, as [`Queue::push`] does, but never waits. `make` is called only if there is room.
    pub(crate) fn try_push(&self, size: usize, make: impl FnOnce() -> Option<T>) -> Pushed {
        let mut state = self.lock();
        if state.closed {
            return Pushed::Closed;
        }
        let dropped = match self.bounds.when_full {
            Overflow::Pause if self.is_full(&state, size) => {
                state.refused = true;
                return Pushed::Full;
            }
            Overflow::Pause => 0,
            Overflow::DropOldest => self.drop_oldest(&mut state, size),
        };
        let Some(item) = make() else {
            state.unmade = true;
            return Pushed::Not;
        };
        state.bytes += size;
        state.items.push_back(Held { item, size, pinned: false });
        drop(state);
        self.changed.notify_all();
        Pushed::In { dropped }
    }

    /// Calls whoever could make no item: now it may be possible.
    pub(crate) fn try_again(&self) {
        let room = {
            let mut state = self.lock();
            if std::mem::take(&mut state.unmade) { state.room.clone() } else { None }
        };
        if let Some(room) = room {
            room();
        }
    }

    /// Adds a command behind everything that is inside: it does not wait for room and is never dropped. The caller keeps the
    /// number of commands small.
    pub(crate) fn push_command(&self, item: T) -> Result<(), Closed> {
        let mut state = self.lock();
        if state.closed {
            return Err(Closed);
        }
        state.items.push_back(Held { item, size: 0, pinned: true });
        drop(state);
        self.changed.notify_all();
        Ok(())
    }

    /// Takes the oldest item, waiting for one until `deadline` (for ever without one).
    pub(crate) fn pop(&self, deadline: Option<Instant>) -> Popped<T> {
        let mut state = self.lock();
        loop {
            if let Some(Held { item, size, .. }) = state.items.pop_front() {
                state.bytes -= size;
                // Called when half of it is free: who refills it one by one would be woken for each message.
                let much = state.items.len() <= self.bounds.messages / 2 && state.bytes <= self.bounds.bytes / 2;
                let room = if much && std::mem::take(&mut state.refused) { state.room.clone() } else { None };
                drop(state);
                self.changed.notify_all();
                if let Some(room) = room {
                    room();
                }
                return Popped::Item(item);
            }
            if state.closed {
                return Popped::Closed;
            }
            if self.woken.swap(false, AcqRel) {
                return Popped::TimedOut;
            }
            state = match deadline {
                None => self.changed.wait(state).unwrap_or_else(PoisonError::into_inner),
                Some(deadline) => {
                    let left = deadline.saturating_duration_since(Instant::now());
                    if left == Duration::ZERO {
                        return Popped::TimedOut;
                    }
                    self.changed.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner).0
                }
            };
        }
    }

    /// Lets [`Queue::pop`] return without an item, as at its deadline. Never waits: the thread that writes the store calls it, and
    /// who holds the lock may be waiting for that one. So a call at the wrong moment has no effect; the deadline has to be near.
    pub(crate) fn wake(&self) {
        self.woken.store(true, Release);
        self.changed.notify_all();
    }

    /// Lets nothing more in. What is inside can still be taken.
    pub(crate) fn close(&self) {
        self.lock().closed = true;
        self.changed.notify_all();
    }

    /// Whether nothing more is let in.
    pub(crate) fn is_closed(&self) -> bool {
        self.lock().closed
    }

    /// How many items wait.
    pub(crate) fn len(&self) -> usize {
        self.lock().items.len()
    }

    /// Makes room for an item of `size` bytes. Says how many items that cost.
    fn drop_oldest(&self, state: &mut State<T>, size: usize) -> u64 {
        let mut dropped = 0;
        while !state.closed && self.is_full(state, size) {
            let oldest = state.items.iter().position(|held| !held.pinned);
            let Some(oldest) = oldest.and_then(|at| state.items.remove(at)) else { break };
            state.bytes -= oldest.size;
            dropped += 1;
        }
        dropped
    }

    fn is_full(&self, state: &State<T>, size: usize) -> bool {
        !state.items.is_empty()
            && (state.items.len() >= self.bounds.messages || state.bytes.saturating_add(size) > self.bounds.bytes)
    }

    // The state is whole after every statement under the lock, so a panic elsewhere does not spoil it.
    fn lock(&self) -> MutexGuard<'_, State<T>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use std::{
        convert::Infallible,
        sync::{Arc, atomic::Ordering::Acquire},
        thread,
    };

    use super::*;

    fn queue(when_full: Overflow) -> Queue<u32> {
        Queue::new(QueueBounds { messages: 2, bytes: 100, when_full })
    }

    fn push(queue: &Queue<u32>, size: usize, item: u32) -> Result<u64, Closed> {
        queue.push(size, || Ok::<_, Infallible>(item)).map(|made| made.expect("infallible"))
    }

    fn pop(queue: &Queue<u32>) -> u32 {
        match queue.pop(None) {
            Popped::Item(item) => item,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn drop_oldest_counts_what_it_drops() {
        let queue = queue(Overflow::DropOldest);
        assert_eq!([push(&queue, 1, 1), push(&queue, 1, 2), push(&queue, 1, 3)], [Ok(0), Ok(0), Ok(1)]);
        assert_eq!([pop(&queue), pop(&queue)], [2, 3]);
    }

    #[test]
    fn bytes_bound_as_well_as_messages_and_one_large_message_passes() {
        let queue = queue(Overflow::DropOldest);
        assert_eq!(push(&queue, 60, 1), Ok(0));
        assert_eq!(push(&queue, 60, 2), Ok(1));
        assert_eq!(push(&queue, 1000, 3), Ok(1));
        assert_eq!(pop(&queue), 3);
    }

    #[test]
    fn pause_waits_for_room_and_loses_nothing() {
        let queue = Arc::new(queue(Overflow::Pause));
        let writer = {
            let queue = Arc::clone(&queue);
            thread::spawn(move || (0..1000).try_for_each(|i| push(&queue, 1, i).map(|dropped| assert_eq!(dropped, 0))))
        };
        for i in 0..1000 {
            assert_eq!(pop(&queue), i);
        }
        writer.join().expect("no panic").expect("open");
    }

    #[test]
    fn who_finds_no_room_gets_its_item_back_and_is_called_when_half_is_free() {
        let queue = Queue::new(QueueBounds { messages: 4, bytes: 100, when_full: Overflow::Pause });
        let (called, heard) = std::sync::mpsc::sync_channel(10);
        queue.when_room(Arc::new(move || called.send(()).expect("heard")));
        for i in 0..4 {
            assert_eq!(queue.try_push(1, || Some(i)), Pushed::In { dropped: 0 });
        }
        assert_eq!(queue.try_push(1, || panic!("there is no room")), Pushed::Full);
        assert_eq!(pop(&queue), 0);
        assert!(heard.try_recv().is_err(), "not for one place");
        assert_eq!(pop(&queue), 1);
        assert_eq!(heard.try_recv(), Ok(()));
        assert_eq!(pop(&queue), 2);
        assert!(heard.try_recv().is_err(), "once");
        assert_eq!(queue.try_push(1, || None), Pushed::Not);
        queue.try_again();
        assert_eq!(heard.try_recv(), Ok(()));
        queue.close();
        assert_eq!(queue.try_push(1, || Some(9)), Pushed::Closed);
    }

    #[test]
    fn a_push_that_does_not_wait_drops_the_oldest_where_it_may() {
        let queue = queue(Overflow::DropOldest);
        let pushed = [1, 2, 3].map(|i| queue.try_push(1, || Some(i)));
        assert_eq!(pushed, [Pushed::In { dropped: 0 }, Pushed::In { dropped: 0 }, Pushed::In { dropped: 1 }]);
        assert_eq!([pop(&queue), pop(&queue)], [2, 3]);
    }

    #[test]
    fn a_command_keeps_its_place_and_is_never_dropped() {
        let queue = queue(Overflow::DropOldest);
        push(&queue, 1, 1).expect("open");
        queue.push_command(100).expect("open");
        assert_eq!([push(&queue, 1, 2), push(&queue, 1, 3)], [Ok(1), Ok(1)]);
        assert_eq!([pop(&queue), pop(&queue)], [100, 3]);
    }

    #[test]
    fn a_closed_queue_is_emptied_and_then_says_so() {
        let queue = queue(Overflow::Pause);
        push(&queue, 1, 1).expect("open");
        queue.close();
        assert_eq!(push(&queue, 1, 2), Err(Closed));
        assert_eq!(pop(&queue), 1);
        assert!(matches!(queue.pop(None), Popped::Closed));
    }

    #[test]
    fn who_waits_for_an_item_can_be_woken() {
        let (queue, woken) = (queue(Overflow::Pause), AtomicBool::new(false));
        queue.wake();
        assert!(matches!(queue.pop(None), Popped::TimedOut), "a call before the wait counts");
        thread::scope(|scope| {
            scope.spawn(|| {
                let long = Instant::now() + Duration::from_secs(3600);
                assert!(matches!(queue.pop(Some(long)), Popped::TimedOut));
                woken.store(true, Release);
            });
            // One call may come between a look and the wait.
            while !woken.load(Acquire) {
                queue.wake();
                thread::yield_now();
            }
        });
    }

    #[test]
    fn nothing_until_the_deadline_is_said() {
        assert!(matches!(queue(Overflow::Pause).pop(Some(Instant::now())), Popped::TimedOut));
    }
}
