//! What this process takes of the computer, from `/proc/self` (proc(5)).

use std::fs;

use serde::{Deserialize, Serialize};

/// What the process takes. What the system does not tell is 0.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub struct ProcessStatus {
    /// Physical memory, bytes.
    pub resident_bytes: u64,
    /// Address space, bytes.
    pub virtual_bytes: u64,
    /// Processor time since it was started, user and system, seconds.
    pub cpu_s: f64,
    /// Threads.
    pub threads: u64,
    /// Open file descriptors.
    pub open_files: u64,
    /// How many it may have open; 0 is no limit.
    pub max_files: u64,
    /// When it was started, seconds since 1970.
    pub started_s: f64,
}

impl ProcessStatus {
    /// As it is now. Reads files that are in memory.
    pub(super) fn now() -> Self {
        let read = |name: &str| fs::read_to_string(format!("/proc/self/{name}")).unwrap_or_default();
        let (stat, limits) = (read("stat"), read("limits"));
        let boot = fs::read_to_string("/proc/stat").unwrap_or_default();
        let open_files = fs::read_dir("/proc/self/fd").map_or(0, |entries| entries.count() as u64);
        let ticks = rustix::param::clock_ticks_per_second() as f64;
        let pages = rustix::param::page_size() as u64;
        Self { open_files, max_files: max_files(&limits), ..Self::of_stat(&stat, boot_s(&boot), ticks, pages) }
    }

    /// What `/proc/<pid>/stat` says.
    fn of_stat(stat: &str, boot_s: f64, ticks: f64, page: u64) -> Self {
        // The second field is the name in parentheses, which may have blanks and parentheses in it.
        let fields: Vec<&str> = stat.rsplit_once(')').map_or("", |(_, rest)| rest).split_ascii_whitespace().collect();
        // Numbered as in proc(5), where the first one behind the name is 3.
        let field = |number: usize| fields.get(number - 3).and_then(|text| text.parse::<u64>().ok()).unwrap_or(0);
        Self {
            resident_bytes: field(24).saturating_mul(page),
            virtual_bytes: field(23),
            cpu_s: field(14).saturating_add(field(15)) as f64 / ticks,
            threads: field(20),
            started_s: boot_s + field(22) as f64 / ticks,
            ..Self::default()
        }
    }
}

/// When the computer was started, from `/proc/stat`, seconds since 1970.
fn boot_s(stat: &str) -> f64 {
    stat.lines().find_map(|line| line.strip_prefix("btime ")?.trim().parse().ok()).unwrap_or(0.0)
}

/// The soft limit of open files, from `/proc/<pid>/limits`.
fn max_files(limits: &str) -> u64 {
    let line = limits.lines().find_map(|line| line.strip_prefix("Max open files"));
    line.and_then(|line| line.split_ascii_whitespace().next()?.parse().ok()).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_fields_are_those_of_the_manual() {
        let stat =
            "71 (a) b (c) S 1 71 71 0 -1 4194560 1 0 0 0 250 50 0 0 20 0 9 0 400 8192000 33 18446744073709551615 1";
        let status = ProcessStatus::of_stat(stat, 1_000.0, 100.0, 4096);
        let expected = ProcessStatus {
            resident_bytes: 33 * 4096,
            virtual_bytes: 8_192_000,
            cpu_s: 3.0,
            threads: 9,
            started_s: 1_004.0,
            ..ProcessStatus::default()
        };
        assert_eq!(status, expected);
        assert_eq!(ProcessStatus::of_stat("", 0.0, 100.0, 4096), ProcessStatus::default());
        assert_eq!(boot_s("cpu 1 2\nbtime 77\n"), 77.0);
        assert_eq!(max_files("Limit  Soft\nMax open files            1024                 4096  files\n"), 1024);
        assert_eq!(max_files("Max open files            unlimited            unlimited            files\n"), 0);
    }

    #[test]
    fn a_process_takes_something() {
        let status = ProcessStatus::now();
        assert!(status.resident_bytes > 1 << 20 && status.virtual_bytes >= status.resident_bytes, "{status:?}");
        assert!(status.threads >= 1 && status.open_files >= 1 && status.started_s > 1e9, "{status:?}");
    }
}
