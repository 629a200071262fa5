//! The fixed parties and objects that targets compare inputs with and that the seeds are about. Public on purpose: nothing
//! real is ever signed with these keys.

use std::sync::OnceLock;

use rand_chacha::ChaCha8Rng;
use rand_core::SeedableRng as _;
use tributary_protocol::{
    access::{Price, Quote, Range, Selection, SignedQuote},
    binding::{Binding, BindingChain, MAX_LIFE_MS, SignedBinding},
    identity::IdentityKey,
    ids::{Did, Hash, StreamId},
    keys::{EncryptionKey, FeedKey},
    keytree::ChunkKey,
    peaq::{
        chain::{ChunkSecrets, ChunkSigner, SealedChunk, seal_chunk},
        parties::Recipients,
    },
};
use zeroize::Zeroizing;

/// When everything happens, ms since 1970.
pub(crate) const NOW_MS: u64 = 1_767_344_400_000;

fn identity(number: u8) -> IdentityKey {
    IdentityKey::from_bytes(&[number; 32]).expect("a small number is a private key")
}

/// The machine.
pub(crate) fn machine() -> IdentityKey {
    identity(1)
}

pub(crate) fn owner() -> IdentityKey {
    identity(2)
}

pub(crate) fn buyer_identity() -> IdentityKey {
    identity(3)
}

pub(crate) fn did() -> Did {
    static DID: OnceLock<Did> = OnceLock::new();
    *DID.get_or_init(|| machine().did())
}

pub(crate) fn buyer() -> Did {
    static DID: OnceLock<Did> = OnceLock::new();
    *DID.get_or_init(|| buyer_identity().did())
}

/// The machine's stream.
pub(crate) fn stream() -> StreamId {
    StreamId::of(&did(), "/odom")
}

/// The machine's.
pub(crate) fn feed_key() -> FeedKey {
    FeedKey::from_bytes(&[4; 32])
}

/// The one key to which seeds seal: owner's, machine's and buyer's at once, so that a target needs only one to open them.
pub(crate) fn encryption_key() -> EncryptionKey {
    EncryptionKey::from_bytes(&[5; 32])
}

pub(crate) fn chunk_key() -> ChunkKey {
    ChunkKey::from_bytes(&[6; 32])
}

/// The machine's binding 0.
pub(crate) fn binding() -> Binding {
    signed_binding().binding().clone()
}

pub(crate) fn signed_binding() -> &'static SignedBinding {
    static BINDING: OnceLock<SignedBinding> = OnceLock::new();
    BINDING.get_or_init(|| {
        let binding = Binding {
            did: did(),
            serial: 0,
            prev: Hash::ZERO,
            incarnation: 0,
            owner_id: owner().did(),
            owner_enc: encryption_key().public(),
            feed_key: feed_key().public(),
            encryption_key: encryption_key().public(),
            node_keys: vec![[7; 32]],
            issued_ms: NOW_MS,
            expires_ms: NOW_MS + MAX_LIFE_MS,
            positions: Vec::new(),
        };
        SignedBinding::sign(binding, &machine()).expect("a valid binding")
    })
}

pub(crate) fn chain() -> BindingChain {
    BindingChain::new(signed_binding()).expect("a valid binding")
}

/// What the buyer was quoted for the machine's stream.
pub(crate) fn quote() -> &'static SignedQuote {
    static QUOTE: OnceLock<SignedQuote> = OnceLock::new();
    QUOTE.get_or_init(|| {
        let range = Range::Time { stream: stream(), from_ms: NOW_MS, to_ms: NOW_MS + 60_000 };
        let quote = Quote {
            machine: did(),
            buyer: buyer(),
            selection: Selection::new(vec![range]).expect("an ordered range"),
            price: Price { amount: 5, token: "USDC".into(), chain: "base".into(), pay_to: owner().did().to_string() },
            terms: Hash::ZERO,
            issued_ms: NOW_MS,
            expires_ms: NOW_MS + 600_000,
        };
        SignedQuote::sign(quote, &feed_key()).expect("a valid quote")
    })
}

/// A chunk in peaq's format, under the one chunk key, for the one encryption key.
pub(crate) fn peaq_chunk() -> &'static SealedChunk {
    static CHUNK: OnceLock<SealedChunk> = OnceLock::new();
    CHUNK.get_or_init(|| {
        let public = encryption_key().public().to_string();
        let recipients = Recipients::new(&public, &public, &public).expect("a good key");
        let feed_key = feed_key();
        let signer = ChunkSigner::new(&feed_key, &did().to_string(), "feed").expect("names");
        let secrets = ChunkSecrets { key: Zeroizing::new(*chunk_key().as_bytes()), nonce: [9; 24] };
        let mut rng = ChaCha8Rng::seed_from_u64(1);
        seal_chunk(b"a plaintext", 0, None, &secrets, &recipients, &signer, &mut rng).expect("short")
    })
}

pub(crate) fn rng() -> ChaCha8Rng {
    ChaCha8Rng::seed_from_u64(7)
}
