//! What the machine leaves with its mirrors: which orders they do not know the newest of, and what is said of one.
//!
//! The note that mirrors are to hear of an order is in the batch that changes the order, so nothing is forgotten in a crash. What
//! they hear is made when it is sent, from the order as it is then: a note is only a place in a queue.
//!
//! | table | key | value |
//! |---|---|---|
//! | Outbox | `leave/`, mirror (peer id, its length in front), request id (32) | revision (8, big endian) |
//! | Outbox | `mirror/`, mirror (peer id) | nothing: it was told to hear of everything there was |

use tokio::sync::watch;
use tributary_protocol::{
    access::deposit::{Deposit, DepositState, SignedDeposit, hash_of_grants},
    ids::{Did, Hash, StreamId},
    wire::{AccessMessage, DenyCode},
};
use tributary_store::{Table, WriteBatch};

use super::{
    super::{
        AccessError,
        order::{OrderState, Row, clip, deny_code, grants_of, order_key},
    },
    Desk, PAGE,
    grants::fitting,
};
use crate::net::PeerId;

const LEAVE: &[u8] = b"leave/";
const MIRROR: &[u8] = b"mirror/";
/// What a buyer is told whose access was revoked.
const REVOKED: &str = "access was revoked";

/// An order that a mirror is to hear of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::service) struct ToLeave {
    pub(in crate::service) request: Hash,
    pub(in crate::service) revision: u64,
}

fn queue_of(mirror: &PeerId) -> Vec<u8> {
    let peer = mirror.to_bytes();
    let len = u8::try_from(peer.len()).unwrap_or(u8::MAX);
    [LEAVE, &[len], &peer].concat()
}

fn place(mirror: &PeerId, request: &Hash) -> Vec<u8> {
    [queue_of(mirror).as_slice(), request.as_bytes()].concat()
}

impl Desk {
    /// Counts up when something has changed that mirrors may have to hear of.
    pub(in super::super) fn changes(&self) -> watch::Receiver<u64> {
        self.changed.subscribe()
    }

    /// Notes, in the batch that changes an order, that the mirrors are to hear of it. Call it before the order is encoded.
    pub(super) fn leave(&self, batch: &mut WriteBatch, row: &mut Row, now_ms: u64) {
        if self.mirrors.is_empty() {
            return;
        }
        row.revision = now_ms.max(row.revision.saturating_add(1));
        for mirror in &self.mirrors {
            let value = row.revision.to_be_bytes().to_vec();
            batch.put_row(Table::Outbox, place(mirror, &row.order.id), value);
        }
    }

    /// Notes that mirrors which were named since the last start are to hear of every order, and forgets those that are named no
    /// more.
    pub(in super::super) fn know_mirrors(&self) -> Result<(), AccessError> {
        for (key, _) in self.store.rows(Table::Outbox, MIRROR, None, PAGE)? {
            let known = key.strip_prefix(MIRROR).and_then(|peer| PeerId::from_bytes(peer).ok());
            let Some(gone) = known.filter(|peer| !self.mirrors.contains(peer)) else { continue };
            loop {
                let rows = self.store.rows(Table::Outbox, &queue_of(&gone), None, PAGE)?;
                if rows.is_empty() {
                    break;
                }
                let mut batch = WriteBatch::new();
                for (key, _) in rows {
                    batch.delete_row(Table::Outbox, key);
                }
                self.store.commit(batch)?;
            }
            let mut batch = WriteBatch::new();
            batch.delete_row(Table::Outbox, key);
            self.store.commit(batch)?;
        }
        for mirror in &self.mirrors {
            let known = [MIRROR, &mirror.to_bytes()].concat();
            if self.store.row(Table::Outbox, &known)?.is_some() {
                continue;
            }
            let mut orders = Vec::new();
            self.for_each_order(|row| {
                if row.order.state != OrderState::Pending {
                    orders.push((row.order.id, row.revision));
                }
            })?;
            for part in orders.chunks(PAGE) {
                let mut batch = WriteBatch::new();
                for (request, revision) in part {
                    batch.put_row(Table::Outbox, place(mirror, request), revision.to_be_bytes().to_vec());
                }
                self.store.commit(batch)?;
            }
            let mut batch = WriteBatch::new();
            batch.put_row(Table::Outbox, known, Vec::new());
            self.store.commit(batch)?;
        }
        Ok(())
    }

    /// What a mirror is to hear of, at most 256 orders.
    pub(in super::super) fn to_leave(&self, mirror: &PeerId) -> Result<Vec<ToLeave>, AccessError> {
        let prefix = queue_of(mirror);
        let rows = self.store.rows(Table::Outbox, &prefix, None, PAGE)?;
        let waiting = rows.iter().filter_map(|(key, value)| {
            let request = Hash::from_bytes(key.strip_prefix(prefix.as_slice())?.try_into().ok()?);
            Some(ToLeave { request, revision: u64::from_be_bytes(value.as_slice().try_into().ok()?) })
        });
        Ok(waiting.collect())
    }

    /// A mirror has heard of an order, unless the order has changed since.
    pub(in super::super) fn left(&self, mirror: &PeerId, waiting: ToLeave) -> Result<(), AccessError> {
        let _state = self.lock();
        let key = place(mirror, &waiting.request);
        if self.store.row(Table::Outbox, &key)?.as_deref() == Some(waiting.revision.to_be_bytes().as_slice()) {
            let mut batch = WriteBatch::new();
            batch.delete_row(Table::Outbox, key);
            self.store.commit(batch)?;
        }
        Ok(())
    }

    /// What a mirror is told about an order, in as many messages as it takes; none when there is nothing to say any more.
    pub(in super::super) fn parts(&self, request: &Hash) -> Result<Vec<AccessMessage>, AccessError> {
        let now_ms = self.now_ms();
        let (row, grants) = {
            // An order and its grants, as of one moment.
            let _state = self.lock();
            let Some(row) = self.load(request)? else { return Ok(Vec::new()) };
            (row, self.all_grants(request)?)
        };
        // Nothing is signed then, and the note stays.
        self.may_publish()?;
        if now_ms >= row.keep_ms {
            return Ok(Vec::new());
        }
        let revoked = row.order.streams.iter().any(|stream| self.is_revoked(stream, &row.order.buyer).unwrap_or(true));
        let denial = |code, reason: &str| DepositState::Denied { code, reason: clip(reason) };
        let (state, grants) = match &row.order.state {
            OrderState::Pending => return Ok(Vec::new()),
            OrderState::Denied { code, reason, .. } => (denial(deny_code(*code), reason), Vec::new()),
            OrderState::Granted { .. } if revoked => (denial(DenyCode::Revoked, REVOKED), Vec::new()),
            OrderState::Granted { .. } if grants.is_empty() => return Ok(Vec::new()),
            OrderState::Granted { .. } => {
                let total = u16::try_from(grants.len()).unwrap_or(u16::MAX);
                let all = hash_of_grants(grants.iter().map(|grant| Hash::of(grant)));
                (DepositState::Granted { total, grants: all }, grants)
            }
        };
        let deposit = Deposit {
            machine: self.machine.did(),
            request_id: *request,
            revision: row.revision,
            issued_ms: now_ms,
            expires_ms: row.keep_ms,
            state,
        };
        let signed = SignedDeposit::sign(deposit, &self.machine.keys().feed)?;
        let message = |first, grants| AccessMessage::Deposit { deposit: signed.bytes().to_vec(), first, grants };
        if grants.is_empty() {
            return Ok(vec![message(0, Vec::new())]);
        }
        let (mut messages, mut at) = (Vec::new(), 0);
        while at < grants.len() {
            let part = fitting(grants[at..].iter().cloned(), signed.bytes().len());
            let first = u16::try_from(at).unwrap_or(u16::MAX);
            at += part.len().max(1);
            messages.push(message(first, part));
        }
        Ok(messages)
    }

    fn all_grants(&self, id: &Hash) -> Result<Vec<Vec<u8>>, AccessError> {
        let (mut all, mut after) = (Vec::new(), None::<Vec<u8>>);
        loop {
            let rows = self.store.rows(Table::Grant, &grants_of(id), after.as_deref(), PAGE)?;
            let Some((last, _)) = rows.last() else { return Ok(all) };
            after = Some(last.clone());
            all.extend(rows.into_iter().map(|(_, grant)| grant));
        }
    }

    /// Notes that mirrors are to hear of a buyer's orders that touch a stream: access was taken back, or given again.
    pub(super) fn leave_all_of(
        &self,
        batch: &mut WriteBatch,
        buyer: &Did,
        stream: &StreamId,
        now_ms: u64,
    ) -> Result<(), AccessError> {
        if self.mirrors.is_empty() {
            return Ok(());
        }
        let mut theirs = Vec::new();
        self.for_each_order(|row| {
            let granted = matches!(row.order.state, OrderState::Granted { .. });
            if granted && row.order.buyer == *buyer && row.order.streams.contains(stream) {
                theirs.push(row);
            }
        })?;
        for mut row in theirs {
            self.leave(batch, &mut row, now_ms);
            batch.put_row(Table::Order, order_key(&row.order.id), row.encode()?);
        }
        Ok(())
    }
}
