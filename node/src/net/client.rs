//! The handle through which the rest of the node uses the network. Cheap to clone; holds no lock while it waits.

use std::{
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};

use libp2p::{Multiaddr, PeerId, Stream, gossipsub::MessageId};
use tokio::sync::{broadcast, mpsc, oneshot};
use tokio_util::sync::CancellationToken;
use tributary_protocol::{
    ids::{Did, Hash},
    wire::provider_key,
};

use super::{
    ACCESS_PROTOCOL, MAX_ACCESS_MESSAGE, MAX_GOSSIP_MESSAGE, MAX_SYNC_REQUEST, PULL_PROTOCOL, SYNC_PROTOCOL,
    book::Remembered,
    error::{DialFailure, NetError, ProvidersError, PublishError, RequestError, SubscribeError},
    event::{Acceptance, Counters, NetStats, PeerEvent, PeerInfo, Provider, PublishOutcome, ReachReport, Which},
    frame::FrameError,
    meter::NetTimings,
    reputation::Offence,
    shaping::{Class, Pace, RatesReport, Shaper, Way},
    streams::{Incoming, OpenError, Opened},
};

/// What a client asks of the task. Answers travel back through the one-shot channel.
pub(super) enum Command {
    ListenAddrs(oneshot::Sender<Vec<Multiaddr>>),
    Dial(Multiaddr, oneshot::Sender<Result<PeerId, DialFailure>>),
    Connect(PeerId, Vec<Multiaddr>, oneshot::Sender<Result<PeerId, DialFailure>>),
    Disconnect(PeerId),
    Subscribe(String, oneshot::Sender<Result<bool, SubscribeError>>),
    Unsubscribe(String, oneshot::Sender<bool>),
    Publish(String, Vec<u8>, oneshot::Sender<Result<PublishOutcome, PublishError>>),
    Listeners(String, oneshot::Sender<Vec<PeerId>>),
    Report(MessageId, PeerId, Acceptance),
    Request(Which, PeerId, Vec<u8>, oneshot::Sender<Result<Vec<u8>, RequestError>>),
    OpenPull(PeerId, Opened),
    Keep(PeerId),
    Provide(Hash, oneshot::Sender<bool>),
    Withdraw(Hash, oneshot::Sender<bool>),
    Providers(Hash, oneshot::Sender<Result<Vec<Provider>, ProvidersError>>),
    Peers(oneshot::Sender<Vec<PeerInfo>>),
    Reach(oneshot::Sender<ReachReport>),
    Remembered(oneshot::Sender<Remembered>),
    Ban(PeerId),
    Unban(PeerId),
    Penalize(PeerId, Offence),
}

/// The streams of one protocol that peers open, and whether anybody takes them.
pub(super) struct PullStreams {
    serving: Arc<AtomicBool>,
    incoming: Mutex<Option<Incoming>>,
}

impl PullStreams {
    pub(super) fn new(serving: Arc<AtomicBool>, incoming: Incoming) -> Arc<Self> {
        Arc::new(Self { serving, incoming: Mutex::new(Some(incoming)) })
    }

    /// Takes the streams and offers the protocol to peers; `None` when somebody has them already.
    pub(super) fn take(&self) -> Option<Incoming> {
        let incoming = self.incoming.lock().unwrap_or_else(PoisonError::into_inner).take();
        if incoming.is_some() {
            self.serving.store(true, Relaxed);
        }
        incoming
    }

    /// Gives the streams back; peers are offered the protocol no longer.
    pub(super) fn give_back(&self, mut incoming: Incoming) {
        self.serving.store(false, Relaxed);
        while incoming.try_recv().is_ok() {}
        *self.incoming.lock().unwrap_or_else(PoisonError::into_inner) = Some(incoming);
    }
}

/// Streams of peaq's delivery protocol that peers open. Dropped, they are offered no longer.
pub struct PeaqStreams {
    incoming: Incoming,
    home: Arc<PullStreams>,
}

impl PeaqStreams {
    /// The next stream and who opened it; `None` when the network has stopped.
    pub async fn next(&mut self) -> Option<(PeerId, Stream)> {
        self.incoming.recv().await
    }
}

impl Drop for PeaqStreams {
    fn drop(&mut self) {
        let (_, nothing) = mpsc::channel(1);
        self.home.give_back(std::mem::replace(&mut self.incoming, nothing));
    }
}

/// A handle of the network task. The task ends when the last one is dropped.
#[derive(Clone)]
pub struct Client {
    pub(super) peer_id: PeerId,
    pub(super) commands: mpsc::Sender<Command>,
    pub(super) pulls: Arc<PullStreams>,
    pub(super) peaqs: Arc<PullStreams>,
    pub(super) peer_events: broadcast::Sender<PeerEvent>,
    pub(super) stop: CancellationToken,
    pub(super) counters: Arc<Counters>,
    pub(super) shaper: Arc<Shaper>,
    pub(super) open_timeout: Duration,
}

impl Client {
    /// The id of this node.
    #[must_use]
    pub fn peer_id(&self) -> PeerId {
        self.peer_id
    }

    /// The addresses this node listens on, each ending in `/p2p/<our id>`, ready to be given to others; places at relays are not
    /// among them, see [`Client::reach`].
    pub async fn listen_addrs(&self) -> Result<Vec<Multiaddr>, NetError> {
        self.ask(Command::ListenAddrs).await
    }

    /// Connects to an address and returns who answered. When it ends in `/p2p/<id>`, only that peer will do.
    pub async fn dial(&self, address: Multiaddr) -> Result<PeerId, DialFailure> {
        self.ask(|back| Command::Dial(address, back)).await?
    }

    /// Makes sure there is a connection to `peer`, trying `addresses` and those already known; where they lead nowhere, other
    /// peers are asked for newer ones. A peer that is lost within five minutes is dialled again.
    pub async fn connect(&self, peer: PeerId, addresses: Vec<Multiaddr>) -> Result<(), DialFailure> {
        self.ask(|back| Command::Connect(peer, addresses, back)).await?.map(drop)
    }

    /// Closes all connections to a peer.
    pub async fn disconnect(&self, peer: PeerId) -> Result<(), NetError> {
        self.send(Command::Disconnect(peer)).await
    }

    /// Says to other peers from now on, until [`Client::withdraw`], that this node serves a machine's feed; `false` when it does so
    /// already, or for too many.
    pub async fn provide(&self, machine: &Did) -> Result<bool, NetError> {
        let feed = provider_key(machine);
        self.ask(|back| Command::Provide(feed, back)).await
    }

    /// Says so no more; `false` when it did not. Kademlia has no message to take a record back: those who have it forget it when
    /// it expires.
    pub async fn withdraw(&self, machine: &Did) -> Result<bool, NetError> {
        let feed = provider_key(machine);
        self.ask(|back| Command::Withdraw(feed, back)).await
    }

    /// Peers that say they serve a machine's feed, at most 20. Callers who ask for one feed share an answer, for up to a minute.
    pub async fn providers(&self, machine: &Did) -> Result<Vec<Provider>, ProvidersError> {
        let feed = provider_key(machine);
        self.ask(|back| Command::Providers(feed, back)).await?
    }

    /// Subscribes to a topic; `false` when it was subscribed already.
    pub async fn subscribe(&self, topic: impl Into<String>) -> Result<bool, SubscribeError> {
        let topic = topic.into();
        self.ask(|back| Command::Subscribe(topic, back)).await?
    }

    /// Leaves a topic; `false` when it was not subscribed.
    pub async fn unsubscribe(&self, topic: impl Into<String>) -> Result<bool, NetError> {
        let topic = topic.into();
        self.ask(|back| Command::Unsubscribe(topic, back)).await
    }

    /// Publishes a message of at most [`MAX_GOSSIP_MESSAGE`] bytes. That nobody listens is an outcome, not an error.
    pub async fn publish(&self, topic: impl Into<String>, bytes: Vec<u8>) -> Result<PublishOutcome, PublishError> {
        if bytes.len() > MAX_GOSSIP_MESSAGE {
            return Err(PublishError::TooLarge { len: bytes.len(), max: MAX_GOSSIP_MESSAGE });
        }
        let topic = topic.into();
        self.ask(|back| Command::Publish(topic, bytes, back)).await?
    }

    /// The connected peers that are subscribed to a topic, at most 64 of them.
    pub async fn listeners(&self, topic: impl Into<String>) -> Result<Vec<PeerId>, NetError> {
        let topic = topic.into();
        self.ask(|back| Command::Listeners(topic, back)).await
    }

    /// Says what a gossip message was worth. Only an accepted one travels on; a rejected one costs its sender.
    pub async fn report(&self, id: MessageId, source: PeerId, acceptance: Acceptance) -> Result<(), NetError> {
        self.send(Command::Report(id, source, acceptance)).await
    }

    /// Sends a sync request of at most [`MAX_SYNC_REQUEST`] bytes and returns the answer.
    pub async fn sync(&self, peer: PeerId, request: Vec<u8>) -> Result<Vec<u8>, RequestError> {
        self.request(Which::Sync, peer, request).await
    }

    /// Sends an access request of at most [`MAX_ACCESS_MESSAGE`] bytes and returns the answer.
    pub async fn access(&self, peer: PeerId, request: Vec<u8>) -> Result<Vec<u8>, RequestError> {
        self.request(Which::Access, peer, request).await
    }

    /// Opens a stream for one pull, dialling the peer at a known address if need be. See [`super::PullClient`].
    pub async fn open_pull(&self, peer: PeerId) -> Result<Stream, RequestError> {
        let open = self.ask(|back| Command::OpenPull(peer, back));
        match tokio::time::timeout(self.open_timeout, open).await {
            Ok(Ok(Ok(stream))) => Ok(stream),
            Ok(Ok(Err(OpenError::Unreachable))) => Err(RequestError::Unreachable(peer)),
            Ok(Ok(Err(OpenError::Unsupported))) => Err(RequestError::Unsupported { peer, protocol: PULL_PROTOCOL }),
            Ok(Ok(Err(OpenError::Broken(reason)))) => Err(RequestError::Broken { peer, reason }),
            // The answer was lost with the connection, unless all is over.
            Ok(Err(closed)) if self.stop.is_cancelled() => Err(closed.into()),
            Ok(Err(_)) => Err(RequestError::Broken { peer, reason: "it was closed".into() }),
            Err(_) => Err(RequestError::Timeout(peer)),
        }
    }

    /// Takes the streams that peaq's buyers open, and offers them the protocol; `None` when somebody has them already.
    #[must_use]
    pub fn take_peaq_streams(&self) -> Option<PeaqStreams> {
        self.peaqs.take().map(|incoming| PeaqStreams { incoming, home: Arc::clone(&self.peaqs) })
    }

    /// The connected peers.
    pub async fn peers(&self) -> Result<Vec<PeerInfo>, NetError> {
        self.ask(Command::Peers).await
    }

    /// How this node can be reached, and how it reaches others.
    pub async fn reach(&self) -> Result<ReachReport, NetError> {
        self.ask(Command::Reach).await
    }

    /// Peers coming and going from now on. A reader that falls behind loses the oldest events and is told how many.
    #[must_use]
    pub fn watch_peers(&self) -> broadcast::Receiver<PeerEvent> {
        self.peer_events.subscribe()
    }

    /// What should outlive the process: bans, and where peers were met. See [`super::NetConfig::remembered`].
    pub async fn remembered(&self) -> Result<Remembered, NetError> {
        self.ask(Command::Remembered).await
    }

    /// Closes all connections to a peer and refuses new ones until [`Client::unban`] or the end of the process.
    pub async fn ban(&self, peer: PeerId) -> Result<(), NetError> {
        self.send(Command::Ban(peer)).await
    }

    /// Lifts a ban.
    pub async fn unban(&self, peer: PeerId) -> Result<(), NetError> {
        self.send(Command::Unban(peer)).await
    }

    /// Keeps the connections of a peer while newcomers crowd in: it is being served.
    pub async fn keep(&self, peer: PeerId) -> Result<(), NetError> {
        self.send(Command::Keep(peer)).await
    }

    /// Counts an offence against a peer; enough of them ban it for a time.
    pub async fn penalize(&self, peer: PeerId, offence: Offence) -> Result<(), NetError> {
        self.send(Command::Penalize(peer, offence)).await
    }

    /// Counters since the start.
    #[must_use]
    pub fn stats(&self) -> NetStats {
        self.counters.snapshot()
    }

    /// Bytes by direction and class: limits, what went lately, what went since the start.
    #[must_use]
    pub fn rates(&self) -> RatesReport {
        self.shaper.report()
    }

    /// The limits on chunks that come from a peer, or go to it, by whatever protocol.
    #[must_use]
    pub fn pace(&self, way: Way, peer: PeerId) -> Pace {
        Pace { shaper: Arc::clone(&self.shaper), way, peer }
    }

    /// How long things took since the start.
    #[must_use]
    pub fn timings(&self) -> NetTimings {
        self.counters.timings()
    }

    /// Ends the network task and waits until it has let go of its sockets.
    pub async fn shutdown(&self) {
        self.stop.cancel();
        self.commands.closed().await;
    }

    async fn request(&self, which: Which, peer: PeerId, request: Vec<u8>) -> Result<Vec<u8>, RequestError> {
        let max = which.max_request();
        if request.len() > max {
            return Err(FrameError::TooLarge { len: request.len(), max }.into());
        }
        let begun = Instant::now();
        let answered = self.ask(|back| Command::Request(which, peer, request, back)).await;
        self.counters.of(which).ended(begun, matches!(answered, Ok(Ok(_))));
        if let (Which::Sync, Ok(Ok(bytes))) = (which, &answered) {
            // Whoever asks on and on is slowed down here.
            self.shaper.pass(Class::Sync, Way::Down, peer, bytes.len()).await;
        }
        answered?
    }

    async fn send(&self, command: Command) -> Result<(), NetError> {
        self.commands.send(command).await.map_err(|_| NetError)
    }

    async fn ask<T>(&self, command: impl FnOnce(oneshot::Sender<T>) -> Command) -> Result<T, NetError> {
        let (back, answer) = oneshot::channel();
        self.send(command(back)).await?;
        answer.await.map_err(|_| NetError)
    }
}

impl Which {
    pub(super) const fn max_request(self) -> usize {
        match self {
            Self::Sync => MAX_SYNC_REQUEST,
            Self::Access => MAX_ACCESS_MESSAGE,
        }
    }

    pub(super) const fn protocol(self) -> &'static str {
        match self {
            Self::Sync => SYNC_PROTOCOL,
            Self::Access => ACCESS_PROTOCOL,
        }
    }
}
