//! What travels over the control socket: requests, answers, events and problems, as JSON. Shared by the server and the client,
//! and what commands print with `--json`. Times are ms since 1970, sizes are bytes.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};
use tributary_protocol::ids::{DatasetId, Did, Hash, StreamId};

pub use super::catalog::{DatasetSummary, Feed, StreamSummary};
pub use crate::machine::{IngestProgress, IngestSummary, LaneReport, Published, StreamReport, TopicSummary};

/// What kind of problem, for programs. Commands end with the exit code of the same name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Code {
    /// The node could not do it.
    Failed,
    /// The request cannot be meant like this.
    Usage,
    /// Data or signatures are not what they claim to be.
    VerificationFailed,
    /// Access was denied, or is not decided yet.
    AccessDenied,
    /// No such thing here.
    NotFound,
    /// No peer could be reached.
    Network,
}

/// Why something did not work.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[error("{message}")]
pub struct Problem {
    /// For programs.
    pub code: Code,
    /// What failed.
    pub message: String,
    /// Why.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cause: Option<String>,
    /// What to do next.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hint: Option<String>,
}

/// One line of the answer to long work.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "event", content = "data", rename_all = "snake_case")]
pub enum Event<P, R> {
    /// How far it has come.
    Progress(P),
    /// It is done; the last line.
    Result(R),
    /// It failed; the last line.
    Problem(Problem),
}

/// Nothing to say.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Empty {}

/// What the node is and does.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Status {
    /// Its peaqID.
    pub did: Did,
    /// Version of the program.
    pub version: String,
    /// Its process.
    pub pid: u32,
    /// Its libp2p peer id.
    pub peer_id: String,
    /// machine, buyer.
    pub roles: Vec<String>,
    /// When it started, ms since 1970.
    pub started_ms: u64,
    /// Feed links that others can use.
    pub links: Vec<String>,
    /// Connected peers.
    pub peers: usize,
    /// Incarnation of the machine.
    pub incarnation: Option<u32>,
    /// Why the machine must not publish.
    pub displaced: Option<String>,
    /// The machine's streams.
    pub streams: Vec<StreamReport>,
    /// Feeds that are followed.
    pub following: Vec<Following>,
    /// Access requests that wait for the operator.
    pub pending_requests: u64,
    /// The store.
    pub store: StoreStats,
}

/// A feed that is followed.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Following {
    /// The machine.
    pub machine: Did,
    /// Streams that are followed by name; `None` is all.
    pub streams: Option<Vec<String>>,
    /// Entries held of its logs.
    pub entries: u64,
    /// Age of the newest head that its machine signed, ms; `None` before the first.
    pub head_age_ms: Option<u64>,
    /// Whether the machine signed two stories of one log.
    pub equivocated: bool,
    /// Addresses that are tried.
    pub addresses: Vec<String>,
}

/// What the store holds and takes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct StoreStats {
    /// Chunks present.
    pub chunks: u64,
    /// Bytes of their bodies.
    pub chunk_bytes: u64,
    /// Log entries.
    pub entries: u64,
    /// Rows in all tables.
    pub rows: u64,
    /// Chunks removed on purpose.
    pub tombstones: u64,
    /// Entries kept as evidence.
    pub evidence: u64,
    /// Segment files.
    pub segments: u64,
    /// Bytes on the disk, everything included.
    pub used_bytes: u64,
    /// The quota.
    pub quota_bytes: Option<u64>,
    /// What is free on the file system.
    pub free_bytes: Option<u64>,
    /// Batches that wait to be written.
    pub queued_batches: u64,
    /// The store stopped after a failure.
    pub stopped: bool,
}

/// A connected peer.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Peer {
    /// Its id.
    pub peer: String,
    /// Its address.
    pub address: String,
    /// What it calls itself.
    pub agent: String,
    /// Whether it dialled us.
    pub inbound: bool,
    /// Whether no relay is between.
    pub direct: bool,
    /// Round trip, ms.
    pub rtt_ms: Option<u64>,
    /// Gossip score.
    pub score: f64,
}

/// Read a source into the streams of its topics. The path is one of the machine's file system.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct IngestRequest {
    /// Recording, NDJSON file or folder, absolute; `None` when the lines are the body of the request.
    #[serde(default)]
    pub path: Option<PathBuf>,
    /// Only these streams, by public name; empty is all.
    #[serde(default)]
    pub streams: Vec<String>,
    /// NDJSON: key whose text is the topic of a line.
    #[serde(default)]
    pub topic_field: Option<String>,
    /// NDJSON: key with the time of a line.
    #[serde(default)]
    pub time_field: Option<String>,
    /// Folders with `.msg` files, for recordings without definitions; absolute.
    #[serde(default)]
    pub definitions: Vec<PathBuf>,
    /// Close the datasets of these streams at the end.
    #[serde(default)]
    pub close: bool,
}

/// What an ingest did.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct IngestResult {
    /// By topic.
    #[serde(flatten)]
    pub summary: IngestSummary,
    /// Messages handed to streams.
    pub messages: u64,
    /// Datasets closed at the end.
    pub closed: Vec<DatasetId>,
    /// Whether it was cut off by the client; what was read before is durable.
    pub cancelled: bool,
}

/// Publish a file as a dataset.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PublishRequest {
    /// The file, absolute.
    pub path: PathBuf,
    /// The stream, by public name.
    pub stream: String,
}

/// How many bytes have been done.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct BytesProgress {
    /// Bytes so far.
    pub bytes: u64,
    /// Bytes in all, when known.
    pub total: Option<u64>,
}

/// Close the open datasets of a stream, or of all.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CloseRequest {
    /// The stream, by public name; `None` is all.
    #[serde(default)]
    pub stream: Option<String>,
}

/// Datasets that were closed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Closed {
    /// Their ids.
    pub datasets: Vec<DatasetId>,
}

/// A dataset and what of it is here.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct DatasetDetail {
    /// The dataset.
    #[serde(flatten)]
    pub summary: DatasetSummary,
    /// Chunks whose ciphertext is here.
    pub held_chunks: u32,
    /// Their bytes.
    pub held_bytes: u64,
}

/// Which data of which machine.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SelectionRequest {
    /// The machine; needed only where more than one is followed and no dataset is named.
    #[serde(default)]
    pub machine: Option<Did>,
    /// Datasets, by id or a beginning of it.
    #[serde(default)]
    pub datasets: Vec<String>,
    /// Streams, by public name or id.
    #[serde(default)]
    pub streams: Vec<String>,
    /// For the streams: from here on, ms since 1970; `None` is the beginning.
    #[serde(default)]
    pub from_ms: Option<u64>,
    /// For the streams: to here, ms since 1970; `None` is now.
    #[serde(default)]
    pub to_ms: Option<u64>,
    /// For the streams: what comes in the next so many seconds, instead of what was.
    #[serde(default)]
    pub live_seconds: Option<u32>,
}

/// Follow a machine.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SubscribeRequest {
    /// `tributary://<did>?addr=<multiaddr>`
    pub link: String,
    /// Streams by name; empty is all.
    #[serde(default)]
    pub streams: Vec<String>,
}

/// Ask for keys.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AccessRequestBody {
    /// Which data.
    pub selection: SelectionRequest,
    /// How long to wait for a decision, ms; 0 does not wait.
    #[serde(default)]
    pub wait_ms: u64,
}

/// What a machine asks for its data.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct QuoteInfo {
    /// The machine.
    pub machine: Did,
    /// Hash of the signed quote.
    pub quote: Hash,
    /// Smallest units of the token, as a decimal number; 0 is free.
    pub amount: String,
    /// The token; empty when free.
    pub token: String,
    /// The chain.
    pub chain: String,
    /// Whom to pay.
    pub pay_to: String,
    /// Until when it binds, ms since 1970.
    pub expires_ms: u64,
}

/// How an access request stands.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AccessInfo {
    /// The request.
    pub request: Hash,
    /// The machine whose data it is about.
    pub machine: Did,
    /// Who asks.
    pub buyer: Did,
    /// pending, granted, denied, expired or revoked.
    pub state: String,
    /// What was asked for, for people.
    pub selection: Vec<String>,
    /// When it was made or came in, ms since 1970.
    pub time_ms: u64,
    /// Grants.
    pub grants: u64,
    /// Why it was denied.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

/// Requests on both sides of a node.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct AccessList {
    /// What others ask of this machine.
    pub received: Vec<AccessInfo>,
    /// What this buyer asked of others.
    pub made: Vec<AccessInfo>,
}

/// Decide about a request.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Decide {
    /// The request's id, or a beginning of it.
    pub request: String,
    /// What the buyer is told; only when denied.
    #[serde(default)]
    pub reason: Option<String>,
}

/// Take access back.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RevokeRequest {
    /// The buyer.
    pub buyer: Did,
    /// Of this stream, by public name; `None` is all.
    #[serde(default)]
    pub stream: Option<String>,
    /// Start new key epochs at once, so that keys for times to come are worth nothing.
    #[serde(default)]
    pub now: bool,
}

/// What revoking did.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Revoked {
    /// Grants that will not be renewed.
    pub grants: u64,
    /// Streams with a new key epoch.
    pub new_epochs: Vec<String>,
}

/// Get chunks.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PullRequest {
    /// Which data.
    pub selection: SelectionRequest,
}

/// How far a pull has come.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PullProgress {
    /// Chunks that came.
    pub chunks: u64,
    /// Chunks that are wanted.
    pub total_chunks: u64,
    /// Bytes that came.
    pub bytes: u64,
    /// Bytes that are wanted.
    pub total_bytes: u64,
}

/// What a pull did.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PullResult {
    /// Chunks that came.
    pub chunks: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Chunks that were here already.
    pub already: u64,
    /// How long it took, ms.
    pub elapsed_ms: u64,
}

/// What was found out about a dataset.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// From the peaqID down to every package.
    Proven,
    /// Fits together; that it is the machine's is not proven.
    Consistent,
    /// Something is not what it claims to be.
    Broken,
}

/// One thing that was checked.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CheckStep {
    /// What.
    pub name: String,
    /// ok, missing or broken.
    pub state: String,
    /// What was found.
    pub detail: String,
}

/// What `verify` found.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct VerifyResult {
    /// The dataset.
    pub dataset: DatasetId,
    /// Its machine.
    pub machine: Did,
    /// The verdict.
    pub verdict: Verdict,
    /// What was checked, in order.
    pub steps: Vec<CheckStep>,
    /// Chunks whose bodies were checked.
    pub chunks: u64,
    /// Packages whose signatures were checked.
    pub packages: u64,
    /// Numbers that are missing between packages: dropped by the machine, which says so.
    pub gaps: u64,
}

/// Check a dataset, all the way down.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct VerifyRequest {
    /// The dataset, by id or a beginning of it.
    pub dataset: String,
}

/// Write datasets into files.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ExportRequest {
    /// Which data: datasets, or all closed datasets of streams.
    pub selection: SelectionRequest,
    /// ndjson, mcap, file.
    pub formats: Vec<String>,
    /// The folder, absolute.
    pub out: PathBuf,
}

/// What an export wrote.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExportResult {
    /// The datasets in it.
    pub datasets: Vec<DatasetId>,
    /// The files.
    pub files: Vec<PathBuf>,
    /// Packages written.
    pub packages: u64,
    /// Bytes of plaintext.
    pub bytes: u64,
}

/// Keys that were imported.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Imported {
    /// The machine.
    pub machine: Did,
    /// How many grants.
    pub grants: u64,
    /// For which streams.
    pub streams: Vec<StreamId>,
}

/// A file with grants, as `tributary grant` writes it. The bindings come first, so that it can be checked on its own.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct GrantFile {
    /// `tributary.grants.v1`
    pub format: String,
    /// The machine.
    pub machine: Did,
    /// The buyer.
    pub buyer: Did,
    /// The machine's signed bindings, hex, oldest first.
    pub bindings: Vec<String>,
    /// The grants, hex.
    pub grants: Vec<String>,
}

/// Check the store.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CheckRequest {
    /// Put right what can be.
    #[serde(default)]
    pub repair: bool,
}

/// What a check of the store found.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StoreCheck {
    /// Whether nothing was found.
    pub clean: bool,
    /// Chunks whose bodies were hashed.
    pub chunks: u64,
    /// Their bytes.
    pub chunk_bytes: u64,
    /// Frames in the log.
    pub frames: u64,
    /// Chunks whose bytes are not what was stored.
    pub damaged_chunks: Vec<Hash>,
    /// Damaged parts of the log, for people.
    pub damage: Vec<String>,
    /// Frames known to be missing.
    pub lost_frames: u64,
    /// Entries and rows that cannot be read.
    pub unreadable: u64,
    /// Differences between index and log.
    pub index_differences: u64,
    /// Whether what could be repaired was.
    pub repaired: bool,
}

/// Collect garbage.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct GcRequest {
    /// Only say what would be removed.
    #[serde(default)]
    pub dry_run: bool,
}

/// What a garbage collection did, or would do.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct GcResult {
    /// Nothing was changed.
    pub dry_run: bool,
    /// Chunks that retention removed.
    pub expired_chunks: u64,
    /// Their bytes.
    pub expired_bytes: u64,
    /// Segments removed.
    pub removed_segments: u64,
    /// Bytes on the disk before.
    pub used_before: u64,
    /// Bytes on the disk afterwards.
    pub used_after: u64,
}

/// Copy the store.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BackupRequest {
    /// A new or empty folder, absolute.
    pub out: PathBuf,
}

/// What a backup copied.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BackupResult {
    /// The folder.
    pub out: PathBuf,
    /// Bytes copied.
    pub bytes: u64,
}
