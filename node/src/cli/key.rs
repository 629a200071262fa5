//! `tributary key`: the keys of a home.

use clap::Subcommand;
use serde::Serialize;

use super::{CliError, Context, Table};
use crate::home::{Home, PublicKeys};

/// `tributary key`
#[derive(Debug, Subcommand)]
pub enum KeyCommand {
    /// Show the public keys; needs no passphrase
    Show,
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
