//! What happens when things go wrong: kills, copies, full disks, forgers and vandals, against real processes.

#[path = "faults/buyer_kills.rs"]
mod buyer_kills;
#[path = "faults/copies.rs"]
mod copies;
#[path = "faults/forgers.rs"]
mod forgers;
#[path = "faults/full_disk.rs"]
mod full_disk;
#[path = "faults/machine_kills.rs"]
mod machine_kills;
#[path = "faults/vandals.rs"]
mod vandals;
