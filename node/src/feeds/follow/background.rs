//! The task that catches up: where gossip left a gap, when a peer comes, and every minute.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, PoisonError, Weak},
    time::Duration,
};

use libp2p::PeerId;
use tokio::sync::{broadcast, mpsc};
use tributary_protocol::{
    ids::{Did, LogId},
    wire::parse_topic,
};

use super::super::{Feeds, Inner};
use crate::net::{Client, PeerEvent};

/// Every feed is caught up with at least this often.
const TICK: Duration = Duration::from_secs(60);
/// Work that waits; more is dropped, the next head or tick brings it again.
pub(in crate::feeds) const WORK_QUEUE: usize = 64;

/// Work for the background task.
pub(in crate::feeds) enum Work {
    CatchUp { did: Did, peer: Option<PeerId> },
}

/// Runs until the feeds is gone: catches up where gossip left a gap, when a peer comes, and every minute.
pub(in crate::feeds) async fn background(inner: Weak<Inner>, net: Client, mut work: mpsc::Receiver<Work>) {
    let mut peers = net.watch_peers();
    let mut tick = tokio::time::interval(TICK);
    tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Skip);
    drop(net);
    let mut peers_open = true;
    let running: Arc<Mutex<BTreeMap<Did, ()>>> = Arc::default();
    loop {
        let wanted: Vec<(Did, Option<PeerId>)> = tokio::select! {
            item = work.recv() => match item {
                Some(Work::CatchUp { did, peer }) => vec![(did, peer)],
                None => return,
            },
            event = peers.recv(), if peers_open => match event {
                Ok(PeerEvent::Subscribed { peer, topic }) => {
                    parse_topic(&topic).filter(|(_, log)| *log == LogId::MACHINE).map(|(did, _)| (did, Some(peer))).into_iter().collect()
                }
                Err(broadcast::error::RecvError::Closed) => { peers_open = false; Vec::new() }
                _ => Vec::new(),
            },
            _ = tick.tick() => {
                let Some(inner) = inner.upgrade() else { return };
                Feeds { inner }.handles().keys().map(|did| (*did, None)).collect()
            }
        };
        for (did, peer) in wanted {
            let Some(inner) = inner.upgrade() else { return };
            let feeds = Feeds { inner };
            let Ok(handle) = feeds.handle(&did) else { continue };
            // One at a time per feed: what is asked for while one runs is what that one brings, or the next head does.
            if running.lock().unwrap_or_else(PoisonError::into_inner).insert(did, ()).is_some() {
                continue;
            }
            let running = Arc::clone(&running);
            tokio::spawn(async move {
                if let Err(error) = feeds.catch_up_with(&handle, peer).await {
                    tracing::debug!(%did, %error, "catching up failed");
                }
                if let Err(error) = feeds.subscribe(&handle).await {
                    tracing::debug!(%did, %error, "a feed is followed without gossip");
                }
                running.lock().unwrap_or_else(PoisonError::into_inner).remove(&did);
            });
        }
    }
}
