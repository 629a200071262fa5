//! Connections without number, and handshakes that are none.

use std::time::Duration;

use libp2p::{Multiaddr, multiaddr::Protocol};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpSocket, TcpStream, UdpSocket},
    task::JoinSet,
    time::timeout,
};
use tributary_tests::{
    hostile::{Attacker, Ground},
    wait::{soon, until},
};

/// A door that neither takes more nor closes is left after this time.
const BORED: Duration = Duration::from_secs(2);
const PORTS: usize = 400;

fn port(address: &Multiaddr) -> u16 {
    address.iter().find_map(|part| if let Protocol::Tcp(port) = part { Some(port) } else { None }).unwrap()
}

async fn dial(port: u16, from: [u8; 4]) -> std::io::Result<TcpStream> {
    let socket = TcpSocket::new_v4()?;
    socket.bind((from, 0).into())?;
    socket.connect(([127, 0, 0, 1], port).into()).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_storm_of_connections_keeps_neither_customers_nor_places() {
    let mut ground = Ground::start().await;
    let port = port(&ground.machine_at);
    let mut storm = JoinSet::new();
    for worker in 0..8_u8 {
        storm.spawn(async move {
            let mut held = Vec::new();
            for n in 0..100_u32 {
                // From many addresses, half of them silent, half of them gone at once.
                let from = [127, 0, 10 + worker, 1 + u8::try_from(n % 50).unwrap()];
                let Ok(Ok(stream)) = timeout(BORED, dial(port, from)).await else { continue };
                if n % 2 == 0 {
                    held.push(stream);
                }
            }
            held
        });
    }
    let mut held = Vec::new();
    let mut peers = Vec::new();
    while let Some(ended) = storm.join_next().await {
        held.extend(ended.unwrap());
        // And some that do shake hands, and then say nothing.
        peers.push(Attacker::connect(&ground.machine_at).await);
    }
    assert!(held.len() >= 200, "{} connections stood", held.len());
    let inbound = ground.machine.status().await.inbound;
    assert!(inbound.established <= u64::from(inbound.limit), "{inbound:?}");
    ground.honest_trade().await;
    drop((held, peers));
    until("the places to be free again", async || {
        let inbound = ground.machine.status().await.inbound;
        (inbound.handshakes == 0 && inbound.established <= 2).then_some(())
    })
    .await;
    ground.stood().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn one_address_gets_no_more_than_its_places() {
    let mut ground = Ground::start().await;
    let port = port(&ground.machine_at);
    let mut held = Vec::new();
    for _ in 0..PORTS {
        if let Ok(Ok(stream)) = timeout(BORED, dial(port, [127, 0, 0, 9])).await {
            held.push(stream);
        }
    }
    until("refusals", async || (ground.machine.status().await.inbound.refused_per_address > 0).then_some(())).await;
    let inbound = ground.machine.status().await.inbound;
    assert!(inbound.handshakes <= 257, "{inbound:?}");
    ground.honest_trade().await;
    drop(held);
    ground.stood().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn handshakes_that_are_none_end_and_cost_nothing() {
    let mut ground = Ground::start().await;
    let port = port(&ground.machine_at);
    let multistream = b"\x13/multistream/1.0.0\n";
    let named = |name: &str, rest: &[u8]| {
        let line = format!("{name}\n");
        [&multistream[..], &[u8::try_from(line.len()).unwrap()], line.as_bytes(), rest].concat()
    };
    let greetings = [
        Vec::new(),
        multistream[..7].to_vec(),
        vec![0; 5000],
        b"GET / HTTP/1.1\r\n\r\n".to_vec(),
        // A line of multistream that is longer than any.
        [&multistream[..], &[0xff, 0xff, 0x03], &[b'a'; 60_000]].concat(),
        [&multistream[..], &b"\x05/yes\n".repeat(10_000)].concat(),
        named("/noise", &[0xff; 70_000]),
        named("/noise", &[0, 32]),
        named("/tls/1.0.0", &[22, 3, 1, 0xff, 0xff]),
        named("/tls/1.0.0", &[0x16; 70_000]),
        named("/tributary/tls/1.0.0", &[22, 3, 3, 0, 4, 1, 0xff, 0xff, 0xff]),
    ];
    let mut ended = 0;
    let mut silent = Vec::new();
    for greeting in &greetings {
        for close in [true, false] {
            let mut stream = soon("a connection", dial(port, [127, 0, 0, 1])).await.unwrap();
            let _ = timeout(BORED, stream.write_all(greeting)).await;
            if close {
                let _ = stream.shutdown().await;
                let mut answer = Vec::new();
                ended += usize::from(timeout(BORED, stream.read_to_end(&mut answer)).await.is_ok());
            } else {
                silent.push(stream);
            }
        }
    }
    // Datagrams that are no QUIC, at the port beside.
    let udp = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    for len in [0, 1, 20, 1200, 60_000] {
        let _ = udp.send_to(&vec![0xc3; len], ("127.0.0.1", port)).await;
    }
    assert!(ended > 0, "no handshake was ended");
    ground.honest_trade().await;
    // Who stays silent is shown out when the time for a handshake is over.
    for mut stream in silent {
        let mut answer = Vec::new();
        let _ = soon("the end of a silent handshake", stream.read_to_end(&mut answer)).await;
    }
    until("no handshake to be left", async || (ground.machine.status().await.inbound.handshakes == 0).then_some(()))
        .await;
    ground.stood().await;
}
