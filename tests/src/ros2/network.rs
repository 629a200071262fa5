//! A network namespace with nothing but loopback.
//!
//! ROS nodes find each other by multicast, and everybody on a network who uses the same ports joins in. In a namespace of its own a
//! test meets only its own nodes, at once, and nothing leaves the machine. Fast DDS also meets in `/dev/shm`, under names made of
//! the same port numbers, and leaves files there when it is killed: so that folder is the namespace's own, too.

use std::{
    ffi::OsStr,
    path::{Path, PathBuf},
    process::Command,
};

use crate::namespace::{Kind, Namespace};

const SET_UP: &str = "\
    ip link set lo up && ip link set lo multicast on && ip route add 224.0.0.0/4 dev lo && \
    mount -t tmpfs -o size=512m tmpfs /dev/shm";

/// The namespace. It ends with the last process in it, and the one that holds it ends with this or with the test.
pub struct Network {
    namespace: Namespace,
    logs: PathBuf,
}

impl Network {
    /// Makes one. What ROS itself logs goes below `folder`.
    ///
    /// # Panics
    ///
    /// When the system does not let it.
    #[must_use]
    pub fn new(folder: &Path) -> Self {
        let made = Namespace::new(Kind::NetAndMount, SET_UP);
        let namespace = made.unwrap_or_else(|error| panic!("no network namespace: {error}"));
        Self { namespace, logs: folder.join("ros") }
    }

    /// A command that runs `program` in it. Its process is the program's: there is no shell between.
    #[must_use]
    pub fn command(&self, program: impl AsRef<OsStr>) -> Command {
        let mut command = self.namespace.command(program);
        command
            .env("ROS_AUTOMATIC_DISCOVERY_RANGE", "LOCALHOST")
            .env("ROS_LOG_DIR", &self.logs)
            .env_remove("ROS_DOMAIN_ID")
            .env_remove("ROS_STATIC_PEERS");
        command
    }
}
