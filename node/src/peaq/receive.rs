//! A buyer receives from a seller of peaq's, or from a machine of ours that delivers as one.
//!
//! A few chunks are in memory, whatever the size: see `receive/pipeline.rs`. The file appears when everything has come and is consistent, or
//! not at all.

mod pipeline;

use std::{io, io::Write as _, path::Path, time::Duration};

use futures::{AsyncRead, AsyncWrite, AsyncWriteExt as _};
use libp2p::Multiaddr;
use serde::{Deserialize, Serialize};
use tokio::time::timeout;
use tributary_protocol::{
    keys::FeedPublicKey,
    peaq::{
        access::AccessEntry,
        frame::{Frame, Handshake},
        receiver::{Examiner, ReceiveError},
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

    let output = Output { file, trusted, progress, total_bytes: 0 };
    let received = pipeline::run(&mut stream, Examiner::new(access, key), output).await;
    // Closing tells the seller that everything was read, or that nothing more will be.
    let _ = timeout(Duration::from_secs(5), stream.close()).await;
    received
}

/// Where plaintexts go.
struct Output<P> {
    file: AtomicFile,
    trusted: Option<FeedPublicKey>,
    progress: P,
    total_bytes: u64,
}

impl<P: Fn(u64, u64) + Send + 'static> pipeline::Sink for Output<P> {
    fn chunk(&mut self, plaintext: &[u8], received: u64, bought: u64) -> Result<(), Failure> {
        self.file.write_all(plaintext).map_err(Failure::File)?;
        self.total_bytes += plaintext.len() as u64;
        (self.progress)(received, bought);
        Ok(())
    }

    fn complete(self, report: &ChainReport) -> Result<Receipt, Failure> {
        let receipt = judge(report, self.trusted.as_ref(), self.total_bytes)?;
        self.file.commit().map_err(Failure::File)?;
        Ok(receipt)
    }
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
