//! Who serves a feed, found through peers that know nothing of either side but what they were told.

use std::time::Duration;

use futures::{AsyncReadExt as _, AsyncWriteExt as _};
use libp2p::PeerId;
use tributary::net::{NetConfig, Provider, ProviderCaps, ProvidersError, ProvidingReport, RelayCaps};
use tributary_protocol::ids::{Did, Hash};

use super::support::{Node, Rogue, soon, tcp_config, until};

const KAD: &str = "/tributary/kad/1";

fn machine(n: u8) -> Did {
    Did::from_bytes([n; 20])
}

/// A node that others look things up at.
async fn hub(providers: ProviderCaps) -> Node {
    Node::new(NetConfig { relay: Some(RelayCaps::default()), providers, ..tcp_config() }).await
}

async fn node(providers: ProviderCaps) -> Node {
    Node::new(NetConfig { providers, ..tcp_config() }).await
}

async fn report(node: &Node) -> ProvidingReport {
    node.client.reach().await.unwrap().providing.unwrap()
}

async fn announced(node: &Node, feeds: u64) {
    until("announced", async || (report(node).await.announced == feeds).then_some(())).await;
}

async fn records(node: &Node, count: u64) {
    until("records", async || (report(node).await.records == count).then_some(())).await;
}

async fn find(node: &Node, machine: &Did) -> Vec<Provider> {
    soon("lookup", node.client.providers(machine)).await.unwrap()
}

#[tokio::test]
async fn a_provider_is_found_through_a_third_node() {
    let hub = hub(ProviderCaps::default()).await;
    let (mirror, buyer) = (node(ProviderCaps::default()).await, node(ProviderCaps::default()).await);
    // Announced before there is anybody to be told.
    assert!(mirror.client.provide(&machine(1)).await.unwrap());
    assert!(!mirror.client.provide(&machine(1)).await.unwrap());
    mirror.dial(&hub).await;
    announced(&mirror, 1).await;
    records(&hub, 1).await;
    buyer.dial(&hub).await;
    let found = until("a provider", async || find(&buyer, &machine(1)).await.pop()).await;
    assert_eq!(found.peer, mirror.id());
    soon("connect", buyer.client.connect(found.peer, found.addresses)).await.unwrap();
    let peers = buyer.client.peers().await.unwrap();
    assert!(peers.iter().any(|peer| peer.peer == mirror.id()), "at the address that came with the record");
    assert!(find(&buyer, &machine(2)).await.is_empty());

    // Whoever asks again is answered from what is known.
    let asked = report(&buyer).await.lookups;
    assert_eq!(find(&buyer, &machine(1)).await.len(), 1);
    assert_eq!(report(&buyer).await.lookups, asked);
    // The node that keeps the record knows it without asking, and does not name itself.
    assert_eq!(find(&hub, &machine(1)).await[0].peer, mirror.id());
    assert!(hub.client.provide(&machine(1)).await.unwrap());
    assert!(find(&mirror, &machine(1)).await.iter().all(|provider| provider.peer == hub.id()));
}

#[tokio::test]
async fn many_who_ask_at_once_share_one_lookup() {
    let (hub, buyer) = (hub(ProviderCaps::default()).await, node(ProviderCaps::default()).await);
    let mirror = node(ProviderCaps::default()).await;
    mirror.client.provide(&machine(1)).await.unwrap();
    mirror.dial(&hub).await;
    announced(&mirror, 1).await;
    buyer.dial(&hub).await;
    until("a routing table", async || (buyer.client.reach().await.unwrap().routing_peers > Some(0)).then_some(()))
        .await;
    let (one, same) = (machine(1), machine(1));
    let all = futures::future::join_all((0..32).map(|n| buyer.client.providers(if n % 2 == 0 { &one } else { &same })));
    for found in soon("lookups", all).await {
        assert_eq!(found.unwrap()[0].peer, mirror.id());
    }
    assert_eq!(report(&buyer).await.lookups, 1);
    // Of different ones only so many are under way.
    let others: Vec<Did> = (100..140).map(machine).collect();
    let all = soon("lookups", futures::future::join_all(others.iter().map(|did| buyer.client.providers(did)))).await;
    let busy = all.iter().filter(|found| **found == Err(ProvidersError::Busy)).count() as u64;
    assert!(busy > 0 && report(&buyer).await.lookups == 1 + 40 - busy, "{busy} were refused");
}

#[tokio::test]
async fn a_record_is_renewed_until_it_is_withdrawn_and_then_it_expires() {
    let caps = ProviderCaps { expiry: Duration::from_secs(4), ..ProviderCaps::default() };
    let (hub, mirror, lost) = (hub(caps.clone()).await, node(caps.clone()).await, node(caps).await);
    mirror.client.provide(&machine(1)).await.unwrap();
    lost.client.provide(&machine(2)).await.unwrap();
    for node in [&mirror, &lost] {
        node.dial(&hub).await;
        announced(node, 1).await;
    }
    records(&hub, 2).await;
    // One that is gone renews nothing: its record expires, and by then the other's would have, too.
    lost.client.shutdown().await;
    records(&hub, 1).await;
    assert_eq!(find(&hub, &machine(1)).await[0].peer, mirror.id());
    assert!(find(&hub, &machine(2)).await.is_empty());
    assert!(mirror.client.withdraw(&machine(1)).await.unwrap());
    assert!(!mirror.client.withdraw(&machine(1)).await.unwrap());
    records(&hub, 0).await;
    assert_eq!(report(&mirror).await.feeds, 0);
}

#[tokio::test]
async fn kademlia_that_is_off_says_so() {
    let node = Node::new(NetConfig { kademlia: false, ..tcp_config() }).await;
    assert_eq!(node.client.providers(&machine(1)).await, Err(ProvidersError::Off));
    assert_eq!(node.client.reach().await.unwrap().providing, None);
}

/// A field of a protobuf message: length-delimited.
fn field(number: u8, bytes: &[u8]) -> Vec<u8> {
    let mut out = vec![number << 3 | 2];
    out.extend(varint(bytes.len()));
    out.extend_from_slice(bytes);
    out
}

fn varint(mut n: usize) -> Vec<u8> {
    let mut out = Vec::new();
    while n >= 0x80 {
        out.push(u8::try_from(n & 0x7f).unwrap() | 0x80);
        n >>= 7;
    }
    out.push(u8::try_from(n).unwrap());
    out
}

/// ADD_PROVIDER of libp2p's Kademlia, with its length in front: type 2, key 2, provider 9 (id 1, addresses 2).
fn add_provider(key: &[u8], provider: PeerId, address: &[u8]) -> Vec<u8> {
    let peer = [field(1, &provider.to_bytes()), field(2, address)].concat();
    let message = [vec![1 << 3, 2], field(2, key), field(9, &peer)].concat();
    [varint(message.len()), message].concat()
}

#[tokio::test]
async fn a_peer_that_stores_thousands_of_records_is_held_to_its_share() {
    const TOLD: usize = 5000;
    let hub = hub(ProviderCaps { records: 600, per_peer: 500, ..ProviderCaps::default() }).await;
    let (mirror, buyer) = (node(ProviderCaps::default()).await, node(ProviderCaps::default()).await);
    let mut rogue = Rogue::dialing(&hub).await;
    let mut stream = rogue.open(&hub, KAD).await;
    let address = "/ip4/127.0.0.1/tcp/9".parse::<libp2p::Multiaddr>().unwrap().to_vec();
    for n in 0..TOLD {
        let key = Hash::of(&n.to_be_bytes());
        stream.write_all(&add_provider(key.as_bytes(), rogue.id, &address)).await.unwrap();
    }
    stream.flush().await.unwrap();
    let after = until("all were read", async || {
        let now = report(&hub).await;
        (now.records + now.refused == TOLD as u64).then_some(now)
    })
    .await;
    assert_eq!(after.records, 500, "{after:?}");
    // Records about others, and keys of another form, are not kept either.
    let other = PeerId::random();
    stream.write_all(&add_provider(Hash::of(b"other").as_bytes(), other, &address)).await.unwrap();
    stream.write_all(&add_provider(&[7; 900], rogue.id, &address)).await.unwrap();
    stream.flush().await.unwrap();
    until("refused", async || (report(&hub).await.refused == after.refused + 1).then_some(())).await;
    assert_eq!(report(&hub).await.records, 500);

    // A second one fills the table; an honest node still gets its place, and is found.
    let mut second = Rogue::dialing(&hub).await;
    let mut stream = second.open(&hub, KAD).await;
    for n in 0..500_usize {
        let key = Hash::of(&(TOLD + n).to_be_bytes());
        stream.write_all(&add_provider(key.as_bytes(), second.id, &address)).await.unwrap();
    }
    stream.flush().await.unwrap();
    records(&hub, 600).await;
    mirror.client.provide(&machine(1)).await.unwrap();
    mirror.dial(&hub).await;
    announced(&mirror, 1).await;
    buyer.dial(&hub).await;
    let found = until("a provider", async || find(&buyer, &machine(1)).await.pop()).await;
    assert_eq!((found.peer, report(&hub).await.records), (mirror.id(), 600));
    // Endless bytes are no message: the stream ends.
    let mut stream = rogue.open(&hub, KAD).await;
    let endless = [varint(1 << 30), vec![0; 4096]].concat();
    let _ = stream.write_all(&endless).await;
    let _ = stream.flush().await;
    let end = soon("the end", stream.read(&mut [0; 1])).await;
    assert!(matches!(end, Ok(0) | Err(_)), "{end:?}");
}
