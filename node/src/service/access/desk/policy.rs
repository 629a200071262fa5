//! Who may have what: the policies of the streams, and the limits on what does not exist yet.

use std::time::Duration;

use tributary_protocol::{
    access::{Range, Selection},
    dataset::DatasetEntry,
    entry::{EntryBody, SignedEntry},
    ids::{Did, LogId, LogKey, StreamId},
    wire::{AccessReply, DenyCode},
};
use tributary_store::{StoreError, Table};

use super::{
    super::{
        AccessError, denied,
        order::{named_streams, revoked_key},
    },
    Desk,
};
use crate::config::{Policy, show_duration};

/// What the policies say.
pub(super) enum Decision {
    Grant,
    Wait,
    Deny(DenyCode, String),
}

/// What a policy says about a buyer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Admission {
    /// It may.
    Yes,
    /// The operator decides.
    Waits,
    /// It may not, and why.
    No(String),
}

/// A request that would wait for the operator.
#[derive(Debug, Clone, Copy)]
#[non_exhaustive]
pub struct AccessQuestion<'a> {
    /// Who asks. The request is signed by this identity.
    pub buyer: &'a Did,
    /// The streams that it is about, by public name, each once.
    pub streams: &'a [String],
}

/// What a policy says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PolicyDecision {
    /// The buyer gets the keys now.
    Grant,
    /// The operator decides.
    Wait,
    /// The buyer is refused, and told why.
    Deny(String),
}

/// A policy of a program's own, for streams with `policy: manual`. Revoked buyers are refused before it is asked, and its decisions are in
/// the audit log as all others are.
pub trait AccessPolicy: Send + Sync {
    /// Decides a request. It may block, but not for long: a machine decides one request at a time. A subscription asks again for every range.
    fn decide(&self, question: &AccessQuestion<'_>) -> PolicyDecision;
}

impl Desk {
    pub(in super::super) fn admission(
        &self,
        buyer: Option<&Did>,
        proven: bool,
        stream: &StreamId,
    ) -> Result<Admission, AccessError> {
        let Some(config) = self.machine.stream_config(stream) else {
            return Ok(Admission::No(format!("no stream {stream} here")));
        };
        if let Some(buyer) = buyer
            && self.is_revoked(stream, buyer)?
        {
            return Ok(Admission::No(format!("access to {} was revoked", config.name())));
        }
        Ok(match (&config.access.policy, buyer) {
            (Policy::Free, _) => Admission::Yes,
            (Policy::Manual, _) => Admission::Waits,
            (Policy::Allowlist(buyers), Some(buyer)) if proven && buyers.contains(buyer) => Admission::Yes,
            (Policy::Allowlist(_), _) => Admission::No(format!(
                "{} is only for the buyers on its list, each with a token of its own",
                config.name()
            )),
        })
    }

    pub(super) fn decide(&self, buyer: &Did, streams: &[StreamId]) -> Result<Decision, AccessError> {
        let mut waits = false;
        let mut names = Vec::with_capacity(streams.len());
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
                Policy::Manual => waits = true,
            }
            names.push(config.name().to_owned());
        }
        if !waits {
            return Ok(Decision::Grant);
        }
        let question = AccessQuestion { buyer, streams: &names };
        Ok(match self.policy.as_ref().map(|policy| policy.decide(&question)) {
            Some(PolicyDecision::Grant) => Decision::Grant,
            // It stands in for the operator: a subscription that is refused by either ends.
            Some(PolicyDecision::Deny(reason)) => Decision::Deny(DenyCode::Refused, reason),
            Some(PolicyDecision::Wait) | None => Decision::Wait,
        })
    }

    pub(in super::super) fn is_revoked(&self, stream: &StreamId, buyer: &Did) -> Result<bool, StoreError> {
        Ok(self.store.row(Table::Policy, &revoked_key(stream, buyer))?.is_some())
    }

    /// The streams that a selection touches, each once; a reply when it asks for what there is not, or for too much.
    pub(super) fn streams_of(&self, selection: &Selection) -> Result<Result<Vec<StreamId>, AccessReply>, AccessError> {
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
}
