//! What the node's HTTP servers share: connections are taken as long as there is room, and each is served until it ends or the
//! server stops. Which hosts a server answers to is in [`hosts`].

pub(crate) mod hosts;
mod places;

use std::{
    io,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    time::Duration,
};

use axum::Router;
use hyper::{server::conn::http1, service::Service as _};
use hyper_util::{
    rt::{TokioIo, TokioTimer},
    service::TowerToHyperService,
};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_util::sync::CancellationToken;

pub(crate) use self::places::Place;
use self::places::Places;

/// A client may take so long for the head of its request.
const HEAD_TIME: Duration = Duration::from_secs(10);
/// How long to wait when the system gives no connection.
const PAUSE: Duration = Duration::from_millis(100);

/// The way into one server.
pub(crate) struct Door {
    /// Which one, for the log.
    server: &'static str,
    service: TowerToHyperService<Router>,
    places: Arc<Places>,
    /// For connections that carry one request: how long one may last in all.
    brief: Option<Duration>,
    stop: CancellationToken,
    /// Whether the last newcomer was turned away: a crowd is worth one line in the log.
    crowded: AtomicBool,
}

impl Door {
    /// For a server with these routes, so many connections at once, until `stop` is cancelled.
    pub(crate) fn new(server: &'static str, routes: Router, connections: usize, stop: CancellationToken) -> Self {
        let (service, crowded) = (TowerToHyperService::new(routes), AtomicBool::new(false));
        Self { server, service, places: Places::new(connections, false), brief: None, stop, crowded }
    }

    /// As [`Door::new`], for a server whose answers are short and must be had while somebody holds connections open: each carries
    /// one request and is closed after `limit` at the latest, and when there is no room, the oldest that has not asked anything
    /// gives way.
    pub(crate) fn brief(
        server: &'static str,
        routes: Router,
        connections: usize,
        limit: Duration,
        stop: CancellationToken,
    ) -> Self {
        let door = Self::new(server, routes, connections, stop);
        Self { places: Places::new(connections, true), brief: Some(limit), ..door }
    }

    /// The next connection that there is room for, and its place; `None` when the server stops.
    pub(crate) async fn next<T, F>(&self, accept: impl Fn() -> F) -> Option<(T, Place)>
    where
        F: Future<Output = io::Result<T>>,
    {
        let server = self.server;
        loop {
            let accepted = tokio::select! {
                () = self.stop.cancelled() => return None,
                accepted = accept() => accepted,
            };
            match accepted.map(|stream| (stream, self.places.take())) {
                Ok((stream, Some(place))) => {
                    self.crowded.store(false, Relaxed);
                    return Some((stream, place));
                }
                Ok((_, None)) => {
                    if !self.crowded.swap(true, Relaxed) {
                        tracing::warn!(server, "too many connections; newcomers are turned away");
                    }
                }
                Err(error) => {
                    // Out of file descriptors, most likely: others must get the chance to close some.
                    tracing::warn!(server, %error, "a connection could not be taken");
                    tokio::time::sleep(PAUSE).await;
                }
            }
        }
    }

    /// Serves a connection until it ends; when the server stops, a request under way is answered first.
    pub(crate) fn serve<S>(&self, stream: S, place: Place) -> impl Future<Output = ()> + Send + use<S>
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let (server, service, stop, brief) = (self.server, self.service.clone(), self.stop.clone(), self.brief);
        async move {
            let mut http = http1::Builder::new();
            http.timer(TokioTimer::new()).header_read_timeout(HEAD_TIME).keep_alive(brief.is_none());
            let asked = place.asked();
            let service = hyper::service::service_fn(move |request| {
                asked();
                service.call(request)
            });
            let connection = http.serve_connection(TokioIo::new(stream), service).with_upgrades();
            tokio::pin!(connection);
            let limit = async {
                match brief {
                    Some(limit) => tokio::time::sleep(limit).await,
                    None => std::future::pending().await,
                }
            };
            let ended = tokio::select! {
                ended = connection.as_mut() => ended,
                () = place.given_away() => Ok(()),
                () = limit => Ok(()),
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
