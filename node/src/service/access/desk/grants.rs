//! Issuing grants, and reading back those that were issued.

use tributary_protocol::{
    access::{Grant, GrantHeader, GrantRange, Range, Selection, SignedQuote, SignedRequest, grant::Issuer},
    ids::Hash,
    wire::access::MAX_MESSAGE,
};
use tributary_store::{Table, WriteBatch};

use super::{
    super::{
        AccessError,
        order::{Live, OrderState, Row, grant_key, grants_of},
    },
    Desk, GRANT_LIFE_MS,
};

/// Ranges of keys, and so grants, of one request: a megabyte of grants.
const MAX_GRANTS: usize = 256;
/// Grants in one reply: more than fit of the shortest ones.
const GRANTS_PER_REPLY: usize = 128;
/// Bytes of a reply that are not grants.
const REPLY_ENVELOPE: usize = 256;

impl Desk {
    /// Issues all grants of an order and notes them in it.
    pub(super) fn grant(
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

    pub(super) fn issue(
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

    /// The first grants from number `from` on that fit in one reply.
    pub(super) fn stored_grants(&self, id: &Hash, from: u16) -> Result<Vec<Vec<u8>>, AccessError> {
        let after = from.checked_sub(1).map(|before| grant_key(id, before));
        let rows = self.store.rows(Table::Grant, &grants_of(id), after.as_deref(), GRANTS_PER_REPLY)?;
        Ok(fitting(rows.into_iter().map(|(_, grant)| grant)))
    }

    /// The live ranges of an order that go on in a newer epoch than was granted, with their keys there.
    pub(super) fn next_epochs(&self, row: &Row, now_ms: u64) -> Result<Vec<(usize, GrantRange)>, AccessError> {
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

pub(super) fn put_grants(batch: &mut WriteBatch, id: &Hash, first: u16, grants: &[Grant]) {
    for (number, grant) in (first..=u16::MAX).zip(grants) {
        batch.put_row(Table::Grant, grant_key(id, number), grant.encode());
    }
}

pub(super) fn set_delivered(state: &mut OrderState, now_ms: u64) {
    if let OrderState::Granted { delivered_ms, .. } = state {
        delivered_ms.get_or_insert(now_ms);
    }
}

/// As many as fit in one reply.
pub(super) fn fitting(grants: impl Iterator<Item = Vec<u8>>) -> Vec<Vec<u8>> {
    let mut room = MAX_MESSAGE - REPLY_ENVELOPE;
    grants
        .take_while(|grant| {
            let fits = grant.len() + 3 <= room;
            room = room.saturating_sub(grant.len() + 3);
            fits
        })
        .collect()
}
