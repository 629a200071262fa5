use proptest::prelude::*;

use super::*;
use crate::feed::testbed::{Machine, rng};

fn deposit(state: DepositState) -> Deposit {
    Deposit {
        machine: Did::from_bytes([1; 20]),
        request_id: Hash::of(b"request"),
        revision: 7,
        issued_ms: 1000,
        expires_ms: 2000,
        state,
    }
}

fn granted() -> DepositState {
    DepositState::Granted { total: 2, grants: hash_of_grants([Hash::of(b"a"), Hash::of(b"b")]) }
}

fn denied(reason: &str) -> DepositState {
    DepositState::Denied { code: DenyCode::Revoked, reason: reason.to_owned() }
}

#[test]
fn only_the_current_feed_key_of_the_machine_makes_one() {
    let (machine, other) = (Machine::new(1), FeedKey::generate(&mut rng(2)));
    let (key, binding) = (&machine.key, machine.bindings[0].binding());
    for state in [granted(), denied("access was revoked")] {
        let mine = Deposit { machine: binding.did, ..deposit(state) };
        let signed = SignedDeposit::sign(mine.clone(), key).unwrap();
        let read = SignedDeposit::decode(signed.bytes()).unwrap();
        assert_eq!((read.deposit(), read.verify(binding, 1999)), (&mine, Ok(())));
        assert!(signed.bytes().len() <= MAX_DEPOSIT_LEN);
        assert_eq!(read.verify(binding, 2000), Err(DepositError::Expired { expires_ms: 2000 }));
        let forged = SignedDeposit::sign(mine, &other).unwrap();
        assert_eq!(forged.verify(binding, 1500), Err(DepositError::Signature(binding.did)));
        let mut named = forged.bytes().to_vec();
        let signer = named.len() - SIGNATURE_LEN - 32;
        named[signer..signer + 32].copy_from_slice(key.public().as_bytes());
        let named = SignedDeposit::decode(&named).unwrap();
        assert_eq!(named.verify(binding, 1500), Err(DepositError::Signature(binding.did)));
        for at in 0..signed.bytes().len() {
            let mut changed = signed.bytes().to_vec();
            changed[at] ^= 1;
            let good = SignedDeposit::decode(&changed).is_ok_and(|read| read.verify(binding, 1500).is_ok());
            assert!(!good, "byte {at}");
        }
    }
    let foreign = SignedDeposit::sign(deposit(granted()), key).unwrap();
    assert!(matches!(foreign.verify(binding, 1500), Err(DepositError::OtherMachine { .. })));
}

#[test]
fn what_makes_no_sense_is_not_signed_and_not_read() {
    let key = FeedKey::generate(&mut rng(3));
    let none = DepositState::Granted { total: 0, grants: Hash::ZERO };
    let many = DepositState::Granted { total: MAX_GRANTS_OF_REQUEST + 1, grants: Hash::ZERO };
    for state in [none, many, denied(&"a".repeat(257)), denied("a\nb")] {
        assert!(SignedDeposit::sign(deposit(state), &key).is_err());
    }
    let late = Deposit { expires_ms: 1000, ..deposit(granted()) };
    assert!(SignedDeposit::sign(late, &key).is_err());
    let good = SignedDeposit::sign(deposit(granted()), &key).unwrap();
    for len in 0..good.bytes().len() {
        assert!(SignedDeposit::decode(&good.bytes()[..len]).is_err());
    }
    assert!(SignedDeposit::decode(&[good.bytes(), &[0]].concat()).is_err());
}

#[test]
fn the_order_of_the_grants_counts() {
    let (a, b) = (Hash::of(b"a"), Hash::of(b"b"));
    assert_ne!(hash_of_grants([a, b]), hash_of_grants([b, a]));
    assert_ne!(hash_of_grants([a]), hash_of_grants([a, a]));
}

proptest! {
    #[test]
    fn garbage_is_refused(bytes in proptest::collection::vec(any::<u8>(), 0..400)) {
        prop_assert!(SignedDeposit::decode(&bytes).is_err());
    }
}
