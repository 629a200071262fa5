//! Peers that claim to be a machine which they are not.

use std::{
    path::PathBuf,
    sync::{Arc, Mutex},
    time::{SystemTime, UNIX_EPOCH},
};

use libp2p::{Multiaddr, identity::Keypair};
use tributary::{control::api::Feed, home::Home};
use tributary_protocol::{
    access::{AccessRequest, Range, Selection, SignedQuote, SignedRequest},
    binding::{Binding, SignedBinding},
    entry::{Entry, Head, SignedEntry, SignedHead},
    identity::IdentityKey,
    ids::{DatasetId, Did, Hash},
    keys::{EncryptionKey, FeedKey},
    wire::{AccessMessage, AccessReply, DenyCode, SyncRequest, SyncResponse},
};
use tributary_tests::{
    home::{Sandbox, stream},
    node::{NodeProcess, command},
    peer::{self, Liar, Lies, Stranger},
    trade,
    wait::until,
};

const TOPIC: &str = "/imu";
/// The exit code for data and signatures that are not what they claim to be.
const VERIFICATION_FAILED: Option<i32> = Some(3);

/// A machine with something to sell.
struct Victim {
    node: NodeProcess,
    home: PathBuf,
    did: Did,
    address: Multiaddr,
    dataset: DatasetId,
}

impl Victim {
    async fn start(sandbox: &Sandbox) -> Self {
        let home = sandbox.machine("victim", &[stream(TOPIC, ", chunk: { bytes: 4KiB }")]);
        let node = NodeProcess::start(&home).await;
        let dataset = trade::ingest(&node, TOPIC, 0, 60).await;
        let (did, address) = (node.status().await.did, peer::address(&node.link().await));
        Self { node, home, did, address, dataset }
    }

    fn feed_key(&self) -> FeedKey {
        FeedKey::from_bytes(&Home::open(&self.home).unwrap().keys(None).unwrap().feed.to_bytes())
    }

    /// Somebody who stole the key behind the machine's peer id, and nothing else.
    async fn liar(&self, lies: Lies) -> Liar {
        Liar::start(peer::stolen_node_key(&self.home), &self.address, lies).await
    }
}

/// A buyer of its own for each lie: one that was lied to bans the liar for a while.
async fn buyer(sandbox: &Sandbox, name: &str) -> NodeProcess {
    NodeProcess::start(&sandbox.buyer(name, "")).await
}

async fn feed_of(buyer: &NodeProcess, did: Did) -> Option<Feed> {
    buyer.feeds().await.into_iter().find(|feed| feed.machine == did)
}

/// Subscribes by command and returns the exit code and what was said.
async fn subscribe(buyer: &NodeProcess, link: &str) -> (Option<i32>, String) {
    let ended = command(buyer.home(), &["subscribe", link]).await;
    (ended.code, ended.stderr)
}

/// The same entry by another hand.
/// Replies that a liar keeps.
type Kept = Arc<Mutex<Vec<AccessReply>>>;

/// What a liar answers instead of the true reply.
type Swap = Box<dyn Fn(&AccessReply, &Kept) -> AccessReply + Send + Sync>;

fn signed_again(bytes: &[u8], key: &FeedKey, change: impl FnOnce(&mut Entry)) -> Vec<u8> {
    let mut entry = SignedEntry::decode(bytes).unwrap().entry().clone();
    change(&mut entry);
    SignedEntry::sign(entry, key).unwrap().into_bytes()
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_speaks_for_a_machine_whose_keys_they_do_not_have() {
    let sandbox = Sandbox::new();
    let victim = Victim::start(&sandbox).await;
    let did = victim.did;

    // With keys of their own.
    let forged = {
        let (identity, owner) = (IdentityKey::generate(&mut rand::rng()), EncryptionKey::generate(&mut rand::rng()));
        let node = Keypair::generate_ed25519();
        let binding = Binding {
            did: identity.did(),
            serial: 0,
            prev: Hash::ZERO,
            incarnation: 0,
            owner_id: Did::from_bytes([7; 20]),
            owner_enc: owner.public(),
            feed_key: FeedKey::generate(&mut rand::rng()).public(),
            encryption_key: owner.public(),
            node_keys: vec![node.public().try_into_ed25519().unwrap().to_bytes()],
            issued_ms: 1,
            expires_ms: 2,
            positions: Vec::new(),
        };
        let signed = SignedBinding::sign(binding, &identity).unwrap().encode();
        // The same text with the victim's name in it, and the forger's signature.
        let mut renamed = signed.clone();
        let own = identity.did();
        let at = renamed.windows(20).position(|part| part == own.as_bytes()).unwrap();
        renamed[at..at + 20].copy_from_slice(did.as_bytes());
        (node, signed, renamed)
    };
    for (name, binding) in [("theirs", forged.1), ("renamed", forged.2)] {
        let lies = Lies::sync(move |request, honest| match request {
            SyncRequest::Bindings { .. } => SyncResponse::Bindings { bindings: vec![binding.clone()], more: false },
            _ => honest,
        });
        let liar = Liar::start(forged.0.clone(), &victim.address, lies).await;
        let buyer = buyer(&sandbox, name).await;
        let (code, said) = subscribe(&buyer, &liar.link(&did)).await;
        assert_eq!(code, VERIFICATION_FAILED, "{said}");
        assert!(said.contains("are not") && said.contains(&did.to_string()), "{said}");
        assert!(feed_of(&buyer, did).await.is_none(), "nothing of it was kept");
    }

    // What is public and true may come from anybody, as from a mirror: every byte of it is proven from the DID.
    let relay = Liar::start(Keypair::generate_ed25519(), &victim.address, Lies::none()).await;
    let buyer = buyer(&sandbox, "relayed").await;
    let (code, said) = subscribe(&buyer, &relay.link(&did)).await;
    assert_eq!(code, Some(0), "{said}");
    assert!(feed_of(&buyer, did).await.is_some());
    // The machine itself is still welcome.
    trade::follow(&buyer, &victim.node).await;
    trade::know(&buyer, victim.dataset).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn entries_and_heads_by_another_key_are_refused_even_from_the_machines_own_node() {
    let sandbox = Sandbox::new();
    let victim = Victim::start(&sandbox).await;
    let thief = Arc::new(FeedKey::generate(&mut rand::rng()));
    let change_last = |change: fn(Vec<u8>, &FeedKey) -> Vec<u8>, key: Arc<FeedKey>| {
        Lies::sync(move |_, honest| match honest {
            SyncResponse::Entries { mut entries, more } => {
                let last = entries.pop().unwrap();
                entries.push(change(last, &key));
                SyncResponse::Entries { entries, more }
            }
            other => other,
        })
    };
    let heads = {
        let thief = Arc::clone(&thief);
        Lies::sync(move |_, honest| match honest {
            SyncResponse::Heads { heads, more } => {
                let forge = |bytes: &Vec<u8>| {
                    let head = *SignedHead::decode(bytes).unwrap().head();
                    SignedHead::sign(Head { seq: head.seq + 100, ..head }, &thief).bytes().to_vec()
                };
                SyncResponse::Heads { heads: heads.iter().map(forge).collect(), more }
            }
            other => other,
        })
    };
    let lies = [
        (
            "signed",
            change_last(|bytes, key| signed_again(&bytes, key, |_| ()), Arc::clone(&thief)),
            "no binding names its key",
        ),
        (
            "flipped",
            change_last(
                |mut bytes, _| {
                    *bytes.last_mut().unwrap() ^= 1;
                    bytes
                },
                Arc::clone(&thief),
            ),
            "",
        ),
        ("heads", heads, "no binding names"),
    ];
    for (name, lies, because) in lies {
        let liar = victim.liar(lies).await;
        let buyer = buyer(&sandbox, name).await;
        let (code, said) = subscribe(&buyer, &liar.link(&victim.did)).await;
        assert_eq!(code, VERIFICATION_FAILED, "{name}: {said}");
        assert!(said.contains(because), "{name}: {said}");
        let closed = feed_of(&buyer, victim.did).await.is_some_and(|feed| feed.datasets.iter().any(|d| d.closed));
        assert!(!closed, "{name}: the forged end did not count");
        assert_eq!(buyer.status().await.followed[0].equivocations, 0, "the machine is not blamed");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_retired_feed_key_neither_goes_on_nor_backdates() {
    let sandbox = Sandbox::new();
    let victim = Victim::start(&sandbox).await;
    let (did, first) = (victim.did, victim.dataset);
    let retired = Arc::new(victim.feed_key());
    let Victim { node, home, .. } = victim;
    node.stop().await;
    let ended = command(&home, &["key", "rotate"]).await;
    assert_eq!(ended.code, Some(0), "{ended:?}");
    let node = NodeProcess::start(&home).await;
    let address = peer::address(&node.link().await);
    let second = trade::ingest(&node, TOPIC, 60, 60).await;
    assert!(Home::open(&home).unwrap().keys(None).unwrap().feed.public() != retired.public());

    // Behind the end: more entries by the old key, and a head that names them.
    let key = Arc::clone(&retired);
    let forged = Arc::new(Mutex::new(0));
    let counted = Arc::clone(&forged);
    let goes_on = Lies::sync(move |_, honest| match honest {
        SyncResponse::Entries { mut entries, .. } => {
            let last = SignedEntry::decode(entries.last().unwrap()).unwrap();
            let next = signed_again(last.bytes(), &key, |entry| (entry.seq, entry.prev) = (entry.seq + 1, last.hash()));
            entries.push(next);
            *counted.lock().unwrap() += 1;
            SyncResponse::Entries { entries, more: false }
        }
        other => other,
    });
    let liar = Liar::start(peer::stolen_node_key(&home), &address, goes_on).await;
    let misled = buyer(&sandbox, "misled").await;
    let (code, said) = subscribe(&misled, &liar.link(&did)).await;
    assert!(*forged.lock().unwrap() > 0 && code == VERIFICATION_FAILED, "{code:?} {said}");
    drop(liar);

    // Before the change of keys: another story, by the key that was good then.
    let key = Arc::clone(&retired);
    let backdates = Lies::sync(move |request, honest| match (request, honest) {
        (SyncRequest::Entries { log, .. }, SyncResponse::Entries { entries, more }) if log.log.stream().is_some() => {
            let mut prev = None;
            let forge = |bytes: &Vec<u8>| {
                let honest = SignedEntry::decode(bytes).unwrap();
                if honest.signer() != key.public() {
                    return bytes.clone();
                }
                let again = signed_again(bytes, &key, |entry| {
                    entry.time_ms += 1;
                    entry.prev = prev.unwrap_or(entry.prev);
                });
                prev = Some(SignedEntry::decode(&again).unwrap().hash());
                again
            };
            SyncResponse::Entries { entries: entries.iter().map(forge).collect(), more }
        }
        (_, honest) => honest,
    });
    let liar = Liar::start(peer::stolen_node_key(&home), &address, backdates).await;
    let fooled = buyer(&sandbox, "fooled").await;
    let (code, said) = subscribe(&fooled, &liar.link(&did)).await;
    assert_eq!(code, VERIFICATION_FAILED, "{said}");
    drop(liar);

    // Both come to the truth as soon as they hear it, and do not call the machine a liar.
    for buyer in [&misled, &fooled] {
        until("the machine to be reachable again", async || trade::try_follow(buyer, &node.link().await).await.ok())
            .await;
        for dataset in [first, second] {
            trade::know(buyer, dataset).await;
            trade::buy(buyer, dataset).await;
        }
        assert_eq!(buyer.status().await.followed[0].equivocations, 0);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn grants_that_are_not_for_this_are_refused() {
    let sandbox = Sandbox::new();
    let victim = Victim::start(&sandbox).await;
    let other = trade::ingest(&victim.node, TOPIC, 60, 60).await;
    // What each liar makes of the grants that it passes on; it keeps the honest ones.
    let swap_for_the_first = |honest: &AccessReply, kept: &Kept| {
        let mut kept = kept.lock().unwrap();
        kept.push(honest.clone());
        kept[0].clone()
    };
    let flip = |at: usize| {
        move |honest: &AccessReply, _: &Kept| {
            let AccessReply::Granted { grants, from, total } = honest else { panic!("{honest:?}") };
            let mut grants = grants.clone();
            let place = if at == 0 { grants[0].len() - 1 } else { at };
            grants[0][place] ^= 1;
            AccessReply::Granted { grants, from: *from, total: *total }
        }
    };
    let swap: Swap = Box::new(swap_for_the_first);
    let cases = [("swapped", swap), ("header", Box::new(flip(60)) as _), ("keys", Box::new(flip(0)) as _)];
    for (name, change) in cases {
        let kept = Kept::default();
        let lies = Lies::access(move |_, honest| match &honest {
            AccessReply::Granted { .. } => change(&honest, &kept),
            _ => honest,
        });
        let liar = victim.liar(lies).await;
        let buyer = buyer(&sandbox, name).await;
        let (code, said) = subscribe(&buyer, &liar.link(&victim.did)).await;
        assert_eq!(code, Some(0), "{said}");
        if name == "swapped" {
            // The first grant is honest; then it is sold again for another dataset.
            trade::request(&buyer, &trade::datasets(&[victim.dataset])).await;
        }
        let ended = command(buyer.home(), &["access", "request", "--dataset", &other.to_string()]).await;
        assert_eq!(ended.code, VERIFICATION_FAILED, "{name}: {ended:?}");
        let ended = command(buyer.home(), &["pull", "--dataset", &other.to_string()]).await;
        assert_eq!(ended.code, Some(4), "{name}: no keys came of it: {ended:?}");
    }
}

/// A buyer without a node.
struct Hand {
    identity: IdentityKey,
    encryption: EncryptionKey,
}

impl Hand {
    fn new() -> Self {
        let (identity, encryption) =
            (IdentityKey::generate(&mut rand::rng()), EncryptionKey::generate(&mut rand::rng()));
        Self { identity, encryption }
    }

    async fn quoted(&self, peer: &Stranger, machine: Did, dataset: DatasetId) -> SignedQuote {
        let selection = Selection::new(vec![Range::Dataset(dataset)]).unwrap();
        let message = AccessMessage::Quote { machine, buyer: self.identity.did(), selection };
        match peer.access(&message).await {
            AccessReply::Quote(bytes) => SignedQuote::decode(&bytes).unwrap(),
            other => panic!("no quote: {other:?}"),
        }
    }

    fn takes(&self, quote: &SignedQuote) -> AccessMessage {
        let now_ms = u64::try_from(SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_millis()).unwrap();
        let request = AccessRequest {
            machine: quote.quote().machine,
            quote_hash: quote.hash(),
            buyer: self.identity.did(),
            buyer_enc: self.encryption.public(),
            nonce: rand::random(),
            expires_ms: now_ms + 3_600_000,
            payment: None,
        };
        let request = SignedRequest::sign(request, &self.identity).unwrap();
        AccessMessage::Request { quote: quote.bytes().to_vec(), request: request.encode() }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_that_is_replayed_by_anybody_gets_the_same_sealed_grant_and_nothing_else() {
    let sandbox = Sandbox::new();
    let Victim { mut node, home, did, address, dataset } = Victim::start(&sandbox).await;
    let (hand, peer) = (Hand::new(), Stranger::connect(&address).await);
    let message = hand.takes(&hand.quoted(&peer, did, dataset).await);
    let first = peer.access(&message).await;
    assert!(matches!(first, AccessReply::Granted { .. }), "{first:?}");
    let replayed = Stranger::connect(&address).await;
    assert_eq!(replayed.access(&message).await, first);

    // Also when the machine died in between.
    node.kill();
    let node = NodeProcess::start(&home).await;
    let replayed = Stranger::connect(&address).await;
    assert_eq!(replayed.access(&message).await, first);
    let list: tributary::control::api::AccessList =
        node.client().post("/v1/access/list", &tributary::control::api::ListAccess::default()).await.unwrap();
    assert_eq!(list.received.len(), 1, "it is one order");

    // Another machine takes neither the quote nor the request.
    let other = NodeProcess::start(&sandbox.machine("other", &[stream(TOPIC, "")])).await;
    let elsewhere = Stranger::connect(&peer::address(&other.link().await)).await;
    let reply = elsewhere.access(&message).await;
    assert!(matches!(reply, AccessReply::Denied { code: DenyCode::Invalid | DenyCode::NotFound, .. }), "{reply:?}");
}
