//! A machine that writes logs and rotates keys, and a node that follows it: for tests, without any I/O.

use std::collections::BTreeMap;

use rand_chacha::ChaCha20Rng;
use rand_core::{Rng, SeedableRng};

use super::{BindingOutcome, EntryVerdict, Follower, History, Truncated};
use crate::{
    binding::{Binding, BindingChain, ChainError, LogPosition, MAX_LIFE_MS, SignedBinding},
    entry::{Entry, EntryBody, Head, Kind, SignedEntry, SignedHead, Tombstone, TombstoneTarget},
    identity::IdentityKey,
    ids::{DatasetId, Did, Hash, LogId, LogKey, StreamId},
    keys::{EncryptionKey, FeedKey},
    keytree::Position,
    record::{ChunkRecord, ContentEncoding},
};

pub(crate) const START_MS: u64 = 1_700_000_000_000;

pub(crate) fn rng(seed: u64) -> ChaCha20Rng {
    ChaCha20Rng::seed_from_u64(seed)
}

pub(crate) fn copy(key: &FeedKey) -> FeedKey {
    FeedKey::from_bytes(&key.to_bytes())
}

/// A valid chunk record that differs with `salt`.
pub(crate) fn record(stream: StreamId, salt: u64) -> ChunkRecord {
    ChunkRecord {
        stream,
        dataset: DatasetId::of(&stream, 0, salt),
        index: 0,
        epoch: 0,
        position: Position::MIN,
        chunk_id: [1; 32],
        previous_chunk_id: None,
        sha256: [2; 32],
        hash: Hash::of(&salt.to_be_bytes()),
        len: 1000,
        nonce: [3; 24],
        key_commitment: [4; 32],
        plaintext_commitment: [5; 32],
        package_count: 1,
        first_number: salt,
        gaps: 0,
        time_from_ms: START_MS,
        time_to_ms: START_MS,
        encoding: ContentEncoding::PACKAGES,
        v1_signature: [6; 64],
    }
}

pub(crate) struct Machine {
    pub(crate) identity: IdentityKey,
    pub(crate) owner: IdentityKey,
    pub(crate) key: FeedKey,
    pub(crate) bindings: Vec<SignedBinding>,
    pub(crate) incarnation: u32,
    pub(crate) logs: BTreeMap<(LogId, u32), Vec<SignedEntry>>,
    pub(crate) rng: ChaCha20Rng,
    pub(crate) now_ms: u64,
}

impl Machine {
    pub(crate) fn new(seed: u64) -> Self {
        let mut rng = rng(seed);
        let (identity, owner) = (IdentityKey::generate(&mut rng), IdentityKey::generate(&mut rng));
        let key = FeedKey::generate(&mut rng);
        let first = first_binding(&identity, &owner, &key, &mut rng);
        let first = SignedBinding::sign(first, &identity).expect("valid");
        Self {
            identity,
            owner,
            key,
            bindings: vec![first],
            incarnation: 0,
            logs: BTreeMap::new(),
            rng,
            now_ms: START_MS,
        }
    }

    pub(crate) fn did(&self) -> Did {
        self.identity.did()
    }

    pub(crate) fn stream(&self, number: u8) -> LogId {
        StreamId::of(&self.did(), &format!("/topic{number}")).into()
    }

    pub(crate) fn chain(&self) -> BindingChain {
        let mut chain = BindingChain::new(&self.bindings[0]).expect("valid");
        for next in &self.bindings[1..] {
            chain.accept(next).expect("valid");
        }
        chain
    }

    /// The entry that `key` would write at a position.
    pub(crate) fn forge(&self, key: &FeedKey, at: (LogId, u32), seq: u64, prev: Hash, salt: u64) -> SignedEntry {
        let body = match at.0.stream() {
            Some(stream) => EntryBody::Chunk(record(stream, salt)),
            None => EntryBody::Tombstone(Tombstone {
                target: TombstoneTarget::Chunks(vec![Hash::of(&salt.to_be_bytes())]),
                reason: "test".into(),
            }),
        };
        let (did, time_ms) = (self.did(), self.now_ms);
        let entry = Entry { did, log: at.0, incarnation: at.1, seq, prev, time_ms, body };
        SignedEntry::sign(entry, key).expect("valid")
    }

    /// What the entry at `seq` of a log names as its predecessor, in the true log.
    pub(crate) fn prev(&self, at: (LogId, u32), seq: u64) -> Hash {
        match seq.checked_sub(1) {
            None => self.chain().origin(&at.0, at.1),
            Some(before) => self.logs[&at][usize::try_from(before).expect("small")].hash(),
        }
    }

    pub(crate) fn len(&self, at: (LogId, u32)) -> u64 {
        self.logs.get(&at).map_or(0, |log| log.len() as u64)
    }

    pub(crate) fn append(&mut self, log: LogId) -> SignedEntry {
        self.now_ms += 1000;
        let at = (log, self.incarnation);
        let seq = self.len(at);
        let salt = self.rng.next_u64();
        let entry = self.forge(&self.key, at, seq, self.prev(at, seq), salt);
        self.logs.entry(at).or_default().push(entry.clone());
        entry
    }

    pub(crate) fn head(&self, at: (LogId, u32)) -> SignedHead {
        let last = self.logs[&at].last().expect("not empty");
        let head = Head {
            did: self.did(),
            log: at.0,
            incarnation: at.1,
            seq: last.entry().seq,
            entry_hash: last.hash(),
            time_ms: self.now_ms,
        };
        SignedHead::sign(head, &self.key)
    }

    /// The next binding, unsigned: every log goes on where `keep` says, given its length.
    pub(crate) fn next_binding(&self, key: &FeedKey, incarnation: u32, keep: impl Fn(LogId, u64) -> u64) -> Binding {
        let held = self.bindings.last().expect("one");
        let mut positions = Vec::new();
        for ((log, inc), entries) in &self.logs {
            if *inc == self.incarnation {
                let from_seq = keep(*log, entries.len() as u64);
                let prev_entry_hash = self.prev((*log, *inc), from_seq);
                positions.push(LogPosition { log: *log, from_seq, prev_entry_hash });
            }
        }
        Binding {
            serial: held.binding().serial + 1,
            prev: held.hash(),
            incarnation,
            feed_key: key.public(),
            issued_ms: self.now_ms,
            expires_ms: self.now_ms + MAX_LIFE_MS,
            positions,
            ..held.binding().clone()
        }
    }

    /// Makes and adopts the next binding. Returns the key before.
    pub(crate) fn rotate(&mut self, new_key: bool, new_incarnation: bool, keep: impl Fn(LogId, u64) -> u64) -> FeedKey {
        self.now_ms += 1000;
        let key = if new_key { FeedKey::generate(&mut self.rng) } else { copy(&self.key) };
        let incarnation = self.incarnation + u32::from(new_incarnation);
        let binding = self.next_binding(&key, incarnation, &keep);
        for position in &binding.positions {
            let kept = usize::try_from(position.from_seq).expect("small");
            self.logs.get_mut(&(position.log, self.incarnation)).expect("listed").truncate(kept);
        }
        let signed = SignedBinding::sign(binding, &self.identity).expect("valid").co_sign(&self.owner);
        self.bindings.push(signed);
        self.incarnation = incarnation;
        std::mem::replace(&mut self.key, key)
    }
}

pub(crate) fn first_binding(
    identity: &IdentityKey,
    owner: &IdentityKey,
    key: &FeedKey,
    rng: &mut ChaCha20Rng,
) -> Binding {
    Binding {
        did: identity.did(),
        serial: 0,
        prev: Hash::ZERO,
        incarnation: 0,
        owner_id: owner.did(),
        owner_enc: EncryptionKey::generate(rng).public(),
        feed_key: key.public(),
        encryption_key: EncryptionKey::generate(rng).public(),
        node_keys: vec![[7; 32]],
        issued_ms: START_MS,
        expires_ms: START_MS + MAX_LIFE_MS,
        positions: Vec::new(),
    }
}

/// What a node stores.
#[derive(Default)]
pub(crate) struct Shelf(pub(crate) BTreeMap<LogKey, BTreeMap<u64, Vec<u8>>>);

impl History for Shelf {
    fn entry(&self, log: &LogKey, seq: u64) -> Option<Vec<u8>> {
        self.0.get(log)?.get(&seq).cloned()
    }

    fn dataset_closed(&self, did: &Did, dataset: &DatasetId) -> Option<Vec<u8>> {
        let closes = |bytes: &&Vec<u8>| {
            let entry = SignedEntry::decode(bytes).expect("stored");
            entry.entry().did == *did
                && matches!(&entry.entry().body, EntryBody::DatasetClosed(close) if close.dataset == *dataset)
                && entry.entry().body.kind() == Kind::DatasetClosed
        };
        self.0.values().flat_map(BTreeMap::values).find(closes).cloned()
    }
}

/// A node: the follower, and a store that does what it is told.
pub(crate) struct Node {
    pub(crate) follower: Follower,
    pub(crate) shelf: Shelf,
}

impl Node {
    pub(crate) fn new(did: Did) -> Self {
        Self { follower: Follower::new(did), shelf: Shelf::default() }
    }

    /// A node that holds all the machine says.
    pub(crate) fn following(machine: &Machine) -> Self {
        let mut node = Self::new(machine.did());
        node.sync(machine);
        node
    }

    fn cut(&mut self, cut: Truncated) {
        if let Some(log) = self.shelf.0.get_mut(&cut.log) {
            log.retain(|seq, _| *seq < cut.from_seq);
        }
    }

    pub(crate) fn binding(&mut self, binding: &SignedBinding) -> Result<BindingOutcome, ChainError> {
        let outcome = self.follower.on_binding(binding, &self.shelf)?;
        outcome.truncated.iter().for_each(|cut| self.cut(*cut));
        Ok(outcome)
    }

    pub(crate) fn entry(&mut self, entry: &SignedEntry) -> EntryVerdict {
        self.entry_at(entry, u64::MAX / 2)
    }

    pub(crate) fn entry_at(&mut self, entry: &SignedEntry, now_ms: u64) -> EntryVerdict {
        // What a node gets are bytes.
        let entry = SignedEntry::decode(entry.bytes()).expect("valid");
        let verdict = self.follower.on_entry(&entry, now_ms, &self.shelf);
        match &verdict {
            EntryVerdict::Apply { .. } => {
                let log = self.shelf.0.entry(entry.entry().key()).or_default();
                assert!(log.insert(entry.entry().seq, entry.into_bytes()).is_none(), "a position is written once");
            }
            EntryVerdict::Diverged(cut) => self.cut(*cut),
            _ => {}
        }
        verdict
    }

    pub(crate) fn abandon(&mut self, at: (LogId, u32)) {
        if let Some(cut) = self.follower.abandon(&at.0, at.1) {
            self.cut(cut);
        }
    }

    /// Fetches everything from an honest peer that holds what the machine holds.
    pub(crate) fn sync(&mut self, machine: &Machine) {
        while let Some(next) = machine.bindings.get(usize::try_from(self.follower.next_serial()).expect("small")) {
            self.binding(next).expect("the machine's bindings are in order");
        }
        for (at, entries) in &machine.logs {
            for _ in 0..4 {
                let from = usize::try_from(self.follower.next(&at.0, at.1)).expect("small");
                for entry in entries.iter().skip(from) {
                    match self.entry(entry) {
                        EntryVerdict::Apply { .. } => {}
                        EntryVerdict::Forked { .. } => {
                            self.abandon(*at);
                            break;
                        }
                        EntryVerdict::Diverged(_) => break,
                        other => panic!("an honest entry was answered with {other:?}"),
                    }
                }
            }
        }
    }

    /// Starts anew from what is stored.
    pub(crate) fn restart(&mut self, machine: &Machine) {
        let known = usize::try_from(self.follower.next_serial()).expect("small");
        let tips: Vec<_> = self.follower.tips().collect();
        let (follower, cuts) =
            Follower::restore(machine.did(), &machine.bindings[..known], tips, &self.shelf).expect("stored bindings");
        assert_eq!(cuts, []);
        self.follower = follower;
    }

    /// Asserts that the node holds exactly what the machine holds.
    pub(crate) fn assert_equals(&self, machine: &Machine) {
        for (at, entries) in &machine.logs {
            let key = LogKey { did: machine.did(), log: at.0, incarnation: at.1 };
            let held: Vec<_> = self.shelf.0.get(&key).into_iter().flat_map(BTreeMap::values).collect();
            let truth: Vec<_> = entries.iter().map(SignedEntry::bytes).collect();
            assert_eq!(held.len(), truth.len(), "length of {key:?}");
            assert!(held.iter().zip(truth).all(|(held, truth)| held.as_slice() == truth), "entries of {key:?}");
            assert_eq!(self.follower.settled(&at.0, at.1), entries.len() as u64);
        }
        for (key, log) in &self.shelf.0 {
            assert!(log.is_empty() || machine.logs.contains_key(&(key.log, key.incarnation)), "a forged log {key:?}");
        }
        assert!(self.follower.evidence().is_empty(), "an honest machine looks like a liar");
    }
}
