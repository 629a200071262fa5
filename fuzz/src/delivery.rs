//! What peaq's sellers and buyers say to each other.

use std::sync::OnceLock;

use tributary_protocol::peaq::{
    access::{AccessEntry, buyer},
    agent::{
        MAX_REQUEST_BYTES,
        frames::Frames,
        manifests::{self, check, file_name},
        messages::ChunkRequest,
    },
    connect_url::ConnectUrl,
    frame::{Frame, MAX_FRAME_BYTES, chunk_frame_len, lenient, lines::Lines},
    purchase::{PurchaseDelivery, parse_time},
    receiver::{Received, Receiver},
    sealed_box::BoxSecretKey,
    sessions::first_frame,
};

use crate::{known, text};

/// Lines of frames: one that is read is written, in ASCII and with sorted keys, and reads back the same.
pub fn peaq_frames(data: &[u8]) {
    let mut lines = Lines::new();
    let mut input = data;
    while let Ok(Some(line)) = lines.next(&mut input) {
        assert!(line.len() <= MAX_FRAME_BYTES && !line.contains(&b'\n'));
        let frame = Frame::parse(line);
        let _ = first_frame(Some(frame.clone()));
        let Ok(frame) = frame else { continue };
        let written = frame.encode();
        let (last, written) = written.split_last().expect("a line has a newline");
        assert!(*last == b'\n' && written.is_ascii());
        assert_eq!(Frame::parse(written).as_ref(), Ok(&frame));
        if let Frame::Chunk(chunk) = frame {
            let mut ciphertext = Vec::new();
            if lenient::decode(&chunk.ciphertext_b64, &mut ciphertext).is_ok() {
                assert!(ciphertext.len() <= chunk.ciphertext_b64.len() / 4 * 3 + 2);
                let _ = chunk_frame_len(&chunk.envelope, ciphertext.len());
            }
        }
    }
    let _ = lines.finish();
}

fn bought() -> AccessEntry {
    static ENTRY: OnceLock<AccessEntry> = OnceLock::new();
    let entry = ENTRY.get_or_init(|| {
        let buyer = buyer("buyer-1", &known::encryption_key().public().to_string()).expect("a good key");
        let id = &known::peaq_chunk().envelope.chunk_id;
        AccessEntry::wrap(id, known::chunk_key().as_bytes(), &buyer, &mut known::rng()).expect("a good key")
    });
    entry.clone()
}

/// A buyer of one chunk, whatever the seller says: it gets that chunk's plaintext or nothing.
pub fn peaq_receiver(data: &[u8]) {
    let key = BoxSecretKey::from(&known::encryption_key());
    let mut receiver = Receiver::new([bought()], key);
    let mut chunks = 0;
    for mut input in data.chunks(97) {
        loop {
            match receiver.advance(&mut input) {
                Ok(Some(Received::Chunk { index, plaintext })) => {
                    assert_eq!((index, plaintext), (0, &b"a plaintext"[..]));
                    chunks += 1;
                }
                Ok(Some(Received::Complete(report))) => assert_eq!((report.total_chunks, chunks), (1, 1)),
                Ok(None) => break,
                Err(error) => {
                    assert!(!error.reason().is_empty() && !error.code().as_str().is_empty());
                    return;
                }
            }
        }
    }
    assert!(chunks <= 1);
    let _ = receiver.finish();
}

/// Connect URLs, and the delivery they come in.
pub fn peaq_connect(data: &[u8]) {
    if let Ok(delivery) = PurchaseDelivery::parse(data) {
        if let Ok(connect) = delivery.check(known::NOW_MS) {
            assert!(parse_time(&connect.expires_at).is_some_and(|time| time > known::NOW_MS));
        }
        let _ = delivery.into_access();
    }
    let Some(text) = text(data) else { return };
    let _ = parse_time(text);
    let Ok(url) = ConnectUrl::parse(text) else { return };
    assert!(!url.first_address().is_empty() && !url.session.is_empty());
    if !url.first_address().contains('%') && !url.session.contains('%') {
        let again = ConnectUrl::parse(&ConnectUrl::build("seller-1", url.first_address(), &url.session));
        let again = again.expect("what is built is read, unless it is too long");
        assert_eq!((again.first_address(), &again.session), (url.first_address(), &url.session));
    }
}

/// Frames of the ROS 2 agent: requests read back, manifests are judged.
pub fn peaq_agent(data: &[u8]) {
    let mut frames = Frames::new(MAX_REQUEST_BYTES);
    let mut input = data;
    while let Ok(Some(json)) = frames.next(&mut input) {
        if let Ok(request) = ChunkRequest::parse(json) {
            assert_eq!(ChunkRequest::parse(&request.encode()[4..]), Ok(request));
        }
    }
    let Ok(envelopes) = manifests::parse(data) else { return };
    for envelope in &envelopes {
        let _ = check(envelope, &known::peaq_chunk().ciphertext);
        assert!(file_name(envelope).is_none_or(|name| !name.contains(['/', '\\', '\0'])));
    }
}
