//! Starting, finding and ending the processes of a testnet.
//!
//! Process ids are used again by the system. So a process is known by its id and the time of its start, and is held by a file
//! descriptor (pidfd_open(2)) while that is compared: the signal reaches the process that was looked at, or nobody. Every process
//! carries the testnet's id in its environment, too, which is how those are found that were started just before a crash.

use std::{
    ffi::OsStr,
    fs, io,
    path::{Path, PathBuf},
    process::Stdio,
    time::{Duration, Instant},
};

use rustix::{
    io::Errno,
    process::{Pid, PidfdFlags, Signal, kill_process, pidfd_open, pidfd_send_signal},
};
use serde::{Deserialize, Serialize};
use tokio::process::Command;

use super::TestnetError;

/// The variable with the testnet's id in the environment of every process of it.
pub(super) const MARK: &str = "TRIBUTARY_TESTNET_ID";

/// A process that was started here.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProcessId {
    /// Its id.
    pub pid: i32,
    /// When it was started: clock ticks since the computer was (proc(5), field 22 of `stat`).
    pub started: u64,
}

impl ProcessId {
    /// The process that has this id now.
    #[must_use]
    pub fn of(pid: i32) -> Option<Self> {
        let (_, started) = stat(pid)?;
        Some(Self { pid, started })
    }

    /// Whether it lives. One that has ended and was not waited for by its parent does not; one whose first thread has ended does, as
    /// long as others have files open.
    #[must_use]
    pub fn is_alive(self) -> bool {
        match stat(self.pid) {
            Some((_, started)) if started != self.started => false,
            Some(('Z' | 'X', _)) => {
                let threads = fs::read_dir(format!("/proc/{}/task", self.pid));
                threads.is_ok_and(|threads| threads.count() > 1)
            }
            found => found.is_some(),
        }
    }

    /// Sends a signal, to this process and no other. `false` when it has ended.
    ///
    /// # Errors
    ///
    /// When the system refuses.
    pub fn signal(self, signal: Signal) -> io::Result<bool> {
        let Some(pid) = Pid::from_raw(self.pid) else { return Ok(false) };
        let held = match pidfd_open(pid, PidfdFlags::empty()) {
            Ok(held) => Some(held),
            Err(Errno::SRCH) => return Ok(false),
            // Linux before 5.3: the moment between looking and sending has to do.
            Err(Errno::NOSYS) => None,
            Err(error) => return Err(error.into()),
        };
        if !self.is_alive() {
            return Ok(false);
        }
        let sent = match &held {
            Some(held) => pidfd_send_signal(held, signal),
            None => kill_process(pid, signal),
        };
        match sent {
            Ok(()) => Ok(true),
            Err(Errno::SRCH) => Ok(false),
            Err(error) => Err(error.into()),
        }
    }

    /// Waits for its end; `false` when it does not come in time.
    pub async fn gone(self, patience: Duration) -> bool {
        let deadline = Instant::now() + patience;
        let mut wait = Duration::from_millis(1);
        while self.is_alive() {
            if Instant::now() >= deadline {
                return false;
            }
            tokio::time::sleep(wait).await;
            wait = (wait * 2).min(Duration::from_millis(50));
        }
        true
    }
}

/// State and start of a process, from `/proc/<pid>/stat`.
fn stat(pid: i32) -> Option<(char, u64)> {
    let text = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name in parentheses may have blanks and parentheses in it. The first field behind it is the third.
    let fields: Vec<&str> = text.rsplit_once(')')?.1.split_ascii_whitespace().collect();
    Some((fields.first()?.chars().next()?, fields.get(22 - 3)?.parse().ok()?))
}

/// All processes but this one that carry the mark of testnet `id` and can be looked into.
pub(super) fn marked(id: &str) -> Vec<ProcessId> {
    let wanted = format!("{MARK}={id}");
    let own = i32::try_from(std::process::id()).ok();
    let pids = fs::read_dir("/proc").into_iter().flatten().flatten();
    let pids = pids.filter_map(|entry| entry.file_name().to_str()?.parse::<i32>().ok());
    pids.filter(|pid| Some(*pid) != own)
        .filter_map(|pid| {
            let found = ProcessId::of(pid)?;
            let environment = fs::read(format!("/proc/{pid}/environ")).ok()?;
            let is_ours = environment.split(|byte| *byte == 0).any(|variable| variable == wanted.as_bytes());
            (is_ours && found.is_alive()).then_some(found)
        })
        .collect()
}

/// What a process is started with.
pub(super) struct Start<'a> {
    /// The program, or what enters a namespace and becomes it.
    pub(super) program: &'a Path,
    pub(super) arguments: Vec<&'a OsStr>,
    /// The testnet's id.
    pub(super) id: &'a str,
    /// Where its output goes.
    pub(super) log: PathBuf,
}

/// Tools of the system are in one of these, whoever runs the testnet.
pub(super) const TOOLS: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// Starts a process that outlives this one: Ctrl-C in this terminal does not reach it.
pub(super) fn start(start: &Start<'_>) -> Result<ProcessId, TestnetError> {
    let io = |source| TestnetError::Io { path: start.log.clone(), source };
    let log = fs::OpenOptions::new().create(true).append(true).open(&start.log).map_err(io)?;
    let mut command = Command::new(start.program);
    command.args(&start.arguments);
    // What is set for a node of the user's must not configure the nodes here.
    for (name, _) in std::env::vars_os() {
        let name_text = name.to_string_lossy();
        let is_log = name_text.starts_with("TRIBUTARY_LOG");
        if (name_text.starts_with("TRIBUTARY_") || name_text.starts_with("PEAQOS_STREAM_")) && !is_log {
            command.env_remove(&name);
        }
    }
    command.env(MARK, start.id).env("PATH", path());
    command.stdin(Stdio::null()).stdout(log.try_clone().map_err(io)?).stderr(log).process_group(0);
    // Dropping the handle leaves the process alone; the runtime waits for it when it has ended, as long as there is one.
    let failed = |source| TestnetError::Io { path: start.program.to_owned(), source };
    let child = command.spawn().map_err(failed)?;
    let pid = child.id().and_then(|pid| i32::try_from(pid).ok());
    pid.and_then(ProcessId::of).ok_or_else(|| failed(io::Error::other("it ended at once")))
}

/// The search path of the environment with the system's tools behind it.
pub(super) fn path() -> String {
    match std::env::var("PATH") {
        Ok(path) if !path.is_empty() => format!("{path}:{TOOLS}"),
        _ => TOOLS.to_owned(),
    }
}

/// The last lines of a file, for an error.
pub(super) fn tail(path: &Path, lines: usize) -> String {
    let text = fs::read_to_string(path).unwrap_or_default();
    let all: Vec<&str> = text.lines().collect();
    all[all.len().saturating_sub(lines)..].join("\n  ")
}

/// What tells one start of the computer from another.
pub(super) fn boot_id() -> String {
    fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default().trim().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sleeper(id: &str, log: &Path) -> ProcessId {
        let arguments = vec![OsStr::new("300")];
        start(&Start { program: Path::new("sleep"), arguments, id, log: log.to_owned() }).unwrap()
    }

    #[tokio::test]
    async fn a_process_is_found_by_its_mark_and_ended_and_no_other() {
        let folder = tempfile::tempdir().unwrap();
        let log = folder.path().join("log");
        let id = format!("test-{}", std::process::id());
        let (ours, other) = (sleeper(&id, &log), sleeper("another", &log));
        // The mark shows when the process has become its program.
        let deadline = Instant::now() + Duration::from_secs(30);
        while marked(&id) != [ours] {
            assert!(Instant::now() < deadline, "{:?}", marked(&id));
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        let stranger = ProcessId { started: other.started.wrapping_add(1), ..other };
        assert!(!stranger.is_alive() && !stranger.signal(Signal::KILL).unwrap(), "its id belongs to another process");
        assert!(other.is_alive());
        for process in [ours, other] {
            assert!(process.signal(Signal::KILL).unwrap());
            assert!(process.gone(Duration::from_secs(30)).await);
            assert!(!process.signal(Signal::KILL).unwrap());
        }
        assert!(marked(&id).is_empty());
    }
}
