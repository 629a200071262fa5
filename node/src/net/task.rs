//! The task that owns the swarm: carries out commands, sorts events into queues, keeps the books on peers.
//!
//! It never waits for anybody: what does not fit a queue is refused there and then. Its own tables are bounded by the limits
//! on connections and open requests.

use std::{
    collections::{HashMap, VecDeque},
    net::{SocketAddr, TcpListener},
    path::Path,
    sync::{Arc, atomic::AtomicBool},
    time::{Duration, Instant},
};

use futures::StreamExt;
use libp2p::{
    Multiaddr, PeerId, Swarm, SwarmBuilder,
    core::{ConnectedPoint, transport::ListenerId},
    gossipsub::{self, IdentTopic, MessageAcceptance, MessageId, TopicHash},
    identify,
    identity::Keypair,
    multiaddr::Protocol,
    noise, ping,
    request_response::{self, InboundFailure, InboundRequestId, Message, OutboundFailure, OutboundRequestId},
    swarm::{
        ConnectionId, DialError, SwarmEvent,
        dial_opts::{DialOpts, PeerCondition},
    },
    tcp, tls, yamux,
};
use tokio::{
    sync::{broadcast, mpsc, oneshot},
    task::JoinHandle,
};
use tokio_util::sync::CancellationToken;

use super::{
    MAX_ACCESS_MESSAGE, MAX_GOSSIP_MESSAGE, MAX_SYNC_RESPONSE, PULL_PROTOCOL,
    behaviour::{Behaviour, BehaviourEvent, topic_score},
    client::{Client, Command, PullStreams},
    config::NetConfig,
    error::{DialFailure, NetError, PublishError, RequestError, StartError, SubscribeError},
    event::{
        Acceptance, Counters, GossipMessage, InboundRequest, NetEvents, PeerEvent, PeerInfo, PublishOutcome, Reply,
        Responder, Transport, Which, count,
    },
    frame::{FrameError, frame_error},
    reputation::{Offence, Reputation},
    streams::Streams,
    topics::{OwnTopics, is_topic},
};

/// How often penalties fade and ended bans are lifted.
const TICK: Duration = Duration::from_secs(10);
/// Streams of one TCP connection, both directions. Yamux gives each a window of at least 256 KiB.
const MAX_YAMUX_STREAMS: usize = 256;
/// Inbound pull streams that wait for the server, which takes them as fast as it can spawn: all of two connections.
const PULL_QUEUE: usize = 2 * MAX_YAMUX_STREAMS;
/// A connection that misses this many pings in a row is closed.
const MAX_MISSED_PINGS: u32 = 3;
/// A listener must have its address within this time.
const LISTEN_TIMEOUT: Duration = Duration::from_secs(10);
/// Messages that met only full queues and are remembered, so that a retry is not taken for a duplicate.
const MAX_UNSENT: usize = 1024;
/// Most addresses tried for one peer.
const MAX_DIAL_ADDRESSES: usize = 16;

/// Starts the network with the node key `key` and returns its handle, its queues and its task.
///
/// Returns once every address in `config.listen` is bound.
pub async fn start(key: Keypair, config: NetConfig) -> Result<(Client, NetEvents, JoinHandle<()>), StartError> {
    let counters = Arc::new(Counters::default());
    let serving = Arc::new(AtomicBool::new(false));
    let (streams, incoming) = Streams::new(PULL_PROTOCOL, PULL_QUEUE, Arc::clone(&serving), Arc::clone(&counters));
    let mut swarm = build_swarm(key, &config, streams)?;
    listen(&mut swarm, &config.listen).await?;

    let (command_tx, commands) = mpsc::channel(config.queues.commands.max(1));
    let (reply_tx, replies) = mpsc::channel(config.queues.commands.max(1));
    let (gossip_tx, gossip) = mpsc::channel(config.queues.gossip.max(1));
    let (sync_tx, sync) = mpsc::channel(config.queues.sync.max(1));
    let (access_tx, access) = mpsc::channel(config.queues.access.max(1));
    let (peer_events, _) = broadcast::channel(config.queues.peer_events.max(1));
    let stop = CancellationToken::new();
    let client = Client {
        peer_id: *swarm.local_peer_id(),
        commands: command_tx,
        pulls: PullStreams::new(serving, incoming),
        peer_events: peer_events.clone(),
        stop: stop.clone(),
        counters: Arc::clone(&counters),
        open_timeout: config.open_timeout,
    };
    let task = Task {
        swarm,
        config,
        commands,
        replies,
        reply_tx,
        gossip_tx,
        sync_tx,
        access_tx,
        peer_events,
        stop,
        counters,
        own_topics: OwnTopics::default(),
        unsent: VecDeque::new(),
        dials: HashMap::new(),
        asked: HashMap::new(),
        answering: HashMap::new(),
        peers: HashMap::new(),
        reputation: Reputation::default(),
    };
    Ok((client, NetEvents { gossip, sync, access }, tokio::spawn(task.run())))
}

fn build_swarm(key: Keypair, config: &NetConfig, streams: Streams) -> Result<Swarm<Behaviour>, StartError> {
    fn setup<E: std::fmt::Display>(part: &'static str) -> impl FnOnce(E) -> StartError {
        move |error| StartError::Setup { part, reason: error.to_string() }
    }
    let behaviour = Behaviour::new(&key, config, streams)?;
    let builder = SwarmBuilder::with_existing_identity(key)
        .with_tokio()
        .with_tcp(tcp::Config::default().nodelay(true), (tls::Config::new, noise::Config::new), || {
            let mut muxer = yamux::Config::default();
            muxer.set_max_num_streams(MAX_YAMUX_STREAMS);
            muxer
        })
        .map_err(setup("TLS and Noise"))?
        .with_quic();
    let swarm_config = |swarm: libp2p::swarm::Config| {
        let swarm = swarm.with_idle_connection_timeout(config.idle_timeout);
        if config.smart_dial { swarm.with_smart_dial() } else { swarm }
    };
    // A robot without a resolver must still start: it then knows no `/dns` addresses.
    if Path::new("/etc/resolv.conf").exists() {
        let builder = builder.with_dns().map_err(setup("DNS"))?;
        let builder = builder.with_behaviour(|_| behaviour).map_err(setup("protocols"))?;
        Ok(builder.with_swarm_config(swarm_config).build())
    } else {
        let builder = builder.with_behaviour(|_| behaviour).map_err(setup("protocols"))?;
        Ok(builder.with_swarm_config(swarm_config).build())
    }
}

/// Listens on all addresses and waits until each is bound. Nobody is connected yet, so other events cannot get lost here.
async fn listen(swarm: &mut Swarm<Behaviour>, addresses: &[Multiaddr]) -> Result<(), StartError> {
    let failed = |address: &Multiaddr, reason: String| StartError::Listen { address: address.clone(), reason };
    let mut waiting: HashMap<ListenerId, &Multiaddr> = HashMap::new();
    for address in addresses {
        check_free(address).map_err(|error| failed(address, error.to_string()))?;
        let id = swarm.listen_on(address.clone()).map_err(|error| failed(address, error.to_string()))?;
        waiting.insert(id, address);
    }
    let deadline = tokio::time::Instant::now() + LISTEN_TIMEOUT;
    while let Some(address) = waiting.values().next().copied() {
        let event = tokio::time::timeout_at(deadline, swarm.select_next_some())
            .await
            .map_err(|_| failed(address, "no address after 10 s".into()))?;
        match event {
            SwarmEvent::NewListenAddr { listener_id, .. } => drop(waiting.remove(&listener_id)),
            SwarmEvent::ListenerError { listener_id, error } => {
                if let Some(address) = waiting.get(&listener_id) {
                    return Err(failed(address, error.to_string()));
                }
            }
            SwarmEvent::ListenerClosed { listener_id, reason, .. } => {
                if let Some(address) = waiting.get(&listener_id) {
                    let reason = reason.err().map_or_else(|| "closed".into(), |error| error.to_string());
                    return Err(failed(address, reason));
                }
            }
            _ => {}
        }
    }
    Ok(())
}

/// Fails when somebody listens on a TCP address already. libp2p lets sockets share a port, so two nodes with one address would
/// both start, and each get some of the other's connections.
fn check_free(address: &Multiaddr) -> std::io::Result<()> {
    let mut parts = address.iter();
    let ip: std::net::IpAddr = match parts.next() {
        Some(Protocol::Ip4(ip)) => ip.into(),
        Some(Protocol::Ip6(ip)) => ip.into(),
        _ => return Ok(()),
    };
    match parts.next() {
        Some(Protocol::Tcp(port)) if port != 0 => TcpListener::bind(SocketAddr::new(ip, port)).map(drop),
        _ => Ok(()),
    }
}

type Dialled = oneshot::Sender<Result<PeerId, DialFailure>>;
type Answered = oneshot::Sender<Result<Vec<u8>, RequestError>>;

/// One connection to a peer.
struct Connection {
    endpoint: ConnectedPoint,
    rtt: Option<Duration>,
    missed_pings: u32,
}

/// A connected peer.
#[derive(Default)]
struct Peer {
    connections: HashMap<ConnectionId, Connection>,
    protocols: Vec<String>,
    agent: String,
}

struct Task {
    swarm: Swarm<Behaviour>,
    config: NetConfig,
    commands: mpsc::Receiver<Command>,
    replies: mpsc::Receiver<Reply>,
    reply_tx: mpsc::Sender<Reply>,
    gossip_tx: mpsc::Sender<GossipMessage>,
    sync_tx: mpsc::Sender<InboundRequest>,
    access_tx: mpsc::Sender<InboundRequest>,
    peer_events: broadcast::Sender<PeerEvent>,
    stop: CancellationToken,
    counters: Arc<Counters>,
    own_topics: OwnTopics,
    /// Messages gossipsub remembers as sent although every queue was full.
    unsent: VecDeque<MessageId>,
    /// Dials somebody waits for; bounded by the limit on pending connections.
    dials: HashMap<ConnectionId, (String, Dialled)>,
    /// Our requests without an answer; bounded by `queues.outbound_requests`.
    asked: HashMap<(Which, OutboundRequestId), Answered>,
    /// Requests of peers that were handed on; bounded per peer by `requests_per_peer`.
    answering: HashMap<(Which, InboundRequestId), PeerId>,
    /// Bounded by the limits on connections.
    peers: HashMap<PeerId, Peer>,
    reputation: Reputation,
}

impl Task {
    async fn run(mut self) {
        let mut tick = tokio::time::interval(TICK);
        tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                () = self.stop.cancelled() => break,
                event = self.swarm.select_next_some() => self.on_event(event),
                command = self.commands.recv() => match command {
                    Some(command) => self.on_command(command),
                    None => break,
                },
                Some(reply) = self.replies.recv() => self.on_reply(reply),
                _ = tick.tick() => self.on_tick(),
            }
        }
        self.stop.cancel();
        tracing::debug!("network stopped");
    }

    fn on_command(&mut self, command: Command) {
        match command {
            Command::ListenAddrs(back) => answer(back, self.listen_addrs()),
            Command::Dial(address, back) => self.dial(address, back),
            Command::Connect(peer, addresses, back) => self.connect(peer, addresses, back),
            Command::Disconnect(peer) => drop(self.swarm.disconnect_peer_id(peer)),
            Command::Subscribe(topic, back) => answer(back, self.subscribe(&topic)),
            Command::Unsubscribe(topic, back) => {
                self.own_topics.remove(&topic);
                answer(back, self.swarm.behaviour_mut().gossip.unsubscribe(&IdentTopic::new(topic)));
            }
            Command::Publish(topic, bytes, back) => answer(back, self.publish(topic, bytes)),
            Command::Report(id, source, acceptance) => self.report(&id, source, acceptance),
            Command::Request(which, peer, bytes, back) => self.request(which, peer, bytes, back),
            Command::OpenPull(peer, back) => self.swarm.behaviour_mut().pull.open(peer, back),
            Command::Peers(back) => answer(back, self.peer_list()),
            Command::Ban(peer) => self.ban(peer, None),
            Command::Unban(peer) => {
                self.reputation.forgive(&peer);
                self.swarm.behaviour_mut().blocked.unblock_peer(peer);
            }
            Command::Penalize(peer, offence) => self.penalize(peer, offence),
        }
    }

    fn listen_addrs(&self) -> Vec<Multiaddr> {
        let me = *self.swarm.local_peer_id();
        self.swarm.listeners().map(|address| address.clone().with(Protocol::P2p(me))).collect()
    }

    fn dial(&mut self, address: Multiaddr, back: Dialled) {
        let target = address.iter().find_map(|part| if let Protocol::P2p(peer) = part { Some(peer) } else { None });
        let bare: Multiaddr = address.iter().filter(|part| !matches!(part, Protocol::P2p(_))).collect();
        match target {
            _ if target == Some(*self.swarm.local_peer_id()) || self.swarm.listeners().any(|own| *own == bare) => {
                answer(back, Err(DialFailure::Myself(address)));
            }
            Some(peer) if self.swarm.is_connected(&peer) => answer(back, Ok(peer)),
            _ => self.start_dial(address.to_string(), DialOpts::unknown_peer_id().address(address).build(), back),
        }
    }

    fn connect(&mut self, peer: PeerId, mut addresses: Vec<Multiaddr>, back: Dialled) {
        if self.swarm.is_connected(&peer) {
            answer(back, Ok(peer));
            return;
        }
        addresses.truncate(MAX_DIAL_ADDRESSES);
        for address in &addresses {
            // Remembered (in a bounded table), so that a later request can dial by itself.
            self.swarm.add_peer_address(peer, address.clone());
        }
        let opts = DialOpts::peer_id(peer)
            .addresses(addresses)
            .extend_addresses_through_behaviour()
            .condition(PeerCondition::Disconnected)
            .build();
        self.start_dial(peer.to_string(), opts, back);
    }

    fn start_dial(&mut self, target: String, opts: DialOpts, back: Dialled) {
        let id = opts.connection_id();
        match self.swarm.dial(opts) {
            Ok(()) => drop(self.dials.insert(id, (target, back))),
            Err(error) => answer(back, Err(dial_failure(target, None, error))),
        }
    }

    fn subscribe(&mut self, topic: &str) -> Result<bool, SubscribeError> {
        if !self.own_topics.insert(topic)? {
            return Ok(false);
        }
        let ident = IdentTopic::new(topic);
        let gossip = &mut self.swarm.behaviour_mut().gossip;
        // Scoring was switched on at the start, so this cannot be refused.
        if let Err(reason) = gossip.set_topic_params(ident.clone(), topic_score()) {
            tracing::warn!(topic, reason, "topic without scoring");
        }
        // The filter of gossipsub asks the same question as `OwnTopics`, so this is refused only if the two drift apart.
        gossip.subscribe(&ident).map_err(|_| self.own_topics.refuse(topic))
    }

    fn publish(&mut self, topic: String, bytes: Vec<u8>) -> Result<PublishOutcome, PublishError> {
        if !is_topic(&topic) {
            return Err(PublishError::Topic(topic.chars().take(160).collect()));
        }
        let id = MessageId::new(blake3::hash(&bytes).as_bytes());
        let topic = TopicHash::from_raw(topic);
        let gossip = &mut self.swarm.behaviour_mut().gossip;
        match gossip.publish(topic.clone(), bytes) {
            Ok(_) => {
                count(&self.counters.gossip_sent);
                let listeners = gossip.all_peers().filter(|(_, topics)| topics.contains(&&topic)).count();
                self.unsent.retain(|unsent| *unsent != id);
                Ok(PublishOutcome::Sent { listeners: listeners.max(1) })
            }
            Err(gossipsub::PublishError::NoPeersSubscribedToTopic) => Ok(PublishOutcome::NoPeers),
            // Gossipsub notes the id before it tries the queues, so for a minute a retry looks like a duplicate.
            Err(gossipsub::PublishError::Duplicate) if self.unsent.contains(&id) => Ok(PublishOutcome::QueuesFull),
            Err(gossipsub::PublishError::Duplicate) => Ok(PublishOutcome::Duplicate),
            Err(gossipsub::PublishError::AllQueuesFull(_)) => {
                if self.unsent.len() >= MAX_UNSENT {
                    self.unsent.pop_front();
                }
                self.unsent.push_back(id);
                Ok(PublishOutcome::QueuesFull)
            }
            Err(error) => Err(PublishError::Refused(error.to_string())),
        }
    }

    fn report(&mut self, id: &MessageId, source: PeerId, acceptance: Acceptance) {
        let verdict = match acceptance {
            Acceptance::Accept => MessageAcceptance::Accept,
            Acceptance::Ignore => MessageAcceptance::Ignore,
            Acceptance::Reject => {
                count(&self.counters.gossip_rejected);
                MessageAcceptance::Reject
            }
        };
        let known = self.swarm.behaviour_mut().gossip.report_message_validation_result(id, &source, verdict);
        if !known && acceptance == Acceptance::Reject {
            // It fell out of gossipsub's cache before the verdict, so the score did not hear of it.
            self.penalize(source, Offence::InvalidGossip);
        }
    }

    fn request(&mut self, which: Which, peer: PeerId, bytes: Vec<u8>, back: Answered) {
        let open = self.asked.len();
        if open >= self.config.queues.outbound_requests {
            answer(back, Err(RequestError::TooManyOpen { open }));
            return;
        }
        let behaviour = self.swarm.behaviour_mut();
        let id = match which {
            Which::Sync => behaviour.sync.send_request(&peer, Ok(bytes)),
            Which::Access => behaviour.access.send_request(&peer, Ok(bytes)),
        };
        self.asked.insert((which, id), back);
    }

    fn on_reply(&mut self, reply: Reply) {
        let behaviour = self.swarm.behaviour_mut();
        let sent = match reply.which {
            Which::Sync => behaviour.sync.send_response(reply.channel, reply.bytes),
            Which::Access => behaviour.access.send_response(reply.channel, reply.bytes),
        };
        if sent.is_err() {
            tracing::debug!(protocol = reply.which.protocol(), "the peer no longer waits for this answer");
        }
    }

    fn peer_list(&self) -> Vec<PeerInfo> {
        let gossip = &self.swarm.behaviour().gossip;
        let info = |(id, peer): (&PeerId, &Peer)| {
            let shown = peer.connections.values().min_by_key(|connection| connection.endpoint.is_relayed())?;
            let addr = shown.endpoint.get_remote_address().clone();
            Some(PeerInfo {
                peer: *id,
                direct: !shown.endpoint.is_relayed(),
                inbound: shown.endpoint.is_listener(),
                transport: Transport::of(&addr),
                addr,
                rtt: shown.rtt,
                protocols: peer.protocols.clone(),
                agent: peer.agent.clone(),
                connections: peer.connections.len(),
                score: gossip.peer_score(id).unwrap_or(0.0),
            })
        };
        self.peers.iter().filter_map(info).collect()
    }

    fn penalize(&mut self, peer: PeerId, offence: Offence) {
        let now = Instant::now();
        let verdict = self.reputation.offend(peer, offence, now);
        tracing::debug!(%peer, ?offence, penalty = verdict.penalty, "peer penalized");
        self.swarm.behaviour_mut().gossip.set_application_score(&peer, -verdict.penalty);
        if verdict.ban {
            self.ban(peer, now.checked_add(self.config.ban_time));
        }
    }

    fn ban(&mut self, peer: PeerId, until: Option<Instant>) {
        let lifted = self.reputation.ban(peer, until);
        let blocked = &mut self.swarm.behaviour_mut().blocked;
        if let Some(lifted) = lifted {
            blocked.unblock_peer(lifted);
        }
        if blocked.block_peer(peer) {
            count(&self.counters.bans);
            tracing::info!(%peer, "peer banned");
            self.tell(PeerEvent::Banned(peer));
        }
    }

    fn on_tick(&mut self) {
        let (ended, penalties) = self.reputation.tick(Instant::now());
        for peer in ended {
            self.swarm.behaviour_mut().blocked.unblock_peer(peer);
        }
        for (peer, penalty) in penalties {
            self.swarm.behaviour_mut().gossip.set_application_score(&peer, -penalty);
        }
    }

    /// Tells whoever watches; nobody has to.
    fn tell(&self, event: PeerEvent) {
        let _ = self.peer_events.send(event);
    }

    fn on_event(&mut self, event: SwarmEvent<BehaviourEvent>) {
        match event {
            SwarmEvent::Behaviour(event) => self.on_behaviour(event),
            SwarmEvent::ConnectionEstablished { peer_id, connection_id, endpoint, num_established, .. } => {
                let connection = Connection { endpoint, rtt: None, missed_pings: 0 };
                self.peers.entry(peer_id).or_default().connections.insert(connection_id, connection);
                if let Some((_, back)) = self.dials.remove(&connection_id) {
                    answer(back, Ok(peer_id));
                }
                if num_established.get() == 1 {
                    self.tell(PeerEvent::Connected(peer_id));
                }
            }
            SwarmEvent::ConnectionClosed { peer_id, connection_id, num_established, .. } => {
                if let Some(peer) = self.peers.get_mut(&peer_id) {
                    peer.connections.remove(&connection_id);
                }
                if num_established == 0 {
                    self.peers.remove(&peer_id);
                    self.answering.retain(|_, peer| *peer != peer_id);
                    self.tell(PeerEvent::Disconnected(peer_id));
                }
            }
            SwarmEvent::OutgoingConnectionError { connection_id, peer_id, error } => {
                if let Some((target, back)) = self.dials.remove(&connection_id) {
                    answer(back, Err(dial_failure(target, peer_id, error)));
                }
            }
            SwarmEvent::IncomingConnectionError { send_back_addr, error, .. } => {
                tracing::debug!(address = %send_back_addr, %error, "inbound connection refused or failed");
            }
            SwarmEvent::NewListenAddr { address, .. } => tracing::info!(%address, "listening"),
            SwarmEvent::ExpiredListenAddr { address, .. } => tracing::info!(%address, "no longer listening"),
            SwarmEvent::ListenerClosed { addresses, reason: Err(error), .. } => {
                tracing::error!(?addresses, %error, "a listener failed; peers can no longer dial this address");
            }
            SwarmEvent::ListenerError { error, .. } => tracing::warn!(%error, "listener"),
            _ => {}
        }
    }

    fn on_behaviour(&mut self, event: BehaviourEvent) {
        match event {
            BehaviourEvent::Gossip(event) => self.on_gossip(event),
            BehaviourEvent::Sync(event) => self.on_request_event(Which::Sync, event),
            BehaviourEvent::Access(event) => self.on_request_event(Which::Access, event),
            BehaviourEvent::Identify(identify::Event::Received { peer_id, info, .. }) => {
                if let Some(peer) = self.peers.get_mut(&peer_id) {
                    peer.protocols = info.protocols.iter().map(ToString::to_string).collect();
                    peer.agent = info.agent_version;
                    self.tell(PeerEvent::Identified(peer_id));
                }
            }
            BehaviourEvent::Ping(ping::Event { peer, connection, result }) => {
                let known = self.peers.get_mut(&peer).and_then(|peer| peer.connections.get_mut(&connection));
                let Some(state) = known else { return };
                match result {
                    Ok(rtt) => (state.rtt, state.missed_pings) = (Some(rtt), 0),
                    Err(ping::Failure::Unsupported) => {}
                    Err(error) => {
                        state.missed_pings += 1;
                        if state.missed_pings >= MAX_MISSED_PINGS {
                            tracing::debug!(%peer, %error, "connection is dead");
                            self.swarm.close_connection(connection);
                        }
                    }
                }
            }
            _ => {}
        }
    }

    fn on_gossip(&mut self, event: gossipsub::Event) {
        match event {
            gossipsub::Event::Message { propagation_source, message_id, message } => {
                if message.data.len() > MAX_GOSSIP_MESSAGE {
                    count(&self.counters.bad_frames);
                    self.report(&message_id, propagation_source, Acceptance::Reject);
                    return;
                }
                let gossip = GossipMessage {
                    id: message_id,
                    source: propagation_source,
                    topic: message.topic.into_string(),
                    bytes: message.data,
                };
                match self.gossip_tx.try_send(gossip) {
                    Ok(()) => count(&self.counters.gossip_received),
                    Err(mpsc::error::TrySendError::Full(message) | mpsc::error::TrySendError::Closed(message)) => {
                        count(&self.counters.gossip_dropped);
                        self.report(&message.id, message.source, Acceptance::Ignore);
                    }
                }
            }
            gossipsub::Event::Subscribed { peer_id, topic } => {
                self.tell(PeerEvent::Subscribed { peer: peer_id, topic: topic.into_string() });
            }
            gossipsub::Event::Unsubscribed { peer_id, topic } => {
                self.tell(PeerEvent::Unsubscribed { peer: peer_id, topic: topic.into_string() });
            }
            gossipsub::Event::SlowPeer { peer_id, .. } => {
                tracing::debug!(peer = %peer_id, "peer is slow to take gossip")
            }
            gossipsub::Event::GossipsubNotSupported { peer_id } => {
                tracing::debug!(peer = %peer_id, "peer speaks no gossip");
            }
        }
    }

    fn on_request_event(&mut self, which: Which, event: request_response::Event<Result<Vec<u8>, FrameError>, Vec<u8>>) {
        match event {
            request_response::Event::Message { peer, message, .. } => match message {
                Message::Request { request_id, request, channel } => match request {
                    Ok(request) => self.on_request(which, peer, request_id, request, channel),
                    // The channel is dropped, which closes the stream.
                    Err(error) => self.bad_frame(peer, error),
                },
                Message::Response { request_id, response } => self.answered(which, request_id, Ok(response)),
            },
            request_response::Event::OutboundFailure { peer, request_id, error, .. } => {
                let error = self.outbound_failure(which, peer, error);
                self.answered(which, request_id, Err(error));
            }
            request_response::Event::InboundFailure { peer, request_id, error, .. } => {
                self.answering.remove(&(which, request_id));
                if matches!(error, InboundFailure::Timeout | InboundFailure::Io(_)) {
                    tracing::debug!(%peer, protocol = which.protocol(), %error, "request without an answer");
                }
            }
            request_response::Event::ResponseSent { request_id, .. } => {
                self.answering.remove(&(which, request_id));
            }
        }
    }

    fn on_request(
        &mut self,
        which: Which,
        peer: PeerId,
        id: InboundRequestId,
        bytes: Vec<u8>,
        channel: request_response::ResponseChannel<Vec<u8>>,
    ) {
        let (queue, max) = match which {
            Which::Sync => (&self.sync_tx, MAX_SYNC_RESPONSE),
            Which::Access => (&self.access_tx, MAX_ACCESS_MESSAGE),
        };
        let open = self.answering.iter().filter(|((of, _), who)| *of == which && **who == peer).count();
        let responder = Responder { which, max, channel, replies: self.reply_tx.clone() };
        let request = InboundRequest { peer, bytes, responder };
        let refused = if open >= self.config.requests_per_peer {
            Some(request)
        } else {
            match queue.try_send(request) {
                Ok(()) => None,
                Err(mpsc::error::TrySendError::Full(request) | mpsc::error::TrySendError::Closed(request)) => {
                    Some(request)
                }
            }
        };
        let Some(request) = refused else {
            count(&self.counters.requests_received);
            self.answering.insert((which, id), peer);
            return;
        };
        count(&self.counters.requests_busy);
        let busy = match which {
            Which::Sync => &self.config.sync_busy,
            Which::Access => &self.config.access_busy,
        };
        if !busy.is_empty() {
            let bytes = busy.clone();
            self.on_reply(Reply { which, channel: request.responder.channel, bytes });
        }
    }

    fn answered(&mut self, which: Which, id: OutboundRequestId, result: Result<Vec<u8>, RequestError>) {
        if let Some(back) = self.asked.remove(&(which, id)) {
            answer(back, result);
        }
    }

    fn outbound_failure(&mut self, which: Which, peer: PeerId, error: OutboundFailure) -> RequestError {
        match error {
            OutboundFailure::DialFailure => RequestError::Unreachable(peer),
            OutboundFailure::Timeout => RequestError::Timeout(peer),
            OutboundFailure::UnsupportedProtocols => RequestError::Unsupported { peer, protocol: which.protocol() },
            OutboundFailure::ConnectionClosed => RequestError::Broken { peer, reason: "it was closed".into() },
            // Streams that merely break are nobody's fault.
            OutboundFailure::Io(error) => match frame_error(&error) {
                Some(error) => {
                    self.bad_frame(peer, error);
                    error.into()
                }
                None => RequestError::Broken { peer, reason: error.to_string() },
            },
        }
    }

    /// Holds a broken frame against its sender.
    fn bad_frame(&mut self, peer: PeerId, error: FrameError) {
        count(&self.counters.bad_frames);
        tracing::debug!(%peer, %error, "bad frame");
        let offence = match error {
            FrameError::TooLarge { .. } => Offence::Oversized,
            FrameError::Truncated { .. } => Offence::Stalled,
        };
        self.penalize(peer, offence);
    }
}

/// Gives an answer back; a caller that has given up no longer takes it.
fn answer<T>(back: oneshot::Sender<T>, value: T) {
    let _ = back.send(value);
}

fn dial_failure(target: String, peer: Option<PeerId>, error: DialError) -> DialFailure {
    match error {
        DialError::LocalPeerId { address } => DialFailure::Myself(address),
        DialError::WrongPeerId { obtained, address } => DialFailure::WrongPeer { target, found: obtained, address },
        DialError::NoAddresses if peer.is_some() || target.parse::<PeerId>().is_ok() => {
            match peer.or_else(|| target.parse().ok()) {
                Some(peer) => DialFailure::NoAddress(peer),
                None => DialFailure::Unreachable { target, reason: "no address".into() },
            }
        }
        DialError::Denied { cause } => DialFailure::Denied { target, reason: denied(&cause) },
        error => DialFailure::Unreachable { target, reason: error.to_string() },
    }
}

/// What a refusal says, down to its cause: libp2p's own text stops at "connection denied".
fn denied(cause: &(dyn std::error::Error + 'static)) -> String {
    let mut text = cause.to_string();
    let mut next = cause.source();
    while let Some(cause) = next {
        text = format!("{text}: {cause}");
        next = cause.source();
    }
    text
}

impl Drop for Task {
    fn drop(&mut self) {
        // Those who wait get their answer from here, not from a channel that closed without a word.
        for (_, (_, back)) in self.dials.drain() {
            answer(back, Err(NetError.into()));
        }
        for (_, back) in self.asked.drain() {
            answer(back, Err(NetError.into()));
        }
        self.stop.cancel();
    }
}
