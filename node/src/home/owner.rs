//! The owner of a machine: the party that co-signs its bindings and can open every epoch.

use std::{fmt, str::FromStr};

use rand_core::CryptoRng;
use tributary_protocol::{
    identity::IdentityKey,
    ids::Did,
    keys::{EncryptionKey, EncryptionPublicKey},
};
use zeroize::Zeroizing;

use super::error::HomeError;

/// An owner's public keys. Text form: the address as a DID, a slash, the X25519 key in lower-case hex.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OwnerPublic {
    /// Address of the secp256k1 key.
    pub address: Did,
    /// X25519 key that epoch seeds are sealed to.
    pub encryption: EncryptionPublicKey,
}

impl fmt::Display for OwnerPublic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.address, self.encryption)
    }
}

impl FromStr for OwnerPublic {
    type Err = HomeError;

    fn from_str(text: &str) -> Result<Self, HomeError> {
        text.split_once('/')
            .and_then(|(address, key)| Some(Self { address: address.parse().ok()?, encryption: key.parse().ok()? }))
            .ok_or(HomeError::BadOwner)
    }
}

/// An owner's secret keys. Has no `Debug`; belongs off the machine.
pub struct OwnerKey {
    /// Co-signs bindings.
    pub identity: IdentityKey,
    /// Opens epoch seeds.
    pub encryption: EncryptionKey,
}

impl OwnerKey {
    /// A new owner.
    pub fn generate(rng: &mut impl CryptoRng) -> Self {
        Self { identity: IdentityKey::generate(rng), encryption: EncryptionKey::generate(rng) }
    }

    /// The public half.
    #[must_use]
    pub fn public(&self) -> OwnerPublic {
        OwnerPublic { address: self.identity.did(), encryption: self.encryption.public() }
    }

    /// `secp256k1 (32) || X25519 (32)`.
    pub(super) fn to_bytes(&self) -> Zeroizing<[u8; 64]> {
        let mut out = Zeroizing::new([0; 64]);
        out[..32].copy_from_slice(&*self.identity.to_bytes());
        out[32..].copy_from_slice(&*self.encryption.to_bytes());
        out
    }

    /// Reads the form of [`OwnerKey::to_bytes`]; `None` when the first half is not a secp256k1 key.
    pub(super) fn from_bytes(bytes: &[u8; 64]) -> Option<Self> {
        let (mut first, mut second) = (Zeroizing::new([0; 32]), Zeroizing::new([0; 32]));
        first.copy_from_slice(&bytes[..32]);
        second.copy_from_slice(&bytes[32..]);
        let identity = IdentityKey::from_bytes(&first).ok()?;
        Some(Self { identity, encryption: EncryptionKey::from_bytes(&second) })
    }
}
