//! The access protocol, message by message.

use std::time::{SystemTime, UNIX_EPOCH};

use tributary::service::Node;
use tributary_protocol::{
    access::{AccessRequest, GrantExpectation, Price, Quote, Range, Selection, SignedQuote, SignedRequest},
    binding::Binding,
    identity::IdentityKey,
    ids::{Did, Hash},
    keys::{EncryptionKey, FeedKey},
    keytree::Position,
    wire::{AccessMessage, AccessReply, DenyCode},
};

use super::support::{Bare, dataset, fill, granted, head, machine_config, start, stop, stream, stream_id};

fn now_ms() -> u64 {
    u64::try_from(SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_millis()).unwrap()
}

/// A buyer without a node.
struct Hand {
    identity: IdentityKey,
    encryption: EncryptionKey,
}

impl Hand {
    fn new() -> Self {
        Self {
            identity: IdentityKey::generate(&mut rand::rng()),
            encryption: EncryptionKey::generate(&mut rand::rng()),
        }
    }

    async fn quote(&self, peer: &Bare, machine: Did, selection: Selection) -> AccessReply {
        peer.access(&AccessMessage::Quote { machine, buyer: self.identity.did(), selection }).await
    }

    async fn quoted(&self, peer: &Bare, machine: Did, selection: Selection) -> SignedQuote {
        match self.quote(peer, machine, selection).await {
            AccessReply::Quote(bytes) => SignedQuote::decode(&bytes).unwrap(),
            other => panic!("no quote: {other:?}"),
        }
    }

    fn request(&self, quote: &SignedQuote) -> SignedRequest {
        let request = AccessRequest {
            machine: quote.quote().machine,
            quote_hash: quote.hash(),
            buyer: self.identity.did(),
            buyer_enc: self.encryption.public(),
            nonce: rand::random(),
            expires_ms: now_ms() + 60_000,
            payment: None,
        };
        SignedRequest::sign(request, &self.identity).unwrap()
    }
}

fn take(quote: &SignedQuote, request: &SignedRequest) -> AccessMessage {
    AccessMessage::Request { quote: quote.bytes().to_vec(), request: request.encode() }
}

fn binding_of(node: &Node) -> Binding {
    tributary::machine::stored_bindings(node.store(), &node.did()).unwrap().pop().unwrap().binding().clone()
}

fn code(reply: &AccessReply) -> Option<DenyCode> {
    match reply {
        AccessReply::Denied { code, .. } => Some(*code),
        _ => None,
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn asking_twice_is_asking_once() {
    let dir = tempfile::tempdir().unwrap();
    let config = machine_config(&[stream("/imu", "policy: free")]);
    let node = start(dir.path(), &config).await;
    let id = fill(&node, "/imu", 0, 30).await;
    let (peer, hand) = (Bare::connect(&node).await, Hand::new());
    let quote = hand.quoted(&peer, node.did(), dataset(id)).await;
    let request = hand.request(&quote);
    let first = peer.access(&take(&quote, &request)).await;
    assert_eq!(peer.access(&take(&quote, &request)).await, first, "the same grants, byte for byte");
    assert_eq!(peer.access(&AccessMessage::Fetch { request_id: request.id(), from: 0 }).await, first);
    assert_eq!(node.access().orders(false, 10).unwrap().len(), 1);
    // Quoted, requested, granted, delivered: asking again left no trace.
    assert_eq!(node.access().audit(0, 100).unwrap().len(), 4);

    let grants = granted(first.clone());
    let expected = GrantExpectation {
        binding: &binding_of(&node),
        buyer: hand.identity.did(),
        request_id: request.id(),
        terms_hash: quote.terms_hash(),
        range: None,
    };
    grants[0].open(&hand.encryption, &expected, now_ms()).unwrap();
    stop(node, dir.path()).await;

    let node = start(dir.path(), &config).await;
    let peer = Bare::connect(&node).await;
    let again = peer.access(&AccessMessage::Fetch { request_id: request.id(), from: 0 }).await;
    assert_eq!(again, first, "also after a restart");
    assert_eq!(peer.access(&take(&quote, &request)).await, first);
}

#[tokio::test(flavor = "multi_thread")]
async fn requests_that_are_not_what_was_quoted_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    let node = start(dir.path(), &machine_config(&[stream("/imu", "policy: free")])).await;
    let id = fill(&node, "/imu", 0, 10).await;
    let (peer, hand, thief) = (Bare::connect(&node).await, Hand::new(), Hand::new());
    let quote = hand.quoted(&peer, node.did(), dataset(id)).await;

    // Somebody else's quote.
    let stolen = peer.access(&take(&quote, &thief.request(&quote))).await;
    assert_eq!(code(&stolen), Some(DenyCode::Invalid), "{stolen:?}");
    // A quote of one's own making.
    let own = Quote { price: Price::default(), issued_ms: 0, ..quote.quote().clone() };
    let own = SignedQuote::sign(own, &FeedKey::generate(&mut rand::rng())).unwrap();
    let forged = peer.access(&take(&own, &hand.request(&own))).await;
    assert_eq!(code(&forged), Some(DenyCode::Invalid), "{forged:?}");
    // A request that another one than its buyer signed.
    let mut bytes = hand.request(&quote).encode();
    let at = bytes.len() - 10;
    bytes[at] ^= 1;
    let unsigned = peer.access(&AccessMessage::Request { quote: quote.bytes().to_vec(), request: bytes }).await;
    assert_eq!(code(&unsigned), Some(DenyCode::Invalid), "{unsigned:?}");
    // Another machine.
    let elsewhere = hand.quote(&peer, Did::from_bytes([3; 20]), dataset(id)).await;
    assert_eq!(code(&elsewhere), Some(DenyCode::NotFound), "{elsewhere:?}");
    // A request nobody made.
    let unknown = peer.access(&AccessMessage::Fetch { request_id: Hash::of(b"none"), from: 0 }).await;
    assert_eq!(code(&unknown), Some(DenyCode::NotFound));
    assert!(node.access().orders(false, 10).unwrap().is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn keys_of_the_future_are_sold_for_a_limited_time_only() {
    let dir = tempfile::tempdir().unwrap();
    let node = start(dir.path(), &machine_config(&[stream("/imu", "policy: free, live: 10m")])).await;
    fill(&node, "/imu", 0, 10).await;
    let (peer, hand, imu) = (Bare::connect(&node).await, Hand::new(), stream_id(&node, "/imu"));
    let one = |range| Selection::new(vec![range]).unwrap();
    let long = hand.quote(&peer, node.did(), one(Range::Live { stream: imu, seconds: 601 })).await;
    assert_eq!(code(&long), Some(DenyCode::Policy), "{long:?}");
    // All positions of the epoch would be a live range without an end.
    let all = Range::Positions { stream: imu, epoch: 0, first: Position::MIN, last: Position::MAX };
    let all = hand.quote(&peer, node.did(), one(all)).await;
    assert_eq!(code(&all), Some(DenyCode::Policy), "{all:?}");
    let next = Range::Positions { stream: imu, epoch: 1, first: Position::MIN, last: Position::MIN };
    let next = hand.quote(&peer, node.did(), one(next)).await;
    assert_eq!(code(&next), Some(DenyCode::Policy), "{next:?}");
    let quote = hand.quoted(&peer, node.did(), one(Range::Live { stream: imu, seconds: 600 })).await;
    let grants = granted(peer.access(&take(&quote, &hand.request(&quote))).await);
    assert_eq!(grants.len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_live_grant_goes_on_in_the_next_epoch_unless_it_was_revoked() {
    let dir = tempfile::tempdir().unwrap();
    let node = start(dir.path(), &machine_config(&[stream("/imu", "policy: free")])).await;
    fill(&node, "/imu", 0, 10).await;
    let (peer, imu) = (Bare::connect(&node).await, stream_id(&node, "/imu"));
    let (kept, lost) = (Hand::new(), Hand::new());
    let mut ids = Vec::new();
    for hand in [&kept, &lost] {
        let live = Selection::new(vec![Range::Live { stream: imu, seconds: 600 }]).unwrap();
        let quote = hand.quoted(&peer, node.did(), live).await;
        let request = hand.request(&quote);
        assert_eq!(granted(peer.access(&take(&quote, &request)).await).len(), 1);
        ids.push(request.id());
    }
    let (access, who) = (node.access().clone(), lost.identity.did());
    tokio::task::spawn_blocking(move || access.revoke(&who, "/imu", true)).await.unwrap().unwrap();
    fill(&node, "/imu", 10, 10).await;
    let fetch = |request_id| AccessMessage::Fetch { request_id, from: 0 };
    let grants = granted(peer.access(&fetch(ids[0])).await);
    assert_eq!(grants.iter().map(|grant| grant.header().range.epoch).collect::<Vec<_>>(), [0, 1]);
    assert_eq!(granted(peer.access(&fetch(ids[0])).await).len(), 2, "once");
    assert_eq!(granted(peer.access(&fetch(ids[1])).await).len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn messages_over_the_rate_are_told_to_wait_and_cost_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let text = format!("{}streams:\n{}", head("machine", "access_per_minute: 5"), stream("/imu", "policy: free"));
    let node = start(dir.path(), &text).await;
    let id = fill(&node, "/imu", 0, 10).await;
    let (peer, hand) = (Bare::connect(&node).await, Hand::new());
    for _ in 0..5 {
        hand.quoted(&peer, node.did(), dataset(id)).await;
    }
    for _ in 0..10 {
        let reply = hand.quote(&peer, node.did(), dataset(id)).await;
        assert!(matches!(reply, AccessReply::Busy { retry_ms: 1.. }), "{reply:?}");
    }
    assert_eq!(node.access().audit(0, 100).unwrap().len(), 5, "nothing was stored for the others");
    // The rate is the peer's, not the buyer's.
    hand.quoted(&Bare::connect(&node).await, node.did(), dataset(id)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn malformed_messages_are_refused_and_the_node_goes_on() {
    let dir = tempfile::tempdir().unwrap();
    let node = start(dir.path(), &machine_config(&[stream("/imu", "policy: free")])).await;
    let id = fill(&node, "/imu", 0, 10).await;
    let rude = Bare::connect(&node).await;
    for bytes in [Vec::new(), vec![0xff; 100]] {
        assert_eq!(code(&rude.access_bytes(bytes).await), Some(DenyCode::Invalid));
    }
    let garbage = AccessMessage::Request { quote: vec![1; 100], request: vec![2; 100] };
    assert_eq!(code(&Bare::connect(&node).await.access(&garbage).await), Some(DenyCode::Invalid));
    Hand::new().quoted(&Bare::connect(&node).await, node.did(), dataset(id)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn one_buyer_cannot_fill_the_operators_list() {
    let dir = tempfile::tempdir().unwrap();
    let node = start(dir.path(), &machine_config(&[stream("/imu", "policy: manual")])).await;
    let id = fill(&node, "/imu", 0, 10).await;
    let (peer, greedy, modest) = (Bare::connect(&node).await, Hand::new(), Hand::new());
    let quote = greedy.quoted(&peer, node.did(), dataset(id)).await;
    for _ in 0..16 {
        let request = greedy.request(&quote);
        let reply = peer.access(&take(&quote, &request)).await;
        assert_eq!(reply, AccessReply::Pending { request_id: request.id() });
    }
    let over = peer.access(&take(&quote, &greedy.request(&quote))).await;
    assert_eq!(code(&over), Some(DenyCode::RateLimited), "{over:?}");
    let quote = modest.quoted(&peer, node.did(), dataset(id)).await;
    let reply = peer.access(&take(&quote, &modest.request(&quote))).await;
    assert!(matches!(reply, AccessReply::Pending { .. }), "{reply:?}");
    assert_eq!(node.access().orders(true, 100).unwrap().len(), 17);
    // The newest first, and no more than asked for.
    assert_eq!(node.access().orders(true, 1).unwrap()[0].buyer, modest.identity.did());
}
