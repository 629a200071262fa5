//! Buyer access: chunk keys re-wrapped for a buyer, as peaq's tools hand them over.
//!
//! One entry per chunk, made by opening the owner's entry and sealing the key again; envelopes are never changed. The same
//! content has two spellings, and this module writes and reads both:
//!
//! - camelCase, the file of `peaqos stream grant`: `schemaVersion, buyerPublicKeyHex, entries[{chunkId, buyer}]`
//! - snake_case, the object peaq's SDK uploads: `schema_version, file_name, buyer_public_key_hex,
//!   entries[{chunk_id, buyer, schema_version}]`
//!
//! Files are cut by the length of the snake_case text, whichever is written. An entry grows with the number of chunks; a
//! native grant ([`crate::access`]) does not.

use std::collections::HashMap;

use rand_core::CryptoRng;
use serde::{Deserialize, Serialize};

use super::{
    ACCESS_SCHEMA, ReadError, StreamError, ascii_json,
    decrypt::unwrap_chunk_key,
    envelope::{Envelope, RecipientEntry},
    parties::{Recipient, Role},
    sealed_box::BoxSecretKey,
};

/// Longest access file that is read, in bytes; peaq's tools cut at 512,000 unless told otherwise.
pub const MAX_ACCESS_FILE_BYTES: usize = 16 * 1024 * 1024;

const WHAT: &str = "buyer access file";

/// One chunk's key, sealed for the buyer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct AccessEntry {
    /// The chunk's id, as in its envelope.
    pub chunk_id: String,
    /// The buyer's entry.
    pub buyer: RecipientEntry,
}

/// The recipient a grant is sealed for: `buyer_id` is any name that is not blank, usually a DID.
///
/// # Errors
/// A blank id; a key that is not hex, not 32 bytes, or a low-order point.
pub fn buyer(buyer_id: &str, public_key_hex: &str) -> Result<Recipient, StreamError> {
    Recipient::new(buyer_id, Role::Buyer, public_key_hex)
}

impl AccessEntry {
    /// Re-wraps a chunk's key for the buyer with the owner's private key.
    ///
    /// # Errors
    /// [`StreamError::OwnerMissing`], or as [`unwrap_chunk_key`].
    pub fn grant(
        envelope: &Envelope,
        owner: &BoxSecretKey,
        buyer: &Recipient,
        rng: &mut impl CryptoRng,
    ) -> Result<Self, StreamError> {
        let entry = envelope.recipient(Role::Owner).ok_or(StreamError::OwnerMissing)?;
        let key = unwrap_chunk_key(envelope, entry, owner)?;
        Self::wrap(&envelope.chunk_id, &key, buyer, rng)
    }

    /// Seals a chunk key that is at hand, for instance from a key tree.
    ///
    /// # Errors
    /// None that the constructor of `buyer` has not ruled out.
    pub fn wrap(
        chunk_id: &str,
        key: &[u8; 32],
        buyer: &Recipient,
        rng: &mut impl CryptoRng,
    ) -> Result<Self, StreamError> {
        Ok(Self { chunk_id: chunk_id.to_owned(), buyer: buyer.wrap(key, rng)? })
    }
}

/// One access file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AccessFile {
    /// Number of the file, from 1.
    pub number: u64,
    /// The buyer's key in the spelling it was given.
    pub buyer_public_key_hex: String,
    /// Entries in the order of the chain.
    pub entries: Vec<AccessEntry>,
}

impl AccessFile {
    /// `<buyerPublicKeyHex>-<number>.json`.
    #[must_use]
    pub fn file_name(&self) -> String {
        file_name(&self.buyer_public_key_hex, self.number)
    }

    /// The text of `peaqos stream grant`: compact camelCase, ASCII, no trailing newline.
    #[must_use]
    pub fn to_cli_text(&self) -> Vec<u8> {
        ascii_json::compact(&CliFile {
            schema_version: ACCESS_SCHEMA,
            buyer_public_key_hex: &self.buyer_public_key_hex,
            entries: &self.entries,
        })
    }

    /// The object peaq's SDK uploads: compact snake_case, ASCII, no trailing newline.
    #[must_use]
    pub fn to_sdk_text(&self) -> Vec<u8> {
        ascii_json::compact(&SdkFile {
            schema_version: ACCESS_SCHEMA,
            file_name: &self.file_name(),
            buyer_public_key_hex: &self.buyer_public_key_hex,
            entries: self.entries.iter().map(SdkEntry::from).collect(),
        })
    }
}

fn file_name(buyer_public_key_hex: &str, number: u64) -> String {
    format!("{buyer_public_key_hex}-{number}.json")
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct CliFile<'a> {
    schema_version: &'static str,
    buyer_public_key_hex: &'a str,
    entries: &'a [AccessEntry],
}

#[derive(Serialize)]
struct SdkFile<'a> {
    schema_version: &'static str,
    file_name: &'a str,
    buyer_public_key_hex: &'a str,
    entries: Vec<SdkEntry<'a>>,
}

#[derive(Serialize)]
struct SdkEntry<'a> {
    chunk_id: &'a str,
    buyer: SdkRecipient<'a>,
    schema_version: &'static str,
}

#[derive(Serialize)]
struct SdkRecipient<'a> {
    recipient_id: &'a str,
    recipient_type: &'a str,
    algorithm: &'a str,
    public_key_hex: &'a str,
    wrapped_key_hex: &'a str,
}

impl<'a> From<&'a AccessEntry> for SdkEntry<'a> {
    fn from(entry: &'a AccessEntry) -> Self {
        let buyer = &entry.buyer;
        Self {
            chunk_id: &entry.chunk_id,
            buyer: SdkRecipient {
                recipient_id: &buyer.recipient_id,
                recipient_type: &buyer.recipient_type,
                algorithm: &buyer.algorithm,
                public_key_hex: &buyer.public_key_hex,
                wrapped_key_hex: &buyer.wrapped_key_hex,
            },
            schema_version: ACCESS_SCHEMA,
        }
    }
}

/// Cuts a sequence of entries into files, in time linear in their number. Holds the entries of one file.
///
/// A file ends where the next entry would take its snake_case text beyond the limit; it has at least one entry.
#[derive(Debug)]
pub struct Sharder {
    max_file_size: usize,
    file: AccessFile,
    /// Length of the snake_case text of `file`, in bytes.
    size: usize,
}

impl Sharder {
    /// A sharder for this buyer's key, as given, and a limit in bytes.
    #[must_use]
    pub fn new(buyer: &Recipient, max_file_size: usize) -> Self {
        let buyer_public_key_hex = buyer.public_key_hex().to_owned();
        let mut sharder =
            Self { max_file_size, file: AccessFile { number: 0, buyer_public_key_hex, entries: vec![] }, size: 0 };
        sharder.next_file();
        sharder
    }

    /// Adds the next entry; returns the file before if this entry starts another.
    pub fn push(&mut self, entry: AccessEntry) -> Option<AccessFile> {
        let len = ascii_json::compact_len(&SdkEntry::from(&entry));
        // A comma stands between entries.
        let full = !self.file.entries.is_empty() && self.size + 1 + len > self.max_file_size;
        let finished = full.then(|| self.next_file());
        self.size += len + usize::from(!self.file.entries.is_empty());
        self.file.entries.push(entry);
        finished
    }

    /// The last file, unless there was no entry at all.
    #[must_use]
    pub fn finish(self) -> Option<AccessFile> {
        (!self.file.entries.is_empty()).then_some(self.file)
    }

    fn next_file(&mut self) -> AccessFile {
        let next = AccessFile {
            number: self.file.number + 1,
            buyer_public_key_hex: self.file.buyer_public_key_hex.clone(),
            entries: vec![],
        };
        self.size = next.to_sdk_text().len();
        std::mem::replace(&mut self.file, next)
    }
}

/// All files for the buyer, for as many chunks as fit in memory; see [`Sharder`] for more.
///
/// # Errors
/// As [`AccessEntry::grant`], for the first chunk that has one.
pub fn grant_files<'a>(
    envelopes: impl IntoIterator<Item = &'a Envelope>,
    owner: &BoxSecretKey,
    buyer: &Recipient,
    max_file_size: usize,
    rng: &mut impl CryptoRng,
) -> Result<Vec<AccessFile>, StreamError> {
    let mut sharder = Sharder::new(buyer, max_file_size);
    let mut files = Vec::new();
    for envelope in envelopes {
        files.extend(sharder.push(AccessEntry::grant(envelope, owner, buyer, rng)?));
    }
    files.extend(sharder.finish());
    Ok(files)
}

/// What an access file says, in either spelling.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ParsedAccessFile {
    /// The buyer's key as written in the file.
    pub buyer_public_key_hex: String,
    /// Entries in the order of the file, whoever they are for.
    pub entries: Vec<AccessEntry>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct RawFile {
    #[serde(alias = "schema_version")]
    schema_version: String,
    #[serde(alias = "buyer_public_key_hex")]
    buyer_public_key_hex: String,
    entries: Vec<RawEntry>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct RawEntry {
    #[serde(alias = "chunk_id")]
    chunk_id: String,
    buyer: RecipientEntry,
    #[serde(alias = "schema_version")]
    schema_version: Option<String>,
}

impl RawEntry {
    fn check(self) -> Result<AccessEntry, ReadError> {
        // Only the snake_case spelling and the orchestration API repeat the version in each entry.
        if let Some(found) = &self.schema_version {
            ReadError::check_schema(WHAT, found, ACCESS_SCHEMA)?;
        }
        Ok(AccessEntry { chunk_id: self.chunk_id, buyer: self.buyer })
    }
}

impl ParsedAccessFile {
    /// Reads an access file in either spelling. Unknown keys are ignored.
    ///
    /// # Errors
    /// Longer than [`MAX_ACCESS_FILE_BYTES`], a key missing or of another type (the source names it), another schema.
    pub fn parse(text: &[u8]) -> Result<Self, ReadError> {
        ReadError::check_length(WHAT, text, MAX_ACCESS_FILE_BYTES)?;
        let file: RawFile = serde_json::from_slice(text).map_err(|source| ReadError::Json { what: WHAT, source })?;
        ReadError::check_schema(WHAT, &file.schema_version, ACCESS_SCHEMA)?;
        let entries = file.entries.into_iter().map(RawEntry::check).collect::<Result<_, _>>()?;
        Ok(Self { buyer_public_key_hex: file.buyer_public_key_hex, entries })
    }
}

/// A buyer's entries from any number of access files, by chunk.
#[derive(Debug, Clone, Default)]
pub struct AccessBook {
    entries: HashMap<String, RecipientEntry>,
}

impl AccessBook {
    /// An empty book.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds the entries that are for `buyer_id`. Of two entries for one chunk the later one counts.
    pub fn add(&mut self, file: ParsedAccessFile, buyer_id: &str) {
        let own = file.entries.into_iter().filter(|entry| entry.buyer.recipient_id == buyer_id);
        self.entries.extend(own.map(|entry| (entry.chunk_id, entry.buyer)));
    }

    /// Adds the entries that are sealed to this key, whatever their ids. Of two entries for one chunk the later one counts.
    pub fn add_for_key(&mut self, file: ParsedAccessFile, public_key: &[u8; 32]) {
        let own = file.entries.into_iter().filter(|entry| entry.buyer.is_for(public_key));
        self.entries.extend(own.map(|entry| (entry.chunk_id, entry.buyer)));
    }

    /// The entry for this chunk.
    #[must_use]
    pub fn get(&self, chunk_id: &str) -> Option<&RecipientEntry> {
        self.entries.get(chunk_id)
    }

    /// Number of chunks there is an entry for.
    #[must_use]
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether there is no entry at all.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn recipient() -> Recipient {
        buyer("b", &hex::encode(BoxSecretKey::from_bytes(&[3; 32]).public_key())).unwrap()
    }

    fn entry(chunk_id: &str, recipient_id: &str) -> AccessEntry {
        AccessEntry {
            chunk_id: chunk_id.to_owned(),
            buyer: RecipientEntry {
                recipient_id: recipient_id.to_owned(),
                recipient_type: "buyer".to_owned(),
                algorithm: "x25519-sealedbox".to_owned(),
                public_key_hex: "ab".to_owned(),
                wrapped_key_hex: "cd".to_owned(),
            },
        }
    }

    fn parse(text: &str) -> Result<ParsedAccessFile, String> {
        ParsedAccessFile::parse(text.as_bytes())
            .map_err(|error| std::error::Error::source(&error).map_or_else(|| error.to_string(), ToString::to_string))
    }

    #[test]
    fn both_spellings_have_peaqs_keys_in_peaqs_order() {
        let file = AccessFile { number: 2, buyer_public_key_hex: "0xAB".into(), entries: vec![entry("c", "é")] };
        let cli = concat!(
            r#"{"schemaVersion":"peaq.stream.buyer-access.v1","buyerPublicKeyHex":"0xAB","entries":[{"chunkId":"c","#,
            r#""buyer":{"recipientId":"\u00e9","recipientType":"buyer","algorithm":"x25519-sealedbox","#,
            r#""publicKeyHex":"ab","wrappedKeyHex":"cd"}}]}"#
        );
        let sdk = concat!(
            r#"{"schema_version":"peaq.stream.buyer-access.v1","file_name":"0xAB-2.json","buyer_public_key_hex":"0xAB","#,
            r#""entries":[{"chunk_id":"c","buyer":{"recipient_id":"\u00e9","recipient_type":"buyer","#,
            r#""algorithm":"x25519-sealedbox","public_key_hex":"ab","wrapped_key_hex":"cd"},"#,
            r#""schema_version":"peaq.stream.buyer-access.v1"}]}"#
        );
        assert_eq!(String::from_utf8(file.to_cli_text()).unwrap(), cli);
        assert_eq!(String::from_utf8(file.to_sdk_text()).unwrap(), sdk);
        assert_eq!(parse(cli), parse(sdk));
    }

    #[test]
    fn a_missing_or_mistyped_key_is_named() {
        let file = AccessFile { number: 1, buyer_public_key_hex: "ab".into(), entries: vec![entry("c", "b")] };
        let text = String::from_utf8(file.to_cli_text()).unwrap();
        assert!(parse(&text).is_ok());
        for key in [
            "schemaVersion",
            "buyerPublicKeyHex",
            "entries",
            "chunkId",
            "buyer",
            "recipientId",
            "recipientType",
            "algorithm",
            "publicKeyHex",
            "wrappedKeyHex",
        ] {
            let without = text.replacen(&format!("\"{key}\":"), "\"other\":", 1);
            let error = parse(&without).unwrap_err();
            assert!(error.contains(&format!("missing field `{key}`")), "{key}: {error}");
        }
        let error = parse(&text.replace("\"cd\"", "5")).unwrap_err();
        assert!(error.contains("invalid type: integer `5`, expected a string"), "{error}");
        let error = parse(&text.replace("access.v1", "access.v2")).unwrap_err();
        assert!(error.contains("access.v2"), "{error}");
        let sdk = String::from_utf8(file.to_sdk_text()).unwrap();
        let entry_of_another_version = sdk.replace("access.v1\"}", "access.v2\"}");
        assert_ne!(sdk, entry_of_another_version);
        assert!(parse(&entry_of_another_version).unwrap_err().contains("access.v2"));
    }

    #[test]
    fn a_book_holds_the_buyers_last_entry_for_each_chunk() {
        let mut first = entry("c", "b");
        first.buyer.wrapped_key_hex = "01".into();
        let file = |entries| ParsedAccessFile { buyer_public_key_hex: "ab".into(), entries };
        let mut book = AccessBook::new();
        assert!(book.is_empty());
        book.add(file(vec![first, entry("c", "b"), entry("d", "someone else")]), "b");
        assert_eq!(book.len(), 1);
        assert_eq!(book.get("c"), Some(&entry("c", "b").buyer));
        assert_eq!(book.get("d"), None);
    }

    #[test]
    fn no_entries_make_no_file() {
        assert_eq!(Sharder::new(&recipient(), 100).finish(), None);
    }

    proptest! {
        #[test]
        fn files_hold_as_much_as_fits_and_nothing_is_lost(
            names in proptest::collection::vec("[a-zé\u{1f600}]{0,40}", 0..40),
            max in 0usize..3000,
        ) {
            let entries: Vec<AccessEntry> = names.iter().map(|name| entry(name, "b")).collect();
            let mut sharder = Sharder::new(&recipient(), max);
            let mut files = Vec::new();
            for entry in entries.clone() {
                files.extend(sharder.push(entry));
                // The running size is the size of the text.
                prop_assert_eq!(sharder.size, sharder.file.to_sdk_text().len());
            }
            files.extend(sharder.finish());
            for (number, file) in (1..).zip(&files) {
                prop_assert_eq!(file.number, number);
                prop_assert!(file.entries.len() == 1 || file.to_sdk_text().len() <= max);
            }
            for pair in files.windows(2) {
                let mut fuller = pair[0].clone();
                fuller.entries.push(pair[1].entries[0].clone());
                prop_assert!(fuller.to_sdk_text().len() > max);
            }
            let mut all = Vec::new();
            for file in &files {
                let read = ParsedAccessFile::parse(&file.to_cli_text()).unwrap();
                prop_assert_eq!(&read, &ParsedAccessFile::parse(&file.to_sdk_text()).unwrap());
                all.extend(read.entries);
            }
            prop_assert_eq!(all, entries);
        }

        #[test]
        fn garbage_is_refused_without_panic(garbage in proptest::collection::vec(any::<u8>(), 0..300)) {
            prop_assert!(ParsedAccessFile::parse(&garbage).is_err());
        }
    }
}
