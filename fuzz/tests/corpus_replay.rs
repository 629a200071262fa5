//! Every target over its corpus and over mutations of it, and the corpus itself.

#![allow(clippy::unwrap_used, clippy::panic, clippy::print_stdout, reason = "helpers of tests are tests")]

use std::{collections::BTreeSet, fs, path::PathBuf};

use tributary_fuzz::{Mutator, TARGETS, Target, seeds};

/// Mutations of one target's corpus in each run, divided by what an execution costs. The environment variable
/// `FUZZ_MUTATIONS` asks for another number.
const MUTATIONS: usize = 4000;
/// Longest file of the corpus, and longest mutation, in bytes.
const MAX_LEN: usize = 16 << 10;
/// The whole corpus, in bytes.
const MAX_TOTAL: u64 = 1 << 20;

fn folder(target: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("corpus").join(target)
}

/// The files of a target by name, with their contents.
fn corpus(target: &str) -> Vec<(String, Vec<u8>)> {
    let entries = fs::read_dir(folder(target)).unwrap_or_else(|e| panic!("{target} has no corpus: {e}"));
    let mut files: Vec<_> = entries
        .map(|entry| {
            let entry = entry.unwrap();
            (entry.file_name().into_string().unwrap(), fs::read(entry.path()).unwrap())
        })
        .collect();
    files.sort();
    files
}

/// Prints the input if the target panics, so that it can be put into the corpus.
struct Shown<'a>(&'a str, &'a [u8]);

impl Drop for Shown<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let Shown(target, input) = self;
            let hex: String = input.iter().map(|byte| format!("{byte:02x}")).collect();
            println!("{target} failed on {} bytes: {hex}", input.len());
        }
    }
}

fn replay(name: &str, target: Target, cost: usize) {
    let run = |input: &[u8]| {
        let _shown = Shown(name, input);
        target(input);
    };
    let mut inputs = Vec::new();
    run(b"");
    for (_, bytes) in corpus(name) {
        run(&bytes);
        inputs.push(bytes);
    }
    let wanted = std::env::var("FUZZ_MUTATIONS").ok().and_then(|number| number.parse().ok()).unwrap_or(MUTATIONS);
    let mut mutator = Mutator::new(name, MAX_LEN);
    for _ in 0..wanted / cost {
        run(&mutator.next(&inputs));
    }
}

macro_rules! tests {
    ($($name:ident: $module:ident, $cost:literal;)*) => {
        /// One test for each target.
        mod corpus_replay {
            $(
                #[test]
                fn $name() {
                    super::replay(stringify!($name), tributary_fuzz::$name, $cost);
                }
            )*
        }
    };
}

tributary_fuzz::for_each_target!(tests);

#[test]
fn the_corpus_is_small_and_belongs_to_targets() {
    let names: BTreeSet<String> = TARGETS.iter().map(|(name, _)| (*name).to_owned()).collect();
    let folders: BTreeSet<String> =
        fs::read_dir(folder("")).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    assert_eq!(folders, names);
    let mut total = 0;
    for name in &names {
        for (file, bytes) in corpus(name) {
            assert!(bytes.len() <= MAX_LEN, "{name}/{file} has {} bytes", bytes.len());
            total += bytes.len() as u64;
        }
    }
    assert!(total <= MAX_TOTAL, "{total}");
}

#[test]
fn the_committed_seeds_are_what_make_corpus_writes() {
    let mut expected: BTreeSet<(String, String)> = BTreeSet::new();
    for seed in seeds() {
        let committed = fs::read(folder(seed.target).join(&seed.name));
        let committed = committed.unwrap_or_else(|e| panic!("run make_corpus: {}/{}: {e}", seed.target, seed.name));
        assert!(seed.foreign || committed == seed.bytes, "run make_corpus: {}/{} differs", seed.target, seed.name);
        expected.insert((seed.target.to_owned(), seed.name));
    }
    for (name, _) in TARGETS {
        for (file, _) in corpus(name).into_iter().filter(|(file, _)| file.starts_with("seed-")) {
            assert!(expected.contains(&((*name).to_owned(), file.clone())), "{name}/{file} is no seed any more");
        }
    }
}

#[test]
fn every_target_is_there_for_libfuzzer() {
    let project = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("libfuzzer");
    let manifest = fs::read_to_string(project.join("Cargo.toml")).unwrap();
    for (name, _) in TARGETS {
        let program = fs::read_to_string(project.join(format!("fuzz_targets/{name}.rs"))).unwrap();
        assert!(program.contains(&format!("tributary_fuzz::{name}(data)")), "{name}");
        assert!(manifest.contains(&format!("name = \"{name}\"\n")), "{name}");
    }
    assert_eq!(fs::read_dir(project.join("fuzz_targets")).unwrap().count(), TARGETS.len());
}
