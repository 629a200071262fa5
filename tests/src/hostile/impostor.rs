//! Somebody who stole the key behind a machine's peer id: he passes on what the machine says, and sells lies.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering::Relaxed},
};

use futures::{AsyncReadExt as _, AsyncWriteExt as _, StreamExt as _};
use libp2p::{
    Multiaddr, PeerId, Stream, StreamProtocol, identity::Keypair, multiaddr::Protocol, noise, swarm::SwarmEvent, tcp,
    tls, yamux,
};
use tokio::task::JoinHandle;
use tributary_protocol::{
    ids::Did,
    wire::{PullHeader, PullRequest, PullStatus},
};

use super::Attacker;
use crate::wait::{PATIENCE, soon};

/// Protocols that are passed on as they are, each a frame there and a frame back.
const PASSED_ON: [&str; 2] = ["/tributary/sync/1", "/tributary/access/1"];
const PULL: &str = "/tributary/pull/1";
/// Far more than the machine ever answers.
const LONGEST: usize = 2 << 20;

/// What is sold instead of the chunks that were asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Selling {
    /// Bytes of the right length, one of them wrong.
    WrongBytes,
    /// Half of a chunk, and then the end of the stream.
    Half,
    /// A header that promises 4 GiB, and bytes without end behind it.
    Endless,
    /// Chunks that nobody asked for, one after the other.
    Unasked,
    /// A header that says nothing that there is.
    Nonsense,
}

/// A peer that listens under a stolen key.
pub struct Impostor {
    address: Multiaddr,
    lies: Arc<AtomicU64>,
    tasks: Vec<JoinHandle<()>>,
}

impl Drop for Impostor {
    fn drop(&mut self) {
        self.tasks.iter().for_each(JoinHandle::abort);
    }
}

impl Impostor {
    /// Listens under `key`, asks the machine at `upstream` for what is true, and sells `what`.
    ///
    /// # Panics
    ///
    /// When it cannot.
    pub async fn start(key: Keypair, upstream: &Multiaddr, what: Selling) -> Self {
        let me = key.public().to_peer_id();
        let mut swarm = libp2p::SwarmBuilder::with_existing_identity(key)
            .with_tokio()
            .with_tcp(tcp::Config::default(), (tls::Config::new, noise::Config::new), yamux::Config::default)
            .unwrap()
            .with_behaviour(|_| libp2p_stream::Behaviour::new())
            .unwrap()
            .with_swarm_config(|config| config.with_idle_connection_timeout(PATIENCE))
            .build();
        swarm.listen_on("/ip4/127.0.0.1/tcp/0".parse().unwrap()).unwrap();
        let address = soon("an address", async {
            loop {
                if let SwarmEvent::NewListenAddr { address, .. } = swarm.select_next_some().await {
                    return address.with(Protocol::P2p(me));
                }
            }
        })
        .await;
        let honest = Arc::new(Attacker::connect(upstream).await);
        let lies = Arc::new(AtomicU64::new(0));
        let mut tasks = Vec::new();
        for protocol in PASSED_ON {
            let mut incoming = swarm.behaviour().new_control().accept(StreamProtocol::new(protocol)).unwrap();
            let honest = Arc::clone(&honest);
            tasks.push(tokio::spawn(async move {
                while let Some((_, stream)) = incoming.next().await {
                    tokio::spawn(pass_on(Arc::clone(&honest), protocol, stream));
                }
            }));
        }
        let mut pulls = swarm.behaviour().new_control().accept(StreamProtocol::new(PULL)).unwrap();
        let told = Arc::clone(&lies);
        tasks.push(tokio::spawn(async move {
            while let Some((_, stream)) = pulls.next().await {
                tokio::spawn(sell(Arc::clone(&honest), stream, what, Arc::clone(&told)));
            }
        }));
        tasks.push(tokio::spawn(async move {
            loop {
                swarm.select_next_some().await;
            }
        }));
        Self { address, lies, tasks }
    }

    /// A link that leads to it instead of the machine.
    #[must_use]
    pub fn link(&self, did: &Did) -> String {
        format!("tributary://{did}?addr={}", self.address)
    }

    /// Its peer id: the machine's.
    #[must_use]
    pub fn id(&self) -> PeerId {
        crate::peer::peer_of(&self.address)
    }

    /// Pulls that it answered with lies.
    #[must_use]
    pub fn lies(&self) -> u64 {
        self.lies.load(Relaxed)
    }
}

async fn read_frame(stream: &mut Stream) -> Option<Vec<u8>> {
    let mut length = [0; 4];
    stream.read_exact(&mut length).await.ok()?;
    let length = usize::try_from(u32::from_be_bytes(length)).ok().filter(|length| *length <= LONGEST)?;
    let mut body = vec![0; length];
    stream.read_exact(&mut body).await.ok()?;
    Some(body)
}

fn framed(body: &[u8]) -> Vec<u8> {
    super::raw::frame(u32::try_from(body.len()).unwrap(), body)
}

async fn pass_on(honest: Arc<Attacker>, protocol: &'static str, mut stream: Stream) -> Option<()> {
    let request = read_frame(&mut stream).await?;
    let mut upstream = honest.open(protocol).await?;
    upstream.write_all(&framed(&request)).await.ok()?;
    upstream.close().await.ok()?;
    let answer = read_frame(&mut upstream).await?;
    stream.write_all(&framed(&answer)).await.ok()?;
    stream.close().await.ok()
}

async fn sell(honest: Arc<Attacker>, mut stream: Stream, what: Selling, lies: Arc<AtomicU64>) -> Option<()> {
    let request = read_frame(&mut stream).await?;
    let first = PullRequest::decode(&request).ok()?.hashes[0];
    let mut upstream = honest.open(PULL).await?;
    upstream.write_all(&framed(&request)).await.ok()?;
    upstream.close().await.ok()?;
    let mut header = [0; PullHeader::LEN];
    upstream.read_exact(&mut header).await.ok()?;
    let PullStatus::Found { len } = PullHeader::decode(&header).ok()?.status else { return None };
    let mut body = vec![0; usize::try_from(len).ok()?];
    upstream.read_exact(&mut body).await.ok()?;
    lies.fetch_add(1, Relaxed);
    match what {
        Selling::WrongBytes => {
            body[0] ^= 1;
            stream.write_all(&header).await.ok()?;
            stream.write_all(&body).await.ok()?;
        }
        Selling::Half => {
            stream.write_all(&header).await.ok()?;
            stream.write_all(&body[..body.len() / 2]).await.ok()?;
        }
        Selling::Endless => {
            let mut promise = PullHeader { hash: first, status: PullStatus::Found { len: 1 } }.encode();
            promise[33..].copy_from_slice(&u32::MAX.to_be_bytes());
            stream.write_all(&promise).await.ok()?;
            // As long as the buyer takes it.
            while stream.write_all(&[0x5a; 64 << 10]).await.is_ok() {}
        }
        Selling::Unasked => {
            let stranger = tributary_protocol::ids::Hash::of(b"not this one");
            for _ in 0..1000 {
                let header = PullHeader { hash: stranger, status: PullStatus::Found { len } }.encode();
                stream.write_all(&header).await.ok()?;
                stream.write_all(&body).await.ok()?;
            }
        }
        Selling::Nonsense => {
            header[32] = 0xff;
            stream.write_all(&header).await.ok()?;
        }
    }
    stream.close().await.ok()
}
