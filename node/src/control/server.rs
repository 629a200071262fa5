//! The server of the control API: routes, bounds, and the streams of events of long work.

use std::{convert::Infallible, time::Duration};

use axum::{
    Json, Router,
    body::Body,
    extract::{DefaultBodyLimit, FromRequest, Request, State, rejection::JsonRejection},
    http::{StatusCode, header},
    response::{IntoResponse, Response},
    routing::{get, post},
};
use futures::StreamExt as _;
use hyper::body::Bytes;
use serde::{Serialize, de::DeserializeOwned};
use tokio::sync::mpsc;
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use super::{
    api::{Code, Event, Problem},
    binding, buying, granting, logs, orders, peaq, peaq_files, selling,
    socket::ControlListener,
    upkeep,
};
use crate::{http::Door, service::Node};

/// The longest JSON document that is taken, bytes.
const MAX_BODY: usize = 1 << 20;
/// Connections served at once. They are all the operator's.
const MAX_CONNECTIONS: usize = 64;
/// Events that may wait for a slow client; progress beyond it is left out.
const EVENTS: usize = 64;

/// What handlers work with.
#[derive(Clone)]
pub(super) struct Api {
    pub(super) node: Node,
    /// Cancelled by `/v1/shutdown`.
    quit: CancellationToken,
}

impl Problem {
    fn status(&self) -> StatusCode {
        match self.code {
            Code::Failed => StatusCode::INTERNAL_SERVER_ERROR,
            Code::Usage => StatusCode::BAD_REQUEST,
            Code::VerificationFailed => StatusCode::UNPROCESSABLE_ENTITY,
            Code::AccessDenied => StatusCode::FORBIDDEN,
            Code::NotFound => StatusCode::NOT_FOUND,
            Code::Network => StatusCode::BAD_GATEWAY,
        }
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        (self.status(), Json(self)).into_response()
    }
}

/// A JSON document; what is wrong with one is a [`Problem`].
pub(super) struct Document<T>(pub(super) T);

impl<T: DeserializeOwned, S: Send + Sync> FromRequest<S> for Document<T> {
    type Rejection = Response;

    async fn from_request(request: Request, state: &S) -> Result<Self, Response> {
        match Json::<T>::from_request(request, state).await {
            Ok(Json(document)) => Ok(Self(document)),
            Err(rejection) => {
                let status = rejection.status();
                let message = match &rejection {
                    JsonRejection::MissingJsonContentType(_) => "the request has no JSON document".to_owned(),
                    other => format!("the request is not understood: {}", other.body_text()),
                };
                let problem = Problem::usage(message).hint("is the command of the same version as the node?");
                Err((status, Json(problem)).into_response())
            }
        }
    }
}

/// The answer of a short request.
pub(super) type Answer<T> = Result<Json<T>, Problem>;

/// Runs what waits for the disk where waiting is allowed.
pub(super) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, Problem> + Send + 'static,
) -> Result<T, Problem> {
    tokio::task::spawn_blocking(work)
        .await
        .map_err(|_| Problem::new(Code::Failed, "the node is stopping, or the work ended unexpectedly; see its log"))?
}

/// Where long work tells how far it has come.
pub(super) struct Progress<P> {
    events: mpsc::Sender<Bytes>,
    kind: std::marker::PhantomData<fn(P)>,
}

impl<P> Clone for Progress<P> {
    fn clone(&self) -> Self {
        Self { events: self.events.clone(), kind: std::marker::PhantomData }
    }
}

impl<P: Serialize> Progress<P> {
    /// Tells it, unless the client is too slow to hear everything.
    pub(super) fn tell(&self, progress: P) {
        let _ = self.events.try_send(line(&Event::<P, ()>::Progress(progress)));
    }

    /// Tells it and waits for room; `false` when the client is gone.
    pub(super) async fn must_tell(&self, progress: P) -> bool {
        self.events.send(line(&Event::<P, ()>::Progress(progress))).await.is_ok()
    }
}

fn line(event: &impl Serialize) -> Bytes {
    let mut bytes = serde_json::to_vec(event).unwrap_or_default();
    bytes.push(b'\n');
    bytes.into()
}

/// Runs long work and answers with its events. When the client hangs up, the future of the work is dropped.
pub(super) fn events<P, R, F>(work: impl FnOnce(Progress<P>) -> F) -> Response
where
    P: Serialize + Send + 'static,
    R: Serialize + Send + 'static,
    F: Future<Output = Result<R, Problem>> + Send + 'static,
{
    let (sender, receiver) = mpsc::channel(EVENTS);
    let work = work(Progress { events: sender.clone(), kind: std::marker::PhantomData });
    tokio::spawn(async move {
        let last = tokio::select! {
            biased;
            () = sender.closed() => return,
            result = work => match result {
                Ok(result) => line(&Event::<(), R>::Result(result)),
                Err(problem) => line(&Event::<(), R>::Problem(problem)),
            },
        };
        // The client went away: there is nobody to tell.
        let _ = sender.send(last).await;
    });
    let stream = futures::stream::unfold(receiver, |mut receiver| async {
        receiver.recv().await.map(|bytes| (Ok::<_, Infallible>(bytes), receiver))
    });
    ([(header::CONTENT_TYPE, "application/x-ndjson")], Body::from_stream(stream)).into_response()
}

fn routes(api: Api) -> Router {
    let bounded = Router::new()
        .route("/v1/status", get(selling::status))
        .route("/v1/health", get(selling::health))
        .route("/v1/links", get(selling::links))
        .route("/v1/streams", get(selling::streams))
        .route("/v1/ingest", post(selling::ingest))
        .route("/v1/publish", post(selling::publish))
        .route("/v1/datasets", get(selling::datasets))
        .route("/v1/datasets/close", post(selling::close))
        .route("/v1/datasets/{dataset}", get(selling::dataset))
        .route("/v1/feeds", get(buying::feeds))
        .route("/v1/feeds/watch", post(buying::watch))
        .route("/v1/logs/hashes", post(logs::hashes))
        .route("/v1/subscribe", post(buying::subscribe))
        .route("/v1/unsubscribe", post(buying::unsubscribe))
        .route("/v1/access/list", post(selling::access_list))
        .route("/v1/access/audit", post(selling::audit))
        .route("/v1/access/approve", post(selling::approve))
        .route("/v1/access/deny", post(selling::deny))
        .route("/v1/access/revoke", post(selling::revoke))
        .route("/v1/access/quote", post(buying::quote))
        .route("/v1/access/request", post(buying::request))
        .route("/v1/access/fetch", post(buying::fetch))
        .route("/v1/access/import", post(buying::import))
        .route("/v1/key/prepare", post(binding::prepare))
        .route("/v1/key/apply", post(binding::apply))
        .route("/v1/grant", post(granting::grant))
        .route("/v1/grant/material", post(granting::owner_material))
        .route("/v1/peaq/publish", post(peaq_files::publish))
        .route("/v1/peaq/grant", post(peaq_files::grant))
        .route("/v1/peaq/offer", post(peaq::offer))
        .route("/v1/peaq/deliveries", get(peaq::list))
        .route("/v1/peaq/close", post(peaq::close))
        .route("/v1/peaq/watch", post(peaq::watch))
        .route("/v1/peaq/orders/list", post(orders::list))
        .route("/v1/peaq/orders/confirm", post(orders::confirm))
        .route("/v1/peaq/orders/reject", post(orders::reject))
        .route("/v1/pull", post(buying::pull))
        .route("/v1/verify", post(buying::verify))
        .route("/v1/export", post(buying::export))
        .route("/v1/store/stats", get(upkeep::stats))
        .route("/v1/store/check", post(upkeep::check))
        .route("/v1/store/gc", post(upkeep::gc))
        .route("/v1/store/backup", post(upkeep::backup))
        .route("/v1/shutdown", post(shutdown))
        .layer(DefaultBodyLimit::max(MAX_BODY));
    Router::new()
        // Lines are read as they come and never collected, so their number is not bounded.
        .route("/v1/ingest/lines", post(selling::ingest_lines).layer(DefaultBodyLimit::disable()))
        .merge(bounded)
        .fallback(|| async {
            Problem::not_found("the control API has no such route")
                .hint("is the command of the same version as the node?")
        })
        .method_not_allowed_fallback(|| async {
            let problem = Problem::usage("the control API does not know this method here");
            (StatusCode::METHOD_NOT_ALLOWED, Json(problem))
        })
        .with_state(api)
}

async fn shutdown(State(api): State<Api>) -> Json<super::api::Empty> {
    api.quit.cancel();
    Json(super::api::Empty {})
}

/// Serves the control API of `node` until `stop` is cancelled; requests under way then get a moment to end. A request to shut
/// the node down cancels `quit`, and the caller does the rest.
pub async fn serve(listener: &ControlListener, node: Node, stop: CancellationToken, quit: CancellationToken) {
    let door = Door::new("control", routes(Api { node, quit }), MAX_CONNECTIONS, stop);
    let connections = TaskTracker::new();
    while let Some((stream, place)) = door.next(|| listener.accept()).await {
        connections.spawn(door.serve(stream, place));
    }
    connections.close();
    let _ = tokio::time::timeout(Duration::from_secs(2), connections.wait()).await;
}

/// The lines of a body that is not collected.
pub(super) fn body_stream(request: Request) -> impl futures::Stream<Item = Result<Bytes, axum::Error>> + Send + Unpin {
    request.into_body().into_data_stream().boxed()
}
