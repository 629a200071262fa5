//! Routes of the buying side.

use std::time::Duration;

use axum::{Json, extract::State, response::Response};
use tokio::sync::{broadcast::error::RecvError, mpsc};
use tributary_protocol::{access::Grant, ids::Did};
use tributary_store::Store;

use super::{
    api::{
        AccessRequestBody, AccessResult, Empty, ExportRequest, ExportResult, Feed, FeedChange, FetchRequest,
        FollowFeedRequest, Following, GrantFile, ImportRequest, Imported, Problem, PullProgress, PullReport,
        PullRequest, QuoteInfo, Report, SelectionRequest, Stage, SubscribeRequest, SubscriptionTerms,
        UnsubscribeRequest, VerifyRequest,
    },
    catalog,
    problem::no_buyer,
    selecting::Target,
    selling::one_of,
    server::{Answer, Api, Document, blocking, events},
};
use crate::{
    buyer::{AccessOutcome, Buyer},
    feeds::{FeedEvent, FeedLink, JoinPoint, SourceCounts, Streams},
};

/// The longest that a request waits for a decision.
const MAX_WAIT: Duration = Duration::from_secs(24 * 60 * 60);

fn buyer(api: &Api) -> Result<Buyer, Problem> {
    api.node.buyer().cloned().ok_or_else(no_buyer)
}

async fn target(api: &Api, request: SelectionRequest) -> Result<Target, Problem> {
    let (store, own) = (api.node.store().clone(), api.node.did());
    blocking(move || Target::find(&store, &own, &request)).await
}

pub(super) async fn feeds(State(api): State<Api>) -> Answer<Vec<Feed>> {
    let store = api.node.store().clone();
    Ok(Json(blocking(move || Ok(catalog::all_feeds(&store)?)).await?))
}

pub(super) async fn subscribe(
    State(api): State<Api>,
    Document(request): Document<SubscribeRequest>,
) -> Answer<Following> {
    let buyer = buyer(&api)?;
    let link: FeedLink = request.link.parse().map_err(|error| Problem::of(super::api::Code::Usage, &error))?;
    let streams = if request.streams.is_empty() { Streams::All } else { Streams::Names(request.streams.clone()) };
    let from = match &request.from {
        Some(text) => Some(
            text.parse::<JoinPoint>()
                .map_err(|form| Problem::usage(format!("{text:?} is no place to follow from")).hint(form))?,
        ),
        None => None,
    };
    if request.live.is_some() && request.streams.is_empty() {
        return Err(Problem::usage("no stream is named to subscribe to").hint("name it with --stream NAME"));
    }
    let (found, report) = buyer.feeds().follow_from(&link, streams, from).await?;
    if let Some(terms) = &request.live {
        for stream in &request.streams {
            buyer.subscribe_live(link.did, SubscriptionTerms { stream: stream.clone(), ..terms.clone() }).await?;
        }
    }
    let from = buyer.feeds().status(&link.did).await?.from.to_string();
    let streams = (!request.streams.is_empty()).then_some(request.streams);
    Ok(Json(Following { machine: link.did, peer: found.peer.to_string(), streams, from, entries: report.entries }))
}

pub(super) async fn unsubscribe(
    State(api): State<Api>,
    Document(request): Document<UnsubscribeRequest>,
) -> Answer<Empty> {
    let buyer = buyer(&api)?;
    let did: Did = match request.machine.parse() {
        Ok(did) => did,
        Err(_) => {
            request.machine.parse::<FeedLink>().map_err(|error| Problem::of(super::api::Code::Usage, &error))?.did
        }
    };
    buyer.unsubscribe_live(&did).await?;
    buyer.feeds().unfollow(&did).await?;
    Ok(Json(Empty {}))
}

pub(super) async fn watch(State(api): State<Api>, Document(request): Document<FollowFeedRequest>) -> Response {
    events(|progress| async move {
        let mut changes = buyer(&api)?.feeds().watch();
        let mut left = request.count;
        while left != Some(0) {
            let change = tokio::select! {
                () = api.node.stopping().cancelled() => break,
                change = changes.recv() => match change {
                    Ok(change) => change,
                    // The next change says how far the log is.
                    Err(RecvError::Lagged(_)) => continue,
                    Err(RecvError::Closed) => break,
                },
            };
            let change = told(&api, change).await?;
            if request.machine.is_some_and(|machine| machine != change.machine) {
                continue;
            }
            if !progress.must_tell(change).await {
                break;
            }
            left = left.map(|left| left - 1);
        }
        Ok(Empty {})
    })
}

async fn told(api: &Api, event: FeedEvent) -> Result<FeedChange, Problem> {
    Ok(match event {
        FeedEvent::Entries { did, log, first, count, .. } => {
            let stream = match log.stream() {
                None => None,
                Some(stream) => {
                    let store = api.node.store().clone();
                    Some(blocking(move || stream_name(&store, &did, &stream)).await?)
                }
            };
            FeedChange { what: "entries".to_owned(), machine: did, stream, first, count }
        }
        FeedEvent::Equivocation { did } => {
            FeedChange { what: "equivocation".to_owned(), machine: did, stream: None, first: 0, count: 0 }
        }
    })
}

fn stream_name(store: &Store, did: &Did, id: &tributary_protocol::ids::StreamId) -> Result<String, Problem> {
    let feed = catalog::feed(store, did)?;
    let name = feed.and_then(|feed| feed.streams.into_iter().find(|stream| stream.stream == *id).map(|s| s.name));
    Ok(name.unwrap_or_else(|| id.to_string()))
}

pub(super) async fn quote(State(api): State<Api>, Document(request): Document<SelectionRequest>) -> Answer<QuoteInfo> {
    let buyer = buyer(&api)?;
    let target = target(&api, request).await?;
    let signed = buyer.quote(&target.machine, target.selection()?).await?;
    let quote = signed.quote();
    Ok(Json(QuoteInfo {
        machine: quote.machine,
        quote: signed.hash(),
        amount: quote.price.amount.to_string(),
        token: quote.price.token.clone(),
        chain: quote.price.chain.clone(),
        pay_to: quote.price.pay_to.clone(),
        expires_ms: quote.expires_ms,
    }))
}

fn wait(wait_ms: u64) -> Duration {
    Duration::from_millis(wait_ms).min(MAX_WAIT)
}

fn outcome(machine: Did, outcome: AccessOutcome) -> AccessResult {
    match outcome {
        AccessOutcome::Granted { request_id, grants } => {
            AccessResult { request: request_id, machine, outcome: "granted".to_owned(), grants }
        }
        AccessOutcome::Pending { request_id } => {
            AccessResult { request: request_id, machine, outcome: "pending".to_owned(), grants: Vec::new() }
        }
    }
}

pub(super) async fn request(State(api): State<Api>, Document(request): Document<AccessRequestBody>) -> Response {
    events(|progress| async move {
        let buyer = buyer(&api)?;
        let target = target(&api, request.selection).await?;
        progress.tell(Stage { stage: "asking".to_owned() });
        let result = buyer.request_access(&target.machine, target.selection()?, wait(request.wait_ms)).await?;
        Ok(outcome(target.machine, result))
    })
}

pub(super) async fn fetch(State(api): State<Api>, Document(request): Document<FetchRequest>) -> Response {
    events(|progress| async move {
        let buyer = buyer(&api)?;
        let mut open = Vec::new();
        for did in buyer.feeds().followed() {
            open.extend(buyer.open_requests(&did).await?);
        }
        let id = one_of(open.iter().map(|open| open.request_id), &request.request)?;
        let machine = open.iter().find(|open| open.request_id == id).map(|open| open.machine);
        let machine = machine.ok_or_else(|| Problem::not_found("the request is gone"))?;
        progress.tell(Stage { stage: "asking".to_owned() });
        let result = buyer.fetch_access(&machine, id, wait(request.wait_ms)).await?;
        Ok(outcome(machine, result))
    })
}

/// The grants of a file, decoded; what they prove is checked when they are opened.
pub(crate) fn grants_of(file: &GrantFile) -> Result<Vec<Grant>, Problem> {
    let bad =
        |what: &str| Problem::usage(format!("not a grant file: {what}")).hint("use one that `tributary grant` wrote");
    if file.format != super::api::GRANT_FILE {
        return Err(bad("its format is another one"));
    }
    let mut grants = Vec::new();
    for text in &file.grants {
        let bytes = hex::decode(text).map_err(|_| bad("a grant is not hex"))?;
        let grant = Grant::decode(&bytes).map_err(|error| bad("a grant is malformed").cause(error))?;
        if grant.header().machine != file.machine {
            return Err(bad("a grant is of another machine"));
        }
        grants.push(grant);
    }
    if grants.is_empty() { Err(bad("there is no grant in it")) } else { Ok(grants) }
}

/// Puts the grants of a file into the wallet.
pub(crate) async fn import_file(buyer: &Buyer, file: &GrantFile) -> Result<Imported, Problem> {
    let grants = grants_of(file)?;
    let taken = buyer.import_grants(file.machine, grants).await?;
    let mut streams: Vec<_> = taken.iter().map(|grant| grant.stream).collect();
    streams.sort_unstable();
    streams.dedup();
    Ok(Imported { machine: file.machine, grants: taken.len() as u64, streams })
}

pub(super) async fn import(State(api): State<Api>, Document(request): Document<ImportRequest>) -> Answer<Imported> {
    Ok(Json(import_file(&buyer(&api)?, &request.file).await?))
}

pub(super) async fn pull(State(api): State<Api>, Document(request): Document<PullRequest>) -> Response {
    events(|progress| async move {
        let buyer = buyer(&api)?;
        let target = target(&api, request.selection).await?;
        let mut total = PullReport { complete: true, ..PullReport::default() };
        let mut done = PullProgress::default();
        for selection in target.pulls()? {
            let (sender, mut receiver) = mpsc::channel::<PullProgress>(16);
            let before = done;
            let mut newest = before;
            let tell = async {
                while let Some(now) = receiver.recv().await {
                    newest = PullProgress {
                        chunks: before.chunks + now.chunks,
                        bytes: before.bytes + now.bytes,
                        total_chunks: before.total_chunks + now.total_chunks,
                        total_bytes: before.total_bytes + now.total_bytes,
                        sources: now.sources,
                    };
                    progress.tell(newest);
                }
            };
            let ((), pulled) = futures::join!(tell, buyer.pull(&target.machine, selection, Some(sender)));
            let pulled = pulled?;
            done = newest;
            total.chunks += pulled.chunks;
            total.bytes += pulled.bytes;
            total.skipped += pulled.skipped;
            total.not_granted += pulled.not_granted;
            total.complete &= pulled.complete;
            total.seconds += pulled.seconds;
            SourceCounts::add(&mut total.sources, pulled.sources);
        }
        Ok(total)
    })
}

/// Checks a dataset that is here.
pub(crate) async fn verify_dataset(store: &Store, buyer: &Buyer, text: &str) -> Result<Report, Problem> {
    let (store, text) = (store.clone(), text.to_owned());
    let found = blocking(move || catalog::find_dataset(&store, &text)).await?;
    Ok(buyer.verify(&found.machine, found.dataset).await?)
}

pub(super) async fn verify(State(api): State<Api>, Document(request): Document<VerifyRequest>) -> Response {
    events(|progress| async move {
        progress.tell(Stage { stage: "verifying".to_owned() });
        let buyer = buyer(&api)?;
        verify_dataset(api.node.store(), &buyer, &request.dataset).await
    })
}

/// Writes datasets into files, all packages into one.
pub(crate) async fn export_all(
    buyer: &Buyer,
    target: &Target,
    request: &ExportRequest,
    mut progress: impl FnMut(Stage),
) -> Result<ExportResult, Problem> {
    let datasets = target.datasets()?;
    progress(Stage { stage: format!("exporting {} datasets", datasets.len()) });
    let report = buyer.export_together(&target.machine, &datasets, &request.out, &request.formats).await?;
    Ok(ExportResult { datasets, report })
}

pub(super) async fn export(State(api): State<Api>, Document(request): Document<ExportRequest>) -> Response {
    events(|progress| async move {
        let buyer = buyer(&api)?;
        let target = target(&api, request.selection.clone()).await?;
        export_all(&buyer, &target, &request, |stage| progress.tell(stage)).await
    })
}
