//! The segment log of a store, as a crash, a bad disk or a stranger may leave it.

use std::{fs, path::Path};

use tributary_protocol::ids::Hash;
use tributary_store::{Recovery, Store, StoreError, StoreOptions, Table, WriteBatch};

use crate::{known, scratch, split::Split};

/// The frame key of every store here.
const KEY: [u8; 32] = [8; 32];
/// Every segment here has this id.
const SEGMENT: u32 = 1;

fn options() -> StoreOptions {
    StoreOptions {
        segment_bytes: 64 << 10,
        preallocate_bytes: 0,
        ballast_bytes: 0,
        min_free_bytes: 0,
        index_cache_bytes: 1 << 20,
        ..StoreOptions::default()
    }
}

fn write(dir: &Path, kind: &str, segment: &[u8]) {
    let format = format!("tributary store\nversion 1\nframe key {}\n", Hash::from_bytes(KEY));
    let name = format!("{kind}-{SEGMENT:08x}.seg");
    let written = fs::create_dir(dir.join("log"))
        .and_then(|()| fs::write(dir.join("FORMAT"), format))
        .and_then(|()| fs::write(dir.join("log").join(name), segment));
    written.expect("the scratch directory can be written");
}

/// Reads all there is to read.
fn read_all(store: &Store) -> Result<(), StoreError> {
    for log in store.logs(None)? {
        let _ = store.head(&log)?;
        let _ = store.entries(&log, 0, 100, 1 << 20)?;
        let _ = store.evidence(&log, 0, 100)?;
    }
    for table in Table::ALL {
        for (key, value) in store.rows(table, b"", None, 100)? {
            assert_eq!(store.row(table, &key)?, Some(value));
        }
    }
    let _ = store.check(false)?;
    Ok(())
}

/// Opens, uses and opens again. Whatever was there, what is committed on top of it is found, and the second opening finds
/// nothing to do.
fn use_store(dir: &Path) {
    let Ok((store, _)) = Store::open(dir, &options()) else { return };
    let _ = read_all(&store);
    let chunk = vec![1; 100];
    let mut batch = WriteBatch::new();
    batch.put_chunk(Hash::of(&chunk), chunk.clone());
    batch.put_row(Table::Meta, *b"fuzz", *b"row");
    let committed = store.commit(batch).is_ok();
    if store.close().is_err() || !committed {
        return;
    }
    let (store, again) = Store::open(dir, &options()).expect("it was open a moment ago");
    assert_eq!(again.recovery, Recovery::Clean);
    assert_eq!(store.row(Table::Meta, b"fuzz").expect("committed"), Some(b"row".to_vec()));
    if let Some(found) = store.chunk(&Hash::of(&chunk)).expect("committed") {
        assert_eq!(found, chunk);
    }
    let _ = store.close();
}

/// Any bytes as a segment: `kind (1) || file`.
pub fn store_segment(data: &[u8]) {
    let Some((kind, segment)) = data.split_first() else { return };
    let dir = scratch();
    write(dir.path(), KINDS[usize::from(*kind) % 3], segment);
    use_store(dir.path());
}

fn truncated<const N: usize>(hash: Hash) -> [u8; N] {
    *hash.as_bytes().first_chunk().expect("N is below 32")
}

/// BLAKE3 with the frame key.
fn keyed(bytes: &[u8]) -> Hash {
    Hash::from_bytes(*blake3::keyed_hash(&KEY, bytes).as_bytes())
}

/// Writes segments, from the description of the format.
struct SegmentWriter {
    bytes: Vec<u8>,
    sums: Vec<u8>,
    frames: u32,
    lsn: u64,
}

impl SegmentWriter {
    fn new(kind: u8) -> Self {
        let mut bytes = b"TRIBSEG\0\x01\0".to_vec();
        bytes.extend_from_slice(&[kind, 0]);
        bytes.extend_from_slice(&SEGMENT.to_le_bytes());
        bytes.extend_from_slice(&1u64.to_le_bytes());
        bytes.extend_from_slice(&known::NOW_MS.to_le_bytes());
        bytes.extend_from_slice(&KEY);
        bytes.resize(96, 0);
        let sum = Hash::of(&bytes);
        bytes.extend_from_slice(sum.as_bytes());
        Self { bytes, sums: Vec::new(), frames: 0, lsn: 1 }
    }

    /// A frame with good checksums, `step` behind the one before.
    fn frame(&mut self, kind: u8, step: u8, meta: &[u8], body: &[u8]) {
        self.lsn = self.lsn.wrapping_add(u64::from(step));
        let len = |bytes: &[u8]| u32::try_from(bytes.len()).expect("inputs are short").to_le_bytes();
        let mut header = b"TRF1".to_vec();
        header.extend_from_slice(&[kind, 0, 0, 0]);
        header.extend_from_slice(&self.lsn.to_le_bytes());
        header.extend_from_slice(&len(meta));
        header.extend_from_slice(&len(body));
        header.extend_from_slice(&truncated::<24>(keyed(meta)));
        let sum: [u8; 16] = truncated(keyed(&[&SEGMENT.to_le_bytes(), header.as_slice()].concat()));
        self.sums.extend_from_slice(&sum);
        self.frames += 1;
        for part in [&header, sum.as_slice(), meta, body] {
            self.bytes.extend_from_slice(part);
        }
    }

    /// Makes the group whole.
    fn end_group(&mut self, step: u8) {
        let mut meta = self.frames.to_le_bytes().to_vec();
        meta.extend_from_slice(Hash::of(&self.sums).as_bytes());
        self.frame(10, step, &meta, b"");
        self.sums.clear();
        self.frames = 0;
    }
}

/// The names of the kinds of segments, by number.
const KINDS: [&str; 3] = ["chunk", "state", "copy"];

/// The kind and the bytes of the segment that an input of [`store_frames`] describes.
fn segment_of(data: &[u8]) -> Option<(&'static str, Vec<u8>)> {
    let (number, frames) = data.split_first()?;
    let number = number % 3;
    let mut segment = SegmentWriter::new(number + 1);
    let mut input = Split(frames);
    while let (Some(kind), Some(step)) = (input.u8(), input.u8()) {
        if kind == 10 {
            segment.end_group(step);
            continue;
        }
        let (Some(meta), Some(body)) = (input.block(), input.block()) else { break };
        let fitting = [Hash::of(body).as_bytes().as_slice(), &known::NOW_MS.to_le_bytes()].concat();
        let meta = if kind == 1 && meta.is_empty() { &fitting } else { meta };
        segment.frame(kind, step, meta, body);
    }
    Some((KINDS[usize::from(number)], segment.bytes))
}

/// Frames of any content with good checksums: `kind of segment (1)`, then for each frame
/// `kind (1) || lsn step (1) || meta (length 2) || body (length 2)`. Kind 10 ends the group and has no meta or body here; a
/// chunk frame whose meta is empty gets the one that fits its body.
pub fn store_frames(data: &[u8]) {
    let Some((kind, segment)) = segment_of(data) else { return };
    let dir = scratch();
    write(dir.path(), kind, &segment);
    use_store(dir.path());
}

/// A store with a bit of everything, as the input of [`store_frames`].
pub(crate) fn example(kind: u8) -> Vec<u8> {
    let index = |chunk: bool, dataset: bool| u8::from(chunk) | u8::from(dataset) << 1;
    let log = [[1; 20].as_slice(), &[2; 32], &3u32.to_be_bytes()].concat();
    let entry = |seq: u64, flags: u8, rest: &[u8]| [&log, seq.to_le_bytes().as_slice(), &[flags], rest].concat();
    let chunk = Hash::of(b"the body");
    let full = [chunk.as_bytes().as_slice(), &[4; 32], &0u32.to_le_bytes(), b"entry 1"].concat();
    let mut frames: Vec<(u8, Vec<u8>, &[u8])> = vec![
        (2, entry(0, index(false, false), b"entry 0"), b""),
        (2, entry(1, index(true, true), &full), b""),
        (3, b"\x0b\x03\0keyvalue".to_vec(), b""),
        (3, b"\x0b\x03\0otherrow".to_vec(), b""),
        (4, b"\x0both".to_vec(), b""),
        (7, [77u64.to_le_bytes().as_slice(), b"packages"].concat(), b""),
        (10, Vec::new(), b""),
        (5, [chunk.as_bytes().as_slice(), &[1], &known::NOW_MS.to_le_bytes()].concat(), b""),
        (6, [log.as_slice(), &1u64.to_le_bytes()].concat(), b""),
        (8, Hash::of(b"another").as_bytes().to_vec(), b""),
        (10, Vec::new(), b""),
    ];
    if kind != 1 {
        frames.insert(0, (1, Vec::new(), b"the body"));
    }
    let mut out = vec![kind];
    let len = |bytes: &[u8]| u16::try_from(bytes.len()).expect("short").to_be_bytes();
    for (kind, meta, body) in frames {
        out.extend_from_slice(&[kind, 1]);
        if kind != 10 {
            for part in [&meta, body] {
                out.extend_from_slice(&len(part));
                out.extend_from_slice(part);
            }
        }
    }
    out
}

/// The same as the input of [`store_segment`].
pub(crate) fn example_segment(kind: u8) -> Vec<u8> {
    let mut out = vec![kind];
    out.extend(segment_of(&example(kind)).into_iter().flat_map(|(_, segment)| segment));
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Otherwise the two targets would test little.
    #[test]
    fn the_example_segments_are_good_ones() {
        for number in 0..3 {
            let (kind, segment) = segment_of(&example(number)).unwrap();
            let dir = scratch();
            write(dir.path(), kind, &segment);
            let (store, report) = Store::open(dir.path(), &options()).unwrap();
            assert!(report.damage.is_empty() && report.cut_bytes == 0, "{kind}: {report:?}");
            assert_eq!(store.row(Table::Meta, b"key").unwrap().as_deref(), Some(b"value".as_slice()), "{kind}");
            assert_eq!(store.counter("packages").unwrap(), 77, "{kind}");
            assert_eq!(store.head(&store.logs(None).unwrap()[0]).unwrap(), Some((0, b"entry 0".to_vec())), "{kind}");
        }
    }
}
