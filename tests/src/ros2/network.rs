//! A network namespace with nothing but loopback.
//!
//! ROS nodes find each other by multicast, and everybody on a network who uses the same ports joins in. In a namespace of its own a
//! test meets only its own nodes, at once, and nothing leaves the machine. Fast DDS also meets in `/dev/shm`, under names made of
//! the same port numbers, and leaves files there when it is killed: so that folder is the namespace's own, too.

use std::{
    ffi::OsStr,
    io::{BufRead as _, BufReader},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
};

use crate::cleanup;

const SET_UP: &str = "\
    PATH=$PATH:/usr/sbin:/sbin
    ip link set lo up && ip link set lo multicast on && ip route add 224.0.0.0/4 dev lo && \
    mount -t tmpfs -o size=512m tmpfs /dev/shm && echo ready && exec cat";

/// The namespace. It ends with the last process in it, and the one that holds it ends with this or with the test.
pub struct Network {
    holder: Child,
    own_user: bool,
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
        let own_user = !rustix::process::geteuid().is_root();
        let mut unshare = Command::new("unshare");
        unshare.args(["--net", "--mount"]);
        if own_user {
            unshare.args(["--user", "--map-root-user"]);
        }
        let mut holder = unshare
            .args(["sh", "-c", SET_UP])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("unshare is there: it is in Debian's util-linux");
        cleanup::child(holder.id());
        let mut line = String::new();
        BufReader::new(holder.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let network = Self { holder, own_user, logs: folder.join("ros") };
        assert_eq!(line, "ready\n", "no network namespace could be made; what the system said stands above");
        network
    }

    /// A command that runs `program` in it. Its process is the program's: there is no shell between.
    #[must_use]
    pub fn command(&self, program: impl AsRef<OsStr>) -> Command {
        let mut command = Command::new("nsenter");
        command.args(["--target", &self.holder.id().to_string(), "--net", "--mount"]);
        if self.own_user {
            command.args(["--user", "--preserve-credentials"]);
        }
        command
            .arg("--")
            .arg(program)
            .env("ROS_AUTOMATIC_DISCOVERY_RANGE", "LOCALHOST")
            .env("ROS_LOG_DIR", &self.logs)
            .env_remove("ROS_DOMAIN_ID")
            .env_remove("ROS_STATIC_PEERS");
        command
    }
}

impl Drop for Network {
    fn drop(&mut self) {
        // It may have ended by itself; then there is nothing to kill.
        let _ = self.holder.kill();
        let _ = self.holder.wait();
        cleanup::ended(self.holder.id());
    }
}
