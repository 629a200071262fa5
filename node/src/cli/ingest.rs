//! `tributary ingest` and `tributary publish`: data into the machine's streams.

use std::{io, path::PathBuf};

use hyper::body::Bytes;
use tokio_util::io::ReaderStream;

use super::{
    CliError, Context, Exit, Table,
    peaq_files::{FormatArg, PublishFlags, misplaced},
    reach::{block_on, told},
    show,
};
use crate::control::{
    api::{BytesProgress, IngestProgress, IngestRequest, IngestResult, Pace, PublishRequest, Published},
    run_ingest, run_publish,
};

/// `tributary ingest`
#[derive(Debug, clap::Args)]
pub struct IngestArgs {
    /// A recording (.mcap, .db3), a folder of one, an NDJSON file (.ndjson, .jsonl), or - for NDJSON on standard input
    source: PathBuf,
    /// Only this stream; can be given again [default: every stream whose topic is in the source]
    #[arg(long, value_name = "NAME")]
    stream: Vec<String>,
    /// NDJSON: the key whose text is the topic of a line; without it, lines belong to the one stream of --stream
    #[arg(long, value_name = "KEY")]
    topic_field: Option<String>,
    /// NDJSON: the key with the time of a line, RFC 3339 text or nanoseconds since 1970 [default: when it is read]
    #[arg(long, value_name = "KEY")]
    time_field: Option<String>,
    /// A folder with .msg files, for recordings without definitions; can be given again
    #[arg(long, value_name = "DIR")]
    definitions: Vec<PathBuf>,
    /// Close the datasets at the end, so that they can be bought now
    #[arg(long)]
    close: bool,
    /// Play the recording as if it happened now, so many times as fast as it was recorded (0.01 to 1000)
    #[arg(long, value_name = "TIMES", num_args = 0..=1, default_missing_value = "1", require_equals = true)]
    replay: Option<f64>,
    /// With --replay: begin again at the end of the recording, until Ctrl-C
    #[arg(long, requires = "replay")]
    repeat: bool,
}

/// `tributary publish`
#[derive(Debug, clap::Args)]
pub struct PublishArgs {
    /// The file; it becomes one dataset
    #[arg(required_unless_present = "dataset", requires = "stream")]
    file: Option<PathBuf>,
    /// The stream, which has `mode: file`
    #[arg(long, value_name = "NAME", requires = "file")]
    stream: Option<String>,
    /// Publish on the feed only, or also write a folder of files for peaq's tools
    #[arg(long, value_enum, default_value_t, value_name = "FORMAT")]
    format: FormatArg,
    #[command(flatten)]
    peaq: PublishFlags,
}

pub(super) fn absolute(path: &std::path::Path) -> Result<PathBuf, CliError> {
    std::path::absolute(path)
        .map_err(|error| CliError::new(Exit::Usage, format!("{} is not a path", path.display())).cause(error))
}

pub(super) fn ingest(args: &IngestArgs, context: &Context) -> Result<(), CliError> {
    let stdin = args.source.as_os_str() == "-";
    let request = IngestRequest {
        path: if stdin { None } else { Some(absolute(&args.source)?) },
        streams: args.stream.clone(),
        topic_field: args.topic_field.clone(),
        time_field: args.time_field.clone(),
        definitions: args.definitions.iter().map(|path| absolute(path)).collect::<Result<_, _>>()?,
        close: args.close,
        pace: args.replay.map(|speed| Pace { speed, repeat: args.repeat }),
    };
    if request.pace.is_some_and(|pace| stdin || !pace.is_valid()) {
        return Err(CliError::new(
            Exit::Usage,
            "--replay plays a recording 0.01 to 1000 times as fast as it was recorded",
        )
        .hint("give the path of a recording, and a speed such as --replay=2"));
    }
    let bar = context.output.progress_count("ingesting", None);
    let result: IngestResult = match context.running()? {
        Some(client) => {
            let progress = |event: IngestProgress| bar.set_position(event.messages);
            block_on(async {
                Ok(if stdin {
                    client.run_with_lines("/v1/ingest/lines", lines(&request)?, progress).await?
                } else {
                    client.run("/v1/ingest", &request, progress).await?
                })
            })?
        }
        None => context.offline_machine(|machine, offline, cancel| {
            let input = stdin.then(|| Box::new(io::stdin()) as Box<dyn io::Read + Send>);
            let progress = |event: IngestProgress| bar.set_position(event.messages);
            let streams = &offline.config.streams;
            let result = run_ingest(machine, streams, &request, input, cancel, progress).map_err(told);
            // Whatever was read is sealed and durable before the command ends.
            let ended = machine.shutdown().map_err(told);
            match result {
                // The summary names the streams that stopped, and why.
                Ok(result) if !result.summary.is_clean() => Ok(result),
                Ok(result) => ended.map(|()| result),
                Err(error) => Err(error),
            }
        })?,
    };
    bar.finish_and_clear();
    context.output.document(&result, |out| {
        let mut table = Table::new();
        table.row(["TOPIC", "MESSAGES", "UNREADABLE", "NOTE"]);
        for (topic, found) in &result.summary.topics {
            let note = match (&found.trouble, found.mapped) {
                (Some(trouble), _) => trouble.as_str(),
                (None, false) => "no stream takes it",
                (None, true) => "",
            };
            table.row([topic.as_str(), &show::count(found.messages), &show::count(found.unreadable), note]);
        }
        table.write(out)?;
        for damage in &result.summary.damaged {
            writeln!(out, "damaged: {damage}")?;
        }
        for dataset in &result.closed {
            writeln!(out, "closed dataset {dataset}")?;
        }
        writeln!(out, "\n{} sealed and stored.", show::some(result.messages, "message"))
    })?;
    if result.cancelled {
        return Err(CliError::new(Exit::Failed, "the ingest was cut off").hint("what was read before is stored"));
    }
    if !result.summary.is_clean() {
        let troubled =
            result.summary.topics.iter().filter(|(_, found)| found.trouble.is_some() || found.unreadable > 0);
        let names: Vec<&str> = troubled.map(|(topic, _)| topic.as_str()).collect();
        let mut error = CliError::new(Exit::Failed, "not everything in the source could be ingested");
        if names.is_empty() {
            error = error.cause("the source is damaged");
        } else {
            error = error.cause(format!("trouble with {}", names.join(", ")));
        }
        return Err(
            error.hint("the table above says what; see field by field with `tributary rules test --recording FILE`")
        );
    }
    Ok(())
}

/// Standard input as the body of a request, which starts with a line that says how the others are meant.
fn lines(
    request: &IngestRequest,
) -> Result<impl futures::Stream<Item = io::Result<Bytes>> + Send + Sync + 'static, CliError> {
    use futures::StreamExt as _;
    let mut first = serde_json::to_vec(request)
        .map_err(|error| CliError::new(Exit::Failed, "the request could not be written").cause(error))?;
    first.push(b'\n');
    let head = futures::stream::once(std::future::ready(Ok(Bytes::from(first))));
    Ok(head.chain(ReaderStream::with_capacity(tokio::io::stdin(), 64 << 10)))
}

pub(super) fn publish(args: &PublishArgs, context: &Context) -> Result<(), CliError> {
    if let (FormatArg::Tributary, Some(flag)) = (args.format, args.peaq.given()) {
        return Err(misplaced(flag, "--format peaq"));
    }
    let mut files = match args.format {
        FormatArg::Tributary => None,
        // Before anything is published: what cannot be written must not leave a dataset behind.
        FormatArg::Peaq => Some(args.peaq.request(args.stream.as_deref(), context)?),
    };
    if let (Some(file), Some(stream)) = (&args.file, &args.stream) {
        let published = publish_file(file, stream, context)?;
        match &mut files {
            Some(request) => request.dataset = published.dataset.to_string(),
            None => {
                return context.output.document(&published, |out| {
                    let (bytes, chunks) = (show::bytes(published.bytes), show::some(published.chunks.into(), "chunk"));
                    let (file, dataset) = (file.display(), published.dataset);
                    writeln!(out, "Published {file} as dataset {dataset} ({bytes}, {chunks}).")
                });
            }
        }
    }
    let Some(request) = files else { return Ok(()) };
    super::peaq_files::publish(&request, context).map_err(|error| match (&args.file, &error.hint) {
        // The dataset is sealed and stays; only the files are missing.
        (Some(_), None) => {
            let (dataset, out) = (&request.dataset, request.out.display());
            error.hint(format!(
                "write the files again with `tributary publish --dataset {dataset} --format peaq --out {out}`"
            ))
        }
        _ => error,
    })
}

fn publish_file(file: &std::path::Path, stream: &str, context: &Context) -> Result<Published, CliError> {
    let request = PublishRequest { path: absolute(file)?, stream: stream.to_owned() };
    let length = std::fs::metadata(&request.path).ok().map(|metadata| metadata.len());
    let bar = context.output.progress_bytes("publishing", length);
    let result: Published = match context.running()? {
        Some(client) => block_on(async {
            let progress = |event: BytesProgress| bar.set_position(event.bytes);
            Ok(client.run("/v1/publish", &request, progress).await?)
        })?,
        None => context.with_machine(|machine, _, cancel| {
            let progress = |event: BytesProgress| bar.set_position(event.bytes);
            run_publish(machine, &request, cancel, progress).map_err(told)
        })?,
    };
    bar.finish_and_clear();
    Ok(result)
}
