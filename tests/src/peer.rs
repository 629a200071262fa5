//! Peers that do not play by the rules.

use std::sync::Arc;

use futures::StreamExt as _;
use libp2p::{
    Multiaddr, PeerId, Stream, StreamProtocol, Swarm, identity::Keypair, noise, swarm::SwarmEvent, tcp, tls, yamux,
};
use tokio::task::JoinHandle;
use tributary::{
    home::Home,
    net::{self, Client, NetConfig, NetEvents},
};
use tributary_protocol::{
    ids::Did,
    wire::{AccessMessage, AccessReply, SyncRequest, SyncResponse},
};

use crate::wait::{again, soon};

/// The address in a feed link, which ends in the peer id of the node.
///
/// # Panics
///
/// When there is none.
#[must_use]
pub fn address(link: &str) -> Multiaddr {
    let addr = link.split_once("?addr=").unwrap().1.split('&').next().unwrap();
    addr.replace("%2F", "/").parse().unwrap()
}

/// The peer id at the end of an address.
///
/// # Panics
///
/// When it has none.
#[must_use]
pub fn peer_of(address: &Multiaddr) -> PeerId {
    match address.iter().last() {
        Some(libp2p::multiaddr::Protocol::P2p(peer)) => peer,
        other => panic!("{other:?} is no peer"),
    }
}

/// The key behind the peer id of a node, as a thief of its home has it.
///
/// # Panics
///
/// When the home cannot be read.
#[must_use]
pub fn stolen_node_key(home: &std::path::Path) -> Keypair {
    Home::open(home).unwrap().keys(None).unwrap().node
}

/// A peer that speaks our protocols, with whatever is in its messages.
pub struct Stranger {
    client: Client,
    _events: NetEvents,
    target: PeerId,
}

impl Stranger {
    /// Connects to a node under a new identity; again while the node has no room for newcomers.
    ///
    /// # Panics
    ///
    /// When it does not answer.
    pub async fn connect(address: &Multiaddr) -> Self {
        let (client, events, _) = net::start(Keypair::generate_ed25519(), NetConfig::default()).await.unwrap();
        let target = again("a connection", || {
            let (client, address) = (client.clone(), address.clone());
            async move { client.dial(address).await.ok() }
        })
        .await;
        Self { client, _events: events, target }
    }

    /// Its handle of the network.
    #[must_use]
    pub fn client(&self) -> &Client {
        &self.client
    }

    /// The node it is connected to.
    #[must_use]
    pub fn target(&self) -> PeerId {
        self.target
    }

    /// Asks over the sync protocol.
    ///
    /// # Panics
    ///
    /// When no answer comes.
    pub async fn sync(&self, request: &SyncRequest) -> SyncResponse {
        let bytes = soon("sync", self.client.sync(self.target, request.encode().unwrap())).await.unwrap();
        SyncResponse::decode(&bytes).unwrap()
    }

    /// Says something over the access protocol.
    ///
    /// # Panics
    ///
    /// When no answer comes.
    pub async fn access(&self, message: &AccessMessage) -> AccessReply {
        let bytes = soon("access", self.client.access(self.target, message.encode().unwrap())).await.unwrap();
        AccessReply::decode(&bytes).unwrap()
    }
}

type SyncLie = Box<dyn Fn(&SyncRequest, SyncResponse) -> SyncResponse + Send + Sync>;
type AccessLie = Box<dyn Fn(&AccessMessage, AccessReply) -> AccessReply + Send + Sync>;

/// How a [`Liar`] changes the answers of the machine it stands before.
pub struct Lies {
    sync: SyncLie,
    access: AccessLie,
}

impl Lies {
    /// Passes on what the machine says.
    #[must_use]
    pub fn none() -> Self {
        Self { sync: Box::new(|_, honest| honest), access: Box::new(|_, honest| honest) }
    }

    /// Changes answers of the sync protocol.
    #[must_use]
    pub fn sync(lie: impl Fn(&SyncRequest, SyncResponse) -> SyncResponse + Send + Sync + 'static) -> Self {
        Self { sync: Box::new(lie), ..Self::none() }
    }

    /// Changes answers of the access protocol.
    #[must_use]
    pub fn access(lie: impl Fn(&AccessMessage, AccessReply) -> AccessReply + Send + Sync + 'static) -> Self {
        Self { access: Box::new(lie), ..Self::none() }
    }
}

/// A peer that stands between a machine and whoever asks it, and lies.
pub struct Liar {
    client: Client,
    task: JoinHandle<()>,
    address: Multiaddr,
}

impl Drop for Liar {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Liar {
    /// Listens under `key` and asks the machine at `upstream` for the truth that it then changes.
    ///
    /// # Panics
    ///
    /// When it cannot.
    pub async fn start(key: Keypair, upstream: &Multiaddr, lies: Lies) -> Self {
        let listen = vec!["/ip4/127.0.0.1/tcp/0".parse().unwrap()];
        let config = NetConfig { listen, ..NetConfig::default() };
        let (client, mut events, _) = net::start(key, config).await.unwrap();
        let address = soon("an address", client.listen_addrs()).await.unwrap().remove(0);
        let honest = Arc::new(Stranger::connect(upstream).await);
        let task = tokio::spawn(async move {
            loop {
                tokio::select! {
                    Some(inbound) = events.sync.recv() => {
                        let Ok(request) = SyncRequest::decode(&inbound.bytes) else { continue };
                        let answer = (lies.sync)(&request, honest.sync(&request).await);
                        let _ = inbound.responder.send(answer.encode().unwrap()).await;
                    }
                    Some(inbound) = events.access.recv() => {
                        let Ok(message) = AccessMessage::decode(&inbound.bytes) else { continue };
                        let answer = (lies.access)(&message, honest.access(&message).await);
                        let _ = inbound.responder.send(answer.encode().unwrap()).await;
                    }
                    else => return,
                }
            }
        });
        Self { client, task, address }
    }

    /// A link that leads to it instead of the machine.
    #[must_use]
    pub fn link(&self, did: &Did) -> String {
        format!("tributary://{did}?addr={}", self.address)
    }

    /// Its handle of the network.
    #[must_use]
    pub fn client(&self) -> &Client {
        &self.client
    }
}

/// A peer below our protocols: it opens streams by name and writes what it likes.
pub struct Vandal {
    control: libp2p_stream::Control,
    target: PeerId,
    task: JoinHandle<()>,
}

impl Drop for Vandal {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Vandal {
    /// Connects to a node; again while the node has no room for newcomers.
    ///
    /// # Panics
    ///
    /// When it does not answer.
    pub async fn connect(address: &Multiaddr) -> Self {
        again("a connection", || Self::try_connect(address.clone())).await
    }

    async fn try_connect(address: Multiaddr) -> Option<Self> {
        let mut swarm: Swarm<libp2p_stream::Behaviour> = libp2p::SwarmBuilder::with_new_identity()
            .with_tokio()
            .with_tcp(tcp::Config::default(), (tls::Config::new, noise::Config::new), yamux::Config::default)
            .unwrap()
            .with_behaviour(|_| libp2p_stream::Behaviour::new())
            .unwrap()
            .with_swarm_config(|config| config.with_idle_connection_timeout(crate::wait::PATIENCE))
            .build();
        let control = swarm.behaviour().new_control();
        swarm.dial(address.clone()).unwrap();
        let connected = async {
            loop {
                match swarm.select_next_some().await {
                    SwarmEvent::ConnectionEstablished { .. } => return true,
                    SwarmEvent::OutgoingConnectionError { .. } => return false,
                    _ => {}
                }
            }
        };
        if !soon("a connection", connected).await {
            return None;
        }
        let task = tokio::spawn(async move {
            loop {
                swarm.select_next_some().await;
            }
        });
        Some(Self { control, target: peer_of(&address), task })
    }

    /// Opens a stream for a protocol; `None` when the node will not.
    pub async fn open(&mut self, protocol: &'static str) -> Option<Stream> {
        let opened = self.control.open_stream(self.target, StreamProtocol::new(protocol));
        soon("a stream", opened).await.ok()
    }
}
