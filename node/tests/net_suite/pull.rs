use std::{collections::HashMap, num::NonZeroU32, sync::Arc, time::Duration};

use futures::{AsyncReadExt, AsyncWriteExt, io::Cursor};
use tokio_util::compat::TokioAsyncReadCompatExt;
use tributary::net::{
    ChunkLookup, ChunkProvider, MAX_PULL_HASHES, PULL_PROTOCOL, PeerEvent, PullClient, PullError, PullItem,
    PullOptions, PullServer, PullServerConfig, PullServerError, RequestError, Wanted,
};
use tributary_protocol::{
    ids::Hash,
    record::MAX_CIPHERTEXT_LEN,
    wire::{PullHeader, PullRequest, PullStatus},
};

use super::support::{Node, Rogue, pair, soon, tcp_config};

#[derive(Default)]
pub(crate) struct Chunks(HashMap<Hash, Vec<u8>>);

impl Chunks {
    pub(crate) fn new(count: usize, len: usize) -> (Self, Vec<Wanted>) {
        let mut chunks = Self::default();
        let wanted = (0..count)
            .map(|i| {
                let mut body = vec![0; len];
                blake3::Hasher::new().update(&i.to_le_bytes()).finalize_xof().fill(&mut body);
                let wanted = Wanted { hash: Hash::of(&body), len: u32::try_from(len).ok() };
                chunks.0.insert(wanted.hash, body);
                wanted
            })
            .collect();
        (chunks, wanted)
    }
}

impl ChunkProvider for Chunks {
    fn read(&self, hash: &Hash, into: &mut Vec<u8>) -> ChunkLookup {
        match self.0.get(hash) {
            Some(body) if body.is_empty() => ChunkLookup::Gone,
            Some(body) => {
                into.extend_from_slice(body);
                ChunkLookup::Found
            }
            None => ChunkLookup::Absent,
        }
    }
}

async fn pull(from: &Node, by: &Node, wanted: Vec<Wanted>) -> Vec<PullItem> {
    let stream = soon("open", by.client.open_pull(from.id())).await.unwrap();
    let mut pull = PullClient::start(stream, wanted, PullOptions::default()).unwrap();
    let mut items = Vec::new();
    while let Some(item) = soon("chunk", pull.next()).await {
        items.push(item);
    }
    items
}

fn serve(node: &Node, chunks: Chunks, config: PullServerConfig) -> PullServer {
    PullServer::start(&node.client, Arc::new(chunks), config).unwrap()
}

#[tokio::test]
async fn many_chunks_of_all_sizes_arrive_in_order() {
    let (a, b) = pair().await;
    let (mut chunks, mut wanted) = (Chunks::default(), Vec::new());
    for (count, len) in [(600, 10), (40, 70_000), (3, MAX_CIPHERTEXT_LEN)] {
        let (more, hashes) = Chunks::new(count, len);
        chunks.0.extend(more.0);
        wanted.extend(hashes);
    }
    let (absent, gone) = (Hash::from_bytes([1; 32]), Hash::from_bytes([2; 32]));
    chunks.0.insert(gone, Vec::new());
    wanted.insert(5, Wanted { hash: absent, len: None });
    wanted.insert(8, Wanted { hash: gone, len: None });
    let bodies = chunks.0.clone();
    let server = serve(&b, chunks, PullServerConfig::default());
    assert_eq!(
        PullServer::start(&b.client, Arc::new(Chunks::default()), PullServerConfig::default()).err(),
        Some(PullServerError::AlreadyServing)
    );
    let items = pull(&b, &a, wanted.clone()).await;
    assert_eq!(items.len(), wanted.len());
    for (item, wanted) in items.iter().zip(&wanted) {
        assert_eq!(item.hash, wanted.hash);
        match &item.result {
            Ok(body) => assert_eq!(Some(body), bodies.get(&item.hash)),
            Err(error) if item.hash == absent => assert_eq!(*error, PullError::NotFound(absent)),
            Err(error) => assert_eq!(*error, PullError::Gone(gone)),
        }
    }
    let stats = server.stats();
    assert_eq!((stats.chunks, stats.failed, stats.malformed), (643, 0, 0));
}

#[tokio::test]
async fn wrong_bytes_are_detected() {
    let (a, b) = pair().await;
    let (mut chunks, wanted) = Chunks::new(5, 100_000);
    chunks.0.get_mut(&wanted[3].hash).unwrap()[77] ^= 1;
    let _server = serve(&b, chunks, PullServerConfig::default());
    let items = pull(&b, &a, wanted.clone()).await;
    assert_eq!(items.len(), 4, "nothing is taken after wrong bytes");
    let error = items[3].result.clone().unwrap_err();
    assert_eq!(error, PullError::Mismatch(wanted[3].hash));
    assert!(error.is_offence());
}

/// What a pull makes of a response that is not what a server of ours would send.
async fn pulled(response: Vec<u8>, wanted: Vec<Wanted>) -> Vec<Result<Vec<u8>, PullError>> {
    pulled_with(PullOptions::default(), response, wanted).await
}

async fn pulled_with(options: PullOptions, response: Vec<u8>, wanted: Vec<Wanted>) -> Vec<Result<Vec<u8>, PullError>> {
    let (ours, theirs) = tokio::io::duplex(1 << 20);
    let mut theirs = theirs.compat();
    let options = PullOptions { stall_timeout: Duration::from_millis(200), ..options };
    let mut pull = PullClient::start(ours.compat(), wanted, options).unwrap();
    theirs.write_all(&response).await.unwrap();
    let mut results = Vec::new();
    while let Some(item) = soon("item", pull.next()).await {
        results.push(item.result);
    }
    results
}

#[tokio::test]
async fn every_lie_of_a_server_has_its_name() {
    let body = vec![9; 1000];
    let hash = Hash::of(&body);
    let other = Hash::from_bytes([7; 32]);
    let found = |hash, len| PullHeader { hash, status: PullStatus::Found { len } }.encode().to_vec();
    let known = vec![Wanted { hash, len: Some(1000) }];
    let unknown = vec![Wanted { hash, len: None }];

    let good = [found(hash, 1000), body.clone()].concat();
    assert_eq!(pulled(good, known.clone()).await, [Ok(body)]);
    let body_limit = PullOptions { max_body: 999, ..PullOptions::default() };
    let too_long = pulled_with(body_limit, found(hash, 1000), unknown.clone()).await;
    assert_eq!(too_long, [Err(PullError::TooLong { hash, len: 1000, max: 999 })]);
    let endless = pulled(found(hash, u32::MAX), unknown.clone()).await;
    assert!(matches!(endless[..], [Err(PullError::Malformed(_))]));
    let wrong = pulled(found(hash, 999), known.clone()).await;
    assert_eq!(wrong, [Err(PullError::WrongLength { hash, len: 999, expected: 1000 })]);
    let order = pulled(found(other, 1000), known.clone()).await;
    assert_eq!(order, [Err(PullError::Unasked(other))]);
    let busy = PullHeader { hash, status: PullStatus::Busy { retry_ms: 1500 } };
    let busy = pulled(busy.encode().to_vec(), known.clone()).await;
    assert_eq!(busy, [Err(PullError::Busy { retry_after: Duration::from_millis(1500) })]);
    assert!(matches!(pulled(vec![0xff; PullHeader::LEN], known.clone()).await[..], [Err(PullError::Malformed(_))]));
    // The server keeps the stream open and says no more, inside a header and inside a body.
    assert_eq!(pulled(vec![0; 10], known.clone()).await, [Err(PullError::Timeout)]);
    let half = [found(hash, 1000), vec![9; 10]].concat();
    assert_eq!(pulled(half, known).await, [Err(PullError::Timeout)]);
    let number = vec![unknown[0]; MAX_PULL_HASHES + 1];
    let stream = Cursor::new(Vec::new());
    assert_eq!(PullClient::start(stream, number, PullOptions::default()).err(), Some(PullError::Count(1025)));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_a_hundred_streams_at_once_none_is_lost() {
    let (a, b) = pair().await;
    let (chunks, wanted) = Chunks::new(1, 1000);
    // The provider holds every admitted stream until the others have been decided.
    let gate = Arc::new(std::sync::Barrier::new(9));
    let held = Arc::clone(&gate);
    let provider = move |hash: &Hash, into: &mut Vec<u8>| {
        held.wait();
        chunks.read(hash, into)
    };
    let config = PullServerConfig { max_streams: 8, max_streams_per_peer: 8, ..PullServerConfig::default() };
    let server = PullServer::start(&b.client, Arc::new(provider), config).unwrap();
    let mut pulls = tokio::task::JoinSet::new();
    for _ in 0..100 {
        let (client, peer, wanted) = (a.client.clone(), b.id(), wanted.clone());
        pulls.spawn(async move {
            let stream = client.open_pull(peer).await.unwrap();
            PullClient::start(stream, wanted, PullOptions::default()).unwrap().next().await.unwrap().result
        });
    }
    for _ in 0..92 {
        let refused = soon("refusal", pulls.join_next()).await.unwrap().unwrap();
        assert_eq!(refused, Err(PullError::Busy { retry_after: Duration::from_secs(1) }));
    }
    tokio::task::spawn_blocking(move || gate.wait()).await.unwrap();
    for _ in 0..8 {
        assert!(soon("served", pulls.join_next()).await.unwrap().unwrap().is_ok());
    }
    let stats = server.stats();
    assert_eq!((stats.busy, stats.dropped, stats.chunks), (92, 0, 8));
}

#[tokio::test]
async fn a_stream_that_never_ends_or_never_reads_is_cut_off_and_its_place_is_free_again() {
    let mut node = Node::new(tcp_config()).await;
    let (chunks, wanted) = Chunks::new(64, 1 << 20);
    let config = PullServerConfig {
        max_streams: 1,
        request_timeout: Duration::from_millis(300),
        stall_timeout: Duration::from_millis(300),
        ..PullServerConfig::default()
    };
    let server = serve(&node, chunks, config);
    let mut rogue = Rogue::dialing(&node).await;
    node.wait(PeerEvent::Connected(rogue.id)).await;

    // A request that does not end.
    let mut stream = rogue.open(&node, PULL_PROTOCOL).await;
    stream.write_all(&[0, 0, 1, 0, 0x81]).await.unwrap();
    stream.flush().await.unwrap();
    let mut rest = Vec::new();
    let _ = soon("cut off", stream.read_to_end(&mut rest)).await;
    assert!(rest.is_empty());

    // A request for 64 MiB that nobody reads. The stream stays open until the server has given up.
    let request = PullRequest { hashes: wanted.iter().map(|wanted| wanted.hash).collect() };
    let mut stream = rogue.open(&node, PULL_PROTOCOL).await;
    stream.write_all(&request.encode_frame().unwrap()).await.unwrap();
    stream.close().await.unwrap();
    soon("stall", async {
        while server.stats().failed < 2 {
            tokio::task::yield_now().await;
        }
    })
    .await;
    drop(stream);

    let honest = Node::new(tcp_config()).await;
    honest.dial(&node).await;
    let items = pull(&node, &honest, wanted[..2].to_vec()).await;
    assert!(items.len() == 2 && items.iter().all(|item| item.result.is_ok()));
}

#[tokio::test]
async fn chunks_that_went_out_count_also_when_the_transfer_breaks() {
    let (a, b) = pair().await;
    // One batch, of which the first slice goes out at once and the second a second later.
    let (chunks, wanted) = Chunks::new(20, 10_000);
    let config = PullServerConfig { bytes_per_second: NonZeroU32::new(64 << 10), ..PullServerConfig::default() };
    let server = serve(&b, chunks, config);
    let stream = soon("open", a.client.open_pull(b.id())).await.unwrap();
    let mut pull = PullClient::start(stream, wanted, PullOptions::default()).unwrap();
    for _ in 0..6 {
        assert!(soon("chunk", pull.next()).await.unwrap().result.is_ok());
    }
    a.client.disconnect(b.id()).await.unwrap();
    soon("the broken transfer", async {
        while server.stats().failed < 1 {
            tokio::task::yield_now().await;
        }
    })
    .await;
    let stats = server.stats();
    assert!((6..20).contains(&stats.chunks), "{stats:?}");
    assert_eq!(stats.bytes, stats.chunks * 10_000);
}

#[tokio::test]
async fn malformed_requests_are_counted_and_end_in_a_ban() {
    let mut node = Node::new(tcp_config()).await;
    let (chunks, wanted) = Chunks::new(1, 10);
    let server = serve(&node, chunks, PullServerConfig::default());
    let mut rogue = Rogue::dialing(&node).await;
    node.wait(PeerEvent::Connected(rogue.id)).await;
    // Too long, no list, an empty list, more than a list.
    let mut more = PullRequest { hashes: vec![wanted[0].hash] }.encode_frame().unwrap();
    more.push(0);
    for bytes in [vec![0, 2, 0, 0], vec![0, 0, 0, 1, 7], vec![0, 0, 0, 3, 0x82, 0, 0x80], more] {
        let mut stream = rogue.open(&node, PULL_PROTOCOL).await;
        let _ = stream.write_all(&bytes).await;
        let _ = stream.close().await;
        let mut rest = Vec::new();
        let _ = soon("closed", stream.read_to_end(&mut rest)).await;
        assert!(rest.is_empty(), "{bytes:?}");
    }
    node.wait(PeerEvent::Banned(rogue.id)).await;
    assert_eq!(server.stats().malformed, 4);
    let honest = Node::new(tcp_config()).await;
    honest.dial(&node).await;
    assert!(pull(&node, &honest, wanted).await[0].result.is_ok());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn eight_opposing_pulls_over_one_connection_complete() {
    let (a, b) = pair().await;
    let (chunks_a, wanted) = Chunks::new(64, 256 << 10);
    let chunks_b = Chunks(chunks_a.0.clone());
    let _servers = [serve(&a, chunks_a, PullServerConfig::default()), serve(&b, chunks_b, PullServerConfig::default())];
    let each = |from, by| pull(from, by, wanted.clone());
    let pulls = [
        each(&a, &b),
        each(&b, &a),
        each(&a, &b),
        each(&b, &a),
        each(&a, &b),
        each(&b, &a),
        each(&a, &b),
        each(&b, &a),
    ];
    for items in soon("pulls", futures::future::join_all(pulls)).await {
        assert_eq!(items.len(), 64, "{:?}", items.last().map(|item| item.result.as_ref().err()));
        assert!(items.iter().all(|item| item.result.as_ref().is_ok_and(|body| body.len() == 256 << 10)));
    }
    assert_eq!(a.client.peers().await.unwrap()[0].paths.len(), 1);
}

#[tokio::test]
async fn a_limited_server_delivers_everything() {
    let (a, b) = pair().await;
    let (chunks, wanted) = Chunks::new(8, 100_000);
    let rate = NonZeroU32::new(8 << 20);
    let config =
        PullServerConfig { bytes_per_second: rate, bytes_per_second_per_peer: rate, ..PullServerConfig::default() };
    let _server = serve(&b, chunks, config);
    let items = pull(&b, &a, wanted).await;
    assert!(items.len() == 8 && items.iter().all(|item| item.result.is_ok()));
}

#[tokio::test]
async fn a_node_that_serves_nothing_offers_nothing_until_it_does() {
    let (a, b) = pair().await;
    let (chunks, wanted) = Chunks::new(1, 10);
    let chunks = Arc::new(chunks);
    let refused = soon("open", a.client.open_pull(b.id())).await;
    assert_eq!(refused.err(), Some(RequestError::Unsupported { peer: b.id(), protocol: PULL_PROTOCOL }));
    let server = PullServer::start(&b.client, chunks.clone(), PullServerConfig::default()).unwrap();
    assert!(pull(&b, &a, wanted.clone()).await[0].result.is_ok());
    drop(server);
    let again = soon("again", async {
        loop {
            match PullServer::start(&b.client, chunks.clone(), PullServerConfig::default()) {
                Ok(server) => break server,
                Err(_) => tokio::task::yield_now().await,
            }
        }
    })
    .await;
    assert!(pull(&b, &a, wanted).await[0].result.is_ok());
    assert_eq!(again.stats().completed, 1);
}

#[tokio::test]
async fn a_pull_dials_a_known_address() {
    let mut config = tcp_config();
    config.listen.push("/ip4/127.0.0.1/udp/0/quic-v1".parse().unwrap());
    let (mut a, b) = (Node::new(tcp_config()).await, Node::new(config).await);
    let (chunks, wanted) = Chunks::new(1, 10);
    let _server = serve(&b, chunks, PullServerConfig::default());
    let unknown = soon("unknown", a.client.open_pull(b.id())).await;
    assert_eq!(unknown.err(), Some(RequestError::Unreachable(b.id())));
    let addresses = b.client.listen_addrs().await.unwrap();
    assert_eq!(soon("connect", a.client.connect(b.id(), addresses)).await, Ok(()));
    a.client.disconnect(b.id()).await.unwrap();
    a.wait(PeerEvent::Disconnected(b.id())).await;
    assert!(pull(&b, &a, wanted).await[0].result.is_ok());
}
