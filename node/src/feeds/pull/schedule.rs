//! Which source fetches which chunks next. A state machine without I/O and without a clock: time is an argument.
//!
//! Chunks come in with [`Schedule::feed`], at most [`LOOK_AHEAD`] at a time, and leave when one source has delivered them.
//! Each source owes as much as it should deliver in [`SPAN`], by what was measured of it, so that a slow one never holds much
//! of the work. One that has nothing left to do takes over the end of what the slowest one owes. Work of a source that
//! fails goes back to all. A chunk is owed by two sources only while the first of them is quiet with it, at the very end; the
//! first to deliver it wins, and the other one is told to let go.
//!
//! ```text
//!           feed            ask                 delivered
//! the plan ------> free ---------> owed by one ----------> gone
//!                   ^ failed, absent |  ^ taken over
//!                   +----------------+--+
//! ```

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    time::{Duration, Instant},
};

use crate::net::MAX_PULL_HASHES;

#[cfg(test)]
mod simulation;
#[cfg(test)]
mod tests;

/// Sources at a time.
pub(super) const MAX_SOURCES: usize = 32;
/// Chunks that are known to the schedule at a time; a few hundred bytes each.
pub(super) const LOOK_AHEAD: usize = 8192;
/// A source owes what it should deliver in this time.
const SPAN: Duration = Duration::from_millis(500);
/// What a source owes before anything was measured of it: this many bytes, and at most this many chunks.
const FIRST: (u64, usize) = (1 << 20, 64);
/// Two large chunks are owed at a time only if the first should be here by then.
const AHEAD: Duration = Duration::from_secs(5);
/// A rate is measured over at least this time, unless the source has nothing left to deliver.
const MEASURED_OVER: Duration = Duration::from_millis(100);
/// What is believed of a source before anything was measured, bytes a second.
const UNMEASURED: f64 = 1_048_576.0;
/// What a source owes is not worth taking when it should be here sooner.
const SOON: Duration = Duration::from_millis(100);
/// A source that has sent nothing for this time is quiet: what it is sending may be asked of another one as well.
const QUIET: Duration = Duration::from_millis(250);
/// Longest wait that a busy source may ask for.
const MAX_REST: Duration = Duration::from_secs(15);
/// How often a source may be busy in a row.
const BUSY_TIMES: u32 = 6;
/// How often a source may break off in a row without having delivered anything.
const BROKEN_TIMES: u32 = 4;

/// A chunk in one pull, numbered in the order of the plan.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct ChunkId(pub(super) u64);

/// A source in one pull. The number is used again when the source has left.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct SourceId(u8);

impl SourceId {
    const fn bit(self) -> u32 {
        1 << self.0
    }
}

/// What a source should do.
#[derive(Debug)]
pub(super) enum Ask<T> {
    /// Fetch these, in this order.
    Fetch(Vec<(ChunkId, T)>),
    /// Nothing now. Ask again when something has changed, or at this time.
    Wait(Option<Instant>),
}

/// Why a source does not deliver what it owes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fault {
    /// It has too much to do, and says when to come back.
    Busy(Duration),
    /// It cannot be reached, broke off, or made no progress.
    Broke,
    /// It will never deliver: it does not serve chunks, or it sent something that an honest peer does not send.
    Final,
}

/// What a delivery means.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Delivered {
    /// Whether this is the first copy: the one to keep.
    pub(super) first: bool,
    /// Another source that owed it too and need not send it any more.
    pub(super) relieved: Option<SourceId>,
}

/// A chunk that is not here yet.
struct Chunk<T> {
    len: u32,
    item: T,
    /// Who owes it: nobody, one, or two.
    owners: u32,
    /// Who does not have it.
    lacking: u32,
}

/// What is known of a source.
struct Source {
    /// In the order in which it was asked.
    owed: VecDeque<ChunkId>,
    owed_bytes: u64,
    /// Bytes a second.
    rate: Option<f64>,
    /// Since when, and how many bytes, for the next measurement.
    sample: (Instant, u64),
    /// When it delivered last, or was asked for something while it owed nothing.
    moved: Instant,
    /// Not asked before this.
    rests_until: Option<Instant>,
    busy: u32,
    broken: u32,
    /// Batches in a row of which it had nothing.
    barren: u32,
}

impl Source {
    fn new(now: Instant) -> Self {
        Self {
            owed: VecDeque::new(),
            owed_bytes: 0,
            rate: None,
            sample: (now, 0),
            moved: now,
            rests_until: None,
            busy: 0,
            broken: 0,
            barren: 0,
        }
    }

    fn rate(&self) -> f64 {
        self.rate.unwrap_or(UNMEASURED).max(1.0)
    }

    fn takes(&self, bytes: u64) -> Duration {
        #[expect(clippy::cast_precision_loss, reason = "an estimate")]
        Duration::try_from_secs_f64(bytes as f64 / self.rate()).unwrap_or(Duration::MAX)
    }

    /// What it may owe: bytes and chunks.
    fn window(&self) -> (u64, usize) {
        match self.rate {
            #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "rates are positive")]
            Some(rate) => ((rate * SPAN.as_secs_f64()) as u64, MAX_PULL_HASHES),
            // What it does not have costs next to nothing: look through it quickly.
            None => (FIRST.0, FIRST.1.saturating_mul(1 << self.barren.min(8)).min(MAX_PULL_HASHES)),
        }
    }

    /// Whether it should be asked for more now. What is asked ahead of time hides the way there and back, and waits only briefly on
    /// a stream of its own: servers cut off who takes nothing.
    fn takes_more(&self) -> bool {
        let left = self.takes(self.owed_bytes);
        self.owed.is_empty() || (self.rate.is_some() && (left <= SPAN / 2 || (self.owed.len() == 1 && left <= AHEAD)))
    }

    fn no_longer_owes(&mut self, chunk: ChunkId, len: u32) {
        if self.owed.front() == Some(&chunk) {
            self.owed.pop_front();
        } else {
            self.owed.retain(|owed| *owed != chunk);
        }
        self.owed_bytes = self.owed_bytes.saturating_sub(len.into());
    }

    /// How long it has sent nothing of what it owes.
    fn quiet(&self, now: Instant) -> Duration {
        now.saturating_duration_since(self.moved)
    }

    /// How long until all that it owes is here, longer the longer it is quiet.
    fn left(&self, head: u32, now: Instant) -> Duration {
        self.takes(self.owed_bytes).saturating_add(self.quiet(now).saturating_sub(self.takes(head.into())))
    }

    fn measure(&mut self, len: u32, now: Instant) {
        self.moved = now;
        self.sample.1 += u64::from(len);
        let (since, bytes) = self.sample;
        let elapsed = now.saturating_duration_since(since);
        if elapsed >= MEASURED_OVER || (self.owed.is_empty() && !elapsed.is_zero()) {
            #[expect(clippy::cast_precision_loss, reason = "an estimate")]
            let rate = bytes as f64 / elapsed.as_secs_f64();
            self.rate = Some(self.rate.map_or(rate, |old| old.midpoint(rate)));
            self.sample = (now, 0);
        }
    }
}

/// The chunks that are not here yet, and who owes them.
pub(super) struct Schedule<T> {
    look_ahead: usize,
    chunks: BTreeMap<ChunkId, Chunk<T>>,
    /// Those that nobody owes.
    free: BTreeSet<ChunkId>,
    sources: BTreeMap<SourceId, Source>,
    next: u64,
    exhausted: bool,
    /// Chunks that no source has, given up to make room: how many, and the first.
    missing: (u64, Option<T>),
}

impl<T: Clone> Schedule<T> {
    pub(super) fn new(look_ahead: usize) -> Self {
        Self {
            look_ahead,
            chunks: BTreeMap::new(),
            free: BTreeSet::new(),
            sources: BTreeMap::new(),
            next: 0,
            exhausted: false,
            missing: (0, None),
        }
    }

    /// How many chunks may be fed.
    pub(super) fn room(&self) -> usize {
        self.look_ahead.saturating_sub(self.chunks.len())
    }

    /// Takes more chunks: their lengths in bytes, and what the caller knows them by. `last` says that there are no more.
    pub(super) fn feed(&mut self, items: impl IntoIterator<Item = (u32, T)>, last: bool) {
        for (len, item) in items {
            let id = ChunkId(self.next);
            self.next += 1;
            self.chunks.insert(id, Chunk { len, item, owners: 0, lacking: 0 });
            self.free.insert(id);
        }
        self.exhausted |= last;
    }

    /// Whether every chunk was delivered, or given up.
    pub(super) fn is_over(&self) -> bool {
        self.exhausted && self.chunks.is_empty()
    }

    /// Whether nobody who is here can do anything: no source owes anything, and none has any of what is left.
    pub(super) fn is_stuck(&self) -> bool {
        let live = self.live();
        (self.exhausted || self.room() == 0)
            && self.chunks.values().all(|chunk| chunk.owners == 0 && chunk.lacking & live == live)
    }

    /// Gives up the chunks that no source has, so that others find room. Call it when [`Schedule::is_stuck`].
    pub(super) fn give_up(&mut self) {
        let live = self.live();
        let lost: Vec<ChunkId> = self
            .free
            .iter()
            .filter(|id| self.chunks.get(id).is_none_or(|c| c.lacking & live == live))
            .copied()
            .collect();
        for id in lost {
            self.free.remove(&id);
            if let Some(chunk) = self.chunks.remove(&id) {
                self.missing.0 += 1;
                self.missing.1.get_or_insert(chunk.item);
            }
        }
    }

    /// What is not here and was not delivered: how many chunks, and the first.
    pub(super) fn missing(&self) -> (u64, Option<T>) {
        let first = self.missing.1.clone().or_else(|| self.chunks.values().next().map(|chunk| chunk.item.clone()));
        (self.missing.0 + self.chunks.len() as u64, first)
    }

    /// Sources that have joined and not left.
    pub(super) fn sources(&self) -> usize {
        self.sources.len()
    }

    fn live(&self) -> u32 {
        self.sources.keys().fold(0, |live, id| live | id.bit())
    }

    /// A source appears; `None` when there are [`MAX_SOURCES`].
    pub(super) fn join(&mut self, now: Instant) -> Option<SourceId> {
        let free = |id: &SourceId| !self.sources.contains_key(id);
        let id = (0..MAX_SOURCES).filter_map(|n| u8::try_from(n).ok()).map(SourceId).find(free)?;
        self.sources.insert(id, Source::new(now));
        Some(id)
    }

    /// A source is gone for good: the others get what it owes.
    pub(super) fn leave(&mut self, id: SourceId) {
        self.release_all(id);
        self.sources.remove(&id);
        // The next one with this number may have what this one lacked.
        for chunk in self.chunks.values_mut() {
            chunk.lacking &= !id.bit();
        }
    }

    /// Whether a source still has to deliver a chunk.
    pub(super) fn owes(&self, id: SourceId, chunk: ChunkId) -> bool {
        self.chunks.get(&chunk).is_some_and(|chunk| chunk.owners & id.bit() != 0)
    }

    /// What a source should fetch, behind what it owes already.
    pub(super) fn ask(&mut self, id: SourceId, now: Instant) -> Ask<T> {
        let Some(source) = self.sources.get(&id) else { return Ask::Wait(None) };
        if let Some(until) = source.rests_until.filter(|until| *until > now) {
            return Ask::Wait(Some(until));
        }
        if !source.takes_more() {
            return Ask::Wait(None);
        }
        let (bytes, count) = source.window();
        let (owed, owed_bytes) = (source.owed.len(), source.owed_bytes);
        let mut room = bytes.saturating_sub(owed_bytes);
        let mut batch = Vec::new();
        for chunk_id in &self.free {
            let Some(chunk) = self.chunks.get(chunk_id).filter(|chunk| chunk.lacking & id.bit() == 0) else { continue };
            let len = u64::from(chunk.len);
            if batch.len() >= count || (len > room && !(batch.is_empty() && owed < 2)) {
                break;
            }
            room = room.saturating_sub(len);
            batch.push(*chunk_id);
        }
        if batch.is_empty() && owed == 0 {
            return self.take_over(id, now);
        }
        self.fetch(id, batch, now)
    }

    fn fetch(&mut self, id: SourceId, batch: Vec<ChunkId>, now: Instant) -> Ask<T> {
        let Some(source) = self.sources.get_mut(&id).filter(|_| !batch.is_empty()) else { return Ask::Wait(None) };
        if source.owed.is_empty() {
            (source.moved, source.sample) = (now, (now, 0));
        }
        let mut items = Vec::with_capacity(batch.len());
        for chunk_id in batch {
            let Some(chunk) = self.chunks.get_mut(&chunk_id) else { continue };
            self.free.remove(&chunk_id);
            chunk.owners |= id.bit();
            source.owed.push_back(chunk_id);
            source.owed_bytes += u64::from(chunk.len);
            items.push((chunk_id, chunk.item.clone()));
        }
        Ask::Fetch(items)
    }

    /// Takes over from the source that would need the longest for what it owes.
    fn take_over(&mut self, id: SourceId, now: Instant) -> Ask<T> {
        // More is to come by itself.
        if !self.exhausted && self.room() > 0 {
            return Ask::Wait(None);
        }
        let Some(thief) = self.sources.get(&id) else { return Ask::Wait(None) };
        let mut again: Option<Instant> = None;
        let mut best: Option<(Duration, Vec<ChunkId>, SourceId)> = None;
        for (victim_id, victim) in self.sources.iter().filter(|(victim, _)| **victim != id) {
            let Some(head) = victim.owed.front().and_then(|head| self.chunks.get(head)) else { continue };
            let left = victim.left(head.len, now);
            let taken = self.end_of(victim, id, thief, now);
            if left < SOON || taken.is_empty() {
                let quiet = QUIET.max(thief.takes(head.len.into()).saturating_mul(2)).min(MAX_REST);
                let then = (victim.moved + quiet).max(now + SOON);
                again = Some(again.map_or(then, |other| other.min(then)));
            } else if best.as_ref().is_none_or(|(longest, ..)| left > *longest) {
                best = Some((left, taken, *victim_id));
            }
        }
        let Some((_, taken, victim_id)) = best else { return Ask::Wait(again) };
        // What is moved has one owner after this; the chunk that a quiet source is sending has two.
        let sending = self.sources.get(&victim_id).and_then(|victim| victim.owed.front().copied());
        for chunk in taken.iter().filter(|chunk| Some(**chunk) != sending) {
            self.release(victim_id, *chunk);
        }
        self.fetch(id, taken, now)
    }

    /// What a source may take of what another one owes: from its end on, as much as lets both be ready at the same time. Of one
    /// that is quiet and owes a single chunk, that.
    fn end_of(&self, victim: &Source, id: SourceId, thief: &Source, now: Instant) -> Vec<ChunkId> {
        let may = |chunk_id: &ChunkId| {
            self.chunks.get(chunk_id).filter(|c| c.lacking & id.bit() == 0 && c.owners.count_ones() == 1)
        };
        let (window, count) = thief.window();
        let mut taken = VecDeque::new();
        let mut bytes = 0;
        for chunk_id in victim.owed.range(1..).rev() {
            let Some(chunk) = may(chunk_id) else { continue };
            let more = bytes + u64::from(chunk.len);
            let fits = more <= window && thief.takes(more) <= victim.takes(victim.owed_bytes.saturating_sub(more));
            if taken.len() >= count || (!taken.is_empty() && !fits) {
                break;
            }
            bytes = more;
            taken.push_front(*chunk_id);
        }
        if taken.is_empty()
            && let Some(head) = victim.owed.front()
            && let Some(chunk) = may(head)
            && victim.quiet(now) >= QUIET.max(thief.takes(chunk.len.into()).saturating_mul(2))
        {
            taken.push_back(*head);
        }
        taken.into()
    }

    /// A source has delivered a chunk, with the right bytes.
    pub(super) fn delivered(&mut self, id: SourceId, chunk_id: ChunkId, now: Instant) -> Delivered {
        let Some(chunk) = self.chunks.remove(&chunk_id) else { return Delivered { first: false, relieved: None } };
        self.free.remove(&chunk_id);
        let mut relieved = None;
        for (other, source) in &mut self.sources {
            if chunk.owners & other.bit() == 0 {
                continue;
            }
            source.no_longer_owes(chunk_id, chunk.len);
            if *other != id {
                relieved = Some(*other);
            }
        }
        if let Some(source) = self.sources.get_mut(&id) {
            (source.busy, source.broken, source.barren) = (0, 0, 0);
            source.measure(chunk.len, now);
        }
        Delivered { first: true, relieved }
    }

    /// A source does not have a chunk. It is not asked for it again.
    pub(super) fn lacks(&mut self, id: SourceId, chunk_id: ChunkId) {
        self.release(id, chunk_id);
        if let Some(chunk) = self.chunks.get_mut(&chunk_id) {
            chunk.lacking |= id.bit();
        }
        if let Some(source) = self.sources.get_mut(&id).filter(|source| source.owed.is_empty()) {
            source.barren = source.barren.saturating_add(1);
        }
    }

    /// A source does not deliver what it owes, and is not to blame: the others, or it again, get it.
    pub(super) fn put_back(&mut self, id: SourceId) {
        self.release_all(id);
    }

    /// A source does not deliver. Its work goes to the others; returns when to try it again, `None` if never.
    pub(super) fn failed(&mut self, id: SourceId, fault: Fault, now: Instant) -> Option<Instant> {
        self.release_all(id);
        let source = self.sources.get_mut(&id)?;
        let (times, at_most, first, least) = match fault {
            Fault::Final => return None,
            Fault::Busy(asked) => (&mut source.busy, BUSY_TIMES, Duration::from_millis(100), asked.min(MAX_REST)),
            Fault::Broke => (&mut source.broken, BROKEN_TIMES, Duration::from_millis(200), Duration::ZERO),
        };
        *times += 1;
        if *times > at_most {
            return None;
        }
        let until = now + (first * 2u32.pow(*times - 1)).max(least);
        source.rests_until = Some(until);
        Some(until)
    }

    fn release_all(&mut self, id: SourceId) {
        while let Some(chunk) = self.sources.get(&id).and_then(|source| source.owed.front().copied()) {
            self.release(id, chunk);
        }
    }

    fn release(&mut self, id: SourceId, chunk_id: ChunkId) {
        let owed = self.chunks.get_mut(&chunk_id).filter(|chunk| chunk.owners & id.bit() != 0);
        let Some(chunk) = owed else { return };
        chunk.owners &= !id.bit();
        if chunk.owners == 0 {
            self.free.insert(chunk_id);
        }
        if let Some(source) = self.sources.get_mut(&id) {
            source.no_longer_owes(chunk_id, chunk.len);
        }
    }
}
