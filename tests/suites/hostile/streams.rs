//! Streams that drip: opened on every protocol, with one byte said, and held.

use tributary_tests::{
    hostile::{Attacker, Ground, raw},
    wait::until,
};

/// Streams of one peer on one protocol.
const DRIPS: usize = 40;

#[tokio::test(flavor = "multi_thread")]
async fn streams_that_drip_on_every_protocol_hold_up_nobody_and_end() {
    let mut ground = Ground::start().await;
    let mut held = Vec::new();
    for protocol in raw::PROTOCOLS {
        let attacker = Attacker::connect(&ground.machine_at).await;
        // The first byte of a length, of a text, of a message: more is promised, and never comes.
        let streams = raw::drips(&attacker, protocol, DRIPS, &[0]).await;
        assert!(!streams.is_empty(), "{protocol}: no stream was opened");
        held.push((*protocol, attacker, streams));
    }
    let opened: usize = held.iter().map(|(_, _, streams)| streams.len()).sum();
    assert!(opened >= DRIPS * 4, "{opened} streams");
    let served = ground.machine.status().await.served;
    assert!(served.active <= u64::from(served.limit), "{served:?}");
    // The buyer finds places on the same protocols.
    ground.honest_trade().await;
    ground.honest_trade().await;
    // Requests that do not come are given up; their places are free again, and their sender has lost some of his name.
    until("the slow requests to be given up", async || {
        (ground.machine.status().await.served.active == 0).then_some(())
    })
    .await;
    assert!(ground.machine.status().await.served.failed > 0);
    drop(held);
    ground.stood().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn one_peer_cannot_take_all_places_of_a_protocol() {
    let mut ground = Ground::start().await;
    let attacker = Attacker::connect(&ground.machine_at).await;
    let streams = raw::drips(&attacker, "/tributary/pull/1", 100, &[0]).await;
    let served = until("places to be taken", async || {
        let served = ground.machine.status().await.served;
        (served.active > 0).then_some(served)
    })
    .await;
    assert!(served.active < u64::from(served.limit), "{served:?}");
    until("the others to be refused", async || (ground.machine.status().await.served.busy > 0).then_some(())).await;
    assert!(streams.len() > usize::try_from(served.active).unwrap(), "more were asked for than given");
    ground.honest_trade().await;
    drop((streams, attacker));
    ground.stood().await;
}
