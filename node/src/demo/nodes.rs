//! The demo's two nodes: real processes of this program.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Stdio,
    time::{Duration, Instant},
};

use tokio::process::{Child, Command};

use super::{DemoError, PATIENCE, step};
use crate::{
    control::{ControlClient, api::Empty},
    home::{Home, InitOptions},
    service::status::NodeStatus,
};

/// Lines of a node's log that are shown when it fails.
const LOG_LINES: usize = 12;
/// A killed process is waited for at most so long; the system may be busy writing what it had begun.
const KILL_TIME: Duration = Duration::from_secs(10);

/// Makes a home with fresh keys.
pub(super) fn make_home(path: &Path, role: &'static str, config: &str) -> Result<Home, DemoError> {
    let options = InitOptions { owner: None, identity: None, passphrase: None, config: config.to_owned() };
    Home::init(path, options, &mut rand::rng())
        .map_err(|error| DemoError::Node { role, what: format!("has no home: {error}") })
}

/// A running node. Killed when it is dropped, and waited for: nobody may write into its home while that is removed.
pub(super) struct NodeProcess {
    role: &'static str,
    home: Home,
    child: Child,
    client: ControlClient,
}

impl Drop for NodeProcess {
    fn drop(&mut self) {
        // One that has ended already cannot be killed.
        if self.child.start_kill().is_err() {
            return;
        }
        let deadline = Instant::now() + KILL_TIME;
        while matches!(self.child.try_wait(), Ok(None)) && Instant::now() < deadline {
            std::thread::sleep(Duration::from_millis(1));
        }
    }
}

impl NodeProcess {
    /// Starts `tributary run` in `home` and waits until it answers.
    pub(super) async fn start(home: Home, role: &'static str) -> Result<Self, DemoError> {
        let failed = |what: String| DemoError::Node { role, what };
        let program = std::env::current_exe().map_err(|error| failed(format!("cannot be started: {error}")))?;
        let log_path = log_path(&home);
        let log = fs::OpenOptions::new().create(true).append(true).open(&log_path);
        let log = log.map_err(|source| DemoError::Io { path: log_path, source })?;
        let child = Command::new(program)
            .arg("run")
            .arg("--home")
            .arg(home.path())
            .arg("-v")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .kill_on_drop(true)
            .spawn()
            .map_err(|error| failed(format!("cannot be started: {error}")))?;
        let client = ControlClient::new(home.control_path());
        let mut node = Self { role, home, child, client };
        node.wait_ready().await?;
        Ok(node)
    }

    async fn wait_ready(&mut self) -> Result<(), DemoError> {
        let deadline = Instant::now() + PATIENCE;
        let mut wait = Duration::from_millis(5);
        loop {
            if let Ok(status) = self.client.get::<NodeStatus>("/v1/status").await
                && (!status.links.is_empty() || self.role == "buyer")
            {
                return Ok(());
            }
            if let Ok(Some(status)) = self.child.try_wait() {
                return Err(self.failed(&format!("ended at once ({status})")));
            }
            if Instant::now() >= deadline {
                return Err(self.failed("does not answer"));
            }
            tokio::time::sleep(wait).await;
            wait = (wait * 2).min(Duration::from_millis(200));
        }
    }

    /// The process.
    pub(super) fn id(&self) -> u32 {
        self.child.id().unwrap_or_default()
    }

    pub(super) fn client(&self) -> &ControlClient {
        &self.client
    }

    pub(super) fn home(&self) -> &Home {
        &self.home
    }

    pub(super) async fn status(&self) -> Result<NodeStatus, DemoError> {
        step("status", self.client.get("/v1/status").await)
    }

    /// Asks the node to end and waits for it.
    pub(super) async fn stop(&mut self) -> Result<(), DemoError> {
        let _: Empty = step("shutdown", self.client.post("/v1/shutdown", &Empty {}).await)?;
        match tokio::time::timeout(PATIENCE, self.child.wait()).await {
            Ok(Ok(status)) if status.success() => Ok(()),
            Ok(Ok(status)) => Err(self.failed(&format!("ended badly ({status})"))),
            Ok(Err(error)) => Err(self.failed(&error.to_string())),
            Err(_) => Err(self.failed("does not end")),
        }
    }

    pub(super) async fn end(mut self) -> Result<(), DemoError> {
        self.stop().await
    }

    /// The home, when the node was stopped.
    pub(super) fn home_again(&self) -> Home {
        self.home.clone()
    }

    fn failed(&self, what: &str) -> DemoError {
        let log = fs::read_to_string(log_path(&self.home)).unwrap_or_default();
        let lines: Vec<&str> = log.lines().collect();
        let tail = lines[lines.len().saturating_sub(LOG_LINES)..].join("\n  ");
        DemoError::Node { role: self.role, what: format!("{what}; its log ends with:\n  {tail}") }
    }
}

fn log_path(home: &Home) -> PathBuf {
    home.path().join("node.log")
}
