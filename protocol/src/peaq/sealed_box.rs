//! Sealed boxes, bit-compatible with libsodium's `crypto_box_seal`.
//!
//! `ephemeral public key (32) || Poly1305 tag (16) || ciphertext`, where
//! `k1 = HSalsa20(X25519(ephemeral, recipient), 0)` is the key of XSalsa20-Poly1305 and
//! `BLAKE2b-192(ephemeral public || recipient public)` its nonce; the first 32 bytes of the key stream are the Poly1305 key.
//! The sender stays anonymous: a sealed box says nothing about who made it.
//!
//! X25519 is nearly all of the time and AWS-LC's, which has it in assembly. It gives no shared secret that is all zero, so
//! low-order points are refused by it.

use aws_lc_rs::agreement::{PrivateKey, UnparsedPublicKey, X25519, agree};
use blake2::{Blake2b, Digest, digest::consts::U24};
use poly1305::{Poly1305, universal_hash::KeyInit};
use rand_core::CryptoRng;
use salsa20::{
    XSalsa20,
    cipher::{KeyIvInit, StreamCipher, consts::U10},
    hsalsa,
};
use subtle::ConstantTimeEq;
use zeroize::Zeroizing;

use super::{StreamError, hexes};
use crate::keys::EncryptionKey;

/// What a sealed box is longer than its message, in bytes.
pub const OVERHEAD: usize = 48;

const EPHEMERAL: usize = 32;

/// An X25519 public key that something can be sealed to: never a low-order point.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct BoxPublicKey([u8; 32]);

impl BoxPublicKey {
    /// Takes 32 bytes as a public key; `field` names the value in the error.
    ///
    /// # Errors
    /// [`StreamError::WeakPublicKey`] for a low-order point.
    pub fn from_bytes(bytes: [u8; 32], field: &'static str) -> Result<Self, StreamError> {
        // Clamped scalars are multiples of the cofactor: any of them takes every low-order point to zero, and only those.
        match with_shared(&private_key(&[1; 32]), &bytes, |_| ()) {
            Some(()) => Ok(Self(bytes)),
            None => Err(StreamError::WeakPublicKey { field }),
        }
    }

    /// Reads hex text; `field` names the value in the error.
    ///
    /// # Errors
    /// Not hex, not 32 bytes, or a low-order point.
    pub fn from_hex(text: &str, field: &'static str) -> Result<Self, StreamError> {
        let bytes = hexes::decode(text, field)?;
        let found = bytes.len();
        let bytes = bytes.try_into().map_err(|_| StreamError::PublicKeyLength { field, found })?;
        Self::from_bytes(bytes, field)
    }

    /// The 32 bytes.
    #[must_use]
    pub const fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }

    /// Seals `message` so that only the holder of the private key reads it. Draws 32 bytes from `rng`.
    ///
    /// # Errors
    /// [`StreamError::WeakPublicKey`], which the constructors rule out.
    pub fn seal(&self, message: &[u8], rng: &mut impl CryptoRng) -> Result<Vec<u8>, StreamError> {
        let mut scalar = Zeroizing::new([0; 32]);
        rng.fill_bytes(scalar.as_mut_slice());
        let ephemeral = private_key(&scalar);
        let ephemeral_public = public_key(&ephemeral);
        let (mut cipher, poly) =
            with_shared(&ephemeral, &self.0, |shared| secret_box(shared, &ephemeral_public, &self.0))
                .ok_or(StreamError::WeakPublicKey { field: "public_key_hex" })?;

        let mut out = vec![0; OVERHEAD + message.len()];
        let (head, body) = out.split_at_mut(OVERHEAD);
        body.copy_from_slice(message);
        cipher.apply_keystream(body);
        let tag = poly.compute_unpadded(body);
        head[..EPHEMERAL].copy_from_slice(&ephemeral_public);
        head[EPHEMERAL..].copy_from_slice(&tag);
        Ok(out)
    }
}

/// An X25519 private key and its public key. Wiped when dropped, never printed.
pub struct BoxSecretKey {
    secret: PrivateKey,
    public: [u8; 32],
}

impl BoxSecretKey {
    /// Takes the 32 bytes as a private key.
    #[must_use]
    pub fn from_bytes(bytes: &[u8; 32]) -> Self {
        let secret = private_key(bytes);
        let public = public_key(&secret);
        Self { secret, public }
    }

    /// Reads hex text, as peaq's key files hold it.
    ///
    /// # Errors
    /// Not hex, or not 32 bytes.
    pub fn from_hex(text: &str) -> Result<Self, StreamError> {
        const FIELD: &str = "recipient_private_key_hex";
        let bytes = hexes::decode_secret(text, FIELD)?;
        let bytes: &[u8; 32] = bytes
            .as_slice()
            .try_into()
            .map_err(|_| StreamError::PrivateKeyLength { field: FIELD, found: bytes.len() })?;
        Ok(Self::from_bytes(bytes))
    }

    /// The public key others seal to.
    #[must_use]
    pub const fn public_key(&self) -> &[u8; 32] {
        &self.public
    }

    /// Opens a sealed box; `None` if it was not sealed for this key, or was altered, or cannot be a sealed box at all.
    #[must_use]
    pub fn open(&self, sealed: &[u8]) -> Option<Zeroizing<Vec<u8>>> {
        let (ephemeral, rest) = sealed.split_first_chunk::<EPHEMERAL>()?;
        let (tag, body) = rest.split_first_chunk::<16>()?;
        let (mut cipher, poly) =
            with_shared(&self.secret, ephemeral, |shared| secret_box(shared, ephemeral, &self.public))?;
        if !bool::from(poly.compute_unpadded(body).as_slice().ct_eq(tag)) {
            return None;
        }
        let mut message = Zeroizing::new(body.to_vec());
        cipher.apply_keystream(&mut message);
        Some(message)
    }
}

impl From<&EncryptionKey> for BoxSecretKey {
    fn from(key: &EncryptionKey) -> Self {
        Self::from_bytes(&key.to_bytes())
    }
}

/// The private key of 32 bytes, which X25519 clamps when it uses them. AWS-LC wipes it when it is dropped.
fn private_key(bytes: &[u8; 32]) -> PrivateKey {
    PrivateKey::from_private_key(&X25519, bytes).expect("any 32 bytes are a private key")
}

fn public_key(private: &PrivateKey) -> [u8; 32] {
    let public = private.compute_public_key().expect("every private key has a public one");
    public.as_ref().try_into().expect("32 bytes")
}

/// What `take` makes of the shared secret, which is wiped then; `None` if it is all zero.
fn with_shared<T>(private: &PrivateKey, public: &[u8; 32], take: impl FnOnce(&[u8; 32]) -> T) -> Option<T> {
    let public = UnparsedPublicKey::new(&X25519, public);
    agree(private, public, (), |shared| shared.try_into().map(take).map_err(|_| ())).ok()
}

/// XSalsa20 standing behind its Poly1305 key, and the authenticator with that key.
fn secret_box(shared: &[u8; 32], ephemeral: &[u8; 32], recipient: &[u8; 32]) -> (XSalsa20, Poly1305) {
    let key: Zeroizing<[u8; 32]> = Zeroizing::new(hsalsa::<U10>(shared.into(), &[0; 16].into()).into());
    let nonce = Blake2b::<U24>::new().chain_update(ephemeral).chain_update(recipient).finalize();
    let mut cipher = XSalsa20::new((&*key).into(), &nonce);
    let mut poly_key = Zeroizing::new([0; 32]);
    cipher.apply_keystream(poly_key.as_mut_slice());
    (cipher, Poly1305::new((&*poly_key).into()))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use rand_chacha::{ChaCha20Rng, rand_core::SeedableRng};

    use super::*;

    #[test]
    fn low_order_points_are_refused_on_both_sides() {
        let mut low = [0; 32];
        for first in [0, 1] {
            low[0] = first;
            assert_eq!(BoxPublicKey::from_bytes(low, "k"), Err(StreamError::WeakPublicKey { field: "k" }));
            let mut sealed = low.to_vec();
            sealed.extend([0; 48]);
            assert!(BoxSecretKey::from_bytes(&[7; 32]).open(&sealed).is_none());
        }
    }

    proptest! {
        #[test]
        fn what_is_sealed_opens_only_unaltered_and_only_with_its_key(
            message in proptest::collection::vec(any::<u8>(), 0..200),
            seed: u64,
            key: [u8; 32],
            at: prop::sample::Index,
        ) {
            let mut rng = ChaCha20Rng::seed_from_u64(seed);
            let secret = BoxSecretKey::from_bytes(&key);
            let public = BoxPublicKey::from_bytes(*secret.public_key(), "k").unwrap();
            let mut sealed = public.seal(&message, &mut rng).unwrap();
            prop_assert_eq!(sealed.len(), message.len() + OVERHEAD);
            prop_assert_eq!(&**secret.open(&sealed).unwrap(), &message);
            let mut other = key;
            other[1] ^= 1;
            prop_assert!(BoxSecretKey::from_bytes(&other).open(&sealed).is_none());
            let at = at.index(sealed.len());
            // The top bit of an X25519 coordinate is ignored by X25519 itself, but not by the nonce.
            sealed[at] ^= 0x80;
            prop_assert!(secret.open(&sealed).is_none());
            prop_assert!(secret.open(&sealed[..at]).is_none());
        }

        #[test]
        fn garbage_never_opens(garbage in proptest::collection::vec(any::<u8>(), 0..200)) {
            prop_assert!(BoxSecretKey::from_bytes(&[7; 32]).open(&garbage).is_none());
        }
    }
}
