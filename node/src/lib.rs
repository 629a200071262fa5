//! The Tributary node: everything between a robot's sensors and a buyer's file.

pub mod config;
pub mod export;
pub mod home;
pub mod ingest;
pub mod lane;
pub mod net;
