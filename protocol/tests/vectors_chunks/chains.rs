//! Whole chains: verified, decrypted, and built again from their input.

use std::borrow::Cow;

use rand_core::{Infallible, Rng, TryCryptoRng, TryRng};
use serde::Deserialize;
use serde_json::Value;
use tributary_protocol::peaq::{
    StreamError,
    chain::{ChainBuilder, ChunkSigner, SealedChunk, signing_key_from_hex},
    decrypt::{decrypt_chunk, unwrap_chunk_key},
    envelope::{RecipientEntry, in_order},
    hexes,
    manifest::Manifest,
    parties::{Recipients, Role},
    verify::verify_chain,
};

use super::{TestKeys, b64, bytes, envelopes, read_vectors, rng, some, vector_file};

vector_file!(Chains { chains: Vec<ChainCase> });

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct ChainCase {
    name: String,
    input_base64: String,
    chunk_size: usize,
    machine_did: String,
    test_keys: TestKeys,
    source_hash: String,
    chunks: Vec<Value>,
    ciphertext_base64: Vec<String>,
    chunk_key_hex: Vec<String>,
    expected: ChainExpected,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct ChainExpected {
    valid: bool,
    total_chunks: u64,
}

/// Gives what it was told to give, call by call, and asserts that each call asks for that many bytes.
struct ScriptedRng(std::vec::IntoIter<Vec<u8>>);

impl TryRng for ScriptedRng {
    type Error = Infallible;

    fn try_next_u32(&mut self) -> Result<u32, Infallible> {
        panic!("only byte strings are scripted")
    }

    fn try_next_u64(&mut self) -> Result<u64, Infallible> {
        panic!("only byte strings are scripted")
    }

    fn try_fill_bytes(&mut self, out: &mut [u8]) -> Result<(), Infallible> {
        out.copy_from_slice(&self.0.next().expect("more was drawn than scripted"));
        Ok(())
    }
}

impl TryCryptoRng for ScriptedRng {}

fn chains() -> Vec<ChainCase> {
    let file: Chains = read_vectors("chunk_chains");
    some(&file.chains, "chains");
    file.chains
}

#[test]
fn vector_chunk_chains_verify() {
    for case in chains() {
        let envelopes = envelopes(&case.chunks);
        let ciphertexts: Vec<Vec<u8>> = case.ciphertext_base64.iter().map(|text| b64(text)).collect();
        let get = |index: u64| ciphertexts.get(usize::try_from(index).unwrap()).map(Cow::from);
        let report = verify_chain(&envelopes, get);
        assert_eq!(report.is_ok(), case.expected.valid, "{}: {report:?}", case.name);
        let report = report.unwrap();
        assert_eq!(report.total_chunks, case.expected.total_chunks, "{}", case.name);
        assert_eq!(report.machine_did.as_ref(), Some(&case.machine_did), "{}", case.name);
        let signer = signing_key_from_hex(&case.test_keys.signing.private_key_hex, None).unwrap().public();
        assert_eq!(report.signer, Some(signer), "{}", case.name);

        let mut shuffled = envelopes.clone();
        shuffled.reverse();
        assert_eq!(in_order(shuffled).unwrap(), envelopes, "{}", case.name);
    }
}

#[test]
fn vector_chunk_chains_decrypt_with_every_recipient_key() {
    for case in chains() {
        let input = b64(&case.input_base64);
        assert_eq!(hexes::sha256_text(&input), case.source_hash, "{}", case.name);
        let keys = &case.test_keys;
        let recipients = [(Role::Owner, &keys.owner), (Role::Operator, &keys.operator), (Role::Machine, &keys.machine)];
        for (role, pair) in recipients {
            let secret = pair.secret();
            let mut output = Vec::new();
            for (at, envelope) in envelopes(&case.chunks).iter().enumerate() {
                let entry = envelope.recipient(role).unwrap();
                let key = unwrap_chunk_key(envelope, entry, &secret).unwrap();
                assert_eq!(hex::encode(*key), case.chunk_key_hex[at], "{}", case.name);
                let ciphertext = b64(&case.ciphertext_base64[at]);
                output.extend(decrypt_chunk(envelope, entry, &secret, &ciphertext).unwrap());
                let stranger = keys.buyer.secret();
                assert_eq!(decrypt_chunk(envelope, entry, &stranger, &ciphertext), Err(StreamError::Unwrap));
            }
            assert_eq!(output, input, "{} as {}", case.name, role.as_str());
        }
    }
}

/// Cuts the input into pieces that have nothing to do with the chunks.
fn build(builder: &mut ChainBuilder<'_>, input: &[u8], piece: usize, rng: &mut ScriptedRng) -> Vec<SealedChunk> {
    let mut chunks = Vec::new();
    for mut data in input.chunks(piece) {
        while let Some(chunk) = builder.next_chunk(&mut data, rng).unwrap() {
            chunks.push(chunk);
        }
        assert!(data.is_empty());
    }
    chunks
}

#[test]
fn vector_chunk_chains_rebuild_from_their_input() {
    for case in chains() {
        let expected = envelopes(&case.chunks);
        let input = b64(&case.input_base64);
        let [owner, operator, machine] = expected[0].encryption.key_recipients.as_slice() else {
            panic!("{}: not three recipients", case.name)
        };
        let party = |entry: &'static str, of: &RecipientEntry| assert_eq!(of.recipient_type, entry, "{}", case.name);
        party("owner", owner);
        party("operator", operator);
        party("machine", machine);
        let recipients = Recipients::with_ids(
            [owner, operator, machine].map(|entry| (entry.recipient_id.as_str(), entry.public_key_hex.as_str())),
        )
        .unwrap();
        let signing = &case.test_keys.signing;
        let key = signing_key_from_hex(&signing.private_key_hex, Some(&signing.public_key_hex)).unwrap();
        let signer = ChunkSigner::new(&key, &case.machine_did, &expected[0].signature.key_id).unwrap();

        for piece in [1, 7, case.chunk_size, input.len().max(1)] {
            let mut ephemeral = rng();
            let mut script = Vec::new();
            for (envelope, key) in expected.iter().zip(&case.chunk_key_hex) {
                script.extend([bytes(key), bytes(&envelope.encryption.nonce)]);
                for _ in 0..3 {
                    let mut scalar = vec![0; 32];
                    ephemeral.fill_bytes(&mut scalar);
                    script.push(scalar);
                }
            }
            let mut script = ScriptedRng(script.into_iter());
            let mut builder = ChainBuilder::new(case.chunk_size, &recipients, &signer).unwrap();
            let mut built = build(&mut builder, &input, piece, &mut script);
            let (last, summary) = builder.finish(&mut script).unwrap();
            built.extend(last);
            assert_eq!(script.0.len(), 0, "{}: less was drawn than scripted", case.name);

            assert_eq!(built.len(), expected.len(), "{}", case.name);
            for (at, (chunk, expected)) in built.iter().zip(&expected).enumerate() {
                assert_eq!(chunk.ciphertext, b64(&case.ciphertext_base64[at]), "{}", case.name);
                // Sealed boxes cannot repeat; everything else must be the same to the byte.
                let mut ours = chunk.envelope.clone();
                let sealed = expected.encryption.key_recipients.iter().map(|entry| &entry.wrapped_key_hex);
                for (entry, sealed) in ours.encryption.key_recipients.iter_mut().zip(sealed) {
                    assert_eq!(entry.wrapped_key_hex.len(), sealed.len());
                    entry.wrapped_key_hex.clone_from(sealed);
                }
                assert_eq!(&ours, expected, "{}", case.name);
                let keys = &case.test_keys;
                for (entry, pair) in
                    chunk.envelope.encryption.key_recipients.iter().zip([&keys.owner, &keys.operator, &keys.machine])
                {
                    let key = unwrap_chunk_key(&chunk.envelope, entry, &pair.secret()).unwrap();
                    assert_eq!(hex::encode(*key), case.chunk_key_hex[at], "{}", case.name);
                }
            }
            let manifest = Manifest::new(&summary, &case.machine_did, "2026-01-02T03:04:05Z").unwrap();
            assert_eq!(manifest.check(case.expected.total_chunks, &case.source_hash), Ok(()), "{}", case.name);
            assert_eq!(manifest.chunk_size, case.chunk_size as u64);
            assert_eq!(summary.total_bytes, input.len() as u64);
        }
    }
}
