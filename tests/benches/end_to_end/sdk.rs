//! The official SDK: a Python process that is asked to do a round and says how long it took.

use std::{
    io::{BufRead, BufReader, Write},
    path::Path,
    process::{Child, ChildStdin, ChildStdout, Stdio},
};

/// A running `tests/tools/sdk_baseline.py`.
pub(crate) struct Sdk {
    child: Child,
    input: Option<ChildStdin>,
    output: BufReader<ChildStdout>,
    pub(crate) version: String,
}

impl Sdk {
    /// Starts it, when `TRIBUTARY_SDK_PYTHON` says with what.
    pub(crate) fn start() -> Option<Self> {
        let python = std::env::var_os("TRIBUTARY_SDK_PYTHON")?;
        let root = Path::new(env!("CARGO_MANIFEST_DIR"));
        let mut child = tributary_tests::peaq::quiet(python)
            .arg(root.join("tools/sdk_baseline.py"))
            .arg(root.join("../protocol/benches/imu.json"))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("TRIBUTARY_SDK_PYTHON is a Python");
        let input = child.stdin.take();
        let output = BufReader::new(child.stdout.take().unwrap());
        let mut sdk = Self { child, input, output, version: String::new() };
        let hello = sdk.answer();
        let text = |key: &str| hello[key].as_str().unwrap().to_owned();
        sdk.version = format!("peaq-os-sdk {}, Python {}", text("sdk"), text("python"));
        // The first rounds import and compile.
        sdk.round("seal", 1 << 20);
        sdk.round("packages", 10);
        Some(sdk)
    }

    fn answer(&mut self) -> serde_json::Value {
        let mut line = String::new();
        self.output.read_line(&mut line).unwrap();
        assert!(!line.is_empty(), "the SDK's process ended; what it says stands above");
        serde_json::from_str(&line).unwrap()
    }

    /// CPU seconds for one round.
    pub(crate) fn round(&mut self, command: &str, count: usize) -> f64 {
        writeln!(self.input.as_mut().unwrap(), "{command} {count}").unwrap();
        self.answer()["seconds"].as_f64().unwrap()
    }
}

impl Drop for Sdk {
    fn drop(&mut self) {
        // The end of its input ends it.
        self.input.take();
        let _ = self.child.wait();
    }
}
