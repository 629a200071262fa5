//! How a command ends: exit codes, and errors that say what failed, why, and what to do next.

use std::{fmt, io, process::ExitCode};

use serde::Serialize;

use crate::{config::ConfigError, home::HomeError};

/// The long help's and the manual page's last part.
pub(super) const HELP: &str = "\
Exit codes:
  0  ok
  1  failed
  2  usage: wrong flags, or a configuration that is not valid
  3  verification failed: data or signatures are not what they claim to be
  4  access denied, or not decided yet
  5  not found: no such home, machine, stream, dataset or request
  6  network: no peer could be reached

Environment:
  TRIBUTARY_HOME             home folder
  TRIBUTARY_PASSPHRASE       passphrase of sealed keys
  TRIBUTARY_PASSPHRASE_FILE  file with that passphrase
  TRIBUTARY_LOG              log filter, such as info or tributary=debug,libp2p=info
  TRIBUTARY_LOG_FORMAT       text or json
  TRIBUTARY_SECTION__KEY     any key of the configuration, such as TRIBUTARY_STORE__QUOTA=10GiB";

/// Exit codes. Their numbers are part of the interface.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Exit {
    /// 0
    Ok,
    /// 1
    Failed,
    /// 2
    Usage,
    /// 3
    VerificationFailed,
    /// 4
    AccessDenied,
    /// 5
    NotFound,
    /// 6
    Network,
}

impl Exit {
    /// The number.
    #[must_use]
    pub fn code(self) -> u8 {
        match self {
            Self::Ok => 0,
            Self::Failed => 1,
            Self::Usage => 2,
            Self::VerificationFailed => 3,
            Self::AccessDenied => 4,
            Self::NotFound => 5,
            Self::Network => 6,
        }
    }
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit.code())
    }
}

/// Why a command failed, for the person who typed it.
#[derive(Debug, Serialize)]
pub struct CliError {
    /// How the process ends.
    pub code: Exit,
    /// What failed.
    pub what: String,
    /// Why.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cause: Option<String>,
    /// What to do next.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hint: Option<String>,
}

impl CliError {
    /// An error without cause and hint.
    pub fn new(code: Exit, what: impl Into<String>) -> Self {
        Self { code, what: what.into(), cause: None, hint: None }
    }

    /// Says why.
    #[must_use]
    pub fn cause(mut self, cause: impl fmt::Display) -> Self {
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

impl fmt::Display for CliError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "error: {}", self.what)?;
        if let Some(cause) = &self.cause {
            write!(f, "\n  cause: {cause}")?;
        }
        if let Some(hint) = &self.hint {
            write!(f, "\n  next:  {hint}")?;
        }
        Ok(())
    }
}

impl std::error::Error for CliError {}

impl From<ConfigError> for CliError {
    fn from(error: ConfigError) -> Self {
        match &error {
            ConfigError::Read { source, .. } if source.kind() == io::ErrorKind::NotFound => {
                Self::new(Exit::NotFound, "there is no configuration")
                    .cause(error)
                    .hint("give its path, or make a home with `tributary init`")
            }
            ConfigError::Read { .. } => Self::new(Exit::Failed, "the configuration cannot be read").cause(error),
            _ => Self::new(Exit::Usage, "the configuration is not valid")
                .cause(error)
                .hint("put it right and run `tributary config check`; examples/tributary.yaml describes every key"),
        }
    }
}

impl From<HomeError> for CliError {
    fn from(error: HomeError) -> Self {
        let (code, what) = match &error {
            HomeError::NotAHome { .. } | HomeError::MissingKey { .. } => (Exit::NotFound, "the home cannot be opened"),
            HomeError::NoHome | HomeError::BadOwner | HomeError::BadPassphrase => {
                (Exit::Usage, "a value is missing or wrong")
            }
            HomeError::Exists { .. } | HomeError::Occupied { .. } => (Exit::Failed, "no home was made"),
            _ => (Exit::Failed, "the home cannot be used"),
        };
        // The messages of these errors end with what to do.
        let text = error.to_string();
        match text.rsplit_once("; ") {
            Some((cause, hint)) => Self::new(code, what).cause(cause).hint(hint),
            None => Self::new(code, what).cause(text),
        }
    }
}
