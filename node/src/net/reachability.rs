//! Whether others reach this node, and at which addresses. Sans-I/O: `now` is an argument, and the task carries out the tests
//! that [`Reachability::next`] asks for.
//!
//! Peers say where they see us, a router says what it forwards, the operator says what he has set up. What peers say is a
//! candidate until AutoNAT servers have dialled it. A verdict is never for ever: the network changes, routers are set up, leases
//! end. So addresses are tested again, those that failed less and less often. The table is bounded: peers invent addresses at
//! no cost. (AutoNAT's client of libp2p keeps every candidate for ever, and tests it once; see `autonat.rs`.)

use std::{
    collections::HashMap,
    net::IpAddr,
    time::{Duration, Instant},
};

use libp2p::{Multiaddr, PeerId, multiaddr::Protocol};
use serde::{Deserialize, Serialize};

use super::{
    autonat::Outcome,
    scope::{Scope, bare, ip_of, is_relayed},
};

/// Most candidates; the one that was seen longest ago gives way, a reachable one last.
const MAX_CANDIDATES: usize = 32;
/// Tests under way.
const MAX_TESTS: usize = 2;
/// A test that has not ended by now was lost.
const TEST_LOST: Duration = Duration::from_secs(60);
/// A reachable address is tested again after this time.
const REACHABLE_AGAIN: Duration = Duration::from_secs(15 * 60);
/// One that is not, at first and at most.
const UNREACHABLE_AGAIN: (Duration, Duration) = (Duration::from_secs(120), Duration::from_secs(3600));
/// After a test that showed nothing, or that one server alone has failed.
const SOON: Duration = Duration::from_secs(10);
/// Failed tests in a row that make a verdict, by different servers where there are.
const FAILURES: u32 = 2;

/// Whether others reach this node.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Reach {
    /// At one address at least.
    Reachable,
    /// At none of those that were tested.
    Unreachable,
    /// Nobody has tested it yet.
    #[default]
    Unknown,
}

/// What is known about one address of this node.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum AddressState {
    /// The operator says so; it is not tested.
    Configured,
    /// The router forwards it, and no test has said otherwise.
    Mapped,
    /// A peer dialled it.
    Reachable,
    /// Peers dialled it in vain.
    Unreachable,
    /// It was not tested yet.
    Untested,
}

/// An address of this node and what is known about it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OwnAddress {
    /// The address.
    pub address: Multiaddr,
    /// What is known.
    pub state: AddressState,
    /// Who tested it last.
    pub server: Option<PeerId>,
    /// How long ago.
    pub tested: Option<Duration>,
    /// Why the last test failed, or showed nothing.
    pub reason: Option<String>,
}

/// What a test changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Change {
    /// The address is reachable now, and was not before.
    Confirmed,
    /// It was, and is no longer.
    Lost,
}

struct Candidate {
    state: AddressState,
    seen: Instant,
    next: Instant,
    /// Failed tests in a row.
    failures: u32,
    testing: Option<Instant>,
    last: Option<(PeerId, Instant)>,
    reason: Option<String>,
}

/// The books on our own addresses.
pub(super) struct Reachability {
    floor: Scope,
    configured: Vec<Multiaddr>,
    /// Addresses that a relay listens on. Bounded by those.
    own: Vec<Multiaddr>,
    /// Bounded by [`MAX_CANDIDATES`].
    candidates: HashMap<Multiaddr, Candidate>,
}

fn is_up(state: AddressState) -> bool {
    matches!(state, AddressState::Configured | AddressState::Mapped | AddressState::Reachable)
}

impl Reachability {
    /// The books of a node whose operator has set up `configured`.
    pub(super) fn new(configured: &[Multiaddr], floor: Scope) -> Self {
        let configured = configured.iter().cloned().map(bare).collect();
        // Nobody tests loopback: who could, is there.
        Self { floor: floor.max(Scope::Private), configured, own: Vec::new(), candidates: HashMap::new() }
    }

    /// We listen on an address of which its operator says that it is reachable.
    pub(super) fn listening(&mut self, address: Multiaddr) {
        let address = bare(address);
        if !self.own.contains(&address) {
            self.candidates.remove(&address);
            self.own.push(address);
        }
    }

    /// We no longer do; `true` if it was one of those.
    pub(super) fn not_listening(&mut self, address: &Multiaddr) -> bool {
        let (address, before) = (bare(address.clone()), self.own.len());
        self.own.retain(|own| *own != address);
        self.own.len() < before
    }

    /// This host no longer has an IP address: nothing is left of addresses with it, at whatever port. Returns those that counted
    /// as reachable. What the operator has configured stays, since he may mean another host.
    pub(super) fn gone(&mut self, ip: IpAddr) -> Vec<Multiaddr> {
        let with_it = |address: &Multiaddr| ip_of(address) == Some(ip);
        let mut told: Vec<Multiaddr> = self.own.extract_if(.., |own| with_it(own)).collect();
        let candidates = self.candidates.extract_if(|address, _| with_it(address));
        told.extend(candidates.filter(|(_, known)| is_up(known.state)).map(|(address, _)| address));
        told
    }

    fn set_up(&self) -> impl Iterator<Item = &Multiaddr> {
        self.configured.iter().chain(self.own.iter().filter(|own| !self.configured.contains(own)))
    }

    /// Somebody sees us at an address.
    pub(super) fn seen(&mut self, address: Multiaddr, now: Instant) {
        self.note(address, AddressState::Untested, now);
    }

    /// The router forwards an address to us.
    pub(super) fn mapped(&mut self, address: Multiaddr, now: Instant) {
        self.note(address, AddressState::Mapped, now);
    }

    /// The router no longer does.
    pub(super) fn unmapped(&mut self, address: &Multiaddr) {
        if self.candidates.get(address).is_some_and(|known| known.state == AddressState::Mapped) {
            self.candidates.remove(address);
        }
    }

    fn note(&mut self, address: Multiaddr, state: AddressState, now: Instant) {
        let address = bare(address);
        let dialled = address.iter().any(|part| matches!(part, Protocol::Tcp(_) | Protocol::QuicV1));
        let known = self.set_up().any(|own| *own == address);
        if !dialled || known || is_relayed(&address) || !self.floor.takes(&address) {
            return;
        }
        if let Some(known) = self.candidates.get_mut(&address) {
            known.seen = now;
            if state == AddressState::Mapped && !is_up(known.state) {
                known.state = state;
            }
            return;
        }
        if self.candidates.len() >= MAX_CANDIDATES {
            let oldest = self.candidates.iter().min_by_key(|(_, known)| (is_up(known.state), known.seen));
            match oldest.map(|(address, known)| (address.clone(), is_up(known.state))) {
                Some((oldest, false)) => drop(self.candidates.remove(&oldest)),
                // Nobody pushes an address out that works.
                _ => return,
            }
        }
        let fresh = Candidate { state, seen: now, next: now, failures: 0, testing: None, last: None, reason: None };
        self.candidates.insert(address, fresh);
    }

    /// The next test to carry out, if one is due that one of `servers` can do: a peer that tests for others, with the scope of
    /// the connection to it. Only who is met as far away as the address reaches can say whether it does.
    pub(super) fn next(&mut self, servers: &[(PeerId, Scope)], now: Instant) -> Option<(Multiaddr, PeerId)> {
        for known in self.candidates.values_mut() {
            if known.testing.is_some_and(|since| now.saturating_duration_since(since) >= TEST_LOST) {
                known.testing = None;
            }
        }
        if self.candidates.values().filter(|known| known.testing.is_some()).count() >= MAX_TESTS {
            return None;
        }
        let mut due: Vec<(&Multiaddr, &mut Candidate)> =
            self.candidates.iter_mut().filter(|(_, known)| known.testing.is_none() && known.next <= now).collect();
        due.sort_by_key(|(_, known)| known.next);
        for (address, known) in due {
            let scope = Scope::of(address);
            let fitting = || servers.iter().filter(|(_, met)| Some(*met) == scope).map(|(peer, _)| *peer);
            let last = known.last.map(|(peer, _)| peer);
            // Another one than the last time, if there is one.
            if let Some(server) = fitting().find(|peer| Some(*peer) != last).or_else(|| fitting().next()) {
                known.testing = Some(now);
                return Some((address.clone(), server));
            }
        }
        None
    }

    /// A test has ended.
    pub(super) fn tested(
        &mut self,
        address: &Multiaddr,
        server: PeerId,
        outcome: Outcome,
        now: Instant,
    ) -> Option<Change> {
        let known = self.candidates.get_mut(address)?;
        known.testing = None;
        let after = |wait: Duration| now.checked_add(wait).unwrap_or(now);
        let was_up = is_up(known.state);
        match outcome {
            Outcome::Reachable => {
                (known.state, known.failures, known.reason) = (AddressState::Reachable, 0, None);
                (known.next, known.last) = (after(REACHABLE_AGAIN), Some((server, now)));
                (!was_up).then_some(Change::Confirmed)
            }
            Outcome::Unreachable(reason) => {
                known.failures = known.failures.saturating_add(1);
                (known.reason, known.last) = (Some(reason), Some((server, now)));
                if known.failures < FAILURES {
                    known.next = after(SOON);
                    return None;
                }
                known.state = AddressState::Unreachable;
                let (first, longest) = UNREACHABLE_AGAIN;
                let wait = first.saturating_mul(1 << (known.failures - FAILURES).min(8)).min(longest);
                known.next = after(wait);
                was_up.then_some(Change::Lost)
            }
            Outcome::Inconclusive(reason) => {
                (known.reason, known.next) = (Some(reason), after(SOON));
                known.last = Some((server, now));
                None
            }
        }
    }

    /// The network has changed: what was known is to be tested anew, and what failed may work now.
    pub(super) fn network_changed(&mut self, now: Instant) {
        self.candidates.retain(|_, known| known.state != AddressState::Untested);
        for known in self.candidates.values_mut() {
            (known.next, known.failures) = (now, 0);
        }
    }

    /// Whether others reach this node.
    pub(super) fn reach(&self) -> Reach {
        let states = || self.candidates.values().map(|known| known.state);
        if self.set_up().next().is_some() || states().any(is_up) {
            Reach::Reachable
        } else if states().any(|state| state == AddressState::Unreachable) {
            Reach::Unreachable
        } else {
            Reach::Unknown
        }
    }

    /// All addresses, those that work first.
    pub(super) fn report(&self, now: Instant) -> Vec<OwnAddress> {
        let configured = self.set_up().map(|address| OwnAddress {
            address: address.clone(),
            state: AddressState::Configured,
            server: None,
            tested: None,
            reason: None,
        });
        let found = self.candidates.iter().map(|(address, known)| OwnAddress {
            address: address.clone(),
            state: known.state,
            server: known.last.map(|(server, _)| server),
            tested: known.last.map(|(_, at)| now.saturating_duration_since(at)),
            reason: known.reason.clone(),
        });
        let mut all: Vec<OwnAddress> = configured.chain(found).collect();
        all.sort_by_key(|own| (!is_up(own.state), own.address.to_string()));
        all
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(n: usize) -> Multiaddr {
        format!("/ip4/198.51.{}.{}/tcp/4600", n / 250, n % 250).parse().unwrap()
    }

    fn books() -> Reachability {
        Reachability::new(&[], Scope::Private)
    }

    fn fails() -> Outcome {
        Outcome::Unreachable("no answer".into())
    }

    #[test]
    fn an_address_is_reachable_once_a_peer_has_dialled_it_and_lost_when_two_tests_fail() {
        let (mut books, start) = (books(), Instant::now());
        let (one, other) = (PeerId::random(), PeerId::random());
        let servers = [(one, Scope::Global), (other, Scope::Global)];
        books.seen(address(1), start);
        assert_eq!(books.reach(), Reach::Unknown);
        let (tested, server) = books.next(&servers, start).unwrap();
        assert_eq!((tested.clone(), books.next(&servers, start)), (address(1), None));
        assert_eq!(books.tested(&tested, server, Outcome::Reachable, start), Some(Change::Confirmed));
        assert_eq!(books.reach(), Reach::Reachable);
        assert_eq!(books.next(&servers, start + REACHABLE_AGAIN - Duration::from_secs(1)), None);

        let later = start + REACHABLE_AGAIN;
        let (tested, second) = books.next(&servers, later).unwrap();
        assert_ne!(server, second);
        assert_eq!(books.tested(&tested, second, fails(), later), None);
        assert_eq!(books.reach(), Reach::Reachable);
        let (tested, third) = books.next(&servers, later + SOON).unwrap();
        assert_eq!(third, server);
        assert_eq!(books.tested(&tested, third, fails(), later + SOON), Some(Change::Lost));
        assert_eq!(books.reach(), Reach::Unreachable);
        assert_eq!(books.report(later)[0].reason.as_deref(), Some("no answer"));

        // It may work again one day.
        let again = later + SOON + UNREACHABLE_AGAIN.0;
        let (tested, server) = books.next(&servers, again).unwrap();
        assert_eq!(books.tested(&tested, server, Outcome::Reachable, again), Some(Change::Confirmed));
    }

    #[test]
    fn only_who_is_met_as_far_away_as_the_address_reaches_can_test_it() {
        let (mut books, now, server) = (books(), Instant::now(), PeerId::random());
        books.seen(address(1), now);
        assert_eq!(books.next(&[(server, Scope::Private)], now), None);
        assert_eq!(books.next(&[], now), None);
        assert!(books.next(&[(server, Scope::Global)], now).is_some());
    }

    #[test]
    fn a_test_that_shows_nothing_changes_nothing_and_one_that_is_lost_is_made_again() {
        let (mut books, start, server) = (books(), Instant::now(), PeerId::random());
        let servers = [(server, Scope::Global)];
        books.seen(address(1), start);
        let (tested, _) = books.next(&servers, start).unwrap();
        assert_eq!(books.tested(&tested, server, Outcome::Inconclusive("busy".into()), start), None);
        assert_eq!((books.reach(), books.next(&servers, start)), (Reach::Unknown, None));
        assert!(books.next(&servers, start + SOON).is_some());
        assert_eq!(books.next(&servers, start + SOON), None);
        assert!(books.next(&servers, start + SOON + TEST_LOST).is_some());
    }

    #[test]
    fn invented_addresses_fill_a_bounded_table_and_never_push_out_one_that_works() {
        let (mut books, start, server) = (books(), Instant::now(), PeerId::random());
        books.seen(address(0), start);
        books.tested(&address(0), server, Outcome::Reachable, start);
        for n in 1..1000 {
            books.seen(address(n), start + Duration::from_secs(n as u64));
        }
        assert_eq!(books.candidates.len(), MAX_CANDIDATES);
        assert!(books.candidates.contains_key(&address(0)) && books.candidates.contains_key(&address(999)));
        for text in ["/ip4/127.0.0.1/tcp/1", "/ip4/198.51.100.1/tcp/1/p2p-circuit", "/ip4/198.51.100.1", "/memory/1"] {
            books.seen(text.parse().unwrap(), start);
            assert!(!books.candidates.contains_key(&text.parse().unwrap()), "{text}");
        }
    }

    #[test]
    fn what_the_operator_and_the_router_say_counts_until_a_test_says_otherwise() {
        let (mut books, now, server) = (books(), Instant::now(), PeerId::random());
        books.mapped(address(1), now);
        assert_eq!((books.reach(), books.report(now)[0].state), (Reach::Reachable, AddressState::Mapped));
        books.tested(&address(1), server, fails(), now);
        assert_eq!(books.tested(&address(1), server, fails(), now), Some(Change::Lost));
        assert_eq!(books.reach(), Reach::Unreachable);

        let books = Reachability::new(&[address(2)], Scope::Private);
        assert_eq!((books.reach(), books.report(now)[0].state), (Reach::Reachable, AddressState::Configured));
    }

    #[test]
    fn an_address_that_is_gone_takes_all_its_ports_with_it() {
        let (mut known, now, server) = (books(), Instant::now(), PeerId::random());
        let at = |text: &str| text.parse::<Multiaddr>().unwrap();
        let (tcp, quic) = (at("/ip4/198.51.100.1/tcp/4600"), at("/ip4/198.51.100.1/udp/4600/quic-v1"));
        let (tested, failed) = (at("/ip4/198.51.100.1/tcp/4601"), at("/ip4/198.51.100.1/tcp/4602"));
        let elsewhere = at("/ip4/198.51.100.2/tcp/4600");
        known.listening(tcp.clone());
        known.listening(quic.clone());
        for address in [&tested, &failed, &elsewhere] {
            known.seen(address.clone(), now);
        }
        known.tested(&tested, server, Outcome::Reachable, now);
        assert_eq!(known.gone("198.51.100.1".parse().unwrap()), [tcp, quic, tested]);
        let left: Vec<Multiaddr> = known.report(now).into_iter().map(|own| own.address).collect();
        assert_eq!(left, [elsewhere]);
        assert_eq!(known.gone("198.51.100.1".parse().unwrap()), Vec::<Multiaddr>::new());
    }

    #[test]
    fn after_a_change_of_the_network_everything_is_tested_anew() {
        let (mut books, now, server) = (books(), Instant::now(), PeerId::random());
        let servers = [(server, Scope::Global)];
        books.seen(address(1), now);
        books.tested(&address(1), server, Outcome::Reachable, now);
        assert_eq!(books.next(&servers, now), None);
        books.network_changed(now);
        assert!(books.next(&servers, now).is_some());
    }
}
