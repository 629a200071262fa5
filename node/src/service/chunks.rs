//! The store as the pull server sees it.

use tributary_protocol::ids::Hash;
use tributary_store::{ChunkState, Store, StoreError};

use crate::net::{ChunkLookup, ChunkProvider};

/// Serves every chunk that the store has, whoever made it: ciphertext is for everyone.
pub(super) struct StoredChunks(pub(super) Store);

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
        let Some(reader) = self.0.chunk_reader(hash)? else {
            return Ok(match self.0.chunk_state(hash)? {
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
    use tributary_store::{Reason, StoreOptions, WriteBatch};

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

        let (chunks, mut into) = (StoredChunks(store), b"before".to_vec());
        assert_eq!(chunks.read(&Hash::of(&removed), &mut into), ChunkLookup::Gone);
        assert_eq!(chunks.read(&never, &mut into), ChunkLookup::Absent);
        assert_eq!(into, b"before");
        assert_eq!(chunks.read(&Hash::of(&kept), &mut into), ChunkLookup::Found);
        assert_eq!(into, [b"before".as_slice(), &kept].concat());
    }
}
