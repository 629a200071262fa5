//! Places at relays: which relays this node wants to be reached through, and how far each has come. Sans-I/O: `now` is an
//! argument, and the task does what [`Reservations::due`] says.
//!
//! A reservation is a libp2p listener on `<relay>/p2p-circuit`. It is never taken back: it ends with the connection to the
//! relay, and is then made anew. (Taken back while the relay's answer is on its way, libp2p-relay 0.22 would panic.)

use std::time::{Duration, Instant};

use libp2p::{Multiaddr, PeerId, core::transport::ListenerId, multiaddr::Protocol};

use super::scope::{bare, target_of};

/// The first wait after a failure, and the longest.
const AGAIN: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(60));
/// A reservation that has stood this long was a good one: the next wait is the first again.
const GOOD: Duration = Duration::from_secs(60);
/// Longest reason that is kept, characters.
const MAX_REASON: usize = 200;

/// How a reservation stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ReservationState {
    /// The relay is being asked.
    Asking,
    /// Others reach this node through the relay.
    Reserved,
    /// It failed, and is tried again after a while.
    Failed,
}

/// A relay that this node wants to be reached through.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RelayReservation {
    /// The relay.
    pub relay: PeerId,
    /// Its address, the one that was tried last.
    pub address: Multiaddr,
    /// How the reservation stands.
    pub state: ReservationState,
    /// Where others reach this node through it; only while reserved.
    pub circuit: Option<Multiaddr>,
    /// Longest time that the relay keeps one connection through it, if it said so.
    pub circuit_time: Option<Duration>,
    /// Most bytes that the relay carries on one connection, if it said so.
    pub circuit_bytes: Option<u64>,
    /// Why the last attempt failed.
    pub reason: Option<String>,
    /// Attempts that failed in a row.
    pub failures: u32,
}

enum State {
    Waiting { until: Instant },
    Asking { listener: ListenerId },
    Reserved { listener: ListenerId, since: Instant, time: Option<Duration>, bytes: Option<u64> },
}

struct Relay {
    peer: PeerId,
    /// Its addresses without its id, at least one; the one that is tried next first.
    addresses: Vec<Multiaddr>,
    state: State,
    failures: u32,
    reason: Option<String>,
}

/// The relays of the configuration.
pub(super) struct Reservations {
    me: PeerId,
    relays: Vec<Relay>,
}

impl Reservations {
    /// Places at these relays, each an address that ends in the relay's id; others are left out. Several addresses of one relay
    /// are tried in turn.
    pub(super) fn new(me: PeerId, addresses: &[Multiaddr], now: Instant) -> Self {
        let mut relays: Vec<Relay> = Vec::new();
        for address in addresses {
            let Some(peer) = target_of(address).filter(|peer| *peer != me) else { continue };
            let address = bare(address.clone());
            match relays.iter_mut().find(|relay| relay.peer == peer) {
                Some(relay) => relay.addresses.push(address),
                None => relays.push(Relay {
                    peer,
                    addresses: vec![address],
                    state: State::Waiting { until: now },
                    failures: 0,
                    reason: None,
                }),
            }
        }
        Self { me, relays }
    }

    /// The addresses of the relays, for whoever dials them otherwise.
    pub(super) fn addresses(&self) -> impl Iterator<Item = (PeerId, &Multiaddr)> {
        self.relays.iter().flat_map(|relay| relay.addresses.iter().map(|address| (relay.peer, address)))
    }

    /// What to listen on now. Each must be answered with [`Reservations::asked`] or [`Reservations::failed`].
    pub(super) fn due(&self, now: Instant) -> Vec<(PeerId, Multiaddr)> {
        let due = |relay: &&Relay| matches!(relay.state, State::Waiting { until } if until <= now);
        let listen = |relay: &Relay| {
            let address = relay.addresses.first()?.clone();
            Some((relay.peer, address.with(Protocol::P2p(relay.peer)).with(Protocol::P2pCircuit)))
        };
        self.relays.iter().filter(due).filter_map(listen).collect()
    }

    /// The relay is being asked, through this listener.
    pub(super) fn asked(&mut self, peer: PeerId, listener: ListenerId) {
        if let Some(relay) = self.relay(peer) {
            relay.state = State::Asking { listener };
        }
    }

    /// The relay said yes, for the first time or again.
    pub(super) fn accepted(&mut self, peer: PeerId, time: Option<Duration>, bytes: Option<u64>, now: Instant) {
        let Some(relay) = self.relay(peer) else { return };
        let (listener, since) = match relay.state {
            State::Asking { listener } => (listener, now),
            State::Reserved { listener, since, .. } => (listener, since),
            State::Waiting { .. } => return,
        };
        relay.state = State::Reserved { listener, since, time, bytes };
        relay.reason = None;
    }

    /// A listener is gone; `true` if it was one of these.
    pub(super) fn closed(&mut self, listener: ListenerId, reason: Option<String>, now: Instant) -> bool {
        let of = |relay: &&mut Relay| match relay.state {
            State::Asking { listener: its } | State::Reserved { listener: its, .. } => its == listener,
            State::Waiting { .. } => false,
        };
        let Some(relay) = self.relays.iter_mut().find(of) else { return false };
        if let State::Reserved { since, .. } = relay.state
            && now.saturating_duration_since(since) >= GOOD
        {
            relay.failures = 0;
        }
        let lost = matches!(relay.state, State::Reserved { .. });
        let ended = if lost { "the connection to it ended" } else { "it could not be reached" };
        relay.fail(reason.unwrap_or_else(|| ended.to_owned()), now);
        true
    }

    /// The relay could not even be asked.
    pub(super) fn failed(&mut self, peer: PeerId, reason: String, now: Instant) {
        if let Some(relay) = self.relay(peer) {
            relay.fail(reason, now);
        }
    }

    /// The dial to a relay failed, for this reason; the listener that waits for it closes without one.
    pub(super) fn dial_failed(&mut self, peer: PeerId, reason: String) {
        if let Some(relay) = self.relay(peer) {
            relay.reason = Some(reason.chars().take(MAX_REASON).collect());
        }
    }

    /// The network has changed: what waits is tried at once.
    pub(super) fn hurry(&mut self, now: Instant) {
        for relay in &mut self.relays {
            if let State::Waiting { until } = &mut relay.state {
                *until = now;
            }
        }
    }

    /// How all of them stand.
    pub(super) fn report(&self) -> Vec<RelayReservation> {
        let report = |relay: &Relay| {
            let address = relay.addresses.first()?.clone();
            let through = address.clone().with(Protocol::P2p(relay.peer)).with(Protocol::P2pCircuit);
            let (state, circuit, circuit_time, circuit_bytes) = match relay.state {
                State::Reserved { time, bytes, .. } => {
                    (ReservationState::Reserved, Some(through.with(Protocol::P2p(self.me))), time, bytes)
                }
                State::Asking { .. } => (ReservationState::Asking, None, None, None),
                State::Waiting { .. } if relay.failures == 0 => (ReservationState::Asking, None, None, None),
                State::Waiting { .. } => (ReservationState::Failed, None, None, None),
            };
            Some(RelayReservation {
                relay: relay.peer,
                address,
                state,
                circuit,
                circuit_time,
                circuit_bytes,
                reason: relay.reason.clone(),
                failures: relay.failures,
            })
        };
        self.relays.iter().filter_map(report).collect()
    }

    fn relay(&mut self, peer: PeerId) -> Option<&mut Relay> {
        self.relays.iter_mut().find(|relay| relay.peer == peer)
    }
}

impl Relay {
    fn fail(&mut self, reason: String, now: Instant) {
        let (first, longest) = AGAIN;
        let wait = first.saturating_mul(1 << self.failures.min(6)).min(longest);
        self.failures = self.failures.saturating_add(1);
        // A better reason may have come with the dial.
        if self.reason.is_none() || reason != "it could not be reached" {
            self.reason = Some(reason.chars().take(MAX_REASON).collect());
        }
        self.addresses.rotate_left(1);
        // Nodes that lost one relay at one moment do not all come back at one moment.
        let jitter = wait.mul_f64(rand::random_range(0.0..0.25));
        self.state = State::Waiting { until: now.checked_add(wait + jitter).unwrap_or(now) };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(text: &str, peer: PeerId) -> Multiaddr {
        format!("{text}/p2p/{peer}").parse().unwrap()
    }

    #[test]
    fn a_place_at_a_relay_is_asked_for_and_made_anew_when_it_is_lost() {
        let (me, relay, start) = (PeerId::random(), PeerId::random(), Instant::now());
        let tcp = address("/ip4/198.51.100.1/tcp/4600", relay);
        let mut all = Reservations::new(me, std::slice::from_ref(&tcp), start);
        let listen = tcp.clone().with(Protocol::P2pCircuit);
        assert_eq!(all.due(start), [(relay, listen.clone())]);
        let listener = ListenerId::next();
        all.asked(relay, listener);
        assert!(all.due(start).is_empty());
        assert_eq!(all.report()[0].state, ReservationState::Asking);

        all.accepted(relay, Some(Duration::from_secs(60)), Some(7), start);
        let report = &all.report()[0];
        assert_eq!((report.state, report.circuit_bytes), (ReservationState::Reserved, Some(7)));
        assert_eq!(report.circuit, Some(listen.clone().with(Protocol::P2p(me))));

        assert!(!all.closed(ListenerId::next(), None, start));
        assert!(all.closed(listener, None, start));
        let report = &all.report()[0];
        assert_eq!((report.state, report.circuit.clone()), (ReservationState::Failed, None));
        assert_eq!(report.reason.as_deref(), Some("the connection to it ended"));
        assert!(all.due(start).is_empty());
        all.hurry(start);
        assert_eq!(all.due(start), [(relay, listen)]);
    }

    #[test]
    fn waits_grow_and_the_addresses_of_a_relay_take_turns() {
        let (relay, start) = (PeerId::random(), Instant::now());
        let both = [address("/ip4/198.51.100.1/tcp/1", relay), address("/ip4/198.51.100.1/udp/1/quic-v1", relay)];
        let mut all = Reservations::new(PeerId::random(), &both, start);
        let (mut now, mut tried) = (start, Vec::new());
        for round in 0..9 {
            let due = all.due(now);
            tried.push(due[0].1.clone());
            let listener = ListenerId::next();
            all.asked(relay, listener);
            all.dial_failed(relay, "refused".into());
            all.closed(listener, None, now);
            assert_eq!(all.report()[0].reason.as_deref(), Some("refused"));
            let shortest = Duration::from_secs(1 << round).min(AGAIN.1);
            assert!(all.due(now + shortest - Duration::from_millis(1)).is_empty(), "round {round}");
            now += AGAIN.1.mul_f64(1.25);
        }
        assert_ne!(tried[0], tried[1]);
        assert_eq!((&tried[0], &tried[1]), (&tried[2], &tried[3]));
        assert_eq!(all.report()[0].failures, 9);

        // After a reservation that stood, the next wait is short again.
        let listener = ListenerId::next();
        all.asked(relay, listener);
        all.accepted(relay, None, None, now);
        all.closed(listener, None, now + GOOD);
        assert_eq!(all.due(now + GOOD + AGAIN.0.mul_f64(1.25)).len(), 1);
    }

    #[test]
    fn a_node_reserves_no_place_at_itself() {
        let me = PeerId::random();
        let all = Reservations::new(me, &[address("/ip4/198.51.100.1/tcp/1", me)], Instant::now());
        assert!(all.report().is_empty());
    }
}
