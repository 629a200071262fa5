//! Whether a chain of envelopes and ciphertexts is consistent.
//!
//! The checks, their order and their texts are those of peaq's verifier, so both give the same verdict. What they leave
//! open is reported rather than judged: whether one key signed the whole chain, and for which machine. Nothing here says
//! that the key is that machine's, nor that the chain is complete at its end (compare [`super::manifest`]).

use std::borrow::Cow;

use super::{
    StreamError,
    chain::chunk_id,
    envelope::{Envelope, Signature},
    hexes,
};
use crate::keys::FeedPublicKey;

/// Why a chain is broken; the text is peaq's reason, word for word.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ChainFault {
    /// No chunk at all.
    #[error("Chunk chain is empty")]
    Empty,
    /// `index` is not the position.
    #[error("Chunk index is not sequential")]
    Index,
    /// The first chunk names one before it.
    #[error("First chunk must have null previous_chunk_id")]
    FirstHasPrevious,
    /// The link to the chunk before is wrong or missing.
    #[error("previous_chunk_id does not match preceding chunk_id")]
    Previous,
    /// The ciphertext is not there.
    #[error("encrypted_data sidecar missing for chunk")]
    CiphertextMissing,
    /// The ciphertext is not the one named.
    #[error("hash_mismatch")]
    HashMismatch,
    /// `chunkId` does not follow from previous id, hash and index.
    #[error("chunk_id does not match linkage fields")]
    ChunkId,
    /// Blank signer names, no such key, or a signature that does not fit.
    #[error("invalid_signature")]
    InvalidSignature,
}

/// A chain that is not consistent, or cannot be judged.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ChainError {
    /// The chain is broken; everything before the position is consistent.
    #[error("chunk {failed_at_index}: {fault}")]
    Broken {
        /// What is wrong.
        fault: ChainFault,
        /// Position in the chain, from 0.
        failed_at_index: u64,
    },
    /// `signature.value` is not even hex; peaq's SDK raises here instead of giving a verdict.
    #[error("chunk {failed_at_index}")]
    Malformed {
        /// Position in the chain, from 0.
        failed_at_index: u64,
        /// The value that cannot be read.
        source: StreamError,
    },
}

/// A consistent chain, and what its signatures claim.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ChainReport {
    /// Number of chunks, at least 1.
    pub total_chunks: u64,
    /// The Ed25519 key that signed every chunk; `None` if there was more than one, which peaq's verifier accepts.
    pub signer: Option<FeedPublicKey>,
    /// The `machineDid` beside every signature; `None` if they differ. Not signed.
    pub machine_did: Option<String>,
}

/// Checks a chain chunk by chunk, in order. After an error the verifier stays at the broken chunk.
#[derive(Debug, Clone, Default)]
pub struct ChainVerifier {
    next: u64,
    previous: Option<String>,
    signer: Option<FeedPublicKey>,
    machine_did: Option<String>,
}

impl ChainVerifier {
    /// A verifier at the start of a chain.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Checks the next chunk with its ciphertext, `None` if that is missing.
    ///
    /// # Errors
    /// The first check that fails.
    pub fn check(&mut self, envelope: &Envelope, ciphertext: Option<&[u8]>) -> Result<(), ChainError> {
        self.check_hashed(envelope, || ciphertext.map(hexes::sha256))
    }

    /// Like [`Self::check`], for a ciphertext that is hashed elsewhere: `sha256` is called only if its turn comes.
    ///
    /// # Errors
    /// The first check that fails.
    pub fn check_hashed(
        &mut self,
        envelope: &Envelope,
        sha256: impl FnOnce() -> Option<[u8; 32]>,
    ) -> Result<(), ChainError> {
        let failed_at_index = self.next;
        let broken = |fault| ChainError::Broken { fault, failed_at_index };
        if envelope.index != self.next {
            return Err(broken(ChainFault::Index));
        }
        if envelope.previous_chunk_id != self.previous {
            let first = self.previous.is_none();
            return Err(broken(if first { ChainFault::FirstHasPrevious } else { ChainFault::Previous }));
        }
        let hash = sha256().ok_or_else(|| broken(ChainFault::CiphertextMissing))?;
        if hexes::hash_text(&hash) != envelope.encrypted_data_hash {
            return Err(broken(ChainFault::HashMismatch));
        }
        let previous = envelope.previous_chunk_id.as_deref();
        if chunk_id(previous, &envelope.encrypted_data_hash, envelope.index) != envelope.chunk_id {
            return Err(broken(ChainFault::ChunkId));
        }
        let signer = verify_signature(envelope, &hash)
            .map_err(|source| ChainError::Malformed { failed_at_index, source })?
            .ok_or_else(|| broken(ChainFault::InvalidSignature))?;

        if self.next == 0 {
            self.signer = Some(signer);
            self.machine_did = Some(envelope.signature.machine_did.clone());
        } else {
            self.signer = self.signer.filter(|known| *known == signer);
            self.machine_did = self.machine_did.take().filter(|known| *known == envelope.signature.machine_did);
        }
        self.previous = Some(envelope.chunk_id.clone());
        self.next += 1;
        Ok(())
    }

    /// The key that signed every chunk so far; `None` at the start, and once there was more than one.
    #[must_use]
    pub fn signer(&self) -> Option<&FeedPublicKey> {
        self.signer.as_ref()
    }

    /// Ends the chain.
    ///
    /// # Errors
    /// [`ChainFault::Empty`] if no chunk was checked.
    pub fn finish(self) -> Result<ChainReport, ChainError> {
        if self.next == 0 {
            return Err(ChainError::Broken { fault: ChainFault::Empty, failed_at_index: 0 });
        }
        Ok(ChainReport { total_chunks: self.next, signer: self.signer, machine_did: self.machine_did })
    }
}

/// Checks a whole chain; `ciphertext` gives the bytes of the chunk with this index, `None` if they are missing.
///
/// # Errors
/// The first check that fails, at the first chunk where one does.
pub fn verify_chain<'a, 'b>(
    envelopes: impl IntoIterator<Item = &'a Envelope>,
    mut ciphertext: impl FnMut(u64) -> Option<Cow<'b, [u8]>>,
) -> Result<ChainReport, ChainError> {
    let mut verifier = ChainVerifier::new();
    for envelope in envelopes {
        verifier.check_hashed(envelope, || ciphertext(envelope.index).map(|bytes| hexes::sha256(&bytes)))?;
    }
    verifier.finish()
}

/// The key that signed the text of the ciphertext's SHA-256 in this envelope, `None` if the signature is not good or does not
/// say for whom.
///
/// # Errors
/// As [`signing_key`].
pub fn verify_signature(
    envelope: &Envelope,
    ciphertext_sha256: &[u8; 32],
) -> Result<Option<FeedPublicKey>, StreamError> {
    if is_named(&envelope.signature) { signing_key(envelope, ciphertext_sha256) } else { Ok(None) }
}

/// Whether a signature says for which machine and with which of its keys, which peaq's chain verifier demands.
#[must_use]
pub fn is_named(signature: &Signature) -> bool {
    !hexes::is_blank(&signature.machine_did) && !hexes::is_blank(&signature.key_id)
}

/// The key that signed, whomever it claims to sign for.
///
/// The key is looked at before the signature's text: peaq gives a verdict for a malformed key, and raises for a malformed
/// signature only if the key was one.
///
/// # Errors
/// [`StreamError::Hex`] if `signature.value` is not hex.
pub fn signing_key(envelope: &Envelope, ciphertext_sha256: &[u8; 32]) -> Result<Option<FeedPublicKey>, StreamError> {
    let signature = &envelope.signature;
    let Ok(public) = hexes::decode(&signature.public_key_hex, "public_key_hex") else { return Ok(None) };
    let Ok(public) = <[u8; 32]>::try_from(public) else { return Ok(None) };
    let public = FeedPublicKey::from_bytes(public);
    let value = hexes::decode(&signature.value, "signature")?;
    let Ok(value) = <[u8; 64]>::try_from(value) else { return Ok(None) };
    Ok(public.verify_v1_hash(ciphertext_sha256, &value).is_ok().then_some(public))
}
