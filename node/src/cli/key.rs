//! `tributary key`: the keys of a home.

use std::{path::PathBuf, sync::Arc};

use clap::Subcommand;
use serde::Serialize;
use tributary_protocol::binding::SignedBinding;

use super::{CliError, Context, Exit, Table, reach::told, show};
use crate::{
    home::{Home, MachineKeys, OwnerKey, PublicKeys},
    machine::{rebind, stored_bindings, system_clock},
};

/// `tributary key`
#[derive(Debug, Subcommand)]
pub enum KeyCommand {
    /// Show the public keys; needs no passphrase
    Show,
    /// Make a new feed key and bind it with the owner's key; the node must not run
    Rotate {
        /// The owner's key file [default: the one in this home, while it is still there]
        #[arg(long, value_name = "FILE")]
        owner_key: Option<PathBuf>,
    },
    /// Bind the keys of this home anew with the owner's key: bindings last 90 days; the node must not run
    Bind {
        /// The owner's key file [default: the one in this home, while it is still there]
        #[arg(long, value_name = "FILE")]
        owner_key: Option<PathBuf>,
        /// Begin a new incarnation: after a restore, or when the home was copied
        #[arg(long)]
        incarnation: bool,
    },
}

/// A new binding, as `--json` shows it.
#[derive(Debug, Serialize)]
struct BindingReport {
    did: String,
    serial: u64,
    incarnation: u32,
    feed_key: String,
    expires_ms: u64,
}

impl BindingReport {
    fn of(signed: &SignedBinding) -> Self {
        let binding = signed.binding();
        Self {
            did: binding.did.to_string(),
            serial: binding.serial,
            incarnation: binding.incarnation,
            feed_key: binding.feed_key.to_string(),
            expires_ms: binding.expires_ms,
        }
    }
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
        KeyCommand::Rotate { owner_key } => rotate(owner_key.as_deref(), context),
        KeyCommand::Bind { owner_key, incarnation } => bind(owner_key.as_deref(), *incarnation, context),
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

/// The owner's key, from the file or from the home.
fn owner(home: &Home, file: Option<&std::path::Path>, context: &Context) -> Result<OwnerKey, CliError> {
    let passphrase = context.passphrase()?;
    let key = match file {
        Some(file) => Some(Home::read_owner_key(file, passphrase.as_ref())?),
        None => home.owner_key(passphrase.as_ref())?,
    };
    let key = key.ok_or_else(|| {
        CliError::new(Exit::NotFound, "the owner's key is needed, and it is not on this machine")
            .hint("bring the file here for this command and give it with --owner-key FILE")
    })?;
    let (given, named) = (key.public(), home.owner()?);
    if given.address != named.address {
        return Err(CliError::new(Exit::Failed, "this is not the key of this machine's owner")
            .cause(format!("it is that of {}, and the owner is {}", given.address, named.address))
            .hint("give the file that `tributary init` made for this home, or that of the --owner it was given"));
    }
    Ok(key)
}

fn rotate(owner_key: Option<&std::path::Path>, context: &Context) -> Result<(), CliError> {
    context.stopped("keys cannot be rotated")?;
    let offline = context.offline()?;
    let home = &offline.home;
    let owner = owner(home, owner_key, context)?;
    let keys = context.keys(home)?;
    let staged = home.stage_feed_key(context.passphrase()?.as_ref(), &mut rand::rng())?;
    let bindings = stored_bindings(&offline.store, &keys.identity.did()).map_err(told)?;
    // A rotation that broke off after its binding became durable only has to move the key into place.
    let bound = bindings.into_iter().next_back().filter(|signed| signed.binding().feed_key == staged.public());
    let signed = match bound {
        Some(signed) => signed,
        None => {
            let next = MachineKeys { feed: Arc::new(staged), ..keys };
            rebind(home, &next, &offline.store, &owner.identity, false, system_clock()()).map_err(told)?
        }
    };
    home.promote_feed_key()?;
    offline.close()?;
    bound_report(&signed, "The feed key is a new one; the old one is gone.", context)
}

fn bind(owner_key: Option<&std::path::Path>, incarnation: bool, context: &Context) -> Result<(), CliError> {
    context.stopped("keys cannot be bound")?;
    let offline = context.offline()?;
    let owner = owner(&offline.home, owner_key, context)?;
    let keys = context.keys(&offline.home)?;
    let now_ms = system_clock()();
    let signed = rebind(&offline.home, &keys, &offline.store, &owner.identity, incarnation, now_ms).map_err(told)?;
    offline.close()?;
    let what = if incarnation {
        "A new incarnation begins with the next start of the node."
    } else {
        "The keys are bound anew."
    };
    bound_report(&signed, what, context)
}

fn bound_report(signed: &SignedBinding, what: &str, context: &Context) -> Result<(), CliError> {
    let report = BindingReport::of(signed);
    context.output.document(&report, |out| {
        writeln!(out, "{what}\n")?;
        let mut table = Table::new();
        table
            .row(["binding", &report.serial.to_string()])
            .row(["incarnation", &report.incarnation.to_string()])
            .row(["feed key", &report.feed_key])
            .row(["good until", &show::time(report.expires_ms)]);
        table.write(out)
    })
}
