//! Writes the seeds of all targets to `fuzz/corpus/`, and leaves what fuzzing found there alone.
//!
//! `cargo run -p tributary-fuzz --bin make_corpus`

use std::{fs, io, path::Path};

fn main() -> io::Result<()> {
    let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus");
    for seed in tributary_fuzz::seeds() {
        let dir = corpus.join(seed.target);
        fs::create_dir_all(&dir)?;
        fs::write(dir.join(&seed.name), &seed.bytes)?;
    }
    Ok(())
}
