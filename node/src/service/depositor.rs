//! Leaves grants and denials with the machine's mirrors, so that buyers hear of them while the machine is offline.
//!
//! One task for each mirror. It takes what the desk has noted for that mirror, sends it, and takes the note away when the mirror
//! has it. What fails is tried again, less and less often; the notes are durable, so a restart goes on. The tasks end when they
//! are dropped.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use libp2p::multiaddr::Protocol;
use serde::{Deserialize, Serialize};
use tokio::{sync::watch, task::JoinSet};
use tributary_protocol::wire::{AccessReply, DenyCode};

use super::access::AccessService;
use crate::net::{Client, Multiaddr, PeerId};

/// How often a mirror is tried again, at first and at most.
const AGAIN: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(300));
/// How often a busy mirror is asked again for one message, and the longest wait between.
const BUSY_RETRIES: u32 = 10;
const BUSY_WAIT: Duration = Duration::from_secs(10);
/// Notes are looked through at least this often: an order may have gone on in a new key epoch.
const TICK: Duration = Duration::from_secs(60);

/// What became of deposits with one mirror since the start.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct LeavingStatus {
    /// The mirror's peer id.
    pub mirror: String,
    /// Orders that it has not heard the newest of; at most 256 are counted.
    pub waiting: u64,
    /// Orders that it has heard of.
    pub left: u64,
    /// Deposits that it refused.
    pub refused: u64,
    /// Why it did not take the last one.
    pub error: Option<String>,
}

/// How it goes with each mirror.
#[derive(Default)]
pub(super) struct Depositor {
    mirrors: Mutex<BTreeMap<PeerId, LeavingStatus>>,
}

/// The peer ids of mirrors; each address ends in one.
pub(super) fn peers_of(mirrors: &[Multiaddr]) -> Vec<PeerId> {
    let peer = |address: &Multiaddr| match address.iter().last() {
        Some(Protocol::P2p(peer)) => Some(peer),
        _ => None,
    };
    let mut peers: Vec<PeerId> = mirrors.iter().filter_map(peer).collect();
    peers.sort_unstable();
    peers.dedup();
    peers
}

impl Depositor {
    /// Starts a task for each mirror. `changed` is told when there is something to leave.
    pub(super) fn start(
        self: &Arc<Self>,
        net: &Client,
        access: &Arc<AccessService>,
        mirrors: &[Multiaddr],
        tasks: &mut JoinSet<()>,
    ) {
        for peer in peers_of(mirrors) {
            let addresses = mirrors.iter().filter(|address| peers_of(std::slice::from_ref(address)) == [peer]);
            let mirror = MirrorOf { peer, addresses: addresses.cloned().collect() };
            let (books, net, access) = (Arc::clone(self), net.clone(), Arc::clone(access));
            self.note(peer, |_| {});
            tasks.spawn(async move {
                let changed = access.changes();
                leave(&books, &net, &access, &mirror, changed).await;
            });
        }
    }

    /// How it goes.
    pub(super) fn status(&self) -> Vec<LeavingStatus> {
        self.mirrors.lock().unwrap_or_else(PoisonError::into_inner).values().cloned().collect()
    }

    fn note(&self, peer: PeerId, change: impl FnOnce(&mut LeavingStatus)) {
        let mut mirrors = self.mirrors.lock().unwrap_or_else(PoisonError::into_inner);
        let fresh = || LeavingStatus { mirror: peer.to_string(), ..LeavingStatus::default() };
        change(mirrors.entry(peer).or_insert_with(fresh));
    }
}

struct MirrorOf {
    peer: PeerId,
    addresses: Vec<Multiaddr>,
}

async fn leave(
    books: &Depositor,
    net: &Client,
    access: &Arc<AccessService>,
    mirror: &MirrorOf,
    mut changed: watch::Receiver<u64>,
) {
    let mut wait = AGAIN.0;
    loop {
        changed.mark_unchanged();
        let pause = match round(books, net, access, mirror).await {
            Ok(()) => {
                wait = AGAIN.0;
                TICK
            }
            Err(error) => {
                tracing::debug!(mirror = %mirror.peer, error, "nothing can be left with a mirror");
                books.note(mirror.peer, |status| status.error = Some(error));
                let pause = wait;
                wait = (wait * 2).min(AGAIN.1);
                // News do not bring a mirror back.
                tokio::time::sleep(pause).await;
                continue;
            }
        };
        tokio::select! {
            told = changed.changed() => if told.is_err() {
                return;
            },
            () = tokio::time::sleep(pause) => {}
        }
    }
}

/// Leaves everything that waits. `Err` says why something still does.
async fn round(books: &Depositor, net: &Client, access: &Arc<AccessService>, mirror: &MirrorOf) -> Result<(), String> {
    let mut failed = None;
    loop {
        let waiting = blocking(access, {
            let peer = mirror.peer;
            move |access| access.to_leave(&peer)
        })
        .await?;
        books.note(mirror.peer, |status| status.waiting = waiting.len() as u64);
        let before = waiting.len();
        if waiting.is_empty() {
            books.note(mirror.peer, |status| status.error = None);
            return Ok(());
        }
        net.connect(mirror.peer, mirror.addresses.clone()).await.map_err(|error| error.to_string())?;
        let mut left = 0;
        for order in waiting {
            let parts = blocking(access, move |access| access.parts(&order.request)).await?;
            match tell(net, mirror.peer, parts).await? {
                Ok(()) => {
                    let peer = mirror.peer;
                    blocking(access, move |access| access.left(&peer, order)).await?;
                    books.note(peer, |status| status.left += 1);
                    left += 1;
                }
                Err(reason) => {
                    tracing::warn!(mirror = %mirror.peer, request = %order.request, reason, "a mirror refuses a deposit");
                    books.note(mirror.peer, |status| status.refused += 1);
                    failed = Some(reason);
                }
            }
        }
        if let Some(reason) = failed.take().filter(|_| left < before) {
            return Err(reason);
        }
    }
}

/// Sends the messages about one order. The inner error is the mirror's refusal.
async fn tell(
    net: &Client,
    mirror: PeerId,
    parts: Vec<tributary_protocol::wire::AccessMessage>,
) -> Result<Result<(), String>, String> {
    for message in parts {
        let bytes = message.encode().map_err(|error| error.to_string())?;
        let mut tries = 0;
        let reply = loop {
            let reply = net.access(mirror, bytes.clone()).await.map_err(|error| error.to_string())?;
            match AccessReply::decode(&reply).map_err(|error| error.to_string())? {
                // It answers so many messages a minute, and there may be many orders.
                AccessReply::Busy { retry_ms } if tries < BUSY_RETRIES => {
                    tries += 1;
                    tokio::time::sleep(Duration::from_millis(retry_ms.into()).min(BUSY_WAIT)).await;
                }
                reply => break reply,
            }
        };
        match reply {
            AccessReply::Deposited { .. } => {}
            AccessReply::Busy { .. } => return Err("it is busy".to_owned()),
            // Nobody needs it any more.
            AccessReply::Denied { code: DenyCode::Expired, .. } => return Ok(Ok(())),
            AccessReply::Denied { reason, .. } => return Ok(Err(reason)),
            _ => return Ok(Err("it answers something else than was asked".to_owned())),
        }
    }
    Ok(Ok(()))
}

/// Asks the desk, where blocking is allowed.
async fn blocking<T: Send + 'static>(
    access: &Arc<AccessService>,
    ask: impl FnOnce(&AccessService) -> Result<T, super::access::AccessError> + Send + 'static,
) -> Result<T, String> {
    let access = Arc::clone(access);
    let asked = tokio::task::spawn_blocking(move || ask(&access)).await;
    asked.map_err(|_| "the node stops".to_owned())?.map_err(|error| error.to_string())
}
