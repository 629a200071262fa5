//! The form of results: for people, or JSON.
//!
//! Results go to standard output; errors, notes and progress go to standard error, so that a result can be piped. With `--json`
//! a command prints one document or a line per event, and nothing for people. A closed pipe is no error: nobody is reading.

use std::{
    io::{self, IsTerminal as _, Write},
    time::Duration,
};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use serde::Serialize;

use super::exit::{CliError, Exit};

/// Where results and errors go.
#[derive(Debug, Clone, Copy)]
pub struct Output {
    json: bool,
}

impl Output {
    /// Output for people, or JSON.
    #[must_use]
    pub fn new(json: bool) -> Self {
        Self { json }
    }

    /// Whether output is JSON.
    #[must_use]
    pub fn is_json(self) -> bool {
        self.json
    }

    /// The result of a command: one JSON document, or what `human` writes.
    pub fn document(
        self,
        value: &impl Serialize,
        human: impl FnOnce(&mut dyn Write) -> io::Result<()>,
    ) -> Result<(), CliError> {
        let mut out = Vec::new();
        if self.json {
            serde_json::to_writer_pretty(&mut out, value).map_err(|e| failed(&e))?;
            out.push(b'\n');
        } else {
            human(&mut out).map_err(|e| failed(&e))?;
        }
        Self::bytes(&out)
    }

    /// One event of a command that prints several: one line of JSON, or what `human` makes of it.
    pub fn event(self, value: &impl Serialize, human: impl FnOnce() -> String) -> Result<(), CliError> {
        let mut line =
            if self.json { serde_json::to_vec(value).map_err(|e| failed(&e))? } else { human().into_bytes() };
        line.push(b'\n');
        Self::bytes(&line)
    }

    /// Bytes as they are to standard output.
    pub fn bytes(bytes: &[u8]) -> Result<(), CliError> {
        let mut out = io::stdout().lock();
        match out.write_all(bytes).and_then(|()| out.flush()) {
            Err(error) if error.kind() != io::ErrorKind::BrokenPipe => Err(failed(&error)),
            _ => Ok(()),
        }
    }

    /// A remark for people, to standard error; nothing with `--json`.
    pub fn note(self, text: &str) {
        if !self.json {
            Self::complain(text.as_bytes());
        }
    }

    /// Reports why the command failed.
    pub fn error(self, error: &CliError) {
        #[derive(Serialize)]
        struct Report<'a> {
            error: &'a CliError,
            exit_code: u8,
        }
        if self.json {
            let report = Report { error, exit_code: error.code.code() };
            Self::complain(&serde_json::to_vec(&report).unwrap_or_default());
        } else {
            Self::complain(error.to_string().as_bytes());
        }
    }

    fn complain(line: &[u8]) {
        let mut err = io::stderr().lock();
        // There is nowhere left to report that standard error is closed.
        let _ = err.write_all(line).and_then(|()| err.write_all(b"\n"));
    }

    /// A progress bar in bytes on standard error, of a known or unknown length; invisible with `--json` or without a terminal.
    #[must_use]
    pub fn progress_bytes(self, label: &str, total: Option<u64>) -> ProgressBar {
        let rest = match total {
            Some(_) => "{bar:30} {bytes}/{total_bytes} {binary_bytes_per_sec} {eta}",
            None => "{spinner} {bytes} {binary_bytes_per_sec}",
        };
        self.bar(label, total, rest)
    }

    /// A progress bar in pieces (messages, chunks); see [`Output::progress_bytes`].
    #[must_use]
    pub fn progress_count(self, label: &str, total: Option<u64>) -> ProgressBar {
        let rest = match total {
            Some(_) => "{bar:30} {human_pos}/{human_len} {per_sec} {eta}",
            None => "{spinner} {human_pos} {per_sec}",
        };
        self.bar(label, total, rest)
    }

    fn bar(self, label: &str, total: Option<u64>, template: &str) -> ProgressBar {
        if self.json || !io::stderr().is_terminal() {
            return ProgressBar::hidden();
        }
        let style =
            ProgressStyle::with_template(&format!("{{msg:14}} {template}")).expect("the templates above are sound");
        // Ten times a second: a robot's terminal is often at the end of a slow line.
        let bar = ProgressBar::with_draw_target(total, ProgressDrawTarget::stderr_with_hz(10)).with_style(style);
        bar.enable_steady_tick(Duration::from_millis(200));
        bar.with_message(label.to_owned())
    }
}

fn failed(error: &dyn std::error::Error) -> CliError {
    CliError::new(Exit::Failed, "the result could not be written").cause(error)
}

/// Lines of a left column and what belongs to it, aligned.
#[derive(Debug, Default)]
pub struct Table {
    rows: Vec<Vec<String>>,
}

impl Table {
    /// An empty table.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a row.
    pub fn row<T: ToString>(&mut self, cells: impl IntoIterator<Item = T>) -> &mut Self {
        self.rows.push(cells.into_iter().map(|cell| cell.to_string()).collect());
        self
    }

    /// Writes the rows, each column as wide as its widest cell, the last one as it comes.
    pub fn write(&self, out: &mut dyn Write) -> io::Result<()> {
        let columns = self.rows.iter().map(Vec::len).max().unwrap_or(0);
        let width = |column: usize| {
            self.rows.iter().filter_map(|row| row.get(column)).map(|cell| cell.chars().count()).max().unwrap_or(0)
        };
        let widths: Vec<usize> = (0..columns).map(width).collect();
        for row in &self.rows {
            let mut line = String::new();
            for (i, cell) in row.iter().enumerate() {
                line.push_str(cell);
                if i + 1 < row.len() {
                    line.extend(std::iter::repeat_n(' ', widths[i] + 2 - cell.chars().count()));
                }
            }
            writeln!(out, "{}", line.trim_end())?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_is_aligned_and_has_no_trailing_blanks() {
        let mut out = Vec::new();
        Table::new()
            .row(["a", "1"])
            .row(["long", "2"])
            .row(["x", ""])
            .write(&mut out)
            .expect("a vector takes everything");
        assert_eq!(String::from_utf8_lossy(&out), "a     1\nlong  2\nx\n");
    }
}
