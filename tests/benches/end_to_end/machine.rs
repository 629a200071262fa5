//! Where the figures come from: machine, system, versions. And the clocks.

use std::{fs, process::Command, time::Instant};

use rustix::time::{ClockId, clock_gettime};

use crate::sdk::Sdk;

/// One line for each thing a reader must know to compare figures.
pub(crate) fn describe(sdk: Option<&Sdk>) -> String {
    let cpus = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = cpus.lines().find_map(|line| line.strip_prefix("model name")).unwrap_or("unknown");
    let model = model.trim_start_matches([' ', '\t', ':']);
    let cores = std::thread::available_parallelism().map_or(0, usize::from);
    let memory = fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let memory = memory.lines().find_map(|line| line.strip_prefix("MemTotal:")).unwrap_or_default().trim().to_owned();
    let kernel = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    let load = fs::read_to_string("/proc/loadavg").unwrap_or_default();
    let rustc = Command::new(std::env::var_os("RUSTC").unwrap_or_else(|| "rustc".into())).arg("--version").output();
    let rustc = rustc.map(|output| String::from_utf8_lossy(&output.stdout).trim().to_owned()).unwrap_or_default();
    let sdk = sdk.map_or("not measured (TRIBUTARY_SDK_PYTHON is not set)".to_owned(), |sdk| sdk.version.clone());
    [
        format!("- CPU: {model}, {cores} cores; memory {memory}"),
        format!("- Linux {}; load before the run {}", kernel.trim(), load.split(' ').next().unwrap_or_default()),
        format!("- Tributary {}, {rustc}, release build", env!("CARGO_PKG_VERSION")),
        format!("- official SDK: {sdk}\n"),
    ]
    .join("\n")
}

/// CPU seconds of this thread that `work` takes.
pub(crate) fn cpu_seconds<T>(work: impl FnOnce() -> T) -> (f64, T) {
    let now = || {
        let time = clock_gettime(ClockId::ThreadCPUTime);
        time.tv_sec as f64 + time.tv_nsec as f64 / 1e9
    };
    let begun = now();
    let result = work();
    (now() - begun, result)
}

/// Seconds on the clock that `work` takes.
pub(crate) async fn clock<T>(work: impl Future<Output = T>) -> (f64, T) {
    let begun = Instant::now();
    let result = work.await;
    (begun.elapsed().as_secs_f64(), result)
}

/// The most memory a process has had resident, MiB.
pub(crate) fn peak_mib(pid: u32) -> f64 {
    resident(pid, "VmHWM:")
}

/// The memory a process has resident now, MiB.
pub(crate) fn resident_mib(pid: u32) -> f64 {
    resident(pid, "VmRSS:")
}

fn resident(pid: u32, field: &str) -> f64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let kib = status.lines().find_map(|line| line.strip_prefix(field)).unwrap();
    kib.trim().trim_end_matches(" kB").parse::<f64>().unwrap() / 1024.0
}

/// CPU seconds a process has used so far, by itself and for system calls.
pub(crate) fn cpu_of(pid: u32) -> (f64, f64) {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    // The second field is a name in parentheses that may hold anything.
    let fields: Vec<&str> = stat.rsplit_once(')').unwrap().1.split_whitespace().collect();
    // Linux counts in hundredths of a second.
    let ticks = |at: usize| fields[at].parse::<f64>().unwrap() / 100.0;
    (ticks(11), ticks(12))
}
