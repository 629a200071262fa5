//! The store against a raw append: `cargo bench -p tributary-store --bench append`.
//!
//! Rounds of "write and `fdatasync` to plain 64 MiB files" and "commit to the store" take turns, because the speed of a disk
//! drifts; only ratios of the same round mean anything. Then: space after deleting the oldest half, and opening 100,000 small
//! chunks after a kill. `--quick` takes a quarter of the data. Files go below `STORE_BENCH_DIR`, or the folder for temporary
//! files.

#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a bench reports to the terminal and stops at the first failure"
)]

#[path = "append/measure.rs"]
mod measure;

use measure::{Append, BODY, SMALL, append, bodies, median};

const ROUNDS: usize = 5;

fn main() {
    if measure::run_child() {
        return;
    }
    let quick = std::env::args().any(|argument| argument == "--quick");
    let count = if quick { 256 } else { 1024 };
    let dir = tempfile::tempdir_in(std::env::var_os("STORE_BENCH_DIR").unwrap_or_else(|| std::env::temp_dir().into()))
        .unwrap();

    let (data, mib) = (bodies(count), (count * BODY as u64) as f64 / f64::from(1 << 20));
    measure::warm_up(dir.path(), count * BODY as u64 * 2 * ROUNDS as u64);
    println!("{:>6} {:>10} {:>10} {:>7}   ratios by round", "batch", "raw MiB/s", "store", "ratio");
    for per_batch in [16, 1] {
        let rounds: Vec<Append> = (0..ROUNDS).map(|round| append(dir.path(), &data, per_batch, round)).collect();
        let over = |value: fn(&Append) -> f64| rounds.iter().map(value).collect::<Vec<f64>>();
        let ratios = over(|round| round.raw / round.store);
        let each: Vec<String> = ratios.iter().map(|ratio| format!("{ratio:.2}")).collect();
        let (raw, store) = (mib / median(&over(|round| round.raw)), mib / median(&over(|round| round.store)));
        println!("{per_batch:>6} {raw:>10.0} {store:>10.0} {:>7.2}   {}", median(&ratios), each.join(" "));
    }

    let space = measure::space(&dir.path().join("space"), count * 2);
    println!(
        "disk/live {:.3} full, {:.3} after deleting the oldest half ({:.2} s); accounted/du {:.4}",
        space.full, space.after, space.took, space.accounted
    );

    let opens = measure::opens(&dir.path().join("small"));
    println!("open of {SMALL} x 4 KiB after a kill: {:.2} s ({})", opens.after_kill, opens.recovery);
    println!("open after a clean close: {:.2} s", opens.after_close);
    println!("open without its index: {:.2} s", opens.without_index);
}
