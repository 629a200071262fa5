//! The saboteur of `demo --tamper`: flips one byte of one stored chunk.

use std::{
    fs,
    io::{Read as _, Seek as _, SeekFrom, Write as _},
    path::{Path, PathBuf},
};

use tributary_protocol::ids::DatasetId;
use tributary_store::{Store, StoreOptions};

use super::DemoError;
use crate::home::Home;

/// Bytes of a chunk that name it in the files: no other place has the same random-looking ones.
const NEEDLE: usize = 64;

/// Flips a byte in the first chunk of `dataset` in the files of the home's store, whose node must not run. Says what it did.
pub(super) fn flip_one_byte(home: &Home, dataset: Option<DatasetId>) -> Result<String, DemoError> {
    let failed = |what: String| DemoError::Node { role: "machine", what };
    let dataset = dataset.ok_or_else(|| failed("has no dataset to tamper with".to_owned()))?;
    let options = StoreOptions { create: false, ..StoreOptions::default() };
    let (store, _) = Store::open(home.store_path(), &options).map_err(|error| failed(error.to_string()))?;
    let body = first_chunk(&store, dataset).map_err(|error| failed(error.to_string()))?;
    store.close().map_err(|error| failed(error.to_string()))?;
    let body = body.filter(|body| body.len() >= NEEDLE);
    let body = body.ok_or_else(|| failed(format!("holds no chunk of dataset {dataset}")))?;

    for path in files_below(&home.store_path())? {
        let io = |source| DemoError::Io { path: path.clone(), source };
        let mut bytes = Vec::new();
        fs::File::open(&path).and_then(|mut file| file.read_to_end(&mut bytes)).map_err(io)?;
        let Some(at) = bytes.windows(NEEDLE).position(|part| part == &body[..NEEDLE]) else { continue };
        let mut file = fs::OpenOptions::new().write(true).open(&path).map_err(io)?;
        file.seek(SeekFrom::Start(at as u64)).map_err(io)?;
        file.write_all(&[bytes[at] ^ 1]).map_err(io)?;
        file.sync_all().map_err(io)?;
        return Ok(format!("flipped one bit of chunk 0 of dataset {dataset} on the machine's disk"));
    }
    Err(failed(format!("has no file with chunk 0 of dataset {dataset}")))
}

fn first_chunk(store: &Store, dataset: DatasetId) -> Result<Option<Vec<u8>>, tributary_store::StoreError> {
    use tributary_protocol::entry::{EntryBody, SignedEntry};
    let Some((_, log, seq)) = store.dataset_chunks(&dataset, 0, 1)?.pop() else { return Ok(None) };
    let Some(bytes) = store.entry(&log, seq)? else { return Ok(None) };
    match SignedEntry::decode(&bytes).map(|signed| signed.entry().body.clone()) {
        Ok(EntryBody::Chunk(record)) => store.chunk(&record.hash),
        _ => Ok(None),
    }
}

fn files_below(folder: &Path) -> Result<Vec<PathBuf>, DemoError> {
    let mut files = Vec::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(folder) = folders.pop() {
        let io = |source| DemoError::Io { path: folder.clone(), source };
        for entry in fs::read_dir(&folder).map_err(io)? {
            let path = entry.map_err(io)?.path();
            if path.is_dir() { folders.push(path) } else { files.push(path) }
        }
    }
    Ok(files)
}
