//! What waits in a home while its keys are bound anew: the next feed key, and the binding that the owner has yet to sign.

use std::{
    fs,
    io::{ErrorKind, Read as _},
    path::PathBuf,
};

use rand_core::CryptoRng;
use tributary_protocol::keys::{FeedKey, FeedPublicKey};

use super::{
    Home, HomeError, KeyKind, Passphrase,
    files::{io, sync_parent, write_private},
    keyfile::{self, KeyFile},
    matches, public, secret,
};
use crate::proposal::MAX_PROPOSAL_LEN;

impl Home {
    /// Makes the next feed key and writes it beside the current one, which stays in use until [`Home::promote_feed_key`]. A
    /// next key that is there already, because a rotation broke off, is kept: a binding may name it.
    pub fn stage_feed_key(
        &self,
        passphrase: Option<&Passphrase>,
        rng: &mut impl CryptoRng,
    ) -> Result<FeedKey, HomeError> {
        if let Some(key) = self.next_feed_key(passphrase)? {
            return Ok(key);
        }
        // Opening the current key first proves the passphrase: a mistyped one must not seal the next key.
        let current = self.key_file(KeyKind::Feed)?;
        current.open(passphrase)?;
        let passphrase = passphrase.filter(|_| current.sealed);
        let key = FeedKey::generate(rng);
        let public = key.public().to_string();
        keyfile::write(&self.next_feed_path(), KeyKind::Feed, &public, &*key.to_bytes(), passphrase, rng)?;
        Ok(key)
    }

    /// The next feed key, if one waits.
    pub fn next_feed_key(&self, passphrase: Option<&Passphrase>) -> Result<Option<FeedKey>, HomeError> {
        let Some(file) = KeyFile::read(&self.next_feed_path(), KeyKind::Feed)? else { return Ok(None) };
        let key = FeedKey::from_bytes(&*secret(&file, passphrase)?);
        matches(&file, &key.public().to_string())?;
        Ok(Some(key))
    }

    /// Makes the next feed key the current one; the old secret is gone after this. Only for when the binding that names the
    /// next key is durable.
    pub fn promote_feed_key(&self) -> Result<(), HomeError> {
        let (next, current) = (self.next_feed_path(), self.key_path(KeyKind::Feed));
        fs::rename(&next, &current).map_err(io("rename to", &current))?;
        sync_parent(&current)
    }

    /// The public half of the next feed key, if one waits. Needs no passphrase.
    pub fn next_feed_public(&self) -> Result<Option<FeedPublicKey>, HomeError> {
        KeyFile::read(&self.next_feed_path(), KeyKind::Feed)?.map(|file| public(&file)).transpose()
    }

    /// Gives the next feed key up. Only for when no binding names it.
    pub fn drop_next_feed_key(&self) -> Result<(), HomeError> {
        remove(&self.next_feed_path())
    }

    /// The binding that waits for the owner's signature, as it was written.
    pub fn pending_proposal(&self) -> Result<Option<Vec<u8>>, HomeError> {
        let path = self.proposal_path();
        let file = match fs::File::open(&path) {
            Ok(file) => file,
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(io("open", &path)(error)),
        };
        let mut bytes = Vec::new();
        file.take(MAX_PROPOSAL_LEN as u64 + 1).read_to_end(&mut bytes).map_err(io("read", &path))?;
        Ok(Some(bytes))
    }

    /// Keeps a binding that waits for the owner's signature, in the place of one that waited before.
    pub fn keep_proposal(&self, bytes: &[u8]) -> Result<(), HomeError> {
        write_private(&self.proposal_path(), bytes)
    }

    /// Forgets the binding that waits: it was applied, or given up.
    pub fn drop_proposal(&self) -> Result<(), HomeError> {
        remove(&self.proposal_path())
    }

    fn proposal_path(&self) -> PathBuf {
        self.path().join("proposal.json")
    }

    fn next_feed_path(&self) -> PathBuf {
        self.keys_dir().join("feed.next.key")
    }
}

pub(super) fn remove(path: &std::path::Path) -> Result<(), HomeError> {
    match fs::remove_file(path) {
        Ok(()) => sync_parent(path),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
        Err(error) => Err(io("remove", path)(error)),
    }
}
