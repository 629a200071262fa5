//! Yamux on connections over TCP: many streams on one, as `/yamux/1.0.0` of libp2p.
//!
//! The same implementation as libp2p's own upgrade, with larger frames: each frame of a transfer costs two changes of thread
//! and a system call at both ends, whatever its size.

use std::{
    collections::VecDeque,
    convert::Infallible,
    future::{Ready, ready},
    pin::Pin,
    task::{Context, Poll, Waker},
};

use futures::{AsyncRead, AsyncWrite};
use libp2p::core::{
    muxing::{StreamMuxer, StreamMuxerEvent},
    upgrade::{InboundConnectionUpgrade, OutboundConnectionUpgrade, UpgradeInfo},
};
use yamux::{Connection, ConnectionError, Mode, Stream};

const PROTOCOL: &str = "/yamux/1.0.0";
/// Streams of one connection, both directions. Yamux gives each a window of at least 256 KiB.
pub(super) const MAX_STREAMS: usize = 256;
/// Most bytes of a stream in one frame. Receivers take frames of up to 256 KiB, the first window of a stream; other streams
/// wait while one goes out.
const FRAME: usize = 64 << 10;

/// How connections are multiplexed, in both directions.
#[derive(Clone)]
pub(super) struct Config(yamux::Config);

impl Default for Config {
    fn default() -> Self {
        let mut config = yamux::Config::default();
        config.set_max_num_streams(MAX_STREAMS).set_split_send_size(FRAME);
        Self(config)
    }
}

impl UpgradeInfo for Config {
    type Info = &'static str;
    type InfoIter = std::iter::Once<Self::Info>;

    fn protocol_info(&self) -> Self::InfoIter {
        std::iter::once(PROTOCOL)
    }
}

impl<C: AsyncRead + AsyncWrite + Unpin> InboundConnectionUpgrade<C> for Config {
    type Output = Muxer<C>;
    type Error = Infallible;
    type Future = Ready<Result<Self::Output, Self::Error>>;

    fn upgrade_inbound(self, socket: C, _: Self::Info) -> Self::Future {
        ready(Ok(Muxer::new(Connection::new(socket, self.0, Mode::Server))))
    }
}

impl<C: AsyncRead + AsyncWrite + Unpin> OutboundConnectionUpgrade<C> for Config {
    type Output = Muxer<C>;
    type Error = Infallible;
    type Future = Ready<Result<Self::Output, Self::Error>>;

    fn upgrade_outbound(self, socket: C, _: Self::Info) -> Self::Future {
        ready(Ok(Muxer::new(Connection::new(socket, self.0, Mode::Client))))
    }
}

/// A multiplexed connection. [`StreamMuxer::poll`] is what moves bytes.
pub(super) struct Muxer<C> {
    connection: Connection<C>,
    /// Streams of the peer that were not taken yet, at most [`MAX_STREAMS`].
    opened: VecDeque<Stream>,
    /// Who wants the next of them.
    taker: Option<Waker>,
}

impl<C> Muxer<C> {
    fn new(connection: Connection<C>) -> Self {
        Self { connection, opened: VecDeque::new(), taker: None }
    }
}

impl<C: AsyncRead + AsyncWrite + Unpin> StreamMuxer for Muxer<C> {
    type Substream = Stream;
    type Error = ConnectionError;

    fn poll_inbound(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<Stream, ConnectionError>> {
        let this = self.get_mut();
        match this.opened.pop_front() {
            Some(stream) => Poll::Ready(Ok(stream)),
            None => {
                this.taker = Some(cx.waker().clone());
                Poll::Pending
            }
        }
    }

    fn poll_outbound(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<Stream, ConnectionError>> {
        self.get_mut().connection.poll_new_outbound(cx)
    }

    fn poll_close(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<(), ConnectionError>> {
        self.get_mut().connection.poll_close(cx)
    }

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<StreamMuxerEvent, ConnectionError>> {
        let this = self.get_mut();
        let stream = match this.connection.poll_next_inbound(cx) {
            Poll::Pending => return Poll::Pending,
            Poll::Ready(None) => return Poll::Ready(Err(ConnectionError::Closed)),
            Poll::Ready(Some(opened)) => opened?,
        };
        // Yamux refuses streams over its limit by itself; one that was dropped here is reset.
        if this.opened.len() < MAX_STREAMS {
            this.opened.push_back(stream);
            if let Some(taker) = this.taker.take() {
                taker.wake();
            }
        }
        // A peer that opens stream after stream does not keep everybody else waiting.
        cx.waker().wake_by_ref();
        Poll::Pending
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use futures::{
        AsyncReadExt, AsyncWriteExt,
        future::{join, poll_fn},
    };
    use libp2p::core::muxing::StreamMuxerExt;
    use tokio::net::{TcpListener, TcpStream};
    use tokio_util::compat::{Compat, TokioAsyncReadCompatExt};

    use super::*;

    async fn sockets() -> (Compat<TcpStream>, Compat<TcpStream>) {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.expect("a free port");
        let address = listener.local_addr().expect("bound");
        let (dialled, accepted) = join(TcpStream::connect(address), listener.accept()).await;
        (dialled.expect("connects").compat(), accepted.expect("accepts").0.compat())
    }

    /// One muxer opens a stream, says something over it, half closes it; the other says it back.
    async fn echo<A, B>(mut opens: A, mut answers: B)
    where
        A: StreamMuxer + Unpin + Send + 'static,
        B: StreamMuxer + Unpin + Send + 'static,
        A::Substream: Unpin + Send,
        B::Substream: Unpin + Send,
        A::Error: Send,
        B::Error: Send,
    {
        let said: Vec<u8> = (0..=u8::MAX).cycle().take(3_000_001).collect();
        let expected = said.clone();
        let mut stream = poll_fn(|cx| opens.poll_outbound_unpin(cx)).await.expect("a stream");
        tokio::spawn(async move {
            let _ = poll_fn(|cx| opens.poll_unpin(cx)).await;
        });
        tokio::spawn(async move {
            let mut stream = poll_fn(|cx| {
                if let Poll::Ready(Err(error)) = answers.poll_unpin(cx) {
                    return Poll::Ready(Err(error));
                }
                answers.poll_inbound_unpin(cx)
            })
            .await
            .expect("a stream");
            tokio::spawn(async move {
                let _ = poll_fn(|cx| answers.poll_unpin(cx)).await;
            });
            let mut heard = Vec::new();
            stream.read_to_end(&mut heard).await.expect("heard");
            stream.write_all(&heard).await.expect("written");
            stream.close().await.expect("closed");
        });
        stream.write_all(&said).await.expect("written");
        stream.close().await.expect("closed");
        let mut back = Vec::new();
        stream.read_to_end(&mut back).await.expect("heard");
        assert!(back == expected);
    }

    #[tokio::test]
    async fn we_and_libp2ps_yamux_talk_whoever_begins() {
        let stock = libp2p::yamux::Config::default;
        let (dialled, accepted) = sockets().await;
        let ours = Config::default().upgrade_outbound(dialled, PROTOCOL).await.expect("upgrades");
        echo(ours, stock().upgrade_inbound(accepted, PROTOCOL).await.expect("upgrades")).await;
        let (dialled, accepted) = sockets().await;
        let ours = Config::default().upgrade_inbound(accepted, PROTOCOL).await.expect("upgrades");
        echo(stock().upgrade_outbound(dialled, PROTOCOL).await.expect("upgrades"), ours).await;
    }

    #[tokio::test]
    async fn a_large_write_is_one_frame() {
        let (dialled, mut raw) = sockets().await;
        let mut muxer = Config::default().upgrade_outbound(dialled, PROTOCOL).await.expect("upgrades");
        let mut stream = poll_fn(|cx| muxer.poll_outbound_unpin(cx)).await.expect("a stream");
        tokio::spawn(async move {
            let _ = poll_fn(|cx| muxer.poll_unpin(cx)).await;
        });
        assert_eq!(stream.write(&[7; 2 * FRAME]).await.expect("written"), FRAME);
        loop {
            // version, type, flags (2), stream (4), length (4)
            let mut header = [0; 12];
            raw.read_exact(&mut header).await.expect("a frame");
            // What Yamux measures the round trip with may come first.
            if header[1] != 0 {
                continue;
            }
            assert_eq!(header[8..], u32::try_from(FRAME).expect("small").to_be_bytes());
            break;
        }
    }
}
