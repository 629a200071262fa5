//! Following a machine: which entries of its logs are real, in which order, and what proves that it lied.
//!
//! Owns the state of one followed machine: its chain of bindings and the tip of each log. It is a state machine without I/O:
//! the caller brings bindings, entries and heads in any order, from anyone, any number of times, stores what it is told to
//! apply, and cuts what it is told to cut. It never keeps entries itself; it asks the caller's store through [`History`].
//!
//! # Rules
//!
//! - **Position decides, never the clock.** Each position of a log belongs to one feed key, see [`BindingChain::reigns`].
//!   Times that look wrong, and bindings past their 90 days, only raise a flag ([`Flags`]).
//! - Entries are applied in order, without gaps. One that is [`EntryVerdict::Ahead`] is to be fetched again, with what is
//!   missing before it.
//! - Where a later binding takes a log over, the log is **pinned**: the entry before that boundary has the hash that the
//!   binding names. Entries of a retired key below a pin count only if they lead to it. Until the pin is reached they are
//!   *provisional*; what is not on the way to it is stale-key noise, ignored and counted, never evidence. So a thief of a
//!   retired key can neither backdate nor make an honest machine look like a liar.
//! - Two entries of the *current* key that cannot both be in one log are an equivocation: [`Evidence`] is kept, and the feed
//!   stays on the first of the two. Evidence that a later binding explains by a stolen key is dropped.
//! - A log is cut back only to a pin, that is to what a signed binding names: [`Truncated`]. The caller keeps what it cuts
//!   as evidence, and applies binding and cuts in one durable step.
//!
//! # Bounds
//!
//! At most [`MAX_LOGS`] logs, [`MAX_EVIDENCE`] proofs, and the bindings of a [`BindingChain`]. Further logs are refused,
//! further proofs not kept: the feed is flagged already.

pub mod evidence;
mod verdict;

use std::collections::BTreeMap;

use crate::{
    binding::{
        BindingChain, ChainError, SignedBinding,
        chain::{Accepted, Pin, Reigns},
    },
    entry::{EntryBody, Head, SignedEntry, SignedHead},
    ids::{Did, Hash, LogId, LogKey},
    keys::FeedPublicKey,
};

pub use evidence::{Evidence, EvidenceError};
pub use verdict::{BindingOutcome, EntryVerdict, Flags, HeadVerdict, History, JoinError, LogTip, Stale, Truncated};

/// At most this many logs of one machine are followed, all incarnations together.
pub const MAX_LOGS: usize = 1024;
/// At most this many proofs of equivocation are kept per machine.
pub const MAX_EVIDENCE: usize = 8;
/// An entry this far ahead of our clock is flagged, in ms.
pub const FAR_AHEAD_MS: u64 = 10 * 60 * 1000;

struct LogState {
    tip: LogTip,
    reigns: Reigns,
    newest_head: Option<SignedHead>,
}

impl LogState {
    /// Up to where (exclusive) everything is on the way to every pin.
    fn settled(&self) -> u64 {
        if self.reigns.pin_above(self.tip.next).is_none() {
            return self.tip.next;
        }
        self.reigns.pin_at_or_below(self.tip.next).map_or(0, |pin| pin.at).max(self.tip.start)
    }
}

enum Cut {
    Nothing,
    To(Pin),
    Everything,
}

/// The state of one followed machine. See the [module](self).
pub struct Follower {
    did: Did,
    chain: Option<BindingChain>,
    logs: BTreeMap<(LogId, u32), LogState>,
    evidence: Vec<Evidence>,
    noise: u64,
}

/// Who a signature is by, and whether that key may stand there.
enum Standing {
    Entitled,
    Unknown,
    Stale(Stale),
}

impl Follower {
    /// Begins to follow a machine, of which nothing is known but its DID.
    #[must_use]
    pub fn new(did: Did) -> Self {
        Self { did, chain: None, logs: BTreeMap::new(), evidence: Vec::new(), noise: 0 }
    }

    /// Continues from what was stored: the bindings from serial 0 on, and the tip of each log. If the caller stopped between a
    /// binding and the cuts it asked for, they are asked for again.
    ///
    /// # Errors
    ///
    /// What is wrong with the stored bindings.
    pub fn restore<'a>(
        did: Did,
        bindings: impl IntoIterator<Item = &'a SignedBinding>,
        tips: impl IntoIterator<Item = LogTip>,
        history: &impl History,
    ) -> Result<(Self, Vec<Truncated>), ChainError> {
        let mut follower = Self::new(did);
        for binding in bindings {
            follower.on_binding(binding, history)?;
        }
        for tip in tips.into_iter().filter(|tip| tip.log.did == did).take(MAX_LOGS) {
            let state = LogState { tip, reigns: Reigns::default(), newest_head: None };
            follower.logs.insert((tip.log.log, tip.log.incarnation), state);
        }
        let truncated = follower.rejudge(history);
        Ok((follower, truncated))
    }

    /// The machine.
    #[must_use]
    pub fn did(&self) -> Did {
        self.did
    }

    /// Its bindings; `None` before the first one came.
    #[must_use]
    pub fn chain(&self) -> Option<&BindingChain> {
        self.chain.as_ref()
    }

    /// Serial of the binding to ask for.
    #[must_use]
    pub fn next_serial(&self) -> u64 {
        self.chain.as_ref().map_or(0, |chain| chain.current().serial + 1)
    }

    /// Proofs that the machine signs two stories; empty for an honest one.
    #[must_use]
    pub fn evidence(&self) -> &[Evidence] {
        &self.evidence
    }

    /// How many entries and heads were noise.
    #[must_use]
    pub fn noise(&self) -> u64 {
        self.noise
    }

    /// Where the followed logs stand.
    pub fn tips(&self) -> impl Iterator<Item = LogTip> + '_ {
        self.logs.values().map(|state| state.tip)
    }

    /// Where a log stands; `None` for one that is not followed yet.
    #[must_use]
    pub fn tip(&self, log: &LogId, incarnation: u32) -> Option<LogTip> {
        self.logs.get(&(*log, incarnation)).map(|state| state.tip)
    }

    /// The next position of a log; 0 for one that is not followed yet.
    #[must_use]
    pub fn next(&self, log: &LogId, incarnation: u32) -> u64 {
        self.logs.get(&(*log, incarnation)).map_or(0, |state| state.tip.next)
    }

    /// Up to where (exclusive) a log is certain, see [`EntryVerdict::Apply`].
    #[must_use]
    pub fn settled(&self, log: &LogId, incarnation: u32) -> u64 {
        self.logs.get(&(*log, incarnation)).map_or(0, LogState::settled)
    }

    /// The newest head of a log that was accepted: its time tells how long ago the machine spoke.
    #[must_use]
    pub fn newest_head(&self, log: &LogId, incarnation: u32) -> Option<&SignedHead> {
        self.logs.get(&(*log, incarnation))?.newest_head.as_ref()
    }

    /// Takes a binding.
    ///
    /// # Errors
    ///
    /// Why it does not continue the chain. [`ChainError::Gap`] asks for the ones between.
    pub fn on_binding(&mut self, signed: &SignedBinding, history: &impl History) -> Result<BindingOutcome, ChainError> {
        let accepted = match &mut self.chain {
            Some(chain) => chain.accept(signed)?,
            None if signed.binding().did != self.did => {
                return Err(ChainError::OtherMachine { expected: self.did, found: signed.binding().did });
            }
            None => {
                self.chain = Some(BindingChain::new(signed)?);
                Accepted::New
            }
        };
        let truncated = match accepted {
            Accepted::New => self.rejudge(history),
            Accepted::Known => Vec::new(),
        };
        Ok(BindingOutcome { accepted, truncated })
    }

    /// Measures every log and every proof against the chain as it is now.
    fn rejudge(&mut self, history: &impl History) -> Vec<Truncated> {
        let Some(chain) = &self.chain else { return Vec::new() };
        self.evidence.retain(|evidence| evidence.stands(chain));
        let mut truncated = Vec::new();
        self.logs.retain(|(log, incarnation), state| {
            state.reigns = chain.reigns(log, *incarnation);
            let key = state.tip.log;
            match cut_point(&state.tip, &state.reigns, history) {
                Cut::Nothing => true,
                Cut::To(pin) => {
                    truncated.push(cut_to(&mut state.tip, pin));
                    true
                }
                Cut::Everything => {
                    truncated.push(Truncated { log: key, from_seq: state.tip.start });
                    false
                }
            }
        });
        truncated
    }

    /// Gives up the provisional end of a log, because another peer tells another story of it. `None` when all of it is settled.
    pub fn abandon(&mut self, log: &LogId, incarnation: u32) -> Option<Truncated> {
        let state = self.logs.get_mut(&(*log, incarnation))?;
        let settled = state.settled();
        if settled == state.tip.next {
            return None;
        }
        match state.reigns.pin_at_or_below(settled).filter(|pin| pin.at == settled) {
            Some(pin) => Some(cut_to(&mut state.tip, pin)),
            // One joined in the middle, on the word of a retired key alone.
            None => {
                let cut = Truncated { log: state.tip.log, from_seq: state.tip.start };
                self.logs.remove(&(*log, incarnation));
                Some(cut)
            }
        }
    }

    fn standing(&self, reigns: &Reigns, incarnation: u32, seq: u64, signer: &FeedPublicKey) -> Standing {
        let Some(chain) = &self.chain else { return Standing::Unknown };
        match reigns.at(seq) {
            Some(reign) if reign.key == *signer => Standing::Entitled,
            Some(_) if chain.has_feed_key(signer) => Standing::Stale(Stale::RetiredKey),
            Some(_) => Standing::Unknown,
            None if incarnation > chain.current().incarnation => Standing::Unknown,
            None => Standing::Stale(Stale::Closed),
        }
    }

    fn reigns(&self, log: &LogId, incarnation: u32) -> Reigns {
        match (self.logs.get(&(*log, incarnation)), &self.chain) {
            (Some(state), _) => state.reigns.clone(),
            (None, Some(chain)) => chain.reigns(log, incarnation),
            (None, None) => Reigns::default(),
        }
    }

    fn stale(&mut self, why: Stale) -> EntryVerdict {
        self.noise = self.noise.saturating_add(1);
        EntryVerdict::Stale(why)
    }

    fn prove(&mut self, evidence: Evidence) -> Box<Evidence> {
        if self.evidence.len() < MAX_EVIDENCE && !self.evidence.contains(&evidence) {
            self.evidence.push(evidence.clone());
        }
        Box::new(evidence)
    }

    /// Takes an entry.
    pub fn on_entry(&mut self, signed: &SignedEntry, now_ms: u64, history: &impl History) -> EntryVerdict {
        let entry = signed.entry();
        let (key, seq) = (entry.key(), entry.seq);
        if key.did != self.did {
            return EntryVerdict::WrongMachine;
        }
        let reigns = self.reigns(&key.log, key.incarnation);
        match self.standing(&reigns, key.incarnation, seq, &signed.signer()) {
            Standing::Entitled => {}
            Standing::Unknown => return EntryVerdict::UnknownKey,
            Standing::Stale(why) => return self.stale(why),
        }
        let tip = match self.logs.get(&(key.log, key.incarnation)) {
            Some(state) => state.tip,
            None if self.logs.len() >= MAX_LOGS => return EntryVerdict::TooManyLogs,
            None => {
                let origin = reigns.pin_at_or_below(0).map_or(Hash::ZERO, |pin| pin.prev);
                LogTip { log: key, start: 0, start_prev: origin, next: 0, hash: origin, time_ms: 0 }
            }
        };
        if seq < tip.start {
            return EntryVerdict::BelowStart;
        }
        let held = if seq < tip.next { held_entry(&tip, seq, history) } else { None };
        if held.as_ref().is_some_and(|held| held.hash() == signed.hash()) {
            return EntryVerdict::Known;
        }
        if signed.verify_signature().is_err() {
            return EntryVerdict::BadSignature;
        }
        if seq > tip.next {
            return EntryVerdict::Ahead { from: tip.next, to: seq };
        }
        let pin = reigns.pin_above(seq);
        let mut state = LogState { tip, reigns, newest_head: None };
        let forked = EntryVerdict::Forked { settled: state.settled() };
        if seq < tip.next {
            return match (pin, held) {
                (None, Some(held)) => {
                    EntryVerdict::Equivocation(self.prove(Evidence::Entries(Box::new((held, signed.clone())))))
                }
                (Some(pin), _) if pin.at <= tip.next => self.stale(Stale::OffThePin),
                // Either provisional, or the store does not hold what it applied.
                _ => forked,
            };
        }
        let at_pin = pin.filter(|pin| pin.at == seq + 1);
        if at_pin.is_some_and(|pin| pin.prev != signed.hash()) {
            return self.stale(Stale::OffThePin);
        }
        if entry.prev != tip.hash {
            if state.reigns.at(seq).is_some_and(|reign| reign.start.at == seq) {
                return self.stale(Stale::OffThePin);
            }
            if at_pin.is_some() {
                // Its hash is the pinned one: what is wrong is what is held. Everything since the last pin goes.
                let cut = self.abandon(&key.log, key.incarnation);
                return cut.map_or(forked, EntryVerdict::Diverged);
            }
            let before = seq.checked_sub(1).and_then(|before| held_entry(&tip, before, history));
            return match (pin, before) {
                (None, Some(before)) => {
                    EntryVerdict::Equivocation(self.prove(Evidence::Entries(Box::new((before, signed.clone())))))
                }
                _ => forked,
            };
        }
        let flags = Flags {
            ahead_of_clock: entry.time_ms > now_ms.saturating_add(FAR_AHEAD_MS),
            time_went_back: entry.time_ms < tip.time_ms,
            stale_binding: state.reigns.at(seq).is_some_and(|reign| entry.time_ms >= reign.expires_ms),
            second_close: self.is_second_close(signed, history),
        };
        state.tip.next = seq.saturating_add(1);
        state.tip.hash = signed.hash();
        state.tip.time_ms = entry.time_ms;
        let settled = state.settled() == state.tip.next;
        self.logs.entry((key.log, key.incarnation)).and_modify(|held| held.tip = state.tip).or_insert(state);
        EntryVerdict::Apply { settled, flags }
    }

    fn is_second_close(&mut self, signed: &SignedEntry, history: &impl History) -> bool {
        let EntryBody::DatasetClosed(close) = &signed.entry().body else { return false };
        let held = history.dataset_closed(&self.did, &close.dataset);
        let Some(held) = held.and_then(|bytes| SignedEntry::decode(&bytes).ok()) else { return false };
        if held.hash() == signed.hash() {
            return false;
        }
        let evidence = Evidence::Entries(Box::new((held, signed.clone())));
        if self.chain.as_ref().is_some_and(|chain| evidence.stands(chain)) {
            self.prove(evidence);
        }
        true
    }

    /// Takes a head.
    pub fn on_head(&mut self, signed: &SignedHead, history: &impl History) -> HeadVerdict {
        let head = signed.head();
        if head.did != self.did {
            return HeadVerdict::WrongMachine;
        }
        let reigns = self.reigns(&head.log, head.incarnation);
        // A head is signed by whoever writes the next entry.
        let next = head.seq.saturating_add(1);
        match self.standing(&reigns, head.incarnation, next, &signed.signer()) {
            Standing::Entitled => {}
            Standing::Unknown => return HeadVerdict::UnknownKey,
            Standing::Stale(why) => {
                self.noise = self.noise.saturating_add(1);
                return HeadVerdict::Stale(why);
            }
        }
        if signed.verify_signature().is_err() {
            return HeadVerdict::BadSignature;
        }
        let Some(state) = self.logs.get_mut(&(head.log, head.incarnation)) else {
            return HeadVerdict::Behind { from: 0, to: next };
        };
        if head.seq < state.tip.next {
            let held = (head.seq >= state.tip.start).then(|| held_entry(&state.tip, head.seq, history)).flatten();
            if let Some(held) = held.filter(|held| held.hash() != head.entry_hash) {
                let evidence = Evidence::Head(Box::new((*signed, held)));
                if self.chain.as_ref().is_some_and(|chain| evidence.stands(chain)) {
                    return HeadVerdict::Equivocation(self.prove(evidence));
                }
                self.noise = self.noise.saturating_add(1);
                return HeadVerdict::Stale(Stale::OffThePin);
            }
        }
        let fresher = |old: &SignedHead| (head.seq, head.time_ms) > (old.head().seq, old.head().time_ms);
        if state.newest_head.as_ref().is_none_or(fresher) {
            state.newest_head = Some(*signed);
        }
        match next.cmp(&state.tip.next) {
            std::cmp::Ordering::Less => HeadVerdict::Old,
            std::cmp::Ordering::Equal => HeadVerdict::Current,
            std::cmp::Ordering::Greater => HeadVerdict::Behind { from: state.tip.next, to: next },
        }
    }

    /// Begins to follow a log with this entry instead of entry 0: to join from a dataset on. The caller stores the entry.
    ///
    /// # Errors
    ///
    /// When the log is followed already, or the entry is not proven.
    pub fn join_at(&mut self, first: &SignedEntry) -> Result<(), JoinError> {
        let tip = LogTip::of(first, first);
        if first.verify_signature().is_err() {
            return Err(JoinError::NotProven);
        }
        self.join(tip, first.entry().seq, &first.signer())
    }

    /// Begins to follow a log behind this head: to join from now on.
    ///
    /// # Errors
    ///
    /// When the log is followed already, or the head is not proven.
    pub fn join_after(&mut self, head: &SignedHead) -> Result<(), JoinError> {
        let Head { did, log, incarnation, seq, entry_hash, .. } = *head.head();
        let next = seq.checked_add(1).ok_or(JoinError::NotProven)?;
        let log = LogKey { did, log, incarnation };
        let tip = LogTip { log, start: next, start_prev: entry_hash, next, hash: entry_hash, time_ms: 0 };
        if head.verify_signature().is_err() {
            return Err(JoinError::NotProven);
        }
        self.join(tip, next, &head.signer())
    }

    /// Goes back behind the place where following a log began: takes the entries right before it, in order. Following began with
    /// the first of them then. The caller stores them.
    ///
    /// What is followed already names the hash of the last of them, and each the one before: nobody can bring others.
    ///
    /// # Errors
    ///
    /// [`JoinError::NotProven`] when the log is not followed, they do not lead to where following began, or one of them is by a
    /// key that may not stand there. Nothing changes then.
    pub fn extend_back(&mut self, entries: &[SignedEntry]) -> Result<(), JoinError> {
        let (Some(first), Some(last)) = (entries.first(), entries.last()) else { return Ok(()) };
        let key = first.entry().key();
        let state = self.logs.get(&(key.log, key.incarnation)).filter(|_| key.did == self.did);
        let Some(state) = state else { return Err(JoinError::NotProven) };
        let (start, start_prev) = (state.tip.start, state.tip.start_prev);
        if (last.entry().seq.checked_add(1), last.hash()) != (Some(start), start_prev) {
            return Err(JoinError::NotProven);
        }
        for pair in entries.windows(2) {
            let (before, after) = (&pair[0], &pair[1]);
            let follows = before.entry().seq.checked_add(1) == Some(after.entry().seq);
            if !follows || after.entry().prev != before.hash() || after.entry().key() != key {
                return Err(JoinError::NotProven);
            }
        }
        for signed in entries {
            let seq = signed.entry().seq;
            let entitled =
                matches!(self.standing(&state.reigns, key.incarnation, seq, &signed.signer()), Standing::Entitled);
            // A pin in between is on the way, or what is followed is not.
            let pinned = state.reigns.pin_above(seq).is_none_or(|pin| pin.at != seq + 1 || pin.prev == signed.hash());
            if !entitled || !pinned || signed.verify_signature().is_err() {
                return Err(JoinError::NotProven);
            }
        }
        let state = self.logs.get_mut(&(key.log, key.incarnation)).ok_or(JoinError::NotProven)?;
        state.tip.start = first.entry().seq;
        state.tip.start_prev = first.entry().prev;
        Ok(())
    }

    fn join(&mut self, tip: LogTip, seq: u64, signer: &FeedPublicKey) -> Result<(), JoinError> {
        let LogKey { did, log, incarnation } = tip.log;
        if did != self.did {
            return Err(JoinError::NotProven);
        }
        if self.logs.contains_key(&(log, incarnation)) {
            return Err(JoinError::Followed);
        }
        if self.logs.len() >= MAX_LOGS {
            return Err(JoinError::TooManyLogs);
        }
        let reigns = self.reigns(&log, incarnation);
        if !matches!(self.standing(&reigns, incarnation, seq, signer), Standing::Entitled) {
            return Err(JoinError::NotProven);
        }
        let pinned = |at, hash| reigns.pin_at_or_below(at).is_none_or(|pin| pin.at != at || pin.prev == hash);
        if !pinned(tip.start, tip.start_prev) || !pinned(tip.next, tip.hash) {
            return Err(JoinError::NotProven);
        }
        self.logs.insert((log, incarnation), LogState { tip, reigns, newest_head: None });
        Ok(())
    }
}

/// The stored entry at `seq`. One that does not decode is as good as none.
fn held_entry(tip: &LogTip, seq: u64, history: &impl History) -> Option<SignedEntry> {
    if !(tip.start..tip.next).contains(&seq) {
        return None;
    }
    SignedEntry::decode(&history.entry(&tip.log, seq)?).ok()
}

fn cut_to(tip: &mut LogTip, pin: Pin) -> Truncated {
    tip.next = pin.at;
    tip.hash = pin.prev;
    tip.time_ms = 0;
    Truncated { log: tip.log, from_seq: pin.at }
}

/// The highest pin that the log is on the way through, if anything above it does not count any more.
fn cut_point(tip: &LogTip, reigns: &Reigns, history: &impl History) -> Cut {
    let Some(mut pin) = reigns.pin_at_or_below(tip.next) else { return Cut::Everything };
    // A key never comes back once it is retired: if the last entry is by the right key, all behind the pin are.
    let mut end_counts = pin.at == tip.next
        || tip.next == tip.start
        || held_entry(tip, tip.next - 1, history)
            .is_some_and(|last| reigns.at(tip.next - 1).is_some_and(|reign| reign.key == last.signer()));
    loop {
        let hash = match pin.at {
            at if at == tip.next => Some(tip.hash),
            at if at == tip.start => Some(tip.start_prev),
            // Following began above this pin: what is held was never proven by it, and does not contradict it either.
            at if at < tip.start => return if end_counts { Cut::Nothing } else { Cut::Everything },
            at => held_entry(tip, at - 1, history).map(|before| before.hash()),
        };
        if hash == Some(pin.prev) {
            return if end_counts { Cut::Nothing } else { Cut::To(pin) };
        }
        end_counts = false;
        let below = pin.at.checked_sub(1).and_then(|at| reigns.pin_at_or_below(at));
        match below {
            Some(lower) => pin = lower,
            None => return Cut::Everything,
        }
    }
}

#[cfg(test)]
mod simulation;
#[cfg(test)]
pub(crate) mod testbed;
#[cfg(test)]
mod tests;
