//! Streams whose peer has not said what it wants.

use std::collections::{BTreeMap, HashMap};

use libp2p::PeerId;
use tokio::task::AbortHandle;

/// Who waits, oldest first.
pub(super) struct Waiting {
    max: usize,
    max_per_peer: usize,
    next: u64,
    entries: BTreeMap<u64, (PeerId, Option<AbortHandle>)>,
    peers: HashMap<PeerId, usize>,
}

impl Waiting {
    pub(super) fn new(max: usize, max_per_peer: usize) -> Self {
        Self { max: max.max(1), max_per_peer, next: 0, entries: BTreeMap::new(), peers: HashMap::new() }
    }

    /// Lets a stream wait; the oldest gives way when there are too many. `None`: this peer has enough of them.
    pub(super) fn enter(&mut self, peer: PeerId) -> Option<u64> {
        if self.peers.get(&peer).is_some_and(|count| *count >= self.max_per_peer) {
            return None;
        }
        if self.entries.len() >= self.max
            && let Some(oldest) = self.entries.keys().next().copied()
            && let Some((_, Some(task))) = self.leave(oldest)
        {
            task.abort();
        }
        let id = self.next;
        self.next += 1;
        self.entries.insert(id, (peer, None));
        *self.peers.entry(peer).or_default() += 1;
        Some(id)
    }

    /// Says how to end a stream that waits.
    pub(super) fn attach(&mut self, id: u64, task: AbortHandle) {
        if let Some((_, slot)) = self.entries.get_mut(&id) {
            *slot = Some(task);
        }
    }

    /// A stream waits no longer.
    pub(super) fn leave(&mut self, id: u64) -> Option<(PeerId, Option<AbortHandle>)> {
        let entry = self.entries.remove(&id)?;
        if let Some(count) = self.peers.get_mut(&entry.0) {
            *count -= 1;
            if *count == 0 {
                self.peers.remove(&entry.0);
            }
        }
        Some(entry)
    }

    pub(super) fn len(&self) -> usize {
        self.entries.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_oldest_gives_way_and_one_peer_cannot_fill_the_room() {
        let mut waiting = Waiting::new(3, 2);
        let (crowd, other) = (PeerId::random(), PeerId::random());
        let task = tokio::spawn(std::future::pending::<()>());
        let first = waiting.enter(crowd).unwrap();
        waiting.attach(first, task.abort_handle());
        let second = waiting.enter(crowd).unwrap();
        assert_eq!(waiting.enter(crowd), None);
        let third = waiting.enter(other).unwrap();
        assert_eq!(waiting.len(), 3);
        assert!(waiting.enter(other).is_some());
        assert_eq!(waiting.len(), 3);
        assert!(task.await.unwrap_err().is_cancelled());
        assert!(waiting.leave(first).is_none());
        assert!(waiting.leave(second).is_some() && waiting.leave(third).is_some());
        assert!(waiting.enter(crowd).is_some());
    }
}
