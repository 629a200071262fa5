//! What the operator does: look at orders, decide about those that wait, revoke.

use std::collections::BTreeMap;

use tributary_protocol::{
    ids::{Did, Hash, StreamId},
    wire::DenyCode,
};
use tributary_store::{Table, WriteBatch};

use super::{
    super::{
        AccessError, Revocation,
        audit::{AuditEvent, AuditRecord},
        order::{Order, OrderState, Row, grants_of, order_key, revoked_key},
    },
    Desk, PAGE,
    grants::put_grants,
    refuse,
};

/// The operator's name in the audit log.
const OPERATOR: &str = "operator";

impl Desk {
    pub(in super::super) fn approve(&self, id: &Hash) -> Result<Order, AccessError> {
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
        self.leave(&mut batch, &mut row, now_ms);
        batch.put_row(Table::Order, row.key(), row.encode()?);
        let line = AuditRecord::new(now_ms, AuditEvent::Granted, row.order.buyer, row.order.streams.clone());
        self.commit(&mut state, batch, &[line.about(*id).because(OPERATOR)], grants.len())?;
        state.pending.remove(&(row.order.received_ms, *id));
        Ok(row.order)
    }

    pub(in super::super) fn deny(&self, id: &Hash, reason: &str) -> Result<Order, AccessError> {
        let mut state = self.lock();
        let (mut row, now_ms) = (self.waiting(id)?, self.now_ms());
        let mut batch = WriteBatch::new();
        self.leave(&mut batch, &mut row, now_ms);
        let line = refuse(&mut batch, &mut row, now_ms, DenyCode::Refused, reason)?;
        self.commit(&mut state, batch, &[line], 0)?;
        state.pending.remove(&(row.order.received_ms, *id));
        Ok(row.order)
    }

    pub(in super::super) fn revoke(&self, buyer: &Did, stream: &str, now: bool) -> Result<Revocation, AccessError> {
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
            self.leave(&mut batch, &mut row, now_ms);
            lines.push(refuse(&mut batch, &mut row, now_ms, DenyCode::Revoked, "access was revoked")?);
            refused.push(key);
        }
        self.leave_all_of(&mut batch, buyer, &id, now_ms)?;
        self.commit(&mut state, batch, &lines, 0)?;
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

    pub(in super::super) fn reinstate(&self, buyer: &Did, stream: &str) -> Result<(), AccessError> {
        let (id, _) = self.stream(stream)?;
        let mut state = self.lock();
        let mut batch = WriteBatch::new();
        batch.delete_row(Table::Policy, revoked_key(&id, buyer));
        self.leave_all_of(&mut batch, buyer, &id, self.now_ms())?;
        let line = AuditRecord::new(self.now_ms(), AuditEvent::Reinstated, *buyer, vec![id]).because(OPERATOR);
        self.commit(&mut state, batch, &[line], 0)
    }

    pub(in super::super) fn order(&self, id: &Hash) -> Result<Order, AccessError> {
        Ok(self.load(id)?.ok_or(AccessError::NoOrder { id: *id })?.order)
    }

    pub(in super::super) fn orders(&self, only_pending: bool, limit: usize) -> Result<Vec<Order>, AccessError> {
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

    pub(in super::super) fn keep_house(&self) -> Result<(), AccessError> {
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
        self.forget_given(now_ms)?;
        if let Err(error) = self.machine.forget_ended_epochs() {
            tracing::warn!(%error, "seeds of ended key epochs could not be forgotten yet");
        }
        let mut state = self.lock();
        let late: Vec<_> = state.pending.iter().filter(|(_, w)| now_ms >= w.expires_ms).map(|(key, _)| *key).collect();
        for key in late {
            if let Some(mut row) = self.load(&key.1)? {
                let mut batch = WriteBatch::new();
                let reason = "nobody decided about it in time";
                self.leave(&mut batch, &mut row, now_ms);
                let line = refuse(&mut batch, &mut row, now_ms, DenyCode::Expired, reason)?;
                self.commit(&mut state, batch, &[line], 0)?;
            }
            state.pending.remove(&key);
        }
        Ok(())
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

    /// A stream by its public name or its id.
    fn stream(&self, name: &str) -> Result<(StreamId, String), AccessError> {
        let id = self.machine.stream_id(name).or_else(|| name.parse().ok());
        id.and_then(|id| Some((id, self.machine.stream_config(&id)?.name().to_owned())))
            .ok_or_else(|| AccessError::NoStream { name: name.to_owned() })
    }
}
