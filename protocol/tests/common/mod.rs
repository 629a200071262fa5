//! Finds and reads the shared test vectors.
//!
//! They are JSON files made with peaq's official SDK; the folder is `TRIBUTARY_VECTORS`, else `tests/vectors` of this
//! repository. A vector test must never pass because there was nothing to test: a missing file, an empty list of cases and
//! a case of unknown shape all fail.

use std::path::PathBuf;

use serde::de::DeserializeOwned;

/// The vector file `name` (without `.json`), read as `T`, whose structs should refuse unknown fields.
pub(crate) fn read_vectors<T: DeserializeOwned>(name: &str) -> T {
    let folder = std::env::var_os("TRIBUTARY_VECTORS")
        .map_or_else(|| PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/vectors")), PathBuf::from);
    let path = folder.join(name).with_extension("json");
    let text = std::fs::read(&path).unwrap_or_else(|error| panic!("vector file {}: {error}", path.display()));
    serde_json::from_slice(&text).unwrap_or_else(|error| panic!("vector file {}: {error}", path.display()))
}

/// The cases, of which there has to be one.
#[allow(dead_code, reason = "the suite of the chunk formats has lists of which it says more")]
pub(crate) fn not_empty<T>(cases: Vec<T>) -> Vec<T> {
    assert!(!cases.is_empty(), "the vector file has no cases");
    cases
}

/// A vector file: the header that all have, which is for people, and its own fields.
macro_rules! vector_file {
    ($name:ident { $($field:ident: $kind:ty),* $(,)? }) => {
        #[derive(serde::Deserialize)]
        #[serde(deny_unknown_fields, rename_all = "camelCase")]
        struct $name {
            #[serde(rename = "description")]
            _description: String,
            #[serde(rename = "sdk")]
            _sdk: std::collections::BTreeMap<String, String>,
            #[serde(rename = "seed")]
            _seed: String,
            $($field: $kind,)*
        }
    };
}
pub(crate) use vector_file;
