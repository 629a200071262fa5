//! `manifest.json`: what a directory of chunks says of itself.
//!
//! Not signed, so it proves nothing; it does say what to expect, and a reader that ignores it cannot tell a chain that was
//! cut short from a whole one. [`Manifest::check`] compares. What is signed travels in its key `tributary`, see [`super::origin`].

use serde::{Deserialize, Serialize};

use super::{
    CHUNK_SCHEMA, ReadError, StreamError, ascii_json, chain::ChainSummary, error::excerpt, hexes, origin::OriginText,
};

/// Longest manifest that is read, in bytes: statements of origin about 100,000 chunks.
pub const MAX_MANIFEST_BYTES: usize = 64 * 1024 * 1024;
/// Longest manifest that peaq's CLI downloads, in bytes. From a directory it takes any.
pub const MAX_DOWNLOAD_MANIFEST_BYTES: usize = 8 * 1024 * 1024;
/// Most files a download may consist of.
pub const MAX_FILES: usize = 10_000;

const WHAT: &str = "manifest";

/// The manifest, field order as in the file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Manifest {
    /// Always [`CHUNK_SCHEMA`].
    #[serde(alias = "schema_version")]
    pub schema_version: String,
    /// `0x` SHA-256 of the whole plaintext.
    #[serde(alias = "source_hash")]
    pub source_hash: String,
    /// Number of chunks.
    #[serde(alias = "total_chunks")]
    pub total_chunks: u64,
    /// Bytes per chunk; the last may be shorter.
    #[serde(alias = "chunk_size")]
    pub chunk_size: u64,
    /// The machine that claims to have made the chain.
    #[serde(alias = "machine_did")]
    pub machine_did: String,
    /// UTC, `YYYY-MM-DDTHH:MM:SSZ`.
    #[serde(alias = "created_at")]
    pub created_at: String,
    /// Bucket the ciphertexts were uploaded to.
    #[serde(alias = "s3_bucket", skip_serializing_if = "Option::is_none")]
    pub s3_bucket: Option<String>,
    /// Prefix of their keys there; ends with `/` unless empty.
    #[serde(alias = "s3_prefix", skip_serializing_if = "Option::is_none")]
    pub s3_prefix: Option<String>,
    /// Names of the files beside the manifest; a server adds them so that peaq's CLI can download them one by one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub files: Option<Vec<String>>,
    /// The machine's own statements about these chunks. Not peaq's: its tools ignore the key.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tributary: Option<OriginText>,
}

/// What was read is not what the manifest announced.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ManifestMismatch {
    /// Chunks are missing at the end, or there are more.
    #[error("the manifest announces {expected} chunks, the chain has {found}")]
    TotalChunks {
        /// Number in the manifest.
        expected: u64,
        /// Number in the chain.
        found: u64,
    },
    /// The plaintext is another.
    #[error("the plaintext's SHA-256 is {found}, the manifest announces {expected:?}")]
    SourceHash {
        /// Start of the text in the manifest.
        expected: String,
        /// Hash of what was decrypted.
        found: String,
    },
}

impl Manifest {
    /// The manifest of a finished chain. `created_at` is UTC, `YYYY-MM-DDTHH:MM:SSZ`.
    ///
    /// # Errors
    /// [`StreamError::CreatedAt`] if the time has another shape, [`StreamError::Blank`] if the DID is blank.
    pub fn new(summary: &ChainSummary, machine_did: &str, created_at: &str) -> Result<Self, StreamError> {
        if hexes::is_blank(machine_did) {
            return Err(StreamError::Blank { field: "machine_did" });
        }
        if !is_utc_seconds(created_at) {
            return Err(StreamError::CreatedAt);
        }
        Ok(Self {
            schema_version: CHUNK_SCHEMA.to_owned(),
            source_hash: summary.source_hash.clone(),
            total_chunks: summary.total_chunks,
            chunk_size: summary.chunk_size,
            machine_did: machine_did.to_owned(),
            created_at: created_at.to_owned(),
            s3_bucket: None,
            s3_prefix: None,
            files: None,
            tributary: None,
        })
    }

    /// Reads a manifest from JSON text. Unknown keys are ignored.
    ///
    /// # Errors
    /// Longer than [`MAX_MANIFEST_BYTES`], not such a JSON object, another schema, or `files` that no download may have.
    pub fn parse(text: &[u8]) -> Result<Self, ReadError> {
        ReadError::check_length(WHAT, text, MAX_MANIFEST_BYTES)?;
        let manifest: Self = serde_json::from_slice(text).map_err(|source| ReadError::Json { what: WHAT, source })?;
        ReadError::check_schema(WHAT, &manifest.schema_version, CHUNK_SCHEMA)?;
        let files = manifest.files.as_deref().unwrap_or_default();
        if files.len() > MAX_FILES {
            return Err(ReadError::TooManyFiles { found: files.len(), max: MAX_FILES });
        }
        match files.iter().find(|name| !is_file_name(name)) {
            Some(name) => Err(ReadError::FileName { name: excerpt(name) }),
            None => Ok(manifest),
        }
    }

    /// The text of `manifest.json`: two spaces of indentation, ASCII, trailing newline.
    #[must_use]
    pub fn to_file_text(&self) -> Vec<u8> {
        ascii_json::indented(self)
    }

    /// Compares a verified chain of `total_chunks` chunks and the `0x` SHA-256 of its plaintext with what was announced.
    ///
    /// # Errors
    /// The first that differs.
    pub fn check(&self, total_chunks: u64, source_hash: &str) -> Result<(), ManifestMismatch> {
        if self.total_chunks != total_chunks {
            return Err(ManifestMismatch::TotalChunks { expected: self.total_chunks, found: total_chunks });
        }
        if self.source_hash != source_hash {
            let expected = excerpt(&self.source_hash);
            return Err(ManifestMismatch::SourceHash { expected, found: source_hash.to_owned() });
        }
        Ok(())
    }
}

/// A name peaq's CLI downloads: `[A-Za-z0-9._-]+` ending in `.json` or `.bin`. It cannot name another directory.
#[must_use]
pub fn is_file_name(name: &str) -> bool {
    name.strip_suffix(".json").or_else(|| name.strip_suffix(".bin")).is_some_and(|stem| {
        !stem.is_empty() && stem.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-'))
    })
}

fn is_utc_seconds(text: &str) -> bool {
    const SHAPE: &[u8] = b"dddd-dd-ddTdd:dd:ddZ";
    text.len() == SHAPE.len()
        && text.bytes().zip(SHAPE).all(|(b, s)| if *s == b'd' { b.is_ascii_digit() } else { b == *s })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn sample() -> Manifest {
        let summary = ChainSummary { source_hash: "0xab".into(), total_chunks: 2, chunk_size: 64, total_bytes: 65 };
        Manifest::new(&summary, "did:peaq:0xé", "2026-01-02T03:04:05Z").unwrap()
    }

    #[test]
    fn the_file_has_peaqs_keys_in_peaqs_order() {
        let mut manifest = sample();
        let plain = "{\n  \"schemaVersion\": \"peaq.stream.chunks.v1\",\n  \"sourceHash\": \"0xab\",\n  \
            \"totalChunks\": 2,\n  \"chunkSize\": 64,\n  \"machineDid\": \"did:peaq:0x\\u00e9\",\n  \
            \"createdAt\": \"2026-01-02T03:04:05Z\"\n}\n";
        assert_eq!(String::from_utf8(manifest.to_file_text()).unwrap(), plain);
        manifest.s3_bucket = Some("b".into());
        manifest.s3_prefix = Some("p/".into());
        let text = manifest.to_file_text();
        assert!(String::from_utf8_lossy(&text).ends_with("5Z\",\n  \"s3Bucket\": \"b\",\n  \"s3Prefix\": \"p/\"\n}\n"));
        assert_eq!(Manifest::parse(&text).unwrap(), manifest);
    }

    #[test]
    fn file_names_cannot_leave_the_directory() {
        for good in ["chunk-0.json", "chunk-0.bin", "a.b_c-9.json", "..json"] {
            assert!(is_file_name(good), "{good:?}");
        }
        for bad in ["../a.json", "a/b.bin", "a\\b.bin", ".json", "a.txt", "a.json\n", "é.json", "", "a.json\0.bin"] {
            assert!(!is_file_name(bad), "{bad:?}");
            let mut manifest = sample();
            manifest.files = Some(vec![bad.into()]);
            assert!(matches!(Manifest::parse(&manifest.to_file_text()), Err(ReadError::FileName { .. })));
        }
        let mut manifest = sample();
        manifest.files = Some(vec!["a.bin".into(); MAX_FILES + 1]);
        assert!(matches!(Manifest::parse(&manifest.to_file_text()), Err(ReadError::TooManyFiles { .. })));
    }

    #[test]
    fn a_chain_that_was_cut_short_or_swapped_does_not_fit() {
        let manifest = sample();
        assert_eq!(manifest.check(2, "0xab"), Ok(()));
        assert!(matches!(manifest.check(1, "0xab"), Err(ManifestMismatch::TotalChunks { expected: 2, found: 1 })));
        assert!(matches!(manifest.check(2, "0xAB"), Err(ManifestMismatch::SourceHash { .. })));
    }

    #[test]
    fn another_time_format_or_schema_is_refused() {
        let summary = ChainSummary { source_hash: String::new(), total_chunks: 1, chunk_size: 1, total_bytes: 0 };
        for bad in ["", "2026-01-02T03:04:05", "2026-01-02T03:04:05.0Z", "2026-01-02 03:04:05Z", "2026-01-0éT03:04:5Z"]
        {
            assert_eq!(Manifest::new(&summary, "d", bad), Err(StreamError::CreatedAt), "{bad:?}");
        }
        let mut manifest = sample();
        manifest.schema_version = "peaq.stream.chunks.v2".into();
        assert!(matches!(Manifest::parse(&manifest.to_file_text()), Err(ReadError::Schema { .. })));
    }

    proptest! {
        #[test]
        fn garbage_is_refused_without_panic(garbage in proptest::collection::vec(any::<u8>(), 0..300)) {
            prop_assert!(Manifest::parse(&garbage).is_err());
        }
    }
}
