//! The swarm: how connections are carried, secured and multiplexed, and where the node listens.

use std::{
    collections::HashMap,
    net::{SocketAddr, TcpListener},
    path::Path,
    sync::Arc,
    time::Duration,
};

use futures::StreamExt;
use libp2p::{
    Multiaddr, Swarm, SwarmBuilder, core::transport::ListenerId, identity::Keypair, multiaddr::Protocol, noise,
    swarm::SwarmEvent, tcp,
};

use super::{
    behaviour::{Behaviour, RawStreams},
    config::NetConfig,
    error::StartError,
    event::Counters,
    muxer,
    shaping::Shaper,
    tls,
};

/// A connection must stand within this time, handshakes included. Less than the 10 s in which libp2p's server of AutoNAT must have
/// dialled, or it would never say that an address does not answer.
const CONNECTION_TIMEOUT: Duration = Duration::from_secs(8);
/// A listener must have its address within this time.
const LISTEN_TIMEOUT: Duration = Duration::from_secs(10);

pub(super) fn build(
    key: Keypair,
    config: &NetConfig,
    streams: RawStreams,
    counters: &Arc<Counters>,
    shaper: &Arc<Shaper>,
) -> Result<Swarm<Behaviour>, StartError> {
    fn setup<E: std::fmt::Display>(part: &'static str) -> impl FnOnce(E) -> StartError {
        move |error| StartError::Setup { part, reason: error.to_string() }
    }
    let builder = SwarmBuilder::with_existing_identity(key)
        .with_tokio()
        .with_tcp(tcp::Config::default().nodelay(true), (tls::Config::new, noise::Config::new), muxer::Config::default)
        .map_err(setup("TLS and Noise"))?
        .with_quic();
    let swarm_config = |swarm: libp2p::swarm::Config| {
        let swarm = swarm.with_idle_connection_timeout(config.idle_timeout);
        if config.smart_dial { swarm.with_smart_dial() } else { swarm }
    };
    let behaviour =
        |key: &Keypair, relay| Behaviour::new(key, config, streams, relay, counters, shaper).map_err(Into::into);
    // A robot without a resolver must still start: it then knows no `/dns` addresses.
    if Path::new("/etc/resolv.conf").exists() {
        let builder = builder.with_dns().map_err(setup("DNS"))?;
        let builder = builder
            .with_relay_client((tls::Config::new, noise::Config::new), muxer::Config::default)
            .map_err(setup("TLS and Noise"))?;
        let builder = builder.with_behaviour(behaviour).map_err(setup("protocols"))?;
        Ok(builder.with_swarm_config(swarm_config).with_connection_timeout(CONNECTION_TIMEOUT).build())
    } else {
        let builder = builder
            .with_relay_client((tls::Config::new, noise::Config::new), muxer::Config::default)
            .map_err(setup("TLS and Noise"))?;
        let builder = builder.with_behaviour(behaviour).map_err(setup("protocols"))?;
        Ok(builder.with_swarm_config(swarm_config).with_connection_timeout(CONNECTION_TIMEOUT).build())
    }
}

/// Listens on all addresses and waits until each is bound. Nobody is connected yet, so other events cannot get lost here.
pub(super) async fn listen(swarm: &mut Swarm<Behaviour>, addresses: &[Multiaddr]) -> Result<(), StartError> {
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
