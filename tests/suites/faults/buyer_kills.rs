//! The buyer dies by SIGKILL in the middle of a pull.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering::Relaxed},
};

use rand::{Rng as _, RngExt as _, SeedableRng as _, rngs::StdRng};
use tributary::control::api::{DatasetDetail, ExportFormat, PullProgress, PullReport, PullRequest, Verdict};
use tributary_tests::{
    home::{Sandbox, head},
    node::NodeProcess,
    trade,
    wait::{soon, until},
};

const KILLS: u64 = 10;
const FILE_BYTES: usize = 24 << 20;
const CHUNK: usize = 64 << 10;
/// Chunks that may be on their way when the buyer dies: 4 MiB in sockets, queues, and the batch that is being written.
const IN_FLIGHT: u64 = 64;

#[tokio::test(flavor = "multi_thread")]
async fn ten_kills_in_the_middle_of_a_pull_cost_no_more_than_what_was_under_way() {
    let mut rng = StdRng::seed_from_u64(10);
    let sandbox = Sandbox::new();
    // Slow enough that a kill finds the pull under way.
    let config = format!(
        "{}streams:\n  - {{ topic: files, mode: file, access: {{ policy: free }}, chunk: {{ bytes: 64KiB }} }}\n",
        head("machine", sandbox.port("machine"), "pull_bytes_per_second: 3MB")
    );
    let machine = NodeProcess::start(&sandbox.home("machine", &config)).await;
    let mut bytes = vec![0; FILE_BYTES];
    rng.fill_bytes(&mut bytes);
    let file = sandbox.path().join("recording.bin");
    std::fs::write(&file, &bytes).unwrap();
    let dataset = trade::publish(&machine, "files", &file).await;
    let total = (FILE_BYTES / CHUNK) as u64;

    let home = sandbox.buyer("buyer", "");
    let mut buyer = NodeProcess::start(&home).await;
    trade::follow(&buyer, &machine).await;
    trade::know(&buyer, dataset).await;
    let selection = trade::datasets(&[dataset]);
    trade::request(&buyer, &selection).await;

    let mut held = 0;
    for kill in 0..KILLS {
        let durable = Arc::new(AtomicU64::new(0));
        let wanted = rng.random_range(1..24);
        let (client, seen) = (buyer.client().clone(), Arc::clone(&durable));
        let body = PullRequest { selection: selection.clone() };
        let pull = tokio::spawn(async move {
            let note = move |progress: PullProgress| seen.store(progress.chunks, Relaxed);
            client.run::<PullProgress, PullReport>("/v1/pull", &body, note).await
        });
        until("durable chunks", async || (durable.load(Relaxed) >= wanted || pull.is_finished()).then_some(())).await;
        assert!(buyer.is_alive() && !pull.is_finished(), "kill {kill} comes while the pull is under way");
        buyer.kill();
        let broken = soon("the end of the pull", pull).await.unwrap();
        assert!(broken.is_err(), "the pull never came to its end: {broken:?}");

        buyer = NodeProcess::start(&home).await;
        let detail: DatasetDetail = buyer.client().get(&format!("/v1/datasets/{dataset}")).await.unwrap();
        let now = u64::from(detail.held_chunks);
        assert!(
            now >= held + durable.load(Relaxed),
            "of {held} chunks and {} more there are {now}",
            durable.load(Relaxed)
        );
        held = now;
    }
    assert!(held < total, "all kills came before the end");

    let report = trade::pull(&buyer, &selection).await;
    assert_eq!((report.skipped, report.chunks), (held, total - held), "what was held is not asked for again");
    let served = until("the end of the transfers", async || {
        let served = machine.status().await.served;
        (served.chunks >= total).then_some(served.chunks)
    })
    .await;
    assert!(served <= total + KILLS * IN_FLIGHT, "{served} chunks were sent for {total}");
    let proof = trade::verify(&buyer, dataset).await;
    assert_eq!((proof.verdict, proof.chunks_opened), (Verdict::Proven, total), "{proof:?}");
    let exported = trade::export(&buyer, &selection, &[ExportFormat::File], &sandbox.path().join("out")).await;
    let arrived = std::fs::read(&exported.report.files[0].path).unwrap();
    assert!(arrived == bytes, "the file arrived as it was published");
}
