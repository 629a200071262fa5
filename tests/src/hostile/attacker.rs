//! One peer of plain libp2p: it gossips, says who it is, and opens streams by name.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use futures::StreamExt as _;
use libp2p::{
    Multiaddr, PeerId, Stream, StreamProtocol, Swarm,
    gossipsub::{self, IdentTopic, MessageAuthenticity, MessageId, ValidationMode},
    identify,
    identity::Keypair,
    noise,
    swarm::{NetworkBehaviour, SwarmEvent},
    tcp, tls, yamux,
};
use tokio::{
    sync::{mpsc, oneshot, watch},
    task::JoinHandle,
    time::timeout,
};

use crate::{
    peer::peer_of,
    wait::{PATIENCE, again, soon, until},
};

/// A dial that has led nowhere after this time was refused.
const REFUSED: Duration = Duration::from_secs(20);

#[derive(NetworkBehaviour)]
struct Behaviour {
    gossip: gossipsub::Behaviour,
    identify: identify::Behaviour,
    streams: libp2p_stream::Behaviour,
}

enum Order {
    Listen(String),
    Publish(String, Vec<u8>, oneshot::Sender<bool>),
}

/// A peer that is connected to its victim.
pub struct Attacker {
    key: Keypair,
    address: Multiaddr,
    orders: mpsc::Sender<Order>,
    control: libp2p_stream::Control,
    connected: watch::Receiver<bool>,
    task: JoinHandle<()>,
}

impl Drop for Attacker {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Attacker {
    /// Connects under a new identity; again while the node has no room for newcomers.
    ///
    /// # Panics
    ///
    /// When the node does not answer.
    pub async fn connect(address: &Multiaddr) -> Self {
        let key = Keypair::generate_ed25519();
        again("a connection", || Self::connect_as(key.clone(), address.clone())).await
    }

    /// Connects under an identity; `None` when the node will have none of it.
    pub async fn connect_as(key: Keypair, address: Multiaddr) -> Option<Self> {
        let mut swarm = swarm(key.clone());
        let control = swarm.behaviour().streams.new_control();
        swarm.dial(address.clone()).unwrap();
        let (orders, mut inbox) = mpsc::channel::<Order>(64);
        let (tell, mut connected) = watch::channel(false);
        // It ends when the dial has failed or the connection is gone.
        let task = tokio::spawn(async move {
            loop {
                tokio::select! {
                    event = swarm.select_next_some() => match event {
                        SwarmEvent::ConnectionEstablished { .. } => drop(tell.send(true)),
                        SwarmEvent::ConnectionClosed { num_established: 0, .. }
                        | SwarmEvent::OutgoingConnectionError { .. } => return,
                        _ => {}
                    },
                    order = inbox.recv() => match order {
                        Some(Order::Listen(topic)) => {
                            let _ = swarm.behaviour_mut().gossip.subscribe(&IdentTopic::new(topic));
                        }
                        Some(Order::Publish(topic, bytes, back)) => {
                            let sent = swarm.behaviour_mut().gossip.publish(IdentTopic::new(topic), bytes);
                            let _ = back.send(sent.is_ok());
                        }
                        None => return,
                    },
                }
            }
        });
        let stands = timeout(REFUSED, connected.wait_for(|stands| *stands)).await.is_ok_and(|stands| stands.is_ok());
        let attacker = Self { key, address, orders, control, connected, task };
        // A banned peer is let through the handshake and shown the door behind it.
        (stands && attacker.open("/ipfs/ping/1.0.0").await.is_some()).then_some(attacker)
    }

    /// Its identity.
    #[must_use]
    pub fn key(&self) -> Keypair {
        self.key.clone()
    }

    /// Its peer id.
    #[must_use]
    pub fn id(&self) -> PeerId {
        self.key.public().to_peer_id()
    }

    /// The node that it attacks.
    #[must_use]
    pub fn target(&self) -> &Multiaddr {
        &self.address
    }

    /// Whether the node still bears with it.
    #[must_use]
    pub fn is_connected(&self) -> bool {
        self.connected.has_changed().is_ok() && !self.task.is_finished()
    }

    /// Waits until the node has closed every connection to it.
    ///
    /// # Panics
    ///
    /// When the node does not.
    pub async fn thrown_out(&self) {
        until("the attacker to be thrown out", async || (!self.is_connected()).then_some(())).await;
    }

    /// Subscribes to a topic.
    pub async fn listen(&self, topic: &str) {
        let _ = self.orders.send(Order::Listen(topic.to_owned())).await;
    }

    /// Sends bytes on a topic to everybody who listens there, and says whether anybody does.
    pub async fn publish(&self, topic: &str, bytes: Vec<u8>) -> bool {
        let (back, sent) = oneshot::channel();
        let order = Order::Publish(topic.to_owned(), bytes, back);
        self.orders.send(order).await.is_ok() && sent.await.unwrap_or(false)
    }

    /// As [`Attacker::publish`], once the node is known to listen.
    ///
    /// # Panics
    ///
    /// When it never does.
    pub async fn publish_surely(&self, topic: &str, bytes: &[u8]) {
        until("the victim to listen", async || self.publish(topic, bytes.to_vec()).await.then_some(())).await;
    }

    /// Opens a stream for a protocol; `None` when the node will not.
    pub async fn open(&self, protocol: &'static str) -> Option<Stream> {
        let mut control = self.control.clone();
        let opened = control.open_stream(peer_of(&self.address), StreamProtocol::new(protocol));
        let mut connected = self.connected.clone();
        tokio::select! {
            stream = timeout(REFUSED, opened) => stream.ok()?.ok(),
            // Nobody is left to open it.
            () = async { while connected.changed().await.is_ok() {} } => None,
        }
    }

    /// As [`Attacker::open`].
    ///
    /// # Panics
    ///
    /// When the node will not.
    pub async fn must_open(&self, protocol: &'static str) -> Stream {
        soon(protocol, again(protocol, || self.open(protocol))).await
    }
}

fn swarm(key: Keypair) -> Swarm<Behaviour> {
    // Each message has an id of its own here, so that the same bytes can be sent again and again.
    let serial = Arc::new(AtomicU64::new(0));
    let gossip = move || {
        let serial = Arc::clone(&serial);
        let config = gossipsub::ConfigBuilder::default()
            .validation_mode(ValidationMode::Anonymous)
            .message_id_fn(move |_| MessageId::from(serial.fetch_add(1, Relaxed).to_string()))
            .max_transmit_size(8 << 20)
            .heartbeat_interval(Duration::from_millis(200))
            .flood_publish(true)
            .build()
            .unwrap();
        gossipsub::Behaviour::new(MessageAuthenticity::Anonymous, config).unwrap()
    };
    libp2p::SwarmBuilder::with_existing_identity(key)
        .with_tokio()
        .with_tcp(tcp::Config::default(), (tls::Config::new, noise::Config::new), yamux::Config::default)
        .unwrap()
        .with_behaviour(|key| Behaviour {
            gossip: gossip(),
            identify: identify::Behaviour::new(identify::Config::new("/tributary/1".into(), key.public())),
            streams: libp2p_stream::Behaviour::new(),
        })
        .unwrap()
        .with_swarm_config(|config| config.with_idle_connection_timeout(PATIENCE))
        .build()
}
