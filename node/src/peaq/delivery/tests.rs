use libp2p::identity::Keypair;

use super::*;
use crate::{
    machine::system_clock,
    net::{self, NetConfig},
    peaq::{Chunk, ChunkError},
};

/// One chunk that nobody asks for.
struct Nothing;

impl ChunkSource for Nothing {
    fn count(&self) -> u64 {
        1
    }

    fn read(&self, place: u64) -> Result<Chunk, ChunkError> {
        Err(ChunkError::Dropped { index: place })
    }

    fn find(&self, _: &str) -> Option<u64> {
        None
    }
}

async fn deliveries(listen: &[&str]) -> (Deliveries, Client) {
    let listen = listen.iter().map(|address| address.parse().unwrap()).collect();
    let config = NetConfig { listen, ..NetConfig::default() };
    let (client, _, _) = net::start(Keypair::generate_ed25519(), config).await.unwrap();
    let clock = system_clock();
    (Deliveries::start(client.clone(), Vec::new(), clock, DeliveryLimits::default()).unwrap(), client)
}

#[tokio::test]
async fn an_old_handoff_does_not_end_a_newer_session() {
    let (deliveries, net) = deliveries(&["/ip4/127.0.0.1/tcp/0"]).await;
    let now_ms = (deliveries.inner.clock)();
    let (first, second) = (now_ms + 60_000, now_ms + 120_000);
    deliveries.prepare("p", Arc::new(Nothing), first).await.unwrap();
    assert!(deliveries.close("p", "changed"));
    assert!(!deliveries.close("p", "again"));
    let handoff = deliveries.prepare("p", Arc::new(Nothing), second).await.unwrap();
    assert_eq!(tributary_protocol::peaq::purchase::parse_time(&handoff.expires_at), Some(second));

    deliveries.inner.expire("p", first);
    assert_eq!(deliveries.get("p").unwrap().state, DeliveryState::Preparing);
    deliveries.inner.expire("p", second);
    assert!(matches!(deliveries.get("p").unwrap().state, DeliveryState::Failed { .. }));
    net.shutdown().await;
}

#[tokio::test]
async fn a_session_needs_an_address_that_buyers_can_dial_and_a_time_to_come() {
    let (deliveries, net) = deliveries(&["/ip4/127.0.0.1/udp/0/quic-v1"]).await;
    let now_ms = (deliveries.inner.clock)();
    let refused = deliveries.offer("p", "s", "b", Arc::new(Nothing), now_ms + 60_000).await;
    assert!(matches!(refused, Err(DeliveryError::NoAddress)), "{refused:?}");
    let refused = deliveries.offer("p", "s", "b", Arc::new(Nothing), now_ms).await;
    assert!(matches!(refused, Err(DeliveryError::Expired)), "{refused:?}");
    assert!(Deliveries::start(net.clone(), Vec::new(), system_clock(), DeliveryLimits::default()).is_none());
    net.shutdown().await;
}
