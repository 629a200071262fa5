//! The sections about the node itself: network, store, control, and what a buyer follows.

use std::{
    path::{Path, PathBuf},
    time::Duration,
};

use libp2p::{Multiaddr, multiaddr::Protocol};
use tributary_protocol::ids::Did;

use super::{
    error::ConfigError,
    rates::{self, Profile, RateLimits, rate},
    reaching::{self, DiscoveryConfig, NatConfig},
    reader::{Field, Section},
    resolve,
    stream::{Retention, retention},
};
use crate::net::RelayCaps;
use crate::{
    buyer::{SinkTerms, SubscriptionTerms},
    feeds::JoinPoint,
};

const ADDRESS: &str = "a multiaddr such as /ip4/0.0.0.0/tcp/4600 or /ip4/0.0.0.0/udp/4600/quic-v1";
const PEER: &str = "a multiaddr that ends in the peer's id, such as /ip4/192.0.2.7/tcp/4600/p2p/12D3Koo…";
/// No node needs more addresses of one kind.
const MAX_ADDRESSES: usize = 64;

/// Addresses and limits of the network side.
#[derive(Debug, Clone, PartialEq)]
pub struct NetworkConfig {
    /// What the node is connected by.
    pub profile: Profile,
    /// Addresses to listen on; empty means only outgoing connections.
    pub listen: Vec<Multiaddr>,
    /// Addresses under which others reach this node, when it cannot know them itself (port forwarding).
    pub external: Vec<Multiaddr>,
    /// Peers to connect to at the start and to stay connected to; each ends in `/p2p/<peer id>`.
    pub peers: Vec<Multiaddr>,
    /// Relays that this node wants to be reached through; each ends in `/p2p/<peer id>`.
    pub relays: Vec<Multiaddr>,
    /// What this node does for others with the role relay, at most.
    pub relay: RelayCaps,
    /// How peers are found.
    pub discovery: DiscoveryConfig,
    /// What is done about a NAT.
    pub nat: NatConfig,
    /// Bounds on what others can take.
    pub limits: Limits,
}

/// Bounds on what others can take of this node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Limits {
    /// Established connections in total, 1 to 65536.
    pub connections: u32,
    /// Established connections with one peer, 1 to 64.
    pub connections_per_peer: u32,
    /// Inbound connections of one IPv4 address or IPv6 /64, 1 to 65536.
    pub connections_per_address: u32,
    /// Of these, ones that have not finished the handshake, 1 to 1024.
    pub handshakes_per_address: u32,
    /// Inbound connections of one IPv4 /24 or IPv6 /48, loopback not among them, 1 to 65536.
    pub connections_per_network: u32,
    /// Of these, ones that have not finished the handshake, 1 to 1024.
    pub handshakes_per_network: u32,
    /// As `connections_per_address`, for one loopback address, 1 to 65536.
    pub connections_per_loopback_address: u32,
    /// As `handshakes_per_address`, for one loopback address, 1 to 1024.
    pub handshakes_per_loopback_address: u32,
    /// Pulls served at once, in total, 1 to 4096.
    pub pulls: u32,
    /// Pulls served at once to one peer, 1 to 256.
    pub pulls_per_peer: u32,
    /// Bytes per second served in pulls, in total; `None` is no limit.
    pub pull_bytes_per_second: Option<u64>,
    /// Bytes per second served in pulls to one peer; `None` is no limit.
    pub pull_bytes_per_second_per_peer: Option<u64>,
    /// Bytes per second from this node; what pulls may have of it is `pull_bytes_per_second`.
    pub up: RateLimits,
    /// Bytes per second to this node.
    pub down: RateLimits,
    /// Access messages answered per minute and peer, 1 to 100000.
    pub access_per_minute: u32,
}

/// The chunk store.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoreConfig {
    /// Hard limit in bytes on the store's disk space; `None` is the disk's own.
    pub quota: Option<u64>,
    /// Bytes set aside so that a full disk can still be opened and cleaned; 0 is none.
    pub ballast: u64,
    /// What may be dropped of all streams together.
    pub retention: Retention,
}

/// The control API.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ControlConfig {
    /// Path of the Unix socket; `None` is `control.sock` in the home.
    pub socket: Option<PathBuf>,
}

/// A feed that a buyer follows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Follow {
    /// The machine.
    pub machine: Did,
    /// Where to find it; empty means by the peers of the network.
    pub addresses: Vec<Multiaddr>,
    /// Which of its streams.
    pub streams: FollowStreams,
    /// From where they are followed.
    pub from: JoinPoint,
}

/// Which streams of a machine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum FollowStreams {
    /// All that it announces.
    All,
    /// These, by public name or stream id; an empty list follows only what is announced about streams.
    Named(Vec<String>),
}

/// What a buyer keeps up by itself.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct BuyerConfig {
    /// Whether it serves the feeds that it follows: its log entries and the chunks that it has.
    pub reseed: bool,
    /// Streams whose copy grows by itself.
    pub subscriptions: Vec<Subscription>,
}

/// Live subscriptions to streams of one machine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Subscription {
    /// The machine; it is in `follow`.
    pub machine: Did,
    /// What is done with each of its streams.
    pub streams: Vec<SubscriptionTerms>,
}

fn defaults<'a>(field: Option<Field<'a>>) -> Result<Option<Section<'a>>, ConfigError> {
    field.map(|f| f.section()).transpose()
}

/// Reads `key` of a section that may not be there.
macro_rules! read {
    ($section:expr, $key:literal, $default:expr, $read:expr) => {
        match $section.as_ref().and_then(|s| s.get($key)) {
            Some(field) => $read(&field)?,
            None => $default,
        }
    };
}

fn addresses(field: &Field<'_>) -> Result<Vec<Multiaddr>, ConfigError> {
    field.list(MAX_ADDRESSES, "a list of multiaddrs", |f| f.parse::<Multiaddr>(ADDRESS))
}

pub(super) fn peers(field: &Field<'_>) -> Result<Vec<Multiaddr>, ConfigError> {
    field.list(MAX_ADDRESSES, "a list of multiaddrs with peer ids", |f| {
        let address = f.parse::<Multiaddr>(PEER)?;
        let named = matches!(address.iter().last(), Some(Protocol::P2p(_)));
        if named { Ok(address) } else { Err(f.wrong(PEER)) }
    })
}

pub(super) fn network(field: Option<Field<'_>>) -> Result<NetworkConfig, ConfigError> {
    let section = defaults(field)?;
    let profile = Profile::read(section.as_ref().and_then(|s| s.get("profile")).as_ref())?;
    let out = NetworkConfig {
        profile,
        listen: read!(section, "listen", default_listen(), addresses),
        external: read!(section, "external", Vec::new(), addresses),
        peers: read!(section, "peers", Vec::new(), peers),
        relays: read!(section, "relays", Vec::new(), peers),
        relay: reaching::relay(section.as_ref().and_then(|s| s.get("relay")))?,
        discovery: reaching::discovery(section.as_ref().and_then(|s| s.get("discovery")), peers)?,
        nat: reaching::nat(section.as_ref().and_then(|s| s.get("nat")), profile)?,
        limits: limits(section.as_ref().and_then(|s| s.get("limits")), profile)?,
    };
    section.map_or(Ok(()), Section::finish)?;
    Ok(out)
}

fn default_listen() -> Vec<Multiaddr> {
    use std::net::Ipv4Addr;
    let any = || Multiaddr::from(Ipv4Addr::UNSPECIFIED);
    vec![any().with(Protocol::Tcp(4600)), any().with(Protocol::Udp(4600)).with(Protocol::QuicV1)]
}

fn limits(field: Option<Field<'_>>, profile: Profile) -> Result<Limits, ConfigError> {
    let section = defaults(field)?;
    let (pulls, pulls_per_peer) = if profile.is_metered() { (4, 2) } else { (64, 8) };
    let many = |f: &Field<'_>| f.integer32(1..=65_536);
    let few = |f: &Field<'_>| f.integer32(1..=1_024);
    let out = Limits {
        connections: read!(section, "connections", 256, |f: &Field<'_>| f.integer32(1..=65_536)),
        connections_per_peer: read!(section, "connections_per_peer", 4, |f: &Field<'_>| f.integer32(1..=64)),
        connections_per_address: read!(section, "connections_per_address", 32, many),
        handshakes_per_address: read!(section, "handshakes_per_address", 8, few),
        connections_per_loopback_address: read!(section, "connections_per_loopback_address", 256, many),
        handshakes_per_loopback_address: read!(section, "handshakes_per_loopback_address", 256, few),
        connections_per_network: read!(section, "connections_per_network", 96, many),
        handshakes_per_network: read!(section, "handshakes_per_network", 128, few),
        pulls: read!(section, "pulls", pulls, |f: &Field<'_>| f.integer32(1..=4_096)),
        pulls_per_peer: read!(section, "pulls_per_peer", pulls_per_peer, |f: &Field<'_>| f.integer32(1..=256)),
        pull_bytes_per_second: read!(section, "pull_bytes_per_second", profile.up().pull, rate),
        pull_bytes_per_second_per_peer: read!(section, "pull_bytes_per_second_per_peer", None, rate),
        up: rates::up(section.as_ref().and_then(|s| s.get("up")), profile.up())?,
        down: rates::down(section.as_ref().and_then(|s| s.get("down")), profile.down())?,
        access_per_minute: read!(section, "access_per_minute", 60, |f: &Field<'_>| f.integer32(1..=100_000)),
    };
    section.map_or(Ok(()), Section::finish)?;
    Ok(out)
}

/// Less cannot hold two segments.
const MIN_QUOTA: u64 = 256 << 20;
const MAX_QUOTA: u64 = 1 << 50;

pub(super) fn store(field: Option<Field<'_>>) -> Result<StoreConfig, ConfigError> {
    let section = defaults(field)?;
    let ballast = section.as_ref().and_then(|s| s.get("ballast"));
    let out = StoreConfig {
        quota: read!(section, "quota", None, |f: &Field<'_>| f.or_none(|f| f.bytes(MIN_QUOTA..=MAX_QUOTA))),
        ballast: match &ballast {
            Some(field) => field.or_none(|f| f.bytes(1 << 20..=1 << 36))?.unwrap_or(0),
            None => 64 << 20,
        },
        retention: read!(section, "retention", Retention::default(), |f: &Field<'_>| retention(
            f,
            &Retention::default()
        )),
    };
    section.map_or(Ok(()), Section::finish)?;
    match (out.quota, ballast) {
        (Some(quota), Some(ballast)) if out.ballast > quota / 2 => {
            Err(ballast.conflict("is more than half of `store.quota`; make it smaller"))
        }
        _ => Ok(out),
    }
}

/// The longest path a Unix socket can have on Linux, without the final zero byte.
const MAX_SOCKET_PATH: usize = 107;

pub(super) fn control(field: Option<Field<'_>>, base: &Path) -> Result<ControlConfig, ConfigError> {
    let section = defaults(field)?;
    let socket = read!(section, "socket", None, |f: &Field<'_>| {
        let path = resolve(base, f.text("the path of a Unix socket")?);
        if path.as_os_str().len() > MAX_SOCKET_PATH {
            return Err(f.wrong(format!("a path of at most {MAX_SOCKET_PATH} bytes, home folder included")));
        }
        Ok::<_, ConfigError>(Some(path))
    });
    section.map_or(Ok(()), Section::finish)?;
    Ok(ControlConfig { socket })
}

const FOLLOW: &str = "a list of machines to follow, each with `machine: did:peaq:0x…`";
const MAX_FOLLOWED: usize = 4_096;

pub(super) fn follow(field: Option<&Field<'_>>) -> Result<Vec<Follow>, ConfigError> {
    let Some(field) = field else { return Ok(Vec::new()) };
    let mut machines = std::collections::BTreeSet::new();
    field.list(MAX_FOLLOWED, FOLLOW, |item| {
        let section = item.section()?;
        let did = section.need("machine", "the machine's did:peaq:0x…")?;
        let machine = did.parse::<Did>("did:peaq:0x and 40 lower-case hex digits")?;
        if !machines.insert(machine) {
            return Err(did.conflict("is followed twice; put its streams into one entry"));
        }
        let addresses = section.get("addresses").map(|f| peers(&f)).transpose()?.unwrap_or_default();
        let streams = match section.get("streams") {
            None => FollowStreams::All,
            Some(f) if f.text("").is_ok_and(|text| text == "all") => FollowStreams::All,
            Some(f) => FollowStreams::Named(f.list(1_024, "all, or a list of stream names", |name| {
                name.text("a stream's public name or id").map(str::to_owned)
            })?),
        };
        let from = match section.get("from") {
            None => JoinPoint::Start,
            Some(f) => f.parse("start, now, or dataset: and the 64 hex digits of a closed dataset")?,
        };
        section.finish()?;
        Ok(Follow { machine, addresses, streams, from })
    })
}

const SUBSCRIPTIONS: &str = "a list of subscriptions, each with `machine: did:peaq:0x…` and `streams: […]`";
/// Streams of one subscription; a machine has at most 150.
const MAX_SUBSCRIBED: usize = 150;
/// The shortest file worth a name of its own, and the longest that others can still handle.
const ROTATE: std::ops::RangeInclusive<u64> = 4 << 10..=64 << 30;
/// See `buyer.subscriptions[].export.rotate`.
pub(crate) const DEFAULT_ROTATE: u64 = 64 << 20;
/// See `buyer.subscriptions[].live`.
pub(crate) const DEFAULT_LIVE: Duration = Duration::from_secs(15 * 60);
const MAX_LIVE: Duration = Duration::from_secs(7 * 24 * 60 * 60);

pub(super) fn buyer(field: Option<&Field<'_>>, follow: &[Follow], base: &Path) -> Result<BuyerConfig, ConfigError> {
    let Some(field) = field else { return Ok(BuyerConfig::default()) };
    let section = field.section()?;
    let mut seen = std::collections::BTreeSet::new();
    let subscriptions = match section.get("subscriptions") {
        None => Vec::new(),
        Some(list) => list.list(MAX_FOLLOWED, SUBSCRIPTIONS, |item| {
            let found = subscription(&item, follow, base)?;
            for terms in &found.streams {
                if !seen.insert((found.machine, terms.stream.clone())) {
                    return Err(item.conflict("subscribes to a stream that another entry subscribes to"));
                }
            }
            Ok(found)
        })?,
    };
    let reseed = match section.get("reseed") {
        None => false,
        Some(field) => field.one_of(&[("true", true), ("false", false)])?,
    };
    section.finish()?;
    Ok(BuyerConfig { reseed, subscriptions })
}

fn subscription(item: &Field<'_>, follow: &[Follow], base: &Path) -> Result<Subscription, ConfigError> {
    let section = item.section()?;
    let did = section.need("machine", "the machine's did:peaq:0x…")?;
    let machine = did.parse::<Did>("did:peaq:0x and 40 lower-case hex digits")?;
    let Some(followed) = follow.iter().find(|follow| follow.machine == machine) else {
        return Err(did.conflict("is not followed; add it to `follow`"));
    };
    const STREAMS: &str = "a list of at least one stream, by public name";
    let streams = section.need("streams", STREAMS)?;
    let names = streams.list(MAX_SUBSCRIBED, STREAMS, |name| {
        let text = name.text("a stream's public name")?;
        match &followed.streams {
            FollowStreams::Named(names) if !names.iter().any(|known| known == text) => {
                Err(name.conflict("is not followed; add it to the machine's `streams` in `follow`"))
            }
            _ => Ok(text.to_owned()),
        }
    })?;
    if names.is_empty() {
        return Err(streams.wrong(STREAMS));
    }
    let truth = |field: Option<Field<'_>>| match field {
        None => Ok(true),
        Some(field) => field.one_of(&[("true", true), ("false", false)]),
    };
    let renew = truth(section.get("renew"))?;
    let live = match section.get("live") {
        None => DEFAULT_LIVE,
        Some(field) => field.duration(Duration::from_secs(1)..=MAX_LIVE)?,
    };
    let max_price = match section.get("max_price") {
        None => 0,
        Some(field) => field.parse::<u128>("a whole number, in the smallest units of the machine's token")?,
    };
    let pull = section.get("pull");
    let pulls = truth(pull.clone())?;
    let sink = section.get("export").map(|field| sink(&field, base)).transpose()?;
    section.finish()?;
    if let Some(pull) = pull
        && !pulls
        && (sink.is_some() || !renew)
    {
        return Err(pull.conflict("leaves nothing to export or to do; pull, or leave out the subscription"));
    }
    let terms = |stream: String| SubscriptionTerms {
        stream,
        renew,
        live_seconds: u32::try_from(live.as_secs()).unwrap_or(u32::MAX),
        max_price,
        pull: pulls,
        sink: sink.clone(),
    };
    Ok(Subscription { machine, streams: names.into_iter().map(terms).collect() })
}

fn sink(field: &Field<'_>, base: &Path) -> Result<SinkTerms, ConfigError> {
    let section = field.section()?;
    let dir = resolve(base, section.need("dir", "a folder")?.text("a folder")?);
    let rotate_bytes = match section.get("rotate") {
        None => DEFAULT_ROTATE,
        Some(field) => field.bytes(ROTATE)?,
    };
    section.finish()?;
    Ok(SinkTerms { dir, rotate_bytes })
}
