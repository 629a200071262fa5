//! The bounded queue in front of the writer. When it is full, `push` waits and `try_push` hands the job back.
//!
//! The queue also says whose turn it is to write. When nothing waits and nobody writes, a caller that would wait for its
//! commit anyway takes the turn and commits on its own thread: that saves two thread switches per batch, which cost as much
//! as the `fdatasync` of a small one. Order is kept, because the turn is only given away when everything before is done.

use std::{
    collections::VecDeque,
    sync::{Condvar, Mutex, MutexGuard, PoisonError},
};

use crate::{
    batch::{Op, WriteBatch},
    error::StoreError,
    writer::Writer,
};

pub(crate) type Done = Box<dyn FnOnce(Result<(), StoreError>) + Send>;

pub(crate) struct BatchJob {
    pub(crate) batch: WriteBatch,
    pub(crate) bytes: u64,
    pub(crate) done: Done,
}

pub(crate) enum Job {
    Batch(BatchJob),
    /// Runs on the writer thread, between groups.
    Call(Box<dyn FnOnce(&mut Writer) + Send>),
}

/// What the writer does next.
pub(crate) enum Work {
    Group(Vec<BatchJob>),
    Call(Box<dyn FnOnce(&mut Writer) + Send>),
    Stop,
}

#[derive(Default)]
struct State {
    jobs: VecDeque<Job>,
    bytes: u64,
    closed: bool,
    /// Somebody is writing: the writer thread, or a caller that took the turn.
    busy: bool,
}

pub(crate) struct Queue {
    state: Mutex<State>,
    filled: Condvar,
    drained: Condvar,
    max_jobs: usize,
    max_bytes: u64,
}

/// Locks even when another thread panicked while it held the lock: every critical section here leaves its data whole.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Queue {
    pub(crate) fn new(max_jobs: usize, max_bytes: u64) -> Self {
        let state = Mutex::new(State::default());
        Self { state, filled: Condvar::new(), drained: Condvar::new(), max_jobs: max_jobs.max(1), max_bytes }
    }

    fn is_full(&self, state: &State, bytes: u64) -> bool {
        let over = state.bytes.saturating_add(bytes) > self.max_bytes;
        !state.jobs.is_empty() && (over || state.jobs.len() >= self.max_jobs)
    }

    /// Waits for room.
    pub(crate) fn push(&self, job: Job) -> Result<(), StoreError> {
        let bytes = size(&job);
        let mut state = lock(&self.state);
        while !state.closed && self.is_full(&state, bytes) {
            state = self.drained.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        self.add(state, job, bytes).map_err(|(_, error)| error)
    }

    /// Hands the job back when there is no room.
    pub(crate) fn try_push(&self, job: Job) -> Result<(), (Job, StoreError)> {
        let bytes = size(&job);
        let state = lock(&self.state);
        if !state.closed && self.is_full(&state, bytes) {
            return Err((job, StoreError::Busy));
        }
        self.add(state, job, bytes)
    }

    fn add(&self, mut state: MutexGuard<'_, State>, job: Job, bytes: u64) -> Result<(), (Job, StoreError)> {
        if state.closed {
            return Err((job, StoreError::Closed));
        }
        state.jobs.push_back(job);
        state.bytes += bytes;
        drop(state);
        self.filled.notify_one();
        Ok(())
    }

    /// Takes the turn to write, if nothing waits and nobody writes.
    pub(crate) fn try_begin(&self) -> bool {
        let mut state = lock(&self.state);
        let free = !state.closed && !state.busy && state.jobs.is_empty();
        state.busy = state.busy || free;
        free
    }

    /// Gives the turn back, after `try_begin` or `pop`.
    pub(crate) fn end(&self) {
        lock(&self.state).busy = false;
        self.filled.notify_one();
    }

    /// Waits for work and takes the turn; after `close`, what is queued is still done.
    pub(crate) fn pop(&self, group_bytes: u64) -> Work {
        let mut state = lock(&self.state);
        while state.jobs.is_empty() || state.busy {
            if state.closed && !state.busy {
                return Work::Stop;
            }
            state = self.filled.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        state.busy = true;
        let mut group = Vec::new();
        let mut total = 0u64;
        while let Some(job) = state.jobs.pop_front() {
            match job {
                Job::Call(call) if group.is_empty() => {
                    self.drained.notify_all();
                    return Work::Call(call);
                }
                Job::Batch(batch)
                    if group.is_empty()
                        || (total.saturating_add(batch.bytes) <= group_bytes && !truncates(&batch.batch)) =>
                {
                    total = total.saturating_add(batch.bytes);
                    group.push(batch);
                }
                job => {
                    state.jobs.push_front(job);
                    break;
                }
            }
        }
        state.bytes -= total;
        drop(state);
        self.drained.notify_all();
        Work::Group(group)
    }

    /// No further jobs are taken.
    pub(crate) fn close(&self) {
        lock(&self.state).closed = true;
        self.filled.notify_all();
        self.drained.notify_all();
    }

    /// The writer is gone: whoever waits for a queued job learns that the store is closed.
    pub(crate) fn abandon(&self) {
        self.close();
        let jobs = std::mem::take(&mut lock(&self.state).jobs);
        drop(jobs);
    }

    /// Batches and bytes that wait.
    pub(crate) fn depth(&self) -> (usize, u64) {
        let state = lock(&self.state);
        (state.jobs.len(), state.bytes)
    }
}

/// A truncation reads entries of earlier batches, so it begins a group of its own.
fn truncates(batch: &WriteBatch) -> bool {
    batch.ops.iter().any(|op| matches!(op, Op::Truncate { .. }))
}

fn size(job: &Job) -> u64 {
    match job {
        Job::Batch(batch) => batch.bytes,
        Job::Call(_) => 0,
    }
}
