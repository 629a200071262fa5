//! The home folder of a node: where it is, who may look into it, and the keys in it.
//!
//! ```text
//! <home>/            0700
//!   config.yaml      the configuration
//!   keys/            0700; every file in it 0600, of the form in `home/keyfile.rs`
//!     identity.key  feed.key  node.key  encryption.key
//!     seed.key       what a machine's epoch seeds are sealed to, in the form of `home/seed_key.rs`
//!     feed.next.key  only while feed keys are rotated
//!     owner.key      only until it is moved off the machine, when `init` made the owner
//!     owner.pub      the owner's public keys
//!   proposal.json    a binding that waits for the owner's signature
//!   store/           the chunk store
//!   control.sock     control API of the running node
//!   lock             held by the process that uses the home
//! ```
//!
//! This module makes and checks the folder, reads and writes the keys, and holds the lock. It never overwrites a key that is in
//! use, never puts a secret into an error or a log, and refuses files that others can read.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
};

use libp2p::{PeerId, identity::Keypair};
use rand_core::CryptoRng;
use tributary_protocol::{
    identity::IdentityKey,
    ids::Did,
    keys::{EncryptionKey, EncryptionPublicKey, FeedKey, FeedPublicKey},
};
use zeroize::Zeroizing;

mod error;
mod files;
mod keyfile;
mod lock;
mod owner;
mod rotation;
mod seed_key;

pub use error::HomeError;
pub use keyfile::{KeyKind, Passphrase};
pub use lock::HomeLock;
pub use owner::{OwnerKey, OwnerPublic};

pub(crate) use files::{append_private, read_hex_key, read_token};
pub(crate) use seed_key::SeedKeys;

use files::{check_private, io, make_dir, make_private, read_private, sync_parent, write_private};
use keyfile::KeyFile;

/// A home folder with keys.
#[derive(Debug, Clone)]
pub struct Home {
    path: PathBuf,
}

/// What [`Home::init`] starts from.
pub struct InitOptions {
    /// The owner's public keys; `None` makes an owner, whose key file must then be moved off the machine.
    pub owner: Option<OwnerPublic>,
    /// An identity that exists already, from a peaqOS activation; `None` makes one.
    pub identity: Option<IdentityKey>,
    /// Seals the key files.
    pub passphrase: Option<Passphrase>,
    /// Text of `config.yaml`; a file that is there already is kept.
    pub config: String,
}

/// The secret keys a running node needs. Has no `Debug`.
pub struct MachineKeys {
    /// Is the peaqID; signs packages and bindings.
    pub identity: Arc<IdentityKey>,
    /// Signs feeds.
    pub feed: Arc<FeedKey>,
    /// libp2p, Ed25519.
    pub node: Keypair,
    /// Unwraps what is addressed to this party.
    pub encryption: Arc<EncryptionKey>,
}

/// What may be shown of a home's keys.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PublicKeys {
    /// The peaqID.
    pub did: Did,
    /// The feed key.
    pub feed: FeedPublicKey,
    /// The libp2p peer.
    pub peer: PeerId,
    /// The encryption key.
    pub encryption: EncryptionPublicKey,
    /// The owner.
    pub owner: OwnerPublic,
    /// Whether the secrets are sealed with a passphrase.
    pub sealed: bool,
}

impl Home {
    /// The folder to use: `given`, or else `$TRIBUTARY_HOME`, or else `~/.tributary`.
    pub fn locate(given: Option<&Path>) -> Result<PathBuf, HomeError> {
        let variable = |name| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
        given
            .map(Path::to_owned)
            .or_else(|| variable("TRIBUTARY_HOME"))
            .or_else(|| variable("HOME").map(|home| home.join(".tributary")))
            .ok_or(HomeError::NoHome)
    }

    /// Makes a home in a folder that is empty or not there. The keys appear all at once: after a crash in between, `init` can
    /// be run again.
    pub fn init(path: &Path, options: InitOptions, rng: &mut impl CryptoRng) -> Result<Self, HomeError> {
        let home = Self { path: path.to_owned() };
        if home.keys_dir().exists() {
            return Err(HomeError::Exists { path: home.path });
        }
        home.prepare_folder()?;
        let _lock = HomeLock::take(&home.lock_path(), &home.path)?;
        // Again under the lock: two `init` at once must not both make keys.
        if home.keys_dir().exists() {
            return Err(HomeError::Exists { path: home.path });
        }
        let InitOptions { owner, identity, passphrase, config } = options;
        let passphrase = passphrase.as_ref();
        let staging = home.path.join("keys.new");
        if staging.exists() {
            std::fs::remove_dir_all(&staging).map_err(io("remove", &staging))?;
        }
        make_dir(&staging)?;
        let identity = identity.unwrap_or_else(|| IdentityKey::generate(rng));
        let did = identity.did().to_string();
        write_key(&staging, KeyKind::Identity, &did, &*identity.to_bytes(), passphrase, rng)?;
        let feed = FeedKey::generate(rng);
        write_key(&staging, KeyKind::Feed, &feed.public().to_string(), &*feed.to_bytes(), passphrase, rng)?;
        let mut seed = Zeroizing::new([0; 32]);
        rng.fill_bytes(&mut *seed);
        let peer = node_key(&seed).public().to_peer_id().to_string();
        write_key(&staging, KeyKind::Node, &peer, &*seed, passphrase, rng)?;
        let encryption = EncryptionKey::generate(rng);
        let public = encryption.public().to_string();
        write_key(&staging, KeyKind::Encryption, &public, &*encryption.to_bytes(), passphrase, rng)?;
        seed_key::write(&seed_key::path(&staging), &EncryptionKey::generate(rng), &encryption, rng)?;
        let owner = match owner {
            Some(owner) => owner,
            None => {
                let owner = OwnerKey::generate(rng);
                let public = owner.public().to_string();
                write_key(&staging, KeyKind::Owner, &public, &*owner.to_bytes(), passphrase, rng)?;
                owner.public()
            }
        };
        write_private(&staging.join("owner.pub"), format!("{owner}\n").as_bytes())?;
        if !home.config_path().exists() {
            write_private(&home.config_path(), config.as_bytes())?;
        }
        let keys = home.keys_dir();
        std::fs::rename(&staging, &keys).map_err(io("rename to", &keys))?;
        sync_parent(&keys)?;
        sync_parent(&home.path)?;
        Ok(home)
    }

    /// Makes the folder, or takes an empty one; what a broken-off `init` left does not count.
    fn prepare_folder(&self) -> Result<(), HomeError> {
        let path = &self.path;
        if !path.exists() {
            return make_dir(path);
        }
        for entry in std::fs::read_dir(path).map_err(io("list", path))? {
            let name = entry.map_err(io("list", path))?.file_name();
            let ours = ["config.yaml", ".config.yaml.tmp", "keys.new", "lock"].iter().any(|ours| name == *ours);
            if !ours {
                return Err(HomeError::Occupied { path: path.clone() });
            }
        }
        make_private(path)
    }

    /// Opens a home: it must have keys, and nobody else may see into it.
    pub fn open(path: &Path) -> Result<Self, HomeError> {
        let home = Self { path: path.to_owned() };
        if !home.keys_dir().is_dir() {
            return Err(HomeError::NotAHome { path: home.path });
        }
        check_private(&home.path)?;
        check_private(&home.keys_dir())?;
        Ok(home)
    }

    /// Takes the home for this process, without waiting.
    pub fn lock(&self) -> Result<HomeLock, HomeError> {
        HomeLock::take(&self.lock_path(), &self.path)
    }

    /// Loads the secret keys.
    pub fn keys(&self, passphrase: Option<&Passphrase>) -> Result<MachineKeys, HomeError> {
        let identity = {
            let file = self.key_file(KeyKind::Identity)?;
            let key = IdentityKey::from_bytes(&*secret(&file, passphrase)?)
                .map_err(|_| file.bad("not a secp256k1 secret key"))?;
            matches(&file, &key.did().to_string())?;
            key
        };
        let feed = {
            let file = self.key_file(KeyKind::Feed)?;
            let key = FeedKey::from_bytes(&*secret(&file, passphrase)?);
            matches(&file, &key.public().to_string())?;
            key
        };
        let node = {
            let file = self.key_file(KeyKind::Node)?;
            let key = node_key(&*secret(&file, passphrase)?);
            matches(&file, &key.public().to_peer_id().to_string())?;
            key
        };
        let encryption = {
            let file = self.key_file(KeyKind::Encryption)?;
            let key = EncryptionKey::from_bytes(&*secret(&file, passphrase)?);
            matches(&file, &key.public().to_string())?;
            key
        };
        Ok(MachineKeys { identity: Arc::new(identity), feed: Arc::new(feed), node, encryption: Arc::new(encryption) })
    }

    /// What may be shown of the keys. Needs no passphrase.
    pub fn public_keys(&self) -> Result<PublicKeys, HomeError> {
        let identity = self.key_file(KeyKind::Identity)?;
        Ok(PublicKeys {
            did: public(&identity)?,
            feed: public(&self.key_file(KeyKind::Feed)?)?,
            peer: public(&self.key_file(KeyKind::Node)?)?,
            encryption: public(&self.key_file(KeyKind::Encryption)?)?,
            owner: self.owner()?,
            sealed: identity.sealed,
        })
    }

    /// The owner's public keys.
    pub fn owner(&self) -> Result<OwnerPublic, HomeError> {
        let path = self.keys_dir().join("owner.pub");
        let text = read_private(&path)?.ok_or(HomeError::MissingKey { kind: KeyKind::Owner, path })?;
        text.trim().parse()
    }

    /// The owner's secret keys, while they are still on this machine. For an owner key elsewhere: [`Home::read_owner_key`].
    pub fn owner_key(&self, passphrase: Option<&Passphrase>) -> Result<Option<OwnerKey>, HomeError> {
        let path = self.owner_key_path();
        if path.exists() { Self::read_owner_key(&path, passphrase).map(Some) } else { Ok(None) }
    }

    /// An owner key file that is kept off the machine.
    pub fn read_owner_key(path: &Path, passphrase: Option<&Passphrase>) -> Result<OwnerKey, HomeError> {
        let kind = KeyKind::Owner;
        let file = KeyFile::read(path, kind)?.ok_or_else(|| HomeError::MissingKey { kind, path: path.to_owned() })?;
        let mut bytes = Zeroizing::new([0; 64]);
        bytes.copy_from_slice(&file.open(passphrase)?);
        let key = OwnerKey::from_bytes(&bytes).ok_or_else(|| file.bad("not a secp256k1 secret key"))?;
        matches(&file, &key.public().to_string())?;
        Ok(key)
    }

    /// The folder.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The configuration file.
    #[must_use]
    pub fn config_path(&self) -> PathBuf {
        self.path.join("config.yaml")
    }

    /// The chunk store's folder.
    #[must_use]
    pub fn store_path(&self) -> PathBuf {
        self.path.join("store")
    }

    /// The control socket, unless the configuration names another.
    #[must_use]
    pub fn control_path(&self) -> PathBuf {
        self.path.join("control.sock")
    }

    /// What the network remembers over a restart.
    pub(crate) fn peers_path(&self) -> PathBuf {
        self.path.join("peers.json")
    }

    /// Writes what the network remembers; whole, or not at all.
    pub(crate) fn write_peers(&self, page: &[u8]) -> Result<(), HomeError> {
        write_private(&self.peers_path(), page)
    }

    /// Where an owner key lies that `init` made, until it is moved off the machine.
    #[must_use]
    pub fn owner_key_path(&self) -> PathBuf {
        self.key_path(KeyKind::Owner)
    }

    /// Whether the owner key still has to be moved off the machine.
    #[must_use]
    pub fn owner_key_is_here(&self) -> bool {
        self.owner_key_path().exists()
    }

    fn lock_path(&self) -> PathBuf {
        self.path.join("lock")
    }

    /// The folder of the key files.
    pub(crate) fn keys_dir(&self) -> PathBuf {
        self.path.join("keys")
    }

    fn key_path(&self, kind: KeyKind) -> PathBuf {
        self.keys_dir().join(format!("{kind}.key"))
    }

    fn key_file(&self, kind: KeyKind) -> Result<KeyFile, HomeError> {
        let path = self.key_path(kind);
        KeyFile::read(&path, kind)?.ok_or(HomeError::MissingKey { kind, path })
    }
}

/// Reads an identity key from a private file with 64 hex digits.
pub fn import_identity(path: &Path) -> Result<IdentityKey, HomeError> {
    IdentityKey::from_bytes(&*read_hex_key(path)?)
        .map_err(|_| HomeError::BadHexKey { path: path.to_owned(), problem: "not a secp256k1 secret key" })
}

fn write_key(
    folder: &Path,
    kind: KeyKind,
    public: &str,
    secret: &[u8],
    passphrase: Option<&Passphrase>,
    rng: &mut impl CryptoRng,
) -> Result<(), HomeError> {
    keyfile::write(&folder.join(format!("{kind}.key")), kind, public, secret, passphrase, rng)
}

fn secret(file: &KeyFile, passphrase: Option<&Passphrase>) -> Result<Zeroizing<[u8; 32]>, HomeError> {
    let opened = file.open(passphrase)?;
    let mut out = Zeroizing::new([0; 32]);
    if opened.len() != out.len() {
        return Err(file.bad("the secret has the wrong length"));
    }
    out.copy_from_slice(&opened);
    Ok(out)
}

fn public<T: std::str::FromStr>(file: &KeyFile) -> Result<T, HomeError> {
    file.public.parse().map_err(|_| file.bad("the `public` line is not in its form"))
}

fn matches(file: &KeyFile, public: &str) -> Result<(), HomeError> {
    if file.public == public { Ok(()) } else { Err(file.bad("the secret does not belong to the `public` line")) }
}

fn node_key(seed: &[u8; 32]) -> Keypair {
    let mut seed = Zeroizing::new(*seed);
    Keypair::ed25519_from_bytes(&mut seed[..]).expect("any 32 bytes are an Ed25519 seed")
}

#[cfg(test)]
mod tests;
