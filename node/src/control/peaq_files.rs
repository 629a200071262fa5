//! Files for peaq's buyers, written by the node that holds the data.

use axum::{extract::State, response::Response};
use tributary_protocol::peaq::access;
use tributary_store::Store;

use super::{
    api::{BytesProgress, ChunksProgress, PeaqGrantRequest, PeaqPublishRequest, Problem},
    catalog::find_dataset,
    jobs::Cancel,
    problem::no_machine,
    server::{Api, Document, blocking, events},
};
use crate::{
    machine::{Machine, system_clock},
    peaq::files::{self, FilesError, GrantedFiles, PublishOptions, PublishedFiles},
    service::Node,
};

/// Cancels when it is dropped: the client is gone.
struct Hangup(Cancel);

impl Drop for Hangup {
    fn drop(&mut self) {
        self.0.cancel();
    }
}

fn go_on(cancelled: &dyn Fn() -> bool) -> Result<(), FilesError> {
    if cancelled() { Err(FilesError::Cancelled) } else { Ok(()) }
}

/// The id of a closed dataset.
fn closed(store: &Store, text: &str) -> Result<tributary_protocol::ids::DatasetId, Problem> {
    let found = find_dataset(store, text)?;
    if !found.closed {
        return Err(Problem::not_found(format!("dataset {} is not closed yet", found.dataset))
            .hint("close it with `tributary dataset close`"));
    }
    Ok(found.dataset)
}

/// Publishes a closed dataset as a directory. Blocks.
pub(crate) fn publish_files(
    machine: &Machine,
    store: &Store,
    request: &PeaqPublishRequest,
    cancelled: &dyn Fn() -> bool,
    mut progress: impl FnMut(BytesProgress),
) -> Result<PublishedFiles, Problem> {
    let dataset = closed(store, &request.dataset)?;
    let options = PublishOptions {
        out: request.out.clone(),
        parties: files::parties(request.names())?,
        any_chunk_size: request.any_chunk_size,
        now_ms: system_clock()(),
    };
    let mut tell = |bytes, total| {
        progress(BytesProgress { bytes, total: Some(total) });
        go_on(cancelled)
    };
    Ok(files::publish_dataset(machine, store, dataset, &options, &mut tell)?)
}

/// Writes access files for a closed dataset. Blocks.
pub(crate) fn grant_files(
    machine: &Machine,
    store: &Store,
    request: &PeaqGrantRequest,
    cancelled: &dyn Fn() -> bool,
    mut progress: impl FnMut(ChunksProgress),
) -> Result<GrantedFiles, Problem> {
    if let Some(reason) = machine.displaced() {
        return Err(Problem::new(super::api::Code::Failed, "nothing is granted while the machine must not publish")
            .cause(reason));
    }
    let dataset = closed(store, &request.dataset)?;
    let buyer = access::buyer(&request.buyer_id, &request.buyer_public_key)
        .map_err(|source| FilesError::Value { what: "the buyer's id or public key", source })?;
    let mut tell = |chunks| {
        progress(ChunksProgress { chunks });
        go_on(cancelled)
    };
    let size = request.max_file_size;
    Ok(files::grant_dataset(machine, store, dataset, &buyer, size, &request.out, &mut tell)?)
}

/// Runs `work` until it is done, the client hangs up, or the node stops.
async fn at_machine<T: Send + 'static>(
    node: Node,
    work: impl FnOnce(&Machine, &Store, &dyn Fn() -> bool) -> Result<T, Problem> + Send + 'static,
) -> Result<T, Problem> {
    let machine = node.machine().cloned().ok_or_else(no_machine)?;
    let hangup = Hangup(Cancel::default());
    let cancel = hangup.0.clone();
    blocking(move || {
        let cancelled = || cancel.is_cancelled() || node.stopping().is_cancelled();
        work(&machine, node.store(), &cancelled)
    })
    .await
}

pub(super) async fn publish(State(api): State<Api>, Document(request): Document<PeaqPublishRequest>) -> Response {
    events(|progress| {
        at_machine(api.node, move |machine, store, cancelled| {
            publish_files(machine, store, &request, cancelled, |event| progress.tell(event))
        })
    })
}

pub(super) async fn grant(State(api): State<Api>, Document(request): Document<PeaqGrantRequest>) -> Response {
    events(|progress| {
        at_machine(api.node, move |machine, store, cancelled| {
            grant_files(machine, store, &request, cancelled, |event| progress.tell(event))
        })
    })
}
