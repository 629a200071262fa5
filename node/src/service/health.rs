//! Whether a node is alive, and whether it is ready.
//!
//! Alive means that its parts answer: when it is not, only a restart helps. Ready means that it does its work now: the store is
//! open and takes chunks, the network listens where it should, every stream takes messages. A node that is not ready says what is
//! missing. Nothing here waits longer than a few seconds, whatever hangs.

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use serde::{Deserialize, Serialize};
use tokio::time::timeout;
use tributary_store::{Store, StoreOptions};

use super::Inner;
use crate::{
    machine::{LaneReport, Machine},
    net::{Multiaddr, Transport},
};

/// A part that has not answered by then does not answer.
const PATIENCE: Duration = Duration::from_secs(3);
/// With less room than this the store takes no chunk of the largest size any more: a megabyte, its frame, and what the store keeps
/// back to be able to delete.
const MIN_ROOM: u64 = 2 << 20;

/// How a node feels.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Health {
    /// Its parts answer.
    pub alive: bool,
    /// It does its work.
    pub ready: bool,
    /// What keeps it from being ready.
    pub problems: Vec<HealthProblem>,
}

/// Something that keeps a node from being ready.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HealthProblem {
    /// Where.
    pub part: Part,
    /// What, and what to do.
    pub message: String,
}

/// A part of a node whose health is looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Part {
    /// The node as a whole.
    Node,
    /// The chunk store.
    Store,
    /// The network.
    Network,
    /// The streams of a machine.
    Ingest,
}

impl Part {
    /// As it is written.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Node => "node",
            Self::Store => "store",
            Self::Network => "network",
            Self::Ingest => "ingest",
        }
    }
}

/// What is found, and whether the part answered at all.
type Found = (bool, Vec<HealthProblem>);

fn problem(part: Part, message: impl Into<String>) -> HealthProblem {
    HealthProblem { part, message: message.into() }
}

/// See [`super::Node::health`].
pub(super) async fn look(inner: &Inner) -> Health {
    let ((network_alive, network), (disk_alive, disk)) = tokio::join!(network(inner), disk(inner));
    let mut problems = Vec::new();
    if inner.stopping.is_cancelled() {
        problems.push(problem(Part::Node, "the node is stopping"));
    }
    problems.extend(disk.into_iter().chain(network));
    Health { alive: network_alive && disk_alive, ready: problems.is_empty(), problems }
}

async fn network(inner: &Inner) -> Found {
    match timeout(PATIENCE, inner.net.listen_addrs()).await {
        Ok(Ok(listening)) => {
            let missing = not_listening(&inner.config.network.listen, &listening);
            (true, missing.map(|message| problem(Part::Network, message)).into_iter().collect())
        }
        // A node that stops closes its network last but one, and is not dead for that.
        Ok(Err(error)) => (inner.stopping.is_cancelled(), vec![problem(Part::Network, error.to_string())]),
        Err(_) => (false, vec![problem(Part::Network, "the network does not answer; restart the node")]),
    }
}

/// What of the configured addresses is not listened on. Wildcards and port 0 stand for addresses that only the system knows, so
/// there must be at least one address of each kind of transport.
fn not_listening(wanted: &[Multiaddr], listening: &[Multiaddr]) -> Option<String> {
    let kinds = |addrs: &[Multiaddr]| addrs.iter().map(Transport::of).map(Transport::name).collect::<BTreeSet<_>>();
    let (there, missing) = (kinds(listening), kinds(wanted));
    let missing: Vec<&str> = missing.difference(&there).copied().collect();
    if missing.is_empty() {
        return None;
    }
    Some(format!("the node no longer listens on {}, as `network.listen` asks; see the log", missing.join(" and ")))
}

async fn disk(inner: &Inner) -> Found {
    let (machine, store) = (inner.machine.clone(), inner.store.clone());
    let silent = || (false, vec![problem(Part::Store, "the store does not answer; look at the disk")]);
    // One look at a time: however often somebody asks while the disk hangs, one thread waits for it.
    let Ok(Ok(place)) = timeout(PATIENCE, Arc::clone(&inner.looking).acquire_owned()).await else { return silent() };
    let looked = tokio::task::spawn_blocking(move || {
        let _place = place;
        let mut problems: Vec<HealthProblem> = store_problem(&store).into_iter().collect();
        if let Some(machine) = machine {
            problems.extend(stream_problems(&machine));
        }
        problems
    });
    match timeout(PATIENCE, looked).await {
        Ok(Ok(problems)) => (true, problems),
        Ok(Err(_)) => (false, vec![problem(Part::Store, "looking at the store failed; see the log")]),
        Err(_) => silent(),
    }
}

fn store_problem(store: &Store) -> Option<HealthProblem> {
    let stats = store.stats();
    if stats.stopped {
        let message = "the store stopped after a failure; look at the disk, then restart the node";
        return Some(problem(Part::Store, message));
    }
    if let Some(quota) = stats.quota_bytes.filter(|quota| stats.used_bytes.saturating_add(MIN_ROOM) > *quota) {
        let message = format!(
            "the store is full: {} of {quota} bytes of its quota are used; raise `store.quota`, or `tributary store gc`",
            stats.used_bytes
        );
        return Some(problem(Part::Store, message));
    }
    let free = stats.free_bytes.filter(|free| *free < StoreOptions::default().min_free_bytes)?;
    Some(problem(Part::Store, format!("the disk is full: {free} bytes are free; make room")))
}

fn stream_problems(machine: &Machine) -> Vec<HealthProblem> {
    let of = |stream: &str, lane: &LaneReport| {
        let stopped = lane.stopped.as_ref().map(|reason| format!("stream {stream} has stopped: {reason}"));
        let message = stopped.or_else(|| Some(format!("stream {stream} waits: {}", lane.stalled.as_ref()?)));
        message.map(|message| problem(Part::Ingest, message))
    };
    machine.lanes().iter().filter_map(|(stream, lane)| of(stream, lane)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn addrs(texts: &[&str]) -> Vec<Multiaddr> {
        texts.iter().map(|text| text.parse().expect("an address")).collect()
    }

    #[test]
    fn a_transport_without_any_address_is_named() {
        let wanted = addrs(&["/ip4/0.0.0.0/tcp/4600", "/ip4/0.0.0.0/udp/4600/quic-v1"]);
        let both = addrs(&["/ip4/127.0.0.1/tcp/4600", "/ip4/127.0.0.1/udp/4600/quic-v1"]);
        assert_eq!(not_listening(&wanted, &both), None);
        let message = not_listening(&wanted, &both[..1]).expect("QUIC is gone");
        assert!(message.contains("listens on quic,"), "{message}");
        let message = not_listening(&wanted, &[]).expect("both are gone");
        assert!(message.contains("listens on quic and tcp,"), "{message}");
        assert_eq!(not_listening(&[], &[]), None, "a node that only dials");
    }
}
