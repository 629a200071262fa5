//! Collects what [`NodeStatus`] says from the parts of a node.

use std::{sync::PoisonError, time::Duration};

use tributary_protocol::{
    entry::SignedEntry,
    ids::{LogId, StreamId},
};
use tributary_store::Store;

use super::{
    super::Node, AccessStatus, BannedStatus, FaultyPublisher, FollowedLogStatus, FollowedStatus, HookStatus,
    InboundStatus, NodeStatus, OwnLogStatus, PeerStatus, ProcessStatus, ReachStatus, RefusedTopic, Ros2Status,
    ServedStatus, SourceReport, SourceState, StoreStatus, StreamStatus, SubscriptionState, SubscriptionStatus,
    TrafficStatus, Warning, WarningCode,
};
use crate::{
    config::{Mode, Policy, show_duration},
    feeds::FeedStatus,
    machine::{Machine, MachineError, StreamReport, stored_bindings},
    net::Ban,
};

/// A binding that ends sooner is warned about.
const BINDING_WARNS_MS: u64 = 14 * 24 * 60 * 60 * 1000;

/// Clocks that are further apart are warned about, seconds.
const CLOCKS_DIFFER_S: u64 = 5 * 60;

/// See [`Node::status`].
pub(in crate::service) async fn collect(node: &Node) -> NodeStatus {
    let inner = &node.inner;
    let now_ms = (inner.clock)();
    // A network that has shut down has no addresses and no peers.
    let listen = inner.net.listen_addrs().await.unwrap_or_default();
    let peers = inner.net.peers().await.unwrap_or_default();
    let reach = inner.net.reach().await.map_or_else(|_| ReachStatus::default(), ReachStatus::from);
    let banned = inner.net.remembered().await.map_or_else(|_| Vec::new(), |remembered| remembered.bans);
    let links = node.links().await.unwrap_or_default();
    let mut feeds = Vec::new();
    if let Some(followed) = &inner.feeds {
        for did in followed.followed() {
            // One that is no longer followed by now is left out.
            feeds.extend(followed.status(&did).await);
        }
    }
    let mirror = match &inner.mirror {
        Some(mirror) => Some(mirror.status().await),
        None => None,
    };
    let mut subscriptions = Ok(Vec::new());
    if let Some(buyer) = &inner.buyer {
        subscriptions = buyer.subscriptions().await;
    }
    let pulls = inner.pulls.lock().unwrap_or_else(PoisonError::into_inner).as_ref().map(|pulls| pulls.stats());
    let mut status = NodeStatus {
        version: env!("CARGO_PKG_VERSION").to_owned(),
        did: inner.did,
        roles: inner.config.roles.iter().map(|role| role.name().to_owned()).collect(),
        peer: inner.net.peer_id().to_string(),
        now_ms,
        uptime_s: inner.started.elapsed().as_secs(),
        listen: listen.iter().map(ToString::to_string).collect(),
        links: links.iter().map(ToString::to_string).collect(),
        peers: peers.into_iter().map(PeerStatus::from).collect(),
        banned: banned.into_iter().map(banned_status).collect(),
        reach,
        inbound: inbound_status(node),
        traffic: TrafficStatus::new(&inner.net.stats(), inner.net.rates(), inner.sync.status()),
        binding_expires_ms: None,
        incarnation: inner.machine.as_ref().map(|machine| machine.incarnation()),
        streams: Vec::new(),
        logs: Vec::new(),
        ros2: inner.ros2.as_ref().map(|ros2| ros2.status()),
        outbox: inner.outbox.as_ref().map(|outbox| outbox.status()),
        pending_requests: 0,
        access: inner.access.status(),
        hooks: inner.access.hooks(),
        followed: feeds.into_iter().map(|feed| followed_status(feed, now_ms)).collect(),
        mirror,
        leaving: inner.depositor.status(),
        subscriptions: Vec::new(),
        store: StoreStatus::default(),
        process: ProcessStatus::default(),
        served: pulls.map_or_else(ServedStatus::default, |stats| ServedStatus {
            transfers: stats.completed,
            active: u64::try_from(stats.active).unwrap_or(u64::MAX),
            limit: inner.config.network.limits.pulls,
            busy: stats.busy,
            dropped: stats.dropped,
            failed: stats.failed,
            malformed: stats.malformed,
            chunks: stats.chunks,
            bytes: stats.bytes,
            followed: inner.config.serves_followed(),
        }),
        warnings: Vec::new(),
    };
    if inner.home.owner_key_is_here() && inner.machine.is_some() {
        let path = inner.home.owner_key_path();
        let message = format!("the owner's secret key is on this machine; move {} to a safe place", path.display());
        status.warnings.push(Warning { code: WarningCode::OwnerKeyHere, message });
    }
    if status.hooks.failed > 0 || status.hooks.dropped > 0 {
        let failed = status.hooks.failed + status.hooks.dropped;
        let message = format!(
            "access.hook could not tell about {failed} requests since the start; see the log, and `tributary access ls --pending`"
        );
        status.warnings.push(Warning { code: WarningCode::HookFailed, message });
    }
    let (machine, store, access) = (inner.machine.clone(), inner.store.clone(), inner.access.clone());
    let read = tokio::task::spawn_blocking(move || {
        let mut status = status;
        status.process = ProcessStatus::now();
        status.pending_requests = u64::try_from(access.pending()).unwrap_or(u64::MAX);
        read_store(&mut status, machine.as_deref(), &store, now_ms);
        status
    });
    // Only a panic or the end of the runtime leaves nothing to show.
    let mut status = read.await.unwrap_or_else(|error| incomplete(node, now_ms, &error.to_string()));
    if let Some(ros2) = &status.ros2 {
        status.warnings.extend(warn_of_ros2(ros2));
    }
    match subscriptions {
        Ok(subscriptions) => {
            status.warnings.extend(subscriptions.iter().filter_map(subscription_warning));
            status.subscriptions = subscriptions;
        }
        Err(error) => status.warnings.push(Warning { code: WarningCode::StatusIncomplete, message: error.to_string() }),
    }
    for feed in &status.followed {
        if feed.equivocations > 0 {
            let message = format!("{} signs two stories; do not trust its newest statements", feed.did);
            status.warnings.push(Warning { code: WarningCode::Equivocation, message });
        }
        if let Some(offset) = feed.clock_offset_s.filter(|offset| offset.unsigned_abs() > CLOCKS_DIFFER_S) {
            let way = if offset > 0 { "ahead of" } else { "behind" };
            let apart = show_duration(Duration::from_secs(offset.unsigned_abs()));
            let message = format!(
                "the clock of {} is {apart} {way} this node's; ages and times of its data are off by that: set the clock that is \
                 wrong (timedatectl)",
                feed.did
            );
            status.warnings.push(Warning { code: WarningCode::ClockDiffers, message });
        }
    }
    status
}

/// What needs the disk.
fn read_store(status: &mut NodeStatus, machine: Option<&Machine>, store: &Store, now_ms: u64) {
    let stats = store.stats();
    status.store = StoreStatus {
        chunks: stats.chunks,
        chunk_bytes: stats.chunk_bytes,
        entries: stats.entries,
        rows: stats.rows,
        tombstones: stats.tombstones,
        evidence: stats.evidence,
        segments: stats.segments,
        queued_batches: stats.queued_batches,
        index_bytes: stats.index_bytes,
        used_bytes: stats.used_bytes,
        quota_bytes: stats.quota_bytes,
        free_bytes: stats.free_bytes,
        stopped: stats.stopped,
    };
    let mut warn = |code, message| status.warnings.push(Warning { code, message });
    if stats.stopped {
        warn(
            WarningCode::StoreStopped,
            "the store stopped after a failure; look at the disk, then restart the node".to_owned(),
        );
    }
    let Some(machine) = machine else { return };
    if let Some(reason) = machine.displaced() {
        let message = format!("nothing is published: {reason}; bind the next incarnation with `tributary key bind`");
        warn(WarningCode::Displaced, message);
    }
    match stored_bindings(store, &machine.did()) {
        Ok(bindings) => {
            status.binding_expires_ms = bindings.last().map(|signed| signed.binding().expires_ms);
            let expires_ms = status.binding_expires_ms.unwrap_or(0);
            if now_ms.saturating_add(BINDING_WARNS_MS) >= expires_ms {
                let left = show_duration(Duration::from_secs(expires_ms.saturating_sub(now_ms) / 1000));
                let message = format!("the machine's key binding ends in {left}; renew it with `tributary key bind`");
                warn(WarningCode::BindingExpires, message);
            }
        }
        Err(error) => warn(WarningCode::StatusIncomplete, error.to_string()),
    }
    match machine.report() {
        Ok(streams) => {
            for stream in &streams {
                if let Some(reason) = &stream.lane.stalled {
                    warn(WarningCode::LaneStalled, format!("stream {} waits: {reason}", stream.name));
                }
                if let Some(reason) = &stream.lane.stopped {
                    warn(WarningCode::LaneStopped, format!("stream {} has stopped: {reason}", stream.name));
                }
                if let Some(source) = &stream.source {
                    warn_of_source(source, stream, &mut warn);
                }
            }
            let policy =
                |id: StreamId| machine.stream_config(&id).map_or("", |config| policy_name(&config.access.policy));
            let queue_limit = |id: StreamId| {
                let messages = machine.stream_config(&id).filter(|config| config.mode != Mode::File);
                messages.map_or(0, |config| u64::from(config.queue.messages))
            };
            status.streams = streams
                .into_iter()
                .map(|stream| StreamStatus {
                    queue_limit: queue_limit(stream.stream),
                    policy: policy(stream.stream).to_owned(),
                    name: stream.name,
                    stream: stream.stream,
                    entries: stream.entries,
                    lane: stream.lane,
                    source: stream.source,
                })
                .collect();
        }
        Err(error) => warn(WarningCode::StatusIncomplete, error.to_string()),
    }
    match own_logs(machine, store, now_ms) {
        Ok(logs) => status.logs = logs,
        Err(error) => status.warnings.push(Warning { code: WarningCode::StatusIncomplete, message: error.to_string() }),
    }
}

fn warn_of_source(source: &SourceReport, stream: &StreamReport, warn: &mut impl FnMut(WarningCode, String)) {
    let name = &stream.name;
    if let Some(reason) = source.reason.as_ref().filter(|_| source.state == SourceState::Refused) {
        warn(WarningCode::TopicRefused, format!("stream {name}: the topic {} is refused: {reason}", source.topic));
    }
    for FaultyPublisher { node, reason, .. } in &source.faulty {
        warn(WarningCode::PublisherFaulty, format!("stream {name}: nothing comes from the publisher {node}: {reason}"));
    }
    let more = source.faulty_count.saturating_sub(source.faulty.len() as u64);
    if more > 0 {
        warn(WarningCode::PublisherFaulty, format!("stream {name}: nothing comes from {more} more publishers"));
    }
    let (lost, dropped) = (source.lost, stream.lane.dropped);
    if lost > 0 || dropped > 0 {
        let message = format!(
            "stream {name}: {lost} messages were lost before they came (on the way, or in the ROS middleware's history), and \
             {dropped} were dropped by the node's own queue; see `qos` and `queue`"
        );
        warn(WarningCode::MessagesLost, message);
    }
}

fn warn_of_ros2(ros2: &Ros2Status) -> Vec<Warning> {
    let mut out = Vec::new();
    let mut warn = |code, message| out.push(Warning { code, message });
    if ros2.paused {
        let message = format!("live topics are left out: the node is paused; call the service {}/resume", ros2.node);
        warn(WarningCode::Ros2Paused, message);
    }
    for RefusedTopic { topic, reason } in &ros2.refused {
        warn(WarningCode::TopicRefused, format!("the topic {topic} is refused: {reason}"));
    }
    let more = ros2.refused_count.saturating_sub(ros2.refused.len() as u64);
    if more > 0 {
        warn(WarningCode::TopicRefused, format!("{more} more topics that patterns mean are refused"));
    }
    for trouble in &ros2.trouble {
        warn(WarningCode::Ros2Trouble, trouble.clone());
    }
    out
}

fn own_logs(machine: &Machine, store: &Store, now_ms: u64) -> Result<Vec<OwnLogStatus>, MachineError> {
    let mut logs = Vec::new();
    for key in store.logs(Some(&machine.did()))? {
        let Some((seq, bytes)) = store.head(&key)? else { continue };
        let newest_ms = SignedEntry::decode(&bytes).map_or(0, |entry| entry.entry().time_ms);
        let stream = key.log.stream().and_then(|id| Some(machine.stream_config(&id)?.name().to_owned()));
        logs.push(OwnLogStatus {
            log: key.log,
            stream: stream.filter(|_| key.log != LogId::MACHINE),
            incarnation: key.incarnation,
            entries: seq.saturating_add(1),
            newest_ms,
            age_s: now_ms.saturating_sub(newest_ms) / 1000,
        });
    }
    Ok(logs)
}

fn incomplete(node: &Node, now_ms: u64, reason: &str) -> NodeStatus {
    NodeStatus {
        version: env!("CARGO_PKG_VERSION").to_owned(),
        did: node.inner.did,
        roles: Vec::new(),
        peer: node.inner.net.peer_id().to_string(),
        now_ms,
        uptime_s: node.inner.started.elapsed().as_secs(),
        listen: Vec::new(),
        links: Vec::new(),
        peers: Vec::new(),
        banned: Vec::new(),
        reach: ReachStatus::default(),
        inbound: inbound_status(node),
        traffic: TrafficStatus::default(),
        incarnation: None,
        binding_expires_ms: None,
        streams: Vec::new(),
        logs: Vec::new(),
        ros2: None,
        outbox: None,
        pending_requests: 0,
        access: AccessStatus::default(),
        hooks: HookStatus::default(),
        followed: Vec::new(),
        mirror: None,
        leaving: Vec::new(),
        subscriptions: Vec::new(),
        store: StoreStatus::default(),
        served: ServedStatus::default(),
        process: ProcessStatus::default(),
        warnings: vec![Warning { code: WarningCode::StatusIncomplete, message: reason.to_owned() }],
    }
}

fn banned_status(ban: Ban) -> BannedStatus {
    // A ban with half a second left is one.
    let left_s = ban.left.map(|left| left.as_secs().saturating_add(u64::from(left.subsec_nanos() > 0)));
    BannedStatus { peer: ban.peer.to_string(), left_s }
}

fn inbound_status(node: &Node) -> InboundStatus {
    let (stats, limits) = (node.inner.net.stats(), &node.inner.config.network.limits);
    InboundStatus {
        established: stats.inbound,
        handshakes: stats.inbound_pending,
        refused_per_address: stats.refused_per_address,
        connections_per_address: limits.connections_per_address,
        handshakes_per_address: limits.handshakes_per_address,
        connections_per_network: limits.connections_per_network,
        handshakes_per_network: limits.handshakes_per_network,
        limit: limits.connections,
    }
}

fn followed_status(feed: FeedStatus, now_ms: u64) -> FollowedStatus {
    let log = |log: crate::feeds::LogStatus| FollowedLogStatus {
        log: log.log,
        incarnation: log.incarnation,
        first: log.start,
        entries: log.next,
        announced: log.announced,
        head_age_s: log.head_ms.map(|head_ms| now_ms.saturating_sub(head_ms) / 1000),
    };
    FollowedStatus {
        did: feed.did,
        from: feed.from.to_string(),
        binding_serial: feed.binding_serial,
        stale_binding: feed.stale_binding,
        equivocations: feed.equivocations,
        proofs: feed.proofs,
        noise: feed.noise,
        flagged: feed.flagged,
        clock_offset_s: feed.clock_offset_ms.map(|offset| offset / 1000),
        logs: feed.logs.into_iter().map(log).collect(),
        sources: feed.sources,
    }
}

fn subscription_warning(subscription: &SubscriptionStatus) -> Option<Warning> {
    let reason = subscription.reason.as_deref().unwrap_or("no reason is known");
    let (machine, stream) = (&subscription.machine, &subscription.stream);
    let (code, message) = match subscription.state {
        SubscriptionState::Ended => (
            WarningCode::SubscriptionEnded,
            format!(
                "the subscription to {stream} of {machine} has ended: {reason}; ask the machine's operator, then subscribe again"
            ),
        ),
        SubscriptionState::Failing => (
            WarningCode::SubscriptionFailing,
            format!("the subscription to {stream} of {machine} does not go on: {reason}; it is tried again"),
        ),
        _ => return None,
    };
    Some(Warning { code, message })
}

fn policy_name(policy: &Policy) -> &'static str {
    match policy {
        Policy::Free => "free",
        Policy::Allowlist(_) => "allowlist",
        Policy::Manual => "manual",
    }
}
