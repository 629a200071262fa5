//! A buyer of the ROS 2 agent's kind, written from what its frames look like.

use futures::{AsyncReadExt as _, AsyncWriteExt as _};
use libp2p::Stream;
use serde_json::Value;
use tributary_protocol::peaq::{access::ParsedAccessFile, connect_url::ConnectUrl, frame::PROTOCOL, hexes};
use tributary_tests::{
    delivery::{BUYER, PURCHASE, SESSION},
    peer::Vandal,
    wait::{soon, until},
};

use super::Shop;

fn framed(value: &Value) -> Vec<u8> {
    let text = value.to_string().into_bytes();
    [u32::try_from(text.len()).unwrap().to_be_bytes().as_slice(), &text].concat()
}

fn request(session: &str, ids: &[&str], offset: u64) -> Value {
    let offsets: serde_json::Map<String, Value> =
        ids.iter().filter(|_| offset > 0).map(|id| ((*id).to_owned(), offset.into())).collect();
    serde_json::json!({
        "type": "chunk.request", "protocol": PROTOCOL, "encoding": "peaqos-json-frame-v1", "requestId": "r-1",
        "purchaseId": PURCHASE, "deliverySessionId": session, "buyerId": BUYER, "chunkIds": ids,
        "resumeOffsets": offsets,
    })
}

/// Everything that is answered, frame by frame.
async fn answers(mut stream: Stream, request: &Value) -> Vec<Value> {
    soon("a request", stream.write_all(&framed(request))).await.unwrap();
    soon("a request", stream.flush()).await.unwrap();
    let mut bytes = Vec::new();
    soon("the answers", stream.read_to_end(&mut bytes)).await.unwrap();
    let (mut rest, mut frames) = (bytes.as_slice(), Vec::new());
    while let Some((length, tail)) = rest.split_first_chunk::<4>() {
        let (frame, tail) = tail.split_at(usize::try_from(u32::from_be_bytes(*length)).unwrap());
        frames.push(serde_json::from_slice(frame).unwrap());
        rest = tail;
    }
    assert!(rest.is_empty());
    frames
}

#[tokio::test]
async fn an_agents_buyer_gets_chunks_by_id_goes_on_where_it_stopped_and_needs_its_session() {
    let shop = Shop::open(150_000).await;
    let url = ConnectUrl::parse(&shop.offered.url).unwrap();
    let mut buyer = Vandal::connect(&url.first_address().parse().unwrap()).await;
    let access = ParsedAccessFile::parse(&std::fs::read(shop.access()).unwrap()).unwrap();
    let ids: Vec<&str> = access.entries.iter().map(|entry| entry.chunk_id.as_str()).collect();
    assert_eq!(ids.len(), 3);

    for (wrong, message) in [
        (request("another", &ids, 0), "session or buyer mismatch"),
        (request(SESSION, &["0x00"], 0), "is not part of this delivery"),
        (request(SESSION, &ids, 1 << 30), "resume offset"),
        (serde_json::json!({ "type": "chunk.end" }), "must be a chunk.request"),
    ] {
        let refused = answers(buyer.open(PROTOCOL).await.unwrap(), &wrong).await;
        let last = refused.last().unwrap();
        assert_eq!(last["type"], "delivery.error", "{last}");
        assert!(last["message"].as_str().unwrap().contains(message), "{last}");
    }

    let whole = answers(buyer.open(PROTOCOL).await.unwrap(), &request(SESSION, &ids[..2], 0)).await;
    let kinds: Vec<&str> = whole.iter().map(|frame| frame["type"].as_str().unwrap()).collect();
    assert_eq!(kinds, ["chunk.manifest", "chunk.data", "chunk.end"].repeat(2));
    assert_eq!(whole[0]["manifest"]["chunkId"], ids[0]);
    let first = base64(&whole[1]);
    assert_eq!(hexes::sha256_text(&first), whole[0]["manifest"]["encryptedDataHash"].as_str().unwrap());
    assert_eq!(whole[2]["bytes"].as_u64(), Some(first.len() as u64));
    assert_eq!(shop.delivery().await["state"], "waiting");

    let rest = answers(buyer.open(PROTOCOL).await.unwrap(), &request(SESSION, &ids[..1], 1000)).await;
    assert_eq!((rest[1]["offset"].as_u64(), base64(&rest[1]).as_slice()), (Some(1000), &first[1000..]));

    answers(buyer.open(PROTOCOL).await.unwrap(), &request(SESSION, &ids[2..], 0)).await;
    until("the end of the delivery", async || (shop.delivery().await["state"] == "completed").then_some(())).await;
    shop.node.stop().await;
}

fn base64(frame: &Value) -> Vec<u8> {
    let mut bytes = Vec::new();
    tributary_protocol::peaq::frame::lenient::decode(frame["dataBase64"].as_str().unwrap(), &mut bytes).unwrap();
    bytes
}
