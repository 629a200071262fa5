//! Access files for peaq's buyers: both programs as they are typed, on the same published folder; and what a key costs.
//!
//! The official `grant` takes tens of seconds for a few thousand chunks, so it has one round of each size and stops at
//! [`OFFICIAL`]'s last, whose rate is what ours for [`CHUNKS`] is held against: it does not rise with the number.
//! `TRIBUTARY_BENCH_OFFICIAL_CHUNKS` sets another last size. Both sides are on the clock: the official program is one thread, ours
//! uses the processors.

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
/// The time for one chunk must not grow from the first to the last.
const SIZES: [usize; 3] = [2_000, CHUNKS, 20_000];
/// Chunks for the official program.
const OFFICIAL: [usize; 4] = [500, 1_000, 2_000, 4_000];
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

/// The first so many of them, as a folder of their own: the beginning of a chain is one.
fn beginning(of: &Path, count: usize) -> PathBuf {
    let dir = of.with_file_name(format!("first-{count}"));
    fs::create_dir(&dir).unwrap();
    for index in 0..count {
        let name = format!("chunk-{index}.json");
        fs::hard_link(of.join(&name), dir.join(&name)).unwrap();
    }
    dir
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
    let [_, _, most] = SIZES;
    let all = dir.join("all");
    publish(&all, most, &owner.public);
    let folders = SIZES.map(|count| beginning(&all, count));
    let owner_key = dir.join("owner.hex");
    fs::write(&owner_key, &owner.private).unwrap();
    let mut grant = Grant { program: program(), owner_key, buyer: party().public, runs: 0 };

    grant.ours(&folders[0]);
    let (mut ours, mut growth) = (vec![], vec![]);
    for _ in 0..bench.rounds {
        let [few, many, most] = [0, 1, 2].map(|at| grant.ours(&folders[at]) / SIZES[at] as f64);
        ours.push(1.0 / many);
        growth.push(most / few);
    }
    // Beside the SDK's Python, when it is an environment with the CLI in it.
    let python = std::env::var_os("TRIBUTARY_SDK_PYTHON").map(PathBuf::from);
    let peaqos = python.and_then(|python| Some(python.parent()?.join("peaqos"))).filter(|path| path.is_file());
    let what = "access files for 10,000 chunks";
    match peaqos {
        Some(peaqos) => {
            let mut sizes = OFFICIAL;
            if let Some(last) = std::env::var_os("TRIBUTARY_BENCH_OFFICIAL_CHUNKS") {
                sizes[OFFICIAL.len() - 1] = last.to_str().unwrap().parse().unwrap();
            }
            let seconds = sizes.map(|count| {
                let chunks =
                    if SIZES.contains(&count) { dir.join(format!("first-{count}")) } else { beginning(&all, count) };
                grant.official(&peaqos, &chunks)
            });
            let rate = |at: usize| sizes[at] as f64 / seconds[at];
            let (ours, last) = ([median(&ours)], OFFICIAL.len() - 1);
            let name = format!("`peaqos stream grant`, {} chunks", sizes[last]);
            bench.table.compare(what, &ours, (&name, &[rate(last)]), "chunks/s", Goal::AtLeast(10.0));
            let growth: Vec<_> =
                sizes.iter().zip(seconds).map(|(count, seconds)| format!("{count} in {seconds:.1} s")).collect();
            bench.table.note(format!("`peaqos stream grant`: {}", growth.join(", ")));
        }
        None => bench.table.value(what, median(&ours), "chunks/s", Goal::None),
    }
    let what = "time for a chunk's access, of 20,000 over of 2,000";
    bench.table.value(what, median(&growth), "times", Goal::AtMost(1.25));
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
