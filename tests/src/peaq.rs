//! peaq's own software, which other suites exchange files and peers with.

use std::{
    io::{BufRead as _, BufReader, Write as _},
    path::{Path, PathBuf},
    process::{Child, ChildStdin, ChildStdout, Command, Stdio},
};

use serde_json::{Value, json};

/// The Python of the environment that has peaq's SDK and CLI in it.
///
/// # Panics
/// Without that environment: a test that has nothing to compare with must not pass.
#[must_use]
pub fn python() -> PathBuf {
    let python = std::env::var_os("TRIBUTARY_PEAQ_PYTHON").expect(
        "TRIBUTARY_PEAQ_PYTHON is not set: run this test with ./tests/run.sh, which installs peaq's SDK and CLI",
    );
    let python = PathBuf::from(python);
    assert!(python.is_file(), "TRIBUTARY_PEAQ_PYTHON names no file: run this test with ./tests/run.sh");
    python
}

/// The official `peaqos` program, which lies beside that Python.
///
/// # Panics
/// As [`python`].
#[must_use]
pub fn peaqos() -> PathBuf {
    let path = python().parent().unwrap_or(Path::new("/")).join("peaqos");
    assert!(path.is_file(), "{} is not there: run this test with ./tests/run.sh", path.display());
    path
}

/// A command of peaq's software, which tells its makers that it runs unless it is asked not to: no test sends a packet beyond
/// loopback.
#[must_use]
pub fn quiet(program: impl AsRef<std::ffi::OsStr>) -> Command {
    let mut command = Command::new(program);
    command.env("DO_NOT_TRACK", "1").env("PEAQOS_TELEMETRY", "0");
    command
}

/// How a command of peaq's CLI ended.
#[derive(Debug, serde::Deserialize)]
pub struct PeaqosEnded {
    /// Its exit code.
    pub code: i32,
    /// What it printed.
    pub stdout: String,
    /// What it said to be wrong, and its progress.
    pub stderr: String,
}

/// A running `tests/tools/peaq_official.py`: peaq's CLI and SDK in one process, because they take seconds to start.
pub struct Official {
    child: Child,
    input: Option<ChildStdin>,
    output: BufReader<ChildStdout>,
}

impl Drop for Official {
    fn drop(&mut self) {
        // The end of its input ends it.
        self.input.take();
        let _ = self.child.wait();
    }
}

impl Official {
    /// Starts it.
    ///
    /// # Panics
    /// As [`python`].
    #[must_use]
    pub fn start() -> Self {
        let mut child = quiet(python())
            .arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("tools/peaq_official.py"))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let (input, output) = (child.stdin.take(), BufReader::new(child.stdout.take().unwrap()));
        Self { child, input, output }
    }

    fn ask(&mut self, question: &Value) -> Value {
        writeln!(self.input.as_mut().unwrap(), "{question}").unwrap();
        let mut line = String::new();
        self.output.read_line(&mut line).unwrap();
        assert!(!line.is_empty(), "peaq's process ended; what it says stands above");
        serde_json::from_str(&line).unwrap()
    }

    /// Runs `peaqos` with `arguments`.
    ///
    /// # Panics
    /// When the process ended.
    pub fn cli(&mut self, arguments: &[&str]) -> PeaqosEnded {
        serde_json::from_value(self.ask(&json!({ "cli": arguments }))).unwrap()
    }

    /// What the SDK has against a directory; see the tool for what `question` holds.
    ///
    /// # Panics
    /// When the process ended.
    pub fn judge(&mut self, question: &Value) -> Vec<String> {
        serde_json::from_value(self.ask(&json!({ "judge": question }))["failures"].clone()).unwrap()
    }
}
