//! Bytes that nobody should send, at every door of a running node, while honest trade goes on.

use std::{io, path::PathBuf, time::Duration};

use futures::{AsyncReadExt as _, AsyncWriteExt as _};
use libp2p::{Multiaddr, multiaddr::Protocol};
use rand::{Rng as _, RngExt as _, SeedableRng as _, rngs::StdRng};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpStream, UnixStream},
    task::JoinSet,
    time::timeout,
};
use tributary_protocol::{ids::Did, wire::topic_machine};
use tributary_tests::{
    home::{Sandbox, stream},
    node::NodeProcess,
    peer::{Stranger, Vandal, address},
    trade,
};

const TOPIC: &str = "/imu";
/// What the node may use at its peak, all of this included.
const MEMORY: u64 = 200 << 20;
/// A door that neither takes more nor closes is left after this time.
const BORED: Duration = Duration::from_secs(3);
/// More than any limit of the node: for what never ends.
const ENDLESS: usize = 24 << 20;
const PART: usize = 64 << 10;
/// Our protocols, and those of libp2p that the node speaks.
const PROTOCOLS: &[&str] = &[
    "/tributary/sync/1",
    "/tributary/access/1",
    "/tributary/pull/1",
    "/peaqos/stream/chunk/1.0.0",
    "/ipfs/id/1.0.0",
    "/ipfs/ping/1.0.0",
    "/meshsub/1.1.0",
];

fn random(rng: &mut StdRng, len: usize) -> Vec<u8> {
    let mut bytes = vec![0; len];
    rng.fill_bytes(&mut bytes);
    bytes
}

/// What is written into a stream: first these bytes, then as many more of `with` as the other side takes.
struct Junk {
    first: Vec<u8>,
    then: Option<Vec<u8>>,
}

/// Beginnings of frames that promise more than they may, random bytes, and what never ends.
fn junk(rng: &mut StdRng) -> Vec<Junk> {
    let once = |first| Junk { first, then: None };
    let with = |head: &[u8], rng: &mut StdRng| [head, &random(rng, 5000)].concat();
    vec![
        once(Vec::new()),
        once(random(rng, 1)),
        once(random(rng, 100)),
        once(random(rng, 70_000)),
        once(with(&u32::MAX.to_be_bytes(), rng)),
        once(with(&u32::MAX.to_le_bytes(), rng)),
        once(with(&4096_u32.to_be_bytes(), rng)),
        // A variable-length number of 2^63.
        once(with(&[0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x01], rng)),
        // A list of 2^64 - 1 things in CBOR, and a thousand lists in each other.
        once(with(&[0, 0, 0, 9, 0x9b, 255, 255, 255, 255, 255, 255, 255, 255], rng)),
        once([&[0_u8, 0, 3, 232][..], &[0x81; 1000]].concat()),
        Junk { first: vec![0, 0, 255, 255], then: Some(vec![0x81; PART]) },
        Junk { first: Vec::new(), then: Some(vec![0; PART]) },
        Junk { first: Vec::new(), then: Some(random(rng, PART)) },
    ]
}

async fn tcp(addr: &Multiaddr) -> TcpStream {
    let mut parts = addr.iter();
    let (Some(Protocol::Ip4(ip)), Some(Protocol::Tcp(port))) = (parts.next(), parts.next()) else { panic!("{addr}") };
    TcpStream::connect((ip, port)).await.unwrap()
}

/// Writes junk to the TCP port, before any handshake and into one.
async fn at_the_port(addr: Multiaddr, seed: u64) -> u64 {
    let mut rng = StdRng::seed_from_u64(seed);
    let mut written = 0;
    // Connections that say nothing, held until the end or until the node has had enough of them.
    let mut idle = Vec::new();
    for _ in 0..40 {
        idle.push(tcp(&addr).await);
    }
    for greeting in
        [&b""[..], b"\x13/multistream/1.0.0\n", b"\x13/multistream/1.0.0\n\x07/noise\n", b"\x16\x03\x01\xff\xff"]
    {
        for Junk { first, then } in junk(&mut rng) {
            let mut socket = tcp(&addr).await;
            let pour = async {
                socket.write_all(greeting).await?;
                socket.write_all(&first).await?;
                written += greeting.len() + first.len();
                let mut more = 0;
                while let Some(part) = &then
                    && more < ENDLESS
                {
                    socket.write_all(part).await?;
                    more += part.len();
                }
                written += more;
                socket.shutdown().await?;
                let mut answer = [0; 1024];
                while socket.read(&mut answer).await? > 0 {}
                io::Result::Ok(())
            };
            // Closed by the node, or left: both are fine.
            let _ = timeout(BORED, pour).await;
        }
    }
    written as u64
}

/// Writes junk into streams of one protocol.
async fn in_streams(addr: Multiaddr, protocol: &'static str, seed: u64) -> u64 {
    let mut rng = StdRng::seed_from_u64(seed);
    let mut opened = 0;
    for Junk { first, then } in junk(&mut rng) {
        // A new peer each time: the last one may be banned.
        let mut vandal = Vandal::connect(&addr).await;
        let Some(mut stream) = vandal.open(protocol).await else { continue };
        opened += 1;
        let pour = async {
            stream.write_all(&first).await?;
            let mut more = 0;
            while let Some(part) = &then
                && more < ENDLESS
            {
                stream.write_all(part).await?;
                more += part.len();
            }
            stream.close().await?;
            let mut answer = [0; 1024];
            while stream.read(&mut answer).await? > 0 {}
            io::Result::Ok(())
        };
        let _ = timeout(BORED, pour).await;
    }
    opened
}

/// Sends well-framed nonsense over our protocols, and gossip that is none.
async fn in_messages(addr: Multiaddr, did: Did, seed: u64) -> u64 {
    let mut rng = StdRng::seed_from_u64(seed);
    let mut sent = 0;
    for _ in 0..4 {
        let stranger = Stranger::connect(&addr).await;
        let (client, target) = (stranger.client(), stranger.target());
        let topic = topic_machine(&did);
        client.subscribe(topic.clone()).await.unwrap();
        for _ in 0..20 {
            let len = rng.random_range(0..4000);
            let bytes = random(&mut rng, len);
            let _ = timeout(BORED, client.sync(target, bytes.clone())).await;
            let _ = timeout(BORED, client.access(target, bytes.clone())).await;
            let _ = timeout(BORED, client.publish(topic.clone(), bytes)).await;
            sent += 3;
        }
    }
    sent
}

/// Sends bytes to the control socket and returns the status of the answer, if there is one.
async fn http(socket: &PathBuf, bytes: &[u8]) -> Option<u16> {
    let talk = async {
        let mut stream = UnixStream::connect(socket).await.ok()?;
        // The node may have heard enough before the end.
        let _ = stream.write_all(bytes).await;
        let _ = stream.shutdown().await;
        let mut answer = Vec::new();
        let _ = stream.read_to_end(&mut answer).await;
        let text = String::from_utf8_lossy(&answer);
        text.strip_prefix("HTTP/1.1 ")?.split(' ').next()?.parse().ok()
    };
    timeout(BORED, talk).await.ok().flatten()
}

fn post(route: &str, kind: &str, body: &[u8]) -> Vec<u8> {
    let head = format!(
        "POST {route} HTTP/1.1\r\nhost: tributary\r\ncontent-type: {kind}\r\ncontent-length: {}\r\nconnection: close\r\n\r\n",
        body.len()
    );
    [head.as_bytes(), body].concat()
}

/// Malformed requests for the control socket. None of them may be taken for something to do.
async fn at_the_control_socket(socket: PathBuf, seed: u64) -> u64 {
    const ROUTES: &[&str] = &[
        "ingest",
        "publish",
        "subscribe",
        "unsubscribe",
        "access/request",
        "access/approve",
        "access/revoke",
        "pull",
        "verify",
        "export",
        "store/backup",
        "access/import",
        "feeds/watch",
        "nothing/like/this",
    ];
    let mut rng = StdRng::seed_from_u64(seed);
    let mut refused = 0;
    // Half a request each, held until the end.
    let mut half = Vec::new();
    for _ in 0..24 {
        let mut stream = UnixStream::connect(&socket).await.unwrap();
        stream.write_all(b"POST /v1/ingest HTTP/1.1\r\nhost: ").await.unwrap();
        half.push(stream);
    }
    let bodies: Vec<Vec<u8>> = vec![
        Vec::new(),
        b"{".to_vec(),
        b"null".to_vec(),
        b"\"text\"".to_vec(),
        b"{\"no such key\":1}".to_vec(),
        b"{\"path\":7,\"selection\":[],\"link\":{}}".to_vec(),
        b"{\"path\":\"\xff\xfe\"}".to_vec(),
        vec![b'['; 100_000],
        vec![b' '; 3 << 20],
        random(&mut rng, 50_000),
    ];
    for route in ROUTES {
        for body in &bodies {
            let status = http(&socket, &post(&format!("/v1/{route}"), "application/json", body)).await;
            assert!(
                status.is_none_or(|status| (400..500).contains(&status)),
                "{route}: {status:?} for {} bytes",
                body.len()
            );
            refused += u64::from(status.is_some());
        }
        let plain = http(&socket, &post(&format!("/v1/{route}"), "text/plain", b"{}")).await;
        assert!(plain.is_none_or(|status| (400..500).contains(&status)), "{route}: {plain:?}");
    }
    for bytes in [
        b"NONSENSE\r\n\r\n".to_vec(),
        random(&mut rng, 100_000),
        [b"GET /v1/status HTTP/1.1\r\nx: ".as_slice(), &vec![b'x'; 1 << 20], b"\r\n\r\n"].concat(),
        b"GET /v1/datasets/..%2F..%2Fetc%2Fpasswd HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n".to_vec(),
        b"POST /v1/ingest HTTP/1.1\r\nhost: x\r\ncontent-length: 18446744073709551616\r\n\r\n".to_vec(),
        b"DELETE /v1/status HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n".to_vec(),
    ] {
        let status = http(&socket, &bytes).await;
        assert!(status.is_none_or(|status| (400..500).contains(&status)), "{status:?}");
    }
    // Lines without the line that says how they are meant, one of them endless.
    for lines in [b"nonsense\n".to_vec(), b"{\"surprise\":1}\n{}\n".to_vec(), vec![b'x'; 8 << 20]] {
        let status = http(&socket, &post("/v1/ingest/lines", "application/x-ndjson", &lines)).await;
        assert!(status.is_none_or(|status| (400..500).contains(&status)), "{status:?}");
        refused += u64::from(status.is_some());
    }
    // Lines that are no messages are counted, and cost their own length only.
    let mut lines = format!("{{\"topic_field\":\"topic\",\"streams\":[\"{TOPIC}\"]}}\n").into_bytes();
    lines.extend(b"\n[]\n{]\n\xff\xff\n{\"@topic\":1}\n{\"topic\":7}\n");
    lines.extend(vec![b'['; 1 << 20]);
    lines.push(b'\n');
    lines.extend(vec![b'a'; 12 << 20]);
    http(&socket, &post("/v1/ingest/lines", "application/x-ndjson", &lines)).await;
    refused
}

#[tokio::test(flavor = "multi_thread")]
async fn junk_at_every_door_stops_neither_the_node_nor_its_customers() {
    let sandbox = Sandbox::new();
    let mut machine =
        NodeProcess::start(&sandbox.machine("machine", &[stream(TOPIC, ", chunk: { bytes: 8KiB }")])).await;
    let buyer = NodeProcess::start(&sandbox.buyer("buyer", "")).await;
    trade::follow(&buyer, &machine).await;
    let did = machine.status().await.did;
    let addr = address(&machine.link().await);

    let (mut done, mut attacks) = (0, JoinSet::new());
    attacks.spawn(at_the_port(addr.clone(), 1));
    for (protocol, seed) in PROTOCOLS.iter().zip(2..) {
        attacks.spawn(in_streams(addr.clone(), protocol, seed));
    }
    attacks.spawn(in_messages(addr.clone(), did, 20));
    attacks.spawn(at_the_control_socket(machine.home().join("control.sock"), 21));
    let (mut trades, mut n) = (0, 0);
    while !attacks.is_empty() || trades < 3 {
        // Honest trade, start to end.
        let dataset = trade::ingest(&machine, TOPIC, n, 40).await;
        n += 40;
        trade::know(&buyer, dataset).await;
        trade::buy(&buyer, dataset).await;
        trades += 1;
        while let Some(ended) = attacks.try_join_next() {
            let happened = ended.unwrap();
            assert!(happened > 0, "an attack that never reached the node proves nothing");
            done += 1;
        }
    }
    assert_eq!(done, PROTOCOLS.len() + 3);
    assert!(machine.is_alive());
    let peak = machine.peak_memory();
    assert!(peak < MEMORY, "the node used {} MiB", peak >> 20);
    assert!(!machine.log().contains("panicked"), "nothing panicked");
    let status = machine.status().await;
    assert!(!status.store.stopped && status.streams[0].lane.stopped.is_none());
    buyer.stop().await;
    machine.stop().await;
}
