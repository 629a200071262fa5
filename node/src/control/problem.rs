//! From what failed inside the node to what a person is told, once for the control API and the commands alike.

use std::{error::Error, io};

use tributary_store::StoreError;

use super::api::{Code, Problem};
use crate::{
    home::HomeError,
    ingest::IngestError,
    machine::{MachineError, OwnBindingError, PublishError, SelectionError},
};

/// What an error's sources say that it does not say itself.
pub(super) fn causes(error: &dyn Error) -> Option<String> {
    let mut told = error.to_string();
    let mut out: Vec<String> = Vec::new();
    let mut next = error.source();
    while let Some(source) = next {
        let text = source.to_string();
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
            MachineError::Displaced { ref reason, incarnation } => Self::new(
                Code::Failed,
                format!("this home must not publish any more in incarnation {incarnation}"),
            )
            .cause(reason)
            .hint("start the next incarnation with `tributary key bind --incarnation --owner-key FILE`"),
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
