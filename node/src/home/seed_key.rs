//! The key that a machine's epoch seeds are sealed to in its store.
//!
//! ```text
//! tributary-seed-key 1
//! public: 5f3c…
//! sealed: <nonce> <ciphertext>          hex: 24, 32 + 16 bytes
//! ```
//!
//! The secret is sealed (XChaCha20-Poly1305, the lines before are authenticated) under a key that is derived from the home's
//! encryption key, so it is as safe at rest as that one, and a running node can replace it without a passphrase. Replacing it is
//! how seeds are forgotten: what was sealed to the old key, wherever copies of it lie, opens with nothing that is left. The old
//! file is overwritten before its name goes; a file system that copies on write, or a flash disk, may keep the old blocks for a
//! while, and nothing here can change that.

use std::{
    fs::OpenOptions,
    io::Write as _,
    path::{Path, PathBuf},
};

use chacha20poly1305::{
    KeyInit as _, XChaCha20Poly1305,
    aead::{Aead as _, Payload},
};
use rand_core::CryptoRng;
use tributary_protocol::keys::EncryptionKey;
use zeroize::Zeroizing;

use super::{
    Home, HomeError, KeyKind,
    files::{io, read_private, sync_parent, write_private},
};

const MAGIC: &str = "tributary-seed-key 1";
const CONTEXT: &str = "tributary 2026 seed key file";

/// The file of the seed key in a keys folder.
pub(super) fn path(folder: &Path) -> PathBuf {
    folder.join("seed.key")
}

fn cipher(encryption: &EncryptionKey) -> XChaCha20Poly1305 {
    let key = Zeroizing::new(blake3::derive_key(CONTEXT, &*encryption.to_bytes()));
    XChaCha20Poly1305::new((&*key).into())
}

/// Writes a seed key, sealed under the encryption key of its home.
pub(super) fn write(
    path: &Path,
    seed: &EncryptionKey,
    encryption: &EncryptionKey,
    rng: &mut impl CryptoRng,
) -> Result<(), HomeError> {
    let head = format!("{MAGIC}\npublic: {}\n", seed.public());
    let mut nonce = [0; 24];
    rng.fill_bytes(&mut nonce);
    let secret = seed.to_bytes();
    let sealed = cipher(encryption)
        .encrypt((&nonce).into(), Payload { msg: &*secret, aad: head.as_bytes() })
        .expect("a key is far below the cipher's limit");
    write_private(path, format!("{head}sealed: {} {}\n", hex::encode(nonce), hex::encode(sealed)).as_bytes())
}

fn read(path: &Path, encryption: &EncryptionKey) -> Result<Option<EncryptionKey>, HomeError> {
    let Some(text) = read_private(path)? else { return Ok(None) };
    let bad = |problem| HomeError::BadKey { kind: KeyKind::Seed, path: path.to_owned(), problem };
    let body = text.find("sealed: ").ok_or_else(|| bad("no `sealed` line"))?;
    let (head, sealed) = text.split_at(body);
    let mut words = sealed.trim_end().split(' ').skip(1);
    let mut nonce = [0; 24];
    let (Some(first), Some(second), None) = (words.next(), words.next(), words.next()) else {
        return Err(bad("the `sealed` line is not in its form"));
    };
    hex::decode_to_slice(first, &mut nonce).map_err(|_| bad("the nonce is not hex of the right length"))?;
    let sealed = hex::decode(second).map_err(|_| bad("the ciphertext is not hex"))?;
    let opened = cipher(encryption)
        .decrypt((&nonce).into(), Payload { msg: &sealed, aad: head.as_bytes() })
        .map(Zeroizing::new)
        .map_err(|_| bad("it does not open with the encryption key of this home"))?;
    let mut secret = Zeroizing::new([0; 32]);
    if opened.len() != secret.len() {
        return Err(bad("the secret has the wrong length"));
    }
    secret.copy_from_slice(&opened);
    let key = EncryptionKey::from_bytes(&secret);
    if head == format!("{MAGIC}\npublic: {}\n", key.public()) {
        Ok(Some(key))
    } else {
        Err(bad("its head is another's"))
    }
}

/// The seed keys in a home.
pub(crate) struct SeedKeys {
    /// The one in use; `None` in a home without one.
    pub(crate) current: Option<EncryptionKey>,
    /// The one that was to take its place when the process ended.
    pub(crate) next: Option<EncryptionKey>,
}

impl Home {
    /// The seed keys. While another one waits to take its place, one that does not open counts as gone.
    pub(crate) fn seed_keys(&self, encryption: &EncryptionKey) -> Result<SeedKeys, HomeError> {
        let next = match read(&self.next_seed_path(), encryption) {
            // Written whole or not at all, so this one was damaged later; nothing is sealed to it that cannot be done again.
            Err(HomeError::BadKey { .. }) => None,
            other => other?,
        };
        let current = match read(&path(&self.keys_dir()), encryption) {
            Err(HomeError::BadKey { .. }) if next.is_some() => None,
            other => other?,
        };
        Ok(SeedKeys { current, next })
    }

    /// Makes the next seed key, beside the one in use.
    pub(crate) fn stage_seed_key(&self, encryption: &EncryptionKey) -> Result<EncryptionKey, HomeError> {
        let key = EncryptionKey::generate(&mut rand::rng());
        write(&self.next_seed_path(), &key, encryption, &mut rand::rng())?;
        Ok(key)
    }

    /// Destroys the seed key in use and puts the next one into its place. Only for when everything that is to be kept is sealed to
    /// the next one, durably.
    pub(crate) fn promote_seed_key(&self) -> Result<(), HomeError> {
        let (next, current) = (self.next_seed_path(), path(&self.keys_dir()));
        match OpenOptions::new().write(true).open(&current) {
            Ok(mut file) => {
                let len = file.metadata().map_err(io("look at", &current))?.len();
                let zeros = vec![0; usize::try_from(len).unwrap_or(0)];
                file.write_all(&zeros).and_then(|()| file.sync_all()).map_err(io("overwrite", &current))?;
            }
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
            Err(error) => return Err(io("open", &current)(error)),
        }
        std::fs::rename(&next, &current).map_err(io("rename to", &current))?;
        sync_parent(&current)
    }

    /// Gives up the next seed key, to which nothing is sealed.
    pub(crate) fn drop_next_seed_key(&self) -> Result<(), HomeError> {
        super::rotation::remove(&self.next_seed_path())
    }

    fn next_seed_path(&self) -> PathBuf {
        self.keys_dir().join("seed.next.key")
    }
}
