//! Who has transfers under way, and how fast they may go.

use std::{
    collections::HashMap,
    num::NonZeroU32,
    sync::{Arc, PoisonError},
};

use governor::{DefaultDirectRateLimiter, Quota};
use libp2p::PeerId;

use super::{PullServerConfig, SLICE, Shared};

/// A bucket that holds at least one slice, so that a slice can always be paid for.
pub(super) fn limiter(rate: NonZeroU32) -> DefaultDirectRateLimiter {
    let slice = NonZeroU32::new(SLICE as u32).unwrap_or(NonZeroU32::MAX);
    DefaultDirectRateLimiter::direct(Quota::per_second(rate).allow_burst(rate.max(slice)))
}

/// Peers whose rate is remembered after their last transfer, so that a new stream is no fresh allowance.
const MAX_IDLE_PEERS: usize = 1024;

type PeerLimiter = Option<Arc<DefaultDirectRateLimiter>>;

/// Who has transfers under way. Bounded by `max_streams` and [`MAX_IDLE_PEERS`].
#[derive(Default)]
pub(super) struct Slots {
    total: usize,
    peers: HashMap<PeerId, (usize, PeerLimiter)>,
}

impl Slots {
    /// Takes a place for `peer`; `None` when there is none. Returns what limits the peer's rate.
    fn take(&mut self, peer: PeerId, config: &PullServerConfig) -> Option<PeerLimiter> {
        if self.total >= config.max_streams {
            return None;
        }
        if self.peers.len() >= MAX_IDLE_PEERS && !self.peers.contains_key(&peer) {
            self.peers.retain(|_, (streams, _)| *streams > 0);
        }
        let fresh = || (0, config.bytes_per_second_per_peer.map(limiter).map(Arc::new));
        let (streams, limiter) = self.peers.entry(peer).or_insert_with(fresh);
        if *streams >= config.max_streams_per_peer {
            return None;
        }
        *streams += 1;
        self.total += 1;
        Some(limiter.clone())
    }

    /// Transfers under way.
    pub(super) fn active(&self) -> usize {
        self.total
    }

    /// Gives a place back.
    fn give(&mut self, peer: &PeerId) {
        self.total -= 1;
        if let Some((streams, limiter)) = self.peers.get_mut(peer) {
            *streams -= 1;
            if *streams == 0 && limiter.is_none() {
                self.peers.remove(peer);
            }
        }
    }
}

/// One transfer's place; given back on drop.
pub(super) struct Slot {
    pub(super) shared: Arc<Shared>,
    pub(super) peer: PeerId,
    pub(super) limiter: PeerLimiter,
}

impl Slot {
    pub(super) fn take(shared: &Arc<Shared>, peer: PeerId) -> Option<Self> {
        let limiter = shared.slots.lock().unwrap_or_else(PoisonError::into_inner).take(peer, &shared.config)?;
        Some(Self { shared: Arc::clone(shared), peer, limiter })
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        self.shared.slots.lock().unwrap_or_else(PoisonError::into_inner).give(&self.peer);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_are_bounded_per_peer_and_in_all_and_come_back() {
        let config = PullServerConfig { max_streams: 3, max_streams_per_peer: 2, ..PullServerConfig::default() };
        let (mut slots, [a, b]) = (Slots::default(), [PeerId::random(), PeerId::random()]);
        assert!(slots.take(a, &config).is_some() && slots.take(a, &config).is_some());
        assert!(slots.take(a, &config).is_none(), "per peer");
        assert!(slots.take(b, &config).is_some());
        assert!(slots.take(b, &config).is_none(), "in all");
        slots.give(&a);
        assert!(slots.take(b, &config).is_some());
        for peer in [a, b, b] {
            slots.give(&peer);
        }
        assert_eq!((slots.total, slots.peers.len()), (0, 0));
    }

    #[test]
    fn a_new_stream_is_no_fresh_allowance() {
        let rate = NonZeroU32::new(1);
        let config = PullServerConfig { bytes_per_second_per_peer: rate, ..PullServerConfig::default() };
        let (mut slots, peer) = (Slots::default(), PeerId::random());
        let slice = NonZeroU32::new(SLICE as u32).unwrap();
        let first = slots.take(peer, &config).flatten().unwrap();
        assert_eq!(first.check_n(slice), Ok(Ok(())), "a slice always fits the bucket");
        slots.give(&peer);
        let second = slots.take(peer, &config).flatten().unwrap();
        assert!(second.check_n(slice).unwrap().is_err());
        slots.give(&peer);
        // Forgotten only when many others came in between.
        for _ in 0..=MAX_IDLE_PEERS {
            let other = PeerId::random();
            assert!(slots.take(other, &config).is_some());
            slots.give(&other);
        }
        assert!(slots.peers.len() <= MAX_IDLE_PEERS);
    }
}
