//! Offences of peers and when they add up to a ban. Sans-I/O: `now` is an argument.
//!
//! A peer's penalty halves every [`HALF_LIFE`]. Beside the ban it lowers the peer's gossip score, so an offender of any
//! protocol loses its place in the mesh before it loses its connection.

use std::{
    collections::HashMap,
    time::{Duration, Instant},
};

use libp2p::PeerId;

/// A penalty halves in this time.
pub(super) const HALF_LIFE: Duration = Duration::from_secs(300);
/// A peer with this penalty is banned.
pub(super) const BAN_AT: f64 = 100.0;
/// At most this many offenders are remembered; the one with the least penalty is forgotten first. Peer ids are free to mint,
/// so this table bounds memory, not crime: limits on connections do that.
const MAX_OFFENDERS: usize = 4096;
/// Most bans at a time, for the same reason; the one that ends first is lifted.
const MAX_BANS: usize = 4096;

/// Something a peer did that an honest one does not do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Offence {
    /// A frame or message over the limit of its protocol.
    Oversized,
    /// Bytes that do not decode.
    Malformed,
    /// A gossip message that is provably wrong.
    InvalidGossip,
    /// Content that is not what its hash says.
    WrongBytes,
    /// A signature or proof that does not verify.
    BadProof,
    /// A stream held open without progress.
    Stalled,
    /// More requests than it was told to send.
    Flood,
}

impl Offence {
    /// What it adds to the penalty; [`BAN_AT`] bans.
    fn weight(self) -> f64 {
        match self {
            Self::WrongBytes | Self::BadProof => 40.0,
            Self::Oversized | Self::Malformed | Self::InvalidGossip => 30.0,
            // Slow links stall without malice.
            Self::Stalled | Self::Flood => 2.0,
        }
    }
}

/// What an offence led to.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Verdict {
    /// The penalty now, at least 0.
    pub(super) penalty: f64,
    /// Whether the peer has to go.
    pub(super) ban: bool,
}

/// Penalties and bans of peers.
#[derive(Debug, Default)]
pub(super) struct Reputation {
    penalties: HashMap<PeerId, (f64, Instant)>,
    /// When the ban ends; `None` for one that does not.
    bans: HashMap<PeerId, Option<Instant>>,
}

fn decayed(penalty: f64, since: Instant, now: Instant) -> f64 {
    penalty * 0.5f64.powf(now.saturating_duration_since(since).as_secs_f64() / HALF_LIFE.as_secs_f64())
}

impl Reputation {
    /// Adds an offence.
    pub(super) fn offend(&mut self, peer: PeerId, offence: Offence, now: Instant) -> Verdict {
        if !self.penalties.contains_key(&peer) && self.penalties.len() >= MAX_OFFENDERS {
            let least =
                self.penalties.iter().min_by(|a, b| decayed(a.1.0, a.1.1, now).total_cmp(&decayed(b.1.0, b.1.1, now)));
            if let Some(least) = least.map(|(peer, _)| *peer) {
                self.penalties.remove(&least);
            }
        }
        let entry = self.penalties.entry(peer).or_insert((0.0, now));
        *entry = (decayed(entry.0, entry.1, now) + offence.weight(), now);
        Verdict { penalty: entry.0, ban: entry.0 >= BAN_AT }
    }

    /// Notes a ban until `until` (`None`: for good) and returns the peer whose ban had to be lifted for it.
    pub(super) fn ban(&mut self, peer: PeerId, until: Option<Instant>) -> Option<PeerId> {
        let lifted = if self.bans.contains_key(&peer) || self.bans.len() < MAX_BANS {
            None
        } else {
            // A ban for good counts as the last to end.
            let soonest = self.bans.iter().min_by_key(|(_, until)| (until.is_none(), **until)).map(|(peer, _)| *peer);
            if let Some(soonest) = &soonest {
                self.bans.remove(soonest);
            }
            soonest
        };
        self.bans.insert(peer, until);
        lifted
    }

    /// Who is banned, and for how long still; `None` for good.
    pub(super) fn bans(&self, now: Instant) -> impl Iterator<Item = (PeerId, Option<Duration>)> {
        self.bans.iter().map(move |(peer, until)| (*peer, until.map(|until| until.saturating_duration_since(now))))
    }

    /// Forgets a peer's ban and penalty.
    pub(super) fn forgive(&mut self, peer: &PeerId) {
        self.bans.remove(peer);
        self.penalties.remove(peer);
    }

    /// Takes the bans that have ended off the list and returns them, forgets penalties that have faded, and lists what is
    /// left of the others.
    pub(super) fn tick(&mut self, now: Instant) -> (Vec<PeerId>, Vec<(PeerId, f64)>) {
        let ended: Vec<PeerId> =
            self.bans.iter().filter(|(_, until)| until.is_some_and(|at| at <= now)).map(|(peer, _)| *peer).collect();
        for peer in &ended {
            self.bans.remove(peer);
            // Served: the next offence starts from a clean sheet.
            self.penalties.remove(peer);
        }
        self.penalties.retain(|_, (penalty, since)| decayed(*penalty, *since, now) > 0.5);
        let penalties =
            self.penalties.iter().map(|(peer, (penalty, since))| (*peer, decayed(*penalty, *since, now))).collect();
        (ended, penalties)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn offences_add_up_to_a_ban_and_fade() {
        let (mut reputation, peer, start) = (Reputation::default(), PeerId::random(), Instant::now());
        assert!(!reputation.offend(peer, Offence::WrongBytes, start).ban);
        assert!(!reputation.offend(peer, Offence::WrongBytes, start).ban);
        let later = reputation.offend(peer, Offence::Stalled, start + HALF_LIFE);
        assert!((later.penalty - 42.0).abs() < 1e-6, "{later:?}");
        assert!(!reputation.offend(peer, Offence::WrongBytes, start + HALF_LIFE).ban);
        assert!(reputation.offend(peer, Offence::WrongBytes, start + HALF_LIFE).ban);
        let (_, left) = reputation.tick(start + HALF_LIFE * 20);
        assert!(left.is_empty());
    }

    #[test]
    fn a_ban_ends_when_its_time_has_come() {
        let (mut reputation, start) = (Reputation::default(), Instant::now());
        let (short, long) = (PeerId::random(), PeerId::random());
        reputation.ban(short, Some(start + Duration::from_secs(5)));
        reputation.ban(long, None);
        assert!(reputation.tick(start).0.is_empty());
        let left: HashMap<_, _> = reputation.bans(start + Duration::from_secs(3)).collect();
        assert_eq!((left[&short], left[&long]), (Some(Duration::from_secs(2)), None));
        assert_eq!(reputation.tick(start + Duration::from_secs(5)).0, [short]);
        assert!(reputation.tick(start + Duration::from_secs(1 << 20)).0.is_empty());
    }

    #[test]
    fn the_tables_stay_bounded_and_the_worst_are_kept() {
        let (mut reputation, start) = (Reputation::default(), Instant::now());
        let worst = PeerId::random();
        reputation.offend(worst, Offence::WrongBytes, start);
        reputation.ban(worst, None);
        let mut lifted = 0;
        for _ in 0..MAX_OFFENDERS + 10 {
            reputation.offend(PeerId::random(), Offence::Stalled, start);
            lifted += usize::from(reputation.ban(PeerId::random(), Some(start)).is_some());
        }
        assert_eq!(reputation.penalties.len(), MAX_OFFENDERS);
        assert_eq!((reputation.bans.len(), lifted), (MAX_BANS, 11));
        assert!(reputation.penalties.contains_key(&worst) && reputation.bans.contains_key(&worst));
    }
}
