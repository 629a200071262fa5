//! What happens when things go wrong: kills, copies, full disks, forgers and vandals, against real processes.

#[path = "faults/machine_kills.rs"]
mod machine_kills;
