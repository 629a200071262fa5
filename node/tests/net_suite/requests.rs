use std::time::Duration;

use futures::{AsyncReadExt, AsyncWriteExt};
use tributary::net::{
    ACCESS_PROTOCOL, DialFailure, FrameError, MAX_ACCESS_MESSAGE, MAX_SYNC_REQUEST, MAX_SYNC_RESPONSE, NetConfig,
    NetError, Offence, PeerEvent, RequestError, RespondError, SYNC_PROTOCOL, Transport, start,
};

use super::support::{Node, Rogue, pair, soon, tcp_config};

#[tokio::test]
async fn requests_of_both_protocols_are_answered() {
    let (a, mut b) = pair().await;
    let (peer, client) = (b.id(), a.client.clone());
    let sync = tokio::spawn(async move { client.sync(peer, vec![1; MAX_SYNC_REQUEST]).await });
    let request = soon("sync", b.events.sync.recv()).await.unwrap();
    assert_eq!((request.peer, request.bytes.len()), (a.id(), MAX_SYNC_REQUEST));
    request.responder.send(vec![2; MAX_SYNC_RESPONSE]).await.unwrap();
    assert_eq!(soon("answer", sync).await.unwrap().unwrap(), vec![2; MAX_SYNC_RESPONSE]);

    let client = a.client.clone();
    let access = tokio::spawn(async move { client.access(peer, vec![3; MAX_ACCESS_MESSAGE]).await });
    let request = soon("access", b.events.access.recv()).await.unwrap();
    assert!(request.responder.is_open());
    request.responder.send(b"granted".to_vec()).await.unwrap();
    assert_eq!(soon("answer", access).await.unwrap().unwrap(), b"granted");
}

#[tokio::test]
async fn messages_over_the_limit_are_refused_here() {
    let (a, mut b) = pair().await;
    let too_large = |len, max| FrameError::TooLarge { len, max };
    let request = a.client.sync(b.id(), vec![0; MAX_SYNC_REQUEST + 1]).await;
    assert_eq!(request, Err(too_large(MAX_SYNC_REQUEST + 1, MAX_SYNC_REQUEST).into()));
    let request = a.client.access(b.id(), vec![0; MAX_ACCESS_MESSAGE + 1]).await;
    assert_eq!(request, Err(too_large(MAX_ACCESS_MESSAGE + 1, MAX_ACCESS_MESSAGE).into()));

    let (peer, client) = (b.id(), a.client.clone());
    let asked = tokio::spawn(async move { client.sync(peer, vec![1]).await });
    let request = soon("sync", b.events.sync.recv()).await.unwrap();
    let sent = request.responder.send(vec![0; MAX_SYNC_RESPONSE + 1]).await;
    assert_eq!(sent, Err(RespondError::Frame(too_large(MAX_SYNC_RESPONSE + 1, MAX_SYNC_RESPONSE))));
    // The responder is used up, so the peer learns that there is no answer.
    assert!(soon("no answer", asked).await.unwrap().is_err());
}

#[tokio::test]
async fn an_oversized_frame_is_refused_and_counted_against_its_sender() {
    let mut node = Node::new(tcp_config()).await;
    let mut rogue = Rogue::dialing(&node).await;
    node.wait(PeerEvent::Connected(rogue.id)).await;
    for protocol in [SYNC_PROTOCOL, ACCESS_PROTOCOL, SYNC_PROTOCOL, ACCESS_PROTOCOL] {
        let mut stream = rogue.open(&node, protocol).await;
        // The last of them gets the peer banned, which may cut off what it still writes.
        let _ = stream.write_all(&u32::MAX.to_be_bytes()).await;
        let _ = stream.flush().await;
        let mut rest = Vec::new();
        let _ = soon("closed", stream.read_to_end(&mut rest)).await;
        assert!(rest.is_empty());
    }
    node.wait(PeerEvent::Banned(rogue.id)).await;
    node.wait(PeerEvent::Disconnected(rogue.id)).await;
    assert_eq!(node.client.stats().bad_frames, 4);
    assert_eq!(node.client.stats().bans, 1);

    let honest = Node::new(tcp_config()).await;
    honest.dial(&node).await;
}

#[tokio::test]
async fn a_full_queue_answers_busy_and_loses_nothing() {
    let mut config = NetConfig { sync_busy: b"busy".to_vec(), requests_per_peer: 3, ..tcp_config() };
    config.queues.sync = 2;
    let (a, mut b) = (Node::new(tcp_config()).await, Node::new(config).await);
    a.dial(&b).await;
    let mut asked = tokio::task::JoinSet::new();
    for i in 0..20u8 {
        let (client, peer) = (a.client.clone(), b.id());
        asked.spawn(async move { client.sync(peer, vec![i]).await });
    }
    let mut busy = 0;
    // Two wait in the queue; all others come back at once.
    while busy < 18 {
        assert_eq!(soon("busy", asked.join_next()).await.unwrap().unwrap().unwrap(), b"busy");
        busy += 1;
    }
    for _ in 0..2 {
        let request = soon("queued", b.events.sync.recv()).await.unwrap();
        request.responder.send(b"done".to_vec()).await.unwrap();
        assert_eq!(soon("done", asked.join_next()).await.unwrap().unwrap().unwrap(), b"done");
    }
    assert_eq!((b.client.stats().sync.received, b.client.stats().sync.busy), (2, 18));
}

#[tokio::test]
async fn a_silent_peer_is_a_timeout() {
    let config = NetConfig { sync_timeout: Duration::from_millis(300), ..tcp_config() };
    let (a, b) = (Node::new(config).await, Node::new(tcp_config()).await);
    a.dial(&b).await;
    assert_eq!(soon("timeout", a.client.sync(b.id(), vec![1])).await, Err(RequestError::Timeout(b.id())));
}

#[tokio::test]
async fn unreachable_wrong_and_own_addresses_are_told_apart() {
    let (a, b) = (Node::new(tcp_config()).await, Node::new(tcp_config()).await);
    let nobody = libp2p::PeerId::random();
    assert_eq!(a.client.connect(nobody, vec![]).await, Err(DialFailure::NoAddress(nobody)));
    let address = b.client.listen_addrs().await.unwrap().remove(0);
    let bare: libp2p::Multiaddr = address.iter().take(2).collect();
    let wrong = soon("wrong", a.client.connect(nobody, vec![bare.clone()])).await;
    assert!(matches!(wrong, Err(DialFailure::WrongPeer { found, .. }) if found == b.id()), "{wrong:?}");
    let own = a.client.listen_addrs().await.unwrap().remove(0);
    let own: libp2p::Multiaddr = own.iter().take(2).collect();
    let own = soon("own", a.client.dial(own)).await;
    assert!(matches!(own, Err(DialFailure::Myself(_))), "{own:?}");
    assert_eq!(soon("right", a.client.connect(b.id(), vec![bare])).await, Ok(()));
    assert_eq!(a.client.sync(nobody, vec![1]).await, Err(RequestError::Unreachable(nobody)));
}

#[tokio::test]
async fn peers_are_listed_with_transport_and_protocols() {
    let quic = NetConfig { listen: vec!["/ip4/127.0.0.1/udp/0/quic-v1".parse().unwrap()], ..NetConfig::default() };
    let (mut a, b, c) = (Node::new(NetConfig::default()).await, Node::new(tcp_config()).await, Node::new(quic).await);
    a.dial(&b).await;
    a.wait(PeerEvent::Identified(b.id())).await;
    a.dial(&c).await;
    a.wait(PeerEvent::Identified(c.id())).await;
    let mut peers = a.client.peers().await.unwrap();
    peers.sort_by_key(|peer| peer.transport == Transport::Quic);
    assert_eq!(peers.iter().map(|peer| peer.transport).collect::<Vec<_>>(), [Transport::Tcp, Transport::Quic]);
    for peer in peers {
        assert!(peer.direct && !peer.inbound && peer.paths.len() == 1, "{peer:?}");
        assert!(peer.protocols.iter().any(|protocol| protocol == SYNC_PROTOCOL), "{peer:?}");
        assert!(peer.agent.starts_with("tributary/"), "{peer:?}");
    }
}

#[tokio::test]
async fn a_banned_peer_is_cut_off_and_stays_out() {
    let (mut a, b) = pair().await;
    a.client.ban(b.id()).await.unwrap();
    a.wait(PeerEvent::Disconnected(b.id())).await;
    let address = b.client.listen_addrs().await.unwrap().remove(0);
    assert!(matches!(soon("dial", a.client.dial(address.clone())).await, Err(DialFailure::Denied { .. })));
    a.client.unban(b.id()).await.unwrap();
    assert_eq!(soon("dial", a.client.dial(address)).await, Ok(b.id()));
}

#[tokio::test]
async fn offences_add_up_to_a_ban() {
    let (mut a, b) = pair().await;
    for _ in 0..3 {
        a.client.penalize(b.id(), Offence::WrongBytes).await.unwrap();
    }
    a.wait(PeerEvent::Banned(b.id())).await;
}

#[tokio::test]
async fn shutdown_frees_the_port_and_ends_what_waits() {
    let (a, b) = pair().await;
    let (peer, client) = (b.id(), a.client.clone());
    let waiting = tokio::spawn(async move { client.sync(peer, vec![1]).await });
    let address = a.client.listen_addrs().await.unwrap().remove(0);
    soon("shutdown", a.client.shutdown()).await;
    assert!(soon("request", waiting).await.unwrap().is_err());
    assert_eq!(a.client.peers().await.unwrap_err(), NetError);
    assert_eq!(a.client.open_pull(peer).await.unwrap_err(), RequestError::Closed(NetError));
    let again = NetConfig { listen: vec![address.iter().take(2).collect()], ..NetConfig::default() };
    let key = libp2p::identity::Keypair::generate_ed25519();
    assert!(start(key.clone(), again.clone()).await.is_ok());
    let taken = NetConfig { listen: b.client.listen_addrs().await.unwrap(), ..again };
    assert!(start(key, taken).await.is_err_and(|error| error.to_string().contains("cannot listen on")));
}
