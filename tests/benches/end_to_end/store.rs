//! The store, as its own bench measures it.

use crate::{
    Bench,
    measure::{Append, BODY, append, bodies, median, opens, space, warm_up},
    table::Goal,
};

/// Chunks in a round: 256 MiB.
const COUNT: u64 = 1024;
/// Chunks in the store half of which is deleted.
const SPACE_COUNT: u64 = 2048;

pub(crate) fn run(bench: &mut Bench) {
    let dir = bench.dir.join("store");
    std::fs::create_dir_all(&dir).unwrap();
    let (data, mib) = (bodies(COUNT), (COUNT * BODY as u64) as f64 / f64::from(1 << 20));
    warm_up(&dir, COUNT * BODY as u64 * 2 * bench.rounds as u64);
    for (per_batch, goal) in [(16, 0.8), (1, 0.6)] {
        let rounds: Vec<Append> = (0..bench.rounds).map(|round| append(&dir, &data, per_batch, round)).collect();
        let ours: Vec<f64> = rounds.iter().map(|round| mib / round.store).collect();
        let raw: Vec<f64> = rounds.iter().map(|round| mib / round.raw).collect();
        let what = format!("store, durable, 256 KiB chunks in batches of {per_batch}");
        // The next batch size finds the memory of the page cache again.
        std::fs::remove_dir_all(&dir).unwrap();
        std::fs::create_dir_all(&dir).unwrap();
        bench.table.compare(&what, &ours, ("write + fdatasync", &raw), "MiB/s", Goal::AtLeast(goal));
    }
    drop(data);
    std::fs::remove_dir_all(&dir).unwrap();

    let found = space(&dir, SPACE_COUNT);
    bench.table.value("disk used over live bytes, oldest half deleted", found.after, "", Goal::AtMost(1.1));

    let (mut killed, mut closed, mut rebuilt, mut recovery) = (vec![], vec![], vec![], String::new());
    for round in 0..bench.rounds {
        let dir = bench.dir.join(format!("small-{round}"));
        let opens = opens(&dir);
        killed.push(opens.after_kill);
        closed.push(opens.after_close);
        rebuilt.push(opens.without_index);
        recovery = opens.recovery;
        std::fs::remove_dir_all(dir).unwrap();
    }
    bench.table.value("open 100,000 chunks of 4 KiB after a kill", median(&killed), "s", Goal::AtMost(3.0));
    bench.table.note(format!(
        "store: disk over live bytes before deleting {:.3}, deleting took {:.2} s, it accounts for {:.4} of its disk use; the \
         open after a kill was {recovery}; after a clean close {:.2} s, without its index {:.2} s",
        found.full,
        found.took,
        found.accounted,
        median(&closed),
        median(&rebuilt)
    ));
}
