//! Seeds for what peaq's sellers and buyers say to each other.

use tributary_protocol::peaq::{
    agent::messages::ChunkRequest,
    connect_url::ConnectUrl,
    frame::{ErrorFrame, Frame, FrameCode, Handshake, encode_chunk},
};

use super::Seeds;
use crate::known;

pub(super) fn add(seeds: &mut Seeds) {
    let chunk = known::peaq_chunk();
    let mut line = Vec::new();
    encode_chunk(&chunk.envelope, &chunk.ciphertext, &mut line);
    let complete = Frame::Complete { total_chunks: 1.into() }.encode();
    let handshake = Handshake { purchase_id: "ord-1".into(), session_id: "s".into(), buyer_id: "buyer-1".into() };
    let handshake = Frame::Handshake(handshake).encode();
    let error = Frame::Error(ErrorFrame::new(FrameCode::SessionMismatch, "unknown session")).encode();
    for (name, frame) in [("chunk", &line), ("complete", &complete), ("handshake", &handshake), ("error", &error)] {
        seeds.add("peaq_frames", name, frame.clone());
    }
    seeds.add("peaq_receiver", "whole", [line.clone(), complete].concat());
    seeds.add("peaq_receiver", "error-after-chunk", [line, error].concat());

    let peer = "/ip4/192.0.2.7/tcp/4600/p2p/12D3KooWK99VoVxNE7XzyBwXEzW7xhK7Gpv85r9F3V3fyKSUKPH5";
    seeds.add("peaq_connect", "url", ConnectUrl::build("seller-1", peer, "ord-1"));
    let delivery = format!(
        concat!(
            r#"{{"purchaseId":"ord-1","delivery":{{"status":"ready","mode":"p2p","transportId":"peaqos-p2p","#,
            r#""sessionId":"s","protocols":["/peaqos/stream/chunk/1.0.0"],"encoding":"peaqos-json-frame-v1","#,
            r#""connect":{{"type":"peaqos-p2p-url","url":"{}","expiresAt":"2099-01-01T00:00:00.5Z"}}}},"access":[]}}"#
        ),
        ConnectUrl::build("seller-1", peer, "ord-1")
    );
    seeds.add("peaq_connect", "delivery", delivery);

    let request = ChunkRequest {
        request_id: "r".into(),
        purchase_id: "ord-1".into(),
        delivery_session_id: "s".into(),
        buyer_id: "buyer-1".into(),
        chunk_ids: vec![chunk.envelope.chunk_id.clone()],
        resume_offsets: [(chunk.envelope.chunk_id.clone(), 3)].into(),
    };
    seeds.add("peaq_agent", "request", request.encode());
    seeds.add("peaq_agent", "manifest", request.manifest(&chunk.envelope));
}
