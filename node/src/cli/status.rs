//! `tributary status` and `tributary peers`: how the node stands.

use super::{CliError, Context, Table, doctor::path_of, reach::block_on, show};
use crate::{
    control::api::NodeStatus,
    service::status::{
        InboundStatus, RateReport, Reach, ReachStatus, ReservationState, SourceState, SubscriptionState, WayReport,
    },
};

fn ask(context: &Context) -> Result<NodeStatus, CliError> {
    let client = context.node()?;
    block_on(async { Ok(client.get("/v1/status").await?) })
}

/// "3 connections, 1 in the handshake, 12 refused: more than 8 in the handshake or 32 connections from one address".
fn inbound(inbound: &InboundStatus) -> String {
    let InboundStatus { established, handshakes, refused_per_address, .. } = inbound;
    let mut text = show::some(*established, "connection");
    if *handshakes > 0 {
        text.push_str(&format!(", {} in the handshake", show::count(*handshakes)));
    }
    if *refused_per_address > 0 {
        let InboundStatus { connections_per_address, handshakes_per_address, .. } = inbound;
        text.push_str(&format!(
            ", {} refused: more than {handshakes_per_address} in the handshake or {connections_per_address} connections \
             from one address",
            show::count(*refused_per_address)
        ));
    }
    text
}

/// "12 KiB/s of 128 KiB/s, 3 MiB since the start; gossip 1 KiB/s of 32 KiB/s, 5 times held back".
fn way(way: &WayReport) -> String {
    let rate = |report: &RateReport| {
        let limit = report.limit.map(|limit| format!(" of {}/s", show::bytes(limit))).unwrap_or_default();
        format!("{}/s{limit}", show::bytes(report.rate))
    };
    let mut text = format!("{}, {} since the start", rate(&way.total), show::bytes(way.total.bytes));
    for (name, report) in [("gossip", &way.gossip), ("sync", &way.sync), ("pulls", &way.pull)] {
        if report.limit.is_some() || report.held > 0 {
            text.push_str(&format!("; {name} {}", rate(report)));
        }
        if report.held > 0 {
            text.push_str(&format!(", {} times held back", show::count(report.held)));
        }
    }
    text
}

/// "directly", "through 1 relay", "not known yet (tributary doctor)".
fn reached(reach: &ReachStatus) -> String {
    let reserved = reach.relays.iter().filter(|relay| relay.state == ReservationState::Reserved).count() as u64;
    let direct = match reach.reach {
        Reach::Reachable => "directly",
        Reach::Unreachable => "not directly",
        Reach::Unknown => "directly or not is not known yet",
    };
    let mut text = direct.to_owned();
    if reserved > 0 {
        text.push_str(&format!(", through {}", show::some(reserved, "relay")));
    }
    if reach.reach != Reach::Reachable {
        text.push_str(" (tributary doctor)");
    }
    text
}

pub(super) fn status(context: &Context) -> Result<(), CliError> {
    let status = ask(context)?;
    context.output.document(&status, |out| {
        let relayed = status.peers.iter().filter(|peer| !peer.direct).count() as u64;
        let peers = match relayed {
            0 => status.peers.len().to_string(),
            relayed => format!("{}, {} of them through a relay", status.peers.len(), show::count(relayed)),
        };
        let mut table = Table::new();
        table
            .row(["peaqID", &status.did.to_string()])
            .row(["roles", &status.roles.join(", ")])
            .row(["running for", &show::age(status.uptime_s.saturating_mul(1000))])
            .row(["peers", &peers])
            .row(["reached", &reached(&status.reach)])
            .row(["inbound", &inbound(&status.inbound)])
            .row(["sends", &way(&status.traffic.rates.up)])
            .row(["gets", &way(&status.traffic.rates.down)])
            .row(["version", &status.version]);
        if let Some(incarnation) = status.incarnation {
            table.row(["incarnation", &incarnation.to_string()]);
        }
        if let Some(relaying) = &status.reach.relaying {
            let (peers, circuits) =
                (show::some(relaying.reservations, "peer"), show::some(relaying.circuits, "connection"));
            table.row(["relays for", &format!("{peers}, {circuits}, {} refused", show::count(relaying.refused))]);
        }
        for link in &status.links {
            table.row(["feed link", link]);
        }
        if status.pending_requests > 0 {
            table.row(["waiting requests", &format!("{} (tributary access ls)", status.pending_requests)]);
        }
        let (chunks, used) = (show::count(status.store.chunks), show::bytes(status.store.used_bytes));
        table.row(["store", &format!("{chunks} chunks, {used} on the disk")]);
        let served = &status.served;
        table.row(["served", &format!("{} chunks, {}", show::count(served.chunks), show::bytes(served.bytes))]);
        table.write(out)?;
        if !status.streams.is_empty() {
            writeln!(out, "\nStreams:")?;
            let mut table = Table::new();
            table.row(["NAME", "ACCESS", "RECEIVED", "DROPPED", "REFUSED", "STORED", "CHUNKS", "WAITING"]);
            for stream in &status.streams {
                let lane = &stream.lane;
                table.row([
                    stream.name.clone(),
                    stream.policy.clone(),
                    show::count(lane.received),
                    show::count(lane.dropped),
                    show::count(lane.refused),
                    show::count(lane.durable_packages),
                    show::count(lane.chunks),
                    show::count(lane.queued),
                ]);
            }
            table.write(out)?;
        }
        if let Some(ros2) = &status.ros2 {
            let paused = if ros2.paused { ", PAUSED" } else { "" };
            writeln!(out, "\nROS 2 node {} ({}{paused}):", ros2.node, ros2.middleware)?;
            let mut table = Table::new();
            table.row(["TOPIC", "TYPE", "STATE", "PUBLISHERS", "RECEIVED", "LOST", "DROPPED", "REFUSED", "LEFT OUT"]);
            for (source, lane) in status.streams.iter().filter_map(|s| Some((s.source.as_ref()?, &s.lane))) {
                table.row([
                    source.topic.clone(),
                    source.message_type.clone().unwrap_or_else(|| "-".to_owned()),
                    source_state(source.state).to_owned(),
                    show::count(source.publishers),
                    show::count(source.received),
                    show::count(source.lost),
                    show::count(lane.dropped),
                    show::count(source.refused.saturating_add(lane.refused)),
                    show::count(source.paused),
                ]);
            }
            table.write(out)?;
        }
        if !status.followed.is_empty() {
            writeln!(out, "\nFollowing:")?;
            let mut table = Table::new();
            table.row(["MACHINE", "FROM", "LOGS", "ENTRIES", "BEHIND", "HEAD"]);
            for feed in &status.followed {
                let entries: u64 = feed.logs.iter().map(|log| log.entries.saturating_sub(log.first)).sum();
                let behind: u64 =
                    feed.logs.iter().map(|log| log.announced.unwrap_or(log.entries).saturating_sub(log.entries)).sum();
                // The oldest one: a single log that stands still is what somebody would hide.
                let head = feed.logs.iter().filter_map(|log| log.head_age_s).max();
                table.row([
                    feed.did.to_string(),
                    // A dataset's id is long, and its beginning enough to know it by.
                    feed.from.chars().take("dataset:".len() + 12).collect(),
                    feed.logs.len().to_string(),
                    show::count(entries),
                    show::count(behind),
                    head.map_or_else(
                        || "none yet".to_owned(),
                        |age| format!("{} ago", show::age(age.saturating_mul(1000))),
                    ),
                ]);
            }
            table.write(out)?;
            for feed in status.followed.iter().filter(|feed| !feed.sources.is_empty()) {
                writeln!(out, "\nChunks of {} came from:", feed.did)?;
                for source in &feed.sources {
                    let (chunks, size) = (show::some(source.chunks, "chunk"), show::bytes(source.bytes));
                    writeln!(out, "  {}  {chunks}, {size}", source.peer)?;
                }
            }
            if status.served.followed {
                writeln!(out, "\nThese feeds are served to others, too.")?;
            }
        }
        if let Some(mirror) = &status.mirror {
            writeln!(out, "\nKeeping:")?;
            let mut table = Table::new();
            table.row([
                "MACHINE", "ENTRIES", "BEHIND", "CHUNKS", "OF", "BYTES", "MISSING", "DROPPED", "DEPOSITS", "HEAD",
            ]);
            for feed in &mirror.feeds {
                let head = feed.head_age_s.map(|age| format!("{} ago", show::age(age.saturating_mul(1000))));
                table.row([
                    feed.did.to_string(),
                    show::count(feed.entries),
                    show::count(feed.behind),
                    show::count(feed.chunks),
                    show::count(feed.chunks_known),
                    show::bytes(feed.bytes),
                    show::count(feed.missing),
                    show::count(feed.dropped),
                    show::count(feed.deposits),
                    head.unwrap_or_else(|| "none yet".to_owned()),
                ]);
            }
            table.write(out)?;
            for (did, trouble) in mirror.feeds.iter().filter_map(|feed| Some((feed.did, feed.trouble.as_ref()?))) {
                writeln!(out, "{did}: {trouble}")?;
            }
        }
        if !status.leaving.is_empty() {
            writeln!(out, "\nGrants are left with:")?;
            let mut table = Table::new();
            table.row(["MIRROR", "LEFT", "WAITING", "REFUSED", "LAST ERROR"]);
            for mirror in &status.leaving {
                table.row([
                    mirror.mirror.clone(),
                    show::count(mirror.left),
                    show::count(mirror.waiting),
                    show::count(mirror.refused),
                    mirror.error.clone().unwrap_or_else(|| "-".to_owned()),
                ]);
            }
            table.write(out)?;
        }
        if !status.subscriptions.is_empty() {
            writeln!(out, "\nSubscriptions:")?;
            let mut table = Table::new();
            table.row(["STREAM", "MACHINE", "STATE", "KEYS UNTIL", "CHUNKS", "PACKAGES", "BEHIND", "LEFT OUT", "FILE"]);
            for subscription in &status.subscriptions {
                table.row([
                    subscription.stream.clone(),
                    subscription.machine.to_string(),
                    state(subscription.state).to_owned(),
                    subscription.until_ms.map_or_else(|| "-".to_owned(), show::time),
                    show::count(subscription.chunks),
                    show::count(subscription.packages),
                    show::count(subscription.behind),
                    show::count(subscription.skipped),
                    subscription.file.as_ref().map_or_else(|| "-".to_owned(), |file| file.display().to_string()),
                ]);
            }
            table.write(out)?;
        }
        for (did, proof) in status.followed.iter().flat_map(|feed| feed.proofs.iter().map(|proof| (feed.did, proof))) {
            let [first, second] = proof.entries.map(|hash| hash.to_string());
            writeln!(
                out,
                "\nproof: {did} signed two entries for position {} of log {}, {first} and {second} (key {}); the signatures are in \
                 `tributary status --json`",
                proof.seq, proof.log, proof.key
            )?;
        }
        for warning in &status.warnings {
            writeln!(out, "\nwarning: {}", warning.message)?;
        }
        Ok(())
    })
}

fn state(state: SubscriptionState) -> &'static str {
    match state {
        SubscriptionState::Starting => "starting",
        SubscriptionState::Live => "live",
        SubscriptionState::Waiting => "waits for the operator",
        SubscriptionState::Failing => "FAILING",
        SubscriptionState::Ended => "ENDED",
        SubscriptionState::Passive => "without renewal",
    }
}

fn source_state(state: SourceState) -> &'static str {
    match state {
        SourceState::Waiting => "waits for a publisher",
        SourceState::Subscribed => "subscribed",
        SourceState::Paused => "PAUSED",
        SourceState::Refused => "REFUSED",
    }
}

pub(super) fn peers(context: &Context) -> Result<(), CliError> {
    let NodeStatus { peers, banned, .. } = ask(context)?;
    context.output.document(&peers, |out| {
        for ban in &banned {
            let end = ban.left_s.map_or_else(|| "for good".to_owned(), |left| format!("for {left} s more"));
            writeln!(out, "{} is banned {end}.", ban.peer)?;
        }
        if peers.is_empty() {
            return writeln!(out, "No peer is connected.");
        }
        let mut table = Table::new();
        table.row(["PEER", "ADDRESS", "PATH", "WHO", "ROUND TRIP", "SCORE"]);
        for peer in &peers {
            table.row([
                peer.peer.clone(),
                peer.addr.clone(),
                path_of(peer),
                if peer.inbound { "dialled us" } else { "dialled by us" }.to_owned(),
                peer.rtt_ms.map_or_else(|| "-".to_owned(), |rtt| format!("{rtt} ms")),
                format!("{:.0}", peer.score),
            ]);
        }
        table.write(out)
    })
}
