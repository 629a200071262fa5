//! HPKE as grants and epoch seeds use it: RFC 9180, Base mode, DHKEM(X25519, HKDF-SHA256), HKDF-SHA256, ChaCha20-Poly1305,
//! one message per encapsulation, empty associated data (what is bound to the ciphertext stands in `info`).

use hpke::{
    Deserializable, OpModeR, OpModeS, Serializable, aead::ChaCha20Poly1305, kdf::HkdfSha256, kem::X25519HkdfSha256,
    single_shot_open, single_shot_seal_with_rng,
};
use rand_core::CryptoRng;
use zeroize::Zeroizing;

use crate::keys::{EncryptionKey, EncryptionPublicKey};

type PublicKey = <X25519HkdfSha256 as hpke::Kem>::PublicKey;
type PrivateKey = <X25519HkdfSha256 as hpke::Kem>::PrivateKey;
type EncappedKey = <X25519HkdfSha256 as hpke::Kem>::EncappedKey;

/// A ciphertext is this much longer than what it hides.
pub(crate) const TAG_LEN: usize = 16;

/// A secret sealed to an X25519 key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sealed {
    /// The encapsulated key.
    pub enc: [u8; 32],
    /// The ciphertext with its tag.
    pub ciphertext: Vec<u8>,
}

/// The recipient's key is no good, or the ciphertext is not for this key and this context.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SealingError {
    /// Nothing can be sealed to this key.
    #[error("nothing can be sealed to the X25519 key {0:?}: it is of small order; ask for another key")]
    Recipient(EncryptionPublicKey),
    /// It does not open.
    #[error(
        "the sealed part does not open with this key: it was sealed to another one, for something else, or changed"
    )]
    Open,
}

pub(crate) fn seal(
    to: &EncryptionPublicKey,
    info: &[u8],
    secret: &[u8],
    rng: &mut impl CryptoRng,
) -> Result<Sealed, SealingError> {
    let refused = |_| SealingError::Recipient(*to);
    let recipient = PublicKey::from_bytes(to.as_bytes()).map_err(refused)?;
    let (enc, ciphertext) = single_shot_seal_with_rng::<ChaCha20Poly1305, HkdfSha256, X25519HkdfSha256>(
        &OpModeS::Base,
        &recipient,
        info,
        secret,
        &[],
        rng,
    )
    .map_err(refused)?;
    Ok(Sealed { enc: enc.to_bytes().into(), ciphertext })
}

pub(crate) fn open(
    key: &EncryptionKey,
    info: &[u8],
    enc: &[u8; 32],
    ciphertext: &[u8],
) -> Result<Zeroizing<Vec<u8>>, SealingError> {
    let private = PrivateKey::from_bytes(key.to_bytes().as_ref()).map_err(|_| SealingError::Open)?;
    let enc = EncappedKey::from_bytes(enc).map_err(|_| SealingError::Open)?;
    single_shot_open::<ChaCha20Poly1305, HkdfSha256, X25519HkdfSha256>(
        &OpModeR::Base,
        &private,
        &enc,
        info,
        ciphertext,
        &[],
    )
    .map(Zeroizing::new)
    .map_err(|_| SealingError::Open)
}
