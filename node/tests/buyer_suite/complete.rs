//! A closed dataset is never taken for the part of it that has arrived.

use tributary::{
    buyer::{ExportFormat, ExportJobError, StepState, Verdict, VerifyError},
    feeds::{FollowError, IncompleteError, PullJobError, PullSelection},
};
use tributary_protocol::ids::DatasetId;

use super::support::{Machine, Shopper, soon};

/// A machine that wrote and closed a dataset of 20 chunks, and a buyer with its keys who knows that it is closed and the
/// entries of the first 12.
async fn torn(seed: u64) -> (std::sync::Arc<Machine>, Shopper, DatasetId) {
    let (machine, shopper) = (Machine::new(seed).await, Shopper::new().await);
    machine.announce("/imu");
    let mut builder = machine.builder("/imu");
    machine.write("/imu", &mut builder, 12);
    shopper.follow(&machine).await;
    machine.withhold("/imu", true);
    machine.write("/imu", &mut builder, 8);
    machine.close(builder.close().unwrap());
    soon("catch up", shopper.buyer.feeds().catch_up(&machine.did)).await.unwrap();
    let dataset = builder.id();
    let closed = shopper.buyer.feeds().datasets(&machine.did).await.unwrap();
    assert_eq!((closed[0].dataset, closed[0].closed, closed[0].chunks), (dataset, true, 20));
    let known = shopper.buyer.chunks(&machine.did, PullSelection::Dataset(dataset), 0, 100).await.unwrap();
    assert_eq!(known.len(), 12, "the dataset entry came before the last chunk entries");
    shopper.buy(&machine, dataset).await;
    (machine, shopper, dataset)
}

#[tokio::test(flavor = "multi_thread")]
async fn entries_that_have_not_arrived_are_fetched_before_a_pull() {
    let (machine, shopper, dataset) = torn(80).await;
    machine.withhold("/imu", false);
    let report = soon("pull", shopper.buyer.pull(&machine.did, PullSelection::Dataset(dataset), None)).await.unwrap();
    assert_eq!((report.chunks + report.skipped, report.not_granted, report.complete), (20, 0, true));
    let proof = shopper.buyer.verify(&machine.did, dataset).await.unwrap();
    assert_eq!((proof.verdict, proof.chunks_opened, proof.complete), (Verdict::Proven, 20, true));
}

#[tokio::test(flavor = "multi_thread")]
async fn verify_and_export_fetch_them_too() {
    let (machine, shopper, dataset) = torn(81).await;
    machine.withhold("/imu", false);
    let proof = soon("verify", shopper.buyer.verify(&machine.did, dataset)).await.unwrap();
    assert_eq!((proof.verdict, proof.chunks, proof.chunks_held), (Verdict::Proven, 20, 0), "{proof:?}");

    let (machine, shopper, dataset) = torn(82).await;
    let stream = PullSelection::Stream(machine.stream("/imu"));
    machine.withhold("/imu", false);
    let report = soon("pull", shopper.buyer.pull(&machine.did, stream, None)).await.unwrap();
    assert_eq!(
        (report.chunks + report.skipped, report.complete),
        (20, true),
        "a stream has the entries of its datasets"
    );
    let out = shopper.dir.path().join("out");
    let exported = shopper.buyer.export(&machine.did, dataset, &out, &[ExportFormat::Ndjson]).await.unwrap();
    assert_eq!((exported.packages, exported.complete), (20, true));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_part_that_nobody_completes_is_an_error_that_counts() {
    let (machine, shopper, dataset) = torn(83).await;
    let twelve_of_twenty = |error: &IncompleteError| match error {
        IncompleteError::Withheld(what) => (what.dataset, what.known, what.total) == (dataset, 12, 20),
        _ => false,
    };
    let selection = PullSelection::Dataset(dataset);
    let pulled = soon("pull", shopper.buyer.pull(&machine.did, selection, None)).await;
    assert!(matches!(&pulled, Err(PullJobError::Incomplete(error)) if twelve_of_twenty(error)), "{pulled:?}");
    assert!(pulled.unwrap_err().to_string().contains("of the 20 chunk entries"), "says how many of how many");
    let verified = soon("verify", shopper.buyer.verify(&machine.did, dataset)).await;
    assert!(matches!(&verified, Err(VerifyError::Incomplete(error)) if twelve_of_twenty(error)), "{verified:?}");
    let out = shopper.dir.path().join("out");
    let exported = soon("export", shopper.buyer.export(&machine.did, dataset, &out, &[])).await;
    assert!(matches!(&exported, Err(ExportJobError::Incomplete(error)) if twelve_of_twenty(error)), "{exported:?}");
    assert!(!out.exists());

    // And when nobody can be asked, it is the network.
    soon("the end of the machine", machine.client.shutdown()).await;
    let pulled = soon("pull", shopper.buyer.pull(&machine.did, selection, None)).await;
    match pulled {
        Err(PullJobError::Incomplete(IncompleteError::Unfetched { what, source })) => {
            assert_eq!((what.known, what.total), (12, 20));
            assert!(matches!(*source, FollowError::Dial { .. } | FollowError::Request { .. }), "{source:?}");
        }
        other => panic!("{other:?}"),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn of_an_open_dataset_there_is_what_there_is() {
    let (machine, shopper) = (Machine::new(84).await, Shopper::new().await);
    machine.announce("/imu");
    let mut builder = machine.builder("/imu");
    let written = machine.write("/imu", &mut builder, 5);
    shopper.follow(&machine).await;
    shopper.buy_positions(&machine, "/imu", 0, 4).await;
    let dataset = builder.id();
    let report = soon("pull", shopper.buyer.pull(&machine.did, PullSelection::Dataset(dataset), None)).await.unwrap();
    assert_eq!((report.chunks + report.skipped, report.complete), (5, false));
    let proof = shopper.buyer.verify(&machine.did, dataset).await.unwrap();
    assert_eq!((proof.verdict, proof.complete), (Verdict::Proven, false), "{proof:?}");
    assert_eq!((proof.chunks, proof.chunks_opened, proof.packages_verified), (5, 5, 5));
    let totals = proof.steps.iter().find(|step| step.name == "totals").unwrap();
    assert_eq!(totals.state, StepState::Skipped, "there is nothing to check the totals against");
    let out = shopper.dir.path().join("out");
    let exported = shopper.buyer.export(&machine.did, dataset, &out, &[ExportFormat::Ndjson]).await.unwrap();
    assert_eq!((exported.packages, exported.bytes, exported.complete), (5, written.len() as u64, false));
}
