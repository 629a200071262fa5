//! Dials: who is dialled where, and what a failed one tells the caller.

use libp2p::{
    Multiaddr, PeerId,
    multiaddr::Protocol,
    swarm::{
        ConnectionId, DialError,
        dial_opts::{DialOpts, PeerCondition},
    },
};

use super::{Dialled, Task, answer};
use crate::net::error::DialFailure;

/// Most addresses tried for one peer.
const MAX_DIAL_ADDRESSES: usize = 16;

impl Task {
    pub(super) fn dial(&mut self, address: Multiaddr, back: Dialled) {
        let target = address.iter().find_map(|part| if let Protocol::P2p(peer) = part { Some(peer) } else { None });
        let bare: Multiaddr = address.iter().filter(|part| !matches!(part, Protocol::P2p(_))).collect();
        match target {
            _ if target == Some(*self.swarm.local_peer_id()) || self.swarm.listeners().any(|own| *own == bare) => {
                answer(back, Err(DialFailure::Myself(address)));
            }
            Some(peer) if self.swarm.is_connected(&peer) => answer(back, Ok(peer)),
            _ => self.start_dial(address.to_string(), DialOpts::unknown_peer_id().address(address).build(), back),
        }
    }

    pub(super) fn connect(&mut self, peer: PeerId, mut addresses: Vec<Multiaddr>, back: Dialled) {
        if self.swarm.is_connected(&peer) {
            answer(back, Ok(peer));
            return;
        }
        addresses.truncate(MAX_DIAL_ADDRESSES);
        for address in &addresses {
            // Remembered (in a bounded table), so that a later request can dial by itself.
            self.swarm.add_peer_address(peer, address.clone());
        }
        let opts = DialOpts::peer_id(peer)
            .addresses(addresses)
            .extend_addresses_through_behaviour()
            .condition(PeerCondition::Disconnected)
            .build();
        self.start_dial(peer.to_string(), opts, back);
    }

    fn start_dial(&mut self, target: String, opts: DialOpts, back: Dialled) {
        let id = opts.connection_id();
        match self.swarm.dial(opts) {
            Ok(()) => drop(self.dials.insert(id, (target, back))),
            Err(error) => answer(back, Err(dial_failure(target, None, error))),
        }
    }

    /// Answers whoever waited for this connection.
    pub(super) fn dialled(&mut self, id: ConnectionId, peer: PeerId) {
        if let Some((_, back)) = self.dials.remove(&id) {
            answer(back, Ok(peer));
        }
    }

    pub(super) fn on_dial_error(&mut self, id: ConnectionId, peer: Option<PeerId>, error: DialError) {
        if let Some((target, back)) = self.dials.remove(&id) {
            answer(back, Err(dial_failure(target, peer, error)));
        }
    }
}

fn dial_failure(target: String, peer: Option<PeerId>, error: DialError) -> DialFailure {
    match error {
        DialError::LocalPeerId { address } => DialFailure::Myself(address),
        DialError::WrongPeerId { obtained, address } => DialFailure::WrongPeer { target, found: obtained, address },
        DialError::NoAddresses if peer.is_some() || target.parse::<PeerId>().is_ok() => {
            match peer.or_else(|| target.parse().ok()) {
                Some(peer) => DialFailure::NoAddress(peer),
                None => DialFailure::Unreachable { target, reason: "no address".into() },
            }
        }
        DialError::Denied { cause } => DialFailure::Denied { target, reason: denied(&cause) },
        error => DialFailure::Unreachable { target, reason: error.to_string() },
    }
}

/// What a refusal says, down to its cause: libp2p's own text stops at "connection denied".
fn denied(cause: &(dyn std::error::Error + 'static)) -> String {
    let mut text = cause.to_string();
    let mut next = cause.source();
    while let Some(cause) = next {
        text = format!("{text}: {cause}");
        next = cause.source();
    }
    text
}
