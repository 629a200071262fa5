//! The machine: writes two logs, and rotates its feed key once.

use std::collections::BTreeMap;

use rand::Rng as _;
use rand_chacha::{ChaCha20Rng, rand_core::SeedableRng as _};
use tributary_protocol::{
    binding::{Binding, LogPosition, MAX_LIFE_MS, SignedBinding},
    entry::{Entry, EntryBody, Head, SignedEntry, SignedHead, Tombstone, TombstoneTarget},
    identity::IdentityKey,
    ids::{DatasetId, Did, Hash, LogId, LogKey, StreamId},
    keys::{EncryptionKey, FeedKey},
    keytree::Position,
    record::{ChunkRecord, ContentEncoding},
};

/// Rounds of a second: a round is the 100 ms that a quick hop takes.
pub(crate) const SECOND: u64 = 10;

/// What a clock shows in a round.
pub(crate) fn time_ms(round: u64) -> u64 {
    1_700_000_000_000 + 1000 * round / SECOND
}

pub(crate) struct Machine {
    identity: IdentityKey,
    owner: IdentityKey,
    key: FeedKey,
    rng: ChaCha20Rng,
    binding: SignedBinding,
    /// Length and last hash of each log.
    tips: BTreeMap<LogId, (u64, Hash)>,
}

impl Machine {
    pub(crate) fn new(seed: u64) -> Self {
        let mut rng = ChaCha20Rng::seed_from_u64(seed);
        let (identity, owner) = (IdentityKey::generate(&mut rng), IdentityKey::generate(&mut rng));
        let key = FeedKey::generate(&mut rng);
        let first = Binding {
            did: identity.did(),
            serial: 0,
            prev: Hash::ZERO,
            incarnation: 0,
            owner_id: owner.did(),
            owner_enc: EncryptionKey::generate(&mut rng).public(),
            feed_key: key.public(),
            encryption_key: EncryptionKey::generate(&mut rng).public(),
            node_keys: vec![[7; 32]],
            issued_ms: time_ms(0),
            expires_ms: time_ms(0) + MAX_LIFE_MS,
            positions: Vec::new(),
        };
        let binding = SignedBinding::sign(first, &identity).unwrap();
        Self { identity, owner, key, rng, binding, tips: BTreeMap::new() }
    }

    pub(crate) fn did(&self) -> Did {
        self.identity.did()
    }

    pub(crate) fn binding(&self) -> SignedBinding {
        self.binding.clone()
    }

    /// How many entries each log has.
    pub(crate) fn lengths(&self) -> impl Iterator<Item = (LogKey, u64)> {
        let key = |log: &LogId| LogKey { did: self.did(), log: *log, incarnation: 0 };
        self.tips.iter().map(move |(log, (len, _))| (key(log), *len))
    }

    fn append(&mut self, log: LogId, body: EntryBody, round: u64) -> SignedEntry {
        let (seq, prev) = self.tips.get(&log).copied().unwrap_or((0, Hash::ZERO));
        let entry = Entry { did: self.did(), log, incarnation: 0, seq, prev, time_ms: time_ms(round), body };
        let signed = SignedEntry::sign(entry, &self.key).unwrap();
        self.tips.insert(log, (seq + 1, signed.hash()));
        signed
    }

    /// Says which keys speak for it, in its own log.
    pub(crate) fn write_binding(&mut self, round: u64) -> SignedEntry {
        let body = EntryBody::Binding(self.binding());
        self.append(LogId::MACHINE, body, round)
    }

    /// One entry more in the machine log.
    pub(crate) fn write_notice(&mut self, round: u64) -> SignedEntry {
        let target = TombstoneTarget::Chunks(vec![Hash::of(&self.rng.next_u64().to_be_bytes())]);
        let body = EntryBody::Tombstone(Tombstone { target, reason: "simulated".into() });
        self.append(LogId::MACHINE, body, round)
    }

    /// One entry more in the log of the stream.
    pub(crate) fn write_chunk(&mut self, round: u64) -> SignedEntry {
        let stream = StreamId::of(&self.did(), "/simulated");
        let salt = self.rng.next_u64();
        let record = ChunkRecord {
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
            time_from_ms: time_ms(round),
            time_to_ms: time_ms(round),
            encoding: ContentEncoding::PACKAGES,
            v1_signature: [6; 64],
        };
        self.append(stream.into(), EntryBody::Chunk(record), round)
    }

    /// Goes on with a new feed key, where the logs stand.
    pub(crate) fn rotate(&mut self, round: u64) {
        let key = FeedKey::generate(&mut self.rng);
        let held = self.binding.binding();
        let position = |(log, (len, hash)): (&LogId, &(u64, Hash))| LogPosition {
            log: *log,
            from_seq: *len,
            prev_entry_hash: *hash,
        };
        let next = Binding {
            serial: held.serial + 1,
            prev: self.binding.hash(),
            feed_key: key.public(),
            issued_ms: time_ms(round),
            expires_ms: time_ms(round) + MAX_LIFE_MS,
            positions: self.tips.iter().map(position).collect(),
            ..held.clone()
        };
        self.binding = SignedBinding::sign(next, &self.identity).unwrap().co_sign(&self.owner);
        self.key = key;
    }

    /// How far its logs go.
    pub(crate) fn heads(&self, round: u64) -> Vec<SignedHead> {
        let head = |(log, (len, hash)): (&LogId, &(u64, Hash))| Head {
            did: self.did(),
            log: *log,
            incarnation: 0,
            seq: len - 1,
            entry_hash: *hash,
            time_ms: time_ms(round),
        };
        self.tips.iter().map(|tip| SignedHead::sign(head(tip), &self.key)).collect()
    }
}
