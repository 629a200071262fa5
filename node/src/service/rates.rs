//! How much one peer may ask for.
//!
//! Peer ids are free to mint, so the table is bounded: peers that do not fit share one allowance, and a peer that was quiet for
//! as long as its allowance takes to fill up again is forgotten, which changes nothing for it.

use std::{
    collections::HashMap,
    num::NonZeroU32,
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

use governor::{
    DefaultDirectRateLimiter, Quota,
    clock::{Clock as _, DefaultClock},
};

use crate::net::PeerId;

/// Peers that have an allowance of their own at a time.
const MAX_PEERS: usize = 4096;

/// Allowances per peer, and one for all peers together.
pub(super) struct PeerRates {
    quota: Quota,
    /// After this time without a request an allowance is full again.
    refill: Duration,
    all: DefaultDirectRateLimiter,
    strangers: DefaultDirectRateLimiter,
    peers: Mutex<HashMap<PeerId, (DefaultDirectRateLimiter, Instant)>>,
    clock: DefaultClock,
}

impl PeerRates {
    /// `each` for one peer, `all` for everybody together.
    pub(super) fn new(each: Quota, all: Quota) -> Self {
        Self {
            quota: each,
            refill: each.burst_size_replenished_in(),
            all: DefaultDirectRateLimiter::direct(all),
            strangers: DefaultDirectRateLimiter::direct(each),
            peers: Mutex::default(),
            clock: DefaultClock::default(),
        }
    }

    /// Counts one request of `peer`; the error is when it may come back, in ms, at least 1.
    pub(super) fn admit(&self, peer: PeerId) -> Result<(), u32> {
        self.own(peer)?;
        // Asked second: a peer over its own allowance takes nothing from the others.
        self.all.check().map_err(|not| wait_ms(not.wait_time_from(self.clock.now())))
    }

    fn own(&self, peer: PeerId) -> Result<(), u32> {
        let now = Instant::now();
        let mut peers = self.peers.lock().unwrap_or_else(PoisonError::into_inner);
        if peers.len() >= MAX_PEERS && !peers.contains_key(&peer) {
            peers.retain(|_, (_, last)| now.duration_since(*last) < self.refill);
            if peers.len() >= MAX_PEERS {
                return self.strangers.check().map_err(|not| wait_ms(not.wait_time_from(self.clock.now())));
            }
        }
        let (limiter, last) = peers.entry(peer).or_insert_with(|| (DefaultDirectRateLimiter::direct(self.quota), now));
        *last = now;
        limiter.check().map_err(|not| wait_ms(not.wait_time_from(self.clock.now())))
    }
}

/// `count` a minute, all of which may come at once.
pub(super) fn per_minute(count: u32) -> Quota {
    Quota::per_minute(NonZeroU32::new(count).unwrap_or(NonZeroU32::MIN))
}

/// `count` a second, twice as many at once.
pub(super) fn per_second(count: u32) -> Quota {
    let count = NonZeroU32::new(count).unwrap_or(NonZeroU32::MIN);
    Quota::per_second(count).allow_burst(count.saturating_mul(NonZeroU32::MIN.saturating_add(1)))
}

fn wait_ms(wait: Duration) -> u32 {
    u32::try_from(wait.as_millis()).unwrap_or(u32::MAX).max(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_peer_over_its_allowance_takes_nothing_from_the_others() {
        let rates = PeerRates::new(per_minute(3), per_minute(5));
        let (greedy, modest) = (PeerId::random(), PeerId::random());
        for _ in 0..3 {
            assert_eq!(rates.admit(greedy), Ok(()));
        }
        for _ in 0..100 {
            assert!(rates.admit(greedy).is_err());
        }
        assert_eq!(rates.admit(modest), Ok(()));
        assert_eq!(rates.admit(modest), Ok(()));
        // Now everybody together has had five.
        let wait = rates.admit(modest).expect_err("the common allowance is used up");
        assert!((1..=60_000).contains(&wait));
    }

    #[test]
    fn peers_without_number_share_one_allowance() {
        let rates = PeerRates::new(per_minute(2), per_minute(u32::MAX));
        for _ in 0..MAX_PEERS {
            assert_eq!(rates.admit(PeerId::random()), Ok(()));
        }
        assert_eq!(rates.admit(PeerId::random()), Ok(()));
        assert_eq!(rates.admit(PeerId::random()), Ok(()));
        assert!(rates.admit(PeerId::random()).is_err());
        assert_eq!(rates.peers.lock().expect("not poisoned").len(), MAX_PEERS);
    }
}
