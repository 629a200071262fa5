//! Bytes below the protocols: frames that lie, gossip by hand, streams that drip.

use std::time::Duration;

use futures::{AsyncReadExt as _, AsyncWriteExt as _};
use libp2p::Stream;
use tokio::time::timeout;

use super::Attacker;
use crate::wait::PATIENCE;

/// A stream that neither takes more nor ends is left after this time.
const BORED: Duration = Duration::from_secs(4);

/// Every protocol that a node with all roles but relay takes streams for, gossip under each of its names.
pub const PROTOCOLS: &[&str] = &[
    "/tributary/sync/1",
    "/tributary/access/1",
    "/tributary/pull/1",
    "/peaqos/stream/chunk/1.0.0",
    "/ipfs/id/1.0.0",
    "/ipfs/id/push/1.0.0",
    "/ipfs/ping/1.0.0",
    "/meshsub/1.1.0",
    "/meshsub/1.2.0",
    "/libp2p/autonat/2/dial-request",
];

/// `u32 length || body`, whatever the length says.
#[must_use]
pub fn frame(length: u32, body: &[u8]) -> Vec<u8> {
    [&length.to_be_bytes(), body].concat()
}

/// A number as protobuf and multistream write it.
#[must_use]
pub fn varint(mut number: usize) -> Vec<u8> {
    let mut bytes = Vec::new();
    while number >= 0x80 {
        bytes.push((number & 0x7f) as u8 | 0x80);
        number >>= 7;
    }
    bytes.push(number as u8);
    bytes
}

fn field(tag: u8, body: &[u8]) -> Vec<u8> {
    [&[tag][..], &varint(body.len()), body].concat()
}

/// A gossipsub RPC that subscribes to `topics`, with its length in front.
#[must_use]
pub fn subscriptions<'a>(topics: impl IntoIterator<Item = &'a str>) -> Vec<u8> {
    let rpc: Vec<u8> = topics
        .into_iter()
        .flat_map(|topic| field(0x0a, &[&[0x08, 0x01][..], &field(0x12, topic.as_bytes())].concat()))
        .collect();
    [varint(rpc.len()), rpc].concat()
}

/// What the victim did with a stream in the end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ending {
    /// It closed or reset it.
    Closed,
    /// It sent so many bytes, and then closed.
    Answered(usize),
}

/// Waits until the victim has ended a stream.
///
/// # Panics
///
/// When it does not.
pub async fn ending(stream: &mut Stream) -> Ending {
    let read = async {
        let (mut all, mut buffer) = (0, [0; 4096]);
        loop {
            match stream.read(&mut buffer).await {
                Ok(0) | Err(_) => return all,
                Ok(n) => all += n,
            }
        }
    };
    match timeout(PATIENCE, read).await.expect("the victim ends the stream") {
        0 => Ending::Closed,
        n => Ending::Answered(n),
    }
}

/// Writes all of it; `false` when the victim has had enough before.
pub async fn write(stream: &mut Stream, bytes: &[u8]) -> bool {
    let work = async { stream.write_all(bytes).await.is_ok() && stream.flush().await.is_ok() };
    timeout(BORED, work).await.unwrap_or(false)
}

/// Writes `part` over and over until the victim ends the stream or takes no more, at most `most` bytes; returns how many went.
pub async fn pour(stream: &mut Stream, part: &[u8], most: usize) -> usize {
    let mut went = 0;
    let work = async {
        while went < most && stream.write_all(part).await.is_ok() && stream.flush().await.is_ok() {
            went += part.len();
        }
    };
    // A victim that neither takes more nor closes holds a window of Yamux at most.
    let _ = timeout(BORED, work).await;
    went
}

/// Asks over a protocol of one frame each way.
///
/// # Panics
///
/// When no answer comes.
pub async fn ask(attacker: &Attacker, protocol: &'static str, request: &[u8]) -> Vec<u8> {
    let talk = async {
        let mut stream = attacker.must_open(protocol).await;
        stream.write_all(&frame(u32::try_from(request.len()).unwrap(), request)).await.unwrap();
        stream.close().await.unwrap();
        let mut length = [0; 4];
        stream.read_exact(&mut length).await.unwrap();
        let mut answer = vec![0; usize::try_from(u32::from_be_bytes(length)).unwrap()];
        stream.read_exact(&mut answer).await.unwrap();
        answer
    };
    timeout(PATIENCE, talk).await.expect("an answer")
}

/// Streams that were opened and said one byte each, kept open.
pub async fn drips(attacker: &Attacker, protocol: &'static str, count: usize, byte: &[u8]) -> Vec<Stream> {
    let mut held = Vec::new();
    for _ in 0..count {
        let Some(mut stream) = attacker.open(protocol).await else { break };
        if !write(&mut stream, byte).await {
            break;
        }
        held.push(stream);
    }
    held
}
