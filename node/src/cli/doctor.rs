//! `tributary doctor`: what is wrong with a node, its machine and its network, and what to do about it.
//!
//! With a running node, what the node knows: how it is reached, how each peer is connected, and why not directly. Without one, what
//! can be tried from here. It changes nothing, and asks nobody but the node and the peers of the configuration.

use std::io::Write;

use serde::Serialize;

use super::{CliError, Context, Exit, Table, reach::block_on};
use crate::{config::Config, control::api::NodeStatus, home::Home};

mod local;
mod network;

pub(super) use network::path_of;

/// What is shown of one matter.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
struct Check {
    /// For programs.
    name: &'static str,
    area: Area,
    state: State,
    /// What was found.
    message: String,
    /// What to do.
    #[serde(skip_serializing_if = "Option::is_none")]
    hint: Option<String>,
}

/// What a check is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
enum Area {
    /// This machine.
    Local,
    /// Others, and the way to them.
    Network,
}

/// What a check found, the worst last.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
enum State {
    Ok,
    /// Could not be looked into, which is no fault.
    Unknown,
    Warning,
    Failed,
}

impl State {
    fn label(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Unknown => "unknown",
            Self::Warning => "WARNING",
            Self::Failed => "FAILED",
        }
    }
}

impl Check {
    fn new(area: Area, name: &'static str, state: State, message: impl Into<String>) -> Self {
        Self { name, area, state, message: message.into(), hint: None }
    }

    fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }
}

#[derive(Serialize)]
struct Report {
    /// Whether a node runs in this home.
    running: bool,
    /// The worst of all checks.
    verdict: State,
    checks: Vec<Check>,
    /// How each connected peer is connected.
    peers: Vec<network::PeerReport>,
}

impl Report {
    /// How the command ends: 1 when something here is wrong, 6 when only the way to others is.
    fn end(&self) -> Result<(), CliError> {
        let failed =
            |area| self.checks.iter().filter(|check| check.state == State::Failed && check.area == area).count();
        let (here, out) = (failed(Area::Local), failed(Area::Network));
        let (code, number) = match (here, out) {
            (0, 0) => return Ok(()),
            (0, out) => (Exit::Network, out),
            (here, out) => (Exit::Failed, here + out),
        };
        let checks = if number == 1 { "check" } else { "checks" };
        Err(CliError::new(code, format!("{number} {checks} failed")).hint("each says above what to do"))
    }

    fn write(&self, out: &mut dyn Write) -> std::io::Result<()> {
        let mut table = Table::new();
        for check in &self.checks {
            table.row([check.state.label(), check.name, &check.message]);
            if let Some(hint) = &check.hint {
                table.row(["", "", &format!("-> {hint}")]);
            }
        }
        table.write(out)?;
        if !self.peers.is_empty() {
            writeln!(out, "\nPeers:")?;
            let mut table = Table::new();
            table.row(["PEER", "PATH", "WHY NOT DIRECT"]);
            for peer in &self.peers {
                table.row([peer.peer.as_str(), &peer.path, peer.why_not_direct.as_deref().unwrap_or("-")]);
            }
            table.write(out)?;
        }
        Ok(())
    }
}

pub(super) fn doctor(context: &Context) -> Result<(), CliError> {
    let path = context.home_path()?;
    if !path.join("keys").is_dir() {
        // No home, nothing to examine: as with every command.
        return Home::open(&path).map(drop).map_err(CliError::from);
    }
    let mut checks = Vec::new();
    let home = local::home(&path, &mut checks);
    let config = local::configuration(context, &mut checks);
    let status = match (&home, &config) {
        (Some(_), Some(_)) => status(context)?,
        _ => None,
    };
    local::machine(&path, home.as_ref(), config.as_ref(), status.as_ref(), &mut checks);
    let mut peers = Vec::new();
    match (&status, &config) {
        (Some(status), Some(config)) => {
            checks.extend(network::of_node(status, config));
            peers = network::peers(status);
        }
        (None, Some(config)) => {
            let message = "no node runs in this home; what only a node knows is left out";
            checks.push(Check::new(Area::Local, "node", State::Unknown, message).hint("start it with `tributary run`"));
            checks.extend(network::from_here(config));
        }
        _ => {}
    }
    let verdict = checks.iter().map(|check| check.state).max().unwrap_or(State::Ok);
    let report = Report { running: status.is_some(), verdict, checks, peers };
    context.output.document(&report, |out| report.write(out))?;
    report.end()
}

/// What the running node says about itself.
fn status(context: &Context) -> Result<Option<NodeStatus>, CliError> {
    let Some(client) = context.running()? else { return Ok(None) };
    block_on(async { Ok(Some(client.get("/v1/status").await?)) })
}

/// A machine and whoever serves others must be reached, a buyer need not be.
fn must_be_reached(config: &Config) -> bool {
    use crate::config::Role;
    [Role::Machine, Role::Mirror, Role::Relay].into_iter().any(|role| config.has_role(role))
}

#[cfg(test)]
mod tests;
