//! SHA-256 of plaintexts that this machine sealed or read lately, by ciphertext.
//!
//! peaq's envelopes show this hash. A record only commits to it under the chunk's key, and it is on no disk: whoever sells a chunk
//! to a buyer of peaq's finds it here, or decrypts the chunk once more.

use std::{
    collections::{HashMap, VecDeque},
    sync::{Mutex, MutexGuard, PoisonError},
};

use tributary_protocol::ids::Hash;

/// Most hashes that are held, about 150 bytes each: 8 GiB in chunks of 256 KiB. The oldest gives way.
const MAX: usize = 32_768;

#[derive(Default)]
pub(crate) struct PlaintextHashes(Mutex<Held>);

#[derive(Default)]
struct Held {
    hashes: HashMap<Hash, [u8; 32]>,
    /// Oldest first.
    order: VecDeque<Hash>,
}

impl PlaintextHashes {
    fn held(&self) -> MutexGuard<'_, Held> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The hash of what the ciphertext with this BLAKE3 decrypts to.
    pub(crate) fn get(&self, chunk: &Hash) -> Option<[u8; 32]> {
        self.held().hashes.get(chunk).copied()
    }

    pub(crate) fn put(&self, chunk: Hash, plaintext_sha256: [u8; 32]) {
        let Held { hashes, order } = &mut *self.held();
        if hashes.insert(chunk, plaintext_sha256).is_some() {
            return;
        }
        order.push_back(chunk);
        if order.len() > MAX
            && let Some(oldest) = order.pop_front()
        {
            hashes.remove(&oldest);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_oldest_gives_way() {
        let hashes = PlaintextHashes::default();
        let chunk = |number: usize| Hash::of(&number.to_be_bytes());
        for number in 0..=MAX {
            hashes.put(chunk(number), [1; 32]);
            hashes.put(chunk(number), [2; 32]);
        }
        assert_eq!(hashes.get(&chunk(0)), None);
        assert_eq!(hashes.get(&chunk(1)), Some([2; 32]));
        assert_eq!(hashes.get(&chunk(MAX)), Some([2; 32]));
        assert_eq!(hashes.held().hashes.len(), MAX);
        assert_eq!(hashes.held().order.len(), MAX);
    }
}
