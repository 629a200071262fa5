//! Nodes for the tests, and a peer that does not keep to the rules.

use std::{future::Future, time::Duration};

use futures::StreamExt;
use libp2p::{StreamProtocol, Swarm, SwarmBuilder, noise, tcp, yamux};
use tokio::sync::broadcast;
use tributary::net::{Client, Keypair, NetConfig, NetEvents, PeerEvent, PeerId, start};

/// No test may wait longer than this for anything.
const PATIENCE: Duration = Duration::from_secs(60);

pub(crate) async fn soon<T>(what: &str, future: impl Future<Output = T>) -> T {
    tokio::time::timeout(PATIENCE, future).await.unwrap_or_else(|_| panic!("timed out: {what}"))
}

/// Polls `look` until it finds something, less often with time.
pub(crate) async fn until<T>(what: &str, mut look: impl AsyncFnMut() -> Option<T>) -> T {
    soon(what, async {
        let mut wait = Duration::from_millis(2);
        loop {
            if let Some(found) = look().await {
                return found;
            }
            tokio::time::sleep(wait).await;
            wait = (wait * 2).min(Duration::from_millis(200));
        }
    })
    .await
}

pub(crate) fn tcp_config() -> NetConfig {
    NetConfig { listen: vec!["/ip4/127.0.0.1/tcp/0".parse().unwrap()], ..NetConfig::default() }
}

pub(crate) struct Node {
    pub(crate) client: Client,
    pub(crate) events: NetEvents,
    pub(crate) peers: broadcast::Receiver<PeerEvent>,
}

impl Node {
    pub(crate) async fn new(config: NetConfig) -> Self {
        let (client, events, _) = start(Keypair::generate_ed25519(), config).await.unwrap();
        let peers = client.watch_peers();
        Self { client, events, peers }
    }

    pub(crate) fn id(&self) -> PeerId {
        self.client.peer_id()
    }

    pub(crate) async fn dial(&self, other: &Self) {
        let address = other.client.listen_addrs().await.unwrap().remove(0);
        assert_eq!(soon("dial", self.client.dial(address)).await, Ok(other.id()));
    }

    pub(crate) async fn wait(&mut self, event: PeerEvent) {
        soon(&format!("{event:?}"), async {
            loop {
                match self.peers.recv().await {
                    Ok(seen) if seen == event => return,
                    Ok(_) => {}
                    Err(error) => panic!("{error}"),
                }
            }
        })
        .await;
    }
}

/// Two connected nodes over TCP; the first has dialled the second.
pub(crate) async fn pair() -> (Node, Node) {
    let (a, b) = (Node::new(tcp_config()).await, Node::new(tcp_config()).await);
    a.dial(&b).await;
    (a, b)
}

/// A peer that speaks libp2p, but on our protocols whatever the test writes.
pub(crate) struct Rogue {
    pub(crate) id: PeerId,
    pub(crate) control: libp2p_stream::Control,
}

impl Rogue {
    pub(crate) async fn dialing(node: &Node) -> Self {
        let mut swarm: Swarm<libp2p_stream::Behaviour> = SwarmBuilder::with_new_identity()
            .with_tokio()
            .with_tcp(tcp::Config::default(), noise::Config::new, yamux::Config::default)
            .unwrap()
            .with_behaviour(|_| libp2p_stream::Behaviour::new())
            .unwrap()
            .with_swarm_config(|config| config.with_idle_connection_timeout(PATIENCE))
            .build();
        swarm.dial(node.client.listen_addrs().await.unwrap().remove(0)).unwrap();
        let (id, control) = (*swarm.local_peer_id(), swarm.behaviour().new_control());
        tokio::spawn(async move { while swarm.next().await.is_some() {} });
        Self { id, control }
    }

    pub(crate) async fn open(&mut self, node: &Node, protocol: &'static str) -> libp2p::Stream {
        soon("open", self.control.open_stream(node.id(), StreamProtocol::new(protocol))).await.unwrap()
    }
}
