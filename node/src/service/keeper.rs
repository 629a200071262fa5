//! What a node does by itself while nobody asks: it stays connected to its peers, follows the feeds of its configuration,
//! keeps the order book and the store in order.

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use tokio::{task::JoinSet, time::MissedTickBehavior};
use tributary_protocol::ids::Did;
use tributary_store::Store;

use super::access::AccessService;
use crate::{
    buyer::{Buyer, SubscriptionTerms},
    config::{Config, Follow, FollowStreams},
    feeds::{FeedLink, Streams},
    machine::{Clock, Machine},
    net::{Client, Multiaddr, NetError},
    retention,
};

/// How often lost peers are looked for.
const PEERS_EVERY: Duration = Duration::from_secs(15);
/// How often an unreachable machine is tried again, at first and at most.
const FOLLOW_AGAIN: (Duration, Duration) = (Duration::from_secs(2), Duration::from_secs(120));
/// How often it is looked whether the node serves the feeds that it says it serves.
const PROVIDE_EVERY: Duration = Duration::from_secs(10);
/// How often orders are looked through.
const ORDERS_EVERY: Duration = Duration::from_secs(600);
/// How often retention is carried out.
const RETENTION_EVERY: Duration = Duration::from_secs(600);

/// What the tasks work on.
pub(super) struct Kept<'a> {
    pub(super) net: &'a Client,
    pub(super) store: &'a Store,
    pub(super) machine: Option<&'a Arc<Machine>>,
    pub(super) buyer: Option<&'a Buyer>,
    pub(super) access: &'a Arc<AccessService>,
    pub(super) config: &'a Config,
    pub(super) did: Did,
    pub(super) clock: &'a Clock,
}

/// Starts the tasks; they end when they are dropped.
pub(super) fn start(kept: &Kept<'_>, tasks: &mut JoinSet<()>) {
    let &Kept { net, store, machine, buyer, access, config, did, clock } = kept;
    let peers: Vec<Multiaddr> =
        config.network.peers.iter().chain(&config.network.discovery.bootstrap).cloned().collect();
    if !peers.is_empty() {
        tasks.spawn(stay_connected(net.clone(), peers));
    }
    if let Some(machine) = machine {
        tasks.spawn(provide_own(net.clone(), Arc::clone(machine)));
    }
    if let Some(buyer) = buyer {
        if config.buyer.reseed {
            tasks.spawn(reseed(net.clone(), buyer.clone()));
        }
        for follow in &config.follow {
            tasks.spawn(follow_until_found(buyer.clone(), follow.clone()));
        }
        let subscriptions = config.buyer.subscriptions.iter();
        let wanted: Vec<(Did, SubscriptionTerms)> =
            subscriptions.flat_map(|all| all.streams.iter().map(|terms| (all.machine, terms.clone()))).collect();
        if !wanted.is_empty() {
            tasks.spawn(subscribe(buyer.clone(), wanted));
        }
    }
    tasks.spawn(keep_orders(Arc::clone(access)));
    if retention::is_limited(config) {
        tasks.spawn(keep_store(store.clone(), config.clone(), did, Arc::clone(clock)));
    }
}

/// A timer that does not hurry after what it missed.
fn every(period: Duration) -> tokio::time::Interval {
    let mut timer = tokio::time::interval(period);
    timer.set_missed_tick_behavior(MissedTickBehavior::Delay);
    timer
}

async fn stay_connected(net: Client, peers: Vec<Multiaddr>) {
    let mut timer = every(PEERS_EVERY);
    loop {
        timer.tick().await;
        for peer in &peers {
            // An address whose peer is connected already is answered without a dial.
            if let Err(error) = net.dial(peer.clone()).await {
                tracing::debug!(%peer, %error, "peer not reached");
            }
        }
    }
}

/// Says to others that the machine serves its feed, for as long as it may publish.
async fn provide_own(net: Client, machine: Arc<Machine>) {
    let mut timer = every(PROVIDE_EVERY);
    let did = machine.did();
    loop {
        timer.tick().await;
        let told = match machine.displaced() {
            None => net.provide(&did).await,
            Some(_) => net.withdraw(&did).await,
        };
        if told.is_err() {
            return;
        }
    }
}

/// Says to others that this buyer serves what it follows.
async fn reseed(net: Client, buyer: Buyer) {
    let mut timer = every(PROVIDE_EVERY);
    let mut told: BTreeSet<Did> = BTreeSet::new();
    loop {
        timer.tick().await;
        let followed: BTreeSet<Did> = buyer.feeds().followed().into_iter().collect();
        let changed = async {
            for did in told.difference(&followed) {
                net.withdraw(did).await?;
            }
            for did in followed.difference(&told) {
                net.provide(did).await?;
            }
            Ok::<_, NetError>(())
        };
        if changed.await.is_err() {
            return;
        }
        told = followed;
    }
}

async fn subscribe(buyer: Buyer, wanted: Vec<(Did, SubscriptionTerms)>) {
    if let Err(error) = buyer.configure_subscriptions(wanted).await {
        tracing::error!(%error, "the subscriptions of the configuration cannot be kept up");
    }
}

async fn follow_until_found(buyer: Buyer, follow: Follow) {
    let link = FeedLink::new(follow.machine, follow.addresses);
    let streams = match follow.streams {
        FollowStreams::All => Streams::All,
        FollowStreams::Named(names) => Streams::Names(names),
    };
    let (mut wait, longest) = FOLLOW_AGAIN;
    loop {
        match buyer.feeds().follow_from(&link, streams.clone(), Some(follow.from)).await {
            Ok((_, report)) => {
                tracing::info!(machine = %link.did, entries = report.entries, "feed followed");
                return;
            }
            Err(error) => tracing::warn!(machine = %link.did, %error, "machine not reached; it is tried again"),
        }
        tokio::time::sleep(wait).await;
        wait = (wait * 2).min(longest);
    }
}

async fn keep_orders(access: Arc<AccessService>) {
    let mut timer = every(ORDERS_EVERY);
    loop {
        timer.tick().await;
        let access = Arc::clone(&access);
        match tokio::task::spawn_blocking(move || access.keep_house()).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => tracing::warn!(%error, "orders could not be looked through"),
            Err(_) => return,
        }
    }
}

async fn keep_store(store: Store, config: Config, did: Did, clock: Clock) {
    let config = Arc::new(config);
    let mut timer = every(RETENTION_EVERY);
    loop {
        timer.tick().await;
        let (store, config, now_ms) = (store.clone(), Arc::clone(&config), clock());
        let collected = tokio::task::spawn_blocking(move || retention::carry_out(&store, &config, &did, false, now_ms));
        match collected.await {
            Ok(Ok(report)) if report.expired_chunks > 0 => {
                tracing::info!(
                    chunks = report.expired_chunks,
                    bytes = report.expired_bytes,
                    "retention dropped chunks"
                );
            }
            Ok(Ok(_)) => {}
            Ok(Err(error)) => tracing::warn!(%error, "retention could not be carried out"),
            Err(_) => return,
        }
    }
}
