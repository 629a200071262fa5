//! The composed libp2p behaviour and its settings: which protocols the node speaks, and the limits libp2p itself enforces.
//! No logic of ours runs here.

use std::{sync::Arc, time::Duration};

use libp2p::{
    PeerId, StreamProtocol,
    allow_block_list::{self, AllowedPeers, BlockedPeers},
    autonat,
    connection_limits::{self, ConnectionLimits},
    dcutr,
    gossipsub::{
        self, MaxCountSubscriptionFilter, MessageAuthenticity, MessageId, PeerScoreParams, PeerScoreThresholds,
        TopicScoreParams, ValidationMode,
    },
    identify,
    identity::Keypair,
    mdns, memory_connection_limits, ping, relay,
    request_response::{self, ProtocolSupport},
    swarm::{NetworkBehaviour, behaviour::toggle::Toggle},
    upnp,
};

use super::{
    ACCESS_PROTOCOL, MAX_ACCESS_MESSAGE, MAX_GOSSIP_FRAME, MAX_SYNC_REQUEST, MAX_SYNC_RESPONSE, SYNC_PROTOCOL,
    addresses::AddressLimits,
    config::NetConfig,
    error::StartError,
    event::Counters,
    frame::FrameCodec,
    guard::{Guarded, Terms},
    kad::{Kad, kad},
    meter::Arrivals,
    nudge::Nudge,
    relay_server::RelayServer,
    room::Room,
    scope::Scope,
    shaping::Shaper,
    streams::Streams,
    topics::{self, FeedTopics},
};

/// What gossipsub reads ahead of a frame, bytes. Its size check looks at everything that is buffered, the start of the next
/// frame included, so a reader must tolerate this much more than a sender may send; otherwise two messages near the limit
/// in a row can end the stream.
const GOSSIP_READ_AHEAD: usize = 8 << 10;
/// Most message ids in one gossip control message: 1,500 ids of 32 bytes stay below the frame limit.
const MAX_GOSSIP_IDS: usize = 1500;
/// Requests under way on one connection, both directions.
const STREAMS_PER_CONNECTION: usize = 64;
/// A ping that takes longer is missed: more than what waits before it on a slow uplink takes.
const PING_TIMEOUT: Duration = Duration::from_secs(15);
/// Protocol family told to other nodes.
const IDENTIFY_PROTOCOL: &str = "/tributary/1";

pub(super) type Gossip = gossipsub::Behaviour<Arrivals, MaxCountSubscriptionFilter<FeedTopics>>;
type Requests = request_response::Behaviour<FrameCodec>;

/// Everything the node speaks. What can refuse a connection comes first: the others must not set up state for one that is
/// refused.
#[derive(NetworkBehaviour)]
pub(super) struct Behaviour {
    pub(super) blocked: allow_block_list::Behaviour<BlockedPeers>,
    pub(super) allowed: Toggle<allow_block_list::Behaviour<AllowedPeers>>,
    pub(super) addresses: AddressLimits,
    pub(super) limits: connection_limits::Behaviour,
    pub(super) room: Room,
    pub(super) memory: Toggle<memory_connection_limits::Behaviour>,
    pub(super) identify: identify::Behaviour,
    pub(super) ping: ping::Behaviour,
    pub(super) gossip: Gossip,
    pub(super) nudge: Nudge,
    pub(super) sync: Requests,
    pub(super) access: Requests,
    pub(super) pull: Streams,
    pub(super) peaq: Streams,
    pub(super) relay_client: relay::client::Behaviour,
    pub(super) relay_server: Toggle<RelayServer>,
    pub(super) dcutr: Toggle<Guarded<dcutr::Behaviour>>,
    pub(super) dial_request: Streams,
    pub(super) dial_back: Streams,
    pub(super) autonat_server: Toggle<Guarded<autonat::v2::server::Behaviour>>,
    pub(super) kad: Toggle<Guarded<Kad>>,
    pub(super) mdns: Toggle<Guarded<mdns::tokio::Behaviour>>,
    pub(super) upnp: Toggle<upnp::tokio::Behaviour>,
}

/// The behaviours of raw streams, each with a reader elsewhere.
pub(super) struct RawStreams {
    pub(super) pull: Streams,
    pub(super) peaq: Streams,
    pub(super) dial_request: Streams,
    pub(super) dial_back: Streams,
}

impl Behaviour {
    pub(super) fn new(
        key: &Keypair,
        config: &NetConfig,
        streams: RawStreams,
        relay_client: relay::client::Behaviour,
        counters: &Arc<Counters>,
        shaper: &Arc<Shaper>,
    ) -> Result<Self, StartError> {
        let me = key.public().to_peer_id();
        let floor = Scope::floor(&config.listen);
        let mut blocked = allow_block_list::Behaviour::<BlockedPeers>::default();
        for peer in &config.block {
            blocked.block_peer(*peer);
        }
        let allowed = (!config.allow_only.is_empty()).then(|| {
            let mut allowed = allow_block_list::Behaviour::<AllowedPeers>::default();
            for peer in &config.allow_only {
                allowed.allow_peer(*peer);
            }
            allowed
        });
        let caps = &config.connections;
        let limits = ConnectionLimits::default()
            .with_max_pending_incoming(Some(caps.pending_incoming))
            .with_max_pending_outgoing(Some(caps.pending_outgoing))
            .with_max_established_incoming(Some(caps.incoming))
            .with_max_established_outgoing(Some(caps.outgoing))
            .with_max_established_per_peer(Some(caps.per_peer));
        let memory =
            (caps.memory_bytes > 0).then(|| memory_connection_limits::Behaviour::with_max_bytes(caps.memory_bytes));
        let identify = identify::Config::new(IDENTIFY_PROTOCOL.into(), key.public())
            .with_agent_version(concat!("tributary/", env!("CARGO_PKG_VERSION")).into())
            .with_push_listen_addr_updates(true)
            // The task remembers what peers say of themselves, after a look at it.
            .with_cache_size(0);
        let ping = ping::Config::new().with_interval(config.ping_interval).with_timeout(PING_TIMEOUT);
        let sync = FrameCodec { max_request: MAX_SYNC_REQUEST, max_response: MAX_SYNC_RESPONSE };
        let access = FrameCodec { max_request: MAX_ACCESS_MESSAGE, max_response: MAX_ACCESS_MESSAGE };
        Ok(Self {
            blocked,
            allowed: allowed.into(),
            addresses: AddressLimits::new(caps, Arc::clone(counters)),
            limits: connection_limits::Behaviour::new(limits),
            room: Room::new(caps.incoming),
            memory: memory.into(),
            identify: identify::Behaviour::new(identify),
            ping: ping::Behaviour::new(ping),
            gossip: gossip(config, counters, shaper)?,
            nudge: Nudge::new(),
            sync: requests(SYNC_PROTOCOL, sync, config.sync_timeout),
            access: requests(ACCESS_PROTOCOL, access, config.access_timeout),
            pull: streams.pull,
            peaq: streams.peaq,
            relay_client,
            relay_server: config.relay.as_ref().map(|caps| RelayServer::new(me, caps)).into(),
            dcutr: config.hole_punching.then(|| hole_punching(me, floor)).into(),
            dial_request: streams.dial_request,
            dial_back: streams.dial_back,
            autonat_server: config.autonat_server.then(|| autonat_server(floor)).into(),
            kad: config.kademlia.then(|| kademlia(me, config, floor)).into(),
            mdns: if config.mdns { local_peers(me, floor) } else { None }.into(),
            upnp: config.upnp.then(upnp::tokio::Behaviour::default).into(),
        })
    }
}

fn hole_punching(me: PeerId, floor: Scope) -> Guarded<dcutr::Behaviour> {
    // Three attempts for each relayed connection. The total is slow on purpose: libp2p-dcutr 0.15 remembers every attempt for as
    // long as the process lives, 16 bytes each.
    let minute = Duration::from_secs(60);
    let terms = Terms { floor, as_met: false, per_peer: (6, minute / 2), total: (64, Duration::from_secs(2)) };
    Guarded::new(dcutr::Behaviour::new(me), terms)
}

fn autonat_server(floor: Scope) -> Guarded<autonat::v2::server::Behaviour> {
    // A node has few addresses, and tests each every quarter of an hour.
    let terms =
        Terms { floor, as_met: true, per_peer: (16, Duration::from_secs(30)), total: (64, Duration::from_millis(500)) };
    Guarded::new(autonat::v2::server::Behaviour::default(), terms)
}

fn kademlia(me: PeerId, config: &NetConfig, floor: Scope) -> Guarded<Kad> {
    // A lookup asks some tens of peers.
    let terms = Terms {
        floor,
        as_met: false,
        per_peer: (4, Duration::from_secs(15)),
        total: (256, Duration::from_millis(100)),
    };
    Guarded::new(kad(me, config.relay.is_some(), config.providers.clone()), terms)
}

/// Looks for peers on the local network, where it can.
pub(super) fn local_peers(me: PeerId, floor: Scope) -> Option<Guarded<mdns::tokio::Behaviour>> {
    // It dials nobody by itself; what it knows is looked at before it is dialled.
    let minute = Duration::from_secs(60);
    let terms = Terms { floor, as_met: false, per_peer: (1, minute), total: (1, minute) };
    mdns::tokio::Behaviour::new(mdns::Config::default(), me)
        .inspect_err(|error| tracing::warn!(%error, "peers on the local network cannot be looked for"))
        .ok()
        .map(|mdns| Guarded::new(mdns, terms))
}

fn requests(protocol: &'static str, codec: FrameCodec, timeout: Duration) -> Requests {
    let config = request_response::Config::default()
        .with_request_timeout(timeout)
        .with_max_concurrent_streams(STREAMS_PER_CONNECTION);
    Requests::with_codec(codec, [(StreamProtocol::new(protocol), ProtocolSupport::Full)], config)
}

fn gossip(config: &NetConfig, counters: &Arc<Counters>, shaper: &Arc<Shaper>) -> Result<Gossip, StartError> {
    let setup = |reason: String| StartError::Setup { part: "gossip", reason };
    let settings = gossipsub::ConfigBuilder::default()
        // The authors of messages are known by the signature of the entry inside; the envelope names nobody.
        .validation_mode(ValidationMode::Anonymous)
        .validate_messages()
        .message_id_fn(|message| MessageId::new(blake3::hash(&message.data).as_bytes()))
        .max_transmit_size(MAX_GOSSIP_FRAME + GOSSIP_READ_AHEAD)
        // Counts the list of topics too, and at its default of 16 KiB peers with more than 115 stream topics went unheard.
        .max_control_message_size(MAX_GOSSIP_FRAME + GOSSIP_READ_AHEAD)
        .max_control_messages_sent(MAX_GOSSIP_IDS)
        .connection_handler_queue_len(config.queues.gossip_per_peer)
        .flood_publish(false)
        .heartbeat_interval(config.gossip_heartbeat)
        .heartbeat_initial_delay(config.gossip_heartbeat)
        .build()
        .map_err(|error| setup(error.to_string()))?;
    let arrivals = Arrivals { counters: Arc::clone(counters), shaper: Arc::clone(shaper) };
    let authors = MessageAuthenticity::Anonymous;
    let mut gossip = Gossip::new_with_subscription_filter_and_transform(authors, settings, topics::filter(), arrivals)
        .map_err(|reason| setup(reason.into()))?;
    gossip.with_peer_score(score_params(), PeerScoreThresholds::default()).map_err(setup)?;
    Ok(gossip)
}

fn score_params() -> PeerScoreParams {
    PeerScoreParams {
        // Positive scores stay small, so that a long good record cannot pay for a series of invalid messages.
        topic_score_cap: 10.0,
        // The application score is minus the penalty of `reputation.rs`, on the same scale as the thresholds.
        app_specific_weight: 1.0,
        // A fleet behind one NAT, or a test network on one host, shares an address.
        ip_colocation_factor_weight: 0.0,
        // Honest peers re-graft a little early now and then.
        behaviour_penalty_threshold: 6.0,
        ..PeerScoreParams::default()
    }
}

/// The score parameters of every topic; without them a rejected message costs its sender nothing.
pub(super) fn topic_score() -> TopicScoreParams {
    TopicScoreParams {
        topic_weight: 0.5,
        time_in_mesh_weight: 0.01,
        time_in_mesh_quantum: Duration::from_secs(1),
        time_in_mesh_cap: 300.0,
        first_message_deliveries_weight: 0.1,
        first_message_deliveries_cap: 50.0,
        // Robots are quiet for hours: delivering little is no offence.
        mesh_message_deliveries_weight: 0.0,
        mesh_failure_penalty_weight: 0.0,
        // The square of the count: three invalid messages are -90, below the line where a peer is not listened to.
        invalid_message_deliveries_weight: -20.0,
        invalid_message_deliveries_decay: gossipsub::score_parameter_decay(Duration::from_secs(600)),
        ..TopicScoreParams::default()
    }
}
