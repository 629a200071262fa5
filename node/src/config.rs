//! The node's configuration: one YAML file, with the Data Event Map (the streams and their rules) inside.
//!
//! This module owns the schema, its defaults and its bounds. It reads one file and never writes; it opens nothing else, except
//! the keys of field rules when it is asked to ([`RuleKey::load`], [`StreamConfig::rule_set`]), and the policy file that a
//! configuration of peaq's agent names. What is wrong is refused with the file, line, key and what was expected
//! ([`ConfigError`]); unknown keys are errors. `examples/tributary.yaml` documents every key, and a test proves it.
//!
//! Values come from, strongest first: command line flags (`--set network.listen='[…]'`), the environment
//! (`TRIBUTARY_NETWORK__LISTEN`, two underscores between keys), the file, the defaults.
//!
//! A file whose top key is `stream_agent` is one of peaq's ROS 2 agent, and read as such (`config/agent.rs`).

use std::{
    io::Read as _,
    path::{Path, PathBuf},
    sync::Arc,
};

mod agent;
mod error;
mod hosts;
mod metrics;
mod mirror;
mod overrides;
mod pattern;
mod peaq;
mod rates;
mod reaching;
mod reader;
mod ros2;
mod rules;
mod scenario;
mod sections;
mod stream;
mod units;
mod yaml;

pub use error::{ConfigError, Notice, Place};
pub use metrics::MetricsConfig;
pub use mirror::{MirrorConfig, MirroredFeed};
pub use overrides::Overrides;
pub use pattern::TopicPattern;
pub use peaq::{BuyerToken, OrchestrationConfig, PaymentCheck, PeaqConfig, PriceConfig, SellerAgent};
pub use rates::{Profile, RateLimits};
pub use reaching::{DiscoveryConfig, NatConfig};
pub use ros2::{Durability, History, Qos, Reliability, Ros2Config, Stamp};
pub use rules::{DefaultAction, FieldAction, FieldRule, FieldRules, RuleKey, RulesError};
pub use scenario::{Expectations, Fault, FaultKind, Scenario, ScenarioFeed};
pub(crate) use sections::DEFAULT_ROTATE;
pub use sections::{
    BuyerConfig, ControlConfig, Follow, FollowStreams, Limits, NetworkConfig, StoreConfig, Subscription,
};
pub use stream::{
    Access, ChunkConfig, CloseAfter, Compression, Mode, Overflow, Policy, QueueConfig, Retention, StreamConfig,
};
pub(crate) use stream::{MAX_NAME, MAX_STREAMS, is_name};
pub(crate) use units::{DURATION_FORM, parse_duration};
pub use units::{show_bytes, show_duration};

use reader::Section;
use yaml::{MAX_BYTES, Node};

/// What the node does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Role {
    /// Ingests, seals, publishes feeds, serves pulls, answers access requests.
    Machine,
    /// Follows feeds, requests access, pulls, verifies, decrypts, exports.
    Buyer,
    /// Keeps the feeds of others, entries and ciphertext, and serves them. Holds no keys.
    Mirror,
    /// Carries connections between peers that cannot reach each other, and knows peers. Sees ciphertext only.
    Relay,
}

impl Role {
    /// As it is written in the configuration.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Machine => "machine",
            Self::Buyer => "buyer",
            Self::Mirror => "mirror",
            Self::Relay => "relay",
        }
    }
}

/// Everything that can be configured, checked.
#[derive(Debug, Clone, PartialEq)]
pub struct Config {
    /// What this node does; at least one role, each once.
    pub roles: Vec<Role>,
    /// Addresses and limits.
    pub network: NetworkConfig,
    /// The chunk store.
    pub store: StoreConfig,
    /// The control API.
    pub control: ControlConfig,
    /// Metrics and health over HTTP; `None` is off.
    pub metrics: Option<MetricsConfig>,
    /// Whether a machine forgets the seeds of key epochs that are over, so that only its owner opens what is older.
    pub forget_epochs: bool,
    /// The streams of a machine: the Data Event Map. Names (alias or topic) are unique.
    pub streams: Vec<StreamConfig>,
    /// The feeds a buyer follows.
    pub follow: Vec<Follow>,
    /// What a buyer keeps up by itself.
    pub buyer: BuyerConfig,
    /// What a mirror keeps; no feeds without the role mirror.
    pub mirror: MirrorConfig,
    /// Mirrors with which a machine leaves the grants of its buyers.
    pub mirrors: Vec<libp2p::Multiaddr>,
    /// Files for peaq's tools.
    pub peaq: PeaqConfig,
    /// Live ROS 2 topics; `None` is off.
    pub ros2: Option<Ros2Config>,
    /// What was accepted and a person should know about.
    pub notices: Vec<Notice>,
}

impl Config {
    /// Reads the file at `path` with `overrides` on top.
    pub fn load(path: &Path, overrides: &Overrides) -> Result<Self, ConfigError> {
        let (text, name) = read_text(path)?;
        Self::parse(&text, &name, path.parent().unwrap_or(Path::new("")), overrides)
    }

    /// Reads a configuration from `text`. `file` is its name in messages, `base` the folder that relative paths start from.
    pub fn parse(text: &str, file: &str, base: &Path, overrides: &Overrides) -> Result<Self, ConfigError> {
        let mut root = yaml::parse(text, &yaml::in_file(file.into()))?;
        if let Some(key) = agent::top_key(&root) {
            return agent::read(&root, key, base, overrides);
        }
        overrides.apply(&mut root)?;
        Self::read(&root, base, None)
    }

    /// Whether the entries and chunks of other machines that this node holds are served to whoever asks.
    #[must_use]
    pub fn serves_followed(&self) -> bool {
        self.buyer.reseed || self.has_role(Role::Mirror) || !self.has_role(Role::Buyer)
    }

    /// Reads the tree. With `agent`, the streams are those of peaq's agent's configuration.
    fn read(root: &Node, base: &Path, agent: Option<&agent::Topics>) -> Result<Self, ConfigError> {
        let section = Section::root(root)?;
        let roles = section.need("roles", "a list of roles: machine, buyer, mirror, relay")?;
        let mut seen = Vec::new();
        roles.list(8, "a list of roles", |field| {
            let role = field.one_of(&[
                ("machine", Role::Machine),
                ("buyer", Role::Buyer),
                ("mirror", Role::Mirror),
                ("relay", Role::Relay),
            ])?;
            if seen.contains(&role) {
                return Err(field.conflict("is given twice"));
            }
            seen.push(role);
            Ok(())
        })?;
        if seen.is_empty() {
            return Err(roles.wrong("at least one of machine, buyer, mirror, relay"));
        }
        let network_field = section.get("network");
        let relay_field = match &network_field {
            Some(field) => field.section()?.get("relay"),
            None => None,
        };
        let profile_field = match &network_field {
            Some(field) => field.section()?.get("profile"),
            None => None,
        };
        let network = sections::network(network_field)?;
        if let Some(field) = profile_field
            && network.profile.is_metered()
            && seen.contains(&Role::Relay)
        {
            return Err(field
                .conflict("does not go with the role `relay`: a relay carries what others send; remove one of them"));
        }
        let store = sections::store(section.get("store"))?;
        let control = sections::control(section.get("control"), base)?;
        let metrics = metrics::metrics(section.get("metrics"))?;
        let forget_epochs = match section.get("forget_epochs") {
            Some(field) => field.one_of(&[("true", true), ("false", false)])?,
            None => false,
        };
        let peaq_field = section.get("peaq");
        let peaq = peaq::peaq(peaq_field.clone(), base)?;
        let defaults = stream::Defaults::read(section.get("defaults"))?;
        let streams_field = section.get("streams");
        let streams = match (agent, &streams_field) {
            (Some(_), Some(field)) => return Err(field.conflict("are those of the file's `stream_agent.topics`")),
            (Some(topics), None) => topics.streams(&defaults),
            (None, field) => stream::streams(field.as_ref(), &defaults, base)?,
        };
        let follow_field = section.get("follow");
        let follow = sections::follow(follow_field.as_ref())?;
        let buyer_field = section.get("buyer");
        let buyer = sections::buyer(buyer_field.as_ref(), &follow, base)?;
        let mirror_field = section.get("mirror");
        let mirror = mirror::mirror(mirror_field.as_ref(), &follow)?;
        let mirrors_field = section.get("mirrors");
        let mirrors = mirror::mirrors(mirrors_field.as_ref())?;
        let ros2_field = section.get("ros2");
        let ros2 = ros2::ros2(ros2_field.as_ref())?;
        section.finish()?;
        for (field, empty, role, name) in [
            (ros2_field, ros2.is_none(), Role::Machine, "machine"),
            (relay_field, false, Role::Relay, "relay"),
            (peaq_field, peaq.orchestration.is_none(), Role::Machine, "machine"),
            (streams_field, streams.is_empty(), Role::Machine, "machine"),
            (follow_field, follow.is_empty(), Role::Buyer, "buyer"),
            (buyer_field, buyer == BuyerConfig::default(), Role::Buyer, "buyer"),
            (mirror_field, false, Role::Mirror, "mirror"),
            (mirrors_field, mirrors.is_empty(), Role::Machine, "machine"),
        ] {
            if let Some(field) = field
                && !empty
                && !seen.contains(&role)
            {
                return Err(field.conflict(format!("needs the role `{name}`; add it to `roles` or remove the section")));
            }
        }
        if seen.contains(&Role::Mirror) && mirror.feeds.is_empty() {
            return Err(roles.conflict("has the role `mirror`, and no `mirror.feeds` says whose feeds it keeps"));
        }
        Ok(Self {
            roles: seen,
            network,
            store,
            control,
            metrics,
            forget_epochs,
            streams,
            follow,
            buyer,
            mirror,
            mirrors,
            peaq,
            ros2,
            notices: Vec::new(),
        })
    }

    /// Whether the node has this role.
    #[must_use]
    pub fn has_role(&self, role: Role) -> bool {
        self.roles.contains(&role)
    }

    /// The stream that takes `topic`: the one that names it, or else the first whose pattern means it. From a pattern,
    /// [`StreamConfig::for_topic`] makes the topic's own stream.
    #[must_use]
    pub fn stream_for_topic(&self, topic: &str) -> Option<&StreamConfig> {
        let named = self.streams.iter().find(|s| s.topic == topic);
        named.or_else(|| self.streams.iter().find(|s| s.pattern().is_some_and(|pattern| pattern.matches(topic))))
    }

    /// The stream that is published under `name` (its alias, or its topic when it has none).
    #[must_use]
    pub fn stream_named(&self, name: &str) -> Option<&StreamConfig> {
        self.streams.iter().find(|s| s.name() == name)
    }
}

/// The text of a file, which is bounded, and its name for messages.
fn read_text(path: &Path) -> Result<(String, Arc<str>), ConfigError> {
    let read_error = |source| ConfigError::Read { path: path.to_owned(), source };
    let mut bytes = Vec::new();
    // One byte more than is allowed tells a file at the bound from one beyond it, and a device never ends.
    let limit = u64::try_from(MAX_BYTES).unwrap_or(u64::MAX).saturating_add(1);
    std::fs::File::open(path).map_err(read_error)?.take(limit).read_to_end(&mut bytes).map_err(read_error)?;
    let name: Arc<str> = path.display().to_string().into();
    let text = String::from_utf8(bytes).map_err(|error| {
        let good = &error.as_bytes()[..error.utf8_error().valid_up_to()];
        let line = good.iter().filter(|b| **b == b'\n').count() + 1;
        ConfigError::Syntax {
            place: Place::File { file: Arc::clone(&name), line, column: 1 },
            message: "not UTF-8 text".to_owned(),
        }
    })?;
    Ok((text, name))
}

/// `path` as seen from `base`, unless it is absolute.
fn resolve(base: &Path, path: &str) -> PathBuf {
    base.join(path)
}

#[cfg(test)]
mod tests;
