//! What is stored about a subscription.
//!
//! Table Follow, key `0x73 || machine (20) || stream (32)`, value: JSON of [`Row`]. The key is 53 bytes long; followed feeds
//! have keys of 20 bytes in the table, requests of 52.

use serde::{Deserialize, Serialize};
use tributary_protocol::ids::{Did, Hash, StreamId};
use tributary_store::{Store, Table, WriteBatch};

use super::{Key, SubscriptionTerms};
use crate::feeds::FeedsError;

const PREFIX: u8 = b's';
const LEN: usize = 1 + Did::LEN + StreamId::LEN;
/// Rows read at a time.
const PAGE: usize = 256;

/// A place in the logs of a stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub(super) struct Place {
    pub(super) incarnation: u32,
    pub(super) seq: u64,
}

/// How far the files are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct SinkState {
    /// Number of the file that grows.
    pub(super) file: u64,
    /// Bytes of it that count: what is behind them was not noted before a kill, and is cut.
    pub(super) len: u64,
}

/// Why nothing is asked for any more.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Ended {
    pub(super) reason: String,
    pub(super) at_ms: u64,
}

/// A subscription.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Row {
    pub(super) version: u32,
    /// Whether it is of the configuration; otherwise of a command.
    pub(super) configured: bool,
    pub(super) terms: SubscriptionTerms,
    pub(super) since_ms: u64,
    /// Until when keys are here, by our clock.
    pub(super) until_ms: Option<u64>,
    /// When they came, by our clock.
    pub(super) granted_ms: Option<u64>,
    /// A request that waits for a decision.
    pub(super) request: Option<Hash>,
    pub(super) ended: Option<Ended>,
    /// The first chunk that was not taken yet. Together with `sink`: everything before it is in the files, nothing behind.
    pub(super) next: Option<Place>,
    pub(super) sink: Option<SinkState>,
    pub(super) chunks: u64,
    pub(super) packages: u64,
    pub(super) skipped: u64,
}

impl Row {
    /// Whether keys are asked for.
    pub(super) fn asks(&self) -> bool {
        self.terms.renew && self.ended.is_none()
    }

    pub(super) fn new(terms: SubscriptionTerms, now_ms: u64) -> Self {
        Self {
            version: 1,
            configured: false,
            terms,
            since_ms: now_ms,
            until_ms: None,
            granted_ms: None,
            request: None,
            ended: None,
            next: None,
            sink: None,
            chunks: 0,
            packages: 0,
            skipped: 0,
        }
    }
}

fn key(did: &Did, stream: &StreamId) -> Vec<u8> {
    [&[PREFIX], did.as_bytes().as_slice(), stream.as_bytes()].concat()
}

fn bad(error: &serde_json::Error) -> FeedsError {
    FeedsError::Row { what: "subscription", reason: error.to_string() }
}

pub(super) fn load(store: &Store, did: &Did, stream: &StreamId) -> Result<Option<Row>, FeedsError> {
    let row = store.row(Table::Follow, &key(did, stream))?;
    row.map(|row| serde_json::from_slice(&row).map_err(|error| bad(&error))).transpose()
}

pub(super) fn save(store: &Store, did: &Did, stream: &StreamId, row: &Row) -> Result<(), FeedsError> {
    let value = serde_json::to_vec(row).map_err(|error| bad(&error))?;
    let mut batch = WriteBatch::new();
    batch.put_row(Table::Follow, key(did, stream), value);
    Ok(store.commit(batch)?)
}

pub(super) fn delete(store: &Store, did: &Did, stream: &StreamId) -> Result<(), FeedsError> {
    let mut batch = WriteBatch::new();
    batch.delete_row(Table::Follow, key(did, stream));
    Ok(store.commit(batch)?)
}

/// All subscriptions. One that cannot be read is left out, and said so.
pub(super) fn load_all(store: &Store) -> Result<Vec<(Key, Row)>, FeedsError> {
    let mut all = Vec::new();
    let mut after: Option<Vec<u8>> = None;
    loop {
        let rows = store.rows(Table::Follow, &[PREFIX], after.as_deref(), PAGE)?;
        let Some((last, _)) = rows.last() else { return Ok(all) };
        after = Some(last.clone());
        for (key, value) in rows.iter().filter(|(key, _)| key.len() == LEN) {
            let (Some(did), Some(stream)) = (key[1..].first_chunk(), key.last_chunk()) else { continue };
            match serde_json::from_slice(value) {
                Ok(row) => all.push(((Did::from_bytes(*did), StreamId::from_bytes(*stream)), row)),
                Err(error) => tracing::error!(%error, "a subscription cannot be read; subscribe again"),
            }
        }
    }
}

/// Amounts are written as decimal texts: JSON numbers end at 2^64.
pub(super) mod decimal {
    use serde::{Deserialize as _, Deserializer, Serializer, de::Error as _};

    pub(in super::super) fn serialize<S: Serializer>(value: &u128, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(value)
    }

    pub(in super::super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<u128, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(D::Error::custom)
    }
}
