//! The transformations: encrypt, hash, redact, and their wrappers.

use aes_gcm::{
    Aes256Gcm,
    aead::{AeadInOut, KeyInit},
};
use base64::{Engine, engine::general_purpose::STANDARD};
use rand_core::CryptoRng;
use sha2::{Digest, Sha256};
use zeroize::Zeroizing;

use super::{RuleError, generalize};
use crate::json::{JsonError, Limits, Object, Value, parse};

/// The only algorithm of encrypted fields, as the wrapper names it.
pub const ALGORITHM: &str = "AES-256-GCM";

const REDACTED: &str = "[REDACTED]";
const IV_LEN: usize = 12;
const TAG_LEN: usize = 16;

/// A symmetric key of field rules: encrypts fields, or keys the `keyed_hash` strategy. Erased when dropped, no `Debug`.
#[derive(Clone)]
pub struct FieldKey(Zeroizing<[u8; 32]>);

impl FieldKey {
    /// Wraps the 32 bytes.
    #[must_use]
    pub fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(Zeroizing::new(bytes))
    }

    /// Reads 64 hex digits in any case, with `0x`, `0X` or neither, as peaq's SDK does.
    ///
    /// # Errors
    /// [`RuleError::Key`] on any other text, which is not repeated.
    pub fn from_hex(text: &str) -> Result<Self, RuleError> {
        let digits = text.strip_prefix("0x").or_else(|| text.strip_prefix("0X")).unwrap_or(text);
        let mut bytes = Zeroizing::new([0; 32]);
        hex::decode_to_slice(digits, bytes.as_mut_slice()).map_err(|_| RuleError::Key)?;
        Ok(Self(bytes))
    }

    pub(super) fn cipher(&self) -> Aes256Gcm {
        Aes256Gcm::new(&(*self.0).into())
    }
}

/// The wrapper with `value` encrypted under a fresh IV.
pub(super) fn encrypted(value: &Value, cipher: &Aes256Gcm, rng: &mut impl CryptoRng) -> Result<Value, RuleError> {
    let mut iv = [0u8; IV_LEN];
    rng.fill_bytes(&mut iv);
    let mut sealed = Vec::with_capacity(64);
    sealed.extend_from_slice(&iv);
    value.write_canonical(&mut sealed)?;
    let tag = cipher
        .encrypt_inout_detached(&iv.into(), b"", sealed[IV_LEN..].as_mut().into())
        .map_err(|_| RuleError::Encrypt)?;
    sealed.extend_from_slice(&tag);

    let mut wrapper = Object::with_capacity(3);
    wrapper.push_unique("__encrypted".into(), true.into());
    wrapper.push_unique("ciphertext".into(), STANDARD.encode(&sealed).into());
    wrapper.push_unique("algorithm".into(), ALGORITHM.into());
    Ok(Value::Object(wrapper))
}

/// Turns an encrypted field (the whole wrapper) back into its value.
///
/// # Errors
/// When it is no wrapper, or the key is another one.
pub fn decrypt_field(wrapper: &Value, key: &FieldKey) -> Result<Value, RuleError> {
    let object = wrapper.as_object().ok_or(RuleError::NotEncrypted)?;
    if object.get("__encrypted") != Some(&Value::Bool(true)) {
        return Err(RuleError::NotEncrypted);
    }
    let field = |name| object.get(name).and_then(Value::as_str).ok_or(RuleError::NotEncrypted);
    let algorithm = field("algorithm")?;
    if algorithm != ALGORITHM {
        return Err(RuleError::Algorithm(algorithm.chars().take(40).collect()));
    }
    let mut sealed = STANDARD.decode(field("ciphertext")?).map_err(|_| RuleError::NotEncrypted)?;
    let (iv, rest) = sealed.split_first_chunk_mut::<IV_LEN>().ok_or(RuleError::NotEncrypted)?;
    let (body, tag) = rest.split_last_chunk_mut::<TAG_LEN>().ok_or(RuleError::NotEncrypted)?;
    key.cipher()
        .decrypt_inout_detached(&(*iv).into(), b"", (&mut *body).into(), &(*tag).into())
        .map_err(|_| RuleError::Decrypt)?;
    Ok(parse(body, Limits::default())?)
}

/// `0x` and the SHA-256 of the canonical JSON.
///
/// # Errors
/// When the value has no canonical form.
pub fn hash_value(value: &Value) -> Result<Value, JsonError> {
    Ok(hex_value(Sha256::digest(value.to_canonical()?).as_slice()))
}

/// `0x` and BLAKE3, keyed by `key`, of the canonical JSON.
///
/// # Errors
/// When the value has no canonical form.
pub fn keyed_hash_value(value: &Value, key: &FieldKey) -> Result<Value, JsonError> {
    Ok(hex_value(blake3::keyed_hash(&key.0, &value.to_canonical()?).as_bytes()))
}

fn hex_value(digest: &[u8]) -> Value {
    let mut text = String::with_capacity(2 + 2 * digest.len());
    text.push_str("0x");
    text.push_str(&hex::encode(digest));
    text.into()
}

/// The wrapper with `value` anonymized by a strategy of peaq's; a strategy it does not know redacts, and is named all the
/// same.
pub(super) fn anonymized(value: &Value, strategy: &str) -> Result<Value, RuleError> {
    let replacement = match strategy {
        "hash" => hash_value(value)?,
        "generalize" => generalize(value)?,
        _ => REDACTED.into(),
    };
    Ok(anonymized_as(replacement, strategy))
}

/// The wrapper of an anonymized value.
pub(super) fn anonymized_as(replacement: Value, strategy: &str) -> Value {
    let mut wrapper = Object::with_capacity(3);
    wrapper.push_unique("__anonymized".into(), true.into());
    wrapper.push_unique("value".into(), replacement);
    wrapper.push_unique("strategy".into(), strategy.into());
    Value::Object(wrapper)
}

#[cfg(test)]
mod tests {
    use rand_chacha::ChaCha20Rng;
    use rand_core::SeedableRng;

    use super::*;

    #[test]
    fn an_encrypted_field_opens_with_its_key_only() {
        let mut rng = ChaCha20Rng::seed_from_u64(1);
        let (key, other) = (FieldKey::from_bytes([1; 32]), FieldKey::from_bytes([2; 32]));
        let value = Value::from(Object::from_iter([("a", 1.0)]));
        let wrapper = encrypted(&value, &key.cipher(), &mut rng).expect("finite");
        assert_eq!(decrypt_field(&wrapper, &key), Ok(value.clone()));
        assert_eq!(decrypt_field(&wrapper, &other), Err(RuleError::Decrypt));
        assert_ne!(encrypted(&value, &key.cipher(), &mut rng), Ok(wrapper), "a fresh IV each time");
    }

    #[test]
    fn what_is_no_wrapper_does_not_decrypt() {
        let key = FieldKey::from_bytes([1; 32]);
        let wrapper = |ciphertext: &str, algorithm: &str| {
            let mut object = Object::from_iter([("__encrypted", true)]);
            object.insert("ciphertext", ciphertext);
            object.insert("algorithm", algorithm);
            Value::Object(object)
        };
        for bad in [Value::Null, Value::Object(Object::new()), wrapper("?", ALGORITHM), wrapper("AAAA", ALGORITHM)] {
            assert_eq!(decrypt_field(&bad, &key), Err(RuleError::NotEncrypted));
        }
        assert_eq!(decrypt_field(&wrapper("", "none"), &key), Err(RuleError::Algorithm("none".into())));
    }
}
