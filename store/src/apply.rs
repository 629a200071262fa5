//! What a change means for the index: one function, used by the writer, by replay and by a rebuild alike, so that they cannot
//! differ.

use tributary_protocol::ids::Hash;

use crate::{
    batch::EntryIndex,
    error::StoreError,
    frame::{Change, Reader},
    index::{
        ChunkRow, Delta, INLINE, Loc, PlaceRow, announced_key, chunk_key, counter_key, dataset_key, entry_key,
        log_prefix, place_bytes, row_key,
    },
};

/// The digest of an entry that its index row carries.
pub(crate) fn digest(entry: &[u8]) -> [u8; 16] {
    let mut out = [0; 16];
    out.copy_from_slice(&blake3::hash(entry).as_bytes()[..16]);
    out
}

/// Applies one change whose frame is at `loc`. `lookup` reads what an entry's frame says it is found by; only truncation asks.
pub(crate) fn apply(
    delta: &mut Delta<'_>,
    lsn: u64,
    loc: Loc,
    change: &Change<'_>,
    lookup: &mut dyn FnMut(Loc) -> Option<EntryIndex>,
) -> Result<(), StoreError> {
    match change {
        Change::Chunk { hash, time_ms } => {
            let row = ChunkRow { tombstone: None, released: false, lsn, loc, time_ms: *time_ms };
            delta.put(chunk_key(hash), row.encode())
        }
        Change::Tombstone { hash, reason, time_ms } => {
            let row = ChunkRow { tombstone: Some(*reason), released: false, lsn, loc, time_ms: *time_ms };
            delta.put(chunk_key(hash), row.encode())
        }
        Change::Release { hash } => match chunk_row(delta, hash)? {
            Some(row) if row.tombstone.is_none() => {
                delta.put(chunk_key(hash), ChunkRow { released: true, ..row }.encode())
            }
            _ => Ok(()),
        },
        Change::Entry { log, seq, index, bytes } => {
            delta.put(entry_key(log, *seq), PlaceRow { lsn, loc, rest: &digest(bytes) }.encode())?;
            if let Some(chunk) = &index.chunk {
                delta.put(announced_key(chunk), place_bytes(log, *seq))?;
            }
            if let Some((dataset, number)) = &index.dataset {
                delta.put(dataset_key(dataset.as_bytes(), *number), place_bytes(log, *seq))?;
            }
            Ok(())
        }
        Change::Truncate { log, from_seq } => {
            for (key, value) in delta.rows_from(&log_prefix(b'e', log), entry_key(log, *from_seq))? {
                let Some(row) = PlaceRow::decode(&value) else { continue };
                let place = key[1..].to_vec();
                let evidence = [b"v", place.as_slice(), &row.lsn.to_be_bytes()].concat();
                if let Some(found) = lookup(row.loc) {
                    let rows = [
                        found.chunk.map(|chunk| announced_key(&chunk)),
                        found.dataset.map(|(dataset, number)| dataset_key(dataset.as_bytes(), number)),
                    ];
                    for key in rows.into_iter().flatten() {
                        if delta.get(&key)?.as_deref() == Some(&place) {
                            delta.delete(key)?;
                        }
                    }
                }
                delta.delete(key)?;
                delta.put(evidence, value)?;
            }
            Ok(())
        }
        Change::RowPut { table, key, value } => {
            let mut rest = vec![u8::from(value.len() <= INLINE)];
            if value.len() <= INLINE {
                rest.extend_from_slice(value);
            }
            delta.put(row_key(*table as u8, key), PlaceRow { lsn, loc, rest: &rest }.encode())
        }
        Change::RowDelete { table, key } => delta.delete(row_key(*table as u8, key)),
        Change::Counter { name, value } => {
            delta.put(counter_key(name), PlaceRow { lsn, loc, rest: &value.to_le_bytes() }.encode())
        }
    }
}

pub(crate) fn chunk_row(delta: &Delta<'_>, hash: &Hash) -> Result<Option<ChunkRow>, StoreError> {
    Ok(delta.get(&chunk_key(hash))?.and_then(|value| ChunkRow::decode(&value)))
}

/// Keys of the index rows that may point to the frame of this change.
pub(crate) fn owners(change: &Change<'_>, lsn: u64) -> Vec<Vec<u8>> {
    match change {
        Change::Chunk { hash, .. } | Change::Tombstone { hash, .. } | Change::Release { hash } => vec![chunk_key(hash)],
        Change::Entry { log, seq, .. } => {
            let evidence = [b"v", place_bytes(log, *seq).as_slice(), &lsn.to_be_bytes()].concat();
            vec![entry_key(log, *seq), evidence]
        }
        Change::RowPut { table, key, .. } | Change::RowDelete { table, key } => vec![row_key(*table as u8, key)],
        Change::Counter { name, .. } => vec![counter_key(name)],
        Change::Truncate { .. } => Vec::new(),
    }
}

/// The value of a counter row.
pub(crate) fn counter_value(value: &[u8]) -> Option<u64> {
    PlaceRow::decode(value).and_then(|row| Reader(row.rest).u64())
}
