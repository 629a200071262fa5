//! A machine with an ingest source of its own: here, lines of `key=value` as a simple sensor writes them.
//!
//! ```sh
//! cargo run -p tributary-examples --bin custom_source -- /tmp/station readings.txt
//! ```
//!
//! Reads the file, publishes its lines on `/weather` as one dataset, prints the link to the feed, and serves it until Ctrl-C.

#![expect(clippy::print_stdout, reason = "this is a command")]

use std::{
    collections::BTreeMap,
    error::Error,
    fs::File,
    io::{BufRead as _, BufReader},
    path::{Path, PathBuf},
    sync::Arc,
};

use tokio::signal::unix::{SignalKind, signal};
use tributary::{
    Node,
    ingest::{IngestError, Source, SourceItem, SourceMessage},
};
use tributary_protocol::rules::native::SchemaPaths;

const TOPIC: &str = "/weather";
const CONFIG: &str = "
roles: [machine]
network: { listen: [/ip4/127.0.0.1/tcp/0] }
streams:
  - { topic: /weather, mode: fields, default: include, chunk: { max_age: 200ms }, access: { policy: free } }
";

/// Yields a message for each line. What is no line of `key=value` is left out by name; it never ends the source.
struct Readings {
    path: PathBuf,
    lines: std::io::Lines<BufReader<File>>,
    number: u64,
}

impl Readings {
    fn open(path: &Path) -> Result<Self, IngestError> {
        let file = File::open(path).map_err(|source| IngestError::Io { path: path.to_owned(), source })?;
        Ok(Self { path: path.to_owned(), lines: BufReader::new(file).lines(), number: 0 })
    }

    fn message(line: &str) -> Result<SourceMessage, String> {
        let mut fields = BTreeMap::new();
        for part in line.split_whitespace() {
            let (key, value) = part.split_once('=').ok_or_else(|| format!("{part:?} is not key=value"))?;
            fields.insert(key, value.parse::<f64>().map_err(|_| format!("{value:?} is no number"))?);
        }
        SourceMessage::of(TOPIC, &fields)
    }
}

impl Source for Readings {
    fn next(&mut self) -> Result<Option<SourceItem>, IngestError> {
        let Some(line) = self.lines.next() else { return Ok(None) };
        let line = line.map_err(|source| IngestError::Io { path: self.path.clone(), source })?;
        self.number += 1;
        Ok(Some(match Self::message(&line) {
            Ok(message) => SourceItem::Message(message),
            Err(reason) => {
                SourceItem::Dropped { topic: Arc::from(TOPIC), reason: format!("line {}: {reason}", self.number) }
            }
        }))
    }

    /// Nothing is known of the fields before they come.
    fn schema_paths(&self, _topic: &str) -> Option<SchemaPaths> {
        None
    }
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let mut interrupt = signal(SignalKind::interrupt())?;
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [home, readings] = arguments.as_slice() else { return Err("usage: custom_source HOME FILE".into()) };
    let node = Node::builder(home).config(CONFIG).create_home().start().await?;
    println!("{}", node.links().await?.first().ok_or("the node has no address")?);

    // Durable when this returns: a source is read on a thread of its own, and waits for the disk.
    let summary = node.ingest(Box::new(Readings::open(Path::new(readings))?), |_| {}).await?;
    let unreadable: u64 = summary.topics.values().map(|topic| topic.unreadable).sum();
    println!("{} messages, {unreadable} lines left out", summary.messages());

    interrupt.recv().await;
    node.shutdown().await?;
    Ok(())
}
