//! Work of the selling side, the same whether a command does it itself or asks a running node.

use std::{
    fs::File,
    io::{self, Read},
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use tributary_protocol::rules::native::SchemaPaths;

use super::api::{
    BytesProgress, IngestProgress, IngestRequest, IngestResult, IngestSummary, Problem, PublishRequest, Published,
};
use crate::{
    config::{Mode, StreamConfig},
    ingest::{self, IngestError, IngestOptions, NdjsonSource, Replay, Source, SourceItem, TopicFilter, TopicTest},
    machine::Machine,
};

/// Ends work early. Clones share it.
#[derive(Debug, Clone, Default)]
pub(crate) struct Cancel(Arc<AtomicBool>);

impl Cancel {
    /// Asks the work to end.
    pub(crate) fn cancel(&self) {
        self.0.store(true, Ordering::Relaxed);
    }

    /// Whether it should end.
    pub(crate) fn is_cancelled(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}

/// A source that ends when it is cancelled.
struct Cancellable<'a> {
    source: Box<dyn Source + Send>,
    cancel: &'a Cancel,
}

impl Source for Cancellable<'_> {
    fn next(&mut self) -> Result<Option<SourceItem>, IngestError> {
        if self.cancel.is_cancelled() { Ok(None) } else { self.source.next() }
    }

    fn schema_paths(&self, topic: &str) -> Option<SchemaPaths> {
        self.source.schema_paths(topic)
    }
}

/// The stream that takes messages of `topic`: the one that names it, or that of the first pattern that means it.
fn stream_of(streams: &[StreamConfig], topic: &str) -> Option<StreamConfig> {
    if let Some(named) = streams.iter().find(|stream| stream.topic == topic) {
        return Some(named.clone());
    }
    let meant = streams.iter().find(|stream| stream.pattern().is_some_and(|pattern| pattern.matches(topic)));
    meant.map(|stream| stream.for_topic(topic))
}

/// The streams that an ingest is for. A name may be that of one topic that a pattern means.
fn wanted(streams: &[StreamConfig], names: &[String]) -> Result<Vec<StreamConfig>, Problem> {
    let known = || streams.iter().map(StreamConfig::name).collect::<Vec<_>>().join(", ");
    if streams.is_empty() {
        return Err(Problem::usage("this machine has no streams")
            .hint("write them under `streams` into the configuration; examples/tributary.yaml shows how"));
    }
    let mut found = Vec::new();
    for name in names {
        let stream = streams.iter().find(|stream| stream.name() == name).cloned();
        let stream = stream.or_else(|| stream_of(streams, name).filter(|stream| stream.name() == name));
        found.push(stream.ok_or_else(|| {
            Problem::not_found(format!("no stream {name:?} in the configuration"))
                .hint(format!("there are: {}", known()))
        })?);
    }
    if names.is_empty() {
        found.extend(streams.iter().cloned());
    }
    if let Some(stream) = found.iter().find(|stream| !names.is_empty() && stream.mode == Mode::File) {
        return Err(Problem::usage(format!("the stream {} takes files, not messages", stream.name()))
            .hint(format!("run `tributary publish FILE --stream {}`", stream.name())));
    }
    found.retain(|stream| stream.mode != Mode::File);
    Ok(found)
}

/// How a source is read for `request`.
pub(crate) fn ingest_options(streams: &[StreamConfig], request: &IngestRequest) -> Result<IngestOptions, Problem> {
    let wanted = wanted(streams, &request.streams)?;
    let mut options = IngestOptions {
        topics: those(streams, &wanted, |_| true),
        raw: those(streams, &wanted, |stream| stream.mode == Mode::Raw),
        definition_dirs: request.definitions.clone(),
        ..IngestOptions::default()
    };
    options.ndjson.topic_field.clone_from(&request.topic_field);
    options.ndjson.time_field.clone_from(&request.time_field);
    // Lines that name no topic go to the one stream that was named, or the only one there is.
    if let [only] = wanted.as_slice()
        && only.pattern().is_none()
    {
        options.ndjson.topic.clone_from(&only.topic);
        options.ndjson.type_name = only.message_type.clone().unwrap_or_default();
    }
    Ok(options)
}

/// The topics that the wanted streams take, as far as `also` agrees with the stream that takes them.
fn those(streams: &[StreamConfig], wanted: &[StreamConfig], also: fn(&StreamConfig) -> bool) -> TopicFilter {
    let (streams, wanted) = (streams.to_vec(), wanted.to_vec());
    TopicFilter::Where(TopicTest::new(move |topic| {
        let Some(stream) = stream_of(&streams, topic) else { return false };
        let is_wanted = |own: &StreamConfig| match own.pattern() {
            // The pattern has the topic unless another stream does.
            Some(pattern) => pattern.matches(topic) && own.for_topic(topic) == stream,
            None => own.topic == topic,
        };
        also(&stream) && wanted.iter().any(is_wanted)
    }))
}

/// Opens the source of `request`, or `lines` in its place. Blocks.
pub(crate) fn open_source(
    streams: &[StreamConfig],
    request: &IngestRequest,
    lines: Option<Box<dyn Read + Send>>,
) -> Result<Box<dyn Source + Send>, Problem> {
    let options = ingest_options(streams, request)?;
    match (lines, &request.path) {
        (Some(lines), _) => {
            let wanted = wanted(streams, &request.streams)?;
            let is_said = wanted.len() == 1 && wanted.iter().all(|stream| stream.pattern().is_none());
            if !is_said && request.topic_field.is_none() {
                return Err(ambiguous());
            }
            Ok(Box::new(NdjsonSource::new(lines, Path::new("standard input"), &options)))
        }
        (None, Some(path)) => Ok(match request.pace {
            Some(pace) => Box::new(Replay::open(path, &options, pace)?),
            None => ingest::open(path, &options)?,
        }),
        (None, None) => Err(Problem::usage("no source was named").hint("give the path of a recording, or lines")),
    }
}

/// What is left to do when a source has been read: datasets are closed if that was asked for. Blocks.
pub(crate) fn finish_ingest(
    machine: &Machine,
    streams: &[StreamConfig],
    request: &IngestRequest,
    summary: IngestSummary,
    cancelled: bool,
) -> Result<IngestResult, Problem> {
    let mut closed = Vec::new();
    if request.close {
        for (topic, _) in summary.topics.iter().filter(|(_, topic)| topic.messages > 0) {
            if let Some(stream) = stream_of(streams, topic) {
                closed.extend(machine.close_datasets(Some(stream.name()))?);
            }
        }
    }
    let messages = summary.messages();
    if !cancelled && !summary.topics.values().any(|topic| topic.mapped) {
        let name = request.path.as_ref().map_or_else(|| "standard input".into(), |path| path.display().to_string());
        let known: Vec<&str> = streams.iter().map(|stream| stream.topic.as_str()).collect();
        return Err(Problem::not_found(format!("{name} holds nothing for any stream"))
            .cause(format!("the Data Event Map takes the topics {}", known.join(", ")))
            .hint("compare them with `tributary rules test --recording FILE`; name the stream of NDJSON lines with --stream; publish any other file with `tributary publish`"));
    }
    Ok(IngestResult { summary, messages, closed, cancelled })
}

/// Reads the source of `request`, or `lines` in its place, into the machine's streams. Blocks.
pub(crate) fn run_ingest(
    machine: &Machine,
    streams: &[StreamConfig],
    request: &IngestRequest,
    lines: Option<Box<dyn Read + Send>>,
    cancel: &Cancel,
    progress: impl FnMut(IngestProgress),
) -> Result<IngestResult, Problem> {
    let mut source = Cancellable { source: open_source(streams, request, lines)?, cancel };
    let summary = machine.ingest(&mut source, progress)?;
    finish_ingest(machine, streams, request, summary, cancel.is_cancelled())
}

fn ambiguous() -> Problem {
    Problem::usage("which stream the lines are for is not said")
        .hint("name it with --stream, or give --topic-field KEY when every line has its topic")
}

/// A file that ends with an error when it is cancelled: half of it must not look like all of it.
struct CancellableFile<'a> {
    file: File,
    cancel: &'a Cancel,
}

impl Read for CancellableFile<'_> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        if self.cancel.is_cancelled() {
            return Err(io::Error::other("cancelled"));
        }
        self.file.read(buf)
    }
}

/// The length of a regular file; anything else is refused. Blocks.
pub(crate) fn regular_file(path: &Path) -> Result<u64, Problem> {
    let metadata = std::fs::metadata(path).map_err(|source| IngestError::Io { path: path.to_owned(), source })?;
    if !metadata.is_file() {
        let name = path.display();
        return Err(Problem::usage(format!("{name} is not a regular file")).hint("publish one file at a time"));
    }
    Ok(metadata.len())
}

/// Publishes a file. Blocks.
pub(crate) fn run_publish(
    machine: &Machine,
    request: &PublishRequest,
    cancel: &Cancel,
    mut progress: impl FnMut(BytesProgress),
) -> Result<Published, Problem> {
    let path = &request.path;
    let total = Some(regular_file(path)?);
    let file = File::open(path).map_err(|source| IngestError::Io { path: path.clone(), source })?;
    let mut file = CancellableFile { file, cancel };
    Ok(machine.publish(&request.stream, &mut file, path, |bytes| progress(BytesProgress { bytes, total }))?)
}
