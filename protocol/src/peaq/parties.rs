//! Who stands in an envelope: the recipients of the chunk key, and the signer.

use rand_core::CryptoRng;

use super::{
    StreamError,
    envelope::{KEY_WRAPPING, RecipientEntry},
    hexes,
    sealed_box::BoxPublicKey,
};
use crate::keys::FeedPublicKey;

/// What a recipient is to the data.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Role {
    /// Who owns the machine, and can grant access.
    Owner,
    /// Who runs it.
    Operator,
    /// The machine itself.
    Machine,
    /// Who was granted access.
    Buyer,
}

impl Role {
    /// The text in `recipientType`.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Owner => "owner",
            Self::Operator => "operator",
            Self::Machine => "machine",
            Self::Buyer => "buyer",
        }
    }
}

/// Somebody chunk keys are sealed for. Keeps the key's text as given: it is copied into the files verbatim.
#[derive(Debug, Clone)]
pub struct Recipient {
    id: String,
    role: Role,
    public_key_hex: String,
    public_key: BoxPublicKey,
}

impl Recipient {
    /// A recipient with the id `id` and the X25519 key in `public_key_hex`.
    ///
    /// # Errors
    /// A blank id; a key that is not hex, not 32 bytes, or a low-order point.
    pub fn new(id: &str, role: Role, public_key_hex: &str) -> Result<Self, StreamError> {
        if hexes::is_blank(id) {
            return Err(StreamError::Blank { field: "recipient_id" });
        }
        let public_key = BoxPublicKey::from_hex(public_key_hex, "public_key_hex")?;
        Ok(Self { id: id.to_owned(), role, public_key_hex: public_key_hex.to_owned(), public_key })
    }

    /// The recipient's id.
    #[must_use]
    pub fn id(&self) -> &str {
        &self.id
    }

    /// The key's text as given; hex digits and perhaps `0x`, so it is safe in a file name.
    #[must_use]
    pub fn public_key_hex(&self) -> &str {
        &self.public_key_hex
    }

    /// Seals a chunk key for this recipient.
    ///
    /// # Errors
    /// None that the constructor has not ruled out.
    pub fn wrap(&self, key: &[u8; 32], rng: &mut impl CryptoRng) -> Result<RecipientEntry, StreamError> {
        Ok(RecipientEntry {
            recipient_id: self.id.clone(),
            recipient_type: self.role.as_str().to_owned(),
            algorithm: KEY_WRAPPING.to_owned(),
            public_key_hex: self.public_key_hex.clone(),
            wrapped_key_hex: hex::encode(self.public_key.seal(key, rng)?),
        })
    }
}

/// The three parties every envelope is sealed for, in the order peaq's tools expect.
#[derive(Debug, Clone)]
pub struct Recipients([Recipient; 3]);

impl Recipients {
    /// Recipients with the ids peaq's tools give them when none are given.
    ///
    /// # Errors
    /// As [`Recipient::new`].
    pub fn new(owner_hex: &str, operator_hex: &str, machine_hex: &str) -> Result<Self, StreamError> {
        Self::with_ids([("owner-1", owner_hex), ("operator-1", operator_hex), ("machine-1", machine_hex)])
    }

    /// Owner, operator and machine, each as id and public key.
    ///
    /// # Errors
    /// As [`Recipient::new`].
    pub fn with_ids([owner, operator, machine]: [(&str, &str); 3]) -> Result<Self, StreamError> {
        Ok(Self([
            Recipient::new(owner.0, Role::Owner, owner.1)?,
            Recipient::new(operator.0, Role::Operator, operator.1)?,
            Recipient::new(machine.0, Role::Machine, machine.1)?,
        ]))
    }

    pub(super) fn wrap(&self, key: &[u8; 32], rng: &mut impl CryptoRng) -> Result<Vec<RecipientEntry>, StreamError> {
        self.0.iter().map(|recipient| recipient.wrap(key, rng)).collect()
    }
}

/// What stands beside a signature: the key, and the names a machine gives itself and the key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SignerInfo {
    pub(super) public_key: FeedPublicKey,
    pub(super) machine_did: String,
    pub(super) key_id: String,
}

impl SignerInfo {
    /// The key of the machine `machine_did`, called `key_id` in its DID document.
    ///
    /// # Errors
    /// A blank name: such an envelope does not verify.
    pub fn new(public_key: FeedPublicKey, machine_did: &str, key_id: &str) -> Result<Self, StreamError> {
        for (text, field) in [(machine_did, "machine_did"), (key_id, "machine_key_id")] {
            if hexes::is_blank(text) {
                return Err(StreamError::Blank { field });
            }
        }
        Ok(Self { public_key, machine_did: machine_did.to_owned(), key_id: key_id.to_owned() })
    }

    /// The machine's name.
    #[must_use]
    pub fn machine_did(&self) -> &str {
        &self.machine_did
    }
}
