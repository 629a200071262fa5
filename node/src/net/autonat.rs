//! The client of AutoNAT v2: asks a peer to dial an address of ours, and knows the dial when it comes.
//!
//! The protocol is libp2p's (specs/autonat/autonat-v2.md), spoken with the servers of any libp2p; the server that this node runs
//! is libp2p's own. The client is ours because libp2p's (0.16) keeps every address that any peer ever claims to see us at, tests
//! each once, and never looks again. Which addresses are tested, and when, is decided in `reachability.rs`.
//!
//! One request is one stream to the server. The server opens a connection of its own to the address and says a number over it
//! that only the request named: without that number an address is never believed to be reachable.

use std::{
    collections::HashMap,
    io,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use futures::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use libp2p::Multiaddr;
use prost::Message as _;
use tokio::{sync::Semaphore, time::timeout};

use super::streams::Incoming;

/// Streams to servers.
pub(super) const DIAL_REQUEST: &str = "/libp2p/autonat/2/dial-request";
/// Streams of servers to us.
pub(super) const DIAL_BACK: &str = "/libp2p/autonat/2/dial-back";
/// Streams of servers that wait to be read; more are refused.
pub(super) const DIAL_BACK_QUEUE: usize = 8;
/// Streams of servers that are read at a time.
const MAX_DIAL_BACKS: usize = 32;
/// A whole test.
const TEST_TIMEOUT: Duration = Duration::from_secs(40);
/// A server must say its number within this time.
const DIAL_BACK_TIMEOUT: Duration = Duration::from_secs(5);
/// Longest message: four KiB of data and the fields around it.
const MAX_MESSAGE: usize = 4104;
/// Data in one message, bytes.
const DATA: usize = 4096;
/// What a server may ask for before it dials an address that it does not see us at, bytes: more than the dial costs others, so
/// that nobody gains by asking.
const MAX_DATA: u64 = 100_000;
/// Longest message of a dial back.
const MAX_DIAL_BACK: usize = 16;

#[derive(Clone, PartialEq, prost::Message)]
struct Message {
    #[prost(oneof = "Kind", tags = "1, 2, 3, 4")]
    kind: Option<Kind>,
}

#[derive(Clone, PartialEq, prost::Oneof)]
enum Kind {
    #[prost(message, tag = "1")]
    DialRequest(DialRequest),
    #[prost(message, tag = "2")]
    DialResponse(DialResponse),
    #[prost(message, tag = "3")]
    DataRequest(DataRequest),
    #[prost(message, tag = "4")]
    DataResponse(DataResponse),
}

#[derive(Clone, PartialEq, prost::Message)]
struct DialRequest {
    #[prost(bytes = "vec", repeated, tag = "1")]
    addresses: Vec<Vec<u8>>,
    #[prost(fixed64, tag = "2")]
    nonce: u64,
}

#[derive(Clone, PartialEq, prost::Message)]
struct DialResponse {
    #[prost(int32, tag = "1")]
    status: i32,
    #[prost(uint32, tag = "2")]
    index: u32,
    #[prost(int32, tag = "3")]
    dial: i32,
}

#[derive(Clone, PartialEq, prost::Message)]
struct DataRequest {
    #[prost(uint32, tag = "1")]
    index: u32,
    #[prost(uint64, tag = "2")]
    bytes: u64,
}

#[derive(Clone, PartialEq, prost::Message)]
struct DataResponse {
    #[prost(bytes = "vec", tag = "1")]
    data: Vec<u8>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct DialBack {
    #[prost(fixed64, tag = "1")]
    nonce: u64,
}

/// "OK", in both enums of the specification.
const OK: i32 = 200;
/// The server could not connect.
const DIAL_ERROR: i32 = 100;
/// The server connected, and then nobody answered.
const DIAL_BACK_ERROR: i32 = 101;

/// What a test showed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Outcome {
    Reachable,
    Unreachable(String),
    /// The server would not, or could not, test it.
    Inconclusive(String),
}

/// Numbers of tests under way, and whether they came back. Bounded by the tests under way.
#[derive(Debug, Clone, Default)]
pub(super) struct Nonces(Arc<Mutex<HashMap<u64, bool>>>);

impl Nonces {
    fn lock(&self) -> MutexGuard<'_, HashMap<u64, bool>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn expect(&self) -> Expected<'_> {
        let nonce = rand::random();
        self.lock().insert(nonce, false);
        Expected { nonces: self, nonce }
    }

    /// Notes that a number came back; `false` for one that nobody waits for.
    fn came(&self, nonce: u64) -> bool {
        self.lock().get_mut(&nonce).map(|came| *came = true).is_some()
    }
}

/// A number that is waited for, as long as this is there.
struct Expected<'a> {
    nonces: &'a Nonces,
    nonce: u64,
}

impl Expected<'_> {
    fn came(&self) -> bool {
        self.nonces.lock().get(&self.nonce).copied().unwrap_or_default()
    }
}

impl Drop for Expected<'_> {
    fn drop(&mut self) {
        self.nonces.lock().remove(&self.nonce);
    }
}

/// Why a test broke off.
#[derive(Debug, thiserror::Error)]
enum Broken {
    #[error("the stream broke: {0}")]
    Io(#[from] io::Error),
    #[error("it does not keep to the protocol")]
    Protocol,
}

/// Asks the server at the other end of `stream` to dial `address`.
pub(super) async fn test<S: AsyncRead + AsyncWrite + Unpin>(
    stream: S,
    address: &Multiaddr,
    nonces: &Nonces,
) -> Outcome {
    let expected = nonces.expect();
    match timeout(TEST_TIMEOUT, converse(stream, address, expected.nonce)).await {
        Ok(Ok(response)) => judge(&response, expected.came()),
        Ok(Err(error)) => Outcome::Inconclusive(error.to_string()),
        Err(_) => Outcome::Inconclusive("the test took too long".into()),
    }
}

fn judge(response: &DialResponse, came: bool) -> Outcome {
    match (response.status, response.dial) {
        (OK, OK) if came => Outcome::Reachable,
        (OK, OK) => Outcome::Inconclusive("it claims to have dialled, but no dial came".into()),
        (OK, DIAL_ERROR) => Outcome::Unreachable("a peer could not connect to it from outside".into()),
        (OK, DIAL_BACK_ERROR) => Outcome::Unreachable("a peer connected to it, but not to this node".into()),
        _ => Outcome::Inconclusive("it would not test the address".into()),
    }
}

async fn converse<S: AsyncRead + AsyncWrite + Unpin>(
    mut stream: S,
    address: &Multiaddr,
    nonce: u64,
) -> Result<DialResponse, Broken> {
    let request = Kind::DialRequest(DialRequest { addresses: vec![address.to_vec()], nonce });
    write(&mut stream, &Message { kind: Some(request) }).await?;
    let mut asked = false;
    loop {
        let bytes = read(&mut stream, MAX_MESSAGE).await?;
        match Message::decode(bytes.as_slice()).map_err(|_| Broken::Protocol)?.kind {
            Some(Kind::DialResponse(response)) if response.index == 0 => {
                // The server has closed its end, perhaps before ours.
                let _ = stream.close().await;
                return Ok(response);
            }
            Some(Kind::DataRequest(DataRequest { index: 0, bytes })) if !asked && bytes <= MAX_DATA => {
                asked = true;
                send_data(&mut stream, bytes).await?;
            }
            _ => return Err(Broken::Protocol),
        }
    }
}

async fn send_data<S: AsyncWrite + Unpin>(stream: &mut S, mut left: u64) -> Result<(), Broken> {
    while left > 0 {
        let len = usize::try_from(left).unwrap_or(DATA).min(DATA);
        let response = Kind::DataResponse(DataResponse { data: vec![0; len] });
        write(stream, &Message { kind: Some(response) }).await?;
        left -= len as u64;
    }
    Ok(())
}

/// Reads the numbers that servers say, until the network stops; a few at a time, each for at most five seconds. More are
/// dropped: we ask for one at a time ourselves.
pub(super) async fn take_dial_backs(mut incoming: Incoming, nonces: Nonces) {
    let places = Arc::new(Semaphore::new(MAX_DIAL_BACKS));
    while let Some((peer, stream)) = incoming.recv().await {
        let Ok(place) = Arc::clone(&places).try_acquire_owned() else { continue };
        let nonces = nonces.clone();
        tokio::spawn(async move {
            let _place = place;
            let result = timeout(DIAL_BACK_TIMEOUT, take_dial_back(stream, &nonces)).await;
            if !matches!(result, Ok(Ok(()))) {
                tracing::debug!(%peer, "a dial back that nobody asked for, or broke off");
            }
        });
    }
}

async fn take_dial_back<S: AsyncRead + AsyncWrite + Unpin>(mut stream: S, nonces: &Nonces) -> Result<(), Broken> {
    let bytes = read(&mut stream, MAX_DIAL_BACK).await?;
    let DialBack { nonce } = DialBack::decode(bytes.as_slice()).map_err(|_| Broken::Protocol)?;
    if !nonces.came(nonce) {
        return Err(Broken::Protocol);
    }
    // The answer is a message whose only field has its default, so it is empty.
    stream.write_all(&[0]).await?;
    stream.close().await?;
    Ok(())
}

/// Reads one message with its length before it, a variable-length number of at most two bytes.
async fn read<S: AsyncRead + Unpin>(stream: &mut S, max: usize) -> Result<Vec<u8>, Broken> {
    let mut byte = [0];
    stream.read_exact(&mut byte).await?;
    let mut len = usize::from(byte[0] & 0x7f);
    if byte[0] & 0x80 != 0 {
        stream.read_exact(&mut byte).await?;
        if byte[0] == 0 || byte[0] & 0x80 != 0 {
            return Err(Broken::Protocol);
        }
        len |= usize::from(byte[0]) << 7;
    }
    if len > max {
        return Err(Broken::Protocol);
    }
    let mut body = vec![0; len];
    stream.read_exact(&mut body).await?;
    Ok(body)
}

async fn write<S: AsyncWrite + Unpin>(stream: &mut S, message: &Message) -> io::Result<()> {
    stream.write_all(&message.encode_length_delimited_to_vec()).await?;
    stream.flush().await
}

#[cfg(test)]
mod tests {
    use futures::{
        executor::block_on,
        io::{AllowStdIo, Cursor},
    };
    use proptest::prelude::*;

    use super::*;

    /// A stream that says what it was given, and forgets what it hears.
    struct Says(Cursor<Vec<u8>>, AllowStdIo<io::Sink>);

    impl Says {
        fn new(said: Vec<u8>) -> Self {
            Self(Cursor::new(said), AllowStdIo::new(io::sink()))
        }
    }

    impl AsyncRead for Says {
        fn poll_read(
            mut self: std::pin::Pin<&mut Self>,
            cx: &mut std::task::Context<'_>,
            buffer: &mut [u8],
        ) -> std::task::Poll<io::Result<usize>> {
            std::pin::Pin::new(&mut self.0).poll_read(cx, buffer)
        }
    }

    impl AsyncWrite for Says {
        fn poll_write(
            mut self: std::pin::Pin<&mut Self>,
            cx: &mut std::task::Context<'_>,
            bytes: &[u8],
        ) -> std::task::Poll<io::Result<usize>> {
            std::pin::Pin::new(&mut self.1).poll_write(cx, bytes)
        }

        fn poll_flush(
            mut self: std::pin::Pin<&mut Self>,
            cx: &mut std::task::Context<'_>,
        ) -> std::task::Poll<io::Result<()>> {
            std::pin::Pin::new(&mut self.1).poll_flush(cx)
        }

        fn poll_close(
            mut self: std::pin::Pin<&mut Self>,
            cx: &mut std::task::Context<'_>,
        ) -> std::task::Poll<io::Result<()>> {
            std::pin::Pin::new(&mut self.1).poll_close(cx)
        }
    }

    fn say(kind: Kind) -> Vec<u8> {
        Message { kind: Some(kind) }.encode_length_delimited_to_vec()
    }

    fn ask(said: Vec<u8>) -> Result<DialResponse, Broken> {
        block_on(converse(Says::new(said), &"/ip4/198.51.100.1/tcp/1".parse().unwrap(), 7))
    }

    #[test]
    fn a_server_may_ask_for_data_once_and_only_for_so_much() {
        let data = |bytes| say(Kind::DataRequest(DataRequest { index: 0, bytes }));
        let done = say(Kind::DialResponse(DialResponse { status: OK, index: 0, dial: OK }));
        assert!(ask([data(MAX_DATA), done.clone()].concat()).is_ok());
        assert!(matches!(ask([data(MAX_DATA + 1), done.clone()].concat()), Err(Broken::Protocol)));
        assert!(matches!(ask([data(1), data(1), done].concat()), Err(Broken::Protocol)));
        let other = say(Kind::DialResponse(DialResponse { status: OK, index: 1, dial: OK }));
        assert!(matches!(ask(other), Err(Broken::Protocol)));
    }

    #[test]
    fn without_the_number_nobody_is_believed() {
        let says = |status, dial| DialResponse { status, index: 0, dial };
        assert_eq!(judge(&says(OK, OK), true), Outcome::Reachable);
        assert!(matches!(judge(&says(OK, OK), false), Outcome::Inconclusive(_)));
        assert!(matches!(judge(&says(OK, DIAL_ERROR), false), Outcome::Unreachable(_)));
        assert!(matches!(judge(&says(101, 0), false), Outcome::Inconclusive(_)));
        let nonces = Nonces::default();
        let nonce = {
            let expected = nonces.expect();
            assert!(!expected.came() && !nonces.came(expected.nonce ^ 1));
            assert!(nonces.came(expected.nonce) && expected.came());
            expected.nonce
        };
        assert!(!nonces.came(nonce) && nonces.lock().is_empty());
    }

    #[test]
    fn the_bytes_are_those_of_the_specification() {
        let request = DialRequest { addresses: vec![vec![4, 1, 2, 3, 4, 6, 0, 1]], nonce: 0x0102_0304_0506_0708 };
        let bytes = say(Kind::DialRequest(request));
        let expected =
            [&[21, 0x0a, 19, 0x0a, 8, 4, 1, 2, 3, 4, 6, 0, 1, 0x11][..], &0x0102_0304_0506_0708_u64.to_le_bytes()]
                .concat();
        assert_eq!(bytes, expected);
    }

    proptest! {
        #[test]
        fn garbage_breaks_a_test_off_and_never_panics(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = ask(bytes.clone());
            let _ = block_on(take_dial_back(Says::new(bytes), &Nonces::default()));
        }
    }
}
