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

use super::api::{BytesProgress, IngestProgress, IngestRequest, IngestResult, Problem, PublishRequest, Published};
use crate::{
    config::{Mode, StreamConfig},
    ingest::{self, IngestError, IngestOptions, NdjsonSource, Source, SourceItem, TopicFilter},
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

/// The streams that an ingest is for.
fn wanted<'a>(streams: &'a [StreamConfig], names: &[String]) -> Result<Vec<&'a StreamConfig>, Problem> {
    let known = || streams.iter().map(StreamConfig::name).collect::<Vec<_>>().join(", ");
    if streams.is_empty() {
        return Err(Problem::usage("this machine has no streams")
            .hint("write them under `streams` into the configuration; examples/tributary.yaml shows how"));
    }
    let mut found = Vec::new();
    for name in names {
        let stream = streams.iter().find(|stream| stream.name() == name);
        found.push(stream.ok_or_else(|| {
            Problem::not_found(format!("no stream {name:?} in the configuration")).hint(format!("there are: {}", known()))
        })?);
    }
    if names.is_empty() {
        found.extend(streams);
    }
    for stream in found.iter().filter(|stream| !names.is_empty() && stream.mode == Mode::File) {
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
        topics: TopicFilter::Only(wanted.iter().map(|stream| stream.topic.clone()).collect()),
        raw: TopicFilter::Only(
            wanted.iter().filter(|stream| stream.mode == Mode::Raw).map(|stream| stream.topic.clone()).collect(),
        ),
        definition_dirs: request.definitions.clone(),
        ..IngestOptions::default()
    };
    options.ndjson.topic_field.clone_from(&request.topic_field);
    options.ndjson.time_field.clone_from(&request.time_field);
    // Lines that name no topic go to the one stream that was named, or the only one there is.
    if let [only] = wanted.as_slice() {
        options.ndjson.topic.clone_from(&only.topic);
        options.ndjson.type_name = only.message_type.clone().unwrap_or_default();
    }
    Ok(options)
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
    let options = ingest_options(streams, request)?;
    let one = wanted(streams, &request.streams)?.len() == 1;
    let (source, name): (Box<dyn Source + Send>, String) = match (lines, &request.path) {
        (Some(lines), _) => {
            if !one && request.topic_field.is_none() {
                return Err(ambiguous());
            }
            (Box::new(NdjsonSource::new(lines, Path::new("standard input"), &options)), "standard input".to_owned())
        }
        (None, Some(path)) => (ingest::open(path, &options)?, path.display().to_string()),
        (None, None) => return Err(Problem::usage("no source was named").hint("give the path of a recording, or lines")),
    };
    let mut source = Cancellable { source, cancel };
    let summary = machine.ingest(&mut source, progress)?;
    let mut closed = Vec::new();
    if request.close {
        for stream in wanted(streams, &request.streams)? {
            let touched = summary.topics.get(&stream.topic).is_some_and(|topic| topic.messages > 0);
            if touched {
                closed.extend(machine.close_datasets(Some(stream.name()))?);
            }
        }
    }
    let messages = summary.messages();
    let cancelled = cancel.is_cancelled();
    let nothing_mapped = !summary.topics.values().any(|topic| topic.mapped);
    if messages == 0 && nothing_mapped && !cancelled {
        let known: Vec<&str> = streams.iter().map(|stream| stream.topic.as_str()).collect();
        return Err(Problem::not_found(format!("{name} holds nothing for any stream"))
            .cause(format!("the Data Event Map takes the topics {}", known.join(", ")))
            .hint("compare them with `tributary rules test --recording FILE`; name the stream of NDJSON lines with --stream; publish any other file with `tributary publish`"));
    }
    Ok(IngestResult { summary, messages, closed, cancelled })
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

/// Publishes a file. Blocks.
pub(crate) fn run_publish(
    machine: &Machine,
    request: &PublishRequest,
    cancel: &Cancel,
    mut progress: impl FnMut(BytesProgress),
) -> Result<Published, Problem> {
    let path = &request.path;
    let failed = |source| IngestError::Io { path: path.clone(), source };
    let file = File::open(path).map_err(failed)?;
    let metadata = file.metadata().map_err(failed)?;
    if !metadata.is_file() {
        let name = path.display();
        return Err(Problem::usage(format!("{name} is not a regular file")).hint("publish one file at a time"));
    }
    let total = Some(metadata.len());
    let mut file = CancellableFile { file, cancel };
    Ok(machine.publish(&request.stream, &mut file, path, |bytes| progress(BytesProgress { bytes, total }))?)
}
