//! Who stands in envelopes for peaq's software.

use tributary_protocol::{
    keys::FeedPublicKey,
    keytree::ChunkKey,
    peaq::{
        StreamError,
        envelope::{Envelope, SealedParts},
        hexes,
        parties::{Recipients, SignerInfo},
    },
    record::ChunkRecord,
};

use crate::{config::PeaqConfig, home::PublicKeys};

/// The names and keys as text: the configured ones, and those of the home where none are. Nothing of it is checked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PartyNames {
    /// The owner's X25519 key as hex.
    pub owner: String,
    /// The operator's.
    pub operator: String,
    /// The machine's.
    pub machine: String,
    /// What stands beside signatures as `machineDid`.
    pub machine_did: String,
    /// What stands there as `keyId`.
    pub key_id: String,
}

impl PartyNames {
    /// What `config` says for a home with these keys.
    #[must_use]
    pub fn new(config: &PeaqConfig, keys: &PublicKeys) -> Self {
        let own = |configured: &Option<String>, otherwise: String| configured.clone().unwrap_or(otherwise);
        let owner = own(&config.owner_public_key, keys.owner.encryption.to_string());
        let machine_did = own(&config.machine_did, keys.did.to_string());
        Self {
            operator: own(&config.operator_public_key, owner.clone()),
            owner,
            machine: own(&config.machine_public_key, keys.encryption.to_string()),
            key_id: own(&config.machine_key_id, format!("{machine_did}#keys-1")),
            machine_did,
        }
    }
}

/// Who stands in the envelopes, ready for use.
#[derive(Debug, Clone)]
pub struct Parties {
    /// For whom chunk keys are sealed.
    pub recipients: Recipients,
    /// What stands beside the signature as `machineDid`.
    pub machine_did: String,
    /// What stands there as `keyId`.
    pub key_id: String,
}

impl Parties {
    /// The envelope of a chunk that `signer` signed.
    pub(super) fn envelope(
        &self,
        record: &ChunkRecord,
        signer: FeedPublicKey,
        key: &ChunkKey,
        plaintext_sha256: &[u8; 32],
    ) -> Result<Envelope, StreamError> {
        let signer = self.signer(signer)?;
        Envelope::from_record(record, key, plaintext_sha256, &self.recipients, &signer, None, &mut rand::rng())
    }

    /// An envelope of nothing, as long as one with these parties gets: others differ in nothing that has another length but the
    /// index, and the first has no chunk before it.
    pub(super) fn longest_envelope(&self) -> Result<Envelope, StreamError> {
        let signer = self.signer(FeedPublicKey::from_bytes([0; 32]))?;
        let parts = SealedParts {
            index: u32::MAX.into(),
            previous_chunk_id: Some(&hexes::hash_text(&[0; 32])),
            encrypted_data_hash: [0; 32],
            plaintext_hash: [0; 32],
            nonce: [0; 24],
            signature: [0; 64],
            storage_ref: None,
        };
        Envelope::from_parts(parts, &[0; 32], &self.recipients, &signer, &mut rand::rng())
    }

    /// Whether the names are ones that the format takes.
    pub(super) fn signer(&self, key: FeedPublicKey) -> Result<SignerInfo, StreamError> {
        SignerInfo::new(key, &self.machine_did, &self.key_id)
    }
}

impl TryFrom<PartyNames> for Parties {
    type Error = StreamError;

    fn try_from(names: PartyNames) -> Result<Self, StreamError> {
        let PartyNames { owner, operator, machine, machine_did, key_id } = names;
        Ok(Self { recipients: Recipients::new(&owner, &operator, &machine)?, machine_did, key_id })
    }
}
