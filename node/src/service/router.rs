//! Hands on what the network brings: gossip, sync requests, access requests.
//!
//! One task for each of the three queues, so that a flood of one kind does not hold up the others. Requests are answered side
//! by side, as many as their servers take and a few more that are told to come back; gossip is taken in order, one message at
//! a time, because an entry means something only after the one before it. All tasks end when the network closes its queues.

use std::{sync::Arc, time::Instant};

use tokio::{
    sync::{Semaphore, mpsc},
    task::JoinSet,
};
use tributary_protocol::{
    entry::{SignedEntry, SignedHead},
    ids::LogId,
    wire::{FeedMessage, parse_topic},
};
use tributary_store::Store;

use super::{access::AccessService, sync_server::SyncServer};
use crate::{
    durations::Durations,
    feeds::Feeds,
    machine::Machine,
    net::{Acceptance, Client, GossipMessage, InboundRequest, NetEvents},
};

/// Requests of one protocol that are looked at side by side. Those beyond wait in the network's queue, and behind that peers
/// are told "busy".
const SIDE_BY_SIDE: usize = 32;

/// Whom messages go to.
pub(super) struct Routes {
    pub(super) net: Client,
    pub(super) store: Store,
    pub(super) machine: Option<Arc<Machine>>,
    pub(super) feeds: Option<Feeds>,
    pub(super) sync: Arc<SyncServer>,
    pub(super) access: Arc<AccessService>,
    /// How long it takes to say what a gossip message is worth.
    pub(super) gossip_took: Arc<Durations>,
}

/// Starts the tasks; they end by themselves when the network has shut down.
pub(super) fn start(routes: Routes, events: NetEvents, tasks: &mut JoinSet<()>) {
    let NetEvents { gossip, sync, access } = events;
    let Routes { net, store, machine, feeds, sync: sync_server, access: access_server, gossip_took } = routes;
    let client = net.clone();
    tasks.spawn(requests(sync, move |inbound| Arc::clone(&sync_server).answer(client.clone(), inbound)));
    let client = net.clone();
    tasks.spawn(requests(access, move |inbound| Arc::clone(&access_server).answer(client.clone(), inbound)));
    tasks.spawn(take_gossip(gossip, net, store, machine, feeds, gossip_took));
}

/// Answers requests side by side until the queue is closed. Answers under way then are cut off: nobody would get them.
async fn requests<F>(mut queue: mpsc::Receiver<InboundRequest>, answer: impl Fn(InboundRequest) -> F + Send)
where
    F: Future<Output = ()> + Send + 'static,
{
    let places = Arc::new(Semaphore::new(SIDE_BY_SIDE));
    let mut answers = JoinSet::new();
    loop {
        let Ok(place) = Arc::clone(&places).acquire_owned().await else { return };
        let Some(inbound) = queue.recv().await else { return };
        let answered = answer(inbound);
        answers.spawn(async move {
            answered.await;
            drop(place);
        });
        while let Some(ended) = answers.try_join_next() {
            if let Err(error) = ended
                && error.is_panic()
            {
                tracing::error!(%error, "answering a request failed");
            }
        }
    }
}

async fn take_gossip(
    mut queue: mpsc::Receiver<GossipMessage>,
    net: Client,
    store: Store,
    machine: Option<Arc<Machine>>,
    feeds: Option<Feeds>,
    took: Arc<Durations>,
) {
    while let Some(message) = queue.recv().await {
        let begun = Instant::now();
        let GossipMessage { id, source, topic, bytes } = message;
        let acceptance = match (parse_topic(&topic), &machine, &feeds) {
            (None, ..) => Acceptance::Ignore,
            (Some((did, log)), Some(machine), _) if did == machine.did() => {
                let (machine, store) = (Arc::clone(machine), store.clone());
                let met = tokio::task::spawn_blocking(move || meet_own(&machine, &store, log, &bytes));
                met.await.unwrap_or(Acceptance::Ignore)
            }
            (Some(_), _, Some(feeds)) => feeds.on_gossip(&topic, source, bytes).await,
            (Some(_), _, None) => Acceptance::Ignore,
        };
        took.since(begun);
        if net.report(id, source, acceptance).await.is_err() {
            return;
        }
    }
}

/// Looks at a message about one of our own logs. It should be one that we sent.
fn meet_own(machine: &Machine, store: &Store, topic: LogId, bytes: &[u8]) -> Acceptance {
    let ours = machine.keys().feed.public();
    match FeedMessage::decode(bytes) {
        Ok(FeedMessage::Entry { entry: bytes, .. }) => {
            let Ok(signed) = SignedEntry::decode(&bytes) else { return Acceptance::Reject };
            let key = signed.entry().key();
            if key.did != machine.did() || key.log != topic {
                return Acceptance::Reject;
            }
            // A key that we do not use now proves nothing about a twin.
            if signed.signer() != ours {
                return Acceptance::Ignore;
            }
            if signed.verify_signature().is_err() {
                return Acceptance::Reject;
            }
            machine.met_own_entry(&signed);
            // What we hold is known to whoever follows us; what we do not hold proves the twin to them too.
            let known = store.entry(&key, signed.entry().seq).ok().flatten().as_deref() == Some(signed.bytes());
            if known { Acceptance::Ignore } else { Acceptance::Accept }
        }
        Ok(FeedMessage::Head(bytes)) => {
            let Ok(signed) = SignedHead::decode(&bytes) else { return Acceptance::Reject };
            let key = signed.head().key();
            if key.did != machine.did() || key.log != topic {
                return Acceptance::Reject;
            }
            if signed.signer() != ours {
                return Acceptance::Ignore;
            }
            if signed.verify_signature().is_err() {
                return Acceptance::Reject;
            }
            machine.met_own_head(&signed);
            Acceptance::Ignore
        }
        Err(_) => Acceptance::Reject,
    }
}
