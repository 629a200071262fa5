//! Simulates a machine and its followers, and prints what it took; a round is 100 ms to their clocks:
//!
//! ```text
//! cargo run --release -p tributary-protocol --example simulate -- --followers 1000 --seed 7
//! ```
//!
//! | argument | |
//! |---|---|
//! | `--followers N` | followers, 100 when not said |
//! | `--seed N` | what chance begins with, 0 when not said; the same seed gives the same run |
//! | `--chunks N` | entries of the stream, 40 when not said |
//! | `--every N` | rounds of 100 ms between two of them, 10 when not said |
//! | `--loss N` | messages lost, percent, 10 when not said |
//! | `--hop N` | rounds that the slowest hop takes, 3 when not said |

#![allow(clippy::print_stdout, clippy::print_stderr, reason = "a program for people")]

#[path = "../tests/simulation/mod.rs"]
#[expect(unused_imports, reason = "the test looks closer")]
mod simulation;

use std::process::ExitCode;

use simulation::{Settings, run};

fn settings(mut arguments: impl Iterator<Item = String>) -> Option<Settings> {
    let mut settings = Settings::new(100, 0);
    while let Some(name) = arguments.next() {
        let value: u32 = arguments.next()?.parse().ok()?;
        match name.as_str() {
            "--followers" => settings.followers = usize::try_from(value).ok()?.max(1),
            "--seed" => settings.seed = value.into(),
            "--chunks" => settings.chunks = u64::from(value).max(4),
            "--every" => settings.interval = u64::from(value).max(1),
            "--loss" => settings.loss_percent = value.min(90),
            "--hop" => settings.slowest_hop = u64::from(value).max(1),
            _ => return None,
        }
    }
    Some(settings)
}

fn main() -> ExitCode {
    let Some(settings) = settings(std::env::args().skip(1)) else {
        eprintln!(
            "usage: simulate [--followers N] [--seed N] [--chunks N] [--every ROUNDS] [--loss PERCENT] [--hop ROUNDS]"
        );
        return ExitCode::from(2);
    };
    println!("{}", run(&settings));
    ExitCode::SUCCESS
}
