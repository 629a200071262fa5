//! Pull requests on a stream. The bytes are those of [`tributary_protocol::wire::pull`]; here they are read and written.
//!
//! A stream carries one transfer and is half-duplex: the request is written and the write half closed, then the response is
//! read. A server refuses a whole request with one "busy" header for the first hash, and ends the stream.

use futures::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tributary_protocol::{
    ids::Hash,
    wire::{PullRequest, WireError, pull::MAX_REQUEST},
};

use super::frame::{FrameError, frame_error, read_frame};

/// Why a pull request could not be read or written.
#[derive(Debug, thiserror::Error)]
pub(super) enum PullRequestError {
    #[error(transparent)]
    Frame(FrameError),
    #[error(transparent)]
    Wire(#[from] WireError),
    #[error("the peer sent more than its request")]
    Trailing,
    #[error("the stream broke")]
    Broken,
}

/// Reads a whole request, up to the end of the peer's write half.
pub(super) async fn read_request<S: AsyncRead + Unpin + Send>(stream: &mut S) -> Result<Vec<Hash>, PullRequestError> {
    let body = read_frame(stream, MAX_REQUEST)
        .await
        .map_err(|error| frame_error(&error).map_or(PullRequestError::Broken, PullRequestError::Frame))?;
    let request = PullRequest::decode(&body)?;
    // Half-duplex: whatever follows the request is not ours to buffer, and the end must come.
    match stream.read(&mut [0; 1]).await {
        Ok(0) => Ok(request.hashes),
        Ok(_) => Err(PullRequestError::Trailing),
        Err(_) => Err(PullRequestError::Broken),
    }
}

/// Writes a whole request and closes the write half.
pub(super) async fn write_request<S: AsyncWrite + Unpin + Send>(
    stream: &mut S,
    hashes: Vec<Hash>,
) -> Result<(), PullRequestError> {
    let frame = PullRequest { hashes }.encode_frame()?;
    stream.write_all(&frame).await.map_err(|_| PullRequestError::Broken)?;
    stream.close().await.map_err(|_| PullRequestError::Broken)
}
