//! Whether every chunk entry of a dataset is known here, and fetching those that are not.
//!
//! A dataset entry travels in the machine log, its chunk entries in the log of the stream: the one may be here before the
//! others. A closed dataset says how many there are and where, so nobody has to take a part for the whole; what is missing
//! is fetched from the machine's nodes first. An open dataset has no end yet: what is known of it is all there is to know.

use tributary_protocol::{
    entry::EntryBody,
    ids::{DatasetId, Did, LogId, LogKey, StreamId},
};
use tributary_store::{Store, StoreError};

use super::{
    Feeds, blocking,
    error::{FeedsError, FollowError},
    feed::{closing_entry, decode_stored},
    listing::{PullSelection, dataset_place, stream_logs, visit_machine_log},
};

/// A closed dataset of which not every chunk entry is known here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Incomplete {
    /// The dataset.
    pub dataset: DatasetId,
    /// How many of its chunk entries are known.
    pub known: u64,
    /// How many there are.
    pub total: u64,
    /// Where following its stream began, when that is behind the start of the dataset: position in the stream's log.
    pub joined_at: Option<u64>,
}

impl std::fmt::Display for Incomplete {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { dataset, known, total, .. } = self;
        write!(f, "of the {total} chunk entries of dataset {dataset} only {known} are known here")
    }
}

/// Why not every chunk entry of a closed dataset is here.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum IncompleteError {
    /// What is stored.
    #[error(transparent)]
    Feeds(#[from] FeedsError),
    /// The others could not be fetched.
    #[error("{what}, and the others could not be fetched; run it again when the machine's node can be reached")]
    Unfetched {
        /// What is missing.
        what: Incomplete,
        /// What happened with the last peer.
        source: Box<FollowError>,
    },
    /// The peers that answered do not have the others.
    #[error("{0}, and no peer that answered has the others; try again later, or ask the machine's operator")]
    Withheld(Incomplete),
    /// The dataset begins before the place where following began.
    #[error(
        "{0}: it begins before the place from which its feed is followed; follow it from there with `tributary subscribe \
         LINK --from dataset:{dataset}`", dataset = .0.dataset
    )]
    BeforeJoin(Incomplete),
}

impl From<StoreError> for IncompleteError {
    fn from(error: StoreError) -> Self {
        Self::Feeds(error.into())
    }
}

/// Where the entries of a closed dataset are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Place {
    dataset: DatasetId,
    log: LogKey,
    first: u64,
    last: u64,
}

impl Place {
    /// What of it is not known when `span` of its log is; `None` when everything is.
    fn missing(&self, span: Option<(u64, u64)>) -> Option<Incomplete> {
        let (first, next) = span.unwrap_or((0, 0));
        let end = self.last.saturating_add(1);
        let total = end.saturating_sub(self.first);
        let known = next.min(end).saturating_sub(first.max(self.first));
        let joined_at = (first > self.first).then_some(first);
        (known < total).then_some(Incomplete { dataset: self.dataset, known, total, joined_at })
    }
}

fn closed_place(store: &Store, did: &Did, dataset: &DatasetId) -> Result<Option<Place>, FeedsError> {
    let Some(bytes) = closing_entry(store, did, dataset)? else { return Ok(None) };
    // One that does not decode is damage; whoever reads on from it says so.
    let Ok(entry) = decode_stored(&bytes) else { return Ok(None) };
    let EntryBody::DatasetClosed(close) = &entry.entry().body else { return Ok(None) };
    let log = LogKey { did: *did, log: LogId::from(close.stream), incarnation: close.incarnation };
    Ok(Some(Place { dataset: *dataset, log, first: close.first_seq, last: close.last_seq }))
}

/// The last closed dataset of a stream in each incarnation: when its entries are here, so are those of the others.
fn newest_closed(store: &Store, did: &Did, stream: &StreamId) -> Result<Vec<Place>, FeedsError> {
    let mut newest = std::collections::BTreeMap::<u32, Place>::new();
    visit_machine_log(store, did, |entry| {
        if let EntryBody::DatasetClosed(close) = &entry.entry().body
            && close.stream == *stream
        {
            let log = LogKey { did: *did, log: LogId::from(close.stream), incarnation: close.incarnation };
            let place = Place { dataset: close.dataset, log, first: close.first_seq, last: close.last_seq };
            let known = newest.entry(close.incarnation).or_insert(place);
            if place.last > known.last {
                *known = place;
            }
        }
        true
    })?;
    Ok(newest.into_values().collect())
}

impl Feeds {
    /// The positions of a log that are known here: the first, and one behind the last. There are no holes between them.
    pub(crate) fn span(&self, log: &LogKey) -> Result<Option<(u64, u64)>, FeedsError> {
        if let Ok(handle) = self.handle(&log.did)
            && let Some(tip) = handle.feed().follower().tip(&log.log, log.incarnation)
        {
            return Ok(Some((tip.start, tip.next)));
        }
        // Not followed any more, or nothing of it came yet.
        let store = &self.inner.store;
        let Some((last, _)) = store.head(log)? else { return Ok(None) };
        let first = store.log(log, ..).next().transpose()?.map_or(0, |entry| entry.seq);
        Ok(Some((first, last.saturating_add(1))))
    }

    /// Makes sure that the entries of every closed dataset of a selection are here, as far as following begins: fetches what
    /// is missing. Says whether the selection is complete; `false` means that the machine is still writing a dataset of it.
    pub(crate) async fn complete(&self, did: &Did, selection: PullSelection) -> Result<bool, IncompleteError> {
        let (feeds, did) = (self.clone(), *did);
        let (places, closed) = blocking(move || feeds.to_complete(&did, selection)).await??;
        for place in places {
            self.complete_place(&did, place).await?;
        }
        Ok(closed)
    }

    /// The closed datasets to look at, and whether nothing of the selection is still being written.
    fn to_complete(&self, did: &Did, selection: PullSelection) -> Result<(Vec<Place>, bool), FeedsError> {
        let store = &self.inner.store;
        match selection {
            PullSelection::Dataset(dataset) => {
                let place = closed_place(store, did, &dataset)?;
                Ok((place.into_iter().collect(), place.is_some()))
            }
            PullSelection::Stream(stream) => {
                let mut open = false;
                for log in stream_logs(store, did, &stream)? {
                    let Some((_, bytes)) = store.head(&log)? else { continue };
                    if let EntryBody::Chunk(record) = &decode_stored(&bytes)?.entry().body {
                        open |= closing_entry(store, did, &record.dataset)?.is_none();
                    }
                }
                // What begins before following did is not meant: the whole stream is what is followed of it.
                let mut meant = Vec::new();
                for place in newest_closed(store, did, &stream)? {
                    if self.span(&place.log)?.is_none_or(|(first, _)| first <= place.first) {
                        meant.push(place);
                    }
                }
                Ok((meant, !open))
            }
        }
    }

    async fn complete_place(&self, did: &Did, place: Place) -> Result<(), IncompleteError> {
        let missing = |feeds: &Self| {
            let feeds = feeds.clone();
            blocking(move || Ok::<_, FeedsError>(place.missing(feeds.span(&place.log)?)))
        };
        let Some(before) = missing(self).await?? else { return Ok(()) };
        if before.joined_at.is_some() {
            return Err(IncompleteError::BeforeJoin(before));
        }
        let fetched = match self.handle(did) {
            Ok(handle) => self.catch_up_log(&handle, place.log, place.last.saturating_add(1)).await,
            // It may be a machine that is no longer followed: what is stored is all there is.
            Err(error) => Err(FollowError::Feeds(error)),
        };
        let Some(what) = missing(self).await?? else { return Ok(()) };
        match fetched {
            Ok(()) => Err(IncompleteError::Withheld(what)),
            Err(source) => Err(IncompleteError::Unfetched { what, source: Box::new(source) }),
        }
    }

    /// As [`Feeds::complete`] for one dataset, without asking anybody.
    pub(crate) fn complete_here(&self, did: &Did, dataset: &DatasetId) -> Result<(), IncompleteError> {
        let store = &self.inner.store;
        let Some(place) = closed_place(store, did, dataset)? else { return Ok(()) };
        match place.missing(self.span(&place.log)?) {
            None => Ok(()),
            Some(what) if what.joined_at.is_some() => Err(IncompleteError::BeforeJoin(what)),
            Some(what) => Err(IncompleteError::Unfetched { what, source: Box::new(FollowError::Offline) }),
        }
    }

    /// Whether anything of a dataset is known here.
    pub(crate) fn knows(&self, did: &Did, dataset: &DatasetId) -> Result<bool, FeedsError> {
        Ok(dataset_place(&self.inner.store, did, dataset)?.is_some())
    }
}
