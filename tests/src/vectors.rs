//! The published test vectors: the folder `TRIBUTARY_VECTORS`, else the copy beside the suites.

use std::path::{Path, PathBuf};

use serde_json::Value;

/// The vector file `name` (without `.json`).
///
/// # Panics
/// When it is not there, or is no JSON: a test that has nothing to compare with must not pass.
#[must_use]
pub fn read_vectors(name: &str) -> Value {
    let folder = std::env::var_os("TRIBUTARY_VECTORS")
        .map_or_else(|| Path::new(env!("CARGO_MANIFEST_DIR")).join("vectors"), PathBuf::from);
    let path = folder.join(name).with_extension("json");
    let text = std::fs::read(&path).unwrap_or_else(|error| panic!("vector file {}: {error}", path.display()));
    serde_json::from_slice(&text).unwrap_or_else(|error| panic!("vector file {}: {error}", path.display()))
}
