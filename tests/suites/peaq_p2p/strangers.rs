//! Whoever comes to a machine and is not the buyer.

use futures::{AsyncReadExt as _, AsyncWriteExt as _};
use libp2p::{Multiaddr, Stream};
use tributary_protocol::peaq::{
    connect_url::ConnectUrl,
    frame::{Frame, Handshake, MAX_FRAME_BYTES, PROTOCOL},
};
use tributary_tests::{
    delivery::{BUYER, PURCHASE, SESSION},
    peer::Vandal,
    wait::soon,
};

use super::{Shop, same};

fn handshake(purchase: &str, session: &str, buyer: &str) -> Vec<u8> {
    let handshake = Handshake { purchase_id: purchase.into(), session_id: session.into(), buyer_id: buyer.into() };
    Frame::Handshake(handshake).encode()
}

/// Says something, over and over if it should never end, and returns what is answered until the stream ends, and how many
/// bytes were taken. A node that has left takes no more, and does not say so: only its answer ends the talk.
async fn talk(stream: Stream, said: &[u8], endless: bool) -> (String, u64) {
    let (mut reader, mut writer) = stream.split();
    let mut taken = 0;
    let talk = async {
        loop {
            if writer.write_all(said).await.is_err() || writer.flush().await.is_err() {
                break;
            }
            taken += said.len() as u64;
            if !endless {
                break;
            }
        }
        std::future::pending::<()>().await;
    };
    let mut bytes = Vec::new();
    tokio::select! {
        () = talk => {}
        // It may end with a reset.
        _ = soon("an answer", reader.read_to_end(&mut bytes)) => {}
    }
    // Frames of the agent's kind begin with their length.
    (String::from_utf8_lossy(&bytes).into_owned(), taken)
}

fn address(shop: &Shop) -> Multiaddr {
    ConnectUrl::parse(&shop.offered.url).unwrap().first_address().parse().unwrap()
}

#[tokio::test]
async fn strangers_get_nothing_and_the_buyer_still_gets_everything() {
    let shop = Shop::open(200_000).await;
    let mut stranger = Vandal::connect(&address(&shop)).await;
    for (said, error) in [
        (handshake("ord-2", SESSION, BUYER), "unknown session"),
        (handshake(PURCHASE, "guess", BUYER), "session or buyer mismatch"),
        (handshake(PURCHASE, SESSION, "somebody"), "session or buyer mismatch"),
        (b"{\"totalChunks\":1,\"type\":\"complete\"}\n".to_vec(), "expected handshake"),
        (b"hello\n".to_vec(), "malformed handshake"),
        // A frame of one byte more than the protocol allows.
        ([vec![b'x'; MAX_FRAME_BYTES + 1], b"\n".to_vec()].concat(), "malformed handshake"),
    ] {
        let (answer, _) = talk(stranger.open(PROTOCOL).await.unwrap(), &said, false).await;
        assert!(answer.contains(error), "{answer:?} instead of {error}");
        assert!(answer.ends_with("\"type\":\"error\"}\n"), "{answer:?}");
    }
    assert_eq!(shop.delivery().await["attempts"], 0);
    let out = shop.path("out");
    assert_eq!(shop.receive(&out, &[]).await.json()["chunkCount"], shop.offered.chunks);
    assert!(same(&shop.input, &out));
    shop.node.stop().await;
}

#[tokio::test]
async fn a_frame_that_never_ends_is_cut_off_and_takes_no_memory() {
    let shop = Shop::open(200_000).await;
    let mut stranger = Vandal::connect(&address(&shop)).await;
    let before = shop.node.peak_memory();
    // The length of the agent's frame is then 0x00202020, more than is taken.
    for (first, error) in [(b'{', "malformed handshake"), (0, "is longer than")] {
        let piece = [[first; 1].as_slice(), &vec![0x20; 64 << 10]].concat();
        let (answer, taken) = talk(stranger.open(PROTOCOL).await.unwrap(), &piece, true).await;
        assert!(answer.contains(error), "{answer:?} instead of {error}");
        assert!(taken < 64 << 20, "the node takes {taken} bytes of one frame");
    }
    let grown = shop.node.peak_memory().saturating_sub(before);
    assert!(grown < 32 << 20, "{grown} bytes for frames that never end");
    let out = shop.path("out");
    assert_eq!(shop.receive(&out, &[]).await.json()["chunkCount"], shop.offered.chunks);
    shop.node.stop().await;
}

#[tokio::test]
async fn a_buyer_that_breaks_off_may_come_again() {
    // More than the windows of a stream hold, so that the transfer is still under way.
    let shop = Shop::open(8_000_000).await;
    let mut buyer = Vandal::connect(&address(&shop)).await;
    let mut stream = buyer.open(PROTOCOL).await.unwrap();
    soon("a handshake", stream.write_all(&handshake(PURCHASE, SESSION, BUYER))).await.unwrap();
    soon("a handshake", stream.flush()).await.unwrap();
    let mut some = vec![0; 100_000];
    soon("the first chunk", stream.read_exact(&mut some)).await.unwrap();
    assert!(some.starts_with(b"{\"chunkId\":"));
    // While it is being served, the same names are of no use to anybody else.
    let thief = buyer.open(PROTOCOL).await.unwrap();
    let (answer, _) = talk(thief, &handshake(PURCHASE, SESSION, BUYER), false).await;
    assert!(answer.contains("session already claimed"), "{answer}");
    drop(stream);
    tributary_tests::wait::until("the session to wait again", async || {
        (shop.delivery().await["state"] == "waiting").then_some(())
    })
    .await;
    let out = shop.path("out");
    assert_eq!(shop.receive(&out, &[]).await.json()["chunkCount"], shop.offered.chunks);
    assert!(same(&shop.input, &out));
    assert_eq!(shop.delivery().await["attempts"], 2);
    shop.node.stop().await;
}
