//! What the logs in the store are, entry by entry: whether two nodes hold the same ones.

use axum::{Json, extract::State};
use tributary_protocol::{entry::SignedEntry, ids::LogKey};
use tributary_store::Store;

use super::{
    api::{Code, EntryHash, EntryHashesRequest, LogPlace, Problem},
    server::{Answer, Api, Document, blocking},
};

/// Entries that one request may name.
const MAX_PLACES: usize = 1024;

pub(super) async fn hashes(
    State(api): State<Api>,
    Document(request): Document<EntryHashesRequest>,
) -> Answer<Vec<EntryHash>> {
    let store = api.node.store().clone();
    Ok(Json(blocking(move || entry_hashes(&store, &request)).await?))
}

/// The hashes of entries that are here; what is not here is left out. Blocks.
fn entry_hashes(store: &Store, request: &EntryHashesRequest) -> Result<Vec<EntryHash>, Problem> {
    if request.places.len() > MAX_PLACES {
        return Err(Problem::usage(format!("{} entries are named", request.places.len()))
            .hint(format!("name at most {MAX_PLACES} in one request")));
    }
    let mut found = Vec::new();
    if request.places.is_empty() {
        for key in store.logs(Some(&request.machine))?.into_iter().take(MAX_PLACES) {
            if let Some((seq, bytes)) = store.head(&key)? {
                found.push(hash_of(&key, seq, &bytes)?);
            }
        }
    }
    for LogPlace { log, incarnation, seq } in request.places.iter().copied() {
        let key = LogKey { did: request.machine, log, incarnation };
        if let Some(bytes) = store.entry(&key, seq)? {
            found.push(hash_of(&key, seq, &bytes)?);
        }
    }
    Ok(found)
}

fn hash_of(key: &LogKey, seq: u64, bytes: &[u8]) -> Result<EntryHash, Problem> {
    let signed = SignedEntry::decode(bytes).map_err(|error| {
        Problem::of(Code::VerificationFailed, &error).hint("the store is damaged; run `tributary store check`")
    })?;
    let place = LogPlace { log: key.log, incarnation: key.incarnation, seq };
    Ok(EntryHash { place, hash: signed.hash(), time_ms: signed.entry().time_ms })
}
