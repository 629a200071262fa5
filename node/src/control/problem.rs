//! From what failed inside the node to what a person is told, once for the control API and the commands alike.

use std::{error::Error, io};

use tributary_store::StoreError;

use super::api::{Code, Problem};
use crate::{
    buyer::{self, ContentError, ExportJobError, SubscriptionError, VerifyError},
    feeds::{FeedsError, FollowError, IncompleteError, PullJobError},
    home::HomeError,
    ingest::IngestError,
    machine::{MachineError, OwnBindingError, PublishError, SelectionError},
    peaq::files::FilesError,
    service::{JobError, NodeError, access},
};

/// What an error's sources say that it does not say itself.
pub(super) fn causes(error: &dyn Error) -> Option<String> {
    let mut told = error.to_string();
    let mut out: Vec<String> = Vec::new();
    let mut next = error.source();
    while let Some(source) = next {
        // Some libraries lay their lists out in lines.
        let text = source.to_string().split_whitespace().collect::<Vec<_>>().join(" ");
        // Transparent errors and those that quote their source would say everything twice.
        if !told.contains(&text) {
            out.push(text.clone());
            told.push_str(&text);
        }
        next = source.source();
    }
    (!out.is_empty()).then(|| out.join(": "))
}

impl Problem {
    /// A problem without cause and hint.
    pub fn new(code: Code, message: impl Into<String>) -> Self {
        Self { code, message: message.into(), cause: None, hint: None }
    }

    /// Something that is not there.
    pub fn not_found(message: impl Into<String>) -> Self {
        Self::new(Code::NotFound, message)
    }

    /// A request that cannot be meant like this.
    pub fn usage(message: impl Into<String>) -> Self {
        Self::new(Code::Usage, message)
    }

    /// What an error says, and what its sources say.
    pub fn of(code: Code, error: &dyn Error) -> Self {
        let text = error.to_string();
        let problem = match text.rsplit_once("; ") {
            // The messages of this program end with what to do.
            Some((message, hint)) => Self { hint: Some(hint.to_owned()), ..Self::new(code, message) },
            None => Self::new(code, text),
        };
        Self { cause: causes(error), ..problem }
    }

    /// Says why.
    #[must_use]
    pub fn cause(mut self, cause: impl std::fmt::Display) -> Self {
        self.cause = Some(cause.to_string());
        self
    }

    /// Says what to do next.
    #[must_use]
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }
}

impl<E> From<Box<E>> for Problem
where
    Self: From<E>,
{
    fn from(error: Box<E>) -> Self {
        (*error).into()
    }
}

impl From<StoreError> for Problem {
    fn from(error: StoreError) -> Self {
        match error {
            StoreError::Damaged { .. } => Self::of(Code::VerificationFailed, &error),
            _ => Self::of(Code::Failed, &error),
        }
    }
}

impl From<HomeError> for Problem {
    fn from(error: HomeError) -> Self {
        Self::of(Code::Failed, &error)
    }
}

impl From<IngestError> for Problem {
    fn from(error: IngestError) -> Self {
        let code = match &error {
            IngestError::Io { source, .. } if source.kind() == io::ErrorKind::NotFound => Code::NotFound,
            _ => Code::Failed,
        };
        Self::of(code, &error)
    }
}

impl From<SelectionError> for Problem {
    fn from(error: SelectionError) -> Self {
        let code = if matches!(error, SelectionError::Empty { .. }) { Code::NotFound } else { Code::Failed };
        Self::of(code, &error)
    }
}

impl From<OwnBindingError> for Problem {
    fn from(error: OwnBindingError) -> Self {
        Self::of(Code::Failed, &error)
    }
}

impl From<MachineError> for Problem {
    fn from(error: MachineError) -> Self {
        match error {
            MachineError::NoStream { .. } => Self::of(Code::NotFound, &error),
            MachineError::Selection(error) => error.into(),
            MachineError::Rules { .. } => Self::of(Code::Usage, &error),
            // "…; what follows. Run `…`" is one sentence of cause and one of advice.
            MachineError::Displaced { ref reason, incarnation } => {
                Self::new(Code::Failed, format!("this home must not publish any more in incarnation {incarnation}"))
                    .cause(reason)
                    .hint("start the next incarnation with `tributary key bind --incarnation --owner-key FILE`, or with --prepare FILE and the owner's signature from elsewhere")
            }
            _ => Self::of(Code::Failed, &error),
        }
    }
}

impl From<PublishError> for Problem {
    fn from(error: PublishError) -> Self {
        match error {
            PublishError::Machine(error) => error.into(),
            PublishError::Read { ref source, .. } if source.kind() == io::ErrorKind::NotFound => {
                Self::of(Code::NotFound, &error)
            }
            PublishError::NotForFiles { .. } => Self::of(Code::Usage, &error),
            _ => Self::of(Code::Failed, &error),
        }
    }
}

impl From<FilesError> for Problem {
    fn from(error: FilesError) -> Self {
        let code = match &error {
            FilesError::Missing { .. } | FilesError::NoDataset(_) | FilesError::Dropped { .. } => Code::NotFound,
            FilesError::NoAccess { .. } | FilesError::WrongKey { .. } => Code::AccessDenied,
            FilesError::NotRegular { .. }
            | FilesError::TooLarge { .. }
            | FilesError::Format { .. }
            | FilesError::Order { .. }
            | FilesError::Gap { .. }
            | FilesError::Chunk { .. }
            | FilesError::Damaged { .. } => Code::VerificationFailed,
            FilesError::Value { .. }
            | FilesError::KeyFile { .. }
            | FilesError::Compressed(_)
            | FilesError::ChunkTooLarge { .. }
            | FilesError::TooMany { .. }
            | FilesError::TooManyChunks(_) => Code::Usage,
            _ => match error {
                FilesError::Store(error) => return error.into(),
                FilesError::Machine(error) => return (*error).into(),
                FilesError::Binding(error) => return (*error).into(),
                other => return Self::of(Code::Failed, &other),
            },
        };
        Self::of(code, &error)
    }
}

/// The answer of a node without the role machine.
pub(super) fn no_machine() -> Problem {
    Problem::usage("this node is no machine").hint("add `machine` to `roles` in its configuration and start it again")
}

/// The answer of a node without the role buyer.
pub(super) fn no_buyer() -> Problem {
    Problem::usage("this node is no buyer").hint("add `buyer` to `roles` in its configuration and start it again")
}

impl From<JobError> for Problem {
    fn from(error: JobError) -> Self {
        match error {
            JobError::NoMachine => no_machine(),
            JobError::Ingest(error) => error.into(),
            JobError::Publish(error) => error.into(),
            _ => Self::of(Code::Failed, &error),
        }
    }
}

impl From<NodeError> for Problem {
    fn from(error: NodeError) -> Self {
        match error {
            NodeError::Home(error) => error.into(),
            NodeError::Store(error) => error.into(),
            NodeError::Machine(error) => error.into(),
            NodeError::Net(_) | NodeError::Closed(_) => Self::of(Code::Network, &error)
                .hint("look at `network.listen` in the configuration: is the port taken by another program?"),
            _ => Self::of(Code::Failed, &error),
        }
    }
}

impl From<access::AccessError> for Problem {
    fn from(error: access::AccessError) -> Self {
        use access::AccessError;
        match error {
            AccessError::NoMachine => no_machine(),
            AccessError::Machine(error) => error.into(),
            AccessError::Store(error) => error.into(),
            AccessError::NoOrder { .. } | AccessError::NoStream { .. } => Self::of(Code::NotFound, &error),
            _ => Self::of(Code::Failed, &error),
        }
    }
}

impl From<FeedsError> for Problem {
    fn from(error: FeedsError) -> Self {
        match error {
            FeedsError::Store(error) => error.into(),
            FeedsError::NotFollowed(_) => {
                Self::of(Code::NotFound, &error).hint("follow it with `tributary subscribe LINK`")
            }
            _ => Self::of(Code::Failed, &error),
        }
    }
}

/// What kind of problem it is that a feed could not be followed.
fn code_of(error: &FollowError) -> Code {
    match error {
        FollowError::Dial { .. }
        | FollowError::Request { .. }
        | FollowError::Busy { .. }
        | FollowError::Offline
        | FollowError::NoAddress(_)
        | FollowError::Closed(_) => Code::Network,
        FollowError::Unknown { .. }
        | FollowError::NoDataset { .. }
        | FollowError::Feeds(FeedsError::NotFollowed(_)) => Code::NotFound,
        FollowError::Myself(_) | FollowError::Streams | FollowError::TooManyFeeds(_) => Code::Usage,
        FollowError::Chain { .. }
        | FollowError::BadEntry { .. }
        | FollowError::Entry { .. }
        | FollowError::Malformed { .. }
        | FollowError::Answer { .. }
        | FollowError::Join { .. }
        | FollowError::Equivocation(_) => Code::VerificationFailed,
        _ => Code::Failed,
    }
}

impl From<FollowError> for Problem {
    fn from(error: FollowError) -> Self {
        let problem = Self::of(code_of(&error), &error);
        match error {
            FollowError::Dial { .. } | FollowError::Request { .. } | FollowError::Busy { .. } => {
                problem.hint("is the machine's node running, and reachable at the address of its link?")
            }
            FollowError::Feeds(error) => error.into(),
            _ => problem,
        }
    }
}

impl From<buyer::AccessError> for Problem {
    fn from(error: buyer::AccessError) -> Self {
        use buyer::AccessError;
        use tributary_protocol::wire::DenyCode;
        match error {
            AccessError::Feeds(error) => error.into(),
            AccessError::Follow(error) => error.into(),
            AccessError::Unreachable { .. } => Self::of(Code::Network, &error)
                .hint("wait until the machine's node runs again; check its link with `tributary status`"),
            AccessError::Denied { code: DenyCode::NotFound, .. } | AccessError::UnknownRequest(_) => {
                Self::of(Code::NotFound, &error)
            }
            AccessError::Denied { .. } => {
                Self::of(Code::AccessDenied, &error).hint("ask the machine's operator for access")
            }
            AccessError::PaymentRequired { .. } => Self::of(Code::AccessDenied, &error),
            AccessError::Quote { .. } | AccessError::OtherSelection(_) | AccessError::Grant { .. } => {
                Self::of(Code::VerificationFailed, &error)
            }
            _ => Self::of(Code::Failed, &error),
        }
    }
}

impl From<SubscriptionError> for Problem {
    fn from(error: SubscriptionError) -> Self {
        match error {
            SubscriptionError::Feeds(error) => error.into(),
            other => Self::of(Code::Usage, &other),
        }
    }
}

impl From<IncompleteError> for Problem {
    fn from(error: IncompleteError) -> Self {
        let code = match &error {
            // As bad as what kept the rest away: no network, or a machine that contradicts itself.
            IncompleteError::Unfetched { source, .. } => code_of(source),
            IncompleteError::BeforeJoin(_) => Code::NotFound,
            _ => Code::Failed,
        };
        match error {
            IncompleteError::Feeds(error) => error.into(),
            other => Self::of(code, &other),
        }
    }
}

impl From<PullJobError> for Problem {
    fn from(error: PullJobError) -> Self {
        match error {
            PullJobError::Feeds(error) => error.into(),
            PullJobError::Follow(error) => error.into(),
            PullJobError::Incomplete(error) => error.into(),
            PullJobError::NotGranted { .. } => {
                Self::of(Code::AccessDenied, &error).hint("ask for it with `tributary access request`")
            }
            PullJobError::NotFound { .. } => Self::of(Code::NotFound, &error),
            PullJobError::Unreadable { .. } => Self::of(Code::VerificationFailed, &error).hint(NOTHING_KEPT),
            PullJobError::Exhausted(ref said) if said.wrong_bytes().is_some() => {
                Self::of(Code::VerificationFailed, &error).hint(NOTHING_KEPT)
            }
            PullJobError::Exhausted(ref said) if said.nobody_has_them() => Self::of(Code::NotFound, &error),
            PullJobError::Exhausted(_) => Self::of(Code::Network, &error),
        }
    }
}

const NOTHING_KEPT: &str = "nothing of it was kept; tell the machine's operator, or pull from another provider";

impl From<VerifyError> for Problem {
    fn from(error: VerifyError) -> Self {
        match error {
            VerifyError::Feeds(error) => error.into(),
            VerifyError::Incomplete(error) => error.into(),
            VerifyError::NotFound(_) => Self::of(Code::NotFound, &error),
        }
    }
}

fn of_content(error: &ContentError, whole: &dyn Error) -> Problem {
    let code = match error {
        ContentError::NotFound(_) => Code::NotFound,
        ContentError::NotGranted { .. } => Code::AccessDenied,
        ContentError::Missing { .. } => Code::NotFound,
        ContentError::Open { .. } | ContentError::Unpack { .. } | ContentError::Record { .. } => {
            Code::VerificationFailed
        }
        ContentError::Store(StoreError::Damaged { .. }) => Code::VerificationFailed,
        _ => Code::Failed,
    };
    Problem::of(code, whole)
}

impl From<ExportJobError> for Problem {
    fn from(error: ExportJobError) -> Self {
        match &error {
            ExportJobError::Content(content) => of_content(content, &error),
            ExportJobError::Package { .. } | ExportJobError::Plaintext(_) => Self::of(Code::VerificationFailed, &error),
            ExportJobError::Format { .. } => Self::of(Code::Usage, &error),
            _ => match error {
                ExportJobError::Feeds(error) => error.into(),
                ExportJobError::Incomplete(error) => error.into(),
                other => Self::of(Code::Failed, &other),
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use tributary_protocol::ids::{DatasetId, Did};

    use super::*;
    use crate::feeds::Incomplete;

    #[test]
    fn a_dataset_that_is_not_whole_says_how_much_is_missing_and_what_to_do() {
        let (did, dataset) = (Did::from_bytes([1; 20]), DatasetId::from_bytes([2; 32]));
        let what = Incomplete { dataset, known: 12, total: 20, joined_at: None };
        let unfetched = |source| IncompleteError::Unfetched { what, source: Box::new(source) };
        let withheld = IncompleteError::Withheld(what);
        let before = IncompleteError::BeforeJoin(what);
        for (error, code) in [
            (unfetched(FollowError::NoAddress(did)), Code::Network),
            (unfetched(FollowError::Offline), Code::Network),
            (unfetched(FollowError::Equivocation(did)), Code::VerificationFailed),
            (withheld, Code::Failed),
            (before, Code::NotFound),
        ] {
            let problem = Problem::from(PullJobError::from(error));
            assert_eq!(problem.code, code, "{problem:?}");
            let text = format!("{} {}", problem.message, problem.hint.unwrap_or_default());
            assert!(text.contains("of the 20 chunk entries") && text.contains("only 12 are known"), "{text}");
            assert!(text.contains("again") || text.contains("--from dataset:"), "it says what to do: {text}");
        }
    }
}
