//! The Tributary node: everything between a robot's sensors and a buyer's file.

pub mod cli;
pub mod config;
pub mod home;
pub mod ingest;
pub mod machine;
pub mod net;
