use tributary_protocol::{
    entry::{Entry, SignedEntry},
    ids::{DatasetId, StreamId},
    keys::FeedKey,
    keytree::{EpochSeed, KeyTree, Position},
    record::ContentEncoding,
    seal::{SealInput, seal},
};
use tributary_store::{EntryIndex, Reason, StoreOptions, WriteBatch};

use super::*;

/// A store with two streams of one machine.
struct World {
    store: Store,
    did: Did,
    key: FeedKey,
    next: [u64; 2],
    _dir: tempfile::TempDir,
}

/// Bytes of each ciphertext.
const LEN: u64 = 100;

impl World {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let (store, _) = Store::open(dir.path(), &StoreOptions::default()).unwrap();
        let key = FeedKey::generate(&mut rand::rng());
        Self { store, did: Did::from_bytes([1; 20]), key, next: [0; 2], _dir: dir }
    }

    fn log(&self, stream: usize) -> LogKey {
        let id = StreamId::of(&self.did, ["a", "b"][stream]);
        LogKey { did: self.did, log: LogId::from(id), incarnation: 0 }
    }

    /// Appends an entry of this time; its chunk is stored as well where `here`.
    fn entry(&mut self, stream: usize, time_ms: u64, here: bool) -> Hash {
        let (log, seq) = (self.log(stream), self.next[stream]);
        self.next[stream] += 1;
        let id = log.log.stream().unwrap();
        let position = Position::from_u64(seq).unwrap();
        let mut nonce = [0; 24];
        nonce[..8].copy_from_slice(&seq.to_be_bytes());
        let sealed = seal(SealInput {
            key: &KeyTree::new(&EpochSeed::from_bytes(&[1; 32]), &id, 0).chunk_key(position),
            feed_key: &self.key,
            nonce,
            plaintext: vec![7; 84],
            stream: id,
            dataset: DatasetId::from_bytes([u8::try_from(seq).unwrap(); 32]),
            index: 0,
            epoch: 0,
            position,
            previous_chunk_id: None,
            encoding: ContentEncoding::FILE,
            package_count: 0,
            first_number: 0,
            gaps: 0,
            time_from_ms: time_ms,
            time_to_ms: time_ms,
        })
        .unwrap();
        let hash = sealed.record.hash;
        let body = EntryBody::Chunk(sealed.record);
        let LogKey { did, log: of, incarnation } = log;
        let entry = Entry { did, log: of, incarnation, seq, prev: Hash::ZERO, time_ms, body };
        let signed = SignedEntry::sign(entry, &self.key).unwrap();
        let mut batch = WriteBatch::new();
        batch.put_entry(log, seq, signed.bytes(), EntryIndex { chunk: Some(hash), dataset: None });
        if here {
            batch.put_chunk(hash, sealed.ciphertext);
        }
        self.store.commit(batch).unwrap();
        hash
    }

    fn drop_chunks(&self, victims: &[Hash]) {
        let mut batch = WriteBatch::new();
        for hash in victims {
            batch.tombstone_chunk(*hash, Reason::Expired);
        }
        self.store.commit(batch).unwrap();
    }
}

fn tally(chunks: u64) -> Tally {
    Tally { chunks, bytes: chunks * LEN }
}

#[test]
fn the_oldest_of_all_logs_go_first_and_the_same_is_found_after_a_restart() {
    let mut world = World::new();
    // In the order of their times: 10 of a, 11 of b, 20 of a, 21 of b, ...
    let times = (1..=5).flat_map(|n| [(0, n * 10), (1, n * 10 + 1)]);
    let hashes: Vec<Hash> = times.map(|(stream, time_ms)| world.entry(stream, time_ms, true)).collect();
    let mut shelf = Shelf::default();
    shelf.count(&world.store, &world.did).unwrap();
    assert_eq!((shelf.known, shelf.due_bytes(), shelf.held), (tally(10), 10 * LEN, tally(0)));
    assert!(shelf.settle(&world.store, &shelf.places(100)).unwrap().is_empty());
    assert_eq!((shelf.held, shelf.missing), (tally(10), 0));
    let victims = shelf.trim(&world.store, 0, Some(7 * LEN)).unwrap();
    assert_eq!(victims, hashes[..3]);
    assert_eq!((shelf.held, shelf.dropped), (tally(7), 3));
    // By age: what is older than 40.
    assert_eq!(shelf.trim(&world.store, 40, None).unwrap(), hashes[3..6]);
    world.drop_chunks(&hashes[..6]);
    assert!(shelf.trim(&world.store, 40, Some(7 * LEN)).unwrap().is_empty() && shelf.places(100).is_empty());

    let mut again = Shelf::default();
    again.count(&world.store, &world.did).unwrap();
    assert!(again.trim(&world.store, 40, Some(7 * LEN)).unwrap().is_empty(), "it was dropped before");
    assert_eq!(again.places(100), shelf_places(&world, 3));
    again.settle(&world.store, &again.places(100)).unwrap();
    assert_eq!((again.held, again.missing, again.dropped), (tally(4), 0, 0));
}

/// The last two of five entries of each stream, in the order of the logs.
fn shelf_places(world: &World, from: u64) -> Vec<Place> {
    let mut places = vec![(world.log(0), from, 4), (world.log(1), from, 4)];
    places.sort_unstable_by_key(|(log, ..)| *log);
    places
}

#[test]
fn what_there_is_no_room_for_is_never_fetched() {
    let mut world = World::new();
    for n in 1..=20 {
        world.entry(0, n, false);
    }
    let mut shelf = Shelf::default();
    shelf.count(&world.store, &world.did).unwrap();
    assert!(shelf.trim(&world.store, 0, Some(5 * LEN)).unwrap().is_empty());
    assert_eq!(shelf.places(100), [(world.log(0), 15, 19)]);
    assert_eq!(shelf.places(2), [(world.log(0), 15, 16)]);
    assert_eq!((shelf.known, shelf.dropped, shelf.missing), (tally(20), 0, 0));
    // A front that moves while chunks are fetched takes them along.
    let places = shelf.places(100);
    let late = world.entry(0, 21, true);
    shelf.count(&world.store, &world.did).unwrap();
    shelf.trim(&world.store, 0, Some(LEN)).unwrap();
    assert!(shelf.settle(&world.store, &places).unwrap().is_empty());
    assert_eq!((shelf.held, shelf.missing, shelf.places(100)), (tally(0), 0, vec![(world.log(0), 20, 20)]));
    shelf.settle(&world.store, &[(world.log(0), 20, 20)]).unwrap();
    assert_eq!(shelf.held, tally(1));
    assert_eq!(shelf.trim(&world.store, u64::MAX, None).unwrap(), [late]);
}

#[test]
fn what_nobody_had_is_looked_for_again_and_counted_once() {
    let mut world = World::new();
    for n in 0..6 {
        world.entry(0, n, n % 2 == 0);
    }
    let mut shelf = Shelf::default();
    shelf.count(&world.store, &world.did).unwrap();
    shelf.settle(&world.store, &shelf.places(100)).unwrap();
    assert_eq!((shelf.held, shelf.missing), (tally(3), 3));
    for _ in 0..3 {
        assert!(shelf.go_back(&world.store).unwrap());
        assert_eq!(shelf.places(100), [(world.log(0), 1, 5)]);
        shelf.settle(&world.store, &shelf.places(100)).unwrap();
        assert_eq!((shelf.held, shelf.missing), (tally(3), 3));
    }
    // Passing over one that is missing takes it off the count.
    shelf.trim(&world.store, 2, None).unwrap();
    assert_eq!((shelf.held, shelf.missing), (tally(2), 2));
    let mut batch = WriteBatch::new();
    batch.truncate_log(world.log(0), 3);
    world.store.commit(batch).unwrap();
    shelf.count(&world.store, &world.did).unwrap();
    assert_eq!((shelf.known, shelf.places(100)), (tally(3), vec![(world.log(0), 0, 2)]), "a log that was cut");
}
