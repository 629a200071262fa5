//! The sync protocol, message by message.

use tributary_protocol::{
    binding::SignedBinding,
    dataset::verify_inclusion,
    entry::{EntryBody, SignedEntry, SignedHead},
    ids::{DatasetId, Did, LogId, LogKey},
    wire::{SyncRequest, SyncResponse},
};

use super::support::{Bare, buyer_config, fill, follow, machine_config, start, stream, stream_id};

#[tokio::test(flavor = "multi_thread")]
async fn a_machine_tells_how_far_its_logs_go_and_what_is_in_them() {
    let dir = tempfile::tempdir().unwrap();
    let node = start(dir.path(), &machine_config(&[stream("/imu", "policy: free")])).await;
    let id = fill(&node, "/imu", 0, 200).await;
    let (peer, did) = (Bare::connect(&node).await, node.did());

    let SyncResponse::Bindings { bindings, more: false } =
        peer.sync(&SyncRequest::Bindings { did, from_serial: 0 }).await
    else {
        panic!("no bindings")
    };
    let binding = SignedBinding::decode(&bindings[0]).unwrap();
    assert_eq!((bindings.len(), binding.binding().did), (1, did));
    assert_eq!(peer.sync(&SyncRequest::Bindings { did, from_serial: 1 }).await, SyncResponse::NotFound);

    let heads = SyncRequest::Heads { did, from_log: LogId::MACHINE };
    let SyncResponse::Heads { heads, more: false } = peer.sync(&heads).await else { panic!("no heads") };
    assert_eq!(heads.len(), 2);
    let head = SignedHead::decode(&heads[1]).unwrap();
    head.verify_signature().unwrap();

    let log = LogKey { did, log: LogId::from(stream_id(&node, "/imu")), incarnation: 0 };
    assert_eq!(head.head().key(), log);
    let (mut next, mut records) = (0u64, Vec::new());
    loop {
        let SyncResponse::Entries { entries, more } =
            peer.sync(&SyncRequest::Entries { log, from: next, max: 4 }).await
        else {
            panic!("no entries")
        };
        assert!(entries.len() <= 4);
        for bytes in &entries {
            let signed = SignedEntry::decode(bytes).unwrap();
            assert_eq!(signed.entry().seq, next);
            let EntryBody::Chunk(record) = &signed.entry().body else { panic!("not a chunk") };
            records.push(record.encode());
            next += 1;
        }
        if !more {
            break;
        }
    }
    assert_eq!(next, head.head().seq + 1);
    assert_eq!(peer.sync(&SyncRequest::Entries { log, from: next, max: 4 }).await, SyncResponse::NotFound);

    let SyncResponse::Dataset { entry } = peer.sync(&SyncRequest::Dataset { did, dataset: id }).await else {
        panic!("no dataset")
    };
    let closing = SignedEntry::decode(&entry).unwrap();
    let EntryBody::DatasetClosed(closed) = &closing.entry().body else { panic!("not a dataset") };
    for index in [0, closed.chunk_count - 1] {
        let answer = peer.sync(&SyncRequest::Inclusion { did, dataset: id, index }).await;
        let SyncResponse::Inclusion { entry: proven, record, proof } = answer else { panic!("{answer:?}") };
        assert_eq!((&proven, &record), (&entry, &records[index as usize]));
        verify_inclusion(&closed.merkle_root, closed.chunk_count, index, &record, &proof).unwrap();
    }
    let beyond = SyncRequest::Inclusion { did, dataset: id, index: closed.chunk_count };
    assert_eq!(peer.sync(&beyond).await, SyncResponse::NotFound);
    let unknown = SyncRequest::Dataset { did, dataset: DatasetId::from_bytes([7; 32]) };
    assert_eq!(peer.sync(&unknown).await, SyncResponse::NotFound);
    let stranger = Did::from_bytes([9; 20]);
    assert_eq!(
        peer.sync(&SyncRequest::Heads { did: stranger, from_log: LogId::MACHINE }).await,
        SyncResponse::NotFound
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_follower_serves_what_it_follows_where_it_is_told_to() {
    let dirs = [(); 3].map(|()| tempfile::tempdir().unwrap());
    let machine = start(dirs[0].path(), &machine_config(&[stream("/imu", "policy: free")])).await;
    let buyer = start(dirs[1].path(), &format!("{}buyer: {{ reseed: true }}\n", buyer_config())).await;
    let silent = start(dirs[2].path(), &buyer_config()).await;
    let id = fill(&machine, "/imu", 0, 50).await;
    let did = machine.did();
    follow(&buyer, &machine).await;
    follow(&silent, &machine).await;
    machine.shutdown().await.unwrap();

    let peer = Bare::connect(&silent).await;
    for request in [SyncRequest::Heads { did, from_log: LogId::MACHINE }, SyncRequest::Dataset { did, dataset: id }] {
        assert_eq!(peer.sync(&request).await, SyncResponse::NotFound, "{request:?}");
    }
    // They are how a machine hears of another copy of itself.
    let bindings = peer.sync(&SyncRequest::Bindings { did, from_serial: 0 }).await;
    assert!(matches!(bindings, SyncResponse::Bindings { .. }), "{bindings:?}");

    let peer = Bare::connect(&buyer).await;
    let heads = peer.sync(&SyncRequest::Heads { did, from_log: LogId::MACHINE }).await;
    assert!(matches!(heads, SyncResponse::Heads { ref heads, .. } if heads.len() == 2), "{heads:?}");
    let bindings = peer.sync(&SyncRequest::Bindings { did, from_serial: 0 }).await;
    assert!(matches!(bindings, SyncResponse::Bindings { .. }), "{bindings:?}");
    let closing = peer.sync(&SyncRequest::Dataset { did, dataset: id }).await;
    assert!(matches!(closing, SyncResponse::Dataset { .. }), "{closing:?}");
    let proof = peer.sync(&SyncRequest::Inclusion { did, dataset: id, index: 0 }).await;
    assert!(matches!(proof, SyncResponse::Inclusion { .. }), "{proof:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn malformed_requests_get_no_answer_and_the_node_goes_on() {
    let dir = tempfile::tempdir().unwrap();
    let node = start(dir.path(), &machine_config(&[stream("/imu", "policy: free")])).await;
    let rude = Bare::connect(&node).await;
    for bytes in [Vec::new(), vec![0xff; 40], vec![0x9f; 4000]] {
        assert_eq!(rude.sync_bytes(bytes).await, None);
    }
    let polite = Bare::connect(&node).await;
    let answer = polite.sync(&SyncRequest::Bindings { did: node.did(), from_serial: 0 }).await;
    assert!(matches!(answer, SyncResponse::Bindings { .. }));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_flood_of_requests_is_told_to_wait_and_cut_off_in_the_end() {
    let dir = tempfile::tempdir().unwrap();
    let node = start(dir.path(), &machine_config(&[stream("/imu", "policy: free")])).await;
    let (flood, did) = (Bare::connect(&node).await, node.did());
    let request = SyncRequest::Bindings { did, from_serial: 0 };
    let (mut busy, mut closed) = (0, 0);
    // Refills at 200 a second, which is slower than this loop; who never waits is cut off in the end.
    while closed == 0 {
        let asked: Vec<_> = (0..8).map(|_| flood.sync_bytes(request.encode().unwrap())).collect();
        for answer in futures::future::join_all(asked).await {
            match answer {
                Some(SyncResponse::Busy { retry_ms: 1.. }) => busy += 1,
                Some(SyncResponse::Bindings { .. }) => {}
                None => closed += 1,
                Some(other) => panic!("{other:?}"),
            }
        }
        assert!(busy < 100_000, "told to wait again and again, and never cut off");
    }
    assert!(busy >= 200, "an honest peer in a hurry is not cut off: {busy}");
    let quiet = Bare::connect(&node).await;
    assert!(matches!(quiet.sync(&request).await, SyncResponse::Bindings { .. }));
}
