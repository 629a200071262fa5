use std::fs;

use tributary_protocol::{
    binding::{Binding, MAX_LIFE_MS, SignedBinding},
    identity::IdentityKey,
    keys::{EncryptionKey, FeedKey},
};

use super::*;

/// Two proposals of one serial, as two copies of one machine make them.
fn twins() -> [Proposal; 2] {
    let identity = IdentityKey::generate(&mut rand::rng());
    let first = Binding {
        did: identity.did(),
        serial: 0,
        prev: Hash::ZERO,
        incarnation: 0,
        owner_id: Did::from_bytes([9; 20]),
        owner_enc: EncryptionKey::generate(&mut rand::rng()).public(),
        feed_key: FeedKey::generate(&mut rand::rng()).public(),
        encryption_key: EncryptionKey::generate(&mut rand::rng()).public(),
        node_keys: Vec::new(),
        issued_ms: 0,
        expires_ms: MAX_LIFE_MS,
        positions: Vec::new(),
    };
    let previous = SignedBinding::sign(first, &identity).expect("valid");
    [1, 2].map(|issued_ms| {
        let expires_ms = issued_ms + MAX_LIFE_MS;
        let next = Binding { serial: 1, prev: previous.hash(), issued_ms, expires_ms, ..previous.binding().clone() };
        Proposal::new(previous.clone(), SignedBinding::sign(next, &identity).expect("valid")).expect("follows")
    })
}

#[test]
fn one_serial_of_a_machine_is_signed_once_and_the_same_again() {
    let folder = tempfile::tempdir().expect("a folder");
    let key = folder.path().join("owner.key");
    let [first, second] = twins();
    let ledger = Ledger::beside(&key);
    ledger.enter(&first, 5).expect("the first of its serial");
    ledger.enter(&first, 6).expect("the same again");
    let refused = Ledger::beside(&key).enter(&second, 7);
    let Err(LedgerError::SignedAnother { serial: 1, hash, signed_ms: 5, .. }) = refused else {
        panic!("a second binding of one serial was let through: {refused:?}")
    };
    assert_eq!(hash, first.next().hash());
    // Another machine has its own serials.
    let [other, _] = twins();
    ledger.enter(&other, 8).expect("another machine");
    assert_eq!(fs::read_to_string(ledger.path()).expect("there").lines().count(), 2);
}

#[test]
fn a_line_that_a_crash_cut_off_counts_for_nothing_and_damage_stops_signing() {
    let folder = tempfile::tempdir().expect("a folder");
    let ledger = Ledger::beside(&folder.path().join("owner.key"));
    let [first, second] = twins();
    ledger.enter(&first, 5).expect("the first");
    let whole = fs::read_to_string(ledger.path()).expect("there");
    fs::write(ledger.path(), &whole[..whole.len() - 9]).expect("cut");
    ledger.enter(&second, 6).expect("the first was never signed");
    assert!(matches!(ledger.enter(&first, 7), Err(LedgerError::SignedAnother { .. })));
    fs::write(ledger.path(), "nonsense\n").expect("written");
    assert!(matches!(ledger.enter(&first, 8), Err(LedgerError::Damaged { line: 1, .. })));
}
