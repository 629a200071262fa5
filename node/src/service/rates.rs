//! How much one peer may ask for.
//!
//! Peer ids are free to mint, so the table is bounded: peers that do not fit share one allowance, and a peer that was quiet for
//! as long as its allowance takes to fill up again is forgotten, which changes nothing for it. An honest peer that is in a hurry
//! is refused now and then, and waits; only one that does not care about hundreds of refusals is [`Refused::flood`].

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

/// Refusals that are forgiven at once, and again in a second.
const PATIENCE: (u32, u32) = (200, 10);

/// A request over the allowance.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Refused {
    /// When the peer may come back, in ms, at least 1.
    pub(super) retry_ms: u32,
    /// Whether it goes on and on although it was told to wait.
    pub(super) flood: bool,
}

/// What one peer may ask for.
struct Allowance {
    requests: DefaultDirectRateLimiter,
    refusals: DefaultDirectRateLimiter,
    last: Instant,
}

/// Allowances per peer, and one for all peers together.
pub(super) struct PeerRates {
    quota: Quota,
    /// After this time without a request the allowances are full again.
    refill: Duration,
    all: DefaultDirectRateLimiter,
    strangers: DefaultDirectRateLimiter,
    peers: Mutex<HashMap<PeerId, Allowance>>,
    clock: DefaultClock,
}

impl PeerRates {
    /// `each` for one peer, `all` for everybody together.
    pub(super) fn new(each: Quota, all: Quota) -> Self {
        let forgiving = Duration::from_secs(u64::from(PATIENCE.0 / PATIENCE.1));
        Self {
            quota: each,
            refill: each.burst_size_replenished_in().max(forgiving),
            all: DefaultDirectRateLimiter::direct(all),
            strangers: DefaultDirectRateLimiter::direct(each),
            peers: Mutex::default(),
            clock: DefaultClock::default(),
        }
    }

    /// Counts one request of `peer`.
    pub(super) fn admit(&self, peer: PeerId) -> Result<(), Refused> {
        self.own(peer)?;
        // Asked second: a peer over its own allowance takes nothing from the others.
        self.check(&self.all).map_err(|retry_ms| Refused { retry_ms, flood: false })
    }

    fn own(&self, peer: PeerId) -> Result<(), Refused> {
        let now = Instant::now();
        let mut peers = self.peers.lock().unwrap_or_else(PoisonError::into_inner);
        if peers.len() >= MAX_PEERS && !peers.contains_key(&peer) {
            peers.retain(|_, allowance| now.duration_since(allowance.last) < self.refill);
            if peers.len() >= MAX_PEERS {
                return self.check(&self.strangers).map_err(|retry_ms| Refused { retry_ms, flood: false });
            }
        }
        let allowance = peers.entry(peer).or_insert_with(|| Allowance {
            requests: DefaultDirectRateLimiter::direct(self.quota),
            refusals: DefaultDirectRateLimiter::direct(patience()),
            last: now,
        });
        allowance.last = now;
        self.check(&allowance.requests)
            .map_err(|retry_ms| Refused { retry_ms, flood: allowance.refusals.check().is_err() })
    }

    /// The error is when there is room again, in ms, at least 1.
    fn check(&self, limiter: &DefaultDirectRateLimiter) -> Result<(), u32> {
        limiter.check().map_err(|not| {
            let wait = not.wait_time_from(self.clock.now());
            u32::try_from(wait.as_millis()).unwrap_or(u32::MAX).max(1)
        })
    }
}

fn patience() -> Quota {
    let [burst, rate] = [PATIENCE.0, PATIENCE.1].map(|n| NonZeroU32::new(n).unwrap_or(NonZeroU32::MIN));
    Quota::per_second(rate).allow_burst(burst)
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
            assert!(matches!(rates.admit(greedy), Err(Refused { flood: false, .. })));
        }
        assert_eq!(rates.admit(modest), Ok(()));
        assert_eq!(rates.admit(modest), Ok(()));
        // Now everybody together has had five.
        let refused = rates.admit(modest).expect_err("the common allowance is used up");
        assert!((1..=60_000).contains(&refused.retry_ms) && !refused.flood);
    }

    #[test]
    fn who_does_not_wait_is_a_flood_in_the_end() {
        let (rates, peer) = (PeerRates::new(per_minute(1), per_minute(100)), PeerId::random());
        assert_eq!(rates.admit(peer), Ok(()));
        let calm = (0..10_000).take_while(|_| matches!(rates.admit(peer), Err(Refused { flood: false, .. }))).count();
        assert!((200..9_000).contains(&calm), "{calm}");
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
