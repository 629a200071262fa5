//! One followed machine as it is stored: the state machine of [`tributary_protocol::feed`] joined to the store.
//!
//! Owns what is written for a feed: bindings, entries, bodies that came with them, cuts and evidence, each in one durable step
//! with the state it belongs to. Blocks; never called on the async runtime. When a write fails, the state in memory is made
//! anew from the store, so that it never runs ahead of it.
//!
//! | table | key | value |
//! |---|---|---|
//! | Follow | machine (20) | JSON of [`FollowRow`] |
//! | Binding | machine (20), serial (8) | signed binding |
//! | Dataset | dataset (32) | dataset entry (177) |
//! | Dataset | machine (20), dataset (32) | log key (56), sequence number (8) of the entry that closed it |
//! | Meta | `feed head `, log key (56) | newest signed head, as of the last time that they were kept |
//! | Evidence | machine (20), BLAKE3 (32) | evidence of an equivocation |

mod history;
mod join;

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use tributary_protocol::{
    binding::{
        BindingChain, SignedBinding,
        chain::{Accepted, ChainError},
    },
    entry::{EntryBody, SignedEntry, SignedHead},
    feed::{EntryVerdict, Evidence, Flags, Follower, HeadVerdict, Truncated},
    ids::{DatasetId, Did, Hash, LogId, LogKey, StreamId},
    seal,
};
use tributary_store::{EntryIndex, Store, StoreError, Table, VerifiedChunk, WriteBatch};

pub use self::join::JoinPoint;
use self::{history::Overlay, join::Joined};
use super::error::FeedsError;

/// Proofs of equivocation of one machine that are looked at; one is enough to distrust it.
const MAX_PROOFS: usize = 64;
/// Rows and entries read at a time.
pub(super) const PAGE: usize = 256;
/// Bytes of entries read at a time.
pub(super) const PAGE_BYTES: usize = 1 << 20;

/// Which streams of a machine are followed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Streams {
    /// All of them, also those to come.
    All,
    /// Those with these names, at most 256.
    Names(Vec<String>),
}

impl Streams {
    /// Whether a log of the machine is among them; its own log always is.
    #[must_use]
    pub fn wants(&self, did: &Did, log: &LogId) -> bool {
        match (log.stream(), self) {
            (None, _) | (_, Self::All) => true,
            (Some(stream), Self::Names(names)) => names.iter().any(|name| StreamId::of(did, name) == stream),
        }
    }
}

/// What is stored about following a machine.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct FollowRow {
    pub(super) version: u32,
    pub(crate) streams: Streams,
    /// Where the machine's nodes were found.
    pub(super) addrs: Vec<String>,
    pub(super) since_ms: u64,
    /// From where the streams are followed.
    #[serde(default)]
    pub(super) from: JoinPoint,
    /// Whether logs that are not followed yet begin at `from`, and those that began later go back to it.
    #[serde(default)]
    pub(super) joining: bool,
    /// Logs that were joined behind a head.
    #[serde(default)]
    pub(super) joined: Vec<Joined>,
}

/// How a machine is followed, as it may be shown.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FollowInfo {
    /// From where its streams are followed: `start`, `now`, or `dataset:` and an id.
    pub from: String,
    /// Since when, ms since 1970.
    pub since_ms: u64,
}

/// How a machine is followed, from what is stored; `None` when it is not.
///
/// # Errors
///
/// The store. A row that cannot be read is as good as none here: opening the feeds reports it.
pub fn followed(store: &Store, did: &Did) -> Result<Option<FollowInfo>, StoreError> {
    let row = store.row(Table::Follow, did.as_bytes())?;
    let row = row.and_then(|row| serde_json::from_slice::<FollowRow>(&row).ok());
    Ok(row.map(|row| FollowInfo { from: row.from.to_string(), since_ms: row.since_ms }))
}

/// What became of an entry, as far as the caller has to act.
#[derive(Debug)]
pub(super) enum Applied {
    /// It is stored.
    New { flags: Flags, stream: Option<StreamId> },
    /// It was there.
    Known,
    /// What comes before it is missing.
    Ahead,
    /// Bindings are missing.
    UnknownKey,
    /// The log was cut back: read on from its new end.
    Cut,
    /// The machine contradicts itself.
    Equivocation,
    /// It counts for nothing.
    Noise(&'static str),
    /// Its sender is at fault.
    Bad(&'static str),
}

/// A followed machine.
pub(crate) struct Feed {
    pub(super) did: Did,
    pub(crate) row: FollowRow,
    follower: Follower,
    store: Store,
    /// Those that stand; at most [`MAX_PROOFS`].
    proofs: Vec<Evidence>,
}

fn closed_key(did: &Did, dataset: &DatasetId) -> Vec<u8> {
    [did.as_bytes().as_slice(), dataset.as_bytes()].concat()
}

/// The entry of the machine log that closed a dataset, as far as it is known here.
pub(crate) fn closing_entry(store: &Store, did: &Did, dataset: &DatasetId) -> Result<Option<Vec<u8>>, StoreError> {
    let Some(place) = store.row(Table::Dataset, &closed_key(did, dataset))? else { return Ok(None) };
    let Some((log, seq)) = place.split_last_chunk::<8>() else { return Ok(None) };
    let Ok(log) = <&[u8; LogKey::LEN]>::try_from(log) else { return Ok(None) };
    store.entry(&LogKey::from_bytes(log), u64::from_be_bytes(*seq))
}

/// The stored bindings of a machine, in order.
pub(super) fn stored_bindings(store: &Store, did: &Did) -> Result<Vec<SignedBinding>, FeedsError> {
    let mut all = Vec::new();
    let mut after: Option<Vec<u8>> = None;
    loop {
        let rows = store.rows(Table::Binding, did.as_bytes(), after.as_deref(), PAGE)?;
        let Some((last, _)) = rows.last() else { return Ok(all) };
        after = Some(last.clone());
        for (_, bytes) in rows {
            let bad = |error: tributary_protocol::binding::BindingError| FeedsError::Row {
                what: "key binding",
                reason: error.to_string(),
            };
            all.push(SignedBinding::decode(&bytes).map_err(bad)?);
        }
    }
}

/// The chain of bindings of a machine, checked from its DID; `None` when none is stored.
pub(crate) fn stored_chain(store: &Store, did: &Did) -> Result<Option<BindingChain>, FeedsError> {
    let bindings = stored_bindings(store, did)?;
    chain_of(did, &bindings).map_err(|source| FeedsError::Chain { did: *did, source })
}

/// The chain of these bindings, in order, checked from the DID.
pub(super) fn chain_of(did: &Did, bindings: &[SignedBinding]) -> Result<Option<BindingChain>, ChainError> {
    if let Some(first) = bindings.first().filter(|first| first.binding().did != *did) {
        return Err(ChainError::OtherMachine { expected: *did, found: first.binding().did });
    }
    let mut chain = None;
    for signed in bindings {
        BindingChain::extend(&mut chain, signed)?;
    }
    Ok(chain)
}

/// Logs of one machine whose heads are read back, as many as are followed.
const MAX_HEADS: usize = 1024;

/// Where heads are kept: with a log's key one of them, with a machine alone what the keys of all its heads begin with.
fn head_key(of: &[u8]) -> Vec<u8> {
    [b"feed head ".as_slice(), of].concat()
}

fn put_binding(batch: &mut WriteBatch, signed: &SignedBinding) {
    let key = [signed.binding().did.as_bytes().as_slice(), &signed.binding().serial.to_be_bytes()].concat();
    batch.put_row(Table::Binding, key, signed.encode());
}

/// What an entry is found by.
fn index_of(body: &EntryBody) -> EntryIndex {
    match body {
        EntryBody::Chunk(record) => {
            EntryIndex { chunk: Some(record.hash), dataset: Some((record.dataset, record.index)) }
        }
        _ => EntryIndex::default(),
    }
}

impl Feed {
    /// Begins to follow a machine, or changes what of it is followed. `bindings` are those from serial 0 on.
    pub(super) fn create(
        store: &Store,
        did: Did,
        row: FollowRow,
        bindings: &[SignedBinding],
    ) -> Result<Self, FeedsError> {
        let mut batch = WriteBatch::new();
        let known = stored_bindings(store, &did)?.len();
        for signed in bindings.iter().skip(known) {
            put_binding(&mut batch, signed);
        }
        put_row(&mut batch, &did, &row)?;
        store.commit(batch)?;
        Self::restore(store, did, row)
    }

    /// Continues from what is stored.
    pub(super) fn restore(store: &Store, did: Did, row: FollowRow) -> Result<Self, FeedsError> {
        let bindings = stored_bindings(store, &did)?;
        let tips = join::stored_tips(store, did, &row)?;
        let history = Overlay::new(store);
        let (follower, cuts) =
            Follower::restore(did, &bindings, tips, &history).map_err(|source| FeedsError::Chain { did, source })?;
        let mut row = row;
        if !cuts.is_empty() {
            let mut batch = WriteBatch::new();
            cut(store, &mut batch, &cuts)?;
            if let Some(kept) = join::without(&row, &cuts) {
                put_row(&mut batch, &did, &kept)?;
                row = kept;
            }
            store.commit(batch)?;
        }
        let mut feed = Self { did, row, follower, store: store.clone(), proofs: Vec::new() };
        for (_, bytes) in store.rows(Table::Meta, &head_key(did.as_bytes()), None, MAX_HEADS)? {
            if let Ok(head) = SignedHead::decode(&bytes) {
                // What it means was acted upon when it came.
                let _ = feed.follower.on_head(&head, &Overlay::new(store));
            }
        }
        feed.proofs = feed.standing_proofs()?;
        Ok(feed)
    }

    /// All followed machines of a store. One that cannot be read is left out, and said so: the others go on.
    pub(super) fn restore_all(store: &Store) -> Result<Vec<Self>, FeedsError> {
        let mut feeds = Vec::new();
        let mut after: Option<Vec<u8>> = None;
        loop {
            let rows = store.rows(Table::Follow, &[], after.as_deref(), PAGE)?;
            let Some((last, _)) = rows.last() else { return Ok(feeds) };
            after = Some(last.clone());
            for (key, value) in rows {
                // Longer keys are not feeds.
                let Ok(did) = <[u8; Did::LEN]>::try_from(key.as_slice()) else { continue };
                let did = Did::from_bytes(did);
                let row = serde_json::from_slice(&value)
                    .map_err(|error| FeedsError::Row { what: "followed feed", reason: error.to_string() });
                match row.and_then(|row| Self::restore(store, did, row)) {
                    Ok(feed) => feeds.push(feed),
                    Err(error @ FeedsError::Store(_)) => return Err(error),
                    Err(error) => tracing::error!(%did, %error, "a followed feed cannot be read; follow it again"),
                }
            }
        }
    }

    /// Makes the newest heads durable, if entries have come since they were kept last: whoever serves the feed after a restart
    /// has them then.
    pub(super) fn keep_heads(&mut self) -> Result<(), FeedsError> {
        let mut batch = WriteBatch::new();
        for tip in self.follower.tips() {
            let Some(head) = self.follower.newest_head(&tip.log.log, tip.log.incarnation) else { continue };
            let key = head_key(&tip.log.to_bytes());
            let kept = self.store.row(Table::Meta, &key)?.and_then(|bytes| SignedHead::decode(&bytes).ok());
            if kept.is_none_or(|kept| kept.head().seq < head.head().seq) {
                batch.put_row(Table::Meta, key, head.bytes().to_vec());
            }
        }
        Ok(self.store.commit(batch)?)
    }

    /// Changes what is stored about following.
    pub(super) fn set_row(&mut self, row: FollowRow) -> Result<(), FeedsError> {
        let mut batch = WriteBatch::new();
        put_row(&mut batch, &self.did, &row)?;
        self.store.commit(batch)?;
        self.row = row;
        Ok(())
    }

    pub(crate) fn follower(&self) -> &Follower {
        &self.follower
    }

    /// The proofs of equivocation that are kept, at most [`MAX_PROOFS`].
    pub(super) fn proofs(&self) -> &[Evidence] {
        &self.proofs
    }

    fn standing_proofs(&self) -> Result<Vec<Evidence>, FeedsError> {
        let rows = self.store.rows(Table::Evidence, self.did.as_bytes(), None, MAX_PROOFS)?;
        let chain = self.follower.chain();
        let stands = |evidence: &Evidence| chain.is_some_and(|chain| evidence.stands(chain));
        Ok(rows.iter().filter_map(|(_, bytes)| Evidence::decode(bytes).ok()).filter(stands).collect())
    }

    /// Makes a batch durable. If that fails, goes back to what is stored.
    fn commit(&mut self, batch: WriteBatch) -> Result<(), FeedsError> {
        let Err(error) = self.store.commit(batch) else { return Ok(()) };
        match Self::restore(&self.store, self.did, self.row.clone()) {
            Ok(feed) => *self = feed,
            // Without a store that can be read nothing is known any more; what comes next fails the same way.
            Err(_) => self.follower = Follower::new(self.did),
        }
        Err(error.into())
    }

    /// Takes bindings in order. Returns how many were new.
    ///
    /// What does not continue the chain is an error of its sender; what came before it is kept.
    pub(super) fn on_bindings(&mut self, bindings: &[SignedBinding]) -> Result<Result<usize, ChainError>, FeedsError> {
        let mut batch = WriteBatch::new();
        let (mut new, mut bad) = (0, None);
        for signed in bindings {
            match self.follower.on_binding(signed, &Overlay::new(&self.store)) {
                Ok(outcome) => {
                    if outcome.accepted == Accepted::New {
                        put_binding(&mut batch, signed);
                        new += 1;
                    }
                    cut(&self.store, &mut batch, &outcome.truncated)?;
                    self.forget_joined(&mut batch, &outcome.truncated)?;
                }
                Err(error) => {
                    bad = Some(error);
                    break;
                }
            }
        }
        self.commit(batch)?;
        if new > 0 {
            self.proofs = self.standing_proofs()?;
        }
        Ok(bad.map_or(Ok(new), Err))
    }

    /// Takes entries in the order they came, until one of them needs something else first; all that count become durable in
    /// one step. Returns what became of each that was looked at.
    pub(super) fn on_entries(
        &mut self,
        entries: &[SignedEntry],
        attachment: Option<&[u8]>,
        now_ms: u64,
    ) -> Result<Vec<Applied>, FeedsError> {
        let store = self.store.clone();
        let mut overlay = Overlay::new(&store);
        let mut batch = WriteBatch::new();
        let mut out = Vec::with_capacity(entries.len());
        let mut equivocation = false;
        for signed in entries {
            let entry = signed.entry();
            let verdict = self.follower.on_entry(signed, now_ms, &overlay);
            let applied = match verdict {
                EntryVerdict::Apply { flags, .. } => {
                    let key = entry.key();
                    batch.put_entry(key, entry.seq, signed.bytes(), index_of(&entry.body));
                    overlay.entries.insert((key, entry.seq), signed.bytes().to_vec());
                    let mut stream = None;
                    match &entry.body {
                        EntryBody::DatasetClosed(close) if !flags.second_close => {
                            batch.put_row(Table::Dataset, close.dataset.as_bytes().to_vec(), close.encode());
                            let place = [key.to_bytes().as_slice(), &entry.seq.to_be_bytes()].concat();
                            batch.put_row(Table::Dataset, closed_key(&self.did, &close.dataset), place);
                            overlay.closed.insert(close.dataset, signed.bytes().to_vec());
                        }
                        EntryBody::DatasetClosed(_) => equivocation = true,
                        EntryBody::Stream(info) => stream = Some(info.stream),
                        _ => {}
                    }
                    Applied::New { flags, stream }
                }
                EntryVerdict::Known => Applied::Known,
                EntryVerdict::Ahead { .. } => Applied::Ahead,
                EntryVerdict::UnknownKey if signed.verify_signature().is_err() => {
                    Applied::Bad("its signature is wrong")
                }
                EntryVerdict::UnknownKey => Applied::UnknownKey,
                EntryVerdict::BadSignature => Applied::Bad("its signature is wrong"),
                EntryVerdict::WrongMachine => Applied::Bad("it is another machine's"),
                EntryVerdict::Equivocation(evidence) => {
                    put_evidence(&mut batch, &self.did, &evidence);
                    equivocation = true;
                    Applied::Equivocation
                }
                EntryVerdict::Forked { .. } => match self.follower.abandon(&entry.log, entry.incarnation) {
                    Some(truncated) => {
                        cut(&store, &mut batch, &[truncated])?;
                        self.forget_joined(&mut batch, &[truncated])?;
                        Applied::Cut
                    }
                    None => Applied::Noise("it contradicts what is held, and nothing proves either"),
                },
                EntryVerdict::Diverged(truncated) => {
                    cut(&store, &mut batch, &[truncated])?;
                    self.forget_joined(&mut batch, &[truncated])?;
                    Applied::Cut
                }
                EntryVerdict::Stale(_) => Applied::Noise("it is signed by a retired key"),
                EntryVerdict::BelowStart => Applied::Noise("it is before the place where following began"),
                EntryVerdict::TooManyLogs => Applied::Noise("the machine has more logs than are followed"),
                _ => Applied::Noise("it is of a kind that is not known here"),
            };
            let stored = matches!(applied, Applied::New { .. } | Applied::Known | Applied::Ahead);
            if let (true, Some(body), EntryBody::Chunk(record)) = (stored, attachment, &entry.body)
                && seal::check_bytes(record, body).is_ok()
                && !store.has_chunk(&record.hash)?
            {
                batch.put_verified(VerifiedChunk::trust(record.hash, body));
            }
            let go_on = matches!(applied, Applied::New { .. } | Applied::Known);
            out.push(applied);
            if !go_on {
                break;
            }
        }
        if equivocation {
            // A second close is proven by the state machine itself.
            for evidence in self.follower.evidence() {
                put_evidence(&mut batch, &self.did, evidence);
            }
        }
        self.commit(batch)?;
        if equivocation {
            self.proofs = self.standing_proofs()?;
        }
        Ok(out)
    }

    /// What was cut away to its start is no longer joined anywhere. A row that could not be written is harmless: restoring cuts
    /// again.
    fn forget_joined(&mut self, batch: &mut WriteBatch, cuts: &[Truncated]) -> Result<(), FeedsError> {
        if let Some(row) = join::without(&self.row, cuts) {
            put_row(batch, &self.did, &row)?;
            self.row = row;
        }
        Ok(())
    }

    /// Takes a head.
    pub(super) fn on_head(&mut self, head: &SignedHead) -> Result<HeadVerdict, FeedsError> {
        let verdict = self.follower.on_head(head, &Overlay::new(&self.store));
        if let HeadVerdict::Equivocation(evidence) = &verdict {
            let mut batch = WriteBatch::new();
            put_evidence(&mut batch, &self.did, evidence);
            self.commit(batch)?;
            self.proofs = self.standing_proofs()?;
        }
        Ok(verdict)
    }

    /// Logs of past incarnations and where they end, with the first position that is missing.
    pub(super) fn closed_logs(&self) -> Vec<(LogKey, u64, u64)> {
        let Some(chain) = self.follower.chain() else { return Vec::new() };
        let mut ends = BTreeMap::new();
        for serial in 1..=chain.current().serial {
            let (Some(before), Some(binding)) = (chain.get(serial - 1), chain.get(serial)) else { continue };
            if before.incarnation == binding.incarnation {
                continue;
            }
            for position in &binding.positions {
                ends.insert((position.log, before.incarnation), position.from_seq);
            }
        }
        let missing = |((log, incarnation), end): ((LogId, u32), u64)| {
            let next = self.follower.next(&log, incarnation);
            let wanted = next < end && self.row.streams.wants(&self.did, &log);
            wanted.then_some((LogKey { did: self.did, log, incarnation }, next, end))
        };
        ends.into_iter().filter_map(missing).collect()
    }
}

fn put_row(batch: &mut WriteBatch, did: &Did, row: &FollowRow) -> Result<(), FeedsError> {
    let value = serde_json::to_vec(row)
        .map_err(|error| FeedsError::Row { what: "followed feed", reason: error.to_string() })?;
    batch.put_row(Table::Follow, did.as_bytes().to_vec(), value);
    Ok(())
}

fn put_evidence(batch: &mut WriteBatch, did: &Did, evidence: &Evidence) {
    let bytes = evidence.encode();
    batch.put_row(Table::Evidence, [did.as_bytes().as_slice(), Hash::of(&bytes).as_bytes()].concat(), bytes);
}

/// Cuts logs back. What stood in the cut part as closed is no longer closed.
fn cut(store: &Store, batch: &mut WriteBatch, cuts: &[Truncated]) -> Result<(), FeedsError> {
    for Truncated { log, from_seq } in cuts {
        if log.log == LogId::MACHINE {
            for stored in store.log(log, *from_seq..) {
                if let EntryBody::DatasetClosed(close) = &decode_stored(&stored?.bytes)?.entry().body {
                    batch.delete_row(Table::Dataset, close.dataset.as_bytes().to_vec());
                    batch.delete_row(Table::Dataset, closed_key(&log.did, &close.dataset));
                }
            }
        }
        batch.truncate_log(*log, *from_seq);
    }
    Ok(())
}

/// An entry that was checked before it was stored.
pub(crate) fn decode_stored(bytes: &[u8]) -> Result<SignedEntry, FeedsError> {
    SignedEntry::decode(bytes).map_err(|error| FeedsError::Row { what: "log entry", reason: error.to_string() })
}
