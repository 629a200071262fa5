//! Grants that were received.
//!
//! Owns which chunk keys this node may use. A grant is kept as it came, sealed to this node's encryption key; opened covers
//! are only in memory, at most [`MAX_OPEN`] of them, and wiped when they leave it.
//!
//! Table Grant, key `0x77 || machine (20) || grant id (32)`, value (version 1, big endian):
//! `version (1) || received ms (8) || request id (32) || terms hash (32) || grant`.

use std::{
    collections::{BTreeMap, VecDeque},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use serde::{Deserialize, Serialize};
use tributary_protocol::{
    access::{Grant, GrantError, GrantExpectation, GrantHeader},
    binding::BindingChain,
    ids::{Did, Hash, StreamId},
    keys::EncryptionKey,
    keytree::{ChunkKey, Cover},
    record::ChunkRecord,
};
use tributary_store::{Store, Table, WriteBatch};

use super::Buyer;
use crate::feeds::{FeedsError, blocking, stored_chain};

/// Opened covers in memory; each has at most 4 KiB.
const MAX_OPEN: usize = 256;
/// First byte of the keys of our rows: the selling side has rows of its own in the table.
const PREFIX: u8 = b'w';
const VERSION: u8 = 1;
const HEAD: usize = 1 + 8 + 32 + 32;

/// A grant, as it may be shown.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct GrantInfo {
    /// Its id.
    pub grant: Hash,
    /// The request it answers.
    pub request: Hash,
    /// The machine.
    pub machine: Did,
    /// The stream.
    pub stream: StreamId,
    /// The key epoch.
    pub epoch: u64,
    /// First key position, `slot:counter`.
    pub first: String,
    /// Last key position, included.
    pub last: String,
    /// When it was issued, ms since 1970.
    pub issued_ms: u64,
}

impl From<&GrantHeader> for GrantInfo {
    fn from(header: &GrantHeader) -> Self {
        Self {
            grant: header.grant_id,
            request: header.request_id,
            machine: header.machine,
            stream: header.range.stream,
            epoch: header.range.epoch,
            first: header.range.first.to_string(),
            last: header.range.last.to_string(),
            issued_ms: header.issued_ms,
        }
    }
}

#[derive(Default)]
struct State {
    /// What is held, by machine, stream and key epoch.
    held: BTreeMap<(Did, StreamId, u64), Vec<GrantHeader>>,
    open: BTreeMap<(Did, Hash), Arc<Cover>>,
    /// In the order they were opened.
    opened: VecDeque<(Did, Hash)>,
}

impl State {
    fn add(&mut self, header: GrantHeader) {
        let list = self.held.entry((header.machine, header.range.stream, header.range.epoch)).or_default();
        if !list.iter().any(|known| known.grant_id == header.grant_id) {
            list.push(header);
        }
    }

    fn remember(&mut self, id: (Did, Hash), cover: Arc<Cover>) {
        if self.open.insert(id, cover).is_none() {
            self.opened.push_back(id);
            if self.opened.len() > MAX_OPEN
                && let Some(oldest) = self.opened.pop_front()
            {
                self.open.remove(&oldest);
            }
        }
    }

    /// The grant that covers a chunk.
    fn find(&self, did: &Did, record: &ChunkRecord) -> Option<&GrantHeader> {
        let list = self.held.get(&(*did, record.stream, record.epoch))?;
        // Renewals add up, and it is mostly the newest that is meant.
        list.iter().rev().find(|header| (header.range.first..=header.range.last).contains(&record.position))
    }
}

/// The grants of this node.
pub(super) struct Wallet {
    store: Store,
    state: Mutex<State>,
}

fn row_key(did: &Did, grant: &Hash) -> Vec<u8> {
    [&[PREFIX], did.as_bytes().as_slice(), grant.as_bytes()].concat()
}

fn bad_row(reason: impl ToString) -> FeedsError {
    FeedsError::Row { what: "grant", reason: reason.to_string() }
}

/// A stored grant.
struct Row {
    received_ms: u64,
    request_id: Hash,
    terms_hash: Hash,
    grant: Grant,
}

impl Row {
    fn encode(&self) -> Vec<u8> {
        let mut out = vec![VERSION];
        out.extend_from_slice(&self.received_ms.to_be_bytes());
        out.extend_from_slice(self.request_id.as_bytes());
        out.extend_from_slice(self.terms_hash.as_bytes());
        out.extend_from_slice(&self.grant.encode());
        out
    }

    fn decode(bytes: &[u8]) -> Result<Self, FeedsError> {
        let Some((head, grant)) = bytes.split_first_chunk::<HEAD>() else { return Err(bad_row("it is cut off")) };
        if head[0] != VERSION {
            return Err(bad_row("a newer program wrote it"));
        }
        let (mut time, mut request, mut terms) = ([0; 8], [0; 32], [0; 32]);
        time.copy_from_slice(&head[1..9]);
        request.copy_from_slice(&head[9..41]);
        terms.copy_from_slice(&head[41..]);
        Ok(Self {
            received_ms: u64::from_be_bytes(time),
            request_id: Hash::from_bytes(request),
            terms_hash: Hash::from_bytes(terms),
            grant: Grant::decode(grant).map_err(bad_row)?,
        })
    }

    fn open(&self, chain: &BindingChain, key: &EncryptionKey, buyer: Did) -> Result<Cover, GrantError> {
        let serial = self.grant.header().binding_serial;
        let binding =
            chain.get(serial).ok_or(GrantError::OtherBinding { expected: chain.current().serial, found: serial })?;
        let expected =
            GrantExpectation { binding, buyer, request_id: self.request_id, terms_hash: self.terms_hash, range: None };
        // Keys that could be opened when they came do not expire.
        self.grant.open(key, &expected, self.received_ms)
    }
}

impl Wallet {
    /// Reads what is stored; opens nothing.
    pub(super) fn open(store: &Store) -> Result<Self, FeedsError> {
        let mut state = State::default();
        let mut after: Option<Vec<u8>> = None;
        loop {
            let rows = store.rows(Table::Grant, &[PREFIX], after.as_deref(), 256)?;
            let Some((last, _)) = rows.last() else { break };
            after = Some(last.clone());
            for (key, value) in rows {
                if key.len() == 1 + Did::LEN + Hash::LEN {
                    state.add(*Row::decode(&value)?.grant.header());
                }
            }
        }
        Ok(Self { store: store.clone(), state: Mutex::new(state) })
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Checks grants that answer a request, and keeps them durably: all or none. `expected` names the machine's newest binding;
    /// `chain` has those before it.
    pub(super) fn receive(
        &self,
        grants: Vec<Grant>,
        chain: &BindingChain,
        expected: &GrantExpectation<'_>,
        key: &EncryptionKey,
        now_ms: u64,
    ) -> Result<Result<Vec<GrantInfo>, GrantError>, FeedsError> {
        let mut batch = WriteBatch::new();
        let mut opened = Vec::with_capacity(grants.len());
        for grant in grants {
            let expected = GrantExpectation { binding: grant.binding_in(chain), ..*expected };
            let cover = match grant.open(key, &expected, now_ms) {
                Ok(cover) => Arc::new(cover),
                Err(error) => return Ok(Err(error)),
            };
            let header = *grant.header();
            let row =
                Row { received_ms: now_ms, request_id: expected.request_id, terms_hash: expected.terms_hash, grant };
            batch.put_row(Table::Grant, row_key(&header.machine, &header.grant_id), row.encode());
            opened.push((header, cover));
        }
        self.store.commit(batch)?;
        let mut state = self.state();
        let infos = opened.iter().map(|(header, _)| header.into()).collect();
        for (header, cover) in opened {
            state.add(header);
            state.remember((header.machine, header.grant_id), cover);
        }
        Ok(Ok(infos))
    }

    /// Whether a key for the chunk was granted. Looks at headers only.
    pub(super) fn holds(&self, did: &Did, record: &ChunkRecord) -> bool {
        self.state().find(did, record).is_some()
    }

    /// The key of a chunk; `None` when it was not granted.
    pub(super) fn key_for(
        &self,
        did: &Did,
        record: &ChunkRecord,
        key: &EncryptionKey,
        buyer: Did,
    ) -> Result<Option<ChunkKey>, FeedsError> {
        let (id, open) = {
            let state = self.state();
            let Some(header) = state.find(did, record) else { return Ok(None) };
            let id = (*did, header.grant_id);
            (id, state.open.get(&id).cloned())
        };
        let cover = match open {
            Some(cover) => cover,
            None => {
                let Some(row) = self.store.row(Table::Grant, &row_key(&id.0, &id.1))? else { return Ok(None) };
                let Some(chain) = stored_chain(&self.store, did)? else { return Ok(None) };
                let cover = Arc::new(Row::decode(&row)?.open(&chain, key, buyer).map_err(bad_row)?);
                self.state().remember(id, Arc::clone(&cover));
                cover
            }
        };
        Ok(cover.chunk_key(record.position))
    }

    fn list(&self, did: Option<&Did>) -> Vec<GrantInfo> {
        let state = self.state();
        let wanted = state.held.iter().filter(|((machine, _, _), _)| did.is_none_or(|did| did == machine));
        wanted.flat_map(|(_, list)| list.iter().map(GrantInfo::from)).collect()
    }
}

impl Buyer {
    /// The grants this node holds, of one machine or of all.
    #[must_use]
    pub fn grants(&self, did: Option<&Did>) -> Vec<GrantInfo> {
        self.inner.wallet.list(did)
    }

    /// The key of a chunk of a machine; `None` when it was not granted. Blocks.
    pub(super) fn key_for(&self, did: &Did, record: &ChunkRecord) -> Result<Option<ChunkKey>, FeedsError> {
        self.inner.wallet.key_for(did, record, &self.inner.encryption, self.inner.did)
    }

    /// Takes grants that came otherwise than over the network, as for a request made from here.
    pub(super) async fn receive_grants(
        &self,
        did: Did,
        grants: Vec<Grant>,
        request_id: Hash,
        terms_hash: Hash,
    ) -> Result<Result<Vec<GrantInfo>, GrantError>, FeedsError> {
        let (buyer, now_ms) = (self.clone(), self.feeds().now());
        blocking(move || {
            let chain = stored_chain(buyer.feeds().store(), &did)?.ok_or(FeedsError::NotFollowed(did))?;
            let expected = GrantExpectation {
                binding: chain.current(),
                buyer: buyer.inner.did,
                request_id,
                terms_hash,
                range: None,
            };
            buyer.inner.wallet.receive(grants, &chain, &expected, &buyer.inner.encryption, now_ms)
        })
        .await?
    }
}
