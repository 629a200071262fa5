//! Random sources drive the schedule: slow, lying, vanishing, late, with holes. No network, no clock: the events of a pull in the
//! order of their times.

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;

use super::*;

/// What a source is like.
#[derive(Debug, Clone)]
struct Nature {
    /// Bytes a second.
    rate: u32,
    /// When it appears, ms.
    appears: u64,
    /// After so many chunks it sends wrong bytes.
    lies_after: Option<u32>,
    /// After so many chunks it is gone without a word.
    vanishes_after: Option<u32>,
    /// Every so many chunks it says that it is busy.
    busy_every: Option<u32>,
    /// It lacks chunks whose number leaves no rest.
    lacks_every: Option<u64>,
}

impl Nature {
    fn is_good(&self) -> bool {
        self.lies_after.is_none() && self.vanishes_after.is_none() && self.lacks_every.is_none()
    }
}

fn natures() -> impl Strategy<Value = Vec<Nature>> {
    let rare = |range: std::ops::Range<u32>| proptest::option::weighted(0.3, range);
    let nature = (10_000u32..50_000_000, 0u64..3000, rare(0..40), rare(0..40), rare(3..30), rare(1..5)).prop_map(
        |(rate, appears, lies_after, vanishes_after, busy_every, lacks)| Nature {
            rate,
            appears,
            lies_after,
            vanishes_after,
            busy_every,
            lacks_every: lacks.map(u64::from),
        },
    );
    proptest::collection::vec(nature, 1..8)
}

/// A source under way.
struct Running {
    id: SourceId,
    nature: Nature,
    sent: u32,
    /// What it was asked for and has not sent, in order.
    asked: VecDeque<(ChunkId, u64)>,
    /// When the first of that will be here.
    at: Option<Instant>,
    /// When to ask the schedule again.
    again: Option<Instant>,
    gone: bool,
}

struct World {
    schedule: Schedule<u64>,
    start: Instant,
    now: Instant,
    lens: Vec<u32>,
    fed: usize,
    /// Who delivered each chunk that was kept.
    kept: BTreeMap<u64, SourceId>,
    duplicates: usize,
    running: Vec<Running>,
    coming: Vec<Nature>,
}

const MS: Duration = Duration::from_millis(1);

impl World {
    fn new(lens: Vec<u32>, look_ahead: usize, coming: Vec<Nature>) -> Self {
        let start = Instant::now();
        Self {
            schedule: Schedule::new(look_ahead),
            start,
            now: start,
            lens,
            fed: 0,
            kept: BTreeMap::new(),
            duplicates: 0,
            running: Vec::new(),
            coming,
        }
    }

    fn feed(&mut self) {
        let room = self.schedule.room().min(self.lens.len() - self.fed);
        let items = (self.fed..self.fed + room).map(|n| (self.lens[n], n as u64)).collect::<Vec<_>>();
        self.fed += room;
        self.schedule.feed(items, self.fed == self.lens.len());
    }

    fn check(&self) {
        let schedule = &self.schedule;
        assert!(schedule.chunks.len() <= schedule.look_ahead, "bounded look-ahead");
        let mut owed = BTreeSet::new();
        for (id, source) in &schedule.sources {
            let bytes: u64 = source.owed.iter().map(|chunk| u64::from(schedule.chunks[chunk].len)).sum();
            assert_eq!(bytes, source.owed_bytes);
            assert!(source.owed.len() <= MAX_PULL_HASHES + 2, "bounded windows");
            for chunk in &source.owed {
                assert!(schedule.chunks[chunk].owners & id.bit() != 0 && !schedule.free.contains(chunk));
                assert!(schedule.chunks[chunk].lacking & id.bit() == 0, "not asked for what it lacks");
                owed.insert(*chunk);
            }
        }
        for (id, chunk) in &schedule.chunks {
            assert!(chunk.owners.count_ones() <= 2, "a chunk is asked of two sources at most");
            assert_eq!(chunk.owners == 0, schedule.free.contains(id));
            assert_eq!(chunk.owners != 0, owed.contains(id));
        }
    }

    /// Lets every source ask.
    fn ask(&mut self) {
        for source in self.running.iter_mut().filter(|source| !source.gone) {
            source.asked.retain(|(chunk, _)| self.schedule.owes(source.id, *chunk));
            if source.asked.is_empty() {
                source.at = None;
            }
            match self.schedule.ask(source.id, self.now) {
                Ask::Fetch(items) => source.asked.extend(items),
                Ask::Wait(again) => source.again = again,
            }
            if let (None, Some((chunk, _))) = (source.at, source.asked.front()) {
                let len = self.schedule.chunks.get(chunk).map_or(0, |chunk| chunk.len);
                let micros = u64::from(len) * 1_000_000 / u64::from(source.nature.rate) + 500;
                source.at = Some(self.now + Duration::from_micros(micros));
            }
        }
    }

    /// What a source does with the chunk that is due.
    fn step(&mut self, which: usize) {
        let source = &mut self.running[which];
        let Some((chunk, number)) = source.asked.pop_front() else { return };
        let (id, now, nature) = (source.id, self.now, source.nature.clone());
        source.at = None;
        source.sent += 1;
        let fault = if nature.lies_after.is_some_and(|after| source.sent > after) {
            Some(Fault::Final)
        } else if nature.vanishes_after.is_some_and(|after| source.sent > after) {
            Some(Fault::Broke)
        } else if nature.busy_every.is_some_and(|every| source.sent.is_multiple_of(every)) {
            Some(Fault::Busy(10 * MS))
        } else {
            None
        };
        if let Some(fault) = fault {
            source.asked.clear();
            match self.schedule.failed(id, fault, now) {
                Some(again) => source.again = Some(again),
                None => {
                    source.gone = true;
                    self.schedule.leave(id);
                }
            }
        } else if nature.lacks_every.is_some_and(|every| number.is_multiple_of(every)) {
            self.schedule.lacks(id, chunk);
        } else if self.schedule.delivered(id, chunk, now).first {
            assert_eq!(self.kept.insert(number, id), None, "kept twice");
        } else {
            self.duplicates += 1;
        }
    }

    /// Runs until the pull is over or stuck for good. Returns whether everything is here.
    fn run(&mut self) -> bool {
        for _ in 0..2_000_000 {
            let elapsed = self.now - self.start;
            let due: Vec<Nature> =
                self.coming.extract_if(.., |nature| elapsed >= MS * u32::try_from(nature.appears).unwrap()).collect();
            for nature in due {
                let id = self.schedule.join(self.now).unwrap();
                self.running.push(Running {
                    id,
                    nature,
                    sent: 0,
                    asked: VecDeque::new(),
                    at: None,
                    again: None,
                    gone: false,
                });
            }
            self.feed();
            self.ask();
            self.check();
            if self.schedule.is_over() {
                return self.schedule.missing().0 == 0;
            }
            if self.schedule.is_stuck() && self.coming.is_empty() {
                if self.fed == self.lens.len() || self.schedule.sources() == 0 {
                    return false;
                }
                self.schedule.give_up();
                continue;
            }
            let sending = self.running.iter().enumerate().filter(|(_, source)| !source.gone);
            let next = sending.clone().filter_map(|(which, source)| Some((source.at?, which))).min();
            let again = sending.filter_map(|(_, source)| source.again).filter(|at| *at > self.now).min();
            let appears =
                self.coming.iter().map(|nature| self.start + MS * u32::try_from(nature.appears).unwrap()).min();
            let wakes = [again, appears].into_iter().flatten().min();
            match (next, wakes) {
                (Some((at, which)), wakes) if wakes.is_none_or(|wakes| at <= wakes) => {
                    self.now = at;
                    self.step(which);
                }
                (_, Some(wakes)) => self.now = wakes,
                (_, None) => panic!("nothing happens any more, and the pull is not over"),
            }
        }
        panic!("the pull does not end");
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 96, ..ProptestConfig::default() })]

    #[test]
    fn a_pull_ends_with_every_chunk_once_if_one_good_source_stays(
        natures in natures(),
        good in 100_000u32..20_000_000,
        late in 0u64..4000,
        lens in proptest::collection::vec(1u32..1_048_576, 1..300),
        look_ahead in 8usize..400,
    ) {
        let mut coming = natures;
        coming.push(Nature {
            rate: good, appears: late, lies_after: None, vanishes_after: None, busy_every: None, lacks_every: None,
        });
        let sources = coming.len();
        let chunks = lens.len();
        let mut world = World::new(lens, look_ahead, coming);
        prop_assert!(world.run(), "every chunk is here");
        prop_assert_eq!(world.kept.len(), chunks);
        // A chunk is asked twice only of quiet sources, at the end, one of each at a time.
        prop_assert!(world.duplicates <= sources * 8, "{} duplicates", world.duplicates);
    }

    #[test]
    fn a_pull_ends_whatever_the_sources_do_and_says_what_is_missing(
        natures in natures(),
        lens in proptest::collection::vec(1u32..1_048_576, 1..200),
        look_ahead in 8usize..400,
    ) {
        let chunks = lens.len() as u64;
        let good = natures.iter().any(Nature::is_good);
        let mut world = World::new(lens, look_ahead, natures);
        let whole = world.run();
        prop_assert_eq!(whole, world.kept.len() as u64 == chunks);
        prop_assert!(whole || !good, "a good source was given up");
        if !whole {
            let (missing, first) = world.schedule.missing();
            let unread = chunks - world.fed as u64;
            prop_assert_eq!(missing + unread + world.kept.len() as u64, chunks);
            prop_assert!(first.is_some_and(|first| !world.kept.contains_key(&first)) || unread > 0);
        }
    }
}

#[test]
fn work_is_split_by_what_the_sources_can_do() {
    let nature =
        |rate| Nature { rate, appears: 0, lies_after: None, vanishes_after: None, busy_every: None, lacks_every: None };
    let mut world = World::new(vec![256 << 10; 2000], LOOK_AHEAD, [20, 20, 5].map(|m| nature(m << 20)).to_vec());
    assert!(world.run());
    let of = |which: usize| world.kept.values().filter(|id| **id == world.running[which].id).count();
    let (a, b, slow) = (of(0), of(1), of(2));
    assert!(a.abs_diff(b) < 100 && slow > 150 && slow < 300, "{a} {b} {slow}");
    // 500 MiB at 45 MiB a second: nobody waits for the slow one at the end.
    let took = world.now - world.start;
    assert!(took < Duration::from_millis(11_800), "{took:?}");
    assert!(world.duplicates <= 2, "{}", world.duplicates);
}
