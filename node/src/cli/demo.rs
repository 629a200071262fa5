//! `tributary demo`: the main job, start to end, on this machine.

use std::path::PathBuf;

use tokio::signal::unix::{SignalKind, signal};

use super::{CliError, Context, Exit, show};
use crate::demo::{self, DemoError, DemoOptions, DemoOutcome, DemoReport, shown, size};

/// `tributary demo`
#[derive(Debug, clap::Args)]
pub struct DemoArgs {
    /// Another recording (.mcap or .db3) than the one that comes with the program
    #[arg(long, value_name = "FILE")]
    recording: Option<PathBuf>,
    /// Where packages.ndjson and data.mcap go
    #[arg(long, value_name = "DIR", default_value = "tributary-demo")]
    out: PathBuf,
    /// Flip one byte of one chunk on its way, and see it refused (exit code 3)
    #[arg(long)]
    tamper: bool,
}

pub(super) fn run(args: &DemoArgs, context: &Context) -> Result<(), CliError> {
    let options = DemoOptions { recording: args.recording.clone(), out: args.out.clone(), tamper: args.tamper };
    let output = context.output;
    let runtime = tokio::runtime::Runtime::new()
        .map_err(|error| CliError::new(Exit::Failed, "the demo cannot start").cause(error))?;
    let mut say = |line: &str| {
        if !output.is_json() {
            output.note(line);
        }
    };
    let ended = runtime.block_on(async {
        // Dropped when a signal comes: that ends the nodes and removes their homes.
        tokio::select! {
            ended = demo::run(&options, &mut say) => Ok(ended),
            signal = interrupted() => Err(signal),
        }
    });
    let ended = match ended {
        Ok(ended) => ended,
        Err(Ok(signal)) => {
            return Err(CliError::new(Exit::Failed, format!("the demo was stopped by {signal}"))
                .hint("its nodes have ended and their homes are removed; run it again from the beginning"));
        }
        Err(Err(error)) => return Err(CliError::new(Exit::Failed, "signals cannot be watched").cause(error)),
    };
    match ended {
        Ok(DemoOutcome::Delivered(report)) => {
            output.document(&report, |out| out.write_all(summary(&report).as_bytes()))
        }
        Ok(DemoOutcome::Refused { flipped, refusal }) => {
            Err(CliError::new(Exit::VerificationFailed, format!("the buyer refused the data: {refusal}"))
                .cause(format!("we {flipped}, as --tamper asks"))
                .hint(
                    "nothing to do: this is how a changed chunk ends; run the demo without --tamper to see it arrive",
                ))
        }
        Err(error) => {
            let code = match error {
                DemoError::Wrong(_) | DemoError::TamperUnnoticed => Exit::Failed,
                DemoError::Recording { .. } => Exit::NotFound,
                _ => Exit::Failed,
            };
            Err(CliError::new(code, "the demo did not end as it should").cause(error))
        }
    }
}

/// Waits for Ctrl-C or SIGTERM, and says which.
async fn interrupted() -> std::io::Result<&'static str> {
    let (mut terminate, mut interrupt) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    Ok(tokio::select! {
        _ = terminate.recv() => "SIGTERM",
        _ = interrupt.recv() => "Ctrl-C",
    })
}

fn rate(bytes: u64, seconds: f64) -> String {
    // Sizes below 2^53 are exact in a float.
    let per_second = bytes as f64 / seconds.max(1e-3) / f64::from(1 << 20);
    format!("{per_second:.1} MiB/s")
}

fn summary(report: &DemoReport) -> String {
    let mut text = String::from("\nA robot's recording has reached its buyer.\n\n");
    let width = report.topics.keys().map(|topic| topic.len()).max().unwrap_or(0).max(5);
    text.push_str(&format!("  {:width$}  {:>8}  {:>8}  protected before it left\n", "topic", "recorded", "arrived"));
    for (topic, line) in &report.topics {
        let note = match (&line.left_out, line.protected.as_slice()) {
            (Some(reason), _) => format!("left out: {reason}"),
            (None, []) => "-".to_owned(),
            (None, protected) => protected.join(", "),
        };
        text.push_str(&format!("  {topic:width$}  {:>8}  {:>8}  {note}\n", line.recorded, line.arrived));
    }
    let DemoReport { messages, ingest_seconds, protected_values, chunks, sealed_bytes, datasets, entries, .. } = report;
    let DemoReport { grants, pulled_chunks, attached_chunks, pulled_bytes, pull_seconds, proven, packages, .. } =
        report;
    let lines = [
        ("ingested", format!("{messages} messages of {} in {ingest_seconds:.2} s", size(report.recording_bytes))),
        ("protected", format!("{protected_values} values removed or replaced by the owner's rules, before signing")),
        (
            "sealed",
            format!(
                "{chunks} chunks, {} of ciphertext, each under a key of its own, in {datasets} datasets",
                size(*sealed_bytes)
            ),
        ),
        ("announced", format!("{entries} signed log entries, received over the feed")),
        ("granted", format!("{grants} grants, sealed to the buyer's key")),
        (
            "pulled",
            format!(
                "{pulled_chunks} chunks, {} at {}; {attached_chunks} small ones had come with the feed",
                size(*pulled_bytes),
                rate(*pulled_bytes, *pull_seconds)
            ),
        ),
        ("verified", format!("{proven} datasets, {packages} packages: proven from {} down", report.machine)),
    ];
    text.push('\n');
    for (name, what) in lines {
        text.push_str(&format!("  {name:9}  {what}\n"));
    }
    text.push_str("\nThe buyer's files:\n");
    for file in &report.files {
        let bytes = std::fs::metadata(file).map_or(0, |meta| meta.len());
        let mcap = file.extension().is_some_and(|extension| extension == "mcap");
        let channels = if mcap { format!(": {}", show::channels(&report.channels)) } else { String::new() };
        text.push_str(&format!("  {} ({}){channels}\n", shown(file), size(bytes)));
    }
    text.push_str(&format!(
        "\nOpen data.mcap in Foxglove. All of it took {:.1} s, and no packet left this machine.\n",
        report.seconds
    ));
    text
}
