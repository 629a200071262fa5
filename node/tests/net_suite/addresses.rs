use std::net::SocketAddr;

use tokio::{
    io::AsyncReadExt as _,
    net::{TcpListener, TcpSocket, TcpStream},
    task::yield_now,
};
use tributary::net::{AddressCaps, Multiaddr, NetConfig, NetStats};

use super::support::{Node, soon, tcp_config};

/// An address that leads to `node`, which sees the connection come from 127.0.0.2: a node cannot choose where it dials from.
async fn from_another_address(node: &Node) -> Multiaddr {
    let target = socket(&node.client.listen_addrs().await.unwrap().remove(0));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        while let Ok((mut inner, _)) = listener.accept().await {
            let outer = TcpSocket::new_v4().unwrap();
            outer.bind("127.0.0.2:0".parse().unwrap()).unwrap();
            let mut outer = outer.connect(target).await.unwrap();
            tokio::spawn(async move { tokio::io::copy_bidirectional(&mut inner, &mut outer).await });
        }
    });
    format!("/ip4/127.0.0.1/tcp/{port}/p2p/{}", node.id()).parse().unwrap()
}

/// Of `/ip4/<ip>/tcp/<port>/…`.
fn socket(address: &Multiaddr) -> SocketAddr {
    let text = address.to_string();
    let parts: Vec<&str> = text.split('/').collect();
    format!("{}:{}", parts[2], parts[4]).parse().unwrap()
}

fn limited(pending: u32, established: u32) -> NetConfig {
    let mut config = tcp_config();
    config.connections.per_loopback_address = AddressCaps { pending, established };
    config
}

/// Waits until the node's counters say so.
async fn until(what: &str, node: &Node, is: impl Fn(NetStats) -> bool) {
    soon(what, async {
        while !is(node.client.stats()) {
            yield_now().await;
        }
    })
    .await;
}

#[tokio::test]
async fn silent_connections_of_one_address_do_not_keep_another_out() {
    const PLACES: u32 = 4;
    let node = Node::new(limited(PLACES, 256)).await;
    let address = node.client.listen_addrs().await.unwrap().remove(0);
    let mut held = Vec::new();
    for _ in 0..PLACES {
        held.push(TcpStream::connect(socket(&address)).await.unwrap());
    }
    // Connections are taken in the order in which they came, so this one finds all places of its address taken.
    let mut refused = TcpStream::connect(socket(&address)).await.unwrap();
    let end = soon("refused", refused.read(&mut [0; 1])).await;
    assert!(matches!(end, Ok(0) | Err(_)), "{end:?}");
    let stats = node.client.stats();
    assert_eq!((stats.inbound_pending, stats.refused_per_address, stats.inbound), (u64::from(PLACES), 1, 0));

    let (same, other) = (Node::new(tcp_config()).await, Node::new(tcp_config()).await);
    assert!(soon("dial", same.client.dial(address.clone())).await.is_err());
    let elsewhere = from_another_address(&node).await;
    assert_eq!(soon("dial", other.client.dial(elsewhere)).await, Ok(node.id()));
    until("both", &node, |stats| stats.inbound == 1 && stats.refused_per_address > 1).await;
    let peers = node.client.peers().await.unwrap();
    assert_eq!(peers.iter().map(|peer| peer.peer).collect::<Vec<_>>(), [other.id()]);
    assert!(peers[0].addr.to_string().starts_with("/ip4/127.0.0.2/"), "{}", peers[0].addr);

    // A place whose holder has gone is free again.
    drop(held);
    until("free places", &node, |stats| stats.inbound_pending == 0).await;
    same.dial(&node).await;
}

#[tokio::test]
async fn one_address_has_only_so_many_connections() {
    let node = Node::new(limited(64, 1)).await;
    let (first, second) = (Node::new(tcp_config()).await, Node::new(tcp_config()).await);
    let (other, elsewhere) = (Node::new(tcp_config()).await, from_another_address(&node).await);
    first.dial(&node).await;
    until("the first", &node, |stats| stats.inbound == 1).await;
    let address = node.client.listen_addrs().await.unwrap().remove(0);
    // It may believe in a connection for a moment: it is refused when the node knows who it is.
    let _ = soon("dial", second.client.dial(address)).await;
    until("refused", &node, |stats| stats.refused_per_address == 1).await;
    assert_eq!(soon("dial", other.client.dial(elsewhere)).await, Ok(node.id()));
    until("the other", &node, |stats| stats.inbound == 2).await;
    first.client.disconnect(node.id()).await.unwrap();
    until("room", &node, |stats| stats.inbound == 1).await;
    second.dial(&node).await;
}
