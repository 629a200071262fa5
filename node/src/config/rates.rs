//! Bytes per second, and the profile of a link that is paid for by the byte.

use super::{
    error::ConfigError,
    reader::{Field, Section},
};

/// Slower than this, a chunk of the largest size takes over a minute.
pub(super) const MIN_RATE: u64 = 16 << 10;
/// A terabyte per second stands for any speed.
pub(super) const MAX_RATE: u64 = 1 << 40;

/// What the node is connected by; says what the limits are where the configuration does not.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Profile {
    /// A link without a meter.
    #[default]
    Normal,
    /// A cellular uplink, or whatever else is slow and paid for by the byte: low rates, few pulls at once, small attachments, no
    /// work for strangers.
    Metered,
}

/// Limits of one direction, bytes per second; `None` is no limit. 16 KiB to 1 TiB each.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct RateLimits {
    /// Gossip, sync and pulls together.
    pub total: Option<u64>,
    /// The same, with one peer.
    pub per_peer: Option<u64>,
    /// Gossip.
    pub gossip: Option<u64>,
    /// The sync protocol.
    pub sync: Option<u64>,
    /// Pulls. Up, this is `network.limits.pull_bytes_per_second`.
    pub pull: Option<u64>,
}

impl Profile {
    /// `network.profile`.
    pub(super) fn read(field: Option<&Field<'_>>) -> Result<Self, ConfigError> {
        field.map_or(Ok(Self::Normal), |field| field.one_of(&[("normal", Self::Normal), ("metered", Self::Metered)]))
    }

    /// Whether bytes are paid for.
    #[must_use]
    pub fn is_metered(self) -> bool {
        self == Self::Metered
    }

    /// What goes up where nothing else is said. Half a megabit per second is left free on an uplink of 1.5 Mbit/s.
    pub(super) fn up(self) -> RateLimits {
        let kib = |n: u64| Some(n << 10);
        match self {
            Self::Normal => RateLimits::default(),
            Self::Metered => {
                RateLimits { total: kib(128), per_peer: kib(64), gossip: kib(32), sync: kib(32), pull: kib(64) }
            }
        }
    }

    /// What comes down where nothing else is said.
    pub(super) fn down(self) -> RateLimits {
        let kib = |n: u64| Some(n << 10);
        match self {
            Self::Normal => RateLimits::default(),
            Self::Metered => {
                RateLimits { total: kib(512), per_peer: None, gossip: kib(64), sync: kib(128), pull: kib(256) }
            }
        }
    }
}

/// A rate; `none` is no limit.
pub(super) fn rate(field: &Field<'_>) -> Result<Option<u64>, ConfigError> {
    field.or_none(|field| field.bytes(MIN_RATE..=MAX_RATE))
}

fn one(section: Option<&Section<'_>>, key: &'static str, default: Option<u64>) -> Result<Option<u64>, ConfigError> {
    section.and_then(|section| section.get(key)).map_or(Ok(default), |field| rate(&field))
}

/// `network.limits.up`, without pulls, which have keys of their own beside it.
pub(super) fn up(field: Option<Field<'_>>, defaults: RateLimits) -> Result<RateLimits, ConfigError> {
    let section = field.map(|field| field.section()).transpose()?;
    let out = RateLimits { pull: None, ..directed(section.as_ref(), defaults)? };
    section.map_or(Ok(()), Section::finish)?;
    Ok(out)
}

/// `network.limits.down`.
pub(super) fn down(field: Option<Field<'_>>, defaults: RateLimits) -> Result<RateLimits, ConfigError> {
    let section = field.map(|field| field.section()).transpose()?;
    let pull = one(section.as_ref(), "pull", defaults.pull)?;
    let out = RateLimits { pull, ..directed(section.as_ref(), defaults)? };
    section.map_or(Ok(()), Section::finish)?;
    Ok(out)
}

fn directed(section: Option<&Section<'_>>, defaults: RateLimits) -> Result<RateLimits, ConfigError> {
    Ok(RateLimits {
        total: one(section, "total", defaults.total)?,
        per_peer: one(section, "per_peer", defaults.per_peer)?,
        gossip: one(section, "gossip", defaults.gossip)?,
        sync: one(section, "sync", defaults.sync)?,
        pull: defaults.pull,
    })
}
