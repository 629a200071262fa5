//! `tributary key`: the keys of a home.

use std::path::PathBuf;

use clap::Subcommand;
use serde::Serialize;

use super::{CliError, Context, Table};
use crate::{
    home::{Home, PublicKeys},
    proposal::Change,
};

mod bind;
mod sign;

/// `tributary key`
#[derive(Debug, Subcommand)]
pub enum KeyCommand {
    /// Show the public keys; needs no passphrase
    Show,
    /// Make a new feed key and bind it; the node must not run
    Rotate {
        #[command(flatten)]
        owner: BindArgs,
    },
    /// Bind the keys of this home anew: bindings last 90 days
    Bind {
        #[command(flatten)]
        owner: BindArgs,
        /// Begin a new incarnation: after a restore, or when the home was copied; the node must not run
        #[arg(long)]
        incarnation: bool,
    },
    /// On the owner's computer: show what a machine proposes, and sign it. Needs no home
    Sign {
        /// The file that `--prepare` wrote on the machine
        proposal: PathBuf,
        /// The owner's key file
        #[arg(long, value_name = "FILE", required_unless_present = "show")]
        owner_key: Option<PathBuf>,
        /// The file to write [default: the proposal's name with .signed]
        #[arg(long, value_name = "FILE")]
        out: Option<PathBuf>,
        /// Only show it
        #[arg(long, conflicts_with_all = ["owner_key", "out"])]
        show: bool,
    },
    /// On the machine: put a proposal into force that the owner has signed
    Apply {
        /// The file that `key sign` wrote
        proposal: PathBuf,
    },
    /// On the machine: give up the proposal that waits for the owner's signature
    Cancel,
}

/// Where the owner's signature comes from.
#[derive(Debug, clap::Args)]
pub struct BindArgs {
    /// The owner's key file, here for this one command [default: the one in this home, while it is still there]
    #[arg(long, value_name = "FILE", conflicts_with = "prepare")]
    owner_key: Option<PathBuf>,
    /// Write what the owner has to sign elsewhere, with `key sign`, into this file; `key apply` puts it into force
    #[arg(long, value_name = "FILE")]
    prepare: Option<PathBuf>,
}

/// The public keys of a home, as `--json` shows them.
#[derive(Debug, Serialize)]
pub(super) struct KeyReport {
    did: String,
    link: String,
    peer_id: String,
    feed_key: String,
    encryption_key: String,
    owner: String,
    /// The owner key is still on this machine.
    owner_key_on_machine: bool,
    sealed: bool,
}

impl KeyReport {
    pub(super) fn of(home: &Home) -> Result<Self, CliError> {
        let PublicKeys { did, feed, peer, encryption, owner, sealed } = home.public_keys()?;
        Ok(Self {
            did: did.to_string(),
            link: format!("tributary://{did}"),
            peer_id: peer.to_string(),
            feed_key: feed.to_string(),
            encryption_key: encryption.to_string(),
            owner: owner.to_string(),
            owner_key_on_machine: home.owner_key_is_here(),
            sealed,
        })
    }

    pub(super) fn table(&self) -> Table {
        let mut table = Table::new();
        table
            .row(["peaqID", self.did.as_str()])
            .row(["feed link", &self.link])
            .row(["peer id", &self.peer_id])
            .row(["feed key", &self.feed_key])
            .row(["encryption key", &self.encryption_key])
            .row(["owner", &self.owner])
            .row([
                "at rest",
                if self.sealed { "sealed with a passphrase" } else { "not sealed; only file permissions protect it" },
            ]);
        table
    }

    pub(super) fn owner_key_on_machine(&self) -> bool {
        self.owner_key_on_machine
    }
}

/// What the user is told until the owner key is gone from the machine.
pub(super) fn move_owner_key(home: &Home) -> String {
    let path = home.owner_key_path();
    format!(
        "The owner key is still on this machine: {path}\n\
         Whoever takes the machine takes that key too. Move it to a place only you can reach, for example\n  \
         scp THIS-MACHINE:{path} . && ssh THIS-MACHINE shred -u {path}\n\
         and keep a copy. You need it to rotate keys, and to open old data if the machine is lost.",
        path = path.display()
    )
}

pub(super) fn run(command: &KeyCommand, context: &Context) -> Result<(), CliError> {
    match command {
        KeyCommand::Rotate { owner } => bind::bind(Change::Rotate, owner, context),
        KeyCommand::Bind { owner, incarnation: true } => bind::bind(Change::Incarnation, owner, context),
        KeyCommand::Bind { owner, incarnation: false } => bind::bind(Change::Renew, owner, context),
        KeyCommand::Sign { proposal, owner_key, out, show: _ } => {
            sign::sign(proposal, owner_key.as_deref(), out.as_deref(), context)
        }
        KeyCommand::Apply { proposal } => bind::apply(proposal, context),
        KeyCommand::Cancel => bind::cancel(context),
        KeyCommand::Show => {
            let home = context.home()?;
            let report = KeyReport::of(&home)?;
            context.output.document(&report, |out| {
                report.table().write(out)?;
                if report.owner_key_on_machine() {
                    writeln!(out, "\n{}", move_owner_key(&home))?;
                }
                Ok(())
            })
        }
    }
}
