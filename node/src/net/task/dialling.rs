//! Dials: who is dialled where, what a failed one tells the caller, and asking other peers where somebody is.

use std::time::{Duration, Instant};

use libp2p::{
    Multiaddr, PeerId,
    kad::{self, GetClosestPeersError, GetClosestPeersOk, QueryId, QueryResult},
    multiaddr::Protocol,
    swarm::{
        ConnectionId, DialError,
        dial_opts::{DialOpts, PeerCondition},
    },
};

use tokio::sync::oneshot;

use super::{Dialled, Task, answer};
use crate::net::{
    error::DialFailure,
    event::Transport,
    scope::{bare, is_relayed, relay_of, target_of},
};

/// Most addresses tried for one peer.
const MAX_DIAL_ADDRESSES: usize = 16;
/// Of these, most addresses through relays that are tried a second time.
const MAX_RELAYED: usize = 2;
/// Lookups under way; a dial that fails beyond them is not looked into.
const MAX_LOOKUPS: usize = 16;
/// TCP is tried beside a connection over QUIC at most so often.
const TCP_AGAIN: Duration = Duration::from_secs(600);

/// A dial that somebody waits for.
pub(super) struct Dial {
    target: String,
    back: Dialled,
    /// The peer to look up, should nobody be found at the addresses that are known.
    look_up: Option<PeerId>,
    /// Addresses through relays that are tried once more when everything has failed: libp2p gives such an address up at once
    /// while its relay is being dialled by somebody else.
    relayed: Vec<Multiaddr>,
    /// What is dialled now is the relay of this address.
    through: Option<Multiaddr>,
}

impl Dial {
    fn new(target: String, addresses: &[Multiaddr], back: Dialled) -> Self {
        let relayed =
            addresses.iter().filter(|address| relay_of(address).is_some()).take(MAX_RELAYED).cloned().collect();
        Self { target, back, look_up: None, relayed, through: None }
    }

    pub(super) fn end(self, result: Result<PeerId, DialFailure>) {
        answer(self.back, result);
    }
}

/// A peer that other peers are asked about.
pub(super) struct Lookup {
    peer: PeerId,
    dial: Dial,
    /// What the dial before it said.
    failure: DialFailure,
}

impl Lookup {
    pub(super) fn end(self, result: Result<PeerId, DialFailure>) {
        self.dial.end(result);
    }
}

impl Task {
    pub(super) fn dial(&mut self, address: Multiaddr, back: Dialled) {
        let (target, own) = (target_of(&address), bare(address.clone()));
        match target {
            _ if target == Some(*self.swarm.local_peer_id()) || self.swarm.listeners().any(|known| *known == own) => {
                answer(back, Err(DialFailure::Myself(address)));
            }
            Some(peer) if self.swarm.is_connected(&peer) => answer(back, Ok(peer)),
            _ => {
                let dial = Dial::new(address.to_string(), std::slice::from_ref(&address), back);
                self.start_dial(DialOpts::unknown_peer_id().address(address).build(), dial);
            }
        }
    }

    pub(super) fn connect(&mut self, peer: PeerId, addresses: Vec<Multiaddr>, back: Dialled) {
        self.wanted.want(peer, &addresses, Instant::now());
        if self.swarm.is_connected(&peer) {
            answer(back, Ok(peer));
            return;
        }
        let dial = Dial { look_up: Some(peer), ..Dial::new(peer.to_string(), &addresses, back) };
        self.start_connect(peer, addresses, dial);
    }

    /// Dials peers again that are wanted and were lost.
    pub(super) fn dial_wanted(&mut self, now: Instant) {
        for (peer, addresses) in self.wanted.due(now) {
            if self.swarm.is_connected(&peer) {
                self.wanted.found(&peer);
                continue;
            }
            tracing::debug!(%peer, "a lost peer is dialled again");
            // Nobody waits for it.
            let (back, _) = oneshot::channel();
            let dial = Dial { look_up: Some(peer), ..Dial::new(peer.to_string(), &addresses, back) };
            self.start_connect(peer, addresses, dial);
        }
    }

    fn start_connect(&mut self, peer: PeerId, mut addresses: Vec<Multiaddr>, dial: Dial) {
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
        self.start_dial(opts, dial);
    }

    fn start_dial(&mut self, opts: DialOpts, dial: Dial) {
        let id = opts.connection_id();
        match self.swarm.dial(opts) {
            Ok(()) => drop(self.dials.insert(id, dial)),
            Err(error) => self.dial_failed(dial, None, error),
        }
    }

    /// Goes on with whoever waited for this connection.
    pub(super) fn dialled(&mut self, id: ConnectionId, peer: PeerId) {
        let Some(mut dial) = self.dials.remove(&id) else { return };
        match dial.through.take() {
            Some(address) => self.start_dial(DialOpts::unknown_peer_id().address(address).build(), dial),
            None => dial.end(Ok(peer)),
        }
    }

    /// Dials the relay of an address, and then the address.
    fn dial_through(&mut self, address: Multiaddr, mut dial: Dial) {
        let hop: Multiaddr = address.iter().take_while(|part| *part != Protocol::P2pCircuit).collect();
        match relay_of(&address) {
            Some(relay) if !self.swarm.is_connected(&relay) => {
                dial.through = Some(address);
                let opts = DialOpts::peer_id(relay).addresses(vec![hop]).condition(PeerCondition::Disconnected);
                self.start_dial(opts.build(), dial);
            }
            _ => self.start_dial(DialOpts::unknown_peer_id().address(address).build(), dial),
        }
    }

    /// Answers whoever asked other peers where this one is: it is here.
    pub(super) fn found(&mut self, peer: PeerId) {
        let here: Vec<QueryId> =
            self.lookups.iter().filter(|(_, lookup)| lookup.peer == peer).map(|(id, _)| *id).collect();
        for lookup in here.iter().filter_map(|id| self.lookups.remove(id)) {
            lookup.end(Ok(peer));
        }
        if let Some(kad) = self.swarm.behaviour_mut().kad.as_mut() {
            for id in here {
                if let Some(mut query) = kad.inner.query_mut(&id) {
                    query.finish();
                }
            }
        }
    }

    pub(super) fn on_dial_error(&mut self, id: ConnectionId, peer: Option<PeerId>, error: DialError) {
        if let Some(peer) = peer {
            self.reservations.dial_failed(peer, short(&error));
            if !self.swarm.is_connected(&peer) {
                self.local.remove(&peer);
            }
            // Of a dial to punch a hole the side that was asked for it hears nothing else.
            if let Some(known) = self.peers.get_mut(&peer)
                && !self.dials.contains_key(&id)
                && known.direct().next().is_none()
            {
                known.upgrade = Some((Instant::now(), Err(short(&error))));
            }
        }
        if let Some(dial) = self.dials.remove(&id) {
            self.dial_failed(dial, peer, error);
        }
    }

    fn dial_failed(&mut self, mut dial: Dial, peer: Option<PeerId>, error: DialError) {
        let elsewhere =
            matches!(error, DialError::NoAddresses | DialError::Transport(_) | DialError::WrongPeerId { .. });
        dial.through = None;
        let failure = dial_failure(dial.target.clone(), peer, error);
        if !elsewhere {
            return dial.end(Err(failure));
        }
        if let Some(address) = dial.relayed.pop() {
            return self.dial_through(address, dial);
        }
        match dial.look_up.take().filter(|_| self.lookups.len() < MAX_LOOKUPS) {
            Some(peer) => self.look_up(peer, dial, failure),
            None => dial.end(Err(failure)),
        }
    }

    /// Asks other peers where a peer is.
    fn look_up(&mut self, peer: PeerId, dial: Dial, failure: DialFailure) {
        let kad = self.swarm.behaviour_mut().kad.as_mut().map(|kad| &mut kad.inner);
        let Some(kad) = kad else { return dial.end(Err(failure)) };
        // Without anybody to ask, the question would only take time.
        if kad.kbuckets().all(|bucket| bucket.is_empty()) {
            return dial.end(Err(failure));
        }
        let id = kad.get_closest_peers(peer);
        tracing::debug!(%peer, "other peers are asked where it is");
        self.lookups.insert(id, Lookup { peer, dial, failure });
    }

    pub(super) fn on_kad(&mut self, event: kad::Event) {
        let (id, result, step) = match event {
            kad::Event::OutboundQueryProgressed { id, result: QueryResult::GetClosestPeers(result), step, .. } => {
                (id, result, step)
            }
            other => return self.on_providers(other),
        };
        if !step.last {
            return;
        }
        let Some(Lookup { peer, dial, failure }) = self.lookups.remove(&id) else { return };
        let peers = match result {
            Ok(GetClosestPeersOk { peers, .. }) | Err(GetClosestPeersError::Timeout { peers, .. }) => peers,
        };
        let found = peers.into_iter().find(|found| found.peer_id == peer);
        match found.map(|found| found.addrs).filter(|addresses| !addresses.is_empty()) {
            Some(addresses) => self.start_connect(peer, addresses, dial),
            None => dial.end(Err(failure)),
        }
    }

    /// Bulk moves fastest over TCP: a peer that is only connected over QUIC is dialled over TCP as well, now and then.
    pub(super) fn prefer_tcp(&mut self, peer_id: PeerId) {
        let now = Instant::now();
        let Some(peer) = self.peers.get_mut(&peer_id) else { return };
        let transports: Vec<Transport> =
            peer.direct().map(|connection| Transport::of(connection.endpoint.get_remote_address())).collect();
        let tried = peer.tcp_tried.is_some_and(|at| now.saturating_duration_since(at) < TCP_AGAIN);
        if tried || transports.is_empty() || transports.contains(&Transport::Tcp) {
            return;
        }
        let tcp = |address: &&Multiaddr| Transport::of(address) == Transport::Tcp && !is_relayed(address);
        let addresses: Vec<Multiaddr> = peer.named.iter().filter(tcp).cloned().collect();
        if addresses.is_empty() {
            return;
        }
        peer.tcp_tried = Some(now);
        let opts = DialOpts::peer_id(peer_id).addresses(addresses).condition(PeerCondition::Always).build();
        if let Err(error) = self.swarm.dial(opts) {
            tracing::debug!(peer = %peer_id, %error, "no second connection over TCP");
        }
    }
}

/// The last address and what happened there, in one line: for people who look at a status.
fn short(error: &DialError) -> String {
    match error {
        DialError::Transport(failed) => match failed.last() {
            Some((address, error)) => format!("{}: {}", bare(address.clone()), deepest(error)),
            None => "no address could be dialled".into(),
        },
        DialError::Denied { cause } => denied(cause),
        other => other.to_string(),
    }
}

/// What an error says at its root.
pub(super) fn deepest(error: &(dyn std::error::Error + 'static)) -> String {
    let mut at = error;
    while let Some(source) = at.source() {
        at = source;
    }
    at.to_string()
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
