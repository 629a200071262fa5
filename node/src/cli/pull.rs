//! `tributary pull`, `verify` and `export`: from a feed to files.

use std::path::PathBuf;

use clap::ValueEnum;
use tributary_protocol::ids::Did;

use super::{
    CliError, Context, Exit,
    ingest::absolute,
    peaq_files::{ReadFlags, is_directory, misplaced},
    reach::{block_on, told},
    selection::SelectionArgs,
    show,
};
use crate::{
    buyer::Buyer,
    control::{
        Target,
        api::{
            ExportFormat, ExportRequest, ExportResult, PullProgress, PullReport, PullRequest, Report, Stage, Verdict,
            VerifyRequest,
        },
        export_all, verify_dataset,
    },
    feeds::{Feeds, FeedsOptions, SourceCounts},
    machine::system_clock,
};

/// `tributary pull`
#[derive(Debug, clap::Args)]
pub struct PullArgs {
    #[command(flatten)]
    selection: SelectionArgs,
}

/// `tributary verify`
#[derive(Debug, clap::Args)]
pub struct VerifyArgs {
    /// The dataset, by its id or at least 6 digits of it; or a folder that `tributary publish --format peaq` or `peaqos stream
    /// publish` made
    #[arg(value_name = "DATASET|DIR")]
    dataset: String,
    /// The machine that a folder must be of
    #[arg(long, value_name = "DID", help_heading = "For a folder of peaq's files")]
    machine: Option<Did>,
    #[command(flatten)]
    files: ReadFlags,
}

/// `tributary export`
#[derive(Debug, clap::Args)]
pub struct ExportArgs {
    /// A folder that `tributary publish --format peaq` or `peaqos stream publish` made, instead of datasets
    dir: Option<PathBuf>,
    #[command(flatten)]
    selection: SelectionArgs,
    /// What to write [default: ndjson and mcap for packages, file for files]
    #[arg(long, value_enum, value_delimiter = ',', value_name = "FORMAT")]
    format: Vec<FormatArg>,
    /// The folder to write into, made if it is not there; for a folder of peaq's files the file to write
    #[arg(long, value_name = "PATH", visible_alias = "output")]
    out: PathBuf,
    #[command(flatten)]
    files: ReadFlags,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum FormatArg {
    /// Package lines as they were signed, blobs beside them
    Ndjson,
    /// MCAP, for Foxglove and other robotics tools
    Mcap,
    /// The bytes of a file as they are
    File,
}

impl From<FormatArg> for ExportFormat {
    fn from(format: FormatArg) -> Self {
        match format {
            FormatArg::Ndjson => Self::Ndjson,
            FormatArg::Mcap => Self::Mcap,
            FormatArg::File => Self::File,
        }
    }
}

pub(super) fn pull(args: &PullArgs, context: &Context) -> Result<(), CliError> {
    let client = context.node()?;
    let request = PullRequest { selection: args.selection.request(system_clock()())? };
    let bar = context.output.progress_bytes("pulling", Some(0));
    let report: PullReport = block_on(async {
        let progress = |event: PullProgress| {
            bar.set_length(event.total_bytes);
            bar.set_position(event.bytes);
        };
        Ok(client.run("/v1/pull", &request, progress).await?)
    })?;
    bar.finish_and_clear();
    context.output.document(&report, |out| {
        let (chunks, size) = (show::some(report.chunks, "chunk"), show::bytes(report.bytes));
        writeln!(
            out,
            "Pulled {chunks} ({size}) in {:.1} s; {} were here already.",
            report.seconds,
            show::count(report.skipped)
        )?;
        let brought = |source: &&SourceCounts| source.chunks > 0;
        if report.sources.len() > 1 {
            for source in report.sources.iter().filter(brought) {
                writeln!(
                    out,
                    "  {} from {} ({})",
                    show::some(source.chunks, "chunk"),
                    source.peer,
                    show::bytes(source.bytes)
                )?;
            }
        }
        for source in &report.sources {
            if let Some(said) = &source.said {
                writeln!(out, "  {} was given up: {said}", source.peer)?;
            }
        }
        if report.not_granted > 0 {
            writeln!(
                out,
                "{} were not asked for: their keys were not granted.",
                show::some(report.not_granted, "chunk")
            )?;
        }
        if !report.complete {
            writeln!(out, "The machine is still writing: this is what was announced so far. Pull again for the rest.")?;
        }
        writeln!(out, "\nNext: check them with `tributary verify`, write them into files with `tributary export`.")
    })
}

pub(super) fn verify(args: &VerifyArgs, context: &Context) -> Result<(), CliError> {
    if is_directory(&args.dataset) {
        return super::peaq_files::verify(std::path::Path::new(&args.dataset), &args.files, args.machine, context);
    }
    if let Some(flag) = args.files.given().or(args.machine.map(|_| "--machine")) {
        return Err(misplaced(flag, "a folder of peaq's files"));
    }
    let report: Report = match context.running()? {
        Some(client) => block_on(async {
            let request = VerifyRequest { dataset: args.dataset.clone() };
            Ok(client.run("/v1/verify", &request, |_: Stage| {}).await?)
        })?,
        None => {
            let offline = context.offline()?;
            let keys = context.keys(&offline.home)?;
            let report = block_on(async {
                let buyer = offline.buyer(&keys)?;
                verify_dataset(&offline.store, &buyer, &args.dataset).await.map_err(CliError::from)
            });
            offline.close()?;
            report?
        }
    };
    context.output.document(&report, |out| {
        show::steps(&report.steps).write(out)?;
        let (opened, held, chunks) = (report.chunks_opened, report.chunks_held, report.chunks);
        writeln!(
            out,
            "\n{} of {} here, {} decrypted, {} checked.",
            show::count(held),
            show::some(chunks, "chunk"),
            show::count(opened),
            show::some(report.packages_verified, "package")
        )?;
        match report.verdict {
            Verdict::Proven if report.complete => {
                writeln!(out, "PROVEN: dataset {} is what {} signed.", report.dataset, report.did)
            }
            Verdict::Proven => writeln!(
                out,
                "PROVEN SO FAR: what is here of dataset {} is what {} signed. The machine is still writing it: how much there \
                 will be is not known.",
                report.dataset, report.did
            ),
            Verdict::Consistent => writeln!(out, "CONSISTENT, origin not proven: nothing links it to {}.", report.did),
            Verdict::Broken => writeln!(out, "BROKEN: {}", report.first_failure.as_deref().unwrap_or("see above")),
        }
    })?;
    match report.verdict {
        Verdict::Proven => Ok(()),
        Verdict::Consistent => Err(CliError::new(Exit::VerificationFailed, "the origin of the data is not proven")
            .hint(
                "follow the machine with `tributary subscribe LINK`, so that its key bindings come, and verify again",
            )),
        Verdict::Broken => {
            let mut error = CliError::new(Exit::VerificationFailed, format!("dataset {} is broken", report.dataset));
            error.cause = report.first_failure;
            Err(error.hint("do not use it; if only the copy here is damaged, `tributary store check --repair` and a new pull mend it"))
        }
    }
}

pub(super) fn export(args: &ExportArgs, context: &Context) -> Result<(), CliError> {
    if let Some(dir) = &args.dir {
        let selection = SelectionArgs { machine: None, ..args.selection.clone() };
        let datasets = (!selection.dataset.is_empty()).then_some("--dataset");
        let format = (!args.format.is_empty()).then_some("--format");
        if let Some(flag) = datasets.or(selection.beyond_datasets()).or(format) {
            return Err(misplaced(flag, "an export of datasets"));
        }
        return super::peaq_files::export(dir, &args.files, args.selection.machine, &args.out, context);
    }
    if let Some(flag) = args.files.given() {
        return Err(misplaced(flag, "a folder of peaq's files"));
    }
    let request = ExportRequest {
        selection: args.selection.request(system_clock()())?,
        formats: args.format.iter().copied().map(ExportFormat::from).collect(),
        out: absolute(&args.out)?,
    };
    let bar = context.output.progress_count("exporting", None);
    let tell = |stage: Stage| bar.set_message(stage.stage);
    let result: ExportResult = match context.running()? {
        Some(client) => block_on(async { Ok(client.run("/v1/export", &request, tell).await?) })?,
        None => {
            let offline = context.offline()?;
            let keys = context.keys(&offline.home)?;
            let result = block_on(async {
                let buyer = offline.buyer(&keys)?;
                let target = Target::find(&offline.store, &keys.identity.did(), &request.selection)?;
                export_all(&buyer, &target, &request, tell).await.map_err(CliError::from)
            });
            offline.close()?;
            result?
        }
    };
    bar.finish_and_clear();
    context.output.document(&result, |out| {
        let (packages, size) = (show::some(result.report.packages, "package"), show::bytes(result.report.bytes));
        writeln!(out, "{}: {packages}, {size}", show::some(result.datasets.len() as u64, "dataset"))?;
        for file in &result.report.files {
            write!(out, "  {} ({})", file.path.display(), show::bytes(file.bytes))?;
            match file.format {
                ExportFormat::Mcap => writeln!(out, ": {}", show::channels(&result.report.channels))?,
                _ => writeln!(out)?,
            }
        }
        for channel in &result.report.channels {
            if let Some(reason) = &channel.reason {
                writeln!(out, "  {} is JSON: {reason}", channel.topic)?;
            }
        }
        if !result.report.complete {
            writeln!(
                out,
                "\nThe machine is still writing a dataset: this is what was here of it. Export again for the rest."
            )?;
        }
        Ok(())
    })
}

/// Turns what opening the buying side says into the end of a command.
impl super::reach::Offline {
    /// The buying side, without a network. Call it on a runtime.
    pub(super) fn buyer(&self, keys: &crate::home::MachineKeys) -> Result<Buyer, CliError> {
        let did = keys.identity.did();
        let feeds = Feeds::open(FeedsOptions { did, store: self.store.clone(), net: None, clock: system_clock() });
        feeds.and_then(|feeds| Buyer::open(keys, feeds)).map_err(told)
    }
}
