//! From durable at the machine to plaintext at a live buyer, against bare gossipsub with messages of the same size.
//!
//! Machine and buyer are whole nodes in this process, so that one clock has both ends. It begins where the machine's store says that
//! an entry is durable, which a trace event tells; it ends where the buyer has verified, stored, decrypted and unpacked the chunk
//! that came with the announcement.

use std::{
    collections::HashMap,
    fmt,
    fs::{self, File},
    io::{self, Read, Write as _},
    path::Path,
    sync::{Mutex, OnceLock, PoisonError},
    time::{Duration, Instant},
};

use tracing::{
    Event, Subscriber,
    field::{Field, Visit},
    level_filters::LevelFilter,
};
use tracing_subscriber::{
    Layer,
    filter::Targets,
    layer::{Context, SubscriberExt as _},
};
use tributary::{
    buyer::{AccessOutcome, DatasetPlaintext},
    config::{Config, Overrides},
    feeds::{FeedEvent, Streams},
    home::{Home, InitOptions},
    ingest::{IngestOptions, NdjsonOptions, NdjsonSource},
    service::{Node, NodeOptions},
};
use tributary_protocol::{
    access::{Range, Selection},
    entry::{EntryBody, SignedEntry},
    ids::{LogId, LogKey},
    record::ChunkRecord,
};

use crate::{
    Bench,
    echo::Echo,
    measure::median,
    nodes::{drip_line, eventually},
    table::{Goal, Judged, Row},
};

const TOPIC: &str = "/latency";
/// Between two messages: each travels alone.
const PAUSE: Duration = Duration::from_millis(20);
/// The first of a round are not counted: connections and caches warm up.
const WARM_UP: usize = 20;
/// Where the machine says that an entry is durable.
const TARGET: &str = "tributary::machine::lane::committer";

/// When entries became durable, by log and position.
#[derive(Default)]
struct Stamps(Mutex<HashMap<(String, u64), Instant>>);

static STAMPS: OnceLock<Stamps> = OnceLock::new();

struct Stamping;

impl<S: Subscriber> Layer<S> for Stamping {
    fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
        let now = Instant::now();
        let mut fields = Fields::default();
        event.record(&mut fields);
        let stamps = STAMPS.get_or_init(Stamps::default);
        let mut stamps = stamps.0.lock().unwrap_or_else(PoisonError::into_inner);
        stamps.extend((fields.first..fields.first + fields.count).map(|seq| ((fields.log.clone(), seq), now)));
    }
}

#[derive(Default)]
struct Fields {
    log: String,
    first: u64,
    count: u64,
}

impl Visit for Fields {
    fn record_u64(&mut self, field: &Field, value: u64) {
        match field.name() {
            "first" => self.first = value,
            "count" => self.count = value,
            _ => {}
        }
    }

    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        if field.name() == "log" {
            self.log = format!("{value:?}");
        }
    }
}

/// Messages, one at a time, with a pause before each.
struct Drip {
    left: usize,
    number: u64,
    line: io::Cursor<Vec<u8>>,
}

impl Read for Drip {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let count = self.line.read(into)?;
        if count > 0 || self.left == 0 {
            return Ok(count);
        }
        std::thread::sleep(PAUSE);
        self.left -= 1;
        self.number += 1;
        self.line = io::Cursor::new(drip_line(TOPIC, self.number));
        self.line.read(into)
    }
}

async fn start(dir: &Path, roles: &str, rest: &str) -> Node {
    let text = format!("roles: [{roles}]\nnetwork: {{ listen: [/ip4/127.0.0.1/tcp/0] }}\n{rest}");
    let options = InitOptions { owner: None, identity: None, passphrase: None, config: text.clone() };
    let home = Home::init(dir, options, &mut rand::rng()).unwrap();
    let config = Config::parse(&text, "config.yaml", dir, &Overrides::none()).unwrap();
    Node::start(NodeOptions { home, config, passphrase: None, ros_arguments: None }).await.unwrap()
}

/// Two nodes, one of which follows the other live and has the keys of what is to come.
struct Pair {
    machine: Node,
    buyer: Node,
    log: LogKey,
    sent: u64,
    /// What is read of the log, and the position that comes next.
    reading: Option<(DatasetPlaintext, u64)>,
}

impl Pair {
    async fn start(dir: &Path) -> Self {
        let streams = format!(
            "streams:\n  - {{ topic: {TOPIC}, mode: fields, default: include, access: {{ policy: free }}, \
             chunk: {{ bytes: 4KiB, max_age: 100ms }} }}\n"
        );
        let machine = start(&dir.join("machine"), "machine", &streams).await;
        let buyer = start(&dir.join("buyer"), "buyer", "").await;
        let did = machine.did();
        // A key epoch begins with the first message; only then there is something to grant.
        send(&machine, 1, 0).await;
        let own = machine.machine().unwrap().clone();
        tokio::task::spawn_blocking(move || own.close_datasets(Some(TOPIC))).await.unwrap().unwrap();
        let link = eventually("a link", async || machine.links().await.unwrap().into_iter().next()).await;
        let side = buyer.buyer().unwrap();
        side.feeds().follow(&link, Streams::All).await.unwrap();
        let stream = machine.machine().unwrap().stream_id(TOPIC).unwrap();
        let live = Selection::new(vec![Range::Live { stream, seconds: 3600 }]).unwrap();
        let granted = side.request_access(&did, live, Duration::from_secs(30)).await.unwrap();
        assert!(matches!(granted, AccessOutcome::Granted { .. }), "{granted:?}");
        let log = LogKey { did, log: LogId::from(stream), incarnation: 0 };
        Self { machine, buyer, log, sent: 1, reading: None }
    }

    /// Sends so many messages, and returns what each took in seconds, and how long its announcement was.
    async fn round(&mut self, count: usize) -> Vec<(f64, usize)> {
        let mut news = self.buyer.feeds().unwrap().watch();
        let (machine, sent) = (self.machine.clone(), self.sent);
        self.sent += count as u64;
        let sending = tokio::spawn(async move { send(&machine, count, sent).await });
        let mut taken = Vec::new();
        while taken.len() < count {
            match news.recv().await.unwrap() {
                FeedEvent::Entries { log, .. } if log == self.log.log => taken.extend(self.take().await),
                _ => {}
            }
        }
        sending.await.unwrap();
        taken.split_off(WARM_UP.min(count / 2))
    }

    /// Opens what is new.
    async fn take(&mut self) -> Vec<(f64, usize)> {
        let (buyer, key, reading) = (self.buyer.clone(), self.log, self.reading.take());
        let work = move || {
            let (mut plaintext, mut next) = reading.unwrap_or_else(|| open(&buyer, key));
            let mut taken = Vec::new();
            while let Some(bytes) = plaintext.next_chunk().unwrap() {
                let now = Instant::now();
                assert!(!bytes.is_empty());
                let stamps = STAMPS.get_or_init(Stamps::default);
                let found =
                    stamps.0.lock().unwrap_or_else(PoisonError::into_inner).remove(&(key.log.to_string(), next));
                let durable = found.expect("what is announced was durable before");
                let (entry, record) = stored(&buyer, key, next);
                taken.push(((now - durable).as_secs_f64(), entry + record.len as usize));
                next += 1;
            }
            (plaintext, next, taken)
        };
        let (plaintext, next, taken) = tokio::task::spawn_blocking(work).await.unwrap();
        self.reading = Some((plaintext, next));
        taken
    }
}

/// Sends so many messages, numbered on from `sent`.
async fn send(machine: &Node, count: usize, sent: u64) {
    let drip = Drip { left: count, number: sent, line: io::Cursor::default() };
    let ndjson = NdjsonOptions { topic: TOPIC.to_owned(), ..NdjsonOptions::default() };
    let options = IngestOptions { ndjson, ..IngestOptions::default() };
    let source = Box::new(NdjsonSource::new(drip, Path::new("drip"), &options));
    let summary = machine.ingest(source, |_| {}).await.unwrap();
    assert!(summary.is_clean(), "{summary:?}");
}

/// The dataset behind the first message's, which stays open, and the position of its first chunk.
fn open(buyer: &Node, key: LogKey) -> (DatasetPlaintext, u64) {
    const FIRST: u64 = 1;
    let (_, record) = stored(buyer, key, FIRST);
    (buyer.buyer().unwrap().plaintext(&key.did, record.dataset).unwrap(), FIRST)
}

/// The length of an entry in bytes, and what it says.
fn stored(buyer: &Node, key: LogKey, seq: u64) -> (usize, ChunkRecord) {
    let bytes = buyer.store().entry(&key, seq).unwrap().unwrap();
    match &SignedEntry::decode(&bytes).unwrap().entry().body {
        EntryBody::Chunk(record) => (bytes.len(), record.clone()),
        other => panic!("a stream's log has chunks, not {other:?}"),
    }
}

/// The value below which so many percent are.
fn percentile(values: &[f64], percent: usize) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    sorted[(sorted.len() * percent).div_ceil(100) - 1]
}

pub(crate) fn run(bench: &mut Bench) {
    let wanted = Targets::new().with_target(TARGET, LevelFilter::TRACE);
    let subscriber = tracing_subscriber::registry().with(Stamping.with_filter(wanted));
    tracing::subscriber::set_global_default(subscriber).expect("nothing else in this process logs");
    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime.block_on(measure(bench));
}

async fn measure(bench: &mut Bench) {
    let dir = bench.dir.join("latency");
    fs::create_dir_all(&dir).unwrap();
    let (mut pair, mut echo) = (Pair::start(&dir).await, Echo::connect().await);
    let mut disk = Disk(File::create(dir.join("disk")).unwrap());
    let (mut ours, mut bare, mut stored, mut sizes) = (vec![], vec![], vec![], vec![]);
    for _ in 0..bench.rounds {
        let taken = pair.round(bench.messages).await;
        let size = median(&taken.iter().map(|(_, bytes)| *bytes as f64).collect::<Vec<_>>());
        ours.push(taken.into_iter().map(|(seconds, _)| seconds).collect::<Vec<_>>());
        let (mut delivered, mut kept) = (vec![], vec![]);
        for count in 0..bench.messages {
            tokio::time::sleep(PAUSE).await;
            let seconds = echo.one(size as usize).await;
            if count >= WARM_UP.min(bench.messages / 2) {
                delivered.push(seconds);
                kept.push(seconds + disk.append(size as usize));
            }
        }
        bare.push(delivered);
        stored.push(kept);
        sizes.push(size);
    }
    for percent in [50, 99] {
        let of = |rounds: &[Vec<f64>]| rounds.iter().map(|round| 1000.0 * percentile(round, percent)).collect();
        let ours: Vec<f64> = of(&ours);
        let compared = [
            ("bare gossipsub, delivered", &bare, Goal::AtMost(1.5)),
            ("the same, and one append with `fdatasync`", &stored, Goal::None),
        ];
        for (name, others, goal) in compared {
            let others: Vec<f64> = of(others);
            bench.table.row(Row {
                what: format!("durable at the machine to plaintext at a live buyer, p{percent}"),
                ours: format!("{:.2} ms", median(&ours)),
                other: format!("{name}: {:.2} ms", median(&others)),
                judged: Judged::Ratio(ours.iter().zip(&others).map(|(ours, others)| ours / others).collect()),
                goal,
            });
        }
    }
    bench.table.note(format!("messages of that latency: {:.0} bytes", median(&sizes)));
    pair.buyer.shutdown().await.unwrap();
    pair.machine.shutdown().await.unwrap();
    drop(pair);
    fs::remove_dir_all(dir).unwrap();
}

/// A file that grows: what a buyer's store does at least before an entry counts.
struct Disk(File);

impl Disk {
    /// Seconds that it takes to append so many bytes durably.
    fn append(&mut self, bytes: usize) -> f64 {
        let (block, begun) = (vec![7; bytes], Instant::now());
        self.0.write_all(&block).unwrap();
        self.0.sync_data().unwrap();
        begun.elapsed().as_secs_f64()
    }
}
