//! Namespaces of the system: made by `unshare`, held by a process of the test, entered by `nsenter`.
//!
//! A namespace ends with the last process in it, and the one that holds it ends with the [`Namespace`] or with the test. Who is
//! not root gets a user namespace around it.

use std::{
    ffi::OsStr,
    io::{BufRead as _, BufReader},
    process::{Child, Command, Stdio},
};

use crate::cleanup;

/// Tools of the system are in one of these, whoever runs the tests.
pub(crate) const TOOLS: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
/// Tests must not pass by doing nothing where this is set, as it is in CI.
const NO_SKIPS: &str = "TRIBUTARY_NO_SKIPS";

/// What is namespaced, as `unshare` and `nsenter` call it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// The network.
    Net,
    /// The network, and what is mounted where.
    NetAndMount,
}

impl Kind {
    fn arguments(self) -> &'static [&'static str] {
        match self {
            Self::Net => &["--net"],
            Self::NetAndMount => &["--net", "--mount"],
        }
    }
}

/// A namespace, and the process that holds it.
pub(crate) struct Namespace {
    holder: Child,
    kind: Kind,
    own_user: bool,
}

impl Namespace {
    /// Makes one and runs the script `set_up` in it.
    ///
    /// # Errors
    ///
    /// What the system says against it.
    pub(crate) fn new(kind: Kind, set_up: &str) -> Result<Self, String> {
        let own_user = !rustix::process::geteuid().is_root();
        let mut unshare = Command::new("unshare");
        unshare.args(kind.arguments());
        if own_user {
            unshare.args(["--user", "--map-root-user"]);
        }
        Ok(Self { holder: hold(unshare, set_up)?, kind, own_user })
    }

    /// Makes another network beside this one, of the same user, and runs the script `set_up` in it.
    ///
    /// # Errors
    ///
    /// What the system says against it.
    pub(crate) fn beside(&self, set_up: &str) -> Result<Self, String> {
        let mut unshare = self.command("unshare");
        unshare.args(Kind::Net.arguments());
        Ok(Self { holder: hold(unshare, set_up)?, kind: Kind::Net, own_user: self.own_user })
    }

    /// The process that holds it; `ip link set … netns` takes its id.
    pub(crate) fn pid(&self) -> u32 {
        self.holder.id()
    }

    /// A command that runs `program` in it. Its process is the program's: there is no shell between.
    pub(crate) fn command(&self, program: impl AsRef<OsStr>) -> Command {
        let mut command = Command::new("nsenter");
        command.args(["--target", &self.pid().to_string()]).args(self.kind.arguments());
        if self.own_user {
            command.args(["--user", "--preserve-credentials"]);
        }
        command.arg("--").arg(program);
        command
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        // It may have ended by itself; then there is nothing to kill.
        let _ = self.holder.kill();
        let _ = self.holder.wait();
        cleanup::ended(self.holder.id());
    }
}

/// Runs a shell in a new namespace, which says "ready" once it is set up, and waits for its end.
fn hold(mut unshare: Command, set_up: &str) -> Result<Child, String> {
    unshare.args(["sh", "-c", &format!("{set_up} && echo ready && exec cat")]);
    unshare.env("PATH", TOOLS).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = unshare.spawn().map_err(|error| format!("{unshare:?}: {error}"))?;
    cleanup::child(child.id());
    let mut line = String::new();
    let heard = BufReader::new(child.stdout.take().unwrap()).read_line(&mut line);
    if heard.is_ok() && line == "ready\n" {
        return Ok(child);
    }
    drop(child.stdin.take());
    let pid = child.id();
    let output = child.wait_with_output().unwrap();
    cleanup::ended(pid);
    Err(format!("{unshare:?}: {}", String::from_utf8_lossy(&output.stderr).trim()))
}

/// What the system let us have; `None` where it lets nobody have it. That is said in one line, and is a failure in CI.
///
/// # Panics
///
/// When there is none, and must be.
pub(crate) fn or_skip<T>(what: &str, made: Result<T, String>) -> Option<T> {
    match made {
        Ok(made) => Some(made),
        Err(error) if std::env::var_os(NO_SKIPS).is_some() => panic!("no {what}: {error}"),
        Err(error) => {
            eprintln!("SKIPPED: this test needs {what}, and there are none here: {error}");
            None
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{path::Path, process::Command};

    use super::*;

    fn succeeds(command: &mut Command) -> bool {
        command.env("PATH", TOOLS).status().unwrap().success()
    }

    #[test]
    fn what_is_set_up_in_a_namespace_is_there_and_nowhere_else() {
        const FILE: &str = "/dev/shm/tributary-namespace-test";
        let set_up = format!("ip link set lo up && mount -t tmpfs -o size=1m tmpfs /dev/shm && touch {FILE}");
        let Some(namespace) = or_skip("namespaces", Namespace::new(Kind::NetAndMount, &set_up)) else { return };
        assert!(succeeds(namespace.command("test").args(["-e", FILE])));
        assert!(!Path::new(FILE).exists());

        let beside = namespace.beside("ip link add inside type bridge").unwrap();
        assert!(succeeds(beside.command("ip").args(["link", "show", "inside"])));
        assert!(!succeeds(namespace.command("ip").args(["link", "show", "inside"])));
    }

    #[test]
    fn what_cannot_be_set_up_says_why() {
        let failed = Namespace::new(Kind::Net, "echo 'no such luck' >&2 && false").err();
        assert!(failed.is_some_and(|error| error.contains("no such luck") || error.contains("unshare")));
    }
}
