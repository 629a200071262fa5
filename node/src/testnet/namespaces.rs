//! A network of each node's own, joined by a bridge, which can be cut.
//!
//! A network namespace lives as long as a process in it. So every one has a process that does nothing but keep it, marked as all processes of
//! the testnet are: when they are ended, nothing of the networks is left, and nothing is configured on the computer itself. Made with
//! `unshare`, `nsenter`, `ip` and `nft` of the system. Who is not root gets a user namespace, where the system lets users have one.
//!
//! A cut is a table of nftables in the namespace of each node that drops what comes from and goes to the nodes beyond, and counts it.

use std::{
    collections::{BTreeMap, BTreeSet},
    ffi::{OsStr, OsString},
    net::Ipv4Addr,
    path::{Path, PathBuf},
    process::Stdio,
    time::{Duration, Instant},
};

use serde_json::Value;
use tokio::{io::AsyncWriteExt as _, process::Command};

use super::{
    TestnetError,
    process::{ProcessId, Start, path, start, tail},
    state::World,
};

const BRIDGE: &str = "testnet";
/// The table and the counter of a cut.
const CUT: &str = "tributary_cut";
/// What becomes of a process that keeps a namespace once it has set it up.
const KEEPER: &str = "sleep";
const PATIENCE: Duration = Duration::from_secs(30);

fn refused(reason: impl Into<String>) -> TestnetError {
    TestnetError::Namespaces { reason: reason.into() }
}

/// What makes the command of a process that keeps a namespace: `unshare` and a script that ends by becoming [`KEEPER`].
struct Keeper<'a> {
    id: &'a str,
    log: PathBuf,
}

impl Keeper<'_> {
    async fn keep(&self, before: &[OsString], own_user: bool, script: &str) -> Result<ProcessId, TestnetError> {
        let mut all: Vec<OsString> = before.to_vec();
        all.extend(["unshare", "--net"].map(OsString::from));
        if own_user {
            all.extend(["--user", "--map-root-user"].map(OsString::from));
        }
        all.extend(["sh", "-ec", &format!("{script}; exec {KEEPER} infinity")].map(OsString::from));
        let (program, arguments) = all.split_first().ok_or_else(|| refused("no command"))?;
        let arguments: Vec<&OsStr> = arguments.iter().map(OsString::as_os_str).collect();
        let told = |error: TestnetError| refused(error.to_string());
        let process = start(&Start { program: Path::new(program), arguments, id: self.id, log: self.log.clone() });
        let process = process.map_err(told)?;
        let comm = format!("/proc/{}/comm", process.pid);
        let deadline = Instant::now() + PATIENCE;
        loop {
            if std::fs::read_to_string(&comm).is_ok_and(|name| name.trim() == KEEPER) {
                return Ok(process);
            }
            if !process.is_alive() {
                return Err(refused(tail(&self.log, 3)));
            }
            if Instant::now() >= deadline {
                return Err(refused("a namespace was not set up in time"));
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }
}

impl World {
    /// Makes the network that joins the nodes.
    pub(super) async fn make(id: &str, log: PathBuf) -> Result<Self, TestnetError> {
        let own_user = !rustix::process::geteuid().is_root();
        // Without nftables nothing can be cut: better to know that now.
        let script =
            format!("ip link set lo up; ip link add {BRIDGE} type bridge; ip link set {BRIDGE} up; nft list tables");
        let bridge = Keeper { id, log }.keep(&[], own_user, &script).await?;
        Ok(Self { bridge, own_user })
    }

    /// The beginning of a command that runs where this process is.
    pub(super) fn enter(&self, process: ProcessId) -> Vec<OsString> {
        let target = process.pid.to_string();
        let mut command: Vec<OsString> = ["nsenter", "--target", &target, "--net"].map(OsString::from).into();
        if self.own_user {
            command.extend(["--user", "--preserve-credentials"].map(OsString::from));
        }
        command.push("--".into());
        command
    }

    /// Makes the network of node `number` and joins it to the others. Returns what keeps it.
    pub(super) async fn host(
        &self,
        id: &str,
        log: PathBuf,
        number: usize,
        address: Ipv4Addr,
    ) -> Result<ProcessId, TestnetError> {
        let keeper = Keeper { id, log };
        let host = keeper.keep(&self.enter(self.bridge), false, "ip link set lo up").await?;
        let port = format!("node{number}");
        let join = format!(
            "ip link add {port} type veth peer name eth0 netns {}; ip link set {port} master {BRIDGE} up",
            host.pid
        );
        self.run(self.bridge, &["sh", "-ec", &join], "").await?;
        let settle = format!("ip addr add {address}/16 dev eth0; ip link set eth0 up");
        self.run(host, &["sh", "-ec", &settle], "").await?;
        Ok(host)
    }

    /// Cuts a node off from others. A cut that is there already is replaced.
    pub(super) async fn cut(&self, host: ProcessId, others: &BTreeSet<Ipv4Addr>) -> Result<(), TestnetError> {
        if others.is_empty() {
            return Ok(());
        }
        let others: Vec<String> = others.iter().map(ToString::to_string).collect();
        let others = others.join(", ");
        let rules = format!(
            "table inet {CUT} {{}}
            delete table inet {CUT}
            table inet {CUT} {{
                counter {CUT} {{}}
                chain inwards {{ type filter hook input priority -300;
                    ip saddr {{ {others} }} counter name {CUT} drop
                }}
                chain outwards {{ type filter hook output priority -300;
                    ip daddr {{ {others} }} counter name {CUT} drop
                }}
            }}\n"
        );
        self.run(host, &["nft", "-f", "-"], &rules).await.map(drop)
    }

    /// How many packets the cut of a node has dropped; 0 where there is none.
    pub(super) async fn dropped(&self, host: ProcessId) -> Result<u64, TestnetError> {
        let text = self.run(host, &["nft", "--json", "list", "counters"], "").await?;
        let list: Value = serde_json::from_str(&text).map_err(|error| refused(error.to_string()))?;
        let counters = list["nftables"].as_array().into_iter().flatten().map(|item| &item["counter"]);
        let ours = counters.filter(|counter| counter["table"] == CUT);
        Ok(ours.filter_map(|counter| counter["packets"].as_u64()).sum())
    }

    /// Ends the cut of a node.
    pub(super) async fn heal(&self, host: ProcessId) -> Result<(), TestnetError> {
        let rules = format!("table inet {CUT} {{}}\ndelete table inet {CUT}\n");
        self.run(host, &["nft", "-f", "-"], &rules).await.map(drop)
    }

    /// Runs a command where a process is, to its end.
    async fn run(&self, at: ProcessId, command: &[&str], input: &str) -> Result<String, TestnetError> {
        if !at.is_alive() {
            return Err(refused("the network is gone; take the testnet down and bring it up again"));
        }
        let mut all = self.enter(at);
        all.extend(command.iter().map(OsString::from));
        let (program, arguments) = all.split_first().ok_or_else(|| refused("no command"))?;
        let failed = |error: std::io::Error| refused(format!("{}: {error}", program.to_string_lossy()));
        let mut child = Command::new(program)
            .args(arguments)
            .env("PATH", path())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .map_err(failed)?;
        if let Some(mut stdin) = child.stdin.take() {
            // What does not want its input says so by its end.
            let _ = stdin.write_all(input.as_bytes()).await;
        }
        let output = tokio::time::timeout(PATIENCE, child.wait_with_output()).await;
        let output = output.map_err(|_| refused(format!("{command:?} does not end")))?.map_err(failed)?;
        if !output.status.success() {
            return Err(refused(format!("{command:?}: {}", String::from_utf8_lossy(&output.stderr).trim())));
        }
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }
}

/// For each node of a group, the nodes of the other groups.
pub(super) fn beyond(groups: &[Vec<String>]) -> BTreeMap<&str, BTreeSet<&str>> {
    let mut all = BTreeMap::new();
    for (at, group) in groups.iter().enumerate() {
        let others = groups.iter().enumerate().filter(|(other, _)| *other != at).flat_map(|(_, group)| group);
        let others: BTreeSet<&str> = others.map(String::as_str).collect();
        all.extend(group.iter().map(|node| (node.as_str(), others.clone())));
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_node_is_cut_off_from_every_other_group() {
        let groups = [vec!["a".to_owned(), "b".to_owned()], vec!["c".to_owned()], vec!["d".to_owned()]];
        let all = beyond(&groups);
        assert_eq!(all["a"], BTreeSet::from(["c", "d"]));
        assert_eq!(all["a"], all["b"]);
        assert_eq!(all["c"], BTreeSet::from(["a", "b", "d"]));
        assert!(beyond(&[]).is_empty());
    }
}
