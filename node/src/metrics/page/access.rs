//! Access: orders, decisions, grants.

use std::fmt;

use super::{Page, Snapshot};
use crate::metrics::catalog::metrics;

metrics! {
    PENDING = Gauge "tributary_access_pending_orders" in "orders" by []: "Orders that wait for the operator.";
    ORDERS = Counter "tributary_access_orders" in "orders" by ["state"]: "Orders that came into a state: `quoted` (a price was asked), `requested`, `granted` (by hand and for a new key epoch included), `denied`, `delivered` (the buyer has its grants).";
    GRANTS = Counter "tributary_access_grants" in "grants" by []: "Grants issued; one order may have several.";
    REVOCATIONS = Counter "tributary_access_revocations" in "revocations" by ["state"]: "Buyers whose access to a stream was `revoked`, or `reinstated`.";
    TURNED_AWAY = Counter "tributary_access_turned_away_messages" in "messages" by ["reason"]: "Messages that were not looked at: `rate`, the peer or all of them asked too often; `malformed`.";
    HOOKS = Counter "tributary_access_hook_runs" in "runs" by ["result"]: "Programs that tell the operator about requests: `done`, `failed`, `dropped` for want of room.";
    ANSWERS = Histogram "tributary_access_answer_seconds" in "seconds" by []: "From an access message of a peer to its answer.";
}

pub(super) fn write(snapshot: &Snapshot, page: &mut Page<'_>) -> fmt::Result {
    let (access, hooks) = (&snapshot.status.access, &snapshot.status.hooks);
    page.one(&PENDING, snapshot.status.pending_requests)?;
    let states = [
        (["quoted"], access.quoted),
        (["requested"], access.requested),
        (["granted"], access.granted),
        (["denied"], access.denied),
        (["delivered"], access.delivered),
    ];
    page.each(&ORDERS, states)?;
    page.one(&GRANTS, access.grants)?;
    page.each(&REVOCATIONS, [(["revoked"], access.revoked), (["reinstated"], access.reinstated)])?;
    page.each(&TURNED_AWAY, [(["rate"], access.refused), (["malformed"], access.malformed)])?;
    page.each(&HOOKS, [(["done"], hooks.done), (["failed"], hooks.failed), (["dropped"], hooks.dropped)])?;
    page.one(&ANSWERS, snapshot.timings.access)
}
