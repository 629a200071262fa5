//! Files of peaq's SDK and CLI.

use tributary_protocol::peaq::{
    access::{AccessBook, AccessFile, ParsedAccessFile},
    decrypt,
    envelope::Envelope,
    hexes,
    manifest::{Manifest, is_file_name},
    origin::Origin,
    parties::{Recipient, Role},
    sealed_box::{BoxPublicKey, BoxSecretKey, OVERHEAD},
    verify::{ChainVerifier, verify_signature},
};

use crate::{known, text};

/// A chunk's envelope, judged and decrypted with an owner's key.
pub fn peaq_envelope(data: &[u8]) {
    let Ok(envelope) = Envelope::parse(data) else { return };
    for text in [envelope.to_file_text(), envelope.to_compact_text()] {
        assert!(text.is_ascii());
        // ASCII text is longer than UTF-8, up to the bound of a file.
        if let Ok(again) = Envelope::parse(&text) {
            assert_eq!(again, envelope);
        } else {
            assert!(text.len() > tributary_protocol::peaq::envelope::MAX_ENVELOPE_BYTES);
        }
    }
    let _ = ChainVerifier::new().check(&envelope, Some(&known::peaq_chunk().ciphertext));
    let _ = verify_signature(&envelope, &[7; 32]);
    let owner = BoxSecretKey::from(&known::encryption_key());
    for entry in &envelope.encryption.key_recipients {
        let _ = decrypt::unwrap_chunk_key(&envelope, entry, &owner);
        let _ = decrypt::decrypt_chunk(&envelope, entry, &owner, &known::peaq_chunk().ciphertext);
    }
    let _ = decrypt::decrypt_with_key(&envelope, known::chunk_key().as_bytes(), &known::peaq_chunk().ciphertext);
}

/// The manifest of a chain. No name in it leaves the folder it is downloaded to.
pub fn peaq_manifest(data: &[u8]) {
    let Ok(manifest) = Manifest::parse(data) else { return };
    let text = manifest.to_file_text();
    assert!(text.is_ascii());
    assert_eq!(Manifest::parse(&text).expect("its own text"), manifest);
    for name in manifest.files.iter().flatten() {
        assert!(is_file_name(name) && !name.contains(['/', '\\', '\0']) && name != "..");
    }
    let _ = manifest.check(1, &manifest.source_hash);
    let Some(Ok(origin)) = manifest.tributary.as_ref().map(Origin::open) else { return };
    let (envelope, count) = (&known::peaq_chunk().envelope, u64::from(origin.dataset().chunk_count));
    for index in [0, count - 1, count, u64::MAX] {
        assert_eq!(origin.record(index).is_some(), index < count);
        let _ = origin.check_chunk(index, envelope, &known::peaq_chunk().ciphertext);
    }
}

/// A buyer's access file, in both spellings.
pub fn peaq_access_file(data: &[u8]) {
    let Ok(file) = ParsedAccessFile::parse(data) else { return };
    let ParsedAccessFile { buyer_public_key_hex, entries } = file.clone();
    let written = AccessFile { number: 1, buyer_public_key_hex, entries };
    for text in [written.to_cli_text(), written.to_sdk_text()] {
        assert!(text.is_ascii());
        assert_eq!(ParsedAccessFile::parse(&text).expect("its own text"), file);
    }
    let mut book = AccessBook::new();
    book.add(file, "buyer-1");
    assert!(book.len() <= written.entries.len());
}

/// Hex text and keys in hex.
pub fn peaq_hex(data: &[u8]) {
    let Some(text) = text(data) else { return };
    let bytes = hexes::decode(text, "value");
    assert_eq!(hexes::decode_secret(text, "value").map(|secret| secret.to_vec()), bytes);
    let key = BoxPublicKey::from_hex(text, "value");
    if let Ok(key) = &key {
        assert_eq!(bytes.as_deref(), Ok(key.as_bytes().as_slice()));
    }
    assert_eq!(Recipient::new("owner-1", Role::Owner, text).is_ok(), key.is_ok());
    let _ = BoxSecretKey::from_hex(text);
}

/// A sealed box: what opens was sealed.
pub fn peaq_sealed_box(data: &[u8]) {
    let key = BoxSecretKey::from(&known::encryption_key());
    if let Some(opened) = key.open(data) {
        assert_eq!(opened.len() + OVERHEAD, data.len());
    }
}
