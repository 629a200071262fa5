//! Entries and heads that a stranger gossips: forged, altered, old, early, and those of a machine that lies.

use tributary::service::status::WarningCode;
use tributary_protocol::{
    entry::{Entry, Head, SignedEntry, SignedHead},
    feed::Evidence,
    ids::{LogId, LogKey},
    keys::FeedKey,
    wire::{FeedMessage, SyncRequest, SyncResponse, gossip::topic_log, topic_machine},
};
use tributary_tests::{
    hostile::{Attacker, Ground, TOPIC, raw, seen},
    node::{NodeProcess, command},
    trade,
    wait::until,
};

/// Below this score a peer is not listened to at all (gossipsub's graylist).
const UNHEARD: f64 = -80.0;

/// All entries of a log, as anybody can have them.
async fn entries(peer: &Attacker, ground: &Ground, log: LogId) -> Vec<SignedEntry> {
    let log = LogKey { did: ground.did, log, incarnation: 0 };
    let request = SyncRequest::Entries { log, from: 0, max: 1000 }.encode().unwrap();
    match SyncResponse::decode(&raw::ask(peer, "/tributary/sync/1", &request).await).unwrap() {
        SyncResponse::Entries { entries, .. } => {
            entries.iter().map(|bytes| SignedEntry::decode(bytes).unwrap()).collect()
        }
        other => panic!("no entries: {other:?}"),
    }
}

fn message(entry: &SignedEntry) -> Vec<u8> {
    FeedMessage::Entry { entry: entry.bytes().to_vec(), attachment: None }.encode().unwrap()
}

/// The entry behind `last`, with the same statement, by `key`.
fn next(last: &SignedEntry, key: &FeedKey) -> SignedEntry {
    let entry = last.entry().clone();
    SignedEntry::sign(Entry { seq: entry.seq + 1, prev: last.hash(), ..entry }, key).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn forged_and_altered_entries_are_refused_and_their_sender_is_no_longer_heard() {
    let ground = Ground::start().await;
    let log = ground.log().await;
    let topic = topic_log(&ground.did, &log);
    let spy = Attacker::connect(&ground.machine_at).await;
    let last = entries(&spy, &ground, log).await.pop().unwrap();
    let thief = FeedKey::generate(&mut rand::rng());

    let attacker = Attacker::connect(&ground.buyer_at).await;
    let mut altered = message(&last);
    *altered.last_mut().unwrap() ^= 1;
    let head = Head {
        did: ground.did,
        log,
        incarnation: 0,
        seq: last.entry().seq + 100,
        entry_hash: last.hash(),
        time_ms: last.entry().time_ms,
    };
    let forged_head = FeedMessage::Head(SignedHead::sign(head, &thief).bytes().to_vec()).encode().unwrap();
    let mut forged_signature = forged_head.clone();
    *forged_signature.last_mut().unwrap() ^= 1;
    let elsewhere = message(&entries(&spy, &ground, LogId::MACHINE).await[0]);
    // By nobody's key; not as signed; about another log than the topic's; bytes that are nothing; attached what does not belong.
    let attached =
        FeedMessage::Entry { entry: last.bytes().to_vec(), attachment: Some(vec![7; 1000]) }.encode().unwrap();
    attacker.publish_surely(&topic, &message(&next(&last, &thief))).await;
    let mut sent = 1;
    for bytes in [altered, forged_head, forged_signature, elsewhere, b"nothing at all".to_vec(), attached] {
        sent += u64::from(attacker.publish(&topic, bytes).await);
    }
    assert_eq!(sent, 7);
    let score = until("the sender's score to fall", async || {
        seen(&ground.buyer, &attacker.id()).await.map(|peer| peer.score).filter(|score| *score < UNHEARD)
    })
    .await;
    let rejected = ground.buyer.status().await.traffic.gossip.rejected;
    assert!(rejected >= 3, "{rejected} rejected, score {score}");

    // What he says from now on is not even looked at.
    let arrived = ground.buyer.status().await.traffic.gossip.rejected;
    for n in 0..50_u8 {
        attacker.publish(&topic, vec![n; 100]).await;
    }
    assert_eq!(ground.equivocations().await, 0, "the machine is not blamed");
    let buyer = ground.buyer.status().await;
    let known = buyer.followed[0].logs.iter().find(|known| known.log == log).unwrap();
    assert_eq!(known.entries, last.entry().seq + 1, "nothing of it was kept");
    assert!(buyer.traffic.gossip.rejected < arrived + 10, "{:?}", buyer.traffic.gossip);
    drop((attacker, spy));
    ground.stood().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn replayed_entries_change_nothing_and_blame_nobody() {
    let ground = Ground::start().await;
    let log = ground.log().await;
    let spy = Attacker::connect(&ground.machine_at).await;
    let attacker = Attacker::connect(&ground.buyer_at).await;
    let mut sent = 0;
    for (log, topic) in [(log, topic_log(&ground.did, &log)), (LogId::MACHINE, topic_machine(&ground.did))] {
        let entries = entries(&spy, &ground, log).await;
        attacker.publish_surely(&topic, &message(&entries[0])).await;
        for _ in 0..50 {
            for entry in &entries {
                sent += u64::from(attacker.publish(&topic, message(entry)).await);
            }
        }
    }
    assert!(sent >= 100, "{sent}");
    let gossip = until("the replays to arrive", async || {
        let gossip = ground.buyer.status().await.traffic.gossip;
        (gossip.duplicates > 50).then_some(gossip)
    })
    .await;
    let held = entries(&spy, &ground, log).await.len() as u64;
    let status = ground.buyer.status().await;
    let known = status.followed[0].logs.iter().find(|known| known.log == log).unwrap();
    assert_eq!((known.entries, gossip.rejected, status.followed[0].equivocations), (held, 0, 0));
    // Whoever forwards what others have seen is no offender.
    assert!(seen(&ground.buyer, &attacker.id()).await.unwrap().score > -10.0);
    drop((attacker, spy));
    ground.stood().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn two_stories_are_proven_kept_and_shown_and_their_messenger_is_not_punished() {
    let ground = Ground::start().await;
    let (log, key) = (ground.log().await, ground.feed_key());
    let spy = Attacker::connect(&ground.machine_at).await;
    let last = entries(&spy, &ground, log).await.pop().unwrap();
    // The machine's own key signs another story for a position that is taken.
    let mut other = last.entry().clone();
    other.time_ms += 1;
    let other = SignedEntry::sign(other, &key).unwrap();
    let messenger = Attacker::connect(&ground.buyer_at).await;
    messenger.publish_surely(&topic_log(&ground.did, &log), &message(&other)).await;
    until("the proof", async || (ground.equivocations().await > 0).then_some(())).await;
    let status = ground.buyer.status().await;
    assert!(status.warnings.iter().any(|warning| warning.code == WarningCode::Equivocation), "{:?}", status.warnings);
    // Both statements can be shown to others, who need no more than the machine's binding.
    let [proof] = &status.followed[0].proofs[..] else { panic!("{:?}", status.followed[0]) };
    assert_eq!((proof.log, proof.seq), (log, last.entry().seq));
    assert!(proof.entries.contains(&last.hash()) && proof.entries.contains(&other.hash()), "{proof:?}");
    let shown = Evidence::decode(&hex::decode(&proof.evidence).unwrap()).unwrap();
    assert!(matches!(shown, Evidence::Entries(two) if two.0 == last || two.1 == last));
    let ended = command(ground.buyer.home(), &["status"]).await;
    assert!(ended.stdout.contains("signed two entries for position"), "{ended:?}");
    let peer = seen(&ground.buyer, &messenger.id()).await.unwrap();
    assert!(peer.score > -10.0 && status.traffic.gossip.rejected == 0, "{peer:?}");
    // A key that speaks for nobody proves nothing: it is noise or a forgery, and no second proof.
    let thief = FeedKey::generate(&mut rand::rng());
    let noise =
        SignedEntry::sign(Entry { time_ms: other.entry().time_ms + 1, ..other.entry().clone() }, &thief).unwrap();
    assert!(messenger.publish(&topic_log(&ground.did, &log), message(&noise)).await);

    // The proof outlives the process.
    drop(messenger);
    let home = ground.buyer.home().to_owned();
    let Ground { mut buyer, machine, .. } = ground;
    buyer.kill();
    let buyer = NodeProcess::start(&home).await;
    let status = buyer.status().await;
    assert_eq!(status.followed[0].equivocations, 1, "{:?}", status.followed);
    assert!(status.warnings.iter().any(|warning| warning.code == WarningCode::Equivocation));
    // The machine has heard of it too, and says no more: somebody else has its keys.
    until("the machine to stop publishing", async || {
        let warnings = machine.status().await.warnings;
        warnings.iter().any(|warning| warning.code == WarningCode::Displaced).then_some(())
    })
    .await;
    buyer.stop().await;
    machine.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_entry_that_comes_early_costs_its_forwarder_nothing() {
    let ground = Ground::start().await;
    let log = ground.log().await;
    let topic = topic_log(&ground.did, &log);
    let Ground { machine, buyer, did, machine_at, buyer_at, sandbox, .. } = ground;
    let (home, seller) = (buyer.home().to_owned(), machine.home().to_owned());
    buyer.stop().await;
    // While the buyer is away, more is published; a forwarder has it, and then the machine is gone.
    let dataset = trade::ingest(&machine, TOPIC, 500, 200).await;
    let spy = Attacker::connect(&machine_at).await;
    let all = {
        let key = LogKey { did, log, incarnation: 0 };
        let request = SyncRequest::Entries { log: key, from: 0, max: 1000 }.encode().unwrap();
        match SyncResponse::decode(&raw::ask(&spy, "/tributary/sync/1", &request).await).unwrap() {
            SyncResponse::Entries { entries, .. } => entries,
            other => panic!("{other:?}"),
        }
    };
    drop(spy);
    machine.stop().await;
    let buyer = NodeProcess::start(&home).await;
    let held = async || {
        let status = buyer.status().await;
        status.followed[0].logs.iter().find(|known| known.log == log).unwrap().entries
    };
    let before = held().await;
    assert!(before + 2 < all.len() as u64, "{before} of {}", all.len());

    let forwarder = Attacker::connect(&buyer_at).await;
    let early = &all[usize::try_from(before).unwrap() + 2..];
    for bytes in early {
        let entry = SignedEntry::decode(bytes).unwrap();
        forwarder.publish_surely(&topic, &message(&entry)).await;
    }
    until("the early entries to be looked at", async || {
        (buyer.status().await.traffic.gossip.received >= early.len() as u64).then_some(())
    })
    .await;
    let status = buyer.status().await;
    assert_eq!((held().await, status.traffic.gossip.rejected, status.traffic.bans), (before, 0, 0));
    assert!(seen(&buyer, &forwarder.id()).await.unwrap().score > -10.0);
    drop(forwarder);

    let machine = NodeProcess::start(&seller).await;
    trade::follow(&buyer, &machine).await;
    trade::know(&buyer, dataset).await;
    trade::buy(&buyer, dataset).await;
    assert_eq!(held().await, all.len() as u64);
    buyer.stop().await;
    machine.stop().await;
    drop(sandbox);
}
