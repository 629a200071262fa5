use std::collections::HashSet;

use futures::StreamExt as _;
use libp2p::{Swarm, SwarmBuilder, identify, identity::Keypair, noise, swarm::SwarmEvent, tcp, yamux};

use super::*;
use crate::net::{config::NetConfig, task::prepare};

const PATIENCE: Duration = Duration::from_secs(60);

/// A peer of another make, which speaks identify alone.
fn stranger() -> Swarm<identify::Behaviour> {
    SwarmBuilder::with_new_identity()
        .with_tokio()
        .with_tcp(tcp::Config::default(), noise::Config::new, yamux::Config::default)
        .unwrap()
        .with_behaviour(|key| identify::Behaviour::new(identify::Config::new("/test/1".into(), key.public())))
        .unwrap()
        .with_swarm_config(|config| config.with_idle_connection_timeout(PATIENCE))
        .build()
}

/// The addresses that the node next says it has.
async fn told(peer: &mut Swarm<identify::Behaviour>) -> HashSet<Multiaddr> {
    loop {
        if let SwarmEvent::Behaviour(identify::Event::Received { info, .. }) = peer.select_next_some().await {
            return info.listen_addrs.into_iter().collect();
        }
    }
}

#[tokio::test]
async fn peers_are_told_of_an_address_when_it_is_confirmed_and_when_it_is_lost() {
    let config = NetConfig { listen: vec!["/ip4/127.0.0.1/tcp/0".parse().unwrap()], ..NetConfig::default() };
    let (mut task, client, _events) = prepare(Keypair::generate_ed25519(), config).await.unwrap();
    let (address, server): (Multiaddr, _) = ("/ip4/198.51.100.1/tcp/4600".parse().unwrap(), PeerId::random());
    task.reachability.seen(address.clone(), Instant::now());
    let tests = task.tested_tx.clone();
    let running = tokio::spawn(task.run());
    let ended = |outcome| tests.send(Tested { address: address.clone(), server, outcome });

    let mut peer = stranger();
    peer.dial(client.listen_addrs().await.unwrap().remove(0)).unwrap();
    let scene = async {
        assert!(!told(&mut peer).await.contains(&address), "nobody has tested it yet");
        ended(Outcome::Reachable).await.unwrap();
        while !told(&mut peer).await.contains(&address) {}
        // One failure is none yet.
        for _ in 0..2 {
            ended(Outcome::Unreachable("no answer".into())).await.unwrap();
        }
        while told(&mut peer).await.contains(&address) {}
    };
    tokio::time::timeout(PATIENCE, scene).await.expect("the node tells its peers");
    drop(client);
    running.await.unwrap();
}
