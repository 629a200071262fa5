use std::sync::{Arc, atomic::Ordering::SeqCst};

use tokio::sync::mpsc;
use tributary::{
    buyer::Buyer,
    feeds::{Feeds, FeedsOptions, PullJobError, PullSelection},
};
use tributary_protocol::{
    access::{Range, Selection},
    entry::EntryBody,
    ids::DatasetId,
    record::ChunkRecord,
    seal::OpenError,
};

use super::support::{Machine, NOW, Shopper, keys, soon};

/// The records of a dataset as the machine has them.
fn records(machine: &Machine, dataset: DatasetId) -> Vec<ChunkRecord> {
    let chunks = machine.store.dataset_chunks(&dataset, 0, 10_000).unwrap();
    chunks
        .into_iter()
        .map(|(_, log, seq)| {
            let entry = machine.store.entry(&log, seq).unwrap().unwrap();
            let entry = tributary_protocol::entry::SignedEntry::decode(&entry).unwrap();
            let EntryBody::Chunk(record) = &entry.entry().body else { panic!("a chunk") };
            record.clone()
        })
        .collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_granted_is_pulled_once() {
    let (machine, shopper) = (Machine::new(40).await, Shopper::new().await);
    machine.announce("/imu");
    let (dataset, _) = machine.dataset("/imu", 40, 2);
    shopper.follow(&machine).await;
    shopper.buy(&machine, dataset).await;
    let selection = PullSelection::Dataset(dataset);
    let (progress, mut told) = mpsc::channel(256);
    let report = soon("pull", shopper.buyer.pull(&machine.did, selection, Some(progress))).await.unwrap();
    assert_eq!((report.chunks, report.skipped, report.not_granted), (40, 0, 0));
    assert_eq!(report.bytes, records(&machine, dataset).iter().map(|record| u64::from(record.len)).sum::<u64>());
    let mut last = None;
    while let Some(state) = told.recv().await {
        assert_eq!((state.total_chunks, state.total_bytes), (40, report.bytes));
        last = Some(state.chunks);
    }
    assert_eq!(last, Some(40));
    let served = machine.served.load(SeqCst);
    let again = soon("again", shopper.buyer.pull(&machine.did, selection, None)).await.unwrap();
    assert_eq!((again.chunks, again.skipped, machine.served.load(SeqCst)), (0, 40, served));
    let chunks = shopper.buyer.chunks(&machine.did, selection, 38, 10).await.unwrap();
    assert_eq!(chunks.iter().map(|chunk| (chunk.index, chunk.held)).collect::<Vec<_>>(), [(38, true), (39, true)]);
}

#[tokio::test(flavor = "multi_thread")]
async fn tampered_ciphertext_is_refused_by_name_and_the_rest_comes_later() {
    let (machine, shopper) = (Machine::new(41).await, Shopper::new().await);
    let (dataset, _) = machine.dataset("/imu", 10, 1);
    shopper.follow(&machine).await;
    shopper.buy(&machine, dataset).await;
    let bad = records(&machine, dataset)[4].clone();
    let mut body = machine.store.chunk(&bad.hash).unwrap().unwrap();
    body[7] ^= 1;
    machine.tampered.lock().unwrap().insert(bad.hash, body);
    let selection = PullSelection::Dataset(dataset);
    let refused = soon("pull", shopper.buyer.pull(&machine.did, selection, None)).await;
    match refused {
        Err(PullJobError::Exhausted(said)) => {
            assert_eq!(said.missing, 6, "{said}");
            let wrong = said.wrong_bytes().expect("it is named");
            assert_eq!((wrong.peer, wrong.dataset, wrong.index), (machine.peer(), dataset, 4));
            assert_eq!(wrong.hash, bad.hash);
        }
        other => panic!("{other:?}"),
    }
    assert!(!shopper.store.has_chunk(&bad.hash).unwrap());
    for record in &records(&machine, dataset)[..4] {
        assert!(shopper.store.has_chunk(&record.hash).unwrap());
    }

    machine.tampered.lock().unwrap().clear();
    let shopper = shopper.restart().await;
    let report = soon("resume", shopper.buyer.pull(&machine.did, selection, None)).await.unwrap();
    assert_eq!((report.chunks, report.skipped), (6, 4));
}

#[tokio::test(flavor = "multi_thread")]
async fn another_provider_makes_up_for_a_bad_one() {
    let (machine, shopper) = (Machine::new(42).await, Shopper::new().await);
    let mirror = Machine::new(43).await;
    let (dataset, _) = machine.dataset("/imu", 12, 1);
    let all = records(&machine, dataset);
    let mut batch = tributary_store::WriteBatch::new();
    for record in &all {
        let body = machine.store.chunk(&record.hash).unwrap().unwrap();
        batch.put_chunk(record.hash, body);
    }
    mirror.store.commit(batch).unwrap();
    machine.tampered.lock().unwrap().insert(all[0].hash, vec![0; all[0].len as usize]);
    shopper.follow(&machine).await;
    shopper.buy(&machine, dataset).await;
    let at = mirror.client.listen_addrs().await.unwrap().remove(0);
    let peer = soon("dial", shopper.client.dial(at)).await.unwrap();
    shopper.buyer.feeds().add_provider(&machine.did, peer).unwrap();
    let report = soon("pull", shopper.buyer.pull(&machine.did, PullSelection::Dataset(dataset), None)).await.unwrap();
    assert_eq!(report.chunks, 12);
    assert!(mirror.served.load(SeqCst) > 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pull_that_nobody_waits_for_any_more_leaves_nothing_behind() {
    let (machine, shopper) = (Machine::new(48).await, Shopper::new().await);
    let (dataset, _) = machine.dataset("/imu", 400, 1);
    shopper.follow(&machine).await;
    shopper.buy(&machine, dataset).await;
    let (progress, mut told) = mpsc::channel(1);
    let pull = shopper.buyer.pull(&machine.did, PullSelection::Dataset(dataset), Some(progress));
    tokio::select! {
        biased;
        state = told.recv() => assert!(state.unwrap().chunks < 400),
        ended = pull => panic!("it ended before it was given up: {ended:?}"),
    }
    // The other end is held by what belongs to the pull, its threads included.
    soon("the end of all that belongs to it", async { while told.recv().await.is_some() {} }).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_pulled_that_was_not_granted() {
    let (machine, shopper) = (Machine::new(44).await, Shopper::new().await);
    let (dataset, _) = machine.dataset("/imu", 6, 1);
    shopper.follow(&machine).await;
    let selection = PullSelection::Dataset(dataset);
    let pulled = soon("pull", shopper.buyer.pull(&machine.did, selection, None)).await;
    assert!(matches!(pulled, Err(PullJobError::NotGranted { .. })), "{pulled:?}");
    let unknown = PullSelection::Dataset(DatasetId::from_bytes([1; 32]));
    let pulled = soon("pull", shopper.buyer.pull(&machine.did, unknown, None)).await;
    assert!(matches!(pulled, Err(PullJobError::NotFound { .. })), "{pulled:?}");

    let all = records(&machine, dataset);
    let range = Range::Positions { stream: all[0].stream, epoch: 0, first: all[2].position, last: all[3].position };
    let part = Selection::new(vec![range]).unwrap();
    let asked = shopper.buyer.request_access(&machine.did, part, std::time::Duration::from_secs(9));
    soon("access", asked).await.unwrap();
    let selection = PullSelection::Stream(all[0].stream);
    let report = soon("pull", shopper.buyer.pull(&machine.did, selection, None)).await.unwrap();
    assert_eq!((report.chunks, report.not_granted), (2, 4));
    assert_eq!(machine.served.load(SeqCst), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_chunk_that_the_machine_sealed_with_another_key_is_named() {
    let (machine, shopper) = (Machine::new(45).await, Shopper::new().await);
    let mut builder = machine.builder("/imu");
    let slice = (b"sealed at one position, announced at another".to_vec(), 0, 0);
    let (entry, body) =
        machine.chunk("/imu", &mut builder, slice, tributary_protocol::record::ContentEncoding::PACKAGES);
    let EntryBody::Chunk(record) = &entry.entry().body else { panic!("a chunk") };
    let moved = ChunkRecord {
        position: tributary_protocol::keytree::Position::from_u64(record.position.as_u64() + 7).unwrap(),
        ..record.clone()
    };
    let mut builder = machine.builder("/imu");
    let entry = machine.sign(entry.entry().log, EntryBody::Chunk(moved.clone()));
    builder.push(entry.entry().seq, &moved).unwrap();
    machine.keep_chunk(&entry, body);
    machine.close(builder.close().unwrap());
    shopper.follow(&machine).await;
    shopper.buy(&machine, builder.id()).await;
    let pulled = soon("pull", shopper.buyer.pull(&machine.did, PullSelection::Dataset(builder.id()), None)).await;
    match pulled {
        Err(PullJobError::Unreadable { index: 0, source: OpenError::Key { .. }, .. }) => {}
        other => panic!("{other:?}"),
    }
    assert!(!shopper.store.has_chunk(&moved.hash).unwrap());
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_network_only_what_is_stored_can_be_used() {
    let (machine, shopper) = (Machine::new(46).await, Shopper::new().await);
    let (dataset, _) = machine.dataset("/imu", 2, 1);
    shopper.follow(&machine).await;
    shopper.buy(&machine, dataset).await;
    soon("pull", shopper.buyer.pull(&machine.did, PullSelection::Dataset(dataset), None)).await.unwrap();
    let keys = keys(99);
    let did = keys.identity.did();
    let options = FeedsOptions { did, store: shopper.store.clone(), net: None, clock: Arc::new(|| NOW) };
    let offline = Buyer::open(&keys, Feeds::open(options).unwrap()).unwrap();
    assert_eq!(offline.feeds().datasets(&machine.did).await.unwrap().len(), 1);
    assert!(offline.verify(&machine.did, dataset).await.is_ok());
    assert!(offline.feeds().catch_up(&machine.did).await.is_err());
}
