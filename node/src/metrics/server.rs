//! The HTTP server: `/metrics`, `/healthz` and `/readyz`.
//!
//! Every connection carries one request and is cut after a while. When all places are taken, connections that have not asked
//! anything give way, so holding some open stops nobody. The page is made at most once a second, by one task at a time, however
//! many ask and whatever hangs.

use std::{
    fmt::Write as _,
    io,
    net::SocketAddr,
    sync::Arc,
    time::{Duration, Instant},
};

use axum::{
    Json, Router,
    extract::{Request, State},
    http::{HeaderMap, StatusCode, header},
    middleware::{self, Next},
    response::{IntoResponse, Response},
    routing::get,
};
use hyper::body::Bytes;
use tokio::{
    net::TcpListener,
    sync::Mutex,
    task::{JoinSet, spawn_blocking},
    time::timeout,
};
use tokio_util::sync::CancellationToken;

use super::page::{self, Snapshot};
use crate::{
    config::MetricsConfig,
    http::{
        Door,
        hosts::{Foreign, Hosts},
    },
    service::{Node, health::Health},
};

/// Connections at once.
const MAX_CONNECTIONS: usize = 64;
/// A request may take so long, once its head is here. Prometheus gives up after 10 s unless told otherwise.
const REQUEST_TIME: Duration = Duration::from_secs(10);
/// A connection may last so long.
const CONNECTION_TIME: Duration = Duration::from_secs(30);
/// A page is used again for so long.
const PAGE_LIVES: Duration = Duration::from_secs(1);
/// What the page is: <https://prometheus.io/docs/specs/om/open_metrics_spec/>.
const OPEN_METRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// Why metrics cannot be offered.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum MetricsError {
    /// The address cannot be listened on.
    #[error("cannot listen on {listen} for metrics: {source}; set `metrics.listen` to a free address of this computer")]
    Listen {
        /// The address.
        listen: SocketAddr,
        /// The system's reason.
        source: io::Error,
    },
}

/// Where metrics are offered.
#[derive(Debug)]
pub struct MetricsListener {
    listener: TcpListener,
    addr: SocketAddr,
    hosts: Hosts,
}

impl MetricsListener {
    /// Listens as configured.
    ///
    /// # Errors
    ///
    /// When the address is taken or not one of this computer.
    pub async fn bind(config: &MetricsConfig) -> Result<Self, MetricsError> {
        let failed = |source| MetricsError::Listen { listen: config.listen, source };
        let listener = TcpListener::bind(config.listen).await.map_err(failed)?;
        let addr = listener.local_addr().map_err(failed)?;
        if !addr.ip().is_loopback() {
            tracing::warn!(%addr, "metrics can be read by whoever reaches this address");
        }
        Ok(Self { listener, addr, hosts: Hosts::new(addr, &config.hosts) })
    }

    /// Where it listens.
    #[must_use]
    pub fn addr(&self) -> SocketAddr {
        self.addr
    }
}

/// What handlers work with.
#[derive(Clone)]
struct Api {
    node: Node,
    hosts: Arc<Hosts>,
    /// The newest page and when it was made. Locked while a page is made.
    page: Arc<Mutex<Option<(Instant, Bytes)>>>,
}

/// Serves the metrics and the health of `node` until `stop` is cancelled.
pub async fn serve(listener: MetricsListener, node: Node, stop: CancellationToken) {
    let MetricsListener { listener, hosts, .. } = listener;
    let api = Api { node, hosts: Arc::new(hosts), page: Arc::default() };
    let app = Router::new()
        .route("/metrics", get(metrics))
        .route("/healthz", get(healthz))
        .route("/readyz", get(readyz))
        .fallback(|| async { (StatusCode::NOT_FOUND, "there are /metrics, /healthz and /readyz\n") })
        .layer(middleware::from_fn_with_state(api.clone(), guard))
        .with_state(api);
    let door = Door::brief("metrics", app, MAX_CONNECTIONS, CONNECTION_TIME, stop);
    let mut connections = JoinSet::new();
    while let Some(((stream, _), place)) = door.next(|| listener.accept()).await {
        while connections.try_join_next().is_some() {}
        connections.spawn(door.serve(stream, place));
    }
    // What is under way gets a moment.
    let _ = timeout(Duration::from_secs(2), async { while connections.join_next().await.is_some() {} }).await;
}

/// The host first, then whatever was asked for, in time.
async fn guard(State(api): State<Api>, request: Request, next: Next) -> Response {
    if let Err(foreign) = api.hosts.check(request.headers()) {
        return match foreign {
            Foreign::Host => {
                let text =
                    "this node does not answer to that host; use its address, or add the name to `metrics.hosts`\n";
                (StatusCode::MISDIRECTED_REQUEST, text).into_response()
            }
            Foreign::Origin => (StatusCode::FORBIDDEN, "this is not for web pages\n").into_response(),
        };
    }
    match timeout(REQUEST_TIME, next.run(request)).await {
        Ok(response) => response,
        Err(_) => (StatusCode::SERVICE_UNAVAILABLE, "the node does not answer; see /healthz\n").into_response(),
    }
}

async fn metrics(State(api): State<Api>) -> Response {
    let mut newest = Arc::clone(&api.page).lock_owned().await;
    if let Some((made, page)) = &*newest
        && made.elapsed() < PAGE_LIVES
    {
        return ([(header::CONTENT_TYPE, OPEN_METRICS)], page.clone()).into_response();
    }
    // A task of its own, with the lock: whoever stops waiting leaves no second one behind.
    let made = tokio::spawn(async move {
        let page = make(&api.node).await?;
        *newest = Some((Instant::now(), page.clone()));
        Some(page)
    });
    match made.await {
        Ok(Some(page)) => ([(header::CONTENT_TYPE, OPEN_METRICS)], page).into_response(),
        _ => (StatusCode::INTERNAL_SERVER_ERROR, "the page could not be written; see the log\n").into_response(),
    }
}

async fn make(node: &Node) -> Option<Bytes> {
    let (status, health) = tokio::join!(node.status(), node.health());
    let snapshot = Snapshot { status, timings: node.timings(), health };
    // With 150 streams it is a megabyte.
    match spawn_blocking(move || page::write(snapshot)).await {
        Ok(Ok(page)) => Some(page.into()),
        Ok(Err(error)) => {
            tracing::error!(%error, "the metrics cannot be written");
            None
        }
        Err(error) => {
            tracing::error!(%error, "the metrics cannot be written");
            None
        }
    }
}

async fn healthz(State(api): State<Api>, headers: HeaderMap) -> Response {
    let health = api.node.health().await;
    answer(health.alive, "alive", &health, &headers)
}

async fn readyz(State(api): State<Api>, headers: HeaderMap) -> Response {
    let health = api.node.health().await;
    answer(health.ready, "ready", &health, &headers)
}

/// 200 or 503; what is wrong as text, or as JSON for who asks for that.
fn answer(good: bool, what: &str, health: &Health, headers: &HeaderMap) -> Response {
    let status = if good { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    let accepted = headers.get(header::ACCEPT).and_then(|value| value.to_str().ok()).unwrap_or_default();
    if accepted.contains("application/json") {
        return (status, Json(health)).into_response();
    }
    let mut text = format!("{}{what}\n", if good { "" } else { "not " });
    for problem in &health.problems {
        // Text takes whatever is written into it.
        let _ = writeln!(text, "{}: {}", problem.part.name(), problem.message);
    }
    (status, text).into_response()
}
