//! The Tributary node: everything between a robot's sensors and a buyer's file.

pub mod buyer;
pub mod cli;
pub mod config;
pub mod control;
pub mod demo;
pub mod export;
pub mod home;
pub mod ingest;
pub mod machine;
pub mod net;
pub mod retention;
pub mod service;
