//! Grants that the operator gives by hand: nobody asked, and nothing was quoted.
//!
//! The grants, the note of them and the line in the audit log are one batch: after a crash there is all of it or nothing, and
//! nothing leaves this process before.

use std::collections::BTreeMap;

use tributary_protocol::{
    access::{Grant, GrantRange, Selection},
    ids::{Did, Hash, StreamId},
    keys::EncryptionPublicKey,
};
use tributary_store::{Table, WriteBatch};

use super::{
    super::{
        AccessError,
        audit::{AuditEvent, AuditRecord},
        order::{Given, OrderRange, given_grant_key, given_key},
    },
    Desk, GRANT_LIFE_MS, PAGE,
    grants::{MAX_GRANTS, Recipient},
};

/// What the audit log says of them.
const BY_HAND: &str = "operator, by hand";

impl Desk {
    pub(in super::super) fn give(
        &self,
        buyer: Did,
        key: EncryptionPublicKey,
        selection: &Selection,
    ) -> Result<(Given, Vec<Grant>), AccessError> {
        self.may_publish()?;
        let now_ms = self.now_ms();
        let mut ranges: Vec<GrantRange> = Vec::new();
        for range in self.machine.resolve(selection)? {
            if !ranges.contains(&range) {
                ranges.push(range);
            }
        }
        if ranges.len() > MAX_GRANTS {
            return Err(AccessError::TooManyRanges { found: ranges.len(), max: MAX_GRANTS });
        }
        let id = Hash::from_bytes(rand::random());
        let to = Recipient { request_id: Hash::ZERO, terms_hash: Hash::ZERO, buyer, buyer_enc: key };
        let grants = self.issue_to(&to, &id, &ranges, now_ms)?;
        let mut streams: Vec<StreamId> = ranges.iter().map(|range| range.stream).collect();
        streams.sort_unstable();
        streams.dedup();
        let asked: Vec<OrderRange> = selection.ranges().iter().map(OrderRange::from).collect();
        let count = u16::try_from(grants.len()).unwrap_or(u16::MAX);
        let mut given = Given::new(id, buyer, asked, streams.clone(), count);
        (given.issued_ms, given.expires_ms) = (now_ms, now_ms.saturating_add(GRANT_LIFE_MS));
        let mut batch = WriteBatch::new();
        batch.put_row(Table::Order, given_key(Some(&id)), given.encode()?);
        for (number, grant) in (0..=u16::MAX).zip(&grants) {
            batch.put_row(Table::Grant, given_grant_key(&id, number), grant.encode());
        }
        let line = AuditRecord::new(now_ms, AuditEvent::Granted, buyer, streams).about(id).because(BY_HAND);
        self.commit(&mut self.lock(), batch, &[line], grants.len())?;
        Ok((given, grants))
    }

    pub(in super::super) fn given(&self, limit: usize) -> Result<Vec<Given>, AccessError> {
        let mut newest: BTreeMap<(u64, Hash), Given> = BTreeMap::new();
        self.for_each_given(|given| {
            newest.insert((given.issued_ms, given.id), given);
            if newest.len() > limit {
                newest.pop_first();
            }
        })?;
        Ok(newest.into_values().rev().collect())
    }

    /// Forgets what can no longer be taken into a wallet.
    pub(super) fn forget_given(&self, now_ms: u64) -> Result<(), AccessError> {
        let mut over = Vec::new();
        self.for_each_given(|given| {
            if now_ms >= given.expires_ms {
                over.push((given.id, given.grants));
            }
        })?;
        for (id, grants) in over {
            let mut batch = WriteBatch::new();
            for number in 0..grants {
                batch.delete_row(Table::Grant, given_grant_key(&id, number));
            }
            batch.delete_row(Table::Order, given_key(Some(&id)));
            self.store.commit(batch)?;
        }
        Ok(())
    }

    fn for_each_given(&self, mut each: impl FnMut(Given)) -> Result<(), AccessError> {
        let mut after: Option<Vec<u8>> = None;
        loop {
            let rows = self.store.rows(Table::Order, &given_key(None), after.as_deref(), PAGE)?;
            let Some((last, _)) = rows.last() else { return Ok(()) };
            after = Some(last.clone());
            for (_, bytes) in rows {
                match Given::decode(&bytes) {
                    Ok(given) => each(given),
                    // One bad row must not hide the others.
                    Err(error) => tracing::error!(%error, "a note of grants given by hand is left out"),
                }
            }
        }
    }
}
