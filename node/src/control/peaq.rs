//! Routes of deliveries to peaq's buyers.

use std::{
    io::Write as _,
    path::{Path, PathBuf},
    sync::Arc,
};

use axum::{Json, extract::State, response::Response};
use serde::{Deserialize, Serialize};
use tokio::sync::broadcast::error::RecvError;
use tributary_protocol::peaq::access::{self, AccessEntry, AccessFile, Sharder};

use super::{
    api::{Code, Problem},
    catalog::find_dataset,
    problem::no_machine,
    server::{Answer, Api, Document, blocking, events},
};
use crate::{
    export::AtomicFile,
    machine::system_clock,
    peaq::{
        ChunkError, ChunkSource, DatasetChunks, Deliveries, DeliveryError, DeliveryState, DeliveryStatus, FolderChunks,
    },
};

/// A handoff lives so long when nobody says otherwise, as with peaq's SDK.
const DEFAULT_TTL_SECONDS: u64 = 300;
/// The longest life of a handoff.
const MAX_TTL_SECONDS: u64 = 7 * 24 * 60 * 60;
/// Names in a handshake; longer ones are no ids.
const MAX_NAME: usize = 4096;

/// Open a delivery session.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct OfferRequest {
    /// The purchase.
    pub purchase: String,
    /// The delivery session.
    pub session: String,
    /// The buyer's id.
    pub buyer: String,
    /// A closed dataset, by id or a beginning of it.
    #[serde(default)]
    pub dataset: Option<String>,
    /// Or a folder of published chunks, absolute.
    #[serde(default)]
    pub folder: Option<PathBuf>,
    /// How long the buyer may come, seconds; 300 unless it says otherwise.
    #[serde(default)]
    pub ttl_seconds: Option<u64>,
    /// For a dataset: the buyer's public X25519 key as hex, to grant access to.
    #[serde(default)]
    pub buyer_key: Option<String>,
    /// The access file that is then written, absolute.
    #[serde(default)]
    pub access_out: Option<PathBuf>,
}

/// An open session.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Offered {
    /// `peaqos-p2p://…`
    pub url: String,
    /// Until when the buyer may come, RFC 3339.
    pub expires_at: String,
    /// The purchase.
    pub purchase: String,
    /// Number of chunks.
    pub chunks: u64,
}

/// Names a purchase.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PurchaseRequest {
    /// The purchase.
    pub purchase: String,
}

impl From<ChunkError> for Problem {
    fn from(error: ChunkError) -> Self {
        let code = match &error {
            ChunkError::NoDataset(_) | ChunkError::NoChunks { .. } => Code::NotFound,
            ChunkError::TooLarge { .. } | ChunkError::Compressed(_) | ChunkError::Party(_) => Code::Usage,
            ChunkError::Damaged { .. } | ChunkError::BadFile { .. } => Code::VerificationFailed,
            _ => Code::Failed,
        };
        Self::of(code, &error)
    }
}

impl From<DeliveryError> for Problem {
    fn from(error: DeliveryError) -> Self {
        let code = match &error {
            DeliveryError::Expired => Code::Usage,
            DeliveryError::NoAddress | DeliveryError::Net(_) => Code::Network,
            _ => Code::Failed,
        };
        Self::of(code, &error)
    }
}

fn deliveries(api: &Api) -> Result<Deliveries, Problem> {
    api.node.deliveries().cloned().ok_or_else(no_machine)
}

pub(super) async fn offer(State(api): State<Api>, Document(request): Document<OfferRequest>) -> Answer<Offered> {
    let deliveries = deliveries(&api)?;
    for (what, name) in [("purchase", &request.purchase), ("session", &request.session), ("buyer", &request.buyer)] {
        if name.is_empty() || name.len() > MAX_NAME {
            return Err(Problem::usage(format!("the {what} must have 1 to {MAX_NAME} bytes")));
        }
    }
    let ttl = request.ttl_seconds.unwrap_or(DEFAULT_TTL_SECONDS);
    if !(1..=MAX_TTL_SECONDS).contains(&ttl) {
        return Err(Problem::usage(format!("a handoff lives 1 to {MAX_TTL_SECONDS} seconds")));
    }
    let (opening, wanted) = (api.clone(), request.clone());
    let source = blocking(move || open(&opening, &wanted)).await?;
    let chunks = source.count();
    let expires_ms = system_clock()().saturating_add(ttl * 1000);
    let OfferRequest { purchase, session, buyer, .. } = request;
    let handoff = deliveries.offer(&purchase, &session, &buyer, source, expires_ms).await?;
    Ok(Json(Offered { url: handoff.url, expires_at: handoff.expires_at, purchase, chunks }))
}

/// Opens what is to be delivered, and writes the buyer's access to it where that is asked for.
fn open(api: &Api, request: &OfferRequest) -> Result<Arc<dyn ChunkSource>, Problem> {
    match (&request.dataset, &request.folder) {
        (Some(dataset), None) => {
            let machine = api.node.machine().ok_or_else(no_machine)?;
            let dataset = find_dataset(api.node.store(), dataset)?.dataset;
            let parties = api.node.peaq_parties().map_err(|error| Problem::of(Code::Usage, &error))?;
            let chunks = DatasetChunks::open(machine, api.node.store(), dataset, parties)?;
            match (&request.buyer_key, &request.access_out) {
                (Some(key), Some(out)) => write_access(&chunks, &request.buyer, key, out)?,
                (None, None) => {}
                _ => return Err(Problem::usage("the buyer's key and the access file belong together; give both")),
            }
            Ok(Arc::new(chunks))
        }
        (None, Some(folder)) if request.access_out.is_none() && request.buyer_key.is_none() => {
            Ok(Arc::new(FolderChunks::open(folder)?))
        }
        (None, Some(_)) => Err(Problem::usage("access to a folder of chunks needs the owner's private key")
            .hint("make it with `peaqos stream grant`, or deliver a dataset instead")),
        _ => Err(Problem::usage("name a dataset or a folder, and not both")),
    }
}

/// Writes the access of a buyer to a dataset as one file, in the spelling of peaq's CLI.
fn write_access(chunks: &DatasetChunks, buyer: &str, key: &str, out: &Path) -> Result<(), Problem> {
    let buyer = access::buyer(buyer, key).map_err(|error| Problem::of(Code::Usage, &error))?;
    // One file, however long.
    let mut sharder = Sharder::new(&buyer, usize::MAX);
    chunks.grant(&buyer, |entry: AccessEntry| {
        sharder.push(entry);
        Ok::<_, ChunkError>(())
    })?;
    let text = sharder.finish().as_ref().map(AccessFile::to_cli_text).unwrap_or_default();
    let failed = |error| Problem::new(Code::Failed, format!("{} cannot be written", out.display())).cause(error);
    let mut file = AtomicFile::create(out).map_err(failed)?;
    file.write_all(&text).map_err(failed)?;
    file.commit().map_err(failed)
}

pub(super) async fn list(State(api): State<Api>) -> Answer<Vec<DeliveryStatus>> {
    Ok(Json(deliveries(&api)?.list()))
}

fn unknown(purchase: &str) -> Problem {
    let short: String = purchase.chars().take(80).collect();
    Problem::not_found(format!("there is no delivery of purchase {short:?}"))
        .hint("list them with `tributary peaq deliveries`")
}

pub(super) async fn close(
    State(api): State<Api>,
    Document(request): Document<PurchaseRequest>,
) -> Answer<DeliveryStatus> {
    let deliveries = deliveries(&api)?;
    let closed = deliveries.close(&request.purchase, "the operator closed it");
    let status = deliveries.get(&request.purchase).filter(|_| closed);
    status.map(Json).ok_or_else(|| unknown(&request.purchase))
}

/// Tells how far a delivery is, until it is over.
pub(super) async fn watch(State(api): State<Api>, Document(request): Document<PurchaseRequest>) -> Response {
    events(|progress| async move {
        let deliveries = deliveries(&api)?;
        let mut changes = deliveries.watch();
        let mut told: Option<DeliveryState> = None;
        loop {
            let status = deliveries.get(&request.purchase).ok_or_else(|| unknown(&request.purchase))?;
            if status.state.is_over() {
                return Ok(status);
            }
            if told.as_ref() != Some(&status.state) {
                told = Some(status.state.clone());
                progress.tell(status);
            }
            loop {
                match changes.recv().await {
                    Ok(event) if event.purchase == request.purchase => break,
                    Ok(_) => {}
                    // What was missed is in the state.
                    Err(RecvError::Lagged(_)) => break,
                    Err(RecvError::Closed) => return Err(Problem::new(Code::Failed, "the node is stopping")),
                }
            }
        }
    })
}
