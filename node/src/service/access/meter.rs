//! What became of access messages since the start, and how long the answers took.

use std::{
    sync::atomic::{AtomicU64, Ordering::Relaxed},
    time::Instant,
};

use serde::{Deserialize, Serialize};

use super::audit::{AuditEvent, AuditRecord};
use crate::durations::{Durations, DurationsReport};

/// Access since the start: what the audit log got, and what did not get that far.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct AccessStatus {
    /// Quotes given.
    pub quoted: u64,
    /// Requests that came, signed and with a quote.
    pub requested: u64,
    /// Orders granted, those by hand and those that went on in a new key epoch included.
    pub granted: u64,
    /// Orders refused.
    pub denied: u64,
    /// Orders whose grants the buyer has fetched.
    pub delivered: u64,
    /// Revocations.
    pub revoked: u64,
    /// Revocations that were lifted.
    pub reinstated: u64,
    /// Grants issued: one order may have several.
    pub grants: u64,
    /// Messages told to come back: the peer, or all of them together, asked too often.
    pub refused: u64,
    /// Messages that made no sense.
    pub malformed: u64,
}

#[derive(Default)]
pub(super) struct AccessMeter {
    quoted: AtomicU64,
    requested: AtomicU64,
    granted: AtomicU64,
    denied: AtomicU64,
    delivered: AtomicU64,
    revoked: AtomicU64,
    reinstated: AtomicU64,
    grants: AtomicU64,
    refused: AtomicU64,
    malformed: AtomicU64,
    took: Durations,
}

impl AccessMeter {
    /// Lines that are in the audit log now, and so many grants with them.
    pub(super) fn written(&self, lines: &[AuditRecord], grants: usize) {
        for line in lines {
            let counter = match line.event {
                AuditEvent::Quoted => &self.quoted,
                AuditEvent::Requested => &self.requested,
                AuditEvent::Granted => &self.granted,
                AuditEvent::Denied => &self.denied,
                AuditEvent::Delivered => &self.delivered,
                AuditEvent::Revoked => &self.revoked,
                AuditEvent::Reinstated => &self.reinstated,
            };
            counter.fetch_add(1, Relaxed);
        }
        self.grants.fetch_add(grants as u64, Relaxed);
    }

    pub(super) fn refused(&self) {
        self.refused.fetch_add(1, Relaxed);
    }

    pub(super) fn malformed(&self) {
        self.malformed.fetch_add(1, Relaxed);
    }

    /// A message was answered that came at `begun`.
    pub(super) fn answered(&self, begun: Instant) {
        self.took.since(begun);
    }

    pub(super) fn status(&self) -> AccessStatus {
        AccessStatus {
            quoted: self.quoted.load(Relaxed),
            requested: self.requested.load(Relaxed),
            granted: self.granted.load(Relaxed),
            denied: self.denied.load(Relaxed),
            delivered: self.delivered.load(Relaxed),
            revoked: self.revoked.load(Relaxed),
            reinstated: self.reinstated.load(Relaxed),
            grants: self.grants.load(Relaxed),
            refused: self.refused.load(Relaxed),
            malformed: self.malformed.load(Relaxed),
        }
    }

    pub(super) fn durations(&self) -> DurationsReport {
        self.took.report()
    }
}
