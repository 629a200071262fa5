//! Feeds that are followed from a later place than their start.

use std::sync::Arc;

use tributary::{
    buyer::{Verdict, VerifyError},
    feeds::{FollowError, IncompleteError, JoinPoint, PullSelection, Streams},
};
use tributary_protocol::{
    ids::{DatasetId, LogId, LogKey},
    wire::SyncRequest,
};

use super::support::{Machine, Shopper, soon};

fn log(machine: &Machine, name: &str) -> LogKey {
    LogKey { did: machine.did, log: LogId::from(machine.stream(name)), incarnation: 0 }
}

/// The positions of a stream's log that are stored: the first and the last.
fn held(shopper: &Shopper, machine: &Machine, name: &str) -> Option<(u64, u64)> {
    let log = log(machine, name);
    let first = shopper.store.entries(&log, 0, 1, 1 << 20).unwrap().first().map(|entry| entry.seq)?;
    Some((first, shopper.store.head(&log).unwrap().unwrap().0))
}

async fn from(shopper: &Shopper, machine: &Machine, place: JoinPoint) -> Result<(), FollowError> {
    let link = machine.link().await;
    soon("follow", shopper.buyer.feeds().follow_from(&link, Streams::All, Some(place))).await.map(|_| ())
}

async fn proven(shopper: &Shopper, machine: &Machine, dataset: DatasetId) {
    shopper.buy(machine, dataset).await;
    soon("pull", shopper.buyer.pull(&machine.did, PullSelection::Dataset(dataset), None)).await.unwrap();
    let proof = shopper.buyer.verify(&machine.did, dataset).await.unwrap();
    assert_eq!((proof.verdict, proof.chunks_opened), (Verdict::Proven, proof.chunks), "{proof:?}");
}

async fn is_before_the_join(shopper: &Shopper, machine: &Machine, dataset: DatasetId) {
    let verified = soon("verify", shopper.buyer.verify(&machine.did, dataset)).await;
    let Err(VerifyError::Incomplete(IncompleteError::BeforeJoin(what))) = verified else { panic!("{verified:?}") };
    assert_eq!((what.dataset, what.known), (dataset, 0));
}

/// A machine with two streams, each with datasets of 4 and 5 chunks, and 3 chunks of one that is open in the first.
async fn world(seed: u64) -> (Arc<Machine>, [DatasetId; 4]) {
    let machine = Machine::new(seed).await;
    for name in ["/imu", "/gps"] {
        machine.announce(name);
    }
    let datasets = [("/imu", 4), ("/gps", 4), ("/imu", 5), ("/gps", 5)].map(|(name, n)| machine.dataset(name, n, 1).0);
    (machine, datasets)
}

#[tokio::test(flavor = "multi_thread")]
async fn from_now_on_nothing_older_is_fetched_and_what_comes_is_proven() {
    let (machine, [old, ..]) = world(90).await;
    let mut builder = machine.builder("/imu");
    machine.write("/imu", &mut builder, 3);
    let shopper = Shopper::new().await;
    from(&shopper, &machine, JoinPoint::Now).await.unwrap();
    assert_eq!(held(&shopper, &machine, "/imu"), Some((9, 11)), "from the start of the dataset that is open");
    assert_eq!(held(&shopper, &machine, "/gps"), None, "all of its datasets are closed");
    is_before_the_join(&shopper, &machine, old).await;
    let pulled = soon("pull", shopper.buyer.pull(&machine.did, PullSelection::Dataset(old), None)).await;
    assert!(pulled.is_err(), "{pulled:?}");

    // A restart forgets none of it, also where no entry is stored yet.
    let shopper = shopper.restart().await;
    machine.asked.lock().unwrap().clear();
    machine.write("/imu", &mut builder, 2);
    machine.close(builder.close().unwrap());
    let (new, _) = machine.dataset("/gps", 2, 1);
    soon("catch up", shopper.buyer.feeds().catch_up(&machine.did)).await.unwrap();
    let streams: Vec<(LogKey, u64)> = machine
        .asked
        .lock()
        .unwrap()
        .iter()
        .filter_map(|request| match request {
            SyncRequest::Entries { log, from, .. } if log.log != LogId::MACHINE => Some((*log, *from)),
            _ => None,
        })
        .collect();
    // The node catches up by itself when it starts: that may bring the first of the two entries before the other is written.
    let asked = |name| {
        let log = log(&machine, name);
        streams.iter().filter(|(of, _)| *of == log).map(|(_, from)| *from).collect::<Vec<u64>>()
    };
    assert!(matches!(asked("/imu")[..], [12] | [12, 13]), "nothing that is here is asked for: {streams:?}");
    assert_eq!(asked("/gps"), [9], "{streams:?}");
    for dataset in [builder.id(), new] {
        proven(&shopper, &machine, dataset).await;
    }
    let proof = shopper.buyer.verify(&machine.did, new).await.unwrap();
    let entries = proof.steps.iter().find(|step| step.name == "chunk entries").unwrap();
    assert!(entries.detail.contains("followed from entry 9 on"), "what is not proven is said: {entries:?}");
    let status = shopper.buyer.feeds().status(&machine.did).await.unwrap();
    assert_eq!(status.from, JoinPoint::Now);
    let starts: Vec<u64> = status.logs.iter().filter(|log| log.log != LogId::MACHINE).map(|log| log.start).collect();
    assert_eq!(starts, [9, 9]);

    // A stream that is new has nothing before it.
    machine.announce("/new");
    let (first, _) = machine.dataset("/new", 3, 1);
    soon("catch up", shopper.buyer.feeds().catch_up(&machine.did)).await.unwrap();
    assert_eq!(held(&shopper, &machine, "/new"), Some((0, 2)));
    proven(&shopper, &machine, first).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn from_a_dataset_on_every_stream_begins_with_what_was_closed_after_it() {
    let (machine, [old_imu, old_gps, imu, gps]) = world(91).await;
    let shopper = Shopper::new().await;
    let unknown = DatasetId::from_bytes([5; 32]);
    let refused = from(&shopper, &machine, JoinPoint::Dataset(unknown)).await;
    assert!(matches!(refused, Err(FollowError::NoDataset { dataset, .. }) if dataset == unknown), "{refused:?}");
    assert!(shopper.buyer.feeds().followed().is_empty(), "nothing was changed");

    from(&shopper, &machine, JoinPoint::Dataset(imu)).await.unwrap();
    assert_eq!(held(&shopper, &machine, "/imu"), Some((4, 8)));
    assert_eq!(held(&shopper, &machine, "/gps"), Some((4, 8)));
    for dataset in [imu, gps] {
        proven(&shopper, &machine, dataset).await;
    }
    is_before_the_join(&shopper, &machine, old_imu).await;

    // Back to the second dataset: the first of the other stream stays out.
    from(&shopper, &machine, JoinPoint::Dataset(old_gps)).await.unwrap();
    assert_eq!(held(&shopper, &machine, "/gps"), Some((0, 8)));
    assert_eq!(held(&shopper, &machine, "/imu"), Some((4, 8)));
    proven(&shopper, &machine, old_gps).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn going_back_to_the_start_brings_everything_and_going_forward_forgets_nothing() {
    let (machine, [old, ..]) = world(92).await;
    machine.dataset("/imu", 300, 1);
    let mut builder = machine.builder("/imu");
    machine.write("/imu", &mut builder, 1);
    let shopper = Shopper::new().await;
    from(&shopper, &machine, JoinPoint::Now).await.unwrap();
    assert_eq!(held(&shopper, &machine, "/imu"), Some((309, 309)));
    from(&shopper, &machine, JoinPoint::Start).await.unwrap();
    assert_eq!(held(&shopper, &machine, "/imu"), Some((0, 309)));
    assert_eq!(held(&shopper, &machine, "/gps"), Some((0, 8)));
    proven(&shopper, &machine, old).await;
    from(&shopper, &machine, JoinPoint::Now).await.unwrap();
    let shopper = shopper.restart().await;
    let status = shopper.buyer.feeds().status(&machine.did).await.unwrap();
    assert_eq!(status.from, JoinPoint::Start);
    assert!(status.logs.iter().all(|log| log.start == 0), "{status:?}");
    assert_eq!(status.equivocations, 0);
}
