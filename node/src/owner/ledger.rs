//! What an owner's key has signed: one binding for each serial of a machine, never two.
//!
//! Two signed bindings of one serial tear a machine's followers apart: each keeps the one that came first, for good. A machine
//! cannot see that a copy of it asks too; its owner can. The record lies beside the key file and goes where the key goes. A
//! signature leaves this process only after its line is durable.
//!
//! ```text
//! <owner key file>.signed, 0600, one line a binding:
//! did:peaq:0x… <serial> <hash of the binding, hex> <ms since 1970>
//! ```
//!
//! There is no way to sign over a line. Whoever is sure that what it names was never applied anywhere, and is destroyed, takes the
//! line out by hand.

use std::path::{Path, PathBuf};

use tributary_protocol::ids::{Did, Hash};

use crate::{
    home::{HomeError, append_private},
    proposal::Proposal,
};

/// A quarter of a century of 100 machines that are bound anew every 90 days, and more.
const MAX_LEN: u64 = 4 << 20;

/// Why nothing is signed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LedgerError {
    /// The record cannot be read or written.
    #[error(transparent)]
    Home(#[from] HomeError),
    /// A line is not in its form.
    #[error("line {line} of {} is not in its form; restore the file from a copy, nothing is signed without it", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// Its number, from 1.
        line: usize,
    },
    /// Another binding of this serial was signed.
    #[error("this key has signed another binding {serial} of {machine}: {hash}, at {signed_ms} ms since 1970")]
    SignedAnother {
        /// The machine.
        machine: Did,
        /// The serial.
        serial: u64,
        /// Hash of the one that was signed.
        hash: Hash,
        /// When.
        signed_ms: u64,
        /// Where the record is.
        path: PathBuf,
    },
}

/// The record beside one key file.
pub struct Ledger {
    path: PathBuf,
}

struct Line {
    machine: Did,
    serial: u64,
    hash: Hash,
    signed_ms: u64,
}

impl std::str::FromStr for Line {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        let words: Vec<&str> = text.split(' ').collect();
        let [machine, serial, hash, signed_ms] = words[..] else { return Err(()) };
        Ok(Self {
            machine: machine.parse().map_err(drop)?,
            serial: serial.parse().map_err(drop)?,
            hash: hash.parse().map_err(drop)?,
            signed_ms: signed_ms.parse().map_err(drop)?,
        })
    }
}

impl Ledger {
    /// The record beside the key file `key`. It begins with the first signature.
    #[must_use]
    pub fn beside(key: &Path) -> Self {
        let mut name = key.file_name().unwrap_or_default().to_owned();
        name.push(".signed");
        Self { path: key.with_file_name(name) }
    }

    /// Where it is.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Notes durably that a proposal is about to be signed. The same one again is fine.
    ///
    /// # Errors
    ///
    /// [`LedgerError::SignedAnother`] when its serial was signed for another binding of the machine.
    pub fn enter(&self, proposal: &Proposal, now_ms: u64) -> Result<(), LedgerError> {
        let (machine, serial, hash) = (proposal.machine(), proposal.next().binding().serial, proposal.next().hash());
        append_private(&self.path, MAX_LEN, |held| {
            let mut known = false;
            for (number, text) in held.lines().enumerate() {
                let damaged = || LedgerError::Damaged { path: self.path.clone(), line: number + 1 };
                let line: Line = text.parse().map_err(|()| damaged())?;
                if (line.machine, line.serial) != (machine, serial) {
                    continue;
                }
                if line.hash != hash {
                    let Line { hash, signed_ms, .. } = line;
                    return Err(LedgerError::SignedAnother {
                        machine,
                        serial,
                        hash,
                        signed_ms,
                        path: self.path.clone(),
                    });
                }
                known = true;
            }
            Ok((!known).then(|| format!("{machine} {serial} {hash} {now_ms}")))
        })
    }
}

#[cfg(test)]
mod tests;
