//! Granting as the owner, from any home that follows the machine: the machine may be asleep, broken or gone.
//!
//! What is needed from the home is public and already verified there: the bindings, the entries that begin the key epochs, and
//! where the chunks lie ([`gather`]). The owner's key opens the seeds in those entries and signs the grants ([`issue`]); the two
//! halves can be two processes, and the key stays in the second. A seed that does not open the machine's own chunks is found out
//! before anything is granted.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use tributary_protocol::{
    access::{Grant, GrantError, GrantHeader, GrantRange, Range, Selection, grant::Issuer},
    binding::{BindingChain, BindingError, ChainError, SignedBinding},
    dataset::DatasetEntry,
    entry::{EntryBody, EpochInfo, SignedEntry},
    ids::{DatasetId, Did, Hash, LogId, LogKey, StreamId},
    keys::EncryptionPublicKey,
    keytree::{KeyTree, Position},
};
use tributary_store::{Store, StoreError};

use crate::{
    home::OwnerKey,
    machine::{
        OwnBindingError, SelectionError, in_time, live_range, newest_record, no_epoch, nothing_in_time, stored_bindings,
    },
};

/// A grant file of the owner can be imported for this long, ms: 30 days.
const LIFE_MS: u64 = 30 * 24 * 60 * 60 * 1000;
/// Ranges of keys in one file.
const MAX_GRANTS: usize = 256;

/// Why the owner cannot grant.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum OwnerGrantError {
    /// The copy of the feed cannot be read.
    #[error("the copy of the feed cannot be read: {0}")]
    Store(#[from] StoreError),
    /// The bindings in it cannot be read.
    #[error(transparent)]
    Binding(#[from] OwnBindingError),
    /// There is none.
    #[error("nothing of {0} is here; follow it first with `tributary subscribe LINK`")]
    NotFollowed(Did),
    /// The selection means nothing here.
    #[error(transparent)]
    Selection(#[from] SelectionError),
    /// The beginning of a key epoch is missing.
    #[error(
        "the beginning of key epoch {epoch} of stream {stream} is not in the copy of the machine's log here; let this home catch up, or use one that holds the whole log"
    )]
    NoEpoch {
        /// The stream.
        stream: StreamId,
        /// The epoch.
        epoch: u64,
    },
    /// Too much at once.
    #[error("the selection falls into {found} ranges of keys, at most {MAX_GRANTS} are granted at once; ask for less")]
    TooManyRanges {
        /// How many.
        found: usize,
    },
    /// What came from the home is not in its form.
    #[error("what the node gave is not a copy of a feed: {0}; is the command of the same version as the node?")]
    Form(&'static str),
    /// The bindings do not follow each other from the machine's DID.
    #[error(transparent)]
    Chain(#[from] ChainError),
    /// A binding is malformed.
    #[error(transparent)]
    BadBinding(#[from] BindingError),
    /// The key is not that of the machine's owner.
    #[error("this is the key of {given}, and the owner of {machine} is {owner}; give that owner's key file")]
    NotTheOwner {
        /// The machine.
        machine: Did,
        /// Whom its newest binding names.
        owner: Did,
        /// Whose key was given.
        given: Did,
    },
    /// The seed does not open.
    #[error(
        "the seed of key epoch {epoch} of stream {stream} was not sealed to this owner's key; it opens with the key of the owner at that time"
    )]
    Sealed {
        /// The stream.
        stream: StreamId,
        /// The epoch.
        epoch: u64,
    },
    /// The machine sealed another seed to its owner than it uses.
    #[error(
        "the machine cheats its owner: the seed that it published for key epoch {epoch} of stream {stream} does not open its chunks; nothing was granted"
    )]
    WrongSeed {
        /// The stream.
        stream: StreamId,
        /// The epoch.
        epoch: u64,
    },
    /// A range cannot be covered.
    #[error("the range cannot be covered: {0}")]
    Cover(String),
    /// The grant cannot be made.
    #[error(transparent)]
    Grant(#[from] GrantError),
}

/// What a home knows about the keys of a selection. All of it is public.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Material {
    /// The machine.
    pub machine: Did,
    /// Its signed bindings, hex, oldest first.
    pub bindings: Vec<String>,
    /// The key ranges of the selection.
    pub ranges: Vec<MaterialRange>,
    /// The epochs they lie in.
    pub epochs: Vec<MaterialEpoch>,
}

/// A range of chunk keys.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MaterialRange {
    /// The stream.
    pub stream: StreamId,
    /// The key epoch.
    pub epoch: u64,
    /// The first position.
    pub first: u64,
    /// The last, included.
    pub last: u64,
}

/// A key epoch.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MaterialEpoch {
    /// The machine's entry that began it, hex: it has the seed, sealed to the owner.
    pub begun: String,
    /// The entry of one chunk in it, hex, to try the seed on; `None` while none is known.
    pub chunk: Option<String>,
}

/// The machine logs of a feed, as far as they tell of keys.
#[derive(Default)]
struct Known {
    epochs: BTreeMap<(StreamId, u64), (EpochInfo, SignedEntry)>,
    datasets: BTreeMap<DatasetId, DatasetEntry>,
}

impl Known {
    fn read(store: &Store, logs: &[LogKey]) -> Result<Self, StoreError> {
        let mut known = Self::default();
        for log in logs.iter().filter(|log| log.log == LogId::MACHINE) {
            for stored in store.log(log, ..) {
                let Ok(signed) = SignedEntry::decode(&stored?.bytes) else { continue };
                match &signed.entry().body {
                    EntryBody::Epoch(info) => {
                        let info = info.clone();
                        known.epochs.insert((info.stream, info.epoch), (info, signed));
                    }
                    EntryBody::DatasetClosed(entry) => drop(known.datasets.insert(entry.dataset, entry.clone())),
                    _ => {}
                }
            }
        }
        Ok(known)
    }

    fn newest_epoch(&self, stream: StreamId) -> Option<&EpochInfo> {
        self.epochs.range((stream, 0)..=(stream, u64::MAX)).next_back().map(|(_, (info, _))| info)
    }
}

/// Collects what a home that follows `machine` knows about the keys of `selection`. Blocks.
///
/// # Errors
///
/// When nothing of the machine is here, or the selection means nothing.
pub fn gather(store: &Store, machine: &Did, selection: &Selection, now_ms: u64) -> Result<Material, OwnerGrantError> {
    let bindings = stored_bindings(store, machine)?;
    if bindings.is_empty() {
        return Err(OwnerGrantError::NotFollowed(*machine));
    }
    let logs = store.logs(Some(machine))?;
    let known = Known::read(store, &logs)?;
    let of_stream = |stream: StreamId| {
        let mut all: Vec<LogKey> = logs.iter().copied().filter(|log| log.log == LogId::from(stream)).collect();
        all.sort_by_key(|log| log.incarnation);
        all
    };
    let mut ranges: Vec<GrantRange> = Vec::new();
    for range in selection.ranges() {
        match *range {
            Range::Dataset(id) => {
                let none = || SelectionError::Empty { what: format!("dataset {id} is not closed, or not known here") };
                let entry = known.datasets.get(&id).ok_or_else(none)?;
                let (first, last) = (entry.first_position, entry.last_position);
                ranges.push(GrantRange { stream: entry.stream, epoch: entry.epoch, first, last });
            }
            Range::Positions { stream, epoch, first, last } if first <= last => {
                ranges.push(GrantRange { stream, epoch, first, last });
            }
            Range::Positions { .. } => return Err(OwnerGrantError::Cover("it ends before it begins".to_owned())),
            Range::Time { stream, from_ms, to_ms } => {
                let found = in_time(store, machine, stream, from_ms, to_ms)?;
                if found.is_empty() {
                    return Err(nothing_in_time(stream).into());
                }
                ranges.extend(found);
            }
            Range::Live { stream, seconds } => {
                let epoch = known.newest_epoch(stream).ok_or_else(|| no_epoch(stream))?;
                let newest = of_stream(stream).last().map(|log| newest_record(store, log)).transpose()?.flatten();
                let live = live_range(stream, (epoch.epoch, epoch.started_ms), newest.as_ref(), seconds, now_ms);
                ranges.push(live.ok_or_else(|| no_epoch(stream))?);
            }
        }
    }
    let mut seen = std::collections::HashSet::new();
    ranges.retain(|range| seen.insert(*range));
    if ranges.len() > MAX_GRANTS {
        return Err(OwnerGrantError::TooManyRanges { found: ranges.len() });
    }
    let mut names: Vec<(StreamId, u64)> = ranges.iter().map(|range| (range.stream, range.epoch)).collect();
    names.sort_unstable();
    names.dedup();
    let mut epochs = Vec::new();
    for (stream, epoch) in names {
        let (_, begun) = known.epochs.get(&(stream, epoch)).ok_or(OwnerGrantError::NoEpoch { stream, epoch })?;
        let log = LogKey { did: *machine, log: LogId::from(stream), incarnation: begun.entry().incarnation };
        let chunk = first_of(store, &log, epoch)?.map(|entry| hex::encode(entry.bytes()));
        epochs.push(MaterialEpoch { begun: hex::encode(begun.bytes()), chunk });
    }
    let range = |range: &GrantRange| MaterialRange {
        stream: range.stream,
        epoch: range.epoch,
        first: range.first.as_u64(),
        last: range.last.as_u64(),
    };
    Ok(Material {
        machine: *machine,
        bindings: bindings.iter().map(|signed| hex::encode(signed.encode())).collect(),
        ranges: ranges.iter().map(range).collect(),
        epochs,
    })
}

/// The entry of the first chunk of an epoch.
fn first_of(store: &Store, log: &LogKey, epoch: u64) -> Result<Option<SignedEntry>, StoreError> {
    for stored in store.log(log, ..) {
        let Ok(signed) = SignedEntry::decode(&stored?.bytes) else { continue };
        if matches!(&signed.entry().body, EntryBody::Chunk(record) if record.epoch == epoch) {
            return Ok(Some(signed));
        }
    }
    Ok(None)
}

/// Issues the grants of a selection with the owner's key. Returns them with the bindings that prove them.
///
/// # Errors
///
/// When the key is not that of the machine's owner, or a seed does not open what it should.
pub fn issue(
    material: &Material,
    owner: &OwnerKey,
    buyer: Did,
    buyer_enc: EncryptionPublicKey,
    now_ms: u64,
) -> Result<Vec<Grant>, OwnerGrantError> {
    let machine = material.machine;
    let chain = chain_of(material)?;
    let (newest, given) = (chain.current(), owner.public().address);
    if newest.owner_id != given {
        return Err(OwnerGrantError::NotTheOwner { machine, owner: newest.owner_id, given });
    }
    let mut trees = BTreeMap::new();
    for epoch in &material.epochs {
        let (name, tree) = open_epoch(&chain, epoch, owner)?;
        trees.insert(name, tree);
    }
    let each = |range: &MaterialRange| {
        let MaterialRange { stream, epoch, first, last } = *range;
        let position = |at: u64| Position::from_u64(at).ok_or(OwnerGrantError::Form("a position is none"));
        let range = GrantRange { stream, epoch, first: position(first)?, last: position(last)? };
        let tree = trees.get(&(stream, epoch)).ok_or(OwnerGrantError::NoEpoch { stream, epoch })?;
        let cover = tree.cover(range.first..=range.last).map_err(|error| OwnerGrantError::Cover(error.to_string()))?;
        let header = GrantHeader {
            grant_id: Hash::from_bytes(rand::random()),
            // Nobody asked and nothing was quoted.
            request_id: Hash::ZERO,
            terms_hash: Hash::ZERO,
            machine,
            range,
            buyer,
            buyer_enc,
            issued_ms: now_ms,
            expires_ms: now_ms.saturating_add(LIFE_MS),
            binding_serial: newest.serial,
            cover_hash: cover.hash(),
        };
        Ok(Grant::issue(header, &cover, Issuer::Owner(&owner.identity), &mut rand::rng())?)
    };
    material.ranges.iter().take(MAX_GRANTS).map(each).collect()
}

fn chain_of(material: &Material) -> Result<BindingChain, OwnerGrantError> {
    let mut chain = None;
    for text in &material.bindings {
        let bytes = hex::decode(text).map_err(|_| OwnerGrantError::Form("a binding is not hex"))?;
        let signed = SignedBinding::decode(&bytes)?;
        BindingChain::extend(&mut chain, &signed)?;
    }
    let chain = chain.ok_or(OwnerGrantError::NotFollowed(material.machine))?;
    if chain.did() == material.machine { Ok(chain) } else { Err(OwnerGrantError::Form("its bindings are another's")) }
}

/// Opens the seed of an epoch, and tries it on a chunk.
fn open_epoch(
    chain: &BindingChain,
    epoch: &MaterialEpoch,
    owner: &OwnerKey,
) -> Result<((StreamId, u64), KeyTree), OwnerGrantError> {
    let begun = entry_of(chain, &epoch.begun)?;
    let EntryBody::Epoch(info) = &begun.entry().body else {
        return Err(OwnerGrantError::Form("an entry begins no epoch"));
    };
    let (stream, number) = (info.stream, info.epoch);
    let seed = info
        .open(chain.did(), begun.entry().incarnation, &owner.encryption)
        .map_err(|_| OwnerGrantError::Sealed { stream, epoch: number })?;
    if let Some(chunk) = &epoch.chunk {
        let entry = entry_of(chain, chunk)?;
        let EntryBody::Chunk(record) = &entry.entry().body else {
            return Err(OwnerGrantError::Form("an entry has no chunk"));
        };
        // Keys are taken from a tree of its own: one that has given a key remembers where it was.
        let key = KeyTree::new(&seed, &stream, number).chunk_key(record.position);
        if (record.stream, record.epoch) != (stream, number) || key.commitment() != record.key_commitment {
            return Err(OwnerGrantError::WrongSeed { stream, epoch: number });
        }
    }
    Ok(((stream, number), KeyTree::new(&seed, &stream, number)))
}

/// An entry, with the signature of the key that may write its place.
fn entry_of(chain: &BindingChain, text: &str) -> Result<SignedEntry, OwnerGrantError> {
    let bytes = hex::decode(text).map_err(|_| OwnerGrantError::Form("an entry is not hex"))?;
    let signed = SignedEntry::decode(&bytes).map_err(|_| OwnerGrantError::Form("an entry is malformed"))?;
    let entry = signed.entry();
    let key = chain.key_for(&entry.log, entry.incarnation, entry.seq);
    if entry.did != chain.did() || key != Some(signed.signer()) || signed.verify_signature().is_err() {
        return Err(OwnerGrantError::Form("an entry is not signed by the machine"));
    }
    Ok(signed)
}
