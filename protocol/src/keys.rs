//! The keys a node holds besides its identity: what it signs with, and what others encrypt to.
//!
//! Owns the two key pairs and the rule that a signature says what it is for. It never stores a key, never draws randomness,
//! and never decides whose key a public key is: that is [`crate::binding`].
//!
//! # Domain separation
//!
//! Every signature of a feed key is Ed25519 (RFC 8032) over
//!
//! ```text
//! context (ASCII, no NUL) || 0x00 || bytes
//! ```
//!
//! so a signature made for one kind of object is worth nothing for another. There is one exception, because peaq's tools check
//! it: the v1 chunk signature is over the 66 ASCII bytes `0x` and the hex of a SHA-256. It holds no NUL byte, so no signature
//! of the first form can be taken for one of the second, or the other way round.
//!
//! Verification is strict (RFC 8032 with canonical encodings, no small-order keys): every node accepts the same signatures.

use std::{fmt, str::FromStr};

use ed25519_dalek::{Signature, Signer, SigningKey, VerifyingKey};
use rand_core::CryptoRng;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use x25519_dalek::{PublicKey, StaticSecret};
use zeroize::Zeroizing;

/// Length of an Ed25519 signature in bytes.
pub const SIGNATURE_LEN: usize = 64;

/// Length of the text that a v1 chunk signature signs: `0x` and 64 hex digits.
pub const V1_HASH_TEXT_LEN: usize = 66;

/// What a signature of a feed key is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Context {
    /// An entry of a log.
    Entry,
    /// The newest position of a log.
    Head,
    /// A price for a selection of data.
    Quote,
    /// A request for access.
    Request,
    /// The header of a grant.
    Grant,
    /// A statement that something was delivered.
    Receipt,
    /// What is left with a mirror about a request.
    Deposit,
}

impl Context {
    /// Every context there is.
    pub const ALL: [Self; 7] =
        [Self::Entry, Self::Head, Self::Quote, Self::Request, Self::Grant, Self::Receipt, Self::Deposit];

    /// The text that stands in front of the signed bytes: ASCII, without NUL, with the version of the layout it signs.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Entry => "tributary/entry/1",
            Self::Head => "tributary/head/1",
            Self::Quote => "tributary/quote/1",
            Self::Request => "tributary/request/1",
            Self::Grant => "tributary/grant/1",
            Self::Receipt => "tributary/receipt/1",
            Self::Deposit => "tributary/deposit/1",
        }
    }

    fn message(self, bytes: &[u8]) -> Vec<u8> {
        let context = self.as_str().as_bytes();
        let mut message = Vec::with_capacity(context.len() + 1 + bytes.len());
        message.extend_from_slice(context);
        message.push(0);
        message.extend_from_slice(bytes);
        message
    }
}

/// A signature that the key did not make over these bytes in this context.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the signature is not by this key over these bytes; get the object again from another peer")]
pub struct BadSignature;

/// A text that is not a public key.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("not a public {what} key: expected 64 lower-case hex digits, found {found:?}")]
pub struct KeyTextError {
    /// Which kind of key was expected.
    pub what: &'static str,
    /// The start of the text that was found.
    pub found: String,
}

/// Gives a 32-byte public key its text form, serde form and conversions.
macro_rules! public_key {
    ($(#[$doc:meta])* $name:ident, $what:literal) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name([u8; 32]);

        impl $name {
            /// Length in bytes.
            pub const LEN: usize = 32;

            /// Wraps the 32 bytes. Whether they are a good key shows when it is used.
            #[must_use]
            pub const fn from_bytes(bytes: [u8; 32]) -> Self {
                Self(bytes)
            }

            /// The 32 bytes.
            #[must_use]
            pub const fn as_bytes(&self) -> &[u8; 32] {
                &self.0
            }

            /// The 32 bytes.
            #[must_use]
            pub const fn to_bytes(self) -> [u8; 32] {
                self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&hex::encode(self.0))
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{}({self})", stringify!($name))
            }
        }

        impl FromStr for $name {
            type Err = KeyTextError;

            fn from_str(text: &str) -> Result<Self, KeyTextError> {
                parse_lower_hex(text)
                    .map(Self)
                    .ok_or_else(|| KeyTextError { what: $what, found: text.chars().take(80).collect() })
            }
        }

        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(self)
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                let text = String::deserialize(deserializer)?;
                text.parse().map_err(serde::de::Error::custom)
            }
        }
    };
}

/// One spelling per key, as for every other identifier: lower case, no prefix.
fn parse_lower_hex(text: &str) -> Option<[u8; 32]> {
    let lower = text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
    let mut out = [0; 32];
    (lower && hex::decode_to_slice(text, &mut out).is_ok()).then_some(out)
}

public_key!(
    /// The public half of a [`FeedKey`].
    FeedPublicKey,
    "feed"
);
public_key!(
    /// The public half of an [`EncryptionKey`].
    EncryptionPublicKey,
    "encryption"
);

impl FeedPublicKey {
    /// Whether a signature of this key could ever be accepted: a point of the curve in its canonical form, not of small order.
    #[must_use]
    pub fn is_usable(&self) -> bool {
        VerifyingKey::from_bytes(&self.0).is_ok_and(|key| !key.is_weak())
    }

    /// Checks that the key signed `bytes` in `context`.
    ///
    /// # Errors
    ///
    /// [`BadSignature`] when it did not, or when the key cannot sign anything.
    pub fn verify(&self, context: Context, bytes: &[u8], signature: &[u8; SIGNATURE_LEN]) -> Result<(), BadSignature> {
        self.verify_raw(&context.message(bytes), signature)
    }

    /// Checks a v1 chunk signature: over the text of the SHA-256 of the ciphertext, see [`FeedKey::sign_v1_hash`].
    ///
    /// # Errors
    ///
    /// [`BadSignature`] when the key did not sign that text.
    pub fn verify_v1_hash(
        &self,
        ciphertext_sha256: &[u8; 32],
        signature: &[u8; SIGNATURE_LEN],
    ) -> Result<(), BadSignature> {
        self.verify_raw(&v1_hash_text(ciphertext_sha256), signature)
    }

    /// Checks a signature over the text of a hash in another spelling, see [`FeedKey::sign_text`].
    pub(crate) fn verify_text(&self, text: &str, signature: &[u8; SIGNATURE_LEN]) -> Result<(), BadSignature> {
        self.verify_raw(text.as_bytes(), signature)
    }

    fn verify_raw(&self, message: &[u8], signature: &[u8; SIGNATURE_LEN]) -> Result<(), BadSignature> {
        let key = VerifyingKey::from_bytes(&self.0).map_err(|_| BadSignature)?;
        key.verify_strict(message, &Signature::from_bytes(signature)).map_err(|_| BadSignature)
    }
}

/// peaq's text of a SHA-256: `0x` and 64 lower-case hex digits, as ASCII.
#[must_use]
pub fn v1_hash_text(sha256: &[u8; 32]) -> [u8; V1_HASH_TEXT_LEN] {
    let mut text = [0; V1_HASH_TEXT_LEN];
    text[..2].copy_from_slice(b"0x");
    hex::encode_to_slice(sha256, &mut text[2..]).expect("64 hex digits fit in the 64 bytes behind the prefix");
    text
}

/// The Ed25519 key that signs everything a machine publishes. Wiped from memory when dropped; has no `Debug` on purpose.
pub struct FeedKey(SigningKey);

impl FeedKey {
    /// Draws a new key.
    pub fn generate(rng: &mut impl CryptoRng) -> Self {
        Self(SigningKey::generate(rng))
    }

    /// The key of a 32-byte seed (RFC 8032 private key).
    #[must_use]
    pub fn from_bytes(seed: &[u8; 32]) -> Self {
        Self(SigningKey::from_bytes(seed))
    }

    /// The seed, for the key file.
    #[must_use]
    pub fn to_bytes(&self) -> Zeroizing<[u8; 32]> {
        Zeroizing::new(self.0.to_bytes())
    }

    /// The public half.
    #[must_use]
    pub fn public(&self) -> FeedPublicKey {
        FeedPublicKey(self.0.verifying_key().to_bytes())
    }

    /// Signs `bytes` for one purpose: over `context || 0x00 || bytes`.
    #[must_use]
    pub fn sign(&self, context: Context, bytes: &[u8]) -> [u8; SIGNATURE_LEN] {
        self.0.sign(&context.message(bytes)).to_bytes()
    }

    /// Signs a chunk for peaq's tools: over the 66 ASCII bytes of `0x<hex>` of the SHA-256 of its ciphertext, without a
    /// context. Takes the digest and not the text, so this exception can sign nothing else.
    #[must_use]
    pub fn sign_v1_hash(&self, ciphertext_sha256: &[u8; 32]) -> [u8; SIGNATURE_LEN] {
        self.0.sign(&v1_hash_text(ciphertext_sha256)).to_bytes()
    }

    /// Signs the text of a hash as peaq's ROS 2 agent spells it. Only tests make such chunks.
    #[cfg(test)]
    pub(crate) fn sign_text(&self, text: &str) -> [u8; SIGNATURE_LEN] {
        self.0.sign(text.as_bytes()).to_bytes()
    }
}

/// The X25519 key that others seal secrets to. Wiped from memory when dropped; has no `Debug` on purpose.
pub struct EncryptionKey(StaticSecret);

impl EncryptionKey {
    /// Draws a new key.
    pub fn generate(rng: &mut impl CryptoRng) -> Self {
        Self(StaticSecret::random_from_rng(rng))
    }

    /// The key of 32 bytes, which X25519 clamps when it uses them (RFC 7748 section 5).
    #[must_use]
    pub fn from_bytes(bytes: &[u8; 32]) -> Self {
        Self(StaticSecret::from(*bytes))
    }

    /// The 32 bytes, for the key file and for HPKE, which takes the same ones.
    #[must_use]
    pub fn to_bytes(&self) -> Zeroizing<[u8; 32]> {
        Zeroizing::new(self.0.to_bytes())
    }

    /// The public half.
    #[must_use]
    pub fn public(&self) -> EncryptionPublicKey {
        EncryptionPublicKey(PublicKey::from(&self.0).to_bytes())
    }

    /// The X25519 shared secret with `theirs`; `None` when their key is of small order, which would let anyone know it.
    #[must_use]
    pub fn diffie_hellman(&self, theirs: &EncryptionPublicKey) -> Option<Zeroizing<[u8; 32]>> {
        let shared = self.0.diffie_hellman(&PublicKey::from(theirs.0));
        shared.was_contributory().then(|| Zeroizing::new(shared.to_bytes()))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use rand_chacha::ChaCha20Rng;
    use rand_core::SeedableRng;

    use super::*;

    fn feed_key(seed: u64) -> FeedKey {
        FeedKey::generate(&mut ChaCha20Rng::seed_from_u64(seed))
    }

    #[test]
    fn a_signature_is_good_for_one_key_one_context_and_one_message() {
        let (key, other) = (feed_key(1), feed_key(2));
        for made in Context::ALL {
            let signature = key.sign(made, b"message");
            for checked in Context::ALL {
                assert_eq!(key.public().verify(checked, b"message", &signature).is_ok(), made == checked);
            }
            assert_eq!(key.public().verify(made, b"massage", &signature), Err(BadSignature));
            assert_eq!(other.public().verify(made, b"message", &signature), Err(BadSignature));
        }
    }

    #[test]
    fn contexts_are_distinct_and_hold_no_nul() {
        for (i, a) in Context::ALL.iter().enumerate() {
            assert!(a.as_str().is_ascii() && !a.as_str().contains('\0'));
            for b in &Context::ALL[i + 1..] {
                assert_ne!(a.as_str(), b.as_str());
            }
        }
    }

    #[test]
    fn the_v1_signature_is_over_the_text_without_a_context() {
        let key = feed_key(3);
        let digest = [0xab; 32];
        let signature = key.sign_v1_hash(&digest);
        assert_eq!(signature, key.0.sign(format!("0x{}", "ab".repeat(32)).as_bytes()).to_bytes());
        assert_eq!(key.public().verify_v1_hash(&digest, &signature), Ok(()));
        assert_eq!(key.public().verify_v1_hash(&[0xac; 32], &signature), Err(BadSignature));
        for context in Context::ALL {
            assert_eq!(key.public().verify(context, &v1_hash_text(&digest), &signature), Err(BadSignature));
        }
    }

    #[test]
    fn a_weak_key_accepts_nothing() {
        // The identity point: with it, (R = identity, s = 0) satisfies the equation of plain Ed25519 for every message.
        let mut identity = [0; 32];
        identity[0] = 1;
        let key = FeedPublicKey::from_bytes(identity);
        assert!(!key.is_usable());
        let mut forged = [0; 64];
        forged[0] = 1;
        assert_eq!(key.verify(Context::Entry, b"anything", &forged), Err(BadSignature));
        assert!(feed_key(1).public().is_usable());
    }

    #[test]
    fn keys_survive_their_bytes() {
        let key = feed_key(4);
        assert_eq!(FeedKey::from_bytes(&key.to_bytes()).public(), key.public());
        let key = EncryptionKey::generate(&mut ChaCha20Rng::seed_from_u64(5));
        assert_eq!(EncryptionKey::from_bytes(&key.to_bytes()).public(), key.public());
    }

    #[test]
    fn both_sides_agree_on_a_secret_and_refuse_a_small_order_key() {
        let mut rng = ChaCha20Rng::seed_from_u64(6);
        let (a, b) = (EncryptionKey::generate(&mut rng), EncryptionKey::generate(&mut rng));
        assert_eq!(a.diffie_hellman(&b.public()), b.diffie_hellman(&a.public()));
        assert!(a.diffie_hellman(&b.public()).is_some());
        assert!(a.diffie_hellman(&EncryptionPublicKey::from_bytes([0; 32])).is_none());
    }

    #[test]
    fn a_public_key_has_one_spelling() {
        let key = feed_key(7).public();
        assert_eq!(key.to_string().parse(), Ok(key));
        assert_eq!(
            serde_json::from_str::<FeedPublicKey>(&serde_json::to_string(&key).expect("text")).expect("key"),
            key
        );
        for bad in [String::new(), format!("0x{key}"), key.to_string().to_uppercase(), "f".repeat(1 << 20)] {
            let error = bad.parse::<FeedPublicKey>().expect_err("another spelling");
            assert!(error.to_string().len() < 300);
        }
    }

    proptest! {
        #[test]
        fn arbitrary_keys_and_signatures_never_panic(
            key: [u8; 32], signature in proptest::array::uniform32(any::<[u8; 2]>()), message: Vec<u8>
        ) {
            let signature: [u8; 64] = signature.concat().try_into().expect("64 bytes");
            let key = FeedPublicKey::from_bytes(key);
            prop_assert!(key.verify(Context::Head, &message, &signature).is_err());
        }
    }
}
