//! Proof that a machine signs two stories of one log.
//!
//! Anybody who knows the machine's bindings can check it. Layout (version 1): `version (1) || tag (1)`, then for tag 1 two
//! entries, for tag 2 a head and an entry, each with its length (u16) in front.

use crate::{
    binding::BindingChain,
    entry::{
        EntryBody, EntryError, HEAD_LEN, MAX_ENTRY_LEN, SignedEntry, SignedHead,
        layout::{LayoutError, Reader, put_block},
    },
};

const VERSION: u8 = 1;

/// Why bytes are not evidence.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum EvidenceError {
    /// They do not follow the layout.
    #[error("not evidence of an equivocation")]
    Layout(#[from] LayoutError),
    /// A part is no entry or head.
    #[error("the evidence holds something that is no entry or head")]
    Entry(#[from] EntryError),
}

/// Two signed statements that cannot both be true.
#[derive(Debug, Clone, PartialEq)]
pub enum Evidence {
    /// Two entries: at one position; or the second right behind the first, and it names another predecessor; or both close
    /// one dataset.
    Entries(Box<(SignedEntry, SignedEntry)>),
    /// A head, and an entry at its position with another hash.
    Head(Box<(SignedHead, SignedEntry)>),
}

impl Evidence {
    /// Whether this is proof against the machine, by the bindings in `chain`: everything is signed by its *current* feed key,
    /// at positions that are its own and under no pin. What only a retired key signed proves that the key was stolen, not that
    /// the machine lies.
    #[must_use]
    pub fn stands(&self, chain: &BindingChain) -> bool {
        match self {
            Self::Entries(two) => {
                let (first, second) = (&two.0, &two.1);
                let (a, b) = (first.entry(), second.entry());
                let same_position = a.key() == b.key() && a.seq == b.seq && first.hash() != second.hash();
                let broken_link = a.key() == b.key() && a.seq.checked_add(1) == Some(b.seq) && b.prev != first.hash();
                let both_close = match (&a.body, &b.body) {
                    (EntryBody::DatasetClosed(x), EntryBody::DatasetClosed(y)) => {
                        a.did == b.did && x.dataset == y.dataset && first.hash() != second.hash()
                    }
                    _ => false,
                };
                (same_position || broken_link || both_close) && [first, second].iter().all(|e| counts(e, chain))
            }
            Self::Head(two) => {
                let (head, entry) = (&two.0, &two.1);
                let h = head.head();
                h.key() == entry.entry().key()
                    && h.seq == entry.entry().seq
                    && h.entry_hash != entry.hash()
                    && head.signer() == entry.signer()
                    && head.verify_signature().is_ok()
                    && counts(entry, chain)
            }
        }
    }

    /// The bytes to store or to send.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut out = vec![VERSION];
        match self {
            Self::Entries(two) => {
                out.push(1);
                put_block(&mut out, two.0.bytes());
                put_block(&mut out, two.1.bytes());
            }
            Self::Head(two) => {
                out.push(2);
                put_block(&mut out, two.0.bytes());
                put_block(&mut out, two.1.bytes());
            }
        }
        out
    }

    /// Reads the bytes of [`Evidence::encode`]. Whether it proves anything is for [`Evidence::stands`].
    ///
    /// # Errors
    ///
    /// For anything but one whole piece of evidence.
    pub fn decode(bytes: &[u8]) -> Result<Self, EvidenceError> {
        let mut r = Reader::new(bytes);
        r.version(VERSION, "evidence")?;
        let evidence = match r.u8("evidence")? {
            1 => {
                let first = SignedEntry::decode(r.block(MAX_ENTRY_LEN, "entry")?)?;
                let second = SignedEntry::decode(r.block(MAX_ENTRY_LEN, "entry")?)?;
                Self::Entries(Box::new((first, second)))
            }
            2 => {
                let head = SignedHead::decode(r.block(HEAD_LEN, "head")?)?;
                let entry = SignedEntry::decode(r.block(MAX_ENTRY_LEN, "entry")?)?;
                Self::Head(Box::new((head, entry)))
            }
            _ => return Err(LayoutError::Value { what: "evidence", reason: "no such kind" }.into()),
        };
        r.finish("evidence")?;
        Ok(evidence)
    }
}

/// Whether the entry is signed by the current key of the machine, where nobody can take its position away any more.
fn counts(entry: &SignedEntry, chain: &BindingChain) -> bool {
    let (key, seq) = (entry.entry().key(), entry.entry().seq);
    let reigns = chain.reigns(&key.log, key.incarnation);
    key.did == chain.did()
        && reigns.at(seq).is_some_and(|reign| reign.key == entry.signer())
        && reigns.pin_above(seq).is_none()
        && entry.verify_signature().is_ok()
}
