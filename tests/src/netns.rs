//! Networks for tests: hosts, routers with NAT, and faults, in network namespaces of the test's own.
//!
//! A [`World`] is a namespace with a bridge in it, which plays the Internet. Hosts are further namespaces, joined to the bridge or to
//! each other by veth. All of it belongs to processes of this test, and is gone when they are; nothing leaves the machine, and
//! nothing of the machine is seen from inside. Who is not root uses a user namespace.
//!
//! Faults and NAT are rules of nftables with counters, so that a test can tell that its fault has happened.

use std::{
    ffi::OsStr,
    io::Write as _,
    process::{Command, Stdio},
};

use serde_json::Value;

use crate::{
    link::{Conditions, Link},
    namespace::{Kind, Namespace, TOOLS, or_skip},
    node::program,
};

/// The bridge of a [`World`].
const BRIDGE: &str = "internet";

/// The Internet of one test.
pub struct World(Namespace);

impl World {
    /// Makes one; `None` where the system lets nobody make namespaces. That is said in one line, and is a failure in CI.
    ///
    /// # Panics
    ///
    /// When it cannot be made, and must.
    #[must_use]
    pub fn new() -> Option<Self> {
        let set_up = format!(
            "ip link set lo up && ip link add {BRIDGE} type bridge && ip link set {BRIDGE} up && nft list tables"
        );
        or_skip("network namespaces", Namespace::new(Kind::Net, &set_up)).map(Self)
    }

    /// A host that is not connected to anything yet.
    ///
    /// # Panics
    ///
    /// When none can be made.
    #[must_use]
    pub fn host(&self, name: &str) -> Host {
        Host { name: name.to_owned(), namespace: self.0.beside("ip link set lo up").unwrap(), router: None }
    }

    /// A host on the Internet with this address, such as `198.51.100.7`.
    ///
    /// # Panics
    ///
    /// When none can be made.
    #[must_use]
    pub fn public(&self, name: &str, address: &str) -> Host {
        let host = self.host(name);
        self.attach(&host, "eth0", address);
        host
    }

    /// Connects a host to the Internet.
    fn attach(&self, host: &Host, interface: &str, address: &str) {
        let pid = host.namespace.pid();
        self.sh(&format!("ip link add p{pid} type veth peer name {interface} netns {pid}"));
        self.sh(&format!("ip link set p{pid} master {BRIDGE} up"));
        host.sh(&format!("ip addr add {address}/24 dev {interface} && ip link set {interface} up"));
    }

    /// A host behind a router with NAT: `public` is the router's address on the Internet, and `lan` the first three parts of the
    /// network behind it, where the router has address 1 and the host 2.
    ///
    /// # Panics
    ///
    /// When they cannot be made.
    #[must_use]
    pub fn behind(&self, nat: Nat, name: &str, public: &str, lan: &str) -> Host {
        let (router, mut host) = (self.host(&format!("{name}-router")), self.host(name));
        self.attach(&router, "wan", public);
        let (inside, outside) = (router.namespace.pid(), host.namespace.pid());
        // Made in the router, moved into the host: both are in namespaces of this world's user.
        self.sh(&format!("ip link add lan{inside} type veth peer name eth{inside}"));
        self.sh(&format!(
            "ip link set lan{inside} netns {inside} name lan && ip link set eth{inside} netns {outside} name eth0"
        ));
        router.sh(&format!("ip addr add {lan}.1/24 dev lan && ip link set lan up"));
        router.sh("echo 1 > /proc/sys/net/ipv4/ip_forward");
        host.sh(&format!("ip addr add {lan}.2/24 dev eth0 && ip link set eth0 up && ip route add default via {lan}.1"));
        router.nft(&nat.rules(&format!("{lan}.2")));
        host.router = Some(Box::new(router));
        host
    }

    /// Connects two hosts by a link of these conditions. Each has the given address on its end, `link0`, of one network of 254.
    /// `None` where the system has no TUN devices for us; that is said in one line, and is a failure in CI.
    ///
    /// # Panics
    ///
    /// When they cannot be connected, or must be.
    #[must_use]
    pub fn link(&self, ends: [(&Host, &str); 2], conditions: Conditions) -> Option<Link> {
        let link = or_skip("TUN devices", Link::start(&self.0, conditions))?;
        for ((host, address), device) in ends.into_iter().zip(link.devices()) {
            // What is read from the device stays with the emulator, wherever the device is.
            self.sh(&format!("ip link set {device} netns {} name link0", host.namespace.pid()));
            host.sh(&format!("ip addr add {address}/24 dev link0 && ip link set link0 up"));
        }
        Some(link)
    }

    /// Runs a script where the bridge is.
    fn sh(&self, script: &str) -> String {
        finish(self.0.command("sh").args(["-ec", script]), None)
    }
}

/// What a router does to what passes through it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Nat {
    /// The node's port is forwarded to it, whoever asks.
    FullCone,
    /// A connection keeps its port, and only who was sent something may answer.
    PortRestricted,
    /// Each connection gets a port at random, and only who was sent something may answer.
    Symmetric,
}

/// The port that nodes in a world listen on, over TCP and QUIC.
pub const PORT: u16 = 4600;

impl Nat {
    fn rules(self, host: &str) -> String {
        let random = if self == Self::Symmetric { " fully-random" } else { "" };
        let forward = match self {
            Self::FullCone => format!(
                "iifname wan tcp dport {PORT} counter name forwarded dnat to {host}\n\
                 iifname wan udp dport {PORT} counter name forwarded dnat to {host}"
            ),
            Self::PortRestricted | Self::Symmetric => String::new(),
        };
        // What nobody asked for is dropped before it is noted: else it would take the port that a hole is to be punched for.
        format!(
            "table ip nat {{
                counter forwarded {{}}
                counter unsolicited {{}}
                chain before {{ type nat hook prerouting priority -100;
                    {forward}
                }}
                chain after {{ type nat hook postrouting priority 100;
                    oifname wan masquerade{random}
                }}
                chain inwards {{ type filter hook input priority 0;
                    iifname wan ct state new counter name unsolicited drop
                }}
                chain through {{ type filter hook forward priority 0;
                    iifname wan ct state new ct status dnat accept
                    iifname wan ct state new counter name unsolicited drop
                }}
            }}"
        )
    }
}

/// A host: a network namespace of its own.
pub struct Host {
    name: String,
    namespace: Namespace,
    /// Ends with the host.
    router: Option<Box<Host>>,
}

impl Host {
    /// A command that runs a program in it. Its process is the program's: there is no shell between.
    #[must_use]
    pub fn command(&self, program: impl AsRef<OsStr>) -> Command {
        self.namespace.command(program)
    }

    /// The command that runs a node here.
    #[must_use]
    pub fn node(&self) -> Command {
        let mut command = self.command(program());
        command.args(["run", "-v"]);
        command
    }

    /// Its name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The router that it is behind.
    ///
    /// # Panics
    ///
    /// When it is behind none.
    #[must_use]
    pub fn router(&self) -> &Host {
        self.router.as_ref().expect("it is behind a router")
    }

    /// Runs a script in it, and returns what it prints.
    ///
    /// # Panics
    ///
    /// When the script fails.
    pub fn sh(&self, script: &str) -> String {
        finish(self.command("sh").args(["-ec", script]), None)
    }

    /// Adds rules of nftables.
    ///
    /// # Panics
    ///
    /// When they are refused.
    pub fn nft(&self, rules: &str) {
        finish(self.command("nft").args(["-f", "-"]), Some(rules));
    }

    /// How many packets a named counter of a table has counted.
    ///
    /// # Panics
    ///
    /// When there is no such counter.
    #[must_use]
    pub fn counted(&self, table: &str, counter: &str) -> u64 {
        let family = if table == "nat" { "ip" } else { "inet" };
        let text = finish(self.command("nft").args(["--json", "list", "counter", family, table, counter]), None);
        let list: Value = serde_json::from_str(&text).unwrap();
        let found = list["nftables"].as_array().unwrap().iter().find_map(|item| item["counter"]["packets"].as_u64());
        found.unwrap_or_else(|| panic!("{}: no counter {counter} in {table}: {text}", self.name))
    }

    /// Cuts it off: nothing goes in or out until [`Host::heal`]. What was dropped is counted as `cut` in table `cut`.
    ///
    /// # Panics
    ///
    /// When the rules are refused.
    pub fn cut(&self) {
        self.nft(&drops("cut", ""));
    }

    /// Ends [`Host::cut`], and returns how many packets were dropped.
    ///
    /// # Panics
    ///
    /// When it was not cut off.
    pub fn heal(&self) -> u64 {
        let dropped = self.counted("cut", "cut");
        self.nft("delete table inet cut");
        dropped
    }

    /// Loses one packet of ten, in both directions. What was lost is counted as `lossy` in table `lossy`.
    ///
    /// # Panics
    ///
    /// When the rules are refused.
    pub fn lose_one_in_ten(&self) {
        self.nft(&drops("lossy", "numgen random mod 10 < 1 "));
    }

    /// Lets no more than so many kbit a second out.
    ///
    /// # Panics
    ///
    /// When the system refuses it.
    pub fn shape(&self, kbit: u32) {
        self.sh(&format!("tc qdisc add dev eth0 root tbf rate {kbit}kbit burst 16kb latency 400ms"));
    }

    /// How often something had to wait or was dropped because of [`Host::shape`], and how many bytes went out.
    ///
    /// # Panics
    ///
    /// When it is not shaped.
    #[must_use]
    pub fn shaped(&self) -> (u64, u64) {
        let list: Value = serde_json::from_str(&self.sh("tc -s -j qdisc show dev eth0")).unwrap();
        let shaper = list.as_array().unwrap().iter().find(|qdisc| qdisc["kind"] == "tbf").expect("it is shaped");
        (shaper["overlimits"].as_u64().unwrap(), shaper["bytes"].as_u64().unwrap())
    }
}

/// A table that drops what `which` selects of everything that comes and goes but loopback, and counts it; all under one name.
fn drops(name: &str, which: &str) -> String {
    format!(
        "table inet {name} {{
            counter {name} {{}}
            chain inwards {{ type filter hook input priority -300;
                iifname != lo {which}counter name {name} drop
            }}
            chain outwards {{ type filter hook output priority -300;
                oifname != lo {which}counter name {name} drop
            }}
        }}"
    )
}

/// Runs a command to its end, with something to read, and returns what it prints.
fn finish(command: &mut Command, input: Option<&str>) -> String {
    command.env("PATH", TOOLS).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    let mut stdin = child.stdin.take().unwrap();
    // What fails says so below.
    let _ = stdin.write_all(input.unwrap_or_default().as_bytes());
    drop(stdin);
    let output = child.wait_with_output().unwrap();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    assert!(output.status.success(), "{command:?}: {}", text(&output.stderr));
    text(&output.stdout)
}
