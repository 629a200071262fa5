//! Checking a directory, and decrypting it on the way.
//!
//! One pass, one chunk in memory. Beyond what peaq's reader checks: the manifest's totals and hash against what is really
//! there, one signer and one machine for all chunks, known algorithms, files behind a gap; and, where the machine's own
//! statements lie in the manifest, every chunk against its signed record.
//!
//! | verdict | |
//! |---|---|
//! | proven | the statements lead from the DID to every chunk |
//! | consistent | nothing contradicts anything; but whoever can write the files can have made all of them. With a pinned key, every ciphertext is by that key; order and number still rest on the manifest |
//! | broken | something contradicts; the report names the first chunk and the reason |

use std::{io::Write, path::Path};

use sha2::{Digest as _, Sha256};
use tributary_protocol::{
    ids::Did,
    keys::FeedPublicKey,
    peaq::{
        StreamError,
        access::AccessBook,
        chain::MAX_CHUNK_SIZE,
        decrypt::{decrypt_with_key, unwrap_chunk_key},
        envelope::{CHUNK_CIPHER, Envelope, KEY_WRAPPING, MAX_ENVELOPE_BYTES, RecipientEntry, SIGNATURE},
        hexes,
        manifest::{MAX_MANIFEST_BYTES, Manifest},
        origin::Origin,
        sealed_box::BoxSecretKey,
        verify::{ChainError, ChainVerifier},
    },
    record::TAG_LEN,
};
use zeroize::Zeroizing;

use super::{
    FilesError,
    access::{Whose, behind_gap, read_access},
    directory::Directory,
    report::FilesReport,
};
use crate::buyer::{StepState, Verdict};

/// How a directory is checked.
#[derive(Default)]
pub struct CheckOptions<'a> {
    /// A private key of the buyer, or of the owner, operator or machine; decrypts.
    pub key: Option<&'a BoxSecretKey>,
    /// The directory with the buyer's access files; owner, operator and machine need none.
    pub access: Option<&'a Path>,
    /// Whose entries of the access files are taken; `None` takes those that are sealed to `key`.
    pub buyer_id: Option<&'a str>,
    /// The only key that may have signed.
    pub trust: Option<FeedPublicKey>,
    /// The machine that the files must be of.
    pub machine: Option<Did>,
}

/// Something that is wrong, or could not be looked at.
enum Stop {
    Wrong { step: &'static str, chunk: Option<u64>, reason: String },
    Error(FilesError),
}

impl From<FilesError> for Stop {
    fn from(error: FilesError) -> Self {
        Self::Error(error)
    }
}

fn wrong(step: &'static str, reason: impl ToString) -> Stop {
    Stop::Wrong { step, chunk: None, reason: reason.to_string() }
}

fn wrong_chunk(step: &'static str, index: u64, reason: impl ToString) -> Stop {
    Stop::Wrong { step, chunk: Some(index), reason: reason.to_string() }
}

/// Checks the directory at `path`. With `out`, everything must be decrypted, and the plaintext is written there; it counts
/// only when the verdict is not broken. `progress` hears how many chunks are done, and of how many.
///
/// # Errors
/// When something cannot be read, or a key that was asked for is missing. What is wrong with the files is in the report.
pub fn check(
    path: &Path,
    options: &CheckOptions<'_>,
    out: Option<&mut dyn Write>,
    progress: &mut dyn FnMut(u64, u64) -> Result<(), FilesError>,
) -> Result<FilesReport, FilesError> {
    let directory = Directory::open(path, "name the folder that the files were published into")?;
    let book = match (options.access, options.key) {
        (Some(access), Some(key)) => {
            read_access(access, options.buyer_id.map_or(Whose::Key(key.public_key()), Whose::Id))?
        }
        _ => AccessBook::new(),
    };
    let mut pass = Pass { directory, options, book, out, report: FilesReport::new(), source: Sha256::new() };
    match pass.run(progress) {
        Ok(verdict) => pass.report.verdict = verdict,
        Err(Stop::Error(error)) => return Err(error),
        Err(Stop::Wrong { step, chunk, reason }) => {
            pass.report.failed_chunk = chunk;
            let reason = chunk.map_or_else(|| reason.clone(), |index| format!("chunk {index}: {reason}"));
            pass.report.first_failure = Some(format!("{step}: {reason}"));
            pass.report.step(step, StepState::Failed, reason);
        }
    }
    Ok(pass.report)
}

struct Pass<'a, 'o> {
    directory: Directory,
    options: &'a CheckOptions<'a>,
    book: AccessBook,
    out: Option<&'o mut dyn Write>,
    report: FilesReport,
    /// Hash of the plaintext so far.
    source: Sha256,
}

impl Pass<'_, '_> {
    fn run(&mut self, progress: &mut dyn FnMut(u64, u64) -> Result<(), FilesError>) -> Result<Verdict, Stop> {
        let manifest = self.manifest()?;
        let origin = self.origin(&manifest)?;
        let mut chain = ChainVerifier::new();
        let mut index = 0;
        while let Some(envelope) = self.envelope(index)? {
            self.chunk(index, &envelope, &mut chain, &manifest, origin.as_ref())?;
            index += 1;
            progress(index, manifest.total_chunks)?;
        }
        self.totals(&manifest, chain, index, origin.as_ref())?;
        self.plaintexts(&manifest)?;
        Ok(if self.report.machine.is_some() { Verdict::Proven } else { Verdict::Consistent })
    }

    fn manifest(&mut self) -> Result<Manifest, Stop> {
        const NAME: &str = "manifest.json";
        let bytes = self.directory.read(NAME, MAX_MANIFEST_BYTES)?.ok_or_else(|| FilesError::Missing {
            path: self.directory.path_of(NAME),
            hint: "is this the folder that the files were published into?",
        })?;
        let manifest = Manifest::parse(&bytes).map_err(|error| wrong("manifest", full(&error)))?;
        self.report.claimed_machine.clone_from(&manifest.machine_did);
        self.report.source_hash.clone_from(&manifest.source_hash);
        let detail = format!("{} chunks of {}", manifest.total_chunks, manifest.machine_did);
        self.report.step("manifest", StepState::Passed, detail);
        Ok(manifest)
    }

    /// The machine's own statements, when they are there and about the machine that is meant.
    fn origin(&mut self, manifest: &Manifest) -> Result<Option<Origin>, Stop> {
        const STEP: &str = "origin";
        let wanted = self.options.machine;
        let Some(text) = &manifest.tributary else {
            let detail = "the files carry no statements of a machine: nothing links them to a DID";
            self.report.step(STEP, StepState::Skipped, detail);
            return Ok(None);
        };
        let origin = Origin::open(text).map_err(|error| wrong(STEP, full(&error)))?;
        let did = origin.did();
        let claimed = manifest.machine_did.as_str();
        if let Some(wanted) = wanted.filter(|wanted| *wanted != did) {
            return Err(wrong(STEP, format!("the statements are of {did}, not of {wanted}")));
        }
        if wanted.is_none() && !claimed.eq_ignore_ascii_case(&did.to_string()) {
            // A proof about one machine must not stand for what is said to be another's.
            if claimed.to_ascii_lowercase().parse::<Did>().is_ok() {
                return Err(wrong(STEP, format!("the statements are of {did}, the files name {claimed}")));
            }
            let detail = format!("the files call their machine {claimed:?}; if that is {did}, say so with --machine");
            self.report.step(STEP, StepState::Partial, detail);
            return Ok(Some(origin));
        }
        let dataset = origin.dataset();
        let detail = format!("{did} signed dataset {} of {} chunks", dataset.dataset, dataset.chunk_count);
        self.report.step(STEP, StepState::Passed, detail);
        self.report.machine = Some(did);
        self.report.dataset = Some(dataset.dataset);
        self.report.binding_serial = Some(origin.serial());
        self.report.binding_expires_ms = Some(origin.expires_ms());
        Ok(Some(origin))
    }

    fn envelope(&self, index: u64) -> Result<Option<Envelope>, Stop> {
        let Some(bytes) = self.directory.read(&format!("chunk-{index}.json"), MAX_ENVELOPE_BYTES)? else {
            return Ok(None);
        };
        Envelope::parse(&bytes).map(Some).map_err(|error| wrong_chunk("chunks", index, full(&error)))
    }

    fn chunk(
        &mut self,
        index: u64,
        envelope: &Envelope,
        chain: &mut ChainVerifier,
        manifest: &Manifest,
        origin: Option<&Origin>,
    ) -> Result<(), Stop> {
        const STEP: &str = "chunks";
        let ciphertext = self.directory.read(&format!("chunk-{index}.bin"), MAX_CHUNK_SIZE + TAG_LEN)?;
        let at = |reason: String| wrong_chunk(STEP, index, reason);
        chain.check(envelope, ciphertext.as_deref()).map_err(|error| match error {
            ChainError::Broken { fault, .. } => at(fault.to_string()),
            ChainError::Malformed { source, .. } => at(format!("signature: {source}")),
            other => at(other.to_string()),
        })?;
        let ciphertext = ciphertext.unwrap_or_default();
        let Some(signer) = chain.signer() else {
            return Err(at("signed by another key than the chunks before it".to_owned()));
        };
        if let Some(trusted) = self.options.trust.filter(|trusted| trusted != signer) {
            return Err(at(format!("signed by {signer}, not by the pinned key {trusted}")));
        }
        self.report.signer = Some(*signer);
        if envelope.signature.machine_did != manifest.machine_did {
            let named = &envelope.signature.machine_did;
            return Err(at(format!("names machine {named:?}, the manifest {:?}", manifest.machine_did)));
        }
        for (name, found, expected) in [
            ("encryption.algorithm", &envelope.encryption.algorithm, CHUNK_CIPHER),
            ("signature.algorithm", &envelope.signature.algorithm, SIGNATURE),
        ] {
            if found != expected {
                return Err(at(format!("{name} is {found:?}, expected {expected:?}")));
            }
        }
        if let Some(origin) = origin {
            origin.check_chunk(index, envelope, &ciphertext).map_err(|mismatch| at(mismatch.to_string()))?;
        }
        self.report.chunks += 1;
        self.report.ciphertext_bytes += ciphertext.len() as u64;
        if let Some(key) = self.options.key {
            self.open(index, envelope, &ciphertext, key, origin)?;
        }
        Ok(())
    }

    /// Decrypts a chunk with a key that is for it, if there is one.
    fn open(
        &mut self,
        index: u64,
        envelope: &Envelope,
        ciphertext: &[u8],
        private: &BoxSecretKey,
        origin: Option<&Origin>,
    ) -> Result<(), Stop> {
        const STEP: &str = "plaintexts";
        let entry: Option<&RecipientEntry> =
            self.book.get(&envelope.chunk_id).or_else(|| envelope.recipient_with_key(private.public_key()));
        let Some(entry) = entry else {
            return if self.out.is_some() { Err(FilesError::NoAccess { index }.into()) } else { Ok(()) };
        };
        if entry.algorithm != KEY_WRAPPING {
            let found = &entry.algorithm;
            return Err(wrong_chunk(STEP, index, format!("its key is wrapped with {found:?}, not {KEY_WRAPPING:?}")));
        }
        let key = unwrap_chunk_key(envelope, entry, private).map_err(|error| match error {
            StreamError::Unwrap => Stop::Error(FilesError::WrongKey { index }),
            error => wrong_chunk(STEP, index, error),
        })?;
        let plaintext =
            decrypt_with_key(envelope, &key, ciphertext).map_err(|error| wrong_chunk(STEP, index, error))?;
        let plaintext = Zeroizing::new(plaintext);
        if let Some(origin) = origin {
            origin
                .check_plaintext(index, &key, &hexes::sha256(&plaintext))
                .map_err(|mismatch| wrong_chunk(STEP, index, mismatch))?;
        }
        self.source.update(&plaintext);
        self.report.chunks_opened += 1;
        self.report.plaintext_bytes += plaintext.len() as u64;
        match &mut self.out {
            Some(out) => out
                .write_all(&plaintext)
                .map_err(|source| Stop::Error(FilesError::Io { path: "the output".into(), action: "written", source })),
            None => Ok(()),
        }
    }

    /// Whether all chunks that were announced are there, and no others.
    fn totals(
        &mut self,
        manifest: &Manifest,
        chain: ChainVerifier,
        found: u64,
        origin: Option<&Origin>,
    ) -> Result<(), Stop> {
        const STEP: &str = "totals";
        // A chain without any chunk is broken at its first.
        let report = chain.finish().map_err(|error| match error {
            ChainError::Broken { fault, failed_at_index } => wrong_chunk("chunks", failed_at_index, fault),
            other => wrong("chunks", other),
        })?;
        if let Some(name) = behind_gap(&self.directory, found)? {
            return Err(wrong_chunk(STEP, found, format!("chunk-{found}.json is missing, and {name} is there")));
        }
        if manifest.total_chunks != report.total_chunks {
            let expected = manifest.total_chunks;
            let reason = format!("the manifest announces {expected} chunks, {found} are here");
            return Err(wrong_chunk(STEP, found.min(expected), reason));
        }
        if let Some(origin) = origin {
            let expected = u64::from(origin.dataset().chunk_count);
            if expected != found {
                let reason = format!("the machine signed {expected} chunks, {found} are here");
                return Err(wrong_chunk(STEP, found.min(expected), reason));
            }
        }
        self.report.pinned = self.options.trust.is_some();
        let signer = self.report.signer.map_or_else(String::new, |key| format!(", signed by {key}"));
        self.report.step("chunks", StepState::Passed, format!("{found} linked{signer}"));
        self.report.step(STEP, StepState::Passed, format!("{found} chunks, as announced"));
        Ok(())
    }

    /// Whether the plaintext is the announced one.
    fn plaintexts(&mut self, manifest: &Manifest) -> Result<(), Stop> {
        const STEP: &str = "source hash";
        let FilesReport { chunks, chunks_opened, .. } = self.report;
        let detail = format!("{chunks_opened} of {chunks} are granted and right");
        let state = match chunks_opened {
            0 => StepState::Skipped,
            opened if opened == chunks => StepState::Passed,
            _ => StepState::Partial,
        };
        self.report.step("plaintexts", state, detail);
        if state != StepState::Passed {
            self.report.step(STEP, StepState::Skipped, "needs the whole plaintext");
            return Ok(());
        }
        let found = hexes::hash_text(&self.source.clone().finalize().into());
        manifest.check(chunks, &found).map_err(|mismatch| wrong(STEP, mismatch))?;
        self.report.source_hash_checked = true;
        self.report.step(STEP, StepState::Passed, found);
        Ok(())
    }
}

/// An error with its sources.
fn full(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(source) = next {
        let more = source.to_string();
        if !text.contains(&more) {
            text = format!("{text}: {more}");
        }
        next = source.source();
    }
    text
}
