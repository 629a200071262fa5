use tributary::{
    feeds::{FeedEvent, FeedLink, FollowError, Streams},
    net::Acceptance,
};
use tributary_protocol::{
    binding::{Binding, LogPosition, SignedBinding},
    entry::{Entry, EntryBody, SignedEntry, Tombstone, TombstoneTarget},
    ids::{Hash, LogId, LogKey},
    keys::FeedKey,
    record::ContentEncoding,
    wire::{FeedMessage, SyncRequest, topic_machine, topic_stream},
};
use tributary_store::Table;

use super::support::{Machine, NOW, Shopper, rng, soon};

fn note(reason: &str) -> EntryBody {
    let target = TombstoneTarget::Chunks(vec![Hash::of(reason.as_bytes())]);
    EntryBody::Tombstone(Tombstone { target, reason: reason.to_owned() })
}

fn gossip(entry: &SignedEntry, attachment: Option<Vec<u8>>) -> Vec<u8> {
    FeedMessage::Entry { entry: entry.bytes().to_vec(), attachment }.encode().unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_machine_is_found_and_followed_from_its_did_alone() {
    let (machine, shopper) = (Machine::new(1).await, Shopper::new().await);
    machine.announce("/imu");
    let (dataset, _) = machine.dataset("/imu", 3, 2);
    let info = soon("find", shopper.buyer.feeds().find(&machine.link().await)).await.unwrap();
    assert_eq!((info.did, info.peer, info.binding_serial), (machine.did, machine.peer(), 0));
    shopper.follow(&machine).await;
    let streams = shopper.buyer.feeds().streams(&machine.did).await.unwrap();
    assert_eq!((streams.len(), streams[0].name.as_str(), streams[0].chunks), (1, "/imu", 3));
    let datasets = shopper.buyer.feeds().datasets(&machine.did).await.unwrap();
    assert_eq!((datasets.len(), datasets[0].dataset, datasets[0].packages), (1, dataset, 6));
    assert!(datasets[0].closed);
    let status = shopper.buyer.feeds().status(&machine.did).await.unwrap();
    assert_eq!((status.equivocations, status.noise, status.logs.len()), (0, 0, 2));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_the_binding_does_not_name_is_not_the_machine_and_serves_its_feed_all_the_same() {
    let (machine, shopper) = (Machine::with(2, false).await, Shopper::new().await);
    machine.announce("/imu");
    let (dataset, _) = machine.dataset("/imu", 3, 2);
    let found = soon("find", shopper.buyer.feeds().find(&machine.link().await)).await.unwrap();
    assert_eq!((found.peer, found.own), (machine.peer(), false));
    let followed = soon("follow", shopper.buyer.feeds().follow(&machine.link().await, Streams::All)).await;
    assert!(!followed.unwrap().0.own);
    let datasets = shopper.buyer.feeds().datasets(&machine.did).await.unwrap();
    assert_eq!((datasets.len(), datasets[0].dataset), (1, dataset));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_feed_for_a_did_that_is_not_the_signers_is_refused() {
    let (machine, other, shopper) = (Machine::new(3).await, Machine::new(4).await, Shopper::new().await);
    // It serves its own bindings under another machine's name.
    let link = FeedLink::new(other.did, machine.client.listen_addrs().await.unwrap());
    let found = soon("find", shopper.buyer.feeds().find(&link)).await;
    assert!(matches!(found, Err(FollowError::Unknown { .. })), "{found:?}");

    let genuine = std::mem::take(&mut *machine.bindings.lock().unwrap());
    let mut forged = genuine[0].encode();
    let byte = forged.len() - 10;
    forged[byte] ^= 1;
    machine.bindings.lock().unwrap().push(SignedBinding::decode(&forged).unwrap());
    let found = soon("find", shopper.buyer.feeds().find(&machine.link().await)).await;
    assert!(matches!(found, Err(FollowError::Chain { .. })), "{found:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn gossip_is_judged_in_order() {
    let (machine, stranger, shopper) = (Machine::new(6).await, Machine::new(7).await, Shopper::new().await);
    machine.announce("/imu");
    shopper.follow(&machine).await;
    let (buyer, source) = (&shopper.buyer, machine.peer());
    let topic = topic_machine(&machine.did);
    let entry = machine.append(LogId::MACHINE, note("first"));
    let message = gossip(&entry, None);

    assert_eq!(buyer.feeds().on_gossip(&topic, source, vec![0; 64 << 10]).await, Acceptance::Reject);
    assert_eq!(buyer.feeds().on_gossip(&topic, source, b"garbage".to_vec()).await, Acceptance::Reject);
    assert_eq!(
        buyer.feeds().on_gossip(&topic_machine(&stranger.did), source, message.clone()).await,
        Acceptance::Ignore
    );
    let misplaced = topic_stream(&machine.did, &machine.stream("/imu"));
    assert_eq!(buyer.feeds().on_gossip(&misplaced, source, message.clone()).await, Acceptance::Reject);
    let mut bad = entry.bytes().to_vec();
    *bad.last_mut().unwrap() ^= 1;
    let bad = FeedMessage::Entry { entry: bad, attachment: None }.encode().unwrap();
    assert_eq!(buyer.feeds().on_gossip(&topic, source, bad).await, Acceptance::Reject);
    let forged = SignedEntry::sign(entry.entry().clone(), &FeedKey::generate(&mut rng(8))).unwrap();
    assert_eq!(buyer.feeds().on_gossip(&topic, source, gossip(&forged, None)).await, Acceptance::Ignore);
    assert_eq!(buyer.feeds().on_gossip(&topic, source, message.clone()).await, Acceptance::Accept);
    assert_eq!(buyer.feeds().on_gossip(&topic, source, message).await, Acceptance::Ignore);
    let key = entry.entry().key();
    assert_eq!(shopper.store.entry(&key, entry.entry().seq).unwrap().as_deref(), Some(entry.bytes()));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_attachment_is_kept_only_if_it_is_the_announced_chunk() {
    let (machine, shopper) = (Machine::new(9).await, Shopper::new().await);
    machine.announce("/imu");
    shopper.follow(&machine).await;
    let (buyer, source) = (&shopper.buyer, machine.peer());
    let topic = topic_stream(&machine.did, &machine.stream("/imu"));
    let mut builder = machine.builder("/imu");
    let mut hashes = Vec::new();
    for good in [false, true] {
        let slice = (b"hello".to_vec(), 0, 0);
        let (entry, mut body) = machine.chunk("/imu", &mut builder, slice, ContentEncoding::PACKAGES);
        machine.keep_chunk(&entry, body.clone());
        body[0] ^= u8::from(!good);
        let expected = if good { Acceptance::Accept } else { Acceptance::Reject };
        assert_eq!(buyer.feeds().on_gossip(&topic, source, gossip(&entry, Some(body))).await, expected);
        let EntryBody::Chunk(record) = &entry.entry().body else { panic!("a chunk") };
        hashes.push(record.hash);
        assert_eq!(shopper.store.has_chunk(&record.hash).unwrap(), good);
        // The entry itself is signed, whatever came with it.
        assert!(shopper.store.entry(&entry.entry().key(), entry.entry().seq).unwrap().is_some());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_gap_is_filled_by_catching_up_and_nothing_is_asked_for_twice() {
    let (machine, shopper) = (Machine::new(10).await, Shopper::new().await);
    shopper.follow(&machine).await;
    for i in 0..600 {
        machine.append(LogId::MACHINE, note(&format!("missed {i}")));
    }
    let mut events = shopper.buyer.feeds().watch();
    let last = machine.append(LogId::MACHINE, note("heard"));
    let (topic, next) = (topic_machine(&machine.did), last.entry().seq + 1);
    machine.asked.lock().unwrap().clear();
    let accepted = shopper.buyer.feeds().on_gossip(&topic, machine.peer(), gossip(&last, None)).await;
    assert_eq!(accepted, Acceptance::Accept);
    let mut seen = 1;
    while seen < next {
        if let FeedEvent::Entries { first, count, .. } = soon("events", events.recv()).await.unwrap() {
            assert_eq!(first, seen);
            seen += count;
        }
    }
    assert_eq!(seen, next);
    let froms: Vec<u64> = machine
        .asked
        .lock()
        .unwrap()
        .iter()
        .filter_map(|request| match request {
            SyncRequest::Entries { from, .. } => Some(*from),
            _ => None,
        })
        .collect();
    assert_eq!(froms, [1, 257, 513]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restart_continues_without_fetching_again() {
    let (machine, shopper) = (Machine::new(11).await, Shopper::new().await);
    machine.announce("/imu");
    machine.dataset("/imu", 5, 1);
    shopper.follow(&machine).await;
    machine.asked.lock().unwrap().clear();
    let shopper = shopper.restart().await;
    assert_eq!(shopper.buyer.feeds().followed(), [machine.did]);
    let report = soon("catch up", shopper.buyer.feeds().catch_up(&machine.did)).await.unwrap();
    assert_eq!((report.entries, report.bindings, machine.asked_entries()), (0, 0, 0));
    let more = machine.append(LogId::MACHINE, note("after the restart"));
    soon("catch up", shopper.buyer.feeds().catch_up(&machine.did)).await.unwrap();
    let key = more.entry().key();
    assert!(shopper.store.entry(&key, more.entry().seq).unwrap().is_some());
    let asked = machine.asked.lock().unwrap().clone();
    assert!(
        asked.iter().all(|request| !matches!(request, SyncRequest::Entries { from, .. } if *from != more.entry().seq))
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn two_stories_are_proven_and_the_feed_is_flagged() {
    let (machine, shopper) = (Machine::new(12).await, Shopper::new().await);
    shopper.follow(&machine).await;
    let topic = topic_machine(&machine.did);
    let other = machine.sign(LogId::MACHINE, note("one story"));
    let kept = machine.append(LogId::MACHINE, note("another story"));
    let buyer = &shopper.buyer;
    let mut events = buyer.feeds().watch();
    assert_eq!(buyer.feeds().on_gossip(&topic, machine.peer(), gossip(&kept, None)).await, Acceptance::Accept);
    assert_eq!(buyer.feeds().on_gossip(&topic, machine.peer(), gossip(&other, None)).await, Acceptance::Accept);
    assert!(matches!(events.recv().await, Ok(FeedEvent::Entries { .. })));
    assert!(matches!(events.recv().await, Ok(FeedEvent::Equivocation { did }) if did == machine.did));
    assert_eq!(buyer.feeds().status(&machine.did).await.unwrap().equivocations, 1);
    assert_eq!(shopper.store.entry(&kept.entry().key(), kept.entry().seq).unwrap().as_deref(), Some(kept.bytes()));
    let shopper = shopper.restart().await;
    assert_eq!(shopper.buyer.feeds().status(&machine.did).await.unwrap().equivocations, 1);
    assert_eq!(shopper.store.rows(Table::Evidence, machine.did.as_bytes(), None, 9).unwrap().len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rotation_cuts_back_what_the_old_key_wrote_past_it() {
    let (machine, shopper) = (Machine::new(13).await, Shopper::new().await);
    let kept = machine.append(LogId::MACHINE, note("before"));
    machine.append(LogId::MACHINE, note("by the thief"));
    machine.append(LogId::MACHINE, note("by the thief again"));
    shopper.follow(&machine).await;

    let before = machine.bindings.lock().unwrap()[0].clone();
    let feed = FeedKey::generate(&mut rng(14));
    let binding = Binding {
        serial: 1,
        prev: before.hash(),
        feed_key: feed.public(),
        positions: vec![LogPosition { log: LogId::MACHINE, from_seq: 2, prev_entry_hash: kept.hash() }],
        ..before.binding().clone()
    };
    let signed = SignedBinding::sign(binding, &machine.identity).unwrap().co_sign(&machine.owner);
    machine.bindings.lock().unwrap().push(signed.clone());
    let key = LogKey { did: machine.did, log: LogId::MACHINE, incarnation: 0 };
    let entry = Entry {
        did: machine.did,
        log: LogId::MACHINE,
        incarnation: 0,
        seq: 2,
        prev: kept.hash(),
        time_ms: NOW + 50,
        body: EntryBody::Binding(signed),
    };
    let entry = SignedEntry::sign(entry, &feed).unwrap();
    // The binding travels in the very entry that it makes good.
    let topic = topic_machine(&machine.did);
    assert_eq!(shopper.buyer.feeds().on_gossip(&topic, machine.peer(), gossip(&entry, None)).await, Acceptance::Accept);
    assert_eq!(shopper.store.entry(&key, 2).unwrap().as_deref(), Some(entry.bytes()));
    assert_eq!(shopper.store.head(&key).unwrap().map(|(seq, _)| seq), Some(2));
    assert_eq!(shopper.store.evidence(&key, 0, 9).unwrap().len(), 2);
    assert_eq!(shopper.buyer.feeds().status(&machine.did).await.unwrap().binding_serial, Some(1));
}

#[tokio::test(flavor = "multi_thread")]
async fn heads_tell_how_far_a_log_goes() {
    let (machine, shopper) = (Machine::new(15).await, Shopper::new().await);
    shopper.follow(&machine).await;
    let topic = topic_machine(&machine.did);
    let head = |head: &[u8]| FeedMessage::Head(head.to_vec()).encode().unwrap();
    let good = machine.head(LogId::MACHINE);
    let buyer = &shopper.buyer;
    assert_eq!(buyer.feeds().on_gossip(&topic, machine.peer(), head(good.bytes())).await, Acceptance::Accept);
    let mut bad = *good.bytes();
    bad[200] ^= 1;
    assert_eq!(buyer.feeds().on_gossip(&topic, machine.peer(), head(&bad)).await, Acceptance::Reject);
    let status = buyer.feeds().status(&machine.did).await.unwrap();
    assert_eq!((status.logs[0].announced, status.logs[0].head_ms), (Some(1), Some(NOW)));
}

#[tokio::test(flavor = "multi_thread")]
async fn only_the_chosen_streams_are_followed() {
    let (machine, shopper) = (Machine::new(16).await, Shopper::new().await);
    for name in ["/imu", "/camera"] {
        machine.announce(name);
        machine.dataset(name, 2, 1);
    }
    let streams = Streams::Names(vec!["/imu".into()]);
    soon("follow", shopper.buyer.feeds().follow(&machine.link().await, streams)).await.unwrap();
    let followed: Vec<(String, bool, u64)> = shopper
        .buyer
        .feeds()
        .streams(&machine.did)
        .await
        .unwrap()
        .into_iter()
        .map(|stream| (stream.name, stream.followed, stream.chunks))
        .collect();
    assert_eq!(followed, [("/camera".into(), false, 0), ("/imu".into(), true, 2)]);
    soon("follow", shopper.buyer.feeds().follow(&machine.link().await, Streams::All)).await.unwrap();
    assert_eq!(shopper.buyer.feeds().streams(&machine.did).await.unwrap()[0].chunks, 2);
}
