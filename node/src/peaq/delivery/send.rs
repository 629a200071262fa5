//! Chunks on a stream: frames are made on a thread that may block while the ones before are being written.

use std::{
    io,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    time::Duration,
};

use futures::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use libp2p::Stream;
use tokio::{sync::mpsc, time::timeout};
use tributary_protocol::peaq::frame::{Frame, encode_chunk};

use crate::{
    net::Pace,
    peaq::chunks::{ChunkError, ChunkSource},
};

/// What a buyer must take within the stall timeout, bytes.
const SLICE: usize = 64 << 10;
/// Frames that are made ahead.
const AHEAD: usize = 1;

/// What was sent.
pub(super) struct Sent {
    pub(super) bytes: u64,
    pub(super) confirmed: bool,
}

/// Why not everything was sent.
#[derive(Debug, thiserror::Error)]
pub(super) enum SendError {
    #[error("too many transfers were under way; the buyer may try again")]
    Busy,
    #[error("the buyer took nothing for {} s", .0.as_secs())]
    Stalled(Duration),
    #[error("the buyer gave up or rejected what it got")]
    Gone,
    #[error("the connection broke: {0}")]
    Broken(#[from] io::Error),
    #[error("a chunk could not be read: {0}")]
    Chunk(#[from] ChunkError),
}

impl SendError {
    /// Whether it would fail again.
    pub(super) const fn is_ours(&self) -> bool {
        matches!(self, Self::Chunk(_))
    }
}

/// Makes one thing after the other on a thread that may block; dropping the receiver ends it.
pub(super) fn made_ahead<F>(count: u64, make: F) -> mpsc::Receiver<Result<Vec<u8>, ChunkError>>
where
    F: Fn(u64) -> Result<Vec<u8>, ChunkError> + Send + 'static,
{
    let (sender, receiver) = mpsc::channel(AHEAD);
    tokio::task::spawn_blocking(move || {
        for place in 0..count {
            let made = make(place);
            let failed = made.is_err();
            if sender.blocking_send(made).is_err() || failed {
                return;
            }
        }
    });
    receiver
}

/// Sends all chunks and `complete`, and waits for the buyer to close.
pub(super) async fn deliver(
    source: Arc<dyn ChunkSource>,
    stream: Stream,
    stall: Duration,
    pace: &Pace,
) -> Result<Sent, SendError> {
    let count = source.count();
    let mut frames = made_ahead(count, move |place| {
        let chunk = source.read(place)?;
        let mut line = Vec::new();
        encode_chunk(&chunk.envelope, &chunk.ciphertext, &mut line);
        Ok(line)
    });
    let (mut reader, mut writer) = stream.split();
    let (mut bytes, mut byte) = (0, [0; 1]);
    let all_written = AtomicBool::new(false);
    let send = async {
        while let Some(line) = frames.recv().await {
            let line = line?;
            write_slices(&mut writer, &line, stall, pace).await?;
            bytes += line.len() as u64;
        }
        let line = Frame::Complete { total_chunks: count.into() }.encode();
        write_slices(&mut writer, &line, stall, pace).await?;
        bytes += line.len() as u64;
        all_written.store(true, Relaxed);
        timeout(stall, writer.flush()).await.map_err(|_| SendError::Stalled(stall))??;
        Ok::<_, SendError>(())
    };
    tokio::select! {
        biased;
        sent = send => sent?,
        // A buyer has nothing more to say. If it speaks it is an error frame, if it closes it has given up, unless it has
        // everything already.
        _ = reader.read(&mut byte) => if !all_written.load(Relaxed) {
            return Err(SendError::Gone);
        },
    }
    // A stream that is dropped at once may take its last bytes with it. The buyer closes when it has read everything.
    let closed = async {
        writer.close().await?;
        drained(&mut reader).await
    };
    let confirmed = matches!(timeout(stall, closed).await, Ok(Ok(())));
    Ok(Sent { bytes, confirmed })
}

/// Reads to the end. A reset is one: a buyer that stops its node may send no more than that.
async fn drained(reader: &mut (impl AsyncRead + Unpin)) -> io::Result<()> {
    let mut buffer = [0; 512];
    while reader.read(&mut buffer).await.unwrap_or(0) > 0 {}
    Ok(())
}

/// Writes with progress: each slice has the whole time, and waits for its rate before that.
pub(super) async fn write_slices(
    writer: &mut (impl AsyncWrite + Unpin),
    bytes: &[u8],
    stall: Duration,
    pace: &Pace,
) -> Result<(), SendError> {
    for slice in bytes.chunks(SLICE) {
        pace.pass(slice.len()).await;
        timeout(stall, writer.write_all(slice)).await.map_err(|_| SendError::Stalled(stall))??;
    }
    Ok(())
}
