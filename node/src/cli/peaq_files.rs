//! `--format peaq` of `tributary publish` and `grant`, and `verify` and `export` of a folder of peaq's files.

use std::{
    io::Write as _,
    path::{Path, PathBuf},
};

use clap::{Args, ValueEnum};
use tributary_protocol::{
    ids::Did,
    keys::FeedPublicKey,
    peaq::{self, access, sealed_box::BoxSecretKey},
};

use super::{
    CliError, Context, Exit, Table,
    grant::GrantArgs,
    ingest::absolute,
    reach::{block_on, interruptible, told},
    show,
};
use crate::{
    config::{Compression, PeaqConfig, StreamConfig},
    control::{
        Cancel,
        api::{
            BytesProgress, ChunksProgress, FilesReport, GrantedFiles, PeaqGrantRequest, PeaqPublishRequest, Problem,
            PublishedFiles, Verdict,
        },
        grant_files, publish_files,
    },
    export::AtomicFile,
    home::{Home, HomeError},
    machine::system_clock,
    peaq::{
        PartyNames,
        files::{self, CheckOptions, FilesError},
    },
};

/// Whose formats.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, ValueEnum)]
pub(super) enum FormatArg {
    /// This program's own
    #[default]
    Tributary,
    /// Files for peaq's SDK and CLI
    Peaq,
}

/// What `publish --format peaq` writes.
#[derive(Debug, Default, Args)]
#[command(next_help_heading = "With --format peaq")]
pub(super) struct PublishFlags {
    /// Publish this closed dataset again instead of a file, by its id or at least 6 digits of it
    #[arg(long, value_name = "ID", conflicts_with_all = ["file", "stream"])]
    pub(super) dataset: Option<String>,
    /// The folder to make
    #[arg(long, value_name = "DIR", visible_alias = "output-dir")]
    out: Option<PathBuf>,
    /// The owner's X25519 key, hex [default: `peaq` in the configuration, else that of this home's owner]
    #[arg(long, value_name = "HEX")]
    owner_public_key: Option<String>,
    /// The operator's X25519 key, hex [default: `peaq` in the configuration, else the owner's]
    #[arg(long, value_name = "HEX")]
    operator_public_key: Option<String>,
    /// The machine's X25519 key, hex [default: `peaq` in the configuration, else that of this home]
    #[arg(long, value_name = "HEX")]
    machine_public_key: Option<String>,
    /// What the files call the machine [default: `peaq` in the configuration, else its peaqID]
    #[arg(long, value_name = "DID")]
    machine_did: Option<String>,
    /// What the files call its signing key [default: `peaq` in the configuration, else <machine DID>#keys-1]
    #[arg(long, value_name = "ID")]
    machine_key_id: Option<String>,
    /// Also publish chunks that are too large for peaq's peer-to-peer delivery
    #[arg(long)]
    any_chunk_size: bool,
}

impl PublishFlags {
    /// The first of these flags that was given.
    pub(super) fn given(&self) -> Option<&'static str> {
        [
            (self.dataset.is_some(), "--dataset"),
            (self.out.is_some(), "--out"),
            (self.owner_public_key.is_some(), "--owner-public-key"),
            (self.operator_public_key.is_some(), "--operator-public-key"),
            (self.machine_public_key.is_some(), "--machine-public-key"),
            (self.machine_did.is_some(), "--machine-did"),
            (self.machine_key_id.is_some(), "--machine-key-id"),
            (self.any_chunk_size, "--any-chunk-size"),
        ]
        .into_iter()
        .find_map(|(given, name)| given.then_some(name))
    }

    /// Everything that is written, from flags, configuration and home; checked as far as it can be before anything is sealed.
    /// The dataset is filled in later.
    pub(super) fn request(&self, stream: Option<&str>, context: &Context) -> Result<PeaqPublishRequest, CliError> {
        let out = self.out.as_deref().ok_or_else(|| {
            CliError::new(Exit::Usage, "no folder was named for the files").hint("name one with --out DIR")
        })?;
        let (home, config) = (context.home()?, context.config(None, &[])?);
        let or = |flag: &Option<String>, set: &Option<String>| flag.as_ref().or(set.as_ref()).cloned();
        let set = PeaqConfig {
            owner_public_key: or(&self.owner_public_key, &config.peaq.owner_public_key),
            operator_public_key: or(&self.operator_public_key, &config.peaq.operator_public_key),
            machine_public_key: or(&self.machine_public_key, &config.peaq.machine_public_key),
            machine_did: or(&self.machine_did, &config.peaq.machine_did),
            machine_key_id: or(&self.machine_key_id, &config.peaq.machine_key_id),
            ..config.peaq
        };
        let names = PartyNames::new(&set, &home.public_keys()?);
        let request = PeaqPublishRequest {
            dataset: self.dataset.clone().unwrap_or_default(),
            out: absolute(out)?,
            owner_public_key: names.owner,
            operator_public_key: names.operator,
            machine_public_key: names.machine,
            machine_did: names.machine_did,
            machine_key_id: names.key_id,
            any_chunk_size: self.any_chunk_size,
        };
        let known = stream.and_then(|name| config.streams.iter().find(|stream| stream.name() == name));
        self.check(request, known)
    }

    fn check(
        &self,
        request: PeaqPublishRequest,
        stream: Option<&StreamConfig>,
    ) -> Result<PeaqPublishRequest, CliError> {
        files::check_free(&request.out).map_err(told)?;
        let parties = files::parties(request.names()).map_err(told)?;
        if let Some(stream) = stream.filter(|_| !self.any_chunk_size) {
            files::check_chunk_size(&parties, stream.chunk.bytes.into()).map_err(told)?;
        }
        if let Some(stream) = stream.filter(|stream| stream.compression != Compression::None) {
            let name = stream.name();
            let what = format!("the stream {name} compresses, which peaq's tools do not undo");
            return Err(CliError::new(Exit::Usage, what).hint("set `compression: none` for it in the configuration"));
        }
        Ok(request)
    }
}

/// Writes a closed dataset as files for peaq's tools.
pub(super) fn publish(request: &PeaqPublishRequest, context: &Context) -> Result<(), CliError> {
    let bar = context.output.progress_bytes("writing", Some(0));
    let progress = |event: BytesProgress| {
        bar.set_length(event.total.unwrap_or(0));
        bar.set_position(event.bytes);
    };
    let published: PublishedFiles = match context.running()? {
        Some(client) => block_on(async { Ok(client.run("/v1/peaq/publish", request, progress).await?) })?,
        None => context.with_machine(|machine, offline, cancel| {
            let cancelled = || cancel.is_cancelled();
            publish_files(machine, &offline.store, request, &cancelled, progress).map_err(CliError::from)
        })?,
    };
    bar.finish_and_clear();
    context.output.document(&published, |out| {
        let (bytes, chunks) = (show::bytes(published.total_bytes), show::some(published.total_chunks, "chunk"));
        writeln!(out, "Published dataset {} for peaq's tools ({bytes}, {chunks}):", published.dataset)?;
        let mut table = Table::new();
        table
            .row(["  folder", &published.output_dir.display().to_string()])
            .row(["  machine", &published.machine_did])
            .row(["  source hash", &published.source_hash]);
        table.write(out)?;
        let dir = published.output_dir.display();
        writeln!(
            out,
            "\nNext: tributary grant --format peaq --dataset {} --buyer ID --key HEX --out DIR",
            published.dataset
        )?;
        writeln!(out, "      tributary verify {dir}")
    })
}

/// What `grant --format peaq` takes.
#[derive(Debug, Default, Args)]
#[command(next_help_heading = "With --format peaq")]
pub(super) struct GrantFlags {
    /// A folder of published chunks, instead of a dataset of this machine; needs --owner-key
    #[arg(long, value_name = "DIR", requires = "owner_key", conflicts_with_all = ["dataset", "stream"])]
    chunk_dir: Option<PathBuf>,
    /// Longest access file, in bytes by peaq's measure [default: 512000]
    #[arg(long, value_name = "BYTES", value_parser = clap::value_parser!(u32).range(1..))]
    max_file_size: Option<u32>,
}

impl GrantFlags {
    /// The first of these flags that was given.
    pub(super) fn given(&self) -> Option<&'static str> {
        [(self.chunk_dir.is_some(), "--chunk-dir"), (self.max_file_size.is_some(), "--max-file-size")]
            .into_iter()
            .find_map(|(given, name)| given.then_some(name))
    }
}

/// Writes access files for a buyer.
pub(super) fn grant(args: &GrantArgs, context: &Context) -> Result<(), CliError> {
    let flags = &args.peaq;
    let unusable = |source| told(FilesError::Value { what: "the buyer's id or public key", source });
    let (buyer_id, key) = (args.buyer.trim(), args.key.trim());
    let buyer = access::buyer(buyer_id, key).map_err(unusable)?;
    let max_file_size =
        flags.max_file_size.map_or(peaq::DEFAULT_ACCESS_FILE_SIZE, |size| usize::try_from(size).unwrap_or(usize::MAX));
    let out = absolute(&args.out)?;
    let bar = context.output.progress_count("granting", None);
    let granted: GrantedFiles = match (&flags.chunk_dir, &args.owner_key) {
        (Some(dir), Some(file)) => {
            let owner = private_key(file, context)?;
            let cancel = Cancel::default();
            interruptible(&cancel, || {
                let mut tell = |chunks| {
                    bar.set_position(chunks);
                    if cancel.is_cancelled() { Err(FilesError::Cancelled) } else { Ok(()) }
                };
                files::grant_directory(dir, &owner, &buyer, max_file_size, &out, &mut tell).map_err(told)
            })?
        }
        (None, Some(_)) => {
            return Err(CliError::new(Exit::Usage, "the owner's key opens published chunks, and none are named")
                .hint("name their folder with --chunk-dir DIR"));
        }
        _ => {
            let [dataset] = args.selection.dataset.as_slice() else {
                return Err(CliError::new(Exit::Usage, "access files are about one dataset")
                    .hint("name it with --dataset ID, or a folder of published chunks with --chunk-dir DIR"));
            };
            let request = PeaqGrantRequest {
                dataset: dataset.clone(),
                buyer_id: buyer_id.to_owned(),
                buyer_public_key: key.to_owned(),
                max_file_size,
                out,
            };
            let progress = |event: ChunksProgress| bar.set_position(event.chunks);
            match context.running()? {
                Some(client) => block_on(async { Ok(client.run("/v1/peaq/grant", &request, progress).await?) })?,
                None => context.with_machine(|machine, offline, cancel| {
                    let cancelled = || cancel.is_cancelled();
                    grant_files(machine, &offline.store, &request, &cancelled, progress).map_err(CliError::from)
                })?,
            }
        }
    };
    bar.finish_and_clear();
    context.output.document(&granted, |out| {
        let (chunks, files) = (show::some(granted.chunk_count, "chunk"), show::some(granted.file_count, "file"));
        writeln!(out, "Granted {} the keys of {chunks}, in {files}:", granted.buyer_id)?;
        writeln!(out, "  {}", granted.output_dir)?;
        writeln!(out, "\nOnly that buyer can open them. They go to the buyer together with the published folder.")
    })
}

/// A private key: hex as peaq's tools keep it, or an owner key file of ours.
fn private_key(path: &Path, context: &Context) -> Result<BoxSecretKey, CliError> {
    match files::read_key_file(path) {
        Err(refused @ FilesError::KeyFile { .. }) => match Home::read_owner_key(path, context.passphrase()?.as_ref()) {
            Ok(owner) => Ok(BoxSecretKey::from(&owner.encryption)),
            // It is neither; what was asked for first is what most people have.
            Err(HomeError::BadKey { .. } | HomeError::Permissions { .. }) => Err(told(refused)),
            Err(error) => Err(error.into()),
        },
        result => result.map_err(told),
    }
}

/// How a folder of peaq's files is read.
#[derive(Debug, Default, Args)]
#[command(next_help_heading = "For a folder of peaq's files")]
pub(super) struct ReadFlags {
    /// The folder with the buyer's access files
    #[arg(long, value_name = "DIR")]
    access_dir: Option<PathBuf>,
    /// File with a private X25519 key as hex: the buyer's, or the owner's, operator's or machine's [default: this home's, if
    /// there is one and access files are named]
    #[arg(long, value_name = "FILE", visible_alias = "buyer-private-key-file")]
    buyer_key_file: Option<PathBuf>,
    /// Whose entries of the access files are taken [default: those for the private key]
    #[arg(long, value_name = "ID")]
    buyer_id: Option<String>,
    /// The machine's Ed25519 signing key, which you know from elsewhere: files that prove no origin are then taken when it
    /// signed them
    #[arg(long, value_name = "HEX", value_parser = signing_key)]
    trust_key: Option<FeedPublicKey>,
}

fn signing_key(text: &str) -> Result<FeedPublicKey, String> {
    let digits = text.strip_prefix("0x").unwrap_or(text).to_ascii_lowercase();
    digits.parse().map_err(|_| "expected an Ed25519 public key, 64 hex digits".to_owned())
}

impl ReadFlags {
    /// The first of these flags that was given.
    pub(super) fn given(&self) -> Option<&'static str> {
        [
            (self.access_dir.is_some(), "--access-dir"),
            (self.buyer_key_file.is_some(), "--buyer-key-file"),
            (self.buyer_id.is_some(), "--buyer-id"),
            (self.trust_key.is_some(), "--trust-key"),
        ]
        .into_iter()
        .find_map(|(given, name)| given.then_some(name))
    }

    fn key(&self, needed: bool, context: &Context) -> Result<Option<BoxSecretKey>, CliError> {
        match &self.buyer_key_file {
            Some(file) => private_key(file, context).map(Some),
            None if needed || self.access_dir.is_some() => {
                let home = context
                    .home()
                    .map_err(|error| error.hint("name the file with the buyer's private key: --buyer-key-file FILE"))?;
                Ok(Some(BoxSecretKey::from(&*context.keys(&home)?.encryption)))
            }
            None => Ok(None),
        }
    }

    fn check(
        &self,
        dir: &Path,
        machine: Option<Did>,
        key: Option<&BoxSecretKey>,
        out: Option<&mut (dyn std::io::Write + Send)>,
        label: &str,
        context: &Context,
    ) -> Result<FilesReport, CliError> {
        let options = CheckOptions {
            key,
            access: self.access_dir.as_deref(),
            buyer_id: self.buyer_id.as_deref().map(str::trim),
            trust: self.trust_key,
            machine,
        };
        let bar = context.output.progress_count(label, Some(0));
        let cancel = Cancel::default();
        let report = interruptible(&cancel, || {
            let mut tell = |done, total| {
                bar.set_length(total);
                bar.set_position(done);
                if cancel.is_cancelled() { Err(FilesError::Cancelled) } else { Ok(()) }
            };
            let out = out.map(|out| out as &mut dyn std::io::Write);
            files::check(dir, &options, out, &mut tell).map_err(told)
        });
        bar.finish_and_clear();
        report
    }
}

/// Whether `text` means a folder rather than a dataset's id.
pub(super) fn is_directory(text: &str) -> bool {
    let id = text.len() >= 6 && text.bytes().all(|byte| byte.is_ascii_hexdigit());
    let path = Path::new(text);
    text.contains('/') || path.join("manifest.json").exists() || (path.is_dir() && !id)
}

fn write_report(report: &FilesReport, dir: &Path, out: &mut dyn std::io::Write) -> std::io::Result<()> {
    show::steps(&report.steps).write(out)?;
    let (opened, chunks) = (show::count(report.chunks_opened), show::some(report.chunks, "chunk"));
    writeln!(out, "\n{chunks} here, {opened} decrypted.")?;
    let dir = dir.display();
    match (report.verdict, report.machine, report.signer) {
        (Verdict::Proven, Some(did), _) => writeln!(out, "PROVEN: {dir} is what {did} signed."),
        (Verdict::Broken, ..) => writeln!(out, "BROKEN: {}", report.first_failure.as_deref().unwrap_or("see above")),
        (_, _, Some(signer)) if report.pinned => {
            writeln!(out, "CONSISTENT, and every ciphertext is signed by the pinned key {signer}.")
        }
        _ => writeln!(out, "CONSISTENT, origin not proven: whoever can write {dir} can have made it."),
    }
}

/// How a report ends the command. `machine` is the one that was asked for.
fn judged(report: &FilesReport, dir: &Path, machine: Option<Did>) -> Result<(), CliError> {
    let dir = dir.display();
    match report.verdict {
        Verdict::Proven => Ok(()),
        Verdict::Consistent if report.pinned && machine.is_none() => Ok(()),
        Verdict::Consistent => {
            let mut error = CliError::new(Exit::VerificationFailed, format!("the origin of {dir} is not proven"));
            if let Some(signer) = report.signer {
                error = error.cause(format!("the files name their own signing key, {signer}"));
            }
            Err(error.hint(
                "compare that key with one you got from the machine's owner, and pin it with --trust-key HEX; files of \
                 `tributary publish` prove their origin themselves",
            ))
        }
        Verdict::Broken => {
            let mut error = CliError::new(Exit::VerificationFailed, format!("{dir} is broken"));
            error.cause.clone_from(&report.first_failure);
            Err(error.hint("do not use it; get the files again, from the machine's owner if you can"))
        }
    }
}

/// `tributary verify DIR`
pub(super) fn verify(dir: &Path, flags: &ReadFlags, machine: Option<Did>, context: &Context) -> Result<(), CliError> {
    let key = flags.key(false, context)?;
    let report = flags.check(dir, machine, key.as_ref(), None, "verifying", context)?;
    context.output.document(&report, |out| write_report(&report, dir, out))?;
    note_staleness(&report, context);
    judged(&report, dir, machine)
}

/// A binding beyond its life is no fault of the files; but then the machine should have made another, which may take keys back.
fn note_staleness(report: &FilesReport, context: &Context) {
    if let Some(expired) = report.binding_expires_ms.filter(|expires| *expires < system_clock()()) {
        context.output.note(&format!(
            "note: the newest key binding in these files was good until {}; follow the machine to see whether there is another",
            show::time(expired)
        ));
    }
}

/// `tributary export DIR`: the plaintext into the file `out`, which appears unless something is broken.
pub(super) fn export(
    dir: &Path,
    flags: &ReadFlags,
    machine: Option<Did>,
    out: &Path,
    context: &Context,
) -> Result<(), CliError> {
    let shown = out.display();
    let failed = |error| CliError::new(Exit::Failed, format!("{shown} cannot be written")).cause(error);
    if out.is_dir() {
        return Err(CliError::new(Exit::Usage, format!("{shown} is a folder"))
            .hint("the plaintext of a folder of peaq's files is one file; name it with --out FILE"));
    }
    let key = flags.key(true, context)?;
    if let Some(parent) = out.parent().filter(|parent| !parent.as_os_str().is_empty()) {
        std::fs::create_dir_all(parent).map_err(failed)?;
    }
    let mut file = AtomicFile::create(out).map_err(failed)?;
    let report = flags.check(dir, machine, key.as_ref(), Some(&mut file), "exporting", context)?;
    let written = report.verdict != Verdict::Broken;
    if written {
        file.flush().map_err(failed)?;
        file.commit().map_err(failed)?;
    }
    #[derive(serde::Serialize)]
    struct Exported<'a> {
        /// The file, unless something is broken.
        output: Option<&'a Path>,
        #[serde(flatten)]
        report: &'a FilesReport,
    }
    let exported = Exported { output: written.then_some(out), report: &report };
    context.output.document(&exported, |text| {
        write_report(&report, dir, text)?;
        if written {
            writeln!(text, "Wrote {shown} ({}).", show::bytes(report.plaintext_bytes))?;
        }
        Ok(())
    })?;
    judged(&report, dir, machine).map_err(|error| match report.verdict {
        Verdict::Consistent => CliError { what: format!("{shown} was written, but its origin is not proven"), ..error },
        _ => error,
    })
}

/// A flag that has no meaning here.
pub(super) fn misplaced(flag: &str, place: &str) -> CliError {
    Problem::usage(format!("{flag} has no meaning here")).hint(format!("it belongs to {place}")).into()
}
