//! Grants that the operator gives away by hand, as a file.

use axum::{Json, extract::State};
use tributary_protocol::{
    access::{Grant, GrantHeader, Issuer},
    ids::Hash,
};
use tributary_store::Store;

use super::{
    api::{Code, GRANT_FILE, GrantFile, GrantRequest, Problem, SelectionRequest},
    problem::no_machine,
    selecting::Target,
    server::{Answer, Api, Document, blocking},
};
use crate::machine::{Machine, stored_bindings};

/// A grant file can be imported for this long.
const LIFE_MS: u64 = 30 * 24 * 60 * 60 * 1000;

/// Issues the grants of a request, signed by the machine. Blocks.
pub(crate) fn issue(
    machine: &Machine,
    store: &Store,
    request: &GrantRequest,
    now_ms: u64,
) -> Result<GrantFile, Problem> {
    if let Some(reason) = machine.displaced() {
        return Err(Problem::new(Code::Failed, "nothing is granted while the machine must not publish").cause(reason));
    }
    let did = machine.did();
    if request.selection.machine.is_some_and(|other| other != did) {
        return Err(Problem::usage("keys can be granted only for this machine's own data").hint("leave out --machine"));
    }
    let selection = SelectionRequest { machine: Some(did), ..request.selection.clone() };
    let selection = Target::find(store, &did, &selection)?.selection()?;
    let bindings = stored_bindings(store, &did)?;
    let serial = bindings.last().map_or(0, |signed| signed.binding().serial);
    let mut grants = Vec::new();
    for range in machine.resolve(&selection)? {
        let cover = machine.cover(&range)?;
        let header = GrantHeader {
            grant_id: Hash::from_bytes(rand::random()),
            // Nobody asked and nothing was quoted.
            request_id: Hash::ZERO,
            terms_hash: Hash::ZERO,
            machine: did,
            range,
            buyer: request.buyer,
            buyer_enc: request.key,
            issued_ms: now_ms,
            expires_ms: now_ms.saturating_add(LIFE_MS),
            binding_serial: serial,
            cover_hash: cover.hash(),
        };
        let grant = Grant::issue(header, &cover, Issuer::Feed(&machine.keys().feed), &mut rand::rng())
            .map_err(|error| Problem::of(Code::Failed, &error))?;
        grants.push(hex::encode(grant.encode()));
    }
    Ok(GrantFile {
        format: GRANT_FILE.to_owned(),
        machine: did,
        buyer: request.buyer,
        bindings: bindings.iter().map(|signed| hex::encode(signed.encode())).collect(),
        grants,
    })
}

pub(super) async fn grant(State(api): State<Api>, Document(request): Document<GrantRequest>) -> Answer<GrantFile> {
    let machine = api.node.machine().cloned().ok_or_else(no_machine)?;
    let store = api.node.store().clone();
    let now_ms = crate::machine::system_clock()();
    Ok(Json(blocking(move || issue(&machine, &store, &request, now_ms)).await?))
}
