//! The same work on many items, on all processors.

use std::{num::NonZero, thread};

/// More threads than this wait for the disk.
const MAX_THREADS: usize = 8;

/// How many items are worked on at once.
pub(super) fn width() -> usize {
    thread::available_parallelism().map_or(1, NonZero::get).min(MAX_THREADS)
}

/// `work` on every item; results in the order of the items.
pub(super) fn spread<T: Sync, R: Send>(items: &[T], work: impl Fn(&T) -> R + Sync) -> Vec<R> {
    let each = items.len().div_ceil(width()).max(1);
    let (first, others) = items.split_at(each.min(items.len()));
    thread::scope(|scope| {
        let work = &work;
        let workers: Vec<_> =
            others.chunks(each).map(|part| scope.spawn(move || part.iter().map(work).collect::<Vec<_>>())).collect();
        let mut results: Vec<R> = first.iter().map(work).collect();
        for worker in workers {
            match worker.join() {
                Ok(part) => results.extend(part),
                Err(panic) => std::panic::resume_unwind(panic),
            }
        }
        results
    })
}
