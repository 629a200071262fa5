//! `tributary pull`, `verify` and `export`: from a feed to files.

use std::path::PathBuf;

use clap::ValueEnum;

use super::{
    CliError, Context, Exit, Table,
    ingest::absolute,
    reach::{block_on, told},
    selection::SelectionArgs,
    show,
};
use crate::{
    control::{
        Target,
        api::{
            ExportFormat, ExportRequest, ExportResult, PullProgress, PullReport, PullRequest, Report, Stage, StepState,
            Verdict, VerifyRequest,
        },
        export_all, verify_dataset,
    },
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
    /// The dataset, by its id or at least 6 digits of it
    dataset: String,
}

/// `tributary export`
#[derive(Debug, clap::Args)]
pub struct ExportArgs {
    #[command(flatten)]
    selection: SelectionArgs,
    /// What to write [default: ndjson and mcap for packages, file for files]
    #[arg(long, value_enum, value_delimiter = ',', value_name = "FORMAT")]
    format: Vec<FormatArg>,
    /// The folder to write into; made if it is not there
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
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
        if report.not_granted > 0 {
            writeln!(
                out,
                "{} were not asked for: their keys were not granted.",
                show::some(report.not_granted, "chunk")
            )?;
        }
        writeln!(out, "\nNext: check them with `tributary verify`, write them into files with `tributary export`.")
    })
}

pub(super) fn verify(args: &VerifyArgs, context: &Context) -> Result<(), CliError> {
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
        let mut table = Table::new();
        for step in &report.steps {
            let state = match step.state {
                StepState::Passed => "ok",
                StepState::Partial => "partly",
                StepState::Skipped => "skipped",
                StepState::Failed => "FAILED",
            };
            table.row([step.name.as_str(), state, &step.detail]);
        }
        table.write(out)?;
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
            Verdict::Proven => writeln!(out, "PROVEN: dataset {} is what {} signed.", report.dataset, report.did),
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
            writeln!(out, "  {} ({})", file.path.display(), show::bytes(file.bytes))?;
        }
        Ok(())
    })
}

/// Turns what opening the buying side says into the end of a command.
impl super::reach::Offline {
    /// The buying side, without a network. Call it on a runtime.
    pub(super) fn buyer(&self, keys: &crate::home::MachineKeys) -> Result<crate::buyer::Buyer, CliError> {
        crate::buyer::Buyer::open(crate::buyer::BuyerOptions {
            keys,
            store: self.store.clone(),
            net: None,
            clock: system_clock(),
        })
        .map_err(told)
    }
}
