//! Signing a binding on the owner's computer: shown in words first, recorded, then signed. No home and no node is needed.

use std::{
    io::{self, IsTerminal as _, Write},
    path::{Path, PathBuf},
};

use serde::Serialize;

use super::{
    super::{CliError, Context, Exit, reach::told},
    bind::bytes_of,
};
use crate::{
    export::AtomicFile,
    home::{Home, OwnerKey},
    machine::system_clock,
    owner::Ledger,
    proposal::{Change, Proposal},
};

/// A proposal, as it is shown.
#[derive(Debug, Serialize)]
pub(super) struct ProposalReport {
    machine: String,
    pub(super) change: Change,
    pub(super) serial: u64,
    binding: String,
    signed: bool,
    says: Vec<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    file: Option<PathBuf>,
}

impl ProposalReport {
    pub(super) fn of(proposal: &Proposal, file: Option<&Path>) -> Self {
        Self {
            machine: proposal.machine().to_string(),
            change: proposal.change(),
            serial: proposal.next().binding().serial,
            binding: proposal.next().hash().to_string(),
            signed: proposal.next().has_owner_signature(),
            says: proposal.words(),
            file: file.map(Path::to_owned),
        }
    }

    pub(super) fn human(&self, out: &mut dyn Write) -> io::Result<()> {
        self.says.iter().try_for_each(|line| writeln!(out, "{line}"))
    }
}

pub(super) fn sign(
    file: &Path,
    owner_key: Option<&Path>,
    out: Option<&Path>,
    context: &Context,
) -> Result<(), CliError> {
    let proposal = read(file)?;
    let Some(key_file) = owner_key else {
        let report = ProposalReport::of(&proposal, None);
        return context.output.document(&report, |out| report.human(out));
    };
    let key = Home::read_owner_key(key_file, context.passphrase()?.as_ref())?;
    let out = out.map_or_else(|| beside(file), Path::to_owned);
    if !context.output.is_json() && io::stdin().is_terminal() {
        context.output.note(&format!("You are about to sign:\n\n{}\n", proposal.words().join("\n")));
        confirmed(context)?;
    }
    let signed = with(proposal, &key, key_file)?;
    write(&out, &signed.encode())?;
    let report = ProposalReport::of(&signed, Some(&out));
    context.output.document(&report, |to| {
        report.human(to)?;
        writeln!(to, "\nSigned, and written to {}.", out.display())?;
        writeln!(to, "Next, on the machine: tributary key apply {}", out.display())
    })
}

fn confirmed(context: &Context) -> Result<(), CliError> {
    context.output.note("Type yes to sign it.");
    let mut answer = String::new();
    io::stdin().read_line(&mut answer).map_err(|error| {
        CliError::new(Exit::Failed, "the answer could not be read; nothing was signed").cause(error)
    })?;
    if answer.trim() == "yes" { Ok(()) } else { Err(CliError::new(Exit::Failed, "nothing was signed, as you said")) }
}

/// Signs a proposal with the owner's key, which lies in `key_file`, once that is recorded.
pub(super) fn with(proposal: Proposal, key: &OwnerKey, key_file: &Path) -> Result<Proposal, CliError> {
    let (named, own) = (proposal.previous().binding().owner_id, key.public().address);
    if named != own {
        return Err(CliError::new(Exit::Failed, "this is not the key of this machine's owner")
            .cause(format!("it is that of {own}, and the owner of {} is {named}", proposal.machine()))
            .hint("give the key file of that owner"));
    }
    // The binding in force must be one: a machine cannot make its owner sign behind something that never was.
    let previous = proposal.previous();
    let owner = (previous.binding().serial > 0).then_some(&named);
    previous.verify(owner).map_err(|error| {
        CliError::new(Exit::VerificationFailed, "the proposal follows a binding that is not in force anywhere")
            .cause(error)
            .hint("get the proposal from the machine again")
    })?;
    Ledger::beside(key_file).enter(&proposal, system_clock()()).map_err(told)?;
    Ok(proposal.signed_by(&key.identity))
}

pub(super) fn read(file: &Path) -> Result<Proposal, CliError> {
    Proposal::decode(&bytes_of(file)?).map_err(told)
}

pub(super) fn write(file: &Path, bytes: &[u8]) -> Result<(), CliError> {
    let failed = |error| CliError::new(Exit::Failed, format!("{} cannot be written", file.display())).cause(error);
    let mut out = AtomicFile::create(file).map_err(failed)?;
    out.write_all(bytes).map_err(failed)?;
    out.commit().map_err(failed)?;
    Ok(())
}

fn beside(file: &Path) -> PathBuf {
    let mut name = file.file_name().unwrap_or_default().to_owned();
    name.push(".signed");
    file.with_file_name(name)
}
