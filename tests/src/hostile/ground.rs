//! Where an attack takes place: a machine and a buyer who trade honestly, and what they must not lose.

use libp2p::Multiaddr;
use tributary::{control::api::PeerStatus, home::Home};
use tributary_protocol::{
    ids::{DatasetId, Did, LogId},
    keys::FeedKey,
};

use crate::{
    home::{Sandbox, stream},
    node::NodeProcess,
    peer, trade,
};

/// What the machine publishes.
pub const TOPIC: &str = "/imu";
/// What a node may use at its peak while it is attacked, bytes: the index's cache and the program itself included.
pub const MEMORY: u64 = 220 << 20;
/// What a node may write into its log while it is attacked, bytes: some lines for each ban, not one for each message.
const LOG: usize = 64 << 10;
/// Messages of one honest trade.
const MESSAGES: u64 = 40;

/// A machine, a buyer who follows it, and the folder of both.
pub struct Ground {
    /// What sells.
    pub machine: NodeProcess,
    /// Who buys.
    pub buyer: NodeProcess,
    /// The machine's DID.
    pub did: Did,
    /// Where the machine is.
    pub machine_at: Multiaddr,
    /// Where the buyer is.
    pub buyer_at: Multiaddr,
    /// The folder.
    pub sandbox: Sandbox,
    traded: u64,
}

impl Ground {
    /// Starts both; one trade lies behind them.
    pub async fn start() -> Self {
        Self::start_with("").await
    }

    /// As [`Ground::start`]; `more` is further keys of the machine's stream.
    pub async fn start_with(more: &str) -> Self {
        let sandbox = Sandbox::new();
        let stream = stream(TOPIC, &format!(", chunk: {{ bytes: 4KiB }}{more}"));
        let machine = NodeProcess::start(&sandbox.machine("machine", &[stream])).await;
        let buyer = NodeProcess::start(&sandbox.buyer("buyer", "")).await;
        trade::follow(&buyer, &machine).await;
        let (did, machine_at) = (machine.status().await.did, peer::address(&machine.link().await));
        let status = buyer.status().await;
        let buyer_at = format!("{}/p2p/{}", bare(&status.listen[0]), status.peer).parse().unwrap();
        let mut ground = Self { machine, buyer, did, machine_at, buyer_at, sandbox, traded: 0 };
        ground.honest_trade().await;
        ground
    }

    /// Honest trade from the message to the proof; it must work whatever else goes on.
    pub async fn honest_trade(&mut self) -> DatasetId {
        let dataset = trade::ingest(&self.machine, TOPIC, self.traded, MESSAGES).await;
        self.traded += MESSAGES;
        trade::know(&self.buyer, dataset).await;
        trade::buy(&self.buyer, dataset).await;
        dataset
    }

    /// The key that signs the machine's entries, as a thief of its home has it.
    ///
    /// # Panics
    ///
    /// When the home cannot be read.
    #[must_use]
    pub fn feed_key(&self) -> FeedKey {
        FeedKey::from_bytes(&Home::open(self.machine.home()).unwrap().keys(None).unwrap().feed.to_bytes())
    }

    /// The log of the machine's stream.
    ///
    /// # Panics
    ///
    /// When it has none.
    pub async fn log(&self) -> LogId {
        let status = self.machine.status().await;
        status.streams.iter().find(|stream| stream.name == TOPIC).unwrap().stream.into()
    }

    /// Proofs against the machine that the buyer keeps.
    pub async fn equivocations(&self) -> u64 {
        self.buyer.status().await.followed[0].equivocations
    }

    /// One more trade, and the end of both nodes: neither fell over, panicked, stopped, or grew beyond [`MEMORY`].
    ///
    /// # Panics
    ///
    /// When one did.
    pub async fn stood(mut self) {
        self.honest_trade().await;
        for node in [&mut self.machine, &mut self.buyer] {
            assert!(node.is_alive());
            let peak = node.peak_memory();
            assert!(peak < MEMORY, "{} used {} MiB", node.home().display(), peak >> 20);
            let log = node.log();
            assert!(!log.contains("panicked"), "something panicked in {}", node.home().display());
            assert!(
                log.len() < LOG,
                "an attacker fills the disk by the log: {} bytes, at the end {}",
                log.len(),
                tail(&log)
            );
            let status = node.status().await;
            assert!(!status.store.stopped, "{status:?}");
            assert!(status.streams.iter().all(|stream| stream.lane.stopped.is_none()), "{status:?}");
        }
        self.buyer.stop().await;
        self.machine.stop().await;
    }
}

fn tail(text: &str) -> &str {
    let from = text.len().saturating_sub(2000);
    text.get(from..).unwrap_or_default()
}

/// An address without the peer at its end.
fn bare(address: &str) -> &str {
    address.split_once("/p2p/").map_or(address, |(address, _)| address)
}

/// What a node knows of a connected peer.
pub async fn seen(node: &NodeProcess, peer: &libp2p::PeerId) -> Option<PeerStatus> {
    let id = peer.to_string();
    node.status().await.peers.into_iter().find(|known| known.peer == id)
}
