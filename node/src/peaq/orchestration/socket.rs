//! The control socket: what the seller with peaq's SDK hears of purchases of its goods.
//!
//! A WebSocket on which the node speaks first and answers every message with `control.ack`. Who connects hears again of what is
//! paid and not prepared; whoever is too slow to hear everything is cut off and connects again.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

use axum::{
    extract::{
        Path, State,
        ws::{Message, WebSocket, WebSocketUpgrade},
    },
    http::{HeaderMap, StatusCode},
    response::Response,
};
use serde::{Deserialize, Serialize};
use tokio::sync::broadcast::{self, error::RecvError};

use super::{
    answer::ApiError,
    routes::Api,
    shop::{Notice, Shop},
    times,
};

/// The longest message that is read, bytes.
const MAX_MESSAGE: usize = 64 << 10;
/// Sockets at a time.
const MAX_SOCKETS: usize = 16;

static OPEN: AtomicUsize = AtomicUsize::new(0);

/// A place for a socket; given back when it is dropped.
struct Place;

impl Place {
    fn take() -> Option<Self> {
        let free = |open: usize| (open < MAX_SOCKETS).then_some(open + 1);
        OPEN.fetch_update(Ordering::AcqRel, Ordering::Acquire, free).ok().map(|_| Self)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        OPEN.fetch_sub(1, Ordering::AcqRel);
    }
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Connected<'a> {
    #[serde(rename = "type")]
    kind: &'static str,
    machine_id: &'a str,
    agent_id: &'a str,
    created_at: String,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Ack {
    #[serde(rename = "type")]
    kind: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    message_type: Option<String>,
    created_at: String,
}

#[derive(Deserialize)]
struct Said {
    #[serde(rename = "type")]
    kind: Option<String>,
}

pub(super) async fn control_socket(
    State(api): State<Api>,
    Path(machine): Path<String>,
    headers: HeaderMap,
    upgrade: Result<WebSocketUpgrade, axum::extract::ws::rejection::WebSocketUpgradeRejection>,
) -> Result<Response, ApiError> {
    let text = |name: &str| headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default().to_owned();
    let (agent_id, token) = (text("x-machine-agent-id"), text("x-machine-agent-token"));
    api.shop.gate.check_agent(&agent_id, &token)?;
    api.shop.check_machine(&machine)?;
    let upgrade = upgrade.map_err(|rejection| ApiError::invalid(rejection.to_string()))?;
    let place = Place::take().ok_or_else(|| {
        ApiError::new(StatusCode::TOO_MANY_REQUESTS, "TOO_MANY_SOCKETS", "too many control sockets are open")
    })?;
    // From here on nothing is missed.
    let notices = api.shop.notices.subscribe();
    let missed = api.run(|shop| Ok(shop.missed_notices()?)).await?;
    let shop = Arc::clone(&api.shop);
    let upgrade = upgrade.max_message_size(MAX_MESSAGE).max_frame_size(MAX_MESSAGE);
    Ok(upgrade.on_upgrade(move |socket| async move {
        let _place = place;
        serve(socket, &shop, &agent_id, missed, notices).await;
    }))
}

async fn serve(
    mut socket: WebSocket,
    shop: &Shop,
    agent_id: &str,
    missed: Vec<Notice>,
    mut notices: broadcast::Receiver<Notice>,
) {
    let connected = Connected {
        kind: "control.connected",
        machine_id: &shop.config.machine_id,
        agent_id,
        created_at: times::text(shop.now_ms()),
    };
    if tell(&mut socket, &connected).await.is_err() {
        return;
    }
    for notice in missed {
        if tell(&mut socket, &notice).await.is_err() {
            return;
        }
    }
    loop {
        let done = tokio::select! {
            notice = notices.recv() => match notice {
                Ok(notice) => tell(&mut socket, &notice).await.is_err(),
                Err(RecvError::Lagged(_)) => {
                    tracing::warn!("a control socket was too slow and is closed");
                    true
                }
                Err(RecvError::Closed) => true,
            },
            message = socket.recv() => match message {
                Some(Ok(Message::Text(text))) => tell(&mut socket, &ack(text.as_bytes(), shop)).await.is_err(),
                Some(Ok(Message::Binary(bytes))) => tell(&mut socket, &ack(&bytes, shop)).await.is_err(),
                Some(Ok(Message::Ping(_) | Message::Pong(_))) => false,
                Some(Ok(Message::Close(_)) | Err(_)) | None => true,
            },
        };
        if done {
            return;
        }
    }
}

fn ack(message: &[u8], shop: &Shop) -> Ack {
    let said = serde_json::from_slice::<Said>(message).ok().and_then(|said| said.kind);
    // It is echoed: no more of it than a name.
    let message_type = said.filter(|kind| kind.len() <= 256);
    Ack { kind: "control.ack", message_type, created_at: times::text(shop.now_ms()) }
}

async fn tell(socket: &mut WebSocket, message: &impl Serialize) -> Result<(), axum::Error> {
    let text = serde_json::to_string(message).map_err(axum::Error::new)?;
    socket.send(Message::Text(text.into())).await
}
