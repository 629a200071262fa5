//! A soak: transfers of 64 MiB in both directions over one TCP connection, again and again, for as long as is asked for.
//!
//! Yamux can lock up where both ends of a stream write and neither reads; pulls never do that, and this is where it would show.
//! Nothing is stored: disks have soaks of their own.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use tributary::net::{PullClient, PullOptions, PullServer, PullServerConfig, Transport, Wanted};

use super::{
    pull::Chunks,
    support::{Node, pair},
};

/// How long, in seconds; [`SECONDS`] when it is not set.
const VARIABLE: &str = "TRIBUTARY_SOAK_SECONDS";
const SECONDS: u64 = 30;
/// Chunks of a transfer, and their size in bytes: 64 MiB.
const CHUNKS: (usize, usize) = (256, 256 << 10);
/// Who waits so long for the next chunk has met a stall, however busy the machine is.
const STALL: Duration = Duration::from_secs(60);

/// What must not take as long as a stall.
async fn watched<T>(what: &str, work: impl Future<Output = T>) -> T {
    tokio::time::timeout(STALL, work).await.unwrap_or_else(|_| panic!("a stall: no {what} for {STALL:?}"))
}

/// One transfer; returns its bytes.
async fn transfer(from: &Node, by: &Node, wanted: &[Wanted]) -> usize {
    let stream = watched("stream", by.client.open_pull(from.id())).await.unwrap();
    let options = PullOptions { stall_timeout: STALL, ..PullOptions::default() };
    let mut pull = PullClient::start(stream, wanted.to_vec(), options).unwrap();
    let mut bytes = 0;
    while let Some(item) = watched("chunk", pull.next()).await {
        bytes += item.result.unwrap().len();
    }
    bytes
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn soak_of_opposing_transfers_over_one_connection() {
    let seconds = std::env::var(VARIABLE).map_or(SECONDS, |text| text.parse().expect("seconds"));
    let (a, b) = pair().await;
    let (count, len) = CHUNKS;
    let (chunks, wanted) = Chunks::new(count, len);
    let chunks = Arc::new(chunks);
    let serve = |node: &Node| PullServer::start(&node.client, chunks.clone(), PullServerConfig::default());
    let servers = [serve(&a).unwrap(), serve(&b).unwrap()];

    let (begun, mut rounds) = (Instant::now(), 0);
    while begun.elapsed() < Duration::from_secs(seconds) {
        let (one, other) = tokio::join!(transfer(&a, &b, &wanted), transfer(&b, &a, &wanted));
        assert_eq!((one, other), (count * len, count * len));
        rounds += 1;
    }
    assert!(rounds > 0);
    for (node, server) in [(&a, &servers[0]), (&b, &servers[1])] {
        let stats = server.stats();
        assert_eq!((stats.completed, stats.failed, stats.busy), (rounds, 0, 0), "{stats:?}");
        // It was one connection all the time.
        let peers = node.client.peers().await.unwrap();
        assert_eq!((peers.len(), peers[0].paths.len(), peers[0].transport), (1, 1, Transport::Tcp));
    }
}
