//! What machines leave with this mirror for their buyers: grants, sealed, and denials, both signed by the machine.
//!
//! Taken is only what the current feed key of a machine signed whose feed is kept here, within bounds for each feed; of two
//! deposits for one request the one with the higher revision counts, so an old one cannot be played again. Given is it to whoever
//! names the request: grants open with the buyer's key alone. Blocks.
//!
//! | table | key | value |
//! |---|---|---|
//! | Order | `deposit/`, request id (32) | the signed deposit |
//! | Grant | `deposited/`, request id (32), number (2, big endian) | the grant, as it travels |

use std::{
    collections::BTreeMap,
    sync::{
        Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
};

use serde::{Deserialize, Serialize};
use tributary_protocol::{
    access::{
        Grant,
        deposit::{DepositError, DepositState, SignedDeposit, hash_of_grants},
    },
    ids::{Did, Hash},
    wire::{AccessReply, DenyCode, access::MAX_MESSAGE},
};
use tributary_store::{Row, Store, StoreError, Table, WriteBatch};

use crate::{
    feeds::{Feeds, FeedsError},
    machine::Clock,
};

const DEPOSITS: &[u8] = b"deposit/";
const GRANTS: &[u8] = b"deposited/";
/// Requests of one machine that are kept.
const MAX_REQUESTS: u64 = 4096;
/// Bytes of one machine that are kept: about ten thousand grants.
const MAX_BYTES: u64 = 32 << 20;
/// A deposit is kept at most so long, whatever it says itself: twice as long as a grant can be opened.
const MAX_LIFE_MS: u64 = 60 * 24 * 60 * 60 * 1000;
/// Rows read at a time.
const PAGE: usize = 256;
/// Grants in one reply: more than fit of the shortest ones.
const GRANTS_PER_REPLY: usize = 128;
/// Bytes of a reply that are not grants.
const REPLY_ENVELOPE: usize = 256;
/// When to ask again for grants that are on their way, ms.
const SOON_MS: u32 = 2000;

/// What is kept of one machine.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Held {
    pub(super) requests: u64,
    pub(super) bytes: u64,
}

/// What became of deposits since the start.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct DepositCounts {
    /// Parts taken.
    pub taken: u64,
    /// Parts that were older than what is kept.
    pub outdated: u64,
    /// Parts refused: not signed by the machine, of a machine whose feed is not kept, or more than there is room for.
    pub refused: u64,
    /// Answers to buyers.
    pub given: u64,
}

/// The deposits of a mirror.
pub struct Deposits {
    store: Store,
    feeds: Feeds,
    clock: Clock,
    machines: Vec<Did>,
    /// Held from the look at a deposit to the commit of what became of it.
    held: Mutex<BTreeMap<Did, Held>>,
    taken: AtomicU64,
    outdated: AtomicU64,
    refused: AtomicU64,
    given: AtomicU64,
}

fn deposit_key(id: &Hash) -> Vec<u8> {
    [DEPOSITS, id.as_bytes()].concat()
}

fn grants_of(id: &Hash) -> Vec<u8> {
    [GRANTS, id.as_bytes()].concat()
}

fn grant_key(id: &Hash, number: u16) -> Vec<u8> {
    [GRANTS, id.as_bytes(), &number.to_be_bytes()].concat()
}

/// What became of a part.
enum Taken {
    /// So many grants of it are kept.
    Kept(u16),
    /// Something newer is here.
    Outdated,
    Refused(DenyCode, String),
}

fn refused(code: DenyCode, reason: impl Into<String>) -> Taken {
    Taken::Refused(code, reason.into())
}

impl Deposits {
    /// Counts what is kept.
    ///
    /// # Errors
    ///
    /// When the store cannot be read.
    pub(super) fn open(store: Store, feeds: Feeds, clock: Clock, machines: Vec<Did>) -> Result<Self, StoreError> {
        let zero = AtomicU64::default;
        let deposits = Self {
            store,
            feeds,
            clock,
            machines,
            held: Mutex::default(),
            taken: zero(),
            outdated: zero(),
            refused: zero(),
            given: zero(),
        };
        let mut held: BTreeMap<Did, Held> = BTreeMap::new();
        deposits.for_each(|signed| {
            let machine = held.entry(signed.deposit().machine).or_default();
            machine.requests += 1;
            machine.bytes += signed.bytes().len() as u64;
            for (_, grant) in deposits.rows_of(&signed.deposit().request_id)? {
                machine.bytes += grant.len() as u64;
            }
            Ok(())
        })?;
        *deposits.lock() = held;
        Ok(deposits)
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<Did, Held>> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What is kept of a machine.
    pub(super) fn held(&self, did: &Did) -> Held {
        self.lock().get(did).copied().unwrap_or_default()
    }

    /// What became of deposits since the start.
    pub(super) fn counts(&self) -> DepositCounts {
        DepositCounts {
            taken: self.taken.load(Relaxed),
            outdated: self.outdated.load(Relaxed),
            refused: self.refused.load(Relaxed),
            given: self.given.load(Relaxed),
        }
    }

    /// Takes a part of a deposit: what the machine says, and its grants from number `first` on.
    ///
    /// # Errors
    ///
    /// When the store cannot be read or written.
    pub(crate) fn take(&self, deposit: &[u8], first: u16, grants: &[Vec<u8>]) -> Result<AccessReply, FeedsError> {
        let taken = self.try_take(deposit, first, grants)?;
        let counter = match &taken {
            Taken::Kept(_) => &self.taken,
            Taken::Outdated => &self.outdated,
            Taken::Refused(..) => &self.refused,
        };
        counter.fetch_add(1, Relaxed);
        Ok(match taken {
            Taken::Kept(count) => AccessReply::Deposited { count },
            Taken::Outdated => AccessReply::Deposited { count: 0 },
            Taken::Refused(code, reason) => {
                tracing::warn!(reason, "a deposit is refused");
                AccessReply::Denied { code, reason }
            }
        })
    }

    fn try_take(&self, deposit: &[u8], first: u16, grants: &[Vec<u8>]) -> Result<Taken, FeedsError> {
        let invalid = |error: &dyn std::error::Error| Ok(refused(DenyCode::Invalid, error.to_string()));
        let signed = match SignedDeposit::decode(deposit) {
            Ok(signed) => signed,
            Err(error) => return invalid(&error),
        };
        let said = signed.deposit();
        let (machine, id, now_ms) = (said.machine, said.request_id, (self.clock)());
        let handle = match self.feeds.handle(&machine) {
            Ok(handle) if self.machines.contains(&machine) => handle,
            _ => return Ok(refused(DenyCode::NotFound, "the feed of this machine is not kept here")),
        };
        let parts = {
            let feed = handle.feed();
            let Some(chain) = feed.follower().chain() else {
                return Ok(refused(DenyCode::NotFound, "the feed of this machine is not here yet"));
            };
            match signed.verify(chain.current(), now_ms) {
                Ok(()) => {}
                Err(error @ DepositError::Expired { .. }) => {
                    return Ok(refused(DenyCode::Expired, error.to_string()));
                }
                Err(error) => return invalid(&error),
            }
            let mut parts = Vec::with_capacity(grants.len());
            for bytes in grants {
                let grant = match Grant::decode(bytes) {
                    Ok(grant) => grant,
                    Err(error) => return invalid(&error),
                };
                // A retired key issues none: no buyer would take it.
                if let Err(error) = grant.verify(grant.binding_in(chain)) {
                    return Ok(refused(DenyCode::Expired, format!("a grant counts no longer: {error}")));
                }
                if grant.header().request_id != id {
                    return Ok(refused(DenyCode::Invalid, "a grant answers another request"));
                }
                parts.push(bytes.as_slice());
            }
            parts
        };
        let total = match said.state {
            DepositState::Granted { total, .. } => total,
            DepositState::Denied { .. } => 0,
        };
        if usize::from(first) + parts.len() > usize::from(total) || (total > 0 && parts.is_empty()) {
            return Ok(refused(DenyCode::Invalid, "other grants than the deposit says"));
        }
        if said.expires_ms > now_ms.saturating_add(MAX_LIFE_MS) {
            return Ok(refused(DenyCode::Invalid, "a deposit lives for 60 days at most"));
        }
        self.put(&signed, first, &parts)
    }

    /// Stores a part that was checked, unless something newer is here.
    fn put(&self, signed: &SignedDeposit, first: u16, parts: &[&[u8]]) -> Result<Taken, FeedsError> {
        let said = signed.deposit();
        let id = said.request_id;
        let mut held = self.lock();
        let before = self.load(&id)?;
        if let Some(before) = &before {
            if before.deposit().machine != said.machine {
                return Ok(refused(DenyCode::Invalid, "the request is another machine's"));
            }
            if before.deposit().revision > said.revision {
                return Ok(Taken::Outdated);
            }
            if before.deposit().revision == said.revision && before.bytes() != signed.bytes() {
                return Ok(refused(DenyCode::Invalid, "another deposit has this revision"));
            }
        }
        let same = before.as_ref().is_some_and(|before| before.bytes() == signed.bytes());
        let mut room = held.get(&said.machine).copied().unwrap_or_default();
        let mut batch = WriteBatch::new();
        let mut rows: BTreeMap<Vec<u8>, Vec<u8>> = self.rows_of(&id)?.into_iter().collect();
        if !same {
            // What an older one said is over, with its grants.
            for (key, grant) in std::mem::take(&mut rows) {
                room.bytes = room.bytes.saturating_sub(grant.len() as u64);
                batch.delete_row(Table::Grant, key);
            }
            match &before {
                Some(before) => room.bytes = room.bytes.saturating_sub(before.bytes().len() as u64),
                None => room.requests += 1,
            }
            room.bytes += signed.bytes().len() as u64;
            batch.put_row(Table::Order, deposit_key(&id), signed.bytes().to_vec());
        }
        for (number, part) in (first..=u16::MAX).zip(parts) {
            let key = grant_key(&id, number);
            if let Some(old) = rows.insert(key.clone(), part.to_vec()) {
                room.bytes = room.bytes.saturating_sub(old.len() as u64);
            }
            room.bytes += part.len() as u64;
            batch.put_row(Table::Grant, key, part.to_vec());
        }
        if room.requests > MAX_REQUESTS || room.bytes > MAX_BYTES {
            return Ok(refused(DenyCode::RateLimited, "there is no room for more deposits of this machine"));
        }
        if let DepositState::Granted { total, grants } = &said.state
            && rows.len() == usize::from(*total)
            && hash_of_grants(rows.values().map(|grant| Hash::of(grant))) != *grants
        {
            return Ok(refused(DenyCode::Invalid, "the grants are not those that the deposit names"));
        }
        self.store.commit(batch)?;
        held.insert(said.machine, room);
        Ok(Taken::Kept(u16::try_from(parts.len()).unwrap_or(u16::MAX)))
    }

    /// What is known of a request, with its grants from number `from` on; `None` when nothing is.
    ///
    /// # Errors
    ///
    /// When the store cannot be read.
    pub(crate) fn fetch(&self, id: &Hash, from: u16) -> Result<Option<AccessReply>, FeedsError> {
        let Some(signed) = self.load(id)?.filter(|signed| (self.clock)() < signed.deposit().expires_ms) else {
            return Ok(None);
        };
        self.given.fetch_add(1, Relaxed);
        let total = match &signed.deposit().state {
            DepositState::Denied { .. } => return Ok(Some(AccessReply::Statement(signed.bytes().to_vec()))),
            DepositState::Granted { total, .. } => *total,
        };
        if from > total {
            let reason = "the request has fewer grants than that".to_owned();
            return Ok(Some(AccessReply::Denied { code: DenyCode::Invalid, reason }));
        }
        let after = from.checked_sub(1).map(|before| grant_key(id, before));
        let rows = self.store.rows(Table::Grant, &grants_of(id), after.as_deref(), GRANTS_PER_REPLY)?;
        let mut room = MAX_MESSAGE - REPLY_ENVELOPE;
        let mut grants = Vec::new();
        for (number, (key, grant)) in (from..=u16::MAX).zip(rows) {
            // Parts may come in any order, and the next one may still be on its way.
            if key != grant_key(id, number) || grant.len() + 3 > room {
                break;
            }
            room -= grant.len() + 3;
            grants.push(grant);
        }
        if grants.is_empty() && from < total {
            return Ok(Some(AccessReply::Busy { retry_ms: SOON_MS }));
        }
        Ok(Some(AccessReply::Granted { grants, from, total }))
    }

    /// Forgets what is over, and what is of machines whose feeds are no longer kept.
    ///
    /// # Errors
    ///
    /// When the store cannot be read or written.
    pub(super) fn expire(&self) -> Result<(), StoreError> {
        let (now_ms, mut over) = ((self.clock)(), Vec::new());
        self.for_each(|signed| {
            let said = signed.deposit();
            if now_ms >= said.expires_ms || !self.machines.contains(&said.machine) {
                over.push(said.request_id);
            }
            Ok(())
        })?;
        for id in over {
            let mut held = self.lock();
            let Some(signed) = self.load(&id)? else { continue };
            let mut batch = WriteBatch::new();
            let mut bytes = signed.bytes().len() as u64;
            for (key, grant) in self.rows_of(&id)? {
                bytes += grant.len() as u64;
                batch.delete_row(Table::Grant, key);
            }
            batch.delete_row(Table::Order, deposit_key(&id));
            self.store.commit(batch)?;
            let machine = held.entry(signed.deposit().machine).or_default();
            machine.requests = machine.requests.saturating_sub(1);
            machine.bytes = machine.bytes.saturating_sub(bytes);
        }
        Ok(())
    }

    fn load(&self, id: &Hash) -> Result<Option<SignedDeposit>, StoreError> {
        let row = self.store.row(Table::Order, &deposit_key(id))?;
        // One that cannot be read is as good as none, and is replaced by the next.
        Ok(row.and_then(|bytes| SignedDeposit::decode(&bytes).ok()))
    }

    fn rows_of(&self, id: &Hash) -> Result<Vec<Row>, StoreError> {
        let (mut all, mut after) = (Vec::new(), None::<Vec<u8>>);
        loop {
            let rows = self.store.rows(Table::Grant, &grants_of(id), after.as_deref(), PAGE)?;
            let Some((last, _)) = rows.last() else { return Ok(all) };
            after = Some(last.clone());
            all.extend(rows);
        }
    }

    fn for_each(&self, mut each: impl FnMut(&SignedDeposit) -> Result<(), StoreError>) -> Result<(), StoreError> {
        let mut after: Option<Vec<u8>> = None;
        loop {
            let rows = self.store.rows(Table::Order, DEPOSITS, after.as_deref(), PAGE)?;
            let Some((last, _)) = rows.last() else { return Ok(()) };
            after = Some(last.clone());
            for (_, bytes) in rows {
                match SignedDeposit::decode(&bytes) {
                    Ok(signed) => each(&signed)?,
                    Err(error) => tracing::error!(%error, "a deposit cannot be read"),
                }
            }
        }
    }
}
