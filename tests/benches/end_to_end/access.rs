//! Access files for peaq's buyers: both programs as they are typed, on the same published folder; and what a key costs.
//!
//! A round of the official `grant` takes minutes, so it has one, and both sides are on the clock: the official program is one
//! thread, ours uses the processors.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::Instant,
};

use rand::rng;
use tributary_protocol::{
    keys::{EncryptionKey, FeedKey},
    peaq::{
        chain::{ChainBuilder, ChunkSigner},
        parties::{Recipient, Recipients, Role},
    },
};

use crate::{Bench, machine::cpu_seconds, measure::median, nodes::program, table::Goal};

const CHUNKS: usize = 10_000;
/// A tenth: the time for one chunk must not grow with their number.
const FEW: usize = 1_000;
/// Keys that are wrapped in a round.
const KEYS: usize = 2_000;

struct Party {
    private: String,
    public: String,
}

fn party() -> Party {
    let key = EncryptionKey::generate(&mut rng());
    Party { private: hex::encode(*key.to_bytes()), public: key.public().to_string() }
}

/// The envelopes of so many chunks of one byte. `grant` reads nothing else.
fn publish(dir: &Path, count: usize, owner: &str) {
    fs::create_dir(dir).unwrap();
    let feed = FeedKey::generate(&mut rng());
    let signer = ChunkSigner::new(&feed, "did:peaq:0x00112233445566778899aabbccddeeff00112233", "keys-1").unwrap();
    let recipients = Recipients::new(owner, &party().public, &party().public).unwrap();
    let mut chain = ChainBuilder::new(1, &recipients, &signer).unwrap();
    let bytes = vec![7; count];
    let (mut left, mut index) = (bytes.as_slice(), 0);
    while let Some(chunk) = chain.next_chunk(&mut left, &mut rng()).unwrap() {
        fs::write(dir.join(format!("chunk-{index}.json")), chunk.envelope.to_file_text()).unwrap();
        index += 1;
    }
    assert_eq!(index, count);
}

/// Seconds on the clock.
fn timed(command: &mut Command) -> f64 {
    let begun = Instant::now();
    let status = command.stdout(Stdio::null()).status().unwrap();
    let seconds = begun.elapsed().as_secs_f64();
    assert!(status.success(), "{command:?}");
    seconds
}

struct Grant {
    program: PathBuf,
    owner_key: PathBuf,
    buyer: String,
    /// Names of output folders are used once.
    runs: usize,
}

impl Grant {
    fn out(&mut self, beside: &Path) -> PathBuf {
        self.runs += 1;
        beside.with_file_name(format!("access-{}", self.runs))
    }

    fn ours(&mut self, chunks: &Path) -> f64 {
        let out = self.out(chunks);
        let seconds = timed(
            Command::new(&self.program)
                .args(["grant", "--format", "peaq", "--json", "--buyer", "buyer-1", "--key", &self.buyer])
                .arg("--chunk-dir")
                .arg(chunks)
                .arg("--owner-key-file")
                .arg(&self.owner_key)
                .arg("--out")
                .arg(&out),
        );
        fs::remove_dir_all(out).unwrap();
        seconds
    }

    fn official(&mut self, peaqos: &Path, chunks: &Path) -> f64 {
        let out = self.out(chunks);
        let seconds = timed(
            tributary_tests::peaq::quiet(peaqos)
                .args(["-q", "stream", "grant", "--json", "--buyer-id", "buyer-1", "--buyer-public-key", &self.buyer])
                .arg("--chunk-dir")
                .arg(chunks)
                .arg("--owner-private-key-file")
                .arg(&self.owner_key)
                .arg("--output-dir")
                .arg(&out),
        );
        fs::remove_dir_all(out).unwrap();
        seconds
    }
}

pub(crate) fn run(bench: &mut Bench) {
    wrapping(bench);
    let owner = party();
    let dir = bench.dir.join("access");
    fs::create_dir(&dir).unwrap();
    let (many, few) = (dir.join("many"), dir.join("few"));
    publish(&many, CHUNKS, &owner.public);
    publish(&few, FEW, &owner.public);
    let owner_key = dir.join("owner.hex");
    fs::write(&owner_key, &owner.private).unwrap();
    let mut grant = Grant { program: program(), owner_key, buyer: party().public, runs: 0 };

    grant.ours(&few);
    let mut ours = vec![];
    let mut growth = vec![];
    for _ in 0..bench.rounds {
        let seconds = grant.ours(&many);
        ours.push(CHUNKS as f64 / seconds);
        growth.push((seconds / CHUNKS as f64) / (grant.ours(&few) / FEW as f64));
    }
    // Beside the SDK's Python, when it is an environment with the CLI in it.
    let python = std::env::var_os("TRIBUTARY_SDK_PYTHON").map(PathBuf::from);
    let peaqos = python.and_then(|python| Some(python.parent()?.join("peaqos"))).filter(|path| path.is_file());
    let table = &mut bench.table;
    let what = "access files for 10,000 chunks";
    match peaqos {
        Some(peaqos) => {
            let official = [CHUNKS as f64 / grant.official(&peaqos, &many)];
            let ours = [median(&ours)];
            table.compare(what, &ours, ("`peaqos stream grant`", &official), "chunks/s", Goal::AtLeast(10.0));
        }
        None => table.value(what, median(&ours), "chunks/s", Goal::None),
    }
    table.value("time for a chunk, of 10,000 over of 1,000", median(&growth), "times", Goal::AtMost(1.25));
    fs::remove_dir_all(dir).unwrap();
}

/// One chunk key sealed for owner, operator and machine.
fn wrapping(bench: &mut Bench) {
    let recipient = |role| Recipient::new("recipient-1", role, &party().public).unwrap();
    let three = [recipient(Role::Owner), recipient(Role::Operator), recipient(Role::Machine)];
    let (mut ours, mut sdks) = (vec![], vec![]);
    for _ in 0..bench.rounds {
        let (seconds, ()) = cpu_seconds(|| {
            for _ in 0..KEYS {
                let key: [u8; 32] = rand::random();
                for recipient in &three {
                    std::hint::black_box(recipient.wrap(&key, &mut rng()).unwrap());
                }
            }
        });
        ours.push(KEYS as f64 / seconds);
        if let Some(sdk) = &mut bench.sdk {
            sdks.push(KEYS as f64 / sdk.round("wrap", KEYS));
        }
    }
    let (what, table) = ("wrap chunk keys for three recipients", &mut bench.table);
    if bench.sdk.is_some() {
        table.compare(what, &ours, ("SDK, three sealed boxes", &sdks), "keys/s/core", Goal::None);
    } else {
        table.value(what, median(&ours), "keys/s/core", Goal::None);
    }
}
