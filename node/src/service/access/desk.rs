//! The desk of a machine: decides requests, keeps orders, issues grants.

mod by_hand;
mod grants;
mod leaving;
mod operator;
mod policy;

pub(in crate::service) use self::leaving::ToLeave;
pub use self::policy::{AccessPolicy, AccessQuestion, Admission, PolicyDecision};

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use tokio::sync::watch;
use tributary_protocol::{
    access::{Grant, GrantRange, Price, Quote, QuoteError, RequestError, Selection, SignedQuote, SignedRequest},
    ids::{Did, Hash, StreamId},
    wire::{AccessReply, DenyCode},
};
use tributary_store::{Store, Table, WriteBatch};

use self::{
    grants::{fitting, put_grants, set_delivered},
    policy::Decision,
};
use super::{
    AccessError, FORGOTTEN,
    audit::{Audit, AuditEvent, AuditRecord},
    denied,
    hook::{HookStatus, Hooks, Notice},
    meter::AccessMeter,
    order::{Order, OrderState, Row, deny_code, order_key, orders},
};
use crate::{
    config::Policy,
    machine::{Clock, Machine},
    net::PeerId,
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
/// Grants that one order can come to when its live ranges go on through new epochs.
const MAX_GRANTS_EVER: u16 = 1024;
/// Orders read at a time.
const PAGE: usize = 256;

/// See the module.
pub(super) struct Desk {
    machine: Arc<Machine>,
    pub(super) store: Store,
    clock: Clock,
    hooks: Option<Hooks>,
    meter: Arc<AccessMeter>,
    /// Decides what would otherwise wait for the operator.
    pub(super) policy: Option<Arc<dyn AccessPolicy>>,
    /// Who keeps what is granted while the machine is offline.
    mirrors: Vec<PeerId>,
    /// Counts up when something has changed that mirrors may have to hear of.
    changed: watch::Sender<u64>,
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

impl Desk {
    pub(super) fn open(
        machine: Arc<Machine>,
        store: Store,
        clock: Clock,
        hooks: Option<Hooks>,
        meter: Arc<AccessMeter>,
        mirrors: Vec<PeerId>,
    ) -> Result<Self, AccessError> {
        let state = State { audit: Audit::open(&store)?, pending: BTreeMap::new() };
        let changed = watch::channel(0).0;
        let desk =
            Self { machine, store, clock, hooks, meter, policy: None, mirrors, changed, state: Mutex::new(state) };
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
        self.commit(&mut state, WriteBatch::new(), &[line], 0)?;
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
        match quote.verify(&self.machine.binding(), &buyer, now_ms) {
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
            Decision::Grant => match self.grant(&mut row, quote, request, now_ms) {
                Ok(issued) => {
                    grants = issued;
                    put_grants(&mut batch, &id, 0, &grants);
                    set_delivered(&mut row.order.state, now_ms);
                    lines.push(line(AuditEvent::Granted).because("policy"));
                    lines.push(line(AuditEvent::Delivered));
                }
                Err(error) if error.is_forgotten() => {
                    row.live.clear();
                    row.deny(now_ms, DenyCode::Policy, FORGOTTEN);
                    row.keep_ms = now_ms.saturating_add(DENIED_KEPT_MS);
                    lines.push(line(AuditEvent::Denied).because(FORGOTTEN));
                }
                Err(error) => return Err(error),
            },
        }
        if !grants.is_empty() {
            self.leave(&mut batch, &mut row, now_ms);
        }
        batch.put_row(Table::Order, row.key(), row.encode()?);
        self.commit(&mut state, batch, &lines, grants.len())?;
        for key in evicted {
            state.pending.remove(&key);
        }
        if row.order.state == OrderState::Pending {
            let waiting = Waiting { buyer, expires_ms: row.order.expires_ms };
            state.pending.insert((now_ms, id), waiting);
            tracing::info!(request = %id, %buyer, "access request waits: `tributary access approve` or `deny` decides it");
            self.tell_operator(&row.order);
        }
        drop(state);
        Ok(reply_to(&row, grants.iter().map(Grant::encode).collect(), 0, now_ms))
    }

    /// Runs the hooks of the streams that a request touches and that wait for the operator, each once. The request is durable by
    /// now; nothing here waits.
    fn tell_operator(&self, order: &Order) {
        let Some(hooks) = &self.hooks else { return };
        let configs: Vec<_> = order.streams.iter().filter_map(|stream| self.machine.stream_config(stream)).collect();
        let stream_names: Vec<String> = configs.iter().map(|config| config.name().to_owned()).collect();
        let mut told: Vec<&[String]> = Vec::new();
        for access in configs.iter().map(|config| &config.access).filter(|access| access.policy == Policy::Manual) {
            if !access.hook.is_empty() && !told.contains(&access.hook.as_slice()) {
                let stream_names = stream_names.clone();
                hooks.tell(&access.hook, Notice { machine: self.machine.did(), stream_names, order: order.clone() });
                told.push(&access.hook);
            }
        }
    }

    pub(super) fn hooks(&self) -> Option<HookStatus> {
        self.hooks.as_ref().map(Hooks::status)
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
        let mut issued = 0;
        if delivered_ms.is_none() {
            lines.push(line(AuditEvent::Delivered));
        }
        let next = if self.machine.displaced().is_none() { self.next_epochs(&row, now_ms)? } else { Vec::new() };
        if !next.is_empty() && usize::from(held) + next.len() <= usize::from(MAX_GRANTS_EVER) {
            let (quote, request) = row.signed()?;
            let ranges: Vec<GrantRange> = next.iter().map(|(_, range)| *range).collect();
            let grants = self.issue(&quote, &request, &ranges, now_ms)?;
            put_grants(&mut batch, id, held, &grants);
            issued = grants.len();
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
        if issued > 0 {
            self.leave(&mut batch, &mut row, now_ms);
        }
        batch.put_row(Table::Order, row.key(), row.encode()?);
        self.commit(&mut state, batch, &lines, issued)?;
        Ok(Some(row))
    }

    /// Commits a batch with its audit lines, and the `grants` new grants that are in it.
    fn commit(
        &self,
        state: &mut State,
        mut batch: WriteBatch,
        lines: &[AuditRecord],
        grants: usize,
    ) -> Result<(), AccessError> {
        state.audit.put(&mut batch, lines);
        self.store.commit(batch)?;
        state.audit.written(lines);
        self.meter.written(lines, grants);
        self.changed.send_modify(|count| *count += 1);
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
                self.leave(batch, &mut row, now_ms);
                lines.push(refuse(batch, &mut row, now_ms, DenyCode::RateLimited, reason)?);
            }
        }
        Ok(oldest)
    }

    fn may_publish(&self) -> Result<(), AccessError> {
        match self.machine.displaced() {
            None => Ok(()),
            Some(reason) => Err(AccessError::Displaced { reason: reason.to_string() }),
        }
    }

    fn load(&self, id: &Hash) -> Result<Option<Row>, AccessError> {
        Ok(self.store.row(Table::Order, &order_key(id))?.map(|row| Row::decode(&row)).transpose()?)
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

fn reply_to(row: &Row, grants: Vec<Vec<u8>>, from: u16, now_ms: u64) -> AccessReply {
    match &row.order.state {
        OrderState::Pending if now_ms >= row.order.expires_ms => denied(DenyCode::Expired, "nobody decided in time"),
        OrderState::Pending => AccessReply::Pending { request_id: row.order.id },
        OrderState::Granted { grants: total, .. } => {
            AccessReply::Granted { grants: fitting(grants.into_iter(), 0), from, total: *total }
        }
        OrderState::Denied { code, reason, .. } => denied(deny_code(*code), reason),
    }
}

fn other_machine() -> AccessReply {
    denied(DenyCode::NotFound, "this is another machine's node")
}
