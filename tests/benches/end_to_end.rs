//! The numbers of the whole project in one table, side by side with what they are compared with, in one run:
//!
//! ```text
//! cargo bench -p tributary-tests --bench end_to_end
//! cargo bench -p tributary-tests --bench end_to_end -- seal packages     only these sections
//! ```
//!
//! Sections: `seal`, `packages`, `store`, `pull`, `sources`, `catchup`, `latency`, `forward`, `frames`, `grant`, `access`, `testnet`,
//! `hostile`, and with `--features ros2` in the environment of
//! `tests/tools/ros2_env.sh`: `ros2`. A figure and what it is compared with take turns, five rounds; a ratio
//! is the median of the ratios of the rounds, because machines and disks drift. What happens inside one thread is measured in CPU
//! time of that thread, so "per core" holds on a machine that does something else, too; what waits for disks and peers is
//! measured on the clock.
//!
//! | variable | |
//! |---|---|
//! | `TRIBUTARY_SDK_PYTHON` | a Python with the official SDK, see `tests/tools/sdk_baseline.py`; without it its rows are empty |
//! | `TRIBUTARY_BIN` | the program to measure; when not set the one that Cargo builds with the bench, in release |
//! | `TRIBUTARY_BENCH_DIR` | where stores and homes go, on a real disk; default: below the build directory |
//! | `TRIBUTARY_BENCH_SKIP_4GIB` | when set, the pull of 4 GiB is left out (it needs 9 GiB of disk) |
//! | `TRIBUTARY_BENCH_OFFICIAL_CHUNKS` | chunks that the official `grant` has at most, 4,000 when not set |
//! | `TRIBUTARY_BENCH_TESTNET_PAIRS` | machines, and buyers, of the section `testnet`: 20 when not set |
//! | `TRIBUTARY_BENCH_TESTNET_SECONDS` | how long it runs: 180 when not set |
//! | `TRIBUTARY_BENCH_HOSTILE_MIB` | what is pulled beside a hostile peer, 48 when not set |
//! | `TRIBUTARY_BENCH_ROUNDS` | rounds, 5 when not set |
//! | `TRIBUTARY_BENCH_MESSAGES` | messages in a round of `latency`, and entries in one of `forward`; 400 when not set |

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a bench reports to the terminal and stops at the first failure"
)]

#[path = "end_to_end/access.rs"]
mod access;
#[path = "end_to_end/bare.rs"]
mod bare;
#[path = "end_to_end/catchup.rs"]
mod catchup;
#[path = "end_to_end/echo.rs"]
mod echo;
#[path = "end_to_end/forward.rs"]
mod forward;
#[path = "end_to_end/frames.rs"]
mod frames;
#[path = "end_to_end/grant.rs"]
mod grant;
#[path = "end_to_end/hostile.rs"]
mod hostile;
#[path = "end_to_end/latency.rs"]
mod latency;
#[path = "end_to_end/machine.rs"]
mod machine;
#[path = "../../store/benches/append/measure.rs"]
mod measure;
#[path = "end_to_end/nodes.rs"]
mod nodes;
#[path = "end_to_end/packages.rs"]
mod packages;
#[path = "end_to_end/pull.rs"]
mod pull;
#[cfg(feature = "ros2")]
#[path = "end_to_end/ros2.rs"]
mod ros2;
#[path = "end_to_end/sdk.rs"]
mod sdk;
#[path = "end_to_end/seal.rs"]
mod seal;
#[path = "end_to_end/sources.rs"]
mod sources;
#[path = "end_to_end/store.rs"]
mod store;
#[path = "end_to_end/table.rs"]
mod table;
#[path = "end_to_end/testnet.rs"]
mod testnet;

use std::path::PathBuf;

use sdk::Sdk;
use table::Table;

const SECTIONS: &[&str] = &[
    "seal",
    "packages",
    "store",
    "pull",
    "sources",
    "catchup",
    "latency",
    "forward",
    "frames",
    "grant",
    "access",
    "testnet",
    "hostile",
    #[cfg(feature = "ros2")]
    "ros2",
];

/// What all sections share.
struct Bench {
    rounds: usize,
    /// Messages and entries of a round, where they are counted.
    messages: usize,
    /// A folder on a real disk; removed at the end.
    dir: PathBuf,
    sdk: Option<Sdk>,
    table: Table,
}

fn main() {
    if measure::run_child() || bare::run_child() || hostile::run_child() {
        return;
    }
    // Cargo adds `--bench`.
    let wanted: Vec<String> = std::env::args().skip(1).filter(|argument| !argument.starts_with("--")).collect();
    if let Some(unknown) = wanted.iter().find(|name| !SECTIONS.contains(&name.as_str())) {
        eprintln!("no section {unknown}; there are {}", SECTIONS.join(", "));
        std::process::exit(2);
    }
    let root = std::env::var_os("TRIBUTARY_BENCH_DIR").unwrap_or_else(|| env!("CARGO_TARGET_TMPDIR").into());
    let dir = tempfile::Builder::new().prefix("bench-").tempdir_in(root).unwrap();
    let rounds = std::env::var("TRIBUTARY_BENCH_ROUNDS").map_or(5, |rounds| rounds.parse().unwrap());
    let messages = std::env::var("TRIBUTARY_BENCH_MESSAGES").map_or(400, |messages| messages.parse().unwrap());
    let sdk = Sdk::start();
    let mut bench = Bench { rounds, messages, dir: dir.path().to_owned(), sdk, table: Table::default() };

    println!("{}", machine::describe(bench.sdk.as_ref()));
    for section in SECTIONS {
        if !wanted.is_empty() && !wanted.iter().any(|name| name == *section) {
            continue;
        }
        eprintln!("measuring: {section}");
        match *section {
            "seal" => seal::run(&mut bench),
            "packages" => packages::run(&mut bench),
            "store" => store::run(&mut bench),
            "pull" => pull::run(&mut bench),
            "sources" => sources::run(&mut bench),
            "catchup" => catchup::run(&mut bench),
            "latency" => latency::run(&mut bench),
            "forward" => forward::run(&mut bench),
            "frames" => frames::run(&mut bench),
            "grant" => grant::run(&mut bench),
            "testnet" => testnet::run(&mut bench),
            "hostile" => hostile::run(&mut bench),
            #[cfg(feature = "ros2")]
            "ros2" => ros2::run(&mut bench),
            _ => access::run(&mut bench),
        }
    }
    println!("{}", bench.table);
}
