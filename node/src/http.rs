//! What the node's HTTP servers share: connections are taken as long as there is room, and each is served until it ends or the
//! server stops.

use std::{io, sync::Arc, time::Duration};

use axum::Router;
use hyper::server::conn::http1;
use hyper_util::{
    rt::{TokioIo, TokioTimer},
    service::TowerToHyperService,
};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    sync::{OwnedSemaphorePermit, Semaphore},
};
use tokio_util::sync::CancellationToken;

/// A client may take so long for the head of its request.
const HEAD_TIME: Duration = Duration::from_secs(10);
/// How long to wait when the system gives no connection.
const PAUSE: Duration = Duration::from_millis(100);

/// The way into one server.
pub(crate) struct Door {
    /// Which one, for the log.
    server: &'static str,
    service: TowerToHyperService<Router>,
    room: Arc<Semaphore>,
    stop: CancellationToken,
}

impl Door {
    /// For a server with these routes, so many connections at once, until `stop` is cancelled.
    pub(crate) fn new(server: &'static str, routes: Router, connections: usize, stop: CancellationToken) -> Self {
        let room = Arc::new(Semaphore::new(connections));
        Self { server, service: TowerToHyperService::new(routes), room, stop }
    }

    /// The next connection that there is room for, and its place; `None` when the server stops.
    pub(crate) async fn next<T, F>(&self, accept: impl Fn() -> F) -> Option<(T, OwnedSemaphorePermit)>
    where
        F: Future<Output = io::Result<T>>,
    {
        let server = self.server;
        loop {
            let accepted = tokio::select! {
                () = self.stop.cancelled() => return None,
                accepted = accept() => accepted,
            };
            match (accepted, Arc::clone(&self.room).try_acquire_owned()) {
                (Ok(stream), Ok(place)) => return Some((stream, place)),
                (Ok(_), Err(_)) => tracing::warn!(server, "too many connections; one more was closed"),
                (Err(error), _) => {
                    // Out of file descriptors, most likely: others must get the chance to close some.
                    tracing::warn!(server, %error, "a connection could not be taken");
                    tokio::time::sleep(PAUSE).await;
                }
            }
        }
    }

    /// Serves a connection until it ends; when the server stops, a request under way is answered first.
    pub(crate) fn serve<S>(&self, stream: S, place: OwnedSemaphorePermit) -> impl Future<Output = ()> + Send + use<S>
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let (server, service, stop) = (self.server, self.service.clone(), self.stop.clone());
        async move {
            let _place = place;
            let mut http = http1::Builder::new();
            http.timer(TokioTimer::new()).header_read_timeout(HEAD_TIME);
            let connection = http.serve_connection(TokioIo::new(stream), service).with_upgrades();
            tokio::pin!(connection);
            let ended = tokio::select! {
                ended = connection.as_mut() => ended,
                () = stop.cancelled() => {
                    connection.as_mut().graceful_shutdown();
                    connection.await
                }
            };
            if let Err(error) = ended {
                tracing::debug!(server, %error, "a connection ended");
            }
        }
    }
}
