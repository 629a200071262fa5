//! What can go wrong with a home folder and its keys.

use std::path::PathBuf;

use super::keyfile::KeyKind;

/// Why a home folder or a key in it cannot be used. The message says what to do.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum HomeError {
    /// No home folder is known.
    #[error("no home folder: neither --home, nor TRIBUTARY_HOME, nor HOME is set; give one with --home")]
    NoHome,
    /// The folder has no keys.
    #[error("{} is not a Tributary home (it has no keys folder); make one with `tributary init`", path.display())]
    NotAHome {
        /// The folder.
        path: PathBuf,
    },
    /// The folder has keys already.
    #[error("{} is a Tributary home already, and its keys are never overwritten; choose another folder with --home", path.display())]
    Exists {
        /// The folder.
        path: PathBuf,
    },
    /// The folder holds something else.
    #[error("{} is not empty and not a Tributary home; choose another folder with --home", path.display())]
    Occupied {
        /// The folder.
        path: PathBuf,
    },
    /// Others than the owner can read or write it.
    #[error(
        "{} can be read or written by others (mode {mode:03o}); make it private: chmod {wanted:03o} {}",
        path.display(),
        path.display()
    )]
    Permissions {
        /// File or folder.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
        /// The bits it should have.
        wanted: u32,
    },
    /// Another process uses the home.
    #[error("{} is in use by another process{}; stop it, or let it do the work through its control socket", path.display(), show_pid(.pid))]
    Locked {
        /// The home.
        path: PathBuf,
        /// The process, if it wrote its id.
        pid: Option<u32>,
    },
    /// A key file is missing.
    #[error("the {kind} key is missing: {}; restore it from your backup", path.display())]
    MissingKey {
        /// Which key.
        kind: KeyKind,
        /// Where it should be.
        path: PathBuf,
    },
    /// A key file cannot be understood.
    #[error("{} is not a valid {kind} key: {problem}; restore it from your backup", path.display())]
    BadKey {
        /// Which key.
        kind: KeyKind,
        /// The file.
        path: PathBuf,
        /// What is wrong.
        problem: &'static str,
    },
    /// A key file of hex digits (an imported identity, a field rule's key) cannot be understood.
    #[error("{} does not hold a key: {problem}", path.display())]
    BadHexKey {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        problem: &'static str,
    },
    /// A file of a token cannot be understood.
    #[error("{} does not hold a token: {problem}; make one with `openssl rand -hex 32`", path.display())]
    BadToken {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        problem: &'static str,
    },
    /// The key is sealed and there is no passphrase.
    #[error("the {kind} key is sealed; give the passphrase in TRIBUTARY_PASSPHRASE or with --passphrase-file")]
    PassphraseNeeded {
        /// Which key.
        kind: KeyKind,
    },
    /// The passphrase does not open the key.
    #[error("the passphrase does not open the {kind} key in {}; check TRIBUTARY_PASSPHRASE or --passphrase-file", path.display())]
    WrongPassphrase {
        /// Which key.
        kind: KeyKind,
        /// The file.
        path: PathBuf,
    },
    /// A passphrase that protects nothing.
    #[error("the passphrase is empty or longer than 1024 bytes; give another one")]
    BadPassphrase,
    /// The owner's public keys are not in their form.
    #[error(
        "not an owner's public keys: expected did:peaq:0x, 40 hex digits, a slash, and 64 hex digits, as `init` and `key show` print them"
    )]
    BadOwner,
    /// The file system refused.
    #[error("cannot {action} {}: {source}", path.display())]
    Io {
        /// What was tried.
        action: &'static str,
        /// File or folder.
        path: PathBuf,
        /// The system's reason.
        source: std::io::Error,
    },
}

fn show_pid(pid: &Option<u32>) -> String {
    pid.map(|pid| format!(" (pid {pid})")).unwrap_or_default()
}
