//! The node as a whole, and its process.

use std::{collections::BTreeMap, fmt};

use super::{Page, Snapshot};
use crate::metrics::catalog::metrics;

metrics! {
    BUILD = Info "tributary_build" in "1" by ["version"]: "Version of the program.";
    READY = Gauge "tributary_ready" in "0 or 1" by []: "Whether the node is ready, as `/readyz` says.";
    WARNINGS = Gauge "tributary_warnings" in "warnings" by ["code"]: "Warnings of `tributary status`, by their code; a code without any is missing.";
    BINDING = Gauge "tributary_binding_expiry_timestamp_seconds" in "seconds" by []: "When the machine's key binding ends, since 1970.";
    CPU = Counter "process_cpu_seconds" in "seconds" by []: "Processor time, user and system.";
    RESIDENT = Gauge "process_resident_memory_bytes" in "bytes" by []: "Physical memory.";
    VIRTUAL = Gauge "process_virtual_memory_bytes" in "bytes" by []: "Address space.";
    THREADS = Gauge "process_threads" in "threads" by []: "Threads.";
    FILES = Gauge "process_open_fds" in "files" by []: "Open file descriptors.";
    MAX_FILES = Gauge "process_max_fds" in "files" by []: "How many there may be; 0 is no limit.";
    STARTED = Gauge "process_start_time_seconds" in "seconds" by []: "When the process was started, since 1970.";
}

pub(super) fn write(snapshot: &Snapshot, page: &mut Page<'_>) -> fmt::Result {
    let Snapshot { status, health, .. } = snapshot;
    let mut warnings: BTreeMap<String, u64> = BTreeMap::new();
    for warning in &status.warnings {
        // A code is written as in the status.
        let code = serde_json::to_value(warning.code).ok();
        let code = code.as_ref().and_then(|code| code.as_str()).unwrap_or_default();
        *warnings.entry(code.to_owned()).or_default() += 1;
    }
    let process = &status.process;
    page.each(&BUILD, [([status.version.as_str()], true)])?;
    page.one(&READY, health.ready)?;
    page.each(&WARNINGS, warnings.iter().map(|(code, count)| ([code.as_str()], *count)))?;
    page.maybe(&BINDING, status.binding_expires_ms.map(|ms| ms / 1000))?;
    page.one(&CPU, process.cpu_s)?;
    page.one(&RESIDENT, process.resident_bytes)?;
    page.one(&VIRTUAL, process.virtual_bytes)?;
    page.one(&THREADS, process.threads)?;
    page.one(&FILES, process.open_files)?;
    page.one(&MAX_FILES, process.max_files)?;
    page.one(&STARTED, process.started_s)
}
