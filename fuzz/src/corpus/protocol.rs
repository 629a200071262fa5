//! Seeds for the formats of the protocol, the wire and peaq.

use rand_chacha::ChaCha8Rng;
use rand_core::SeedableRng as _;
use tributary_protocol::{
    access::{
        AccessRequest, Deposit, DepositState, Grant, GrantHeader, GrantRange, Issuer, Payment, Price, Quote, Range,
        Selection, SignedDeposit, SignedQuote, SignedRequest, deposit::hash_of_grants,
    },
    binding::{Binding, LogPosition, SignedBinding},
    dataset::{DatasetBuilder, DatasetTree},
    entry::{
        Entry, EntryBody, EpochInfo, EpochName, Head, Listing, ListingSubject, Mode, Policy, SignedEntry, SignedHead,
        StreamInfo, Tombstone, TombstoneTarget,
    },
    feed::Evidence,
    ids::{DatasetId, Hash, LogId, LogKey},
    json::{Limits, Number, Object, Value, parse},
    keytree::{EpochSeed, KeyTree, Position},
    package::{BlobMarker, DataPackage, PackageFields, timestamp_text},
    peaq::{
        access::{AccessEntry, AccessFile, buyer},
        chain::ChainSummary,
        manifest::Manifest,
        origin::{Origin, OriginText},
        sealed_box::BoxPublicKey,
    },
    record::ContentEncoding,
    seal::{SealInput, Sealed, seal},
    wire::{
        AccessMessage, AccessReply, DenyCode, FeedMessage, PullHeader, PullRequest, PullStatus, SyncRequest,
        SyncResponse, topic_machine, topic_stream,
    },
};

use super::Seeds;
use crate::known;

const VALID: &str = "seeds are valid";

fn rng() -> ChaCha8Rng {
    ChaCha8Rng::seed_from_u64(7)
}

pub(super) fn add(seeds: &mut Seeds) {
    json(seeds);
    texts(seeds);
    let log = Log::new();
    log.add(seeds);
    let trade = Trade::new();
    trade.add(seeds);
    sync(seeds, &log);
    access(seeds, &trade);
    pull(seeds);
    peaq(seeds, &log);
}

fn object(text: &str) -> Object {
    parse(text.as_bytes(), Limits::default()).expect(VALID).as_object().expect(VALID).clone()
}

/// A signed package with two blobs, and the blobs.
pub(super) fn package(number: u64) -> (DataPackage, Vec<u8>) {
    let (first, second) = (vec![1; 1500], b"image".to_vec());
    let mut payload =
        object(r#"{"@topic":"/odom","@type":"nav_msgs/msg/Odometry","pose":{"x":1.5,"y":-2e-7,"name":"r\u00e9"}}"#);
    payload.insert("a", BlobMarker::of(&first).to_value());
    payload.insert("b", Value::Array(vec![Value::Null, BlobMarker::of(&second).to_value()]));
    let sequence_number = Number::from((1u64 << 40) + number);
    let fields = PackageFields {
        did: &known::did().to_string(),
        timestamp: &timestamp_text(known::NOW_MS * 1_000_000 + number),
        schema_version: "1.0.0",
        sequence_number: &sequence_number,
        payload: &payload,
    };
    let package = DataPackage::sign(&known::machine(), &fields, "key-1").expect(VALID);
    (package, [first, second].concat())
}

fn json(seeds: &mut Seeds) {
    let values = [
        ("literals", r#"[null,true,false,0,-0,-0.0,1e5,5e-324,1.7976931348623157e308]"#),
        ("integers", r#"[9223372036854775807,9223372036854775808,18446744073709551616,-9223372036854775809]"#),
        ("strings", r#"["","\u0000\ud83d\ude00\u007f\"\\\/\b\f\n\r\t","\ud800x","é"]"#),
        ("object", r#" { "b" : {"a":[]} , "a" : 1 , "b" : {"\ue000":2,"😀":{}} } "#),
        ("nested", r#"[[[[[[[[{"a":[{"a":[{"a":{}}]}]}]]]]]]]]"#),
    ];
    for (name, text) in values {
        seeds.add("json", name, text);
    }
    let (package, _) = package(0);
    let line = package.to_line().expect(VALID);
    seeds.add("data_package", "native", line.clone());
    let spaced = String::from_utf8(line).expect("ASCII").replace(",\"", " ,\r\n \"");
    seeds.add("data_package", "spaced", spaced);
}

fn texts(seeds: &mut Seeds) {
    let did = known::did();
    seeds.add("texts", "did", did.to_string());
    seeds.add("texts", "hash", Hash::of(b"x").to_string());
    seeds.add("texts", "private-key", format!("0x{}", Hash::of(b"key")));
    seeds.add("texts", "time", timestamp_text(u64::MAX));
    seeds.add("texts", "topic-machine", topic_machine(&did));
    seeds.add("texts", "topic-stream", topic_stream(&did, &known::stream()));
    seeds.add("texts", "action", "anonymize");
    seeds.add("texts", "strategy", "generalize");
    let key = LogKey { did, log: known::stream().into(), incarnation: 3 };
    seeds.add("texts", "log-key", key.to_bytes());
}

/// The two logs of the machine, and what is in them.
struct Log {
    bindings: Vec<SignedBinding>,
    machine: Vec<SignedEntry>,
    stream: Vec<SignedEntry>,
    chunks: Vec<Sealed>,
    tree: DatasetTree,
}

impl Log {
    fn new() -> Self {
        let (did, stream, owner_enc) = (known::did(), known::stream(), known::encryption_key().public());
        let mut dataset = DatasetBuilder::new(stream, 0, 0, 0);
        let mut tree = DatasetTree::default();
        let mut chunks = Vec::new();
        for n in 0..3u8 {
            let sealed = seal(SealInput {
                key: &known::chunk_key(),
                feed_key: &known::feed_key(),
                nonce: [n; 24],
                plaintext: vec![n; 40],
                stream,
                dataset: dataset.id(),
                index: n.into(),
                epoch: 0,
                position: Position::new(n.into(), 0),
                previous_chunk_id: dataset.last_chunk_id(),
                encoding: ContentEncoding::PACKAGES,
                package_count: 2,
                first_number: u64::from(n) * 2,
                gaps: 0,
                time_from_ms: known::NOW_MS,
                time_to_ms: known::NOW_MS + 5,
            })
            .expect(VALID);
            dataset.push(n.into(), &sealed.record).expect(VALID);
            tree.push(&sealed.record.encode());
            chunks.push(sealed);
        }

        let at = EpochName { did, incarnation: 0, stream, epoch: 0 };
        let seed = EpochSeed::from_bytes(&[10; 32]);
        let epoch = EpochInfo::seal(&at, known::NOW_MS, owner_enc, &seed, &mut rng()).expect(VALID);
        let info = StreamInfo {
            stream,
            name: "/odom".into(),
            message_type: "nav_msgs/msg/Odometry".into(),
            mode: Mode::Fields,
            policy: Policy::Paid,
            price: "5 USDC".into(),
            chunk_target: 1 << 18,
        };
        let listing = Listing {
            subject: ListingSubject::Dataset(dataset.id()),
            withdrawn: false,
            title: "a drive".into(),
            description: "a figure of eight".into(),
            price: String::new(),
            terms: Hash::ZERO,
        };
        let tombstone = Tombstone { target: TombstoneTarget::Chunks(vec![Hash::of(b"x")]), reason: "asked".into() };
        let bindings = vec![known::signed_binding().clone()];
        let machine = Self::entries(
            LogId::MACHINE,
            [
                EntryBody::Binding(bindings[0].clone()),
                EntryBody::Stream(info),
                EntryBody::Epoch(epoch),
                EntryBody::DatasetClosed(dataset.close().expect("it has chunks")),
                EntryBody::Listing(listing),
                EntryBody::Tombstone(tombstone),
            ],
        );
        let stream = Self::entries(stream.into(), chunks.iter().map(|chunk| EntryBody::Chunk(chunk.record.clone())));
        let mut log = Self { bindings, machine, stream, chunks, tree };
        log.rotate();
        log
    }

    fn entries(log: LogId, bodies: impl IntoIterator<Item = EntryBody>) -> Vec<SignedEntry> {
        let mut prev = known::chain().origin(&log, 0);
        let sign = |(seq, body)| {
            let entry = Entry { did: known::did(), log, incarnation: 0, seq, prev, time_ms: known::NOW_MS + seq, body };
            let signed = SignedEntry::sign(entry, &known::feed_key()).expect(VALID);
            prev = signed.hash();
            signed
        };
        (0..).zip(bodies).map(sign).collect()
    }

    /// The next binding, with another feed key from the end of the stream's log on.
    fn rotate(&mut self) {
        let first = &self.bindings[0];
        let end = self.stream.last().map_or(Hash::ZERO, SignedEntry::hash);
        let binding = Binding {
            serial: 1,
            prev: first.hash(),
            feed_key: tributary_protocol::keys::FeedKey::from_bytes(&[11; 32]).public(),
            node_keys: Vec::new(),
            issued_ms: known::NOW_MS + 1000,
            positions: vec![LogPosition { log: known::stream().into(), from_seq: 3, prev_entry_hash: end }],
            ..first.binding().clone()
        };
        let next = SignedBinding::sign(binding, &known::machine()).expect(VALID).co_sign(&known::owner());
        self.bindings.push(next);
    }

    fn head(log: &[SignedEntry]) -> SignedHead {
        let last = log.last().expect("it has entries");
        let Entry { did, log, incarnation, seq, time_ms, .. } = *last.entry();
        let head = Head { did, log, incarnation, seq, entry_hash: last.hash(), time_ms };
        SignedHead::sign(head, &known::feed_key())
    }

    /// Another entry in the place of one of these.
    fn twin(entry: &SignedEntry) -> SignedEntry {
        let mut other = entry.entry().clone();
        other.time_ms += 1;
        SignedEntry::sign(other, &known::feed_key()).expect(VALID)
    }

    fn add(&self, seeds: &mut Seeds) {
        for (n, binding) in self.bindings.iter().enumerate() {
            seeds.add("binding", &format!("signed-{n}"), binding.encode());
            seeds.add("binding", &format!("bare-{n}"), binding.bytes());
        }
        for entry in self.machine.iter().chain(&self.stream[..1]) {
            seeds.add("entry", &entry.entry().body.kind().name().replace(' ', "-"), entry.bytes());
        }
        seeds.add("head", "machine", *Self::head(&self.machine).bytes());
        seeds.add("head", "stream", *Self::head(&self.stream).bytes());

        let (entry, twin) = (&self.stream[2], Self::twin(&self.stream[2]));
        let evidence = Evidence::Entries(Box::new((entry.clone(), twin.clone())));
        assert!(evidence.stands(&known::chain()));
        seeds.add("evidence", "entries", evidence.encode());
        let evidence = Evidence::Head(Box::new((Self::head(&self.stream), twin.clone())));
        assert!(evidence.stands(&known::chain()));
        seeds.add("evidence", "head", evidence.encode());

        let put = |out: &mut Vec<u8>, tag: u8, bytes: &[u8]| {
            out.push(tag);
            out.extend_from_slice(&u16::try_from(bytes.len()).expect("short").to_be_bytes());
            out.extend_from_slice(bytes);
        };
        let (mut in_order, mut mixed) = (Vec::new(), Vec::new());
        put(&mut in_order, 0, &self.bindings[0].encode());
        for entry in self.machine.iter().chain(&self.stream) {
            put(&mut in_order, 2, entry.bytes());
        }
        put(&mut in_order, 1, Self::head(&self.stream).bytes());
        put(&mut mixed, 2, self.stream[1].bytes());
        put(&mut mixed, 0, &self.bindings[0].encode());
        put(&mut mixed, 2, self.stream[0].bytes());
        put(&mut mixed, 2, self.stream[1].bytes());
        put(&mut mixed, 1, Self::head(&self.stream).bytes());
        put(&mut mixed, 2, Self::twin(&self.stream[1]).bytes());
        put(&mut mixed, 0, &self.bindings[1].encode());
        put(&mut mixed, 2, self.stream[2].bytes());
        seeds.add("follower", "in-order", in_order);
        seeds.add("follower", "mixed", mixed);

        for (n, Sealed { record, ciphertext, .. }) in self.chunks.iter().enumerate() {
            seeds.add("chunk_record", &n.to_string(), record.encode());
            seeds.add("chunk", &n.to_string(), [record.encode(), ciphertext.clone()].concat());
            let EntryBody::DatasetClosed(closed) = &self.machine[3].entry().body else { continue };
            let index = u32::try_from(n).expect("few");
            let record = record.encode();
            let mut proof = closed.merkle_root.to_vec();
            proof.extend_from_slice(&closed.chunk_count.to_be_bytes());
            proof.extend_from_slice(&index.to_be_bytes());
            proof.extend_from_slice(&u16::try_from(record.len()).expect("short").to_be_bytes());
            proof.extend_from_slice(&record);
            proof.extend(self.tree.prove(index).expect("it is in the tree"));
            seeds.add("inclusion", &n.to_string(), proof);
            if n == 0 {
                seeds.add("dataset_entry", "closed", closed.encode());
            }
        }
    }
}

/// What machine and buyer exchange.
struct Trade {
    quote: SignedQuote,
    request: SignedRequest,
    grants: Vec<Grant>,
}

impl Trade {
    fn new() -> Self {
        let quote = known::quote().clone();
        let payer = known::owner();
        let payment =
            Payment { chain: "base".into(), transaction: "0xabc".into(), transfer_index: 0, payer: payer.did() };
        let request = AccessRequest {
            machine: known::did(),
            quote_hash: quote.hash(),
            buyer: known::buyer(),
            buyer_enc: known::encryption_key().public(),
            nonce: [12; 32],
            expires_ms: known::NOW_MS + 1000,
            payment: Some(payment.clone()),
        };
        let request = SignedRequest::sign(request, &known::buyer_identity()).expect(VALID);
        let text = AccessRequest::payment_text(&payment, &known::buyer(), &request.id());
        let request = request.with_payer_signature(payer.sign_eip191(text.as_bytes()));
        request.verify(&known::did(), &quote, known::NOW_MS).expect(VALID);

        let tree = KeyTree::new(&EpochSeed::from_bytes(&[10; 32]), &known::stream(), 0);
        let issue = |issuer: Issuer<'_>, first, last| {
            let cover = tree.cover(first..=last).expect(VALID);
            let header = GrantHeader {
                grant_id: Hash::of(b"grant"),
                request_id: request.id(),
                machine: known::did(),
                range: GrantRange { stream: known::stream(), epoch: 0, first, last },
                buyer: known::buyer(),
                buyer_enc: known::encryption_key().public(),
                terms_hash: quote.terms_hash(),
                issued_ms: known::NOW_MS,
                expires_ms: known::NOW_MS + 1000,
                binding_serial: 0,
                cover_hash: cover.hash(),
            };
            Grant::issue(header, &cover, issuer, &mut rng()).expect(VALID)
        };
        let grants = vec![
            issue(Issuer::Feed(&known::feed_key()), Position::new(1, 0), Position::last_of_slot(3)),
            issue(Issuer::Owner(&known::owner()), Position::MIN, Position::new(0, 5)),
        ];
        Self { quote, request, grants }
    }

    fn add(&self, seeds: &mut Seeds) {
        let tree = KeyTree::new(&EpochSeed::from_bytes(&[10; 32]), &known::stream(), 0);
        let ranges = [
            ("one", Position::MIN, Position::MIN),
            ("all", Position::MIN, Position::MAX),
            ("slots", Position::new(3, 0), Position::last_of_slot(9)),
            ("widest", Position::new(0, 1), Position::from_u64(Position::MAX.as_u64() - 1).expect("in the tree")),
        ];
        for (name, first, last) in ranges {
            seeds.add("cover", name, tree.cover(first..=last).expect(VALID).encode().to_vec());
        }
        seeds.add("selection", "every-range", every_range().encode());
        seeds.add("quote", "one-range", self.quote.bytes());
        let quote = Quote { selection: every_range(), price: Price::default(), ..self.quote.quote().clone() };
        seeds.add("quote", "free", SignedQuote::sign(quote, &known::feed_key()).expect(VALID).bytes());
        seeds.add("request", "paid", self.request.encode());
        let request = AccessRequest { payment: None, ..self.request.request().clone() };
        let request = SignedRequest::sign(request, &known::buyer_identity()).expect(VALID);
        seeds.add("request", "unpaid", request.encode());
        for (name, grant) in ["feed", "owner"].iter().zip(&self.grants) {
            seeds.add("grant", name, grant.encode());
        }
    }
}

fn every_range() -> Selection {
    let stream = known::stream();
    let (first, last) = (Position::new(1, 0), Position::last_of_slot(3));
    let ranges = vec![
        Range::Dataset(DatasetId::of(&stream, 0, 0)),
        Range::Time { stream, from_ms: 1, to_ms: 2 },
        Range::Positions { stream, epoch: 0, first, last },
        Range::Live { stream, seconds: 60 },
    ];
    Selection::new(ranges).expect(VALID)
}

fn sync(seeds: &mut Seeds, log: &Log) {
    let did = known::did();
    let dataset = DatasetId::of(&known::stream(), 0, 0);
    let key = LogKey { did, log: known::stream().into(), incarnation: 0 };
    let requests = [
        ("bindings", SyncRequest::Bindings { did, from_serial: 0 }),
        ("heads", SyncRequest::Heads { did, from_log: LogId::MACHINE }),
        ("entries", SyncRequest::Entries { log: key, from: 5, max: 256 }),
        ("dataset", SyncRequest::Dataset { did, dataset }),
        ("inclusion", SyncRequest::Inclusion { did, dataset, index: 1 }),
    ];
    for (name, request) in requests {
        seeds.add("sync_request", name, request.encode().expect(VALID));
    }
    let entry = log.machine[3].bytes().to_vec();
    let proof = log.tree.prove(1).expect("it is in the tree");
    let heads = [&log.machine, &log.stream].map(|log| Log::head(log).bytes().to_vec());
    let responses = [
        (
            "bindings",
            SyncResponse::Bindings { bindings: log.bindings.iter().map(SignedBinding::encode).collect(), more: false },
        ),
        ("heads", SyncResponse::Heads { heads: heads.to_vec(), more: true }),
        (
            "entries",
            SyncResponse::Entries { entries: log.stream.iter().map(|e| e.bytes().to_vec()).collect(), more: true },
        ),
        ("dataset", SyncResponse::Dataset { entry: entry.clone() }),
        ("inclusion", SyncResponse::Inclusion { entry, record: log.chunks[1].record.encode(), proof }),
        ("not-found", SyncResponse::NotFound),
        ("busy", SyncResponse::Busy { retry_ms: 500 }),
    ];
    for (name, response) in responses {
        seeds.add("sync_response", name, response.encode().expect(VALID));
    }
    let messages = [
        (
            "chunk",
            FeedMessage::Entry {
                entry: log.stream[0].bytes().to_vec(),
                attachment: Some(log.chunks[0].ciphertext.clone()),
            },
        ),
        ("entry", FeedMessage::Entry { entry: log.machine[1].bytes().to_vec(), attachment: None }),
        ("head", FeedMessage::Head(Log::head(&log.stream).bytes().to_vec())),
    ];
    for (name, message) in messages {
        seeds.add("feed_message", name, message.encode().expect(VALID));
    }
}

fn access(seeds: &mut Seeds, trade: &Trade) {
    let request_id = trade.request.id();
    let (quote, request) = (trade.quote.bytes().to_vec(), trade.request.encode());
    let grants: Vec<_> = trade.grants.iter().map(Grant::encode).collect();
    let deposit = |state| {
        let deposit = Deposit {
            machine: known::did(),
            request_id,
            revision: 1,
            issued_ms: known::NOW_MS,
            expires_ms: known::NOW_MS + 1000,
            state,
        };
        SignedDeposit::sign(deposit, &known::feed_key()).expect(VALID)
    };
    let total = u16::try_from(grants.len()).expect("few");
    let all = hash_of_grants(grants.iter().map(|grant| Hash::of(grant)));
    let granted = deposit(DepositState::Granted { total, grants: all });
    let denied = deposit(DepositState::Denied { code: DenyCode::Revoked, reason: "access was revoked".into() });
    let messages = [
        ("quote", AccessMessage::Quote { machine: known::did(), buyer: known::buyer(), selection: every_range() }),
        ("request", AccessMessage::Request { quote: quote.clone(), request }),
        ("fetch", AccessMessage::Fetch { request_id, from: 1 }),
        ("deposit", AccessMessage::Deposit { deposit: granted.bytes().to_vec(), first: 0, grants: grants.clone() }),
    ];
    for (name, message) in messages {
        seeds.add("access_message", name, message.encode().expect(VALID));
    }
    let replies = [
        ("quote", AccessReply::Quote(quote)),
        ("granted", AccessReply::Granted { grants, from: 0, total: 3 }),
        ("pending", AccessReply::Pending { request_id }),
        ("denied", AccessReply::Denied { code: DenyCode::Policy, reason: "not on the list".into() }),
        ("busy", AccessReply::Busy { retry_ms: 500 }),
        ("deposited", AccessReply::Deposited { count: 2 }),
        ("statement", AccessReply::Statement(denied.bytes().to_vec())),
    ];
    for (name, reply) in replies {
        seeds.add("access_reply", name, reply.encode().expect(VALID));
    }
}

fn pull(seeds: &mut Seeds) {
    let hash = Hash::of(b"chunk");
    let request = PullRequest { hashes: vec![hash, Hash::ZERO] };
    seeds.add("pull", "request", request.encode_frame().expect(VALID));
    let statuses = [
        ("found", PullStatus::Found { len: 1000 }),
        ("not-found", PullStatus::NotFound),
        ("busy", PullStatus::Busy { retry_ms: 500 }),
        ("gone", PullStatus::Gone),
    ];
    for (name, status) in statuses {
        seeds.add("pull", name, PullHeader { hash, status }.encode());
    }
}

fn peaq(seeds: &mut Seeds, log: &Log) {
    let envelope = &known::peaq_chunk().envelope;
    seeds.add("peaq_envelope", "file", envelope.to_file_text());
    seeds.add("peaq_envelope", "compact", envelope.to_compact_text());
    let snake = [("schemaVersion", "schema_version"), ("chunkId", "chunk_id"), ("publicKeyHex", "public_key_hex")];
    let text = String::from_utf8(envelope.to_compact_text()).expect("ASCII");
    let text = snake.iter().fold(text, |text, (camel, snake)| text.replace(camel, snake));
    seeds.add("peaq_envelope", "snake-case", text);

    let did = known::did().to_string();
    let summary = ChainSummary {
        source_hash: envelope.plaintext_hash.clone(),
        total_chunks: 1,
        chunk_size: 262_144,
        total_bytes: 11,
    };
    let mut manifest = Manifest::new(&summary, &did, "2026-01-02T09:00:00Z").expect(VALID);
    seeds.add("peaq_manifest", "plain", manifest.to_file_text());
    let records: Vec<u8> = log.chunks.iter().flat_map(|chunk| chunk.record.encode()).collect();
    let origin = OriginText::new(&log.bindings[..1], &log.machine[3..4], &records);
    Origin::open(&origin).expect(VALID);
    manifest.tributary = Some(origin);
    seeds.add("peaq_manifest", "origin", manifest.to_file_text());
    manifest.tributary = None;
    manifest.files = Some(vec!["chunk-0.json".into(), "chunk-0.bin".into(), "manifest.json".into()]);
    manifest.s3_bucket = Some("bucket".into());
    manifest.s3_prefix = Some("a/".into());
    seeds.add("peaq_manifest", "files", manifest.to_file_text());

    let public = known::encryption_key().public();
    let recipient = buyer("buyer-1", &public.to_string()).expect(VALID);
    let entry =
        AccessEntry::wrap(&envelope.chunk_id, known::chunk_key().as_bytes(), &recipient, &mut rng()).expect(VALID);
    let file = AccessFile { number: 1, buyer_public_key_hex: public.to_string(), entries: vec![entry.clone(), entry] };
    seeds.add("peaq_access_file", "cli", file.to_cli_text());
    seeds.add("peaq_access_file", "sdk", file.to_sdk_text());

    seeds.add("peaq_hex", "key", format!("0x{public}"));
    seeds.add("peaq_hex", "upper", "00FFaa");
    let key = BoxPublicKey::from_bytes(public.to_bytes(), "key").expect(VALID);
    seeds.add("peaq_sealed_box", "chunk-key", key.seal(&[6; 32], &mut rng()).expect(VALID));
    seeds.add("peaq_sealed_box", "empty", key.seal(b"", &mut rng()).expect(VALID));
}
