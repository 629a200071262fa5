//! How far everybody is, and what it took.

use std::{collections::BTreeMap, fmt};

use tributary_protocol::ids::LogKey;

use super::{network::Traffic, peer::Counted, run::Settings};

/// The shares of the followers that are reported, percent.
const SHARES: [usize; 3] = [50, 95, 100];

/// When an entry was written, and in which round each follower came to hold it.
struct Spread {
    written: u64,
    held: Vec<u64>,
}

/// Who has what.
pub(crate) struct Progress {
    followers: usize,
    entries: BTreeMap<(LogKey, u64), Spread>,
    /// The logs as they are in the end, and the round of the last entry.
    whole: Option<(Vec<(LogKey, u64)>, u64)>,
    /// Since when each node is there.
    here: Vec<u64>,
    is_complete: Vec<bool>,
    /// How long followers took that have everything, from the last entry on, or from when they came if that was later.
    took: Vec<u64>,
}

impl Progress {
    pub(crate) fn new(nodes: usize) -> Self {
        let (here, is_complete) = (vec![0; nodes], vec![false; nodes]);
        Self { followers: nodes - 1, entries: BTreeMap::new(), whole: None, here, is_complete, took: Vec::new() }
    }

    pub(crate) fn came(&mut self, node: usize, round: u64) {
        self.here[node] = round;
    }

    pub(crate) fn written(&mut self, log: LogKey, seq: u64, round: u64) {
        self.entries.insert((log, seq), Spread { written: round, held: Vec::new() });
    }

    pub(crate) fn all_written(&mut self, logs: Vec<(LogKey, u64)>, round: u64) {
        self.whole = Some((logs, round));
    }

    pub(crate) fn applied(&mut self, log: &LogKey, seq: u64, round: u64) {
        self.entries.get_mut(&(*log, seq)).expect("only what was written is applied").held.push(round);
    }

    /// Notes whether a follower has everything, which `holds` tells by log and length.
    pub(crate) fn look_at(&mut self, node: usize, round: u64, holds: impl Fn(&LogKey, u64) -> bool) {
        let Some((logs, last)) = &self.whole else { return };
        if !self.is_complete[node] && logs.iter().all(|(log, len)| holds(log, *len)) {
            self.is_complete[node] = true;
            self.took.push(round - self.here[node].max(*last));
        }
    }

    pub(crate) fn lacking(&self) -> usize {
        self.followers - self.took.len()
    }

    pub(crate) fn is_over(&self) -> bool {
        self.lacking() == 0
    }

    pub(crate) fn report(self, settings: &Settings, traffic: Traffic, counted: Vec<Counted>) -> Report {
        let half = |spread: &Spread| at_share(&spread.held, 50) - spread.written;
        let mut halves: Vec<u64> = self.entries.values().map(half).collect();
        halves.sort_unstable();
        let mut took = self.took;
        took.sort_unstable();
        Report {
            settings: settings.clone(),
            entries: self.entries.len(),
            whole_log: SHARES.map(|share| at_share(&took, share)),
            entry: at_share(&halves, 50),
            traffic,
            counted,
        }
    }
}

/// The round by which so many percent were there; rounds are in order.
fn at_share(rounds: &[u64], percent: usize) -> u64 {
    rounds[(rounds.len() * percent).div_ceil(100) - 1]
}

/// What a run took.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Report {
    settings: Settings,
    /// Entries of both logs.
    entries: usize,
    /// Rounds until 50, 95 and 100 % of the followers had everything, from the last entry on, or from when they came if that was later.
    whole_log: [u64; 3],
    /// Rounds from an entry until half of the followers had it: the median of all entries.
    entry: u64,
    pub(crate) traffic: Traffic,
    /// By node; the first is the machine.
    counted: Vec<Counted>,
}

impl Report {
    /// A sum over all nodes.
    pub(crate) fn sum(&self, of: impl Fn(&Counted) -> u64) -> u64 {
        self.counted.iter().map(of).sum()
    }

    fn per_node(&self, sum: u64) -> f64 {
        sum as f64 / self.counted.len() as f64
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Settings { followers, interval, seed, loss_percent, slowest_hop, .. } = self.settings;
        let (sent, traffic) = (&self.traffic.sent, &self.traffic);
        let (messages, bytes) = sent.iter().fold((0, 0), |all, sent| (all.0 + sent.0, all.1 + sent.1));
        let most = |of: fn(&(u64, u64)) -> u64| sent.iter().map(of).max().unwrap_or(0);
        let [half, nearly, whole] = self.whole_log;
        let mean = |of: fn(&Counted) -> u64| format!("{:.1}", self.per_node(self.sum(of)));
        let rows = [
            ("rounds until 50 / 95 / 100 % have the whole log, from its end or from when they came", {
                format!("{half} / {nearly} / {whole}")
            }),
            ("rounds from an entry until 50 % have it, median", self.entry.to_string()),
            ("messages sent per node, and most", format!("{:.0}, {}", self.per_node(messages), most(|sent| sent.0))),
            ("bytes sent per node, and most", format!("{:.0}, {}", self.per_node(bytes), most(|sent| sent.1))),
            ("messages sent per node and entry", format!("{:.2}", self.per_node(messages) / self.entries as f64)),
            ("gossip per node that had come before", mean(|counted| counted.duplicates)),
            ("times a node began to catch up", mean(|counted| counted.catch_ups)),
            ("entries that this brought it", mean(|counted| counted.fetched)),
            ("messages that were lost, or for somebody who had gone", {
                format!("{}, {}", traffic.lost, traffic.undeliverable)
            }),
            ("messages that another one overtook", traffic.overtaken.to_string()),
        ];
        writeln!(f, "{followers} followers, {} entries, seed {seed}: a chunk every {interval} rounds,", self.entries)?;
        writeln!(f, "{loss_percent} % of the messages lost, a hop takes 1 to {slowest_hop} rounds\n")?;
        writeln!(f, "| what | |\n|---|---|")?;
        rows.iter().try_for_each(|(what, value)| writeln!(f, "| {what} | {value} |"))
    }
}
