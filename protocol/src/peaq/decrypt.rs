//! Opening one chunk with the private key of one of its recipients.

use zeroize::Zeroizing;

use super::{
    StreamError,
    envelope::{Envelope, RecipientEntry},
    hexes,
    sealed_box::BoxSecretKey,
};
use crate::xchacha;

/// The chunk key in `entry`, opened with the recipient's private key and compared with the envelope's commitment.
///
/// `entry` is one of the envelope's own or a buyer's, from an access file.
///
/// # Errors
/// Not hex, not sealed for this key, not the key committed to, or not 32 bytes; in this order.
pub fn unwrap_chunk_key(
    envelope: &Envelope,
    entry: &RecipientEntry,
    private: &BoxSecretKey,
) -> Result<Zeroizing<[u8; 32]>, StreamError> {
    open_chunk_key(envelope, &entry.wrapped_key_hex, private)
}

/// As [`unwrap_chunk_key`], for whoever kept nothing of an entry but its sealed key.
///
/// # Errors
/// As [`unwrap_chunk_key`].
pub fn open_chunk_key(
    envelope: &Envelope,
    wrapped_key_hex: &str,
    private: &BoxSecretKey,
) -> Result<Zeroizing<[u8; 32]>, StreamError> {
    let sealed = hexes::decode(wrapped_key_hex, "wrapped_key_hex")?;
    let key = private.open(&sealed).ok_or(StreamError::Unwrap)?;
    if hexes::key_commitment(&key) != envelope.encryption.key_commitment {
        return Err(StreamError::Commitment);
    }
    let key: &[u8; 32] = key.as_slice().try_into().map_err(|_| StreamError::ChunkKeyLength { found: key.len() })?;
    Ok(Zeroizing::new(*key))
}

/// The plaintext of a chunk whose key is known. The ciphertext's own hash is not looked at: the cipher authenticates it.
///
/// # Errors
/// The nonce is not hex or not 24 bytes; the ciphertext does not decrypt; the plaintext is not the one the envelope names.
pub fn decrypt_with_key(envelope: &Envelope, key: &[u8; 32], ciphertext: &[u8]) -> Result<Vec<u8>, StreamError> {
    let mut plaintext = Vec::new();
    decrypt_unhashed(envelope, key, ciphertext, &mut plaintext)?;
    check_plaintext(envelope, &hexes::sha256(&plaintext))?;
    Ok(plaintext)
}

/// Decrypts a chunk over `plaintext`, whose hash is still to be compared: [`check_plaintext`]. After an error it is empty.
pub(super) fn decrypt_unhashed(
    envelope: &Envelope,
    key: &[u8; 32],
    ciphertext: &[u8],
    plaintext: &mut Vec<u8>,
) -> Result<(), StreamError> {
    plaintext.clear();
    let nonce = hexes::decode(&envelope.encryption.nonce, "nonce")?;
    let nonce: [u8; 24] = nonce.try_into().map_err(|bytes: Vec<u8>| StreamError::NonceLength { found: bytes.len() })?;
    xchacha::decrypt_into(key, &nonce, ciphertext, plaintext).map_err(|_| StreamError::Decrypt)
}

/// Whether a plaintext is the one the envelope names.
pub(super) fn check_plaintext(envelope: &Envelope, sha256: &[u8; 32]) -> Result<(), StreamError> {
    if hexes::hash_text(sha256) == envelope.plaintext_hash { Ok(()) } else { Err(StreamError::PlaintextHash) }
}

/// The plaintext of a chunk, for the holder of the private key that `entry` is sealed for.
///
/// # Errors
/// As [`unwrap_chunk_key`], then as [`decrypt_with_key`].
pub fn decrypt_chunk(
    envelope: &Envelope,
    entry: &RecipientEntry,
    private: &BoxSecretKey,
    ciphertext: &[u8],
) -> Result<Vec<u8>, StreamError> {
    let key = unwrap_chunk_key(envelope, entry, private)?;
    decrypt_with_key(envelope, &key, ciphertext)
}
