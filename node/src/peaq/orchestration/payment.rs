//! Who says that an order is paid.
//!
//! A verifier looks at a claim and decides; it never stores anything. That one payment counts once is the order book's business
//! ([`super::book`]), whatever the verifier says. Verifiers that ask a chain fit the same interface.

use std::{
    fs::File,
    io::{self, Read as _},
    path::{Path, PathBuf},
};

use super::{purchase::Price, reference::Reference};
use crate::config::{OrchestrationConfig, PaymentCheck};

/// The longest file of references, in bytes.
const MAX_FILE: u64 = 4 << 20;

/// A payment that a buyer claims.
pub struct Claim<'a> {
    /// The purchase.
    pub purchase_id: &'a str,
    /// Who buys.
    pub buyer_id: &'a str,
    /// What it costs.
    pub price: &'a Price,
    /// The payment.
    pub reference: &'a Reference,
    /// Who says to have paid.
    pub payer: Option<&'a str>,
}

/// What a verifier says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// It is paid.
    Paid,
    /// Somebody has to decide.
    Waits,
    /// It is not paid, as far as is known now. The buyer may ask again.
    Unpaid(String),
}

/// Why a verifier could not look.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PaymentError {
    /// The file of references.
    #[error("the payment references in {} cannot be read: {source}", path.display())]
    References {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
}

/// Decides whether a claimed payment is good. May block.
pub trait PaymentVerifier: Send + Sync {
    /// Looks at a claim.
    ///
    /// # Errors
    ///
    /// When it cannot tell; nothing is recorded then.
    fn verify(&self, claim: &Claim<'_>) -> Result<Verdict, PaymentError>;
}

/// The operator decides.
#[derive(Debug, Clone, Copy)]
pub struct Manual;

impl PaymentVerifier for Manual {
    fn verify(&self, _: &Claim<'_>) -> Result<Verdict, PaymentError> {
        Ok(Verdict::Waits)
    }
}

/// A file decides: one reference a line, and behind it the only buyer it is good for, if any. Lines that are empty or begin
/// with `#` say nothing. Read anew for each claim, so that lines can be added at any time.
#[derive(Debug, Clone)]
pub struct Static {
    /// The file.
    pub references: PathBuf,
}

impl PaymentVerifier for Static {
    fn verify(&self, claim: &Claim<'_>) -> Result<Verdict, PaymentError> {
        let failed = |source| PaymentError::References { path: self.references.clone(), source };
        let text = read(&self.references).map_err(failed)?;
        let unknown = "this payment is not known here yet; send the proof again later";
        for line in text.lines().filter(|line| !line.trim_start().starts_with('#')) {
            let mut words = line.split_whitespace();
            let Some(word) = words.next() else { continue };
            let Ok(listed) = Reference::new(&claim.price.chain, word) else {
                tracing::warn!(file = %self.references.display(), "a line holds no payment reference and is passed over");
                continue;
            };
            if listed != *claim.reference {
                continue;
            }
            // Whose another buyer's payment is, is nobody's business.
            if words.next().is_none_or(|buyer| buyer == claim.buyer_id) {
                return Ok(Verdict::Paid);
            }
        }
        Ok(Verdict::Unpaid(unknown.to_owned()))
    }
}

fn read(path: &Path) -> io::Result<String> {
    let mut text = String::new();
    File::open(path)?.take(MAX_FILE + 1).read_to_string(&mut text)?;
    if u64::try_from(text.len()).unwrap_or(u64::MAX) > MAX_FILE {
        return Err(io::Error::other(format!("it is longer than {MAX_FILE} bytes")));
    }
    Ok(text)
}

/// The verifier of a configuration.
#[must_use]
pub fn verifier(config: &OrchestrationConfig) -> Box<dyn PaymentVerifier> {
    match &config.payment {
        PaymentCheck::Manual => Box::new(Manual),
        PaymentCheck::Static { references } => Box::new(Static { references: references.clone() }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::peaq::orchestration::purchase::tests::price;

    #[test]
    fn a_listed_payment_is_good_for_whom_the_line_names() {
        let dir = tempfile::tempdir().unwrap();
        let references = dir.path().join("paid.txt");
        let verifier = Static { references: references.clone() };
        let price = price();
        let look = |text: &str, buyer: &str| {
            let reference = Reference::new("peaq", text).unwrap();
            let claim = Claim { purchase_id: "p", buyer_id: buyer, price: &price, reference: &reference, payer: None };
            verifier.verify(&claim)
        };
        assert!(matches!(look("0xaa", "b"), Err(PaymentError::References { .. })));
        std::fs::write(&references, "# paid\n\n0xAA\n  0xbb alice \n!!\n").unwrap();
        assert_eq!(look("0xaa", "b").unwrap(), Verdict::Paid);
        assert_eq!(look("0xBB", "alice").unwrap(), Verdict::Paid);
        assert!(matches!(look("0xbb", "b").unwrap(), Verdict::Unpaid(_)));
        assert!(matches!(look("0xcc", "b").unwrap(), Verdict::Unpaid(_)));
        // Added while the node runs.
        std::fs::write(&references, "0xcc").unwrap();
        assert_eq!(look("0xcc", "b").unwrap(), Verdict::Paid);
        std::fs::write(&references, vec![b'a'; 5 << 20]).unwrap();
        assert!(look("0xcc", "b").is_err());
    }
}
