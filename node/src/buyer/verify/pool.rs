//! A few threads that take jobs in order. Owns their life: they end when the pool is dropped.

use std::{
    num::NonZero,
    sync::{
        Arc, Mutex, PoisonError,
        mpsc::{Receiver, SyncSender, sync_channel},
    },
    thread::JoinHandle,
};

type Job = Box<dyn FnOnce() + Send>;

/// Most threads.
const MAX_THREADS: usize = 4;
/// Jobs that wait; a further one makes its caller wait.
const QUEUE: usize = 32;

pub(super) struct Pool {
    jobs: Option<SyncSender<Job>>,
    threads: Vec<JoinHandle<()>>,
}

impl Pool {
    pub(super) fn new() -> Self {
        let (jobs, queue) = sync_channel::<Job>(QUEUE);
        let queue = Arc::new(Mutex::new(queue));
        let count = std::thread::available_parallelism().map_or(2, NonZero::get).min(MAX_THREADS);
        let thread = |_| {
            let queue = Arc::clone(&queue);
            std::thread::Builder::new().name("verify".to_owned()).spawn(move || work(&queue)).ok()
        };
        let threads = (0..count).filter_map(thread).collect();
        Self { jobs: Some(jobs), threads }
    }

    /// Hands a job to the threads; its result comes through the receiver.
    pub(super) fn run<T: Send + 'static>(&self, job: impl FnOnce() -> T + Send + 'static) -> Receiver<T> {
        let (done, result) = sync_channel(1);
        let job: Job = Box::new(move || {
            // Nobody waits any more when an earlier job found something wrong.
            let _ = done.send(job());
        });
        match &self.jobs {
            Some(jobs) if !self.threads.is_empty() => {
                let _ = jobs.send(job);
            }
            // A system without room for a thread still verifies.
            _ => job(),
        }
        result
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        self.jobs = None;
        for thread in self.threads.drain(..) {
            // A job that panicked has dropped its sender: its receiver knows.
            let _ = thread.join();
        }
    }
}

fn work(queue: &Mutex<Receiver<Job>>) {
    loop {
        let next = queue.lock().unwrap_or_else(PoisonError::into_inner).recv();
        match next {
            Ok(job) => job(),
            Err(_) => return,
        }
    }
}
