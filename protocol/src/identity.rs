//! The identity key: the secp256k1 key whose address *is* the peaqID.
//!
//! Owns creating, reading and using the key, and recovering the signer of an EIP-191 text. It never decides what may be
//! signed, with one exception: [`IdentityKey::sign_challenge`] refuses text that could pass for one of Tributary's own
//! objects. Texts this key signs start with `{"did":` (data packages) or `Tributary ` (bindings and requests), so no
//! two kinds can be mistaken for each other.
//!
//! The secret stands in one heap allocation, is erased when dropped, and has no `Debug`.

use std::sync::OnceLock;

use rand_core::CryptoRng;
use secp256k1::{
    All, Message, PublicKey, Secp256k1, SecretKey,
    ecdsa::{RecoverableSignature, RecoveryId, Signature},
};
use sha3::{Digest, Keccak256};
use zeroize::Zeroizing;

use crate::ids::Did;

/// Length of an EIP-191 signature: `r (32) || s (32) || v (1)`.
pub const SIGNATURE_LEN: usize = 65;

/// What every EIP-191 personal message is prefixed with; the decimal length of the message follows.
const EIP191_PREFIX: &[u8] = b"\x19Ethereum Signed Message:\n";

/// The starts of the texts that the identity key signs for Tributary itself. A foreign challenge may not start like one.
const RESERVED_STARTS: [&[u8]; 2] = [b"{", b"Tributary "];

/// A key that cannot be read, or a text that must not be signed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum IdentityError {
    /// The text is not a private key. It is not repeated, since it may be one with a typing mistake.
    #[error("not a secp256k1 private key: expected 64 hex digits, with or without 0x, that are not zero")]
    PrivateKey,
    /// The challenge could be taken for one of Tributary's own signed objects.
    #[error(
        "refused to sign a challenge that starts with '{{' or 'Tributary ': such a signature could stand for a data \
         package or a key binding"
    )]
    Challenge,
}

/// A signature that names no signer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum RecoverError {
    /// `r`, `s` or `v` is out of range, or no public key fits.
    #[error("the signature is malformed or no key can have made it")]
    Invalid,
    /// `s` is in the upper half of its range: a valid twin of another signature, refused where signatures are stored or
    /// hashed.
    #[error("the signature is the high-s twin of another one: only the low-s form is accepted")]
    HighS,
}

/// Tables of libsecp256k1, made once.
fn context() -> &'static Secp256k1<All> {
    static CONTEXT: OnceLock<Secp256k1<All>> = OnceLock::new();
    CONTEXT.get_or_init(Secp256k1::new)
}

/// The private key of a machine, an owner or a buyer.
pub struct IdentityKey {
    /// Boxed, so that moving the key leaves no copies of the secret behind.
    secret: Box<SecretKey>,
    did: Did,
}

impl IdentityKey {
    fn new(secret: Box<SecretKey>) -> Self {
        let did = did_of(&PublicKey::from_secret_key(context(), &secret));
        Self { secret, did }
    }

    /// A new key from `rng`, which must be the operating system's or seeded from it.
    pub fn generate(rng: &mut impl CryptoRng) -> Self {
        let mut bytes = Zeroizing::new([0u8; 32]);
        loop {
            rng.fill_bytes(bytes.as_mut_slice());
            // Fails for zero and for values above the group order, together less likely than 2^-127.
            if let Ok(key) = Self::from_bytes(&bytes) {
                return key;
            }
        }
    }

    /// The key with these 32 big-endian bytes.
    ///
    /// # Errors
    /// When they are zero or not below the group order.
    pub fn from_bytes(bytes: &[u8; 32]) -> Result<Self, IdentityError> {
        let mut parsed = SecretKey::from_byte_array(*bytes).map_err(|_| IdentityError::PrivateKey)?;
        let secret = Box::new(parsed);
        parsed.non_secure_erase();
        Ok(Self::new(secret))
    }

    /// Reads 64 hex digits in any case, with or without a lower-case `0x`, as peaqOS activation prints them.
    ///
    /// # Errors
    /// On any other text, and for a number that is not a private key.
    pub fn from_hex(text: &str) -> Result<Self, IdentityError> {
        let digits = text.strip_prefix("0x").unwrap_or(text);
        let mut bytes = Zeroizing::new([0u8; 32]);
        hex::decode_to_slice(digits, bytes.as_mut_slice()).map_err(|_| IdentityError::PrivateKey)?;
        Self::from_bytes(&bytes)
    }

    /// The 32 big-endian bytes of the key, for a key file.
    #[must_use]
    pub fn to_bytes(&self) -> Zeroizing<[u8; 32]> {
        Zeroizing::new(self.secret.secret_bytes())
    }

    /// The peaqID of this key.
    #[must_use]
    pub fn did(&self) -> Did {
        self.did
    }

    /// Signs `message` as an EIP-191 personal message: `r || s || v` with low s, `v` 27 or 28, and the deterministic nonce
    /// of RFC 6979, so that the same message always gives the same bytes.
    #[must_use]
    pub fn sign_eip191(&self, message: &[u8]) -> [u8; SIGNATURE_LEN] {
        let digest = Message::from_digest(eip191_digest(message));
        let (recovery, compact) = context().sign_ecdsa_recoverable(digest, &self.secret).serialize_compact();
        let mut out = [0; SIGNATURE_LEN];
        out[..64].copy_from_slice(&compact);
        // An r above the group order (ids 2 and 3) has probability 2^-127 and no EIP-191 form.
        out[64] = 27 + u8::from(matches!(recovery, RecoveryId::One | RecoveryId::Three));
        out
    }

    /// Signs the challenge of a foreign server (peaqOS activation, a login).
    ///
    /// # Errors
    /// When the challenge starts like a text that Tributary gives a meaning of its own: signing a server's challenge can
    /// never mint a binding, a request or a data package.
    pub fn sign_challenge(&self, challenge: &[u8]) -> Result<[u8; SIGNATURE_LEN], IdentityError> {
        let trimmed = challenge.trim_ascii_start();
        if RESERVED_STARTS.iter().any(|start| trimmed.starts_with(start)) {
            return Err(IdentityError::Challenge);
        }
        Ok(self.sign_eip191(challenge))
    }
}

impl Drop for IdentityKey {
    fn drop(&mut self) {
        self.secret.non_secure_erase();
    }
}

/// keccak256 of `0x19 || "Ethereum Signed Message:\n" || decimal length || message`.
#[must_use]
pub fn eip191_digest(message: &[u8]) -> [u8; 32] {
    let mut hasher = Keccak256::new();
    hasher.update(EIP191_PREFIX);
    hasher.update(message.len().to_string().as_bytes());
    hasher.update(message);
    hasher.finalize().into()
}

/// The signer of `message`, strictly: `v` is 27 or 28 and `s` is low, so a signature has exactly one byte form.
///
/// # Errors
/// When the signature is malformed or is a high-s twin.
pub fn recover_eip191(message: &[u8], signature: &[u8; SIGNATURE_LEN]) -> Result<Did, RecoverError> {
    let [compact @ .., v] = signature;
    let odd = match v {
        27 => false,
        28 => true,
        _ => return Err(RecoverError::Invalid),
    };
    let standard = Signature::from_compact(compact).map_err(|_| RecoverError::Invalid)?;
    let mut normal = standard;
    normal.normalize_s();
    if normal != standard {
        return Err(RecoverError::HighS);
    }
    recover(message, compact, odd)
}

/// The signer of `message`, as tolerant as peaq's SDK is: `v` of 0/1, 27/28 or EIP-155 style (35 and up), any `s`. Only for
/// data packages, whose signatures are neither hashed nor compared.
///
/// # Errors
/// When the signature is malformed or no key fits.
pub fn recover_eip191_lenient(message: &[u8], signature: &[u8; SIGNATURE_LEN]) -> Result<Did, RecoverError> {
    let [compact @ .., v] = signature;
    let odd = match *v {
        v @ (0 | 1) => v == 1,
        v @ (27 | 28) => v == 28,
        v @ 35.. => (v - 35) % 2 == 1,
        _ => return Err(RecoverError::Invalid),
    };
    recover(message, compact, odd)
}

fn recover(message: &[u8], compact: &[u8; 64], odd: bool) -> Result<Did, RecoverError> {
    let id = if odd { RecoveryId::One } else { RecoveryId::Zero };
    let signature = RecoverableSignature::from_compact(compact, id).map_err(|_| RecoverError::Invalid)?;
    let digest = Message::from_digest(eip191_digest(message));
    let key = context().recover_ecdsa(digest, &signature).map_err(|_| RecoverError::Invalid)?;
    Ok(did_of(&key))
}

/// The Ethereum address of a public key: the last 20 bytes of keccak256 over `x || y`.
fn did_of(key: &PublicKey) -> Did {
    let digest: [u8; 32] = Keccak256::digest(&key.serialize_uncompressed()[1..]).into();
    let mut address = [0; Did::LEN];
    address.copy_from_slice(&digest[12..]);
    Did::from_bytes(address)
}

/// The text form of a signature: `0x` and 130 lower-case hex digits.
#[must_use]
pub fn signature_text(signature: &[u8; SIGNATURE_LEN]) -> String {
    format!("0x{}", hex::encode(signature))
}

#[cfg(test)]
mod tests {
    use rand_chacha::ChaCha20Rng;
    use rand_core::SeedableRng;

    use super::*;

    fn key(seed: u64) -> IdentityKey {
        IdentityKey::generate(&mut ChaCha20Rng::seed_from_u64(seed))
    }

    #[test]
    fn a_known_key_has_its_known_address() {
        // Private key 1: the generator point itself, whose address every Ethereum tool knows.
        let one = IdentityKey::from_hex(&format!("{:0>64}", "1")).expect("valid");
        assert_eq!(one.did().to_string(), "did:peaq:0x7e5f4552091a69125d5dfcb7b8c2659029395bdf");
    }

    #[test]
    fn a_signature_names_its_signer_and_binds_the_message() {
        let key = key(1);
        let signature = key.sign_eip191(b"hello");
        assert_eq!(recover_eip191(b"hello", &signature), Ok(key.did()));
        assert_eq!(recover_eip191_lenient(b"hello", &signature), Ok(key.did()));
        assert_ne!(recover_eip191(b"hellp", &signature), Ok(key.did()));
        assert_eq!(key.sign_eip191(b"hello"), signature, "deterministic");
    }

    #[test]
    fn strict_recovery_has_one_form_where_the_lenient_has_many() {
        let key = key(2);
        let signature = key.sign_eip191(b"m");
        for shift in [27u8, 8] {
            let mut other = signature;
            other[64] = if shift == 27 { other[64] - 27 } else { other[64] + shift };
            assert_eq!(recover_eip191(b"m", &other), Err(RecoverError::Invalid));
            assert_eq!(recover_eip191_lenient(b"m", &other), Ok(key.did()));
        }
        for v in [2, 3, 26, 29, 34] {
            let mut other = signature;
            other[64] = v;
            assert_eq!(recover_eip191_lenient(b"m", &other), Err(RecoverError::Invalid));
        }
        let mut twin = signature;
        twin[32..64].copy_from_slice(&negated(&signature[32..64]));
        twin[64] = if signature[64] == 27 { 28 } else { 27 };
        assert_eq!(recover_eip191(b"m", &twin), Err(RecoverError::HighS));
        assert_eq!(recover_eip191_lenient(b"m", &twin), Ok(key.did()));
    }

    /// The group order minus `s`.
    fn negated(s: &[u8]) -> [u8; 32] {
        let key = SecretKey::from_byte_array(s.try_into().expect("32 bytes")).expect("below the order");
        key.negate().secret_bytes()
    }

    #[test]
    fn garbage_names_no_signer() {
        for bytes in [[0u8; 65], [0xff; 65], [27; 65]] {
            let _ = recover_eip191_lenient(b"m", &bytes);
        }
        let mut zero = [0u8; 65];
        zero[64] = 27;
        assert_eq!(recover_eip191(b"m", &zero), Err(RecoverError::Invalid));
    }

    #[test]
    fn a_key_survives_its_text_and_bad_text_is_not_repeated() {
        let key = key(3);
        let text = hex::encode(*key.to_bytes());
        for form in [text.clone(), format!("0x{text}"), text.to_uppercase()] {
            assert_eq!(IdentityKey::from_hex(&form).map(|k| k.did()).expect("valid"), key.did());
        }
        let long = format!("{text}00");
        let zero = "0".repeat(64);
        let above = "f".repeat(64);
        for bad in ["", "0x", &format!("0X{text}"), &long, &zero, &above] {
            let error = IdentityKey::from_hex(bad).err().expect("refused");
            assert_eq!(error, IdentityError::PrivateKey);
        }
    }

    #[test]
    fn a_foreign_challenge_cannot_mint_an_object_of_ours() {
        let key = key(4);
        for bad in ["{\"did\":", " {}", "\n{", "Tributary binding v1\n", " Tributary "] {
            assert_eq!(key.sign_challenge(bad.as_bytes()), Err(IdentityError::Challenge), "{bad}");
        }
        let signature = key.sign_challenge(b"peaq login 123").expect("harmless");
        assert_eq!(recover_eip191(b"peaq login 123", &signature), Ok(key.did()));
    }
}
