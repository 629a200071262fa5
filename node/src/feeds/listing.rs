//! What followed machines offer, read from their stored logs.
//!
//! Owns the view for people and programs; every value comes from an entry that was checked when it was stored. Reads block:
//! the public functions run where that is allowed.

use std::{collections::BTreeMap, ops::RangeBounds};

use serde::{Deserialize, Serialize};
use tributary_protocol::{
    entry::{EntryBody, Mode, Policy, SignedEntry, StreamInfo},
    ids::{DatasetId, Did, LogId, LogKey, StreamId},
    record::ChunkRecord,
};
use tributary_store::Store;

use super::{
    Feeds, blocking,
    error::FeedsError,
    feed::{closing_entry, decode_stored},
};

/// Which chunks of a machine are meant.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PullSelection {
    /// A dataset, closed or not.
    Dataset(DatasetId),
    /// A stream, in all its incarnations.
    Stream(StreamId),
}

impl std::fmt::Display for PullSelection {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Dataset(dataset) => write!(f, "dataset {dataset}"),
            Self::Stream(stream) => write!(f, "stream {stream}"),
        }
    }
}

/// A stream as its machine announced it last.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StreamSummary {
    /// Its id.
    pub stream: StreamId,
    /// Its name: the topic, or the alias that hides it.
    pub name: String,
    /// Its message type.
    pub message_type: String,
    /// What its data are: `fields`, `raw` or `file`.
    pub mode: String,
    /// How to get access: `free`, `allowlist`, `manual` or `paid`.
    pub policy: String,
    /// The price, for people.
    pub price: String,
    /// Whether it is followed here.
    pub followed: bool,
    /// Chunks known here, all incarnations together.
    pub chunks: u64,
}

/// A dataset.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DatasetInfo {
    /// Its id.
    pub dataset: DatasetId,
    /// Its stream.
    pub stream: StreamId,
    /// The name of its stream, if it was announced.
    pub name: Option<String>,
    /// Whether the machine closed it: only then its numbers are final.
    pub closed: bool,
    /// Key epoch.
    pub epoch: u64,
    /// Incarnation of the stream's log.
    pub incarnation: u32,
    /// Chunks.
    pub chunks: u32,
    /// Packages; 0 for a file.
    pub packages: u64,
    /// Bytes of ciphertext.
    pub bytes: u64,
    /// Time of the earliest content, ms since 1970.
    pub time_from_ms: u64,
    /// Time of the latest content, ms since 1970.
    pub time_to_ms: u64,
    /// Position of the first chunk's entry in the stream's log.
    pub first_seq: u64,
}

/// The entries of a log in a range of positions, page by page.
pub(crate) fn entries(
    store: &Store,
    log: LogKey,
    range: impl RangeBounds<u64>,
) -> impl Iterator<Item = Result<SignedEntry, FeedsError>> {
    store.log(&log, range).map(|stored| decode_stored(&stored?.bytes))
}

/// Visits every entry of a machine's log, in all incarnations, until `visit` says stop.
pub(crate) fn visit_machine_log(
    store: &Store,
    did: &Did,
    mut visit: impl FnMut(&SignedEntry) -> bool,
) -> Result<(), FeedsError> {
    for log in store.logs(Some(did))?.into_iter().filter(|log| log.log == LogId::MACHINE) {
        for entry in entries(store, log, ..) {
            if !visit(&entry?) {
                return Ok(());
            }
        }
    }
    Ok(())
}

/// The logs of a stream in all incarnations, oldest first.
pub(crate) fn stream_logs(store: &Store, did: &Did, stream: &StreamId) -> Result<Vec<LogKey>, FeedsError> {
    let log = LogId::from(*stream);
    Ok(store.logs(Some(did))?.into_iter().filter(|key| key.log == log).collect())
}

/// Where the chunks of a dataset are: log, first and last position. The last of an open one is the end of the log.
pub(crate) fn dataset_place(
    store: &Store,
    did: &Did,
    dataset: &DatasetId,
) -> Result<Option<(LogKey, u64, u64)>, FeedsError> {
    if let Some(bytes) = closing_entry(store, did, dataset)?
        && let EntryBody::DatasetClosed(close) = &decode_stored(&bytes)?.entry().body
    {
        let log = LogKey { did: *did, log: LogId::from(close.stream), incarnation: close.incarnation };
        return Ok(Some((log, close.first_seq, close.last_seq)));
    }
    let first = store.dataset_chunks(dataset, 0, 1)?.into_iter().next();
    Ok(first.filter(|(_, log, _)| log.did == *did).map(|(_, log, seq)| (log, seq, u64::MAX)))
}

impl Feeds {
    /// The streams of a machine as announced last.
    pub(crate) fn stream_infos(&self, did: &Did) -> Result<BTreeMap<StreamId, StreamInfo>, FeedsError> {
        let mut streams = BTreeMap::new();
        visit_machine_log(&self.inner.store, did, |entry| {
            if let EntryBody::Stream(info) = &entry.entry().body {
                streams.insert(info.stream, info.clone());
            }
            true
        })?;
        Ok(streams)
    }

    /// The streams of a machine, by name.
    ///
    /// # Errors
    ///
    /// What cannot be read.
    pub async fn streams(&self, did: &Did) -> Result<Vec<StreamSummary>, FeedsError> {
        let (feeds, did) = (self.clone(), *did);
        blocking(move || {
            let followed = feeds.handle(&did).ok().map(|handle| handle.feed().row.streams.clone());
            let mut list = Vec::new();
            for (stream, info) in feeds.stream_infos(&did)? {
                let mut chunks = 0;
                for log in stream_logs(&feeds.inner.store, &did, &stream)? {
                    chunks += feeds.span(&log)?.map_or(0, |(first, next)| next.saturating_sub(first));
                }
                let followed = followed.as_ref().is_some_and(|streams| streams.wants(&did, &LogId::from(stream)));
                list.push(summary(info, followed, chunks));
            }
            list.sort_by(|a, b| a.name.cmp(&b.name));
            Ok(list)
        })
        .await?
    }

    /// The datasets of a machine, oldest first: those it closed, and what of each stream is not closed yet.
    ///
    /// # Errors
    ///
    /// What cannot be read.
    pub async fn datasets(&self, did: &Did) -> Result<Vec<DatasetInfo>, FeedsError> {
        let (feeds, did) = (self.clone(), *did);
        blocking(move || feeds.datasets_blocking(&did)).await?
    }

    fn datasets_blocking(&self, did: &Did) -> Result<Vec<DatasetInfo>, FeedsError> {
        let store = &self.inner.store;
        let names = self.stream_infos(did)?;
        let name = |stream: &StreamId| names.get(stream).map(|info| info.name.clone());
        let mut list: Vec<DatasetInfo> = Vec::new();
        let mut seen = std::collections::BTreeSet::new();
        visit_machine_log(store, did, |entry| {
            // Of two that close one dataset, the first counts.
            if let EntryBody::DatasetClosed(close) = &entry.entry().body
                && seen.insert(close.dataset)
            {
                list.push(DatasetInfo {
                    dataset: close.dataset,
                    stream: close.stream,
                    name: name(&close.stream),
                    closed: true,
                    epoch: close.epoch,
                    incarnation: close.incarnation,
                    chunks: close.chunk_count,
                    packages: close.package_count,
                    bytes: close.bytes,
                    time_from_ms: close.time_from_ms,
                    time_to_ms: close.time_to_ms,
                    first_seq: close.first_seq,
                });
            }
            true
        })?;
        for log in store.logs(Some(did))? {
            let (Some(stream), Some((last, bytes))) = (log.log.stream(), store.head(&log)?) else { continue };
            let newest = decode_stored(&bytes)?;
            let EntryBody::Chunk(record) = &newest.entry().body else { continue };
            if seen.contains(&record.dataset) {
                continue;
            }
            let first_seq = last.saturating_sub(u64::from(record.index));
            let mut open = DatasetInfo {
                dataset: record.dataset,
                stream,
                name: name(&stream),
                closed: false,
                epoch: record.epoch,
                incarnation: log.incarnation,
                chunks: 0,
                packages: 0,
                bytes: 0,
                time_from_ms: u64::MAX,
                time_to_ms: 0,
                first_seq,
            };
            for entry in entries(store, log, first_seq..=last) {
                let entry = entry?;
                let EntryBody::Chunk(record) = &entry.entry().body else { continue };
                open.chunks = open.chunks.saturating_add(1);
                open.packages += u64::from(record.package_count);
                open.bytes += u64::from(record.len);
                open.time_from_ms = open.time_from_ms.min(record.time_from_ms);
                open.time_to_ms = open.time_to_ms.max(record.time_to_ms);
            }
            list.push(open);
        }
        list.sort_by_key(|info| info.time_from_ms);
        Ok(list)
    }

    /// Visits the chunk records of a selection in order until `visit` says stop. Says whether the selection is known.
    pub(crate) fn visit_chunks(
        &self,
        did: &Did,
        selection: PullSelection,
        visit: &mut dyn FnMut(LogKey, u64, &ChunkRecord) -> bool,
    ) -> Result<bool, FeedsError> {
        let places = self.places(did, selection)?;
        let dataset = match selection {
            PullSelection::Dataset(dataset) => Some(dataset),
            PullSelection::Stream(_) => None,
        };
        self.visit_places(&places, dataset, visit)?;
        Ok(!places.is_empty())
    }

    /// Visits the chunk records in stretches of logs until `visit` says stop; with a dataset, each stretch ends with it.
    pub(crate) fn visit_places(
        &self,
        places: &[(LogKey, u64, u64)],
        dataset: Option<DatasetId>,
        visit: &mut dyn FnMut(LogKey, u64, &ChunkRecord) -> bool,
    ) -> Result<(), FeedsError> {
        for (log, first, last) in places.iter().copied() {
            for entry in entries(&self.inner.store, log, first..=last) {
                let entry = entry?;
                let EntryBody::Chunk(record) = &entry.entry().body else { continue };
                if dataset.is_some_and(|dataset| dataset != record.dataset) {
                    break;
                }
                if !visit(log, entry.entry().seq, record) {
                    return Ok(());
                }
            }
        }
        Ok(())
    }

    /// The stretches of logs that a selection is in.
    pub(crate) fn places(&self, did: &Did, selection: PullSelection) -> Result<Vec<(LogKey, u64, u64)>, FeedsError> {
        let store = &self.inner.store;
        Ok(match selection {
            PullSelection::Dataset(dataset) => dataset_place(store, did, &dataset)?.into_iter().collect(),
            PullSelection::Stream(stream) => {
                stream_logs(store, did, &stream)?.into_iter().map(|log| (log, 0, u64::MAX)).collect()
            }
        })
    }
}

fn summary(info: StreamInfo, followed: bool, chunks: u64) -> StreamSummary {
    let mode = match info.mode {
        Mode::Fields => "fields",
        Mode::Raw => "raw",
        Mode::File => "file",
    };
    let policy = match info.policy {
        Policy::Free => "free",
        Policy::Allowlist => "allowlist",
        Policy::Manual => "manual",
        Policy::Paid => "paid",
    };
    StreamSummary {
        stream: info.stream,
        name: info.name,
        message_type: info.message_type,
        mode: mode.to_owned(),
        policy: policy.to_owned(),
        price: info.price,
        followed,
        chunks,
    }
}
