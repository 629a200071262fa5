//! One run: who is there when, what the machine does, and when it is over.

use std::ops::Range;

use rand::{RngExt as _, SeedableRng as _};
use rand_chacha::ChaCha8Rng;

use super::{
    machine::{Machine, SECOND},
    mesh,
    network::Network,
    peer::{Message, Out, Peer},
    report::{Progress, Report},
};

/// The machine's number; followers count from 1.
const MACHINE: usize = 0;
/// After so many chunks there is an entry in the machine log.
const NOTICES: u64 = 8;
/// Rounds between heads: the node's 60 s.
const HEADS: u64 = 60 * SECOND;
/// An idle follower asks a peer what is new after so many rounds; the node does every minute.
const LOOKS: u64 = 60 * SECOND;
/// Who has not answered after so many rounds is gone.
const PATIENCE: u64 = 10 * SECOND;
/// The machine is gone for good so many rounds after its last entry. What is missing then, followers have from each other.
const LEAVES: u64 = HEADS + HEADS / 2;
/// A run is given up so many rounds after the last entry.
const TOO_LONG: u64 = 100 * HEADS;

/// What is simulated.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Settings {
    pub(crate) followers: usize,
    /// Chunks that the stream has in the end.
    pub(crate) chunks: u64,
    /// Rounds between two of them.
    pub(crate) interval: u64,
    pub(crate) seed: u64,
    /// Messages that are lost.
    pub(crate) loss_percent: u32,
    /// A hop takes from one round to so many.
    pub(crate) slowest_hop: u64,
}

impl Settings {
    /// A chunk a second, one message of ten is lost, hops take 100 to 300 ms.
    pub(crate) fn new(followers: usize, seed: u64) -> Self {
        Self { followers, chunks: 40, interval: SECOND, seed, loss_percent: 10, slowest_hop: 3 }
    }

    /// The round of the last entry.
    fn written(&self) -> u64 {
        self.chunks * self.interval
    }
}

/// When a follower is there: from its first round on, but for a while.
struct Life {
    joins: u64,
    offline: Range<u64>,
}

impl Life {
    /// One of five joins late, up to after the machine has left; another one of five goes offline while the machine writes.
    fn draw(settings: &Settings, rng: &mut ChaCha8Rng) -> Self {
        let lot = rng.random_range(0..5);
        let joins = rng.random_range(1..settings.written() + LEAVES + HEADS);
        let begins = rng.random_range(1..settings.written());
        let lasts = rng.random_range(SECOND..=settings.written());
        match lot {
            0 => Self { joins, offline: 0..0 },
            1 => Self { joins: 0, offline: begins..begins + lasts },
            _ => Self { joins: 0, offline: 0..0 },
        }
    }

    fn is_online(&self, round: u64) -> bool {
        round >= self.joins && !self.offline.contains(&round)
    }
}

struct Run<'a> {
    settings: &'a Settings,
    machine: Machine,
    peers: Vec<Peer>,
    mesh: Vec<Vec<usize>>,
    network: Network<Message>,
    rng: ChaCha8Rng,
    progress: Progress,
    round: u64,
}

/// Simulates until every follower has everything.
///
/// # Panics
///
/// When that does not happen, or the protocol does something that it must not.
pub(crate) fn run(settings: &Settings) -> Report {
    let nodes = settings.followers + 1;
    let mut rng = ChaCha8Rng::seed_from_u64(settings.seed);
    let mesh = mesh::random(nodes, &mut rng);
    let lives: Vec<Life> = (0..nodes).map(|_| Life::draw(settings, &mut rng)).collect();
    let machine = Machine::new(settings.seed);
    let mut run = Run {
        settings,
        peers: (0..nodes).map(|_| Peer::new(machine.did())).collect(),
        machine,
        mesh,
        network: Network::new(nodes, settings.loss_percent, settings.slowest_hop, settings.seed),
        rng,
        progress: Progress::new(nodes),
        round: 0,
    };
    while run.round < settings.written() + TOO_LONG && !run.progress.is_over() {
        run.come_and_go(&lives);
        run.machine_acts();
        run.messages_arrive();
        run.followers_look();
        run.take_stock();
        run.round += 1;
    }
    assert!(
        run.progress.is_over(),
        "{TOO_LONG} rounds after the last entry {} followers lack something",
        run.progress.lacking()
    );
    let (machine, followers) = run.peers.split_first().unwrap();
    followers.iter().for_each(|follower| follower.assert_holds_the_same(machine));
    let counted = run.peers.iter().map(Peer::counted).collect();
    run.progress.report(settings, run.network.traffic(), counted)
}

impl Run<'_> {
    fn come_and_go(&mut self, lives: &[Life]) {
        self.network.set_online(MACHINE, self.round < self.settings.written() + LEAVES);
        for (node, life) in lives.iter().enumerate().skip(1) {
            let (is, was) = (life.is_online(self.round), self.network.is_online(node));
            self.network.set_online(node, is);
            if was && !is {
                self.peers[node].went_offline();
            }
            if is && !was {
                self.progress.came(node, self.round);
                self.look(node);
            }
        }
    }

    fn machine_acts(&mut self) {
        let (round, last) = (self.round, self.settings.written());
        if round > last + LEAVES {
            return;
        }
        let mut new = Vec::new();
        if round == 0 {
            new.push(self.machine.write_binding(round));
        }
        if round == last / 2 {
            self.machine.rotate(round);
            new.push(self.machine.write_binding(round));
        }
        if (1..=last).contains(&round) && round.is_multiple_of(self.settings.interval) {
            new.push(self.machine.write_chunk(round));
            if round.is_multiple_of(NOTICES * self.settings.interval) {
                new.push(self.machine.write_notice(round));
            }
        }
        let (mut out, binding) = (Out::new(), self.machine.binding());
        let (own, peers) = (&mut self.peers[MACHINE], &self.mesh[MACHINE]);
        for entry in &new {
            self.progress.written(entry.entry().key(), entry.entry().seq, round);
            let gossip = own.write(entry, &binding, round);
            own.publish(&gossip, peers, None, &mut out);
        }
        // Who asks gets heads that are up to date; all others hear of them now and then.
        let is_time = round.is_multiple_of(HEADS);
        let heads = if is_time || !new.is_empty() { self.machine.heads(round) } else { Vec::new() };
        for head in &heads {
            let gossip = own.say(head);
            if is_time {
                own.publish(&gossip, peers, None, &mut out);
            }
        }
        if round == last {
            self.progress.all_written(self.machine.lengths().collect(), round);
        }
        self.send(MACHINE, out);
    }

    fn messages_arrive(&mut self) {
        for arrived in self.network.arrivals(self.round) {
            let mut out = Out::new();
            let (node, peers) = (arrived.to, &self.mesh[arrived.to]);
            self.peers[node].on_message(arrived.from, arrived.message, peers, self.round, &mut out);
            self.send(node, out);
        }
    }

    /// Followers ask when an answer did not come, and now and then.
    fn followers_look(&mut self) {
        for node in 1..self.peers.len() {
            if !self.network.is_online(node) {
                continue;
            }
            let waited_since = self.round.saturating_sub(PATIENCE);
            let gave_up = self.peers[node].give_up_before(waited_since);
            let due = (self.round + node as u64).is_multiple_of(LOOKS);
            if gave_up || (due && !self.peers[node].is_catching_up()) {
                self.look(node);
            }
        }
    }

    /// Lets a follower catch up with any of its peers that is there.
    fn look(&mut self, node: usize) {
        let there: Vec<usize> = self.mesh[node].iter().copied().filter(|peer| self.network.is_online(*peer)).collect();
        if there.is_empty() {
            return;
        }
        let peer = there[self.rng.random_range(0..there.len())];
        let mut out = Out::new();
        self.peers[node].catch_up(peer, self.round, &mut out);
        self.send(node, out);
    }

    fn send(&mut self, from: usize, out: Out) {
        for (to, message) in out {
            // A connection ends with either of its ends.
            if self.network.is_online(to) {
                self.network.send(self.round, from, to, message);
            }
        }
    }

    fn take_stock(&mut self) {
        for node in 1..self.peers.len() {
            for (log, seq) in self.peers[node].take_applied() {
                self.progress.applied(&log, seq, self.round);
            }
            let peer = &self.peers[node];
            self.progress.look_at(node, self.round, |log, len| peer.holds(log, len));
        }
    }
}
