//! What a seller with peaq's SDK told this node: its listings, and that it can deliver.
//!
//! | table | key | value |
//! |---|---|---|
//! | Order | `peaq/listing/`, listing id | JSON of its resource |
//! | Order | `peaq/seller` | JSON of [`Registration`] |

use serde::{Deserialize, Serialize};
use tributary_store::{Store, Table, WriteBatch};

use super::{book::BookError, purchase::Capability, wire::ListingResource};

const LISTINGS: &[u8] = b"peaq/listing/";
const SELLER: &[u8] = b"peaq/seller";
/// Listings that a seller may have.
const MAX_LISTINGS: usize = 1_024;

/// That a seller can deliver, and until when.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Registration {
    /// How.
    pub(super) capabilities: Vec<Capability>,
    /// What.
    pub(super) resource_types: Vec<String>,
    /// When it said so, ms since 1970.
    pub(super) updated_ms: u64,
    /// Until when, ms since 1970.
    pub(super) expires_ms: u64,
    /// The same, as the seller wrote it.
    pub(super) expires_at: String,
}

fn damaged(error: &serde_json::Error) -> BookError {
    BookError::Damaged(error.to_string())
}

fn key(id: &str) -> Vec<u8> {
    [LISTINGS, id.as_bytes()].concat()
}

/// Writes a listing, new or not; `None` leaves what there is. Returns what stands there then, or `None` when there are too many.
pub(super) fn put_listing(
    store: &Store,
    id: &str,
    resource: Option<ListingResource>,
) -> Result<Option<ListingResource>, BookError> {
    let held = listing(store, id)?;
    if held.is_none() && store.rows(Table::Order, LISTINGS, None, MAX_LISTINGS)?.len() >= MAX_LISTINGS {
        return Ok(None);
    }
    let default =
        || ListingResource { kind: "stream.bundle".to_owned(), mode: "bundle".to_owned(), supports_live: false };
    let resource = resource.or(held).unwrap_or_else(default);
    let mut batch = WriteBatch::new();
    batch.put_row(Table::Order, key(id), serde_json::to_vec(&resource).map_err(|error| damaged(&error))?);
    store.commit(batch)?;
    Ok(Some(resource))
}

/// A listing of the seller.
pub(super) fn listing(store: &Store, id: &str) -> Result<Option<ListingResource>, BookError> {
    let row = store.row(Table::Order, &key(id))?;
    row.map(|row| serde_json::from_slice(&row).map_err(|error| damaged(&error))).transpose()
}

/// All listings of the seller, at most [`MAX_LISTINGS`].
pub(super) fn listings(store: &Store) -> Result<Vec<(String, ListingResource)>, BookError> {
    let rows = store.rows(Table::Order, LISTINGS, None, MAX_LISTINGS)?;
    let read = |(key, row): (Vec<u8>, Vec<u8>)| {
        let id = String::from_utf8_lossy(key.strip_prefix(LISTINGS).unwrap_or_default()).into_owned();
        Ok((id, serde_json::from_slice(&row).map_err(|error| damaged(&error))?))
    };
    rows.into_iter().map(read).collect()
}

/// Notes that the seller can deliver.
pub(super) fn register(store: &Store, registration: &Registration) -> Result<(), BookError> {
    let mut batch = WriteBatch::new();
    batch.put_row(Table::Order, SELLER, serde_json::to_vec(registration).map_err(|error| damaged(&error))?);
    Ok(store.commit(batch)?)
}

/// Whether the seller can deliver now.
pub(super) fn is_registered(store: &Store, now_ms: u64) -> Result<bool, BookError> {
    let Some(row) = store.row(Table::Order, SELLER)? else { return Ok(false) };
    let registration: Registration = serde_json::from_slice(&row).map_err(|error| damaged(&error))?;
    Ok(registration.expires_ms > now_ms)
}
