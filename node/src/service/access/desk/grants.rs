//! Issuing grants, and reading back those that were issued.

use tributary_protocol::{
    access::{
        AccessRequest, Grant, GrantHeader, GrantRange, Range, Selection, SignedQuote, SignedRequest, grant::Issuer,
    },
    ids::{Did, Hash},
    keys::EncryptionPublicKey,
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
pub(super) const MAX_GRANTS: usize = 256;
/// Grants in one reply: more than fit of the shortest ones.
const GRANTS_PER_REPLY: usize = 128;
/// Bytes of a reply that are not grants.
const REPLY_ENVELOPE: usize = 256;

/// Whom grants are for, and what they answer.
pub(super) struct Recipient {
    pub(super) request_id: Hash,
    pub(super) terms_hash: Hash,
    pub(super) buyer: Did,
    pub(super) buyer_enc: EncryptionPublicKey,
}

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
        let AccessRequest { buyer, buyer_enc, .. } = *request.request();
        let to = Recipient { request_id: request.id(), terms_hash: quote.terms_hash(), buyer, buyer_enc };
        self.issue_to(&to, &request.id(), ranges, now_ms)
    }

    /// Issues the grants of ranges. Their ids come from `seed`: the same grant has the same id however often it is issued.
    pub(super) fn issue_to(
        &self,
        to: &Recipient,
        seed: &Hash,
        ranges: &[GrantRange],
        now_ms: u64,
    ) -> Result<Vec<Grant>, AccessError> {
        let each = |range: &GrantRange| {
            let cover = self.machine.cover(range)?;
            let header = GrantHeader {
                grant_id: grant_id(seed, range),
                request_id: to.request_id,
                machine: self.machine.did(),
                range: *range,
                buyer: to.buyer,
                buyer_enc: to.buyer_enc,
                terms_hash: to.terms_hash,
                issued_ms: now_ms,
                expires_ms: now_ms.saturating_add(GRANT_LIFE_MS),
                binding_serial: self.machine.binding().serial,
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
        Ok(fitting(rows.into_iter().map(|(_, grant)| grant), 0))
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

fn grant_id(seed: &Hash, range: &GrantRange) -> Hash {
    let mut bytes = seed.as_bytes().to_vec();
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

/// As many as fit in one message, `beside` bytes of something else.
pub(super) fn fitting(grants: impl Iterator<Item = Vec<u8>>, beside: usize) -> Vec<Vec<u8>> {
    let mut room = (MAX_MESSAGE - REPLY_ENVELOPE).saturating_sub(beside);
    grants
        .take_while(|grant| {
            let fits = grant.len() + 3 <= room;
            room = room.saturating_sub(grant.len() + 3);
            fits
        })
        .collect()
}
