//! Nodes and commands as processes of their own.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Stdio},
    time::Instant,
};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use tributary::control::{
    ControlClient,
    api::{Empty, Feed, NodeStatus, StreamReport},
};

use crate::{
    cleanup,
    home::tail,
    wait::{PATIENCE, soon, until},
};

/// The program, built from its source beside the tests.
///
/// # Panics
///
/// When it is not there: Cargo builds it with the tests of this package.
#[must_use]
pub fn program() -> PathBuf {
    program_named("tributary-under-test")
}

pub(crate) fn program_named(name: &str) -> PathBuf {
    let tests = std::env::current_exe().unwrap();
    // target/<profile>/deps/<test> and target/<profile>/<program>
    let path = tests.ancestors().nth(2).unwrap().join(name);
    assert!(
        path.is_file(),
        "{} is not there; run the tests with `cargo nextest run -p tributary-tests`",
        path.display()
    );
    path
}

/// How a command ended.
#[derive(Debug)]
pub struct Ended {
    /// Its exit code; `None` when a signal ended it.
    pub code: Option<i32>,
    /// What it printed.
    pub stdout: String,
    /// What it said to be wrong.
    pub stderr: String,
}

impl Ended {
    /// The JSON document that it printed.
    ///
    /// # Panics
    ///
    /// When it failed or printed something else.
    #[must_use]
    pub fn json(&self) -> Value {
        assert_eq!(self.code, Some(0), "{self:?}");
        serde_json::from_str(&self.stdout).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }
}

/// Runs `tributary` with `args` on a home and waits for its end.
///
/// # Panics
///
/// When it cannot be run, or does not end.
pub async fn command(home: &Path, args: &[&str]) -> Ended {
    let mut command = tokio::process::Command::new(program());
    command.args(args).env("TRIBUTARY_HOME", home).env_remove("TRIBUTARY_LOG").stdin(Stdio::null()).kill_on_drop(true);
    let output = soon(&args.join(" "), command.output()).await.unwrap();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    Ended { code: output.status.code(), stdout: text(&output.stdout), stderr: text(&output.stderr) }
}

/// A running node. It is killed when it is dropped, by its process id, and waited for.
pub struct NodeProcess {
    home: PathBuf,
    child: Child,
    client: ControlClient,
}

impl Drop for NodeProcess {
    fn drop(&mut self) {
        // It may have ended by itself; then there is nothing to kill.
        let _ = self.child.kill();
        let _ = self.child.wait();
        cleanup::ended(self.child.id());
    }
}

fn log_path(home: &Path) -> PathBuf {
    home.with_extension("log")
}

impl NodeProcess {
    /// Starts `tributary run` on a home and waits until it answers. Its log goes to a file beside the home.
    ///
    /// # Panics
    ///
    /// With the end of its log, when it does not.
    pub async fn start(home: &Path) -> Self {
        match Self::try_start(home).await {
            Ok(node) => node,
            Err(status) => panic!("the node ended ({status}):\n{}", tail(&log_path(home))),
        }
    }

    /// As [`NodeProcess::start`]; a node that ends instead says how.
    ///
    /// # Errors
    ///
    /// Its exit status.
    ///
    /// # Panics
    ///
    /// When it does neither.
    pub async fn try_start(home: &Path) -> Result<Self, ExitStatus> {
        let mut command = Command::new(program());
        command.args(["run", "-v"]);
        Self::try_start_by(command, home).await
    }

    /// As [`NodeProcess::try_start`], by this command; its process must become the node's.
    ///
    /// # Errors
    ///
    /// The exit status of a node that ends instead.
    ///
    /// # Panics
    ///
    /// When it does neither.
    pub async fn try_start_by(mut command: Command, home: &Path) -> Result<Self, ExitStatus> {
        let log = fs::OpenOptions::new().create(true).append(true).open(log_path(home)).unwrap();
        let child = command
            .env("TRIBUTARY_HOME", home)
            .env_remove("TRIBUTARY_LOG")
            .stdin(Stdio::null())
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .spawn()
            .unwrap();
        cleanup::child(child.id());
        let client = ControlClient::new(home.join("control.sock"));
        let mut node = Self { home: home.to_owned(), child, client };
        let deadline = Instant::now() + PATIENCE;
        until("the node to answer or to end", async || {
            if let Some(status) = node.child.try_wait().unwrap() {
                return Some(Err(status));
            }
            assert!(Instant::now() < deadline, "the node does not answer:\n{}", tail(&log_path(home)));
            // A killed node leaves its socket; what answers is this one only if it says so.
            let status = node.client.get::<Value>("/v1/status").await.ok();
            status.map(|_| Ok(()))
        })
        .await
        .map(|()| node)
    }

    /// Its home.
    #[must_use]
    pub fn home(&self) -> &Path {
        &self.home
    }

    /// Its control socket.
    #[must_use]
    pub fn client(&self) -> &ControlClient {
        &self.client
    }

    /// Its process id.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Sends the process a signal.
    ///
    /// # Panics
    ///
    /// When it has ended.
    pub fn signal(&mut self, signal: Signal) {
        assert!(self.is_alive(), "the node had ended before the signal:\n{}", tail(&log_path(&self.home)));
        let pid = i32::try_from(self.child.id()).ok().and_then(Pid::from_raw).unwrap();
        kill_process(pid, signal).unwrap();
    }

    /// Waits for the end of the process.
    ///
    /// # Panics
    ///
    /// When it does not end.
    pub async fn ended(&mut self) -> ExitStatus {
        let status = until("the node to end", async || self.child.try_wait().unwrap()).await;
        cleanup::ended(self.child.id());
        status
    }

    /// Everything it has logged.
    #[must_use]
    pub fn log(&self) -> String {
        fs::read_to_string(log_path(&self.home)).unwrap_or_default()
    }

    /// Whether the process lives.
    ///
    /// # Panics
    ///
    /// When the system does not know it.
    pub fn is_alive(&mut self) -> bool {
        self.child.try_wait().unwrap().is_none()
    }

    /// Ends the process with SIGKILL, which it cannot see coming, and waits until it is gone.
    ///
    /// # Panics
    ///
    /// When it had ended before: then this was no kill.
    pub fn kill(&mut self) {
        use std::os::unix::process::ExitStatusExt as _;
        self.child.kill().unwrap();
        let status = self.child.wait().unwrap();
        cleanup::ended(self.child.id());
        assert_eq!(
            status.signal(),
            Some(9),
            "the node had ended before it was killed: {status}\n{}",
            tail(&log_path(&self.home))
        );
    }

    /// Asks the node to end, and waits for it.
    ///
    /// # Panics
    ///
    /// When it does not, or ends badly.
    pub async fn stop(mut self) {
        let _: Empty = self.client.post("/v1/shutdown", &Empty {}).await.unwrap();
        let status = until("the node to end", async || self.child.try_wait().unwrap()).await;
        assert!(status.success(), "the node ended badly ({status}):\n{}", tail(&log_path(&self.home)));
    }

    /// How it stands.
    ///
    /// # Panics
    ///
    /// When it does not say.
    pub async fn status(&self) -> NodeStatus {
        soon("status", self.client.get("/v1/status")).await.unwrap()
    }

    /// What the lane of a stream counted.
    ///
    /// # Panics
    ///
    /// When there is no such stream.
    pub async fn stream(&self, name: &str) -> StreamReport {
        let all: Vec<StreamReport> = soon("streams", self.client.get("/v1/streams")).await.unwrap();
        all.into_iter().find(|stream| stream.name == name).unwrap()
    }

    /// The feeds that it knows.
    ///
    /// # Panics
    ///
    /// When it does not say.
    pub async fn feeds(&self) -> Vec<Feed> {
        soon("feeds", self.client.get("/v1/feeds")).await.unwrap()
    }

    /// The link to its feed.
    ///
    /// # Panics
    ///
    /// When it has none.
    pub async fn link(&self) -> String {
        until("a feed link", async || self.status().await.links.first().cloned()).await
    }

    /// The most physical memory that the process ever used, bytes: `VmHWM` of `/proc/<pid>/status`.
    ///
    /// # Panics
    ///
    /// When the process has ended.
    #[must_use]
    pub fn peak_memory(&self) -> u64 {
        let status = fs::read_to_string(format!("/proc/{}/status", self.child.id())).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
        line.trim().trim_end_matches(" kB").trim().parse::<u64>().unwrap() * 1024
    }
}
