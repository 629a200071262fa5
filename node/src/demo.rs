//! The main job in one command: a robot's recording reaches a buyer, peer to peer, verified and decrypted.
//!
//! Starts two real nodes of this very program as child processes, a machine and a buyer, with homes of their own and nothing
//! but loopback between them, and drives them through their control sockets, as a person would with the commands. It owns the
//! children and the homes, and removes both at the end, however it ends: dropping [`run`] does it, too. It looks at what arrived with its own eyes: every
//! package that went in must have come out, and nothing that a rule protects.

mod check;
mod nodes;
pub(crate) mod plan;
mod tamper;

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use serde::Serialize;
use tributary_protocol::ids::{DatasetId, Did};

use self::{nodes::NodeProcess, plan::Plan};
use crate::{
    buyer::{ExportFormat, PullReport, Report, Verdict},
    control::{
        ClientError,
        api::{
            AccessRequestBody, AccessResult, Code, DatasetSummary, ExportRequest, ExportResult, Following,
            IngestRequest, IngestResult, PullRequest, SelectionRequest, SubscribeRequest, VerifyRequest,
        },
    },
    export::McapChannel,
    service::status::NodeStatus,
};

/// How long any one step may take before the demo gives up.
const PATIENCE: Duration = Duration::from_secs(120);
/// Ranges that one selection may hold.
const RANGES: usize = tributary_protocol::access::MAX_RANGES;

/// Progress that the demo does not show.
type Ignored = serde::de::IgnoredAny;

/// What the demo is asked to do.
#[derive(Debug, Clone)]
pub struct DemoOptions {
    /// Another recording than the one that comes with the program.
    pub recording: Option<PathBuf>,
    /// Where the outputs go.
    pub out: PathBuf,
    /// Flip one byte of one chunk on its way.
    pub tamper: bool,
}

/// Why the demo did not end well.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DemoError {
    /// The recording cannot be read.
    #[error("the recording {} cannot be read: {reason}", path.display())]
    Recording {
        /// The recording.
        path: PathBuf,
        /// What is wrong.
        reason: String,
    },
    /// A node could not be prepared or started.
    #[error("the {role} node {what}")]
    Node {
        /// Which one.
        role: &'static str,
        /// What happened, and what its log says.
        what: String,
    },
    /// A node refused or failed.
    #[error("{step}: {source}")]
    Step {
        /// What was tried.
        step: &'static str,
        /// What the node said.
        source: ClientError,
    },
    /// A step did not come to its end in time.
    #[error("{what} after {} s", PATIENCE.as_secs())]
    Late {
        /// What is missing.
        what: String,
    },
    /// What arrived is not what should have.
    #[error("what arrived is wrong: {0}")]
    Wrong(String),
    /// The flipped byte was not noticed.
    #[error("a byte was flipped on the way and the buyer took the data: this must never happen")]
    TamperUnnoticed,
    /// Files could not be written or read.
    #[error("{}: {source}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// The system's reason.
        source: std::io::Error,
    },
}

/// One topic of the summary.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct TopicLine {
    /// Type of its messages.
    pub message_type: String,
    /// Messages in the recording.
    pub recorded: u64,
    /// Packages at the buyer.
    pub arrived: u64,
    /// Rules that protect its fields, as a person would say them.
    pub protected: Vec<String>,
    /// Why it was left out.
    pub left_out: Option<String>,
}

/// What happened.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct DemoReport {
    /// The machine.
    pub machine: Did,
    /// The buyer.
    pub buyer: Did,
    /// How the buyer found the machine.
    pub link: String,
    /// The recording.
    pub recording: String,
    /// Its size in bytes.
    pub recording_bytes: u64,
    /// By topic.
    pub topics: BTreeMap<String, TopicLine>,
    /// Messages ingested.
    pub messages: u64,
    /// Seconds from the first message to the last durable chunk.
    pub ingest_seconds: f64,
    /// Values that a rule removed or replaced.
    pub protected_values: u64,
    /// Chunks sealed.
    pub chunks: u64,
    /// Bytes of ciphertext.
    pub sealed_bytes: u64,
    /// Datasets closed.
    pub datasets: u64,
    /// Log entries that the buyer received over the feed.
    pub entries: u64,
    /// Grants the buyer received.
    pub grants: u64,
    /// Chunks pulled from the machine.
    pub pulled_chunks: u64,
    /// Small chunks that had come with the feed already.
    pub attached_chunks: u64,
    /// Bytes pulled.
    pub pulled_bytes: u64,
    /// Seconds of pulling.
    pub pull_seconds: f64,
    /// Datasets proven from the DID down.
    pub proven: u64,
    /// Packages whose signature was checked.
    pub packages: u64,
    /// What was written.
    pub files: Vec<PathBuf>,
    /// The channels of the MCAP file: as recorded, or JSON where rules changed the messages.
    pub channels: Vec<McapChannel>,
    /// Seconds from start to end.
    pub seconds: f64,
}

/// How the demo ended, when it ended as it should.
#[derive(Debug, Clone, PartialEq)]
pub enum DemoOutcome {
    /// Everything arrived.
    Delivered(Box<DemoReport>),
    /// The flipped byte was refused, as asked for with [`DemoOptions::tamper`].
    Refused {
        /// Which byte was flipped.
        flipped: String,
        /// What the buyer said.
        refusal: String,
    },
}

/// Runs the demo. `say` hears what happens, a line at a time.
///
/// # Errors
///
/// [`DemoError::Wrong`] when a package is missing or a protected field arrived; otherwise what failed.
pub async fn run(options: &DemoOptions, say: &mut dyn FnMut(&str)) -> Result<DemoOutcome, DemoError> {
    let started = Instant::now();
    let homes = tempfile::Builder::new()
        .prefix("tributary-demo-")
        .tempdir()
        .map_err(|source| DemoError::Io { path: std::env::temp_dir(), source })?;
    let plan = Plan::make(options.recording.as_deref(), homes.path())?;
    say(&format!("recording   {} ({}, {} topics)", plan.name, size(plan.bytes), plan.topics.len()));

    let machine_home = nodes::make_home(&homes.path().join("machine"), "machine", &plan.machine_config())?;
    let buyer_home = nodes::make_home(&homes.path().join("buyer"), "buyer", plan::BUYER_CONFIG)?;
    let mut machine = NodeProcess::start(machine_home, "machine").await?;
    let buyer = NodeProcess::start(buyer_home, "buyer").await?;
    let status = machine.status().await?;
    let link = status.links.first().cloned().unwrap_or_default();
    let machine_did = status.did;
    say(&format!("machine     {machine_did} (process {})", machine.id()));
    let buyer_status = buyer.status().await?;
    say(&format!("buyer       {} (process {})", buyer_status.did, buyer.id()));

    let subscribe = SubscribeRequest { link: link.clone(), ..SubscribeRequest::default() };
    let _: Following = step("subscribe", buyer.client().post("/v1/subscribe", &subscribe).await)?;
    say("follow      the buyer found the machine by its DID, checked its keys, and follows the feed");

    let ingesting = Instant::now();
    let ingest = IngestRequest { path: Some(plan.path.clone()), close: true, ..IngestRequest::default() };
    let ingested: IngestResult = step("ingest", machine.client().run("/v1/ingest", &ingest, |_: Ignored| {}).await)?;
    let ingest_seconds = ingesting.elapsed().as_secs_f64();
    say(&format!("ingest      {} messages into {} datasets", ingested.messages, ingested.closed.len()));

    all_announced(&buyer, machine_did, &ingested.closed).await?;
    let status = machine.status().await?;
    let flipped = if options.tamper {
        // The machine knows the sizes for certain, the buyer may still be hearing of chunks. Small ones come with the feed and
        // are never pulled, so the largest dataset it is.
        let own: Vec<DatasetSummary> =
            step("dataset ls", machine.client().get(&format!("/v1/datasets?machine={machine_did}")).await)?;
        let victim = own.iter().max_by_key(|dataset| dataset.bytes).map(|dataset| dataset.dataset);
        machine.stop().await?;
        let flipped = tamper::flip_one_byte(machine.home(), victim)?;
        say(&format!("tamper      {flipped}"));
        machine = NodeProcess::start(machine.home_again(), "machine").await?;
        let link = machine.status().await?.links.first().cloned().unwrap_or_default();
        let again = SubscribeRequest { link, ..SubscribeRequest::default() };
        let _: Following = step("subscribe", buyer.client().post("/v1/subscribe", &again).await)?;
        Some(flipped)
    } else {
        None
    };

    let selections: Vec<SelectionRequest> =
        ingested.closed.chunks(RANGES).map(|ids| selection(machine_did, ids)).collect();
    let mut grants = 0;
    for selection in &selections {
        let body = AccessRequestBody { selection: selection.clone(), wait_ms: 30_000 };
        let result: AccessResult =
            step("access request", buyer.client().run("/v1/access/request", &body, |_: Ignored| {}).await)?;
        grants += result.grants.len() as u64;
    }
    say(&format!("access      {grants} grants: keys for exactly these datasets, sealed to the buyer's key"));

    let pulling = Instant::now();
    let mut pulled = PullReport::default();
    for selection in &selections {
        let body = PullRequest { selection: selection.clone() };
        let result = buyer.client().run::<Ignored, PullReport>("/v1/pull", &body, |_| {}).await;
        let part = match (result, &flipped) {
            (Ok(part), _) => part,
            (Err(ClientError::Problem(problem)), Some(flipped)) if problem.code == Code::VerificationFailed => {
                let refusal =
                    problem.cause.map_or(problem.message.clone(), |cause| format!("{}: {cause}", problem.message));
                return Ok(DemoOutcome::Refused { flipped: flipped.clone(), refusal });
            }
            (Err(source), _) => return Err(DemoError::Step { step: "pull", source }),
        };
        pulled.chunks += part.chunks;
        pulled.skipped += part.skipped;
        pulled.bytes += part.bytes;
    }
    if flipped.is_some() {
        return Err(DemoError::TamperUnnoticed);
    }
    let pull_seconds = pulling.elapsed().as_secs_f64();
    let PullReport { chunks, bytes, skipped, .. } = pulled;
    let more = if skipped > 0 { format!(" ({skipped} small ones had come with the feed)") } else { String::new() };
    say(&format!("pull        {chunks} chunks, {}, each checked against its signed record{more}", size(bytes)));

    let (mut proven, mut packages) = (0, 0);
    for dataset in &ingested.closed {
        let body = VerifyRequest { dataset: dataset.to_string() };
        let result: Report = step("verify", buyer.client().run("/v1/verify", &body, |_: Ignored| {}).await)?;
        if result.verdict != Verdict::Proven {
            let steps: Vec<String> =
                result.steps.iter().map(|s| format!("{} {:?}: {}", s.name, s.state, s.detail)).collect();
            return Err(DemoError::Wrong(format!("dataset {dataset} is not proven ({})", steps.join("; "))));
        }
        proven += 1;
        packages += result.packages;
    }
    say(&format!("verify      {proven} datasets and {packages} package signatures proven from the DID down"));

    std::fs::create_dir_all(&options.out).map_err(|source| DemoError::Io { path: options.out.clone(), source })?;
    let out =
        std::path::absolute(&options.out).map_err(|source| DemoError::Io { path: options.out.clone(), source })?;
    let body = ExportRequest {
        selection: selection(machine_did, &ingested.closed),
        formats: vec![ExportFormat::Ndjson, ExportFormat::Mcap],
        out: out.clone(),
    };
    let exported: ExportResult = step("export", buyer.client().run("/v1/export", &body, |_: Ignored| {}).await)?;

    let counts = check::outputs(&out, &plan)?;
    let mut topics = plan.lines();
    for (topic, line) in &mut topics {
        line.arrived = counts.get(topic).copied().unwrap_or(0);
    }
    if let Some((topic, line)) = topics.iter().find(|(_, l)| l.left_out.is_none() && l.arrived != l.recorded) {
        let TopicLine { recorded, arrived, .. } = line;
        return Err(DemoError::Wrong(format!(
            "{topic} has {recorded} messages in the recording and {arrived} at the buyer"
        )));
    }
    let report = DemoReport {
        machine: machine_did,
        buyer: buyer_status.did,
        link,
        recording: plan.name.clone(),
        recording_bytes: plan.bytes,
        messages: ingested.messages,
        ingest_seconds,
        protected_values: plan.protected_values(),
        chunks: status.streams.iter().map(|stream| stream.lane.chunks).sum(),
        sealed_bytes: status.streams.iter().map(|stream| stream.lane.bytes_sealed).sum(),
        datasets: ingested.closed.len() as u64,
        entries: followed_entries(&buyer.status().await?, machine_did),
        grants,
        pulled_chunks: pulled.chunks,
        attached_chunks: pulled.skipped,
        pulled_bytes: pulled.bytes,
        pull_seconds,
        proven,
        packages,
        files: exported.report.files.into_iter().map(|file| file.path).collect(),
        channels: exported.report.channels,
        topics,
        seconds: started.elapsed().as_secs_f64(),
    };
    buyer.end().await?;
    machine.end().await?;
    Ok(DemoOutcome::Delivered(Box::new(report)))
}

/// Waits until the buyer has heard of every dataset, its end included.
async fn all_announced(buyer: &NodeProcess, machine: Did, closed: &[DatasetId]) -> Result<(), DemoError> {
    let deadline = Instant::now() + PATIENCE;
    let mut wait = Duration::from_millis(10);
    loop {
        let known: Vec<DatasetSummary> =
            step("dataset ls", buyer.client().get(&format!("/v1/datasets?machine={machine}")).await)?;
        let missing =
            closed.iter().filter(|id| !known.iter().any(|known| known.dataset == **id && known.closed)).count();
        if missing == 0 {
            return Ok(());
        }
        if Instant::now() >= deadline {
            return Err(DemoError::Late { what: format!("the buyer has not heard of {missing} datasets") });
        }
        tokio::time::sleep(wait).await;
        wait = (wait * 2).min(Duration::from_millis(500));
    }
}

fn selection(machine: Did, ids: &[DatasetId]) -> SelectionRequest {
    let datasets = ids.iter().map(ToString::to_string).collect();
    SelectionRequest { machine: Some(machine), datasets, ..SelectionRequest::default() }
}

fn followed_entries(status: &NodeStatus, machine: Did) -> u64 {
    status.followed.iter().filter(|feed| feed.did == machine).flat_map(|feed| &feed.logs).map(|log| log.entries).sum()
}

fn step<T>(step: &'static str, result: Result<T, ClientError>) -> Result<T, DemoError> {
    result.map_err(|source| DemoError::Step { step, source })
}

/// A size as people say it.
#[must_use]
pub fn size(bytes: u64) -> String {
    indicatif::HumanBytes(bytes).to_string()
}

/// Whether a path lies under another one; for messages that name outputs.
#[must_use]
pub fn shown(path: &Path) -> String {
    let here = std::env::current_dir().ok();
    let short = here.and_then(|here| path.strip_prefix(here).ok().map(Path::to_owned));
    short.unwrap_or_else(|| path.to_owned()).display().to_string()
}
