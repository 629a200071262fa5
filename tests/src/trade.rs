//! The steps between a machine and a buyer, as their operators would take them.

use std::path::Path;

use tributary::control::{
    ClientError,
    api::{
        AccessRequestBody, AccessResult, BytesProgress, ExportFormat, ExportRequest, ExportResult, Following,
        IngestProgress, IngestRequest, IngestResult, PublishRequest, Published, PullProgress, PullReport, PullRequest,
        Report, SelectionRequest, Stage, SubscribeRequest, VerifyRequest,
    },
};
use tributary_protocol::ids::{DatasetId, LogId};

use crate::{
    lines,
    node::NodeProcess,
    wait::{soon, until},
};

/// The selection of these datasets.
#[must_use]
pub fn datasets(ids: &[DatasetId]) -> SelectionRequest {
    SelectionRequest { datasets: ids.iter().map(ToString::to_string).collect(), ..SelectionRequest::default() }
}

/// Ingests messages `first..first + count` on `topic`, and closes their dataset.
///
/// # Panics
///
/// When they do not all get in, into one dataset.
pub async fn ingest(machine: &NodeProcess, topic: &str, first: u64, count: u64) -> DatasetId {
    let path = lines::file(machine.home().parent().unwrap(), topic, first, count);
    let request = IngestRequest { path: Some(path), close: true, ..lines::by_topic() };
    let run = machine.client().run("/v1/ingest", &request, |_: IngestProgress| {});
    let result: IngestResult = soon("ingest", run).await.unwrap();
    assert_eq!((result.messages, result.summary.is_clean(), result.closed.len()), (count, true, 1), "{result:?}");
    result.closed[0]
}

/// Publishes a file.
///
/// # Panics
///
/// When it cannot be published.
pub async fn publish(machine: &NodeProcess, stream: &str, path: &Path) -> DatasetId {
    let request = PublishRequest { path: path.to_owned(), stream: stream.to_owned() };
    let run = machine.client().run("/v1/publish", &request, |_: BytesProgress| {});
    soon::<Result<Published, _>>("publish", run).await.unwrap().dataset
}

/// Lets the buyer follow the machine, by its link.
///
/// # Panics
///
/// When it cannot.
pub async fn follow(buyer: &NodeProcess, machine: &NodeProcess) {
    try_follow(buyer, &machine.link().await).await.unwrap();
}

/// Lets the buyer follow a link.
///
/// # Errors
///
/// What the buyer says.
pub async fn try_follow(buyer: &NodeProcess, link: &str) -> Result<Following, ClientError> {
    let request = SubscribeRequest { link: link.to_owned(), ..SubscribeRequest::default() };
    soon("subscribe", buyer.client().post("/v1/subscribe", &request)).await
}

/// Waits until the buyer knows a dataset, that it is closed, and all its chunks.
pub async fn know(buyer: &NodeProcess, dataset: DatasetId) {
    until("the dataset at the buyer", async || {
        let feeds = buyer.feeds().await;
        let found = feeds.iter().flat_map(|feed| &feed.datasets).find(|known| known.dataset == dataset)?;
        let status = buyer.status().await;
        let followed = status.followed.iter().find(|feed| feed.did == found.machine)?;
        let log = LogId::from(found.stream_id);
        let log = followed.logs.iter().find(|known| known.log == log && known.incarnation == found.incarnation)?;
        (found.closed && log.entries > found.last_seq).then_some(())
    })
    .await;
}

/// Gets the keys of a selection.
///
/// # Panics
///
/// When they are not granted.
pub async fn request(buyer: &NodeProcess, selection: &SelectionRequest) -> AccessResult {
    let result = try_request(buyer, selection).await.unwrap();
    assert_eq!(result.outcome, "granted");
    result
}

/// Asks for the keys of a selection.
///
/// # Errors
///
/// What the buyer says.
pub async fn try_request(buyer: &NodeProcess, selection: &SelectionRequest) -> Result<AccessResult, ClientError> {
    let body = AccessRequestBody { selection: selection.clone(), wait_ms: 10_000 };
    soon("access", buyer.client().run("/v1/access/request", &body, |_: Stage| {})).await
}

/// Pulls a selection.
///
/// # Panics
///
/// When it cannot be pulled.
pub async fn pull(buyer: &NodeProcess, selection: &SelectionRequest) -> PullReport {
    try_pull(buyer, selection).await.unwrap()
}

/// Pulls a selection.
///
/// # Errors
///
/// What the buyer says.
pub async fn try_pull(buyer: &NodeProcess, selection: &SelectionRequest) -> Result<PullReport, ClientError> {
    let body = PullRequest { selection: selection.clone() };
    soon("pull", buyer.client().run("/v1/pull", &body, |_: PullProgress| {})).await
}

/// Verifies a dataset.
///
/// # Panics
///
/// When it cannot be checked at all.
pub async fn verify(buyer: &NodeProcess, dataset: DatasetId) -> Report {
    let body = VerifyRequest { dataset: dataset.to_string() };
    soon("verify", buyer.client().run("/v1/verify", &body, |_: Stage| {})).await.unwrap()
}

/// Exports a selection into a folder.
///
/// # Panics
///
/// When it cannot be written.
pub async fn export(
    buyer: &NodeProcess,
    selection: &SelectionRequest,
    formats: &[ExportFormat],
    out: &Path,
) -> ExportResult {
    let body = ExportRequest { selection: selection.clone(), formats: formats.to_vec(), out: out.to_owned() };
    soon("export", buyer.client().run("/v1/export", &body, |_: Stage| {})).await.unwrap()
}

/// Requests, pulls and verifies a dataset that the buyer knows.
///
/// # Panics
///
/// When it does not end proven, with everything there.
pub async fn buy(buyer: &NodeProcess, dataset: DatasetId) {
    let selection = datasets(&[dataset]);
    request(buyer, &selection).await;
    pull(buyer, &selection).await;
    let proof = verify(buyer, dataset).await;
    assert_eq!(proof.verdict, tributary::control::api::Verdict::Proven, "{proof:?}");
    assert_eq!((proof.chunks, proof.packages), (proof.chunks_opened, proof.packages_verified), "{proof:?}");
}
