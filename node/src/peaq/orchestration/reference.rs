//! Payment references in one spelling, so that no payment counts twice because it was spelt differently.

use std::fmt;

use serde::{Deserialize, Serialize};

/// The longest reference that is taken, in bytes; a Solana signature has 88.
const MAX_LEN: usize = 128;

/// The transaction of a payment, with its chain: `peaq:0x…`.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Reference(String);

/// A text that no transaction has.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a payment reference is a transaction hash: 1 to {MAX_LEN} letters, digits, - or _")]
pub struct BadReference;

impl Reference {
    /// The transaction `text` on `chain`. Hexadecimal hashes are compared without case and with or without `0x`; others, such
    /// as Solana's, mean what they say.
    ///
    /// # Errors
    ///
    /// [`BadReference`] for what is no hash.
    pub fn new(chain: &str, text: &str) -> Result<Self, BadReference> {
        let text = text.trim();
        let good = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_');
        if text.is_empty() || text.len() > MAX_LEN || !text.bytes().all(good) {
            return Err(BadReference);
        }
        let digits = text.strip_prefix("0x").or_else(|| text.strip_prefix("0X")).unwrap_or(text);
        let is_hex = !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_hexdigit());
        // 32 bytes, or whatever says by its prefix that it is hexadecimal.
        let evm = is_hex && (digits.len() == 64 || digits.len() < text.len());
        let hash = if evm { format!("0x{}", digits.to_ascii_lowercase()) } else { text.to_owned() };
        Ok(Self(format!("{}:{hash}", chain.trim().to_ascii_lowercase())))
    }

    /// What it is stored by.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The transaction alone, as peaq's `payment.reference`.
    #[must_use]
    pub fn hash(&self) -> &str {
        self.0.split_once(':').map_or(self.0.as_str(), |(_, hash)| hash)
    }
}

impl fmt::Display for Reference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn one_transaction_has_one_reference() {
        let hash = "ab".repeat(32);
        let one = Reference::new("peaq", &format!("0x{hash}")).unwrap();
        for other in [hash.clone(), hash.to_uppercase(), format!("0X{hash}"), format!(" 0x{} ", hash.to_uppercase())] {
            assert_eq!(Reference::new("Peaq", &other).unwrap(), one, "{other}");
        }
        assert_eq!(one.hash(), format!("0x{hash}"));
        assert_ne!(Reference::new("base", &hash).unwrap(), one);
        // Base58 means upper and lower case.
        assert_ne!(Reference::new("solana", "5VERv8").unwrap(), Reference::new("solana", "5verv8").unwrap());
        assert_eq!(Reference::new("peaq", "0xAA").unwrap(), Reference::new("peaq", "0xaa").unwrap());
    }

    #[test]
    fn what_is_no_hash_is_refused() {
        for bad in ["", " ", "a b", "a\nb", "a:b", "é", &"a".repeat(MAX_LEN + 1)] {
            assert_eq!(Reference::new("peaq", bad), Err(BadReference), "{bad:?}");
        }
    }

    proptest! {
        #[test]
        fn a_reference_is_its_own_reference(text in "(0[xX])?[0-9a-zA-Z]{1,100}") {
            let once = Reference::new("peaq", &text).unwrap();
            prop_assert_eq!(Reference::new("peaq", once.hash()).unwrap(), once);
        }
    }
}
