//! Homes, nodes as child processes, and commands run against them.

use std::{
    fmt::Write as _,
    fs,
    io::{BufRead as _, BufReader, Write as _},
    path::{Path, PathBuf},
    process::{Child, ChildStdout, Command, Output, Stdio},
};

use assert_cmd::cargo::CommandCargoExt as _;
use serde_json::Value;

/// The command with nothing of the surroundings' configuration.
pub(crate) fn tributary() -> Command {
    let mut command = Command::cargo_bin("tributary").expect("built");
    for (name, _) in std::env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with("TRIBUTARY_")) {
        command.env_remove(name);
    }
    command
}

/// Streams: one of each policy, and one for files.
pub(crate) const MACHINE: &str = "\
roles: [machine]
network: { listen: [/ip4/127.0.0.1/tcp/0] }
store: { ballast: none }
streams:
  - topic: /imu
    mode: fields
    default: include
    rules: [{ path: secret, action: exclude }]
    access: { policy: free }
  - topic: /gps
    mode: fields
    default: include
    access: { policy: manual }
  - topic: files
    mode: file
    access: { policy: free }
";

pub(crate) const BUYER: &str = "\
roles: [buyer]
network: { listen: [/ip4/127.0.0.1/tcp/0] }
store: { ballast: none }
";

/// A home in a temporary folder, short enough for a socket path.
pub(crate) struct Home {
    folder: tempfile::TempDir,
}

impl Home {
    pub(crate) fn new(config: &str) -> Self {
        let home = Self { folder: tempfile::Builder::new().prefix("tr").tempdir_in("/tmp").expect("a folder") };
        let made = home.run(&["init"]);
        assert!(made.status.success(), "{}", err(&made));
        fs::write(home.path("home/config.yaml"), config).expect("written");
        home
    }

    pub(crate) fn machine() -> Self {
        Self::new(MACHINE)
    }

    pub(crate) fn buyer() -> Self {
        Self::new(BUYER)
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    pub(crate) fn text(&self, name: &str) -> String {
        self.path(name).display().to_string()
    }

    pub(crate) fn socket(&self) -> PathBuf {
        self.path("home/control.sock")
    }

    pub(crate) fn command(&self, args: &[&str]) -> Command {
        let mut command = tributary();
        command.args(args).arg("--home").arg(self.path("home")).current_dir(self.folder.path());
        command
    }

    pub(crate) fn run(&self, args: &[&str]) -> Output {
        self.command(args).stdin(Stdio::null()).output().expect("runs")
    }

    /// Runs a command that must end with `code`, and returns what it printed.
    pub(crate) fn ends(&self, code: i32, args: &[&str]) -> Output {
        let output = self.run(args);
        assert_eq!(output.status.code(), Some(code), "{args:?}\n{}\n{}", out(&output), err(&output));
        output
    }

    /// Runs a command that must succeed, with `--json`, and returns the document.
    pub(crate) fn json(&self, args: &[&str]) -> Value {
        let args = [args, &["--json"]].concat();
        let output = self.ends(0, &args);
        serde_json::from_slice(&output.stdout).unwrap_or_else(|e| panic!("{args:?}: {e}: {}", out(&output)))
    }

    /// Runs a command that must fail with `code`, with `--json`, and returns the error document.
    pub(crate) fn fails(&self, code: i32, args: &[&str]) -> Value {
        let args = [args, &["--json"]].concat();
        let output = self.ends(code, &args);
        let last = err(&output).lines().last().unwrap_or_default().to_owned();
        let error: Value = serde_json::from_str(&last).unwrap_or_else(|e| panic!("{args:?}: {e}: {last}"));
        assert_eq!(error["exit_code"], code, "{error}");
        error["error"].clone()
    }

    /// Runs a command with `lines` on its standard input.
    pub(crate) fn with_input(&self, args: &[&str], lines: &str) -> Output {
        let mut child = self
            .command(args)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("starts");
        child.stdin.take().expect("piped").write_all(lines.as_bytes()).expect("written");
        child.wait_with_output().expect("ends")
    }

    pub(crate) fn start(&self) -> Node {
        let mut child = self
            .command(&["run", "--json"])
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::inherit())
            .spawn()
            .expect("starts");
        let mut lines = BufReader::new(child.stdout.take().expect("piped"));
        let mut line = String::new();
        // Ends when the node is ready, or has ended.
        lines.read_line(&mut line).expect("read");
        let ready: Value =
            serde_json::from_str(&line).unwrap_or_else(|e| panic!("the node did not start: {e}: {line}"));
        assert_eq!(ready["event"], "ready");
        Node { child, lines, ready }
    }

    /// The first dataset of a stream.
    pub(crate) fn dataset(&self, stream: &str) -> String {
        let list = self.json(&["dataset", "ls", "--stream", stream]);
        list[0]["dataset"].as_str().unwrap_or_else(|| panic!("no dataset of {stream}: {list}")).to_owned()
    }

    pub(crate) fn did(&self) -> String {
        self.json(&["key", "show"])["did"].as_str().expect("text").to_owned()
    }
}

/// A running node; killed, by its process, when dropped.
pub(crate) struct Node {
    child: Child,
    lines: BufReader<ChildStdout>,
    pub(crate) ready: Value,
}

impl Node {
    pub(crate) fn link(&self) -> &str {
        self.ready["link"].as_str().expect("a machine has a link")
    }

    pub(crate) fn signal(&self, name: &str) {
        let status = Command::new("kill").arg(name).arg(self.child.id().to_string()).status().expect("runs");
        assert!(status.success());
    }

    /// Waits for the end, and returns the exit code and the last line.
    pub(crate) fn wait(mut self) -> (Option<i32>, String) {
        let mut last = String::new();
        let mut line = String::new();
        while self.lines.read_line(&mut line).expect("read") > 0 {
            last = std::mem::take(&mut line);
        }
        (self.child.wait().expect("ends").code(), last)
    }

    pub(crate) fn stop(self) {
        self.signal("-TERM");
        let (code, last) = self.wait();
        assert_eq!((code, last.trim()), (Some(0), r#"{"event":"stopped"}"#));
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

pub(crate) fn out(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned()
}

pub(crate) fn err(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// Lines of messages with a field that must not leave.
pub(crate) fn lines(count: usize) -> String {
    let mut text = String::new();
    for i in 0..count {
        writeln!(text, r#"{{"i":{i},"secret":"do not tell"}}"#).expect("a string takes everything");
    }
    text
}

/// Bytes that do not compress, the same each time.
pub(crate) fn noise(len: usize) -> Vec<u8> {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_le_bytes()[3]
    };
    (0..len).map(|_| next()).collect()
}

/// Flips a byte in the middle of the largest stretch of stored bytes: the body of a chunk.
pub(crate) fn damage(store: &Path) {
    let mut newest: Option<(u64, PathBuf)> = None;
    for entry in fs::read_dir(store.join("log")).expect("a log") {
        let path = entry.expect("an entry").path();
        let used = fs::read(&path).expect("read").iter().rposition(|byte| *byte != 0).unwrap_or(0) as u64;
        if newest.as_ref().is_none_or(|(most, _)| used > *most) {
            newest = Some((used, path));
        }
    }
    let (used, path) = newest.expect("a segment");
    let mut bytes = fs::read(&path).expect("read");
    bytes[usize::try_from(used / 2).expect("small")] ^= 1;
    fs::write(&path, bytes).expect("written");
}
