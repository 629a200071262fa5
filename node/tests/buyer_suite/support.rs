//! A machine that does what the test wants, and buyers.

use std::{
    collections::{HashMap, HashSet},
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering::SeqCst},
    },
    time::Duration,
};

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use tempfile::TempDir;
use tributary::{
    buyer::Buyer,
    feeds::{FeedLink, Feeds, FeedsOptions, Streams},
    home::MachineKeys,
    net::{
        ChunkLookup, Client, InboundRequest, Keypair, NetConfig, NetEvents, PeerId, PullServer, PullServerConfig, start,
    },
};
use tributary_protocol::{
    access::{Grant, GrantHeader, GrantRange, Issuer, Price, Quote, Range, Selection, SignedQuote, SignedRequest},
    binding::{Binding, SignedBinding},
    dataset::{DatasetBuilder, DatasetEntry},
    entry::{Entry, EntryBody, Head, Mode, Policy, SignedEntry, SignedHead, StreamInfo},
    identity::IdentityKey,
    ids::{DatasetId, Did, Hash, LogId, LogKey, StreamId},
    json::{Number, Object},
    keys::{EncryptionKey, FeedKey},
    keytree::{EpochSeed, KeyTree, Position},
    package::{BlobMarker, PackageSigner},
    record::{Content, ContentEncoding},
    seal::{SealInput, seal},
    wire::{AccessMessage, AccessReply, DenyCode, SyncRequest, SyncResponse},
};
use tributary_store::{EntryIndex, Store, StoreOptions, Table, VerifiedChunk, WriteBatch};

pub(crate) const NOW: u64 = 1_790_000_000_000;

/// No test may wait longer than this for anything.
const PATIENCE: Duration = Duration::from_secs(60);

pub(crate) async fn soon<T>(what: &str, future: impl Future<Output = T>) -> T {
    tokio::time::timeout(PATIENCE, future).await.unwrap_or_else(|_| panic!("timed out: {what}"))
}

/// How the machine answers requests for access.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Mood {
    Grants,
    Denies,
    /// Says "pending" so often first.
    Ponders(u64),
    /// Grants another range than its header says... sealed to somebody else.
    GrantsToAnother,
    /// Signs the grant with a key that is not bound.
    ForgesGrants,
    Charges,
}

pub(crate) struct Machine {
    pub(crate) did: Did,
    pub(crate) identity: Arc<IdentityKey>,
    pub(crate) owner: IdentityKey,
    pub(crate) feed: FeedKey,
    pub(crate) client: Client,
    pub(crate) store: Store,
    pub(crate) bindings: Mutex<Vec<SignedBinding>>,
    pub(crate) mood: Mutex<Mood>,
    /// Every sync request that came.
    pub(crate) asked: Mutex<Vec<SyncRequest>>,
    /// Logs that sync requests are told nothing about.
    pub(crate) withheld: Mutex<HashSet<LogId>>,
    /// Chunks that are served with other bytes.
    pub(crate) tampered: Mutex<HashMap<Hash, Vec<u8>>>,
    /// Chunks that were served.
    pub(crate) served: AtomicU64,
    pondered: AtomicU64,
    logs: Mutex<HashMap<LogKey, (u64, Hash)>>,
    seed: EpochSeed,
    counter: AtomicU64,
    number: AtomicU64,
    pull: Mutex<Option<PullServer>>,
    _dir: TempDir,
}

pub(crate) fn tcp() -> NetConfig {
    NetConfig { listen: vec!["/ip4/127.0.0.1/tcp/0".parse().unwrap()], ..NetConfig::default() }
}

fn node_key(keys: &Keypair) -> [u8; 32] {
    keys.public().try_into_ed25519().unwrap().to_bytes()
}

pub(crate) fn rng(seed: u64) -> StdRng {
    StdRng::seed_from_u64(seed)
}

impl Machine {
    /// A machine whose binding names its node.
    pub(crate) async fn new(seed: u64) -> Arc<Self> {
        Self::with(seed, true).await
    }

    /// A machine; `bound` says whether its binding names the node that serves it.
    pub(crate) async fn with(seed: u64, bound: bool) -> Arc<Self> {
        let mut rng = rng(seed);
        let identity = Arc::new(IdentityKey::generate(&mut rng));
        let (owner, feed) = (IdentityKey::generate(&mut rng), FeedKey::generate(&mut rng));
        let (owner_enc, encryption) = (EncryptionKey::generate(&mut rng), EncryptionKey::generate(&mut rng));
        let keys = Keypair::generate_ed25519();
        let named = if bound { node_key(&keys) } else { node_key(&Keypair::generate_ed25519()) };
        let (client, events, _) = start(keys, tcp()).await.unwrap();
        let dir = tempfile::tempdir().unwrap();
        let (store, _) = Store::open(dir.path().join("store"), &StoreOptions::default()).unwrap();
        let binding = Binding {
            did: identity.did(),
            serial: 0,
            prev: Hash::ZERO,
            incarnation: 0,
            owner_id: owner.did(),
            owner_enc: owner_enc.public(),
            feed_key: feed.public(),
            encryption_key: encryption.public(),
            node_keys: vec![named],
            issued_ms: NOW - 1000,
            expires_ms: NOW + 30 * 24 * 60 * 60 * 1000,
            positions: Vec::new(),
        };
        let binding = SignedBinding::sign(binding, &identity).unwrap();
        let machine = Arc::new(Self {
            did: identity.did(),
            identity,
            owner,
            feed,
            client,
            store,
            bindings: Mutex::new(vec![binding.clone()]),
            mood: Mutex::new(Mood::Grants),
            asked: Mutex::default(),
            withheld: Mutex::default(),
            tampered: Mutex::default(),
            served: AtomicU64::new(0),
            pondered: AtomicU64::new(0),
            logs: Mutex::default(),
            seed: EpochSeed::from_bytes(&[7; 32]),
            counter: AtomicU64::new(0),
            number: AtomicU64::new(1),
            pull: Mutex::default(),
            _dir: dir,
        });
        machine.append(LogId::MACHINE, EntryBody::Binding(binding));
        let weak = Arc::downgrade(&machine);
        let lookup = move |hash: &Hash, into: &mut Vec<u8>| {
            let Some(machine) = weak.upgrade() else { return ChunkLookup::Absent };
            machine.served.fetch_add(1, SeqCst);
            let body = match machine.tampered.lock().unwrap().get(hash) {
                Some(body) => Some(body.clone()),
                None => machine.store.chunk(hash).unwrap(),
            };
            body.map_or(ChunkLookup::Absent, |body| {
                into.extend_from_slice(&body);
                ChunkLookup::Found
            })
        };
        let pull = PullServer::start(&machine.client, Arc::new(lookup), PullServerConfig::default()).unwrap();
        *machine.pull.lock().unwrap() = Some(pull);
        tokio::spawn(serve(Arc::downgrade(&machine), events));
        machine
    }

    pub(crate) fn peer(&self) -> PeerId {
        self.client.peer_id()
    }

    pub(crate) async fn link(&self) -> FeedLink {
        FeedLink::new(self.did, self.client.listen_addrs().await.unwrap())
    }

    pub(crate) fn stream(&self, name: &str) -> StreamId {
        StreamId::of(&self.did, name)
    }

    /// Makes an entry at the end of a log without storing it.
    pub(crate) fn sign(&self, log: LogId, body: EntryBody) -> SignedEntry {
        let key = LogKey { did: self.did, log, incarnation: 0 };
        let (seq, prev) = self.logs.lock().unwrap().get(&key).copied().unwrap_or((0, Hash::ZERO));
        let entry = Entry { did: self.did, log, incarnation: 0, seq, prev, time_ms: NOW + seq, body };
        SignedEntry::sign(entry, &self.feed).unwrap()
    }

    pub(crate) fn keep(&self, signed: &SignedEntry) {
        let entry = signed.entry();
        let index = match &entry.body {
            EntryBody::Chunk(record) => {
                EntryIndex { chunk: Some(record.hash), dataset: Some((record.dataset, record.index)) }
            }
            _ => EntryIndex::default(),
        };
        let mut batch = WriteBatch::new();
        batch.put_entry(entry.key(), entry.seq, signed.bytes(), index);
        self.store.commit(batch).unwrap();
        self.logs.lock().unwrap().insert(entry.key(), (entry.seq + 1, signed.hash()));
    }

    pub(crate) fn append(&self, log: LogId, body: EntryBody) -> SignedEntry {
        let signed = self.sign(log, body);
        self.keep(&signed);
        signed
    }

    pub(crate) fn announce(&self, name: &str) -> SignedEntry {
        self.append(
            LogId::MACHINE,
            EntryBody::Stream(StreamInfo {
                stream: self.stream(name),
                name: name.to_owned(),
                message_type: "sensor_msgs/msg/Imu".to_owned(),
                mode: Mode::Fields,
                policy: Policy::Free,
                price: String::new(),
                chunk_target: 4096,
            }),
        )
    }

    fn tree(&self, stream: &StreamId) -> KeyTree {
        KeyTree::new(&self.seed, stream, 0)
    }

    /// The next package: its line and its blob.
    pub(crate) fn package(&self, name: &str, identity: &Arc<IdentityKey>) -> (u64, Vec<u8>) {
        let number = self.number.fetch_add(1, SeqCst);
        let blob: Vec<u8> = (0..1500u32).map(|i| u8::try_from((u64::from(i) * number) % 251).unwrap()).collect();
        let mut payload = Object::default();
        payload.insert("@topic", name);
        payload.insert("@type", "sensor_msgs/msg/Imu");
        payload.insert("image", BlobMarker::of(&blob).to_value());
        payload.insert("x", number);
        let mut signer = PackageSigner::new(Arc::clone(identity), "identity", "1").unwrap();
        let mut line = Vec::new();
        let stamp = "2026-09-21T12:00:00.000000000Z";
        signer.sign_into(&mut line, stamp, &Number::from(number), &payload).unwrap();
        line.push(b'\n');
        line.extend_from_slice(&blob);
        (number, line)
    }

    /// Seals a slice as the next chunk of a dataset and makes its entry, without storing either.
    pub(crate) fn chunk(
        &self,
        name: &str,
        builder: &mut DatasetBuilder,
        slice: (Vec<u8>, u32, u64),
        encoding: ContentEncoding,
    ) -> (SignedEntry, Vec<u8>) {
        let stream = self.stream(name);
        let position = Position::from_u64(self.counter.fetch_add(1, SeqCst)).unwrap();
        let mut nonce = [0; 24];
        rand::rng().fill_bytes(&mut nonce);
        let sealed = seal(SealInput {
            key: &self.tree(&stream).chunk_key(position),
            feed_key: &self.feed,
            nonce,
            plaintext: if encoding.zstd { zstd::bulk::compress(&slice.0, 1).unwrap() } else { slice.0 },
            stream,
            dataset: builder.id(),
            index: builder.next_index(),
            epoch: 0,
            position,
            previous_chunk_id: builder.last_chunk_id(),
            encoding,
            package_count: slice.1,
            first_number: slice.2,
            gaps: 0,
            time_from_ms: NOW,
            time_to_ms: NOW + 1,
        })
        .unwrap();
        let signed = self.sign(LogId::from(stream), EntryBody::Chunk(sealed.record.clone()));
        builder.push(signed.entry().seq, &sealed.record).unwrap();
        (signed, sealed.ciphertext)
    }

    pub(crate) fn keep_chunk(&self, signed: &SignedEntry, body: Vec<u8>) {
        let mut batch = WriteBatch::new();
        batch.put_verified(VerifiedChunk::of(body));
        self.store.commit(batch).unwrap();
        self.keep(signed);
    }

    pub(crate) fn builder(&self, name: &str) -> DatasetBuilder {
        let stream = self.stream(name);
        let key = LogKey { did: self.did, log: LogId::from(stream), incarnation: 0 };
        let first = self.logs.lock().unwrap().get(&key).map_or(0, |(seq, _)| *seq);
        DatasetBuilder::new(stream, 0, 0, first)
    }

    pub(crate) fn close(&self, entry: DatasetEntry) -> SignedEntry {
        let mut batch = WriteBatch::new();
        batch.put_row(Table::Dataset, entry.dataset.as_bytes().to_vec(), entry.encode());
        self.store.commit(batch).unwrap();
        self.append(LogId::MACHINE, EntryBody::DatasetClosed(entry))
    }

    /// Publishes a closed dataset; returns its id and its plaintext.
    pub(crate) fn dataset(&self, name: &str, chunks: u32, per_chunk: u32) -> (DatasetId, Vec<u8>) {
        self.dataset_by(name, chunks, per_chunk, &self.identity)
    }

    /// The same with packages that somebody else signed.
    pub(crate) fn dataset_by(
        &self,
        name: &str,
        chunks: u32,
        per_chunk: u32,
        identity: &Arc<IdentityKey>,
    ) -> (DatasetId, Vec<u8>) {
        let mut builder = self.builder(name);
        let mut all = Vec::new();
        for index in 0..chunks {
            let mut slice = Vec::new();
            let mut first = 0;
            for i in 0..per_chunk {
                let (number, line) = self.package(name, identity);
                if i == 0 {
                    first = number;
                }
                slice.extend_from_slice(&line);
            }
            all.extend_from_slice(&slice);
            let encoding = ContentEncoding { content: Content::Packages, zstd: index % 2 == 1 };
            let (signed, body) = self.chunk(name, &mut builder, (slice, per_chunk, first), encoding);
            self.keep_chunk(&signed, body);
        }
        self.close(builder.close().unwrap());
        (builder.id(), all)
    }

    fn withholds(&self, log: &LogId) -> bool {
        self.withheld.lock().unwrap().contains(log)
    }

    /// Says nothing more about a stream's log, or does again.
    pub(crate) fn withhold(&self, name: &str, withheld: bool) {
        let (mut logs, log) = (self.withheld.lock().unwrap(), LogId::from(self.stream(name)));
        if withheld {
            logs.insert(log)
        } else {
            logs.remove(&log)
        };
    }

    /// Seals so many chunks of one package each into a dataset, and announces them. Returns their bytes.
    pub(crate) fn write(&self, name: &str, builder: &mut DatasetBuilder, chunks: u32) -> Vec<u8> {
        let mut all = Vec::new();
        for _ in 0..chunks {
            let (number, line) = self.package(name, &self.identity);
            all.extend_from_slice(&line);
            let (signed, body) = self.chunk(name, builder, (line, 1, number), ContentEncoding::PACKAGES);
            self.keep_chunk(&signed, body);
        }
        all
    }

    fn sync(&self, request: SyncRequest) -> SyncResponse {
        self.asked.lock().unwrap().push(request);
        match request {
            SyncRequest::Bindings { did, from_serial } if did == self.did => {
                let bindings = self.bindings.lock().unwrap();
                let from = usize::try_from(from_serial).unwrap();
                let bindings = bindings.iter().skip(from).map(SignedBinding::encode).collect();
                SyncResponse::Bindings { bindings, more: false }
            }
            SyncRequest::Heads { did, from_log } if did == self.did => {
                let logs = self.logs.lock().unwrap();
                let mut heads: Vec<(LogId, Vec<u8>)> = logs
                    .iter()
                    .filter(|(key, _)| key.log >= from_log && !self.withholds(&key.log))
                    .map(|(key, (next, hash))| (key.log, self.head_of(key, *next, *hash).bytes().to_vec()))
                    .collect();
                heads.sort();
                SyncResponse::Heads { heads: heads.into_iter().map(|(_, head)| head).collect(), more: false }
            }
            SyncRequest::Entries { log, .. } if self.withholds(&log.log) => SyncResponse::NotFound,
            SyncRequest::Entries { log, from, max } => {
                let max = usize::try_from(max).unwrap().min(256);
                let entries = self.store.entries(&log, from, max + 1, 900 << 10).unwrap();
                let more = entries.len() > max;
                let entries = entries.into_iter().take(max).map(|entry| entry.bytes).collect();
                SyncResponse::Entries { entries, more }
            }
            _ => SyncResponse::NotFound,
        }
    }

    pub(crate) fn head(&self, log: LogId) -> SignedHead {
        let key = LogKey { did: self.did, log, incarnation: 0 };
        let (next, hash) = self.logs.lock().unwrap()[&key];
        self.head_of(&key, next, hash)
    }

    fn head_of(&self, key: &LogKey, next: u64, hash: Hash) -> SignedHead {
        let head = Head {
            did: self.did,
            log: key.log,
            incarnation: key.incarnation,
            seq: next - 1,
            entry_hash: hash,
            time_ms: NOW,
        };
        SignedHead::sign(head, &self.feed)
    }

    fn quote(&self, buyer: Did, selection: Selection) -> SignedQuote {
        let charges = *self.mood.lock().unwrap() == Mood::Charges;
        let price = Price { amount: u128::from(charges) * 5, token: "PEAQ".into(), ..Price::default() };
        let quote = Quote {
            machine: self.did,
            buyer,
            selection,
            price,
            terms: Hash::ZERO,
            issued_ms: NOW,
            expires_ms: NOW + 60_000,
        };
        SignedQuote::sign(quote, &self.feed).unwrap()
    }

    fn ranges(&self, selection: &Selection) -> Vec<GrantRange> {
        let range = |range: &Range| match *range {
            Range::Dataset(dataset) => {
                let row = self.store.row(Table::Dataset, dataset.as_bytes()).unwrap().unwrap();
                let DatasetEntry { stream, epoch, first_position: first, last_position: last, .. } =
                    DatasetEntry::decode(&row).unwrap();
                GrantRange { stream, epoch, first, last }
            }
            Range::Positions { stream, epoch, first, last } => GrantRange { stream, epoch, first, last },
            _ => panic!("not in these tests"),
        };
        selection.ranges().iter().map(range).collect()
    }

    fn grant(&self, quote: &SignedQuote, request: &SignedRequest, range: GrantRange, mood: Mood) -> Grant {
        let cover = self.tree(&range.stream).cover(range.first..=range.last).unwrap();
        let mut rng = rng(range.first.as_u64());
        let other = EncryptionKey::generate(&mut rng).public();
        let header = GrantHeader {
            grant_id: Hash::of(&[request.id().as_bytes().as_slice(), &range.first.as_u64().to_be_bytes()].concat()),
            request_id: request.id(),
            machine: self.did,
            range,
            buyer: request.request().buyer,
            buyer_enc: if mood == Mood::GrantsToAnother { other } else { request.request().buyer_enc },
            terms_hash: quote.terms_hash(),
            issued_ms: NOW,
            expires_ms: NOW + 3_600_000,
            binding_serial: self.bindings.lock().unwrap().last().unwrap().binding().serial,
            cover_hash: cover.hash(),
        };
        let forged = FeedKey::generate(&mut rng);
        let issuer = if mood == Mood::ForgesGrants { &forged } else { &self.feed };
        Grant::issue(header, &cover, Issuer::Feed(issuer), &mut rng).unwrap()
    }

    fn access(&self, message: AccessMessage) -> AccessReply {
        let mood = *self.mood.lock().unwrap();
        match message {
            AccessMessage::Quote { buyer, selection, .. } => {
                AccessReply::Quote(self.quote(buyer, selection).bytes().to_vec())
            }
            AccessMessage::Request { quote, request } => {
                let (quote, request) = (SignedQuote::decode(&quote).unwrap(), SignedRequest::decode(&request).unwrap());
                request.verify(&self.did, &quote, NOW).unwrap();
                let grants: Vec<Vec<u8>> = self
                    .ranges(&quote.quote().selection)
                    .into_iter()
                    .map(|range| self.grant(&quote, &request, range, mood).encode())
                    .collect();
                let mut batch = WriteBatch::new();
                for (i, grant) in grants.iter().enumerate() {
                    let key = [request.id().as_bytes().as_slice(), &[u8::try_from(i).unwrap()]].concat();
                    batch.put_row(Table::Grant, key, grant.clone());
                }
                self.store.commit(batch).unwrap();
                self.decide(mood, request.id())
            }
            AccessMessage::Fetch { request_id, .. } => self.decide(mood, request_id),
            AccessMessage::Deposit { .. } => AccessReply::Busy { retry_ms: 1 },
        }
    }

    fn decide(&self, mood: Mood, request_id: Hash) -> AccessReply {
        match mood {
            Mood::Denies => AccessReply::Denied { code: DenyCode::Policy, reason: "not on the list".into() },
            Mood::Ponders(times) if self.pondered.fetch_add(1, SeqCst) < times => AccessReply::Pending { request_id },
            _ => {
                let rows = self.store.rows(Table::Grant, request_id.as_bytes(), None, 64).unwrap();
                let grants: Vec<Vec<u8>> = rows.into_iter().map(|(_, grant)| grant).collect();
                let total = u16::try_from(grants.len()).unwrap();
                AccessReply::Granted { grants, from: 0, total }
            }
        }
    }

    /// Sync requests of a kind so far.
    pub(crate) fn asked_entries(&self) -> usize {
        self.asked.lock().unwrap().iter().filter(|request| matches!(request, SyncRequest::Entries { .. })).count()
    }
}

async fn serve(machine: std::sync::Weak<Machine>, mut events: NetEvents) {
    loop {
        let (request, sync): (InboundRequest, bool) = tokio::select! {
            request = events.sync.recv() => match request { Some(request) => (request, true), None => return },
            request = events.access.recv() => match request { Some(request) => (request, false), None => return },
            message = events.gossip.recv() => { if message.is_none() { return } continue },
        };
        let Some(machine) = machine.upgrade() else { return };
        let answer = if sync {
            machine.sync(SyncRequest::decode(&request.bytes).unwrap()).encode().unwrap()
        } else {
            machine.access(AccessMessage::decode(&request.bytes).unwrap()).encode().unwrap()
        };
        let _ = request.responder.send(answer).await;
    }
}

/// A buyer and what it needs.
pub(crate) struct Shopper {
    pub(crate) buyer: Buyer,
    pub(crate) client: Client,
    pub(crate) store: Store,
    pub(crate) dir: TempDir,
    keys: MachineKeys,
    _events: NetEvents,
}

pub(crate) fn keys(seed: u64) -> MachineKeys {
    let mut rng = rng(seed);
    MachineKeys {
        identity: Arc::new(IdentityKey::generate(&mut rng)),
        feed: Arc::new(FeedKey::generate(&mut rng)),
        node: Keypair::generate_ed25519(),
        encryption: Arc::new(EncryptionKey::generate(&mut rng)),
    }
}

impl Shopper {
    pub(crate) async fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        Self::open(keys(99), dir).await
    }

    async fn open(keys: MachineKeys, dir: TempDir) -> Self {
        let (client, events, _) = start(keys.node.clone(), tcp()).await.unwrap();
        let (store, _) = Store::open(dir.path().join("store"), &StoreOptions::default()).unwrap();
        let clock = Arc::new(|| NOW);
        let did = keys.identity.did();
        let options = FeedsOptions { did, store: store.clone(), net: Some(client.clone()), clock };
        let buyer = Buyer::open(&keys, Feeds::open(options).unwrap()).unwrap();
        Self { buyer, client, store, dir, keys, _events: events }
    }

    /// Stops and starts again with the same folder and keys.
    pub(crate) async fn restart(self) -> Self {
        let Self { buyer, client, store, dir, keys, _events: events } = self;
        drop(buyer);
        client.shutdown().await;
        drop((client, events));
        store.close().unwrap();
        Self::open(keys, dir).await
    }

    pub(crate) async fn follow(&self, machine: &Machine) {
        soon("follow", self.buyer.feeds().follow(&machine.link().await, Streams::All)).await.unwrap();
    }

    /// Gets the keys of key positions `first..=last` of a stream.
    pub(crate) async fn buy_positions(&self, machine: &Machine, name: &str, first: u64, last: u64) {
        let (first, last) = (Position::from_u64(first).unwrap(), Position::from_u64(last).unwrap());
        let range = Range::Positions { stream: machine.stream(name), epoch: 0, first, last };
        let selection = Selection::new(vec![range]).unwrap();
        let asked = self.buyer.request_access(&machine.did, selection, Duration::from_secs(10));
        soon("access", asked).await.unwrap();
    }

    pub(crate) async fn buy(&self, machine: &Machine, dataset: DatasetId) {
        let selection = Selection::new(vec![Range::Dataset(dataset)]).unwrap();
        let asked = self.buyer.request_access(&machine.did, selection, Duration::from_secs(10));
        soon("access", asked).await.unwrap();
    }
}
