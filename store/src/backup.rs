//! Backup and restore. A backup is the log without the index, in a state that really was: everything acknowledged before it
//! began. Restoring it is opening it.

use std::{
    fs,
    path::{Path, PathBuf},
};

use crate::{
    OpenReport, Store,
    batch::WriteBatch,
    error::{IoContext, StoreError},
    home,
    options::StoreOptions,
    queue::lock,
    segment::{SegmentKind, parse_name},
};

/// The counter that says how often this store was restored from a backup. A restored machine starts a new incarnation: what
/// it signed after the backup is unknown to it.
pub const RESTORED: &str = "store.restored";

impl Store {
    /// Copies the log to `dst`, a new or empty directory, and makes the copy durable. Writing goes on meanwhile; garbage
    /// collection waits. Returns the bytes copied.
    ///
    /// # Errors
    /// [`StoreError::NotEmpty`], or an I/O error; then `dst` holds an unfinished copy without `FORMAT`, which does not open.
    pub fn backup(&self, dst: impl AsRef<Path>) -> Result<u64, StoreError> {
        let dst = dst.as_ref();
        let shared = &self.inner.shared;
        let _one_at_a_time = lock(&shared.maintenance);
        require_empty(dst)?;
        // Closed segments do not change, so what is closed now can be copied at leisure.
        let segments = self.on_writer(|writer| {
            writer.seal(SegmentKind::Chunk)?;
            writer.seal(SegmentKind::State)?;
            let active: Vec<u32> =
                [&writer.chunk, &writer.state].into_iter().flatten().map(|active| active.segment.id).collect();
            let segments = lock(&writer.shared.segments);
            let closed = segments.iter().filter(|(id, _)| !active.contains(id));
            Ok(closed.map(|(id, info)| writer.shared.path_of(info.kind, *id)).collect::<Vec<_>>())
        })?;
        let bytes = copy_all(&segments, &dst.join("log"))?;
        home::write_format(dst, &shared.key)?;
        Ok(bytes)
    }

    /// Copies a backup (or a closed store) from `src` to `dst`, a new or empty directory, opens it and raises [`RESTORED`].
    ///
    /// # Errors
    /// [`StoreError::NotAStore`], [`StoreError::NotEmpty`], or as [`Store::open`].
    pub fn restore(
        src: impl AsRef<Path>,
        dst: impl AsRef<Path>,
        options: &StoreOptions,
    ) -> Result<(Self, OpenReport), StoreError> {
        let (src, dst) = (src.as_ref(), dst.as_ref());
        let Some(key) = home::read_format(src)? else {
            return Err(StoreError::NotAStore { dir: src.to_owned(), reason: "it has no FORMAT file".to_owned() });
        };
        require_empty(dst)?;
        let log = src.join("log");
        let mut segments = Vec::new();
        for entry in fs::read_dir(&log).at("list", &log)? {
            let entry = entry.at("list", &log)?;
            if parse_name(&entry.file_name().to_string_lossy()).is_some() {
                segments.push(entry.path());
            }
        }
        copy_all(&segments, &dst.join("log"))?;
        home::write_format(dst, &key)?;
        let (store, report) = Self::open(dst, options)?;
        let restored = store.counter(RESTORED)?;
        let mut batch = WriteBatch::new();
        batch.set_counter(RESTORED, restored.saturating_add(1));
        store.commit(batch)?;
        Ok((store, report))
    }
}

fn require_empty(dir: &Path) -> Result<(), StoreError> {
    home::create_dir(dir)?;
    if fs::read_dir(dir).at("list", dir)?.next().is_some() {
        return Err(StoreError::NotEmpty { dir: dir.to_owned() });
    }
    Ok(())
}

fn copy_all(files: &[PathBuf], to: &Path) -> Result<u64, StoreError> {
    home::create_dir(to)?;
    let mut bytes = 0;
    for from in files {
        let Some(name) = from.file_name() else { continue };
        let path = to.join(name);
        bytes += fs::copy(from, &path).at("copy", from)?;
        fs::File::open(&path).and_then(|file| file.sync_all()).at("sync", &path)?;
    }
    fs::File::open(to).and_then(|dir| dir.sync_all()).at("sync", to)?;
    Ok(bytes)
}
