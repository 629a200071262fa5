use proptest::prelude::*;

use super::{body::*, *};
use crate::{
    feed::testbed::{Machine, START_MS, record, rng},
    ids::{DatasetId, StreamId},
    keys::{EncryptionKey, EncryptionPublicKey},
    keytree::EpochSeed,
};

fn entry(machine: &Machine, log: LogId, body: EntryBody) -> Entry {
    Entry { did: machine.did(), log, incarnation: 1, seq: 2, prev: Hash::of(b"before"), time_ms: START_MS, body }
}

fn stream_info(machine: &Machine, name: &str) -> StreamInfo {
    StreamInfo {
        stream: StreamId::of(&machine.did(), name),
        name: name.to_owned(),
        message_type: "sensor_msgs/msg/Imu".into(),
        mode: Mode::Fields,
        policy: Policy::Paid,
        price: "2 USDC an hour".into(),
        chunk_target: 256 * 1024,
    }
}

/// One of every kind.
fn bodies(machine: &Machine) -> Vec<(LogId, EntryBody)> {
    let stream = StreamId::of(&machine.did(), "/topic1");
    let at = EpochName { did: machine.did(), incarnation: 1, stream, epoch: 3 };
    let owner = EncryptionKey::generate(&mut rng(2)).public();
    let seed = EpochSeed::from_bytes(&[8; 32]);
    let mut builder = crate::dataset::DatasetBuilder::new(stream, 0, 0, 0);
    let mut first = record(stream, 0);
    first.chunk_id = crate::seal::chunk_id(None, &first.sha256, 0);
    builder.push(0, &first).expect("the first chunk");
    let closed = builder.close().expect("one chunk");
    let listing = Listing {
        subject: ListingSubject::Dataset(DatasetId::of(&stream, 0, 0)),
        withdrawn: false,
        title: "Harbour, June".into(),
        description: "IMU of a survey boat".into(),
        price: String::new(),
        terms: Hash::of(b"terms"),
    };
    let tombstone = |target| EntryBody::Tombstone(Tombstone { target, reason: "recorded by mistake".into() });
    let machine_log = [
        EntryBody::Binding(machine.bindings[0].clone()),
        EntryBody::Epoch(EpochInfo::seal(&at, START_MS, owner, &seed, &mut rng(3)).expect("sealed")),
        EntryBody::Stream(stream_info(machine, "/topic1")),
        EntryBody::DatasetClosed(closed),
        EntryBody::Listing(listing.clone()),
        EntryBody::Listing(Listing { subject: ListingSubject::Stream(stream), withdrawn: true, ..listing }),
        tombstone(TombstoneTarget::Chunks(vec![Hash::of(b"a"), Hash::of(b"b")])),
        tombstone(TombstoneTarget::Dataset(DatasetId::of(&stream, 0, 0))),
    ];
    let mut all = vec![(LogId::from(stream), EntryBody::Chunk(record(stream, 1)))];
    all.extend(machine_log.map(|body| (LogId::MACHINE, body)));
    all
}

#[test]
fn entries_of_every_kind_survive_their_bytes() {
    let machine = Machine::new(1);
    for (log, body) in bodies(&machine) {
        let signed = SignedEntry::sign(entry(&machine, log, body), &machine.key).expect("valid");
        let read = SignedEntry::decode(signed.bytes()).expect("valid");
        assert_eq!(read, signed);
        assert_eq!(read.verify_signature(), Ok(()));
        for len in 0..signed.bytes().len() {
            assert!(SignedEntry::decode(&signed.bytes()[..len]).is_err(), "cut to {len}");
        }
        assert!(SignedEntry::decode(&[signed.bytes(), &[0]].concat()).is_err());
    }
}

#[test]
fn the_bytes_are_those_of_the_table() {
    let machine = Machine::new(2);
    let stream = StreamId::of(&machine.did(), "/topic1");
    let signed = SignedEntry::sign(entry(&machine, stream.into(), EntryBody::Chunk(record(stream, 1))), &machine.key);
    let signed = signed.expect("valid");
    let bytes = signed.bytes();
    assert_eq!(bytes[..2], [1, 4]);
    assert_eq!(bytes[2..22], machine.did().to_bytes());
    assert_eq!(bytes[22..54], stream.to_bytes());
    assert_eq!(bytes[54..66], [0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 2]);
    assert_eq!(bytes[66..98], Hash::of(b"before").to_bytes());
    assert_eq!(bytes[98..106], START_MS.to_be_bytes());
    assert_eq!(bytes[106..108], 408u16.to_be_bytes());
    assert_eq!(bytes[108..516], record(stream, 1).encode());
    assert_eq!(bytes[516..548], machine.key.public().to_bytes());
    let signature = machine.key.sign(Context::Entry, &bytes[..548]);
    assert_eq!(bytes[548..], signature);
    assert_eq!(signed.hash().to_bytes(), blake3::derive_key("tributary 2026 log entry", &bytes[..548]));
}

#[test]
fn a_body_in_the_wrong_log_is_neither_signed_nor_read() {
    let machine = Machine::new(3);
    let (other, topic2) = (Machine::new(4), machine.stream(2));
    for (log, body) in bodies(&machine) {
        let elsewhere = if log == LogId::MACHINE { topic2 } else { LogId::MACHINE };
        let signed = SignedEntry::sign(entry(&machine, log, body.clone()), &machine.key).expect("valid");
        assert!(matches!(
            SignedEntry::sign(entry(&machine, elsewhere, body), &machine.key),
            Err(EntryError::Misplaced { .. })
        ));
        let mut moved = signed.into_bytes();
        moved[22..54].copy_from_slice(elsewhere.as_bytes());
        assert!(matches!(SignedEntry::decode(&moved), Err(EntryError::Misplaced { .. })));
    }
    let stream = StreamId::of(&machine.did(), "/topic1");
    let wrong = [
        (topic2, EntryBody::Chunk(record(stream, 1))),
        (LogId::MACHINE, EntryBody::Binding(other.bindings[0].clone())),
        (LogId::MACHINE, EntryBody::Stream(StreamInfo { name: "/else".into(), ..stream_info(&machine, "/topic1") })),
    ];
    for (log, body) in wrong {
        assert!(matches!(
            SignedEntry::sign(entry(&machine, log, body), &machine.key),
            Err(EntryError::Misplaced { .. })
        ));
    }
}

#[test]
fn what_a_body_may_not_say_is_not_signed() {
    let machine = Machine::new(5);
    let info = stream_info(&machine, "/topic1");
    let tombstone = |target| EntryBody::Tombstone(Tombstone { target, reason: String::new() });
    let stream = StreamId::of(&machine.did(), "/topic1");
    let bad_record = crate::record::ChunkRecord { len: 1, ..record(stream, 1) };
    let wrong = [
        (LogId::MACHINE, EntryBody::Stream(StreamInfo { chunk_target: 0, ..info.clone() })),
        (LogId::MACHINE, EntryBody::Stream(StreamInfo { chunk_target: (1 << 20) + 1, ..info.clone() })),
        (LogId::MACHINE, EntryBody::Stream(StreamInfo { price: "p".repeat(257), ..info.clone() })),
        (LogId::MACHINE, EntryBody::Stream(StreamInfo { message_type: "\u{1b}[2J".into(), ..info })),
        (LogId::MACHINE, tombstone(TombstoneTarget::Chunks(vec![]))),
        (LogId::MACHINE, tombstone(TombstoneTarget::Chunks(vec![Hash::ZERO; 257]))),
        (stream.into(), EntryBody::Chunk(bad_record)),
    ];
    for (log, body) in wrong {
        assert!(SignedEntry::sign(entry(&machine, log, body.clone()), &machine.key).is_err(), "{body:?}");
    }
    let most = tombstone(TombstoneTarget::Chunks(vec![Hash::ZERO; 256]));
    assert!(SignedEntry::sign(entry(&machine, LogId::MACHINE, most), &machine.key).is_ok());
}

#[test]
fn an_epoch_seed_opens_for_the_owner_where_it_was_published_only() {
    let (did, stream) = (Machine::new(6).did(), StreamId::from_bytes([4; 32]));
    let owner = EncryptionKey::generate(&mut rng(1));
    let seed = EpochSeed::from_bytes(&[8; 32]);
    let at = EpochName { did, incarnation: 1, stream, epoch: 3 };
    let info = EpochInfo::seal(&at, START_MS, owner.public(), &seed, &mut rng(2)).expect("sealed");
    assert_eq!(info.open(did, 1, &owner).expect("opens").as_bytes(), seed.as_bytes());
    let thief = EncryptionKey::generate(&mut rng(3));
    assert!(info.open(did, 1, &thief).is_err());
    assert!(info.open(Did::from_bytes([0; 20]), 1, &owner).is_err());
    assert!(info.open(did, 2, &owner).is_err());
    let moved = [
        EpochInfo { epoch: 4, ..info.clone() },
        EpochInfo { started_ms: START_MS + 1, ..info.clone() },
        EpochInfo { stream: StreamId::from_bytes([5; 32]), ..info },
    ];
    assert!(moved.iter().all(|info| info.open(did, 1, &owner).is_err()));
    let weak = EncryptionPublicKey::from_bytes([0; 32]);
    assert!(EpochInfo::seal(&at, START_MS, weak, &seed, &mut rng(2)).is_err());
}

proptest! {
    #[test]
    fn one_changed_bit_is_refused_or_unsigned(which in 0..9usize, at in any::<prop::sample::Index>(), bit in 0..8u8) {
        let machine = Machine::new(7);
        let (log, body) = bodies(&machine).swap_remove(which);
        let mut bytes = SignedEntry::sign(entry(&machine, log, body), &machine.key).expect("valid").into_bytes();
        let at = at.index(bytes.len());
        bytes[at] ^= 1 << bit;
        prop_assert!(SignedEntry::decode(&bytes).map_or(true, |changed| changed.verify_signature().is_err()));
    }

    #[test]
    fn arbitrary_bytes_never_panic(mut bytes in proptest::collection::vec(any::<u8>(), 0..800), kind in 1..8u8) {
        prop_assert!(SignedHead::decode(&bytes).is_err() || bytes.len() == HEAD_LEN);
        let _ = SignedEntry::decode(&bytes);
        if bytes.len() > 220 {
            // Past the header, where the bodies begin.
            let body = u16::try_from(bytes.len() - 204).expect("short");
            (bytes[0], bytes[1]) = (1, kind);
            bytes[106..108].copy_from_slice(&body.to_be_bytes());
            prop_assert!(SignedEntry::decode(&bytes).map_or(true, |entry| entry.verify_signature().is_err()));
        }
    }

    #[test]
    fn heads_survive_their_bytes(
        did: [u8; 20], log: [u8; 32], incarnation: u32, seq: u64, hash: [u8; 32], time_ms: u64,
        at in 0..HEAD_LEN, bit in 0..8u8,
    ) {
        let (did, log, entry_hash) = (Did::from_bytes(did), LogId::from_bytes(log), Hash::from_bytes(hash));
        let head = Head { did, log, incarnation, seq, entry_hash, time_ms };
        let signed = SignedHead::sign(head, &Machine::new(8).key);
        prop_assert_eq!(SignedHead::decode(signed.bytes()), Ok(signed));
        prop_assert_eq!(signed.verify_signature(), Ok(()));
        let mut changed = *signed.bytes();
        changed[at] ^= 1 << bit;
        prop_assert!(SignedHead::decode(&changed).map_or(true, |changed| changed.verify_signature().is_err()));
    }

    #[test]
    fn streams_survive_their_bytes(name in "[^\\p{Cc}]{0,60}", price in "[^\\p{Cc}]{0,60}", mode in 0..3u8, policy in 0..4u8, target in 1..=1u32 << 20) {
        let machine = Machine::new(9);
        let mode = [Mode::Fields, Mode::Raw, Mode::File][usize::from(mode)];
        let policy = [Policy::Free, Policy::Allowlist, Policy::Manual, Policy::Paid][usize::from(policy)];
        let info = StreamInfo { price, mode, policy, chunk_target: target, ..stream_info(&machine, &name) };
        let signed = SignedEntry::sign(entry(&machine, LogId::MACHINE, EntryBody::Stream(info)), &machine.key).expect("valid");
        prop_assert_eq!(SignedEntry::decode(signed.bytes()), Ok(signed));
    }
}
