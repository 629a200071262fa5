//! What proves a closed dataset of this machine: the bindings, and the entry that closed it.

use tributary_protocol::{
    dataset::DatasetEntry,
    entry::{EntryBody, SignedEntry},
    ids::{Did, LogId, LogKey},
    peaq::origin::OriginText,
};
use tributary_store::Store;

use super::FilesError;
use crate::machine::{OwnBindingError, stored_chain};

/// Entries read at a time, and their bytes.
const PAGE: usize = 256;
const PAGE_BYTES: usize = 1 << 20;

/// The statements that prove the records of `dataset`, which are given one after the other.
pub(super) fn origin(
    store: &Store,
    did: &Did,
    dataset: &DatasetEntry,
    records: &[u8],
) -> Result<OriginText, FilesError> {
    let unknown = || FilesError::NoDataset(dataset.dataset);
    let (chain, bindings) = stored_chain(store, did)?.ok_or_else(unknown)?;
    let (log, closing) = closing(store, did, dataset)?.ok_or_else(unknown)?;
    let pin = chain.reigns(&log.log, log.incarnation).pin_above(closing.entry().seq);
    let mut entries = vec![closing];
    if let Some(pin) = pin {
        let mut next = entries[0].entry().seq + 1;
        while next < pin.at {
            let page = store.entries(&log, next, PAGE, PAGE_BYTES)?;
            let Some(last) = page.last() else { return Err(unknown()) };
            let end = last.seq + 1;
            for stored in page.iter().filter(|stored| stored.seq < pin.at) {
                entries.push(SignedEntry::decode(&stored.bytes).map_err(|_| unknown())?);
            }
            next = end;
        }
    }
    Ok(OriginText::new(&bindings, &entries, records))
}

/// The entry of the machine log that closed the dataset. Most often one of the newest, so the search goes back from there.
fn closing(store: &Store, did: &Did, dataset: &DatasetEntry) -> Result<Option<(LogKey, SignedEntry)>, FilesError> {
    let logs = store.logs(Some(did))?.into_iter();
    for log in logs.rev().filter(|key| key.log == LogId::MACHINE) {
        let Some((head, _)) = store.head(&log)? else { continue };
        let page = u64::try_from(PAGE).unwrap_or(u64::MAX);
        let mut end = head + 1;
        while end > 0 {
            let from = end.saturating_sub(page);
            let mut next = from;
            while next < end {
                let stored = store.entries(&log, next, PAGE, PAGE_BYTES)?;
                let Some(last) = stored.last() else { break };
                next = last.seq + 1;
                for one in stored {
                    let Ok(signed) = SignedEntry::decode(&one.bytes) else { continue };
                    if matches!(&signed.entry().body, EntryBody::DatasetClosed(entry) if entry == dataset) {
                        return Ok(Some((log, signed)));
                    }
                }
            }
            end = from;
        }
    }
    Ok(None)
}

impl From<OwnBindingError> for FilesError {
    fn from(error: OwnBindingError) -> Self {
        Self::Binding(Box::new(error))
    }
}
