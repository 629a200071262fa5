//! A buyer receives from a seller of peaq's, or from a machine of ours that delivers as one.
//!
//! The network part reads and hands over; checking, decrypting and writing run on a thread that may block. In memory are one
//! chunk and a few reads, whatever the size. The file appears when everything has come and is consistent, or not at all.

use std::{io, io::Write as _, path::Path, time::Duration};

use futures::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use libp2p::Multiaddr;
use serde::{Deserialize, Serialize};
use tokio::{sync::mpsc, time::timeout};
use tributary_protocol::{
    keys::FeedPublicKey,
    peaq::{
        access::AccessEntry,
        frame::{Frame, Handshake},
        receiver::{ReceiveError, Received, Receiver},
        sealed_box::BoxSecretKey,
        verify::ChainReport,
    },
};

use crate::{
    export::AtomicFile,
    net::{LoneError, PEAQ_PROTOCOL, open_lone},
};

/// How long a seller may take to answer, as in peaq's SDK.
const CONNECT_TIME: Duration = Duration::from_secs(30);
/// How long a seller may be silent, as in peaq's SDK.
const SILENCE: Duration = Duration::from_secs(60);
/// Most bytes read at a time: as many as a stream has in one piece.
const READ: usize = 64 << 10;
/// Reads that may wait for the thread that checks them: two chunks of the usual size.
const READS: usize = 12;

/// What is received.
pub struct Order {
    /// What the handshake says.
    pub handshake: Handshake,
    /// Where the seller is; ends in `/p2p/<peer id>`.
    pub seller: Multiaddr,
    /// The keys of the chunks.
    pub access: Vec<AccessEntry>,
    /// Opens them.
    pub key: BoxSecretKey,
    /// The only key whose chunks are taken. Without it nothing proves whose the chunks are.
    pub trusted: Option<FeedPublicKey>,
}

/// What came, and what is known of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Receipt {
    /// Bytes written.
    pub total_bytes: u64,
    /// Chunks received.
    pub chunk_count: u64,
    /// The key that signed every chunk; `None` when there was more than one.
    pub signer: Option<String>,
    /// The machine that stands beside every signature. Nobody signs that.
    pub machine_did: Option<String>,
    /// Whether every chunk is signed by the key that was trusted.
    pub trusted: bool,
    /// The same in words.
    pub verdict: String,
}

/// Why nothing was received.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Failure {
    /// No stream to the seller.
    #[error(transparent)]
    Connect(#[from] LoneError),
    /// The connection broke.
    #[error("the connection to the seller broke: {0}")]
    Broken(#[source] io::Error),
    /// The seller said nothing.
    #[error("the seller was silent for {} s", SILENCE.as_secs())]
    Silent,
    /// What came is not what was bought, or the seller gave up.
    #[error(transparent)]
    Delivery(#[from] ReceiveError),
    /// The chunks are signed by another key.
    #[error("the chunks are signed by {}, not by the key that was trusted", found.as_deref().unwrap_or("more than one key"))]
    Untrusted {
        /// The key that signed them, if it is one.
        found: Option<String>,
    },
    /// The file cannot be written.
    #[error("the file cannot be written: {0}")]
    File(#[source] io::Error),
    /// The thread that checks is gone.
    #[error("the work ended unexpectedly; see the log")]
    Ended,
}

/// Dials the seller and receives everything into the file at `out`. `progress` hears the chunks so far, and those bought.
///
/// # Errors
/// Nothing came, or not what was bought; then there is no file.
pub async fn receive(
    order: Order,
    out: &Path,
    progress: impl Fn(u64, u64) + Send + 'static,
) -> Result<Receipt, Failure> {
    let (stream, _lone) = open_lone(order.seller.clone(), PEAQ_PROTOCOL, CONNECT_TIME).await?;
    receive_from(stream, order, out, progress).await
}

/// As [`receive`], on a stream that is open.
///
/// # Errors
/// As [`receive`].
pub async fn receive_from(
    mut stream: impl AsyncRead + AsyncWrite + Unpin,
    order: Order,
    out: &Path,
    progress: impl Fn(u64, u64) + Send + 'static,
) -> Result<Receipt, Failure> {
    let Order { handshake, access, key, trusted, .. } = order;
    let file = AtomicFile::create(out).map_err(Failure::File)?;
    let hello = Frame::Handshake(handshake).encode();
    let said = async {
        stream.write_all(&hello).await?;
        stream.flush().await
    };
    timeout(CONNECT_TIME, said).await.map_err(|_| Failure::Silent)?.map_err(Failure::Broken)?;

    let receiver = Receiver::new(access, key);
    let (pieces, taken) = mpsc::channel(READS);
    // Room for all there are: those that wait, one that is being read into and one that is being checked.
    let (spent, empty) = mpsc::channel(READS + 2);
    let incoming = Incoming { pieces: taken, spent };
    let checker = tokio::task::spawn_blocking(move || check(receiver, incoming, file, trusted.as_ref(), &progress));
    let fed = feed(&mut stream, pieces, empty).await;
    let checked = checker.await.map_err(|_| Failure::Ended)?;
    // Closing tells the seller that everything was read, or that nothing more will be.
    let _ = timeout(Duration::from_secs(5), stream.close()).await;
    match (fed, checked) {
        // What is wrong with the data is said before what is wrong with the connection, unless that came first.
        (Err(broken), Err(Failure::Delivery(ReceiveError::Incomplete | ReceiveError::Frame(_)))) => Err(broken),
        (_, checked) => checked,
    }
}

/// Bytes that were read: the beginning of a buffer of [`READ`] bytes.
struct Piece {
    buffer: Vec<u8>,
    len: usize,
}

/// The end of the thread that checks: what is read, and where buffers go back to.
struct Incoming {
    pieces: mpsc::Receiver<Piece>,
    spent: mpsc::Sender<Vec<u8>>,
}

/// Reads until the seller ends, or nobody wants more.
async fn feed(
    stream: &mut (impl AsyncRead + Unpin),
    pieces: mpsc::Sender<Piece>,
    mut empty: mpsc::Receiver<Vec<u8>>,
) -> Result<(), Failure> {
    loop {
        let mut buffer = empty.try_recv().unwrap_or_else(|_| vec![0; READ]);
        let read = tokio::select! {
            () = pieces.closed() => return Ok(()),
            read = timeout(SILENCE, stream.read(&mut buffer)) => read,
        };
        let len = read.map_err(|_| Failure::Silent)?.map_err(Failure::Broken)?;
        if len == 0 || pieces.send(Piece { buffer, len }).await.is_err() {
            return Ok(());
        }
    }
}

/// Checks, decrypts and writes what is read.
fn check(
    mut receiver: Receiver,
    Incoming { mut pieces, spent }: Incoming,
    mut file: AtomicFile,
    trusted: Option<&FeedPublicKey>,
    progress: &impl Fn(u64, u64),
) -> Result<Receipt, Failure> {
    let mut total_bytes = 0;
    while let Some(Piece { buffer, len }) = pieces.blocking_recv() {
        let mut input = buffer.get(..len).unwrap_or_default();
        while let Some(received) = receiver.advance(&mut input)? {
            match received {
                Received::Chunk { plaintext, .. } => {
                    file.write_all(plaintext).map_err(Failure::File)?;
                    total_bytes += plaintext.len() as u64;
                    progress(receiver.received(), receiver.bought());
                }
                Received::Complete(report) => {
                    let receipt = judge(&report, trusted, total_bytes)?;
                    file.commit().map_err(Failure::File)?;
                    return Ok(receipt);
                }
            }
        }
        // Nobody reads any more where this fails.
        let _ = spent.try_send(buffer);
    }
    receiver.finish()?;
    Err(Failure::Ended)
}

fn judge(report: &ChainReport, trusted: Option<&FeedPublicKey>, total_bytes: u64) -> Result<Receipt, Failure> {
    let signer = report.signer.as_ref().map(ToString::to_string);
    let is_trusted = trusted.is_some() && report.signer.as_ref() == trusted;
    if trusted.is_some() && !is_trusted {
        return Err(Failure::Untrusted { found: signer });
    }
    let verdict = match (&signer, is_trusted) {
        (_, true) => "consistent, and signed by the key that was trusted",
        (Some(_), false) => "consistent, origin not proven",
        (None, false) => "consistent, origin not proven, and signed by more than one key",
    };
    Ok(Receipt {
        total_bytes,
        chunk_count: report.total_chunks,
        signer,
        machine_did: report.machine_did.clone(),
        trusted: is_trusted,
        verdict: verdict.to_owned(),
    })
}
