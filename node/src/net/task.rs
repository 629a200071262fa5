//! The task that owns the swarm: carries out commands, sorts events into queues, keeps the books on peers.
//!
//! It never waits for anybody: what does not fit a queue is refused there and then. Its own tables are bounded by the limits
//! on connections and open requests.

mod dialling;
mod gossip;
mod peers;
mod requests;

use std::{
    collections::{HashMap, VecDeque},
    future::poll_fn,
    sync::{Arc, atomic::AtomicBool},
    task::Poll,
    time::Duration,
};

use futures::StreamExt;
use libp2p::{
    Multiaddr, PeerId, Swarm,
    gossipsub::{IdentTopic, MessageId},
    identify,
    identity::Keypair,
    multiaddr::Protocol,
    request_response::{InboundRequestId, OutboundRequestId},
    swarm::{ConnectionId, SwarmEvent},
};
use tokio::{
    sync::{broadcast, mpsc, oneshot},
    task::JoinHandle,
};
use tokio_util::sync::CancellationToken;

use self::peers::Peer;
use super::{
    PEAQ_PROTOCOL, PULL_PROTOCOL,
    behaviour::{Behaviour, BehaviourEvent},
    client::{Client, Command, PullStreams},
    config::NetConfig,
    error::{DialFailure, NetError, RequestError, StartError},
    event::{Counters, GossipMessage, InboundRequest, NetEvents, PeerEvent, Reply, Which},
    muxer::MAX_STREAMS,
    reputation::Reputation,
    room::actor,
    streams::Streams,
    swarm,
    topics::OwnTopics,
};

/// How often penalties fade and ended bans are lifted.
const TICK: Duration = Duration::from_secs(10);
/// Inbound pull streams that wait for the server, which takes them as fast as it can spawn: all of two connections.
const PULL_QUEUE: usize = 2 * MAX_STREAMS;

/// Starts the network with the node key `key` and returns its handle, its queues and its task.
///
/// Returns once every address in `config.listen` is bound.
pub async fn start(key: Keypair, config: NetConfig) -> Result<(Client, NetEvents, JoinHandle<()>), StartError> {
    let counters = Arc::new(Counters::default());
    let serving = Arc::new(AtomicBool::new(false));
    let (streams, incoming) = Streams::new(PULL_PROTOCOL, PULL_QUEUE, Arc::clone(&serving), Arc::clone(&counters));
    let selling = Arc::new(AtomicBool::new(false));
    let (peaq, buyers) = Streams::new(PEAQ_PROTOCOL, PULL_QUEUE, Arc::clone(&selling), Arc::clone(&counters));
    let mut swarm = swarm::build(key, &config, streams, peaq, &counters)?;
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
                event = next_event(&mut self.swarm, &self.counters) => self.on_event(event),
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
            Command::Keep(peer) => self.swarm.behaviour_mut().room.keep(peer),
            Command::Penalize(peer, offence) => self.penalize(peer, offence),
        }
    }

    fn listen_addrs(&self) -> Vec<Multiaddr> {
        let me = *self.swarm.local_peer_id();
        self.swarm.listeners().map(|address| address.clone().with(Protocol::P2p(me))).collect()
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
        if let Some(peer) = actor(&event) {
            self.swarm.behaviour_mut().room.keep(peer);
        }
        match event {
            BehaviourEvent::Gossip(event) => self.on_gossip(event),
            BehaviourEvent::Sync(event) => self.on_request_event(Which::Sync, event),
            BehaviourEvent::Access(event) => self.on_request_event(Which::Access, event),
            BehaviourEvent::Identify(identify::Event::Received { peer_id, info, .. }) => {
                self.on_identified(peer_id, info);
            }
            BehaviourEvent::Ping(event) => self.on_ping(event),
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
        for (_, (_, back)) in self.dials.drain() {
            answer(back, Err(NetError.into()));
        }
        for (_, back) in self.asked.drain() {
            answer(back, Err(NetError.into()));
        }
        self.stop.cancel();
    }
}
