use super::{
    testbed::{Machine, Node, START_MS, copy, first_binding, rng},
    *,
};
use crate::{
    binding::{BindingError, MAX_LIFE_MS},
    dataset::DatasetEntry,
    entry::Entry,
    identity::IdentityKey,
    ids::{DatasetId, StreamId},
    keys::{EncryptionKey, FeedKey},
    keytree::Position,
};

const APPLIED: EntryVerdict = EntryVerdict::Apply {
    settled: true,
    flags: Flags { ahead_of_clock: false, time_went_back: false, stale_binding: false, second_close: false },
};

/// A machine with four entries in each of two logs, and a node that holds them.
fn world(seed: u64) -> (Machine, Node, LogId) {
    let mut machine = Machine::new(seed);
    let log = machine.stream(1);
    for _ in 0..4 {
        machine.append(log);
        machine.append(LogId::MACHINE);
    }
    let node = Node::following(&machine);
    node.assert_equals(&machine);
    (machine, node, log)
}

#[test]
fn a_forged_did_is_refused() {
    let mut rng = rng(1);
    let (victim, thief, owner) =
        (IdentityKey::generate(&mut rng), IdentityKey::generate(&mut rng), IdentityKey::generate(&mut rng));
    let key = FeedKey::generate(&mut rng);
    let mine = SignedBinding::sign(first_binding(&thief, &owner, &key, &mut rng), &thief).expect("valid");
    // The thief's binding, with the victim's address put in its place: the signature is over other bytes.
    let mut bytes = mine.encode();
    bytes[4..24].copy_from_slice(victim.did().as_bytes());
    let forged = SignedBinding::decode(&bytes).expect("well formed");
    assert_eq!(forged.binding().did, victim.did());
    let mut node = Node::new(victim.did());
    let refused = ChainError::Binding(BindingError::IdentitySignature { did: victim.did(), serial: 0 });
    assert_eq!(node.binding(&forged), Err(refused));
    let other = ChainError::OtherMachine { expected: victim.did(), found: thief.did() };
    assert_eq!(node.binding(&mine), Err(other));
    assert!(node.follower.chain().is_none());
}

#[test]
fn a_forged_feed_key_gets_nothing_in() {
    let (machine, mut node, log) = world(2);
    let thief = FeedKey::generate(&mut rng(99));
    let forged = machine.forge(&thief, (log, 0), 4, machine.prev((log, 0), 4), 1);
    assert_eq!(node.entry(&forged), EntryVerdict::UnknownKey);
    // Naming the real key as the signer does not help.
    let mut bytes = machine.forge(&machine.key, (log, 0), 4, machine.prev((log, 0), 4), 1).into_bytes();
    let last = bytes.len() - 1;
    bytes[last - 40] ^= 1;
    let forged = SignedEntry::decode(&bytes).expect("well formed");
    assert_eq!(node.entry(&forged), EntryVerdict::BadSignature);
    // And a binding that names the thief's key is not the owner's.
    let binding = machine.next_binding(&thief, 0, |_, len| len);
    let unsigned = SignedBinding::sign(binding.clone(), &machine.identity).expect("valid");
    assert!(matches!(
        node.binding(&unsigned),
        Err(ChainError::Binding(BindingError::OwnerSignatureForm { serial: 1, .. }))
    ));
    let self_signed = SignedBinding::sign(binding, &machine.identity).expect("valid").co_sign(&machine.identity);
    assert!(matches!(
        node.binding(&self_signed),
        Err(ChainError::Binding(BindingError::OwnerSignature { serial: 1, .. }))
    ));
    node.assert_equals(&machine);
}

#[test]
fn a_retired_key_that_backdates_is_noise() {
    let (mut machine, mut node, log) = world(3);
    let stolen = machine.rotate(true, false, |_, len| len);
    machine.append(log);
    node.sync(&machine);
    let at = (log, 0);
    // In its own time, on a branch of its own.
    for seq in 0..4 {
        let forged = machine.forge(&stolen, at, seq, machine.prev(at, seq), 77);
        assert_eq!(node.entry(&forged), EntryVerdict::Stale(Stale::OffThePin), "position {seq}");
    }
    // After its time; and in a log that never was.
    for (at, seq) in [(at, 4), (at, 5), ((machine.stream(9), 0), 0)] {
        let forged = machine.forge(&stolen, at, seq, Hash::ZERO, 77);
        assert_eq!(node.entry(&forged), EntryVerdict::Stale(Stale::RetiredKey), "position {seq}");
    }
    let head = Head { did: machine.did(), log, incarnation: 0, seq: 9, entry_hash: Hash::ZERO, time_ms: u64::MAX };
    let head = SignedHead::sign(head, &stolen);
    assert_eq!(node.follower.on_head(&head, &node.shelf), HeadVerdict::Stale(Stale::RetiredKey));
    assert_eq!(node.follower.noise(), 8);
    node.assert_equals(&machine);
}

#[test]
fn a_new_node_is_not_led_off_the_pinned_chain() {
    let (mut machine, _, log) = world(4);
    let at = (log, 0);
    let stolen = machine.rotate(true, false, |_, len| len);
    machine.append(log);
    let mut node = Node::new(machine.did());
    machine.bindings.iter().for_each(|binding| drop(node.binding(binding).expect("in order")));
    // The thief is first, with two positions of its own.
    let mut prev = Hash::ZERO;
    for seq in 0..2 {
        let forged = machine.forge(&stolen, at, seq, prev, 88);
        prev = forged.hash();
        assert!(matches!(node.entry(&forged), EntryVerdict::Apply { settled: false, .. }));
    }
    assert_eq!(node.follower.settled(&log, 0), 0);
    let honest = machine.logs[&at].clone();
    assert_eq!(node.entry(&honest[2]), EntryVerdict::Forked { settled: 0 });
    node.abandon(at);
    assert!(matches!(node.entry(&honest[0]), EntryVerdict::Apply { settled: false, .. }));
    // A branch up to the pin does not get over it, and the pinned entry shows that the branch is wrong.
    node.abandon(at);
    let mut prev = Hash::ZERO;
    for seq in 0..3 {
        let forged = machine.forge(&stolen, at, seq, prev, 89);
        prev = forged.hash();
        node.entry(&forged);
    }
    let forged = machine.forge(&stolen, at, 3, prev, 89);
    assert_eq!(node.entry(&forged), EntryVerdict::Stale(Stale::OffThePin));
    let cut = Truncated { log: honest[0].entry().key(), from_seq: 0 };
    assert_eq!(node.entry(&honest[3]), EntryVerdict::Diverged(cut));
    node.sync(&machine);
    node.assert_equals(&machine);
}

#[test]
fn a_replayed_binding_changes_nothing() {
    let (mut machine, mut node, log) = world(5);
    machine.rotate(true, false, |_, len| len);
    machine.rotate(true, false, |_, len| len);
    machine.append(log);
    node.sync(&machine);
    for binding in &machine.bindings.clone() {
        let outcome = node.binding(binding).expect("known");
        assert_eq!(outcome, BindingOutcome { accepted: Accepted::Known, truncated: vec![] });
    }
    assert_eq!(node.follower.next_serial(), 3);
    node.assert_equals(&machine);
    // Nor does it count as the next one of a chain it does not continue.
    let mut other = Node::new(machine.did());
    other.binding(&machine.bindings[0]).expect("the first");
    assert_eq!(other.binding(&machine.bindings[2]), Err(ChainError::Gap { expected: 1, found: 2 }));
}

#[test]
fn a_second_binding_of_one_serial_is_a_fork_only_if_all_signed_it() {
    let (mut machine, mut node, _) = world(6);
    let rival_key = FeedKey::generate(&mut rng(7));
    let rival = machine.next_binding(&rival_key, 0, |_, len| len);
    machine.rotate(true, false, |_, len| len);
    node.sync(&machine);
    let unsigned = SignedBinding::sign(rival, &machine.identity).expect("valid");
    assert!(matches!(node.binding(&unsigned), Err(ChainError::Binding(_))));
    let signed = unsigned.co_sign(&machine.owner);
    assert_eq!(node.binding(&signed), Err(ChainError::Fork { did: machine.did(), serial: 1 }));
    node.assert_equals(&machine);
}

#[test]
fn the_owner_changes_only_with_the_old_owners_signature() {
    let (machine, mut node, _) = world(7);
    let new_owner = IdentityKey::generate(&mut rng(70));
    let mut binding = machine.next_binding(&machine.key, 0, |_, len| len);
    binding.owner_id = new_owner.did();
    binding.owner_enc = EncryptionKey::generate(&mut rng(71)).public();
    let signed = SignedBinding::sign(binding, &machine.identity).expect("valid");
    assert!(node.binding(&signed.clone().co_sign(&new_owner)).is_err());
    node.binding(&signed.co_sign(&machine.owner)).expect("the old owner agrees");
    let owner = node.follower.chain().map(|chain| chain.current().owner_id);
    assert_eq!(owner, Some(new_owner.did()));
}

#[test]
fn a_chain_refuses_a_falling_incarnation_a_retired_key_and_another_beginning() {
    let (mut machine, _, log) = world(8);
    let old = machine.rotate(true, true, |_, len| len);
    machine.append(log);
    let sign = |binding| SignedBinding::sign(binding, &machine.identity).expect("valid").co_sign(&machine.owner);
    let mut chain = machine.chain();
    let fresh = FeedKey::generate(&mut rng(80));
    let refused = chain.accept(&sign(machine.next_binding(&fresh, 0, |_, len| len)));
    assert_eq!(refused, Err(ChainError::Incarnation { serial: 2, held: 1, found: 0 }));
    let refused = chain.accept(&sign(machine.next_binding(&old, 1, |_, len| len)));
    assert_eq!(refused, Err(ChainError::RetiredKey { serial: 2 }));
    let mut binding = machine.next_binding(&fresh, 1, |_, _| 0);
    binding.positions[0].prev_entry_hash = Hash::of(b"elsewhere");
    assert_eq!(chain.accept(&sign(binding)), Err(ChainError::Origin { serial: 2, log }));
    let mut binding = machine.next_binding(&fresh, 1, |_, len| len);
    binding.prev = Hash::of(b"another binding");
    assert_eq!(chain.accept(&sign(binding)), Err(ChainError::Predecessor { serial: 2 }));
    assert_eq!(chain.current().serial, 1);
}

#[test]
fn a_fork_by_the_current_key_is_proven_and_kept() {
    let (machine, mut node, log) = world(9);
    let at = (log, 0);
    let fork = machine.forge(&machine.key, at, 2, machine.prev(at, 2), 5);
    let EntryVerdict::Equivocation(proof) = node.entry(&fork) else { panic!("a fork goes unseen") };
    // One that only shows in what it names as its predecessor.
    let link = machine.forge(&machine.key, at, 4, Hash::of(b"another entry 3"), 5);
    let EntryVerdict::Equivocation(link) = node.entry(&link) else { panic!("a fork goes unseen") };
    // And a head that names another entry.
    let head = Head { entry_hash: Hash::of(b"another entry 3"), ..*machine.head(at).head() };
    let head = SignedHead::sign(head, &machine.key);
    let HeadVerdict::Equivocation(head) = node.follower.on_head(&head, &node.shelf) else { panic!("unseen") };
    assert_eq!(node.follower.evidence().len(), 3);
    let chain = machine.chain();
    let other = Machine::new(10).chain();
    for proof in [*proof, *link, *head] {
        // Anybody who knows the bindings can check it.
        let received = Evidence::decode(&proof.encode()).expect("evidence");
        assert_eq!(received, proof);
        assert!(received.stands(&chain) && !received.stands(&other));
    }
    // The same fork again is not another one; the node stays on what it had.
    node.entry(&fork);
    assert_eq!(node.follower.evidence().len(), 3);
    assert_eq!(node.follower.next(&log, 0), 4);
}

#[test]
fn evidence_that_a_stolen_key_explains_is_dropped() {
    let (mut machine, mut node, log) = world(11);
    let at = (log, 0);
    let stolen = copy(&machine.key);
    let fork = machine.forge(&stolen, at, 2, machine.prev(at, 2), 5);
    let EntryVerdict::Equivocation(proof) = node.entry(&fork) else { panic!("a fork goes unseen") };
    machine.rotate(true, false, |_, len| len);
    assert!(!proof.stands(&machine.chain()));
    node.sync(&machine);
    node.assert_equals(&machine);
}

#[test]
fn an_entry_is_no_evidence_against_itself() {
    let (machine, _, log) = world(12);
    let entry = machine.logs[&(log, 0)][1].clone();
    let next = machine.logs[&(log, 0)][2].clone();
    for pair in [(entry.clone(), entry.clone()), (entry, next)] {
        assert!(!Evidence::Entries(Box::new(pair)).stands(&machine.chain()));
    }
}

#[test]
fn nobody_but_the_machine_can_make_evidence_against_it() {
    let (machine, _, log) = world(24);
    let (chain, at) = (machine.chain(), (log, 0));
    let held = machine.logs[&at][2].clone();
    let stands = |second: &SignedEntry| Evidence::Entries(Box::new((held.clone(), second.clone()))).stands(&chain);
    let fork = machine.forge(&machine.key, at, 2, machine.prev(at, 2), 5);
    assert!(stands(&fork));
    // By another key; and in the machine's name, but with a signature it never made.
    assert!(!stands(&machine.forge(&FeedKey::generate(&mut rng(240)), at, 2, machine.prev(at, 2), 5)));
    let mut bytes = fork.into_bytes();
    let last = bytes.len() - 1;
    bytes[last - 40] ^= 1;
    assert!(!stands(&SignedEntry::decode(&bytes).expect("well formed")));
    let head = Head { entry_hash: Hash::of(b"another entry 3"), ..*machine.head(at).head() };
    let mut bytes = *SignedHead::sign(head, &machine.key).bytes();
    bytes[150] ^= 1;
    let head = SignedHead::decode(&bytes).expect("well formed");
    assert!(!Evidence::Head(Box::new((head, machine.logs[&at][3].clone()))).stands(&chain));
}

#[test]
fn a_gap_is_named_and_nothing_behind_it_is_applied() {
    let (mut machine, mut node, log) = world(13);
    let missed: Vec<_> = (0..3).map(|_| machine.append(log)).collect();
    assert_eq!(node.entry(&missed[2]), EntryVerdict::Ahead { from: 4, to: 6 });
    assert_eq!(node.follower.on_head(&machine.head((log, 0)), &node.shelf), HeadVerdict::Behind { from: 4, to: 7 });
    assert_eq!(node.follower.next(&log, 0), 4);
    for entry in &missed {
        assert_eq!(node.entry(entry), APPLIED);
    }
    assert_eq!(node.follower.on_head(&machine.head((log, 0)), &node.shelf), HeadVerdict::Current);
    assert_eq!(node.follower.newest_head(&log, 0), Some(&machine.head((log, 0))));
    node.assert_equals(&machine);
}

#[test]
fn entries_out_of_order_and_repeated_end_in_order() {
    let (machine, _, log) = world(14);
    let mut node = Node::new(machine.did());
    let entries = &machine.logs[&(log, 0)];
    assert_eq!(node.entry(&entries[0]), EntryVerdict::UnknownKey);
    node.binding(&machine.bindings[0]).expect("the first");
    for at in [2, 0, 3, 0, 1, 2, 1, 3] {
        node.entry(&entries[at]);
    }
    assert_eq!(node.follower.next(&log, 0), 4);
    assert_eq!(node.entry(&entries[0]), EntryVerdict::Known);
    assert_eq!(node.entry(&entries[3]), EntryVerdict::Known);
}

#[test]
fn a_log_is_truncated_only_by_a_binding_of_a_higher_serial() {
    let (mut machine, mut node, log) = world(15);
    let cut_off = machine.logs[&(log, 0)][3].clone();
    machine.rotate(true, false, |at, len| if at == log { len - 2 } else { len });
    let outcome = node.binding(&machine.bindings[1]).expect("the next");
    let cut = Truncated { log: cut_off.entry().key(), from_seq: 2 };
    assert_eq!(outcome.truncated, [cut]);
    assert_eq!(node.entry(&cut_off), EntryVerdict::Stale(Stale::RetiredKey));
    machine.append(log);
    node.sync(&machine);
    node.assert_equals(&machine);
}

#[test]
fn a_log_that_a_binding_does_not_list_is_gone() {
    let (mut machine, mut node, log) = world(16);
    let key = FeedKey::generate(&mut rng(160));
    let mut binding = machine.next_binding(&key, 0, |_, len| len);
    binding.positions.retain(|position| position.log != log);
    let signed = SignedBinding::sign(binding, &machine.identity).expect("valid").co_sign(&machine.owner);
    let outcome = node.binding(&signed).expect("the next");
    assert_eq!(outcome.truncated, [Truncated { log: LogKey { did: machine.did(), log, incarnation: 0 }, from_seq: 0 }]);
    machine.now_ms += 1;
    assert_eq!(node.follower.next(&LogId::MACHINE, 0), 4);
}

#[test]
fn a_renewal_of_the_same_key_cuts_nothing() {
    let (mut machine, mut node, log) = world(17);
    machine.rotate(false, false, |_, len| len);
    let ahead: Vec<_> = (0..2).map(|_| machine.append(log)).collect();
    // The entries are faster than the binding.
    for entry in &ahead {
        assert_eq!(node.entry(entry), APPLIED);
    }
    assert_eq!(node.binding(&machine.bindings[1]).expect("the next").truncated, []);
    node.sync(&machine);
    node.assert_equals(&machine);
}

#[test]
fn a_new_incarnation_closes_the_old_logs_and_links_to_them() {
    let (mut machine, mut node, log) = world(18);
    let last = machine.logs[&(log, 0)][3].clone();
    let stolen = machine.rotate(true, true, |_, len| len);
    let first = machine.append(log);
    assert_eq!(first.entry().prev, last.hash());
    assert_eq!(first.entry().key().incarnation, 1);
    assert_eq!(node.entry(&first), EntryVerdict::UnknownKey);
    node.sync(&machine);
    node.assert_equals(&machine);
    let late = machine.forge(&stolen, (log, 0), 4, last.hash(), 1);
    assert_eq!(node.entry(&late), EntryVerdict::Stale(Stale::Closed));
    let unlinked = machine.forge(&machine.key, (machine.stream(2), 1), 0, last.hash(), 1);
    assert_eq!(node.entry(&unlinked), EntryVerdict::Stale(Stale::OffThePin));
}

#[test]
fn a_follower_may_join_late_and_asks_for_nothing_before() {
    let (mut machine, _, log) = world(19);
    let at = (log, 0);
    let joiner = |machine: &Machine| {
        let mut node = Node::new(machine.did());
        node.binding(&machine.bindings[0]).expect("the first");
        node
    };
    let mut by_head = joiner(&machine);
    by_head.follower.join_after(&machine.head(at)).expect("proven");
    let entries = machine.logs[&at].clone();
    let mut by_entry = joiner(&machine);
    by_entry.follower.join_at(&entries[2]).expect("proven");
    assert_eq!(by_entry.follower.join_at(&entries[2]), Err(JoinError::Followed));
    assert_eq!(by_entry.entry(&entries[1]), EntryVerdict::BelowStart);
    assert_eq!(by_entry.entry(&entries[3]), APPLIED);
    let next = machine.append(log);
    for node in [&mut by_head, &mut by_entry] {
        assert_eq!(node.entry(&next), APPLIED);
    }
    let thief = FeedKey::generate(&mut rng(190));
    let forged = machine.forge(&thief, (machine.stream(2), 0), 7, Hash::ZERO, 1);
    assert_eq!(by_head.follower.join_at(&forged), Err(JoinError::NotProven));
    // A later binding that pins what is held keeps it, and one that goes back before the start drops it.
    machine.rotate(true, false, |_, len| len);
    assert_eq!(by_entry.follower.on_binding(&machine.bindings[1], &by_entry.shelf).expect("next").truncated, []);
    machine.rotate(true, false, |_, _| 1);
    let cut = by_head.binding(&machine.bindings[1]).and_then(|_| by_head.binding(&machine.bindings[2]));
    assert_eq!(cut.expect("next").truncated, [Truncated { log: next.entry().key(), from_seq: 4 }]);
}

#[test]
fn a_late_joiner_goes_back_only_along_the_true_chain() {
    let (machine, _, log) = world(20);
    let at = (log, 0);
    let entries = machine.logs[&at].clone();
    let mut node = Node::new(machine.did());
    node.binding(&machine.bindings[0]).expect("the first");
    assert_eq!(node.follower.extend_back(&entries[..3]), Err(JoinError::NotProven), "nothing is followed yet");
    node.follower.join_at(&entries[3]).expect("proven");

    assert_eq!(node.follower.extend_back(&entries[..2]), Err(JoinError::NotProven), "a gap before the start");
    let holed = [entries[0].clone(), entries[2].clone()];
    assert_eq!(node.follower.extend_back(&holed), Err(JoinError::NotProven), "a gap inside");
    let thief = FeedKey::generate(&mut rng(201));
    for (key, salt) in [(&machine.key, 7), (&thief, 8)] {
        // Signed by the right key or not: another entry is not the one whose hash is known.
        let other = machine.forge(key, at, 2, entries[1].hash(), salt);
        assert_eq!(node.follower.extend_back(&[other]), Err(JoinError::NotProven));
    }
    let start = |node: &Node| node.follower.tip(&log, 0).map(|tip| (tip.start, tip.next));
    assert_eq!(start(&node), Some((3, 4)), "nothing changed");

    node.follower.extend_back(&entries[1..3]).expect("proven");
    assert_eq!(start(&node), Some((1, 4)));
    node.follower.extend_back(&entries[..1]).expect("proven");
    assert_eq!(start(&node), Some((0, 4)));
    assert_eq!(node.follower.tip(&log, 0), Some(LogTip::of(&entries[0], &entries[3])));
}

#[test]
fn odd_times_raise_flags_and_block_nothing() {
    let (mut machine, mut node, log) = world(20);
    let now = machine.now_ms;
    machine.now_ms = START_MS + MAX_LIFE_MS - 1000;
    let flagged = |flags| EntryVerdict::Apply { settled: true, flags };
    let expired = machine.append(log);
    let stale = Flags { stale_binding: true, ahead_of_clock: true, ..Flags::default() };
    assert_eq!(node.entry_at(&expired, now), flagged(stale));
    machine.now_ms = START_MS;
    let back = machine.append(log);
    assert_eq!(node.entry_at(&back, now), flagged(Flags { time_went_back: true, ..Flags::default() }));
    node.assert_equals(&machine);
}

#[test]
fn a_second_close_of_a_dataset_is_an_equivocation() {
    let (mut machine, mut node, log) = world(21);
    let stream = log.stream().expect("a stream");
    for (number, seq) in [(1, 4), (2, 5)] {
        let close = DatasetEntry {
            dataset: DatasetId::of(&stream, 0, 0),
            stream,
            epoch: 0,
            incarnation: 0,
            chunk_count: number,
            package_count: 1,
            bytes: 1000,
            time_from_ms: 1,
            time_to_ms: 2,
            first_seq: 0,
            last_seq: u64::from(number) - 1,
            first_position: Position::MIN,
            last_position: Position::new(0, number - 1),
            merkle_root: [9; 32],
        };
        let entry = Entry {
            did: machine.did(),
            log: LogId::MACHINE,
            incarnation: 0,
            seq,
            prev: machine.prev((LogId::MACHINE, 0), seq),
            time_ms: machine.now_ms,
            body: EntryBody::DatasetClosed(close),
        };
        let entry = SignedEntry::sign(entry, &machine.key).expect("valid");
        machine.logs.get_mut(&(LogId::MACHINE, 0)).expect("there").push(entry.clone());
        let flags = Flags { second_close: number == 2, ..Flags::default() };
        assert_eq!(node.entry(&entry), EntryVerdict::Apply { settled: true, flags });
        assert_eq!(node.follower.evidence().len(), usize::from(number == 2));
    }
}

#[test]
fn a_restored_follower_goes_on_and_repeats_cuts_that_were_lost() {
    let (mut machine, mut node, log) = world(22);
    node.restart(&machine);
    machine.append(log);
    node.sync(&machine);
    node.assert_equals(&machine);
    // The binding was stored, the process died before the cut was.
    let tips: Vec<_> = node.follower.tips().collect();
    machine.rotate(true, false, |at, len| if at == log { 1 } else { len });
    let (follower, cuts) =
        Follower::restore(machine.did(), &machine.bindings, tips, &node.shelf).expect("stored bindings");
    assert_eq!(cuts, [Truncated { log: LogKey { did: machine.did(), log, incarnation: 0 }, from_seq: 1 }]);
    assert_eq!(follower.next(&log, 0), 1);
}

#[test]
fn no_machine_makes_a_node_follow_endless_logs() {
    let machine = Machine::new(23);
    let mut node = Node::new(machine.did());
    node.binding(&machine.bindings[0]).expect("the first");
    for number in 0..=MAX_LOGS {
        let log = StreamId::of(&machine.did(), &number.to_string()).into();
        let entry = machine.forge(&machine.key, (log, 0), 0, Hash::ZERO, 1);
        let expected = if number < MAX_LOGS { APPLIED } else { EntryVerdict::TooManyLogs };
        assert_eq!(node.entry(&entry), expected);
    }
}
