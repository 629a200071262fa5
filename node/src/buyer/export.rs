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
    Buyer, blocking,
    error::{BuyerError, ContentError, ExportJobError},
    listing::{dataset_place, holds},
    plaintext::DatasetPlaintext,
};
use crate::export::{AtomicFile, McapExporter, NdjsonExporter, PlainPackage, PlaintextLimits, PlaintextReader};

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
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExportReport {
    /// Packages; 0 for a file.
    pub packages: u64,
    /// Bytes of plaintext read.
    pub bytes: u64,
    /// The files.
    pub files: Vec<ExportedFile>,
}

impl ExportReport {
    fn add(&mut self, other: Self) {
        self.packages += other.packages;
        self.bytes += other.bytes;
        self.files.extend(other.files);
    }
}

/// What the files of an export of packages are called.
struct Names {
    ndjson: String,
    mcap: String,
    blobs: String,
}

/// A name that is safe as a file name on every system: letters, digits, `.`, `-`, `_`, at most 64 of them.
fn file_stem(name: &str, dataset: &DatasetId) -> String {
    let safe = |c: char| if c.is_ascii_alphanumeric() || matches!(c, '.' | '-') { c } else { '_' };
    let name: String = name.trim_matches(['/', '.']).chars().take(64).map(safe).collect();
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
        let (buyer, did, dir, formats) = (self.clone(), *did, dir.to_owned(), formats.to_vec());
        blocking(move || {
            let stem = file_stem(&buyer.name_of(&did, dataset)?, &dataset);
            let names = Names {
                ndjson: format!("{stem}.ndjson"),
                mcap: format!("{stem}.mcap"),
                blobs: format!("{stem}.blobs"),
            };
            buyer.export_blocking(&did, &[dataset], &dir, &formats, &names)
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
        let names =
            Names { ndjson: "packages.ndjson".to_owned(), mcap: "data.mcap".to_owned(), blobs: "blobs".to_owned() };
        blocking(move || {
            let mut packages = Vec::new();
            let mut report = ExportReport { packages: 0, bytes: 0, files: Vec::new() };
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
        let mut report = ExportReport { packages: 0, bytes: 0, files: Vec::new() };
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
            let others = datasets[1..].iter().map(|dataset| self.plaintext(did, *dataset));
            let all = std::iter::once(Ok(plaintext)).chain(others);
            let written = write_packages(did, all, ndjson.as_deref(), mcap.as_deref(), &blobs);
            if new && written.is_err() {
                // Blobs are whole one by one, but belong to lines that were not written.
                let _ = std::fs::remove_dir_all(&blobs);
            }
            (report.packages, report.bytes) = written?;
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
    fn name_of(&self, did: &Did, dataset: DatasetId) -> Result<String, BuyerError> {
        let place = dataset_place(&self.inner.store, did, &dataset)?;
        let Some(stream) = place.and_then(|(log, ..)| log.log.stream()) else { return Ok(String::new()) };
        Ok(self.stream_infos(did)?.remove(&stream).map(|info| info.name).unwrap_or_default())
    }
}

/// Writes the packages of a dataset; returns how many, and the bytes read.
fn write_packages(
    did: &Did,
    datasets: impl Iterator<Item = Result<DatasetPlaintext, ContentError>>,
    ndjson: Option<&Path>,
    mcap: Option<&Path>,
    blobs: &Path,
) -> Result<(u64, u64), ExportJobError> {
    let mut ndjson = ndjson.map(|path| NdjsonExporter::create(path, Some(blobs))).transpose()?;
    let mut mcap = mcap.map(McapExporter::create).transpose()?;
    let (mut packages, mut bytes) = (0, 0);
    for plaintext in datasets {
        let mut plaintext = plaintext?;
        let mut reader = PlaintextReader::new(PlaintextLimits::default());
        while let Some(chunk) = plaintext.next_chunk()? {
            reader.push(&chunk);
            bytes += chunk.len() as u64;
            while let Some(package) = reader.next_package()? {
                if let Some(reason) = refused(did, &package) {
                    let number = package.package.sequence_number.to_string();
                    return Err(ExportJobError::Package { number, did: *did, reason });
                }
                if let Some(ndjson) = &mut ndjson {
                    ndjson.write(&package)?;
                }
                if let Some(mcap) = &mut mcap {
                    mcap.write(package)?;
                }
                packages += 1;
            }
        }
        reader.finish()?;
    }
    if let Some(ndjson) = ndjson {
        ndjson.finish()?;
    }
    if let Some(mcap) = mcap {
        mcap.finish()?;
    }
    Ok((packages, bytes))
}

/// Why a package is not the machine's.
fn refused(did: &Did, package: &PlainPackage) -> Option<String> {
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
