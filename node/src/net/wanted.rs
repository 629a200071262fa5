//! Peers that somebody here wants to be connected to, and when a lost one is dialled again. Sans-I/O: `now` is an argument.
//!
//! Whoever follows a feed asks for its peers every minute. One that was asked for lately and is lost is dialled again at once,
//! then less and less often, until nobody asks any more. The table is bounded.

use std::{
    collections::HashMap,
    time::{Duration, Instant},
};

use libp2p::{Multiaddr, PeerId};

/// Most peers; the one that was asked for longest ago gives way.
const MAX_WANTED: usize = 256;
/// Most addresses that are remembered for one.
const MAX_ADDRESSES: usize = 16;
/// A peer that nobody has asked for in this time is not dialled again.
const KEEP: Duration = Duration::from_secs(300);
/// The first wait after a loss, and the longest.
const AGAIN: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(30));

struct Entry {
    addresses: Vec<Multiaddr>,
    asked: Instant,
    /// When it is dialled; `None` while it is connected, or was never.
    next: Option<Instant>,
    attempts: u32,
}

/// The peers.
#[derive(Default)]
pub(super) struct Wanted {
    peers: HashMap<PeerId, Entry>,
}

impl Wanted {
    /// Somebody wants a peer, who may be at `addresses`.
    pub(super) fn want(&mut self, peer: PeerId, addresses: &[Multiaddr], now: Instant) {
        if !self.peers.contains_key(&peer) && self.peers.len() >= MAX_WANTED {
            let oldest = self.peers.iter().min_by_key(|(_, entry)| entry.asked).map(|(peer, _)| *peer);
            if let Some(oldest) = oldest {
                self.peers.remove(&oldest);
            }
        }
        let fresh = Entry { addresses: Vec::new(), asked: now, next: None, attempts: 0 };
        let entry = self.peers.entry(peer).or_insert(fresh);
        entry.asked = now;
        if !addresses.is_empty() {
            entry.addresses = addresses.iter().take(MAX_ADDRESSES).cloned().collect();
        }
    }

    /// The last connection to a peer is gone.
    pub(super) fn lost(&mut self, peer: &PeerId, now: Instant) {
        if let Some(entry) = self.peers.get_mut(peer) {
            entry.attempts = 0;
            entry.next = now.checked_add(spread(AGAIN.0));
        }
    }

    /// A peer is connected.
    pub(super) fn found(&mut self, peer: &PeerId) {
        if let Some(entry) = self.peers.get_mut(peer) {
            (entry.next, entry.attempts) = (None, 0);
        }
    }

    /// The network has changed: what is lost is dialled at once.
    pub(super) fn hurry(&mut self, now: Instant) {
        for entry in self.peers.values_mut() {
            entry.next = entry.next.map(|_| now);
        }
    }

    /// Whom to dial now, with the addresses. Each is due again later, until it is found.
    pub(super) fn due(&mut self, now: Instant) -> Vec<(PeerId, Vec<Multiaddr>)> {
        self.peers.retain(|_, entry| now.saturating_duration_since(entry.asked) < KEEP);
        let due = self.peers.iter_mut().filter(|(_, entry)| entry.next.is_some_and(|next| next <= now));
        due.map(|(peer, entry)| {
            let (first, longest) = AGAIN;
            entry.attempts = entry.attempts.saturating_add(1);
            let wait = first.saturating_mul(1 << entry.attempts.min(6)).min(longest);
            entry.next = now.checked_add(spread(wait));
            (*peer, entry.addresses.clone())
        })
        .collect()
    }
}

/// A wait with up to a quarter more: peers that lost one machine at one moment do not all come back at one moment.
fn spread(wait: Duration) -> Duration {
    wait + wait.mul_f64(rand::random_range(0.0..0.25))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lost_peer_is_dialled_again_until_it_is_found_or_nobody_wants_it() {
        let (mut wanted, peer, start) = (Wanted::default(), PeerId::random(), Instant::now());
        let addresses = vec!["/ip4/198.51.100.1/tcp/1".parse().unwrap()];
        wanted.want(peer, &addresses, start);
        wanted.want(peer, &[], start);
        assert!(wanted.due(start + Duration::from_secs(60)).is_empty());

        let start = start + Duration::from_secs(100);
        wanted.lost(&peer, start);
        assert!(wanted.due(start).is_empty());
        let mut now = start + AGAIN.0.mul_f64(1.25);
        assert_eq!(wanted.due(now), [(peer, addresses.clone())]);
        assert!(wanted.due(now).is_empty());
        now += (2 * AGAIN.0).mul_f64(1.25);
        assert_eq!(wanted.due(now).len(), 1);
        wanted.hurry(now);
        assert_eq!(wanted.due(now).len(), 1);
        wanted.found(&peer);
        assert!(wanted.due(now + AGAIN.1 * 2).is_empty());

        wanted.lost(&peer, now);
        assert!(wanted.due(now + KEEP).is_empty() && wanted.peers.is_empty());
        wanted.lost(&peer, now);
        assert!(wanted.due(now + KEEP).is_empty());
    }

    #[test]
    fn the_table_is_bounded() {
        let (mut wanted, start) = (Wanted::default(), Instant::now());
        let first = PeerId::random();
        wanted.want(first, &[], start);
        for n in 1..=MAX_WANTED {
            wanted.want(PeerId::random(), &[], start + Duration::from_millis(n as u64));
        }
        assert!(wanted.peers.len() == MAX_WANTED && !wanted.peers.contains_key(&first));
    }
}
