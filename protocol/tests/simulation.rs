//! The feed at scale, in one process: see [`simulation`].

#![allow(clippy::unwrap_used, clippy::panic, reason = "in a test a panic is the report of a failure")]

#[path = "simulation/mod.rs"]
mod simulation;

use simulation::{Counted, Report, Settings, run};

/// Runs; the figures are shown with `--no-capture`.
#[expect(clippy::print_stdout, reason = "the figures are what it is for")]
fn simulated(settings: &Settings) -> Report {
    let report = run(settings);
    println!("{report}");
    report
}

/// Everything that was to go wrong did, in one of the runs at least.
fn assert_trouble(reports: &[Report]) {
    let sum = |of: fn(&Report) -> u64| reports.iter().map(of).sum::<u64>();
    assert!(sum(|report| report.traffic.lost) > 0);
    assert!(sum(|report| report.traffic.overtaken) > 0);
    assert!(sum(|report| report.traffic.undeliverable) > 0);
    let counted = |of: fn(&Counted) -> u64| reports.iter().map(|report| report.sum(of)).sum::<u64>();
    assert!(counted(|counted| counted.ahead) > 0);
    assert!(counted(|counted| counted.unknown_key) > 0);
    assert!(counted(|counted| counted.duplicates) > 0);
    assert!(counted(|counted| counted.fetched) > 0);
}

#[test]
fn twenty_followers_end_with_the_whole_log_whatever_the_seed() {
    let reports: Vec<Report> = (0..20).map(|seed| simulated(&Settings::new(20, seed))).collect();
    assert_trouble(&reports);
}

#[test]
fn a_hundred_followers_end_with_the_whole_log_and_the_same_seed_gives_the_same_run() {
    let report = simulated(&Settings::new(100, 7));
    assert_eq!(report, simulated(&Settings::new(100, 7)));
    assert_ne!(report, simulated(&Settings::new(100, 8)));
    assert_trouble(&[report]);
}

#[test]
fn a_thousand_followers_end_with_the_whole_log() {
    assert_trouble(&[simulated(&Settings::new(1000, 7))]);
}
