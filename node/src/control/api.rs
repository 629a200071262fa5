//! What travels over the control socket: requests, answers, events and problems, as JSON. Shared by the server and the client,
//! and what commands print with `--json`. Times are ms since 1970, sizes are bytes.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};
use tributary_protocol::ids::{DatasetId, Did, Hash, LogId, StreamId};

mod keys;
mod peaq_files;

pub use self::{
    keys::{AuditLine, AuditRequest, Bound, GRANT_FILE, GrantFile, GrantRequest, ProposalFile},
    peaq_files::{ChunksProgress, PeaqGrantRequest, PeaqPublishRequest},
};
pub use super::{
    catalog::{DatasetSummary, Feed, StreamSummary},
    orders::{DecideOrder, ListOrders, OrderInfo},
    peaq::{OfferRequest, Offered, PurchaseRequest},
};
pub use crate::ingest::Pace;
pub use crate::machine::{IngestProgress, IngestSummary, LaneReport, Published, StreamReport, TopicSummary};
pub use crate::peaq::files::{FilesReport, GrantedFile, GrantedFiles, PublishedFiles};
pub use crate::{
    buyer::{
        ExportFormat, ExportReport, ExportedFile, GrantInfo, PullReport, Report, SinkTerms, Step, StepState,
        SubscriptionTerms, Verdict,
    },
    feeds::PullProgress,
    service::{
        access::{AuditEvent, AuditRecord, Given, Order, OrderRange, OrderState, Revocation},
        health::{Health, HealthProblem, Part},
        status::{NodeStatus, PeerStatus, Reach, ReachStatus},
    },
};

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

/// Read a source into the streams of its topics. The path is one of the machine's file system.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
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
    /// Play the recording as if it happened now; `None` reads it as fast as it can be stored, with the times that it has.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pace: Option<Pace>,
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

/// Ask for the hashes of log entries, which say whether two nodes hold the same logs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EntryHashesRequest {
    /// The machine whose logs are meant.
    pub machine: Did,
    /// Which entries, at most 1,024; empty is the newest of each log.
    #[serde(default)]
    pub places: Vec<LogPlace>,
}

/// A place in a log.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LogPlace {
    /// The log.
    pub log: LogId,
    /// Its incarnation.
    pub incarnation: u32,
    /// Position of the entry.
    pub seq: u64,
}

/// The hash of a log entry. An entry names the hash of the one before, so equal hashes stand for equal logs up to here.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct EntryHash {
    /// Where it stands.
    #[serde(flatten)]
    pub place: LogPlace,
    /// Its hash.
    pub hash: Hash,
    /// When it was written, ms since 1970, by the machine's clock.
    pub time_ms: u64,
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
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SubscribeRequest {
    /// `tributary://<did>?addr=<multiaddr>`
    pub link: String,
    /// Streams by name; empty is all.
    #[serde(default)]
    pub streams: Vec<String>,
    /// From where: `start`, `now`, or `dataset:` and an id. `None` is the start, or where it is followed from already.
    #[serde(default)]
    pub from: Option<String>,
    /// Keep copies of these streams that grow by themselves; `stream` of the terms is ignored, and the streams must be named.
    #[serde(default)]
    pub live: Option<SubscriptionTerms>,
}

/// Stop following a machine.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct UnsubscribeRequest {
    /// Its DID, or its feed link.
    pub machine: String,
}

/// Watch followed feeds.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FollowFeedRequest {
    /// Only this machine.
    #[serde(default)]
    pub machine: Option<Did>,
    /// End after so many changes.
    #[serde(default)]
    pub count: Option<u64>,
}

/// Something new on a followed feed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FeedChange {
    /// entries or equivocation.
    pub what: String,
    /// The machine.
    pub machine: Did,
    /// The stream's name, or its id where it was not announced; `None` for the machine log.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stream: Option<String>,
    /// Sequence number of the first new entry.
    pub first: u64,
    /// How many.
    pub count: u64,
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

/// A feed that is followed now.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Following {
    /// The machine.
    pub machine: Did,
    /// Its node that answered.
    pub peer: String,
    /// Streams that are followed, by name; `None` is all.
    pub streams: Option<Vec<String>>,
    /// From where they are followed: `start`, `now`, or `dataset:` and an id.
    pub from: String,
    /// Entries that came now.
    pub entries: u64,
}

/// What became of asking for keys.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AccessResult {
    /// The request.
    pub request: Hash,
    /// The machine.
    pub machine: Did,
    /// granted or pending.
    pub outcome: String,
    /// Keys that came.
    pub grants: Vec<GrantInfo>,
}

/// A request that was made here and is not decided.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct OpenRequest {
    /// Its id.
    pub request: Hash,
    /// The machine that was asked.
    pub machine: Did,
    /// Until when it can be decided, ms since 1970.
    pub expires_ms: u64,
}

/// Access on both sides of a node.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct AccessList {
    /// What others asked of this machine.
    pub received: Vec<Order>,
    /// What was asked here and is not decided.
    pub open: Vec<OpenRequest>,
    /// Keys that were granted here.
    pub grants: Vec<GrantInfo>,
    /// What this machine's operator gave by hand.
    #[serde(default)]
    pub given: Vec<Given>,
}

/// Ask again for the decision about a request.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FetchRequest {
    /// The request's id, or a beginning of it.
    pub request: String,
    /// How long to wait for a decision, ms; 0 does not wait.
    #[serde(default)]
    pub wait_ms: u64,
}

/// A page of a list.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ListAccess {
    /// Only what waits for the operator.
    #[serde(default)]
    pub pending: bool,
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
    /// Of these streams, by public name; empty is all.
    #[serde(default)]
    pub streams: Vec<String>,
    /// Start new key epochs at once, so that keys for times to come are worth nothing.
    #[serde(default)]
    pub now: bool,
}

/// Get chunks.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PullRequest {
    /// Which data.
    pub selection: SelectionRequest,
}

/// Check a dataset, all the way down.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct VerifyRequest {
    /// The dataset, by id or a beginning of it.
    pub dataset: String,
}

/// Write datasets into files.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ExportRequest {
    /// Which data: datasets, or all closed datasets of streams.
    pub selection: SelectionRequest,
    /// Empty: what fits the dataset.
    #[serde(default)]
    pub formats: Vec<ExportFormat>,
    /// The folder, absolute.
    pub out: PathBuf,
}

/// What was exported.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExportResult {
    /// The datasets, in the order in which they stand in the files.
    pub datasets: Vec<DatasetId>,
    /// What was written.
    #[serde(flatten)]
    pub report: ExportReport,
}

/// Nothing but that it goes on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stage {
    /// What is being done.
    pub stage: String,
}

/// Import grants from a file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ImportRequest {
    /// The content of the file.
    pub file: GrantFile,
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
