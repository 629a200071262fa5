//! Plaintext into a chain of sealed chunks.
//!
//! The input is cut at fixed offsets; each piece is encrypted under a key of its own, linked to the chunk before by
//! `chunkId`, and the text of its ciphertext hash is signed. One chunk is held in memory at a time, whatever the input's size.

use rand_core::CryptoRng;
use sha2::{Digest, Sha256};
use zeroize::Zeroizing;

use super::{
    StreamError,
    envelope::{Envelope, SealedParts},
    hexes,
    parties::{Recipients, SignerInfo},
};
use crate::{keys::FeedKey, sha256, xchacha};

/// Largest chunk that is built here, in bytes; one chunk and its ciphertext are in memory.
pub const MAX_CHUNK_SIZE: usize = 64 * 1024 * 1024;

/// The id of a chunk: `0x` SHA-256 of `<previous chunkId or nothing>|<encryptedDataHash>|<index>`.
#[must_use]
pub fn chunk_id(previous: Option<&str>, encrypted_data_hash: &str, index: u64) -> String {
    hexes::sha256_text(format!("{}|{encrypted_data_hash}|{index}", previous.unwrap_or_default()).as_bytes())
}

/// Reads an Ed25519 private key from hex, as peaq's key files hold it; a public key, if given, must belong to it.
///
/// # Errors
/// Not hex, not 32 bytes, or another key's public key.
pub fn signing_key_from_hex(private_hex: &str, public_hex: Option<&str>) -> Result<FeedKey, StreamError> {
    const FIELD: &str = "signing_private_key_hex";
    let bytes = hexes::decode_secret(private_hex, FIELD)?;
    let bytes: &[u8; 32] = bytes.as_slice().try_into().map_err(|_| StreamError::SigningKey { field: FIELD })?;
    let key = FeedKey::from_bytes(bytes);
    match public_hex {
        Some(text) if hexes::decode(text, "signing_public_key_hex")? != key.public().as_bytes() => {
            Err(StreamError::SigningKeyMismatch)
        }
        _ => Ok(key),
    }
}

/// Who signs a chain: a key, and what stands beside its signatures.
#[derive(Clone)]
pub struct ChunkSigner<'a> {
    key: &'a FeedKey,
    info: SignerInfo,
}

impl<'a> ChunkSigner<'a> {
    /// A signer for the machine `machine_did`, whose key is called `key_id` in its DID document.
    ///
    /// # Errors
    /// A blank name: such a chain does not verify.
    pub fn new(key: &'a FeedKey, machine_did: &str, key_id: &str) -> Result<Self, StreamError> {
        Ok(Self { key, info: SignerInfo::new(key.public(), machine_did, key_id)? })
    }

    /// What stands beside the signatures.
    #[must_use]
    pub const fn info(&self) -> &SignerInfo {
        &self.info
    }
}

/// Key and nonce of one chunk. Never used twice; the key is wiped when dropped.
pub struct ChunkSecrets {
    /// XChaCha20-Poly1305 key.
    pub key: Zeroizing<[u8; 32]>,
    /// XChaCha20 nonce.
    pub nonce: [u8; 24],
}

impl ChunkSecrets {
    /// Draws 32 bytes of key, then 24 of nonce.
    pub fn generate(rng: &mut impl CryptoRng) -> Self {
        let mut secrets = Self { key: Zeroizing::new([0; 32]), nonce: [0; 24] };
        rng.fill_bytes(secrets.key.as_mut_slice());
        rng.fill_bytes(&mut secrets.nonce);
        secrets
    }
}

/// A chunk's envelope and its ciphertext (16 bytes longer than the plaintext).
#[derive(Debug, Clone)]
pub struct SealedChunk {
    /// What `chunk-<i>.json` holds.
    pub envelope: Envelope,
    /// What `chunk-<i>.bin` holds.
    pub ciphertext: Vec<u8>,
}

/// Encrypts, hashes, links and signs one chunk, and seals its key for the recipients.
///
/// # Errors
/// [`StreamError::Encrypt`] for a plaintext beyond the cipher's limit of 256 GiB.
pub fn seal_chunk(
    plaintext: &[u8],
    index: u64,
    previous_chunk_id: Option<&str>,
    secrets: &ChunkSecrets,
    recipients: &Recipients,
    signer: &ChunkSigner<'_>,
    rng: &mut impl CryptoRng,
) -> Result<SealedChunk, StreamError> {
    let ciphertext = xchacha::encrypt(&secrets.key, &secrets.nonce, plaintext).map_err(|_| StreamError::Encrypt)?;
    let (plaintext_hash, encrypted_data_hash) = sha256::digest_both(plaintext, &ciphertext);
    let parts = SealedParts {
        index,
        previous_chunk_id,
        encrypted_data_hash,
        plaintext_hash,
        nonce: secrets.nonce,
        signature: signer.key.sign_v1_hash(&encrypted_data_hash),
        storage_ref: None,
    };
    let envelope = Envelope::from_parts(parts, &secrets.key, recipients, &signer.info, rng)?;
    Ok(SealedChunk { envelope, ciphertext })
}

/// What a finished chain says of its source; the manifest is made from it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ChainSummary {
    /// `0x` SHA-256 of the whole input.
    pub source_hash: String,
    /// Number of chunks, at least 1.
    pub total_chunks: u64,
    /// Bytes per chunk; the last may be shorter.
    pub chunk_size: u64,
    /// Length of the whole input in bytes.
    pub total_bytes: u64,
}

/// Builds a chain from input that arrives piece by piece. After an error the builder is of no further use.
pub struct ChainBuilder<'a> {
    chunk_size: usize,
    recipients: &'a Recipients,
    signer: &'a ChunkSigner<'a>,
    pending: Vec<u8>,
    source: Sha256,
    total_bytes: u64,
    next: u64,
    previous: Option<String>,
}

impl<'a> ChainBuilder<'a> {
    /// A builder of chunks of `chunk_size` bytes.
    ///
    /// # Errors
    /// [`StreamError::ChunkSize`] unless it is 1 to [`MAX_CHUNK_SIZE`].
    pub fn new(
        chunk_size: usize,
        recipients: &'a Recipients,
        signer: &'a ChunkSigner<'a>,
    ) -> Result<Self, StreamError> {
        if !(1..=MAX_CHUNK_SIZE).contains(&chunk_size) {
            return Err(StreamError::ChunkSize { found: chunk_size, max: MAX_CHUNK_SIZE });
        }
        Ok(Self {
            chunk_size,
            recipients,
            signer,
            pending: Vec::new(),
            source: Sha256::new(),
            total_bytes: 0,
            next: 0,
            previous: None,
        })
    }

    /// Takes bytes off the front of `data` until a chunk is full and returns it; `None` when `data` is used up first.
    ///
    /// Call it again with the same `data` until it returns `None`. For each chunk `rng` gives key, nonce, and 32 bytes for
    /// each recipient, in this order.
    ///
    /// # Errors
    /// As [`seal_chunk`].
    pub fn next_chunk(
        &mut self,
        data: &mut &[u8],
        rng: &mut impl CryptoRng,
    ) -> Result<Option<SealedChunk>, StreamError> {
        let missing = self.chunk_size - self.pending.len();
        let Some((piece, rest)) = data.split_at_checked(missing) else {
            self.pending.extend_from_slice(data);
            *data = &[];
            return Ok(None);
        };
        *data = rest;
        if self.pending.is_empty() {
            return self.seal(piece, rng).map(Some);
        }
        self.pending.extend_from_slice(piece);
        self.seal_pending(rng).map(Some)
    }

    /// Ends the input: the last, shorter chunk if there is one (an empty input is one empty chunk), and the summary.
    ///
    /// # Errors
    /// As [`seal_chunk`].
    pub fn finish(mut self, rng: &mut impl CryptoRng) -> Result<(Option<SealedChunk>, ChainSummary), StreamError> {
        let last = if self.next == 0 || !self.pending.is_empty() { Some(self.seal_pending(rng)?) } else { None };
        let summary = ChainSummary {
            source_hash: hexes::hash_text(&self.source.finalize().into()),
            total_chunks: self.next,
            chunk_size: self.chunk_size as u64,
            total_bytes: self.total_bytes,
        };
        Ok((last, summary))
    }

    fn seal_pending(&mut self, rng: &mut impl CryptoRng) -> Result<SealedChunk, StreamError> {
        let mut plaintext = std::mem::take(&mut self.pending);
        let sealed = self.seal(&plaintext, rng)?;
        plaintext.clear();
        self.pending = plaintext;
        Ok(sealed)
    }

    fn seal(&mut self, plaintext: &[u8], rng: &mut impl CryptoRng) -> Result<SealedChunk, StreamError> {
        let secrets = ChunkSecrets::generate(rng);
        let previous = self.previous.as_deref();
        let sealed = seal_chunk(plaintext, self.next, previous, &secrets, self.recipients, self.signer, rng)?;
        self.source.update(plaintext);
        self.total_bytes += plaintext.len() as u64;
        self.next += 1;
        self.previous = Some(sealed.envelope.chunk_id.clone());
        Ok(sealed)
    }
}

#[cfg(test)]
mod tests {
    use std::borrow::Cow;

    use proptest::prelude::*;
    use rand_chacha::{ChaCha20Rng, rand_core::SeedableRng};

    use super::*;
    use crate::peaq::{
        decrypt::{decrypt_chunk, decrypt_with_key, unwrap_chunk_key},
        parties::Role,
        sealed_box::BoxSecretKey,
        verify::{ChainError, ChainFault, verify_chain},
    };

    fn owner() -> BoxSecretKey {
        BoxSecretKey::from_bytes(&[3; 32])
    }

    fn build(data: &[u8], chunk_size: usize, piece: usize, seed: u64) -> (Vec<SealedChunk>, ChainSummary) {
        let mut rng = ChaCha20Rng::seed_from_u64(seed);
        let hex = hex::encode(owner().public_key());
        let recipients = Recipients::new(&hex, &hex, &hex).unwrap();
        let key = FeedKey::from_bytes(&[9; 32]);
        let signer = ChunkSigner::new(&key, "did:peaq:0x00", "k").unwrap();
        let mut builder = ChainBuilder::new(chunk_size, &recipients, &signer).unwrap();
        let mut chunks = Vec::new();
        for mut data in data.chunks(piece) {
            while let Some(chunk) = builder.next_chunk(&mut data, &mut rng).unwrap() {
                chunks.push(chunk);
            }
        }
        let (last, summary) = builder.finish(&mut rng).unwrap();
        chunks.extend(last);
        (chunks, summary)
    }

    #[test]
    fn sizes_names_and_keys_that_cannot_work_are_refused_at_once() {
        let hex = hex::encode(owner().public_key());
        let recipients = Recipients::new(&hex, &hex, &hex).unwrap();
        let key = FeedKey::from_bytes(&[9; 32]);
        let signer = ChunkSigner::new(&key, "d", "k").unwrap();
        for found in [0, MAX_CHUNK_SIZE + 1] {
            let error = ChainBuilder::new(found, &recipients, &signer).err();
            assert_eq!(error, Some(StreamError::ChunkSize { found, max: MAX_CHUNK_SIZE }));
        }
        assert_eq!(ChunkSigner::new(&key, " ", "k").err(), Some(StreamError::Blank { field: "machine_did" }));
        assert_eq!(ChunkSigner::new(&key, "d", "\t").err(), Some(StreamError::Blank { field: "machine_key_id" }));
        let zero = "00".repeat(32);
        let weak = StreamError::WeakPublicKey { field: "public_key_hex" };
        assert_eq!(Recipients::new(&hex, &zero, &hex).err(), Some(weak));
        let short = StreamError::PublicKeyLength { field: "public_key_hex", found: 31 };
        assert_eq!(Recipients::new(&hex, &zero[2..], &hex).err(), Some(short));
        let other = hex::encode(FeedKey::from_bytes(&[8; 32]).public().as_bytes());
        let error = signing_key_from_hex(&"09".repeat(32), Some(&other)).err();
        assert_eq!(error, Some(StreamError::SigningKeyMismatch));
        assert!(signing_key_from_hex(&"09".repeat(31), None).is_err());
    }

    #[test]
    fn a_missing_ciphertext_is_not_a_mismatch() {
        let (chunks, _) = build(b"abc", 1, 1, 0);
        let fault = verify_chain(chunks.iter().map(|c| &c.envelope), |i| {
            (i != 1).then(|| Cow::from(&chunks[usize::try_from(i).unwrap()].ciphertext))
        });
        assert_eq!(fault, Err(ChainError::Broken { fault: ChainFault::CiphertextMissing, failed_at_index: 1 }));
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(32))]

        #[test]
        fn what_is_built_verifies_decrypts_and_reads_back(
            data in proptest::collection::vec(any::<u8>(), 0..400),
            chunk_size in 40usize..200,
            piece in 1usize..300,
            seed: u64,
        ) {
            let (chunks, summary) = build(&data, chunk_size, piece, seed);
            prop_assert_eq!(summary.total_chunks, data.len().div_ceil(chunk_size).max(1) as u64);
            prop_assert_eq!(&summary.source_hash, &hexes::sha256_text(&data));
            let report = verify_chain(chunks.iter().map(|c| &c.envelope), |i| {
                chunks.get(usize::try_from(i).unwrap()).map(|c| Cow::from(&c.ciphertext))
            }).unwrap();
            prop_assert_eq!(report.total_chunks, summary.total_chunks);
            let mut output = Vec::new();
            for chunk in &chunks {
                let envelope = &chunk.envelope;
                prop_assert_eq!(&Envelope::parse(&envelope.to_file_text()).unwrap(), envelope);
                prop_assert_eq!(&Envelope::parse(&envelope.to_compact_text()).unwrap(), envelope);
                let entry = envelope.recipient(Role::Owner).unwrap();
                let plain = decrypt_chunk(envelope, entry, &owner(), &chunk.ciphertext).unwrap();
                let key = unwrap_chunk_key(envelope, entry, &owner()).unwrap();
                prop_assert_eq!(&decrypt_with_key(envelope, &key, &chunk.ciphertext).unwrap(), &plain);
                output.extend(plain);
            }
            prop_assert_eq!(output, data);
        }

        #[test]
        fn one_flipped_bit_of_ciphertext_breaks_verification_and_decryption(
            data in proptest::collection::vec(any::<u8>(), 0..60),
            at: prop::sample::Index,
            bit in 0u8..8,
        ) {
            let (mut chunks, _) = build(&data, 1024, 1024, 1);
            let chunk = &mut chunks[0];
            let at = at.index(chunk.ciphertext.len());
            chunk.ciphertext[at] ^= 1 << bit;
            let verdict = verify_chain([&chunk.envelope], |_| Some(Cow::from(&chunk.ciphertext)));
            prop_assert_eq!(verdict, Err(ChainError::Broken { fault: ChainFault::HashMismatch, failed_at_index: 0 }));
            let entry = chunk.envelope.recipient(Role::Owner).unwrap();
            let result = decrypt_chunk(&chunk.envelope, entry, &owner(), &chunk.ciphertext);
            prop_assert_eq!(result, Err(StreamError::Decrypt));
        }
    }
}
