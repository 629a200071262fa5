//! Routes of the selling side, and those about the node itself.

use std::{
    io::{self, Read},
    path::Path,
};

use axum::{
    Json,
    extract::{Path as Segment, Request, State},
    response::{IntoResponse as _, Response},
};
use futures::{Stream, StreamExt as _};
use hyper::body::Bytes;
use tokio::sync::mpsc;
use tributary_protocol::ids::Hash;
use tributary_store::Store;

use super::{
    api::{
        AccessList, AuditLine, AuditRequest, BytesProgress, CloseRequest, Closed, DatasetDetail, DatasetSummary,
        Decide, Feed, Health, IngestProgress, IngestRequest, IngestResult, ListAccess, NodeStatus, OpenRequest, Order,
        Problem, PublishRequest, Published, Revocation, RevokeRequest, StreamReport,
    },
    catalog, jobs,
    problem::no_machine,
    server::{Answer, Api, Document, blocking, body_stream, events},
};
use crate::{ingest::Source, service::access::audit_log};

/// Orders that a list shows, newest first.
const MAX_ORDERS: usize = 1024;
/// Lines of the audit log in one answer.
const MAX_LINES: usize = 10_000;
/// Parts of a body that may wait for the reader.
const PARTS: usize = 16;
/// The longest first line of a body of lines, bytes.
const MAX_HEAD: usize = 64 << 10;

pub(super) async fn status(State(api): State<Api>) -> Json<NodeStatus> {
    Json(api.node.status().await)
}

pub(super) async fn health(State(api): State<Api>) -> Json<Health> {
    Json(api.node.health().await)
}

pub(super) async fn links(State(api): State<Api>) -> Answer<Vec<String>> {
    let links = api.node.links().await.map_err(|error| Problem::of(super::api::Code::Failed, &error))?;
    Ok(Json(links.iter().map(ToString::to_string).collect()))
}

pub(super) async fn streams(State(api): State<Api>) -> Answer<Vec<StreamReport>> {
    let machine = api.node.machine().cloned().ok_or_else(no_machine)?;
    Ok(Json(blocking(move || Ok(machine.report()?)).await?))
}

pub(super) async fn ingest(State(api): State<Api>, Document(request): Document<IngestRequest>) -> Response {
    events(|progress| async move {
        let streams = api.node.config().streams.clone();
        let opened = request.clone();
        let source = blocking(move || jobs::open_source(&streams, &opened, None)).await?;
        run_ingest(&api, source, request, move |event| progress.tell(event)).await
    })
}

/// Standard input of a command: the first line of the body is the request, the others are the source.
pub(super) async fn ingest_lines(State(api): State<Api>, request: Request) -> Response {
    let mut body = body_stream(request);
    let (request, rest) = match head(&mut body).await {
        Ok(head) => head,
        Err(problem) => return problem.into_response(),
    };
    events(|progress| async move {
        let (sender, receiver) = mpsc::channel(PARTS);
        let stopping = api.node.stopping().clone();
        // Ends when the body does, when nobody reads any more, or when the node stops: whoever sends may be silent for ever.
        let feed = async move {
            if !rest.is_empty() && sender.send(Ok(rest)).await.is_err() {
                return;
            }
            let mut parts = std::pin::pin!(body.take_until(stopping.cancelled()));
            while let Some(part) = parts.next().await {
                if sender.send(part.map_err(io::Error::other)).await.is_err() {
                    return;
                }
            }
        };
        let streams = api.node.config().streams.clone();
        let lines: Box<dyn Read + Send> = Box::new(Parts { receiver, part: Bytes::new() });
        let source = jobs::open_source(&streams, &request, Some(lines))?;
        let work = run_ingest(&api, source, request, move |event| progress.tell(event));
        tokio::pin!(work);
        // Work that ends before the lines do does not wait for them.
        tokio::select! {
            result = &mut work => result,
            () = feed => work.await,
        }
    })
}

/// The request in the first line of a body, and what follows it in the same part.
async fn head(
    body: &mut (impl Stream<Item = Result<Bytes, axum::Error>> + Unpin),
) -> Result<(IngestRequest, Bytes), Problem> {
    let mut line = Vec::new();
    while let Some(part) = body.next().await {
        let part = part.map_err(|error| Problem::usage("the lines broke off").cause(error))?;
        if let Some(at) = part.iter().position(|byte| *byte == b'\n') {
            line.extend_from_slice(&part[..at]);
            let request = serde_json::from_slice(&line)
                .map_err(|error| Problem::usage("the first line does not say how the others are meant").cause(error))?;
            return Ok((request, part.slice(at + 1..)));
        }
        line.extend_from_slice(&part);
        if line.len() > MAX_HEAD {
            break;
        }
    }
    Err(Problem::usage("the first line does not say how the others are meant"))
}

/// The parts of a body, for a reader that may wait.
struct Parts {
    receiver: mpsc::Receiver<io::Result<Bytes>>,
    part: Bytes,
}

impl Read for Parts {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        while self.part.is_empty() {
            match self.receiver.blocking_recv() {
                None => return Ok(0),
                Some(part) => self.part = part?,
            }
        }
        let taken = self.part.split_to(buf.len().min(self.part.len()));
        buf[..taken.len()].copy_from_slice(&taken);
        Ok(taken.len())
    }
}

async fn run_ingest(
    api: &Api,
    source: Box<dyn Source + Send>,
    request: IngestRequest,
    progress: impl FnMut(IngestProgress) + Send + 'static,
) -> Result<IngestResult, Problem> {
    let machine = api.node.machine().cloned().ok_or_else(no_machine)?;
    let summary = api.node.ingest(source, progress).await?;
    let streams = api.node.config().streams.clone();
    let cancelled = api.node.stopping().is_cancelled();
    blocking(move || jobs::finish_ingest(&machine, &streams, &request, summary, cancelled)).await
}

pub(super) async fn publish(State(api): State<Api>, Document(request): Document<PublishRequest>) -> Response {
    events(|progress| async move {
        let path = request.path.clone();
        let total = blocking(move || jobs::regular_file(&path)).await?;
        let tell = move |bytes| progress.tell(BytesProgress { bytes, total: Some(total) });
        let published: Published = api.node.publish(&request.stream, Path::new(&request.path), tell).await?;
        Ok(published)
    })
}

pub(super) async fn datasets(State(api): State<Api>) -> Answer<Vec<DatasetSummary>> {
    let store = api.node.store().clone();
    let feeds: Vec<Feed> = blocking(move || Ok(catalog::all_feeds(&store)?)).await?;
    Ok(Json(feeds.into_iter().flat_map(|feed| feed.datasets).collect()))
}

pub(super) async fn dataset(State(api): State<Api>, Segment(text): Segment<String>) -> Answer<DatasetDetail> {
    let store = api.node.store().clone();
    Ok(Json(blocking(move || catalog::detail(&store, &text)).await?))
}

pub(super) async fn close(State(api): State<Api>, Document(request): Document<CloseRequest>) -> Answer<Closed> {
    let machine = api.node.machine().cloned().ok_or_else(no_machine)?;
    let datasets = blocking(move || Ok(machine.close_datasets(request.stream.as_deref())?)).await?;
    Ok(Json(Closed { datasets }))
}

pub(super) async fn access_list(State(api): State<Api>, Document(request): Document<ListAccess>) -> Answer<AccessList> {
    let mut list = AccessList::default();
    if api.node.machine().is_some() {
        let access = api.node.access().clone();
        (list.received, list.given) = blocking(move || {
            let given = if request.pending { Vec::new() } else { access.given(MAX_ORDERS)? };
            Ok((access.orders(request.pending, MAX_ORDERS)?, given))
        })
        .await?;
    }
    if let Some(buyer) = api.node.buyer() {
        for did in buyer.feeds().followed() {
            list.open.extend(buyer.open_requests(&did).await?.into_iter().map(|open| OpenRequest {
                request: open.request_id,
                machine: open.machine,
                expires_ms: open.expires_ms,
            }));
        }
        if !request.pending {
            list.grants = buyer.grants(None);
        }
    }
    Ok(Json(list))
}

pub(super) async fn audit(State(api): State<Api>, Document(request): Document<AuditRequest>) -> Answer<Vec<AuditLine>> {
    let store = api.node.store().clone();
    Ok(Json(blocking(move || audit_lines(&store, request)).await?))
}

/// Lines of the audit log. Blocks.
pub(crate) fn audit_lines(store: &Store, request: AuditRequest) -> Result<Vec<AuditLine>, Problem> {
    let limit = usize::try_from(request.limit).unwrap_or(usize::MAX).min(MAX_LINES);
    let lines = audit_log(store, request.from, limit)?;
    Ok(lines.into_iter().map(|(number, record)| AuditLine { number, record }).collect())
}

/// The request whose id is, or begins with, `text`.
fn find_order(api: &Api, text: &str, pending: bool) -> Result<Hash, Problem> {
    if let Ok(id) = text.parse() {
        return Ok(id);
    }
    let orders = api.node.access().orders(pending, MAX_ORDERS)?;
    one_of(orders.iter().map(|order| order.id), text)
}

/// The only id that begins with `text`.
pub(super) fn one_of(ids: impl Iterator<Item = Hash>, text: &str) -> Result<Hash, Problem> {
    let enough = text.len() >= 6;
    let mut found = ids.filter(|id| enough && id.to_string().starts_with(text));
    match (found.next(), found.next()) {
        (Some(id), None) => Ok(id),
        (None, _) => Err(Problem::not_found(format!("no access request {text} waits here"))
            .hint("list them with `tributary access ls`; at least 6 digits of the id are needed")),
        (Some(_), Some(_)) => {
            Err(Problem::usage(format!("more than one access request begins with {text}")).hint("give more digits"))
        }
    }
}

pub(super) async fn approve(State(api): State<Api>, Document(request): Document<Decide>) -> Answer<Order> {
    let order = blocking(move || {
        let id = find_order(&api, &request.request, true)?;
        Ok(api.node.access().approve(&id)?)
    });
    Ok(Json(order.await?))
}

pub(super) async fn deny(State(api): State<Api>, Document(request): Document<Decide>) -> Answer<Order> {
    let order = blocking(move || {
        let id = find_order(&api, &request.request, true)?;
        Ok(api.node.access().deny(&id, request.reason.as_deref().unwrap_or("the operator said no"))?)
    });
    Ok(Json(order.await?))
}

pub(super) async fn revoke(
    State(api): State<Api>,
    Document(request): Document<RevokeRequest>,
) -> Answer<Vec<Revocation>> {
    let done = blocking(move || {
        let streams = if request.streams.is_empty() {
            api.node.machine().ok_or_else(no_machine)?.stream_names()
        } else {
            request.streams
        };
        let revoke = |name: &String| Ok(api.node.access().revoke(&request.buyer, name, request.now)?);
        streams.iter().map(revoke).collect::<Result<Vec<_>, Problem>>()
    });
    Ok(Json(done.await?))
}
