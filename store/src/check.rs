//! Reading everything: is each chunk what its hash says, and is the index what the log says?

use std::{fs, ops::Bound, sync::Arc};

use tributary_protocol::ids::Hash;

use crate::{
    Store,
    batch::WriteBatch,
    error::{IoContext, StoreError},
    index::{ChunkRow, Delta, Fingerprint, Index, Loc, PlaceRow, TAIL_KEY, row_loc, with_loc},
    options::Reason,
    queue::lock,
    recover::Damage,
    replay::{Source, replay},
    segment::SEGMENT_HEADER,
    shared::Shared,
    writer::Writer,
};

/// What a check found.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct CheckReport {
    /// Chunks whose bodies were hashed.
    pub chunks: u64,
    /// Bytes of those bodies.
    pub chunk_bytes: u64,
    /// Frames in the log.
    pub frames: u64,
    /// Chunks whose bytes are not what was stored, at most 65,536 of them. A repair removes them, so that they can be fetched
    /// again.
    pub damaged_chunks: Vec<Hash>,
    /// Parts of the log that are no valid frames.
    pub damage: Vec<Damage>,
    /// Frames known to be missing.
    pub lost_frames: u64,
    /// Entries and rows the index knows but whose frame is damaged. Small rows stay readable from the index until it is
    /// rebuilt; entries must come from a peer or a backup.
    pub unreadable: u64,
    /// Index rows that are missing, too many, or different from the log. A repair corrects them.
    pub index_differences: u64,
    /// Whether what could be repaired was.
    pub repaired: bool,
}

impl CheckReport {
    /// Whether nothing was found.
    #[must_use]
    pub fn is_clean(&self) -> bool {
        self.damaged_chunks.is_empty()
            && self.damage.is_empty()
            && self.lost_frames == 0
            && self.unreadable == 0
            && self.index_differences == 0
    }
}

const MOST_REPORTED: usize = 1 << 16;
const PAGE: usize = 1024;

impl Store {
    /// Hashes every chunk, checks every frame, and compares the index with the log. The comparison holds up writers for as
    /// long as a rebuild of the index takes; reading goes on.
    ///
    /// # Errors
    /// An I/O error. What is damaged is no error: it is in the report.
    pub fn check(&self, repair: bool) -> Result<CheckReport, StoreError> {
        let shared = &self.inner.shared;
        let _one_at_a_time = lock(&shared.maintenance);
        let mut report = CheckReport::default();
        let mut after = Bound::Included(b"c".to_vec());
        let mut body = Vec::new();
        loop {
            let rows = shared.index.range(after, b"", PAGE)?;
            let Some((last, _)) = rows.last() else { break };
            after = Bound::Excluded(last.to_vec());
            for (key, value) in &rows {
                self.check_row(key, value, &mut body, &mut report)?;
            }
        }
        let mut compared = self.on_writer(move |writer| compare(writer, repair))?;
        report.frames = compared.frames;
        report.damage = std::mem::take(&mut compared.damage);
        report.lost_frames = compared.lost_frames;
        report.index_differences = compared.index_differences;
        if repair {
            for part in report.damaged_chunks.chunks(512) {
                let mut batch = WriteBatch::new();
                for hash in part {
                    batch.tombstone_chunk(*hash, Reason::Damaged);
                }
                self.commit(batch)?;
            }
            report.repaired = true;
        }
        Ok(report)
    }

    fn check_row(
        &self,
        key: &[u8],
        value: &[u8],
        body: &mut Vec<u8>,
        report: &mut CheckReport,
    ) -> Result<(), StoreError> {
        let Some((loc, is_body)) = row_loc(key, value) else { return Ok(()) };
        if is_body {
            let Ok(hash) = <[u8; 32]>::try_from(&key[1..]) else { return Ok(()) };
            let hash = Hash::from_bytes(hash);
            match self.chunk_into(&hash, body) {
                Ok(true) => {
                    report.chunks += 1;
                    report.chunk_bytes += body.len() as u64;
                }
                Ok(false) => {}
                Err(StoreError::Damaged { .. }) if report.damaged_chunks.len() < MOST_REPORTED => {
                    report.damaged_chunks.push(hash);
                }
                Err(StoreError::Damaged { .. }) => {}
                Err(error) => return Err(error),
            }
            return Ok(());
        }
        if self.inner.shared.read_frame(loc)?.is_none() {
            // It may have moved or changed since the page was read.
            let now = self.inner.shared.index.get(key)?;
            if now.as_deref() == Some(value) {
                report.unreadable += 1;
            }
        }
        Ok(())
    }
}

/// Rebuilds the index beside the real one and compares; on the writer thread, so that nothing changes meanwhile.
fn compare(writer: &mut Writer, repair: bool) -> Result<CheckReport, StoreError> {
    let shared = Arc::clone(&writer.shared);
    let dir = shared.dir.join("index.check");
    let _ = fs::remove_dir_all(&dir);
    let result = compare_in(writer, &shared, &dir, repair);
    fs::remove_dir_all(&dir).at("remove", &dir)?;
    result
}

fn compare_in(
    writer: &mut Writer,
    shared: &Arc<Shared>,
    dir: &std::path::Path,
    repair: bool,
) -> Result<CheckReport, StoreError> {
    let mut sources = Vec::new();
    let ids: Vec<u32> = lock(&shared.segments).keys().copied().collect();
    for id in ids {
        let Some(segment) = shared.segment(id)? else { continue };
        let active = [&writer.chunk, &writer.state].into_iter().flatten().find(|active| active.segment.id == id);
        sources.push(Source { segment, from: SEGMENT_HEADER, to: active.map(|active| active.end), hash_bodies: false });
    }
    let rebuilt = Index::open(dir, shared.options.index_cache_bytes).map_err(|error| error.into_store(dir))?;
    let replayed = replay(&rebuilt, shared.key, sources, Fingerprint::default(), false)?;
    let mut report = CheckReport {
        frames: replayed.frames,
        damage: replayed.damage,
        lost_frames: replayed.lost_frames,
        ..CheckReport::default()
    };
    let mut delta = Delta::new(&shared.index, writer.tail.print);
    // A row the log has lost is no reason to take it from the index too.
    let log_is_whole = report.damage.is_empty() && report.lost_frames == 0;
    let mut differences = 0;
    for_each(&rebuilt, |key, value| {
        let there = shared.index.get(key)?;
        if there.as_deref().map(|there| same_but_place(key, there)) != Some(same_but_place(key, value)) {
            differences += 1;
            if repair {
                delta.put(key.to_vec(), value.to_vec())?;
            }
        }
        Ok(())
    })?;
    for_each(&shared.index, |key, _| {
        if rebuilt.get(key)?.is_none() {
            differences += 1;
            if repair && log_is_whole {
                delta.delete(key.to_vec())?;
            }
        }
        Ok(())
    })?;
    report.index_differences = differences;
    if repair && delta.len() > 0 {
        let lsn = writer.tail.lsn;
        writer.publish(delta, lsn)?;
    }
    Ok(report)
}

fn for_each(index: &Index, mut visit: impl FnMut(&[u8], &[u8]) -> Result<(), StoreError>) -> Result<(), StoreError> {
    let mut after = Bound::Excluded(TAIL_KEY.to_vec());
    loop {
        let rows = index.range(after, b"", PAGE)?;
        let Some((last, _)) = rows.last() else { return Ok(()) };
        after = Bound::Excluded(last.to_vec());
        for (key, value) in &rows {
            visit(key, value)?;
        }
    }
}

/// A row without its location: after an interrupted garbage collection a frame may be in two places, and either is right. A
/// chunk found damaged keeps its tombstone's meaning.
fn same_but_place(key: &[u8], value: &[u8]) -> Vec<u8> {
    let readable = match key.first() {
        Some(b'c') => ChunkRow::decode(value).is_some(),
        Some(b'e' | b'v' | b'r' | b'n') => PlaceRow::decode(value).is_some(),
        _ => false,
    };
    if readable { with_loc(key, value, Loc::default()).unwrap_or_default() } else { value.to_vec() }
}
