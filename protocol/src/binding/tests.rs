use proptest::prelude::*;

use super::*;
use crate::feed::testbed::{Machine, START_MS, first_binding, rng};
use crate::keys::FeedKey;

fn signed(machine: &Machine, change: impl FnOnce(&mut Binding)) -> Result<SignedBinding, BindingError> {
    let mut binding = machine.next_binding(&machine.key, 0, |_, len| len);
    change(&mut binding);
    SignedBinding::sign(binding, &machine.identity)
}

#[test]
fn the_signed_text_is_what_a_person_reads_and_stands_for_the_bytes() {
    let machine = Machine::new(1);
    let first = &machine.bindings[0];
    let binding = first.binding();
    let text = binding.signing_text(&first.hash(), Role::Machine);
    let expected = format!(
        "Tributary binding v1\nrole: machine\nmachine: {}\nserial: 0\nincarnation: 0\nowner: {}\nfeed key: {}\nexpires: {}\nbinding: {}",
        machine.did(),
        machine.owner.did(),
        machine.key.public(),
        START_MS + MAX_LIFE_MS,
        hex::encode(blake3::derive_key("tributary 2026 key binding", first.bytes())),
    );
    assert_eq!(text, expected);
    assert_ne!(text, binding.signing_text(&first.hash(), Role::Owner));
}

#[test]
fn a_machine_cannot_sign_for_its_owner() {
    let machine = Machine::new(2);
    let next = signed(&machine, |_| {}).expect("valid");
    // The machine's signature under the machine's text, put where the owner's belongs.
    let text = next.binding().signing_text(&next.hash(), Role::Machine);
    let replayed = next.clone().with_owner_signature(machine.owner.sign_eip191(text.as_bytes()));
    let owner = machine.owner.did();
    assert_eq!(
        replayed.verify(Some(&owner)),
        Err(BindingError::OwnerSignature { did: machine.did(), serial: 1, owner })
    );
    assert_eq!(next.co_sign(&machine.owner).verify(Some(&owner)), Ok(()));
}

#[test]
fn the_first_binding_carries_no_owner_signature() {
    let machine = Machine::new(3);
    let with = machine.bindings[0].clone().co_sign(&machine.owner);
    assert!(matches!(with.verify(None), Err(BindingError::OwnerSignatureForm { serial: 0, .. })));
}

#[test]
fn a_binding_out_of_range_is_never_made() {
    let mut machine = Machine::new(4);
    machine.append(LogId::MACHINE);
    let position = LogPosition { log: LogId::MACHINE, from_seq: 1, prev_entry_hash: Hash::of(b"entry") };
    type Change = fn(&mut Binding);
    let cases: [(&str, Change); 7] = [
        ("lives too long", |b| b.expires_ms = b.issued_ms + MAX_LIFE_MS + 1),
        ("ends at once", |b| b.expires_ms = b.issued_ms),
        ("no predecessor", |b| b.prev = Hash::ZERO),
        ("owns itself", |b| b.owner_id = b.did),
        ("unusable key", |b| b.feed_key = FeedPublicKey::from_bytes([0; 32])),
        ("node key twice", |b| b.node_keys = vec![[1; 32]; 2]),
        ("nine node keys", |b| b.node_keys = (0..9).map(|n| [n; 32]).collect()),
    ];
    for (what, change) in cases {
        assert!(signed(&machine, change).is_err(), "{what}");
    }
    assert!(signed(&machine, |b| b.positions = vec![position; 2]).is_err(), "log twice");
    assert!(signed(&machine, |b| b.positions = vec![LogPosition { prev_entry_hash: Hash::ZERO, ..position }]).is_err());
    let many = |n: u8| (0..n).map(|n| LogPosition { log: LogId::from_bytes([n; 32]), ..position }).collect();
    assert!(signed(&machine, |b| b.positions = many(161)).is_err(), "too many");
    let largest = signed(&machine, |b| {
        b.positions = many(160);
        b.node_keys = (0..8).map(|n| [n; 32]).collect();
    });
    let largest = largest.expect("the limits are allowed").co_sign(&machine.owner);
    assert_eq!(largest.encode().len(), MAX_SIGNED_BINDING_LEN);
    const { assert!(MAX_SIGNED_BINDING_LEN <= crate::entry::MAX_BODY_LEN) };
    assert_eq!(SignedBinding::decode(&largest.encode()), Ok(largest));
}

#[test]
fn every_position_has_one_key() {
    let mut machine = Machine::new(5);
    let log = machine.stream(1);
    let append = |machine: &mut Machine, n: u8| (0..n).for_each(|_| drop(machine.append(log)));
    append(&mut machine, 10);
    let k0 = machine.rotate(true, false, |_, len| len);
    append(&mut machine, 10);
    // Back below the binding before: that one never had a position.
    let k1 = machine.rotate(true, false, |_, _| 5);
    append(&mut machine, 3);
    let k2 = machine.rotate(true, true, |_, len| len);
    append(&mut machine, 1);
    let chain = machine.chain();
    let key = |incarnation, seq| chain.key_for(&log, incarnation, seq);
    assert_eq!((key(0, 0), key(0, 4)), (Some(k0.public()), Some(k0.public())));
    assert_eq!((key(0, 5), key(0, 7)), (Some(k2.public()), Some(k2.public())));
    assert_eq!((key(0, 8), key(0, u64::MAX)), (None, None));
    assert_eq!((key(1, 0), key(1, u64::MAX)), (Some(machine.key.public()), Some(machine.key.public())));
    assert_eq!(key(2, 0), None);
    assert!(chain.has_feed_key(&k1.public()));
    let reigns = chain.reigns(&log, 0);
    let pins: Vec<_> = (0..9).map(|seq| reigns.pin_above(seq).map(|pin| pin.at)).collect();
    assert_eq!(pins, [5, 5, 5, 5, 5, 8, 8, 8, 0].map(|at| (at > 0).then_some(at)));
    assert_eq!(reigns.closed().map(|pin| pin.prev), Some(chain.origin(&log, 1)));
}

#[test]
fn the_bytes_are_those_of_the_table() {
    let machine = Machine::new(6);
    let bytes = machine.bindings[0].bytes();
    assert_eq!(bytes.len(), 199 + 32);
    assert_eq!(bytes[0], 1);
    assert_eq!(bytes[1..21], machine.did().to_bytes());
    assert_eq!(bytes[65..85], machine.owner.did().to_bytes());
    assert_eq!(bytes[117..149], machine.key.public().to_bytes());
    assert_eq!(bytes[197..231], [[1].as_slice(), &[7; 32], &[0]].concat());
    assert_eq!(Binding::hash_of(bytes), machine.bindings[0].hash());
}

proptest! {
    #[test]
    fn bindings_survive_their_bytes_and_no_others_do(
        seed: u64, serial: u64, incarnation: u32, nodes in 0..9u8, logs in proptest::collection::btree_set(any::<[u8; 32]>(), 0..20),
        at in any::<prop::sample::Index>(), bit in 0..8u8,
    ) {
        let mut rng = rng(seed);
        let (identity, owner) = (IdentityKey::generate(&mut rng), IdentityKey::generate(&mut rng));
        let key = FeedKey::generate(&mut rng);
        let mut binding = first_binding(&identity, &owner, &key, &mut rng);
        (binding.serial, binding.incarnation) = (serial, incarnation);
        binding.node_keys = (0..nodes).map(|n| [n; 32]).collect();
        if serial > 0 {
            binding.prev = Hash::of(b"before");
            binding.positions = logs.iter().map(|log| LogPosition {
                log: LogId::from_bytes(*log), from_seq: seed, prev_entry_hash: Hash::of(log),
            }).collect();
        }
        let signed = SignedBinding::sign(binding, &identity).expect("valid");
        let signed = if serial > 0 { signed.co_sign(&owner) } else { signed };
        let bytes = signed.encode();
        prop_assert_eq!(SignedBinding::decode(&bytes), Ok(signed.clone()));
        prop_assert!(SignedBinding::decode(&bytes[..bytes.len() - 1]).is_err());
        prop_assert!(SignedBinding::decode(&[bytes.as_slice(), &[0]].concat()).is_err());
        // One changed bit anywhere: refused, or no longer signed.
        let mut changed = bytes;
        let at = at.index(changed.len());
        changed[at] ^= 1 << bit;
        let owner = (serial > 0).then(|| owner.did());
        prop_assert!(SignedBinding::decode(&changed).map_or(true, |changed| changed.verify(owner.as_ref()).is_err()));
    }

    #[test]
    fn arbitrary_bytes_are_refused(bytes in proptest::collection::vec(any::<u8>(), 0..600)) {
        prop_assert!(SignedBinding::decode(&bytes).is_err());
        prop_assert!(Binding::decode(&bytes).is_err());
    }
}
