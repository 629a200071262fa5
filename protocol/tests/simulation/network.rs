//! Messages on their way: each hop takes a few rounds, so that later ones overtake, and some are lost. Who is offline gets nothing.
//! Knows nothing of what is in a message but its size.

use std::collections::BTreeMap;

use rand::{RngExt as _, SeedableRng as _};
use rand_chacha::ChaCha8Rng;

/// What the network counts of a message.
pub(crate) trait Load {
    /// Its length in bytes.
    fn bytes(&self) -> u64;
    /// Whether it is sent again when it is lost: then a loss costs time.
    fn is_repeated(&self) -> bool;
}

/// A message that has arrived.
pub(crate) struct Arrived<M> {
    pub(crate) from: usize,
    pub(crate) to: usize,
    pub(crate) message: M,
}

/// What happened to messages.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Traffic {
    /// Messages and bytes that each node sent.
    pub(crate) sent: Vec<(u64, u64)>,
    /// Messages that were lost on the way.
    pub(crate) lost: u64,
    /// Messages to or from somebody who was offline.
    pub(crate) undeliverable: u64,
    /// Messages that arrived behind one that was sent later between the same two nodes.
    pub(crate) overtaken: u64,
}

/// The network.
pub(crate) struct Network<M> {
    rng: ChaCha8Rng,
    loss_percent: u32,
    slowest_hop: u64,
    online: Vec<bool>,
    /// By the round in which they arrive; in the order in which they were sent within one.
    on_the_way: BTreeMap<u64, Vec<(u64, Arrived<M>)>>,
    number: u64,
    newest: BTreeMap<(usize, usize), u64>,
    traffic: Traffic,
}

impl<M: Load> Network<M> {
    pub(crate) fn new(nodes: usize, loss_percent: u32, slowest_hop: u64, seed: u64) -> Self {
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        rng.set_stream(1);
        Self {
            rng,
            loss_percent,
            slowest_hop,
            online: vec![false; nodes],
            on_the_way: BTreeMap::new(),
            number: 0,
            newest: BTreeMap::new(),
            traffic: Traffic { sent: vec![(0, 0); nodes], ..Traffic::default() },
        }
    }

    pub(crate) fn set_online(&mut self, node: usize, online: bool) {
        self.online[node] = online;
    }

    pub(crate) fn is_online(&self, node: usize) -> bool {
        self.online[node]
    }

    pub(crate) fn send(&mut self, round: u64, from: usize, to: usize, message: M) {
        let mut arrives = round;
        loop {
            arrives += self.rng.random_range(1..=self.slowest_hop);
            let sent = &mut self.traffic.sent[from];
            *sent = (sent.0 + 1, sent.1 + message.bytes());
            if self.rng.random_range(0..100) >= self.loss_percent {
                break;
            }
            self.traffic.lost += 1;
            if !message.is_repeated() {
                return;
            }
            arrives += self.slowest_hop;
        }
        self.number += 1;
        self.on_the_way.entry(arrives).or_default().push((self.number, Arrived { from, to, message }));
    }

    /// What arrives in a round.
    pub(crate) fn arrivals(&mut self, round: u64) -> Vec<Arrived<M>> {
        let mut arrived = Vec::new();
        for (number, message) in self.on_the_way.remove(&round).unwrap_or_default() {
            if !self.online[message.to] || !self.online[message.from] {
                self.traffic.undeliverable += 1;
                continue;
            }
            let newest = self.newest.entry((message.from, message.to)).or_default();
            if number < *newest {
                self.traffic.overtaken += 1;
            }
            *newest = number.max(*newest);
            arrived.push(message);
        }
        arrived
    }

    pub(crate) fn traffic(self) -> Traffic {
        self.traffic
    }
}
