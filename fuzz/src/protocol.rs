//! What peers and files say in the formats of the protocol: names, JSON, packages, signed objects, chunks.

use std::{
    collections::BTreeMap,
    fmt::{Debug, Display},
    str::FromStr,
};

use tributary_protocol::{
    access::{Grant, GrantExpectation, Selection, SignedDeposit, SignedQuote, SignedRequest},
    binding::{Binding, BindingChain, SignedBinding},
    dataset::{DatasetEntry, DatasetTree, verify_inclusion},
    entry::{Entry, EntryBody, SignedEntry, SignedHead},
    feed::{EntryVerdict, Evidence, Follower, History},
    identity::IdentityKey,
    ids::{DatasetId, Did, Hash, LogId, LogKey, StreamId},
    json::{self, Limits, Value},
    keys::{EncryptionPublicKey, FeedPublicKey},
    keytree::{Cover, Position},
    package::{BlobMarker, DataPackage, parse_timestamp, timestamp_text},
    record::ChunkRecord,
    rules::{Action, Strategy},
    seal,
    wire::{gossip::topic_log, parse_topic},
};

use crate::{known, split::Split, text};

/// Any JSON text: what is read has one canonical form, which reads back as the same value; and where `serde_json` reads the
/// text too, both mean the same.
pub fn json(data: &[u8]) {
    let ours = json::parse(data, Limits::default());
    let theirs = serde_json::from_slice::<serde_json::Value>(data);
    let Ok(value) = ours else {
        // Numbers of thousands of digits are the one thing that only the other reader takes.
        assert!(theirs.is_err() || data.len() > 4300, "refused, but it is JSON: {ours:?}");
        return;
    };
    let canonical = value.to_canonical().expect("parsed values are finite and shallow");
    assert!(canonical.is_ascii());
    let again = json::parse(&canonical, Limits::bytes(usize::MAX)).expect("a canonical form is JSON");
    assert_eq!(again, value);
    assert_eq!(again.to_canonical().expect("as before"), canonical);
    if let Ok(theirs) = theirs {
        let ours = serde_json::from_slice(&canonical).expect("a canonical form is JSON for everybody");
        assert!(same(&ours, &theirs), "{ours} and {theirs}");
    }
    if let Value::Object(object) = &value {
        let _ = BlobMarker::all_in(object);
    }
}

/// Equal, with numbers compared as floats: the other reader has no integers beyond 64 bits and no integer -0.
fn same(a: &serde_json::Value, b: &serde_json::Value) -> bool {
    use serde_json::Value as V;
    match (a, b) {
        (V::Number(a), V::Number(b)) => a == b || a.as_f64() == b.as_f64(),
        (V::Array(a), V::Array(b)) => a.len() == b.len() && a.iter().zip(b).all(|(a, b)| same(a, b)),
        (V::Object(a), V::Object(b)) => {
            a.len() == b.len() && a.iter().all(|(key, a)| b.get(key).is_some_and(|b| same(a, b)))
        }
        _ => a == b,
    }
}

/// A data package line: reads back from its line form, with the same verdict on its signature.
pub fn data_package(data: &[u8]) {
    let Ok(package) = DataPackage::from_json(data) else { return };
    let line = package.to_line().expect("parsed numbers are finite");
    assert!(line.is_ascii() && !line.contains(&b'\n'));
    let again = DataPackage::from_json(&line).expect("a line is a package");
    assert_eq!(again, package);
    assert_eq!(again.to_line().expect("as before"), line);
    assert_eq!(again.verify(), package.verify());
    let _ = package.verify_from(&known::did());
}

fn one_spelling<T: FromStr + Display>(text: &str) {
    if let Ok(value) = text.parse::<T>() {
        assert_eq!(value.to_string(), text, "an identifier has one spelling");
    }
}

/// Identifiers, timestamps, topics and the words of rules, all from one text.
pub fn texts(data: &[u8]) {
    if let Some(bytes) = data.first_chunk() {
        assert_eq!(LogKey::from_bytes(bytes).to_bytes(), *bytes);
    }
    let Some(text) = text(data) else { return };
    one_spelling::<Did>(text);
    one_spelling::<Hash>(text);
    one_spelling::<StreamId>(text);
    one_spelling::<DatasetId>(text);
    one_spelling::<LogId>(text);
    one_spelling::<FeedPublicKey>(text);
    one_spelling::<EncryptionPublicKey>(text);
    one_spelling::<Action>(text);
    one_spelling::<Strategy>(text);
    if let Some(time) = parse_timestamp(text) {
        assert_eq!(timestamp_text(time), text);
    }
    if let Some((did, log)) = parse_topic(text) {
        assert_eq!(topic_log(&did, &log), text);
    }
    if let Ok(key) = IdentityKey::from_hex(text) {
        assert!(IdentityKey::from_bytes(&key.to_bytes()).is_ok_and(|again| again.did() == key.did()));
    }
}

/// A signed binding, and the bare binding in it.
pub fn binding(data: &[u8]) {
    if let Ok(binding) = Binding::decode(data) {
        assert_eq!(binding.encode().expect("it was read"), data);
    }
    let Ok(signed) = SignedBinding::decode(data) else { return };
    assert_eq!(signed.encode(), data);
    if signed.verify(None).is_ok() {
        let binding = signed.binding();
        assert_eq!(BindingChain::new(&signed).is_ok(), binding.serial == 0);
    }
}

/// A signed log entry: the bytes are the only encoding of what they say.
pub fn entry(data: &[u8]) {
    let Ok(signed) = SignedEntry::decode(data) else { return };
    assert_eq!(signed.bytes(), data);
    let entry: &Entry = signed.entry();
    // Signed again by another key, everything but key and signature stays.
    let again = SignedEntry::sign(entry.clone(), &known::feed_key()).expect("it was read");
    assert_eq!(again.bytes()[..data.len() - 96], data[..data.len() - 96]);
    assert_eq!(again.entry(), entry);
    let _ = signed.verify_signature();
    if let EntryBody::Epoch(epoch) = &entry.body {
        let _ = epoch.open(entry.did, entry.incarnation, &known::encryption_key());
    }
}

/// A signed head.
pub fn head(data: &[u8]) {
    let Ok(signed) = SignedHead::decode(data) else { return };
    assert_eq!(signed.bytes().as_slice(), data);
    assert_eq!(SignedHead::sign(*signed.head(), &known::feed_key()).head(), signed.head());
    let _ = signed.verify_signature();
}

/// Stored evidence of an equivocation.
pub fn evidence(data: &[u8]) {
    let Ok(evidence) = Evidence::decode(data) else { return };
    assert_eq!(evidence.encode(), data);
    let _ = evidence.stands(&known::chain());
}

#[derive(Default)]
struct Shelf {
    entries: BTreeMap<(LogKey, u64), Vec<u8>>,
    closed: BTreeMap<DatasetId, Vec<u8>>,
}

impl History for Shelf {
    fn entry(&self, log: &LogKey, seq: u64) -> Option<Vec<u8>> {
        self.entries.get(&(*log, seq)).cloned()
    }

    fn dataset_closed(&self, _: &Did, dataset: &DatasetId) -> Option<Vec<u8>> {
        self.closed.get(dataset).cloned()
    }
}

/// Bindings, heads and entries in any order to one that follows: each `tag (1) || length (2, big endian) || bytes`. What is
/// applied is what the tip says, and what is known is not applied twice.
pub fn follower(data: &[u8]) {
    let mut follower = Follower::new(known::did());
    let mut shelf = Shelf::default();
    let mut input = Split(data);
    while let Some(tag) = input.u8() {
        let Some(bytes) = input.block() else { break };
        match tag % 3 {
            0 => {
                if let Ok(signed) = SignedBinding::decode(bytes) {
                    let _ = follower.on_binding(&signed, &shelf);
                }
            }
            1 => {
                if let Ok(signed) = SignedHead::decode(bytes) {
                    let _ = follower.on_head(&signed, &shelf);
                }
            }
            _ => {
                let Ok(signed) = SignedEntry::decode(bytes) else { continue };
                let (key, seq) = (signed.entry().key(), signed.entry().seq);
                let verdict = follower.on_entry(&signed, known::NOW_MS, &shelf);
                if let EntryVerdict::Apply { .. } = verdict {
                    assert_eq!(follower.next(&key.log, key.incarnation), seq + 1);
                    if let EntryBody::DatasetClosed(closed) = &signed.entry().body {
                        shelf.closed.entry(closed.dataset).or_insert_with(|| bytes.to_vec());
                    }
                    shelf.entries.insert((key, seq), bytes.to_vec());
                    let again = follower.on_entry(&signed, known::NOW_MS, &shelf);
                    assert!(!matches!(again, EntryVerdict::Apply { .. }), "applied twice");
                }
            }
        }
    }
    assert!(follower.tips().count() <= tributary_protocol::feed::MAX_LOGS);
}

/// A chunk record.
pub fn chunk_record(data: &[u8]) {
    let Ok(record) = ChunkRecord::decode(data) else { return };
    assert_eq!(record.encode(), data);
    assert_eq!(record.check(), Ok(()));
    let _ = seal::verify_chunk_id(&record);
}

/// A chunk record and a ciphertext for it.
pub fn chunk(data: &[u8]) {
    let Some((record, ciphertext)) = data.split_first_chunk::<{ ChunkRecord::LEN }>() else { return };
    let Ok(record) = ChunkRecord::decode(record) else { return };
    let key = known::chunk_key();
    let _ = seal::verify_v1(&record, &known::feed_key().public(), ciphertext);
    let readable = seal::check_readable(&record, &key, ciphertext);
    assert_eq!(seal::open_unhashed(&record, &key, ciphertext.to_vec()).map(drop), readable);
    if let Ok(plaintext) = seal::open(&record, &key, ciphertext) {
        assert_eq!(plaintext.len() + 16, ciphertext.len());
        let _ = seal::verify_plaintext(&record, &key, &plaintext);
    }
}

/// The entry that closes a dataset.
pub fn dataset_entry(data: &[u8]) {
    let Ok(entry) = DatasetEntry::decode(data) else { return };
    assert_eq!(entry.encode(), data);
    assert_eq!(entry.check(), Ok(()));
}

/// The chunk keys of a grant.
pub fn cover(data: &[u8]) {
    let Ok(cover) = Cover::decode(data) else { return };
    assert_eq!(cover.encode().as_slice(), data);
    let (first, last) = cover.range();
    assert!(cover.verify_canonical(first..=last).is_ok());
    assert!((1..=Cover::MAX_NODES).contains(&cover.node_count()));
    for inside in [first, last] {
        assert!(cover.chunk_key(inside).is_some());
    }
    let outside = [first.as_u64().checked_sub(1), last.as_u64().checked_add(1)];
    for position in outside.into_iter().flatten().filter_map(Position::from_u64) {
        assert!(cover.chunk_key(position).is_none());
        assert!(cover.verify_canonical(first.min(position)..=last.max(position)).is_err());
    }
}

/// A proof that a chunk is in a dataset: `root (32) || count (4) || index (4) || record (length 2) || proof`. Then the same
/// bytes as a small dataset, of which every chunk is proven and none stands for another.
pub fn inclusion(data: &[u8]) {
    let mut input = Split(data);
    let (Some(root), Some(count), Some(index), Some(record)) = (input.array(), input.u32(), input.u32(), input.block())
    else {
        return;
    };
    let _ = verify_inclusion(&root, count, index, record, input.0);

    let mut tree = DatasetTree::default();
    let leaves: Vec<&[u8]> = data.chunks(8).take(20).collect();
    for leaf in &leaves {
        tree.push(leaf);
    }
    let count = u32::try_from(leaves.len()).expect("at most 20");
    for (index, leaf) in (0..count).zip(&leaves) {
        let proof = tree.prove(index).expect("it is in the tree");
        assert_eq!(verify_inclusion(&tree.root(), count, index, leaf, &proof), Ok(()));
        let moved = (index + 1) % count;
        if leaves[moved as usize] != *leaf {
            assert!(verify_inclusion(&tree.root(), count, moved, leaf, &proof).is_err());
        }
    }
}

/// What a buyer selects.
pub fn selection(data: &[u8]) {
    let Ok(selection) = Selection::decode(data) else { return };
    assert_eq!(selection.encode(), data);
    assert_eq!(Selection::new(selection.ranges().to_vec()).as_ref(), Ok(&selection));
}

/// A signed quote.
pub fn quote(data: &[u8]) {
    let Ok(signed) = SignedQuote::decode(data) else { return };
    assert_eq!(signed.bytes(), data);
    let again = SignedQuote::sign(signed.quote().clone(), &known::feed_key()).expect("it was read");
    assert_eq!(again.quote(), signed.quote());
    assert_eq!(again.terms_hash(), signed.terms_hash());
    let _ = signed.verify(&known::binding(), &known::buyer(), known::NOW_MS);
}

/// What a machine leaves with mirrors.
pub(crate) fn deposit(data: &[u8]) {
    let Ok(signed) = SignedDeposit::decode(data) else { return };
    assert_eq!(signed.bytes(), data);
    let again = SignedDeposit::sign(signed.deposit().clone(), &known::feed_key()).expect("it was read");
    assert_eq!(again.deposit(), signed.deposit());
    let _ = signed.verify(&known::binding(), known::NOW_MS);
}

/// A signed request for access.
pub fn request(data: &[u8]) {
    let Ok(signed) = SignedRequest::decode(data) else { return };
    assert_eq!(signed.encode(), data);
    let _ = signed.verify(&known::did(), known::quote(), known::NOW_MS);
}

/// A grant, read, checked and opened by the buyer it may be for.
pub fn grant(data: &[u8]) {
    let Ok(grant) = Grant::decode(data) else { return };
    assert_eq!(grant.encode(), data);
    let header = grant.header();
    // Whatever can be said about the expectations is said; what remains are the signature and the keys.
    let (binding, mut expected) = (known::binding(), header.range);
    for _ in 0..2 {
        let expectation = GrantExpectation {
            binding: &binding,
            buyer: header.buyer,
            request_id: header.request_id,
            terms_hash: header.terms_hash,
            range: Some(expected),
        };
        if let Ok(cover) = grant.open(&known::encryption_key(), &expectation, known::NOW_MS) {
            assert_eq!(expected, header.range);
            assert!(cover.verify_canonical(expected.first..=expected.last).is_ok());
        }
        expected.epoch ^= 1;
    }
}

/// Reads, writes and reads again.
pub(crate) fn round_trip<T: PartialEq + Debug, E: Debug, F: Debug>(
    data: &[u8],
    decode: impl Fn(&[u8]) -> Result<T, E>,
    encode: impl Fn(&T) -> Result<Vec<u8>, F>,
) -> Option<T> {
    let value = decode(data).ok()?;
    let bytes = encode(&value).expect("what was read can be written");
    assert_eq!(decode(&bytes).expect("its own bytes"), value);
    Some(value)
}
