//! The frame of the request-response protocols: `u32 length, big endian || body`, one each way per stream.
//!
//! The length is checked against the protocol's limit before a byte of the body is read, and memory grows with what has
//! arrived, not with what was promised.

use std::io;

use futures::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use libp2p::{StreamProtocol, request_response};

/// No more than this is reserved on the word of a peer, bytes.
const FIRST_RESERVE: usize = 16 << 10;

/// A frame that breaks the rules.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum FrameError {
    /// The body is longer than the protocol allows.
    #[error("a frame of {len} bytes is too large: this protocol allows {max}")]
    TooLarge {
        /// Announced length, bytes.
        len: usize,
        /// The limit, bytes.
        max: usize,
    },
    /// The stream ended inside the frame.
    #[error("the stream ended after {got} of {len} bytes of a frame")]
    Truncated {
        /// Bytes that arrived.
        got: usize,
        /// Bytes that were announced.
        len: usize,
    },
}

impl From<FrameError> for io::Error {
    fn from(error: FrameError) -> Self {
        Self::new(io::ErrorKind::InvalidData, error)
    }
}

/// The frame error inside an I/O error, if that is what it is.
pub(super) fn frame_error(error: &io::Error) -> Option<FrameError> {
    error.get_ref().and_then(|inner| inner.downcast_ref::<FrameError>()).copied()
}

/// Reads one frame of at most `max` bytes.
pub(super) async fn read_frame<T: AsyncRead + Unpin + Send>(io: &mut T, max: usize) -> io::Result<Vec<u8>> {
    let mut prefix = [0; 4];
    io.read_exact(&mut prefix).await?;
    let announced = u32::from_be_bytes(prefix);
    let len = usize::try_from(announced).unwrap_or(usize::MAX);
    if len > max {
        return Err(FrameError::TooLarge { len, max }.into());
    }
    let mut body = Vec::with_capacity(len.min(FIRST_RESERVE));
    (&mut *io).take(u64::from(announced)).read_to_end(&mut body).await?;
    if body.len() < len {
        return Err(FrameError::Truncated { got: body.len(), len }.into());
    }
    Ok(body)
}

/// A frame around `body`, refused when it is over `max` bytes.
pub(super) fn encode_frame(body: &[u8], max: usize) -> Result<Vec<u8>, FrameError> {
    let too_large = FrameError::TooLarge { len: body.len(), max };
    let len = u32::try_from(body.len()).map_err(|_| too_large)?;
    if body.len() > max {
        return Err(too_large);
    }
    let mut frame = Vec::with_capacity(4 + body.len());
    frame.extend_from_slice(&len.to_be_bytes());
    frame.extend_from_slice(body);
    Ok(frame)
}

async fn write_frame<T: AsyncWrite + Unpin + Send>(io: &mut T, body: &[u8], max: usize) -> io::Result<()> {
    io.write_all(&encode_frame(body, max)?).await
}

/// The codec of one request-response protocol: opaque bodies with a limit per direction.
#[derive(Debug, Clone, Copy)]
pub(super) struct FrameCodec {
    pub(super) max_request: usize,
    pub(super) max_response: usize,
}

impl request_response::Codec for FrameCodec {
    type Protocol = StreamProtocol;
    /// A broken frame is handed on as such: an error of `read_request` would be dropped on the way, and with it the name of the
    /// peer that sent it.
    type Request = Result<Vec<u8>, FrameError>;
    type Response = Vec<u8>;

    async fn read_request<T: AsyncRead + Unpin + Send>(
        &mut self,
        _: &StreamProtocol,
        io: &mut T,
    ) -> io::Result<Self::Request> {
        match read_frame(io, self.max_request).await {
            Ok(body) => Ok(Ok(body)),
            Err(error) => frame_error(&error).map(Err).ok_or(error),
        }
    }

    async fn read_response<T: AsyncRead + Unpin + Send>(
        &mut self,
        _: &StreamProtocol,
        io: &mut T,
    ) -> io::Result<Vec<u8>> {
        read_frame(io, self.max_response).await
    }

    async fn write_request<T: AsyncWrite + Unpin + Send>(
        &mut self,
        _: &StreamProtocol,
        io: &mut T,
        request: Self::Request,
    ) -> io::Result<()> {
        write_frame(io, &request?, self.max_request).await
    }

    async fn write_response<T: AsyncWrite + Unpin + Send>(
        &mut self,
        _: &StreamProtocol,
        io: &mut T,
        response: Vec<u8>,
    ) -> io::Result<()> {
        write_frame(io, &response, self.max_response).await
    }
}

#[cfg(test)]
mod tests {
    use futures::{executor::block_on, io::Cursor};
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn a_frame_comes_back_as_it_went(body in proptest::collection::vec(any::<u8>(), 0..2000)) {
            let frame = encode_frame(&body, 2000).unwrap();
            prop_assert_eq!(block_on(read_frame(&mut Cursor::new(frame), 2000)).unwrap(), body);
        }

        #[test]
        fn garbage_is_refused_or_short_and_never_panics(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            if let Ok(body) = block_on(read_frame(&mut Cursor::new(bytes), 100)) {
                prop_assert!(body.len() <= 100);
            }
        }
    }

    #[test]
    fn a_length_over_the_limit_is_refused_before_the_body() {
        let error = block_on(read_frame(&mut Cursor::new(u32::MAX.to_be_bytes()), 10)).unwrap_err();
        assert_eq!(frame_error(&error), Some(FrameError::TooLarge { len: u32::MAX as usize, max: 10 }));
        assert_eq!(encode_frame(&[0; 11], 10), Err(FrameError::TooLarge { len: 11, max: 10 }));
    }

    #[test]
    fn an_early_end_is_named() {
        let error = block_on(read_frame(&mut Cursor::new([0, 0, 0, 9, 1, 2]), 10)).unwrap_err();
        assert_eq!(frame_error(&error), Some(FrameError::Truncated { got: 2, len: 9 }));
    }
}
