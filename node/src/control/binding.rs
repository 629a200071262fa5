//! Routes for the owner's signature: a running node proposes a renewal of its binding, and puts a signed one into force.

use axum::{Json, extract::State};

use super::{
    api::{Bound, Code, Empty, Problem, ProposalFile},
    problem::no_machine,
    server::{Answer, Api, Document, blocking},
};
use crate::{
    machine::BindError,
    owner::LedgerError,
    proposal::{Proposal, ProposalError},
};

impl ProposalFile {
    /// A proposal, as it travels.
    #[must_use]
    pub fn of(proposal: &Proposal) -> Self {
        Self { proposal: String::from_utf8_lossy(&proposal.encode()).into_owned() }
    }

    /// The proposal, checked as far as it can be without the machine.
    ///
    /// # Errors
    ///
    /// When it is none, or was changed.
    pub fn decode(&self) -> Result<Proposal, Problem> {
        Ok(Proposal::decode(self.proposal.as_bytes())?)
    }
}

pub(super) async fn prepare(State(api): State<Api>, Document(_): Document<Empty>) -> Answer<ProposalFile> {
    let machine = api.node.machine().cloned().ok_or_else(no_machine)?;
    Ok(Json(blocking(move || Ok(ProposalFile::of(&machine.propose_renewal()?))).await?))
}

pub(super) async fn apply(State(api): State<Api>, Document(file): Document<ProposalFile>) -> Answer<Bound> {
    let machine = api.node.machine().cloned().ok_or_else(no_machine)?;
    let bound = blocking(move || {
        let proposal = file.decode()?;
        Ok(Bound::of(proposal.change(), &machine.apply_renewal(&proposal)?))
    });
    Ok(Json(bound.await?))
}

impl From<ProposalError> for Problem {
    fn from(error: ProposalError) -> Self {
        match error {
            ProposalError::Form { .. } => Self::of(Code::Usage, &error),
            _ => Self::of(Code::VerificationFailed, &error)
                .hint("get the file from the machine again; if it is the same, somebody changes it on the way"),
        }
    }
}

impl From<BindError> for Problem {
    fn from(error: BindError) -> Self {
        match error {
            BindError::Own(error) => error.into(),
            BindError::Home(error) => error.into(),
            BindError::Store(error) => error.into(),
            BindError::Proposal(error) => error.into(),
            BindError::Signature(_) | BindError::Chain(_) => Self::of(Code::VerificationFailed, &error),
            BindError::NothingWaits => Self::of(Code::NotFound, &error),
            _ => Self::of(Code::Failed, &error),
        }
    }
}

impl From<LedgerError> for Problem {
    fn from(error: LedgerError) -> Self {
        let problem = Self::of(Code::Failed, &error);
        match error {
            LedgerError::Home(error) => error.into(),
            LedgerError::SignedAnother { serial, path, .. } => problem
                .cause(format!(
                    "with two bindings {serial} the followers of the machine would part for good, each with the one that came first"
                ))
                .hint(format!(
                    "apply the one that was signed first. Does a copy of the machine ask? Then only one of them may go on. If the first one was never applied and every copy of its file is destroyed, take its line out of {}",
                    path.display()
                )),
            LedgerError::Damaged { .. } => problem,
        }
    }
}
