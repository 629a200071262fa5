//! Takes chunks from one peer over one pull stream, checking length and hash of each as it comes.
//!
//! A task reads the stream and hands each body to the blocking pool for BLAKE3, so reading, hashing and whatever the caller
//! does with a chunk overlap. At most `window` chunks are in memory beyond the one in the caller's hands. Dropping the client
//! ends the task and resets the stream.

use std::time::Duration;

use futures::{AsyncRead, AsyncReadExt, AsyncWrite};
use tokio::{
    sync::mpsc,
    task::{AbortHandle, JoinHandle},
    time::timeout,
};
use tributary_protocol::ids::Hash;

use super::pull::{
    MAX_CHUNK_BODY, MAX_PULL_HASHES, PULL_HEADER_LEN, PullHeader, PullStatus, PullWireError, write_request,
};

/// Progress is checked per slice of this size, bytes.
const SLICE: usize = 64 << 10;
/// Bodies below this size are hashed in place: a change of thread costs more.
const HASH_INLINE: usize = 16 << 10;

/// A chunk to ask for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Wanted {
    /// BLAKE3 of its ciphertext.
    pub hash: Hash,
    /// Its length as the chunk record says, bytes; `None` when no record is at hand.
    pub len: Option<u32>,
}

/// Limits of one pull.
#[derive(Debug, Clone)]
pub struct PullOptions {
    /// The peer must send the next header, and then each 64 KiB, within this time.
    pub stall_timeout: Duration,
    /// Chunks in memory that the caller has not taken yet, at least 1.
    pub window: usize,
    /// Largest ciphertext taken where no length is known, bytes.
    pub max_body: usize,
}

impl Default for PullOptions {
    fn default() -> Self {
        Self { stall_timeout: Duration::from_secs(30), window: 4, max_body: MAX_CHUNK_BODY }
    }
}

/// Why a chunk did not come.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum PullError {
    /// More chunks, or fewer, than one request may name.
    #[error("a pull of {0} chunks is not possible: 1 to {MAX_PULL_HASHES} at a time")]
    Count(usize),
    /// The bytes are not what the hash says.
    #[error("the peer sent wrong bytes for chunk {0}")]
    Mismatch(Hash),
    /// The chunk is longer than it may be.
    #[error("the peer announced {len} bytes for chunk {hash}, at most {max} are allowed")]
    TooLong {
        /// The chunk.
        hash: Hash,
        /// Announced, bytes.
        len: usize,
        /// Allowed, bytes.
        max: usize,
    },
    /// The chunk is not as long as its record says.
    #[error("the peer announced {len} bytes for chunk {hash}, its record says {expected}")]
    WrongLength {
        /// The chunk.
        hash: Hash,
        /// Announced, bytes.
        len: u32,
        /// In the record, bytes.
        expected: u32,
    },
    /// The peer answered for another chunk than the one that was due.
    #[error("the peer answered for chunk {got} where {wanted} was due")]
    OutOfOrder {
        /// Due.
        wanted: Hash,
        /// Sent.
        got: Hash,
    },
    /// The peer has too much to do.
    #[error("the peer is busy; try again after {} ms", .retry_after.as_millis())]
    Busy {
        /// When to try again.
        retry_after: Duration,
    },
    /// The chunk was withdrawn by its machine.
    #[error("chunk {0} was withdrawn")]
    Gone(Hash),
    /// The peer does not have the chunk.
    #[error("the peer does not have chunk {0}")]
    NotFound(Hash),
    /// The peer made no progress.
    #[error("the peer sent nothing for too long")]
    Timeout,
    /// The peer sent something else than a pull response.
    #[error(transparent)]
    Wire(#[from] PullWireError),
    /// The stream ended before all was here.
    #[error("the peer closed the stream early")]
    Closed,
}

impl PullError {
    /// Whether an honest peer would never cause it.
    #[must_use]
    pub fn is_offence(&self) -> bool {
        matches!(self, Self::Mismatch(_) | Self::TooLong { .. } | Self::WrongLength { .. } | Self::OutOfOrder { .. })
            || matches!(self, Self::Wire(PullWireError::Status(_)))
    }

    /// Whether the rest of the pull is lost with it. Only "gone" and "not found" are about a single chunk.
    #[must_use]
    pub fn is_fatal(&self) -> bool {
        !matches!(self, Self::Gone(_) | Self::NotFound(_))
    }
}

/// What became of one chunk.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PullItem {
    /// The chunk; for an error that ends the pull, the one that was due.
    pub hash: Hash,
    /// Its ciphertext, checked against length and hash.
    pub result: Result<Vec<u8>, PullError>,
}

/// A chunk on its way from the reading task.
enum Incoming {
    Checked(Hash, Result<Vec<u8>, PullError>),
    Hashing(Hash, JoinHandle<Result<Vec<u8>, PullError>>),
}

/// A pull under way.
pub struct PullClient {
    incoming: mpsc::Receiver<Incoming>,
    reader: AbortHandle,
    ended: bool,
}

impl PullClient {
    /// Asks for `wanted` over `stream`. Nothing is sent, and nothing spawned, when their number is not allowed.
    pub fn start<S>(stream: S, wanted: Vec<Wanted>, options: PullOptions) -> Result<Self, PullError>
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        if !(1..=MAX_PULL_HASHES).contains(&wanted.len()) {
            return Err(PullError::Count(wanted.len()));
        }
        let (tx, incoming) = mpsc::channel(options.window.max(1));
        let reader = tokio::spawn(read(stream, wanted, options, tx)).abort_handle();
        Ok(Self { incoming, reader, ended: false })
    }

    /// The next chunk, in the order they were asked for; `None` after the last one, or after an error that ends the pull.
    pub async fn next(&mut self) -> Option<PullItem> {
        if self.ended {
            return None;
        }
        let (hash, result) = match self.incoming.recv().await? {
            Incoming::Checked(hash, result) => (hash, result),
            // The hashing task neither panics nor is it cancelled, except when the runtime shuts down.
            Incoming::Hashing(hash, task) => (hash, task.await.unwrap_or(Err(PullError::Closed))),
        };
        if matches!(&result, Err(error) if error.is_fatal()) {
            self.ended = true;
            self.reader.abort();
        }
        Some(PullItem { hash, result })
    }
}

impl Drop for PullClient {
    fn drop(&mut self) {
        self.reader.abort();
    }
}

async fn read<S>(mut stream: S, wanted: Vec<Wanted>, options: PullOptions, out: mpsc::Sender<Incoming>)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let hashes: Vec<Hash> = wanted.iter().map(|wanted| wanted.hash).collect();
    let sent = match timeout(options.stall_timeout, write_request(&mut stream, &hashes)).await {
        Ok(Ok(())) => Ok(()),
        Ok(Err(PullWireError::Broken)) => Err(PullError::Closed),
        Ok(Err(error)) => Err(error.into()),
        Err(_) => Err(PullError::Timeout),
    };
    drop(hashes);
    let mut failed = sent.err();
    for wanted in wanted {
        let next = match failed.take() {
            Some(error) => Err(error),
            None => read_chunk(&mut stream, wanted, &options).await,
        };
        let fatal = matches!(&next, Err(error) if error.is_fatal());
        let item = match next {
            Ok(body) if body.len() >= HASH_INLINE => {
                Incoming::Hashing(wanted.hash, tokio::task::spawn_blocking(move || check(wanted.hash, body)))
            }
            Ok(body) => Incoming::Checked(wanted.hash, check(wanted.hash, body)),
            Err(error) => Incoming::Checked(wanted.hash, Err(error)),
        };
        // A full window waits for the caller here; a caller that is gone ends the pull.
        if out.send(item).await.is_err() || fatal {
            return;
        }
    }
}

fn check(hash: Hash, body: Vec<u8>) -> Result<Vec<u8>, PullError> {
    if Hash::of(&body) == hash { Ok(body) } else { Err(PullError::Mismatch(hash)) }
}

async fn read_chunk<S: AsyncRead + Unpin>(
    stream: &mut S,
    wanted: Wanted,
    options: &PullOptions,
) -> Result<Vec<u8>, PullError> {
    let hash = wanted.hash;
    let mut header = [0; PULL_HEADER_LEN];
    fill(stream, &mut header, options.stall_timeout).await?;
    let header = PullHeader::decode(&header)?;
    if header.status == PullStatus::Busy {
        return Err(PullError::Busy { retry_after: Duration::from_millis(header.len.into()) });
    }
    if header.hash != hash {
        return Err(PullError::OutOfOrder { wanted: hash, got: header.hash });
    }
    match header.status {
        PullStatus::Found => {}
        PullStatus::Gone => return Err(PullError::Gone(hash)),
        PullStatus::NotFound | PullStatus::Busy => return Err(PullError::NotFound(hash)),
    }
    let len = usize::try_from(header.len).unwrap_or(usize::MAX);
    if len > options.max_body {
        return Err(PullError::TooLong { hash, len, max: options.max_body });
    }
    if let Some(expected) = wanted.len.filter(|expected| *expected != header.len) {
        return Err(PullError::WrongLength { hash, len: header.len, expected });
    }
    let mut body = vec![0; len];
    for slice in body.chunks_mut(SLICE) {
        fill(stream, slice, options.stall_timeout).await?;
    }
    Ok(body)
}

/// Reads until `into` is full, within `limit`.
async fn fill<S: AsyncRead + Unpin>(stream: &mut S, into: &mut [u8], limit: Duration) -> Result<(), PullError> {
    match timeout(limit, stream.read_exact(into)).await {
        Ok(Ok(())) => Ok(()),
        Ok(Err(_)) => Err(PullError::Closed),
        Err(_) => Err(PullError::Timeout),
    }
}
