//! `tributary health`: for a container's HEALTHCHECK, a watchdog, or a script that waits.

use std::time::Duration;

use super::{CliError, Context, Exit, reach::block_on};
use crate::{config::parse_duration, service::health::Health};

/// `tributary health`
#[derive(Debug, clap::Args)]
pub struct HealthArgs {
    /// Only ask whether it is alive: a node that is not needs a restart
    #[arg(long)]
    alive: bool,
    /// How long to wait for the answer
    #[arg(long, value_name = "TIME", default_value = "5s", value_parser = duration)]
    timeout: Duration,
}

fn duration(text: &str) -> Result<Duration, String> {
    parse_duration(text).ok_or_else(|| format!("expected {}", crate::config::DURATION_FORM))
}

pub(super) fn run(args: &HealthArgs, context: &Context) -> Result<(), CliError> {
    let home = context.home()?;
    let socket = context.socket(&home, &context.config(None, &[])?);
    let client = crate::control::ControlClient::new(socket);
    let health: Health = block_on(async {
        match tokio::time::timeout(args.timeout, client.get("/v1/health")).await {
            Ok(health) => Ok(health?),
            Err(_) => Err(CliError::new(Exit::Failed, format!("the node did not answer within {:?}", args.timeout))
                .hint("look at its log; if it hangs, restart it")),
        }
    })?;
    let (good, what) = if args.alive { (health.alive, "alive") } else { (health.ready, "ready") };
    context.output.document(&health, |out| {
        writeln!(out, "{}{what}", if good { "" } else { "not " })?;
        health.problems.iter().try_for_each(|problem| writeln!(out, "{}: {}", problem.part.name(), problem.message))
    })?;
    if good {
        return Ok(());
    }
    Err(CliError::new(Exit::Failed, format!("the node is not {what}")).hint("`tributary status` says more"))
}
