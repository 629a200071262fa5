//! Binding keys anew, on the machine: in one step with the owner's key at hand, or in two with the owner's computer between them.

use std::{
    io::Read as _,
    path::{Path, PathBuf},
    sync::Arc,
};

use super::{
    super::{
        CliError, Context, Exit, Table,
        reach::{Offline, block_on, told},
        show,
    },
    BindArgs, sign,
};
use crate::{
    control::api::{Bound, Empty, ProposalFile},
    home::{Home, MachineKeys, OwnerKey},
    machine::{self, system_clock},
    proposal::{Change, MAX_PROPOSAL_LEN, Proposal},
};

/// Binds, or with `--prepare` only proposes to.
pub(super) fn bind(change: Change, args: &BindArgs, context: &Context) -> Result<(), CliError> {
    if let Some(file) = &args.prepare {
        return prepare(change, file, context);
    }
    context.stopped(if change == Change::Rotate { "keys cannot be rotated" } else { "keys cannot be bound" })?;
    let offline = context.offline()?;
    let (owner, file) = owner(&offline.home, args.owner_key.as_deref(), context)?;
    let proposal = propose(change, &offline, context)?;
    let signed = sign::with(proposal, &owner, &file)?;
    let now_ms = system_clock()();
    let bound = machine::apply(&offline.home, &offline.store, &signed, now_ms).map_err(told)?;
    offline.close()?;
    report(&Bound::of(change, &bound), context)
}

fn prepare(change: Change, file: &Path, context: &Context) -> Result<(), CliError> {
    let running = if change == Change::Renew { context.running()? } else { None };
    let bytes = match running {
        Some(client) => {
            let made: ProposalFile = block_on(async { Ok(client.post("/v1/key/prepare", &Empty {}).await?) })?;
            made.decode().map_err(CliError::from)?
        }
        None => {
            context.stopped(&format!("{change} cannot be prepared"))?;
            let offline = context.offline()?;
            let proposal = propose(change, &offline, context)?;
            offline.close()?;
            proposal
        }
    };
    sign::write(file, &bytes.encode())?;
    let held = change != Change::Renew;
    let report = sign::ProposalReport::of(&bytes, Some(file));
    context.output.document(&report, |out| {
        report.human(out)?;
        writeln!(out, "\nWrote it to {}.", file.display())?;
        writeln!(
            out,
            "Next, on the owner's computer: tributary key sign {} --owner-key FILE\nThen, here: tributary key apply FILE",
            file.display()
        )?;
        if held {
            writeln!(
                out,
                "\nUntil then this machine publishes nothing: the proposal names where its logs stand.\nTo give it up: tributary key cancel"
            )?;
        }
        Ok(())
    })
}

fn propose(change: Change, offline: &Offline, context: &Context) -> Result<Proposal, CliError> {
    let home = &offline.home;
    let mut keys = context.keys(home)?;
    if change == Change::Rotate {
        let staged = home.stage_feed_key(context.passphrase()?.as_ref(), &mut rand::rng())?;
        keys = MachineKeys { feed: Arc::new(staged), ..keys };
    }
    machine::propose(home, &keys, &offline.store, change, system_clock()()).map_err(told)
}

pub(super) fn apply(file: &Path, context: &Context) -> Result<(), CliError> {
    let proposal = sign::read(file)?;
    let bound = match context.running()? {
        Some(client) => {
            let body = ProposalFile::of(&proposal);
            block_on(async { Ok(client.post("/v1/key/apply", &body).await?) })?
        }
        None => {
            let offline = context.offline()?;
            let now_ms = system_clock()();
            let applied = machine::apply(&offline.home, &offline.store, &proposal, now_ms).map_err(told);
            offline.close()?;
            Bound::of(proposal.change(), &applied?)
        }
    };
    report(&bound, context)
}

pub(super) fn cancel(context: &Context) -> Result<(), CliError> {
    context.stopped("a proposal cannot be given up")?;
    let offline = context.offline()?;
    let proposal = machine::cancel(&offline.home, &offline.store).map_err(told);
    offline.close()?;
    let proposal = proposal?;
    let report = sign::ProposalReport::of(&proposal, None);
    context.output.document(&report, |out| {
        writeln!(out, "Given up: {}, as binding {}.", report.change, report.serial)?;
        writeln!(
            out,
            "\nIf the owner has signed it already, destroy the signed file: whoever has it can still put it into force\n\
             for the machine's followers, and the owner's key signs no other binding {}.",
            report.serial
        )
    })
}

/// The owner's key, from the file or from the home, and the file.
fn owner(home: &Home, file: Option<&Path>, context: &Context) -> Result<(OwnerKey, PathBuf), CliError> {
    let passphrase = context.passphrase()?;
    let (key, path) = match file {
        Some(file) => (Some(Home::read_owner_key(file, passphrase.as_ref())?), file.to_owned()),
        None => (home.owner_key(passphrase.as_ref())?, home.owner_key_path()),
    };
    let key = key.ok_or_else(|| {
        CliError::new(Exit::NotFound, "the owner's key is needed, and it is not on this machine").hint(
            "have the owner sign elsewhere: write the proposal with --prepare FILE; or bring the key file here for this command and give it with --owner-key FILE",
        )
    })?;
    let (given, named) = (key.public(), home.owner()?);
    if given.address != named.address {
        return Err(CliError::new(Exit::Failed, "this is not the key of this machine's owner")
            .cause(format!("it is that of {}, and the owner is {}", given.address, named.address))
            .hint("give the file that `tributary init` made for this home, or that of the --owner it was given"));
    }
    Ok((key, path))
}

fn report(bound: &Bound, context: &Context) -> Result<(), CliError> {
    let what = match bound.change {
        Change::Rotate => "The feed key is a new one; the old one is gone.",
        Change::Incarnation => "A new incarnation begins with the next start of the node.",
        Change::Renew => "The keys are bound anew.",
    };
    context.output.document(bound, |out| {
        writeln!(out, "{what}\n")?;
        let mut table = Table::new();
        table
            .row(["binding", &bound.serial.to_string()])
            .row(["incarnation", &bound.incarnation.to_string()])
            .row(["feed key", &bound.feed_key])
            .row(["good until", &show::time(bound.expires_ms)]);
        table.write(out)
    })
}

/// Reads a file of at most the length of a proposal.
pub(super) fn bytes_of(file: &Path) -> Result<Vec<u8>, CliError> {
    let failed = |error: std::io::Error| {
        let code = if error.kind() == std::io::ErrorKind::NotFound { Exit::NotFound } else { Exit::Failed };
        CliError::new(code, format!("{} cannot be read", file.display())).cause(error)
    };
    let mut bytes = Vec::new();
    let opened = std::fs::File::open(file).map_err(failed)?;
    opened.take(MAX_PROPOSAL_LEN as u64 + 1).read_to_end(&mut bytes).map_err(failed)?;
    Ok(bytes)
}
