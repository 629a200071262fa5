//! Parties with known keys, a machine that publishes files, and both programs by their arguments.

use std::{
    fs,
    path::{Path, PathBuf},
};

use serde_json::{Value, json};
use tributary_protocol::{keys::FeedKey, peaq::sealed_box::BoxSecretKey};
use tributary_tests::{
    home::{Sandbox, head},
    node::{Ended, command},
    peaq::{Official, PeaqosEnded},
};

/// Bytes of a chunk: the smallest that a stream can have.
pub(crate) const CHUNK: usize = 4096;
/// Ids that are not ASCII, and one beyond the basic plane.
pub(crate) const BUYER: &str = "käufer-\u{1f916}";
pub(crate) const KEY_ID: &str = "schlüssel-\u{5b57}";

/// An X25519 key pair.
pub(crate) struct Party {
    pub(crate) private: String,
    pub(crate) public: String,
}

impl Party {
    pub(crate) fn new() -> Self {
        let private: [u8; 32] = rand::random();
        let public = hex::encode(BoxSecretKey::from_bytes(&private).public_key());
        Self { private: hex::encode(private), public }
    }
}

/// Owner, operator, machine and buyer of one test, a folder, and a machine with a stream of files.
pub(crate) struct Stage {
    pub(crate) sandbox: Sandbox,
    pub(crate) home: PathBuf,
    pub(crate) owner: Party,
    pub(crate) operator: Party,
    pub(crate) machine: Party,
    pub(crate) buyer: Party,
}

/// Reproducible bytes that do not repeat.
pub(crate) fn bytes(len: usize) -> Vec<u8> {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64 ^ len as u64;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_le_bytes()
    };
    let mut out: Vec<u8> = std::iter::repeat_with(&mut next).take(len.div_ceil(8)).flatten().collect();
    out.truncate(len);
    out
}

impl Stage {
    pub(crate) fn new() -> Self {
        Self::with("")
    }

    /// `more` is further text of the configuration.
    pub(crate) fn with(more: &str) -> Self {
        let sandbox = Sandbox::new();
        let files = "  - { topic: files, mode: file, chunk: { bytes: 4KiB }, access: { policy: free } }\n";
        let large = "  - { topic: large, mode: file, chunk: { bytes: 1MiB } }\n";
        let packed = "  - { topic: packed, mode: file, compression: zstd }\n";
        let base = head("machine", sandbox.port("machine"), "");
        let home = sandbox.home("machine", &format!("{base}streams:\n{files}{large}{packed}{more}"));
        let party = Party::new;
        Self { sandbox, home, owner: party(), operator: party(), machine: party(), buyer: party() }
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.sandbox.path().join(name)
    }

    /// As [`Stage::path`], as an argument.
    pub(crate) fn arg(&self, name: &str) -> String {
        self.path(name).to_str().unwrap().to_owned()
    }

    /// Writes a file; returns its path.
    pub(crate) fn file(&self, name: &str, bytes: &[u8]) -> String {
        fs::write(self.path(name), bytes).unwrap();
        self.arg(name)
    }

    /// Runs `tributary`.
    pub(crate) async fn run(&self, args: &[&str]) -> Ended {
        command(&self.home, args).await
    }

    /// The peaqID of the home.
    pub(crate) async fn did(&self) -> String {
        let keys = self.run(&["key", "show", "--json"]).await.json();
        keys["did"].as_str().unwrap().to_owned()
    }

    /// Publishes a file for peaq into the folder `out`; `more` is further arguments.
    pub(crate) async fn publish(&self, input: &str, out: &str, more: &[&str]) -> Ended {
        let out = self.arg(out);
        let mut args = vec!["publish", input, "--stream", "files", "--format", "peaq", "--out", &out, "--json"];
        args.extend(["--owner-public-key", &self.owner.public, "--operator-public-key", &self.operator.public]);
        args.extend(["--machine-public-key", &self.machine.public, "--machine-key-id", KEY_ID]);
        args.extend(more);
        self.run(&args).await
    }

    /// Publishes the bytes as in [`Stage::publish`]; returns the folder and what the command printed.
    pub(crate) async fn published(&self, data: &[u8], out: &str) -> (PathBuf, Value) {
        let input = self.file(&format!("{out}.input"), data);
        let report = self.publish(&input, out, &[]).await.json();
        (self.path(out), report)
    }

    /// Runs `peaqos stream publish` into the folder `out`, signed with a new key. Returns the public key.
    pub(crate) fn official_publish(&self, official: &mut Official, input: &str, out: &str, did: &str) -> String {
        let seed: [u8; 32] = rand::random();
        let key = self.file(&format!("{out}.key"), format!("0x{}\n", hex::encode(seed)).as_bytes());
        let (out, size) = (self.arg(out), CHUNK.to_string());
        let ended = official.cli(&[
            "stream",
            "publish",
            "--input",
            input,
            "--output-dir",
            &out,
            "--chunk-size",
            &size,
            "--json",
            "--owner-public-key",
            &self.owner.public,
            "--operator-public-key",
            &self.operator.public,
            "--machine-public-key",
            &self.machine.public,
            "--signing-key-file",
            &key,
            "--machine-did",
            did,
            "--machine-key-id",
            KEY_ID,
        ]);
        assert_eq!(ended.code, 0, "{ended:?}");
        FeedKey::from_bytes(&seed).public().to_string()
    }

    /// Runs `peaqos stream grant` with the owner's key.
    pub(crate) fn official_grant(
        &self,
        official: &mut Official,
        chunks: &str,
        out: &str,
        max_size: &str,
    ) -> PeaqosEnded {
        let owner = self.file("owner.hex", self.owner.private.as_bytes());
        let (chunks, out) = (self.arg(chunks), self.arg(out));
        official.cli(&[
            "stream",
            "grant",
            "--chunk-dir",
            &chunks,
            "--output-dir",
            &out,
            "--buyer-id",
            BUYER,
            "--buyer-public-key",
            &self.buyer.public,
            "--owner-private-key-file",
            &owner,
            "--max-file-size",
            max_size,
            "--json",
        ])
    }

    /// Runs `peaqos stream consume`; returns the plaintext.
    pub(crate) fn official_consume(&self, official: &mut Official, chunks: &str, access: &str) -> Vec<u8> {
        let key = self.buyer_key();
        let (chunks, access, out) = (self.arg(chunks), self.arg(access), self.arg("consumed"));
        let ended = official.cli(&[
            "stream",
            "consume",
            "--chunk-dir",
            &chunks,
            "--data-dir",
            &chunks,
            "--access-dir",
            &access,
            "--buyer-private-key-file",
            &key,
            "--buyer-id",
            BUYER,
            "--output",
            &out,
            "--json",
        ]);
        assert_eq!(ended.code, 0, "{ended:?}");
        assert_eq!(serde_json::from_str::<Value>(&ended.stdout).unwrap()["verified"], true, "{ended:?}");
        fs::read(out).unwrap()
    }

    /// A file with the buyer's private key.
    pub(crate) fn buyer_key(&self) -> String {
        self.file("buyer.hex", format!("{}\n", self.buyer.private).as_bytes())
    }

    /// `tributary export` of a folder as the buyer, into the file `exported`; `more` is further arguments.
    pub(crate) async fn export(&self, chunks: &str, access: &str, more: &[&str]) -> Ended {
        let (key, chunks, access, out) = (self.buyer_key(), self.arg(chunks), self.arg(access), self.arg("exported"));
        let mut args = vec!["export", &chunks, "--access-dir", &access, "--buyer-key-file", &key, "--out", &out];
        args.extend(["--buyer-id", BUYER, "--json"]);
        args.extend(more);
        self.run(&args).await
    }

    /// What [`Stage::export`] wrote.
    pub(crate) fn exported(&self) -> Vec<u8> {
        fs::read(self.path("exported")).unwrap()
    }

    /// What the SDK has against a folder of ours.
    pub(crate) fn judge(
        &self,
        official: &mut Official,
        dir: &str,
        report: &Value,
        access: Option<(&str, usize)>,
    ) -> Vec<String> {
        let first: Value = serde_json::from_slice(&fs::read(self.path(dir).join("chunk-0.json")).unwrap()).unwrap();
        official.judge(&json!({
            "dir": self.path(dir),
            "expected": self.path(&format!("{dir}.input")),
            "keys": {
                "owner": self.owner.private, "operator": self.operator.private, "machine": self.machine.private,
            },
            "signer": first["signature"]["publicKeyHex"],
            "machine": report["machineDid"],
            "chunk_size": CHUNK,
            "access": access.map(|(dir, _)| self.path(dir)),
            "max_size": access.map(|(_, size)| size),
            "buyer": BUYER,
            "buyer_key": self.buyer.private,
        }))
    }
}

/// What a check printed, however it ended.
pub(crate) fn report(ended: &Ended) -> Value {
    serde_json::from_str(&ended.stdout).unwrap_or_else(|error| panic!("{error}: {ended:?}"))
}

/// Reads a JSON file, changes it, and writes it back.
pub(crate) fn edit(path: &Path, change: impl FnOnce(&mut Value)) {
    let mut value: Value = serde_json::from_slice(&fs::read(path).unwrap()).unwrap();
    change(&mut value);
    fs::write(path, serde_json::to_vec_pretty(&value).unwrap()).unwrap();
}
