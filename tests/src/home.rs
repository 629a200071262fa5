//! A folder for one test: homes of nodes, their configurations, and their logs.

use std::{
    collections::BTreeMap,
    fs,
    net::TcpListener,
    path::{Path, PathBuf},
    sync::Mutex,
};

use tempfile::TempDir;
use tributary::home::{Home, InitOptions};

use crate::cleanup;

/// The folder of one test. Removed at its end; when the test failed, the ends of all logs in it are shown before.
pub struct Sandbox {
    dir: TempDir,
    ports: Mutex<BTreeMap<String, u16>>,
}

impl Default for Sandbox {
    fn default() -> Self {
        Self::new()
    }
}

impl Sandbox {
    /// An empty folder.
    ///
    /// # Panics
    ///
    /// When none can be made.
    #[must_use]
    pub fn new() -> Self {
        let dir = tempfile::Builder::new().prefix("tributary-test-").tempdir().unwrap();
        cleanup::folder(dir.path());
        Self { dir, ports: Mutex::default() }
    }

    /// The folder.
    #[must_use]
    pub fn path(&self) -> &Path {
        self.dir.path()
    }

    /// A TCP port of loopback for the node `name`, the same each time: peers must find a node again that was killed.
    ///
    /// # Panics
    ///
    /// When no port is free.
    #[must_use]
    pub fn port(&self, name: &str) -> u16 {
        let mut ports = self.ports.lock().unwrap();
        if let Some(port) = ports.get(name) {
            return *port;
        }
        // Below the range that the system takes for outgoing connections: nobody sits there by chance after a kill.
        let free = |port: &u16| TcpListener::bind(("127.0.0.1", *port)).is_ok();
        let port = (0..1000).map(|_| rand::random_range(12_000..30_000)).find(free).unwrap();
        ports.insert(name.to_owned(), port);
        port
    }

    /// Makes a home with new keys and `config`.
    ///
    /// # Panics
    ///
    /// When it cannot be made.
    #[must_use]
    pub fn home(&self, name: &str, config: &str) -> PathBuf {
        let path = self.path().join(name);
        make_home(&path, config);
        path
    }

    /// Makes the home of a machine that listens on [`Sandbox::port`].
    #[must_use]
    pub fn machine(&self, name: &str, streams: &[String]) -> PathBuf {
        self.home(name, &machine_config(self.port(name), streams))
    }

    /// Makes the home of a buyer. `more` goes into its configuration.
    #[must_use]
    pub fn buyer(&self, name: &str, more: &str) -> PathBuf {
        self.home(name, &format!("{}{more}", head("buyer", self.port(name), "")))
    }
}

impl Drop for Sandbox {
    fn drop(&mut self) {
        cleanup::removed(self.path());
        if !std::thread::panicking() {
            return;
        }
        for entry in fs::read_dir(self.path()).into_iter().flatten().flatten() {
            let path = entry.path();
            if path.extension().is_some_and(|extension| extension == "log") {
                eprintln!("--- the end of {}:\n{}", path.display(), tail(&path));
            }
        }
    }
}

/// Makes a home with new keys and `config` at `path`.
///
/// # Panics
///
/// When it cannot be made.
pub fn make_home(path: &Path, config: &str) {
    let options = InitOptions { owner: None, identity: None, passphrase: None, config: config.to_owned() };
    Home::init(path, options, &mut rand::rng()).unwrap();
}

/// The beginning of a configuration; `limits` is the inside of `network.limits`.
#[must_use]
pub fn head(role: &str, port: u16, limits: &str) -> String {
    format!(
        "roles: [{role}]\nnetwork:\n  listen: [/ip4/127.0.0.1/tcp/{port}]\n  limits: {{ {limits} }}\nstore: {{ ballast: none }}\n"
    )
}

/// The configuration of a machine with `streams`, each a result of [`stream`].
#[must_use]
pub fn machine_config(port: u16, streams: &[String]) -> String {
    format!("{}streams:\n{}", head("machine", port, ""), streams.concat())
}

/// A stream of message fields for everybody. `more` is further keys, such as `, close_after: { packages: 10 }`.
#[must_use]
pub fn stream(topic: &str, more: &str) -> String {
    format!("  - {{ topic: {topic}, mode: fields, default: include, access: {{ policy: free }}{more} }}\n")
}

/// The last lines of a file.
#[must_use]
pub fn tail(path: &Path) -> String {
    let text = fs::read_to_string(path).unwrap_or_default();
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(40)..].join("\n")
}

/// Copies a folder with everything in it, as `cp -a` does, sockets and locks included.
///
/// # Panics
///
/// When it cannot be copied.
pub fn copy(from: &Path, to: &Path) {
    let done = std::process::Command::new("cp").arg("-a").arg(from).arg(to).status().unwrap();
    assert!(done.success(), "{} could not be copied to {}", from.display(), to.display());
}
