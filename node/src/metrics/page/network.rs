//! Peers, connections, gossip, and the request protocols.

use std::fmt;

use super::{Page, Snapshot};
use crate::{
    metrics::catalog::metrics,
    net::{RequestStats, Transport},
    service::status::PeerStatus,
};

metrics! {
    PEERS = Gauge "tributary_peers" in "peers" by ["path", "transport"]: "Connected peers, by path (`direct`, `relayed`) and transport (`tcp`, `quic`, `other`) of their best connection.";
    CONNECTIONS = Gauge "tributary_connections" in "connections" by []: "Established connections, both directions.";
    INBOUND = Gauge "tributary_inbound_connections" in "connections" by []: "Of these, inbound ones.";
    LIMIT = Gauge "tributary_inbound_connections_limit" in "connections" by []: "How many inbound ones there may be, `network.limits.connections`.";
    HANDSHAKES = Gauge "tributary_inbound_handshakes" in "connections" by []: "Inbound connections in the handshake.";
    REFUSED = Counter "tributary_inbound_refused_connections" in "connections" by []: "Inbound connections refused because their address had too many.";
    BANS = Counter "tributary_bans" in "peers" by []: "Peers banned.";
    BAD_FRAMES = Counter "tributary_bad_frames" in "frames" by []: "Frames over a limit or broken.";
    STREAMS_DROPPED = Counter "tributary_dropped_streams" in "streams" by []: "Streams of peers lost because the node did not take them in time.";
    GOSSIP_SENT = Counter "tributary_gossip_sent_messages" in "messages" by []: "Gossip messages published.";
    GOSSIP_ARRIVED = Counter "tributary_gossip_arrived_messages" in "messages" by []: "Copies of gossip messages that came off the wire.";
    GOSSIP_BYTES = Counter "tributary_gossip_arrived_bytes" in "bytes" by []: "Their bytes.";
    GOSSIP_DUPLICATES = Counter "tributary_gossip_duplicate_messages" in "messages" by []: "Of these, copies of messages that had come before, or that no subscription asks for any more.";
    GOSSIP_RECEIVED = Counter "tributary_gossip_received_messages" in "messages" by []: "Gossip messages looked at: the first copy of each.";
    GOSSIP_DROPPED = Counter "tributary_gossip_dropped_messages" in "messages" by []: "Gossip messages ignored because the node was too busy; it catches up on them.";
    GOSSIP_REJECTED = Counter "tributary_gossip_rejected_messages" in "messages" by []: "Gossip messages found wrong.";
    GOSSIP_TOOK = Histogram "tributary_gossip_validation_seconds" in "seconds" by []: "What it takes to find what a gossip message is worth, the disk included.";
    RECEIVED = Counter "tributary_requests_received" in "requests" by ["protocol"]: "Requests of peers that were taken in, by protocol (`sync`, `access`).";
    BUSY = Counter "tributary_requests_busy" in "requests" by ["protocol"]: "Requests of peers answered \"busy\" because a queue was full.";
    SENT = Counter "tributary_requests_sent" in "requests" by ["protocol", "result"]: "Requests of this node: `answered`, or `failed`.";
    ROUND_TRIP = Histogram "tributary_request_seconds" in "seconds" by ["protocol"]: "From a request of this node to its answer, a dial included.";
    SYNC = Counter "tributary_sync_served_requests" in "requests" by ["request"]: "Sync requests of peers that were looked up: `bindings`, `heads`, `entries`, `dataset`, `proof`.";
    SYNC_TURNED_AWAY = Counter "tributary_sync_turned_away_requests" in "requests" by ["reason"]: "Sync requests of peers without an answer: `rate`, the peer or all of them asked too often; `malformed`; `store`, it could not be read.";
    SYNC_TOOK = Histogram "tributary_sync_answer_seconds" in "seconds" by []: "What it takes to look a sync request up.";
}

/// Path and transport of the best connection to a peer.
fn best_connection(peer: &PeerStatus) -> [&str; 2] {
    [if peer.direct { "direct" } else { "relayed" }, &peer.transport]
}

/// Protocols of requests.
const PROTOCOLS: [&str; 2] = ["sync", "access"];

pub(super) fn write(snapshot: &Snapshot, page: &mut Page<'_>) -> fmt::Result {
    let Snapshot { status, timings, .. } = snapshot;
    // Every combination, so that a fall to nothing is seen.
    let kinds = ["direct", "relayed"]
        .into_iter()
        .flat_map(|path| [Transport::Tcp, Transport::Quic, Transport::Other].map(|transport| [path, transport.name()]));
    let count = |kind: [&str; 2]| status.peers.iter().filter(|peer| best_connection(peer) == kind).count();
    page.each(&PEERS, kinds.map(|kind| (kind, count(kind))))?;
    let inbound = &status.inbound;
    page.one(&CONNECTIONS, status.peers.iter().map(|peer| peer.paths.len()).sum::<usize>())?;
    page.one(&INBOUND, inbound.established)?;
    page.one(&LIMIT, inbound.limit)?;
    page.one(&HANDSHAKES, inbound.handshakes)?;
    page.one(&REFUSED, inbound.refused_per_address)?;
    let traffic = &status.traffic;
    page.one(&BANS, traffic.bans)?;
    page.one(&BAD_FRAMES, traffic.bad_frames)?;
    page.one(&STREAMS_DROPPED, traffic.streams_dropped)?;
    let gossip = &traffic.gossip;
    page.one(&GOSSIP_SENT, gossip.sent)?;
    page.one(&GOSSIP_ARRIVED, gossip.arrived)?;
    page.one(&GOSSIP_BYTES, gossip.arrived_bytes)?;
    page.one(&GOSSIP_DUPLICATES, gossip.duplicates)?;
    page.one(&GOSSIP_RECEIVED, gossip.received)?;
    page.one(&GOSSIP_DROPPED, gossip.dropped)?;
    page.one(&GOSSIP_REJECTED, gossip.rejected)?;
    page.one(&GOSSIP_TOOK, timings.gossip)?;
    let requests = |value: fn(&RequestStats) -> u64| {
        let values = [value(&traffic.sync), value(&traffic.access)];
        PROTOCOLS.into_iter().zip(values)
    };
    page.each(&RECEIVED, requests(|stats| stats.received).map(|(protocol, count)| ([protocol], count)))?;
    page.each(&BUSY, requests(|stats| stats.busy).map(|(protocol, count)| ([protocol], count)))?;
    let answered = requests(|stats| stats.answered).map(|(protocol, count)| ([protocol, "answered"], count));
    let failed = requests(|stats| stats.failed).map(|(protocol, count)| ([protocol, "failed"], count));
    page.each(&SENT, answered.chain(failed))?;
    let took = [timings.net.sync, timings.net.access];
    page.each(&ROUND_TRIP, PROTOCOLS.into_iter().zip(took).map(|(protocol, took)| ([protocol], took)))?;
    let served = &traffic.sync_served;
    let looked_up = [
        (["bindings"], served.bindings),
        (["heads"], served.heads),
        (["entries"], served.entries),
        (["dataset"], served.datasets),
        (["proof"], served.proofs),
    ];
    page.each(&SYNC, looked_up)?;
    let without = [(["rate"], served.refused), (["malformed"], served.malformed), (["store"], served.failed)];
    page.each(&SYNC_TURNED_AWAY, without)?;
    page.one(&SYNC_TOOK, timings.sync)
}
