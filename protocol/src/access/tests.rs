use proptest::prelude::*;

use super::*;
use crate::{
    feed::testbed::{Machine, START_MS, rng},
    identity::IdentityKey,
    ids::{DatasetId, Did, Hash, StreamId},
    keys::{EncryptionKey, FeedKey},
    keytree::Position,
};

fn ranges() -> impl Strategy<Value = Vec<Range>> {
    let position = || (0..1u64 << 48).prop_map(|bits| Position::from_u64(bits).expect("48 bits"));
    let range = prop_oneof![
        any::<[u8; 32]>().prop_map(|id| Range::Dataset(DatasetId::from_bytes(id))),
        any::<([u8; 32], u64, u64)>().prop_map(|(id, a, b)| Range::Time {
            stream: StreamId::from_bytes(id),
            from_ms: a.min(b),
            to_ms: a.max(b),
        }),
        (any::<([u8; 32], u64)>(), position(), position()).prop_map(|((id, epoch), a, b)| Range::Positions {
            stream: StreamId::from_bytes(id),
            epoch,
            first: a.min(b),
            last: a.max(b),
        }),
        (any::<[u8; 32]>(), 1..=selection::MAX_LIVE_SECONDS)
            .prop_map(|(id, seconds)| Range::Live { stream: StreamId::from_bytes(id), seconds }),
    ];
    proptest::collection::vec(range, 1..=MAX_RANGES)
}

fn quote(machine: &Machine, buyer: Did) -> Quote {
    Quote {
        machine: machine.did(),
        buyer,
        selection: Selection::new(vec![Range::Dataset(DatasetId::from_bytes([1; 32]))]).expect("one range"),
        price: Price { amount: 5_000_000, token: "USDC".into(), chain: "peaq".into(), pay_to: "0xabc".into() },
        terms: Hash::of(b"terms"),
        issued_ms: START_MS,
        expires_ms: START_MS + 1000,
    }
}

struct Deal {
    machine: Machine,
    buyer: IdentityKey,
    quote: SignedQuote,
    request: AccessRequest,
}

fn deal(seed: u64) -> Deal {
    let machine = Machine::new(seed);
    let buyer = IdentityKey::generate(&mut rng(seed + 100));
    let quote = SignedQuote::sign(quote(&machine, buyer.did()), &machine.key).expect("valid");
    let payment = Payment { chain: "peaq".into(), transaction: "0x12".into(), transfer_index: 0, payer: buyer.did() };
    let request = AccessRequest {
        machine: machine.did(),
        quote_hash: quote.hash(),
        buyer: buyer.did(),
        buyer_enc: EncryptionKey::generate(&mut rng(5)).public(),
        nonce: [3; 32],
        expires_ms: START_MS + 500,
        payment: Some(payment),
    };
    Deal { machine, buyer, quote, request }
}

#[test]
fn a_selection_is_neither_empty_endless_nor_backwards() {
    let stream = StreamId::from_bytes([1; 32]);
    let dataset = Range::Dataset(DatasetId::from_bytes([1; 32]));
    assert!(Selection::new(vec![]).is_err());
    assert!(Selection::new(vec![dataset; 64]).is_ok());
    assert!(Selection::new(vec![dataset; 65]).is_err());
    let (first, last) = (Position::new(2, 0), Position::new(1, 0));
    for wrong in [
        Range::Time { stream, from_ms: 2, to_ms: 1 },
        Range::Positions { stream, epoch: 0, first, last },
        Range::Live { stream, seconds: 0 },
        Range::Live { stream, seconds: u32::MAX },
    ] {
        assert!(Selection::new(vec![wrong]).is_err(), "{wrong:?}");
    }
}

#[test]
fn a_quote_binds_its_machine_to_its_buyer_until_it_expires() {
    let Deal { machine, buyer, quote, .. } = deal(1);
    let (binding, buyer) = (machine.bindings[0].binding(), buyer.did());
    let quote = SignedQuote::decode(quote.bytes()).expect("valid");
    assert_eq!(quote.verify(binding, &buyer, START_MS), Ok(()));
    let other = Did::from_bytes([9; 20]);
    assert_eq!(quote.verify(binding, &other, START_MS), Err(QuoteError::OtherBuyer { expected: other, found: buyer }));
    let expires_ms = START_MS + 1000;
    assert_eq!(quote.verify(binding, &buyer, expires_ms), Err(QuoteError::Expired { expires_ms }));
    let stranger = Machine::new(50);
    let other_machine = quote.verify(stranger.bindings[0].binding(), &buyer, START_MS);
    assert!(matches!(other_machine, Err(QuoteError::OtherMachine { .. })));
    let forged = SignedQuote::sign(quote.quote().clone(), &FeedKey::generate(&mut rng(51))).expect("valid");
    assert_eq!(forged.verify(binding, &buyer, START_MS), Err(QuoteError::Signature(machine.did())));
}

#[test]
fn the_terms_are_the_same_for_every_buyer_and_differ_with_what_is_sold() {
    let machine = Machine::new(2);
    let one = quote(&machine, Did::from_bytes([1; 20]));
    let same = Quote { buyer: Did::from_bytes([2; 20]), expires_ms: START_MS + 9, ..one.clone() };
    assert_eq!(one.terms_hash(), same.terms_hash());
    let cheaper = Quote { price: Price { amount: 1, ..one.price.clone() }, ..one.clone() };
    let more = Selection::new(vec![Range::Dataset(DatasetId::from_bytes([2; 32]))]).expect("one range");
    let others = [cheaper, Quote { selection: more, ..one.clone() }, Quote { terms: Hash::ZERO, ..one.clone() }];
    assert!(others.iter().all(|other| other.terms_hash() != one.terms_hash()));
}

#[test]
fn a_request_is_good_for_one_machine_one_quote_and_one_buyer() {
    let Deal { machine, buyer, quote: taken, request } = deal(3);
    let signed = SignedRequest::sign(request.clone(), &buyer).expect("valid");
    let signed = SignedRequest::decode(&signed.encode()).expect("valid");
    assert_eq!(signed.verify(&machine.did(), &taken, START_MS), Ok(()));
    // Replayed at another machine.
    let stranger = Machine::new(60);
    let refused = signed.verify(&stranger.did(), &taken, START_MS);
    assert!(matches!(refused, Err(RequestError::OtherMachine { .. })));
    // With another quote, cheaper or for somebody else.
    let cheaper = Quote { price: Price::default(), ..taken.quote().clone() };
    let cheaper = SignedQuote::sign(cheaper, &machine.key).expect("valid");
    assert_eq!(signed.verify(&machine.did(), &cheaper, START_MS), Err(RequestError::OtherQuote));
    let thief = IdentityKey::generate(&mut rng(61));
    let stolen = AccessRequest { buyer: thief.did(), ..request.clone() };
    let stolen = SignedRequest::sign(stolen, &thief).expect("valid");
    assert!(matches!(stolen.verify(&machine.did(), &taken, START_MS), Err(RequestError::OtherBuyer { .. })));
    // Late.
    let expires_ms = request.expires_ms;
    assert_eq!(signed.verify(&machine.did(), &taken, expires_ms), Err(RequestError::Expired { expires_ms }));
    // Signed by somebody else.
    assert_eq!(SignedRequest::sign(request.clone(), &thief), Err(RequestError::Signature(buyer.did())));
    let mut forged = signed.encode();
    let at = forged.len() - 66;
    let text = request.signing_text(&signed.id());
    forged[at..at + 65].copy_from_slice(&thief.sign_eip191(text.as_bytes()));
    let forged = SignedRequest::decode(&forged).expect("well formed");
    assert_eq!(forged.verify(&machine.did(), &taken, START_MS), Err(RequestError::Signature(buyer.did())));
}

#[test]
fn somebody_elses_payment_counts_only_with_the_payers_signature() {
    let Deal { machine, buyer, quote, mut request } = deal(4);
    let payer = IdentityKey::generate(&mut rng(70));
    request.payment.as_mut().expect("paid").payer = payer.did();
    let verify = |signed: &SignedRequest| signed.verify(&machine.did(), &quote, START_MS);
    let signed = SignedRequest::sign(request.clone(), &buyer).expect("valid");
    assert_eq!(verify(&signed), Err(RequestError::Payer(payer.did())));
    let payment = request.payment.as_ref().expect("paid");
    let text = |id: &Hash| AccessRequest::payment_text(payment, &buyer.did(), id);
    let with = |key: &IdentityKey, id: Hash| signed.clone().with_payer_signature(key.sign_eip191(text(&id).as_bytes()));
    assert_eq!(verify(&with(&buyer, signed.id())), Err(RequestError::Payer(payer.did())));
    // The payer's signature for another request does not do.
    assert_eq!(verify(&with(&payer, Hash::of(b"another"))), Err(RequestError::Payer(payer.did())));
    let agreed = with(&payer, signed.id());
    assert_eq!(verify(&SignedRequest::decode(&agreed.encode()).expect("valid")), Ok(()));
    assert_eq!(agreed.id(), signed.id());
}

#[test]
fn texts_for_the_identity_key_say_what_they_are() {
    let Deal { buyer, request, .. } = deal(5);
    let signed = SignedRequest::sign(request.clone(), &buyer).expect("valid");
    assert!(request.signing_text(&signed.id()).starts_with("Tributary access request v1\n"));
    let payment = request.payment.as_ref().expect("paid");
    assert!(AccessRequest::payment_text(payment, &buyer.did(), &signed.id()).starts_with("Tributary payment v1\n"));
    assert_eq!(signed.id().to_bytes(), *blake3::hash(&signed.encode()[3..signed.encode().len() - 66]).as_bytes());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    #[test]
    fn selections_survive_their_bytes(ranges in ranges()) {
        let selection = Selection::new(ranges).expect("valid");
        let bytes = selection.encode();
        prop_assert_eq!(Selection::decode(&bytes), Ok(selection));
        prop_assert!(Selection::decode(&bytes[..bytes.len() - 1]).is_err());
        prop_assert!(Selection::decode(&[bytes.as_slice(), &[0]].concat()).is_err());
    }

    #[test]
    fn quotes_survive_their_bytes_and_no_change(
        ranges in ranges(), amount: u128, token in "[a-zA-Z0-9]{0,64}", at in any::<prop::sample::Index>(), bit in 0..8u8,
    ) {
        let machine = Machine::new(6);
        let buyer = Did::from_bytes([1; 20]);
        let mut value = quote(&machine, buyer);
        value.selection = Selection::new(ranges).expect("valid");
        (value.price.amount, value.price.token) = (amount, token);
        let signed = SignedQuote::sign(value, &machine.key).expect("valid");
        let mut bytes = signed.bytes().to_vec();
        prop_assert_eq!(SignedQuote::decode(&bytes), Ok(signed));
        let at = at.index(bytes.len());
        bytes[at] ^= 1 << bit;
        let changed = SignedQuote::decode(&bytes);
        prop_assert!(changed.map_or(true, |q| q.verify(machine.bindings[0].binding(), &buyer, START_MS).is_err()));
    }

    #[test]
    fn requests_survive_their_bytes_and_no_change(paid: bool, nonce: [u8; 32], at in any::<prop::sample::Index>(), bit in 0..8u8) {
        let Deal { machine, buyer, quote, mut request } = deal(7);
        request.nonce = nonce;
        request.payment = request.payment.filter(|_| paid);
        let signed = SignedRequest::sign(request, &buyer).expect("valid");
        let mut bytes = signed.encode();
        prop_assert_eq!(SignedRequest::decode(&bytes), Ok(signed));
        let at = at.index(bytes.len());
        bytes[at] ^= 1 << bit;
        let changed = SignedRequest::decode(&bytes);
        prop_assert!(changed.map_or(true, |r| r.verify(&machine.did(), &quote, START_MS).is_err()));
    }

    #[test]
    fn arbitrary_bytes_are_refused(bytes in proptest::collection::vec(any::<u8>(), 0..500)) {
        prop_assert!(SignedQuote::decode(&bytes).is_err());
        prop_assert!(SignedRequest::decode(&bytes).is_err());
        let _ = Selection::decode(&bytes);
    }
}
