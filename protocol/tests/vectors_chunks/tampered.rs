//! Altered chains, each with the verdict of peaq's verifier.

use std::{borrow::Cow, collections::BTreeMap};

use serde::Deserialize;
use serde_json::Value;
use tributary_protocol::peaq::verify::{ChainError, ChainVerifier, verify_chain};

use super::{SdkError, b64, envelopes, read_vectors, some, vector_file};

vector_file!(Tampered { cases: Vec<TamperedCase> });

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct TamperedCase {
    name: String,
    chunks: Vec<Value>,
    ciphertext_base64: BTreeMap<u64, String>,
    expected: TamperedExpected,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum TamperedExpected {
    Verdict(Verdict),
    Raises(Raises),
}

#[derive(Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct Verdict {
    valid: bool,
    reason: Option<String>,
    failed_at_index: Option<u64>,
    total_chunks: Option<u64>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Raises {
    raises: SdkError,
}

#[test]
fn vector_chunk_chains_tampered() {
    let file: Tampered = read_vectors("chunk_chains_tampered");
    for case in some(&file.cases, "cases") {
        let envelopes = envelopes(&case.chunks);
        let ciphertexts: BTreeMap<u64, Vec<u8>> =
            case.ciphertext_base64.iter().map(|(index, text)| (*index, b64(text))).collect();
        let whole = verify_chain(&envelopes, |index| ciphertexts.get(&index).map(Cow::from));

        let mut verifier = ChainVerifier::new();
        let streamed = envelopes
            .iter()
            .try_for_each(|envelope| verifier.check(envelope, ciphertexts.get(&envelope.index).map(Vec::as_slice)))
            .and_then(|()| verifier.finish());
        assert_eq!(streamed, whole, "{}", case.name);

        let verdict = match whole {
            Ok(report) => {
                Verdict { valid: true, reason: None, failed_at_index: None, total_chunks: Some(report.total_chunks) }
            }
            Err(ChainError::Broken { fault, failed_at_index }) => Verdict {
                valid: false,
                reason: Some(fault.to_string()),
                failed_at_index: Some(failed_at_index),
                total_chunks: None,
            },
            Err(ChainError::Malformed { source, .. }) => {
                let TamperedExpected::Raises(expected) = &case.expected else { panic!("{}: {source}", case.name) };
                expected.raises.assert_same(&source, &case.name);
                continue;
            }
            Err(error) => panic!("{}: {error}", case.name),
        };
        let TamperedExpected::Verdict(expected) = &case.expected else { panic!("{}: {verdict:?}", case.name) };
        assert_eq!(&verdict, expected, "{}", case.name);
    }
}

#[test]
fn vector_chunk_chains_tampered_reports_what_peaq_accepts() {
    let file: Tampered = read_vectors("chunk_chains_tampered");
    let report = |start: &str| {
        let case = file.cases.iter().find(|case| case.name.starts_with(start)).expect(start);
        let ciphertexts: Vec<Vec<u8>> = case.ciphertext_base64.values().map(|text| b64(text)).collect();
        verify_chain(&envelopes(&case.chunks), |index| Some(Cow::from(&ciphertexts[usize::try_from(index).unwrap()])))
            .unwrap()
    };
    let untouched = report("valid");
    assert!(untouched.signer.is_some() && untouched.machine_did.is_some());
    assert_eq!(report("spliced with a chunk of another signer").signer, None);
}
