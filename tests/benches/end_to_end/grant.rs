//! A grant for a million chunks: what it costs the machine, what it weighs, what the buyer does with it.

use rand::rng;
use tributary_protocol::{
    access::grant::{Grant, GrantExpectation, GrantHeader, GrantRange, Issuer},
    binding::Binding,
    identity::IdentityKey,
    ids::{Hash, StreamId},
    keys::{EncryptionKey, FeedKey},
    keytree::{EpochSeed, KeyTree, Position, SLOT_MS},
};

use crate::{Bench, machine::cpu_seconds, measure::median, table::Goal};

const MILLION: u32 = 1_000_000;
const NOW_MS: u64 = 1_800_000_000_000;
/// Where the range begins: in the middle of things, so that its cover is no lucky one.
const FIRST: (u16, u32) = (7, 3);

/// The last of a million chunks that were sealed at a steady rate, `per_slot` a minute.
fn millionth(per_slot: u32) -> Position {
    let nth = FIRST.1 + MILLION - 1;
    Position::new(FIRST.0 + u16::try_from(nth / per_slot).unwrap(), nth % per_slot)
}

pub(crate) fn run(bench: &mut Bench) {
    let per_second = u32::try_from(SLOT_MS / 1000).unwrap();
    for (rate, last) in [("one a second", millionth(per_second)), ("within a minute", millionth(u32::MAX))] {
        one(bench, rate, last);
    }
}

fn one(bench: &mut Bench, rate: &str, last: Position) {
    let (machine, owner) = (IdentityKey::generate(&mut rng()), IdentityKey::generate(&mut rng()));
    let (feed_key, buyer_key) = (FeedKey::generate(&mut rng()), EncryptionKey::generate(&mut rng()));
    let buyer = IdentityKey::generate(&mut rng()).did();
    let encryption_key = EncryptionKey::generate(&mut rng()).public();
    let binding = Binding {
        did: machine.did(),
        serial: 0,
        prev: Hash::ZERO,
        incarnation: 0,
        owner_id: owner.did(),
        owner_enc: encryption_key,
        feed_key: feed_key.public(),
        encryption_key,
        node_keys: Vec::new(),
        issued_ms: NOW_MS,
        expires_ms: NOW_MS + 1000,
        positions: Vec::new(),
    };
    let stream = StreamId::of(&machine.did(), "/camera");
    let mut tree = KeyTree::new(&EpochSeed::generate(&mut rng()), &stream, 1);
    let first = Position::new(FIRST.0, FIRST.1);
    let range = GrantRange { stream, epoch: 1, first, last };
    let (request_id, terms_hash) = (Hash::of(b"request"), Hash::of(b"terms"));

    let (mut issued, mut opened, mut bytes, mut nodes) = (vec![], vec![], 0, 0);
    for _ in 0..bench.rounds {
        let (seconds, grant) = cpu_seconds(|| {
            let cover = tree.cover(first..=last).unwrap();
            nodes = cover.node_count();
            let header = GrantHeader {
                grant_id: Hash::of(b"grant"),
                request_id,
                machine: machine.did(),
                range,
                buyer,
                buyer_enc: buyer_key.public(),
                terms_hash,
                issued_ms: NOW_MS,
                expires_ms: NOW_MS + 1000,
                binding_serial: 0,
                cover_hash: cover.hash(),
            };
            Grant::issue(header, &cover, Issuer::Feed(&feed_key), &mut rng()).unwrap().encode()
        });
        issued.push(seconds * 1000.0);
        bytes = grant.len();
        let (seconds, key) = cpu_seconds(|| {
            let expected = GrantExpectation { binding: &binding, buyer, request_id, terms_hash, range: Some(range) };
            let cover = Grant::decode(&grant).unwrap().open(&buyer_key, &expected, NOW_MS).unwrap();
            assert!(
                cover.chunk_key(Position::from_u64(last.as_u64() + 1).unwrap()).is_none(),
                "a key beyond the range"
            );
            cover.chunk_key(last).unwrap()
        });
        assert_eq!(key.commitment(), tree.chunk_key(last).commitment(), "the millionth key is another one");
        opened.push(seconds * 1000.0);
    }
    let (what, table) = (format!("1,000,000 chunks, {rate}"), &mut bench.table);
    table.value(&format!("issue a grant for {what}"), median(&issued), "ms", Goal::AtMost(5.0));
    table.value(&format!("its size ({nodes} keys)"), bytes as f64 / 1024.0, "KiB", Goal::AtMost(8.0));
    table.value("buyer opens it, derives and checks the millionth key", median(&opened), "ms", Goal::None);
}
