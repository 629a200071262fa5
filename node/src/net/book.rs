//! What the network remembers when the process ends: who is banned, and where peers were met. Sans-I/O.
//!
//! The task keeps the book while it runs and hands it out; whoever starts it the next time gives it back. Ends of bans are times
//! that are left, not times of day: the keeper of the book knows what time it is.

use std::time::Duration;

use libp2p::{Multiaddr, PeerId, multiaddr::Protocol};

use super::scope::bare;

/// Most peers; the one that was met longest ago is forgotten first.
pub(crate) const MAX_KNOWN: usize = 128;
/// Most addresses of one, the newest first.
pub(crate) const MAX_KNOWN_ADDRESSES: usize = 4;

/// A peer and how long it stays banned.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ban {
    /// The peer.
    pub peer: PeerId,
    /// What is left of its ban; `None` for one that does not end.
    pub left: Option<Duration>,
}

/// A peer that was reached, and where.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KnownPeer {
    /// The peer.
    pub peer: PeerId,
    /// Addresses that led to it, the newest first, without its id.
    pub addresses: Vec<Multiaddr>,
}

/// What outlives the process.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Remembered {
    /// Who is banned.
    pub bans: Vec<Ban>,
    /// Peers that this node has dialled with success, the newest first.
    pub peers: Vec<KnownPeer>,
}

/// The peers of the book.
#[derive(Debug, Default)]
pub(super) struct Book {
    /// The newest first; at most [`MAX_KNOWN`].
    peers: Vec<KnownPeer>,
}

impl Book {
    /// The book as it was left, at most [`MAX_KNOWN`] peers of it.
    pub(super) fn of(mut peers: Vec<KnownPeer>) -> Self {
        peers.truncate(MAX_KNOWN);
        for known in &mut peers {
            known.addresses.truncate(MAX_KNOWN_ADDRESSES);
        }
        Self { peers }
    }

    /// A dial to `address` has led to `peer`.
    pub(super) fn met(&mut self, peer: PeerId, address: &Multiaddr) {
        // Nobody can be dialled by what names no host and port.
        if !matches!(address.iter().nth(1), Some(Protocol::Tcp(_) | Protocol::Udp(_))) {
            return;
        }
        let at = self.peers.iter().position(|known| known.peer == peer);
        let mut known = at.map_or_else(|| KnownPeer { peer, addresses: Vec::new() }, |at| self.peers.remove(at));
        let address = bare(address.clone());
        known.addresses.retain(|other| *other != address);
        known.addresses.insert(0, address);
        known.addresses.truncate(MAX_KNOWN_ADDRESSES);
        self.peers.insert(0, known);
        self.peers.truncate(MAX_KNOWN);
    }

    /// A peer is no longer wanted.
    pub(super) fn forget(&mut self, peer: &PeerId) {
        self.peers.retain(|known| known.peer != *peer);
    }

    /// The newest first.
    pub(super) fn peers(&self) -> &[KnownPeer] {
        &self.peers
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(port: u16) -> Multiaddr {
        format!("/ip4/192.0.2.1/tcp/{port}").parse().unwrap()
    }

    #[test]
    fn the_newest_come_first_and_the_oldest_are_forgotten() {
        let mut book = Book::default();
        let first = PeerId::random();
        book.met(first, &address(1).with(Protocol::P2p(first)));
        for port in 2..10 {
            book.met(first, &address(port));
        }
        book.met(first, &address(8));
        let ports: Vec<Multiaddr> = [8, 9, 7, 6].map(address).into();
        assert_eq!(book.peers(), [KnownPeer { peer: first, addresses: ports }]);
        for _ in 0..MAX_KNOWN {
            book.met(PeerId::random(), &address(1));
        }
        assert!(book.peers().len() == MAX_KNOWN && book.peers().iter().all(|known| known.peer != first));
        let last = book.peers()[0].peer;
        book.forget(&last);
        assert_eq!(book.peers().len(), MAX_KNOWN - 1);
    }

    #[test]
    fn what_cannot_be_dialled_is_not_kept_and_a_long_book_is_cut() {
        let mut book = Book::default();
        book.met(PeerId::random(), &"/memory/7".parse().unwrap());
        assert!(book.peers().is_empty());
        let long = (0..1000).map(|_| KnownPeer { peer: PeerId::random(), addresses: vec![address(1); 50] });
        let book = Book::of(long.collect());
        assert_eq!((book.peers().len(), book.peers()[0].addresses.len()), (MAX_KNOWN, MAX_KNOWN_ADDRESSES));
    }
}
