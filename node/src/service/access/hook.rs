//! Telling the operator that a request waits: a program of the operator's runs with the request on its standard input.
//!
//! Owns the queue to those programs and what became of them. The desk only puts a notice into the queue, and never waits: at most
//! [`WAITING`] notices wait, [`AT_ONCE`] programs run, each for at most [`LIMIT`]; one notice more is dropped and counted. No
//! shell is involved. A program that fails is logged and counted, nothing else: the request waits all the same, and
//! `tributary access ls --pending` lists it. The programs end with the node.

use std::{
    process::Stdio,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use serde::{Deserialize, Serialize};
use tokio::{
    io::AsyncWriteExt as _,
    process::{Child, Command},
    sync::{Semaphore, mpsc},
    task::JoinSet,
    time::timeout,
};
use tributary_protocol::ids::{Did, Hash};

use super::Order;

/// Notices that wait for a program to end.
const WAITING: usize = 64;
/// Programs that run at once.
const AT_ONCE: usize = 4;
/// How long one may run.
const LIMIT: Duration = Duration::from_secs(30);

/// What became of the programs since the start.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct HookStatus {
    /// Ended well.
    pub done: u64,
    /// Could not be started, ended badly, or took too long.
    pub failed: u64,
    /// Notices for which there was no room.
    pub dropped: u64,
}

#[derive(Default)]
struct Counts {
    done: AtomicU64,
    failed: AtomicU64,
    dropped: AtomicU64,
}

/// What a program is told, as JSON on its standard input.
#[derive(Debug, Clone, Serialize)]
pub(super) struct Notice {
    /// The machine.
    pub(super) machine: Did,
    /// Public names of the streams.
    pub(super) stream_names: Vec<String>,
    /// The order: its id, the buyer, the ranges, until when it can be decided.
    #[serde(flatten)]
    pub(super) order: Order,
}

struct Job {
    /// The program and its arguments.
    command: Vec<String>,
    notice: Notice,
}

/// The desk's end of the queue. Clones share it.
#[derive(Clone)]
pub(crate) struct Hooks {
    queue: mpsc::Sender<Job>,
    counts: Arc<Counts>,
}

/// The other end: runs the programs.
pub(crate) struct HookRunner {
    jobs: mpsc::Receiver<Job>,
    counts: Arc<Counts>,
    home: std::path::PathBuf,
    limit: Duration,
}

/// A queue; `home` is told to the programs, so that they can call `tributary`.
pub(crate) fn hooks(home: &std::path::Path) -> (Hooks, HookRunner) {
    let (queue, jobs) = mpsc::channel(WAITING);
    let counts = Arc::new(Counts::default());
    let runner = HookRunner { jobs, counts: Arc::clone(&counts), home: home.to_owned(), limit: LIMIT };
    (Hooks { queue, counts }, runner)
}

impl Hooks {
    /// Tells of a request, unless too much waits. Never waits itself.
    pub(super) fn tell(&self, command: &[String], notice: Notice) {
        let request = notice.order.id;
        if self.queue.try_send(Job { command: command.to_vec(), notice }).is_err() {
            self.counts.dropped.fetch_add(1, Relaxed);
            tracing::warn!(%request, "no room to run access.hook: too many of them run or wait");
        }
    }

    pub(super) fn status(&self) -> HookStatus {
        let Counts { done, failed, dropped } = &*self.counts;
        HookStatus { done: done.load(Relaxed), failed: failed.load(Relaxed), dropped: dropped.load(Relaxed) }
    }
}

impl HookRunner {
    /// Runs until the desk is gone. Dropping the future ends the programs that run.
    pub(crate) async fn run(mut self) {
        let places = Arc::new(Semaphore::new(AT_ONCE));
        let mut running = JoinSet::new();
        loop {
            // Taken before the next job: what is not running waits in the queue, which is bounded.
            let Ok(place) = Arc::clone(&places).acquire_owned().await else { return };
            while running.try_join_next().is_some() {}
            let Some(job) = self.jobs.recv().await else { break };
            let (counts, home, limit) = (Arc::clone(&self.counts), self.home.clone(), self.limit);
            running.spawn(async move {
                let _place = place;
                let request = job.notice.order.id;
                match run(&job, &home, limit).await {
                    Ok(()) => drop(counts.done.fetch_add(1, Relaxed)),
                    Err(problem) => {
                        counts.failed.fetch_add(1, Relaxed);
                        let program = job.command.first().map_or("", String::as_str);
                        tracing::warn!(%request, program, problem, "access.hook failed; the request waits all the same");
                    }
                }
            });
        }
        while running.join_next().await.is_some() {}
    }
}

/// A program with everything it started; ended when dropped.
struct Group(Child);

impl Drop for Group {
    fn drop(&mut self) {
        // `id` is there only while the program was not waited for, so no other process can have its number.
        let group = self.0.id().and_then(|id| rustix::process::Pid::from_raw(i32::try_from(id).ok()?));
        if let Some(group) = group {
            let _ = rustix::process::kill_process_group(group, rustix::process::Signal::KILL); // it may have ended just now
        }
    }
}

async fn run(job: &Job, home: &std::path::Path, limit: Duration) -> Result<(), String> {
    let Some((program, arguments)) = job.command.split_first() else { return Ok(()) };
    let mut command = Command::new(program);
    command.args(arguments).stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null());
    // The node's own settings may hold a passphrase.
    for (name, _) in std::env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with("TRIBUTARY_")) {
        command.env_remove(name);
    }
    let Order { id, buyer, .. } = &job.notice.order;
    command.env("TRIBUTARY_HOME", home).env("TRIBUTARY_REQUEST_ID", show(id)).env("TRIBUTARY_BUYER", buyer.to_string());
    command.process_group(0).kill_on_drop(true);
    let mut child = Group(command.spawn().map_err(|error| format!("it cannot be started: {error}"))?);
    let text = serde_json::to_vec(&job.notice).map_err(|error| error.to_string())?;
    let work = async {
        if let Some(mut input) = child.0.stdin.take() {
            // A program that does not want to read it need not.
            let _ = input.write_all(&text).await;
        }
        child.0.wait().await
    };
    match timeout(limit, work).await {
        Ok(Ok(status)) if status.success() => Ok(()),
        Ok(Ok(status)) => Err(status.to_string()),
        Ok(Err(error)) => Err(error.to_string()),
        Err(_) => Err(format!("it ran longer than {} s and was killed", limit.as_secs_f32())),
    }
}

fn show(id: &Hash) -> String {
    id.to_string()
}

#[cfg(test)]
mod tests;
