use chacha20poly1305::{KeyInit as _, XChaCha20Poly1305, aead::Aead};
use proptest::prelude::*;

use super::*;

const KEY: [u8; 32] = [5; 32];
const NONCE: [u8; 24] = [7; 24];

/// The same construction by another hand.
fn reference() -> XChaCha20Poly1305 {
    XChaCha20Poly1305::new(&KEY.into())
}

fn unhex<const N: usize>(text: &str) -> [u8; N] {
    hex::decode(text).expect("hex").try_into().expect("the length of the field")
}

/// Section 2.2.1 of the draft.
#[test]
fn the_subkey_is_the_one_of_the_draft() {
    let key = unhex("000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f");
    let nonce = unhex("000000090000004a00000000314159270000000000000000");
    let expected: [u8; 32] = unhex("82413b4227b27bfed30e42508a877d73a0f9e4d58a74a853c12ec41326d3ecdc");
    assert_eq!(*Inner::new(&key, &nonce).subkey, expected);
}

/// Section A.3.1 of the draft has associated data; this is its key, nonce and plaintext, whose ciphertext does not depend on
/// them.
#[test]
fn the_ciphertext_is_the_one_of_the_draft() {
    let key = unhex("808182838485868788898a8b8c8d8e8f909192939495969798999a9b9c9d9e9f");
    let nonce = unhex("404142434445464748494a4b4c4d4e4f5051525354555657");
    let plaintext = b"Ladies and Gentlemen of the class of '99: If I could offer you only one tip for the future, sunscreen would be it.";
    let expected = "bd6d179d3e83d43b9576579493c0e939572a1700252bfaccbed2902c21396cbb731c7f1b0b4aa6440bf3a82f4eda7e39\
                    ae64c6708c54c216cb96b72e1213b4522f8c9ba40db5d945b11b69b982c1bb9e3f3fac2bc369488f76b2383565d3fff9\
                    21f9664c97637da9768812f615c68b13b52e";
    let sealed = encrypt(&key, &nonce, plaintext).expect("short");
    assert_eq!(hex::encode(&sealed[..plaintext.len()]), expected);
    assert_eq!(decrypt(&key, &nonce, &sealed).as_deref(), Ok(plaintext.as_slice()));
}

#[test]
fn every_length_agrees_with_the_reference_both_ways() {
    let bytes: Vec<u8> = (0..1 << 20).map(|i: u32| ((i * 31) >> 3) as u8).collect();
    let lengths = (0..=300).chain([1023, 1024, 1025, 4096, 65_535, 262_144, (1 << 20) - 1, 1 << 20]);
    for len in lengths {
        let plaintext = &bytes[..len];
        let theirs = reference().encrypt(&NONCE.into(), plaintext).expect("encrypts");
        assert!(encrypt(&KEY, &NONCE, plaintext).as_ref() == Ok(&theirs), "{len} bytes");
        assert!(decrypt(&KEY, &NONCE, &theirs).as_deref() == Ok(plaintext), "{len} bytes");
        assert_eq!(authenticate(&KEY, &NONCE, &theirs), Ok(()), "{len} bytes");
        assert!(decrypt_in_place(&KEY, &NONCE, theirs).as_deref() == Ok(plaintext), "{len} bytes");
    }
}

#[test]
fn what_is_too_short_for_a_tag_is_forged() {
    for len in 0..TAG_LEN {
        let sealed = vec![0; len];
        assert_eq!(decrypt(&KEY, &NONCE, &sealed), Err(Forged));
        assert_eq!(authenticate(&KEY, &NONCE, &sealed), Err(Forged));
        assert_eq!(decrypt_in_place(&KEY, &NONCE, sealed), Err(Forged));
    }
}

proptest! {
    #[test]
    fn any_key_nonce_and_message_agree_with_the_reference(
        key: [u8; 32], nonce: [u8; 24], plaintext in proptest::collection::vec(any::<u8>(), 0..2000)
    ) {
        let theirs = XChaCha20Poly1305::new(&key.into()).encrypt(&nonce.into(), plaintext.as_slice()).expect("encrypts");
        let ours = encrypt(&key, &nonce, &plaintext).expect("short");
        prop_assert_eq!(&ours, &theirs);
        let opened = XChaCha20Poly1305::new(&key.into()).decrypt(&nonce.into(), ours.as_slice()).expect("decrypts");
        prop_assert_eq!(&opened, &plaintext);
        prop_assert_eq!(decrypt(&key, &nonce, &theirs), Ok(plaintext.clone()));
        prop_assert_eq!(authenticate(&key, &nonce, &theirs), Ok(()));
        prop_assert_eq!(decrypt_in_place(&key, &nonce, theirs), Ok(plaintext));
    }

    #[test]
    fn a_flipped_bit_of_message_key_or_nonce_is_forged(
        plaintext in proptest::collection::vec(any::<u8>(), 0..600), at: prop::sample::Index, bit in 0..8u8
    ) {
        let mut sealed = encrypt(&KEY, &NONCE, &plaintext).expect("short");
        let (mut key, mut nonce) = (KEY, NONCE);
        key[at.index(key.len())] ^= 1 << bit;
        nonce[at.index(nonce.len())] ^= 1 << bit;
        for (key, nonce) in [(&key, &NONCE), (&KEY, &nonce)] {
            prop_assert_eq!(decrypt(key, nonce, &sealed), Err(Forged));
            prop_assert_eq!(authenticate(key, nonce, &sealed), Err(Forged));
            prop_assert_eq!(decrypt_in_place(key, nonce, sealed.clone()), Err(Forged));
        }
        let at = at.index(sealed.len());
        sealed[at] ^= 1 << bit;
        prop_assert_eq!(decrypt(&KEY, &NONCE, &sealed), Err(Forged));
        prop_assert_eq!(authenticate(&KEY, &NONCE, &sealed), Err(Forged));
        prop_assert_eq!(decrypt_in_place(&KEY, &NONCE, sealed), Err(Forged));
    }
}
