//! Who waits for whom, in virtual time.

use super::*;

const SECOND: Duration = Duration::from_secs(1);

fn rate(bytes: u64) -> Option<NonZeroU64> {
    NonZeroU64::new(bytes)
}

#[test]
fn bulk_takes_what_gossip_leaves() {
    let start = Instant::now();
    let peer = Some(PeerId::random());
    let mut side = Side::new(RateCaps { total: rate(1000), ..RateCaps::default() }, start);
    let (mut now, mut pulled, mut gossiped) = (start, 0, 0);
    // A pull that never waits longer than it must, and 100 bytes of gossip every 200 ms.
    for tick in 0..100_u32 {
        now = start + tick * SECOND / 5;
        assert_eq!(side.take(Class::Gossip, peer, 100, now), Ok(()), "gossip is never held back by a pull");
        gossiped += 100;
        while side.take(Class::Pull, peer, 200, now).is_ok() {
            pulled += 200;
        }
    }
    assert_eq!(gossiped, 10_000);
    // 20 seconds of the rate and the second's worth that a full bucket holds, without what gossip took.
    assert!((10_000..=11_500).contains(&pulled), "{pulled}");
    assert!(side.report(now).pull.held > 0 && side.report(now).gossip.held == 0);
}

#[test]
fn gossip_beyond_its_own_limit_or_a_second_of_debt_is_held() {
    let (start, peer) = (Instant::now(), Some(PeerId::random()));
    let mut side = Side::new(RateCaps { gossip: rate(100), ..RateCaps::default() }, start);
    assert_eq!(side.take(Class::Gossip, peer, 150, start), Ok(()));
    assert_eq!(side.take(Class::Gossip, peer, 1, start), Err(SECOND / 2));
    assert_eq!(side.take(Class::Sync, peer, 5000, start), Ok(()), "others have limits of their own");
    let mut side = Side::new(RateCaps { total: rate(100), ..RateCaps::default() }, start);
    assert_eq!(side.take(Class::Gossip, peer, 250, start), Ok(()));
    assert_eq!(side.take(Class::Gossip, peer, 1, start), Err(SECOND / 2));
    assert_eq!(side.take(Class::Pull, peer, 1, start), Err(SECOND * 3 / 2));
}

#[test]
fn a_greedy_peer_takes_nothing_from_the_others() {
    let (start, [greedy, modest]) = (Instant::now(), [PeerId::random(), PeerId::random()].map(Some));
    let caps = RateCaps { total: rate(10_000), per_peer: rate(1000), ..RateCaps::default() };
    let mut side = Side::new(caps, start);
    let mut taken = 0;
    while side.take(Class::Pull, greedy, 500, start).is_ok() {
        taken += 500;
    }
    assert_eq!(taken, 1500, "a second's worth, and what began within it");
    assert_eq!(side.take(Class::Pull, modest, 1000, start), Ok(()));
    // What failed cost nothing.
    assert_eq!(side.report(start).total.bytes, 2500);
}

#[test]
fn the_table_of_peers_is_bounded_and_forgets_who_was_quiet() {
    let start = Instant::now();
    let mut side = Side::new(RateCaps { per_peer: rate(100), ..RateCaps::default() }, start);
    for _ in 0..2 * MAX_PEERS {
        let _ = side.take(Class::Sync, Some(PeerId::random()), 200, start);
    }
    assert_eq!(side.peers.len(), MAX_PEERS);
    // Those that do not fit share one allowance, which is used up.
    assert!(side.take(Class::Sync, Some(PeerId::random()), 200, start).is_err());
    let later = start + 10 * SECOND;
    assert_eq!(side.take(Class::Sync, Some(PeerId::random()), 200, later), Ok(()));
    assert_eq!(side.peers.len(), 1);
}

#[tokio::test]
async fn who_passes_waits_for_the_bucket_and_is_counted() {
    let shaper = Shaper::new(RateCaps::default(), RateCaps { pull: rate(1 << 40), ..RateCaps::default() });
    let peer = PeerId::random();
    shaper.pass(Class::Pull, Way::Down, peer, 7).await;
    shaper.spend(Class::Sync, Way::Up, Some(peer), 9);
    let report = shaper.report();
    assert_eq!((report.down.pull.bytes, report.down.total.bytes, report.up.sync.bytes), (7, 7, 9));
    assert_eq!((report.down.pull.limit, report.down.total.limit), (Some(1 << 40), None));
    assert_eq!(report.down.total.held, 0);
}
