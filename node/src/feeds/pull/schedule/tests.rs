use super::*;

const CHUNK: u32 = 256 << 10;

fn schedule(chunks: usize) -> Schedule<usize> {
    let mut schedule = Schedule::new(LOOK_AHEAD);
    schedule.feed((0..chunks).map(|n| (CHUNK, n)), true);
    schedule
}

fn fetch(schedule: &mut Schedule<usize>, id: SourceId, now: Instant) -> Vec<ChunkId> {
    match schedule.ask(id, now) {
        Ask::Fetch(items) => items.into_iter().map(|(chunk, _)| chunk).collect(),
        Ask::Wait(_) => Vec::new(),
    }
}

/// Delivers all of these, so far apart.
fn deliver(schedule: &mut Schedule<usize>, id: SourceId, chunks: &[ChunkId], now: &mut Instant, apart: Duration) {
    for chunk in chunks {
        *now += apart;
        assert_eq!(schedule.delivered(id, *chunk, *now), Delivered { first: true, relieved: None });
    }
}

#[test]
fn a_source_owes_what_it_delivers_in_half_a_second() {
    let (mut schedule, mut now) = (schedule(1000), Instant::now());
    let id = schedule.join(now).unwrap();
    let first = fetch(&mut schedule, id, now);
    assert_eq!(first.len(), 4, "1 MiB before anything is known");
    assert!(fetch(&mut schedule, id, now).is_empty(), "nothing ahead before anything is known");
    // 256 KiB every 10 ms are 25 MiB a second: 12.5 MiB are 50 chunks.
    deliver(&mut schedule, id, &first, &mut now, Duration::from_millis(10));
    let next = fetch(&mut schedule, id, now);
    assert!((45..=55).contains(&next.len()), "{}", next.len());
    assert!(fetch(&mut schedule, id, now).is_empty(), "that is enough for now");
    // The next ones are asked for before these are all here.
    deliver(&mut schedule, id, &next[..30], &mut now, Duration::from_millis(10));
    let ahead = fetch(&mut schedule, id, now);
    assert!(ahead.len() > 20, "{}", ahead.len());
    assert!(ahead.iter().all(|chunk| !next.contains(chunk)));
}

#[test]
fn small_chunks_are_asked_for_in_bounded_numbers() {
    let (mut schedule, mut now) = (Schedule::new(LOOK_AHEAD), Instant::now());
    schedule.feed((0..LOOK_AHEAD).map(|n| (100, n)), true);
    let id = schedule.join(now).unwrap();
    let first = fetch(&mut schedule, id, now);
    assert_eq!(first.len(), FIRST.1);
    deliver(&mut schedule, id, &first, &mut now, Duration::from_micros(10));
    assert_eq!(fetch(&mut schedule, id, now).len(), MAX_PULL_HASHES);
}

#[test]
fn a_source_that_fails_loses_its_work_to_the_others() {
    let (mut schedule, now) = (schedule(8), Instant::now());
    let (a, b) = (schedule.join(now).unwrap(), schedule.join(now).unwrap());
    let of_a = fetch(&mut schedule, a, now);
    let of_b = fetch(&mut schedule, b, now);
    assert_eq!((of_a.len(), of_b.len()), (4, 4));
    assert_eq!(schedule.failed(a, Fault::Final, now), None);
    let mut then = now;
    deliver(&mut schedule, b, &of_b, &mut then, Duration::from_millis(10));
    assert_eq!(fetch(&mut schedule, b, then), of_a, "in the order of the plan");
}

#[test]
fn a_busy_source_rests_as_long_as_it_asked_and_is_given_up_in_the_end() {
    let (mut schedule, mut now) = (schedule(4), Instant::now());
    let id = schedule.join(now).unwrap();
    for _ in 0..BUSY_TIMES {
        assert_eq!(fetch(&mut schedule, id, now).len(), 4);
        let again = schedule.failed(id, Fault::Busy(Duration::from_secs(7)), now).expect("again");
        assert!(again >= now + Duration::from_secs(7));
        assert!(matches!(schedule.ask(id, now), Ask::Wait(Some(until)) if until == again));
        now = again;
    }
    assert_eq!(schedule.failed(id, Fault::Busy(Duration::from_secs(7)), now), None);
    // Nobody waits for an hour because a peer says so.
    let id = schedule.join(now).unwrap();
    let again = schedule.failed(id, Fault::Busy(Duration::from_secs(3600)), now).expect("again");
    assert!(again <= now + MAX_REST);
}

#[test]
fn what_a_source_lacks_it_is_not_asked_for_again_and_another_one_is() {
    let (mut schedule, now) = (schedule(8), Instant::now());
    let a = schedule.join(now).unwrap();
    let first = fetch(&mut schedule, a, now);
    for chunk in &first {
        schedule.lacks(a, *chunk);
    }
    let rest = fetch(&mut schedule, a, now);
    assert!(rest.len() == 4 && rest.iter().all(|chunk| !first.contains(chunk)));
    for chunk in &rest {
        schedule.lacks(a, *chunk);
    }
    assert!(schedule.is_stuck() && fetch(&mut schedule, a, now).is_empty());
    let b = schedule.join(now).unwrap();
    assert!(!schedule.is_stuck());
    assert_eq!(fetch(&mut schedule, b, now), first);
    // A number that is used again brings nothing with it.
    schedule.leave(b);
    assert!(schedule.is_stuck());
    schedule.leave(a);
    let c = schedule.join(now).unwrap();
    assert!(!schedule.is_stuck() && c == a);
    assert_eq!(fetch(&mut schedule, c, now).len(), 4);
}

#[test]
fn chunks_that_nobody_has_make_room_for_those_that_somebody_has() {
    let (mut schedule, mut now) = (Schedule::new(10), Instant::now());
    schedule.feed((0..10).map(|n| (1000, n)), false);
    let id = schedule.join(now).unwrap();
    for chunk in fetch(&mut schedule, id, now) {
        schedule.lacks(id, chunk);
    }
    assert!(schedule.is_stuck() && schedule.room() == 0);
    schedule.give_up();
    assert_eq!((schedule.room(), schedule.missing()), (10, (10, Some(0))));
    schedule.feed((10..12).map(|n| (1000, n)), true);
    let rest = fetch(&mut schedule, id, now);
    deliver(&mut schedule, id, &rest, &mut now, Duration::from_millis(1));
    assert!(schedule.is_over());
    assert_eq!(schedule.missing(), (10, Some(0)), "they are not forgotten");
}

#[test]
fn an_idle_source_takes_the_end_of_what_the_slowest_owes() {
    let (mut schedule, mut now) = (schedule(8), Instant::now());
    let (slow, fast) = (schedule.join(now).unwrap(), schedule.join(now).unwrap());
    let of_slow = fetch(&mut schedule, slow, now);
    let of_fast = fetch(&mut schedule, fast, now);
    deliver(&mut schedule, fast, &of_fast, &mut now, Duration::from_millis(100));
    // The slow one has sent one chunk in a second.
    now += Duration::from_millis(600);
    assert!(schedule.delivered(slow, of_slow[0], now).first);
    let taken = fetch(&mut schedule, fast, now);
    assert!(!taken.is_empty() && taken.len() < 3, "{taken:?}");
    assert_eq!(taken.last(), of_slow.last(), "from the end");
    for chunk in &taken {
        assert!(!schedule.owes(slow, *chunk) && schedule.owes(fast, *chunk), "moved, not doubled");
    }
}

#[test]
fn what_a_quiet_source_is_sending_is_asked_of_another_and_the_first_copy_counts() {
    let (mut schedule, mut now) = (schedule(5), Instant::now());
    let (quiet, fast) = (schedule.join(now).unwrap(), schedule.join(now).unwrap());
    let of_quiet = fetch(&mut schedule, quiet, now);
    let of_fast = fetch(&mut schedule, fast, now);
    assert_eq!((of_quiet.len(), of_fast.len()), (4, 1));
    deliver(&mut schedule, fast, &of_fast, &mut now, Duration::from_millis(10));
    let mut taken = Vec::new();
    let mut waits = 0;
    while taken.last() != of_quiet.first() {
        match schedule.ask(fast, now) {
            Ask::Fetch(items) => {
                let chunks: Vec<ChunkId> = items.into_iter().map(|(chunk, _)| chunk).collect();
                taken.extend(&chunks);
                if chunks != [of_quiet[0]] {
                    deliver(&mut schedule, fast, &chunks, &mut now, Duration::from_millis(10));
                }
            }
            Ask::Wait(until) => now = until.expect("it says when to look again"),
        }
        waits += 1;
        assert!(waits < 20, "{taken:?}");
    }
    let shared = of_quiet[0];
    assert!(schedule.owes(quiet, shared) && schedule.owes(fast, shared));
    assert_eq!(schedule.delivered(fast, shared, now), Delivered { first: true, relieved: Some(quiet) });
    assert_eq!(schedule.delivered(quiet, shared, now), Delivered { first: false, relieved: None });
    assert!(schedule.is_over());
}

#[test]
fn there_are_as_many_sources_as_places() {
    let (mut schedule, now) = (schedule(1), Instant::now());
    let all: Vec<SourceId> = (0..MAX_SOURCES).map(|_| schedule.join(now).unwrap()).collect();
    assert_eq!(schedule.join(now), None);
    schedule.leave(all[7]);
    assert_eq!(schedule.join(now), Some(all[7]));
}
