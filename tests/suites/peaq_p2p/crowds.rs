//! A crowd of connections that say nothing.

use std::{process::Command, sync::Arc};

use futures::StreamExt as _;
use libp2p::{Multiaddr, Stream, StreamProtocol, swarm::SwarmEvent};
use tokio::{sync::Semaphore, task::JoinSet};
use tributary_protocol::peaq::{connect_url::ConnectUrl, frame::PROTOCOL};
use tributary_tests::{
    delivery::{lone_swarm, official_buyer},
    peer::peer_of,
};

use super::{Shop, same};

/// Connections of the crowd, each with an identity of its own.
const CROWD: usize = 1000;
/// Of these one in so many also opens a stream of the delivery protocol, and says nothing on it.
const STREAM_EVERY: usize = 2;

/// A connection that is kept until it is closed from the other side, and perhaps a stream on it.
async fn idle(address: Multiaddr, with_stream: bool, established: Arc<Semaphore>) -> Option<Stream> {
    let mut swarm = lone_swarm();
    let mut control = swarm.behaviour().new_control();
    swarm.dial(address.clone()).unwrap();
    loop {
        match swarm.select_next_some().await {
            SwarmEvent::ConnectionEstablished { .. } => break,
            // Too many shook hands at once.
            SwarmEvent::OutgoingConnectionError { .. } => swarm.dial(address.clone()).unwrap(),
            _ => {}
        }
    }
    established.add_permits(1);
    let open = control.open_stream(peer_of(&address), StreamProtocol::new(PROTOCOL));
    let stream = async { if with_stream { open.await.ok() } else { None } };
    let drive = async {
        loop {
            if let SwarmEvent::ConnectionClosed { .. } = swarm.select_next_some().await {
                return;
            }
        }
    };
    tokio::pin!(drive);
    let stream = tokio::select! {
        () = &mut drive => return None,
        stream = stream => stream,
    };
    drive.await;
    stream
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_thousand_connections_that_say_nothing_do_not_keep_the_buyer_out() {
    // Each end of a connection is a file; the usual limit of 1024 would be ours, not the node's.
    let me = std::process::id().to_string();
    let raised = Command::new("prlimit").args(["--pid", &me, "--nofile=8192:"]).status().unwrap();
    assert!(raised.success(), "the limit on open files cannot be raised to 8192");

    let shop = Shop::open(1_000_000).await;
    let address: Multiaddr = ConnectUrl::parse(&shop.offered.url).unwrap().first_address().parse().unwrap();
    let established = Arc::new(Semaphore::new(0));
    let mut crowd = JoinSet::new();
    let mut left = CROWD;
    while left > 0 {
        let wave = left.min(50);
        for at in 0..wave {
            crowd.spawn(idle(address.clone(), at % STREAM_EVERY == 0, Arc::clone(&established)));
        }
        left -= wave;
        tributary_tests::wait::until("a wave of connections", async || {
            (established.available_permits() >= CROWD - left).then_some(())
        })
        .await;
    }
    assert!(established.available_permits() >= CROWD);
    // Most of them are still there, as many as the node lets stand.
    let peers = shop.node.status().await.peers.len();
    assert!(peers >= 200, "{peers} peers: the crowd is gone");

    let official = shop.path("official");
    let said = official_buyer(&shop.purchase(), &official).await;
    assert_eq!(said["ok"], true, "{said}");
    assert!(same(&shop.input, &official));
    crowd.shutdown().await;
    shop.node.stop().await;
}
