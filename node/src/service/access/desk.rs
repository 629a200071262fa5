//! The desk of a machine: decides requests, keeps orders, issues grants.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tributary_protocol::{
    access::{
        Grant, GrantHeader, GrantRange, Price, Quote, QuoteError, Range, RequestError, Selection, SignedQuote,
        SignedRequest, grant::Issuer,
    },
    binding::Binding,
    dataset::DatasetEntry,
    entry::{EntryBody, SignedEntry},
    ids::{Did, Hash, LogId, LogKey, StreamId},
    wire::{AccessReply, DenyCode, access::MAX_MESSAGE},
};
use tributary_store::{Store, StoreError, Table, WriteBatch};

use super::{
    AccessError, Revocation,
    audit::{Audit, AuditEvent, AuditRecord},
    denied,
    order::{
        Live, Order, OrderState, Row, deny_code, grant_key, grants_of, named_streams, order_key, orders, revoked_key,
    },
};
use crate::{
    config::{Policy, show_duration},
    machine::{Clock, Machine, OwnBindingError, stored_bindings},
};

/// A quote can be taken for so long.
const QUOTE_LIFE_MS: u64 = 10 * 60 * 1000;
/// A grant can be opened, and fetched again, for so long.
const GRANT_LIFE_MS: u64 = 30 * DAY_MS;
/// A request waits for the operator at most so long, whatever it says itself.
const MAX_WAIT_MS: u64 = 30 * DAY_MS;
/// A refused request is remembered for so long.
const DENIED_KEPT_MS: u64 = 7 * DAY_MS;
const DAY_MS: u64 = 24 * 60 * 60 * 1000;
/// Requests that wait for the operator; one more, and the oldest is refused.
const MAX_PENDING: usize = 1024;
/// Requests of one buyer that wait for the operator.
const MAX_PENDING_OF_BUYER: usize = 16;
/// Ranges of keys, and so grants, of one request: a megabyte of grants.
const MAX_GRANTS: usize = 256;
/// Grants that one order can come to when its live ranges go on through new epochs.
const MAX_GRANTS_EVER: u16 = 1024;
/// Grants in one reply: more than fit of the shortest ones.
const GRANTS_PER_REPLY: usize = 128;
/// Bytes of a reply that are not grants.
const REPLY_ENVELOPE: usize = 256;
/// Orders read at a time.
const PAGE: usize = 256;

/// The operator's name in the audit log.
const OPERATOR: &str = "operator";

/// See the module.
pub(super) struct Desk {
    machine: Arc<Machine>,
    pub(super) store: Store,
    binding: Binding,
    clock: Clock,
    /// Held from the look at an order to the commit of what became of it: the desk decides one request at a time.
    state: Mutex<State>,
}

struct State {
    audit: Audit,
    /// By the time they came.
    pending: BTreeMap<(u64, Hash), Waiting>,
}

struct Waiting {
    buyer: Did,
    expires_ms: u64,
}

/// What the policies say.
enum Decision {
    Grant,
    Wait,
    Deny(DenyCode, String),
}

impl Desk {
    pub(super) fn open(machine: Arc<Machine>, store: Store, clock: Clock) -> Result<Self, AccessError> {
        let newest = stored_bindings(&store, &machine.did())?.pop().ok_or(OwnBindingError::None)?;
        let binding = newest.binding().clone();
        let state = State { audit: Audit::open(&store)?, pending: BTreeMap::new() };
        let desk = Self { machine, store, binding, clock, state: Mutex::new(state) };
        let mut pending = BTreeMap::new();
        desk.for_each_order(|row| {
            if row.order.state == OrderState::Pending {
                let waiting = Waiting { buyer: row.order.buyer, expires_ms: row.order.expires_ms };
                pending.insert((row.order.received_ms, row.order.id), waiting);
            }
        })?;
        desk.lock().pending = pending;
        Ok(desk)
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn now_ms(&self) -> u64 {
        (self.clock)()
    }

    pub(super) fn pending(&self) -> usize {
        self.lock().pending.len()
    }

    /// What does it cost? Says nothing about whether the buyer would get it: who asks has proven nothing yet.
    pub(super) fn quote(&self, machine: &Did, buyer: Did, selection: Selection) -> Result<AccessReply, AccessError> {
        if *machine != self.machine.did() {
            return Ok(other_machine());
        }
        self.may_publish()?;
        let streams = match self.streams_of(&selection)? {
            Ok(streams) => streams,
            Err(reply) => return Ok(reply),
        };
        let now_ms = self.now_ms();
        let quote = Quote {
            machine: *machine,
            buyer,
            selection,
            // The policies there are ask for no money.
            price: Price::default(),
            terms: Hash::ZERO,
            issued_ms: now_ms,
            expires_ms: now_ms.saturating_add(QUOTE_LIFE_MS),
        };
        let signed = SignedQuote::sign(quote, &self.machine.keys().feed)?;
        let mut state = self.lock();
        let line = AuditRecord::new(now_ms, AuditEvent::Quoted, buyer, streams);
        self.commit(&mut state, WriteBatch::new(), &[line])?;
        Ok(AccessReply::Quote(signed.bytes().to_vec()))
    }

    /// I take it.
    pub(super) fn request(&self, quote: &[u8], request: &[u8]) -> Result<AccessReply, AccessError> {
        let invalid = |error: &dyn std::error::Error| Ok(denied(DenyCode::Invalid, &error.to_string()));
        let (quote, request) = match (SignedQuote::decode(quote), SignedRequest::decode(request)) {
            (Ok(quote), Ok(request)) => (quote, request),
            (Err(error), _) => return invalid(&error),
            (_, Err(error)) => return invalid(&error),
        };
        if request.request().machine != self.machine.did() {
            return Ok(other_machine());
        }
        // Asked again: the same answer, even when the quote is over by now.
        if self.store.row(Table::Order, &order_key(&request.id()))?.is_some() {
            return self.fetch(&request.id(), 0);
        }
        self.may_publish()?;
        let (buyer, now_ms) = (request.request().buyer, self.now_ms());
        match quote.verify(&self.binding, &buyer, now_ms) {
            Ok(()) => {}
            Err(error @ QuoteError::Expired { .. }) => return Ok(denied(DenyCode::Expired, &error.to_string())),
            Err(error) => return invalid(&error),
        }
        match request.verify(&self.machine.did(), &quote, now_ms) {
            Ok(()) => {}
            Err(error @ RequestError::Expired { .. }) => return Ok(denied(DenyCode::Expired, &error.to_string())),
            Err(error) => return invalid(&error),
        }
        if request.request().payment.is_some() {
            return Ok(denied(DenyCode::Payment, "this costs nothing; ask again without a payment"));
        }
        let selection = &quote.quote().selection;
        let streams = match self.streams_of(selection)? {
            Ok(streams) => streams,
            Err(reply) => return Ok(reply),
        };
        self.take_in(&quote, &request, streams, now_ms)
    }

    /// Decides about a request that is sound, and makes the decision durable.
    fn take_in(
        &self,
        quote: &SignedQuote,
        request: &SignedRequest,
        streams: Vec<StreamId>,
        now_ms: u64,
    ) -> Result<AccessReply, AccessError> {
        let (id, buyer) = (request.id(), request.request().buyer);
        let mut state = self.lock();
        if self.store.row(Table::Order, &order_key(&id))?.is_some() {
            drop(state);
            return self.fetch(&id, 0);
        }
        let decision = self.decide(&buyer, &streams)?;
        let mut row = Row::new(quote, request, streams.clone(), now_ms, now_ms);
        row.order.expires_ms = row.order.expires_ms.min(now_ms.saturating_add(MAX_WAIT_MS));
        let line = |event| AuditRecord::new(now_ms, event, buyer, streams.clone()).about(id);
        let mut lines = vec![line(AuditEvent::Requested)];
        let mut batch = WriteBatch::new();
        let mut evicted = Vec::new();
        let mut grants = Vec::new();
        match decision {
            Decision::Deny(code, reason) => {
                row.deny(now_ms, code, &reason);
                row.keep_ms = now_ms.saturating_add(DENIED_KEPT_MS);
                lines.push(line(AuditEvent::Denied).because(reason));
            }
            Decision::Wait => {
                if state.pending.values().filter(|waiting| waiting.buyer == buyer).count() >= MAX_PENDING_OF_BUYER {
                    return Ok(denied(
                        DenyCode::RateLimited,
                        "too many of your requests wait for the operator already",
                    ));
                }
                row.keep_ms = row.order.expires_ms.saturating_add(DENIED_KEPT_MS);
                evicted = self.make_room(&state, &mut batch, &mut lines, now_ms)?;
            }
            Decision::Grant => {
                grants = self.grant(&mut row, quote, request, now_ms)?;
                put_grants(&mut batch, &id, 0, &grants);
                set_delivered(&mut row.order.state, now_ms);
                lines.push(line(AuditEvent::Granted).because("policy"));
                lines.push(line(AuditEvent::Delivered));
            }
        }
        batch.put_row(Table::Order, row.key(), row.encode()?);
        self.commit(&mut state, batch, &lines)?;
        for key in evicted {
            state.pending.remove(&key);
        }
        if row.order.state == OrderState::Pending {
            let waiting = Waiting { buyer, expires_ms: row.order.expires_ms };
            state.pending.insert((now_ms, id), waiting);
            tracing::info!(request = %id, %buyer, "access request waits: `tributary access approve` or `deny` decides it");
        }
        drop(state);
        Ok(reply_to(&row, grants.iter().map(Grant::encode).collect(), 0, now_ms))
    }

    /// Is it ready?
    pub(super) fn fetch(&self, id: &Hash, from: u16) -> Result<AccessReply, AccessError> {
        let Some(mut row) = self.load(id)? else {
            return Ok(denied(DenyCode::NotFound, "no such request here; ask for a new quote"));
        };
        let now_ms = self.now_ms();
        if let OrderState::Granted { delivered_ms, .. } = row.order.state {
            let goes_on = row.live.iter().any(|live| live.until_ms > now_ms);
            if delivered_ms.is_none() || goes_on {
                row = self.on_delivery(id, now_ms)?.unwrap_or(row);
            }
        }
        let grants = match row.order.state {
            OrderState::Granted { grants, .. } if from > grants => {
                return Ok(denied(DenyCode::Invalid, "the request has fewer grants than that"));
            }
            OrderState::Granted { .. } => self.stored_grants(id, from)?,
            _ => Vec::new(),
        };
        Ok(reply_to(&row, grants, from, now_ms))
    }

    /// Notes that a buyer has its grants now, and goes on with live ranges whose key epoch has ended.
    fn on_delivery(&self, id: &Hash, now_ms: u64) -> Result<Option<Row>, AccessError> {
        let mut state = self.lock();
        let Some(mut row) = self.load(id)? else { return Ok(None) };
        let OrderState::Granted { grants: held, delivered_ms, .. } = row.order.state else { return Ok(Some(row)) };
        let line = |event| AuditRecord::new(now_ms, event, row.order.buyer, row.order.streams.clone()).about(*id);
        let mut lines = Vec::new();
        let mut batch = WriteBatch::new();
        if delivered_ms.is_none() {
            lines.push(line(AuditEvent::Delivered));
        }
        let next = if self.machine.displaced().is_none() { self.next_epochs(&row, now_ms)? } else { Vec::new() };
        if !next.is_empty() && usize::from(held) + next.len() <= usize::from(MAX_GRANTS_EVER) {
            let (quote, request) = row.signed()?;
            let ranges: Vec<GrantRange> = next.iter().map(|(_, range)| *range).collect();
            let grants = self.issue(&quote, &request, &ranges, now_ms)?;
            put_grants(&mut batch, id, held, &grants);
            lines.push(line(AuditEvent::Granted).because("the live range goes on in a new key epoch"));
            for (at, range) in next {
                row.live[at].epoch = range.epoch;
            }
            if let OrderState::Granted { grants: total, .. } = &mut row.order.state {
                *total = held.saturating_add(u16::try_from(grants.len()).unwrap_or(u16::MAX));
            }
        }
        if lines.is_empty() {
            return Ok(Some(row));
        }
        set_delivered(&mut row.order.state, now_ms);
        batch.put_row(Table::Order, row.key(), row.encode()?);
        self.commit(&mut state, batch, &lines)?;
        Ok(Some(row))
    }

    /// The live ranges of an order that go on in a newer epoch than was granted, with their keys there.
    fn next_epochs(&self, row: &Row, now_ms: u64) -> Result<Vec<(usize, GrantRange)>, AccessError> {
        let mut next = Vec::new();
        for (at, live) in row.live.iter().enumerate() {
            let seconds = live.until_ms.saturating_sub(now_ms) / 1000;
            let Some(seconds) = u32::try_from(seconds).ok().filter(|seconds| *seconds > 0) else { continue };
            if self.is_revoked(&live.stream, &row.order.buyer)? {
                continue;
            }
            let selection = Selection::new(vec![Range::Live { stream: live.stream, seconds }])?;
            let newer = self.machine.resolve(&selection)?.into_iter().find(|range| range.epoch > live.epoch);
            next.extend(newer.map(|range| (at, range)));
        }
        Ok(next)
    }

    /// The first grants from number `from` on that fit in one reply.
    fn stored_grants(&self, id: &Hash, from: u16) -> Result<Vec<Vec<u8>>, AccessError> {
        let after = from.checked_sub(1).map(|before| grant_key(id, before));
        let rows = self.store.rows(Table::Grant, &grants_of(id), after.as_deref(), GRANTS_PER_REPLY)?;
        Ok(fitting(rows.into_iter().map(|(_, grant)| grant)))
    }

    pub(super) fn approve(&self, id: &Hash) -> Result<Order, AccessError> {
        self.may_publish()?;
        let mut state = self.lock();
        let (mut row, now_ms) = (self.waiting(id)?, self.now_ms());
        if now_ms >= row.order.expires_ms {
            return Err(AccessError::Expired { id: *id, expires_ms: row.order.expires_ms });
        }
        let (quote, request) = row.signed()?;
        let grants = self.grant(&mut row, &quote, &request, now_ms)?;
        let mut batch = WriteBatch::new();
        put_grants(&mut batch, id, 0, &grants);
        batch.put_row(Table::Order, row.key(), row.encode()?);
        let line = AuditRecord::new(now_ms, AuditEvent::Granted, row.order.buyer, row.order.streams.clone());
        self.commit(&mut state, batch, &[line.about(*id).because(OPERATOR)])?;
        state.pending.remove(&(row.order.received_ms, *id));
        Ok(row.order)
    }

    pub(super) fn deny(&self, id: &Hash, reason: &str) -> Result<Order, AccessError> {
        let mut state = self.lock();
        let (mut row, now_ms) = (self.waiting(id)?, self.now_ms());
        let mut batch = WriteBatch::new();
        let line = refuse(&mut batch, &mut row, now_ms, DenyCode::Refused, reason)?;
        self.commit(&mut state, batch, &[line])?;
        state.pending.remove(&(row.order.received_ms, *id));
        Ok(row.order)
    }

    pub(super) fn revoke(&self, buyer: &Did, stream: &str, now: bool) -> Result<Revocation, AccessError> {
        let (id, name) = self.stream(stream)?;
        let now_ms = self.now_ms();
        let mut state = self.lock();
        let mut batch = WriteBatch::new();
        batch.put_row(Table::Policy, revoked_key(&id, buyer), now_ms.to_be_bytes().to_vec());
        let line = AuditRecord::new(now_ms, AuditEvent::Revoked, *buyer, vec![id]).because(OPERATOR);
        let mut lines = vec![line];
        let mut refused = Vec::new();
        let theirs = state.pending.iter().filter(|(_, waiting)| waiting.buyer == *buyer).map(|(key, _)| *key);
        for key in theirs {
            let Some(mut row) = self.load(&key.1)?.filter(|row| row.order.streams.contains(&id)) else { continue };
            lines.push(refuse(&mut batch, &mut row, now_ms, DenyCode::Revoked, "access was revoked")?);
            refused.push(key);
        }
        self.commit(&mut state, batch, &lines)?;
        for key in &refused {
            state.pending.remove(key);
        }
        drop(state);
        if now {
            self.machine.renew_epochs(Some(&name))?;
        }
        let refused = refused.into_iter().map(|(_, id)| id).collect();
        Ok(Revocation { stream: name, buyer: *buyer, refused, epoch_renewed: now })
    }

    pub(super) fn reinstate(&self, buyer: &Did, stream: &str) -> Result<(), AccessError> {
        let (id, _) = self.stream(stream)?;
        let mut state = self.lock();
        let mut batch = WriteBatch::new();
        batch.delete_row(Table::Policy, revoked_key(&id, buyer));
        let line = AuditRecord::new(self.now_ms(), AuditEvent::Reinstated, *buyer, vec![id]).because(OPERATOR);
        self.commit(&mut state, batch, &[line])
    }

    pub(super) fn order(&self, id: &Hash) -> Result<Order, AccessError> {
        Ok(self.load(id)?.ok_or(AccessError::NoOrder { id: *id })?.order)
    }

    pub(super) fn orders(&self, only_pending: bool, limit: usize) -> Result<Vec<Order>, AccessError> {
        // Rows are in the order of their ids; the newest `limit` are kept while all are read.
        let mut newest: BTreeMap<(u64, Hash), Order> = BTreeMap::new();
        self.for_each_order(|row| {
            if !only_pending || row.order.state == OrderState::Pending {
                newest.insert((row.order.received_ms, row.order.id), row.order);
                if newest.len() > limit {
                    newest.pop_first();
                }
            }
        })?;
        Ok(newest.into_values().rev().collect())
    }

    pub(super) fn keep_house(&self) -> Result<(), AccessError> {
        let now_ms = self.now_ms();
        let mut over = Vec::new();
        self.for_each_order(|row| {
            if now_ms >= row.keep_ms && row.order.state != OrderState::Pending {
                over.push(row.order.id);
            }
        })?;
        for id in over {
            let mut batch = WriteBatch::new();
            let mut after: Option<Vec<u8>> = None;
            loop {
                let rows = self.store.rows(Table::Grant, &grants_of(&id), after.as_deref(), PAGE)?;
                let Some((last, _)) = rows.last() else { break };
                after = Some(last.clone());
                for (key, _) in rows {
                    batch.delete_row(Table::Grant, key);
                }
            }
            batch.delete_row(Table::Order, order_key(&id));
            self.store.commit(batch)?;
        }
        let mut state = self.lock();
        let late: Vec<_> = state.pending.iter().filter(|(_, w)| now_ms >= w.expires_ms).map(|(key, _)| *key).collect();
        for key in late {
            if let Some(mut row) = self.load(&key.1)? {
                let mut batch = WriteBatch::new();
                let reason = "nobody decided about it in time";
                let line = refuse(&mut batch, &mut row, now_ms, DenyCode::Expired, reason)?;
                self.commit(&mut state, batch, &[line])?;
            }
            state.pending.remove(&key);
        }
        Ok(())
    }

    /// Commits a batch with its audit lines.
    fn commit(&self, state: &mut State, mut batch: WriteBatch, lines: &[AuditRecord]) -> Result<(), AccessError> {
        state.audit.put(&mut batch, lines);
        self.store.commit(batch)?;
        state.audit.written(lines);
        Ok(())
    }

    /// Refuses the oldest request when one more would be too many; returns those that no longer wait.
    fn make_room(
        &self,
        state: &State,
        batch: &mut WriteBatch,
        lines: &mut Vec<AuditRecord>,
        now_ms: u64,
    ) -> Result<Vec<(u64, Hash)>, AccessError> {
        let over = (state.pending.len() + 1).saturating_sub(MAX_PENDING);
        let oldest: Vec<(u64, Hash)> = state.pending.keys().take(over).copied().collect();
        for (_, id) in &oldest {
            if let Some(mut row) = self.load(id)? {
                let reason = "too many requests wait for the operator; ask again later";
                lines.push(refuse(batch, &mut row, now_ms, DenyCode::RateLimited, reason)?);
            }
        }
        Ok(oldest)
    }

    fn decide(&self, buyer: &Did, streams: &[StreamId]) -> Result<Decision, AccessError> {
        let mut decision = Decision::Grant;
        for stream in streams {
            let Some(config) = self.machine.stream_config(stream) else {
                return Ok(Decision::Deny(DenyCode::NotFound, format!("no stream {stream} here")));
            };
            if self.is_revoked(stream, buyer)? {
                let reason = format!("access to {} was revoked", config.name());
                return Ok(Decision::Deny(DenyCode::Revoked, reason));
            }
            match &config.access.policy {
                Policy::Free => {}
                Policy::Allowlist(buyers) if buyers.contains(buyer) => {}
                Policy::Allowlist(_) => {
                    let reason = format!("{} is only for the buyers on its list", config.name());
                    return Ok(Decision::Deny(DenyCode::Policy, reason));
                }
                Policy::Manual => decision = Decision::Wait,
            }
        }
        Ok(decision)
    }

    fn is_revoked(&self, stream: &StreamId, buyer: &Did) -> Result<bool, StoreError> {
        Ok(self.store.row(Table::Policy, &revoked_key(stream, buyer))?.is_some())
    }

    /// The streams that a selection touches, each once; a reply when it asks for what there is not, or for too much.
    fn streams_of(&self, selection: &Selection) -> Result<Result<Vec<StreamId>, AccessReply>, AccessError> {
        let mut streams: Vec<StreamId> = named_streams(selection).collect();
        for range in selection.ranges() {
            if let Range::Dataset(id) = range {
                let row = self.store.row(Table::Dataset, id.as_bytes())?;
                let Some(entry) = row.and_then(|row| DatasetEntry::decode(&row).ok()) else {
                    return Ok(Err(denied(DenyCode::NotFound, &format!("no closed dataset {id} here"))));
                };
                streams.push(entry.stream);
            }
        }
        streams.sort_unstable();
        streams.dedup();
        if let Some(stream) = streams.iter().find(|stream| self.machine.stream_config(stream).is_none()) {
            return Ok(Err(denied(DenyCode::NotFound, &format!("no stream {stream} here"))));
        }
        for range in selection.ranges() {
            if let Some(reply) = self.check_future(range)? {
                return Ok(Err(reply));
            }
        }
        Ok(Ok(streams))
    }

    /// Keys of what does not exist yet are prepaid, and no more of them than the configuration allows: what is granted cannot
    /// be taken back. They are had by a live range only.
    fn check_future(&self, range: &Range) -> Result<Option<AccessReply>, AccessError> {
        match *range {
            Range::Live { stream, seconds } => {
                let longest = self.machine.stream_config(&stream).map_or(Duration::ZERO, |config| config.access.live);
                if Duration::from_secs(u64::from(seconds)) <= longest {
                    return Ok(None);
                }
                let reason = format!("live access is granted for at most {} at a time", show_duration(longest));
                Ok(Some(denied(DenyCode::Policy, &reason)))
            }
            Range::Positions { stream, epoch, last, .. } => {
                let incarnation = self.machine.incarnation();
                let log = LogKey { did: self.machine.did(), log: LogId::from(stream), incarnation };
                let newest = self.store.head(&log)?.and_then(|(_, bytes)| {
                    match SignedEntry::decode(&bytes).ok()?.entry().body {
                        EntryBody::Chunk(ref record) => Some((record.epoch, record.position)),
                        _ => None,
                    }
                });
                // Without a chunk in this incarnation, only epochs of earlier ones are over.
                let over = match newest {
                    Some((newest, position)) => epoch < newest || (epoch == newest && last <= position),
                    None => epoch < u64::from(incarnation) << 32,
                };
                let reason = "these positions go beyond the newest chunk; ask for a live range instead";
                Ok((!over).then(|| denied(DenyCode::Policy, reason)))
            }
            Range::Dataset(_) | Range::Time { .. } => Ok(None),
        }
    }

    /// Issues all grants of an order and notes them in it.
    fn grant(
        &self,
        row: &mut Row,
        quote: &SignedQuote,
        request: &SignedRequest,
        now_ms: u64,
    ) -> Result<Vec<Grant>, AccessError> {
        let mut ranges: Vec<GrantRange> = Vec::new();
        let mut keep_ms = now_ms;
        for range in quote.quote().selection.ranges() {
            for found in self.machine.resolve(&Selection::new(vec![*range])?)? {
                if let Range::Live { stream, seconds } = *range {
                    let until_ms = now_ms.saturating_add(u64::from(seconds).saturating_mul(1000));
                    keep_ms = keep_ms.max(until_ms);
                    row.live.push(Live { stream, until_ms, epoch: found.epoch });
                }
                if !ranges.contains(&found) {
                    ranges.push(found);
                }
            }
            if ranges.len() > MAX_GRANTS {
                return Err(AccessError::TooManyRanges { found: ranges.len(), max: MAX_GRANTS });
            }
        }
        let grants = self.issue(quote, request, &ranges, now_ms)?;
        row.keep_ms = keep_ms.saturating_add(GRANT_LIFE_MS);
        let count = u16::try_from(grants.len()).unwrap_or(u16::MAX);
        row.order.state = OrderState::Granted { decided_ms: now_ms, grants: count, delivered_ms: None };
        Ok(grants)
    }

    fn issue(
        &self,
        quote: &SignedQuote,
        request: &SignedRequest,
        ranges: &[GrantRange],
        now_ms: u64,
    ) -> Result<Vec<Grant>, AccessError> {
        let each = |range: &GrantRange| {
            let cover = self.machine.cover(range)?;
            let header = GrantHeader {
                grant_id: grant_id(&request.id(), range),
                request_id: request.id(),
                machine: self.machine.did(),
                range: *range,
                buyer: request.request().buyer,
                buyer_enc: request.request().buyer_enc,
                terms_hash: quote.terms_hash(),
                issued_ms: now_ms,
                expires_ms: now_ms.saturating_add(GRANT_LIFE_MS),
                binding_serial: self.binding.serial,
                cover_hash: cover.hash(),
            };
            Ok(Grant::issue(header, &cover, Issuer::Feed(&self.machine.keys().feed), &mut rand::rng())?)
        };
        ranges.iter().map(each).collect()
    }

    fn may_publish(&self) -> Result<(), AccessError> {
        match self.machine.displaced() {
            None => Ok(()),
            Some(reason) => Err(AccessError::Displaced { reason: reason.to_string() }),
        }
    }

    /// A stream by its public name or its id.
    fn stream(&self, name: &str) -> Result<(StreamId, String), AccessError> {
        let id = self.machine.stream_id(name).or_else(|| name.parse().ok());
        id.and_then(|id| Some((id, self.machine.stream_config(&id)?.name().to_owned())))
            .ok_or_else(|| AccessError::NoStream { name: name.to_owned() })
    }

    fn load(&self, id: &Hash) -> Result<Option<Row>, AccessError> {
        Ok(self.store.row(Table::Order, &order_key(id))?.map(|row| Row::decode(&row)).transpose()?)
    }

    fn waiting(&self, id: &Hash) -> Result<Row, AccessError> {
        let row = self.load(id)?.ok_or(AccessError::NoOrder { id: *id })?;
        let state = match &row.order.state {
            OrderState::Pending => return Ok(row),
            OrderState::Granted { .. } => "granted".to_owned(),
            OrderState::Denied { reason, .. } => format!("denied, {reason}"),
        };
        Err(AccessError::Decided { id: *id, state })
    }

    fn for_each_order(&self, mut each: impl FnMut(Row)) -> Result<(), AccessError> {
        let mut after: Option<Vec<u8>> = None;
        loop {
            let rows = self.store.rows(Table::Order, orders(), after.as_deref(), PAGE)?;
            let Some((last, _)) = rows.last() else { return Ok(()) };
            after = Some(last.clone());
            for (_, bytes) in rows {
                match Row::decode(&bytes) {
                    Ok(row) => each(row),
                    // One bad row must not hide the others.
                    Err(error) => tracing::error!(%error, "order left out"),
                }
            }
        }
    }
}

/// Writes a refusal into a batch; returns its line in the audit log.
fn refuse(
    batch: &mut WriteBatch,
    row: &mut Row,
    now_ms: u64,
    code: DenyCode,
    reason: &str,
) -> Result<AuditRecord, AccessError> {
    row.deny(now_ms, code, reason);
    row.keep_ms = now_ms.saturating_add(DENIED_KEPT_MS);
    batch.put_row(Table::Order, row.key(), row.encode()?);
    let line = AuditRecord::new(now_ms, AuditEvent::Denied, row.order.buyer, row.order.streams.clone());
    Ok(line.about(row.order.id).because(reason))
}

/// The same grant has the same id however often it is issued.
fn grant_id(request: &Hash, range: &GrantRange) -> Hash {
    let mut bytes = request.as_bytes().to_vec();
    bytes.extend_from_slice(range.stream.as_bytes());
    for number in [range.epoch, range.first.as_u64(), range.last.as_u64()] {
        bytes.extend_from_slice(&number.to_be_bytes());
    }
    Hash::derive("tributary 2026 grant id", &bytes)
}

fn put_grants(batch: &mut WriteBatch, id: &Hash, first: u16, grants: &[Grant]) {
    for (number, grant) in (first..=u16::MAX).zip(grants) {
        batch.put_row(Table::Grant, grant_key(id, number), grant.encode());
    }
}

fn set_delivered(state: &mut OrderState, now_ms: u64) {
    if let OrderState::Granted { delivered_ms, .. } = state {
        delivered_ms.get_or_insert(now_ms);
    }
}

/// As many as fit in one reply.
fn fitting(grants: impl Iterator<Item = Vec<u8>>) -> Vec<Vec<u8>> {
    let mut room = MAX_MESSAGE - REPLY_ENVELOPE;
    grants
        .take_while(|grant| {
            let fits = grant.len() + 3 <= room;
            room = room.saturating_sub(grant.len() + 3);
            fits
        })
        .collect()
}

fn reply_to(row: &Row, grants: Vec<Vec<u8>>, from: u16, now_ms: u64) -> AccessReply {
    match &row.order.state {
        OrderState::Pending if now_ms >= row.order.expires_ms => denied(DenyCode::Expired, "nobody decided in time"),
        OrderState::Pending => AccessReply::Pending { request_id: row.order.id },
        OrderState::Granted { grants: total, .. } => {
            AccessReply::Granted { grants: fitting(grants.into_iter()), from, total: *total }
        }
        OrderState::Denied { code, reason, .. } => denied(deny_code(*code), reason),
    }
}

fn other_machine() -> AccessReply {
    denied(DenyCode::NotFound, "this is another machine's node")
}
