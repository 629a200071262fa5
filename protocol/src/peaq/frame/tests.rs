use proptest::prelude::*;

use super::{lines::Lines, *};
use crate::peaq::{
    CHUNK_SCHEMA,
    envelope::{Encryption, Signature},
};

fn envelope(text: &str) -> Envelope {
    Envelope {
        schema_version: CHUNK_SCHEMA.into(),
        chunk_id: text.into(),
        previous_chunk_id: None,
        index: 3,
        encrypted_data_hash: text.into(),
        plaintext_hash: text.into(),
        storage_ref: Some(text.into()),
        encryption: Encryption {
            algorithm: text.into(),
            nonce: text.into(),
            key_commitment: text.into(),
            key_recipients: vec![],
        },
        signature: Signature {
            algorithm: text.into(),
            machine_did: text.into(),
            key_id: text.into(),
            public_key_hex: text.into(),
            value: text.into(),
        },
    }
}

fn decoded(text: &str) -> Result<Vec<u8>, FrameError> {
    let mut out = vec![7; 3];
    lenient::decode(text, &mut out).map(|()| out)
}

#[test]
fn base64_is_read_as_python_reads_it() {
    // Each verdict is that of Python 3.11's `base64.b64decode`.
    for text in ["YWJjZA==", "YW\nJj ZA==", "!YWJjZA=!=", "YWJjZA==ignored", "YWJjZA==="] {
        assert_eq!(decoded(text).as_deref(), Ok(&b"abcd"[..]), "{text:?}");
    }
    assert_eq!(decoded(""), Ok(vec![]));
    assert_eq!(decoded("===="), Ok(vec![]));
    assert_eq!(decoded("YWI="), Ok(b"ab".to_vec()));
    // Bits behind the last byte are not looked at.
    assert_eq!(decoded("YWJ="), Ok(b"ab".to_vec()));
    for text in ["Y", "YW", "YWJjZA", "YWJjZA=", "YWJjZ", "YWJjZ===", "YWJjZA==\u{e9}"] {
        assert_eq!(decoded(text), Err(FrameError::Malformed), "{text:?}");
    }
}

#[test]
fn a_line_that_was_taken_out_is_not_part_of_the_next() {
    let mut lines = Lines::bounded(100);
    let mut input = b"first\nsec".as_slice();
    let mut taken = b"what the buffer held".to_vec();
    assert_eq!(lines.next(&mut input).unwrap(), Some(&b"first"[..]));
    lines.swap(&mut taken);
    assert_eq!(taken, b"first");
    assert_eq!(lines.next(&mut input), Ok(None));
    let mut input = b"ond\n".as_slice();
    assert_eq!(lines.next(&mut input).unwrap(), Some(&b"second"[..]));
    lines.swap(&mut taken);
    assert_eq!(taken, b"second");
    assert_eq!(lines.finish(), Ok(()));
}

#[test]
fn ciphertext_is_not_copied_while_a_line_is_read() {
    let mut line = Vec::new();
    encode_chunk(&envelope("x"), &[1; 100], &mut line);
    let Ok(Frame::Chunk(chunk)) = Frame::parse(&line) else { panic!("no chunk") };
    assert!(matches!(chunk.ciphertext_b64, std::borrow::Cow::Borrowed(_)));
}

#[test]
fn a_line_is_bounded_while_it_grows_and_so_is_their_sum() {
    let mut lines = Lines::new();
    let piece = [b'x'; 1000];
    let mut given = 0;
    let error = loop {
        match lines.next(&mut piece.as_slice()) {
            Ok(None) => given += piece.len(),
            Ok(Some(_)) => panic!("there was no newline"),
            Err(error) => break error,
        }
    };
    assert_eq!(error, FrameError::TooLarge);
    assert!(given <= MAX_FRAME_BYTES && given + piece.len() > MAX_FRAME_BYTES);

    let mut lines = Lines::bounded(6);
    let mut input = b"ab\ncd\ne\n".as_slice();
    assert_eq!(lines.next(&mut input).unwrap(), Some(&b"ab"[..]));
    assert_eq!(lines.next(&mut input).unwrap(), Some(&b"cd"[..]));
    assert_eq!(lines.finish(), Ok(()));
    assert_eq!(lines.next(&mut input), Err(FrameError::TransferTooLarge { max: 6 }));
}

proptest! {
    #[test]
    fn lines_come_out_however_they_are_cut(text in "[a-c\n]{0,60}", cut in 1usize..20) {
        let mut lines = Lines::new();
        let mut found = Vec::new();
        for mut piece in text.as_bytes().chunks(cut) {
            while let Some(line) = lines.next(&mut piece).unwrap() {
                found.push(String::from_utf8(line.to_vec()).unwrap());
            }
        }
        let mut expected: Vec<_> = text.split('\n').map(str::to_owned).collect();
        let rest = expected.pop().unwrap();
        prop_assert_eq!(found, expected);
        prop_assert_eq!(lines.finish().is_ok(), rest.is_empty());
    }

    #[test]
    fn ciphertexts_of_any_length_come_back_with_junk_in_them_or_not(
        bytes in proptest::collection::vec(any::<u8>(), 0..2000),
        junk in "[ -*,-.:-@\\[-`{-~\\n]{0,3}",
        at: prop::sample::Index,
    ) {
        use base64::{Engine as _, engine::general_purpose::STANDARD};
        let mut line = Vec::new();
        encode_chunk(&envelope("x"), &bytes, &mut line);
        let Ok(Frame::Chunk(chunk)) = Frame::parse(&line) else { panic!("no chunk") };
        let text = chunk.ciphertext_b64.into_owned();
        prop_assert_eq!(&text, &STANDARD.encode(&bytes));
        prop_assert_eq!(decoded(&text), Ok(bytes.clone()));
        let junk = junk.replace('=', "");
        let mut dirty = text.clone();
        dirty.insert_str(at.index(text.trim_end_matches('=').len() + 1), &junk);
        prop_assert_eq!(decoded(&dirty), Ok(bytes));
    }

    #[test]
    fn frames_read_back_and_are_ascii(a: String, b: String, c: String, total: u64) {
        for frame in [
            Frame::Handshake(Handshake { purchase_id: a.clone(), session_id: b.clone(), buyer_id: c.clone() }),
            Frame::Complete { total_chunks: total.into() },
            Frame::Error(ErrorFrame { code: a.clone(), reason: b.clone() }),
            Frame::Chunk(ChunkFrame {
                chunk_id: a.clone(),
                index: total,
                envelope: envelope(&b),
                ciphertext_b64: c.as_str().into(),
            }),
        ] {
            let line = frame.encode();
            let (last, line) = line.split_last().unwrap();
            prop_assert_eq!(*last, b'\n');
            prop_assert!(line.iter().all(|byte| matches!(byte, b' '..=b'~')));
            prop_assert_eq!(Frame::parse(line), Ok(frame));
        }
    }

    #[test]
    fn the_length_of_a_chunk_is_known_before_it_is_written(
        text in any::<String>(),
        ciphertext in proptest::collection::vec(any::<u8>(), 0..200),
    ) {
        let envelope = envelope(&text);
        let mut line = Vec::new();
        encode_chunk(&envelope, &ciphertext, &mut line);
        prop_assert_eq!(chunk_frame_len(&envelope, ciphertext.len()) + 1, line.len());
        let longest = max_ciphertext_len(&envelope);
        prop_assert!(chunk_frame_len(&envelope, longest) <= MAX_FRAME_BYTES);
        prop_assert!(chunk_frame_len(&envelope, longest + 3) > MAX_FRAME_BYTES);
        let Ok(Frame::Chunk(chunk)) = Frame::parse(&line) else { panic!("no chunk") };
        prop_assert_eq!(decoded(&chunk.ciphertext_b64).unwrap(), ciphertext);
    }

    #[test]
    fn any_line_is_read_or_refused(bytes in proptest::collection::vec(any::<u8>(), 0..300), text: String) {
        let _ = Frame::parse(&bytes);
        let _ = Frame::parse(text.as_bytes());
        let _ = decoded(&text);
    }
}
