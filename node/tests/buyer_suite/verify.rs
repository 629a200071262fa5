use std::{io::Read, time::Duration};

use tributary::{
    buyer::{ExportFormat, ExportJobError, StepState, Verdict, VerifyError},
    feeds::PullSelection,
};
use tributary_protocol::{
    access::{Range, Selection},
    dataset::DatasetEntry,
    entry::EntryBody,
    ids::{DatasetId, LogId},
    record::{Content, ContentEncoding},
};
use tributary_store::{Table, WriteBatch};

use super::support::{Machine, Shopper, keys, soon};

async fn bought(machine: &Machine, dataset: DatasetId) -> Shopper {
    let shopper = Shopper::new().await;
    shopper.follow(machine).await;
    shopper.buy(machine, dataset).await;
    soon("pull", shopper.buyer.pull(&machine.did, PullSelection::Dataset(dataset), None)).await.unwrap();
    shopper
}

#[tokio::test(flavor = "multi_thread")]
async fn a_whole_dataset_is_proven_from_the_did_and_exported_as_it_was() {
    let machine = Machine::new(60).await;
    machine.announce("/camera/front");
    let (dataset, plain) = machine.dataset("/camera/front", 20, 3);
    let shopper = bought(&machine, dataset).await;
    let report = soon("verify", shopper.buyer.verify(&machine.did, dataset)).await.unwrap();
    assert_eq!(report.verdict, Verdict::Proven, "{report:#?}");
    assert!(report.steps.iter().all(|step| step.state == StepState::Passed), "{report:#?}");
    assert_eq!((report.chunks, report.chunks_held, report.chunks_opened), (20, 20, 20));
    assert_eq!((report.packages, report.packages_verified), (60, 60));

    let (buyer, did) = (shopper.buyer.clone(), machine.did);
    let read = tokio::task::spawn_blocking(move || {
        let mut bytes = Vec::new();
        buyer.plaintext(&did, dataset).unwrap().read_to_end(&mut bytes).unwrap();
        bytes
    });
    assert_eq!(read.await.unwrap(), plain);

    let dir = shopper.dir.path().join("out");
    let report = soon("export", shopper.buyer.export(&machine.did, dataset, &dir, &[])).await.unwrap();
    assert_eq!((report.packages, report.bytes, report.files.len()), (60, plain.len() as u64, 2));
    let ndjson = report.files.iter().find(|file| file.format == ExportFormat::Ndjson).unwrap();
    let name = ndjson.path.file_name().unwrap().to_str().unwrap();
    assert!(name.starts_with("camera_front-"), "{name}");
    let lines = std::fs::read_to_string(&ndjson.path).unwrap();
    assert_eq!(lines.lines().count(), 60);
    assert!(lines.lines().all(|line| plain.windows(line.len()).any(|window| window == line.as_bytes())));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_comes_out_byte_for_byte() {
    let machine = Machine::new(61).await;
    machine.announce("maps/hall.bin");
    let mut builder = machine.builder("maps/hall.bin");
    let plain: Vec<u8> = (0..200_000u32).map(|i| u8::try_from(i % 241).unwrap()).collect();
    for (i, slice) in plain.chunks(60_000).enumerate() {
        let encoding = ContentEncoding { content: Content::File, zstd: i == 1 };
        let (entry, body) = machine.chunk("maps/hall.bin", &mut builder, (slice.to_vec(), 0, 0), encoding);
        machine.keep_chunk(&entry, body);
    }
    machine.close(builder.close().unwrap());
    let shopper = bought(&machine, builder.id()).await;
    let report = shopper.buyer.verify(&machine.did, builder.id()).await.unwrap();
    assert_eq!(report.verdict, Verdict::Proven, "{report:#?}");
    let dir = shopper.dir.path().join("out");
    let report = shopper.buyer.export(&machine.did, builder.id(), &dir, &[]).await.unwrap();
    assert_eq!(std::fs::read(&report.files[0].path).unwrap(), plain);
    let wrong = shopper.buyer.export(&machine.did, builder.id(), &dir, &[ExportFormat::Mcap]).await;
    assert!(matches!(wrong, Err(ExportJobError::Format { .. })));
}

#[tokio::test(flavor = "multi_thread")]
async fn packages_of_another_identity_break_the_proof_and_are_not_exported() {
    let machine = Machine::new(62).await;
    let stranger = keys(63).identity;
    let (dataset, _) = machine.dataset_by("/imu", 3, 2, &stranger);
    let shopper = bought(&machine, dataset).await;
    let report = shopper.buyer.verify(&machine.did, dataset).await.unwrap();
    assert_eq!(report.verdict, Verdict::Broken);
    let reason = report.first_failure.unwrap();
    assert!(reason.starts_with("packages: package 1 is not signed"), "{reason}");
    let dir = shopper.dir.path().join("out");
    let exported = shopper.buyer.export(&machine.did, dataset, &dir, &[]).await;
    assert!(matches!(exported, Err(ExportJobError::Package { .. })));
    let left: Vec<_> = std::fs::read_dir(&dir).unwrap().collect();
    assert!(left.is_empty(), "{left:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_granted_of_a_dataset_is_proven_and_counted() {
    let machine = Machine::new(64).await;
    let (dataset, _) = machine.dataset("/imu", 8, 2);
    let shopper = Shopper::new().await;
    shopper.follow(&machine).await;
    let row = machine.store.row(Table::Dataset, dataset.as_bytes()).unwrap().unwrap();
    let close = DatasetEntry::decode(&row).unwrap();
    let first = close.first_position.as_u64();
    let at = |n| tributary_protocol::keytree::Position::from_u64(first + n).unwrap();
    let range = Range::Positions { stream: close.stream, epoch: 0, first: at(3), last: at(5) };
    let part = Selection::new(vec![range]).unwrap();
    soon("access", shopper.buyer.request_access(&machine.did, part, Duration::from_secs(9))).await.unwrap();
    soon("pull", shopper.buyer.pull(&machine.did, PullSelection::Dataset(dataset), None)).await.unwrap();
    let report = shopper.buyer.verify(&machine.did, dataset).await.unwrap();
    assert_eq!(report.verdict, Verdict::Proven, "{report:#?}");
    assert_eq!((report.chunks, report.chunks_held, report.chunks_opened), (8, 3, 3));
    assert_eq!((report.packages, report.packages_verified), (16, 6));
    assert!(report.steps.iter().any(|step| step.state == StepState::Partial));
    let dir = shopper.dir.path().join("out");
    assert!(matches!(shopper.buyer.export(&machine.did, dataset, &dir, &[]).await, Err(ExportJobError::Content(_))));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dataset_entry_that_says_something_else_is_broken() {
    let machine = Machine::new(65).await;
    let mut builder = machine.builder("/imu");
    for _ in 0..3 {
        let (number, line) = machine.package("/imu", &machine.identity);
        let (entry, body) = machine.chunk("/imu", &mut builder, (line, 1, number), ContentEncoding::PACKAGES);
        machine.keep_chunk(&entry, body);
    }
    let close = DatasetEntry { merkle_root: [9; 32], ..builder.close().unwrap() };
    machine.close(close);
    let shopper = bought(&machine, builder.id()).await;
    let report = shopper.buyer.verify(&machine.did, builder.id()).await.unwrap();
    assert_eq!(report.verdict, Verdict::Broken);
    assert!(report.first_failure.unwrap().contains("Merkle root"));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_somebody_changed_on_the_disk_is_found() {
    let machine = Machine::new(66).await;
    let (dataset, _) = machine.dataset("/imu", 3, 1);
    let shopper = bought(&machine, dataset).await;
    // The binding is swapped for another machine's.
    let other = Machine::new(67).await;
    let forged = other.bindings.lock().unwrap()[0].encode();
    let key = [machine.did.as_bytes().as_slice(), &[0; 8]].concat();
    let genuine = shopper.store.row(Table::Binding, &key).unwrap().unwrap();
    let put = |value: Vec<u8>| {
        let mut batch = WriteBatch::new();
        batch.put_row(Table::Binding, key.clone(), value);
        shopper.store.commit(batch).unwrap();
    };
    put(forged);
    let report = shopper.buyer.verify(&machine.did, dataset).await.unwrap();
    assert_eq!((report.verdict, report.steps[0].state), (Verdict::Broken, StepState::Failed));

    // Without any binding nothing can be traced to the DID.
    let mut batch = WriteBatch::new();
    batch.delete_row(Table::Binding, key.clone());
    shopper.store.commit(batch).unwrap();
    let report = shopper.buyer.verify(&machine.did, dataset).await.unwrap();
    assert_eq!(report.verdict, Verdict::Consistent, "{report:#?}");

    put(genuine);
    assert_eq!(shopper.buyer.verify(&machine.did, dataset).await.unwrap().verdict, Verdict::Proven);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_close_of_a_dataset_is_an_equivocation_and_the_first_counts() {
    let machine = Machine::new(68).await;
    let (dataset, _) = machine.dataset("/imu", 2, 1);
    let row = machine.store.row(Table::Dataset, dataset.as_bytes()).unwrap().unwrap();
    let close = DatasetEntry::decode(&row).unwrap();
    let second = DatasetEntry { merkle_root: [1; 32], ..close };
    machine.append(LogId::MACHINE, EntryBody::DatasetClosed(second));
    let shopper = bought(&machine, dataset).await;
    assert_eq!(shopper.buyer.feeds().status(&machine.did).await.unwrap().equivocations, 1);
    assert_eq!(shopper.buyer.verify(&machine.did, dataset).await.unwrap().verdict, Verdict::Proven);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dataset_that_is_not_closed_is_proven_so_far_and_an_unknown_one_not_found() {
    let machine = Machine::new(69).await;
    let mut builder = machine.builder("/imu");
    let (number, line) = machine.package("/imu", &machine.identity);
    let (entry, body) = machine.chunk("/imu", &mut builder, (line, 1, number), ContentEncoding::PACKAGES);
    machine.keep_chunk(&entry, body);
    let shopper = Shopper::new().await;
    shopper.follow(&machine).await;
    let verified = shopper.buyer.verify(&machine.did, builder.id()).await;
    assert!(matches!(verified, Ok(ref report) if !report.complete && report.chunks == 1), "{verified:?}");
    let verified = shopper.buyer.verify(&machine.did, DatasetId::from_bytes([9; 32])).await;
    assert!(matches!(verified, Err(VerifyError::NotFound(_))));
    let datasets = shopper.buyer.feeds().datasets(&machine.did).await.unwrap();
    assert_eq!((datasets.len(), datasets[0].closed, datasets[0].chunks), (1, false, 1));
}
