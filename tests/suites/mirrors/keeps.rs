//! What a mirror keeps: everything once, also through kills; and with less room than there is data, the newest.

use tributary_tests::{
    home::Sandbox,
    node::{NodeProcess, command},
    wait::until,
};

use super::common::{CHUNK, address, count, keeps_all, kept, log_of, machine, mirror, publish};

const CHUNKS: usize = 1500;
const KILLS: u64 = 3;
/// Chunks that may be on their way when the mirror dies: what is in sockets and queues, and the batch that is being written.
const IN_FLIGHT: u64 = 1024;

#[tokio::test(flavor = "multi_thread")]
async fn a_mirror_that_is_killed_while_it_keeps_ends_complete_and_asks_for_nothing_twice() {
    let sandbox = Sandbox::new();
    // Slow enough that a kill finds it at work.
    let machine_home = machine(&sandbox, "pull_bytes_per_second: 600KB", "free");
    let machine = NodeProcess::start(&machine_home).await;
    let did = machine.status().await.did;
    // Published before there is a mirror.
    publish(&machine, 1, CHUNKS).await;
    let home = mirror(&sandbox, "mirror", &machine.link().await, "");
    let mut mirror = NodeProcess::start(&home).await;
    let mut held = 0;
    for kill in 1..=KILLS {
        until("more chunks", async || (mirror.status().await.store.chunks > held + 40).then_some(())).await;
        held = mirror.status().await.store.chunks;
        assert!(held < CHUNKS as u64 && mirror.is_alive(), "kill {kill} comes while it keeps: {held} chunks are there");
        mirror.kill();
        mirror = NodeProcess::start(&home).await;
        let now = mirror.status().await.store.chunks;
        assert!(now >= held, "{now} of {held} chunks are left");
    }
    let feed = keeps_all(&mirror, CHUNKS as u64).await;
    assert_eq!(feed.bytes, feed.bytes_known);
    let served = machine.status().await.served.chunks;
    assert!(served <= CHUNKS as u64 + KILLS * IN_FLIGHT, "{served} chunks were sent for {CHUNKS}");
    assert!(feed.fetched < CHUNKS as u64, "what was there before the last kill was not fetched again");
    machine.stop().await;
    mirror.stop().await;
    assert_eq!(log_of(&home, &did), log_of(&machine_home, &did));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_mirror_without_room_drops_the_oldest_chunks_keeps_all_entries_and_says_so() {
    const ROOM: u64 = 1 << 20;
    let sandbox = Sandbox::new();
    let machine_home = machine(&sandbox, "", "free");
    let machine = NodeProcess::start(&machine_home).await;
    let did = machine.status().await.did;
    let home = mirror(&sandbox, "mirror", &machine.link().await, "  retention: { bytes: 1MiB }\n");
    let mirror = NodeProcess::start(&home).await;
    publish(&machine, 1, 200).await;
    let first = keeps_all(&mirror, 200).await;
    assert_eq!((first.dropped, first.limit_bytes), (0, Some(ROOM)));

    publish(&machine, 2, 200).await;
    let full = until("the newest chunks", async || {
        let feed = kept(&mirror).await;
        let settled = feed.chunks_known == 400 && feed.missing == 0 && feed.behind == 0;
        (settled && feed.dropped > 0 && feed.bytes > ROOM - 2 * (CHUNK as u64 + 16)).then_some(feed)
    })
    .await;
    assert!(full.bytes <= ROOM, "{full:?}");
    assert_eq!(full.chunks + full.dropped, 400, "{full:?}");
    let shown = command(&home, &["status"]).await;
    assert!(shown.stdout.contains("Keeping:") && shown.stdout.contains(&did.to_string()), "{shown:?}");
    let shown = command(&home, &["--json", "status"]).await.json();
    assert_eq!(shown["mirror"]["feeds"][0]["dropped"], full.dropped);

    // The same rule finds the same place after a restart: nothing that was dropped is fetched again.
    mirror.stop().await;
    let before = machine.status().await.served.chunks;
    let mirror = NodeProcess::start(&home).await;
    let again = until("counted", async || {
        let feed = kept(&mirror).await;
        (feed.chunks_known == 400 && feed.chunks == full.chunks).then_some(feed)
    })
    .await;
    assert_eq!((again.fetched, again.missing, machine.status().await.served.chunks), (0, 0, before));
    machine.stop().await;
    mirror.stop().await;
    let log = log_of(&home, &did);
    assert!(count(&log) > 400 && log == log_of(&machine_home, &did), "every entry is there");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_nobody_has_is_said_and_fetched_when_somebody_comes_who_has_it() {
    let sandbox = Sandbox::new();
    let machine_home = machine(&sandbox, "", "free");
    let mut machine = NodeProcess::start(&machine_home).await;
    let link = machine.link().await;
    let small = mirror(&sandbox, "small", &link, "  retention: { bytes: 1MiB }\n");
    let small = NodeProcess::start(&small).await;
    publish(&machine, 1, 400).await;
    let some = until("the small mirror to be full", async || {
        let feed = kept(&small).await;
        let settled = feed.chunks_known == 400 && feed.missing == 0 && feed.behind == 0;
        (settled && feed.chunks > 200).then_some(feed.chunks)
    })
    .await;
    assert!(some < 400);
    machine.kill();

    // It has one source, which has not everything.
    let link = format!("{link}&addr={}", address(&small).await);
    let large = NodeProcess::start(&mirror(&sandbox, "large", &link, "")).await;
    let part = until("what the small mirror has", async || {
        let feed = kept(&large).await;
        (feed.missing > 0 && feed.chunks == some).then_some(feed)
    })
    .await;
    assert_eq!((part.chunks_known, part.missing, part.behind), (400, 400 - some, 0));
    assert!(part.trouble.is_some_and(|trouble| trouble.contains("nobody had")));
    let machine = NodeProcess::start(&machine_home).await;
    keeps_all(&large, 400).await;
    assert!(machine.status().await.served.chunks >= 400 - some);
}
