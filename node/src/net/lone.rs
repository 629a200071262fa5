//! A swarm for one stream: for a command that talks to one peer and ends.
//!
//! It has an identity of its own, made for this one stream, listens nowhere, and speaks TCP with Noise and Yamux, which every
//! libp2p has; with a node of Tributary TLS in place of Noise, because it moves bulk faster. It ends when it is dropped.

use std::{
    sync::{Arc, atomic::AtomicBool},
    time::Duration,
};

use futures::StreamExt as _;
use libp2p::{
    Multiaddr, PeerId, Stream, SwarmBuilder,
    multiaddr::Protocol,
    noise,
    swarm::{SwarmEvent, dial_opts::DialOpts},
    tcp,
};
use tokio::{sync::oneshot, task::JoinHandle, time::timeout};

use super::{
    event::Counters,
    muxer,
    streams::{OpenError, Streams},
    tls,
};

/// Why there is no stream.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LoneError {
    /// The address does not say whom to expect.
    #[error("{0} does not end in /p2p/<peer id>, so it is not known whom to expect there")]
    NoPeer(Multiaddr),
    /// The swarm could not be built.
    #[error("the network could not be started: {0}")]
    Setup(String),
    /// Nobody answered, or somebody else.
    #[error("{address} cannot be reached: {reason}")]
    Unreachable {
        /// The address.
        address: Multiaddr,
        /// Why.
        reason: String,
    },
    /// The peer has another version, or another program.
    #[error("{peer} does not speak {protocol}")]
    Unsupported {
        /// The peer.
        peer: PeerId,
        /// The protocol.
        protocol: &'static str,
    },
    /// It took too long.
    #[error("{address} did not answer within {} s", limit.as_secs())]
    Timeout {
        /// The address.
        address: Multiaddr,
        /// The limit.
        limit: Duration,
    },
}

/// The swarm behind a stream. Keep it as long as the stream is used.
pub struct Lone {
    task: JoinHandle<()>,
}

impl Drop for Lone {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Dials `address`, which ends in `/p2p/<peer id>`, and opens one stream of `protocol`.
///
/// # Errors
/// The address names nobody, nobody answers within `limit`, or the peer does not speak the protocol.
pub async fn open_lone(
    address: Multiaddr,
    protocol: &'static str,
    limit: Duration,
) -> Result<(Stream, Lone), LoneError> {
    let Some(Protocol::P2p(peer)) = address.iter().last() else { return Err(LoneError::NoPeer(address)) };
    let setup = |error: String| LoneError::Setup(error);
    let (streams, _incoming) =
        Streams::new(protocol, 1, Arc::new(AtomicBool::new(false)), Arc::new(Counters::default()));
    let builder = SwarmBuilder::with_new_identity()
        .with_tokio()
        .with_tcp(
            tcp::Config::default().nodelay(true),
            (tls::Config::among_ourselves, noise::Config::new),
            muxer::Config::default,
        )
        .map_err(|error| setup(error.to_string()))?;
    let idle = |config: libp2p::swarm::Config| config.with_idle_connection_timeout(limit);
    let mut swarm = if std::path::Path::new("/etc/resolv.conf").exists() {
        let builder = builder.with_dns().map_err(|error| setup(error.to_string()))?;
        builder.with_behaviour(|_| streams).map_err(|error| setup(error.to_string()))?.with_swarm_config(idle).build()
    } else {
        builder.with_behaviour(|_| streams).map_err(|error| setup(error.to_string()))?.with_swarm_config(idle).build()
    };
    let unreachable = |reason: String| LoneError::Unreachable { address: address.clone(), reason };
    let opts = DialOpts::peer_id(peer).addresses(vec![address.clone()]).build();
    let (opened, stream) = oneshot::channel();
    let connect = async {
        swarm.dial(opts).map_err(|error| unreachable(error.to_string()))?;
        loop {
            match swarm.select_next_some().await {
                SwarmEvent::ConnectionEstablished { .. } => break,
                SwarmEvent::OutgoingConnectionError { error, .. } => return Err(unreachable(error.to_string())),
                _ => {}
            }
        }
        swarm.behaviour_mut().open(peer, opened);
        let task = tokio::spawn(async move {
            loop {
                swarm.select_next_some().await;
            }
        });
        let lone = Lone { task };
        match stream.await {
            Ok(Ok(stream)) => Ok((stream, lone)),
            Ok(Err(OpenError::Unsupported)) => Err(LoneError::Unsupported { peer, protocol }),
            Ok(Err(OpenError::Broken(reason))) => Err(unreachable(reason)),
            Ok(Err(OpenError::Unreachable)) | Err(_) => Err(unreachable("the connection was closed".to_owned())),
        }
    };
    timeout(limit, connect).await.unwrap_or_else(|_| Err(LoneError::Timeout { address: address.clone(), limit }))
}

#[cfg(test)]
mod tests {
    use futures::{AsyncReadExt as _, AsyncWriteExt as _};
    use libp2p::{Swarm, identity::Keypair};

    use super::*;
    use crate::net::streams::Incoming;

    const ECHO: &str = "/echo";
    const SOON: Duration = Duration::from_secs(60);

    /// A peer that secures connections in one way only.
    macro_rules! peer {
        ($security:expr) => {{
            let serving = Arc::new(AtomicBool::new(true));
            let (streams, incoming) = Streams::new(ECHO, 1, serving, Arc::new(Counters::default()));
            let swarm = SwarmBuilder::with_new_identity()
                .with_tokio()
                .with_tcp(tcp::Config::default(), $security, muxer::Config::default)
                .unwrap()
                .with_behaviour(|_| streams)
                .unwrap()
                .with_swarm_config(|config| config.with_idle_connection_timeout(SOON))
                .build();
            (swarm, incoming)
        }};
    }

    /// What an open stream brings back from it.
    async fn echo((mut swarm, mut incoming): (Swarm<Streams>, Incoming)) -> Result<[u8; 4], LoneError> {
        swarm.listen_on("/ip4/127.0.0.1/tcp/0".parse().unwrap()).unwrap();
        let address = loop {
            if let SwarmEvent::NewListenAddr { address, .. } = swarm.select_next_some().await {
                break address.with(Protocol::P2p(*swarm.local_peer_id()));
            }
        };
        tokio::spawn(async move {
            loop {
                tokio::select! {
                    _ = swarm.select_next_some() => {}
                    Some((_, mut stream)) = incoming.recv() => {
                        tokio::spawn(async move {
                            let mut said = [0; 4];
                            stream.read_exact(&mut said).await.unwrap();
                            stream.write_all(&said).await.unwrap();
                            stream.close().await.unwrap();
                        });
                    }
                }
            }
        });
        let (mut stream, _lone) = open_lone(address, ECHO, SOON).await?;
        stream.write_all(b"said").await.unwrap();
        stream.flush().await.unwrap();
        let mut heard = [0; 4];
        stream.read_exact(&mut heard).await.unwrap();
        Ok(heard)
    }

    #[tokio::test]
    async fn a_node_is_met_in_tls_and_whoever_has_noise_in_noise() {
        assert_eq!(&echo(peer!(tls::Config::new)).await.unwrap(), b"said");
        assert_eq!(&echo(peer!(noise::Config::new)).await.unwrap(), b"said");
    }

    #[tokio::test]
    async fn the_tls_of_other_programs_is_not_offered() {
        let stock = |key: &Keypair| libp2p::tls::Config::new(key);
        let refused = echo(peer!(stock)).await;
        assert!(matches!(refused, Err(LoneError::Unreachable { .. })), "{refused:?}");
    }
}
