//! The section `mirror`: whose feeds a mirror keeps, and how much of them; and `mirrors`, where a machine leaves its grants.

use libp2p::Multiaddr;
use tributary_protocol::ids::Did;

use super::{
    error::ConfigError,
    reader::Field,
    sections::{Follow, peers},
    stream::{Retention, retention},
};
use crate::feeds::FeedLink;

/// What a mirror keeps.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MirrorConfig {
    /// The feeds, each machine once.
    pub feeds: Vec<MirroredFeed>,
    /// Most bytes of chunk bodies of all feeds together; `None` is as much as the store takes.
    pub space: Option<u64>,
    /// Whether grants are kept that machines leave for their buyers.
    pub deposits: bool,
}

impl Default for MirrorConfig {
    fn default() -> Self {
        Self { feeds: Vec::new(), space: None, deposits: true }
    }
}

/// A feed that a mirror keeps.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MirroredFeed {
    /// The machine, and where it may be found.
    pub link: FeedLink,
    /// What of its chunk bodies may be dropped; log entries never are.
    pub retention: Retention,
}

const FEEDS: &str = "a list of feeds, each with `machine: did:peaq:0x…` or a link";
const MACHINE: &str = "did:peaq:0x and 40 lower-case hex digits, or a link tributary://did:peaq:0x…?addr=…";
const MAX_FEEDS: usize = 1024;
/// Less holds not one chunk of the largest size.
const SPACE: std::ops::RangeInclusive<u64> = 1 << 20..=1 << 50;
/// A machine leaves its grants with few others.
const MAX_MIRRORS: usize = 16;

pub(super) fn mirror(field: Option<&Field<'_>>, follow: &[Follow]) -> Result<MirrorConfig, ConfigError> {
    let Some(field) = field else { return Ok(MirrorConfig::default()) };
    let section = field.section()?;
    let default = match section.get("retention") {
        Some(field) => retention(&field, &Retention::default())?,
        None => Retention::default(),
    };
    let mut machines = std::collections::BTreeSet::new();
    let feeds = match section.get("feeds") {
        None => Vec::new(),
        Some(list) => list.list(MAX_FEEDS, FEEDS, |item| {
            let section = item.section()?;
            let machine = section.need("machine", MACHINE)?;
            let mut link = link(&machine)?;
            if let Some(addresses) = section.get("addresses") {
                link = FeedLink::new(link.did, link.addrs.into_iter().chain(peers(&addresses)?).collect());
            }
            if !machines.insert(link.did) {
                return Err(machine.conflict("is kept twice; remove one entry"));
            }
            if follow.iter().any(|follow| follow.machine == link.did) {
                return Err(machine.conflict(
                    "is also in `follow`: what was bought is never dropped, and what a mirror keeps is; use two nodes, or \
                     `buyer.reseed`",
                ));
            }
            let retention = match section.get("retention") {
                Some(field) => retention(&field, &default)?,
                None => default,
            };
            section.finish()?;
            Ok(MirroredFeed { link, retention })
        })?,
    };
    let space = match section.get("space") {
        Some(field) => field.or_none(|field| field.bytes(SPACE))?,
        None => None,
    };
    let deposits = match section.get("deposits") {
        Some(field) => field.one_of(&[("true", true), ("false", false)])?,
        None => true,
    };
    section.finish()?;
    if feeds.is_empty() {
        return Err(field.conflict("names no feed; add at least one to `mirror.feeds`"));
    }
    Ok(MirrorConfig { feeds, space, deposits })
}

fn link(field: &Field<'_>) -> Result<FeedLink, ConfigError> {
    let text = field.text(MACHINE)?;
    match text.parse::<FeedLink>() {
        Ok(link) => Ok(link),
        Err(_) => Ok(FeedLink::new(field.parse::<Did>(MACHINE)?, Vec::new())),
    }
}

/// Where a machine leaves its grants; each ends in `/p2p/<peer id>`.
pub(super) fn mirrors(field: Option<&Field<'_>>) -> Result<Vec<Multiaddr>, ConfigError> {
    let Some(field) = field else { return Ok(Vec::new()) };
    let found = peers(field)?;
    if found.len() > MAX_MIRRORS {
        return Err(field.wrong(format!("at most {MAX_MIRRORS} mirrors")));
    }
    Ok(found)
}
