//! XChaCha20-Poly1305 as in draft-irtf-cfrg-xchacha-03, without associated data.
//!
//! The draft builds it from two parts, and so does this: HChaCha20 makes a subkey from the key and the first 16 bytes of the
//! nonce, and the subkey encrypts with the ChaCha20-Poly1305 of RFC 8439, whose nonce is 4 zero bytes and the last 8 bytes of
//! the nonce. The second part is where the time goes; it is AWS-LC's, which has it in assembly and encrypts and authenticates
//! in one pass.
//!
//! Like every construction of this kind it does not commit to its key: whoever needs that compares a hash of the key, see
//! [`crate::seal`] and [`crate::peaq::decrypt`].

use aws_lc_rs::aead::{Aad, CHACHA20_POLY1305, LessSafeKey, Nonce, UnboundKey};
use chacha20::{
    KeyIvInit, R20, XChaCha20,
    cipher::{StreamCipher, array::Array},
    hchacha,
};
use poly1305::{
    Poly1305,
    universal_hash::{KeyInit, UniversalHash},
};
use subtle::ConstantTimeEq;
use zeroize::Zeroizing;

use crate::record::TAG_LEN;

/// Bytes of a key and of a subkey.
const KEY_LEN: usize = 32;
/// Bytes of the extended nonce.
const NONCE_LEN: usize = 24;
/// Bytes of the nonce of ChaCha20-Poly1305.
const INNER_NONCE_LEN: usize = 12;

/// The tag is not the one of these bytes under this key and nonce.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Forged;

/// The key stream of one nonce is shorter than the message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct TooLong;

/// What encrypts one message: the pair of key and nonce is used up by it.
struct Inner {
    subkey: Zeroizing<[u8; KEY_LEN]>,
    nonce: [u8; INNER_NONCE_LEN],
}

impl Inner {
    fn new(key: &[u8; KEY_LEN], nonce: &[u8; NONCE_LEN]) -> Self {
        let mut first = [0; 16];
        first.copy_from_slice(&nonce[..16]);
        let subkey = Zeroizing::new(hchacha::<R20>(key.into(), &Array(first)).0);
        let mut inner = [0; INNER_NONCE_LEN];
        inner[4..].copy_from_slice(&nonce[16..]);
        Self { subkey, nonce: inner }
    }

    /// AWS-LC's context of the subkey, which it wipes when it is dropped.
    fn aead(&self) -> LessSafeKey {
        LessSafeKey::new(UnboundKey::new(&CHACHA20_POLY1305, self.subkey.as_ref()).expect("a key of 32 bytes"))
    }

    fn nonce(&self) -> Nonce {
        Nonce::assume_unique_for_key(self.nonce)
    }
}

/// Encrypts a message of less than 256 GiB: ciphertext || tag.
///
/// `nonce` must never be used twice with `key`.
pub(crate) fn encrypt(key: &[u8; KEY_LEN], nonce: &[u8; NONCE_LEN], plaintext: &[u8]) -> Result<Vec<u8>, TooLong> {
    let inner = Inner::new(key, nonce);
    let mut out = vec![0; plaintext.len() + TAG_LEN];
    let (ciphertext, tag) = out.split_at_mut(plaintext.len());
    inner
        .aead()
        .seal_out_of_place_scatter(inner.nonce(), Aad::empty(), plaintext, ciphertext, &[], tag)
        .map_err(|_| TooLong)?;
    Ok(out)
}

/// Decrypts `ciphertext || tag`. Nothing of it comes out unless all of it is authentic.
pub(crate) fn decrypt(key: &[u8; KEY_LEN], nonce: &[u8; NONCE_LEN], sealed: &[u8]) -> Result<Vec<u8>, Forged> {
    let mut plaintext = Vec::new();
    decrypt_into(key, nonce, sealed, &mut plaintext)?;
    Ok(plaintext)
}

/// As [`decrypt`], over what `plaintext` held; it is empty after an error.
pub(crate) fn decrypt_into(
    key: &[u8; KEY_LEN],
    nonce: &[u8; NONCE_LEN],
    sealed: &[u8],
    plaintext: &mut Vec<u8>,
) -> Result<(), Forged> {
    let inner = Inner::new(key, nonce);
    let split = sealed.split_last_chunk::<TAG_LEN>();
    plaintext.resize(split.map_or(0, |(ciphertext, _)| ciphertext.len()), 0);
    let opened = split.and_then(|(ciphertext, tag)| {
        inner.aead().open_separate_gather(inner.nonce(), Aad::empty(), ciphertext, tag, plaintext).ok()
    });
    if opened.is_none() {
        plaintext.clear();
    }
    opened.ok_or(Forged)
}

/// Decrypts `ciphertext || tag` in its buffer.
pub(crate) fn decrypt_in_place(
    key: &[u8; KEY_LEN],
    nonce: &[u8; NONCE_LEN],
    mut sealed: Vec<u8>,
) -> Result<Vec<u8>, Forged> {
    let inner = Inner::new(key, nonce);
    let len = inner.aead().open_in_place(inner.nonce(), Aad::empty(), &mut sealed).map_err(|_| Forged)?.len();
    sealed.truncate(len);
    Ok(sealed)
}

/// Checks the tag of `ciphertext || tag` and decrypts nothing: exactly what [`decrypt`] accepts passes.
pub(crate) fn authenticate(key: &[u8; KEY_LEN], nonce: &[u8; NONCE_LEN], sealed: &[u8]) -> Result<(), Forged> {
    let (ciphertext, tag) = sealed.split_last_chunk::<TAG_LEN>().ok_or(Forged)?;
    // RFC 8439, section 2.6: the one-time key is the beginning of the first block of the key stream.
    let mut mac_key = Zeroizing::new([0; KEY_LEN]);
    XChaCha20::new(key.into(), nonce.into()).apply_keystream(mac_key.as_mut());
    let mut mac = Poly1305::new((&*mac_key).into());
    mac.update_padded(ciphertext);
    let mut lengths = [0; 16];
    lengths[8..].copy_from_slice(&(ciphertext.len() as u64).to_le_bytes());
    mac.update(&[Array(lengths)]);
    if bool::from(mac.finalize().ct_eq(tag)) { Ok(()) } else { Err(Forged) }
}

#[cfg(test)]
mod tests;
