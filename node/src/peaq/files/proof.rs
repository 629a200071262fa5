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
/// Entries that a step of the search goes back.
const BACK: u64 = 256;

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
        for stored in store.log(&log, entries[0].entry().seq + 1..pin.at) {
            entries.push(SignedEntry::decode(&stored?.bytes).map_err(|_| unknown())?);
        }
        // With an entry missing, the proof would lead nowhere.
        if entries.iter().zip(entries[0].entry().seq..).any(|(entry, seq)| entry.entry().seq != seq)
            || entries.last().is_none_or(|last| last.entry().seq + 1 < pin.at)
        {
            return Err(unknown());
        }
    }
    Ok(OriginText::new(&bindings, &entries, records))
}

/// The entry of the machine log that closed the dataset. Most often one of the newest, so the search goes back from there.
fn closing(store: &Store, did: &Did, dataset: &DatasetEntry) -> Result<Option<(LogKey, SignedEntry)>, FilesError> {
    let logs = store.logs(Some(did))?.into_iter();
    for log in logs.rev().filter(|key| key.log == LogId::MACHINE) {
        let Some((head, _)) = store.head(&log)? else { continue };
        let mut end = head + 1;
        while end > 0 {
            let from = end.saturating_sub(BACK);
            for stored in store.log(&log, from..end) {
                let Ok(signed) = SignedEntry::decode(&stored?.bytes) else { continue };
                if matches!(&signed.entry().body, EntryBody::DatasetClosed(entry) if entry == dataset) {
                    return Ok(Some((log, signed)));
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
