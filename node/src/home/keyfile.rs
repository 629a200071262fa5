//! The form of a key file.
//!
//! ```text
//! tributary-key 1
//! kind: feed
//! public: 5f3c…                                      what may be shown; checked against the secret when it is loaded
//! secret: 9d61…                                      hex, or instead of this line:
//! sealed: scrypt 15 8 1 <salt> <nonce> <ciphertext>  hex: 16, 24, secret + 16 bytes
//! ```
//!
//! Sealed is XChaCha20-Poly1305 with a random nonce under scrypt(passphrase, salt, log2 N, r, p); everything before the word
//! `sealed` is authenticated with it, so a sealed key cannot stand in for another one.

use std::{fmt, path::Path, sync::Mutex};

use chacha20poly1305::{
    KeyInit as _, XChaCha20Poly1305,
    aead::{Aead as _, Payload},
};
use rand_core::CryptoRng;
use zeroize::Zeroizing;

use super::{
    error::HomeError,
    files::{read_private, write_private},
};

const MAGIC: &str = "tributary-key 1";
const MAX_PASSPHRASE: usize = 1_024;
/// 32 MiB and about 100 ms: what a small robot can afford at every start.
const LOG_N: u8 = 15;
/// Up to 256 MiB is accepted from a file, so that a damaged one cannot take all memory.
const MAX_LOG_N: u8 = 18;

/// Which key a file holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum KeyKind {
    /// secp256k1; is the peaqID.
    Identity,
    /// secp256k1 and X25519; belongs off the machine.
    Owner,
    /// Ed25519; signs feeds.
    Feed,
    /// Ed25519; libp2p.
    Node,
    /// X25519; unwraps what is addressed to this party.
    Encryption,
    /// X25519; epoch seeds are sealed to it.
    Seed,
}

impl KeyKind {
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Identity => "identity",
            Self::Owner => "owner",
            Self::Feed => "feed",
            Self::Node => "node",
            Self::Encryption => "encryption",
            Self::Seed => "seed",
        }
    }

    fn secret_len(self) -> usize {
        if self == Self::Owner { 64 } else { 32 }
    }
}

impl fmt::Display for KeyKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// What seals key files at rest. Has no `Debug`.
pub struct Passphrase {
    text: Zeroizing<String>,
    /// The derived key of the salt met last: the keys of a home share one, and scrypt is slow on purpose.
    last: Mutex<Option<Derived>>,
}

struct Derived {
    cost: Cost,
    key: Zeroizing<[u8; 32]>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
struct Cost {
    log_n: u8,
    salt: [u8; 16],
}

impl Passphrase {
    /// The same passphrase once more, for who needs it twice.
    pub(crate) fn again(&self) -> Self {
        Self { text: self.text.clone(), last: Mutex::default() }
    }

    /// A passphrase of 1 to 1024 bytes; line ends at its end do not count.
    pub fn new(text: Zeroizing<String>) -> Result<Self, HomeError> {
        let text = Zeroizing::new(text.trim_end_matches(['\r', '\n']).to_owned());
        if text.is_empty() || text.len() > MAX_PASSPHRASE {
            return Err(HomeError::BadPassphrase);
        }
        Ok(Self { text, last: Mutex::new(None) })
    }

    /// The passphrase in a private file.
    pub fn from_file(path: &Path) -> Result<Self, HomeError> {
        let text = read_private(path)?.ok_or_else(|| HomeError::BadHexKey {
            path: path.to_owned(),
            problem: "there is no such passphrase file",
        })?;
        Self::new(text)
    }

    fn cipher(&self, cost: Cost) -> XChaCha20Poly1305 {
        let mut last = self.last.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        if last.as_ref().is_none_or(|derived| derived.cost != cost) {
            let mut key = Zeroizing::new([0; 32]);
            let params = scrypt::Params::new(cost.log_n, 8, 1).expect("log N was checked to be from 10 to 18");
            scrypt::scrypt(self.text.as_bytes(), &cost.salt, &params, &mut *key).expect("32 bytes is a valid length");
            *last = Some(Derived { cost, key });
        }
        let key = &last.as_ref().expect("was just set").key;
        XChaCha20Poly1305::new((&**key).into())
    }

    /// The cost and salt that new key files of this home share.
    fn sealing_cost(&self, rng: &mut impl CryptoRng) -> Cost {
        let last = self.last.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        last.as_ref().map_or_else(
            || {
                let mut salt = [0; 16];
                rng.fill_bytes(&mut salt);
                Cost { log_n: LOG_N, salt }
            },
            |derived| derived.cost,
        )
    }
}

fn head(kind: KeyKind, public: &str) -> String {
    format!("{MAGIC}\nkind: {kind}\npublic: {public}\n")
}

/// Writes a key file, sealed when there is a passphrase.
pub(super) fn write(
    path: &Path,
    kind: KeyKind,
    public: &str,
    secret: &[u8],
    passphrase: Option<&Passphrase>,
    rng: &mut impl CryptoRng,
) -> Result<(), HomeError> {
    let head = head(kind, public);
    // Full size at once: growing would leave copies of the secret behind.
    let mut text = Zeroizing::new(String::with_capacity(1_024));
    text.push_str(&head);
    match passphrase {
        None => {
            let digits = Zeroizing::new(hex::encode(secret));
            text.push_str("secret: ");
            text.push_str(&digits);
        }
        Some(passphrase) => {
            let cost = passphrase.sealing_cost(rng);
            let mut nonce = [0; 24];
            rng.fill_bytes(&mut nonce);
            let sealed = passphrase
                .cipher(cost)
                .encrypt((&nonce).into(), Payload { msg: secret, aad: head.as_bytes() })
                .expect("a key is far below the cipher's limit");
            let (salt, nonce, sealed) = (hex::encode(cost.salt), hex::encode(nonce), hex::encode(sealed));
            text.push_str(&format!("sealed: scrypt {} 8 1 {salt} {nonce} {sealed}", cost.log_n));
        }
    }
    text.push('\n');
    write_private(path, text.as_bytes())
}

/// A key file that was read but not opened.
pub(super) struct KeyFile {
    path: std::path::PathBuf,
    kind: KeyKind,
    /// What may be shown of the key.
    pub(super) public: String,
    /// Whether a passphrase is needed.
    pub(super) sealed: bool,
    body: Zeroizing<String>,
}

impl KeyFile {
    /// Reads the file of a key; `None` if it is not there.
    pub(super) fn read(path: &Path, kind: KeyKind) -> Result<Option<Self>, HomeError> {
        let Some(text) = read_private(path)? else { return Ok(None) };
        let bad = |problem| HomeError::BadKey { kind, path: path.to_owned(), problem };
        let mut lines = text.lines();
        if lines.next() != Some(MAGIC) {
            return Err(bad("the first line is not `tributary-key 1`"));
        }
        if lines.next().and_then(|line| line.strip_prefix("kind: ")) != Some(kind.name()) {
            return Err(bad("it holds a key of another kind"));
        }
        let public =
            lines.next().and_then(|line| line.strip_prefix("public: ")).ok_or_else(|| bad("no `public` line"))?;
        let body = lines.next().ok_or_else(|| bad("no `secret` or `sealed` line"))?;
        let (sealed, body) = match (body.strip_prefix("secret: "), body.strip_prefix("sealed: ")) {
            (Some(body), _) => (false, body),
            (_, Some(body)) => (true, body),
            _ => return Err(bad("no `secret` or `sealed` line")),
        };
        if lines.next().is_some() {
            return Err(bad("there is more after the key"));
        }
        let body = Zeroizing::new(body.to_owned());
        Ok(Some(Self { path: path.to_owned(), kind, public: public.to_owned(), sealed, body }))
    }

    /// The error that this file is not what it should be.
    pub(super) fn bad(&self, problem: &'static str) -> HomeError {
        HomeError::BadKey { kind: self.kind, path: self.path.clone(), problem }
    }

    /// The secret, of the length of its kind.
    pub(super) fn open(&self, passphrase: Option<&Passphrase>) -> Result<Zeroizing<Vec<u8>>, HomeError> {
        let secret = if self.sealed {
            self.unseal(passphrase.ok_or(HomeError::PassphraseNeeded { kind: self.kind })?)?
        } else {
            Zeroizing::new(hex::decode(self.body.as_bytes()).map_err(|_| self.bad("the secret is not hex"))?)
        };
        if secret.len() == self.kind.secret_len() {
            Ok(secret)
        } else {
            Err(self.bad("the secret has the wrong length"))
        }
    }

    fn unseal(&self, passphrase: &Passphrase) -> Result<Zeroizing<Vec<u8>>, HomeError> {
        let words: Vec<&str> = self.body.split(' ').collect();
        let ["scrypt", log_n, "8", "1", salt, nonce, sealed] = words[..] else {
            return Err(self.bad("sealed in a way this version does not know"));
        };
        let log_n = log_n.parse().ok().filter(|n| (10..=MAX_LOG_N).contains(n));
        let log_n = log_n.ok_or_else(|| self.bad("the scrypt cost is out of bounds (10 to 18)"))?;
        let mut cost = Cost { log_n, salt: [0; 16] };
        let mut nonce_bytes = [0; 24];
        let hexed =
            hex::decode_to_slice(salt, &mut cost.salt).and_then(|()| hex::decode_to_slice(nonce, &mut nonce_bytes));
        let (Ok(()), Ok(sealed)) = (hexed, hex::decode(sealed)) else {
            return Err(self.bad("salt, nonce or ciphertext is not hex of the right length"));
        };
        let head = head(self.kind, &self.public);
        passphrase
            .cipher(cost)
            .decrypt((&nonce_bytes).into(), Payload { msg: &sealed, aad: head.as_bytes() })
            .map(Zeroizing::new)
            .map_err(|_| HomeError::WrongPassphrase { kind: self.kind, path: self.path.clone() })
    }
}
