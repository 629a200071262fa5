//! A machine whose clock is an hour off: nobody attacks, and nobody may suffer.

use std::process::Command;

use tributary::service::status::WarningCode;
use tributary_tests::{
    home::{Sandbox, stream},
    hostile::TOPIC,
    node::{NodeProcess, program},
    trade,
    wait::until,
};

const HOUR: i64 = 3600;
/// Where Debian's package `libfaketime` lies, behind the name of the architecture.
const LIBRARY: &str = "faketime/libfaketimeMT.so.1";

/// The library that makes a process see another time of day.
fn faketime() -> std::path::PathBuf {
    let folders = std::fs::read_dir("/usr/lib").unwrap().flatten().map(|entry| entry.path().join(LIBRARY));
    folders.into_iter().find(|path| path.is_file()).expect("libfaketime; `./tests/run.sh` installs it")
}

/// `tributary run` with a clock that is so many seconds ahead. Only the time of day: timers and time-outs go by another clock.
fn run(offset: i64) -> Command {
    let mut command = Command::new(program());
    command.args(["run", "-v"]).env("LD_PRELOAD", faketime());
    command.env("FAKETIME", format!("{offset:+}")).env("FAKETIME_DONT_FAKE_MONOTONIC", "1");
    command
}

#[tokio::test(flavor = "multi_thread")]
async fn a_machine_and_a_buyer_whose_clocks_differ_by_an_hour_trade_and_are_told() {
    for offset in [HOUR, -HOUR] {
        let sandbox = Sandbox::new();
        let home = sandbox.machine("machine", &[stream(TOPIC, ", chunk: { bytes: 4KiB }")]);
        let machine = NodeProcess::try_start_by(run(offset), &home).await.unwrap();
        let buyer = NodeProcess::start(&sandbox.buyer("buyer", "")).await;
        let (theirs, ours) = (machine.status().await.now_ms, buyer.status().await.now_ms);
        let apart = (i64::try_from(theirs).unwrap() - i64::try_from(ours).unwrap()) / 1000;
        assert!((offset - 600..=offset + 600).contains(&apart), "the clocks are {apart} s apart");

        trade::follow(&buyer, &machine).await;
        for first in [0, 40] {
            let dataset = trade::ingest(&machine, TOPIC, first, 40).await;
            trade::know(&buyer, dataset).await;
            trade::buy(&buyer, dataset).await;
        }
        let status = buyer.status().await;
        let feed = &status.followed[0];
        assert_eq!((feed.equivocations, feed.stale_binding, status.traffic.gossip.rejected), (0, false, 0));
        assert!(feed.clock_offset_s.is_some_and(|seconds| (seconds - offset).abs() < 600), "{feed:?}");
        let warning = until("a warning about the clocks", async || {
            let warnings = buyer.status().await.warnings;
            warnings.into_iter().find(|warning| warning.code == WarningCode::ClockDiffers)
        })
        .await;
        assert!(warning.message.contains(if offset > 0 { "ahead of" } else { "behind" }), "{warning:?}");
        // The machine has no opinion on the buyer's clock, and works.
        assert!(machine.status().await.warnings.iter().all(|warning| warning.code == WarningCode::OwnerKeyHere));
        buyer.stop().await;
        machine.stop().await;
    }
}
