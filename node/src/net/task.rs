//! The task that owns the swarm: carries out commands, sorts events into queues, keeps the books on peers.
//!
//! It never waits for anybody: what does not fit a queue is refused there and then. Its own tables are bounded by the limits
//! on connections and open requests.

mod dialling;
mod gossip;
mod nat;
mod peers;
mod providing;
mod requests;

use std::{
    collections::{HashMap, HashSet, VecDeque},
    future::poll_fn,
    sync::{Arc, atomic::AtomicBool},
    task::Poll,
    time::{Duration, Instant},
};

use futures::StreamExt;
use libp2p::{
    Multiaddr, PeerId, Swarm,
    gossipsub::{IdentTopic, MessageId, TopicHash},
    identify,
    identity::Keypair,
    kad::QueryId,
    multiaddr::Protocol,
    request_response::{InboundRequestId, OutboundRequestId},
    swarm::{ConnectionId, SwarmEvent},
};
use tokio::{
    sync::{broadcast, mpsc, oneshot},
    task::JoinHandle,
};
use tokio_util::sync::CancellationToken;

use self::{
    dialling::{Dial, Lookup},
    nat::{RelayBooks, Tested},
    peers::Peer,
    providing::ProviderBooks,
};
use super::{
    PEAQ_PROTOCOL, PULL_PROTOCOL,
    autonat::{self, DIAL_BACK, DIAL_BACK_QUEUE, DIAL_REQUEST, Nonces},
    behaviour::{Behaviour, BehaviourEvent, RawStreams},
    book::{Ban, Book, Remembered},
    client::{Client, Command, PullStreams},
    config::NetConfig,
    error::{DialFailure, NetError, RequestError, StartError},
    event::{Counters, GossipMessage, InboundRequest, NetEvents, PeerEvent, Reply, Upnp, Which},
    muxer::MAX_STREAMS,
    reachability::Reachability,
    reputation::Reputation,
    reservations::Reservations,
    room::actor,
    scope::{Scope, bare, is_relayed},
    shaping::Shaper,
    streams::Streams,
    swarm,
    topics::OwnTopics,
    wanted::Wanted,
};

/// How often penalties fade and ended bans are lifted.
const TICK: Duration = Duration::from_secs(10);
/// How often it is looked whether relays, tests of our addresses and the like are due.
const BEAT: Duration = Duration::from_secs(1);
/// Peers of the last run that are dialled at the start: the newest.
const RECALLED: usize = 16;
/// Tests of our addresses that have ended and wait to be noted; few are under way.
const TESTED_QUEUE: usize = 4;
/// Inbound pull streams that wait for the server, which takes them as fast as it can spawn: all of two connections.
const PULL_QUEUE: usize = 2 * MAX_STREAMS;

/// Starts the network with the node key `key` and returns its handle, its queues and its task.
///
/// Returns once every address in `config.listen` is bound.
pub async fn start(key: Keypair, config: NetConfig) -> Result<(Client, NetEvents, JoinHandle<()>), StartError> {
    let (task, client, events) = prepare(key, config).await?;
    Ok((client, events, tokio::spawn(task.run())))
}

/// Everything but the running task.
async fn prepare(key: Keypair, config: NetConfig) -> Result<(Task, Client, NetEvents), StartError> {
    let counters = Arc::new(Counters::default());
    let serving = Arc::new(AtomicBool::new(false));
    let (streams, incoming) = Streams::new(PULL_PROTOCOL, PULL_QUEUE, Arc::clone(&serving), Arc::clone(&counters));
    let selling = Arc::new(AtomicBool::new(false));
    let (peaq, buyers) = Streams::new(PEAQ_PROTOCOL, PULL_QUEUE, Arc::clone(&selling), Arc::clone(&counters));
    let offered = |yes| Arc::new(AtomicBool::new(yes));
    // Whoever asks us to test an address meets libp2p's own server.
    let (dial_request, _) = Streams::new(DIAL_REQUEST, 1, offered(false), Arc::clone(&counters));
    let (dial_back, dial_backs) =
        Streams::new(DIAL_BACK, DIAL_BACK_QUEUE, offered(config.autonat_client), Arc::clone(&counters));
    let raw = RawStreams { pull: streams, peaq, dial_request, dial_back };
    let shaper = Shaper::new(config.up, config.down);
    let mut swarm = swarm::build(key, &config, raw, &counters, &shaper)?;
    swarm::listen(&mut swarm, &config.listen).await?;

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
        peaqs: PullStreams::new(selling, buyers),
        peer_events: peer_events.clone(),
        stop: stop.clone(),
        counters: Arc::clone(&counters),
        shaper: Arc::clone(&shaper),
        open_timeout: config.open_timeout,
    };
    let nonces = Nonces::default();
    // Ends with the swarm, which holds the other end.
    tokio::spawn(autonat::take_dial_backs(dial_backs, nonces.clone()));
    let (tested_tx, tested) = mpsc::channel(TESTED_QUEUE);
    let provider_expiry = config.providers.expiry;
    let mut task = Task {
        reservations: Reservations::new(client.peer_id, &config.relays, Instant::now()),
        reachability: Reachability::new(&config.external, Scope::floor(&config.listen)),
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
        shaper,
        handed: HashMap::new(),
        own_topics: OwnTopics::default(),
        unsent: VecDeque::new(),
        dials: HashMap::new(),
        lookups: HashMap::new(),
        wanted: Wanted::default(),
        providers: ProviderBooks::new(provider_expiry),
        asked: HashMap::new(),
        answering: HashMap::new(),
        peers: HashMap::new(),
        reputation: Reputation::default(),
        book: Book::default(),
        nonces,
        tested_tx,
        tested,
        relaying: RelayBooks::default(),
        local: HashSet::new(),
        mdns_pause: None,
        upnp: Upnp::default(),
        addresses_changed: false,
    };
    task.begin();
    Ok((task, client, NetEvents { gossip, sync, access }))
}

type Dialled = oneshot::Sender<Result<PeerId, DialFailure>>;
type Answered = oneshot::Sender<Result<Vec<u8>, RequestError>>;

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
    shaper: Arc<Shaper>,
    /// Gossip that waits for a verdict: its topic and length. Bounded, see [`gossip`].
    handed: HashMap<MessageId, (TopicHash, usize)>,
    own_topics: OwnTopics,
    /// Messages gossipsub remembers as sent although every queue was full.
    unsent: VecDeque<MessageId>,
    /// Dials somebody waits for; bounded by the limit on pending connections.
    dials: HashMap<ConnectionId, Dial>,
    /// Peers that other peers are asked about; bounded.
    lookups: HashMap<QueryId, Lookup>,
    wanted: Wanted,
    providers: ProviderBooks,
    /// Our requests without an answer; bounded by `queues.outbound_requests`.
    asked: HashMap<(Which, OutboundRequestId), Answered>,
    /// Requests of peers that were handed on; bounded per peer by `requests_per_peer`.
    answering: HashMap<(Which, InboundRequestId), PeerId>,
    /// Bounded by the limits on connections.
    peers: HashMap<PeerId, Peer>,
    reputation: Reputation,
    book: Book,
    reservations: Reservations,
    reachability: Reachability,
    nonces: Nonces,
    tested_tx: mpsc::Sender<Tested>,
    tested: mpsc::Receiver<Tested>,
    relaying: RelayBooks,
    /// Peers of the local network that were dialled without having been asked for; bounded.
    local: HashSet<PeerId>,
    /// Until when mDNS is switched off after a flood.
    mdns_pause: Option<Instant>,
    upnp: Upnp,
    /// Whether our addresses have changed since peers were told.
    addresses_changed: bool,
}

impl Task {
    /// What follows from the configuration and from the addresses that are bound.
    fn begin(&mut self) {
        for address in self.config.external.clone() {
            self.swarm.add_external_address(bare(address));
        }
        let bound: Vec<Multiaddr> = self.swarm.listeners().cloned().collect();
        for address in &bound {
            self.on_listening(address);
        }
        let relays: Vec<(PeerId, Multiaddr)> =
            self.reservations.addresses().map(|(relay, address)| (relay, address.clone())).collect();
        for (relay, address) in relays {
            self.swarm.add_peer_address(relay, address);
        }
        self.recall(Instant::now());
    }

    /// Goes on where the last run stopped: who was banned is, and peers that were met are looked for where they were.
    fn recall(&mut self, now: Instant) {
        let Remembered { bans, peers } = std::mem::take(&mut self.config.remembered);
        for Ban { peer, left } in bans {
            let until = left.and_then(|left| now.checked_add(left));
            if left.is_some() && until.is_none() {
                continue;
            }
            if let Some(lifted) = self.reputation.ban(peer, until) {
                self.swarm.behaviour_mut().blocked.unblock_peer(lifted);
            }
            self.swarm.behaviour_mut().blocked.block_peer(peer);
        }
        self.book = Book::of(peers);
        for known in self.book.peers().iter().take(RECALLED) {
            self.wanted.want(known.peer, &known.addresses, now);
            // Dialled as one that was just lost, and no longer when nobody asks for it.
            self.wanted.lost(&known.peer, now);
        }
    }

    fn remembered(&self) -> Remembered {
        let bans = self.reputation.bans(Instant::now()).map(|(peer, left)| Ban { peer, left });
        Remembered { bans: bans.collect(), peers: self.book.peers().to_vec() }
    }

    async fn run(mut self) {
        let timer = |period| {
            let mut timer = tokio::time::interval(period);
            timer.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
            timer
        };
        let (mut tick, mut beat) = (timer(TICK), timer(BEAT));
        loop {
            tokio::select! {
                () = self.stop.cancelled() => break,
                event = next_event(&mut self.swarm, &self.counters) => self.on_event(event),
                command = self.commands.recv() => match command {
                    Some(command) => self.on_command(command),
                    None => break,
                },
                Some(reply) = self.replies.recv() => self.on_reply(reply),
                Some(tested) = self.tested.recv() => self.on_tested(tested),
                _ = tick.tick() => self.on_tick(),
                _ = beat.tick() => self.on_beat(),
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
            Command::Listeners(topic, back) => answer(back, self.listeners(topic)),
            Command::Report(id, source, acceptance) => self.report(&id, source, acceptance),
            Command::Request(which, peer, bytes, back) => self.request(which, peer, bytes, back),
            Command::OpenPull(peer, back) => {
                self.prefer_tcp(peer);
                self.swarm.behaviour_mut().pull.open(peer, back);
            }
            Command::Peers(back) => answer(back, self.peer_list()),
            Command::Reach(back) => answer(back, self.reach_report()),
            Command::Remembered(back) => answer(back, self.remembered()),
            Command::Ban(peer) => self.ban(peer, None),
            Command::Unban(peer) => {
                self.reputation.forgive(&peer);
                self.swarm.behaviour_mut().blocked.unblock_peer(peer);
            }
            Command::Provide(feed, back) => answer(back, self.provide(feed)),
            Command::Withdraw(feed, back) => answer(back, self.withdraw(&feed)),
            Command::Providers(feed, back) => self.find_providers(feed, back),
            Command::Keep(peer) => self.swarm.behaviour_mut().room.keep(peer),
            Command::Penalize(peer, offence) => self.penalize(peer, offence),
        }
    }

    fn listen_addrs(&self) -> Vec<Multiaddr> {
        let me = *self.swarm.local_peer_id();
        let own = self.swarm.listeners().filter(|address| !is_relayed(address));
        own.map(|address| address.clone().with(Protocol::P2p(me))).collect()
    }

    fn on_event(&mut self, event: SwarmEvent<BehaviourEvent>) {
        match event {
            SwarmEvent::Behaviour(event) => self.on_behaviour(event),
            SwarmEvent::ConnectionEstablished { peer_id, connection_id, endpoint, num_established, .. } => {
                self.on_connected(peer_id, connection_id, endpoint, num_established.get() == 1);
            }
            SwarmEvent::ConnectionClosed { peer_id, connection_id, num_established, .. } => {
                self.on_disconnected(peer_id, connection_id, num_established == 0);
            }
            SwarmEvent::OutgoingConnectionError { connection_id, peer_id, error } => {
                self.on_dial_error(connection_id, peer_id, error);
            }
            SwarmEvent::IncomingConnectionError { send_back_addr, error, .. } => {
                tracing::debug!(address = %send_back_addr, %error, "inbound connection refused or failed");
            }
            SwarmEvent::NewListenAddr { address, .. } => {
                tracing::info!(%address, "listening");
                self.on_listening(&address);
            }
            SwarmEvent::ExpiredListenAddr { address, .. } => {
                tracing::info!(%address, "no longer listening");
                self.on_address_gone(&address);
            }
            SwarmEvent::ListenerClosed { listener_id, addresses, reason } => {
                let why = reason.as_ref().err().map(|error| dialling::deepest(error));
                let relayed = self.on_relay_listener_closed(listener_id, why);
                if let Err(error) = reason
                    && !relayed
                {
                    tracing::error!(?addresses, %error, "a listener failed; peers can no longer dial this address");
                }
            }
            SwarmEvent::NewExternalAddrCandidate { address } => self.on_candidate(address),
            SwarmEvent::ExternalAddrConfirmed { address } => self.on_confirmed(&address),
            SwarmEvent::ExternalAddrExpired { address } => self.on_expired(&address),
            SwarmEvent::ListenerError { error, .. } => tracing::warn!(%error, "listener"),
            _ => {}
        }
    }

    fn on_behaviour(&mut self, event: BehaviourEvent) {
        if let Some(peer) = actor(&event) {
            self.swarm.behaviour_mut().room.keep(peer);
        }
        match event {
            BehaviourEvent::Gossip(event) => self.on_gossip(event),
            BehaviourEvent::Sync(event) => self.on_request_event(Which::Sync, event),
            BehaviourEvent::Access(event) => self.on_request_event(Which::Access, event),
            BehaviourEvent::Identify(identify::Event::Received { peer_id, connection_id, info }) => {
                self.on_identified(peer_id, connection_id, info);
            }
            BehaviourEvent::Ping(event) => self.on_ping(event),
            BehaviourEvent::RelayClient(event) => self.on_relay_client(event),
            BehaviourEvent::RelayServer(event) => self.on_relay_server(&event),
            BehaviourEvent::Dcutr(event) => self.on_dcutr(event),
            BehaviourEvent::Kad(event) => self.on_kad(event),
            BehaviourEvent::Mdns(event) => self.on_mdns(event),
            BehaviourEvent::Upnp(event) => self.on_upnp(event),
            _ => {}
        }
    }
}

/// The swarm's next event; a swarm has no end.
async fn next_event(swarm: &mut Swarm<Behaviour>, counters: &Counters) -> SwarmEvent<BehaviourEvent> {
    poll_fn(|cx| match swarm.poll_next_unpin(cx) {
        Poll::Ready(Some(event)) => Poll::Ready(event),
        Poll::Ready(None) | Poll::Pending => {
            // Nothing is on its way from the wire to us.
            counters.settle_gossip();
            Poll::Pending
        }
    })
    .await
}

/// Gives an answer back; a caller that has given up no longer takes it.
fn answer<T>(back: oneshot::Sender<T>, value: T) {
    let _ = back.send(value);
}

impl Drop for Task {
    fn drop(&mut self) {
        // Those who wait get their answer from here, not from a channel that closed without a word.
        for (_, dial) in self.dials.drain() {
            dial.end(Err(NetError.into()));
        }
        for (_, lookup) in self.lookups.drain() {
            lookup.end(Err(NetError.into()));
        }
        for (_, back) in self.asked.drain() {
            answer(back, Err(NetError.into()));
        }
        self.stop.cancel();
    }
}
