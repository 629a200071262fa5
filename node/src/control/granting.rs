//! Grants that are given away by hand, as a file: by the machine's operator, and by its owner from a copy of its feed.

use axum::{Json, extract::State};
use tributary_protocol::{access::Grant, ids::Did};
use tributary_store::Store;

use super::{
    api::{Code, GRANT_FILE, GrantFile, GrantRequest, Problem, SelectionRequest},
    problem::no_machine,
    selecting::Target,
    server::{Answer, Api, Document, blocking},
};
use crate::{
    machine::{stored_bindings, system_clock},
    owner::grants::{Material, OwnerGrantError, gather},
    service::access::AccessService,
};

/// Issues the grants of a request, signed by the machine, and notes them in the order book and the audit log. Blocks.
pub(crate) fn issue(
    access: &AccessService,
    did: Did,
    store: &Store,
    request: &GrantRequest,
) -> Result<GrantFile, Problem> {
    if request.selection.machine.is_some_and(|other| other != did) {
        return Err(Problem::usage("this machine's own key grants only its own data")
            .hint("leave out --machine, or grant as the owner of that machine with --owner-key FILE"));
    }
    let selection = SelectionRequest { machine: Some(did), ..request.selection.clone() };
    let selection = Target::find(store, &did, &selection)?.selection()?;
    let (given, grants) = access.give(request.buyer, request.key, &selection)?;
    tracing::info!(id = %given.id, buyer = %given.buyer, grants = given.grants, "granted by hand");
    let bindings = stored_bindings(store, &did)?;
    let bindings = bindings.iter().map(|signed| hex::encode(signed.encode())).collect();
    Ok(grant_file(did, request.buyer, bindings, &grants))
}

/// What this home knows about the keys of a selection, for a grant by the owner of its machine. Blocks.
pub(crate) fn material(store: &Store, own: &Did, request: &SelectionRequest) -> Result<Material, Problem> {
    let target = Target::find(store, own, request)?;
    let selection = target.selection()?;
    Ok(gather(store, &target.machine, &selection, system_clock()())?)
}

pub(super) async fn owner_material(
    State(api): State<Api>,
    Document(request): Document<SelectionRequest>,
) -> Answer<Material> {
    let (store, own) = (api.node.store().clone(), api.node.did());
    Ok(Json(blocking(move || material(&store, &own, &request)).await?))
}

impl From<OwnerGrantError> for Problem {
    fn from(error: OwnerGrantError) -> Self {
        match error {
            OwnerGrantError::Store(error) => error.into(),
            OwnerGrantError::Binding(error) => error.into(),
            OwnerGrantError::Selection(error) => error.into(),
            OwnerGrantError::NotFollowed(_) | OwnerGrantError::NoEpoch { .. } => Self::of(Code::NotFound, &error),
            OwnerGrantError::Chain(_)
            | OwnerGrantError::BadBinding(_)
            | OwnerGrantError::WrongSeed { .. }
            | OwnerGrantError::Form(_) => Self::of(Code::VerificationFailed, &error),
            OwnerGrantError::TooManyRanges { .. } => Self::of(Code::Usage, &error),
            _ => Self::of(Code::Failed, &error),
        }
    }
}

/// The file that a buyer takes the grants from.
pub(crate) fn grant_file(machine: Did, buyer: Did, bindings: Vec<String>, grants: &[Grant]) -> GrantFile {
    GrantFile {
        format: GRANT_FILE.to_owned(),
        machine,
        buyer,
        bindings,
        grants: grants.iter().map(|grant| hex::encode(grant.encode())).collect(),
    }
}

pub(super) async fn grant(State(api): State<Api>, Document(request): Document<GrantRequest>) -> Answer<GrantFile> {
    let machine = api.node.machine().cloned().ok_or_else(no_machine)?;
    let (store, access) = (api.node.store().clone(), api.node.access().clone());
    Ok(Json(blocking(move || issue(&access, machine.did(), &store, &request)).await?))
}
