//! What a testnet is to be: its nodes, who buys what, and their configurations. Pure: no files, no processes, no clock.

use std::{fmt::Write as _, net::Ipv4Addr, path::PathBuf, time::Duration};

use serde::{Deserialize, Serialize};
use tributary_protocol::ids::Did;

use super::TestnetError;
use crate::demo::plan::quoted;

/// The most machines of one testnet.
pub const MAX_MACHINES: u16 = 100;
/// The most buyers of one testnet.
pub const MAX_BUYERS: u16 = 200;
/// The most mirrors of one testnet: as many as a machine leaves its grants with.
pub const MAX_MIRRORS: u16 = 16;
/// The stream of a machine that is fed with made-up packages.
pub(super) const LOAD: &str = "/load";
/// The port of every node that has a network of its own.
pub(super) const PORT: u16 = 4600;
/// Datasets are closed so often: soon enough to see some, not so often that there are thousands in an hour.
const CLOSE_AFTER: &str = "20s";
/// A chunk that is not full is sealed after this.
const CHUNK_AGE: &str = "1s";
/// What a buyer asks for at a time. It is short, so that renewals happen while one watches.
const LIVE: &str = "2m";
/// The longest package that is made up, bytes.
const MAX_PACKAGE: u32 = 64 << 10;

/// How many nodes of each kind.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Topology {
    /// Machines, 1 to [`MAX_MACHINES`].
    pub machines: u16,
    /// Buyers, 0 to [`MAX_BUYERS`]. Buyer 1 is a customer of machine 1, buyer 2 of machine 2, and so on, around.
    pub buyers: u16,
    /// Mirrors, 0 to [`MAX_MIRRORS`]. Each keeps the feeds of all machines.
    #[serde(default)]
    pub mirrors: u16,
}

impl Topology {
    /// Refuses what cannot be.
    ///
    /// # Errors
    ///
    /// [`TestnetError::Plan`] when there are too few or too many of a kind.
    pub fn check(&self) -> Result<(), TestnetError> {
        let Self { machines, buyers, mirrors } = *self;
        if machines == 0 || machines > MAX_MACHINES {
            return Err(TestnetError::Plan(format!(
                "a testnet has 1 to {MAX_MACHINES} machines, and {machines} are asked for"
            )));
        }
        if buyers > MAX_BUYERS {
            return Err(TestnetError::Plan(format!(
                "a testnet has at most {MAX_BUYERS} buyers, and {buyers} are asked for"
            )));
        }
        if mirrors > MAX_MIRRORS {
            return Err(TestnetError::Plan(format!(
                "a testnet has at most {MAX_MIRRORS} mirrors, and {mirrors} are asked for"
            )));
        }
        Ok(())
    }
}

/// What the machines are fed with.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Feed {
    /// A recording, over and over.
    Recording {
        /// The recording; `None` is the one that comes with the program.
        path: Option<PathBuf>,
        /// How many times as fast as it was recorded.
        speed: f64,
    },
    /// Made-up packages of one stream, `/load`.
    Packages {
        /// About so many bytes of text each, 64 to 65,536.
        bytes: u32,
        /// From one to the next; 10 ms or more.
        every: Duration,
    },
}

impl Feed {
    /// Refuses what cannot be.
    ///
    /// # Errors
    ///
    /// [`TestnetError::Plan`] for a speed or a size out of range.
    pub fn check(&self) -> Result<(), TestnetError> {
        match self {
            Self::Recording { speed, .. } if !crate::ingest::SPEEDS.contains(speed) => {
                Err(TestnetError::Plan(format!("a recording can be played 0.01 to 1000 times as fast, not {speed}")))
            }
            Self::Packages { bytes, every }
                if !(64..=MAX_PACKAGE).contains(bytes) || *every < Duration::from_millis(10) =>
            {
                Err(TestnetError::Plan("made-up packages have 64 B to 64 KiB and come at most every 10 ms".to_owned()))
            }
            _ => Ok(()),
        }
    }
}

/// What a node of a testnet does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum NodeRole {
    /// Sells.
    Machine,
    /// Keeps the feeds of machines.
    Mirror,
    /// Buys.
    Buyer,
}

impl NodeRole {
    /// As it is written.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Machine => "machine",
            Self::Mirror => "mirror",
            Self::Buyer => "buyer",
        }
    }
}

/// One node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct NodePlan {
    pub(super) name: String,
    pub(super) role: NodeRole,
    /// The machine whose feed a buyer follows.
    pub(super) follows: Option<String>,
    /// The streams that a buyer buys. It follows all of them.
    pub(super) buys: Vec<String>,
}

/// The nodes of a testnet whose machines have these streams. Every buyer leaves one stream out, each another one: so there is always
/// something that it holds and must not be able to read.
pub(super) fn nodes(topology: Topology, streams: &[String]) -> Vec<NodePlan> {
    let machine = |number: u16| format!("machine-{}", number + 1);
    let machines = (0..topology.machines).map(|number| NodePlan {
        name: machine(number),
        role: NodeRole::Machine,
        follows: None,
        buys: Vec::new(),
    });
    let buyers = (0..topology.buyers).map(|number| {
        let left_out = (streams.len() > 1).then(|| usize::from(number) % streams.len());
        let bought = streams.iter().enumerate().filter(|(at, _)| Some(*at) != left_out);
        NodePlan {
            name: format!("buyer-{}", number + 1),
            role: NodeRole::Buyer,
            follows: Some(machine(number % topology.machines)),
            buys: bought.map(|(_, name)| name.clone()).collect(),
        }
    });
    let mirrors = (0..topology.mirrors).map(|number| NodePlan {
        name: format!("mirror-{}", number + 1),
        role: NodeRole::Mirror,
        follows: None,
        buys: Vec::new(),
    });
    machines.chain(mirrors).chain(buyers).collect()
}

/// The address of node `number` (from 0) in a network of the testnet's own, `10.231.0.0/16`.
pub(super) fn own_address(number: usize) -> Ipv4Addr {
    let number = u16::try_from(number).unwrap_or(u16::MAX).saturating_add(10);
    let [high, low] = number.to_be_bytes();
    Ipv4Addr::new(10, 231, high, low)
}

/// The head of every configuration: the address is all that others reach it at. Policies are about who asks, not how often, and disks
/// are not to be filled for nothing.
fn head(role: NodeRole, listen: &str, peers: &[String]) -> String {
    format!(
        "roles: [{}]\nnetwork:\n  listen: [{listen}]\n  peers: [{}]\n  limits: {{ access_per_minute: 100000 }}\n\
         store: {{ ballast: none }}\n",
        role.name(),
        peers.join(", ")
    )
}

/// Who gets the keys of a stream: those who buy it.
pub(super) fn access(stream: &str, buyers: &[(Did, Vec<String>)]) -> String {
    let allowed = buyers.iter().filter(|(_, buys)| buys.iter().any(|name| name == stream));
    let allowed: Vec<String> = allowed.map(|(did, _)| format!("\"{did}\"")).collect();
    if allowed.is_empty() {
        return "{ policy: manual }".to_owned();
    }
    format!("{{ policy: allowlist, allow: [{}] }}", allowed.join(", "))
}

/// A machine's configuration. `streams` are items of its list; grants are left with `mirrors`.
pub(super) fn machine_config(listen: &str, mirrors: &[String], streams: &str) -> String {
    format!(
        "{}mirrors: [{}]\ndefaults: {{ chunk: {{ max_age: {CHUNK_AGE} }}, close_after: {{ time: {CLOSE_AFTER} }} }}\nstreams:\n{streams}",
        head(NodeRole::Machine, listen, &[]),
        mirrors.join(", ")
    )
}

/// The stream of made-up packages, as an item of the configuration's list.
pub(super) fn load_stream(access: &str) -> String {
    format!("  - topic: {LOAD}\n    mode: fields\n    default: include\n    access: {access}\n")
}

/// A mirror's configuration: it keeps these machines' feeds, each with the address it is found at.
pub(super) fn mirror_config(listen: &str, machines: &[(Did, String)]) -> String {
    let mut text = format!("{}mirror:\n  feeds:\n", head(NodeRole::Mirror, listen, &[]));
    for (machine, at) in machines {
        let _ = writeln!(text, "    - {{ machine: \"{machine}\", addresses: [\"{at}\"] }}");
    }
    text
}

/// A buyer's configuration. `at` is the machine's address with its peer id; it stays connected to the `mirrors`.
pub(super) fn buyer_config(listen: &str, mirrors: &[String], machine: &Did, at: &str, buys: &[String]) -> String {
    let mut text = head(NodeRole::Buyer, listen, mirrors);
    let _ = writeln!(text, "follow:\n  - {{ machine: \"{machine}\", addresses: [\"{at}\"] }}");
    if !buys.is_empty() {
        let names: Vec<String> = buys.iter().map(|name| quoted(name)).collect();
        let _ = writeln!(
            text,
            "buyer:\n  subscriptions:\n    - {{ machine: \"{machine}\", streams: [{}], live: {LIVE}, export: {{ dir: data }} }}",
            names.join(", ")
        );
    }
    text
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::config::{Config, Overrides, Policy};

    fn names(names: &[&str]) -> Vec<String> {
        names.iter().map(|name| (*name).to_owned()).collect()
    }

    #[test]
    fn buyers_go_around_and_each_leaves_another_stream_out() {
        let streams = names(&["/a", "/b", "/c"]);
        let nodes = nodes(Topology { machines: 2, buyers: 3, mirrors: 0 }, &streams);
        let all: Vec<&str> = nodes.iter().map(|node| node.name.as_str()).collect();
        assert_eq!(all, ["machine-1", "machine-2", "buyer-1", "buyer-2", "buyer-3"]);
        let follows: Vec<_> = nodes[2..].iter().map(|node| node.follows.clone().unwrap()).collect();
        assert_eq!(follows, ["machine-1", "machine-2", "machine-1"]);
        assert_eq!(nodes[2].buys, names(&["/b", "/c"]));
        assert_eq!(nodes[3].buys, names(&["/a", "/c"]));
        let one = super::nodes(Topology { machines: 1, buyers: 1, mirrors: 0 }, &names(&["/a"]));
        assert_eq!(one[1].buys, names(&["/a"]), "of one stream nothing can be left out");
    }

    #[test]
    fn the_configurations_are_valid_and_let_in_who_buys() {
        let parse = |text: &str| Config::parse(text, "test.yaml", Path::new("/x"), &Overrides::none()).unwrap();
        let (first, second) = (Did::from_bytes([1; 20]), Did::from_bytes([2; 20]));
        let buyers = [(first, names(&["/load"])), (second, Vec::new())];
        let machine = parse(&machine_config("/ip4/127.0.0.1/tcp/1", &[], &load_stream(&access(LOAD, &buyers))));
        assert!(
            matches!(&machine.streams[0].access.policy, Policy::Allowlist(allow) if allow.contains(&first) && allow.len() == 1)
        );
        let nobody = parse(&machine_config("/ip4/127.0.0.1/tcp/1", &[], &load_stream(&access(LOAD, &buyers[1..]))));
        assert_eq!(nobody.streams[0].access.policy, Policy::Manual);
        let at = "/ip4/127.0.0.1/tcp/1/p2p/12D3KooWK99VoVxNE7XzyBwXEzW7xhK7Gpv85r9F3V3fyKSUKPH5";
        let buyer = parse(&buyer_config("/ip4/127.0.0.1/tcp/2", &[], &first, at, &names(&["/a b", "/load"])));
        assert_eq!(buyer.buyer.subscriptions[0].streams.len(), 2);
        assert!(parse(&buyer_config("/ip4/127.0.0.1/tcp/2", &[], &first, at, &[])).buyer.subscriptions.is_empty());
    }

    #[test]
    fn mirrors_keep_every_feed_and_the_others_know_them() {
        let parse = |text: &str| Config::parse(text, "test.yaml", Path::new("/x"), &Overrides::none()).unwrap();
        let did = Did::from_bytes([1; 20]);
        let at = "/ip4/127.0.0.1/tcp/1/p2p/12D3KooWK99VoVxNE7XzyBwXEzW7xhK7Gpv85r9F3V3fyKSUKPH5".to_owned();
        let mirror = parse(&mirror_config("/ip4/127.0.0.1/tcp/3", &[(did, at.clone())]));
        assert_eq!(mirror.mirror.feeds[0].link.did, did);
        let machine =
            parse(&machine_config("/ip4/127.0.0.1/tcp/1", std::slice::from_ref(&at), &load_stream("{ policy: free }")));
        assert_eq!(machine.mirrors.len(), 1);
        let buyer = parse(&buyer_config("/ip4/127.0.0.1/tcp/2", std::slice::from_ref(&at), &did, &at, &[]));
        assert_eq!(buyer.network.peers.len(), 1);
        let nodes = nodes(Topology { machines: 1, buyers: 1, mirrors: 2 }, &names(&["/a"]));
        let all: Vec<&str> = nodes.iter().map(|node| node.name.as_str()).collect();
        assert_eq!(all, ["machine-1", "mirror-1", "mirror-2", "buyer-1"]);
    }

    #[test]
    fn what_cannot_be_is_refused() {
        assert!(Topology { machines: 0, buyers: 1, mirrors: 0 }.check().is_err());
        assert!(Topology { machines: MAX_MACHINES, buyers: MAX_BUYERS, mirrors: MAX_MIRRORS }.check().is_ok());
        assert!(Topology { machines: 1, buyers: MAX_BUYERS + 1, mirrors: 0 }.check().is_err());
        assert!(Topology { machines: 1, buyers: 1, mirrors: MAX_MIRRORS + 1 }.check().is_err());
        assert!(Feed::Recording { path: None, speed: f64::NAN }.check().is_err());
        assert!(Feed::Packages { bytes: 1024, every: Duration::ZERO }.check().is_err());
        assert!(Feed::Packages { bytes: 1024, every: Duration::from_secs(1) }.check().is_ok());
        assert_eq!(own_address(0), Ipv4Addr::new(10, 231, 0, 10));
        assert_eq!(own_address(299), Ipv4Addr::new(10, 231, 1, 53));
    }
}
