use proptest::prelude::*;
use zeroize::Zeroizing;

use super::*;
use crate::{
    feed::testbed::{Machine, START_MS, rng},
    keytree::{EpochSeed, KeyTree},
};

struct World {
    machine: Machine,
    buyer: Did,
    key: EncryptionKey,
    header: GrantHeader,
    cover: Cover,
}

/// Somebody may open keys of slots 3 to 5.
fn world(seed: u64) -> World {
    let machine = Machine::new(seed);
    let buyer = IdentityKey::generate(&mut rng(seed + 1)).did();
    let key = EncryptionKey::generate(&mut rng(seed + 2));
    let stream = StreamId::of(&machine.did(), "/topic1");
    let (first, last) = (Position::new(3, 7), Position::last_of_slot(5));
    let cover = KeyTree::new(&EpochSeed::from_bytes(&[1; 32]), &stream, 0).cover(first..=last).expect("a range");
    let header = GrantHeader {
        grant_id: Hash::of(b"grant"),
        request_id: Hash::of(b"request"),
        machine: machine.did(),
        range: GrantRange { stream, epoch: 0, first, last },
        buyer,
        buyer_enc: key.public(),
        terms_hash: Hash::of(b"terms"),
        issued_ms: START_MS,
        expires_ms: START_MS + 1000,
        binding_serial: 0,
        cover_hash: cover.hash(),
    };
    World { machine, buyer, key, header, cover }
}

impl World {
    fn issue(&self) -> Grant {
        Grant::issue(self.header, &self.cover, Issuer::Feed(&self.machine.key), &mut rng(9)).expect("valid")
    }

    fn expected(&self) -> GrantExpectation<'_> {
        GrantExpectation {
            binding: self.machine.bindings[0].binding(),
            buyer: self.buyer,
            request_id: self.header.request_id,
            terms_hash: self.header.terms_hash,
            range: Some(self.header.range),
        }
    }

    fn open(&self, grant: &Grant) -> Result<Cover, GrantError> {
        // What a buyer gets are bytes.
        Grant::decode(&grant.encode())?.open(&self.key, &self.expected(), START_MS)
    }
}

#[test]
fn the_buyer_opens_exactly_the_granted_keys() {
    let w = world(1);
    let opened = w.open(&w.issue()).expect("for this buyer");
    assert_eq!(opened.hash(), w.cover.hash());
    for (position, granted) in [
        (Position::new(3, 6), false),
        (Position::new(3, 7), true),
        (Position::last_of_slot(5), true),
        (Position::new(6, 0), false),
    ] {
        assert_eq!(opened.chunk_key(position).is_some(), granted, "{position}");
    }
}

#[test]
fn the_owner_can_grant_and_nobody_else() {
    let w = world(2);
    let by = |issuer| Grant::issue(w.header, &w.cover, issuer, &mut rng(9)).expect("valid");
    assert!(w.open(&by(Issuer::Owner(&w.machine.owner))).is_ok());
    // The machine's identity key signs bindings and packages, not grants.
    let thief = (FeedKey::generate(&mut rng(3)), IdentityKey::generate(&mut rng(4)));
    for issuer in [Issuer::Feed(&thief.0), Issuer::Owner(&thief.1), Issuer::Owner(&w.machine.identity)] {
        assert_eq!(w.open(&by(issuer)).err(), Some(GrantError::Signature(w.machine.did())));
    }
}

#[test]
fn a_grant_of_a_retired_feed_key_is_refused() {
    let mut w = world(3);
    let stolen = w.machine.rotate(true, false, |_, len| len);
    let current = w.machine.bindings[1].binding();
    let expected = GrantExpectation { binding: current, ..w.expected() };
    let open = |serial| {
        let header = GrantHeader { binding_serial: serial, ..w.header };
        let grant = Grant::issue(header, &w.cover, Issuer::Feed(&stolen), &mut rng(9)).expect("valid");
        grant.open(&w.key, &expected, START_MS).err()
    };
    assert_eq!(open(0), Some(GrantError::OtherBinding { expected: 1, found: 0 }));
    assert_eq!(open(1), Some(GrantError::Signature(w.machine.did())));
}

#[test]
fn a_grant_replayed_for_another_buyer_does_not_open() {
    let w = world(4);
    let grant = w.issue();
    let other = IdentityKey::generate(&mut rng(50)).did();
    let expected = GrantExpectation { buyer: other, ..w.expected() };
    let refused = GrantError::OtherBuyer { expected: other, found: w.buyer };
    assert_eq!(grant.open(&w.key, &expected, START_MS).err(), Some(refused));
    // With the other buyer written into it, the signature is gone.
    let mut bytes = grant.encode();
    bytes[1 + 141..1 + 161].copy_from_slice(other.as_bytes());
    let forged = Grant::decode(&bytes).expect("well formed");
    assert_eq!(forged.open(&w.key, &expected, START_MS).err(), Some(GrantError::Signature(w.machine.did())));
}

#[test]
fn the_wrong_buyer_key_is_named() {
    let w = world(5);
    let wrong = EncryptionKey::generate(&mut rng(60));
    let refused = GrantError::OtherKey { found: w.key.public() };
    assert_eq!(w.issue().open(&wrong, &w.expected(), START_MS).err(), Some(refused));
}

#[test]
fn a_grant_for_another_request_terms_machine_or_range_is_refused() {
    let w = world(6);
    let grant = w.issue();
    let open = |expected: GrantExpectation<'_>| grant.open(&w.key, &expected, START_MS).err();
    let elsewhere = Hash::of(b"else");
    let found = w.header.request_id;
    assert_eq!(
        open(GrantExpectation { request_id: elsewhere, ..w.expected() }),
        Some(GrantError::OtherRequest { found })
    );
    assert_eq!(open(GrantExpectation { terms_hash: elsewhere, ..w.expected() }), Some(GrantError::OtherTerms));
    let stranger = Machine::new(61);
    let binding = stranger.bindings[0].binding();
    let refused = GrantError::OtherMachine { expected: stranger.did(), found: w.machine.did() };
    assert_eq!(open(GrantExpectation { binding, ..w.expected() }), Some(refused));
    let range = w.header.range;
    for other in [
        GrantRange { first: Position::new(3, 8), ..range },
        GrantRange { last: Position::last_of_slot(6), ..range },
        GrantRange { epoch: 1, ..range },
        GrantRange { stream: StreamId::from_bytes([0; 32]), ..range },
    ] {
        assert_eq!(open(GrantExpectation { range: Some(other), ..w.expected() }), Some(GrantError::OtherRange));
    }
    assert_eq!(open(GrantExpectation { range: None, ..w.expected() }), None);
}

#[test]
fn a_grant_is_over_when_it_says_so() {
    let w = world(7);
    let expires_ms = w.header.expires_ms;
    let at = |now_ms| w.issue().open(&w.key, &w.expected(), now_ms).err();
    assert_eq!(at(expires_ms - 1), None);
    assert_eq!(at(expires_ms), Some(GrantError::Expired { expires_ms }));
}

/// The cover with its first node split in two: the same keys, in another form.
fn split_first_node(cover: &Cover) -> Zeroizing<Vec<u8>> {
    let bytes = cover.encode();
    let node = &bytes[2..2 + Cover::NODE_LEN];
    let at = (2..bytes.len()).step_by(Cover::NODE_LEN).find(|at| bytes[*at] < 48).expect("a node above the leaves");
    let (depth, prefix, key) = (bytes[at], &bytes[at + 1..at + 7], &bytes[at + 7..at + 39]);
    let prefix = u64::from_be_bytes([[0; 2].as_slice(), prefix].concat().try_into().expect("8 bytes"));
    let mut out = bytes[..at].to_vec();
    out[1] += 1;
    for child in 0..2u8 {
        let below = blake3::keyed_hash(key.try_into().expect("32 bytes"), &[child]);
        out.push(depth + 1);
        out.extend_from_slice(&(prefix << 1 | u64::from(child)).to_be_bytes()[2..]);
        out.extend_from_slice(below.as_bytes());
    }
    out.extend_from_slice(&bytes[at + node.len()..]);
    Zeroizing::new(out)
}

#[test]
fn a_cover_that_is_not_the_canonical_one_is_refused() {
    let w = world(8);
    let cover = split_first_node(&w.cover);
    let cover_hash = Hash::derive("tributary 2026 chunk key cover", &cover);
    let header = GrantHeader { cover_hash, ..w.header };
    let grant = Grant::issue_bytes(header, &cover, Issuer::Feed(&w.machine.key), &mut rng(9)).expect("sealed");
    assert!(matches!(w.open(&grant).err(), Some(GrantError::Cover(CoverError::NotCanonical { .. }))));
}

#[test]
fn a_machine_that_seals_other_keys_than_it_signs_is_caught() {
    let w = world(9);
    let tree = KeyTree::new(&EpochSeed::from_bytes(&[2; 32]), &w.header.range.stream, 0);
    let range = w.header.range;
    let issue = |header, cover: &Cover| {
        Grant::issue_bytes(header, &cover.encode(), Issuer::Feed(&w.machine.key), &mut rng(9)).expect("sealed")
    };
    // Junk keys of the right range; and more or fewer keys than the range.
    let junk = tree.cover(range.first..=range.last).expect("a range");
    assert_eq!(w.open(&issue(w.header, &junk)).err(), Some(GrantError::CoverHash));
    let wider = tree.cover(range.first..=Position::last_of_slot(6)).expect("a range");
    let header = GrantHeader { cover_hash: wider.hash(), ..w.header };
    assert!(matches!(w.open(&issue(header, &wider)).err(), Some(GrantError::Cover(CoverError::OtherRange { .. }))));
    // An honest issuer cannot do that by mistake.
    let issuer = Issuer::Feed(&w.machine.key);
    assert_eq!(Grant::issue(w.header, &junk, issuer, &mut rng(9)), Err(GrantError::Header));
    assert!(matches!(Grant::issue(header, &wider, issuer, &mut rng(9)), Err(GrantError::Cover(_))));
}

#[test]
fn nothing_is_sealed_to_a_key_that_everybody_can_open() {
    let w = world(10);
    let header = GrantHeader { buyer_enc: EncryptionPublicKey::from_bytes([0; 32]), ..w.header };
    let grant = Grant::issue(header, &w.cover, Issuer::Feed(&w.machine.key), &mut rng(9));
    assert!(matches!(grant, Err(GrantError::Sealing(SealingError::Recipient(_)))));
}

#[test]
fn the_longest_grant_fits_and_two_are_never_sealed_alike() {
    let mut w = world(11);
    let (first, last) = (Position::from_u64(1).expect("48 bits"), Position::from_u64((1 << 48) - 2).expect("48 bits"));
    w.cover = KeyTree::new(&EpochSeed::from_bytes(&[1; 32]), &w.header.range.stream, 0).cover(first..=last).expect("r");
    w.header =
        GrantHeader { cover_hash: w.cover.hash(), range: GrantRange { first, last, ..w.header.range }, ..w.header };
    assert_eq!(w.cover.node_count(), Cover::MAX_NODES);
    let issuer = Issuer::Owner(&w.machine.owner);
    let issue = |seed| Grant::issue(w.header, &w.cover, issuer, &mut rng(seed)).expect("valid");
    assert_eq!(issue(1).encode().len(), MAX_GRANT_LEN);
    assert_ne!(issue(1).ciphertext, issue(2).ciphertext);
    assert!(w.open(&issue(1)).is_ok());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    #[test]
    fn a_tampered_grant_never_opens(owner: bool, at in any::<prop::sample::Index>(), bit in 0..8u8) {
        let w = world(12);
        let issuer = if owner { Issuer::Owner(&w.machine.owner) } else { Issuer::Feed(&w.machine.key) };
        let mut bytes = Grant::issue(w.header, &w.cover, issuer, &mut rng(9)).expect("valid").encode();
        let at = at.index(bytes.len());
        bytes[at] ^= 1 << bit;
        let refused = Grant::decode(&bytes).and_then(|grant| grant.open(&w.key, &w.expected(), START_MS));
        prop_assert!(refused.is_err());
    }

    #[test]
    fn grants_survive_their_bytes_and_are_never_cut(epoch: u64, issued_ms: u64, len in any::<prop::sample::Index>()) {
        let mut w = world(13);
        (w.header.range.epoch, w.header.issued_ms) = (epoch, issued_ms);
        let grant = w.issue();
        let bytes = grant.encode();
        prop_assert_eq!(Grant::decode(&bytes), Ok(grant));
        prop_assert!(Grant::decode(&bytes[..len.index(bytes.len())]).is_err());
        prop_assert!(Grant::decode(&[bytes.as_slice(), &[0]].concat()).is_err());
    }

    #[test]
    fn arbitrary_bytes_are_refused(bytes in proptest::collection::vec(any::<u8>(), 0..600)) {
        let machine = Machine::new(1);
        let refused = Grant::decode(&bytes).and_then(|grant| grant.verify(machine.bindings[0].binding()));
        prop_assert!(refused.is_err());
    }
}

#[test]
fn a_renewed_binding_takes_no_grant_away_and_a_retired_feed_key_issues_none() {
    let mut w = world(20);
    let chain_of = |machine: &Machine| {
        let mut chain = BindingChain::new(&machine.bindings[0]).expect("the first");
        for next in &machine.bindings[1..] {
            chain.accept(next).expect("follows");
        }
        chain
    };
    let by = |w: &World, issuer: Issuer<'_>| Grant::issue(w.header, &w.cover, issuer, &mut rng(9)).expect("valid");
    let open = |w: &World, grant: &Grant| {
        let chain = chain_of(&w.machine);
        let expected = GrantExpectation { binding: grant.binding_in(&chain), ..w.expected() };
        grant.open(&w.key, &expected, START_MS).map(drop)
    };
    let (feed, owner) = (w.issue(), by(&w, Issuer::Owner(&w.machine.owner)));
    w.machine.rotate(false, false, |_, len| len);
    assert_eq!((open(&w, &feed), open(&w, &owner)), (Ok(()), Ok(())));
    let retired = w.machine.rotate(true, false, |_, len| len);
    assert_eq!(open(&w, &by(&w, Issuer::Feed(&retired))), Err(GrantError::OtherBinding { expected: 2, found: 0 }));
    assert_eq!(open(&w, &owner), Ok(()));
    // Nobody whom the chain does not name grants as the owner, whatever serial he writes.
    let thief = IdentityKey::generate(&mut rng(4));
    for serial in [0, 2] {
        w.header.binding_serial = serial;
        assert_eq!(open(&w, &by(&w, Issuer::Owner(&thief))), Err(GrantError::Signature(w.machine.did())));
    }
    w.header.binding_serial = 7;
    assert!(matches!(open(&w, &by(&w, Issuer::Owner(&w.machine.owner))), Err(GrantError::OtherBinding { .. })));
}
