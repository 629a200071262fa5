//! The log: what happened, for the person who runs the node. Goes to standard error.
//!
//! ERROR a person must act; WARN a person should know; INFO life cycle; DEBUG decisions; TRACE packets. Without `-v` only ERROR and
//! WARN are shown. `TRIBUTARY_LOG` sets a filter of its own and wins.

use std::io::{self, IsTerminal as _};

use clap::ValueEnum;
use tracing_subscriber::EnvFilter;

use super::exit::{CliError, Exit};

/// Form of the log.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, ValueEnum)]
pub enum LogFormat {
    /// Lines for people.
    #[default]
    Text,
    /// One JSON object per line.
    Json,
}

const VARIABLE: &str = "TRIBUTARY_LOG";

/// Libraries are a level quieter than the node itself: what they decide is rarely what someone looks for. Two of them warn of what
/// any peer can do to us as often as it likes, and of what every start is like; gossipsub even says ERROR for each subscription
/// that is refused.
fn filter(verbose: u8) -> &'static str {
    match verbose {
        0 => "warn,libp2p_autonat=error,libp2p_kad=error,libp2p_gossipsub=off",
        1 => {
            "warn,libp2p_autonat=error,libp2p_kad=error,libp2p_gossipsub=off,\
             tributary=info,tributary_store=info,tributary_protocol=info"
        }
        2 => "info,tributary=debug,tributary_store=debug,tributary_protocol=debug",
        _ => "debug,tributary=trace,tributary_store=trace,tributary_protocol=trace",
    }
}

/// Starts the log of this process.
pub(super) fn start(verbose: u8, format: LogFormat) -> Result<(), CliError> {
    let wrong = |cause: &dyn std::fmt::Display| {
        CliError::new(Exit::Usage, format!("{VARIABLE} is not a log filter"))
            .cause(cause)
            .hint("write a level, or targets with levels, such as info or tributary=debug,libp2p=info")
    };
    let filter = match std::env::var(VARIABLE) {
        Ok(text) if !text.is_empty() => EnvFilter::try_new(text).map_err(|e| wrong(&e))?,
        Ok(_) | Err(std::env::VarError::NotPresent) => EnvFilter::new(filter(verbose)),
        Err(error) => return Err(wrong(&error)),
    };
    let builder = tracing_subscriber::fmt().with_env_filter(filter).with_writer(io::stderr);
    match format {
        LogFormat::Text => builder.with_ansi(io::stderr().is_terminal()).try_init(),
        LogFormat::Json => builder.json().try_init(),
    }
    .map_err(|error| CliError::new(Exit::Failed, "the log could not be started").cause(error))
}
