//! Hex text as peaq's tools read and write it.
//!
//! Input: optional lower-case `0x`, digits of any case, an even and non-zero number of them. Output: lower case without
//! prefix, except hashes (`0x`) and key commitments (`sha256:`), whose prefixes are part of the compared text.

use sha2::{Digest, Sha256};
use zeroize::Zeroizing;

use super::StreamError;

/// Bytes of hex text; `field` names the value in the error.
///
/// # Errors
/// [`StreamError::Hex`] for anything but an even, non-zero number of hex digits behind an optional `0x`.
pub fn decode(text: &str, field: &'static str) -> Result<Vec<u8>, StreamError> {
    let digits = text.strip_prefix("0x").unwrap_or(text);
    if digits.is_empty() {
        return Err(StreamError::Hex { field });
    }
    hex::decode(digits).map_err(|_| StreamError::Hex { field })
}

/// Like [`decode`], for secrets: the bytes are wiped when dropped.
///
/// # Errors
/// As [`decode`].
pub fn decode_secret(text: &str, field: &'static str) -> Result<Zeroizing<Vec<u8>>, StreamError> {
    let digits = text.strip_prefix("0x").unwrap_or(text);
    let mut bytes = Zeroizing::new(vec![0; digits.len() / 2]);
    if digits.is_empty() || hex::decode_to_slice(digits, &mut bytes).is_err() {
        return Err(StreamError::Hex { field });
    }
    Ok(bytes)
}

/// A 32-byte hash as text: `0x` and 64 lower-case digits.
#[must_use]
pub fn hash_text(hash: &[u8; 32]) -> String {
    format!("0x{}", hex::encode(hash))
}

/// SHA-256 of `bytes` as text: `0x` and 64 lower-case digits.
#[must_use]
pub fn sha256_text(bytes: &[u8]) -> String {
    hash_text(&sha256(bytes))
}

/// What an envelope says about a chunk key: `sha256:` and the 64 digits of its SHA-256.
#[must_use]
pub fn key_commitment(key: &[u8]) -> String {
    format!("sha256:{}", hex::encode(sha256(key)))
}

/// SHA-256 of `bytes`.
#[must_use]
pub fn sha256(bytes: &[u8]) -> [u8; 32] {
    Sha256::digest(bytes).into()
}

/// Blank by peaq's measure: nothing is left after trimming white space, to which its SDK also counts U+001C to U+001F.
pub(super) fn is_blank(text: &str) -> bool {
    text.chars().all(|c| c.is_whitespace() || matches!(c, '\u{1c}'..='\u{1f}'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn input_takes_one_lower_case_prefix_and_any_case() {
        for text in ["0xAb01", "ab01", "AB01"] {
            assert_eq!(decode(text, "f"), Ok(vec![0xab, 1]));
            assert_eq!(*decode_secret(text, "f").unwrap(), vec![0xab, 1]);
        }
        for text in ["", "0x", "0XAB", "abc", "zz", "0x0xab", " ab", "ab ", "a b1", "é", "0xé"] {
            assert_eq!(decode(text, "f"), Err(StreamError::Hex { field: "f" }), "{text:?}");
            assert_eq!(decode_secret(text, "f").unwrap_err(), StreamError::Hex { field: "f" }, "{text:?}");
        }
    }

    #[test]
    fn blank_is_what_trimming_leaves_empty() {
        for text in ["", " ", "\t\n", "\u{3000}\u{2003}", "\u{1c}\u{1f}"] {
            assert!(is_blank(text), "{text:?}");
        }
        assert!(!is_blank(" x "));
    }
}
