//! The HTTP server: connections, their bounds, and what every request has to pass.

use std::time::Duration;

use axum::{
    extract::{Request, State},
    http::StatusCode,
    middleware::{self, Next},
    response::{IntoResponse as _, Response},
};
use tokio::{net::TcpListener, task::JoinSet, time::timeout};
use tokio_util::sync::CancellationToken;

use super::{
    answer::ApiError,
    routes::{Api, routes},
};
use crate::http::Door;

/// Connections served at once.
const MAX_CONNECTIONS: usize = 128;
/// A request may take so long, once its head is here, answer included. peaq's SDK waits 60 s at most.
const REQUEST_TIME: Duration = Duration::from_secs(60);

/// Host, origin and token first, before a byte of the body is read; then whatever was asked for, in time.
async fn guard(State(api): State<Api>, request: Request, next: Next) -> Response {
    let (gate, headers) = (&api.shop.gate, request.headers());
    // The control socket has credentials of its own, and no body.
    let socket = request.uri().path().ends_with("/control-socket");
    let admitted = gate.check_host(headers).and_then(|()| if socket { Ok(()) } else { gate.caller(headers).map(drop) });
    if let Err(refused) = admitted {
        return refused.into_response();
    }
    match timeout(REQUEST_TIME, next.run(request)).await {
        Ok(response) => response,
        Err(_) => ApiError::new(StatusCode::REQUEST_TIMEOUT, "TIMEOUT", "the request took too long").into_response(),
    }
}

/// Serves the API until `stop` is cancelled. Connections end when this future is dropped.
pub(super) async fn serve(listener: TcpListener, api: Api, stop: CancellationToken) {
    let app = routes(api.clone()).layer(middleware::from_fn_with_state(api, guard));
    let door = Door::new("orchestration", app, MAX_CONNECTIONS, stop);
    let mut connections = JoinSet::new();
    while let Some(((stream, _), place)) = door.next(|| listener.accept()).await {
        while connections.try_join_next().is_some() {}
        connections.spawn(door.serve(stream, place));
    }
    // What is under way gets a moment.
    let _ = timeout(Duration::from_secs(2), async { while connections.join_next().await.is_some() {} }).await;
}
