//! The shared test vectors, for unit tests: the folder `TRIBUTARY_VECTORS`, else `tests/vectors` of this repository.

use std::path::{Path, PathBuf};

/// The vector file `name` (without `.json`).
pub(crate) fn read_vectors(name: &str) -> serde_json::Value {
    let folder = std::env::var_os("TRIBUTARY_VECTORS")
        .map_or_else(|| Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/vectors"), PathBuf::from);
    let path = folder.join(name).with_extension("json");
    let text = std::fs::read(&path).unwrap_or_else(|error| panic!("vector file {}: {error}", path.display()));
    serde_json::from_slice(&text).unwrap_or_else(|error| panic!("vector file {}: {error}", path.display()))
}
