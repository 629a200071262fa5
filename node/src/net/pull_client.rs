//! Takes chunks from one peer over one pull stream, checking length and hash of each as it comes.
//!
//! A task reads the stream and hands each body to the blocking pool for BLAKE3, so reading, hashing and whatever the caller
//! does with a chunk overlap. At most `window` chunks are in memory beyond the one in the caller's hands. Dropping the client
//! ends the task and resets the stream.

use std::{collections::HashMap, sync::Arc, time::Duration};

use futures::{AsyncRead, AsyncReadExt, AsyncWrite};
use tokio::{
    sync::mpsc,
    task::{AbortHandle, JoinHandle},
    time::timeout,
};
use tributary_protocol::{
    ids::Hash,
    record::MAX_CIPHERTEXT_LEN,
    wire::{PullHeader, PullStatus, pull::MAX_HASHES},
};

use super::{
    Client,
    meter::Transfer,
    pull::{PullRequestError, write_request},
    shaping::Pace,
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
    /// What slows the reading down ([`Client::pace`]).
    pub pace: Option<Pace>,
    /// Largest ciphertext taken where no length is known, bytes.
    pub max_body: usize,
}

impl Default for PullOptions {
    fn default() -> Self {
        Self { stall_timeout: Duration::from_secs(30), window: 4, pace: None, max_body: MAX_CIPHERTEXT_LEN }
    }
}

/// Why a chunk did not come.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum PullError {
    /// More chunks, or fewer, than one request may name.
    #[error("a pull of {0} chunks is not possible: 1 to {MAX_HASHES} at a time")]
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
    /// The peer answered for a chunk nobody asked for, or twice for one.
    #[error("the peer answered for chunk {0}, which was not asked for")]
    Unasked(Hash),
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
    /// The peer sent something else than the header of a chunk.
    #[error("the peer sent a malformed header: {0}")]
    Malformed(String),
    /// Our own request could not be sent.
    #[error("the pull request was not sent: {0}")]
    Request(String),
    /// The stream ended before all was here.
    #[error("the peer closed the stream early")]
    Closed,
}

impl PullError {
    /// Whether an honest peer would never cause it.
    #[must_use]
    pub fn is_offence(&self) -> bool {
        matches!(
            self,
            Self::Mismatch(_) | Self::TooLong { .. } | Self::WrongLength { .. } | Self::Unasked(_) | Self::Malformed(_)
        )
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
    /// The chunk; for an error that ends the pull and is about no chunk, the first that is still missing.
    pub hash: Hash,
    /// Its ciphertext, checked against length and hash.
    pub result: Result<Vec<u8>, PullError>,
}

/// A chunk on its way from the reading task.
enum Incoming {
    Checked(Hash, Result<Vec<u8>, PullError>),
    Hashing(Hash, Hashing),
}

/// The blocking task that compares a body with its hash.
type Hashing = JoinHandle<Result<Vec<u8>, PullError>>;

/// A pull under way.
pub struct PullClient {
    incoming: mpsc::Receiver<Incoming>,
    /// A chunk that was taken from the reader and whose hash is not known yet.
    hashing: Option<(Hash, Hashing)>,
    reader: AbortHandle,
    ended: bool,
    asked: usize,
    transfer: Option<Transfer>,
}

impl PullClient {
    /// Asks for `wanted` over `stream`. Nothing is sent, and nothing spawned, when their number is not allowed.
    pub fn start<S>(stream: S, wanted: Vec<Wanted>, options: PullOptions) -> Result<Self, PullError>
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        if !(1..=MAX_HASHES).contains(&wanted.len()) {
            return Err(PullError::Count(wanted.len()));
        }
        let (tx, incoming) = mpsc::channel(options.window.max(1));
        let asked = wanted.len();
        let reader = tokio::spawn(read(stream, wanted, options, tx)).abort_handle();
        Ok(Self { incoming, hashing: None, reader, ended: false, asked, transfer: None })
    }

    /// Counts this pull among those of a network, see [`super::NetStats::pulls`]. It begins now.
    #[must_use]
    pub fn counted(mut self, by: &Client) -> Self {
        self.transfer = Some(Transfer::begin(Arc::clone(&by.counters), self.asked));
        self
    }

    /// The next chunk, in the order the peer sends them; `None` after the last one, or after an error that ends the pull. Nothing is
    /// lost when the future is dropped before it is ready.
    pub async fn next(&mut self) -> Option<PullItem> {
        if self.ended {
            return None;
        }
        if self.hashing.is_none() {
            match self.incoming.recv().await? {
                Incoming::Checked(hash, result) => return Some(self.item(hash, result)),
                Incoming::Hashing(hash, task) => self.hashing = Some((hash, task)),
            }
        }
        let (hash, task) = self.hashing.as_mut()?;
        // The hashing task neither panics nor is it cancelled, except when the runtime shuts down.
        let (hash, result) = (*hash, task.await.unwrap_or(Err(PullError::Closed)));
        self.hashing = None;
        Some(self.item(hash, result))
    }

    fn item(&mut self, hash: Hash, result: Result<Vec<u8>, PullError>) -> PullItem {
        if let Some(transfer) = &mut self.transfer {
            transfer.item(&result);
        }
        if matches!(&result, Err(error) if error.is_fatal()) {
            self.ended = true;
            self.reader.abort();
        }
        PullItem { hash, result }
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
    let sent = match timeout(options.stall_timeout, write_request(&mut stream, hashes)).await {
        Ok(Ok(())) => Ok(()),
        Ok(Err(PullRequestError::Broken)) => Err(PullError::Closed),
        Ok(Err(error)) => Err(PullError::Request(error.to_string())),
        Err(_) => Err(PullError::Timeout),
    };
    let mut failed = sent.err();
    let mut missing = Missing::new(&wanted);
    // One answer is due for each hash that was asked for.
    for _ in 0..wanted.len() {
        let (hash, next) = match failed.take() {
            Some(error) => (None, Err(error)),
            None => read_chunk(&mut stream, &mut missing, &options).await,
        };
        let fatal = matches!(&next, Err(error) if error.is_fatal());
        let hash = hash.unwrap_or_else(|| missing.first(&wanted));
        let item = match next {
            Ok(body) if body.len() >= HASH_INLINE => {
                Incoming::Hashing(hash, tokio::task::spawn_blocking(move || check(hash, body)))
            }
            Ok(body) => Incoming::Checked(hash, check(hash, body)),
            Err(error) => Incoming::Checked(hash, Err(error)),
        };
        // A full window waits for the caller here; a caller that is gone ends the pull.
        if out.send(item).await.is_err() || fatal {
            return;
        }
    }
}

/// The chunks that were not answered yet: expected length, and how often each was asked for.
struct Missing(HashMap<Hash, (Option<u32>, usize)>);

impl Missing {
    fn new(wanted: &[Wanted]) -> Self {
        let mut missing = HashMap::with_capacity(wanted.len());
        for wanted in wanted {
            missing.entry(wanted.hash).or_insert((wanted.len, 0)).1 += 1;
        }
        Self(missing)
    }

    /// Takes an answered chunk out and says what length was expected.
    fn take(&mut self, hash: Hash) -> Result<Option<u32>, PullError> {
        let (len, count) = self.0.get_mut(&hash).ok_or(PullError::Unasked(hash))?;
        let len = *len;
        *count -= 1;
        if *count == 0 {
            self.0.remove(&hash);
        }
        Ok(len)
    }

    fn first(&self, wanted: &[Wanted]) -> Hash {
        wanted.iter().map(|wanted| wanted.hash).find(|hash| self.0.contains_key(hash)).unwrap_or(Hash::ZERO)
    }
}

fn check(hash: Hash, body: Vec<u8>) -> Result<Vec<u8>, PullError> {
    if Hash::of(&body) == hash { Ok(body) } else { Err(PullError::Mismatch(hash)) }
}

/// Reads one answer. The hash is missing while it is not known which chunk it is about.
async fn read_chunk<S: AsyncRead + Unpin>(
    stream: &mut S,
    missing: &mut Missing,
    options: &PullOptions,
) -> (Option<Hash>, Result<Vec<u8>, PullError>) {
    let mut header = [0; PullHeader::LEN];
    if let Err(error) = fill(stream, &mut header, options.stall_timeout).await {
        return (None, Err(error));
    }
    let header = match PullHeader::decode(&header) {
        Ok(header) => header,
        Err(error) => return (None, Err(PullError::Malformed(error.to_string()))),
    };
    let hash = header.hash;
    match missing.take(hash) {
        Ok(expected) => (Some(hash), read_body(stream, header, expected, options).await),
        Err(error) => (None, Err(error)),
    }
}

async fn read_body<S: AsyncRead + Unpin>(
    stream: &mut S,
    header: PullHeader,
    expected: Option<u32>,
    options: &PullOptions,
) -> Result<Vec<u8>, PullError> {
    let hash = header.hash;
    let announced = match header.status {
        PullStatus::Found { len } => len,
        PullStatus::NotFound => return Err(PullError::NotFound(hash)),
        PullStatus::Gone => return Err(PullError::Gone(hash)),
        PullStatus::Busy { retry_ms } => {
            return Err(PullError::Busy { retry_after: Duration::from_millis(retry_ms.into()) });
        }
    };
    let len = usize::try_from(announced).unwrap_or(usize::MAX);
    if len > options.max_body {
        return Err(PullError::TooLong { hash, len, max: options.max_body });
    }
    if let Some(expected) = expected.filter(|expected| *expected != announced) {
        return Err(PullError::WrongLength { hash, len: announced, expected });
    }
    let mut body = vec![0; len];
    for slice in body.chunks_mut(SLICE) {
        // Before it is read: what is not read here waits at the peer, by the stream's flow control.
        if let Some(pace) = &options.pace {
            pace.pass(slice.len()).await;
        }
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
