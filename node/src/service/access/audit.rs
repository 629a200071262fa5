//! The audit log: every quote, request, decision and delivery, in order, never changed.
//!
//! Key: number (8, big endian), from 0 without gaps. Value: JSON of [`AuditRecord`].

use serde::{Deserialize, Serialize};
use tributary_protocol::ids::{Did, Hash, StreamId};
use tributary_store::{Store, StoreError, Table, WriteBatch};

const NEXT: &str = "audit/next";
const VERSION: u32 = 1;

/// What happened.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum AuditEvent {
    /// A quote was given.
    Quoted,
    /// A request came that is signed and takes a quote.
    Requested,
    /// Grants were issued.
    Granted,
    /// The request was refused.
    Denied,
    /// A buyer got the grants for the first time.
    Delivered,
    /// Renewals were stopped.
    Revoked,
    /// Renewals are possible again.
    Reinstated,
}

/// One line of the audit log.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AuditRecord {
    version: u32,
    /// When, ms since 1970.
    pub time_ms: u64,
    /// What.
    pub event: AuditEvent,
    /// Whose access.
    pub buyer: Did,
    /// About which request.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub request: Option<Hash>,
    /// Which streams.
    pub streams: Vec<StreamId>,
    /// Who decided, or why.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub detail: String,
}

impl AuditRecord {
    pub(super) fn new(time_ms: u64, event: AuditEvent, buyer: Did, streams: Vec<StreamId>) -> Self {
        Self { version: VERSION, time_ms, event, buyer, request: None, streams, detail: String::new() }
    }

    pub(super) fn about(mut self, request: Hash) -> Self {
        self.request = Some(request);
        self
    }

    pub(super) fn because(mut self, detail: impl Into<String>) -> Self {
        self.detail = detail.into();
        self
    }
}

/// Gives the numbers. Has one owner, who holds it from the first record of a batch to its commit.
pub(super) struct Audit {
    next: u64,
}

impl Audit {
    pub(super) fn open(store: &Store) -> Result<Self, StoreError> {
        Ok(Self { next: store.counter(NEXT)? })
    }

    /// Adds records to a batch. Once it is durable, [`Audit::written`] must be told how many they were.
    pub(super) fn put(&self, batch: &mut WriteBatch, records: &[AuditRecord]) {
        for (number, record) in (self.next..).zip(records) {
            // These are numbers, ids and short texts: there is nothing that JSON could not say.
            let value = serde_json::to_vec(record).unwrap_or_default();
            batch.put_row(Table::Audit, number.to_be_bytes().to_vec(), value);
        }
        batch.set_counter(NEXT, self.next + records.len() as u64);
    }

    pub(super) fn written(&mut self, records: &[AuditRecord]) {
        self.next += records.len() as u64;
    }
}

/// Lines of the audit log from number `from` on, at most `limit`, each with its number.
pub(crate) fn read(store: &Store, from: u64, limit: usize) -> Result<Vec<(u64, AuditRecord)>, StoreError> {
    let after = from.checked_sub(1).map(u64::to_be_bytes);
    let rows = store.rows(Table::Audit, &[], after.as_ref().map(<[u8; 8]>::as_slice), limit)?;
    let line = |(key, value): (Vec<u8>, Vec<u8>)| {
        Some((u64::from_be_bytes(key.try_into().ok()?), serde_json::from_slice(&value).ok()?))
    };
    Ok(rows.into_iter().filter_map(line).collect())
}
