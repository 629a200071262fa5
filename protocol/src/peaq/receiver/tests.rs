use proptest::prelude::*;
use rand_chacha::{ChaCha20Rng, rand_core::SeedableRng};

use super::*;
use crate::{
    keys::FeedKey,
    peaq::{
        access::buyer,
        chain::{ChainBuilder, ChunkSigner, SealedChunk},
        frame::{ErrorFrame, Frame, MAX_FRAME_BYTES, encode_chunk},
        hexes,
        parties::Recipients,
    },
};

const BUYER: [u8; 32] = [4; 32];

/// A chain of `data` in chunks of `size`, and the keys of all its chunks for the buyer.
fn sold(data: &[u8], size: usize) -> (Vec<SealedChunk>, Vec<AccessEntry>) {
    let mut rng = ChaCha20Rng::seed_from_u64(1);
    let owner = BoxSecretKey::from_bytes(&[3; 32]);
    let hex_of = |key: &BoxSecretKey| hex::encode(key.public_key());
    let recipients = Recipients::new(&hex_of(&owner), &hex_of(&owner), &hex_of(&owner)).unwrap();
    let key = FeedKey::from_bytes(&[9; 32]);
    let signer = ChunkSigner::new(&key, "did:peaq:0x00", "k").unwrap();
    let mut builder = ChainBuilder::new(size, &recipients, &signer).unwrap();
    let (mut data, mut chunks) = (data, Vec::new());
    while let Some(chunk) = builder.next_chunk(&mut data, &mut rng).unwrap() {
        chunks.push(chunk);
    }
    chunks.extend(builder.finish(&mut rng).unwrap().0);
    let buyer = buyer("b", &hex_of(&BoxSecretKey::from_bytes(&BUYER))).unwrap();
    let access =
        chunks.iter().map(|chunk| AccessEntry::grant(&chunk.envelope, &owner, &buyer, &mut rng).unwrap()).collect();
    (chunks, access)
}

fn line(chunk: &SealedChunk) -> Vec<u8> {
    let mut line = Vec::new();
    encode_chunk(&chunk.envelope, &chunk.ciphertext, &mut line);
    line
}

fn complete(total_chunks: u64) -> Vec<u8> {
    Frame::Complete { total_chunks: total_chunks.into() }.encode()
}

fn receive(access: Vec<AccessEntry>, bytes: &[u8], piece: usize) -> Result<(Vec<u8>, ChainReport), ReceiveError> {
    let mut receiver = Receiver::new(access, BoxSecretKey::from_bytes(&BUYER));
    let (mut data, mut report) = (Vec::new(), None);
    for mut input in bytes.chunks(piece) {
        while let Some(received) = receiver.advance(&mut input)? {
            match received {
                Received::Chunk { plaintext, .. } => data.extend(plaintext),
                Received::Complete(complete) => report = Some(complete),
            }
        }
    }
    receiver.finish()?;
    Ok((data, report.expect("a receiver that finishes has told of the end")))
}

#[test]
fn a_chain_that_is_broken_only_as_a_whole_hands_out_nothing_from_there_on() {
    let (mut chunks, mut access) = sold(b"abcdef", 2);
    // Nobody signs the index, so a thief may number the chunks as it likes; ids then no longer follow from it.
    for (chunk, index) in chunks.iter_mut().zip([0, 2, 1]) {
        chunk.envelope.index = index;
    }
    let bytes: Vec<u8> = chunks.iter().flat_map(line).chain(complete(3)).collect();
    let mut receiver = Receiver::new(access.clone(), BoxSecretKey::from_bytes(&BUYER));
    let mut input = bytes.as_slice();
    let first = receiver.advance(&mut input);
    assert_eq!(first, Ok(Some(Received::Chunk { index: 0, plaintext: b"ab" })));
    assert_eq!(receiver.advance(&mut input), Err(ReceiveError::Chain { index: 2 }));
    assert_eq!(receiver.received(), 3);

    // With a gap in the numbers it is a missing chunk, as peaq's buyer says.
    chunks[2].envelope.index = 7;
    let bytes: Vec<u8> = chunks.iter().flat_map(line).chain(complete(3)).collect();
    assert_eq!(receive(access.clone(), &bytes, 100), Err(ReceiveError::Missing));

    // A chunk that is refused by itself still is, with its own reason.
    chunks[2].ciphertext[0] ^= 1;
    let bytes: Vec<u8> = chunks.iter().flat_map(line).chain(complete(3)).collect();
    assert_eq!(receive(access.split_off(0), &bytes, 100), Err(ReceiveError::CiphertextHash { index: 7 }));
}

#[test]
fn the_report_names_the_one_key_that_signed() {
    let (chunks, access) = sold(b"abcdef", 2);
    let bytes: Vec<u8> = chunks.iter().flat_map(line).chain(complete(3)).collect();
    let (data, report) = receive(access.clone(), &bytes, 7).unwrap();
    assert_eq!(data, b"abcdef");
    assert_eq!(report.signer, Some(FeedKey::from_bytes(&[9; 32]).public()));
    assert_eq!(report.machine_did.as_deref(), Some("did:peaq:0x00"));

    // Another key may sign the same text: consistent, but not one machine's.
    let mut chunks = chunks;
    let other = FeedKey::from_bytes(&[8; 32]);
    let hash = hexes::sha256(&chunks[1].ciphertext);
    chunks[1].envelope.signature.value = hex::encode(other.sign_v1_hash(&hash));
    chunks[1].envelope.signature.public_key_hex = other.public().to_string();
    let bytes: Vec<u8> = chunks.iter().flat_map(line).chain(complete(3)).collect();
    assert_eq!(receive(access, &bytes, 1000).unwrap().1.signer, None);
}

#[test]
fn more_than_was_announced_ends_the_transfer_before_it_is_kept() {
    let (chunks, access) = sold(b"abcdef", 2);
    // Lines that are frames but no chunks would otherwise go on for ever; errors and handshakes end it by themselves, so
    // only white space around a chunk can fill the bound.
    let mut padded = vec![b' '; MAX_FRAME_BYTES - line(&chunks[0]).len() + 1];
    padded.extend(line(&chunks[0]));
    assert_eq!(padded.len(), MAX_FRAME_BYTES + 1);
    let bytes = [padded, line(&chunks[1]), line(&chunks[2])].concat();
    let mut one = Receiver::new(access[..1].to_vec(), BoxSecretKey::from_bytes(&BUYER));
    let max = MAX_FRAME_BYTES as u64;
    let error = one.advance(&mut bytes.as_slice());
    assert_eq!(error, Err(ReceiveError::Frame(FrameError::TransferTooLarge { max })));
    assert_eq!(error.unwrap_err().reason(), "transfer_too_large");
}

#[test]
fn counts_are_compared_by_value() {
    let (chunks, access) = sold(b"ab", 2);
    for (total, good) in [("1", true), ("1.0", true), ("2", false), ("\"1\"", false), ("null", false)] {
        let end = format!("{{\"type\":\"complete\",\"totalChunks\":{total}}}\n");
        let bytes = [line(&chunks[0]), end.into_bytes()].concat();
        let result = receive(access.clone(), &bytes, 100);
        assert_eq!(result.is_ok(), good, "{total}");
        if let Err(error) = result {
            assert_eq!(error.reason(), "count mismatch");
        }
    }
}

#[test]
fn what_a_seller_says_of_an_error_is_not_repeated() {
    let (_, access) = sold(b"ab", 2);
    let bytes = Frame::Error(ErrorFrame { code: "<script>".into(), reason: "<script>".into() }).encode();
    let error = receive(access, &bytes, 10).unwrap_err();
    assert_eq!((error.code().as_str(), error.reason()), ("protocol", "error"));
    assert!(!error.to_string().contains("script"));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]

    #[test]
    fn whatever_was_sold_comes_out_however_it_is_cut(
        data in proptest::collection::vec(any::<u8>(), 0..300),
        size in 1usize..100,
        piece in 1usize..3000,
    ) {
        let (chunks, access) = sold(&data, size);
        let bytes: Vec<u8> = chunks.iter().flat_map(line).chain(complete(chunks.len() as u64)).collect();
        let (received, report) = receive(access, &bytes, piece).unwrap();
        prop_assert_eq!(received, data);
        prop_assert_eq!(report.total_chunks, chunks.len() as u64);
    }

    #[test]
    fn one_changed_byte_never_changes_what_is_handed_out(
        at: prop::sample::Index,
        byte: u8,
        piece in 1usize..3000,
    ) {
        let data = b"what was captured";
        let (chunks, access) = sold(data, 6);
        let mut bytes: Vec<u8> = chunks.iter().flat_map(line).chain(complete(3)).collect();
        let at = at.index(bytes.len());
        bytes[at] = byte;
        let mut receiver = Receiver::new(access, BoxSecretKey::from_bytes(&BUYER));
        let mut received = Vec::new();
        'all: for mut input in bytes.chunks(piece) {
            loop {
                match receiver.advance(&mut input) {
                    Ok(Some(Received::Chunk { plaintext, .. })) => received.extend(plaintext),
                    Ok(Some(Received::Complete(_))) => {}
                    Ok(None) => break,
                    Err(_) => break 'all,
                }
            }
        }
        prop_assert!(data.starts_with(&received));
        if receiver.finish().is_ok() {
            prop_assert_eq!(&received, data);
        }
    }
}
