//! What a store knows of feeds: streams and datasets, read from the logs that are in it.
//!
//! The logs are the same for the machine that wrote them and for whoever follows it, so one reading serves both, with or
//! without a running node. Reads pages; holds streams and datasets of one feed, not its chunks.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use tributary_protocol::{
    dataset::DatasetEntry,
    entry::{EntryBody, Mode, Policy, SignedEntry, TombstoneTarget},
    ids::{DatasetId, Did, LogId, LogKey, StreamId},
    record::{ChunkRecord, Content},
};
use tributary_store::{Store, StoreError};

use super::api::{Code, DatasetDetail, Problem};
use crate::feeds::{self, FollowInfo};

/// A feed, as far as it is known here.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Feed {
    /// The machine.
    pub machine: Did,
    /// Its newest incarnation that is known here.
    pub incarnation: u32,
    /// Entries in its machine logs.
    pub entries: u64,
    /// Time of its newest entry, ms since 1970.
    pub newest_ms: Option<u64>,
    /// How it is followed; missing when it is not, as with this machine's own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub followed: Option<FollowInfo>,
    /// Its streams, in the order of their announcement.
    pub streams: Vec<StreamSummary>,
    /// Its datasets, oldest first; one that is still being written is last of its stream.
    pub datasets: Vec<DatasetSummary>,
}

/// A stream of a feed.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct StreamSummary {
    /// Public name.
    pub name: String,
    /// Its id.
    pub stream: StreamId,
    /// Message type; may be empty.
    pub message_type: String,
    /// fields, raw or file.
    pub mode: String,
    /// How buyers get access: free, allowlist, manual or paid.
    pub policy: String,
    /// The price, for people; may be empty.
    pub price: String,
    /// Chunks announced.
    pub chunks: u64,
    /// Position in its newest log from which it is known here: 0 unless it is followed from a later place.
    #[serde(default)]
    pub from_seq: u64,
    /// Time of the newest chunk's last package, ms since 1970.
    pub newest_ms: Option<u64>,
}

/// A dataset of a feed.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct DatasetSummary {
    /// Its id.
    pub dataset: DatasetId,
    /// The machine.
    pub machine: Did,
    /// Its stream's public name; the id where the announcement is not known here.
    pub stream: String,
    /// Its stream's id.
    pub stream_id: StreamId,
    /// Whether it is complete. One that is not has no Merkle root, and its counts are those so far.
    pub closed: bool,
    /// packages or file.
    pub content: String,
    /// Key epoch.
    pub epoch: u64,
    /// Incarnation of its log.
    pub incarnation: u32,
    /// Chunks.
    pub chunks: u32,
    /// Packages; unknown while it is open.
    pub packages: Option<u64>,
    /// Bytes of ciphertext; unknown while it is open.
    pub bytes: Option<u64>,
    /// Earliest content, ms since 1970.
    pub from_ms: u64,
    /// Latest content, ms since 1970.
    pub to_ms: u64,
    /// Merkle root over its chunk records, hex.
    pub merkle_root: Option<String>,
    /// Sequence number of its first chunk's entry.
    pub first_seq: u64,
    /// Sequence number of its last chunk's entry, so far.
    pub last_seq: u64,
    /// Whether the machine withdrew it.
    pub withdrawn: bool,
}

impl DatasetSummary {
    fn log(&self) -> LogKey {
        LogKey { did: self.machine, log: LogId::from(self.stream_id), incarnation: self.incarnation }
    }
}

/// The machines that the store has logs of.
pub(super) fn feeds(store: &Store) -> Result<Vec<Did>, StoreError> {
    let mut dids: Vec<Did> = store.logs(None)?.into_iter().map(|log| log.did).collect();
    dids.sort_unstable();
    dids.dedup();
    Ok(dids)
}

/// Every feed that is known here.
pub(crate) fn all_feeds(store: &Store) -> Result<Vec<Feed>, StoreError> {
    feeds(store)?.iter().filter_map(|did| feed(store, did).transpose()).collect()
}

/// A dataset, by its id or the beginning of it, and what of it is here.
pub(crate) fn detail(store: &Store, text: &str) -> Result<DatasetDetail, Problem> {
    let summary = find_dataset(store, text)?;
    let (held_chunks, held_bytes) = held(store, &summary)?;
    Ok(DatasetDetail { summary, held_chunks, held_bytes })
}

/// Everything known here of the feed of `did`; `None` when nothing is.
pub(crate) fn feed(store: &Store, did: &Did) -> Result<Option<Feed>, StoreError> {
    let mut logs = store.logs(Some(did))?;
    if logs.is_empty() {
        return Ok(None);
    }
    logs.sort_by_key(|log| (log.incarnation, log.log));
    let mut feed = Feed {
        machine: *did,
        incarnation: logs.last().map_or(0, |log| log.incarnation),
        entries: 0,
        newest_ms: None,
        followed: feeds::followed(store, did)?,
        streams: Vec::new(),
        datasets: Vec::new(),
    };
    let mut withdrawn = Vec::new();
    for log in logs.iter().filter(|log| log.log == LogId::MACHINE) {
        for stored in store.log(log, ..) {
            let Ok(signed) = SignedEntry::decode(&stored?.bytes) else { continue };
            let entry = signed.entry();
            feed.entries += 1;
            feed.newest_ms = feed.newest_ms.max(Some(entry.time_ms));
            match &entry.body {
                EntryBody::Stream(info) => {
                    let summary = StreamSummary {
                        name: info.name.clone(),
                        stream: info.stream,
                        message_type: info.message_type.clone(),
                        mode: mode_name(info.mode).to_owned(),
                        policy: policy_name(info.policy).to_owned(),
                        price: info.price.clone(),
                        chunks: 0,
                        from_seq: 0,
                        newest_ms: None,
                    };
                    match feed.streams.iter_mut().find(|stream| stream.stream == info.stream) {
                        Some(known) => *known = summary,
                        None => feed.streams.push(summary),
                    }
                }
                EntryBody::DatasetClosed(closed) => feed.datasets.push(closed_dataset(*did, closed)),
                EntryBody::Tombstone(tombstone) => {
                    if let TombstoneTarget::Dataset(dataset) = &tombstone.target {
                        withdrawn.push(*dataset);
                    }
                }
                _ => {}
            }
        }
    }
    let mut contents = BTreeMap::new();
    for log in logs.iter().filter(|log| log.log != LogId::MACHINE) {
        let Some((seq, bytes)) = store.head(log)? else { continue };
        let Ok(signed) = SignedEntry::decode(&bytes) else { continue };
        let EntryBody::Chunk(record) = &signed.entry().body else { continue };
        feed.newest_ms = feed.newest_ms.max(Some(signed.entry().time_ms));
        contents.insert(record.stream, record.encoding.content);
        if let Some(stream) = feed.streams.iter_mut().find(|stream| stream.stream == record.stream) {
            stream.chunks += seq + 1;
            // Logs are in the order of their incarnations: the newest stays.
            stream.from_seq = store.log(log, ..).next().transpose()?.map_or(0, |entry| entry.seq);
            stream.newest_ms = stream.newest_ms.max(Some(record.time_to_ms));
        }
        if !feed.datasets.iter().any(|dataset| dataset.dataset == record.dataset) {
            feed.datasets.push(open_dataset(*did, log, seq, record));
        }
    }
    for dataset in &mut feed.datasets {
        if let Some(stream) = feed.streams.iter().find(|stream| stream.stream == dataset.stream_id) {
            dataset.stream.clone_from(&stream.name);
        }
        if contents.get(&dataset.stream_id) == Some(&Content::File) {
            "file".clone_into(&mut dataset.content);
        }
        dataset.withdrawn = withdrawn.contains(&dataset.dataset);
    }
    Ok(Some(feed))
}

fn closed_dataset(machine: Did, entry: &DatasetEntry) -> DatasetSummary {
    DatasetSummary {
        dataset: entry.dataset,
        machine,
        stream: entry.stream.to_string(),
        stream_id: entry.stream,
        closed: true,
        content: "packages".to_owned(),
        epoch: entry.epoch,
        incarnation: entry.incarnation,
        chunks: entry.chunk_count,
        packages: Some(entry.package_count),
        bytes: Some(entry.bytes),
        from_ms: entry.time_from_ms,
        to_ms: entry.time_to_ms,
        merkle_root: Some(hex::encode(entry.merkle_root)),
        first_seq: entry.first_seq,
        last_seq: entry.last_seq,
        withdrawn: false,
    }
}

fn open_dataset(machine: Did, log: &LogKey, seq: u64, record: &ChunkRecord) -> DatasetSummary {
    DatasetSummary {
        dataset: record.dataset,
        machine,
        stream: record.stream.to_string(),
        stream_id: record.stream,
        closed: false,
        content: "packages".to_owned(),
        epoch: record.epoch,
        incarnation: log.incarnation,
        chunks: record.index.saturating_add(1),
        packages: None,
        bytes: None,
        from_ms: record.time_from_ms,
        to_ms: record.time_to_ms,
        merkle_root: None,
        first_seq: seq.saturating_sub(u64::from(record.index)),
        last_seq: seq,
        withdrawn: false,
    }
}

fn mode_name(mode: Mode) -> &'static str {
    match mode {
        Mode::Fields => "fields",
        Mode::Raw => "raw",
        Mode::File => "file",
    }
}

fn policy_name(policy: Policy) -> &'static str {
    match policy {
        Policy::Free => "free",
        Policy::Allowlist => "allowlist",
        Policy::Manual => "manual",
        Policy::Paid => "paid",
    }
}

/// How many chunks of a dataset are here with their bodies, and how many bytes those are.
fn held(store: &Store, dataset: &DatasetSummary) -> Result<(u32, u64), StoreError> {
    let (mut chunks, mut bytes) = (0, 0);
    for stored in store.log(&dataset.log(), dataset.first_seq..=dataset.last_seq) {
        let Ok(signed) = SignedEntry::decode(&stored?.bytes) else { continue };
        if let EntryBody::Chunk(record) = &signed.entry().body
            && let Some(len) = store.chunk_len(&record.hash)?
        {
            chunks += 1;
            bytes += u64::from(len);
        }
    }
    Ok((chunks, bytes))
}

/// Shorter beginnings of an id are refused: they name too much.
const MIN_PREFIX: usize = 6;

/// The dataset whose id is, or begins with, `text`.
pub(crate) fn find_dataset(store: &Store, text: &str) -> Result<DatasetSummary, Problem> {
    let well_formed =
        (MIN_PREFIX..=64).contains(&text.len()) && text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
    if !well_formed {
        return Err(Problem::usage(format!("{text:?} is no dataset id")).hint(format!(
            "give its 64 hex digits, or at least the first {MIN_PREFIX}; `tributary dataset ls` shows them"
        )));
    }
    let mut found: Option<DatasetSummary> = None;
    for did in feeds(store)? {
        for dataset in feed(store, &did)?.map(|feed| feed.datasets).unwrap_or_default() {
            if !dataset.dataset.to_string().starts_with(text) {
                continue;
            }
            if found.replace(dataset).is_some() {
                return Err(Problem::new(Code::Usage, format!("more than one dataset begins with {text}"))
                    .hint("give more digits of its id"));
            }
        }
    }
    found.ok_or_else(|| {
        Problem::not_found(format!("no dataset {text} is known here"))
            .hint("list what is known with `tributary dataset ls`; a buyer first follows the machine with `tributary subscribe`")
    })
}
