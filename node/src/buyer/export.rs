//! Datasets that were bought, as files.
//!
//! Owns which files there are and what they are called; the formats are [`crate::export`]'s. Files appear whole or not at all.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use tributary_protocol::{
    ids::{DatasetId, Did},
    record::Content,
};

use super::{
    Buyer,
    error::{ContentError, ExportJobError},
    listing::holds,
    plaintext::DatasetPlaintext,
};
use crate::{
    export::{
        AtomicFile, ChannelForms, McapChannel, McapExporter, McapOutcome, NdjsonExporter, PlainPackage,
        PlaintextLimits, PlaintextReader,
    },
    feeds::{FeedsError, PullSelection, blocking, dataset_place},
};

/// What to write.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ExportFormat {
    /// Package lines as they were signed, blobs beside them. For packages.
    Ndjson,
    /// MCAP. For packages.
    Mcap,
    /// The bytes as they are. For a file.
    File,
}

/// A file that was written.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExportedFile {
    /// Its format.
    pub format: ExportFormat,
    /// Where it is.
    pub path: PathBuf,
    /// Its size in bytes.
    pub bytes: u64,
}

/// What an export wrote.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExportReport {
    /// Packages; 0 for a file.
    pub packages: u64,
    /// Bytes of plaintext read.
    pub bytes: u64,
    /// Whether the machine closed every dataset of it. Of an open one, what is here from its start on is written.
    #[serde(default)]
    pub complete: bool,
    /// The files.
    pub files: Vec<ExportedFile>,
    /// The channels of the MCAP file, and whether they are as recorded.
    #[serde(default)]
    pub channels: Vec<McapChannel>,
}

impl ExportReport {
    fn add(&mut self, other: Self) {
        self.packages += other.packages;
        self.bytes += other.bytes;
        self.files.extend(other.files);
        self.channels.extend(other.channels);
    }
}

/// What the files of an export of packages are called.
struct Names {
    ndjson: String,
    mcap: String,
    blobs: String,
}

/// The name of a stream, made safe as a file name on every system: letters, digits, `.`, `-`, `_`, at most 64 of them.
pub(super) fn safe_name(name: &str) -> String {
    let safe = |c: char| if c.is_ascii_alphanumeric() || matches!(c, '.' | '-') { c } else { '_' };
    name.trim_matches(['/', '.']).chars().take(64).map(safe).collect()
}

fn file_stem(name: &str, dataset: &DatasetId) -> String {
    let name = safe_name(name);
    let id: String = dataset.to_string().chars().take(12).collect();
    if name.is_empty() { id } else { format!("{name}-{id}") }
}

impl Buyer {
    /// Writes a dataset that was pulled into files in `dir`, named after the stream and the dataset. Every chunk passes all its
    /// checks, and every package that of its signature, before anything gets its name. `formats` empty means what fits the
    /// dataset: NDJSON and MCAP for packages, the bytes for a file.
    ///
    /// # Errors
    ///
    /// See [`ExportJobError`]; no file is left then.
    pub async fn export(
        &self,
        did: &Did,
        dataset: DatasetId,
        dir: &Path,
        formats: &[ExportFormat],
    ) -> Result<ExportReport, ExportJobError> {
        let complete = self.feeds().complete(did, PullSelection::Dataset(dataset)).await?;
        let (buyer, did, dir, formats) = (self.clone(), *did, dir.to_owned(), formats.to_vec());
        blocking(move || {
            let stem = file_stem(&buyer.name_of(&did, dataset)?, &dataset);
            let names = Names {
                ndjson: format!("{stem}.ndjson"),
                mcap: format!("{stem}.mcap"),
                blobs: format!("{stem}.blobs"),
            };
            let report = buyer.export_blocking(&did, &[dataset], &dir, &formats, &names)?;
            Ok(ExportReport { complete, ..report })
        })
        .await?
    }

    /// As [`Buyer::export`], for several datasets at once: all their packages in `packages.ndjson` and `data.mcap`, dataset by
    /// dataset in the order given, and each file under a name of its own.
    ///
    /// # Errors
    ///
    /// As [`Buyer::export`].
    pub async fn export_together(
        &self,
        did: &Did,
        datasets: &[DatasetId],
        dir: &Path,
        formats: &[ExportFormat],
    ) -> Result<ExportReport, ExportJobError> {
        let (buyer, did, dir, formats) = (self.clone(), *did, dir.to_owned(), formats.to_vec());
        let datasets = datasets.to_vec();
        let mut complete = true;
        for dataset in &datasets {
            complete &= self.feeds().complete(&did, PullSelection::Dataset(*dataset)).await?;
        }
        let names =
            Names { ndjson: "packages.ndjson".to_owned(), mcap: "data.mcap".to_owned(), blobs: "blobs".to_owned() };
        blocking(move || {
            let mut packages = Vec::new();
            let mut report = ExportReport::default();
            for dataset in datasets {
                if buyer.plaintext(&did, dataset)?.content() == Content::Packages {
                    packages.push(dataset);
                    continue;
                }
                let stem = file_stem(&buyer.name_of(&did, dataset)?, &dataset);
                let names = Names { ndjson: stem.clone(), mcap: stem.clone(), blobs: stem };
                report.add(buyer.export_blocking(&did, &[dataset], &dir, &formats, &names)?);
            }
            if !packages.is_empty() {
                report.add(buyer.export_blocking(&did, &packages, &dir, &formats, &names)?);
            }
            report.complete = complete;
            Ok(report)
        })
        .await?
    }

    /// Datasets of one kind into files with these names; a file dataset stands alone.
    fn export_blocking(
        &self,
        did: &Did,
        datasets: &[DatasetId],
        dir: &Path,
        formats: &[ExportFormat],
        names: &Names,
    ) -> Result<ExportReport, ExportJobError> {
        let mut report = ExportReport::default();
        let Some(&dataset) = datasets.first() else { return Ok(report) };
        let mut plaintext = self.plaintext(did, dataset)?;
        let content = plaintext.content();
        let mut formats = match (formats, content) {
            ([], Content::Packages) => vec![ExportFormat::Ndjson, ExportFormat::Mcap],
            ([], Content::File) => vec![ExportFormat::File],
            (some, _) => some.to_vec(),
        };
        formats.sort_unstable();
        formats.dedup();
        for format in &formats {
            let (fits, name) = match format {
                ExportFormat::Ndjson => (content == Content::Packages, "NDJSON"),
                ExportFormat::Mcap => (content == Content::Packages, "MCAP"),
                ExportFormat::File => (content == Content::File, "a file"),
            };
            if !fits {
                return Err(ExportJobError::Format { dataset, holds: holds(content), format: name });
            }
        }
        let io = |path: &Path| {
            let path = path.to_owned();
            move |source| ExportJobError::Io { path, source }
        };
        std::fs::create_dir_all(dir).map_err(io(dir))?;
        let stem = file_stem(&self.name_of(did, dataset)?, &dataset);
        let path_of = |format: &ExportFormat| match format {
            ExportFormat::Ndjson => dir.join(&names.ndjson),
            ExportFormat::Mcap => dir.join(&names.mcap),
            ExportFormat::File => dir.join(&stem),
        };
        if content == Content::File {
            let path = path_of(&ExportFormat::File);
            let mut file = AtomicFile::create(&path).map_err(io(&path))?;
            while let Some(chunk) = plaintext.next_chunk()? {
                std::io::Write::write_all(&mut file, &chunk).map_err(io(&path))?;
                report.bytes += chunk.len() as u64;
            }
            file.commit().map_err(io(&path))?;
        } else {
            let has = |format| formats.contains(&format).then(|| path_of(&format));
            let blobs = dir.join(&names.blobs);
            let (new, ndjson, mcap) = (!blobs.exists(), has(ExportFormat::Ndjson), has(ExportFormat::Mcap));
            let all = || datasets.iter().map(|dataset| self.plaintext(did, *dataset));
            let written = write_packages(did, all, ndjson.as_deref(), mcap.as_deref(), &blobs);
            if new && written.is_err() {
                // Blobs are whole one by one, but belong to lines that were not written.
                let _ = std::fs::remove_dir_all(&blobs);
            }
            report.add(written?);
            // Made for every NDJSON export; gone again where there are no blobs.
            let _ = std::fs::remove_dir(&blobs);
        }
        for format in formats {
            let path = path_of(&format);
            let bytes = std::fs::metadata(&path).map_err(io(&path))?.len();
            report.files.push(ExportedFile { format, path, bytes });
        }
        Ok(report)
    }

    /// The name of the stream that a dataset is of; empty when it was never announced.
    fn name_of(&self, did: &Did, dataset: DatasetId) -> Result<String, FeedsError> {
        let place = dataset_place(self.feeds().store(), did, &dataset)?;
        let Some(stream) = place.and_then(|(log, ..)| log.log.stream()) else { return Ok(String::new()) };
        Ok(self.feeds().stream_infos(did)?.remove(&stream).map(|info| info.name).unwrap_or_default())
    }
}

/// Writes the packages of datasets, which `open` opens; the report has no files yet.
fn write_packages<I: Iterator<Item = Result<DatasetPlaintext, ContentError>>>(
    did: &Did,
    open: impl Fn() -> I,
    ndjson: Option<&Path>,
    mcap: Option<&Path>,
    blobs: &Path,
) -> Result<ExportReport, ExportJobError> {
    let mut ndjson = ndjson.map(|path| NdjsonExporter::create(path, Some(blobs))).transpose()?;
    let mut forms = ChannelForms::default();
    loop {
        let mut exporter = mcap.map(|path| McapExporter::create(path, forms)).transpose()?;
        let mut report = ExportReport::default();
        for plaintext in open() {
            let mut plaintext = plaintext?;
            let mut reader = PlaintextReader::new(PlaintextLimits::default());
            while let Some(chunk) = plaintext.next_chunk()? {
                reader.push(&chunk);
                report.bytes += chunk.len() as u64;
                while let Some(package) = reader.next_package()? {
                    if let Some(reason) = refused(did, &package) {
                        let number = package.package.sequence_number.to_string();
                        return Err(ExportJobError::Package { number, did: *did, reason });
                    }
                    if let Some(ndjson) = &mut ndjson {
                        ndjson.write(&package)?;
                    }
                    if let Some(exporter) = &mut exporter {
                        exporter.write(package)?;
                    }
                    report.packages += 1;
                }
            }
            // What is known of an open dataset may end in the middle of a package.
            if plaintext.is_closed() {
                reader.finish()?;
            }
        }
        // It is whole after the first pass, whatever the MCAP file needs.
        if let Some(ndjson) = ndjson.take() {
            ndjson.finish()?;
        }
        match exporter.map(McapExporter::finish).transpose()? {
            None => return Ok(report),
            Some(McapOutcome::Written { channels, .. }) => {
                report.channels = channels;
                return Ok(report);
            }
            Some(McapOutcome::Again(learned)) => forms = learned,
        }
    }
}

/// Why a package is not the machine's.
pub(super) fn refused(did: &Did, package: &PlainPackage) -> Option<String> {
    match package.package.verify_from(did) {
        Ok(verdict) if verdict.valid => None,
        Ok(verdict) => Some(verdict.reason.map_or_else(String::new, |reason| reason.to_string())),
        Err(error) => Some(error.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn file_names_stay_in_their_folder() {
        let id = DatasetId::from_bytes([0xab; 32]);
        assert_eq!(file_stem("/camera/front", &id), "camera_front-abababababab");
        assert_eq!(file_stem("../../etc/passwd", &id), "etc_passwd-abababababab");
        assert_eq!(file_stem("", &id), "abababababab");
        assert!(file_stem(&"é".repeat(500), &id).len() < 90);
    }
}
