//! `tributary grant`: keys for one buyer, in a file, without a request.

use std::{
    io::Write as _,
    path::{Path, PathBuf},
    sync::Arc,
};

use tributary_protocol::{ids::Did, keys::EncryptionPublicKey};

use super::{
    CliError, Context, Exit,
    peaq_files::{FormatArg, GrantFlags, misplaced},
    reach::{block_on, told},
    selection::SelectionArgs,
    show,
};
use crate::{
    control::{
        api::{GrantFile, GrantRequest, SelectionRequest},
        grant_file, issue, material,
    },
    export::AtomicFile,
    home::Home,
    machine::system_clock,
    owner::grants::{self, Material},
    service::access::AccessService,
};

/// `tributary grant`
#[derive(Debug, clap::Args)]
pub struct GrantArgs {
    /// The buyer's peaqID; with --format peaq any name
    #[arg(long, value_name = "DID", visible_alias = "buyer-id")]
    pub(super) buyer: String,
    /// The buyer's encryption key, 64 hex digits, as their `tributary key show` prints it
    #[arg(long, value_name = "HEX", visible_alias = "buyer-public-key")]
    pub(super) key: String,
    #[command(flatten)]
    pub(super) selection: SelectionArgs,
    /// Grant as the owner of the machine, from what this home follows of it: the machine is not needed. With --format peaq from
    /// a folder of published chunks, and a file with the private X25519 key as hex serves as well
    #[arg(long, value_name = "FILE", visible_aliases = ["owner-key-file", "owner-private-key-file"])]
    pub(super) owner_key: Option<PathBuf>,
    /// The file to write, which the buyer takes with `tributary access import`; with --format peaq the folder to make
    #[arg(long, value_name = "PATH", visible_alias = "output-dir")]
    pub(super) out: PathBuf,
    /// A grant file of this program, or access files for peaq's tools
    #[arg(long, value_enum, default_value_t, value_name = "FORMAT")]
    format: FormatArg,
    #[command(flatten)]
    pub(super) peaq: GrantFlags,
}

/// Who may read: the buyer of a grant in this program's own format.
struct Reader {
    did: Did,
    key: EncryptionPublicKey,
}

impl Reader {
    fn of(args: &GrantArgs) -> Result<Self, CliError> {
        let bad = |flag: &str, expected: &str| CliError::new(Exit::Usage, format!("{flag} is not {expected}"));
        let did = args.buyer.parse().map_err(|error| {
            bad("--buyer", "a peaqID")
                .cause(error)
                .hint("give did:peaq:0x and 40 hex digits; only --format peaq takes other names")
        })?;
        let key = args.key.parse().map_err(|error| {
            bad("--key", "an encryption key").cause(error).hint("the buyer's `tributary key show` prints it")
        })?;
        Ok(Self { did, key })
    }
}

pub(super) fn grant(args: &GrantArgs, context: &Context) -> Result<(), CliError> {
    if args.format == FormatArg::Peaq {
        if let Some(flag) = args.selection.beyond_datasets() {
            return Err(misplaced(flag, "grants of this program's own format; name one --dataset"));
        }
        return super::peaq_files::grant(args, context);
    }
    if let Some(flag) = args.peaq.given() {
        return Err(misplaced(flag, "--format peaq"));
    }
    let selection = args.selection.request(system_clock()())?;
    let reader = Reader::of(args)?;
    let file = match &args.owner_key {
        Some(key) => by_owner(&reader, key, &selection, context)?,
        None => by_machine(&reader, selection, context)?,
    };
    write(&args.out, &file)?;
    #[derive(serde::Serialize)]
    struct Report<'a> {
        file: &'a Path,
        machine: Did,
        buyer: Did,
        grants: usize,
    }
    let report = Report { file: &args.out, machine: file.machine, buyer: reader.did, grants: file.grants.len() };
    context.output.document(&report, |out| {
        let grants = show::some(report.grants as u64, "range");
        writeln!(out, "Wrote the keys of {grants} for {} to {}.", reader.did, args.out.display())?;
        writeln!(out, "\nOnly that buyer can open it. Next, there: tributary access import {}", args.out.display())
    })
}

fn by_machine(reader: &Reader, selection: SelectionRequest, context: &Context) -> Result<GrantFile, CliError> {
    let request = GrantRequest { buyer: reader.did, key: reader.key, selection };
    if let Some(client) = context.running()? {
        return block_on(async { Ok(client.post("/v1/grant", &request).await?) });
    }
    let offline = context.offline()?;
    let keys = context.keys(&offline.home)?;
    let machine = Arc::new(offline.machine(&keys)?);
    let file = AccessService::without_node(Arc::clone(&machine), offline.store.clone(), system_clock())
        .map_err(told)
        .and_then(|access| issue(&access, machine.did(), &offline.store, &request).map_err(CliError::from));
    machine.shutdown().map_err(told)?;
    drop(machine);
    offline.close()?;
    file
}

/// The home says which keys are meant, from its copy of the feed; the owner's key is used here, and only here.
fn by_owner(
    reader: &Reader,
    key_file: &Path,
    selection: &SelectionRequest,
    context: &Context,
) -> Result<GrantFile, CliError> {
    let owner = Home::read_owner_key(key_file, context.passphrase()?.as_ref())?;
    let found: Material = match context.running()? {
        Some(client) => block_on(async { Ok(client.post("/v1/grant/material", selection).await?) })?,
        None => {
            let offline = context.offline()?;
            let own = offline.home.public_keys()?.did;
            let found = material(&offline.store, &own, selection).map_err(CliError::from);
            offline.close()?;
            found?
        }
    };
    let grants = grants::issue(&found, &owner, reader.did, reader.key, system_clock()()).map_err(told)?;
    Ok(grant_file(found.machine, reader.did, found.bindings, &grants))
}

fn write(path: &Path, file: &GrantFile) -> Result<(), CliError> {
    let failed = |error| CliError::new(Exit::Failed, format!("{} cannot be written", path.display())).cause(error);
    let mut bytes = serde_json::to_vec_pretty(file)
        .map_err(|error| CliError::new(Exit::Failed, "the grants cannot be written").cause(error))?;
    bytes.push(b'\n');
    let mut out = AtomicFile::create(path).map_err(failed)?;
    out.write_all(&bytes).map_err(failed)?;
    out.commit().map_err(failed)?;
    Ok(())
}
