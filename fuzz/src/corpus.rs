//! The seeds: for each target, inputs that it accepts, made of real objects. `make_corpus` writes them to `corpus/`, where
//! what fuzzing found joins them.

mod delivery;
mod node;
mod protocol;

/// A file of the corpus.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Seed {
    /// Its target.
    pub target: &'static str,
    /// The file's name, which begins with `seed-`.
    pub name: String,
    /// The input.
    pub bytes: Vec<u8>,
    /// Whether another version of a library, for instance of SQLite, may make other bytes.
    pub foreign: bool,
}

/// Collects seeds.
#[derive(Default)]
struct Seeds(Vec<Seed>);

impl Seeds {
    fn add(&mut self, target: &'static str, name: &str, bytes: impl Into<Vec<u8>>) {
        self.0.push(Seed { target, name: format!("seed-{name}"), bytes: bytes.into(), foreign: false });
    }

    fn add_foreign(&mut self, target: &'static str, name: &str, bytes: Vec<u8>) {
        self.add(target, name, bytes);
        if let Some(seed) = self.0.last_mut() {
            seed.foreign = true;
        }
    }
}

/// All seeds. The same in every run.
#[must_use]
pub fn seeds() -> Vec<Seed> {
    let mut seeds = Seeds::default();
    protocol::add(&mut seeds);
    delivery::add(&mut seeds);
    node::add(&mut seeds);
    seeds.0
}
