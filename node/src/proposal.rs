//! A proposed key binding, as it travels between a machine and its owner: the machine writes it, the owner signs it, the
//! machine applies it. The owner's key never comes to the machine.
//!
//! A file holds the binding in force, the proposed one with the machine's signature, and the change in words. Only the bytes
//! count: words that do not say what the bytes say are refused, so nobody can be shown one change and sign another.
//!
//! This module reads, writes and describes proposals. It knows no home, no store and no secret key.

use serde::{Deserialize, Serialize};
use time::{OffsetDateTime, format_description::well_known::Rfc3339};
use tributary_protocol::{
    binding::{Binding, BindingError, MAX_SIGNED_BINDING_LEN, SignedBinding},
    ids::{Did, LogId},
};

/// Proposals of this version.
const FORMAT: &str = "tributary.binding-proposal.v1";
/// The largest file: two bindings of the greatest length in hex, and a line for each log.
pub const MAX_PROPOSAL_LEN: usize = 4 * MAX_SIGNED_BINDING_LEN + (64 << 10);

/// What a proposal changes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Change {
    /// The same keys for another 90 days.
    Renew,
    /// A new feed key.
    Rotate,
    /// A new incarnation: the machine was restored, moved or copied.
    Incarnation,
}

impl std::fmt::Display for Change {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Renew => "a renewal of the binding",
            Self::Rotate => "a rotation of the feed key",
            Self::Incarnation => "a new incarnation",
        })
    }
}

/// Why a file is not a proposal.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ProposalError {
    /// Not a proposal at all.
    #[error(
        "not a binding proposal: {reason}; use a file that `tributary key rotate --prepare` or `key bind --prepare` wrote"
    )]
    Form {
        /// What is wrong.
        reason: String,
    },
    /// The two bindings in it do not belong together, or its words are not those of its bytes.
    #[error("the proposal was changed: {reason}; get the file from the machine again")]
    Changed {
        /// What does not fit.
        reason: &'static str,
    },
    /// The machine did not sign it.
    #[error("the proposal was changed, or the machine did not make it: {0}")]
    Machine(#[source] BindingError),
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Document {
    format: String,
    /// For people.
    says: Vec<String>,
    /// The binding in force, hex.
    previous: String,
    /// The proposed one, hex: with the machine's signature, and with the owner's once it is signed.
    binding: String,
}

/// A proposed binding beside the one in force.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Proposal {
    previous: SignedBinding,
    next: SignedBinding,
}

impl Proposal {
    /// Joins the binding in force and the one that shall follow it.
    ///
    /// # Errors
    ///
    /// When the one does not follow the other, or the machine did not sign both.
    pub fn new(previous: SignedBinding, next: SignedBinding) -> Result<Self, ProposalError> {
        let (before, after) = (previous.binding(), next.binding());
        if before.did != after.did {
            return Err(ProposalError::Changed { reason: "its bindings are of two machines" });
        }
        if before.serial.checked_add(1) != Some(after.serial) || after.prev != previous.hash() {
            return Err(ProposalError::Changed { reason: "the new binding does not follow the one in force" });
        }
        previous.verify_machine().map_err(ProposalError::Machine)?;
        next.verify_machine().map_err(ProposalError::Machine)?;
        Ok(Self { previous, next })
    }

    /// Reads a file. The machine's signatures are good then; an owner's is not checked here.
    ///
    /// # Errors
    ///
    /// See [`ProposalError`].
    pub fn decode(bytes: &[u8]) -> Result<Self, ProposalError> {
        let form = |reason: String| ProposalError::Form { reason };
        if bytes.len() > MAX_PROPOSAL_LEN {
            return Err(form(format!("it is larger than {MAX_PROPOSAL_LEN} bytes")));
        }
        let document: Document = serde_json::from_slice(bytes).map_err(|error| form(error.to_string()))?;
        if document.format != FORMAT {
            return Err(form(format!("its format is not {FORMAT}")));
        }
        let binding = |text: &str| {
            let bytes = hex::decode(text).map_err(|_| form("a binding in it is not hex".to_owned()))?;
            SignedBinding::decode(&bytes).map_err(|_| ProposalError::Changed { reason: "a binding in it is damaged" })
        };
        let proposal = Self::new(binding(&document.previous)?, binding(&document.binding)?)?;
        if document.says != proposal.words() {
            return Err(ProposalError::Changed { reason: "its words do not say what its bytes say" });
        }
        Ok(proposal)
    }

    /// The file.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let document = Document {
            format: FORMAT.to_owned(),
            says: self.words(),
            previous: hex::encode(self.previous.encode()),
            binding: hex::encode(self.next.encode()),
        };
        // Texts and lists of texts: there is nothing that JSON could not say.
        let mut bytes = serde_json::to_vec_pretty(&document).unwrap_or_default();
        bytes.push(b'\n');
        bytes
    }

    /// The proposed binding.
    #[must_use]
    pub fn next(&self) -> &SignedBinding {
        &self.next
    }

    /// The binding in force when it was proposed.
    #[must_use]
    pub fn previous(&self) -> &SignedBinding {
        &self.previous
    }

    /// The proposal with an owner's signature, over the text that [`Binding::signing_text`] gives for an owner.
    #[must_use]
    pub fn signed_by(self, owner: &tributary_protocol::identity::IdentityKey) -> Self {
        Self { next: self.next.co_sign(owner), ..self }
    }

    /// What it changes.
    #[must_use]
    pub fn change(&self) -> Change {
        let (before, after) = (self.previous.binding(), self.next.binding());
        if after.incarnation != before.incarnation {
            Change::Incarnation
        } else if after.feed_key != before.feed_key {
            Change::Rotate
        } else {
            Change::Renew
        }
    }

    /// The change in words, one thought a line. Made from the bytes alone.
    #[must_use]
    pub fn words(&self) -> Vec<String> {
        let (before, after) = (self.previous.binding(), self.next.binding());
        let mut says = vec![
            format!("{}, for {}", self.change(), after.did),
            format!("binding {} takes the place of binding {}", after.serial, before.serial),
            owner(before, after),
            changed("feed key", &before.feed_key, &after.feed_key),
            changed("encryption key", &before.encryption_key, &after.encryption_key),
            changed("node keys", &keys(before), &keys(after)),
        ];
        says.push(if before.incarnation == after.incarnation {
            format!("incarnation: stays {}", after.incarnation)
        } else {
            format!(
                "incarnation: {} after {}; the logs end where they are listed here, and new ones begin",
                after.incarnation, before.incarnation
            )
        });
        says.push(format!("good from {} until {}", time(after.issued_ms), time(after.expires_ms)));
        for position in &after.positions {
            let log = if position.log == LogId::MACHINE {
                "the machine log".to_owned()
            } else {
                format!("log {}", position.log)
            };
            says.push(format!("from entry {} of {log}, behind {}", position.from_seq, position.prev_entry_hash));
        }
        says.push(format!("hash of the binding: {}", self.next.hash()));
        says
    }

    /// The machine.
    #[must_use]
    pub fn machine(&self) -> Did {
        self.next.binding().did
    }
}

fn owner(before: &Binding, after: &Binding) -> String {
    if (before.owner_id, before.owner_enc) == (after.owner_id, after.owner_enc) {
        format!("owner: stays {}", after.owner_id)
    } else {
        format!(
            "owner: THE MACHINE IS HANDED OVER to {}/{}, from {}/{}",
            after.owner_id, after.owner_enc, before.owner_id, before.owner_enc
        )
    }
}

fn changed<T: PartialEq + std::fmt::Display>(what: &str, before: &T, after: &T) -> String {
    if before == after { format!("{what}: stays {after}") } else { format!("{what}: NEW, {after} instead of {before}") }
}

fn keys(binding: &Binding) -> String {
    let all: Vec<String> = binding.node_keys.iter().map(hex::encode).collect();
    if all.is_empty() { "none".to_owned() } else { all.join(", ") }
}

fn time(ms: u64) -> String {
    let time = i64::try_from(ms / 1000).ok().and_then(|seconds| OffsetDateTime::from_unix_timestamp(seconds).ok());
    time.and_then(|time| time.format(&Rfc3339).ok()).unwrap_or_else(|| format!("{ms} ms since 1970"))
}

#[cfg(test)]
mod tests;
