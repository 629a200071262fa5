//! The example programs do what they say, as a reader would run them.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test ends where something is wrong")]

use std::{
    io::{BufRead as _, BufReader},
    path::Path,
    process::{Child, ChildStdout, Command, Output, Stdio},
};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use tributary::home::{Home, InitOptions};

/// A program that runs until Ctrl-C. Killed, if it lives, when the test ends.
struct Running {
    child: Child,
    lines: std::io::Lines<BufReader<ChildStdout>>,
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Running {
    fn start(program: &str, arguments: &[&Path]) -> Self {
        let mut child = Command::new(program).args(arguments).stdout(Stdio::piped()).spawn().unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        Self { child, lines }
    }

    /// The next line that it prints.
    fn line(&mut self) -> String {
        self.lines.next().expect("the program ended").unwrap()
    }

    /// Presses Ctrl-C and waits for an orderly end.
    fn end(mut self) {
        kill_process(Pid::from_raw(i32::try_from(self.child.id()).unwrap()).unwrap(), Signal::INT).unwrap();
        let status = self.child.wait().unwrap();
        assert!(status.success(), "{status}");
    }
}

/// Runs the buyer until it has so many packages.
fn follow(home: &Path, link: &str, stream: &str, count: u64) -> Output {
    let mut buyer = Command::new(env!("CARGO_BIN_EXE_follow_callback"));
    buyer.arg(home).args([link, stream, &count.to_string()]).output().unwrap()
}

fn messages(output: &Output) -> Vec<Value> {
    assert!(output.status.success(), "{output:?}");
    String::from_utf8_lossy(&output.stdout).lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

fn numbers(messages: &[Value]) -> Vec<u64> {
    messages.iter().map(|message| message["number"].as_u64().unwrap()).collect()
}

#[test]
fn a_struct_reaches_a_callback_and_what_a_rule_keeps_back_does_not() {
    let place = tempfile::tempdir().unwrap();
    let mut machine = Running::start(env!("CARGO_BIN_EXE_publish_struct"), &[&place.path().join("machine")]);
    let link = machine.line();
    let home = place.path().join("buyer");
    let first = messages(&follow(&home, &link, "/temperature", 5));
    assert_eq!(first.len(), 5);
    assert!(first.iter().all(|message| message["celsius"].is_f64() && message.get("location").is_none()), "{first:?}");
    // Started again, it goes on where it was; what was published meanwhile is not missed.
    let second = messages(&follow(&home, &link, "/temperature", 5));
    let numbers = numbers(&[first, second].concat());
    assert!(numbers.windows(2).all(|pair| pair[1] == pair[0] + 1), "{numbers:?}");
    machine.end();
}

#[test]
fn a_source_of_ones_own_is_read_and_what_is_no_reading_is_left_out() {
    let place = tempfile::tempdir().unwrap();
    let readings = place.path().join("readings.txt");
    std::fs::write(&readings, "celsius=21.5 hpa=1013\nbroken\ncelsius=22 hpa=1012\n").unwrap();
    let home = place.path().join("machine");
    let mut machine = Running::start(env!("CARGO_BIN_EXE_custom_source"), &[&home, &readings]);
    assert!(machine.line().starts_with("tributary://did:peaq:0x"));
    assert_eq!(machine.line(), "2 messages, 1 lines left out");
    machine.end();
    assert!(Home::open(&home).is_ok());
}

#[test]
fn a_policy_of_ones_own_lets_customers_in_and_nobody_else() {
    let place = tempfile::tempdir().unwrap();
    let customers = place.path().join("customers.txt");
    let home = place.path().join("customer");
    let options = InitOptions { owner: None, identity: None, passphrase: None, config: String::new() };
    let customer = Home::init(&home, options, &mut rand::rng()).unwrap().public_keys().unwrap().did;
    std::fs::write(&customers, format!("{customer}\n")).unwrap();
    let mut machine = Running::start(env!("CARGO_BIN_EXE_custom_policy"), &[&place.path().join("machine"), &customers]);
    let link = machine.line();
    assert_eq!(messages(&follow(&home, &link, "/scan", 3)).len(), 3);
    let refused = follow(&place.path().join("stranger"), &link, "/scan", 1);
    let stderr = String::from_utf8_lossy(&refused.stderr);
    assert!(!refused.status.success() && refused.stdout.is_empty() && stderr.contains("for customers"), "{refused:?}");
    machine.end();
}
