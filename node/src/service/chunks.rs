//! The store as the pull server sees it.

use tributary_protocol::ids::{Did, Hash};
use tributary_store::{ChunkState, Store, StoreError};

use crate::net::{ChunkLookup, ChunkProvider};

/// Serves the chunks of the store: ciphertext is for everyone.
pub(super) struct StoredChunks {
    pub(super) store: Store,
    /// The machine whose chunks are served; `None` serves all, whoever made them.
    pub(super) only: Option<Did>,
}

impl ChunkProvider for StoredChunks {
    fn read(&self, hash: &Hash, into: &mut Vec<u8>) -> ChunkLookup {
        let begin = into.len();
        match self.append(hash, into) {
            Ok(lookup) => lookup,
            Err(error) => {
                into.truncate(begin);
                tracing::warn!(chunk = %hash, %error, "a chunk cannot be served");
                ChunkLookup::Absent
            }
        }
    }
}

impl StoredChunks {
    /// Reads straight into the server's buffer. The bytes are not hashed here: the puller does that, and a damaged chunk is
    /// found by it and by `tributary store check`.
    fn append(&self, hash: &Hash, into: &mut Vec<u8>) -> Result<ChunkLookup, StoreError> {
        if let Some(only) = self.only
            && self.store.chunk_entry(hash)?.is_none_or(|(log, _)| log.did != only)
        {
            return Ok(ChunkLookup::Absent);
        }
        let Some(reader) = self.store.chunk_reader(hash)? else {
            return Ok(match self.store.chunk_state(hash)? {
                ChunkState::Tombstoned => ChunkLookup::Gone,
                ChunkState::Present | ChunkState::Absent => ChunkLookup::Absent,
            });
        };
        let begin = into.len();
        into.resize(begin + usize::try_from(reader.len()).unwrap_or(0), 0);
        let read = reader.read_at(&mut into[begin..], 0)?;
        into.truncate(begin + read);
        Ok(ChunkLookup::Found)
    }
}

#[cfg(test)]
mod tests {
    use tributary_protocol::ids::{LogId, LogKey};
    use tributary_store::{EntryIndex, Reason, StoreOptions, WriteBatch};

    use super::*;

    #[test]
    fn chunks_are_appended_and_removed_ones_are_gone() {
        let dir = tempfile::tempdir().expect("a temporary folder");
        let (store, _) = Store::open(dir.path(), &StoreOptions::default()).expect("opens");
        let (kept, removed, never) = (vec![1u8; 5000], vec![2u8; 10], Hash::of(b"never"));
        let mut batch = WriteBatch::new();
        batch.put_chunk(Hash::of(&kept), kept.clone()).put_chunk(Hash::of(&removed), removed.clone());
        store.commit(batch).expect("stored");
        let mut batch = WriteBatch::new();
        batch.tombstone_chunk(Hash::of(&removed), Reason::Deleted);
        store.commit(batch).expect("stored");

        let (chunks, mut into) = (StoredChunks { store: store.clone(), only: None }, b"before".to_vec());
        assert_eq!(chunks.read(&Hash::of(&removed), &mut into), ChunkLookup::Gone);
        assert_eq!(chunks.read(&never, &mut into), ChunkLookup::Absent);
        assert_eq!(into, b"before");
        assert_eq!(chunks.read(&Hash::of(&kept), &mut into), ChunkLookup::Found);
        assert_eq!(into, [b"before".as_slice(), &kept].concat());

        // No entry says whose it is.
        let chunks = StoredChunks { store, only: Some(Did::from_bytes([1; 20])) };
        assert_eq!(chunks.read(&Hash::of(&kept), &mut into), ChunkLookup::Absent);
    }

    #[test]
    fn who_serves_one_machine_serves_no_other() {
        let dir = tempfile::tempdir().expect("a temporary folder");
        let (store, _) = Store::open(dir.path(), &StoreOptions::default()).expect("opens");
        let (own, other) = (Did::from_bytes([1; 20]), Did::from_bytes([2; 20]));
        let mut batch = WriteBatch::new();
        for (did, body) in [(own, b"own"), (other, b"its")] {
            let hash = Hash::of(body);
            let log = LogKey { did, log: LogId::MACHINE, incarnation: 0 };
            let index = EntryIndex { chunk: Some(hash), ..EntryIndex::default() };
            batch.put_entry(log, 0, b"entry", index).put_chunk(hash, body.to_vec());
        }
        store.commit(batch).expect("stored");
        let (chunks, mut into) = (StoredChunks { store, only: Some(own) }, Vec::new());
        assert_eq!(chunks.read(&Hash::of(b"its"), &mut into), ChunkLookup::Absent);
        assert_eq!(chunks.read(&Hash::of(b"own"), &mut into), ChunkLookup::Found);
        assert_eq!(into, b"own");
    }
}
